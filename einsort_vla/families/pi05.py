"""pi0.5: as pi0, but that it reads the state among its words."""

from dataclasses import replace

from einsort_vla.families.family import Prefix
from einsort_vla.families.pi0 import JOINT, PI0

PI05 = replace(PI0, name="pi05", prefix=Prefix(JOINT, "lerobot.policies.pi05.modeling_pi05"))
