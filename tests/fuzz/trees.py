"""Mutations of what JSON and YAML hold: values, keys, lists."""

import json
import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from tests.fuzz.change import ESCAPED, Change, Target
from tests.fuzz.values import Node, Raw, Twin, hostile, hostile_path, is_same_type, nested

MANY = 20_000  # items of a list that is made long


@dataclass
class Tree:
    """A document that is changed in one place.

    Attributes:
        root: its content.
        target: the file it is of.
        where: its name in places.
        outside: see `Spot`.
        many: items of a list that is made long; less where reading is slow.
    """

    root: Node
    target: Target
    rng: random.Random
    where: str
    outside: Path
    many: int = MANY


@dataclass(frozen=True)
class _Place:
    container: Node
    key: Node
    name: str

    @property
    def value(self) -> Node:
        return self.container[self.key]


def to_text(node: Node, is_yaml: bool = False) -> str:
    """JSON, which YAML is, too, but for some numbers."""
    if isinstance(node, Raw):
        return {"NaN": ".nan", "Infinity": ".inf", "-Infinity": "-.inf"}.get(
            node.text, node.text
        ) if is_yaml else node.text  # fmt: skip
    if isinstance(node, dict):
        inner = (f"{json.dumps(str(k))}: {to_text(v, is_yaml)}" for k, v in node.items())
        return "{" + ", ".join(inner) + "}"
    if isinstance(node, list | tuple):
        return "[" + ", ".join(to_text(item, is_yaml) for item in node) + "]"
    if isinstance(node, float) and math.isinf(node):
        return ".inf" if is_yaml else "1e400"
    if isinstance(node, float) and is_yaml:
        text = repr(node)
        return text if "." in text or "e" not in text else text.replace("e", ".0e")
    return json.dumps(node)


def change_tree(tree: Tree) -> Change | None:
    """One of the mutations below, at a random place."""
    names, weights = zip(*MUTATIONS.items(), strict=True)
    mutation: Callable[[Tree, _Place], Change | None] = tree.rng.choices(names, weights)[0]
    for _ in range(8):  # not every place has something to be changed like that
        place = _descend(tree)
        if place is not None and (change := mutation(tree, place)):
            is_free = change.may_differ or tree.target.is_free(place.name)
            return replace(change, may_differ=is_free)
    return None


def _descend(tree: Tree) -> _Place | None:
    """A place anywhere; lists of thousands have no greater share than single values."""
    holder: dict[str, Node] = {"": tree.root}
    place = _Place(holder, "", tree.where)
    while isinstance(place.value, dict | list) and place.value:
        if tree.rng.random() < 0.15 and place.container is not holder:
            return place
        keys = list(place.value) if isinstance(place.value, dict) else range(len(place.value))
        key = tree.rng.choice(list(keys))
        place = _Place(place.value, key, f"{place.name}.{key}")
    return None if place.container is holder else place


def replace_value(tree: Tree, place: _Place) -> Change | None:
    old = place.value
    place.container[place.key] = new = hostile(tree.rng, old, tree.outside)
    is_free = _is_as_good(tree, place, old, new)
    is_left_out = new is None and tree.target.is_optional(place.name)
    return Change(
        "replace_value", f"{place.name} {old!r:.60} -> {new!r:.60}", is_free or is_left_out
    )


def _is_as_good(tree: Tree, place: _Place, old: Node, new: Node) -> bool:
    """Whether the other value says something else that is as valid."""
    if tree.target.is_label(place.name) and type(old) in (int, str) and type(new) in (int, str):
        return True
    return is_same_type(old, new) and tree.target.is_setting(place.name)


def null_value(tree: Tree, place: _Place) -> Change | None:
    place.container[place.key] = None
    return Change("null_value", place.name, tree.target.is_optional(place.name))


def not_finite(tree: Tree, place: _Place) -> Change | None:
    if isinstance(place.value, bool) or not isinstance(place.value, int | float):
        return None
    place.container[place.key] = new = Raw(tree.rng.choice(("NaN", "Infinity", "-Infinity")))
    is_left_out = tree.target.is_optional(place.name)  # as a figure that was not measured
    return Change("not_finite", f"{place.name} -> {new.text}", is_left_out)


def remove_key(tree: Tree, place: _Place) -> Change | None:
    is_free = tree.target.is_setting(place.name) and isinstance(place.container, list)
    del place.container[place.key]
    return Change("remove_key", place.name, is_free or tree.target.is_optional(place.name))


def rename_key(tree: Tree, place: _Place) -> Change | None:
    if not isinstance(place.container, dict):
        return None
    rng, key = tree.rng, str(place.key)
    new = rng.choice((key + "_", key[:-1], key.upper(), "", "\0", "x" * 3000, "__class__",
                      hostile_path(rng, tree.outside)))  # fmt: skip
    items = [(new if k == place.key else k, v) for k, v in place.container.items()]
    place.container.clear()
    place.container.update(items)
    return Change("rename_key", f"{place.name} -> {new!r:.60}", tree.target.is_optional(place.name))


def add_key(tree: Tree, place: _Place) -> Change | None:
    if not isinstance(place.container, dict):
        return None
    new = tree.rng.choice((ESCAPED, "", "schema", "type", "__init__", "x" * 3000, "auto_map"))
    if new in place.container:
        return None
    place.container[new] = value = hostile(tree.rng, place.value, tree.outside)
    is_free = tree.target.is_optional(f"{place.name.rpartition('.')[0]}.{new}")
    return Change("add_key", f"{place.name} + {new!r:.40} {value!r:.60}", is_free)


def duplicate_key(tree: Tree, place: _Place) -> Change | None:
    """The same key before or after with another value; readers take the last one."""
    if not isinstance(place.container, dict):
        return None
    items, old, is_last = list(place.container.items()), place.value, tree.rng.random() < 0.5
    twin = Twin(str(place.key)), hostile(tree.rng, old, tree.outside)
    items.insert(len(items) if is_last else 0, twin)
    place.container.clear()
    place.container.update(items)
    is_free = _is_as_good(tree, place, old, twin[1])
    is_free |= twin[1] is None and tree.target.is_optional(place.name)
    return Change("duplicate_key", f"{place.name} {twin[1]!r:.60}", is_last and is_free)


def swap_siblings(tree: Tree, place: _Place) -> Change | None:
    keys = list(place.container) if isinstance(place.container, dict) else []
    if len(keys) < 2:
        return None
    other, mine = tree.rng.choice(keys), place.value
    is_free = _is_as_good(tree, place, mine, place.container[other])
    place.container[place.key], place.container[other] = place.container[other], mine
    return Change("swap_siblings", f"{place.name} <-> {str(other)[:60]}", is_free)


def _collection(change: Callable[[Tree, Node], Node], name: str):
    def mutation(tree: Tree, place: _Place) -> Change | None:
        if not isinstance(place.value, list | dict):
            return None
        old, new = place.value, change(tree, place.value)
        place.container[place.key] = new
        is_free = _is_as_good(tree, place, old, new)
        return Change(name, place.name, is_free)

    return mutation


empty_it = _collection(lambda tree, value: type(value)(), "empty_it")
double_list = _collection(lambda tree, v: v * 2 if isinstance(v, list) else [v, v], "double_list")
long_list = _collection(
    lambda tree, v: (v * tree.many)[: tree.many] if isinstance(v, list) else [0] * tree.many,
    "long_list",
)


def deep_nesting(tree: Tree, place: _Place) -> Change | None:
    place.container[place.key] = nested(tree.rng)
    return Change("deep_nesting", place.name)


MUTATIONS = {
    replace_value: 8, null_value: 1, not_finite: 2, remove_key: 3, rename_key: 2, add_key: 2,
    duplicate_key: 2, swap_siblings: 1, empty_it: 2, double_list: 1, long_list: 0.5,
    deep_nesting: 0.7,
}  # fmt: skip
