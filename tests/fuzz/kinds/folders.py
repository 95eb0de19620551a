"""Compressed and dense folders of weights, and the patches between them."""

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from einsort_vla.checkpoint import (
    DenseFolder,
    apply_patch,
    compress_folder,
    plan_folder,
    read_folder,
    write_patch,
    write_results,
)
from einsort_vla.cli.inspect import describe
from einsort_vla.codec import Codec, decode
from einsort_vla.plan import Plan
from tests.fuzz.change import Target
from tests.fuzz.kinds.kind import Kind
from tests.fuzz.signing import sign_manifest

SHAPES = {"first": (24, 16), "second": (17, 24), "third": (16, 16), "fourth": (12, 8),
          "fifth": (20, 16)}  # fmt: skip
SPECS: dict[str, dict[str, Any]] = {  # of each form one matrix
    "first": {"form": "curve", "bits": 7.0, "window": 7, "rotated": False},
    "second": {"form": "scalar", "bits": 4, "group": 8, "grid": "asymmetric", "clip": False},
    "third": {"form": "network", "rank": 8, "slices": 4},
    "fourth": {"form": "dense"},
    "fifth": {"form": "curve", "bits": 2.5, "window": 12, "rotated": True},
}


def make_dense(folder: Path, n_files: int = 1) -> Path:
    """A LeRobot policy of a few small matrices, in as many shards."""
    generator = torch.Generator().manual_seed(0)

    def weight(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).bfloat16()

    tensors = {f"model.{n}.weight": weight(*shape) for n, shape in SHAPES.items()}
    tensors |= {"model.first.bias": weight(24), "model.norm.weight": weight(16)}
    folder.mkdir(parents=True, exist_ok=True)
    names = list(tensors)
    parts = [names[k::n_files] for k in range(n_files)]
    if n_files == 1:
        save_file(tensors, folder / "model.safetensors")
    else:
        weight_map = {}
        for k, part in enumerate(parts, 1):
            shard = f"model-{k:05}-of-{n_files:05}.safetensors"
            save_file({name: tensors[name] for name in part}, folder / shard)
            weight_map |= dict.fromkeys(part, shard)
        index = {"metadata": {"total_size": 4096}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    step = {"registry_name": "tokenizer_processor", "config": {"tokenizer_name": "hub/words"}}
    (folder / "policy_preprocessor.json").write_text(json.dumps({"name": "pre", "steps": [step]}))
    (folder / "config.json").write_text(json.dumps({"type": "smolvla", "chunk_size": 8}))
    (folder / "words").mkdir(exist_ok=True)
    (folder / "words" / "tokenizer.json").write_text("{}")
    return folder


def make_plan(folder: Path) -> Plan:
    """A plan with a matrix of every form."""
    tensors = {
        f"model.{name}.weight": {"spec": spec, "shape": list(SHAPES[name]), "distortion": 0.01}
        for name, spec in SPECS.items()
    }
    codec = {"codec": "curve", "rate_requested": 0.0, "tensors": tensors}
    return Plan.from_dict(codec)


def make_compressed(folder: Path, scale: float = 1.0) -> None:
    """A compressed folder; with another scale, of a policy that was trained on."""
    dense = make_dense(folder.parent / f"{folder.name}.dense")
    if scale != 1.0:
        from safetensors.torch import load_file

        path = dense / "model.safetensors"
        save_file({n: t * scale for n, t in load_file(path).items()}, path)
    folder.rmdir() if folder.exists() else None
    lossless = plan_folder(DenseFolder(dense), 0.0, Codec("lossless"))
    plan = make_plan(folder)
    name = "model.third.weight"
    if lossless.tensors[name].spec.form == "lossless":
        plan = Plan(plan.codec, 0.0, {**plan.tensors, name: lossless.tensors[name]})
    compress_folder(DenseFolder(dense), folder, plan)


def open_compressed(folder: Path, out: Path) -> Any:
    """What `inspect` and every loader read of it, and the weights."""
    content = read_folder(folder)
    told = {k: v for k, v in describe(content).items() if k in ("calibrated",)}
    return told, {n: decode(t) for n, t in content.coded.items()}, content.dense


def open_dense(folder: Path, out: Path) -> Any:
    """A compressed copy of it."""
    dense = DenseFolder(folder)
    compress_folder(dense, out / "made", plan_folder(dense, 0.5, Codec("scalar")))
    content = read_folder(out / "made")
    return {n: decode(t) for n, t in content.coded.items()}, content.dense


def make_patch(folder: Path) -> None:
    for name, scale in (("old", 1.0), ("new", 1.25)):
        make_compressed(folder / name, scale)
    write_patch(folder / "old", folder / "new", folder / "patch.safetensors")


def open_patch(folder: Path, out: Path) -> Any:
    """The new folder, made out of the old one."""
    apply_patch(folder / "old", folder / "patch.safetensors", out / "made")
    made = out / "made"
    files = {p.relative_to(made).as_posix(): p for p in made.rglob("*") if p.is_file()}
    manifest = json.loads(files.pop("einsort_manifest.json").read_text())
    return manifest, {name: path.read_bytes() for name, path in files.items()}


def open_difference(folder: Path, out: Path) -> Any:
    """The patch, and the card with results written into it."""
    write_patch(folder / "old", folder / "new", out / "patch.safetensors")
    write_results(folder / "old", "A table of results.\n")
    return (folder / "old" / "README.md").read_text()


ANYTHING = ("*",)
KINDS = (
    Kind(
        "compressed", make_compressed, open_compressed, (
            Target("config.json", "json", 1, ("config.json.chunk_size", "config.json.type")),
            # What another maker may write: then it is another policy.
            Target("model.safetensors", "tensors", 6, ANYTHING, ANYTHING),
            Target("einsort_manifest.json", "json", 1.5, optional=ANYTHING),
            Target("policy_preprocessor.json", "json", 0.3, has_free_bytes=True),
        ), 4, sign_manifest,
    ),
    Kind(
        "dense", lambda folder: make_dense(folder, 2) and None, open_dense, (
            Target("config.json", "json", 1, ANYTHING, ANYTHING),
            Target("model.safetensors.index.json", "json", 2, ("*.metadata*",), ("*.metadata*",)),
            Target("model-*.safetensors", "tensors", 3, ANYTHING, ANYTHING),
            Target("policy_preprocessor.json", "json", 1.5, ANYTHING, ANYTHING),
            Target("words/tokenizer.json", "json", 0.3, has_free_bytes=True),
        ), 2.5,
    ),
    Kind(
        "patch", make_patch, open_patch, (
            Target("patch.safetensors", "tensors", 5, ("*:card*",), ("*:card",)),
            Target("old/einsort_manifest.json", "json", 1),
            Target("old/model.safetensors", "tensors", 0.5),
        ), 2.5,
    ),
    Kind(
        "difference", make_patch, open_difference, (
            Target("old/README.md", "opaque", 1, has_free_bytes=True),
            Target("new/einsort_manifest.json", "json", 1, ANYTHING, ANYTHING),
            Target("new/model.safetensors", "tensors", 1, ANYTHING, ANYTHING),
            Target("new/config.json", "json", 0.5, has_free_bytes=True),
        ), 1,
    ),
)  # fmt: skip
