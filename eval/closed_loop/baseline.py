"""The dense arm of an earlier run, taken over so that a sweep over rates runs it once."""

import json
from pathlib import Path

from einsort_vla.errors import UsageError
from einsort_vla.results.episode import EpisodeRecord, read_episodes
from einsort_vla.results.run import CLOSED_LOOP, LOG, RUN, read_run
from eval.closed_loop.request import ClosedLoopRequest
from eval.run.arms import DENSE, arm_name
from eval.run.provenance import describe


def read_dense(baseline: Path, request: ClosedLoopRequest) -> list[EpisodeRecord]:
    """The dense episodes that an earlier run has of these scenes, at these delays.

    A scene fixes an episode but for the policy, the protocol, the simulator and the machine, so
    these must be the same. Scenes that the earlier run lacks are left to be run as usual.

    Raises:
        UsageError: there is no such run, or it differs in one of these.
    """
    if not (baseline / RUN).is_file():
        raise UsageError(f"--baseline {baseline} holds no run of eval/libero.py (no {RUN}).")
    earlier = read_run(baseline)
    if earlier.design is None:
        raise UsageError(f"--baseline {baseline} holds a run of {earlier.script}.")
    inputs, packages = {"policy": request.dense.sha256}, request.benchmark.packages
    now = describe(CLOSED_LOOP, "", "", {}, inputs, packages)
    differs = {
        "weights": earlier.inputs_sha256.get("policy") != now.inputs_sha256["policy"],
        "versions": earlier.versions != now.versions,
        "machine": earlier.machine != now.machine,
        "protocol": earlier.design.protocol != json.loads(json.dumps(request.protocol.as_dict())),
    }
    if other := [name for name, is_other in differs.items() if is_other]:
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
