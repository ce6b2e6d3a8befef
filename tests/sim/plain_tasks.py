"""The tasks as one would write them for a single robot: MuJoCo stepped from Python, observed and rewarded in numpy.

Independent truths for what the batched environments compute.
"""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import Contract
from robot_rl.robots import get_robot
from robot_rl_sim.models import default_qpos, load_model
from robot_rl_sim.tasks.g1_balance.mdp import G1BalanceConfig
from robot_rl_sim.tasks.reach.goals import sample_goals
from robot_rl_sim.tasks.reach.hands import LEAP
from robot_rl_sim.tasks.reach.mdp import TIP_ERROR_SCALE, ReachConfig

Array = NDArray[np.float64]


class PlainEnv(gym.Env[NDArray[np.float32], NDArray[np.float32]]):
    """One robot in one MuJoCo model, stepped from Python, observed and rewarded in numpy: what most people write.

    No sensor noise, no randomisation, no history; less is done per step than in our environments.
    """

    metadata = {"render_modes": []}  # noqa: RUF012

    def __init__(self, contract: Contract, substeps: int, max_episode_steps: int) -> None:
        self.model = load_model(contract.robot)
        self.data = mujoco.MjData(self.model)
        self.substeps = substeps
        self.max_episode_steps = max_episode_steps
        self.scale, self.offset = np.array(contract.action.scale_rad), np.array(contract.action.offset_rad)
        self.low, self.high = np.array(contract.action.low_rad), np.array(contract.action.high_rad)
        n = len(contract.joints)
        self.default = np.array([j.default_pos_rad for j in contract.joints])
        self.action = np.zeros(n)
        self.last_action = np.zeros(n)
        self.target = np.zeros(n)
        self.steps = 0
        self.action_space = gym.spaces.Box(-1.0, 1.0, (n,), np.float32)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (contract.observation_dim,), np.float32)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        super().reset(seed=seed)
        mujoco.mj_resetData(self.model, self.data)
        self.action[:] = 0
        self.steps = 0
        self.start()
        mujoco.mj_forward(self.model, self.data)
        return self.observe(), {}

    def step(self, action: NDArray[np.float32]) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        self.last_action = self.action
        self.action = np.clip(action, -1.0, 1.0)
        self.decode()
        self.data.ctrl[:] = self.target
        mujoco.mj_step(self.model, self.data, self.substeps)
        self.steps += 1
        terminated = self.failed()
        truncated = self.steps >= self.max_episode_steps and not terminated
        return self.observe(), self.reward(), terminated, truncated, {}

    def start(self) -> None:
        raise NotImplementedError

    def decode(self) -> None:
        raise NotImplementedError

    def observe(self) -> NDArray[np.float32]:
        raise NotImplementedError

    def reward(self) -> float:
        raise NotImplementedError

    def failed(self) -> bool:
        raise NotImplementedError


class PlainLeapReach(PlainEnv):
    """leap-reach."""

    def __init__(self, contract: Contract) -> None:
        self.config = ReachConfig()
        super().__init__(contract, self.config.substeps, self.config.max_episode_steps)
        poses, goals = sample_goals(LEAP, 256, 0)
        self.poses, self.goals = poses.double().numpy(), goals.double().numpy()
        self.sites = [self.model.site(chain.name).id for chain in get_robot("leap_hand").chains]
        self.goal = np.zeros((4, 3))

    def start(self) -> None:
        begin, end = self.np_random.integers(len(self.poses), size=2)
        self.data.qpos[:] = self.target = self.poses[begin]
        self.goal = self.goals[end].reshape(4, 3)

    def decode(self) -> None:
        self.target = np.clip(self.target + self.scale * self.action, self.low, self.high)

    def tip_error(self) -> Array:
        palm = self.data.body("palm")
        return self.goal - (self.data.site_xpos[self.sites] - palm.xpos) @ palm.xmat.reshape(3, 3)

    def observe(self) -> NDArray[np.float32]:
        q = self.data.qpos
        error = (self.target - q) / self.scale
        terms = (q - self.default, 0.1 * self.data.qvel, error, TIP_ERROR_SCALE * self.tip_error().ravel())
        return np.concatenate(terms).astype(np.float32)

    def reward(self) -> float:
        c = self.config
        distance = np.linalg.norm(self.tip_error(), axis=1)
        return float(
            -c.distance_weight * distance.mean()
            + c.near_weight * np.exp(-((distance / c.near_scale_m) ** 2)).mean()
            - c.action_weight * np.square(self.action).mean()
            - c.action_rate_weight * np.square(self.action - self.last_action).mean()
        )

    def failed(self) -> bool:
        return False


class PlainG1Balance(PlainEnv):
    """g1-balance."""

    def __init__(self, contract: Contract) -> None:
        self.config = G1BalanceConfig()
        super().__init__(contract, self.config.substeps, self.config.max_episode_steps)
        robot = get_robot("unitree_g1")
        self.default_qpos = default_qpos(self.model, robot)
        self.effort_limit = np.array([j.effort_limit_nm for j in robot.joints])
        self.cos_max_tilt = np.cos(robot.safety.tilt_trip_rad or np.pi)
        self.next_push = 0

    def start(self) -> None:
        self.data.qpos[:] = self.default_qpos
        self.data.qpos[7:] += self.np_random.uniform(-1, 1, len(self.default)) * self.config.start_joint_noise_rad
        self.data.qvel[:6] = self.np_random.uniform(-1, 1, 6) * self.config.start_velocity_noise
        self.next_push = int(self.np_random.integers(*self.config.pushes.interval_steps, endpoint=True))

    def decode(self) -> None:
        self.target = np.clip(self.offset + self.scale * self.action, self.low, self.high)
        if self.steps == self.next_push:
            heading = self.np_random.uniform(0, 2 * np.pi)
            self.data.qvel[:2] += self.np_random.uniform(*self.config.pushes.speed_m_s) * np.array(
                (np.cos(heading), np.sin(heading))
            )
            self.next_push += int(self.np_random.integers(*self.config.pushes.interval_steps, endpoint=True))

    def gravity_b(self) -> Array:
        return -self.data.body("pelvis").xmat.reshape(3, 3)[2]

    def observe(self) -> NDArray[np.float32]:
        d = self.data
        terms = (0.25 * d.qvel[3:6], self.gravity_b(), d.qpos[7:] - self.default, 0.05 * d.qvel[6:], self.action)
        return np.concatenate(terms).astype(np.float32)

    def reward(self) -> float:
        c = self.config
        pose = np.exp(-4 * np.square(self.data.qpos[7:] - self.default).mean())
        return float(
            c.alive_weight * (not self.failed())
            + c.upright_weight * np.exp(-(np.linalg.norm(self.gravity_b()[:2]) ** 2) / 0.2**2)
            + c.still_weight * np.exp(-((np.linalg.norm(self.data.qvel[:2]) / 0.5) ** 2))
            + c.pose_weight * pose
            + c.arms_weight * np.exp(-4 * np.square(self.data.qpos[-14:] - self.default[-14:]).mean())
            - c.ang_vel_weight * np.square(self.data.qvel[3:6]).sum()
            - c.effort_weight * np.square(self.data.actuator_force / self.effort_limit).mean()
            - c.action_rate_weight * np.square(self.action - self.last_action).mean()
        )

    def failed(self) -> bool:
        return bool(-self.gravity_b()[2] < self.cos_max_tilt or self.data.qpos[2] < self.config.min_height_m)
