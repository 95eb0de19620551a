"""What the benchmarks of speed share: calls timed on a device, and its memory bandwidth."""

import functools
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

from einsort_vla.errors import MissingDependency

BANDWIDTH_BYTES = 2**28  # read at once to measure memory; more than the last-level caches
BANDWIDTH_CALLS = 12
GRAPH_CALLS = 64  # at least: a replay takes its own time to start
GRAPH_SECONDS, GRAPH_REPLAYS = 0.02, 5


def check_device(device: str) -> None:
    """Refuse a GPU that is not there.

    Raises:
        MissingDependency: torch sees no such GPU.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise MissingDependency("--device cuda needs a CUDA GPU, and torch sees none.")


def device_name(device: str) -> str:
    """The model of the GPU or processor."""
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            return (
                next(line for line in file if line.startswith("model name")).split(": ")[1].strip()
            )
    except (OSError, StopIteration):
        return "CPU"


def time_ms(call: Callable[[], Any], device: str) -> float:
    """Milliseconds of one call; on a GPU between events of its stream, so with launching only where
    that is slower than what is launched.
    """
    if device != "cuda":
        start = time.perf_counter()
        call()
        return 1e3 * (time.perf_counter() - start)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    first.record()
    call()
    last.record()
    last.synchronize()
    return first.elapsed_time(last)


def times_ms(
    calls: Sequence[Callable[[], Any]], device: str, min_seconds: float, min_calls: int
) -> list[float]:
    """Milliseconds of single calls, in turn, after one that is not counted."""
    calls[0]()
    found: list[float] = []
    end = time.perf_counter() + min_seconds
    while time.perf_counter() < end or len(found) < min_calls:
        found.append(time_ms(calls[len(found) % len(calls)], device))
    return found


def graph_ms(calls: Sequence[Callable[[], Any]]) -> float:
    """Milliseconds of a call on the GPU, without what the host does to launch it.

    A CUDA graph holds the calls in turn, all of them and at least `GRAPH_CALLS`; the result is the
    median over replays, by the number of calls.
    """
    n, graph = max(len(calls), GRAPH_CALLS), torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.stream(_capture_stream()):  # torch.cuda.graph would first empty torch's cache
        calls[0]()  # loads and compiles what a capture may not
        graph.capture_begin()
        for i in range(n):
            calls[i % len(calls)]()
        graph.capture_end()
    torch.cuda.synchronize()
    return statistics.median(times_ms([graph.replay], "cuda", GRAPH_SECONDS, GRAPH_REPLAYS)) / n


@functools.cache  # cuBLAS has a workspace for each stream
def _capture_stream() -> torch.cuda.Stream:
    return torch.cuda.Stream()


def memory_gb_per_s(device: str) -> float:
    """Of reading, by the threads that torch uses now; the fastest of some sums."""
    data = torch.zeros(BANDWIDTH_BYTES // 4, device=device)
    return BANDWIDTH_BYTES / 1e6 / min(times_ms([data.sum], device, 0, BANDWIDTH_CALLS))
