"""A process that holds the policies and answers the looks of several simulators."""

import os
import queue
import threading
import time
import traceback
from dataclasses import dataclass
from multiprocessing import ProcessError
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from einsort_vla.errors import EinSortError
from eval.closed_loop.answers import Answerer, AskedPolicy, Look, Reply
from eval.closed_loop.processes import end_with_parent
from eval.run.arms import Variant

PATIENCE_S = 300.0  # a client waits so long for a server that is being started again
RETRY_S = 0.1


class ServerError(EinSortError):
    """The server cannot load a policy, or the policy fails; the message has its words."""


@dataclass(frozen=True)
class Address:
    """Where a server listens, and the key that its clients show."""

    path: str
    key: bytes


def serve(address: Address, batch: int) -> None:
    """Answer until the parent process ends; runs in a process of its own."""
    import torch

    end_with_parent()
    torch.set_num_threads(1)
    if os.path.exists(address.path):  # left by a server that was killed
        os.unlink(address.path)
    inbox: queue.Queue[tuple[Connection, Look]] = queue.Queue()
    with Listener(address.path, authkey=address.key) as listener:
        threading.Thread(target=_accept, args=(listener, inbox), daemon=True).start()
        answerer, waiting = Answerer(batch), []
        while True:
            _reply(answerer, _take(inbox, waiting, batch))


def _accept(listener: Listener, inbox: queue.Queue) -> None:
    while True:
        try:
            connection = listener.accept()
        except (OSError, EOFError, ProcessError):  # a client that was killed as it came
            continue
        threading.Thread(target=_receive, args=(connection, inbox), daemon=True).start()


def _receive(connection: Connection, inbox: queue.Queue) -> None:
    while True:
        try:
            inbox.put((connection, connection.recv()))
        except (EOFError, OSError):  # the client has ended
            return


def _take(inbox: queue.Queue, waiting: list, batch: int) -> list[tuple[Connection, Look]]:
    """The oldest look, and others of its kind that are waiting, too; waits for the first."""
    if not waiting:
        waiting.append(inbox.get())
    while not inbox.empty():
        waiting.append(inbox.get())
    kind = waiting[0][1].kind
    same = [i for i, (_, look) in enumerate(waiting) if look.kind == kind][:batch]
    return [waiting.pop(i) for i in reversed(same)][::-1]


def _reply(answerer: Answerer, asked: list[tuple[Connection, Look]]) -> None:
    replies: list[Reply]
    try:
        replies = answerer.answer([look for _, look in asked])
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        if not isinstance(error, EinSortError):
            message += f"\n{traceback.format_exc(limit=-3)}"
        replies = [("error", message, 0.0)] * len(asked)
    for (connection, _), reply in zip(asked, replies, strict=True):
        try:
            connection.send(reply)
        except OSError:  # nobody waits for it any more
            continue


class RemotePolicy(AskedPolicy):
    """A policy that a server holds.

    Raises:
        ServerError: the server cannot load it.
    """

    def __init__(self, address: Address, variant: Variant) -> None:
        self._address = address
        self._connection: Connection | None = None
        super().__init__(variant)

    def _ask(self, look: Look) -> tuple[Any, float]:
        """Once more after the server's end, until there is one again."""
        until = time.monotonic() + PATIENCE_S
        while True:
            try:
                if self._connection is None:
                    self._connection = Client(self._address.path, authkey=self._address.key)
                self._connection.send(look)
                kind, found, ms = self._connection.recv()
            except (EOFError, OSError, ProcessError) as error:
                self._connection = None
                if time.monotonic() > until:
                    raise ServerError(f"the policy server does not answer: {error!r}") from error
                time.sleep(RETRY_S)
                continue
            if kind == "error":
                raise ServerError(found)
            return found, ms
