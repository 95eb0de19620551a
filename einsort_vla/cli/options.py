"""Options that several commands have, with one help text each."""

import re
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

_UNITS = {"": 1, "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "KiB": 2**10, "MiB": 2**20,
          "GiB": 2**30}  # fmt: skip


def read_size(text: str) -> int:
    """Bytes of a text such as `300MB`, `1.5 GiB` or `314572800`.

    Raises:
        UsageError: it is no size.
    """
    found = re.fullmatch(r"\s*(\d{1,15}(?:\.\d{1,9})?)\s*([A-Za-z]*)\s*", text)
    units = {name.lower(): unit for name, unit in _UNITS.items()}
    if found is None or found[2].lower() not in units:
        raise UsageError(
            f"--size {text} is no size. Give the bytes of the whole weight file, such as 300MB "
            "(10^6 bytes) or 300MiB (2^20)."
        )
    return int(float(found[1]) * units[found[2].lower()])


SizeOption = Annotated[
    int | None,
    PrimitiveConstructorSpec[int | None](
        nargs=1,
        metavar="BYTES",
        instance_from_str=lambda texts: read_size(texts[0]),
        is_instance=lambda value: value is None or isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]
"""What a file may weigh: an alternative to a rate."""


def check_goal(command: str, **given: float | Path | None) -> None:
    """Refuse all but one of the options that say how far to compress, and rates that cannot be.

    Raises:
        UsageError: none or several are given, or a rate is outside its range.
    """
    from einsort_vla.plan import check_rate

    names = [name for name, value in given.items() if value is not None]
    if len(names) != 1:
        valid = {"rate": "--rate 0.8", "size": "--size 300MB", "plan": "--plan FILE"}
        what = " and ".join(f"--{name}" for name in names) + " were" if names else "none was"
        raise UsageError(
            f"{command} takes one of {', '.join(valid[name] for name in given)}; {what} given."
        )
    if (rate := given["rate"]) is not None:
        assert isinstance(rate, float)
        check_rate(rate)


CodecOption = Annotated[
    str,
    tyro.conf.arg(
        help=f"Form of the code ({', '.join(FORMS)}), with options of its "
        'menu: curve, "curve window=16", "scalar group=128 grid=asymmetric clip=true", '
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
