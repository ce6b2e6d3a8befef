"""Let one backup tier act on many robots at once, from given states, and see how many it saves."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from robot_rl.bundle.load import Bundle
from robot_rl.contract import RobotState
from robot_rl.robots import BackupTier
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.ramp import ramp_position
from robot_rl_sim.backups.collect import Trips
from robot_rl_sim.backups.criterion import HORIZON_S, Criterion, Judge
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.motors import GAIN_COLUMNS


@torch.no_grad()
def roll(
    env: SimVecEnv,
    trips: Trips,
    lead_steps: int,
    tier: BackupTier,
    limits: SafetyLimits,
    criterion: Criterion,
    recovery: Bundle | None = None,
) -> tuple[Tensor, Tensor]:
    """From the states `lead_steps` before each trip, with the dynamics, servos and sensors of that episode and no more
    pushes: which worlds had such a state (n,), and which recovered (n,).

    `env` is one of the same task and physics as the one that `trips` come from; its episodes are lost. A world whose
    physics fails has not recovered.
    """
    there, qpos, qvel, target = trips.before(lead_steps)
    env.load_state_dict(trips.episode)
    env.place(qpos.to(env.device), qvel.to(env.device), target.to(env.device))
    period_s = env.policy_io.contract.control_period_s
    actor, judge = _Actor(env, tier, limits, recovery), Judge(criterion, period_s)
    failed = torch.zeros(env.num_envs, dtype=torch.bool, device=env.device)
    for step in range(round(HORIZON_S / period_s)):
        failed |= env.drive(actor.target(step))
        judge.see(env.sim)
    return there, (judge.met() & ~failed).cpu()


class _Actor:
    """The tier's joint targets, as the runtime would send them."""

    def __init__(self, env: SimVecEnv, tier: BackupTier, limits: SafetyLimits, recovery: Bundle | None) -> None:
        self._env = env
        self._tier = tier
        self._period_s = env.policy_io.contract.control_period_s
        self._duration_s = limits.profile.stand_duration_s
        # What the runtime knows of the pose is what the encoders say.
        self._start = env.measure().joint_pos.double().cpu().numpy()
        self._home = limits.stand_pos
        self._low, self._high = limits.soft_lower, limits.soft_upper
        self._policy = _Policy(recovery, env.measure()) if tier == "recovery" and recovery is not None else None
        if tier == "damp":
            _damp(env, limits)

    def target(self, step: int) -> Tensor:
        """(n, n_joints) rad for one control period."""
        if self._policy is not None:
            return self._policy.target(self._env.measure()).to(self._env.device)
        position = self._start
        if self._tier == "home":
            share = step * self._period_s / self._duration_s
            position = ramp_position(self._start, np.broadcast_to(self._home, self._start.shape), share)
        position = np.clip(position, self._low, self._high)
        return torch.from_numpy(position).float().to(self._env.device)


class _Policy:
    """A recovery policy on all worlds: the exported graph, its memory begun afresh as on the robot."""

    def __init__(self, bundle: Bundle, state: RobotState[Tensor]) -> None:
        self._bundle = bundle
        self._contract = bundle.contract
        n, action = len(state.joint_pos), self._contract.action
        memory = [t for t in self._contract.inputs if t.source == "memory"]
        self._memory = {t.name: np.zeros((n, *t.shape), np.float32) for t in memory}
        for spec in memory:
            if spec.start == "joint_pos":
                self._memory[spec.name] = state.joint_pos.cpu().numpy().clip(action.low_rad, action.high_rad)
        frame_dim = sum(size for _, size in self._contract.observation_terms)
        observed = [t for t in memory if t.start == "observation"]
        if observed:
            frame = self._run(state)["obs"][:, -frame_dim:]
            for spec in observed:
                self._memory[spec.name] = np.tile(frame, (1, spec.shape[0] // frame_dim))

    def target(self, state: RobotState[Tensor]) -> Tensor:
        outputs = self._run(state)
        self._memory = {name: outputs[f"next_{name}"] for name in self._memory}
        return torch.from_numpy(outputs["joint_target"].copy())

    def _run(self, state: RobotState[Tensor]) -> dict[str, np.ndarray]:
        named = {t.name: getattr(state, t.name).cpu().numpy() for t in self._contract.inputs if t.source == "state"}
        command = self._contract.command
        if command is not None:
            named[command.name] = np.zeros((len(state.joint_pos), *command.shape), np.float32)
        return self._bundle.policy.run_batch(named | self._memory)


def _damp(env: SimVecEnv, limits: SafetyLimits) -> None:
    """Turn all servos into dampers with the profile's coefficients."""
    columns = GAIN_COLUMNS[env.randomization.motor.kind]
    damping = torch.from_numpy(limits.damping_kd).to(env.device)
    for name, column in columns.kp:
        env.sim.model_field(name)[..., column] = 0.0
    for name, column in columns.kd:
        # A bias of the force is subtracted from it, a gain of a controller is a gain.
        env.sim.model_field(name)[..., column] = -damping if name == "actuator_biasprm" else damping
    env.sim.apply_model(torch.arange(env.num_envs, device=env.device))
