"""`verify --against` passes on all that `compress` writes, and on no damage with right hashes."""

import io
import json
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from einsort_vla.checkpoint import (
    DenseFolder,
    compare_matrices,
    compare_rest,
    manifest,
    read_folder,
)
from einsort_vla.cli.verify import Verify
from einsort_vla.codec import Codec
from einsort_vla.errors import CheckpointError, UsageError
from einsort_vla.plan import LayerStatistics
from tests.compressing import compress

WEIGHTS = "model.safetensors"
CODECS = ["curve", "curve window=12 rotated=false", "scalar",
          "scalar group=32 grid=asymmetric clip=true", "lossless", "local", "network",
          "network scope=none sign_split=false"]  # fmt: skip


@pytest.fixture
def policy(tmp_path):
    """Matrices with heavy tails, a row of zeros and an outlier; all else that files may hold."""
    folder = tmp_path / "policy"
    folder.mkdir()
    generator = torch.Generator().manual_seed(5)

    def heavy(*shape):
        return torch.randn(shape, generator=generator) ** 3

    tensors = {f"model.{name}.weight": heavy(40, 48) for name in "ab"}
    tensors["model.a.weight"][3] = 0
    tensors["model.b.weight"][5, 7] = 90
    tensors |= {"model.head.weight": heavy(2, 40), "model.a.bias": heavy(40)}
    tensors["model.mask"] = torch.tensor([0, -torch.inf])
    save_file(tensors, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps({"type": "act"}))
    return folder


def in_type(folder: Path, dtype: torch.dtype) -> DenseFolder:
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(folder / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    return DenseFolder(folder)


def statistics_of(dense: DenseFolder) -> LayerStatistics:
    """Inputs of few directions, on which feedback moves weights as far as it ever does."""
    statistics, generator = LayerStatistics(dense.sha256), torch.Generator().manual_seed(6)
    for name, (_, n) in dense.matrices.items():
        inputs = torch.randn(200, 4, generator=generator) @ torch.randn(4, n, generator=generator)
        statistics.add(name, inputs + 0.1 * torch.randn(200, n, generator=generator))
    return statistics


def verify(folder, source):
    out = io.StringIO()
    code = Verify(folder, source, looks=0).run(Console(file=out, width=200))
    return code, " ".join(out.getvalue().split())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("codec", CODECS)
def test_what_was_compressed_is_what_coding_anew_gives(policy, tmp_path, codec, dtype):
    dense, tried = in_type(policy, dtype), 0
    for k, rate in enumerate([0, 0.05, 0.33, 0.5, 0.7, 0.85, 0.95]):
        with suppress(UsageError):  # beyond the codec's reach
            compress(policy, tmp_path / str(k), rate, Codec.parse(codec))
            content = read_folder(tmp_path / str(k))
            found = list(compare_matrices(content, dense))
            assert all(own.is_same and not own.fault for own in found)
            assert compare_rest(content, dense) == []
            tried += 1
    assert tried >= 1


@pytest.mark.parametrize("codec", [c for c in CODECS if c != "lossless"])
def test_a_calibrated_folder_passes(policy, tmp_path, codec):
    statistics = statistics_of(DenseFolder(policy))
    compress(policy, tmp_path / "new", 0.6, Codec.parse(codec), statistics=statistics)
    code, text = verify(tmp_path / "new", policy)
    assert code == 0, text
    assert "every row has a bounded error and resembles its source" in text


def swap(tensors):
    for part in ("words", "scale", "unit"):
        a, b = (f"model.{name}.weight_{part}" for name in "ab")
        tensors[a], tensors[b] = tensors[b], tensors[a]


def noise(tensor):
    generator = torch.Generator().manual_seed(0)
    tensor.copy_(torch.randint(-(2**15), 2**15, tensor.shape, generator=generator))


DAMAGES = {
    "other signs": (lambda t: t["model.a.weight_scale"].bitwise_xor_(128), "row 0 has the error"),
    "longer rows": (lambda t: t["model.b.weight_unit"].mul_(6), "row 0 has the error"),
    "a lost row": (lambda t: t["model.b.weight_scale"][9:10].zero_(), "row 9 became zero"),
    "a new row": (lambda t: t["model.a.weight_scale"][3:4].fill_(127), "row 3 has the error inf"),
    "swapped matrices": (swap, "model.a.weight: row"),
    "other words": (lambda t: noise(t["model.b.weight_words"]), "model.b.weight: row"),
    "a changed bias": (lambda t: t["model.a.bias"][2:3].mul_(1 + 2**-7), "model.a.bias is not the"),
    "an infinite bias": (lambda t: t["model.a.bias"][2:3].fill_(torch.inf), "a.bias is not the"),
    "a missing bias": (lambda t: t.pop("model.a.bias"), "model.a.bias is missing"),
    "a further bias": (lambda t: t.update({"b": torch.zeros(1)}), "Wrong: b is not of the source"),
}  # fmt: skip


def test_a_file_that_does_not_say_its_source_is_of_another(policy, tmp_path):
    compress(policy, tmp_path / "new", 0.7)
    path = tmp_path / "new" / WEIGHTS
    with safe_open(path, "pt") as file:
        metadata = {**file.metadata(), "source_sha256": ""}
    tensors = load_file(path) | {"model.a.bias": torch.zeros(40)}
    save_file(tensors, path, metadata)
    manifest.write(path.parent)
    with pytest.raises(CheckpointError, match="does not hold the weights that"):
        verify(path.parent, policy)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("is_calibrated", [False, True])
def test_damage_with_right_hashes_is_found(policy, tmp_path, damage, is_calibrated):
    dense, new = in_type(policy, torch.bfloat16), tmp_path / "new"
    statistics = statistics_of(dense) if is_calibrated else None
    compress(policy, new, 0.7, statistics=statistics)
    with safe_open(new / WEIGHTS, "pt") as file:
        metadata = file.metadata()
    tensors, (change, message) = load_file(new / WEIGHTS), DAMAGES[damage]
    change(tensors)
    save_file(tensors, new / WEIGHTS, metadata)
    manifest.write(new)
    code, text = verify(new, policy)
    assert code == 1
    assert message in text
    assert "differ from what compressing this source gives" in text


def test_a_matrix_kept_dense_has_every_bit_of_the_source(policy, tmp_path):
    compress(policy, tmp_path / "new", 0)
    content = read_folder(tmp_path / "new")
    assert content.coded["model.a.weight"].parts["dense"].dtype == torch.float32
    assert content.plan.rate == -1
    row = content.coded["model.a.weight"].parts["dense"][8]
    row[4] = torch.nextafter(row[4], torch.tensor(torch.inf))
    first, *others = compare_matrices(content, DenseFolder(policy))
    assert "row 8 has the error" in first.fault
    assert not any(own.fault for own in others)
