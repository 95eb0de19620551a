"""The dense arm of an earlier run, taken over so that a sweep over rates runs it once."""

import json
from pathlib import Path

from einsort_vla.errors import UsageError
from einsort_vla.results import LOG, RUN, EpisodeRecord, read_episodes, read_run
from eval.closed_loop.request import Request
from eval.run.arms import DENSE, arm_name
from eval.run.provenance import describe

SAME = ("inputs_sha256", "versions", "machine")


def read_dense(baseline: Path, request: Request) -> list[EpisodeRecord]:
    """The dense episodes that an earlier run has of these scenes, at these delays.

    A scene fixes an episode but for the policy, the protocol, the simulator and the machine, so
    these must be the same. Scenes that the earlier run lacks are left to be run as usual.

    Raises:
        UsageError: there is no such run, or it differs in one of these.
    """
    if not (baseline / RUN).is_file():
        raise UsageError(f"--baseline {baseline} holds no run of eval/libero.py (no {RUN}).")
    earlier = read_run(baseline)
    earlier["inputs_sha256"] = {"policy": earlier["inputs_sha256"]["policy"]}
    now = describe({}, {"policy": request.dense.sha256})
    now["protocol"] = json.loads(json.dumps(request.protocol.as_dict()))
    if other := [key for key in (*SAME, "protocol") if earlier.get(key) != now[key]]:
        raise UsageError(
            f"the run in {baseline} had another {' and '.join(other)}: its dense episodes cannot "
            "be taken over. Leave out --baseline."
        )
    names = [arm_name(DENSE, delay_ms) for delay_ms in request.delays_ms]
    wanted = {(scene, name) for scene in request.scenes for name in names}
    found = [
        record
        for record in read_episodes(baseline / LOG)
        if record.key in wanted and record.outcome != "error"
    ]
    if not found:
        raise UsageError(f"{baseline} has no dense episode of these scenes. Leave out --baseline.")
    return found
