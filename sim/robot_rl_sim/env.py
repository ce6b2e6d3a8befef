"""The environment: a task's MDP on a BatchSim, seen through the task's PolicyIO."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial, reduce
from math import isfinite
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_rl.algorithms.compiling import compiled
from robot_rl.algorithms.kernel import Kernel
from robot_rl.contract import EpisodeSpec, RobotState
from robot_rl.env import Step
from robot_rl.errors import CheckpointError, EnvError
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.backends.state_view import StateView
from robot_rl_sim.divergence import Divergence, Origin, record, write
from robot_rl_sim.imperfections import Imperfections
from robot_rl_sim.mdp import Mdp, Transition
from robot_rl_sim.randomization import NOMINAL, RandomizationConfig
from robot_rl_sim.target_filter import TargetFilter

if TYPE_CHECKING:
    from robot_rl_sim.camera import WorldCamera

STARTED_APART = 8
"""Most episodes that are started by kernels, which are for one world. More than these are faster together."""
KEPT_DIVERGENCES = 16
_PARTS = ("sim/", "chance/")
"""Of a state dict, which load themselves."""
MAX_DUMPS = 64
"""Files in one folder: a task that always diverges must not fill the disk."""


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Tensors here are so small that torch's threads, fighting with the physics' for cores, only make them late."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


class SimVecEnv:
    """A RobotVecEnv (see robot_rl.env). All randomness comes from one generator, seeded here or by `reset(seed)`.

    `randomization=NOMINAL` gives the robot as modelled, without sensor noise or latency. If critics are to see what was
    drawn (`RandomizationConfig.privileged`), `draws.layout` says what is in the last columns of `privileged`.
    """

    def __init__(self, mdp: Mdp, sim: BatchSim, seed: int, randomization: RandomizationConfig = NOMINAL) -> None:
        _move(mdp, sim.device)
        n, io = sim.num_worlds, mdp.policy_io
        self.mdp = mdp
        self.sim = sim
        self.randomization = randomization
        self.policy_io = io
        self.num_envs = n
        self.obs_dim = io.obs_dim
        self.action_dim = len(mdp.robot.joints)
        self.max_episode_steps = mdp.max_episode_steps
        self.device = sim.device
        self.num_diverged = 0
        """Worlds whose physics failed so far. Each was put back to where it last was sound, and started afresh."""
        self.divergences: deque[Divergence] = deque(maxlen=KEPT_DIVERGENCES)
        """The last of them."""

        self.imperfections = own = Imperfections(sim, mdp, randomization, seed)
        self.draws = own.draws
        self.mirror = mdp.mirror
        self.privileged_dim = mdp.privileged_dim
        if randomization.privileged:
            self.privileged_dim += len(own.draws.mirror)
            self.mirror = mdp.mirror and mdp.mirror.extended(own.draws.mirror)

        self._camera: WorldCamera | None = None
        self._all = torch.arange(n, device=self.device)
        # Named as PolicyIO.encode wants them, in contract order.
        names = {t.name: "command" if t.source == "command" else t.name for t in io.contract.inputs}
        self._contract_names = {name: contract_name for contract_name, name in names.items()}
        zeros = partial(torch.zeros, device=self.device)
        self._inputs = {names[t.name]: zeros(n, *t.shape) for t in io.contract.inputs}
        self._obs = zeros(n, io.obs_dim)
        self._none_failed = zeros(n, dtype=torch.bool)
        self._steps = zeros(n, dtype=torch.int64)
        self._steps_at_goal = zeros(n, dtype=torch.int64)
        self._return = zeros(n)
        self.first_mdp_state = {name: value.clone() for name, value in mdp.state.items()}
        """The task's own state before any episode."""
        self._no_command = zeros(n, 0)
        self._privileged, self._privileged_known = zeros(n, self.privileged_dim), False
        """Of the present states, where that was computed already."""
        self._trace = sim.trace() if own.sensors.late else None
        self._decide: Callable[..., dict[str, Tensor]] = self._decided
        self._judge: Callable[..., dict[str, Tensor]] = self._judged
        self._begin: Callable[..., dict[str, Tensor]] = self._begun
        self._observe: Callable[..., dict[str, Tensor]] = self._observed
        self._unrefreshed: list[Tensor] = []
        """Worlds of which physics has not computed yet what they read at the start of their episodes."""
        self._few = 0
        """So many episodes are started one by one."""
        self._filter: TargetFilter | None = None
        self.reset()

    @property
    def episode(self) -> EpisodeSpec | None:
        """See robot_rl.env.EpisodicVecEnv."""
        return self.mdp.episode

    @_one_torch_thread()
    def reset(self, seed: int | None = None) -> Tensor:
        """Start every environment anew; returns obs (n_envs, obs_dim). With a seed all that follows is as it was after
        any other reset with that seed: what a task learned of its worlds, such as their level, is forgotten."""
        if seed is not None:
            self.imperfections.chance.seed(seed)
            for name, value in self.mdp.state.items():
                value.copy_(self.first_mdp_state[name])
        self._start(self._all)
        return self._obs.clone()

    @_one_torch_thread()
    def step(self, action: Tensor) -> Step:
        """One control period. Raises EnvError, naming term and env, for an action or a result that is not finite.

        A world whose physics fails stays where it was, and its episode is truncated there: a learner's target is then
        its own estimate, which teaches nothing. `info["diverged"]` tells where that happened.
        """
        if not isfinite(action.sum().item()):
            _check_finite("action", action)
        drawn = self.imperfections.chance.step()
        decision = self._decide(action, drawn)
        if self.imperfections.pushes:
            self.sim.qvel.copy_(decision["qvel"])
        diverged = self._advance(decision["ctrl"], decision["qpos"], decision["qvel"])
        info = self._judge(decision["action"], decision["target"], diverged, drawn)
        obs, reward, terminated, truncated = (info.pop(name) for name in ("obs", "reward", "terminated", "truncated"))
        privileged = info.pop("privileged")
        self._privileged_known = True
        summary = info.pop("summary").cpu().numpy()
        if not isfinite(summary[0]):
            for name, value in info.items():
                if name.startswith("reward/"):
                    _check_finite(name, value)
            self._check_obs(obs)
        ended, present = summary[1:].nonzero()[0], obs
        if len(ended):
            self._start(torch.from_numpy(ended).to(self.device))
            present = self._obs.clone()
        final_privileged = privileged if self.privileged_dim else None
        return Step(present, reward, terminated, truncated, obs, info, final_privileged)

    def compile(self) -> None:
        """See robot_rl.env.CompilableVecEnv."""
        if self.sim.stays:
            self._decide, self._judge = Kernel(self._decided), Kernel(self._judged)
            self._begin, self._observe = Kernel(self._begun), Kernel(self._observed)
            self._few = STARTED_APART
        else:
            self._decide, self._judge = compiled(self._decided, self.device), compiled(self._judged, self.device)

    def limit_targets(self, low_pass_hz: float | None = None) -> None:
        """See robot_rl.env.LimitedVecEnv."""
        contract = self.policy_io.contract
        self._filter = TargetFilter(self.mdp.robot, contract, self.num_envs, self.device, low_pass_hz)
        if isinstance(self._decide, Kernel):  # which knows the settings of before
            self._decide = Kernel(self._decided)

    def privileged(self) -> Tensor:
        """(n_envs, privileged_dim) of the states after the last step or reset: for critics."""
        if not self._privileged_known:
            if self._unrefreshed:
                self.sim.refresh(torch.cat(self._unrefreshed).unique())
                self._unrefreshed.clear()
            self._privileged.copy_(self._compute_privileged())
            self._privileged_known = True
        return self._privileged.clone()

    def _compute_privileged(self) -> Tensor:
        own = self.mdp.privileged(self.sim)
        return torch.cat((own, self.draws.values), -1) if self.randomization.privileged else own

    def _decided(self, action: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        """From actions to servos: all before physics, without chance. With `_judged`, what `compile` compiles. State
        that lasts is written in place, as a Kernel wants it."""
        sim, last_target = self.sim, self._inputs["last_target"]
        action = action.clamp(-1.0, 1.0)
        target = self.policy_io.decode(action, last_target)
        if self._filter:
            target = self._filter.apply(target, last_target, sim.joint_pos.float(), sim.joint_vel.float())
        qvel, own, chance = sim.qvel.clone(), self.imperfections, self.imperfections.of_step(drawn)
        if own.pushes:
            qvel[:, :2] += own.pushes.kick(chance.push)
        ctrl = own.servo_targets(target, chance.torque).to(sim.qpos.dtype)
        return {"action": action, "target": target, "ctrl": ctrl, "qpos": sim.qpos.clone(), "qvel": qvel}

    def _judged(self, action: Tensor, target: Tensor, diverged: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        """What the step that physics made was worth, and what is seen after it: all between physics and the start of
        new episodes, without chance. Returns fields of Step, what goes into its info, `privileged`, and a `summary`:
        a number that is finite unless a reward or an observation is not, and for each episode whether it ended."""
        if self._trace is not None:
            self.imperfections.sensors.update(self._trace)
        self._steps += 1
        chance = self.imperfections.of_step(drawn)
        outcome = self.mdp.outcome(self._transition(action), chance.outcome)
        reward = reduce(torch.add, outcome.rewards.values())
        terminated, alive = outcome.terminated, ~outcome.terminated
        truncated = ((self._steps >= self.max_episode_steps) | diverged) & alive
        self._return += reward
        self._steps_at_goal.copy_((self._steps_at_goal + 1) * outcome.at_goal)
        info = {f"reward/{name}": value for name, value in outcome.rewards.items()}
        info["episode_return"] = self._return.clone()
        info["episode_length"] = self._steps.clone()
        info["success"] = (self._steps_at_goal >= self.mdp.hold_steps) & alive & ~diverged
        info["diverged"] = diverged.clone()
        info |= outcome.metrics

        inputs = dict(self._inputs)
        if outcome.command is not None:
            inputs["command"] = outcome.command
        inputs |= self.policy_io.next_memory(inputs, self._obs, action, target)
        inputs |= self.policy_io.state_inputs(self.imperfections.sensors.reading(chance.reading))
        obs = self.policy_io.encode(inputs)
        for name, value in inputs.items():
            self._inputs[name].copy_(value)
        self._obs.copy_(obs)
        step = {"obs": obs, "reward": reward, "terminated": terminated, "truncated": truncated}
        privileged = self._compute_privileged()
        self._privileged.copy_(privileged)
        summary = torch.cat(((reward.sum() + obs.sum()).unsqueeze(0), (terminated | truncated).to(obs)))
        return info | step | {"privileged": privileged, "summary": summary}

    def policy_inputs(self) -> dict[str, Tensor]:
        """Copies of the named inputs (contract names and order) from which the current obs was encoded."""
        return {contract_name: self._inputs[name].clone() for name, contract_name in self._contract_names.items()}

    def set_command(self, command: Tensor) -> Tensor:
        """Ask all worlds for `command` (n_envs, command_dim) from now on, or until the task or a new episode asks for
        something else; returns obs (n_envs, obs_dim). Raises EnvError where the task takes none."""
        if "command" not in self._inputs:
            raise EnvError(f"the task of robot {self.mdp.robot.name!r} takes no command")
        self._inputs["command"].copy_(command)
        self._obs.copy_(self._encode(self._inputs))
        return self._obs.clone()

    def measure(self) -> RobotState[Tensor]:
        """What all robots' sensors read now: joints, and what the policy's contract names."""
        own = self.imperfections
        return own.sensors.reading(own.of_step(own.chance.step()).reading)

    def place(self, qpos: Tensor, qvel: Tensor, target: Tensor) -> None:
        """Put all worlds into states (n, nq) and (n, nv) in which their servos hold `target` (n, n_joints), rad; what
        their episodes drew stays."""
        self.sim.set_state(self._all, qpos, qvel)
        self.imperfections.sensors.reset(self._all)
        if self.imperfections.latency:
            self.imperfections.latency.reset(self._all, target)

    @_one_torch_thread()
    def drive(self, target: Tensor) -> Tensor:
        """Physics for one control period towards joint targets (n, n_joints), rad, with the errors of the episodes' own
        servos, but without the task: no pushes, no reward, no new episodes. Returns which worlds failed (n,)."""
        own = self.imperfections
        ctrl = own.servo_targets(target, own.of_step(own.chance.step()).torque)
        failed = self._advance(ctrl, self.sim.qpos.clone(), self.sim.qvel.clone())
        if self._trace is not None:
            self.imperfections.sensors.update(self._trace)
        return failed

    def dump_failures(self, folder: Path, task: str, seed: int, backend: str) -> list[Path]:
        """See robot_rl.env.DumpingVecEnv. Of many failures since the last call, the last few."""
        first = len(list(folder.glob("*.safetensors")))  # a run that was resumed adds to what it had
        paths = [folder / f"{i:03d}.safetensors" for i in range(first, min(first + len(self.divergences), MAX_DUMPS))]
        for path, divergence in zip(paths, self.divergences, strict=False):
            write(path, divergence, Origin(task, seed, backend))
        self.divergences.clear()
        return paths

    def render(self, env: int = 0) -> NDArray[np.uint8]:
        """See robot_rl.env.RenderedVecEnv: (240, 320, 3), with what is asked of the robot drawn in."""
        if self._camera is None:
            from robot_rl_sim.camera import WorldCamera  # which needs OpenGL and a video library

            self._camera = WorldCamera(self)
        return self._camera.frame(env)

    def close(self) -> None:
        """The worlds go with the object; a camera does not."""
        if self._camera is not None:
            self._camera.close()
            self._camera = None

    def state_dict(self) -> dict[str, Tensor]:
        """Everything needed to go on exactly from here."""
        self.privileged()  # which physics may have to compute
        sim = {f"sim/{name}": value for name, value in self.sim.state_dict().items()}
        chance = {f"chance/{name}": value for name, value in self.imperfections.chance.state_dict().items()}
        return {name: value.clone() for name, value in (self._tensors() | chance).items()} | sim

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from the state of an environment of the same task, size and randomisation, else CheckpointError."""
        own = self._tensors()
        parts = {part: {k.removeprefix(part): v for k, v in state.items() if k.startswith(part)} for part in _PARTS}
        given = {k: tuple(v.shape) for k, v in state.items() if not k.startswith("sim/")}
        chance = {f"chance/{name}": value for name, value in self.imperfections.chance.state_dict().items()}
        expected = {name: tuple(value.shape) for name, value in (own | chance).items()}
        if given != expected:
            differing = sorted(k for k in given.keys() | expected.keys() if given.get(k) != expected.get(k))
            raise CheckpointError(f"environment state does not fit; different or missing: {differing}")
        self.sim.load_state_dict(parts["sim/"])
        self.imperfections.chance.load_state_dict(parts["chance/"])
        for name, value in own.items():
            value.copy_(state[name])
        self._privileged_known = True
        self._unrefreshed.clear()

    def _advance(self, ctrl: Tensor, qpos: Tensor, qvel: Tensor) -> Tensor:
        """Physics for one control period from states (n, nq) and (n, nv); returns which worlds failed (n,), which are
        back there."""
        self.sim.step(ctrl)
        self._unrefreshed.clear()
        if not self.sim.any_failed:
            return self._none_failed
        failed = self.sim.failed
        worlds = failed.nonzero().squeeze(-1)
        self.num_diverged += len(worlds)
        self.divergences.extend(record(self.sim, worlds[-KEPT_DIVERGENCES:], self._steps, qpos, qvel, ctrl))
        self.sim.set_state(worlds, qpos[worlds], qvel[worlds])
        if self._trace is not None:
            self._trace.overwrite(worlds, self.sim.qpos[worlds], self.sim.qvel[worlds])
        return failed

    def _start(self, worlds: Tensor) -> None:
        """Begin new episodes in `worlds` (k,) and observe them; the other worlds' inputs and obs stay as they are."""
        self._privileged_known = False
        k = len(worlds)
        drawn = self.imperfections.chance.start(k)
        apart = k <= self._few
        begin, observe = (self._begin, self._observe) if apart else (self._begun, self._observed)
        parts = list(zip(worlds.split(1), drawn.split(1), strict=True)) if apart and k > 1 else [(worlds, drawn)]
        starts = [begin(*part) for part in parts]
        self.imperfections.randomizer.apply(worlds)
        if self.imperfections.sensors.computed:
            self.sim.refresh(worlds)
            starts = [observe(*part, start["command"]) for part, start in zip(parts, starts, strict=True)]
        else:
            self._unrefreshed.append(worlds)
        for start in starts:
            if not isfinite(start["checksum"].item()):
                self._check_obs(self._obs)

    def _begun(self, worlds: Tensor, drawn: Tensor) -> dict[str, Tensor]:
        """The start and the dynamics of new episodes in `worlds` (k,), by `drawn`, a row of chance for each; with the
        first observation, unless physics must compute first what is read. This and `_observed` is what a start does
        besides physics, and what `compile` compiles."""
        chance, own = self.imperfections.of_start(drawn), self.imperfections
        start = self.mdp.start(worlds, chance.start)
        self.draws.set(worlds, chance.draws)
        own.randomizer.write(worlds)
        self.sim.write_state(worlds, start.qpos, start.qvel)
        if own.sensors.computed:
            return {"command": start.command}
        return self._observed(worlds, drawn, start.command, self.sim.view(start.qpos, start.qvel))

    def _observed(
        self, worlds: Tensor, drawn: Tensor, command: Tensor, states: StateView | None = None
    ) -> dict[str, Tensor]:
        """The first observation of the episodes that began in `worlds` (k,), by default of what the physics has."""
        own, chance = self.imperfections, self.imperfections.of_start(drawn)
        own.sensors.reset(worlds, states)
        inputs = self.policy_io.state_inputs(own.sensors.reading(chance.reading, worlds, states))
        if "command" in self._inputs:
            inputs["command"] = command
        inputs |= self.policy_io.start_memory(inputs)
        for name, value in self._inputs.items():
            value.index_copy_(0, worlds, inputs[name])
        obs = self.policy_io.encode(inputs)
        self._obs.index_copy_(0, worlds, obs)
        own.hold(worlds, inputs["last_target"], chance.push)
        for counter in (self._steps, self._steps_at_goal, self._return):
            counter[worlds] = 0
        return {"checksum": obs.sum()}

    def _transition(self, action: Tensor) -> Transition:
        """The step just made, as the task judges it."""
        return Transition(
            sim=self.sim,
            joint_pos=self.sim.joint_pos.float(),
            joint_vel=self.sim.joint_vel.float(),
            action=action,
            last_action=self._inputs["last_action"],
            command=self._inputs.get("command", self._no_command),
            steps=self._steps,
        )

    def _encode(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """PolicyIO's encoding, checked."""
        obs = self.policy_io.encode(inputs)
        if not isfinite(obs.sum().item()):
            self._check_obs(obs)
        return obs

    def _check_obs(self, obs: Tensor) -> None:
        contract = self.policy_io.contract
        terms = contract.observation_terms * contract.history_length
        columns = obs.split([size for _, size in terms], dim=1)
        for (name, _), values in zip(terms, columns, strict=True):
            _check_finite(f"observation/{name}", values)

    def _tensors(self) -> dict[str, Tensor]:
        """The live tensors that make up the state, but for the physics and the generator."""
        groups: dict[str, dict[str, Tensor]] = {
            "inputs": self._inputs,
            "episode": {"steps": self._steps, "steps_at_goal": self._steps_at_goal, "return": self._return},
            "mdp": self.mdp.state,
            **self.imperfections.state,
        }
        return {"obs": self._obs, "privileged": self._privileged} | {
            f"{g}/{name}": value for g, group in groups.items() for name, value in group.items()
        }


def _check_finite(name: str, value: Tensor) -> None:
    """Raise EnvError naming the first row of `value` (n, ...) that holds NaN or infinity."""
    rows = torch.isfinite(value).reshape(len(value), -1).all(-1)
    if not rows.all():
        env = int((~rows).nonzero()[0])
        raise EnvError(f"{name} of env {env} is not finite: {value[env].tolist()}")


def _move(mdp: Mdp, device: torch.device) -> None:
    """Bring the tensors and modules among the attributes of `mdp`, and the tensors of its `state`, to `device`."""
    for name, value in vars(mdp).items():
        if isinstance(value, (Tensor, torch.nn.Module)):
            setattr(mdp, name, value.to(device))
    mdp.state |= {name: value.to(device) for name, value in mdp.state.items()}
