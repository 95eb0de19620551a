"""One exception family: every message names the thing, what was found, and what to do."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

MAX_MESSAGE = 1500  # characters


class EinSortError(Exception):
    """Root of all errors a user can cause or repair; commands print it without a traceback.

    Names that strangers chose may be in it: a longer message than `MAX_MESSAGE` is cut.
    """

    def __str__(self) -> str:
        return cut(super().__str__(), MAX_MESSAGE)


class UsageError(EinSortError):
    """A request that can never work: an unknown name, a rate outside its range."""


class CheckpointError(EinSortError):
    """A file or folder on disk is missing, damaged, or of another kind than asked for."""


class NumericsError(EinSortError):
    """A number that cannot be coded: NaN, infinity, or beyond the range of the format."""


class ShapeError(EinSortError):
    """A tensor has another shape than its spec, checkpoint or caller says."""


class MissingDependency(EinSortError):
    """An optional library is absent; the message holds the command that installs it."""


class EngineError(EinSortError):
    """TensorRT could not build or run an engine; the message holds what it said."""


class SimulatorError(EinSortError):
    """The simulator could not be started or reached a state that cannot be used."""


def unknown_name(kind: str, found: str, valid: Iterable[str]) -> UsageError:
    """The error for a name that is not in a closed list, with the closest valid one."""
    names = sorted(valid)
    hint = did_you_mean(found, names)
    return UsageError(f"unknown {kind} {found!r}.{hint} Valid: {', '.join(names)}.")


def did_you_mean(found: str, valid: Iterable[str]) -> str:
    """The question for the closest valid name, after a space; empty if none is close."""
    close = get_close_matches(found, list(valid), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def reason_of(error: Exception) -> str:
    """What another library raised, in a line: its class, and how its message begins."""
    first_line = (str(error).strip().splitlines() or [""])[0]
    return cut(f"{type(error).__name__}: {first_line}".removesuffix(": "))


def shown(name: object) -> str:
    """The name of a file or anything else, on one line, whatever characters it has."""
    text = str(name)
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def cut(text: str, limit: int = 300) -> str:
    """A text of at most `limit` characters, beginning and end of a longer one.

    What other libraries say repeats names that strangers chose.
    """
    return text if len(text) <= limit else f"{text[: limit - 80]} ... {text[-75:]}"


@contextmanager
def importing(lack: str, fix: str) -> Iterator[None]:
    """Around the import of an optional library.

    Raises:
        MissingDependency: in place of ImportError: what cannot be done, and what installs it.
    """
    try:
        yield
    except ImportError as error:
        raise MissingDependency(f"{lack} ({error}). {fix}") from error


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """Around libraries written in Rust: what they raise at a fault of theirs is no `Exception`.

    Raises:
        RuntimeError: in its place.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        raise RuntimeError(str(error)) from error
