"""Worker processes that open cases: each is a fork with all loaded; a crash costs one case."""

import contextlib
import faulthandler
import json
import os
import select
import signal
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.fuzz.change import Change
from tests.fuzz.guard import LIMIT_S, WAITING
from tests.fuzz.judge import Bench, Verdict
from tests.fuzz.kinds.kind import Kind

Case = tuple[Kind, int]
KILL_S = 1.5 * WAITING * LIMIT_S  # after the worker's own alarm had its time
CASES_A_WORKER = 400  # then a new one: what leaks does not add up


class _Worker:
    """One fork, its cases, and what it has said."""

    def __init__(self, samples: Path, work: Path, cases: Sequence[Case], quiet: bool) -> None:
        self.left = list(cases)
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._read)
            _work(samples, work, cases, write, quiet)
        os.close(write)
        self._rest = b""
        self.changes: tuple[Change, ...] = ()  # of its last case
        self.heard = time.monotonic()

    def fileno(self) -> int:
        return self._read

    def verdicts(self) -> Iterator[Verdict | None]:
        """What it says now; None once it has ended."""
        data = os.read(self._read, 2**16)
        self.heard = time.monotonic()
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            found = json.loads(line)
            if "broken" in found:
                raise RuntimeError(f"the fuzzer cannot go on:\n{found['broken']}")
            self.changes = tuple(Change(**c) for c in found.pop("changes"))
            if found:
                self.left.pop(0)
                yield Verdict(changes=self.changes, **found)
                self.changes = ()
        if not data:
            os.close(self._read)
            yield None

    def ended(self) -> str:
        """Why; empty if it had no case left."""
        status = os.waitpid(self.pid, 0)[1]
        if not self.left:
            return ""
        code = os.waitstatus_to_exitcode(status)
        return f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def run_cases(
    samples: Path, cases: Sequence[Case], jobs: int, quiet: bool = True
) -> Iterator[Verdict]:
    """The verdict of every case, as they come."""
    waiting = [list(cases[k : k + CASES_A_WORKER]) for k in range(0, len(cases), CASES_A_WORKER)]
    working: list[_Worker] = []
    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        try:
            while waiting or working:
                while waiting and len(working) < jobs:
                    folder = Path(tempfile.mkdtemp(dir=top)) / "work"
                    working.append(_Worker(samples, folder, waiting.pop(0), quiet))
                yield from _listen(working, waiting)
        finally:
            for worker in working:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(worker.pid, signal.SIGKILL)
                os.waitpid(worker.pid, 0)


def _listen(working: list[_Worker], waiting: list[list[Case]]) -> Iterator[Verdict]:
    for worker in select.select(working, [], [], 1.0)[0]:
        for verdict in worker.verdicts():
            if verdict:
                yield verdict
                continue
            working.remove(worker)
            if reason := worker.ended():
                (kind, seed), *left = worker.left
                problem = "hang" if reason.endswith("KILL") else "crash"
                yield Verdict(kind.name, seed, worker.changes, problem, reason)
                if left:
                    waiting.append(left)
    for worker in working:
        if time.monotonic() - worker.heard > KILL_S:
            worker.heard = time.monotonic()
            os.kill(worker.pid, signal.SIGKILL)


def _work(samples: Path, work: Path, cases: Sequence[Case], write: int, quiet: bool) -> None:
    """The life of a fork; it does not come back."""
    code = 1

    def tell(content: dict[str, Any]) -> None:
        line = json.dumps(content).encode() + b"\n"
        while line:
            line = line[os.write(write, line) :]

    def tell_changes(changes: tuple[Change, ...]) -> None:
        tell({"changes": [asdict(change) for change in changes]})

    try:
        if quiet:
            faulthandler.disable()  # a runner of tests has it write elsewhere
            null = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(null, stream)
        bench = Bench(samples, work)
        bench.clear()
        os.environ["TMPDIR"] = tempfile.tempdir = str(bench.tmp)
        bench.guard.install()
        for kind, seed in cases:
            verdict = bench.run(kind, seed, tell_changes, verbose=not quiet)
            tell(verdict.as_dict())
        code = 0
    except BaseException:  # of the fuzzer, or of a sample that nobody changed
        tell({"broken": traceback.format_exc()})
    finally:
        os._exit(code)
