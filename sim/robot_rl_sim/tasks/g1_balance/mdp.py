"""g1-balance: stand upright near the default pose while being pushed. Observes only what the robot measures."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import mujoco
import torch
from torch import Tensor

from robot_rl.contract import ActionSpec, EpisodeSpec
from robot_rl.networks.policy_io import ObservationTerm, PolicyIO
from robot_rl.networks.rotation import gravity_in_body, in_body
from robot_rl.replay.mirror import Mirror
from robot_rl.robots import UNITREE_G1
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.disturbances import PushConfig
from robot_rl_sim.mdp import Outcome, Start, Transition
from robot_rl_sim.models import default_qpos, load_model, load_spec
from robot_rl_sim.symmetry import DIRECTION, mirror
from robot_rl_sim.tasks.actions import quarter_effort_scale, soft_limits

_LEGS = ("hip", "knee", "ankle")
_ARMS = slice(UNITREE_G1.joint_names.index("left_shoulder_pitch_joint"), None)


@dataclass(frozen=True, slots=True)
class G1BalanceConfig:
    control_period_s: float = 0.02
    substeps: int = 4
    max_episode_steps: int = 500
    pushes: PushConfig = field(default_factory=lambda: PushConfig((0.1, 0.5), (75, 150)))
    """0.1 to 0.5 m/s every 1.5 to 3 s: as fast as the field's (up to 0.5 m/s every 5 s in unitree_rl_lab, every 1 to
    3 s in mjlab on level ground). From about 0.2 m/s backwards, standing takes a step."""
    start_joint_noise_rad: float = 0.05
    start_velocity_noise: float = 0.1
    """m/s, and rad/s."""
    min_height_m: float = 0.45
    """Pelvis height that only a fall reaches; it stands at 0.76."""
    history_length: int = 3
    """Frames observed: from one, noise and velocity of the base cannot be told apart."""
    alive_weight: float = 1.0
    upright_weight: float = 1.0
    still_weight: float = 0.5
    pose_weight: float = 0.5
    arms_weight: float = 0.25
    ang_vel_weight: float = 0.05
    effort_weight: float = 0.5
    action_rate_weight: float = 0.1


def upright(gravity_b: Tensor) -> Tensor:
    """exp(-(sin tilt / 0.2)²) (n,) from gravity's direction (n, 3): steep where a fall begins, not where it ends."""
    return torch.exp(gravity_b[:, :2].square().sum(-1) / -0.04)


def stillness(lin_vel: Tensor) -> Tensor:
    """exp(-(speed / 0.5 m/s)²) (n,) of a horizontal velocity (n, 2): what a push adds and a fall begins with."""
    return torch.exp(-4.0 * lin_vel.square().sum(-1))


def pose_closeness(joint_pos: Tensor, default_pos: Tensor) -> Tensor:
    """exp(-4 × mean squared deviation) (n,) of joints (n, n_joints) rad from the default pose (n_joints,)."""
    return torch.exp(-4.0 * (joint_pos - default_pos).square().mean(-1))


def effort_share(effort: Tensor, limit: Tensor) -> Tensor:
    """Mean square (n,) of torque (n, n_joints) as a share of each joint's limit (n_joints,)."""
    return (effort / limit).square().mean(-1)


class G1Balance:
    """See robot_rl_sim.mdp.Mdp."""

    robot = UNITREE_G1
    hold_steps = 1
    object_body: str | None = None
    episode: EpisodeSpec | None = None
    start_draws = len(UNITREE_G1.joints) + 6
    outcome_draws = 0
    privileged_dim = 4
    """Velocity of the base (3) in its own frame, m/s, and its height above where it falls, in 0.3 m."""

    def __init__(self, config: G1BalanceConfig | None = None) -> None:
        self.config = config or G1BalanceConfig()
        self.substeps = self.config.substeps
        self.max_episode_steps = self.config.max_episode_steps
        self.pushes: PushConfig | None = self.config.pushes
        self.policy_io = _policy_io(self.config)
        self.mirror: Mirror | None = mirror(self.policy_io, privileged=(*DIRECTION, (3, 1)))
        self.state: dict[str, Tensor] = {}
        tilt = UNITREE_G1.safety.tilt_trip_rad
        assert tilt is not None
        self._cos_max_tilt = math.cos(tilt)
        self._default_qpos = torch.from_numpy(default_qpos(load_model(UNITREE_G1.name), UNITREE_G1))
        self._effort_limit = torch.tensor([j.effort_limit_nm for j in UNITREE_G1.joints])

    def model_spec(self) -> mujoco.MjSpec:
        return load_spec(self.robot.name)

    def start(self, worlds: Tensor, drawn: Tensor) -> Start:
        c, n, joints, device = self.config, len(worlds), len(UNITREE_G1.joints), worlds.device
        noise = 2 * drawn - 1
        qpos = self._default_qpos.to(device).repeat(n, 1)
        qpos[:, 7:] += c.start_joint_noise_rad * noise[:, :joints]
        qvel = torch.zeros(n, 6 + joints, device=device)
        qvel[:, :6] = c.start_velocity_noise * noise[:, joints:]
        return Start(qpos, qvel, command=torch.zeros(n, 0, device=device))

    def privileged(self, sim: BatchSim) -> Tensor:
        qpos, qvel = sim.qpos[:, :7].float(), sim.qvel[:, :3].float()
        height = (qpos[:, 2:3] - self.config.min_height_m) / 0.3
        return torch.cat((in_body(qvel, qpos[:, 3:7]), height), dim=-1)

    def outcome(self, t: Transition, drawn: Tensor) -> Outcome:
        c = self.config
        gravity_b = gravity_in_body(t.sim.qpos[:, 3:7].float())
        ang_vel_b = t.sim.qvel[:, 3:6].float()
        fallen = (-gravity_b[:, 2] < self._cos_max_tilt) | (t.sim.qpos[:, 2] < c.min_height_m)
        rewards = {
            "alive": c.alive_weight * (~fallen).float(),
            "upright": c.upright_weight * upright(gravity_b),
            "still": c.still_weight * stillness(t.sim.qvel[:, :2].float()),
            "pose": c.pose_weight * pose_closeness(t.joint_pos, self.policy_io.default_pos.to(t.action)),
            "arms": c.arms_weight
            * pose_closeness(t.joint_pos[:, _ARMS], self.policy_io.default_pos.to(t.action)[_ARMS]),
            "ang_vel": -c.ang_vel_weight * ang_vel_b.square().sum(-1),
            "effort": -c.effort_weight * effort_share(t.sim.joint_effort.float(), self._effort_limit.to(t.action)),
            "action_rate": -c.action_rate_weight * (t.action - t.last_action).square().mean(-1),
        }
        return Outcome(rewards, terminated=fallen, at_goal=~fallen)


def action_scale() -> tuple[float, ...]:
    """Offset (n_joints,) rad at which a servo at rest pushes with a quarter of its torque limit; with a quarter more in
    the legs: servos that are a fifth too weak must do as much."""
    shares = [1.25 if any(part in j.name for part in _LEGS) else 1.0 for j in UNITREE_G1.joints]
    return tuple(share * scale for share, scale in zip(shares, quarter_effort_scale(UNITREE_G1), strict=True))


def _policy_io(config: G1BalanceConfig) -> PolicyIO:
    """Scales bring each term to order one: 4 rad/s of the base and 20 rad/s of a joint count as 1."""
    low, high = soft_limits(UNITREE_G1)
    return PolicyIO(
        robot=UNITREE_G1,
        terms=(
            ObservationTerm("base_ang_vel", 0.25),
            ObservationTerm("projected_gravity"),
            ObservationTerm("joint_pos"),
            ObservationTerm("joint_vel", 0.05),
            ObservationTerm("last_action"),
        ),
        action=ActionSpec(
            "position_relative",
            action_scale(),
            tuple(j.default_pos_rad for j in UNITREE_G1.joints),
            low,
            high,
        ),
        control_period_s=config.control_period_s,
        history_length=config.history_length,
    )
