"""LeRobot policies as the commands need them: loaded strictly, shown observations, calibrated.

`lerobot` is imported when a policy is loaded.
"""

from einsort_vla.lerobot.calibration import (
    action_chunks,
    action_error,
    action_errors,
    measure_sensitivities,
    replaced,
    watch_inputs,
    watch_layers,
)
from einsort_vla.lerobot.loading import load_policy, quiet_lerobot, resolve_folder
from einsort_vla.lerobot.names import check_loads
from einsort_vla.lerobot.observations import (
    Observation,
    load_observations,
    made_up_observations,
    read_frames,
    save_observations,
    spread,
)
from einsort_vla.lerobot.policy import LoadedPolicy
from einsort_vla.lerobot.prefix import compressed_prefix
from einsort_vla.lerobot.sampling import Shown, replace_sampling_

__all__ = [
    "LoadedPolicy",
    "Observation",
    "Shown",
    "action_chunks",
    "action_error",
    "action_errors",
    "check_loads",
    "compressed_prefix",
    "load_observations",
    "load_policy",
    "made_up_observations",
    "measure_sensitivities",
    "quiet_lerobot",
    "read_frames",
    "replace_sampling_",
    "replaced",
    "resolve_folder",
    "save_observations",
    "spread",
    "watch_inputs",
    "watch_layers",
]
