"""What a code is: its form and parameters, its bits, and the error theory expects of it."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

from einsort_vla.codec import tables
from einsort_vla.errors import UsageError, unknown_name

Form = Literal["dense", "leader", "scalar"]
FORMS: tuple[str, ...] = get_args(Form)
SCALE_BITS = 16  # one float16 per output row
DENSE_BITS = 16  # bfloat16
MAX_COMPANDED_BITS = 14
SCALAR_BITS = range(2, 16)


@dataclass(frozen=True)
class CodecSpec:
    """The code of one matrix.

    `dense`: bfloat16, kept as it is.
    `leader`: signs apart; slices of `d` magnitudes down a column, `b` index bits each, looked up by
        a window of `s` + `b` bits. With d = 1, s = 0 and b >= 5 the table is a companded grid.
    `scalar`: symmetric round-to-nearest with `b` bits and the largest magnitude of a row as scale.
    """

    form: Form
    b: int = 0
    d: int = 1
    s: int = 0

    def __post_init__(self) -> None:
        if self.form not in FORMS:
            raise unknown_name("codec form", self.form, FORMS)
        if self.form == "scalar" and self.b not in SCALAR_BITS:
            raise UsageError(f"scalar takes 2 to 15 bits; {self.b} was asked for.")
        if self.form == "leader" and not (self.is_companded or self.window in tables.available()):
            raise UsageError(
                f"there is no leader table for d={self.d} b={self.b} s={self.s}. "
                f"Tables: {', '.join(map(str, sorted(tables.available())))} as (d, b, s)."
            )

    @property
    def window(self) -> tuple[int, int, int]:
        return (self.d, self.b, self.s)

    @property
    def is_companded(self) -> bool:
        in_range = tables.COMPANDED_FROM <= self.b <= MAX_COMPANDED_BITS
        return self.form == "leader" and self.d == 1 and self.s == 0 and in_range

    @property
    def bits_per_weight(self) -> float:
        """Without scales and padding; `n_bits` of the interface counts those."""
        return {"dense": DENSE_BITS, "leader": 1 + self.b / self.d, "scalar": self.b}[self.form]

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def menu(form: str) -> list[CodecSpec]:
    """All codes of a form from few bits to many, with `dense` as the last.

    Raises:
        UsageError: the form is unknown, or is `dense` itself.
    """
    if form == "leader":
        tabled = [CodecSpec("leader", d=d, b=b, s=s) for d, b, s in tables.available()]
        grids = range(tables.COMPANDED_FROM, MAX_COMPANDED_BITS + 1)
        specs = tabled + [CodecSpec("leader", b=b) for b in grids]
    elif form == "scalar":
        specs = [CodecSpec("scalar", b=b) for b in SCALAR_BITS]
    else:
        raise unknown_name("codec", form, set(FORMS) - {"dense"})
    return [*sorted(specs, key=lambda spec: spec.bits_per_weight), CodecSpec("dense")]


def predicted_distortion(spec: CodecSpec, in_features: int) -> float:
    """Relative mean squared error on a row of i.i.d. Gaussian weights of that length."""
    if spec.form == "dense":
        return 0.0
    if spec.form == "leader":
        if not spec.is_companded:
            return tables.distortion(*spec.window)
        # Panter and Dite 1951: sqrt(3) pi / 2 times 4^-R for the optimal compander of a Gaussian.
        return math.sqrt(3) * math.pi / 2 * 4.0 ** -(1 + spec.b)
    # Uniform noise in steps of the largest of n Gaussian magnitudes over 2^(b-1) - 1 levels. Its
    # typical size, sqrt(2 ln n), is within 10 % for rows of 100 to 10,000.
    step = math.sqrt(2 * math.log(max(in_features, 2))) / (2 ** (spec.b - 1) - 1)
    return min(1.0, step**2 / 12)
