"""The options that all evaluations share; importing this loads nothing heavy."""

from dataclasses import dataclass
from pathlib import Path

from einsort_vla.cli.options import CalibrateOption, CodecOption
from einsort_vla.errors import UsageError
from einsort_vla.names import DEFAULT_FORM


@dataclass(frozen=True)
class RunSettings:
    """Rates and codes of the compressed arms (the dense one is always there), and the folder."""

    rate: str | None = None
    """Share of the linear weights' bytes to remove, 0 to 0.95; 0 runs the dense model alone.
    Several separated by commas, or a series: 0,0.1,...,0.9."""
    size: str | None = None
    """Bytes of a compressed model's whole weight file instead of rates: 300MB, or several separated
    by commas."""
    codec: CodecOption = DEFAULT_FORM
    """Several separated by commas."""
    include: str = "*"
    """Patterns, separated by commas, of tensor names that may be coded: "*text_model*" for the
    language part of SmolVLM2 alone."""
    exclude: str = ""
    """Patterns of names that stay dense although --include has them. They count in the rate."""
    calibrate: CalibrateOption = None
    output: Path | None = None
    """Folder for the results; default: a new one in outputs/, named after command and time."""
    resume: bool = False
    """Go on with the run in --output; what it has already is kept."""

    @property
    def patterns(self) -> tuple[list[str], list[str]]:
        """`include` and `exclude` as lists."""
        return self.include.split(","), self.exclude.split(",") if self.exclude else []


def check_least(least: int, **numbers: int) -> None:
    """Refuse options, by their names, that are too small.

    Raises:
        UsageError: one is below `least`.
    """
    for name, value in numbers.items():
        if value < least:
            raise UsageError(f"--{name.replace('_', '-')} {value} must be at least {least}.")
