"""Values that break readers: of other types, out of every range, endless, leading elsewhere."""

import random
from pathlib import Path
from typing import Any

from tests.fuzz.change import ESCAPED

Node = Any  # what JSON has, `Raw`, and `Twin` as a key


class Raw:
    """A piece of JSON that no value gives, as it is written."""

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return f"Raw({self.text[:20]!r})"


class Twin(str):
    """A key that a mapping can hold twice."""

    __slots__ = ()
    __hash__ = object.__hash__

    def __eq__(self, other: object) -> bool:
        return self is other


NOT_FINITE = ("NaN", "Infinity", "-Infinity", "1e400")
INTEGERS = (0, 1, 2, -1, 3, 7, 255, 2**15, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63, 2**64,
            -(2**31), -(2**63), 10**30)  # fmt: skip
FLOATS = (0.0, -0.0, 0.5, 1.0, -1.0, 1e-320, 1e-30, 1e30, 1e308, -1e308, 1e400)
TEXTS = ("", " ", "0", "false", "NaN", "a\0b", "\ud800", "\u202e", "[a](b)[red]", "%s{}{0}",
         "é" * 300, "x" * 100_000, "curve", "float64", "cuda", "<script>", "a\nb\r\n", "None",
         "~", "*", "subprocess.Popen")  # fmt: skip
DEPTHS = (50, 1000, 5000, 100_000)


def hostile_path(rng: random.Random, outside: Path) -> str:
    """A name that leads out of its folder."""
    up = "../" * rng.choice((1, 2, 3, 12))
    absolute = str(outside / ESCAPED)
    return rng.choice((
        f"../{ESCAPED}", f"../../{ESCAPED}", absolute, up + absolute[1:],
        f"a/../../{ESCAPED}", f"./{ESCAPED}", ".", "..", "/", "/dev/null", "/dev/zero",
        f"{ESCAPED}\0.json", f"..\\{ESCAPED}", f"~/{ESCAPED}", f"{ESCAPED}.module:call",
    ))  # fmt: skip


def hostile(rng: random.Random, old: Node, outside: Path) -> Node:
    """A value in the place of another."""
    choice = rng.randrange(10)
    if choice == 0:
        return None
    if choice == 1:
        return rng.choice((True, False))
    if choice in (2, 3):
        return rng.choice(INTEGERS)
    if choice == 4:
        return rng.choice(FLOATS[:-1]) if rng.random() < 0.5 else Raw(rng.choice(NOT_FINITE))
    if choice == 5:
        return rng.choice(TEXTS)
    if choice == 6:
        return hostile_path(rng, outside)
    if choice == 7:
        return rng.choice(([], {}, [old], {"a": old}, [[]] * 50, [None], [old, old], {"": None}))
    if choice == 8:
        return nested(rng)
    return _other_spelling(rng, old)


def nested(rng: random.Random) -> Raw:
    """Lists in lists, closed or not."""
    depth, is_list = rng.choice(DEPTHS), rng.random() < 0.5
    start, end = ("[", "]") if is_list else ('{"a":', "}")
    return Raw(start * depth + ("0" + end * depth if rng.random() < 0.7 else ""))


def _other_spelling(rng: random.Random, old: Node) -> Node:
    """The same in another type, or a near one."""
    if isinstance(old, bool):
        return rng.choice((int(old), str(old).lower(), not old))
    if isinstance(old, int):
        return rng.choice((float(old), str(old), -old, old + 1, old - 1, old * 2, old / 2))
    if isinstance(old, float):
        return rng.choice((str(old), -old, old * 2, old + 1, [old]))
    if isinstance(old, str):
        return rng.choice((old + " ", old.upper(), old[:-1], old * 2, [old], list(old), old + "\0"))
    if isinstance(old, list):
        return rng.choice((old[::-1], old[1:], old * 2, dict(enumerate(map(str, old))), str(old)))
    if isinstance(old, dict):
        return rng.choice((list(old), list(old.values()), [list(p) for p in old.items()], str(old)))
    return rng.choice((0, "null", []))


def type_of(value: Node) -> str:
    """The type that a strict reader tells apart."""
    if isinstance(value, Raw):
        return "raw"
    return type(value).__name__


def is_same_type(old: Node, new: Node) -> bool:
    """Whether a value may stand where the other stood."""
    if isinstance(old, float) and type_of(new) == "int":
        return True
    return type_of(old) == type_of(new)
