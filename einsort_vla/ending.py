"""How every program of this project ends: an exit code, and at most one message.

A fault of ours, too, ends in one line. Its traceback lies in a file that only its user can read.
Standard library alone: a bundle's program has no other.
"""

import contextlib
import os
import platform
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any, NoReturn

import einsort_vla
from einsort_vla.errors import EinSortError, MissingDependency
from einsort_vla.private import private_folder, state_folder

# A stated gate failed or work is left; a request that cannot be met; a fault of this project, as
# sysexits.h has it. After a signal it is 128 and its number, as of a shell: 130 and 143.
INCOMPLETE, MISUSE, FAULT = 1, 2, 70
_STOPPED = 128
_NOTHING_HALF = "What was finished is kept; nothing is half-written."
_LESS = "Close other programs, or do less at once (fewer workers, smaller batches, fewer looks)."


def end(run: Callable[[], int]) -> NoReturn:
    """Run a program and exit with its code; whatever is raised becomes one message and a code.

    Call it before anything large is imported, and import within `run`: then Ctrl-C while Python
    loads ends as well as any other. A second Ctrl-C ends the process at once.
    """
    _open_streams()
    with _Stop() as stop:
        code = _code_of(run, stop)
        if stop.signal and code:
            code = _STOPPED + stop.signal
        sys.exit(_flushed(code))


@contextlib.contextmanager
def keeping(what: Callable[[], str]) -> Iterator[None]:
    """Around work that may be stopped: what is kept then, and how it goes on, as sentences."""
    try:
        yield
    except KeyboardInterrupt as stop:
        raise KeyboardInterrupt(what()) from stop


class _Stop:
    """Ctrl-C and SIGTERM raise KeyboardInterrupt, once; the next one ends the process at once.

    Attributes:
        signal: number of what came; 0 before.
    """

    def __init__(self) -> None:
        self.signal = 0
        self._before: dict[int, Any] = {}
        self._unraisable = sys.unraisablehook

    def __enter__(self) -> "_Stop":
        for number in (signal.SIGINT, signal.SIGTERM):
            # Jobs in the background are told to ignore Ctrl-C.
            if signal.getsignal(number) is not signal.SIG_IGN:
                with contextlib.suppress(ValueError):  # not in the main thread
                    self._before[number] = signal.signal(number, self._raise)
        sys.unraisablehook = self._tell_unraisable
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        sys.unraisablehook = self._unraisable

    def _raise(self, number: int, frame: FrameType | None) -> NoReturn:
        self.signal = number
        for own in self._before:
            signal.signal(own, signal.SIG_DFL)
        raise KeyboardInterrupt

    def _tell_unraisable(self, unraisable: Any) -> None:
        if not self.signal:  # else it is the stop itself, where Python cannot raise it
            self._unraisable(unraisable)


def _code_of(run: Callable[[], int], stop: _Stop) -> int:
    try:
        code = run()
        sys.stdout.flush()
        return code
    except SystemExit as exit_:  # of the parser of the command line
        return _code_of_exit(exit_)
    except BrokenPipeError:  # `| head` has read enough; nothing is left to be flushed to it
        return INCOMPLETE
    except BaseException as error:
        if stop.signal or isinstance(error, KeyboardInterrupt):
            # A library that was interrupted may well have made another error of it.
            text = str(error) if isinstance(error, KeyboardInterrupt) else ""
            _say(f"Stopped. {text or _NOTHING_HALF}")
            return _STOPPED + (stop.signal or signal.SIGINT)
        return _told(error)


def _told(error: BaseException) -> int:
    """Tell an error in one message; its exit code."""
    if isinstance(error, EinSortError):
        _say(f"{'Missing' if isinstance(error, MissingDependency) else 'Error'}: {error}")
        return MISUSE
    if _is_of_memory(error):
        _say(f"Error: the memory is not enough for this{_first_line(error)}. {_LESS}")
        return MISUSE
    if isinstance(error, OSError):  # a full or read-only disk: the system's message names the file
        _say(f"Error: {error}")
        return MISUSE
    what = f"{type(error).__name__}{_first_line(error)}"
    _say(f"Error: this is a fault of einsort-vla: {what}; please report it with {_kept(error)}")
    return FAULT


def _is_of_memory(error: BaseException) -> bool:
    """Of Python and numpy, of a GPU in PyTorch, or of PyTorch on a CPU, which has no type."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    said = ("can't allocate memory", "not enough memory", "bad_alloc", "bad allocation")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in said)


def _first_line(error: BaseException) -> str:
    text = str(error).strip()
    return f": {text.splitlines()[0][:300]}" if text else ""


def _kept(error: BaseException) -> str:
    """The file with the traceback. No environment variables are in it: they hold keys."""
    text = (
        f"einsort-vla {einsort_vla.__version__}, Python {platform.python_version()}, "
        f"{platform.platform()}\n{sys.argv}\n\n"
        + "".join(traceback.format_exception(type(error), error, error.__traceback__))
    )
    for folder in (lambda: private_folder(state_folder() / "faults"), tempfile.gettempdir):
        with contextlib.suppress(OSError):
            # For this user alone, under a name that nobody can foresee.
            number, name = tempfile.mkstemp(".txt", "einsort-vla-fault-", folder())
            with open(number, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(text)
            return name
    return "the command line (the traceback could not be written: no folder takes a file)"


def _code_of_exit(exit_: SystemExit) -> int:
    if exit_.code is None or isinstance(exit_.code, int):
        return exit_.code or 0
    _say(str(exit_.code))
    return INCOMPLETE


def _say(text: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # nobody may be there to read it
        print(text, file=sys.stderr, flush=True)


def _flushed(code: int) -> int:
    """The exit code, once all output is out, or is given up: Python would complain at its end."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError) as error:
            if not isinstance(error, BrokenPipeError):
                _say(f"Error: the output cannot be written: {error}")
            with contextlib.suppress(OSError, ValueError):
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
            code = code or INCOMPLETE
    return code


def _open_streams() -> None:
    """Streams that are there and take any character.

    Without it the first file that is opened would become a closed standard output.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    if sys.stdout is None:
        sys.stdout = open(os.devnull, "w")  # noqa: SIM115  for as long as the program
    if sys.stderr is None:
        sys.stderr = open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")  # a terminal may know Latin alone
