"""One policy step on a robot: raw state, command and memory into the graph; targets and the next memory out."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.contract import Contract, NumpyState
from robot_rl.errors import ConfigError

Array = NDArray[np.float32]

_WARM_UP_RUNS = 20
_NOTHING = np.zeros(0, np.float32)


class PolicyStep(NamedTuple):
    """What the graph computed in one step, without the batch dimension."""

    target: Array
    """(n_joints,) rad, before the safety filter."""
    action: Array
    """(n_joints,) in [-1, 1]; empty if the graph does not give it."""
    obs: Array
    """(obs_dim,) for logs."""
    command: Array | None = None
    """(command_dim,) what it was commanded; None if it takes no command."""
    memory: Array | None = None
    """Its memory before this step, flat and in the contract's order, without what is in `obs` already (memory that
    starts with an observation). With state and command it is all that the answer depends on."""


class PolicyRunner:
    """Holds the memory of one policy. `start` before the first `step`.

    Raises ConfigError at construction for memory that is fed back "applied" but is no joint target: only for those is
    it known what the safety filter made of them.
    """

    def __init__(self, policy: OnnxPolicy, contract: Contract) -> None:
        self.policy = policy
        self.contract = contract
        self._state_names = tuple(t.name for t in contract.inputs if t.source == "state")
        self._memory_specs = tuple(t for t in contract.inputs if t.source == "memory")
        self._observation_specs = tuple(t for t in self._memory_specs if t.start == "observation")
        self._logged_names = tuple(t.name for t in self._memory_specs if t.start != "observation")
        self._applied_names = tuple(t.name for t in self._memory_specs if t.feedback == "applied")
        self._command_name = contract.command.name if contract.command is not None else None
        self._memory: dict[str, Array] = {}
        self._filled: dict[str, Array] = {}
        self.observed = 0
        """Dry inferences since `forget`."""
        self._started = False
        n = len(contract.joints)
        for spec in self._memory_specs:
            if spec.feedback == "applied" and (spec.shape != (n,) or spec.unit != "rad"):
                raise ConfigError(
                    f"memory {spec.name!r} ({spec.unit}, {spec.shape}) cannot be fed back as applied; "
                    f"only joint targets (rad, ({n},)) can"
                )
        self._low = np.asarray(contract.action.low_rad, np.float32)
        self._high = np.asarray(contract.action.high_rad, np.float32)
        self.warm_up()

    def warm_up(self) -> None:
        """Run on zeros until onnxruntime has allocated what it needs: the first real step must not be the slowest."""
        zeros = {t.name: np.zeros((1, *t.shape), np.float32) for t in self.contract.inputs}
        for _ in range(_WARM_UP_RUNS):
            self.policy.run(zeros)

    def copy(self) -> PolicyRunner:
        """One with a memory of its own, on the same graph and its buffers."""
        other = copy.copy(self)
        other._memory = dict(self._memory)
        return other

    def start(self, state: NumpyState, command: Array | None) -> None:
        """Memory with which the policy takes over a robot in `state`, as its TensorSpecs say.

        Memory of observations holds those that were observed last, or else the present one over and over.
        """
        joint_pos = np.asarray(state.joint_pos, np.float32)
        memory: dict[str, Array] = {}
        for spec in self._memory_specs:
            if spec.start == "joint_pos":
                memory[spec.name] = np.clip(joint_pos, self._low, self._high)
            else:
                memory[spec.name] = np.zeros((1, *spec.shape), np.float32)
        memory |= self._filled
        if self._observation_specs and not self._filled:
            # The newest frame is the end of obs and does not depend on the older ones, so one dry run yields it.
            obs = self.policy.run({**self._inputs(state, command), **memory})["obs"]
            frame = obs[:, -sum(size for _, size in self.contract.observation_terms) :]
            for spec in self._observation_specs:
                memory[spec.name] = np.tile(frame, spec.shape[0] // frame.shape[1])
        self._memory = memory
        self._started = False

    def observe(self, state: NumpyState, command: Array | None) -> None:
        """A dry inference: nothing comes of it but that `start` finds the memory of observations filled.

        Raises ValueError for an answer that is not finite.
        """
        self.start(state, command)
        outputs = self.policy.run({**self._inputs(state, command), **self._memory})
        not_finite = [name for name, value in outputs.items() if not np.isfinite(value).all()]
        if not_finite:
            raise ValueError(f"its {', '.join(not_finite)} is not finite")
        self._filled = {spec.name: outputs[f"next_{spec.name}"] for spec in self._observation_specs}
        self.observed += 1

    def forget(self) -> None:
        """Forget what was observed: what comes next does not follow on it."""
        self._filled, self.observed = {}, 0

    def step(self, state: NumpyState, command: Array | None, applied: NDArray[Any] | None) -> PolicyStep:
        """Evaluate the policy. `applied` (n_joints,) is the last position commanded, after the safety filter.

        Memory advances only if everything the policy said is finite, so that one bad answer does not spoil the next.
        """
        if self._started and applied is not None:
            for name in self._applied_names:
                self._memory[name] = np.asarray(applied, np.float32)[None]
        inputs = {**self._inputs(state, command), **self._memory}
        outputs = self.policy.run(inputs)
        said = np.concatenate(tuple(outputs.values()), axis=None)
        if np.count_nonzero(np.isfinite(said)) == said.size:
            self._memory = {spec.name: outputs[f"next_{spec.name}"] for spec in self._memory_specs}
            self._started = True
        action = outputs.get("action")
        return PolicyStep(
            target=outputs["joint_target"][0],
            action=action[0] if action is not None else np.zeros(0, np.float32),
            obs=outputs["obs"][0],
            command=command,
            memory=np.concatenate([inputs[name].ravel() for name in self._logged_names] or [_NOTHING]),
        )

    def _inputs(self, state: NumpyState, command: Array | None) -> dict[str, NDArray[Any]]:
        inputs = {name: getattr(state, name) for name in self._state_names}
        if self._command_name is not None:
            if command is None:
                raise ValueError(f"the policy needs the command {self._command_name!r}")
            inputs[self._command_name] = command[None]
        return inputs
