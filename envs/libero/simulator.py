"""One LIBERO scene in robosuite: stepping, pictures on demand, object poses, displacement.

robosuite keeps one current GL context per process: use one Simulator per process.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from einsort_vla.errors import SimulatorError
from envs.libero.benchmark import Task, prepare_gl, scene_definition
from envs.libero.protocol import LiberoProtocol

CAMERAS = ("agentview", "robot0_eye_in_hand")
Condition = tuple[str, ...]  # a predicate's name and its arguments
HAND_ROOM_M = (0.08, 0.15)  # half the hand's depth (x) and width (y), plus an object's radius


class Simulator:
    """The simulator of one task, with privileged access for experts and protocols."""

    def __init__(self, task: Task, protocol: LiberoProtocol) -> None:
        self.task, self.protocol = task, protocol
        self._env = _construct(task, protocol)
        self._domain = self._env.env
        # Nothing here reads robosuite's observables; updating them takes a tenth of each step.
        self._domain._observables.clear()
        self.model: Any = self._domain.sim.model._model
        self.data: Any = self._domain.sim.data._data
        self._robot = self._domain.robots[0]
        self._hand = self.model.body("robot0_right_hand").id
        self._origin = {f.name: _declared_pose(f.get_obj()) for f in self._domain.fixtures}
        self._read_goal()

    def take_task(self, task: Task) -> bool:
        """Judge another task in the same scene from now on; False if its scene is another."""
        if task.suite != self.task.suite or scene_definition(task) != scene_definition(self.task):
            return False
        from libero.libero.envs.bddl_utils import robosuite_parse_problem

        self._domain.parsed_problem = robosuite_parse_problem(task.bddl_file)
        self._domain.obj_of_interest = self._domain.parsed_problem["obj_of_interest"]
        self.task = task
        self._read_goal()
        return True

    def _read_goal(self) -> None:
        interest = self._domain.obj_of_interest
        self.target, self.goal = interest[0], interest[-1]

    # Resets and stepping

    def reset(self, rng: np.random.Generator) -> None:
        """A new scene from the task's own placement regions; no stored state is used."""
        from robosuite.utils.errors import RandomizationError

        self._fixtures_to_origin()
        # A soft reset leaves the gripper's ramp where the last episode ended.
        self._robot.gripper.current_action = np.zeros(self._robot.gripper.dof)
        np.random.seed(int(rng.integers(2**31)))  # the placement samplers draw from the global one
        for _ in range(100):
            with contextlib.suppress(RandomizationError):
                self._domain.reset()
                return
        raise SimulatorError(f"{self.task.language!r}: no collision-free placement in 100 tries.")

    def set_state(self, state: np.ndarray, rng: np.random.Generator) -> None:
        """Go to a stored initial state, (state_size,).

        A stored state lacks the places of fixtures (stove, cabinet), which the benchmark draws
        at each reset; here they follow `rng`, so that an episode can be repeated.
        """
        self.reset(rng)
        self._env.set_state(state)
        self._domain.sim.forward()

    def _fixtures_to_origin(self) -> None:
        """Undo the last draw of fixture places.

        NOTE: samplers take the sites of a fixture relative to a fixture at the origin. A soft
        reset leaves fixtures where they were, and objects on them would appear in mid-air.
        """
        for fixture in self._domain.fixtures:
            body = self._domain.obj_body_id[fixture.name]
            self.model.body_pos[body], self.model.body_quat[body] = self._origin[fixture.name]

    def settle(self) -> None:
        """Let objects come to rest under a still, open hand."""
        still = np.array([0.0] * 6 + [self.protocol.gripper_open])
        for _ in range(self.protocol.settle_steps):
            self.step(still)

    def step(self, action: np.ndarray) -> None:
        """Apply one action, (7,), for one control period."""
        self._domain.step(np.asarray(action, dtype=np.float64))

    def is_success(self) -> bool:
        """The benchmark's own predicate for this task."""
        return bool(self._domain._check_success())

    @property
    def goal_conditions(self) -> list[Condition]:
        """What has to hold at the end: ("on", object, object or region), ("open", region), ..."""
        return [tuple(condition) for condition in self._domain.parsed_problem["goal_state"]]

    def holds(self, condition: Condition) -> bool:
        """The benchmark's own predicate for one condition."""
        return bool(self._domain._eval_predicate(condition))

    def close(self) -> None:
        self._env.close()

    # What the policy sees

    def render(self, camera: str, size_px: int | None = None) -> np.ndarray:
        """One picture, (size, size, 3) uint8, turned as the protocol says."""
        size = size_px or self.protocol.image_size_px
        picture = self._domain.sim.render(camera_name=camera, height=size, width=size)
        flipped = picture[::-1, ::-1] if self.protocol.image_flip == "both_axes" else picture[::-1]
        return np.ascontiguousarray(flipped)

    def proprioception(self) -> np.ndarray:
        """(8,) float32: hand position in m, axis-angle in rad, two finger joints in m."""
        from robosuite.utils.transform_utils import quat2axisangle

        w, x, y, z = self.data.xquat[self._hand]
        quaternion = np.array([x, y, z, w])
        # The hand hangs near a half turn, where q and -q give opposite axis-angles.
        if self.protocol.quaternion_sign == "x_positive" and x < 0:
            quaternion = -quaternion
        parts = [self.hand_position(), quat2axisangle(quaternion), self.finger_joints()]
        return np.concatenate(parts).astype(np.float32)

    # Privileged state

    def hand_position(self) -> np.ndarray:
        """(3,) grip site, m."""
        return np.array(self.data.site_xpos[self._robot.eef_site_id])

    def hand_rotation(self) -> np.ndarray:
        """(3, 3) of robot0_right_hand. NOTE: the grip site's own frame is turned by 90 degrees."""
        return np.array(self.data.xmat[self._hand]).reshape(3, 3)

    def finger_joints(self) -> np.ndarray:
        return np.array(self.data.qpos[self._robot._ref_gripper_joint_pos_indexes])

    def finger_gap(self) -> float:
        """Distance between the finger pads, m."""
        left, right = self.finger_joints()
        return float(left - right)

    def is_gripped(self, name: str) -> bool:
        """Whether both fingers touch the object. NOTE: thin necks of bottles may be missed."""
        grips, movable = self._domain._check_grasp, self._domain.objects_dict.get(name)
        return movable is not None and bool(grips(self._robot.gripper, movable))

    def position(self, name: str) -> np.ndarray:
        """(3,) origin of an object or fixture, or centre of a region, m."""
        if name in self._domain.object_sites_dict:
            return np.array(self.data.site(name).xpos)
        return np.array(self.data.xpos[self._domain.obj_body_id[name]])

    def vertical_extent(self, name: str) -> tuple[float, float]:
        """Lowest and highest point of the object's collision geometry, m.

        A region has that of the object or fixture it belongs to; one of the table is where
        things stand.
        """
        if name in self._domain.object_sites_dict:
            owner = self._domain.object_sites_dict[name].parent_name
            if owner is None:  # the site itself lies inside the table
                height = min(self.vertical_extent(each)[0] for each in self._domain.objects_dict)
                return height, height
            name = owner
        root = self.model.body_rootid[self._domain.obj_body_id[name]]
        in_object = self.model.body_rootid[self.model.geom_bodyid] == root
        geoms = np.flatnonzero(in_object & (self.model.geom_contype > 0))
        rotation = self.data.geom_xmat[geoms].reshape(-1, 3, 3)
        box = self.model.geom_aabb[geoms]  # (n_geoms, 6): centre, half sizes, geom frame
        centre = self.data.geom_xpos[geoms, 2] + np.einsum("gj,gj->g", rotation[:, 2], box[:, :3])
        half = np.einsum("gj,gj->g", np.abs(rotation[:, 2]), box[:, 3:])
        return float((centre - half).min()), float((centre + half).max())

    def is_region(self, name: str) -> bool:
        """Whether `name` is a region, as a drawer's inside or a stove's plate."""
        return name in self._domain.object_sites_dict

    def is_movable(self, region: str) -> bool:
        """Whether the region belongs to an object, as a basket's inside."""
        return self._domain.object_sites_dict[region].parent_name in self._domain.objects_dict

    def joint_of(self, name: str) -> str | None:
        """The joint that a region (of a drawer) or a fixture (a stove's knob) moves with."""
        owner = self._domain.object_sites_dict.get(name) or self._domain.fixtures_dict.get(name)
        joints = owner.joints if owner is not None else None
        return joints[0] if joints else None

    def is_inside_fixture(self, name: str) -> bool:
        """Whether the task starts with the object in a fixture, as a bowl in a drawer."""
        facts = self._domain.parsed_problem["initial_state"]
        return any(fact[0] == "in" and fact[1] == name for fact in facts)

    # Displacement

    def support_groups(self) -> list[list[str]]:
        """Movable objects that can be displaced, each with those that stand on it.

        What stands on or in a fixture (a stove, a drawer) stays where the task put it.
        """
        objects = self._domain.objects_dict
        regions = self._domain.parsed_problem["regions"]
        fixtures = self._domain.fixtures_dict
        support = {
            fact[1]: fact[2]
            for fact in self._domain.parsed_problem["initial_state"]
            if fact[0] in ("on", "in")
        }
        free = [
            name
            for name in objects
            if (where := support.get(name)) in regions
            and (regions[where]["target"] not in fixtures or _is_ground(regions[where]["target"]))
        ]
        return [[name, *(n for n, below in support.items() if below == name)] for name in free]

    def displace(self, rng: np.random.Generator, distance_m: float) -> None:
        """Move each object, with what stands on it, by U(-distance, distance) in x and in y.

        Displacements that make two objects touch, or leave the hand no room beside the target,
        are drawn again, object by object.
        """
        room = min(1.0, self._room_beside_target())  # some tasks start with less than wanted
        for group in self.support_groups():
            for _ in range(50):
                shift = rng.uniform(-distance_m, distance_m, 2)
                self.shift(dict.fromkeys(group, shift))
                if not self._touches_others(group) and self._room_beside_target() >= room:
                    break
                self.shift(dict.fromkeys(group, -shift))

    def shift(self, shifts: dict[str, np.ndarray]) -> None:
        """Move objects by (2,) metres in x and y, without a physics step."""
        if not shifts:
            return
        for name, shift in shifts.items():
            joint = self._domain.objects_dict[name].joints[-1]
            pose = np.array(self._domain.sim.data.get_joint_qpos(joint))
            pose[:2] += shift
            self._domain.sim.data.set_joint_qpos(joint, pose)
        self._domain.sim.forward()

    @contextlib.contextmanager
    def restored(self) -> Iterator[None]:
        """On leaving, everything stands where it stood on entering; the physics does not notice."""
        positions, warm_start = np.array(self.data.qpos), np.array(self.data.qacc_warmstart)
        try:
            yield
        finally:
            self.data.qpos[:] = positions
            self._domain.sim.forward()
            self.data.qacc_warmstart[:] = warm_start  # forward changed it: contacts differed

    def object_places(self) -> dict[str, np.ndarray]:
        """Name to (2,) x and y of all movable objects, m."""
        return {name: self.position(name)[:2] for name in self._domain.objects_dict}

    def _room_beside_target(self) -> float:
        """1 or more where the open hand can come down on the target, less where it is crowded."""
        here = self.position(self.target)
        offsets = [
            np.abs(self.position(name) - here)
            for name in self._domain.objects_dict
            if name != self.target
        ]
        return min(max(x / HAND_ROOM_M[0], y / HAND_ROOM_M[1]) for x, y, _ in offsets)

    def _touches_others(self, group: list[str]) -> bool:
        own = {self.model.body_rootid[self._domain.obj_body_id[name]] for name in group}
        movable = {
            self.model.body_rootid[self._domain.obj_body_id[name]]
            for name in (*self._domain.objects_dict, *self._domain.fixtures_dict)
            if not _is_ground(name)
        }
        for contact in self.data.contact[: self.data.ncon]:
            roots = {int(self.model.body_rootid[self.model.geom_bodyid[g]]) for g in contact.geom}
            if len(roots) == 2 and roots & own and (roots - own) & movable:
                return True
        return False


def _declared_pose(element: Any) -> tuple[np.ndarray, np.ndarray]:
    """Position (3,) and quaternion (4,) of a body element in MJCF, with MuJoCo's defaults."""
    position, quaternion = element.get("pos", "0 0 0"), element.get("quat", "1 0 0 0")
    return np.fromstring(position, sep=" "), np.fromstring(quaternion, sep=" ")


def _is_ground(name: str) -> bool:
    return name.endswith("table") or name in ("floor", "countertop")


def _construct(task: Task, protocol: LiberoProtocol) -> Any:
    prepare_gl()
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        logging.getLogger("robosuite_logs").setLevel(logging.ERROR)
        from libero.libero.envs import OffScreenRenderEnv

        return OffScreenRenderEnv(
            bddl_file_name=task.bddl_file,
            controller=protocol.controller,
            control_freq=protocol.control_freq_hz,
            camera_heights=protocol.image_size_px,
            camera_widths=protocol.image_size_px,
            use_camera_obs=False,  # pictures are rendered when the policy looks, not every step
            hard_reset=False,  # 0.02 s instead of 2 to 4 s: the model is not compiled again
            horizon=10**9,
            ignore_done=True,
        )
