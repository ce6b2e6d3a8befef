"""g1-velocity: walk as commanded, on the level or on rough ground. The actor sees only what the robot measures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import mujoco
import torch
from torch import Tensor
from torch.nn.functional import normalize

from robot_rl.contract import ActionSpec, EpisodeSpec, TensorSpec
from robot_rl.networks.policy_io import ObservationTerm, PolicyIO, asked_to_move
from robot_rl.networks.rotation import gravity_in_body, rotation_columns
from robot_rl.replay.mirror import Entries, Mirror
from robot_rl.robots import UNITREE_G1
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.disturbances import PushConfig
from robot_rl_sim.mdp import Outcome, Start, Transition
from robot_rl_sim.models import default_qpos, load_model, load_spec
from robot_rl_sim.symmetry import DIRECTION, mirror
from robot_rl_sim.tasks.actions import quarter_effort_scale, soft_limits
from robot_rl_sim.tasks.g1_velocity import rewards as r
from robot_rl_sim.tasks.g1_velocity.commands import COMMAND_DRAWS, CommandConfig, VelocityCommands
from robot_rl_sim.tasks.g1_velocity.feet import Feet, add_foot_sensors, round_soles
from robot_rl_sim.terrain import Terrain, TerrainConfig

COMMAND = "velocity_command"

_POSE_DRAWS = len(UNITREE_G1.joints) + 8
"""Numbers that decide on the pose in which an episode begins: joints, velocity of the base, heading and spot."""
_POSE_WEIGHTS = (("hip_pitch", 0.02), ("knee", 0.02), ("ankle_pitch", 0.02), ("waist", 3.0), ("", 1.0))
"""How much each joint should stay at its default: legs must swing, the trunk should not. First match counts."""


@dataclass(frozen=True, slots=True)
class Weights:
    """Per second: a term counts its weight times the control period, as in legged_gym. Costs are negative."""

    velocity: float = 2.0
    yaw_rate: float = 1.5
    alive: float = 1.0
    gait: float = 2.0
    single_stance: float = 0.5
    lean: float = -5.0
    height: float = -20.0
    vertical_velocity: float = -1.0
    roll_pitch_rate: float = -0.05
    pose: float = -0.5
    slip: float = -0.2
    overlap: float = -10.0
    action_rate: float = -0.05
    joint_limits: float = -5.0
    effort: float = -0.5
    power: float = -0.001
    fall: float = -100.0


@dataclass(frozen=True, slots=True)
class G1VelocityConfig:
    control_period_s: float = 0.02
    substeps: int = 4
    max_episode_steps: int = 1000
    history_length: int = 3
    """Observation frames that the actor sees."""
    commands: CommandConfig = field(default_factory=CommandConfig)
    pushes: PushConfig = field(default_factory=lambda: PushConfig((0.1, 0.6), (250, 500)))
    """0.1 to 0.6 m/s every 5 to 10 s."""
    terrain: TerrainConfig | None = None
    gait_period_s: float = 0.8
    """Of the clock that the actor sees while it is asked to move: one step of each foot."""
    swing_height_m: float = 0.09
    gait_width_m: float = 0.065
    longest_stance_s: float = 0.4
    least_foot_distance_m: float = 0.16
    velocity_width: float = 0.5
    """Error, m/s or rad/s, at which the tracking terms have fallen to 1/e."""
    smoothing_s: float = 0.4
    """Time constant of the mean velocity by which obedience is judged, about half a cycle of walking."""
    stance_height_m: float = 0.73
    """Pelvis above ground when standing in the default pose, its servos bent by its weight."""
    min_height_m: float = 0.4
    start_joint_noise_rad: float = 0.05
    start_velocity_noise: float = 0.1
    """m/s, and rad/s."""
    obedient: float = 0.7
    """Mean obedience from which an episode that ends on its feet counts as a success."""
    weights: Weights = field(default_factory=Weights)


_ROUGH_SOLE_M = 0.02
"""Radius of the soles' contact spheres on the height field; feet sink in by up to 3 mm when they land."""

# Points around the robot whose height critics are told, m forward and left in its heading's frame.
_SCAN = tuple((0.3 * i, 0.25 * j) for i in (-2, -1, 0, 1, 2) for j in (-1, 0, 1))
_MIDDLE = len(_SCAN) // 2
"""The point of the scan that lies under the pelvis."""
_SCAN_IMAGE = tuple((3 * i + 2 - j, 1) for i in range(5) for j in range(3))
_FEET_IMAGE = ((1, 1), (0, 1))


class G1Velocity:
    """See robot_rl_sim.mdp.Mdp. Privileged: velocity in the heading's frame (3), m/s, in which a push shows as a jump;
    pelvis above ground over what is normal, in 0.1 m; per foot contact, age of its mode in 0.4 s, and sole above ground
    in 0.1 m; on rough ground the heights of 15 points around, from the ground under the pelvis, in 0.1 m.
    """

    robot = UNITREE_G1
    hold_steps = 1
    object_body: str | None = None
    episode: EpisodeSpec | None = None
    start_draws = _POSE_DRAWS + COMMAND_DRAWS
    outcome_draws = COMMAND_DRAWS

    def __init__(self, num_worlds: int, config: G1VelocityConfig | None = None, device: str = "cpu") -> None:
        self.config = c = config or G1VelocityConfig()
        self.substeps = c.substeps
        self.max_episode_steps = c.max_episode_steps
        self.pushes: PushConfig | None = c.pushes
        self.policy_io = _policy_io(c)
        self.terrain = Terrain(c.terrain).to(torch.device(device)) if c.terrain else None
        image = _privileged_image(rough=self.terrain is not None)
        self.privileged_dim = len(image)
        self.mirror: Mirror | None = mirror(self.policy_io, privileged=image, command=((0, 1), (1, -1), (2, -1)))
        self._commands = VelocityCommands(c.commands, num_worlds, device)
        self._feet = Feet(num_worlds, device)
        self.state: dict[str, Tensor] = {
            **{f"command_{name}": value for name, value in self._commands.state.items()},
            **{f"foot_{name}": value for name, value in self._feet.state.items()},
            "mean_velocity": torch.zeros(num_worlds, 3, device=device),
            "obedience": torch.zeros(num_worlds, device=device),
            "last_obedience": torch.full((num_worlds,), torch.nan, device=device),
        }
        if self.terrain:
            self.state |= _terrain_state(self.terrain, num_worlds, device)

        tilt = UNITREE_G1.safety.tilt_trip_rad
        assert tilt is not None
        self._cos_max_tilt = math.cos(tilt)
        joints = UNITREE_G1.joints
        self._default_qpos = torch.from_numpy(default_qpos(load_model(UNITREE_G1.name), UNITREE_G1)).to(device)
        self._default_pos = self._default_qpos[7:].float()
        low, high = soft_limits(UNITREE_G1)
        self._low, self._high = torch.tensor(low, device=device), torch.tensor(high, device=device)
        pose = [next(w for part, w in _POSE_WEIGHTS if part in j.name) for j in joints]
        self._pose_weight = torch.tensor(pose, device=device)
        self._effort_weight = torch.tensor([1 / len(joints) / j.effort_limit_nm**2 for j in joints], device=device)
        self._scan = torch.tensor(_SCAN, device=device)
        names = Weights.__dataclass_fields__
        self._reward_names = tuple(names)
        weights = [c.control_period_s * getattr(c.weights, name) for name in names]
        self._weights = torch.tensor(weights, device=device).unsqueeze(-1)

    def model_spec(self) -> mujoco.MjSpec:
        spec = load_spec(self.robot.name)
        add_foot_sensors(spec)
        if self.terrain:
            round_soles(spec, _ROUGH_SOLE_M)
            self.terrain.add_to(spec)
        return spec

    def start(self, worlds: Tensor, drawn: Tensor) -> Start:
        c, k, joints, device = self.config, len(worlds), len(UNITREE_G1.joints), worlds.device
        pose, command = drawn.split((_POSE_DRAWS, COMMAND_DRAWS), 1)
        noise = 2 * pose - 1
        qpos = self._default_qpos.repeat(k, 1)
        qpos[:, 7:] += c.start_joint_noise_rad * noise[:, :joints]
        half_yaw = 0.5 * torch.pi * noise[:, joints + 6]
        qpos[:, 3], qpos[:, 6] = half_yaw.cos(), half_yaw.sin()
        # Of an episode that came to its end; NaN of one that was broken off.
        obeyed = self.state["last_obedience"][worlds]
        if self.terrain:
            qpos[:, :3] += self._place(worlds, obeyed, pose[:, -1])
        self._commands.judge(worlds, obeyed)
        self._feet.reset(worlds)
        self.state["mean_velocity"][worlds] = 0.0
        self.state["obedience"][worlds] = 0.0
        self.state["last_obedience"][worlds] = torch.nan
        qvel = torch.zeros(k, 6 + joints, device=device)
        qvel[:, :6] = c.start_velocity_noise * noise[:, joints : joints + 6]
        return Start(qpos, qvel, self._commands.draw(worlds, command))

    def privileged(self, sim: BatchSim) -> Tensor:
        base, velocity = sim.qpos[:, :7].float(), sim.qvel[:, :3].float()
        heading = _heading(base[:, 3:])
        foot_pos, _, contact = self._feet.read(sim)
        height, foot_height, around = self._above_ground(base, heading, foot_pos)
        columns = [
            _to_heading(velocity[:, :2], heading),
            velocity[:, 2:],
            10 * (height - self.config.stance_height_m).unsqueeze(-1),
            contact,
            self.state["foot_mode_s"] / self.config.longest_stance_s,
            10 * foot_height,
        ]
        if around is not None:
            columns.append(10 * (around - around[:, _MIDDLE : _MIDDLE + 1]))
        return torch.cat(columns, -1)

    def outcome(self, t: Transition, drawn: Tensor) -> Outcome:
        c, state, sim = self.config, self.state, t.sim
        base, velocity_w, effort = sim.qpos[:, :7].float(), sim.qvel[:, :6].float(), sim.joint_effort.float()
        heading, gravity_b = _heading(base[:, 3:]), gravity_in_body(base[:, 3:])
        foot_pos, foot_velocity, contact = self._feet.read(sim)
        mode_s = self._feet.update(contact, c.control_period_s)
        height, foot_height, _ = self._above_ground(base, heading, foot_pos)
        fallen = (gravity_b[:, 2] > -self._cos_max_tilt) | (height < c.min_height_m)

        # The world's vertical is minus gravity's direction.
        turn = -(gravity_b * velocity_w[:, 3:]).sum(-1, keepdim=True)
        velocity = torch.cat((_to_heading(velocity_w[:, :2], heading), turn), -1)
        error = t.command - velocity
        walking = asked_to_move(t.command)
        phase = t.steps * (c.control_period_s / c.gait_period_s)
        apart = _to_heading(foot_pos[:, 0, :2] - foot_pos[:, 1, :2], heading)[:, 1]
        terms = torch.stack(
            (
                r.closeness(error[:, :2], c.velocity_width),
                r.closeness(error[:, 2:], c.velocity_width),
                (~fallen).float(),
                r.gait_closeness(foot_height, phase, walking, c.swing_height_m, c.gait_width_m),
                walking * r.single_stance_time(contact, mode_s, c.longest_stance_s),
                r.lean(gravity_b),
                (height - c.stance_height_m).square(),
                velocity_w[:, 2].square(),
                velocity_w[:, 3:5].square().sum(-1),
                r.weighted_square(t.joint_pos - self._default_pos, self._pose_weight),
                r.slip(contact, foot_velocity),
                r.overlap(apart, c.least_foot_distance_m),
                (t.action - t.last_action).square().sum(-1),
                r.beyond(t.joint_pos, self._low, self._high),
                r.weighted_square(effort, self._effort_weight),
                r.power(effort, t.joint_vel),
                fallen.float(),
            )
        )
        rewards = dict(zip(self._reward_names, (terms * self._weights).unbind(), strict=True))

        mean = state["mean_velocity"].lerp_(velocity, c.control_period_s / c.smoothing_s)
        obedience = state["obedience"]
        obedience += r.closeness(t.command - mean, c.velocity_width) / c.max_episode_steps
        ended = fallen | (t.steps >= c.max_episode_steps)
        state["last_obedience"].copy_(torch.where(ended, obedience, torch.nan))
        metrics = {"command_level": state["command_level"].clone(), "obedience": obedience.clone()}
        if self.terrain:
            metrics["terrain_level"] = state["terrain_level"].float()
            state["asked_m"] += c.control_period_s * torch.linalg.vector_norm(t.command[:, :2], dim=-1)
            state["walked_m"].copy_(torch.linalg.vector_norm(base[:, :2] - state["start_xy"], dim=-1))
        return Outcome(
            rewards,
            terminated=fallen,
            at_goal=~fallen & (obedience >= t.steps * (c.obedient / c.max_episode_steps)),
            command=self._commands.next(t.command, heading, drawn),
            metrics=metrics,
        )

    def _above_ground(self, base: Tensor, heading: Tensor, foot_pos: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Height (n,) m of the pelvis above the mean of the ground around, of each sole (n, 2) m above its own, and of
        the ground (n, 15) m at the points of the scan, unless it is level."""
        if self.terrain is None:
            return base[:, 2], foot_pos[..., 2], None
        points = base[:, None, :2] + _from_heading(self._scan, heading)
        ground = self.terrain.height(torch.cat((points, foot_pos[..., :2]), 1))
        around = ground[:, :-2]
        return base[:, 2] - around.mean(-1), foot_pos[..., 2] - ground[:, -2:], around

    def _place(self, worlds: Tensor, obeyed: Tensor, drawn: Tensor) -> Tensor:
        """Where (k, 3) m `worlds` begin, on ground made harder or easier by how their last episodes went; at one of its
        spots, by `drawn` (k,) in [0, 1).

        Up for leaving half a patch behind, down for half of what was asked at most, or less; legged_gym's rule.
        """
        assert self.terrain is not None
        state, spots = self.state, self.terrain.spots
        walked, asked, level = state["walked_m"][worlds], state["asked_m"][worlds], state["terrain_level"][worlds]
        up = walked > self.terrain.config.patch_m / 2
        down = (walked < asked / 2) & ~up
        played = ~obeyed.isnan()
        level = (level + (up & played).long() - (down & played).long()).clamp(0, spots.shape[1] - 1)
        start = spots[state["terrain_kind"][worlds], level, (spots.shape[2] * drawn).long()]
        state["terrain_level"][worlds] = level
        state["start_xy"][worlds] = start[:, :2]
        state["asked_m"][worlds] = 0.0
        state["walked_m"][worlds] = 0.0
        return start


def _heading(quat_wxyz: Tensor) -> Tensor:
    """Cosine and sine (n, 2) of the direction in the world along which a body faces, seen from above."""
    return normalize(rotation_columns(quat_wxyz)[:, :2], dim=-1)


def _to_heading(xy: Tensor, heading: Tensor) -> Tensor:
    """A world vector (n, 2) in the frame of a heading (n, 2): forward, left."""
    (x, y), (cos, sin) = xy.unbind(-1), heading.unbind(-1)
    return torch.stack((cos * x + sin * y, cos * y - sin * x), -1)


def _from_heading(points: Tensor, heading: Tensor) -> Tensor:
    """Points (m, 2), forward and left, in the world's directions (n, m, 2)."""
    (x, y), (cos, sin) = points.unbind(-1), heading.unsqueeze(1).unbind(-1)
    return torch.stack((cos * x - sin * y, sin * x + cos * y), -1)


def _terrain_state(terrain: Terrain, n: int, device: str) -> Mapping[str, Tensor]:
    """Worlds take the kinds in turn; their levels start spread out."""
    kinds, levels = terrain.spots.shape[:2]
    world = torch.arange(n, device=device)
    return {
        "terrain_kind": world % kinds,
        "terrain_level": world // kinds % levels,
        "start_xy": torch.zeros(n, 2, device=device),
        "asked_m": torch.zeros(n, device=device),
        "walked_m": torch.zeros(n, device=device),
    }


def _privileged_image(rough: bool) -> Entries:
    """Mirror image of the privileged columns."""
    image: list[tuple[int, int]] = [*DIRECTION, (3, 1)]
    groups = (*3 * (_FEET_IMAGE,), *((_SCAN_IMAGE,) if rough else ()))
    for group in groups:
        first = len(image)
        image += [(first + i, sign) for i, sign in group]
    return tuple(image)


def _policy_io(config: G1VelocityConfig) -> PolicyIO:
    """Scales bring each term to order one: 4 rad/s of the base and 20 rad/s of a joint count as 1."""
    low, high = soft_limits(UNITREE_G1)
    return PolicyIO(
        robot=UNITREE_G1,
        terms=(
            ObservationTerm("base_ang_vel", 0.25),
            ObservationTerm("projected_gravity"),
            ObservationTerm("command"),
            ObservationTerm("gait_phase"),
            ObservationTerm("joint_pos"),
            ObservationTerm("joint_vel", 0.05),
            ObservationTerm("last_action"),
        ),
        action=ActionSpec(
            "position_relative",
            quarter_effort_scale(UNITREE_G1),
            tuple(j.default_pos_rad for j in UNITREE_G1.joints),
            low,
            high,
        ),
        control_period_s=config.control_period_s,
        command=TensorSpec(COMMAND, (3,), "m/s, m/s, rad/s", "command", "heading of the pelvis", -2.0, 2.0),
        history_length=config.history_length,
        gait_period_s=config.gait_period_s,
    )
