"""Policies are answered together, in a process that may be killed."""

from types import SimpleNamespace

import numpy as np
import pytest

from eval.closed_loop.answers import Answerer, Look, OwnPolicy
from eval.closed_loop.processes import CONTEXT
from eval.closed_loop.server import Address, RemotePolicy, ServerError, serve
from eval.closed_loop.settings import REFERENCE_POLICY
from eval.run.arms import Variant

VARIANT = Variant(REFERENCE_POLICY)


class Counting:
    """A policy whose chunk is made of what it was asked, and that counts its passes."""

    chunk_size, n_action_steps, layers, memory_bytes = 8, 4, {"dense": 3}, None

    def __init__(self):
        self.passes = []
        self.loaded = SimpleNamespace(chunks=self.chunks)

    def chunks(self, observations, seeds):
        self.passes.append(len(observations))
        rows = zip(observations, seeds, strict=True)
        return np.stack([np.full((8, 7), o["x"] + seed, np.float32) for o, seed in rows])


def test_fewer_requests_than_the_batch_are_filled_up_and_keep_their_order(monkeypatch):
    policy = Counting()
    monkeypatch.setattr("eval.closed_loop.answers.load_variant", lambda variant: policy)
    answerer = Answerer(4)
    found = answerer.answer([Look(VARIANT, {"x": 10.0}, 1), Look(VARIANT, {"x": 20.0}, 2)])
    assert [kind for kind, _, _ in found] == ["chunk", "chunk"]
    assert [chunk[0, 0] for _, chunk, _ in found] == [11, 22]
    assert policy.passes == [4]
    own = OwnPolicy(answerer, VARIANT)
    assert (own.chunk_size, own.n_action_steps, own.layers) == (8, 4, {"dense": 3})
    own.reset(0)
    first, second = (own.predict_action_chunk({"x": 0.0})[0, 0] for _ in range(2))
    assert second == first + 1  # the noise follows from the number of the look
    assert own.chunk_at({"x": 0.0}, 0)[0, 0] == first


def start(address):
    process = CONTEXT.Process(target=serve, args=(address, 2))
    process.start()
    return process


def test_a_killed_server_is_asked_again_and_answers_the_same(tmp_path):
    address = Address(str(tmp_path / "policies"), b"key")
    server = start(address)
    policy = RemotePolicy(address, VARIANT)
    seen = {
        "observation.images.image": np.full((128, 128, 3), 90, np.uint8),
        "observation.images.image2": np.full((128, 128, 3), 120, np.uint8),
        "observation.state": np.zeros(8, np.float32),
        "task": "pick up the ketchup and place it in the basket",
    }
    policy.reset(7)
    first = policy.predict_action_chunk(seen)
    assert first.shape == (8, 7)
    assert policy.last_chunk_ms > 1
    server.kill()
    server.join()
    server = start(address)
    try:
        assert np.array_equal(policy.chunk_at(seen, 0), first)
        with pytest.raises(ServerError, match="CheckpointError: the policy folder nowhere does"):
            RemotePolicy(address, Variant("nowhere"))
        with pytest.raises(ServerError, match="needs the cameras"):
            policy.predict_action_chunk({"task": seen["task"]})
        assert np.array_equal(policy.chunk_at(seen, 0), first)  # it goes on after both
    finally:
        server.kill()
