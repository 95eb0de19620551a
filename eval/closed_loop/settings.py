"""The options of the closed-loop commands; importing them loads nothing heavy."""

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from einsort_vla.cli.options import BackendOption
from eval.run.settings import RunSettings

REFERENCE_POLICY = "policies/checkpoints/reference-libero"


@dataclass(frozen=True)
class ClosedLoopSettings(RunSettings):
    """Compress a policy and run it beside the uncompressed one, on the same scenes with the same
    noise. `--rate R` removes the share R of the bytes of the policy's linear weights; everything
    that the code stores is counted. Several rates, codes and delays give a curve."""

    policy: str = REFERENCE_POLICY
    """Folder or hub id of a dense LeRobot policy."""
    suite: str = "libero_object"
    """One suite, or several of one environment separated by commas. The first word of its name
    chooses the environment."""
    tasks: str = "all"
    """Task numbers separated by commas, or all."""
    episodes: int = 1
    """Episodes per task and arm, each from a stored initial state of its own."""
    first_state: int = 0
    """Number of the first stored initial state; LIBERO stores 50 a task."""
    latency: str = "0"
    """Delay to impose on every answer of the policy, in milliseconds: the world moves on for so
    long before the robot acts. A receipt of `einsort-vla bench` stands for the median chunk that
    it measured. Several separated by commas."""
    protocol: str | None = None
    """What an episode is: a name (LIBERO has einsort, lerobot and openpi), or a YAML file with the
    same keys. By default the environment's own, for LIBERO einsort."""
    margin: float = 0.02
    """Loss of success rate up to which a compressed policy counts as not inferior."""
    stop_early: bool = False
    """End an arm as soon as it is decided whether it is inferior by the margin, by a bound that
    holds at every look. Scenes are then run state by state, over all tasks."""
    workers: int = field(default_factory=lambda: min(2, os.cpu_count() or 1))
    """Worker processes, one simulator each; policies run in a process of their own."""
    ray: Annotated[str | None, tyro.conf.arg(metavar="ADDRESS")] = None
    """Run the workers on a Ray cluster, at its address, or `auto`."""
    batch: int = 1
    """Looks that the policy answers in one pass. More are faster on a GPU with many workers."""
    seed: int = 0
    """Seed of the flow's noise and of displaced scenes."""
    baseline: Path | None = None
    """Folder of an earlier run with this policy on this machine. Its dense episodes of the same
    scenes are used, and not run again."""
    video: bool = False
    """Write side-by-side MP4s of all episodes."""
    record: bool = False
    """Write a rerun recording of every episode: pictures, state and actions at each look."""
    track: Literal["trackio", "wandb"] | None = None
    """Send the running success rates and the report there."""
    displace: Annotated[float, tyro.conf.arg(metavar="METRES")] = 0.0
    """Move every object at random by up to this far in x and y."""
    wrong_pictures: bool = False
    """Control: show objects where another displacement would have put them."""
    backend: BackendOption = "decoded"
    runtime: Literal["torch", "onnx"] = "torch"
    """What runs all policies: PyTorch, or ONNX Runtime, for which the whole chunk of each is
    exported as one graph. The summary then says what memory each takes."""


@dataclass(frozen=True)
class CalibrationSettings:
    """Collect what a calibrated compression of a dense policy needs, in closed loop."""

    output: Path
    """Folder to write. Episodes that are already in it are kept, and missing ones are added."""
    policy: str = REFERENCE_POLICY
    """Folder or hub id of a dense LeRobot policy."""
    suite: str = "libero_object"
    """One suite, or several of one environment separated by commas."""
    tasks: str = "all"
    """Task numbers separated by commas, or all."""
    episodes: int = 2
    """Episodes per task, each in a random scene of its own."""
    displace: float = 0.04
    """Move every object at random by up to this far in x and y, m."""
    seed: int = 0
    """Seed of the scenes and of the flow's noise."""
    probes: int = 48
    """Observations on which each layer's effect on the actions is measured; 0 measures none."""
