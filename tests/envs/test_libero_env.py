"""The environment on the real simulator, against LIBERO's own observations."""

import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from einsort_vla.errors import UsageError
from envs.libero.benchmark import load_initial_states, load_task, suite_names
from envs.libero.environment import LiberoEnv

pytestmark = pytest.mark.sim
AGENT_VIEW, WRIST, STATE = (
    "observation.images.image", "observation.images.image2", "observation.state",
)  # fmt: skip


@pytest.fixture(scope="module")
def env():
    env = LiberoEnv("libero_object", 4)
    yield env
    env.close()


def test_gymnasium_check_env(env):
    check_env(env, skip_render_check=True, skip_close_check=True)


def test_a_stored_state_and_a_seed_fix_everything(env):
    first, _ = env.reset(seed=5, options={"init_state": 7, "displacement_m": 0.04})
    moved, *_ = env.step(np.full(7, 0.5))
    again, _ = env.reset(seed=5, options={"init_state": 7, "displacement_m": 0.04})
    assert first["task"] == "pick up the ketchup and place it in the basket"
    for key in (AGENT_VIEW, WRIST, STATE):
        assert np.array_equal(first[key], again[key])
        assert not np.array_equal(first[key], moved[key])


def test_observation_equals_liberos_own(env):
    """Pictures and state against robosuite's observables, turned as LeRobot turns them."""
    from robosuite.utils.transform_utils import quat2axisangle

    env.reset(seed=0, options={"init_state": 3})
    domain = env.simulator._domain
    theirs = domain._setup_observables()
    cache = {}
    for name in ("robot0_eef_pos", "robot0_eef_quat", "robot0_gripper_qpos"):
        observable = theirs[name]
        observable.update(timestep=domain.model_timestep, obs_cache=cache, force=True)
        cache[name] = np.array(observable.obs)
    ours = env.observe()
    expected = [cache["robot0_eef_pos"], quat2axisangle(cache["robot0_eef_quat"]),
                cache["robot0_gripper_qpos"]]  # fmt: skip
    np.testing.assert_allclose(ours[STATE], np.concatenate(expected), atol=1e-6)
    raw = domain.sim.render(camera_name="agentview", height=128, width=128)
    assert np.array_equal(ours[AGENT_VIEW], np.rot90(raw, 2))


def test_objects_start_where_the_benchmark_stored_them(env):
    env.reset(seed=0, options={"init_state": 11})
    state = load_initial_states("libero_object", 4)[11]
    simulator = env.simulator
    simulator.set_state(state, np.random.default_rng(0))
    flat = np.array(simulator._domain.sim.get_state().flatten())
    assert np.array_equal(flat, state)


def test_displacement_moves_every_object_within_its_bound(env):
    simulator = env.simulator
    env.reset(seed=1, options={"init_state": 0})
    before = simulator.object_places()
    env.reset(seed=1, options={"init_state": 0, "displacement_m": 0.04})
    shifts = np.array([place - before[name] for name, place in simulator.object_places().items()])
    assert (np.abs(shifts) < 0.043).all()  # settling may add a few mm
    assert (np.abs(shifts).max(1) > 0.002).mean() > 0.8


def test_wrong_pictures_change_what_is_seen_and_nothing_else(env):
    scene = {"init_state": 2, "displacement_m": 0.04}
    right, _ = env.reset(seed=3, options=scene)
    targets = [env.simulator.position(env.simulator.target)]
    wrong, _ = env.reset(seed=3, options={**scene, "picture_seed": 99})
    targets.append(env.simulator.position(env.simulator.target))
    np.testing.assert_allclose(*targets, atol=1e-6)
    assert np.array_equal(right[STATE], wrong[STATE])
    assert np.abs(right[AGENT_VIEW].astype(int) - wrong[AGENT_VIEW]).mean() > 0.5
    before = np.array(env.simulator.data.qpos)
    env.observe()
    assert np.array_equal(before, env.simulator.data.qpos)


def test_tasks_of_one_scene_share_a_simulator_exactly():
    def episode(env, task):
        env.reset(seed=4, options={"init_state": 2})
        actions = np.random.default_rng(task).uniform(-1, 1, (12, 7))
        ends = [env.advance(action) for action in actions]
        return env.observe(), np.array(env.simulator.data.qpos), ends

    def fresh(task):
        env = LiberoEnv("libero_goal", task)
        found = episode(env, task)
        env.close()
        return found

    shared = LiberoEnv("libero_goal", 7)
    episode(shared, 7)
    assert shared.take_task("libero_goal", 3)
    there = episode(shared, 3)
    assert shared.simulator.goal_conditions[0][0] == "in"
    assert not shared.take_task("libero_object", 3)
    shared.close()
    here = fresh(3)
    assert there[2] == here[2]
    assert np.array_equal(there[1], here[1])
    assert there[0]["task"] == here[0]["task"]
    for key in (AGENT_VIEW, WRIST, STATE):
        assert np.array_equal(there[0][key], here[0][key])


def test_bad_requests():
    with pytest.raises(UsageError, match="Did you mean 'libero_goal'"):
        load_task("libero_gaol", 0)
    with pytest.raises(UsageError, match="tasks 0 to 9; -1"):
        load_task("libero_goal", -1)
    env = LiberoEnv("libero_object", 0)
    with pytest.raises(UsageError, match="unknown reset option 'init_sate'"):
        env.reset(options={"init_sate": 3})
    assert {"libero_spatial", "libero_goal", "libero_10", "libero_90"} <= set(suite_names())
