"""`einsort-vla build`, `bench` and `audit`: what a bundle's own program does, too."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from tyro.conf import Positional

from einsort_vla.cli.options import TrustKeyOption

Runtime = Literal["auto", "tensorrt", "onnx"]


@dataclass(frozen=True)
class _OfBundle:
    bundle: Positional[Path]
    """Folder that `export` wrote."""
    trust_key: TrustKeyOption = ()


@dataclass(frozen=True)
class Build(_OfBundle):
    """Build the engines of an exported policy, for the target it was exported for. This runs the
    bundle's plugin, which is code of whoever made the bundle."""

    def run(self, console: Console) -> int:
        from einsort_vla.runtime import commands

        return commands.build(self.bundle, self.trust_key, say_to(console))


@dataclass(frozen=True)
class Bench(_OfBundle):
    """Time an exported policy: each part, and whole chunks."""

    runtime: Runtime = "auto"
    """What runs it; auto: TensorRT if engines were built here, else ONNX Runtime."""
    n: int = 100
    """Chunks to time."""

    def run(self, console: Console) -> int:
        from einsort_vla.runtime import commands

        return commands.bench(self.bundle, self.runtime, self.n, self.trust_key, say_to(console))


@dataclass(frozen=True)
class Audit(_OfBundle):
    """List every coded layer of an exported policy with what runs it; exit code 1 if one became
    dense, or if an engine is larger than its streams explain."""

    def run(self, console: Console) -> int:
        from einsort_vla.runtime import commands

        return commands.audit(self.bundle, self.trust_key, say_to(console))


def say_to(console: Console) -> Callable[[str], None]:
    """Print lines as they are."""
    return lambda line: console.print(line, soft_wrap=True)
