"""Options that several commands have, with one help text each."""

from pathlib import Path
from typing import Annotated

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from einsort_vla.errors import UsageError
from einsort_vla.names import BACKENDS, FORMS


def _rate(texts: list[str]) -> float:
    try:
        return float(texts[0])
    except ValueError:
        raise UsageError(
            f"--rate {texts[0]} is no number. Give the share of bytes to remove, such as 0.5."
        ) from None


_RATE = PrimitiveConstructorSpec[float | None](
    nargs=1,
    metavar="SHARE",
    instance_from_str=_rate,
    is_instance=lambda value: value is None or isinstance(value, float | int),
    str_from_instance=lambda value: [str(value)],
)
RateOption = Annotated[float | None, _RATE]
RequiredRate = Annotated[float, _RATE]

CodecOption = Annotated[
    str,
    tyro.conf.arg(
        help=f"Form of the code ({', '.join(FORMS)}), with options of its "
        'menu: leader, "leader window=10", "scalar group=128 grid=asymmetric clip=true", '
        '"network decomposition=tt".'
    ),
]

BackendOption = Annotated[
    str,
    tyro.conf.arg(
        help='How coded weights are multiplied, with options if there are any ("cuda '
        'decode_from=33"); each fallback is logged with its reason: '
        + ", ".join(f"{name} ({how})" for name, how in BACKENDS.items())
        + ".",
    ),
]

CalibrateOption = Annotated[
    str | None,
    tyro.conf.arg(
        metavar="SOURCE",
        help="Keep the outputs of layers close, not their weights, on what the policy sees in "
        "use. SOURCE is the file that eval/calibrate.py wrote for it (bits then also go where its "
        "actions need them), or what to watch the dense policy on now: a LeRobot dataset's folder "
        "or hub id, or the observation files of eval/calibrate.py; for a language model, a text "
        "file.",
    ),
]

TrustKeyOption = Annotated[
    tuple[Path, ...],
    tyro.conf.UseAppendAction,
    tyro.conf.arg(
        metavar="PEM",
        help="Public key (Ed25519, PEM) of a maker that you trust; the folder must be signed with "
        "one of those given. Without it, fingerprints say that nothing changed, not who made it.",
    ),
]
