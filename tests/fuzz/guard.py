"""What no file may make us do: start something, write elsewhere, wait, take gigabytes."""

import os
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.fuzz.change import ESCAPED

LIMIT_S = 10  # for one case, of the processor's time
WAITING = 4  # times as long by the clock: other processes may keep the processor busy
MEMORY_BYTES = 10**9  # more than before, while a case runs
ADDRESSES_BYTES = 3 * 10**9  # the address space that it may reserve, for safety

_STARTS = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
           "os.forkpty", "pty.spawn", "os.startfile")  # fmt: skip
_NETWORK = ("socket.connect", "socket.getaddrinfo", "socket.bind", "urllib.Request")
_CODE = ("pickle.find_class",)
_MOVES = ("os.rename", "os.link", "os.symlink", "os.mkdir", "os.remove", "os.rmdir", "os.truncate",
          "os.chmod", "os.chown", "shutil.rmtree")  # fmt: skip
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_HARMLESS = ("/dev/null", "/dev/tty", "/proc/self/clear_refs")


class Hang(BaseException):
    """A case took longer than it may; no handler for `Exception` holds it back."""


class Guard:
    """Watches this process from when it is installed; it cannot be taken away again.

    Args:
        work: the only folder that may be written to.
        outside: a folder in it that nothing may be written to or read from.
    """

    def __init__(self, work: Path, outside: Path) -> None:
        self._work, self._outside = os.path.realpath(work), os.path.realpath(outside)
        self._active = False
        self._began = 0.0, 0.0  # by the clock, and of the processor's time
        self.seen: list[str] = []
        self.peak_bytes = 0

    def install(self) -> None:
        sys.addaudithook(self._hook)
        signal.signal(signal.SIGALRM, self._alarm)
        limit = _status("VmSize") + ADDRESSES_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, resource.RLIM_INFINITY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Around one case; afterwards `seen` and `peak_bytes` are of that case."""
        self.seen, self.peak_bytes = [], 0
        Path("/proc/self/clear_refs").write_text("5")  # forget the earlier peak
        before = _status("VmRSS")
        self._active, self._began = True, (time.monotonic(), time.process_time())
        signal.setitimer(signal.ITIMER_REAL, LIMIT_S, 1.0)  # again: something may swallow it
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            self._active = False
            self.peak_bytes = _status("VmHWM") - before

    def _alarm(self, *_: Any) -> None:
        clock, processor = self._began
        waited, worked = time.monotonic() - clock, time.process_time() - processor
        if self._active and (worked > LIMIT_S or waited > WAITING * LIMIT_S):
            raise Hang

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self._active:
            return
        found = self._harm(event, arguments)
        if found:
            self._active = False  # what is seen may be looked at
            self.seen.append(found)
            self._active = True
            raise PermissionError(f"the fuzzer stops {found}")

    def _harm(self, event: str, arguments: tuple[Any, ...]) -> str | None:
        if event == "open":
            return self._open(*arguments)
        if event in _STARTS or event in _NETWORK or event in _CODE:
            return f"{event} {arguments!r:.120}"
        if event == "ctypes.dlopen" and arguments[0] and ESCAPED in str(arguments[0]):
            return f"{event} {arguments[0]!r:.120}"
        if event == "import" and str(arguments[0]).split(".")[0] == ESCAPED:
            return f"{event} {arguments[0]}"
        if event in _MOVES:
            paths = [a for a in arguments if isinstance(a, str | bytes | os.PathLike)]
            if event in ("os.symlink",):
                paths = paths[1:]
            wrong = [p for p in paths if os.path.isabs(p) and not self._may_write(p)]
            return f"{event} {wrong[0]!r:.120}" if wrong else None
        return None

    def _open(self, path: Any, mode: Any, flags: Any) -> str | None:
        if not isinstance(path, str | bytes | os.PathLike):
            return None
        writes = isinstance(flags, int) and flags & _WRITING
        if writes and not self._may_write(path):
            return f"writing {path!r:.120}"
        is_hidden = os.path.basename(os.fsdecode(path)) == ESCAPED and self._is_outside(path)
        return f"reading {path!r:.120}" if is_hidden else None

    def _may_write(self, path: Any) -> bool:
        real = os.path.realpath(os.fsdecode(path))
        if real in _HARMLESS or "/__pycache__/" in real:
            return True
        return real.startswith(self._work + "/") and not self._is_outside(path)

    def _is_outside(self, path: Any) -> bool:
        return os.path.realpath(os.fsdecode(path)).startswith(self._outside)


def _status(key: str) -> int:
    """Bytes of this process, such as VmRSS."""
    with open("/proc/self/status", encoding="ascii") as file:
        line = next(line for line in file if line.startswith(f"{key}:"))
    return 1024 * int(line.split()[1])
