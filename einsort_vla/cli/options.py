"""Options that several commands have, with one help text each.

The texts name forms and backends themselves: to ask the codec would load torch.
"""

from typing import Annotated

import tyro

CodecOption = Annotated[
    str,
    tyro.conf.arg(
        help="Form of the code (leader, local, lossless, network, scalar), with options of its "
        'menu: leader, "leader window=10", "scalar group=128 grid=asymmetric clip=true", '
        '"network decomposition=tt".'
    ),
]

BackendOption = Annotated[
    str,
    tyro.conf.arg(
        help="How coded weights are multiplied: decoded (at load), cpu (compiled code, from the "
        "streams), cuda or triton (the same on a GPU), auto (the fastest that runs here), "
        'reference or factored. Options follow, if it has any: "cuda decode_from=33". The reason '
        "of each fallback is logged."
    ),
]

CalibrateOption = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="SOURCE",
        help="What the policy sees in use, so that its layers' outputs, not their weights, are "
        "kept close: the file that eval/calibrate.py wrote for it (bits then also go where its "
        "actions need them), or what to watch the dense policy on now: a LeRobot dataset's "
        "folder or hub id, or the observation files of eval/calibrate.py; for a language model, a "
        "text file.",
    ),
]
