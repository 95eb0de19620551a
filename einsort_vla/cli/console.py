"""The console of all commands: what it is given to print is printed as it is."""

from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text


def size(n_bytes: float) -> str:
    """Bytes for people: `3.71 MB`, `12.0 kB`."""
    return f"{n_bytes / 1e6:.2f} MB" if n_bytes >= 1e5 else f"{n_bytes / 1e3:.1f} kB"


def saved(share: float) -> str:
    """A share of bytes that is saved, or, where scales and padding outweigh the codes, added."""
    percent = round(100 * share, 1) + 0.0  # no minus before 0
    return f"{-percent:.1f} % larger" if percent < 0 else f"{percent:.1f} % smaller"


class PlainConsole(Console):
    """Takes no text for rich's markup or emoji: [brackets] and :colons: of names stay."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """As of rich, where a text would be markup whatever the console says."""
        return super().status(Text(status) if isinstance(status, str) else status, **options)
