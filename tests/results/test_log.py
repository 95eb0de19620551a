"""A log of JSON lines keeps what is whole, wherever a kill has cut it."""

from typing import Any

import pytest

from einsort_vla.results.log import appending, read_log

RECORDS = [{"name": "é\u2028", "n": k, "value": 0.1 * k} for k in range(3)]


@pytest.mark.parametrize("n_lost", [0, 1, 2, 30])
def test_a_log_goes_on_after_a_cut_line(tmp_path, n_lost):
    log = tmp_path / "log.jsonl"
    assert list(read_log(log, dict[str, Any])) == []
    with appending(log) as write:
        write(*RECORDS[:2])
        assert list(read_log(log, dict[str, Any])) == RECORDS[:2]  # kept while it is still open
    log.write_bytes(log.read_bytes()[: len(log.read_bytes()) - n_lost])
    with appending(log) as write:
        write(RECORDS[2])
    whole = RECORDS[:2] if n_lost < 2 else RECORDS[:1]  # without its line's end it is whole, too
    assert list(read_log(log, dict[str, Any])) == [*whole, RECORDS[2]]
    assert log.read_text().count("\n") == len(whole) + 1  # nothing is left of what was cut
