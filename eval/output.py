"""The folder of one run: refuses to mix runs, knows how to go on with one."""

import json
import time
from dataclasses import MISSING, asdict
from pathlib import Path
from typing import Any

from einsort_vla.checkpoint import WEIGHTS, CompressionSummary, compress_folder, read_folder
from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.export import GraphOptions, export_bundle, find_target
from einsort_vla.plan import InputStatistics, Plan
from eval.provenance import ROOT, describe
from eval.request import Settings

LOG, REPORT, RUN, VIDEOS = "episodes.jsonl", "report.json", "run.json", "videos"
BUNDLE = "onnx"


def prepare(settings: Settings, policy: Path) -> Path:
    """The output folder with its run.json; a folder of another run is refused."""
    default = ROOT / "outputs" / time.strftime("libero-%Y%m%d-%H%M%S")
    output = settings.output or default
    config = _comparable(settings)
    if (output / RUN).exists():
        earlier = json.loads((output / RUN).read_text(encoding="utf-8"))["config"]
        if not settings.resume:
            raise UsageError(f"{output} holds a run already. Use --resume, or another --output.")
        if changed := sorted(k for k in config if config[k] != earlier.get(k, _default(k))):
            raise UsageError(
                f"{output} holds another run: {', '.join(f'--{k}' for k in changed)} differ. "
                "Resume with the same settings, or use another --output."
            )
        return output
    if settings.resume:
        raise UsageError(f"there is no run to resume in {output}.")
    if output.exists() and any(output.iterdir()):
        raise UsageError(f"{output} is not empty and holds no run. Use another --output.")
    output.mkdir(parents=True, exist_ok=True)
    inputs = {"policy": policy / WEIGHTS}
    if settings.calibrate and Path(settings.calibrate).is_file():
        inputs["calibrate"] = Path(settings.calibrate)
    run = describe(config, inputs)
    (output / RUN).write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    return output


def _comparable(settings: Settings) -> dict[str, Any]:
    """The settings that decide results; workers, video, baseline and where they go do not."""
    free = ("output", "resume", "workers", "video", "baseline")
    return {key: value for key, value in asdict(settings).items() if key not in free}


def _default(name: str) -> Any:
    """Of a setting that an earlier version did not have."""
    field = Settings.__dataclass_fields__[name]
    return None if field.default is MISSING else field.default


def compress_once(
    plan: Plan, source: Path, destination: Path, statistics: InputStatistics | None
) -> CompressionSummary:
    """The compressed policy of a run; made at its start, kept when it is resumed."""
    if not destination.exists():
        return compress_folder(source, destination, plan, statistics)
    if read_folder(destination).plan != plan:
        raise CheckpointError(f"{destination} holds another code than this run asks for.")
    sizes = [(folder / WEIGHTS).stat().st_size for folder in (source, destination)]
    return CompressionSummary(plan, *sizes)


def export_once(source: Path, destination: Path) -> Path:
    """The run's compressed policy as a bundle for CPUs; made at its start, kept when resumed."""
    if not destination.exists():
        export_bundle(source, destination, find_target("cpu"), GraphOptions())
    return destination
