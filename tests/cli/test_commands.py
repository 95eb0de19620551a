"""`einsort-vla` and its subcommands as a user calls them."""

import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file, save_file

from einsort_vla.cli import doctor, main
from einsort_vla.cli.console import saved, size
from einsort_vla.cli.options import read_size
from einsort_vla.codec import Codec
from einsort_vla.errors import UsageError
from einsort_vla.kernels import BackendChoice
from einsort_vla.names import BACKENDS, FORMS
from tests.compressing import compress

PROGRAM = Path(sys.executable).with_name("einsort-vla")


@pytest.fixture
def run(monkeypatch, capfd):
    """The command as its user types it, in this process."""

    def run(*arguments):
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["einsort-vla", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            main()
        out, err = capfd.readouterr()
        return SimpleNamespace(returncode=end.value.code, stdout=out, stderr=err)

    return run


def test_help_loads_nothing_heavy():
    code = (
        "import sys; from einsort_vla.cli import main\n"
        "for arguments in ['--help'], ['compress', '--help'], ['report', '--help']:\n"
        "    sys.argv = ['einsort-vla', *arguments]\n"
        "    try: main()\n"
        "    except SystemExit as end: assert end.code == 0\n"
        "assert not {'torch', 'numpy', 'safetensors', 'lerobot', 'scipy'} & {*sys.modules}"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_what_help_names_there_is(run):
    shown = " ".join(run("compress", "--help").stdout.replace("│", "").split())
    assert f"({', '.join(FORMS)})" in shown
    assert [Codec.parse(form).menu()[-1].form for form in FORMS] == ["dense"] * len(FORMS)
    shown = " ".join(run("verify", "--help").stdout.replace("│", "").split())
    for name, how in BACKENDS.items():
        assert f"{name} ({how})" in shown
        assert BackendChoice.parse(name).spec.name == name


def test_the_installed_program_runs_and_its_exit_code_is_the_commands(tmp_path):
    result = subprocess.run([PROGRAM, "inspect", tmp_path / "none"], capture_output=True, text=True)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")


def test_compress_then_inspect(run, tiny_policy_folder, tmp_path):
    result = run("compress", tiny_policy_folder, tmp_path / "new", "--rate", 0.7)
    assert result.returncode == 0, result.stderr
    # 9312 of 10 528 numbers that are stored are in matrices; the table beside them stays.
    assert "88.4 % of the weights coded, file " in result.stdout
    assert "rate 0.7" in result.stdout
    table = run("inspect", tmp_path / "new")
    assert "model.first.weight" in table.stdout
    content = json.loads(run("inspect", tmp_path / "new", "--json").stdout)
    assert content["rate"] >= 0.7
    assert content["share_coded"] == pytest.approx(9312 / 10528)
    assert 0.4 < content["share_saved"] < 0.7
    assert [row["shape"] for row in content["tensors"]] == [[96, 64], [33, 96]]
    assert content["coded_bytes"] == sum(row["bytes"] for row in content["tensors"])


def test_sources_that_cannot_be_reached(run, tmp_path):
    for source, message in [
        (tmp_path / "nowhere", "does not exist"),
        ("nobody/nothing", "neither a folder here nor a hub model that can be reached"),
    ]:
        result = run("compress", source, tmp_path / "new", "--rate", 0.7)
        assert (result.returncode, (tmp_path / "new").exists()) == (2, False)
        assert message in result.stderr
        assert "Traceback" not in result.stderr


def test_a_mistyped_folder_is_not_silently_looked_for_on_the_hub(run, tmp_path, monkeypatch):
    (tmp_path / "policies" / "grasping").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    said = run("compress", "polices/graspin", "new", "--rate", 0.7).stderr
    assert "polices/graspin is no folder here; fetching it from the hub.\n" in said
    assert "Did you mean the folder policies/grasping?" in said
    assert "Did you mean" not in run("compress", "someone/model", "new", "--rate", 0.7).stderr


def test_a_plan_can_be_edited_and_used(run, tiny_policy_folder, tmp_path):
    file = tmp_path / "plan.yaml"
    assert run("plan", tiny_policy_folder, "--rate", 0.7, "--output", file).returncode == 0
    text = file.read_text()
    (tmp_path / "[").mkdir()
    odd = tiny_policy_folder.rename(tmp_path / "[" / "b]")  # rich would take "[/b]" for markup
    result = run("plan", odd, "--rate", 0.7)
    assert (result.returncode, result.stdout) == (0, text)
    assert f"{odd} has no policy_postprocessor.json" in result.stderr
    odd.rename(tiny_policy_folder)
    first = next(line for line in text.splitlines() if "model.first.weight" in line)
    spec = first[first.index("spec: {") : first.index("}") + 1]
    file.write_text(text.replace(first, first.replace(spec, "spec: {form: scalar, bits: 3}")))
    result = run("compress", tiny_policy_folder, tmp_path / "new", "--plan", file)
    assert result.returncode == 0, result.stderr
    content = json.loads(run("inspect", tmp_path / "new", "--json").stdout)
    assert [row["spec"]["form"] for row in content["tensors"]] == ["scalar", "curve"]


def test_plans_that_do_not_fit(run, tiny_policy_folder, tmp_path):
    good = run("plan", tiny_policy_folder, "--rate", 0.7).stdout
    for text, message in [
        (good.replace("second", "third"), "the plan lacks model.second.weight. Correct it"),
        (
            good.replace(
                "tensors:",
                "tensors:\n  a.weight: {spec: {form: dense}, shape: [2, 2], distortion: 0.0}",
            ),
            "the plan has a.weight, which is no compressible",
        ),
        (good.replace("shape: [33, 96]", "shape: [33, 48]"), "has the shape (33, 48) in the plan"),
        (good + good.splitlines()[-1] + "\n", "is there twice (line "),
        (
            good.replace("rate_requested: 0.7", "rate_requested: 0.9"),
            "less than its rate_requested",
        ),
        (good.replace("form: curve,", "form: curv,"), "Did you mean 'curve'"),
        ("- 1", "holds no plan"),
        ("a: [", "not valid YAML"),
        ("tensors: !!python/name:os.system", "(line 1)"),
        (good.replace("codec: curve", "codec: 2026-99-01"), "not valid YAML"),
        ("rate_requested: 1" + ":59" * 99_999, "not valid YAML: a number of 299998 characters"),
        (good.split("tensors")[0] + "tensors:\n", "at `$.tensors`"),
        (good.replace("distortion: ", "distortion: about "), "`$.distortion`"),
        (good.replace("rate_requested: 0.7", "rate_requested: .inf"), "`$.rate_requested`"),
        (good.replace("rotated: true", "rotated: 'true'"), "Expected `bool`, got `str`"),
        (good.replace("rotated:", "rotate:"), "Did you mean 'rotated'"),
        (good.replace("form: curve,", "form: ,"), "form is damaged"),
    ]:
        (tmp_path / "plan.yaml").write_text(text)
        source, new = tiny_policy_folder, tmp_path / "new"
        result = run("compress", source, new, "--plan", tmp_path / "plan.yaml")
        assert (result.returncode, new.exists()) == (2, False)
        assert message in result.stderr


def test_options_of_plans_that_do_not_fit(run):
    nothing = run("compress", "a", "b").stderr
    assert "one of --rate 0.8, --size 300MB, --plan FILE; none was given" in nothing
    both = run("compress", "a", "b", "--rate", 0.5, "--plan", "c").stderr
    assert "--plan FILE; --rate and --plan were given" in both
    for option in (("--codec", "scalar"), ("--include", "*mlp*"), ("--exclude", "*mlp*")):
        refusal = run("compress", "a", "b", "--plan", "c", *option).stderr
        assert f"{option[0]} does nothing with --plan" in refusal
    assert "no folder; make it" in run("plan", "a", "--rate", 0.5, "--output", "b/c").stderr


def test_misuse_is_one_line_and_exit_code_2(run, tiny_policy_folder, tmp_path):
    for arguments, message in [
        (("compress", tiny_policy_folder, tmp_path / "new", "--rate", "1"), "outside [0, 0.95]"),
        (("compress", tmp_path / "none", tmp_path / "new", "--rate", "0.5"), "does not exist"),
        (("inspect", tiny_policy_folder), "holds a dense policy of type 'smolvla'"),
        (
            ("plan", "none", "--rate", "0.5", "--output", tmp_path / "a" / "p.yaml"),
            "a is no folder; make it",
        ),
        (
            ("plan", "none", "--rate", "0.5", "--output", tiny_policy_folder / "config.json"),
            "config.json exists already",
        ),
    ]:
        result = run(*arguments)
        assert result.returncode == 2
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    refusal = run("compress", "a", "b", "--rate", "50%")
    assert refusal.returncode == 2
    assert refusal.stderr == (
        "Error: --rate 50% is no number. Give the share of bytes to remove, such as 0.5.\n"
    )
    assert "--looks -1 is below 0" in run("verify", tiny_policy_folder, "--looks", "-1").stderr
    assert run().returncode == 2


def test_a_size_instead_of_a_rate(run, tiny_policy_folder, tmp_path):
    whole = (tiny_policy_folder / "model.safetensors").stat().st_size
    for n_bytes in (whole - 5000, whole // 2):
        new = tmp_path / str(n_bytes)
        result = run("compress", tiny_policy_folder, new, "--size", n_bytes)
        assert result.returncode == 0, result.stderr
        assert 0.9 * n_bytes < (new / "model.safetensors").stat().st_size <= n_bytes
    refusal = run("plan", tiny_policy_folder, "--size", "0.1kB").stderr
    found = re.search(r"100 bytes is outside what --codec curve .*: (\d+) to (\d+)", refusal)
    least = run("compress", tiny_policy_folder, tmp_path / "least", "--size", found[1])
    assert least.returncode == 0, least.stderr
    assert (tmp_path / "least" / "model.safetensors").stat().st_size <= int(found[1])


@pytest.mark.parametrize(
    ("text", "n_bytes"),
    [("300MB", 300_000_000), ("1.5 GiB", 3 * 2**29), ("12kib", 12288), ("77", 77), ("3MO", None),
     ("-1", None), ("1e9", None)],
)  # fmt: skip
def test_sizes_as_people_write_them(text, n_bytes):
    if n_bytes is not None:
        assert read_size(text) == n_bytes
        return
    with pytest.raises(UsageError, match="such as 300MB"):
        read_size(text)


def test_sizes_for_people():
    assert (saved(0.502), saved(-0.349), saved(-0.0001)) == (
        "50.2 % smaller", "34.9 % larger", "0.0 % smaller"
    )  # fmt: skip
    assert (size(3_714_000), size(568)) == ("3.71 MB", "0.6 kB")


def test_a_policy_type_that_is_not_compressed_is_told_at_once(run, tiny_policy_folder, tmp_path):
    config = tiny_policy_folder / "config.json"
    config.write_text(config.read_text().replace("smolvla", "diffusion"))
    result = run("compress", tiny_policy_folder, tmp_path / "new", "--rate", 0.5)
    assert result.returncode == 2
    assert result.stderr.startswith("Error: ")
    assert "policies of type 'diffusion' are not compressed; those of smolvla" in result.stderr


def test_excluded_matrices_stay_dense_and_count(run, tiny_policy_folder, tmp_path):
    source, new = tiny_policy_folder, tmp_path / "new"
    result = run("compress", source, new, "--rate", 0.3, "--exclude", "*second*")
    assert result.returncode == 0, result.stderr
    content = json.loads(run("inspect", new, "--json").stdout)
    assert [row["spec"]["form"] for row in content["tensors"]] == ["curve", "dense"]
    assert content["rate"] >= 0.3
    for option, message in [(("--exclude", "*third*"), "'*third*' fits no compressible matrix"),
                            (("--exclude", "*"), "reaches rate 0.0 at most")]:  # fmt: skip
        result = run("compress", source, tmp_path / "other", "--rate", 0.3, *option)
        assert result.returncode == 2
        assert message in result.stderr


def test_verify_compares_with_the_source(run, tiny_policy_folder, tmp_path):
    source, new = tiny_policy_folder, tmp_path / "new"
    run("compress", source, new, "--rate", 0.7)
    result = run("verify", new, "--against", source)
    assert result.returncode == 0, result.stderr
    assert "All 2 matrices, and each of their rows, are as close to the source" in result.stdout
    assert "2 are the same bits. 3 other tensors are the source's" in result.stdout

    # A matrix that is far from Gaussian has a larger error than predicted, and may have it.
    tensors = load_file(source / "model.safetensors")
    tensors["model.first.weight"][:] = 0
    tensors["model.first.weight"][:, 0] = torch.arange(1, 97)
    save_file(tensors, source / "model.safetensors")
    assert "does not hold the weights that" in run("verify", new, "--against", source).stderr
    codec = "curve rotated=false"
    run("compress", source, tmp_path / "odd", "--rate", 0.7, "--codec", codec)
    result = run("verify", tmp_path / "odd", "--against", source)
    assert result.returncode == 0, result.stdout


def test_a_signature_covers_the_whole_folder(run, tiny_policy_folder, tmp_path):
    pytest.importorskip("cryptography")
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    new, key, maker = tmp_path / "new", tmp_path / "maker.pem", Ed25519PrivateKey.generate()
    form = (Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    key.write_bytes(maker.public_key().public_bytes(*form))
    compress(tiny_policy_folder, new)
    verify = ("verify", new, "--trust-key", key)
    assert "is not signed" in run(*verify).stderr
    listed = new / "einsort_manifest.json"
    (new / "einsort_manifest.json.sig").write_bytes(maker.sign(listed.read_bytes()))
    (new / "README.md").write_text("may be edited")
    (new / ".git").mkdir()
    (new / ".git" / "config").touch()
    assert run(*verify).returncode == 0
    added = new / "policy_postprocessor.json"
    added.write_text("{}")
    assert run("verify", new).returncode == 0
    result = run(*verify)
    assert result.returncode == 2
    assert "policy_postprocessor.json, which no signature covers" in result.stderr
    added.unlink()
    (new / "config.json").write_text('{"type": "einsort_smolvla", "chunk_size": 9}')
    assert "config.json is not the file that was written" in run(*verify).stderr
    listed.unlink()
    assert "is not signed: it has no einsort_manifest.json" in run(*verify).stderr


def test_a_patch_makes_the_new_folder_out_of_the_old(run, tiny_policy_folder, tmp_path):
    source, old, new = tiny_policy_folder, tmp_path / "old", tmp_path / "new"
    run("compress", source, old, "--rate", 0.7)
    tensors = load_file(source / "model.safetensors")
    tensors["model.first.bias"] += 1  # fine-tuned
    save_file(tensors, source / "model.safetensors")
    (source / "vlm" / "added.json").write_text("")
    (source / "vlm" / "tokenizer.json").unlink()
    run("compress", source, new, "--rate", 0.7)
    patch = tmp_path / "update.safetensors"
    assert run("diff", old, new, patch).returncode == 0
    codes = (new / "model.safetensors").read_bytes()[-64:]  # the last tensor, the same in both
    assert codes not in patch.read_bytes()
    result = run("patch", old, patch, tmp_path / "patched")
    assert result.returncode == 0, result.stderr
    patched, expected = (
        {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
        for folder in (tmp_path / "patched", new)
    )
    assert patched == expected

    for arguments, message in [
        (("patch", new, patch, tmp_path / "other"), "made for another folder"),
        (("patch", old, patch, new), "exists already"),
        (("diff", old, new, patch), "exists already"),
        (("patch", old, new / "model.safetensors", tmp_path / "other"), "is no patch"),
        (
            ("diff", source, new, tmp_path / "p"),
            "has no einsort_manifest.json: it is no",
        ),
    ]:
        result = run(*arguments)
        assert (result.returncode, message in result.stderr) == (2, True), result.stderr
    damaged = bytearray(patch.read_bytes())
    damaged[-1] ^= 1
    patch.write_bytes(damaged)
    assert "not the file that was written" in run("patch", old, patch, tmp_path / "other").stderr
    assert not list(tmp_path.glob("other*"))


@pytest.mark.sim
def test_doctor_has_a_fix_for_what_is_not_right(run, monkeypatch):
    result = run("doctor", "--json")
    checks = json.loads(result.stdout)
    assert {"Python", "torch", "lerobot", "mujoco", "GL for LIBERO", "tensorrt"} <= {
        check["what"] for check in checks
    }
    assert all((c["verdict"] == "ok") != bool(c["fix"]) for c in checks)
    assert [c["verdict"] for c in checks if c["what"] == "physics of LIBERO"] == ["ok"]
    wrong = [check for check in checks if check["verdict"] == "wrong"]
    assert result.returncode == bool(wrong)
    monkeypatch.setattr(doctor, "_LOOKS", (doctor._python,))  # the simulator has been looked at
    assert "fix" in run("doctor").stdout


def test_a_reader_that_has_read_enough_is_no_error(run, tiny_policy_folder, tmp_path):
    run("compress", tiny_policy_folder, tmp_path / "new", "--rate", 0.7)
    line = f"{PROGRAM} inspect {tmp_path / 'new'} --json | head -c 1"
    result = subprocess.run(line, shell=True, capture_output=True, text=True)
    assert (result.stdout, result.stderr) == ("{", "")
