"""A compressed folder is whole or not there; damage is found at loading."""

import json

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from einsort_vla.checkpoint import (
    DenseFolder,
    compress_folder,
    plan_folder,
    read,
    read_folder,
    write,
)
from einsort_vla.codec import Codec, decode
from einsort_vla.errors import CheckpointError, NumericsError, UsageError
from einsort_vla.plan import LayerStatistics
from tests.compressing import compress

WEIGHTS = "model.safetensors"


@pytest.fixture
def compressed(tiny_policy_folder, tmp_path):
    destination = tmp_path / "compressed"
    compress(tiny_policy_folder, destination, 0.7)
    return destination


def test_only_linear_layers_in_use_are_compressible(tiny_policy_folder):
    assert DenseFolder(tiny_policy_folder).matrices == {
        "model.first.weight": (96, 64),
        "model.second.weight": (33, 96),
    }


def test_the_copy_holds_the_plan_the_code_and_an_untouched_remainder(
    tiny_policy_folder, compressed
):
    dense = load_file(tiny_policy_folder / WEIGHTS)
    content = read(compressed / WEIGHTS)
    assert content.plan.rate >= 0.7
    stored = sum(c.stored_bits for c in content.coded.values())
    assert stored == content.plan.n_bits
    for name, matrix in content.coded.items():
        error = (decode(matrix) - dense[name].float()).square().mean() / dense[
            name
        ].float().square().mean()
        assert error < 0.02  # 4.8 bits a weight
    assert content.dropped == {"model.lm_head.weight": "never used in inference"}
    assert content.dense.keys() == dense.keys() - content.coded.keys() - content.dropped.keys()
    assert all(torch.equal(tensor, dense[name]) for name, tensor in content.dense.items())


def test_config_type_is_never_the_dense_one_and_side_files_travel(tiny_policy_folder, tmp_path):
    config = {"type": "smolvla", "chunk_size": 8, "architectures": 5}  # not LeRobot's: let be
    (tiny_policy_folder / "config.json").write_text(json.dumps(config))
    compress(tiny_policy_folder, compressed := tmp_path / "compressed")
    found = json.loads((compressed / "config.json").read_text())
    assert found == config | {"type": "einsort_smolvla"}
    assert (compressed / "vlm" / "tokenizer.json").exists()
    assert (compressed / "policy_preprocessor.json").exists()
    assert "compressed with EinSort" in (compressed / "README.md").read_text()


@pytest.mark.parametrize("keep", [0, 5, 100, 2000, -1])
def test_truncation_is_found(compressed, keep):
    file = compressed / WEIGHTS
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(CheckpointError, match="damaged or truncated"):
        read(file)
    with pytest.raises(CheckpointError, match="not the file that was written"):
        read_folder(compressed)


def _rewrite(file, change_tensors=None, change_metadata=None):
    with safe_open(file, "pt") as source:
        metadata = source.metadata()
    tensors = load_file(file)
    (change_tensors or (lambda t: None))(tensors)
    metadata.update(change_metadata or {})
    save_file(tensors, file, metadata)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        (lambda t: t.pop("model.first.weight_words"), {}, "lacks the tensor model.first.weight_w"),
        (lambda t: t.update({"model.first.weight_words": torch.zeros(3, dtype=torch.int16)}), {},
         "the plan says"),
        (lambda t: t["model.first.weight_unit"].fill_(torch.nan), {}, "holds NaN or infinity"),
        (None, {"format_version": "99"}, "format_version 99; this library reads 9"),
        (None, {"format": "other"}, "not an EinSort checkpoint"),
        (None, {"constants_sha256": "0"}, "other constants"),
        (None, {"plan": "{"}, "damaged"),
        (None, {"plan": '{"form": "curve"}'}, "unknown field `form`"),
    ],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_the_reason(compressed, tensors, metadata, message):
    _rewrite(compressed / WEIGHTS, tensors, metadata)
    with pytest.raises(CheckpointError, match=message):
        read(compressed / WEIGHTS)


def test_sources_that_are_no_dense_policy(tiny_policy_folder, compressed, tmp_path):
    def refused(source, error, message, rate=0.5):
        with pytest.raises(error, match=message):
            compress(source, tmp_path / "new", rate)
        assert not (tmp_path / "new").exists()
        assert not (tmp_path / "new.partial").exists()

    refused(tmp_path / "nowhere", CheckpointError, "does not exist")
    refused(compressed, CheckpointError, "already compressed")
    refused(tiny_policy_folder / WEIGHTS, CheckpointError, "is a file")
    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", CheckpointError, r"no config.json in it \(found: nothing\)")
    refused(tiny_policy_folder, UsageError, "outside", rate=1.5)
    config = tiny_policy_folder / "config.json"
    config.write_text("{")
    refused(tiny_policy_folder, CheckpointError, "config.json is damaged")
    config.write_text('{"type": "smolvlm"}')
    refused(tiny_policy_folder, UsageError, "Did you mean 'smolvla'")


def test_a_bad_weight_names_its_tensor_and_leaves_nothing_behind(tiny_policy_folder, tmp_path):
    _rewrite_nan = load_file(tiny_policy_folder / WEIGHTS)
    _rewrite_nan["model.second.weight"][0, 0] = torch.nan
    save_file(_rewrite_nan, tiny_policy_folder / WEIGHTS)
    with pytest.raises(NumericsError, match=r"model.second.weight: the weight holds 1 NaN"):
        compress(tiny_policy_folder, tmp_path / "new", 0.5)
    assert not list(tmp_path.glob("new*"))


def test_nothing_is_written_over(tiny_policy_folder, compressed):
    before = (compressed / WEIGHTS).read_bytes()
    with pytest.raises(CheckpointError, match="exists already"):
        compress(tiny_policy_folder, compressed, 0.5)
    with pytest.raises(CheckpointError, match="exists already"):
        write(compressed / WEIGHTS, read(compressed / WEIGHTS))
    assert (compressed / WEIGHTS).read_bytes() == before


def test_layers_that_a_calibration_did_not_see_are_coded_without_it(tiny_policy_folder, tmp_path):
    """They never ran, or on zeros alone; the summary names them."""
    dense, codec = DenseFolder(tiny_policy_folder), Codec("scalar")
    statistics = LayerStatistics(dense.sha256)
    statistics.add("model.first.weight", torch.zeros(8, 64))
    plan = plan_folder(dense, 0.7, codec)
    with pytest.raises(CheckpointError, match="saw none of the 2 layers"):
        compress_folder(dense, tmp_path / "new", plan, statistics)
    inputs = torch.randn(8, 96, generator=torch.Generator().manual_seed(0)).cumsum(1)
    statistics.add("model.second.weight", inputs)
    summary = compress_folder(dense, tmp_path / "new", plan, statistics)
    assert summary.unseen == ["model.first.weight"]
    compress_folder(dense, tmp_path / "plain", plan)
    fed, plain = (read_folder(tmp_path / name).coded for name in ("new", "plain"))
    same = {n: torch.equal(decode(fed[n]), decode(plain[n])) for n in plain}
    assert same == {"model.first.weight": True, "model.second.weight": False}
    assert summary.share_coded == pytest.approx(9312 / 10528)  # the head is dropped
