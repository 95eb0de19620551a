"""Writes a bundle: everything a device needs to run a policy, and to prove what it runs."""

import json
import platform
import zipfile
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch

import einsort_vla
from einsort_vla.checkpoint import (
    WEIGHTS,
    file_sha256,
    is_compressed,
    read_config,
    read_folder,
)
from einsort_vla.checkpoint.card import CARD
from einsort_vla.checkpoint.manifest import MANIFEST as FOLDER_MANIFEST
from einsort_vla.checkpoint.manifest import SIGNED_BY
from einsort_vla.checkpoint.read_files import ReadFiles
from einsort_vla.checkpoint.side_files import side_files
from einsort_vla.checkpoint.source import policy_type
from einsort_vla.claims import Claim, atomic_folder
from einsort_vla.errors import UsageError
from einsort_vla.export.graphs import write_graphs
from einsort_vla.export.linear import OPERATORS
from einsort_vla.export.targets import GraphOptions, Target
from einsort_vla.families import Export, export_of, family_of
from einsort_vla.lerobot import (
    LoadedPolicy,
    Observation,
    Shown,
    load_policy,
    replace_sampling_,
)
from einsort_vla.native_library import FILES
from einsort_vla.runtime.bundle import PLUGINS, open_bundle, plugin_name, write_sums
from einsort_vla.runtime.manifest import FORMAT, FORMAT_VERSION, GRAPHS, MANIFEST, SAMPLES

PROCESSING = "processing"
DEVICE_PROGRAM = "einsort-device.pyz"
MADE_UP_LOOKS = 4
_LEFT_OUT = {WEIGHTS, CARD, FOLDER_MANIFEST, SIGNED_BY}
_PACKAGES = ("einsort-vla", "torch", "onnx", "onnxscript", "onnxruntime", "transformers", "lerobot")
# What the runtime needs of this package beside itself.
_WITH_RUNTIME = (
    "__init__", "atomic", "compiling", "ending", "errors", "native_flags", "native_library",
    "private", "signature",
)  # fmt: skip
_EPOCH = (1980, 1, 1, 0, 0, 0)  # zip's first day: equal bundles are equal in every byte


def export_bundle(
    source: Path,
    out: Path | Claim,
    target: Target,
    options: GraphOptions,
    observations: Sequence[Observation] = (),
    on_progress: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Export a policy folder for a target; `out` appears when it is whole.

    Args:
        source: a compressed LeRobot policy folder.
        out: folder to make.
        target: what it is for.
        options: batch and precision of the graphs.
        observations: what `verify` will compare at, with their places as seeds; without any,
            pictures of noise.
        on_progress: is called after each graph.

    Returns:
        The manifest.

    Raises:
        CheckpointError: `out` exists, or the folder cannot be read.
        UsageError: it is not compressed, its family, the form of its code or the precision is
            not exported, another process is writing `out`, or that lies in the folder.
        MissingDependency: a compiler for the plugin is missing.
    """
    with atomic_folder(out, source) as partial:
        config = read_config(source)
        export, plan = export_of(policy_type(source, config)), _plan_facts(source, config)
        read, processing = ReadFiles(source / WEIGHTS), side_files(source, _LEFT_OUT)
        precision = None
        if target.capability is not None:
            precision = _precision(options, export, config["type"])
        (partial / GRAPHS).mkdir()
        cuda = _write_plugin(partial / PLUGINS, target)
        policy = load_policy(str(source))
        manifest = {
            "source": plan, "policy": _policy_facts(policy),
            **_circumstances(target, cuda, options, precision),
        }  # fmt: skip
        _write_samples(partial / SAMPLES, policy, observations)
        del policy
        manifest |= write_graphs(
            lambda: load_policy(str(source), backend="reference"), partial / GRAPHS, options,
            precision, on_progress,
        )  # fmt: skip
        processing.copy(partial / PROCESSING)  # LeRobot's own files of processors, and tokenizers
        write_device_program(partial / DEVICE_PROGRAM)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1) + "\n", encoding="utf-8")
        write_sums(partial)
        open_bundle(partial)  # what a device would refuse is not handed out
        read.check()
        processing.check_unchanged(side_files(source, _LEFT_OUT))
    return manifest


def _precision(options: GraphOptions, export: Export, kind: str) -> str:
    precision = options.precision or export.precisions[0]
    if precision not in export.precisions:
        raise UsageError(
            f"{kind} cannot compute in {precision}, only in {', '.join(export.precisions)}."
        )
    return precision


def _circumstances(
    target: Target, cuda: str | None, options: GraphOptions, precision: str | None
) -> dict[str, Any]:
    """The manifest but for policy, source and graphs."""
    return {
        "format": FORMAT, "version": FORMAT_VERSION,
        "target": {
            "name": target.name, "what": target.what, "machine": target.machine,
            "compute_capability": target.capability, "cuda": cuda,
        },
        "batch": {"size": options.batch, "dynamic": options.dynamic_batch},
        "precision": {
            "onnx": "float32", "engines": precision, "sums": "float32", "flow": "float32",
        },
        "versions": {"python": platform.python_version()} | {n: _version(n) for n in _PACKAGES},
    }  # fmt: skip


def _write_samples(path: Path, policy: LoadedPolicy, observations: Sequence[Observation]) -> None:
    if not observations:
        observations = policy.made_up_observations(MADE_UP_LOOKS)
    runs: dict[str, Any] = dict(sample_runs(policy, observations))
    np.savez(path, **runs)


def sample_runs(policy: LoadedPolicy, observations: Sequence[Observation]) -> dict[str, np.ndarray]:
    """What the model is shown at each observation, and its actions in float32, stacked by name."""
    model, shown = policy.module.model, []
    original = model.sample_actions

    def remember(own: Shown) -> torch.Tensor:
        state = [own["state"]] if "state" in own else []
        actions = original(
            list(own["images"].unbind(1)), list(own["image_masks"].unbind(1)), own["tokens"],
            own["token_masks"], *state, noise=own["noise"],
        )  # fmt: skip
        shown.append({**own, "actions": actions})
        return actions

    with mock.patch.object(model, "sample_actions", original):  # put back in the end
        replace_sampling_(policy, remember)
        for k, observation in enumerate(observations):
            policy.chunk(observation, k)
    return {name: np.concatenate([one[name].numpy() for one in shown]) for name in shown[0]}


def write_device_program(path: Path) -> None:
    """Write the `runtime` package as one file that any Python from 3.10 on runs.

    It has the native library's source with it, which is compiled on the device.
    """
    root = Path(einsort_vla.__file__).parent
    alone = [root / f"{name}.py" for name in _WITH_RUNTIME]
    members = [*alone, *FILES, *sorted((root / "runtime").glob("*.py"))]
    with zipfile.ZipFile(path, "x", zipfile.ZIP_DEFLATED) as program:
        for member in members:
            name = f"einsort_vla/{member.relative_to(root).as_posix()}"
            program.writestr(zipfile.ZipInfo(name, _EPOCH), member.read_bytes())
        start = "from einsort_vla.runtime.program import main\n\nmain()\n"
        program.writestr(zipfile.ZipInfo("__main__.py", _EPOCH), start)


def _plan_facts(source: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Fingerprint, rate and forms of a compressed folder, if its code is exported."""
    if not is_compressed(config):
        raise UsageError(f"{source} is not compressed. First: einsort-vla compress {source} DIR")
    content = read_folder(source)
    if content.plan.codec.form not in OPERATORS:
        raise UsageError(
            f"{source} is in the form {content.plan.codec.form!r}, which is not exported. "
            f"Compress the dense policy with --codec {' or '.join(OPERATORS)}."
        )
    other = [n for n, c in content.coded.items() if c.spec.form not in OPERATORS]
    return {
        "weights_sha256": file_sha256(source / WEIGHTS), "rate": content.plan.rate,
        "kept_without_error": other,
    }  # fmt: skip


def _policy_facts(policy: LoadedPolicy) -> dict[str, Any]:
    """What a program on the device must know to feed the graphs and to use the actions."""
    config = policy.module.config
    return {
        "type": family_of(config.type).name, "cameras": policy.camera_keys,
        "image_range": [-1.0, 1.0], "tokenizer_max_length": config.tokenizer_max_length,
        "state_size": config.robot_state_feature.shape[0] if config.robot_state_feature else 0,
        "action_size": config.action_feature.shape[0],
        "chunk_size": policy.chunk_size, "n_action_steps": policy.n_action_steps,
        "n_steps": export_of(config.type).n_steps(config),
        "normalization": {
            key: {name: np.asarray(value).tolist() for name, value in own.items()}
            for key, own in policy.statistics.items()
        },
    }  # fmt: skip


def _write_plugin(folder: Path, target: Target) -> str | None:
    """The plugin's library for the target's machine, with kernels for its GPU, and its source.

    Returns:
        The CUDA release of the kernels, the oldest whose driver loads them.
    """
    if target.capability is None or target.machine is None:
        return None
    from einsort_vla.export.plugin.build import build_plugin, write_source
    from einsort_vla.kernels.cuda.build import cubin
    from einsort_vla.kernels.cuda.nvrtc import compiler_for

    nvrtc = compiler_for(target.capability)
    code = {target.capability: cubin(target.capability, nvrtc)}
    made = build_plugin(folder, target.machine, code)
    made.rename(folder / plugin_name(target.machine))
    write_source(folder / "source", plugin_name(target.machine), code)
    return ".".join(map(str, nvrtc.version))


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
