"""One case: a sample is copied, changed, opened, and what came of it is judged."""

import os
import random
import shutil
import sys
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from einsort_vla.errors import EinSortError
from tests.fuzz.change import ESCAPED, Change
from tests.fuzz.digest import digest
from tests.fuzz.guard import MEMORY_BYTES, Guard, Hang
from tests.fuzz.kinds.kind import Kind
from tests.fuzz.mutate import mutate
from tests.fuzz.signing import must_be_refused

ROOT = Path(__file__).resolve().parents[2]
OURS = ("einsort_vla", "policies", "eval", "envs")
LONGEST_MESSAGE = 2000  # characters: one clear error


@dataclass(frozen=True)
class Verdict:
    """How a case ended.

    Attributes:
        problem: what is wrong with that; empty if nothing is.
        detail: message or difference.
        site: the innermost line of this project that was at work.
    """

    kind: str
    seed: int
    changes: tuple[Change, ...] = ()
    problem: str = ""
    detail: str = ""
    site: str = ""

    @property
    def group(self) -> tuple[str, ...]:
        """What cases of one cause have in common."""
        where = self.site or " + ".join(change.mutation for change in self.changes)
        return self.kind, self.problem, where

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class Bench:
    """Folders of one worker, in which its cases are opened one after the other.

    Args:
        samples: a folder for each kind, by its name.
        work: is made; nothing else may be written to.
    """

    def __init__(self, samples: Path, work: Path) -> None:
        self.samples, self.work = samples, work
        self.case, self.out, self.tmp, self.outside = (
            work / name for name in ("case", "out", "tmp", "outside")
        )
        self.guard = Guard(work, self.outside)
        self.expected: dict[str, str] = {}

    def clear(self) -> None:
        shutil.rmtree(self.work, ignore_errors=True)
        for folder in (self.out, self.tmp, self.outside):
            folder.mkdir(parents=True)
        os.chdir(self.work)

    def undisturbed(self, kind: Kind) -> str:
        """The digest of what the sample itself gives."""
        if kind.name not in self.expected:
            self.clear()
            shutil.copytree(self.samples / kind.name, self.case, symlinks=True)
            self.expected[kind.name] = digest(kind.open(self.case, self.out))
        return self.expected[kind.name]

    def run(
        self,
        kind: Kind,
        seed: int,
        on_change: Callable[[tuple[Change, ...]], None] = lambda changes: None,
        verbose: bool = False,
    ) -> Verdict:
        """Open one changed copy; `on_change` is told of the changes before."""
        expected, rng = self.undisturbed(kind), random.Random(f"{kind.name}:{seed}")
        self.clear()
        shutil.copytree(self.samples / kind.name, self.case, symlinks=True)
        changes = tuple(mutate(kind, self.case, self.outside, rng))
        on_change(changes)
        refuse = must_be_refused(kind, self.case)
        size, problem, detail, site = _size(self.case), "", "", ""
        try:
            with self.guard.watching():
                found = kind.open(self.case, self.out)
            if refuse:
                problem, detail = "wrong fingerprint accepted", "it was opened"
            elif not any(change.may_differ for change in changes) and digest(found) != expected:
                problem, detail = "silently another result", "no error"
        except EinSortError as error:
            problem, detail = _message_problem(error, changes, self.case)
            site = _site(error)
        except Hang as error:
            problem, site = "hang", _site(error)
        except BaseException as error:
            problem, detail, site = _foreign(kind, error, changes)
            if verbose:
                traceback.print_exc()
        if harm := self._harm():
            problem, detail = "harm", harm
        elif self.guard.peak_bytes > MEMORY_BYTES + size and problem != "hang":
            problem, detail = "memory", f"{self.guard.peak_bytes / 1e9:.1f} GB of {size} bytes"
        return Verdict(kind.name, seed, changes, problem, detail[:500], site if problem else "")

    def _harm(self) -> str:
        if self.guard.seen:
            return "; ".join(self.guard.seen[:3])
        left = [*self.outside.rglob("*"), *self.tmp.rglob(f"*{ESCAPED}*")]
        left += self.work.parent.glob(f"{ESCAPED}*")
        left += [p for p in self.work.glob("*") if p not in self._own()]
        for path in left:
            if path.parent == self.work.parent:
                path.unlink()
        return f"left {left[0].relative_to(self.work.parent)}" if left else ""

    def _own(self) -> tuple[Path, ...]:
        return self.case, self.out, self.tmp, self.outside


def _size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file() and not p.is_symlink())


def _message_problem(
    error: EinSortError, changes: tuple[Change, ...], case: Path
) -> tuple[str, str]:
    """Whether an error of ours names the file or the folder, in a message that can be read."""
    message = str(error)
    names = {change.place.partition(":")[0].partition(" ")[0] for change in changes}
    names |= {name.rpartition(".")[0] for name in names}
    files = {path.name for path in case.rglob("*")} | {case.name}
    if len(message) > LONGEST_MESSAGE:
        return "endless message", message[:200]
    if not any(name and name in message for name in names | files):
        return "no file named", message
    return "", message


def _foreign(kind: Kind, error: BaseException, changes: tuple[Change, ...]) -> tuple[str, str, str]:
    site = _site(error)
    if not site and kind.hosts and _raised_in(error, kind.hosts) and isinstance(error, Exception):
        return "", "", ""
    if isinstance(error, SystemExit | KeyboardInterrupt):
        return "exit", repr(error), site
    return f"foreign {type(error).__name__}", str(error), site


def _raised_in(error: BaseException, packages: tuple[str, ...]) -> bool:
    frames = traceback.extract_tb(error.__traceback__)
    return any(f"/site-packages/{name}" in frame.filename for frame in frames for name in packages)


def _site(error: BaseException) -> str:
    """The innermost line of this project, without the fuzzer's."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(ROOT) and path.relative_to(ROOT).parts[0] in OURS:
            return f"{path.relative_to(ROOT)}:{frame.lineno} {frame.name}"
    return ""


def import_path_of(folder: Path) -> None:
    """A module that nothing may import, where a hostile file would find it."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{ESCAPED}.py").write_text("call = type('Call', (), {})\n")
    sys.path.insert(0, str(folder))
