"""The KV benchmark on a model of nothing: its arms, its rows, and its page."""

import json
from contextlib import suppress
from io import StringIO

import pytest
import torch

pytest.importorskip("transformers")

from rich.console import Console
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks.bench_generate import Settings, compare, show
from benchmarks.bench_kv import PREFIX, SEGMENT, cut, measure, read_rows
from benchmarks.kv_arms import EinSortArm, all_arms, prefill
from benchmarks.kv_page import BEST, ratio_of, render
from einsort_vla.errors import CheckpointError, MissingDependency, UsageError

RUN = {
    "config": {"model": "m", "text": "t", "segments": 2, "prefix_tokens": 64, "scored_tokens": 64},
    "inputs_sha256": {},
    "git_commit": "c",
    "versions": {"torch": "2", "transformers": "5"},
}


def tiny_model():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=32, hidden_size=32, intermediate_size=32, num_hidden_layers=1,
        num_attention_heads=2, num_key_value_heads=2, head_dim=64,
    )  # fmt: skip
    return LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def rows():
    model = tiny_model()
    segments = cut(torch.randint(0, 32, (300,)), 2)
    layers, _ = prefill(model, segments[:, :PREFIX])
    found = []
    for arm in all_arms(model.config, with_cp=False)[:160:3]:
        with suppress(MissingDependency):  # quanto and HQQ are no extra of ours
            found.append(measure(arm, model, segments, layers))
    return found


def test_arms_are_the_paper_s_tables_and_what_it_misses():
    arms = all_arms(LlamaConfig(), with_cp=True)
    assert len({arm.name for arm in arms}) == len(arms)
    assert BEST in {arm.name for arm in arms}
    networks = [arm for arm in arms if isinstance(arm, EinSortArm) and arm.table == "scores"]
    assert len(networks) == 6 * (2 * (7 + 5) + 2)  # reductions; gauges, maps; exponents
    assert {"SVD, gauge", "sign split, no sorting", "cp", "tr"} <= {arm.name for arm in arms}


def test_rows_have_honest_bits_beside_the_core_rate(rows):
    assert rows[0]["arm"] == "exact"
    assert rows[0]["bits_per_entry"] == 16
    for row in rows[1:]:
        assert len(row["nll"]) == 2
        if row["network"] is None:
            assert row["bits_per_entry"] <= 4.6
        else:
            assert (0.1 if row["table"] == "topologies" else 0.5) <= row["core_rate"] < 0.75
            signs = row["network"]["sign_split"]
            sorted_bits = 10.5 / 2 if row["network"]["scope"] == "full" else 0  # log2(4096!) / 4096
            least = 16 * (1 - row["core_rate"]) + signs + 0.8 * sorted_bits
            assert least - 1e-9 < row["bits_per_entry"] < least + 2


def test_the_page_shows_every_row_once(rows):
    page = render(RUN, rows)
    for row in rows[1:]:
        n_shown = page.count(f"| {row['arm']} |")
        assert n_shown <= 1 if row["table"] == "scores" else n_shown == 1
    assert ratio_of([1.0, 2.0], [1.0, 2.0]) == (1, 1, 1)
    ratio, low, high = ratio_of([1.1, 2.3], [1.0, 2.0])
    assert low < ratio < high


def test_a_file_of_rows_is_gone_on_with(rows, tmp_path):
    path = tmp_path / "kv.jsonl"
    assert read_rows(path, RUN) == []
    with path.open("a") as file:
        file.write(json.dumps(rows[0]) + "\n")
    assert read_rows(path, RUN) == rows[:1]
    with pytest.raises(UsageError, match="another run"):
        read_rows(path, {**RUN, "config": {**RUN["config"], "segments": 3}})
    path.write_text(path.read_text() + '{"arm": "le')  # killed while it wrote
    assert read_rows(path, RUN) == rows[:1]
    path.write_text("a text\n")
    with pytest.raises(CheckpointError, match=r"kv.jsonl, line 1, is damaged"):
        read_rows(path, RUN)


def test_caches_take_turns_and_what_is_not_installed_is_left_out_once():
    settings = Settings(tokens=3, rounds=2)
    out = StringIO()
    rows = compare(tiny_model(), torch.randint(0, 32, (1, 64)), settings, Console(file=out))
    assert [row["cache"] for row in rows][:2] == ["exact", "curve, rate 0.75"]
    assert len(rows) + out.getvalue().count("left out") == 6
    assert all(row["token_ms"] > 0 and row["prompt"] == 64 for row in rows)
    assert rows[0]["bits"] == 16
    assert rows[1]["bits"] <= 4
    show(rows, settings, Console(file=out))
    assert "1.00" in out.getvalue()


def test_a_text_too_short():
    with pytest.raises(UsageError, match=f"3 segments of {SEGMENT} tokens"):
        cut(torch.zeros(200), 3)
