"""For `einsort-vla doctor`: does this machine's simulator move things as LIBERO's authors' did?

In libero_spatial task 5 a bowl stands on a ramekin. Left alone for 2.5 s it stays there, at the
same place to 0.01 mm, in MuJoCo 3.2.7 to 3.3.7; in 3.4.0 and 3.9.0 it slides 34 mm off and tilts.
"""

from collections.abc import Iterator

import numpy as np

from einsort_vla.cli.doctor import MUJOCO, Check
from einsort_vla.errors import EinSortError

SUITE, TASK, STATE = "libero_spatial", 5, 0
STEPS = 50  # with an open, still hand
EXPECTED_M = (-0.21142, 0.20216, 0.93440)  # of the bowl; MuJoCo 3.3.2
TOLERANCE_M = 1e-3
_WHAT = "physics of LIBERO"


def check() -> Iterator[Check]:
    """One finding: where the bowl ends."""
    try:
        place = bowl_place()
    except EinSortError as error:
        yield Check(_WHAT, str(error), "missing", "see what else this table names")
        return
    except Exception as error:  # whatever versions that do not fit together raise
        fix = f"pip install 'einsort-vla[libero]' mujoco=={MUJOCO}"
        yield Check(_WHAT, f"the simulator fails: {type(error).__name__}", "wrong", fix)
        return
    off_m = float(np.linalg.norm(place - np.array(EXPECTED_M)))
    found = f"{SUITE} task {TASK}: the bowl rests {1000 * off_m:.1f} mm from where it should"
    is_right = off_m < TOLERANCE_M
    fix = "" if is_right else f"pip install mujoco=={MUJOCO}: other versions change this task"
    yield Check(_WHAT, found, "ok" if is_right else "wrong", fix)


def bowl_place() -> np.ndarray:
    """(3,) metres: the bowl's place after STEPS steps from a stored initial state."""
    from envs.libero.benchmark import load_initial_states, load_task
    from envs.libero.protocol import load_protocol
    from envs.libero.simulator import Simulator

    protocol = load_protocol()
    simulator = Simulator(load_task(SUITE, TASK), protocol)
    try:
        states = load_initial_states(SUITE, TASK)
        simulator.set_state(states[STATE], np.random.default_rng(0))
        for _ in range(STEPS):
            simulator.step(np.array([0.0] * 6 + [protocol.gripper_open]))
        return simulator.position(simulator.target)
    finally:
        simulator.close()
