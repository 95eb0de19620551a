"""One or two changes of a copied sample, with right fingerprints again."""

import json
import random
from pathlib import Path

import yaml

from tests.fuzz.archives import any_bytes, bomb, change_archive
from tests.fuzz.change import Change, Mutation, Spot, Target
from tests.fuzz.files import change_file
from tests.fuzz.kinds.kind import Kind
from tests.fuzz.tensors import change_tensors
from tests.fuzz.trees import Tree, change_tree, to_text

TWICE, UNSIGNED = 0.15, 0.1  # shares of the cases


def change_json(spot: Spot) -> Change | None:
    tree = Tree(
        json.loads(spot.path.read_text()), spot.target, spot.rng, spot.path.name, spot.outside
    )
    change = change_tree(tree)
    spot.path.write_bytes(to_text(tree.root).encode("utf-8", "surrogatepass"))
    return change


def change_yaml(spot: Spot) -> Change | None:
    root = yaml.safe_load(spot.path.read_text())
    tree = Tree(root, spot.target, spot.rng, spot.path.name, spot.outside, many=1000)
    change = change_tree(tree)
    text = to_text(tree.root, is_yaml=True)
    if spot.rng.random() < 0.15:
        text, change = _yaml_only(spot, text)
    spot.path.write_bytes(text.encode("utf-8", "surrogatepass"))
    return change


def _yaml_only(spot: Spot, text: str) -> tuple[str, Change]:
    """What JSON has not: tags that run code, aliases that grow, several documents."""
    laughs = "a0: &a0 [x, x]\n" + "".join(
        f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]\n" for k in range(1, 12)
    )
    name, new = spot.rng.choice((
        ("tag", f"!!python/object/apply:os.system ['touch {spot.outside}/escaped']"),
        ("alias_bomb", laughs), ("documents", f"{text}\n---\n{text}"), ("loop", "&a [*a]"),
        ("loop_in_place", text[:-1] + ", extends: &a {extends: *a}}"), ("tab", "\t" + text),
        ("date", text[:-1] + ", name: 2026-11-28}"), ("set", "!!set {a, b}"),
        ("binary", "!!binary aGVsbG8="), ("merge", "<<: [1, 2]\n"), ("unclosed", text[:-1]),
    ))  # fmt: skip
    return new, Change(f"yaml_{name}", spot.path.name)


def change_lines(spot: Spot) -> Change | None:
    """A line of a log: its values, its order, its end."""
    lines, rng = spot.path.read_text().splitlines(), spot.rng
    at = rng.randrange(len(lines))
    place = f"{spot.path.name}.{at}"
    kind = rng.randrange(8)
    if kind == 0:
        lines.insert(
            rng.randrange(len(lines) + 1), rng.choice(("", "[]", "0", "null", '"x"', "{", "}"))
        )
        change = Change("odd_line", place)
    elif kind == 1:
        lines.append(lines[at])
        change = Change("line_again", place, True)
    else:
        root = json.loads(lines[at])
        tree = Tree(root, spot.target, rng, place, spot.outside)
        found = change_tree(tree)
        if found is None:
            return None
        lines[at], change = to_text(tree.root), found
    spot.path.write_bytes("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))
    return change


def change_npz(spot: Spot) -> Change | None:
    chosen = spot.rng.random()
    return (
        bomb(spot) if chosen < 0.03 else any_bytes(spot) if chosen < 0.1 else change_archive(spot)
    )


FORMS: dict[str, Mutation] = {
    "json": change_json, "yaml": change_yaml, "lines": change_lines, "tensors": change_tensors,
    "npz": change_npz, "opaque": any_bytes,
}  # fmt: skip
FILE_SHARE = {"opaque": 0.6}  # of mutations that take a file as a whole; of all others 0.2


def mutate(kind: Kind, folder: Path, outside: Path, rng: random.Random) -> list[Change]:
    """Change a copy of a sample; the changes that were made."""
    changes: list[Change] = []
    for _ in range(2 if rng.random() < TWICE else 1):
        for _ in range(20):
            target, path = _choose(kind, folder, rng)
            if path is None:
                continue
            spot = Spot(path, target, rng, outside)
            is_whole = changes or rng.random() < FILE_SHARE.get(target.form, 0.2)
            change = (change_file if is_whole else FORMS[target.form])(spot)
            if change:
                changes.append(change)
                break
    if kind.sign and not (changes and rng.random() < UNSIGNED):
        kind.sign(folder)
    return changes


def _choose(kind: Kind, folder: Path, rng: random.Random) -> tuple[Target, Path | None]:
    target = rng.choices(kind.targets, [t.weight for t in kind.targets])[0]
    paths = [p for p in sorted(folder.glob(target.file)) if p.is_file() and not p.is_symlink()]
    return target, rng.choice(paths) if paths else None
