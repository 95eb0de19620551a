"""Hostile copies of all kinds of files end in our own error, or change nothing.

One run for all kinds, in a process of its own whose forks share what is loaded.
"""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.kinds.all_kinds import NAMES

for package in ("lerobot", "transformers", "onnxscript", "onnxruntime", "PIL", "jinja2"):
    pytest.importorskip(package)

ROOT = Path(__file__).resolve().parents[2]


def fuzz(folder, *options):
    """Verdicts of a run by kind, and what it printed."""
    found = folder / "verdicts.jsonl"
    command = [sys.executable, "-m", "tests.fuzz", *options, "--json", str(found)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert found.is_file(), result.stdout + result.stderr
    verdicts = {name: [] for name in NAMES}
    for line in found.read_text().splitlines():
        verdict = json.loads(line)
        verdicts[verdict["kind"]].append(verdict)
    return verdicts, result.stdout


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    return fuzz(tmp_path_factory.mktemp("few"), "--n", "300")


def told(verdict):
    changes = "; ".join(f"{c['mutation']} {c['place']}" for c in verdict["changes"])
    return (
        f"python -m tests.fuzz {verdict['kind']} {verdict['seed']}: {verdict['problem']} "
        f"{verdict['site']} {verdict['detail']!r} after {changes!r}"
    )


@pytest.mark.parametrize("kind", NAMES)
def test_a_few_mutations(few, kind):
    verdicts, _ = few
    assert verdicts[kind]
    bad = [told(verdict) for verdict in verdicts[kind] if verdict["problem"]]
    assert not bad, "\n".join(bad)


@pytest.mark.slow
def test_ten_thousand_mutations(tmp_path):
    verdicts, printed = fuzz(tmp_path, "--n", "10000", "--first", "100000", "-j", "2")
    bad = [told(v) for found in verdicts.values() for v in found if v["problem"]]
    assert sum(map(len, verdicts.values())) > 9000
    assert not bad, printed
