"""Small files that users give: plans, statistics, observations, protocols, questions."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from einsort_vla.checkpoint import DenseFolder, compress_folder, plan_folder, read_folder
from einsort_vla.cli.plan import from_yaml, to_yaml
from einsort_vla.codec import Codec, decode
from einsort_vla.lerobot import load_observations, save_observations
from einsort_vla.plan import LayerStatistics
from envs.libero.protocol import load_protocol
from eval.text.vqa_data import load_json, load_jsonl
from tests.fuzz.change import Target
from tests.fuzz.kinds.folders import ANYTHING, make_dense, make_plan
from tests.fuzz.kinds.kind import Kind


def make_plan_file(folder: Path) -> None:
    make_dense(folder / "policy")
    (folder / "plan.yaml").write_text(to_yaml(make_plan(folder)))


def open_plan_file(folder: Path, out: Path) -> Any:
    """The plan, and what it makes of a policy."""
    plan = from_yaml(folder / "plan.yaml")
    compress_folder(DenseFolder(folder / "policy"), out / "made", plan)
    return plan.as_dict(), {n: decode(t) for n, t in read_folder(out / "made").coded.items()}


def make_statistics(folder: Path) -> None:
    dense = DenseFolder(make_dense(folder / "policy"))
    statistics = LayerStatistics(dense.sha256)
    generator = torch.Generator().manual_seed(0)
    for name, shape in dense.matrices.items():
        statistics.add(name, torch.randn(64, shape[1], generator=generator))
        statistics.sensitivities[name] = 0.1
    statistics.save(folder / "statistics.safetensors")


def open_statistics(folder: Path, out: Path) -> Any:
    """The layers' inputs, and a policy that is compressed with them."""
    statistics = LayerStatistics.load(folder / "statistics.safetensors")
    dense = DenseFolder(folder / "policy")
    plan = plan_folder(dense, 0.5, Codec("scalar"), statistics)
    compress_folder(dense, out / "made", plan, statistics)
    coded = {n: decode(t) for n, t in read_folder(out / "made").coded.items()}
    return {n: statistics.hessian(n) for n in dense.matrices}, coded


def make_observations(folder: Path) -> None:
    rng = np.random.default_rng(0)
    save_observations(folder / "seen.safetensors", [
        {"observation.images.cam": rng.integers(0, 256, (8, 8, 3), dtype=np.uint8),
         "observation.state": rng.normal(size=8).astype(np.float32), "task": "push the cube"}
        for _ in range(3)
    ])  # fmt: skip


def open_observations(folder: Path, out: Path) -> Any:
    return load_observations([folder / "seen.safetensors"])


def make_protocol(folder: Path) -> None:
    source = Path(__file__).parents[3] / "configs" / "eval"
    (folder / "own.yaml").write_text((source / "einsort.yaml").read_text())
    (folder / "short.yaml").write_text("extends: einsort\nname: short\nsettle_steps: 3\n")


def open_protocol(folder: Path, out: Path) -> Any:
    return [load_protocol(str(folder / f"{n}.yaml")).as_dict() for n in ("own", "short")]


PROMPT = (
    "What is it?\nReference OCR token: $2, TEA\nAnswer the question using a single word or phrase."
)


def make_questions(folder: Path) -> None:
    (folder / "train_images").mkdir()
    for name in "ab":
        Image.new("RGB", (8, 8), "red").save(folder / "train_images" / f"{name}.jpg")
    records = [
        {"image_id": "a", "question_id": 1, "question": "what is it?", "answers": ["tea"] * 10},
        {"image_id": "a", "question_id": 2, "question": "whose tea?", "answers": ["my"] * 10},
        {"image_id": "b", "question_id": 3, "question": "how much?", "ocr_tokens": ["$2", "TEA"]},
    ]
    (folder / "val.json").write_text(json.dumps({"dataset_type": "val", "data": records}))
    lines = [{"question_id": name, "image": f"{name}.jpg", "text": PROMPT} for name in "ab"]
    (folder / "llava.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def open_questions(folder: Path, out: Path) -> Any:
    """All questions with their pictures."""
    sets = (
        load_json(folder / "val.json", folder),
        load_jsonl(folder / "llava.jsonl", folder / "train_images"),
    )
    pictures = [q.open_image().size for s in sets for q in s.questions[:9] if q.open_image]
    return sets, pictures


KINDS = (
    Kind("plan", make_plan_file, open_plan_file, (
        # A parameter that is left out has its default.
        Target("plan.yaml", "yaml", 5, ANYTHING, ("*.reason", "*.spec.*")),
    ), 2.5),
    Kind("statistics", make_statistics, open_statistics, (
        Target("statistics.safetensors", "tensors", 5, ("*:content.*",),
               ("*:content.sensitivities",)),
    ), 2.5),
    Kind("observations", make_observations, open_observations, (
        Target("seen.safetensors", "tensors", 5, ("*.task", "seen.safetensors:observation.*"),
               ("seen.safetensors:observation.*",)),
    ), 2),
    Kind("protocol", make_protocol, open_protocol, (
        # None of `n_action_steps` is what the policy says; a number is as good.
        Target("own.yaml", "yaml", 3, ANYTHING, ("*.max_steps.*",), free=("*.n_action_steps",)),
        Target("short.yaml", "yaml", 1, ANYTHING, ANYTHING),
    ), 1.5),
    Kind("questions", make_questions, open_questions, (
        Target("val.json", "json", 3, ANYTHING, ("*.answers", "*.ocr_tokens", "*.dataset_type"),
               ("*.question_id", "*.image_id")),
        Target("llava.jsonl", "lines", 2, ANYTHING, ("llava.jsonl.?",), ("*.question_id",)),
        Target("train_images/?.jpg", "opaque", 0.5, has_free_bytes=True),
    ), 1.5),
)  # fmt: skip
