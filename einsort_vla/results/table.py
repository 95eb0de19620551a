"""Tables of results, before any renderer: the terminal, Markdown and the pages show the same."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from einsort_vla.results import wording


@dataclass(frozen=True)
class Cell:
    """What is known of one arm in one column."""

    text: str = wording.DASH
    notes: tuple[str, ...] = ()  # lines below, smaller
    state: str = ""  # a verdict; "worse" or "better" where the interval is clear of no change

    @property
    def lines(self) -> tuple[str, ...]:
        return (self.text, *self.notes)


@dataclass(frozen=True)
class Column:
    """One number, by row."""

    title: str
    note: str
    cells: Mapping[str, Cell]


@dataclass(frozen=True)
class Table:
    """Arms in rows."""

    title: str
    rows: Mapping[str, str | None]  # name to codec, None of the dense arm
    columns: tuple[Column, ...]

    def cells(self, row: str) -> list[Cell]:
        """Of one row, a dash where nothing is known."""
        return [column.cells.get(row, Cell()) for column in self.columns]


def markdown(table: Table) -> str:
    """The table as Markdown; the lines of a cell are parted by <br>."""
    heads = ["arm", *(_broken((column.title, column.note)) for column in table.columns)]
    rows = [[name, *(_broken(cell.lines) for cell in table.cells(name))] for name in table.rows]
    return "\n".join(_row(row) for row in [heads, ["---"] * len(heads), *rows])


def _broken(lines: Sequence[str]) -> str:
    return "<br>".join(filter(None, lines))


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
