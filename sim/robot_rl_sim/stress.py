"""Worlds driven as no policy could: what blows up must stay in its world, and can be looked at again."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import torch
from torch import Tensor

from robot_rl.env import Step
from robot_rl.errors import ConfigError, EnvError
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.divergence import Divergence
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.tasks.assemble import make_sim


class OverdrivenEnv(SimVecEnv):
    """An environment whose servos get random targets instead of the policy's, beyond the joints' limits.

    Targets are drawn anew in every control period, uniformly from each joint's range widened `scale` times about its
    middle.
    """

    def __init__(self, env: SimVecEnv, scale: float, seed: int) -> None:
        """Takes over the task, the physics and the randomisation of `env`, which must not be used any more."""
        joints = env.mdp.robot.joints
        lower, upper = (torch.tensor([getattr(j, f) for j in joints]) for f in ("lower_rad", "upper_rad"))
        self._middle, self._half = ((upper + lower) / 2).to(env.device), (scale * (upper - lower) / 2).to(env.device)
        self._targets = torch.Generator(env.device).manual_seed(seed + 1)
        super().__init__(env.mdp, env.sim, seed, env.randomization)

    def _advance(self, ctrl: Tensor, qpos: Tensor, qvel: Tensor) -> Tensor:
        drawn = torch.empty_like(ctrl[:, 0] if ctrl.dim() == 3 else ctrl).uniform_(-1, 1, generator=self._targets)
        target = self._middle + self._half * drawn
        ctrl = target.unsqueeze(1).expand_as(ctrl).contiguous() if ctrl.dim() == 3 else target
        return super()._advance(ctrl, qpos, qvel)


@dataclass(frozen=True, slots=True)
class Stress:
    """What a stress test went through."""

    env_steps: int
    terminated: int
    truncated: int
    """Episodes that time ended, or a divergence did."""
    diverged: int
    not_finite: str
    """What was not finite, of which environment; empty if everything always was."""
    seconds: float


def stress(env: SimVecEnv, env_steps: int, scale: float, seed: int, progress: Callable[[Stress], None]) -> Stress:
    """Drive the worlds of `env` (see OverdrivenEnv) for `env_steps` steps of single environments, or until a value that
    a learner sees is not finite."""
    driven = OverdrivenEnv(env, scale, seed)
    actions = torch.Generator(driven.device).manual_seed(seed + 2)
    action = torch.zeros(driven.num_envs, driven.action_dim, device=driven.device)
    begin, done, terminated, truncated, not_finite = time.monotonic(), 0, 0, 0, ""
    so_far = Stress(0, 0, 0, 0, "", 0.0)
    while done < env_steps and not not_finite:
        try:
            step = driven.step(action.uniform_(-1, 1, generator=actions))
            terminated += int(step.terminated.sum())
            truncated += int(step.truncated.sum())
            not_finite = _not_finite(step)
        except EnvError as error:
            not_finite = str(error)
        done += driven.num_envs
        so_far = Stress(done, terminated, truncated, driven.num_diverged, not_finite, time.monotonic() - begin)
        progress(so_far)
    env.divergences.extend(driven.divergences)
    return so_far


@dataclass(frozen=True, slots=True)
class Moment:
    """A world after one physics step."""

    failed: bool
    speed: float
    """Largest of all, m/s or rad/s."""
    fastest: str
    """The joint that has it."""
    penetration_m: float
    """How deep the deepest contact is; 0 without any."""
    touching: str
    """The two geoms of that contact."""


def replay(env: SimVecEnv, divergence: Divergence, backend: str) -> list[Moment]:
    """The control period that a world did not survive, one physics step at a time, up to the one in which it fails.

    `env` gives the model and the robot. Raises ConfigError if the divergence is of another model.
    """
    model, robot = env.sim.model, env.mdp.robot
    if (len(divergence.qpos), len(divergence.qvel)) != (model.nq, model.nv):
        sizes = f"{len(divergence.qpos)} positions and {len(divergence.qvel)} velocities"
        raise ConfigError(f"the divergence has {sizes}, the model of the task {model.nq} and {model.nv}")
    sim = make_sim(model, robot, 1, 1, str(env.device), 1, backend)
    world = torch.zeros(1, dtype=torch.int64, device=sim.device)
    for name, value in divergence.model.items():
        sim.model_field(name)[0] = value.to(sim.device)
    if divergence.model:
        sim.apply_model(world)
    sim.set_state(world, divergence.qpos.unsqueeze(0).to(sim.device), divergence.qvel.unsqueeze(0).to(sim.device))
    ctrl = divergence.ctrl if divergence.ctrl.dim() == 2 else divergence.ctrl.expand(env.sim.substeps, -1)
    moments: list[Moment] = []
    for target in ctrl.to(sim.device):
        sim.step(target.unsqueeze(0))
        moments.append(_moment(sim))
        if moments[-1].failed:
            break
    return moments


def _moment(sim: BatchSim) -> Moment:
    """Of the first world."""
    model, speed = sim.model, sim.qvel[0].cpu().abs().nan_to_num(torch.inf)
    dof = int(speed.argmax())
    joint = model.joint(int(model.dof_jntid[dof]))
    depth, touching = 0.0, ""
    data = mujoco.MjData(model)
    data.qpos[:] = sim.qpos[0].cpu().nan_to_num().numpy()
    mujoco.mj_fwdPosition(model, data)
    if data.ncon:
        deepest = int(data.contact.dist.argmin())
        depth = max(-float(data.contact.dist[deepest]), 0.0)
        touching = " and ".join(model.geom(int(g)).name or f"geom {g}" for g in data.contact.geom[deepest])
    return Moment(bool(sim.failed[0]), float(speed[dof]), joint.name or f"joint {joint.id}", depth, touching)


def _not_finite(step: Step) -> str:
    """What is not finite of what a learner sees, and in which environment; empty if all of it is."""
    values = {"obs": step.obs, "final_obs": step.final_obs, "reward": step.reward, **step.info}
    if step.final_privileged is not None:
        values["final_privileged"] = step.final_privileged
    for name, value in values.items():
        bad = ~torch.isfinite(value).reshape(len(value), -1).all(1)
        if bad.any():
            return f"{name} of env {int(bad.nonzero()[0])}"
    return ""
