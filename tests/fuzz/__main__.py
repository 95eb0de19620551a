"""See `tests.fuzz`."""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.fuzz.judge import Verdict
    from tests.fuzz.kinds import Kind

os.environ |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "OMP_NUM_THREADS": "1"}
sys.dont_write_bytecode = True

SHOWN = 3  # seeds of a group


def main() -> int:
    """Exit code 0 if all cases ended well."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("kind", nargs="?", help="one kind, else all of them")
    parser.add_argument("seed", nargs="?", type=int, help="one case, with what it says")
    parser.add_argument("--n", type=int, default=300, help="cases in all")
    parser.add_argument("--first", type=int, default=0, help="first seed")
    parser.add_argument("-j", "--jobs", type=int, default=1, help="processes")
    parser.add_argument("--json", type=Path, help="file for every verdict, one a line")
    given = parser.parse_args()
    started = time.monotonic()
    from tests.fuzz.crew import run_cases
    from tests.fuzz.judge import import_path_of
    from tests.fuzz.kinds.all_kinds import NAMES, load_kinds

    chosen = load_kinds([given.kind] if given.kind else NAMES)
    with tempfile.TemporaryDirectory(prefix="fuzz-samples-") as folder:
        top = Path(folder)
        import_path_of(top / "modules")
        for kind in chosen:
            (top / kind.name).mkdir()
            kind.make(top / kind.name)
        made = time.monotonic()
        single = given.seed is not None
        cases = [(chosen[0], given.seed)] if single else _cases(chosen, given.n, given.first)
        verdicts = list(run_cases(top, cases, given.jobs, quiet=not single))
    if given.json:
        given.json.write_text("".join(json.dumps(v.as_dict()) + "\n" for v in verdicts))
    if single:
        print(json.dumps(verdicts[0].as_dict(), indent=1))
    bad = [verdict for verdict in verdicts if verdict.problem]
    _print_groups(bad)
    took = time.monotonic() - made
    print(
        f"{len(verdicts)} mutations, {len(bad)} failures; {made - started:.0f} s to set up, "
        f"{took:.0f} s ({len(verdicts) / took:.1f} a second)"
    )
    return 1 if bad or len(verdicts) < len(cases) else 0


def _cases(kinds: "Sequence[Kind]", n: int, first: int) -> "list[tuple[Kind, int]]":
    """Seeds of each kind by its share, in a mixed order."""
    total = sum(kind.share for kind in kinds)
    cases = [
        (kind, first + seed)
        for kind in kinds
        for seed in range(max(1, round(n * kind.share / total)))
    ]
    random.Random(0).shuffle(cases)
    return cases


def _print_groups(bad: "Sequence[Verdict]") -> None:
    groups = defaultdict(list)
    for verdict in bad:
        groups[verdict.group].append(verdict)
    for (kind, problem, where), verdicts in sorted(
        groups.items(), key=lambda item: (item[0][0], -len(item[1]))
    ):
        print(f"\n{kind}: {problem} at {where} ({len(verdicts)}): {verdicts[0].detail[:200]!r}")
        for verdict in verdicts[:SHOWN]:
            told = "; ".join(f"{c.mutation} {c.place}" for c in verdict.changes)
            print(f"    python -m tests.fuzz {kind} {verdict.seed}    {told[:200]!r}")


if __name__ == "__main__":
    sys.exit(main())
