"""What a mutation did, and what it is given to do it."""

import random
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

ESCAPED = "escaped"  # the name of whatever a hostile file asks to be written, read or imported


@dataclass(frozen=True)
class Change:
    """One mutation as it was applied.

    Attributes:
        mutation: name of its function.
        place: file, and where in it.
        may_differ: whether the files say something else now, which nobody can tell from what they
            said: another number in the payload, another valid setting.
    """

    mutation: str
    place: str
    may_differ: bool = False


@dataclass(frozen=True)
class Target:
    """A file of a sample that is mutated.

    Attributes:
        file: its name, or a pattern of names, in the sample.
        form: how it is written: one of `mutate.FORMS`.
        weight: how often it is chosen beside the others.
        settings: patterns of places whose value is free: another one of the same type is as good.
        optional: patterns of places that may be left out.
        labels: patterns of places that hold a number or a text, as their makers like.
        free: patterns of places that may hold anything at all.
        has_free_bytes: whether nothing of what it says can be checked: a text, a graph.
    """

    file: str
    form: str
    weight: float = 1.0
    settings: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    has_free_bytes: bool = False

    def is_setting(self, place: str) -> bool:
        return _fits(place, self.settings)

    def is_optional(self, place: str) -> bool:
        return _fits(place, self.optional)

    def is_label(self, place: str) -> bool:
        return _fits(place, self.labels)

    def is_free(self, place: str) -> bool:
        return self.has_free_bytes or _fits(place, self.free)


def _fits(place: str, patterns: tuple[str, ...]) -> bool:
    return any(fnmatchcase(place, pattern) for pattern in patterns)


@dataclass(frozen=True)
class Spot:
    """Where a mutation works."""

    path: Path  # of the file
    target: Target
    rng: random.Random
    outside: Path  # a folder that nothing may be written to, read from or imported from


Mutation = Callable[[Spot], Change | None]  # None: there is nothing to change like that
