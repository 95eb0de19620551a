"""The console of all commands: what it is given to print is printed as it is."""

from typing import Any

from rich.console import Console, RenderableType
from rich.status import Status
from rich.text import Text


class PlainConsole(Console):
    """Takes no text for rich's markup or emoji: [brackets] and :colons: of names stay."""

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def status(self, status: RenderableType, **options: Any) -> Status:
        """As of rich, where a text would be markup whatever the console says."""
        return super().status(Text(status) if isinstance(status, str) else status, **options)
