"""The dense arm of an earlier run, taken over so that a sweep over rates runs it once."""

import json
from collections.abc import Sequence
from pathlib import Path

from einsort_vla.checkpoint import WEIGHTS
from einsort_vla.errors import UsageError
from eval.output import LOG, RUN
from eval.provenance import describe
from eval.report import DENSE
from eval.rollout import EpisodeRecord, Scene
from eval.schedule import read_log

SAME = ("inputs_sha256", "versions", "machine")


def read_dense(baseline: Path, policy: Path, scenes: Sequence[Scene]) -> list[EpisodeRecord]:
    """The dense episodes that an earlier run has of these scenes.

    A scene fixes an episode but for the policy, the simulator and the machine, so these must be the
    same. Scenes that the earlier run lacks are left to be run as usual.

    Raises:
        UsageError: there is no such run, or it differs in one of these.
    """
    if not (baseline / RUN).is_file():
        raise UsageError(f"--baseline {baseline} holds no run of eval/libero.py (no {RUN}).")
    earlier = json.loads((baseline / RUN).read_text(encoding="utf-8"))
    earlier["inputs_sha256"] = {"policy": earlier["inputs_sha256"]["policy"]}
    now = describe({}, {"policy": policy / WEIGHTS})
    if other := [key for key in SAME if earlier[key] != now[key]]:
        raise UsageError(
            f"the run in {baseline} had another {' and '.join(other)}: its dense episodes cannot "
            "be taken over. Leave out --baseline."
        )
    wanted = set(scenes)
    found = [r for r in read_log(baseline / LOG) if r.arm == DENSE and r.scene in wanted]
    if not found:
        raise UsageError(f"{baseline} has no dense episode of these scenes. Leave out --baseline.")
    return found
