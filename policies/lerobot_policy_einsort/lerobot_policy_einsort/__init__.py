"""LeRobot plug-in for policies that `einsort-vla compress` wrote.

Installed beside LeRobot it is found by name: `lerobot-eval --policy.path=DIR` and
`PreTrainedPolicy.from_pretrained(DIR)` need nothing else.
"""

from lerobot_policy_einsort import configuration_einsort, processor_einsort

__all__ = ["configuration_einsort", "processor_einsort"]
