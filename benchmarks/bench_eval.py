"""Episodes a minute: `eval/libero.py` against `lerobot-eval`, on the same policy, task and states.

python benchmarks/bench_eval.py --workers 2 --json eval.json

Each is a whole process from start to report, one after the other, on the same machine, after an
unmeasured short run of each: the first start on a machine also compiles Python files. Episodes are
cut at the same number of control steps, before the policy is done, so that both do the same work;
LeRobot's environment is given its fastest settings (small pictures, soft resets).
"""

import sys
from pathlib import Path

if not __package__:  # run as a script: the root of the checkout
    sys.path[0] = str(Path(__file__).resolve().parents[1])

import json
import os
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.timing import device_name
from einsort_vla.atomic import check_new
from einsort_vla.cli.run import run_command
from einsort_vla.errors import SimulatorError, UsageError
from envs.libero.benchmark import load_initial_states, load_task
from envs.libero.protocol import load_protocol
from eval.closed_loop.settings import REFERENCE_POLICY
from eval.run.provenance import ROOT

SHORT_STEPS = 4
OURS, THEIRS = "eval/libero.py", "lerobot-eval"


@dataclass(frozen=True)
class Settings:
    """Time both on the dense policy."""

    policy: str = REFERENCE_POLICY
    """A LeRobot policy folder."""
    suite: str = "libero_object"
    task: int = 0
    episodes: int = 6
    """Stored states 0, 1, ...; a multiple of --workers, which LeRobot runs in step."""
    steps: int = 80
    """Control steps of every episode; fewer than the policy needs."""
    workers: int = 2
    """Simulators at once, in both."""
    json: Path | None = None
    """File for the rows."""


def main(settings: Settings, console: Console) -> int:
    """Print the table, write what was asked for."""
    if min(settings.episodes, settings.workers, settings.steps) < 1:
        raise UsageError("--episodes, --workers and --steps must be at least 1.")
    if settings.episodes % settings.workers:
        raise UsageError("--episodes must be a multiple of --workers, or LeRobot runs more.")
    if settings.json is not None:
        check_new(settings.json)
    short = replace(settings, episodes=settings.workers, steps=SHORT_STEPS)
    _measure(short, console)
    rows = _measure(settings, console)
    _print(rows, console)
    if settings.json is not None:
        settings.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    return 0


def _measure(settings: Settings, console: Console) -> list[dict[str, Any]]:
    """A row for each program."""
    rows = []
    for name, command in ((THEIRS, _theirs), (OURS, _ours)):
        with tempfile.TemporaryDirectory() as folder:
            place = Path(folder)
            rows.append(_row(name, command(settings, place), settings, place, console))
    return rows


def _ours(settings: Settings, folder: Path) -> list[str]:
    changes = {"max_steps": {settings.suite: settings.steps}, "quaternion_sign": "raw"}
    protocol = folder / "protocol.yaml"
    protocol.write_text(yaml.safe_dump(load_protocol().as_dict() | {"name": "bench"} | changes))
    return [
        sys.executable, str(ROOT / "eval" / "libero.py"), "--rate", "0",
        "--policy", settings.policy, "--suite", settings.suite, "--tasks", str(settings.task),
        "--episodes", str(settings.episodes), "--workers", str(settings.workers),
        "--protocol", str(protocol), "--output", str(folder / "ours"),
    ]  # fmt: skip


def _theirs(settings: Settings, folder: Path) -> list[str]:
    size = load_protocol().image_size_px
    return [
        sys.executable, "-P", "-m", "lerobot.scripts.lerobot_eval",
        f"--policy.path={settings.policy}",
        "--policy.device=cpu", "--env.type=libero", f"--env.task={settings.suite}",
        f"--env.task_ids=[{settings.task}]", f"--env.episode_length={settings.steps}",
        f"--env.observation_height={size}", f"--env.observation_width={size}",
        "--env.hard_reset=false", f"--eval.n_episodes={settings.episodes}",
        f"--eval.batch_size={settings.workers}", "--eval.use_async_envs=true",
        f"--output_dir={folder / 'theirs'}",
    ]  # fmt: skip


def _lend_states(settings: Settings, folder: Path) -> None:
    """The stored states as files that LeRobot reads; the package keeps them in another form."""
    task = load_task(settings.suite, settings.task)
    states = folder / "states" / settings.suite
    states.mkdir(parents=True)
    name = f"{Path(task.bddl_file).stem}.pruned_init"
    torch.save(load_initial_states(settings.suite, settings.task), states / name)
    paths = {"init_states": str(states.parent)}
    (folder / "config.yaml").write_text(yaml.safe_dump(paths), encoding="utf-8")


def _row(
    name: str, command: Sequence[str], settings: Settings, folder: Path, console: Console
) -> dict[str, Any]:
    environment = os.environ | {
        "MUJOCO_GL": "osmesa", "PYOPENGL_PLATFORM": "osmesa", "OMP_NUM_THREADS": "1",
        "LP_NUM_THREADS": "1",
    }  # fmt: skip
    environment.pop("PYTHONDONTWRITEBYTECODE", None)
    if name == THEIRS:
        _lend_states(settings, folder)
        environment["LIBERO_CONFIG_PATH"] = str(folder)
    started = time.perf_counter()
    with console.status(f"running {name}"):
        result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    seconds = time.perf_counter() - started
    if result.returncode:
        raise SimulatorError(f"{name} failed: {result.stderr[-1500:]}")
    return {
        "what": name, "machine": device_name("cpu"), "policy": settings.policy,
        "suite": settings.suite, "task": settings.task, "workers": settings.workers,
        "episodes": settings.episodes, "steps": settings.steps, "seconds": seconds,
        "episodes_per_minute": 60 * settings.episodes / seconds,
        "successes": _successes(name, folder),
    }  # fmt: skip


def _successes(name: str, folder: Path) -> int:
    """Of cut episodes: 0, unless --steps is too large for equal work."""
    if name == OURS:
        report = json.loads((folder / "ours" / "report.json").read_text(encoding="utf-8"))
        return report["closed_loop"]["arms"]["dense"]["tally"]["successes"]
    info = json.loads((folder / "theirs" / "eval_info.json").read_text(encoding="utf-8"))
    return sum(map(sum, (task["metrics"]["successes"] for task in info["per_task"])))


def _print(rows: list[dict[str, Any]], console: Console) -> None:
    first = rows[0]
    console.print(
        f"{first['machine']}; {first['policy']}, {first['suite']} task {first['task']}, "
        f"{first['episodes']} episodes of {first['steps']} control steps, {first['workers']} "
        "simulators at once; whole processes"
    )
    table = Table("program", "seconds", "episodes a minute", "times as fast", "successes")
    for row in rows:
        ratio = row["episodes_per_minute"] / first["episodes_per_minute"]
        table.add_row(
            row["what"], f"{row['seconds']:.1f}", f"{row['episodes_per_minute']:.2f}",
            f"{ratio:.2f}", str(row["successes"]),
        )  # fmt: skip
    console.print(table)


if __name__ == "__main__":
    run_command(Settings, main, "benchmarks/bench_eval.py")
