"""A policy folder whose maker is hostile, or only old: one error of ours, and nothing is run."""

import base64
import json
import shutil

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

pytest.importorskip("lerobot")

from einsort_vla.checkpoint import DenseFolder, manifest
from einsort_vla.errors import CheckpointError, NumericsError, UsageError
from einsort_vla.lerobot import check_loads, load_policy
from tests.compressing import compress

PRE, CONFIG, VLM = "policy_preprocessor.json", "config.json", "vlm/config.json"
TOKENIZER = "policy_preprocessor_step_3_einsort_tokenizer.safetensors"
CODE = "import pathlib; pathlib.Path({!r}).touch()\n\nclass Mine:\n    pass\n"


@pytest.fixture(scope="module")
def small(reference_policy, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small") / "policy"
    compress(reference_policy, folder, 0.75)
    return folder


def changed(source, folder, name, change):
    """A copy with one JSON file changed, and with right fingerprints."""
    shutil.copytree(source, folder)
    content = json.loads((folder / name).read_text())
    content = change(content) or content
    (folder / name).write_text(json.dumps(content))
    if (folder / manifest.MANIFEST).is_file():
        manifest.write(folder)
    return folder


def first_step(**entry):
    return lambda content: content["steps"].insert(0, entry)


def named_step(registry_name, **config):
    return first_step(registry_name=registry_name, config=config)


def cameras(n, side):
    feature = {"type": "VISUAL", "shape": [3, side, side]}
    return {f"observation.images.more{k}": feature for k in range(n)}


HOSTILE = {
    "class": (PRE, first_step(**{"class": "os.system", "config": {"command": "true"}}), "class"),
    "both": (PRE, lambda c: c["steps"][0].update({"class": "os.system"}), "class 'os.system'"),
    "robot": (PRE, named_step("inverse_kinematics_ee_to_joints"), "no step of LeRobot's own"),
    "up": (PRE, lambda c: c["steps"][0].update(state_file="../a.safetensors"), "state_file"),
    "fast": (PRE, named_step("action_tokenizer_processor", action_tokenizer_name="me/mine"),
             "'me/mine', whose code LeRobot would run"),
    "crop": (PRE, named_step("image_crop_resize_processor", crop_params_dict={"c": [0, 0, 9, 9e4]}),
             "crop_params_dict.c.3. is"),
    "map": (PRE, named_step("rename_observations_processor", rename_map={str(k): "x"
             for k in range(10**5)}), "more than 65536 values"),
    "path": (PRE, named_step("tokenizer_processor", tokenizer_name="/etc"), "no name on the hub"),
    "pad": (PRE, lambda c: c["steps"][3]["config"].update(max_length=10**8), "max_length is"),
    "layers": (VLM, lambda c: c["text_config"].update(num_hidden_layers=10**8), "hidden_layers is"),
    "many": (VLM, lambda c: c["text_config"].update(num_hidden_layers=1000), "explain less"),
    "wide": (VLM, lambda c: c["text_config"].update(intermediate_size=2**25), "explain less"),
    "kernel": (VLM, lambda c: c.update(attn_implementation="me/kernel"), "code on the hub"),
    "chunk": (CONFIG, lambda c: c.update(chunk_size="1e9"), "chunk_size is 1e9"),
    "switch": (CONFIG, lambda c: c.update(n_obs_steps=True), "n_obs_steps is True, not a number"),
    "pixels": (CONFIG, lambda c: c.update(resize_imgs_with_padding=[2**14] * 2), "resize_imgs"),
    "steps": (CONFIG, lambda c: c.update(chunk_size=2000), "chunk_size is 2000"),
    "cameras": (CONFIG, lambda c: c["input_features"].update(cameras(40, 9)), "has 43 entries"),
    "wide cameras": (CONFIG, lambda c: c["input_features"].update(cameras(9, 2000)), "12 entries"),
    "adapter": (CONFIG, lambda c: c.update(use_peft=True), "use_peft"),
    "width": (CONFIG, lambda c: c.update(num_expert_layers=[1]), "config.json cannot be used"),
    "silent": (CONFIG, lambda c: c.update(output_features={}), "names no action"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_a_folder_may_not_ask_for(kind, small, reference_policy, tmp_path):
    name, change, message = HOSTILE[kind]
    sources = [small] if kind == "path" else [small, reference_policy]  # dense: its own backbone
    for k, source in enumerate(sources):
        folder = changed(source, tmp_path / str(k), name, change)
        with pytest.raises(CheckpointError, match=message) as error:
            load_policy(str(folder))
        assert str(folder) in str(error.value)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "processor_config.json"])
def test_code_beside_a_backbone_is_not_run(name, small, tmp_path):
    key = {"c": "AutoConfig", "t": "AutoTokenizer", "p": "AutoProcessor"}[name[0]]
    own = {"model_type": "mine", "tokenizer_class": "Mine", "processor_class": "Mine"}
    asked = {**own, "auto_map": {key: ["mine.Mine"] * 2 if name[0] == "t" else "mine.Mine"}}
    folder = changed(small, tmp_path / "x", f"vlm/{name}", lambda c: c.update(asked))
    (folder / "vlm" / "mine.py").write_text(CODE.format(str(tmp_path / "RAN")))
    manifest.write(folder)
    with pytest.raises(CheckpointError, match="code that lies beside it, which is not run"):
        load_policy(str(folder))
    assert not (tmp_path / "RAN").exists()


@pytest.mark.parametrize("name", ["../../gone", "/tmp/gone", "vocab.json"])
def test_a_tokenizer_is_its_known_files(name, small, tmp_path):
    folder = shutil.copytree(small, tmp_path / "x")
    state = {key: tensor.clone() for key, tensor in load_file(folder / TOKENIZER).items()}
    save_file({**state, name: torch.zeros(3, dtype=torch.uint8)}, folder / TOKENIZER)
    manifest.write(folder)
    with pytest.raises(CheckpointError, match=f"holds a file named '{name}'"):
        load_policy(str(folder))


def replaced(text):
    return {"type": "Replace", "pattern": {"String": "a"}, "content": text}


CHARSMAP = base64.b64encode(bytes([4, 0, 0, 0, 1, 2, 3, 4]) + b"z" * 999 + bytes(1)).decode()
TOKENIZERS = {
    "longer": (
        {"normalizer": {"type": "Sequence", "normalizers": [replaced("a" * 40)] * 3}},
        "6.4e.04 times as long",
    ),
    "charsmap": (
        {"normalizer": {"type": "Precompiled", "precompiled_charsmap": CHARSMAP}},
        "999 times as long",
    ),
    "cut": ({"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}}, "cut off"),
    "around": (
        {"post_processor": {"special_tokens": {"Z": {"ids": [1] * 100}}}},
        "puts 100 tokens around",
    ),
    "many": ({"added_tokens": [{"content": "x"}] * 20_000}, "length <= 16384"),
    "long": ({"added_tokens": [{"content": "x" * 300}]}, "length <= 256"),
}  # fmt: skip


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_a_tokenizer_makes_no_more_of_a_text_than_it_should(
    kind, small, reference_policy, tmp_path
):
    change, message = TOKENIZERS[kind]
    dense = changed(
        reference_policy, tmp_path / "d", "vlm/tokenizer.json", lambda c: {**c, **change}
    )
    folder = shutil.copytree(small, tmp_path / "x")
    content = (dense / "vlm" / "tokenizer.json").read_bytes()
    state = torch.frombuffer(bytearray(content), dtype=torch.uint8)
    save_file({"tokenizer.json": state}, folder / TOKENIZER)
    manifest.write(folder)
    for own in (dense, folder):
        with pytest.raises(CheckpointError, match=message) as error:
            load_policy(str(own))
        assert str(own) in str(error.value)


def test_a_panic_of_the_tokenizer_is_an_error(reference_policy, tmp_path):
    single = [{"SpecialToken": {"id": "Z", "type_id": 0}}]
    rule = {"type": "TemplateProcessing", "single": single, "pair": [], "special_tokens": {}}
    folder = changed(
        reference_policy,
        tmp_path / "x",
        "vlm/tokenizer.json",
        lambda c: c.update(post_processor=rule),
    )
    policy = load_policy(str(folder))
    with pytest.raises(UsageError, match="cannot act on this observation"):
        policy.chunk(policy.made_up_observations(1)[0], 0)


def test_a_tokenizer_names_no_file_elsewhere(reference_policy, tmp_path):
    folder = changed(
        reference_policy, tmp_path / "x", "vlm/tokenizer_config.json",
        lambda c: c.update(vocab_file="/dev/zero"),
    )  # fmt: skip
    with pytest.raises(CheckpointError, match="vocab_file is '/dev/zero'"):
        load_policy(str(folder))


def test_statistics_are_as_large_as_what_they_are_of(reference_policy, tmp_path):
    folder = shutil.copytree(reference_policy, tmp_path / "x")
    path = next(folder.glob("policy_preprocessor*normalizer*.safetensors"))
    many = {"observation.images.image.mean": torch.zeros(1000, 1, 1, 1)}
    save_file({**load_file(path), **many}, path)
    with pytest.raises(CheckpointError, match=r"image.mean has the shape \(1000, 1, 1, 1\)"):
        load_policy(str(folder))


STATE = "observation.state.std"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop(STATE), r"lack the std of observation.state, .*MEAN_STD"),
        (lambda s: s.update({STATE: s[STATE][:1]}), r"one std of observation.state, which has 8"),
        (lambda s: s.update({STATE: s[STATE].int()}), r"std has the type torch.int32"),
    ],
)
def test_what_is_normalized_has_its_statistics(change, message, reference_policy, tmp_path):
    folder = shutil.copytree(reference_policy, tmp_path / "x")
    path = next(folder.glob("policy_preprocessor*normalizer*.safetensors"))
    state = load_file(path)
    change(state)
    save_file(state, path)
    with pytest.raises(CheckpointError, match=message):
        load_policy(str(folder))


def test_a_switch_is_true_or_false(reference_policy, tmp_path):
    def enable(content):
        step = {"registry_name": "absolute_actions_processor", "config": {"enabled": 2**63}}
        content["steps"].insert(0, step)

    folder = changed(reference_policy, tmp_path / "x", "policy_postprocessor.json", enable)
    with pytest.raises(CheckpointError, match=r"enabled of .*Absolute.* is 9223372036854775808"):
        load_policy(str(folder))


def test_actions_that_are_no_numbers_are_an_error(reference_policy, tmp_path):
    folder = shutil.copytree(reference_policy, tmp_path / "x")
    path = next(folder.glob("policy_postprocessor*.safetensors"))
    save_file({n: torch.full_like(t, torch.nan) for n, t in load_file(path).items()}, path)
    policy = load_policy(str(folder))
    with pytest.raises(NumericsError, match="NaN or infinite"):
        policy.chunk(policy.made_up_observations(1)[0], 0)


def test_cameras_that_lerobot_masks_are_not_asked_for(reference_policy, tmp_path):
    picture = {"type": "VISUAL", "shape": [3, 480, 640]}

    def mask(config):
        config["empty_cameras"] = 1
        config["input_features"]["observation.images.empty_camera_0"] = picture

    policy = load_policy(str(changed(reference_policy, tmp_path / "x", CONFIG, mask)))
    assert policy.camera_keys == ["observation.images.image", "observation.images.image2"]
    [seen] = policy.made_up_observations(1)
    assert "observation.images.empty_camera_0" not in seen
    masked = policy.chunk(seen, 0)
    assert np.abs(masked - load_policy(str(reference_policy)).chunk(seen, 0)).max() > 0


def test_one_camera_by_its_short_name(reference_policy, tmp_path):
    def rename(config):
        own = config["input_features"]
        own["observation.image"] = own.pop("observation.images.image")
        del own["observation.images.image2"]

    def one_left(config):
        del config["input_features"]["observation.images.image2"]

    short = load_policy(str(changed(reference_policy, tmp_path / "short", CONFIG, rename)))
    long = load_policy(str(changed(reference_policy, tmp_path / "long", CONFIG, one_left)))
    [seen] = long.made_up_observations(1)
    same = {key.replace("images.image", "image"): value for key, value in seen.items()}
    assert np.array_equal(short.chunk(same, 0), long.chunk(seen, 0))


@pytest.mark.parametrize("inputs", [{}, None])
def test_a_policy_that_names_no_inputs_says_so(inputs, reference_policy, tmp_path):
    folder = changed(
        reference_policy, tmp_path / "x", CONFIG, lambda c: c.update(input_features=inputs)
    )
    with pytest.raises(CheckpointError, match="names no inputs"):
        load_policy(str(folder)).made_up_observations(1)


@pytest.mark.parametrize(
    ("rename", "message"),
    [
        (lambda n: f"_orig_mod.{n}", "wrapper of torch.compile"),
        (lambda n: f"unnormalize_outputs.{n}", "migrate_policy_normalization"),
        (lambda n: n.replace("state_proj", "proprio_proj"), "left over .*proprio_proj"),
    ],
)
def test_names_are_compared_before_anything_is_coded(rename, message, reference_policy, tmp_path):
    folder = shutil.copytree(reference_policy, tmp_path / "x")
    assert check_loads(DenseFolder(folder)) is None
    path = folder / "model.safetensors"
    save_file({rename(n): t.clone() for n, t in load_file(path).items()}, path)
    with pytest.raises(CheckpointError, match=message):
        check_loads(DenseFolder(folder))
