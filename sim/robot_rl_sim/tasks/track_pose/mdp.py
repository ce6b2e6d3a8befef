"""track-pose: from a random pose, bring every joint to where another random pose has it, and stay there."""

from __future__ import annotations

from dataclasses import dataclass, replace

import mujoco
import torch
from torch import Tensor

from robot_rl.contract import ActionSpec, EpisodeSpec, TensorSpec
from robot_rl.networks.policy_io import ObservationTerm, PolicyIO
from robot_rl.replay.mirror import Mirror
from robot_rl.robots import RobotSpec
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.disturbances import PushConfig
from robot_rl_sim.mdp import Outcome, Start, Transition
from robot_rl_sim.models import hang, load_spec
from robot_rl_sim.randomization import RandomizationConfig
from robot_rl_sim.sensor_config import SensorsConfig
from robot_rl_sim.tasks.actions import soft_limits
from robot_rl_sim.tasks.track_pose.poses import sample_poses


@dataclass(frozen=True, slots=True)
class TrackPoseConfig:
    control_period_s: float = 0.05
    max_episode_steps: int = 40
    pool_size: int = 1024
    """Poses from which starts and goals are drawn."""
    tolerance_rad: float = 0.1
    tolerance_range: float = 0.05
    """A joint within both, the second a share of its range, is where it should be."""
    action_range: float = 0.06
    """Largest change of a target in one step, as a share of the joint's range, unless its speed limit is lower."""
    progress_weight: float = 1.0
    """Per tolerance by which the mean joint error shrinks: of the level of the error, what one action of many changes
    is too small a part for critics to learn soon."""
    near_weight: float = 1.0
    action_weight: float = 0.01
    action_rate_weight: float = 0.01


def joint_closeness(errors: Tensor) -> Tensor:
    """Mean over joints (n,) of exp(-e²), of errors (n, n_joints) in tolerances: 1 in the goal pose."""
    return torch.exp(-errors.square()).mean(-1)


class TrackPose:
    """See robot_rl_sim.mdp.Mdp, for `num_envs` worlds. `seed` draws the pool of poses."""

    hold_steps = 5
    pushes: PushConfig | None = None
    mirror: Mirror | None = None
    privileged_dim = 0
    object_body: str | None = None
    episode: EpisodeSpec | None = None
    start_draws = 2
    outcome_draws = 0

    def __init__(self, robot: RobotSpec, num_envs: int, seed: int, config: TrackPoseConfig | None = None) -> None:
        self.config = c = config or TrackPoseConfig()
        self.robot = robot
        self.max_episode_steps = c.max_episode_steps
        self.policy_io = _policy_io(robot, c)
        spec = self.model_spec()
        model = spec.compile()
        self.substeps = round(c.control_period_s / model.opt.timestep)
        joints = [model.joint(name).id for name in robot.joint_names]
        self._nv = model.nv
        self._addresses = torch.as_tensor(model.jnt_qposadr[joints], dtype=torch.int64)
        self._tolerance = torch.tensor(_tolerances(robot, c))
        self.state = {"poses": sample_poses(model, robot, c.pool_size, seed), "distance": torch.zeros(num_envs)}

    def model_spec(self) -> mujoco.MjSpec:
        """The robot, a floating base hung in the air."""
        spec = load_spec(self.robot.name)
        if self.robot.floating_base:
            hang(spec, spec.compile(), self.robot)
        return spec

    def start(self, worlds: Tensor, drawn: Tensor) -> Start:
        poses, k, device = self.state["poses"], len(worlds), worlds.device
        n = len(poses)
        begin = (n * drawn[:, 0]).long()
        end = (begin + 1 + ((n - 1) * drawn[:, 1]).long()) % n  # another one
        qpos, goal = poses[begin], poses[end][:, self._addresses].float()
        self.state["distance"][worlds] = self._errors(qpos[:, self._addresses].float(), goal).mean(-1)
        return Start(qpos, qvel=torch.zeros(k, self._nv, device=device), command=goal)

    def privileged(self, sim: BatchSim) -> Tensor:
        return torch.zeros(sim.num_worlds, 0, device=sim.device)

    def outcome(self, t: Transition, drawn: Tensor) -> Outcome:
        c, errors = self.config, self._errors(t.joint_pos, t.command)
        distance = errors.mean(-1)
        rewards = {
            "progress": c.progress_weight * (self.state["distance"] - distance),
            "near": c.near_weight * joint_closeness(errors),
            "action": -c.action_weight * t.action.square().mean(-1),
            "action_rate": -c.action_rate_weight * (t.action - t.last_action).square().mean(-1),
        }
        self.state["distance"].copy_(distance)
        never = torch.zeros(len(errors), dtype=torch.bool, device=errors.device)
        return Outcome(rewards, terminated=never, at_goal=(errors < 1).all(-1))

    def _errors(self, joint_pos: Tensor, goal: Tensor) -> Tensor:
        """Of each joint (n, n_joints), in tolerances."""
        return (goal - joint_pos).abs() / self._tolerance.to(joint_pos)


def randomization(robot: RobotSpec) -> RandomizationConfig:
    """The default ranges, with encoders no worse than a hundredth of the shortest range: a slide's is centimetres."""
    shortest = min(j.upper_rad - j.lower_rad for j in robot.joints)
    sensors = SensorsConfig()
    encoder = sensors.joint_pos
    finer = replace(encoder, noise=min(encoder.noise, 0.01 * shortest), bias=min(encoder.bias, 0.01 * shortest))
    return RandomizationConfig(sensors=replace(sensors, joint_pos=finer))


def _tolerances(robot: RobotSpec, config: TrackPoseConfig) -> list[float]:
    return [min(config.tolerance_rad, config.tolerance_range * (j.upper_rad - j.lower_rad)) for j in robot.joints]


def _action_scale(robot: RobotSpec, config: TrackPoseConfig) -> tuple[float, ...]:
    """Largest change (n_joints,) of a target in one step."""
    period, share = config.control_period_s, config.action_range
    return tuple(
        min(share * (j.upper_rad - j.lower_rad), period * rate)
        for j, rate in zip(robot.joints, robot.safety.target_rate_limit_rad_s, strict=True)
    )


def _policy_io(robot: RobotSpec, config: TrackPoseConfig) -> PolicyIO:
    low, high = soft_limits(robot)
    limits = [j.lower_rad for j in robot.joints], [j.upper_rad for j in robot.joints]
    n, scale = len(robot.joints), _action_scale(robot, config)
    return PolicyIO(
        robot=robot,
        terms=(
            ObservationTerm("joint_pos"),
            ObservationTerm("joint_vel", 0.2),
            ObservationTerm("target_error", 10.0),
            ObservationTerm("joint_error", 2.0),
            ObservationTerm("joint_error_near"),
        ),
        action=ActionSpec("position_delta", scale, (0.0,) * n, low, high),
        control_period_s=config.control_period_s,
        command=TensorSpec("joint_goal", (n,), "rad", "command", low=min(limits[0]) - 1e-3, high=max(limits[1]) + 1e-3),
    )
