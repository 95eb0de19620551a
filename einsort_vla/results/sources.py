"""What lies in a folder of results: closed-loop runs, text evaluations, receipts of `bench`."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.results.episode import EpisodeRecord, read_episodes
from einsort_vla.results.folder import LOG, REPORT, RUN, read_run
from einsort_vla.results.measures import Findings, read_findings
from einsort_vla.results.report import build_report

KINDS = {"textvqa": "Text in pictures", "language": "Language"}
MANIFEST, WEIGHTS = "einsort_manifest.json", "model.safetensors"  # of a compressed policy
RECEIPTS = "engines/bench-*.json"  # in a bundle
BUNDLE = "manifest.json"
Code = tuple[str | None, float]  # codec and requested rate
DENSE: Code = (None, 0.0)


def code_of(arm: Mapping[str, Any]) -> Code:
    """The code of an arm, by which it is the same one in all runs."""
    return arm["codec"], arm["rate_requested"]


def name_of(code: Code) -> str:
    """`dense`, or `leader 0.5`."""
    codec, rate = code
    return f"{codec} {rate:g}" if codec else "dense"


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
class _Run:
    name: str  # of its folder
    model: Model
    run: Mapping[str, Any]  # content of run.json
    weights: Mapping[str, str]  # SHA-256 of the compressed copies it kept, by their folders

    @property
    def is_calibrated(self) -> bool:
        return bool(self.run.get("config", {}).get("calibrate"))

    def weights_of(self, code: Code) -> str | None:
        """SHA-256 of the weights of a compressed arm; None where the run did not keep them."""
        return self.weights.get(name_of(code).replace(" ", "-"))


@dataclass(frozen=True)
class ClosedLoop(_Run):
    """A run of eval/libero.py."""

    records: tuple[EpisodeRecord, ...]
    report: dict[str, Any]

    @property
    def arms(self) -> Mapping[str, Mapping[str, Any]]:
        """What is said of each arm."""
        return self.report["arms"]

    @property
    def undelayed(self) -> dict[str, Mapping[str, Any]]:
        """Arms with the shortest delay that was tried, by their names."""
        shortest = min((arm["delay_ms"] for arm in self.arms.values()), default=0)
        return {name: arm for name, arm in self.arms.items() if arm["delay_ms"] == shortest}


@dataclass(frozen=True)
class TextRun(_Run):
    """A run of eval/textvqa.py or eval/language.py; without findings it has none yet."""

    findings: Findings | None

    @property
    def arms(self) -> Mapping[str, Mapping[str, Any]]:
        """What is said of each arm."""
        return self.findings.arms if self.findings else {}

    @property
    def title(self) -> str:
        return KINDS[self.findings.kind] if self.findings else self.name


@dataclass(frozen=True)
class Receipt:
    """What `einsort-vla bench`, or the program in a bundle, measured on a device."""

    name: str  # of its file
    source: Mapping[str, Any]  # weights_sha256 and rate of what was exported; empty: unknown
    content: Mapping[str, Any]

    @property
    def device(self) -> str:
        """What ran it on what: "onnx, Jetson AGX Orin"."""
        return f"{self.content.get('runtime')}, {self.content.get('board')}"


@dataclass(frozen=True)
class Sources:
    """All that a folder holds."""

    loops: tuple[ClosedLoop, ...] = ()
    texts: tuple[TextRun, ...] = ()
    receipts: tuple[Receipt, ...] = ()
    unused: tuple[str, ...] = ()  # names of what is no result

    @property
    def runs(self) -> tuple[ClosedLoop | TextRun, ...]:
        """All but the receipts."""
        return (*self.loops, *self.texts)


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
    loops: list[ClosedLoop] = []
    texts: list[TextRun] = []
    receipts: list[Receipt] = []
    unused: list[str] = []
    for path in inside:
        own = list(_receipts(path, folder))
        receipts += own
        if (path / RUN).is_file() and "tasks" in read_run(path):
            loops.append(_closed_loop(path))
        elif any((path / name).is_file() for name in (RUN, LOG, REPORT)):
            texts.append(read_text_run(path))
        elif not own and not _is_ours(path):
            unused.append(path.name)
    if not (loops or texts or receipts):
        raise UsageError(
            f"{folder} holds no results: no folder in it has a {RUN} or {REPORT}, and no file is a "
            "receipt of `einsort-vla bench`. Name the folder that the runs lie in."
        )
    return Sources(tuple(loops), tuple(texts), tuple(receipts), tuple(unused))


def _kind_of_report(folder: Path) -> str | None:
    """The kind that a folder's report.json says it is, where that is one of `KINDS`."""
    try:
        kind = json.loads((folder / REPORT).read_text(encoding="utf-8"))["kind"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return kind if kind in KINDS else None


def _is_ours(path: Path) -> bool:
    return path.is_file() and path.name.startswith("report.")


def _closed_loop(folder: Path) -> ClosedLoop:
    run, records = read_run(folder), read_episodes(folder / LOG)
    try:
        report = build_report(run, records)
        model = Model(Path(run["policy"]).name, run["inputs_sha256"]["policy"])
    except (KeyError, TypeError) as error:
        raise CheckpointError(
            f"{folder / RUN} is not of a closed-loop run that this version reads "
            f"({type(error).__name__}: {error}); run the evaluation again."
        ) from error
    return ClosedLoop(folder.name, model, run, _weights(folder), tuple(records), report)


def _weights(folder: Path) -> dict[str, str]:
    """Fingerprint of the weights of each compressed copy that a run kept, by its folder's name.

    The one that its manifest has; the weights themselves may be gigabytes.
    """
    found = {}
    for path in sorted(folder.glob(f"*/*/{MANIFEST}")):
        files = _read_json(path).get("files", {})
        if WEIGHTS in files:
            found[path.parent.name] = files[WEIGHTS]
    return found


def read_text_run(folder: Path) -> TextRun:
    """The run of a text evaluation in this folder.

    Raises:
        CheckpointError: it is no such run, or its report is of another kind or schema.
    """
    run = read_run(folder) if (folder / RUN).is_file() or (folder / LOG).is_file() else {}
    findings = None
    if (folder / REPORT).is_file() or not run:
        findings = read_findings(folder)
        if findings.kind not in KINDS:
            raise CheckpointError(
                f"{folder / REPORT} is a report of an unknown kind, {findings.kind!r}; known are "
                f"{', '.join(KINDS)} and runs of eval/libero.py. Move it out of the folder."
            )
    return TextRun(folder.name, _model(run, folder), run, _weights(folder), findings)


def _model(run: Mapping[str, Any], folder: Path) -> Model:
    name = run.get("model") or run.get("config", {}).get("model") or f"the model of {folder.name}"
    inputs = run.get("inputs_sha256", {})
    return Model(Path(name).name, inputs.get("model") or _of_shards(inputs))


def _of_shards(inputs: Mapping[str, str]) -> str | None:
    """One fingerprint for weights in several files, as a compressed folder has it of its source."""
    shards = [digest for name, digest in inputs.items() if name.endswith(".safetensors")]
    return hashlib.sha256("".join(shards).encode()).hexdigest() if shards else None


def _receipts(path: Path, top: Path) -> Iterator[Receipt]:
    """A file that is one, or those of a bundle and of bundles in a folder."""
    if path.is_file():
        if path.suffix == ".json" and "latency_ms" in (content := _read_json(path)):
            yield Receipt(path.name, content.get("source", {}), content)
        return
    for file in sorted(path.rglob(RECEIPTS)):
        content = _read_json(file)
        if "latency_ms" not in content:
            raise CheckpointError(f"{file} is no receipt of `einsort-vla bench`; measure again.")
        manifest = file.parents[1] / BUNDLE
        exported = _read_json(manifest) if manifest.is_file() else {}
        source = content.get("source") or exported.get("source", {})
        yield Receipt(file.relative_to(top).as_posix(), source, content)


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} holds no JSON object.")
    return content
