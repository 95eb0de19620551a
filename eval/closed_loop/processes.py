"""What every child process of an evaluation does: ends with its parent, leaves Ctrl-C to it."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator

CONTEXT = multiprocessing.get_context("spawn")  # GL contexts and threads do not survive a fork


def end_with_parent() -> None:
    """A child of a killed parent would run on, on a core that someone else needs."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


@contextlib.contextmanager
def children_ignore_interrupts() -> Iterator[None]:
    """Processes started within inherit it: on Ctrl-C the parent alone acts, and ends them."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted, and only it may say how
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
