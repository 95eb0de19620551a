"""Options that several commands have, with one help text each."""

from typing import Annotated

import tyro

from einsort_vla.codec import FORMS

CodecOption = Annotated[
    str,
    tyro.conf.arg(
        help=f"Form of the code ({', '.join(FORMS)}), with options of its menu: leader, "
        '"leader window=10", "scalar group=128 grid=asymmetric clip=true", '
        '"network decomposition=tt".'
    ),
]

BackendOption = Annotated[
    str,
    tyro.conf.arg(
        help="How coded weights are multiplied: decoded (at load), cpu (compiled code, from the "
        "streams), cuda or triton (the same on a GPU), auto (the fastest that runs here), "
        'reference or factored. Options follow, if it has any: "cuda decode_from=33". The reason '
        "of each fallback is logged.",
    ),
]
