"""`lerobot-eval` on our LIBERO runs the episodes of `eval/libero.py`, action for action."""

import hashlib

import numpy as np
import pytest

pytest.importorskip("lerobot")

from gymnasium.vector import AutoresetMode, SyncVectorEnv
from lerobot.envs import EnvConfig
from lerobot.envs.utils import NEW_ROLLOUT_OPTION
from lerobot.processor import PolicyProcessorPipeline
from lerobot.utils.import_utils import register_third_party_plugins
from lerobot_env_einsort_libero.environment import LeRobotLibero

from einsort_vla.lerobot import quiet_lerobot
from envs.libero.environment import LiberoEnv
from eval.closed_loop.rollout import Scene, run_episode
from policies.lerobot_adapter import load

pytestmark = pytest.mark.sim
SUITE, TASK, EPISODE, STEPS = "libero_object", 2, 3, 10


def test_lerobot_finds_the_environment():
    register_third_party_plugins()
    config = EnvConfig.get_choice_class("einsort_libero")(task_ids=[TASK, 4])
    envs = config.create_envs(n_envs=2)
    assert list(envs[SUITE]) == [TASK, 4]
    assert envs[SUITE][TASK].num_envs == 2


def test_the_episode_is_that_of_our_own_evaluation(reference_policy):
    from lerobot.scripts.lerobot_eval import rollout

    policy = load(str(reference_policy))
    ours = LiberoEnv(SUITE, TASK)
    ours.max_steps = STEPS
    record = run_episode(ours, policy, Scene(SUITE, TASK, EPISODE, seed=0), "dense")
    ours.close()

    theirs = LeRobotLibero(SUITE, TASK, EPISODE, 1, policy.n_action_steps, seed=0)
    theirs._env.max_steps = theirs._max_episode_steps = STEPS
    vector = SyncVectorEnv([lambda: theirs], autoreset_mode=AutoresetMode.SAME_STEP)
    nothing = PolicyProcessorPipeline(steps=[])
    with quiet_lerobot():
        found = rollout(
            vector,
            policy.module,
            nothing,
            nothing,
            policy.loaded.preprocess,
            policy.loaded.postprocess,
        )
    digest = hashlib.sha256()
    for action in found["action"][0].numpy().astype(np.float32):
        digest.update(action.tobytes())
    assert record.steps == STEPS
    assert digest.hexdigest() == record.actions_sha256
    vector.close()


def test_states_follow_each_other_and_pictures_are_made_when_due():
    env = LeRobotLibero(SUITE, TASK, first=1, stride=2, look_every=2, seed=0)
    started = {NEW_ROLLOUT_OPTION: True}
    first, _ = env.reset(options=started)
    still, _ = env.reset()  # gymnasium's own, after an episode
    assert still is first
    action = np.array([0.5, 0, 0, 0, 0, 0, -1])
    assert env.step(action)[0] is first
    assert not np.array_equal(env.step(action)[0]["agent_pos"], first["agent_pos"])
    second, _ = env.reset(options=started)
    expected = LiberoEnv(SUITE, TASK)
    expected.set_scene(0, init_state=3)
    seen = expected.observe()["observation.images.image"].astype(float)
    assert np.abs(second["pixels"]["image"] - seen).mean() < 0.5
    assert np.abs(first["pixels"]["image"] - seen).mean() > 0.5
    expected.close()
    env.close()
