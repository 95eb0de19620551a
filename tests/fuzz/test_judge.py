"""The fuzzer sees what it is for: made-up readers that do each of the things none may do."""

import json
import os
import pickle
import socket
import subprocess
import time

import numpy as np
import pytest

from einsort_vla.errors import CheckpointError
from tests.fuzz import crew, guard
from tests.fuzz.change import ESCAPED, Target
from tests.fuzz.kinds import Kind

pytestmark = pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux alone")


CONTENT = json.dumps({"a": 1, "b": [1.5, "text"]}).encode()


def make(folder):
    (folder / "sample.json").write_bytes(CONTENT)


def reader(act):
    """Reads the sample as it is; of a changed one, `act` decides."""

    def open_it(folder, out):
        path = folder / "sample.json"
        is_same = path.is_file() and path.stat().st_size < 1000 and path.read_bytes() == CONTENT
        return "as it was" if is_same else act(path, out)

    return open_it


def refuse(path, out):
    raise CheckpointError(f"{path} is damaged.")


def refuse_without_name(path, out):
    raise CheckpointError("something is damaged.")


class Uncut(CheckpointError):
    """As an error of ours would be that does not cut itself."""

    __str__ = Exception.__str__


def say_too_much(path, out):
    raise Uncut(f"{path}: {'x' * 10_000}")


def raise_foreign(path, out):
    raise KeyError("a")


def believe(path, out):
    return "something else"


def write_elsewhere(path, out):
    (out.parent / "outside" / ESCAPED).write_text("x")


def write_by_a_library(path, out):
    np.zeros(3).tofile(str(out.parent.parent / ESCAPED))


def start(path, out):
    subprocess.run(["true"])


def unpickle(path, out):
    pickle.loads(pickle.dumps(time.sleep))


def connect(path, out):
    socket.create_connection(("127.0.0.1", 9))


def swallow(path, out):
    try:
        subprocess.run(["true"])
    except Exception as error:
        raise CheckpointError(f"{path}: {error}") from error


def wait(path, out):
    while True:
        time.sleep(0.01)


def take_memory(path, out):
    raise CheckpointError(f"{path}: {len(np.ones(140_000_000))}")


def crash(path, out):
    os.abort()


SEEN = {
    refuse: "", refuse_without_name: "no file named", say_too_much: "endless message",
    raise_foreign: "foreign KeyError", believe: "silently another result",
    write_elsewhere: "harm", write_by_a_library: "harm", start: "harm", unpickle: "harm",
    connect: "harm", swallow: "harm", wait: "hang", take_memory: "memory", crash: "crash",
}  # fmt: skip


@pytest.mark.parametrize("act", SEEN)
def test_what_a_reader_does_is_seen(act, tmp_path, monkeypatch):
    if act is wait:
        monkeypatch.setattr(guard, "LIMIT_S", 1)
    kind = Kind(act.__name__, make, reader(act), (Target("sample.json", "json"),))
    (tmp_path / kind.name).mkdir()
    make(tmp_path / kind.name)
    verdicts = list(crew.run_cases(tmp_path, [(kind, seed) for seed in range(5)], jobs=1))
    assert [verdict.seed for verdict in verdicts] == list(range(5))
    found = {verdict.problem for verdict in verdicts}
    assert SEEN[act] in found
    assert found <= {SEEN[act], ""}
    if act is not refuse:
        assert all(v.changes for v in verdicts if v.problem)
