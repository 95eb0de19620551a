"""What the command line asks for, as data."""

import json
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from einsort_vla.errors import UsageError
from eval.closed_loop.crew import check_memory, needed_bytes
from eval.closed_loop.request import list_tasks, read_delays
from eval.run.copies import read_rates


@pytest.mark.parametrize(
    ("text", "rates"),
    [
        ("0.5", (0.5,)),
        ("0, 0.25,0.5,0.5", (0, 0.25, 0.5)),
        ("0.3,0.30000001", (0.3,)),  # their arms would have one name
        ("0,0.1,...,0.9", (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)),
        ("0.8,0.75,...,0.6", (0.8, 0.75, 0.7, 0.65, 0.6)),
    ],
)
def test_rates_are_a_number_a_list_or_a_series(text, rates):
    assert read_rates(text) == rates


@pytest.mark.parametrize(
    "text",
    [
        "half",
        "",
        "0,0.1,...",
        "0,0,...,1",
        "0,0.1,...,0.95",
        "0,0.2,...,-0.2",
        "0,1e-9,...,0.9",
        "0,0.1,...,inf",
        "0.1,...,1",
    ],
)
def test_other_texts_are_no_rates(text):
    with pytest.raises(UsageError, match="a list such as"):
        read_rates(text)


def test_delays_are_milliseconds_or_receipts(tmp_path):
    assert read_delays("0,50,100,50,1e2") == (0, 50, 100)
    receipt = tmp_path / "bench.json"
    receipt.write_text(json.dumps({"latency_ms": {"whole chunk": {"p50": 37.5}}}))
    assert read_delays(f"0,{receipt}") == (0, 37.5)
    with pytest.raises(UsageError, match="outside 0 to 5000 ms"):
        read_delays("-1")
    with pytest.raises(UsageError, match="neither milliseconds nor a receipt"):
        read_delays(str(tmp_path / "none.json"))
    receipt.write_text(json.dumps({"latency_ms": {"whole chunk": {"p50": "fast"}}}))
    with pytest.raises(UsageError, match=r"Expected `float`, got `str` - at .*p50"):
        read_delays(str(receipt))


def test_a_task_or_suite_that_is_named_twice_is_run_once():
    benchmark = SimpleNamespace(n_tasks=lambda suite: 4, sentence=lambda suite, task_id: "go")
    assert list_tasks("a_1,a_2,a_1", "3,0,3,03", benchmark) == [
        ("a_1", 3), ("a_1", 0), ("a_2", 3), ("a_2", 0)
    ]  # fmt: skip


@given(n=st.integers(1, 64), policy_gb=st.floats(0.03, 8))
def test_more_workers_than_fit_are_refused_with_the_number_that_does(n, policy_gb):
    class Free:
        available = 40_000_000_000

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("eval.closed_loop.crew.psutil.virtual_memory", Free)
        policies = int(policy_gb * 1e9)
        if needed_bytes(n, policies) <= Free.available:
            check_memory(n, policies)
            return
        with pytest.raises(UsageError, match=f"--workers {n} would need") as refused:
            check_memory(n, policies)
        fits = int(str(refused.value).split("free: ")[1].split()[0])
        assert 0 <= fits < n
        assert not fits or needed_bytes(fits, policies) <= Free.available
        assert needed_bytes(fits + 1, policies) > Free.available
