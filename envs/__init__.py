"""Environments, found by the names of their suites; they know no policy."""

from importlib import import_module
from typing import Any

from einsort_vla.errors import UsageError
from envs.environment import Benchmark

# The first word of its suites' names, and the module that holds its `BENCHMARK`.
BENCHMARKS = {"libero": "envs.libero"}


def benchmark_of(suite: str) -> Benchmark[Any]:
    """The benchmark that a suite belongs to; only its own module is imported.

    Raises:
        UsageError: no environment has suites of such a name.
    """
    word = suite.partition("_")[0]
    if word not in BENCHMARKS:
        raise UsageError(
            f"unknown suite {suite!r}. The name of a suite begins with that of its environment: "
            f"{', '.join(sorted(BENCHMARKS))}."
        )
    return import_module(BENCHMARKS[word]).BENCHMARK
