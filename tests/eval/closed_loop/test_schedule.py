"""Every episode ends exactly once, whatever happens to the workers."""

from hypothesis import given, settings
from hypothesis import strategies as st

from einsort_vla.results.episode import EpisodeRecord, Scene
from eval.closed_loop.schedule import Schedule
from eval.run.arms import Arm, Variant

ARMS = [
    Arm("dense", Variant("a")),
    Arm("curve 0.5", Variant("b"), reference="dense"),
    Arm("curve 0.9", Variant("c"), reference="dense"),
]


def scenes(n_tasks, n_states):
    return [Scene("suite", task, k, 0) for task in range(n_tasks) for k in range(n_states)]


@given(
    n_tasks=st.integers(1, 4), n_states=st.integers(1, 4), n_workers=st.integers(1, 5),
    n_done=st.integers(0, 5), data=st.data(),
)  # fmt: skip
@settings(max_examples=60, deadline=None)
def test_every_episode_ends_once(n_tasks, n_states, n_workers, n_done, data):
    keys = [(scene, arm.name) for scene in scenes(n_tasks, n_states) for arm in ARMS]
    schedule = Schedule(scenes(n_tasks, n_states), ARMS, keys[:n_done])
    running, tasks, ended, n_lost = {}, {}, {}, dict.fromkeys(keys, 0)
    while True:
        for worker in range(n_workers):
            if worker not in running:
                others = [task for w, task in tasks.items() if w != worker]
                job = schedule.take(tasks.get(worker), others)
                if job is not None:
                    running[worker], tasks[worker] = job, job.task
        if not running:
            break
        worker = data.draw(st.sampled_from(sorted(running)))
        job = running.pop(worker)
        if data.draw(st.integers(0, 4)) == 0:
            n_lost[job.key] += 1
            record = schedule.lose(job, "killed")
        else:
            record = EpisodeRecord(job.scene, job.arm.name, "success", 1, 0.1)
        if record is not None:
            assert record.key not in ended
            ended[record.key] = record.outcome
    assert set(ended) == set(keys[n_done:])
    assert {key for key, outcome in ended.items() if outcome == "error"} == {
        key for key, n in n_lost.items() if n == 2
    }


def test_arms_of_a_scene_follow_one_another_and_workers_keep_their_simulators():
    schedule = Schedule(scenes(2, 2), ARMS, [])
    first = [schedule.take(None if k == 0 else ("suite", 0), []) for k in range(6)]
    assert [(job.scene.episode, job.arm.name) for job in first] == [
        (k, arm.name) for k in range(2) for arm in ARMS
    ]
    schedule = Schedule(scenes(2, 2), ARMS, [])
    one = schedule.take(None, [])
    other = schedule.take(None, [one.task])
    assert {one.task, other.task} == {("suite", 0), ("suite", 1)}
    assert schedule.take(one.task, [other.task]).task == one.task


def test_the_dense_arm_is_probed_for_the_others_and_a_dropped_arm_is_not_run():
    schedule = Schedule(scenes(1, 3), ARMS, [])
    dense = schedule.take(None, [])
    assert [arm.name for arm in dense.probed] == ["curve 0.5", "curve 0.9"]
    schedule.drop("curve 0.5")
    left = []
    while (job := schedule.take(("suite", 0), [])) is not None:
        left.append(job.arm.name)
    assert left == ["curve 0.9", "dense", "curve 0.9", "dense", "curve 0.9"]
