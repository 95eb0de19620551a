"""What lies in a folder of results: closed-loop runs, text evaluations, receipts of `bench`."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from msgspec import Struct

from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.reading import as_record, read_json
from einsort_vla.results.arms import ArmFacts, Code
from einsort_vla.results.closed_loop import build_report
from einsort_vla.results.episode import EpisodeRecord, read_episodes
from einsort_vla.results.report import KINDS, Percentiles, Report, check_kind, read_report
from einsort_vla.results.run import CLOSED_LOOP, LOG, REPORT, RUN, Run, read_run

MANIFEST, WEIGHTS = "einsort_manifest.json", "model.safetensors"  # of a compressed policy
RECEIPTS = "engines/bench-*.json"  # in a bundle
BUNDLE = "manifest.json"
MEASURE = "Measure again."


@dataclass(frozen=True)
class Model:
    """The dense model that was compressed; it is its weights, whatever its name."""

    name: str
    sha256: str | None  # None where the run does not say

    def is_same(self, other: "Model") -> bool:
        """Whether both have the same weights, for sure."""
        return self.sha256 is not None and self.sha256 == other.sha256

    def __str__(self) -> str:
        return f"{self.name} ({self.sha256[:12] if self.sha256 else 'weights unknown'})"


@dataclass(frozen=True)
class Source:
    """One run and what it found; without a report it has found nothing yet."""

    name: str  # of its folder
    model: Model
    run: Run
    report: Report | None
    weights: Mapping[str, str]  # SHA-256 of the compressed copies it kept, by their folders
    records: tuple[EpisodeRecord, ...] = ()  # of a closed-loop run

    @property
    def arms(self) -> tuple[ArmFacts, ...]:
        return self.report.arms if self.report else ()

    @property
    def codes(self) -> set[Code]:
        return {arm.code for arm in self.arms}

    @property
    def title(self) -> str:
        return self.report.title if self.report else self.name

    @property
    def is_complete(self) -> bool:
        return self.report is not None and self.report.complete

    def weights_of(self, code: Code) -> str | None:
        """SHA-256 of the weights of a compressed arm; None where the run did not keep them."""
        return self.weights.get(str(code).replace(" ", "-"))


class _Manifest(Struct, frozen=True):
    """What is read of that of a compressed policy."""

    files: Mapping[str, str] = {}


class Exported(Struct, frozen=True, kw_only=True):
    """What a receipt says was timed; all None where it does not say."""

    weights_sha256: str | None = None


class Receipt(Struct, frozen=True, kw_only=True):
    """What `einsort-vla bench`, or the program in a bundle, measured on a device.

    A device may write more than is read here.
    """

    latency_ms: Mapping[str, Percentiles]  # of each part, and of a whole chunk
    runtime: str | None = None
    board: str | None = None
    process_bytes: int | None = None
    power_w: float | None = None


@dataclass(frozen=True)
class Bench:
    """A receipt in a folder of results."""

    name: str  # of its file
    source: Exported
    receipt: Receipt

    @property
    def device(self) -> str:
        """What ran it on what: "onnx, Jetson AGX Orin"."""
        return f"{self.receipt.runtime}, {self.receipt.board}"


@dataclass(frozen=True)
class Sources:
    """All that a folder holds."""

    runs: tuple[Source, ...] = ()  # closed-loop runs first
    receipts: tuple[Bench, ...] = ()
    unused: tuple[str, ...] = ()  # names of what is no result

    @property
    def loops(self) -> tuple[Source, ...]:
        return tuple(source for source in self.runs if source.run.kind == CLOSED_LOOP)

    @property
    def texts(self) -> tuple[Source, ...]:
        return tuple(source for source in self.runs if source.run.kind != CLOSED_LOOP)

    @property
    def unfinished(self) -> list[str]:
        """Names of runs that have work left."""
        return [run.name for run in self.runs if not run.is_complete]


def is_single(folder: Path) -> bool:
    """Whether a folder is one run, not a folder of several.

    Raises:
        UsageError: there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder} is no folder. Name one that an evaluation wrote.")
    return (folder / RUN).is_file() or _kind_of_report(folder) is not None


def read_sources(folder: Path) -> Sources:
    """All results in a folder of runs, or in that of a single one.

    Raises:
        UsageError: it holds no results.
        CheckpointError: a run, a report or a receipt is damaged or of an unknown kind.
    """
    inside = [folder] if is_single(folder) else sorted(folder.iterdir())
    runs: list[Source] = []
    receipts: list[Bench] = []
    unused: list[str] = []
    for path in inside:
        own = list(_receipts(path, folder))
        receipts += own
        if any((path / name).is_file() for name in (RUN, LOG, REPORT)):
            runs.append(read_source(path))
        elif not own and not (path.is_file() and path.name.startswith("report.")):
            unused.append(path.name)
    if not (runs or receipts):
        raise UsageError(
            f"{folder} holds no results: no folder in it has a {RUN} or {REPORT}, and no file is a "
            "receipt of `einsort-vla bench`. Name the folder that the runs lie in."
        )
    runs.sort(key=lambda source: source.run.kind != CLOSED_LOOP)
    return Sources(tuple(runs), tuple(receipts), tuple(unused))


def read_source(folder: Path) -> Source:
    """The run in this folder; a closed-loop one is reported anew from its episodes.

    Raises:
        CheckpointError: it is no run, or it is damaged or of an unknown kind.
    """
    report, records = None, []
    if (folder / RUN).is_file() or (folder / LOG).is_file():
        run = read_run(folder)
        if run.design:
            records = read_episodes(folder / LOG)
            report = build_report(run, records)
        elif (folder / REPORT).is_file():
            report = read_report(folder)
    else:
        report = read_report(folder)
        run = report.run
    check_kind(run.kind, folder)
    return Source(folder.name, _model(run), run, report, _weights(folder), tuple(records))


def _kind_of_report(folder: Path) -> str | None:
    """The kind that a folder's report.json says it is, where that is one of `KINDS`."""
    try:
        kind = read_json(folder / REPORT, dict[str, Any]).get("kind")
    except CheckpointError:
        return None
    return kind if kind in KINDS else None


def _weights(folder: Path) -> dict[str, str]:
    """By the folders' names, as manifests have it: the weights themselves may be gigabytes."""
    files = {path.parent.name: read_json(path, _Manifest).files
             for path in sorted(folder.glob(f"*/*/{MANIFEST}"))}  # fmt: skip
    return {copy: found[WEIGHTS] for copy, found in files.items() if WEIGHTS in found}


def _model(run: Run) -> Model:
    """Weights in several files have one fingerprint, that a compressed folder has of its source."""
    inputs = run.inputs_sha256
    sha256 = inputs.get("policy") or inputs.get("model")
    shards = [digest for name, digest in inputs.items() if name.endswith(".safetensors")]
    if shards and not sha256:
        sha256 = hashlib.sha256("".join(shards).encode()).hexdigest()
    return Model(Path(run.model).name, sha256)


def _receipts(path: Path, top: Path) -> Iterator[Bench]:
    """A file that is one, or those of a bundle and of bundles in a folder."""
    if path.is_file():
        if path.suffix == ".json" and "latency_ms" in (content := _content(path)):
            yield _bench(path, path.name, content, content.get("source", {}))
        return
    for file in sorted(path.rglob(RECEIPTS)):
        content = _content(file)
        if "latency_ms" not in content:
            raise CheckpointError(f"{file} is no receipt of `einsort-vla bench`. {MEASURE}")
        manifest = file.parents[1] / BUNDLE
        exported = _content(manifest) if manifest.is_file() else {}
        source = content.get("source") or exported.get("source", {})
        yield _bench(file, file.relative_to(top).as_posix(), content, source)


def _bench(file: Path, name: str, content: object, source: object) -> Bench:
    exported = as_record(source, Exported, f"{file}, source,", MEASURE)
    return Bench(name, exported, as_record(content, Receipt, str(file), MEASURE))


def _content(file: Path) -> dict[str, Any]:
    return read_json(file, dict[str, Any], MEASURE)
