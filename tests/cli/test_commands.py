"""`einsort-vla compress | inspect` as a user calls them."""

import json
import subprocess
import sys
from pathlib import Path


def run(*arguments):
    program = Path(sys.executable).with_name("einsort-vla")
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True)


def test_compress_then_inspect(tiny_policy_folder, tmp_path):
    result = run("compress", tiny_policy_folder, tmp_path / "new", "--rate", 0.7)
    assert result.returncode == 0, result.stderr
    assert "rate 0.7" in result.stdout
    table = run("inspect", tmp_path / "new")
    assert "model.first.weight" in table.stdout
    content = json.loads(run("inspect", tmp_path / "new", "--json").stdout)
    assert content["rate"] >= 0.7
    assert [row["shape"] for row in content["tensors"]] == [[96, 64], [33, 96]]
    assert content["coded_bytes"] == sum(row["bytes"] for row in content["tensors"])


def test_a_plan_can_be_edited_and_used(tiny_policy_folder, tmp_path):
    file = tmp_path / "plan.yaml"
    assert run("plan", tiny_policy_folder, "--rate", 0.7, "--output", file).returncode == 0
    text = file.read_text()
    assert run("plan", tiny_policy_folder, "--rate", 0.7).stdout == text
    first = next(line for line in text.splitlines() if "model.first.weight" in line)
    spec = first[first.index("spec: {") : first.index("}") + 1]
    file.write_text(text.replace(first, first.replace(spec, "spec: {form: scalar, bits: 3}")))
    result = run("compress", tiny_policy_folder, tmp_path / "new", "--plan", file)
    assert result.returncode == 0, result.stderr
    content = json.loads(run("inspect", tmp_path / "new", "--json").stdout)
    assert [row["spec"]["form"] for row in content["tensors"]] == ["scalar", "leader"]


def test_plans_that_do_not_fit(tiny_policy_folder, tmp_path):
    good = run("plan", tiny_policy_folder, "--rate", 0.7).stdout
    for text, message in [
        (good.replace("second", "third"), "made for another policy"),
        (
            good.replace("rate_requested: 0.7", "rate_requested: 0.9"),
            "less than its rate_requested",
        ),
        (good.replace("form: leader,", "form: leder,"), "Did you mean 'leader'"),
        ("- 1", "holds no plan"),
        ("a: [", "not valid YAML"),
    ]:
        (tmp_path / "plan.yaml").write_text(text)
        source, new = tiny_policy_folder, tmp_path / "new"
        result = run("compress", source, new, "--plan", tmp_path / "plan.yaml")
        assert (result.returncode, new.exists()) == (2, False)
        assert message in result.stderr
    assert "either --rate or --plan" in run("compress", "a", "b").stderr


def test_misuse_is_one_line_and_exit_code_2(tiny_policy_folder, tmp_path):
    for arguments, message in [
        (("compress", tiny_policy_folder, tmp_path / "new", "--rate", "1"), "outside [0, 0.95]"),
        (("compress", tmp_path / "none", tmp_path / "new", "--rate", "0.5"), "does not exist"),
        (("inspect", tiny_policy_folder), "holds a dense policy of type 'smolvla'"),
    ]:
        result = run(*arguments)
        assert result.returncode == 2
        assert message in result.stderr
        assert "Traceback" not in result.stderr
    assert run("compress", "a", "b", "--rate", "half").returncode == 2
    assert run().returncode == 2
