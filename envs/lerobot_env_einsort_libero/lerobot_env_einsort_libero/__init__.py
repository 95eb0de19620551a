"""LeRobot plug-in: `lerobot-eval --env.type=einsort_libero` runs LIBERO without a download.

The scenes, step budgets and pictures are those of `eval/libero.py`.
"""

from lerobot_env_einsort_libero.configuration import EinsortLiberoConfig

__all__ = ["EinsortLiberoConfig"]
