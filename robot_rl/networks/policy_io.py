"""What a policy sees and what its action means: one copy, used by every simulator and put inside the exported graph.

A policy's step, in simulation and on the robot alike:

    obs     = encode(state, command, memory)
    action  = actor(normalise(obs))                   in [-1, 1]
    target  = decode(action, memory)                  joint positions, rad
    memory' = next_memory(memory, obs, action, target)
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robot_rl.contract import ActionSpec, Contract, RobotState, TensorSpec
from robot_rl.errors import ConfigError
from robot_rl.networks.kinematics import TipKinematics
from robot_rl.networks.rotation import conjugate, gravity_in_body, multiply, rotation_columns
from robot_rl.robots import RobotSpec

Inputs = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class ObservationTerm:
    """One entry of the observation frame: a name in TERMS, times a scale that brings it to order one."""

    name: str
    scale: float = 1.0


@dataclass(frozen=True, slots=True)
class _Term:
    needs: tuple[str, ...]
    size: Callable[[PolicyIO], int]
    compute: Callable[[PolicyIO, Inputs], Tensor]


def _n_joints(io: PolicyIO) -> int:
    return len(io.robot.joints)


def _command_dim(io: PolicyIO) -> int:
    return io.command_dim


def _tip_error(io: PolicyIO, inputs: Inputs) -> Tensor:
    """Commanded minus actual tip positions (n, 3 n_tips), m, in the root body frame."""
    assert io.tips is not None  # made at construction whenever the term is used
    return inputs["command"] - io.tips(inputs["joint_pos"]).flatten(1)


STANDING_COMMAND = 0.1
"""A velocity command of a smaller norm, m/s and rad/s together, means to stand."""


def asked_to_move(command: Tensor) -> Tensor:
    """(n,) bool, of velocity commands (n, 3)."""
    return torch.linalg.vector_norm(command, dim=-1) > STANDING_COMMAND


def _gait_phase(io: PolicyIO, inputs: Inputs) -> Tensor:
    """Sine and cosine (n, 2) of the gait clock while asked to move; zeros while asked to stand."""
    angle = 2 * torch.pi * inputs["gait_phase"]
    return torch.cat((angle.sin(), angle.cos()), dim=-1) * asked_to_move(inputs["command"]).unsqueeze(-1)


def _joint_error_near(io: PolicyIO, inputs: Inputs) -> Tensor:
    """What is left to go (n, n_joints), cut at a tenth of the joint's range, in that unit: sharp near the goal."""
    reach = 0.1 * (io.high - io.low)
    return ((inputs["command"] - inputs["joint_pos"]) / reach).clamp(-1.0, 1.0)


def _goal_rotation(io: PolicyIO, inputs: Inputs) -> Tensor:
    """The turn (n, 6) that is left to make, in the root body frame: goal * object^-1, as `rotation_columns`."""
    return rotation_columns(multiply(inputs["command"], conjugate(inputs["object_quat_wxyz"])))


# name: inputs needed, size, value (n, size). A rad, rad/s, m or pure number, before scaling.
TERMS: dict[str, _Term] = {
    "joint_pos": _Term(("joint_pos",), _n_joints, lambda io, x: x["joint_pos"] - io.default_pos),
    "joint_vel": _Term(("joint_vel",), _n_joints, lambda io, x: x["joint_vel"]),
    "target_error": _Term(("joint_pos", "last_target"), _n_joints, lambda io, x: x["last_target"] - x["joint_pos"]),
    "last_action": _Term(("last_action",), _n_joints, lambda io, x: x["last_action"]),
    "base_ang_vel": _Term(("imu_ang_vel_b",), lambda io: 3, lambda io, x: x["imu_ang_vel_b"]),
    "projected_gravity": _Term(("imu_quat_wxyz",), lambda io: 3, lambda io, x: gravity_in_body(x["imu_quat_wxyz"])),
    "command": _Term(("command",), _command_dim, lambda io, x: x["command"]),
    "tip_error": _Term(("command", "joint_pos"), _command_dim, _tip_error),
    "joint_error": _Term(("command", "joint_pos"), _n_joints, lambda io, x: x["command"] - x["joint_pos"]),
    "joint_error_near": _Term(("command", "joint_pos"), _n_joints, _joint_error_near),
    "object_pos": _Term(("object_pos",), lambda io: 3, lambda io, x: x["object_pos"]),
    "object_rotation": _Term(
        ("object_quat_wxyz",), lambda io: 6, lambda io, x: rotation_columns(x["object_quat_wxyz"])
    ),
    "goal_rotation": _Term(("command", "object_quat_wxyz"), lambda io: 6, _goal_rotation),
    "gait_phase": _Term(("gait_phase", "command"), lambda io: 2, _gait_phase),
}

# RobotState field: shape (None: one per joint), unit, frame, physical bounds.
_STATE_TENSORS: dict[str, tuple[int | None, str, str, float | None, float | None]] = {
    "joint_pos": (None, "rad", "", -12.6, 12.6),
    "joint_vel": (None, "rad/s", "", -100.0, 100.0),
    "joint_effort": (None, "N m", "", -500.0, 500.0),
    "imu_quat_wxyz": (4, "1", "imu body in world, scalar first", -1.05, 1.05),
    "imu_ang_vel_b": (3, "rad/s", "imu body", -50.0, 50.0),
    "imu_lin_acc_b": (3, "m/s^2", "imu body", -400.0, 400.0),
    "object_pos": (3, "m", "root body", -10.0, 10.0),
    "object_quat_wxyz": (4, "1", "root body, scalar first", -1.05, 1.05),
}


class PolicyIO(nn.Module):
    """Encoder, action decoder and memory of one policy, with the Contract that describes them.

    Raises ConfigError at construction for unknown terms, inputs that the robot does not measure, or a command that is
    needed and not declared.
    """

    def __init__(
        self,
        robot: RobotSpec,
        terms: tuple[ObservationTerm, ...],
        action: ActionSpec,
        control_period_s: float,
        command: TensorSpec | None = None,
        history_length: int = 1,
        gait_period_s: float | None = None,
    ) -> None:
        super().__init__()
        self.robot = robot
        self._gait_cycles = control_period_s / gait_period_s if gait_period_s else None
        self.terms = terms
        self.command_dim = command.shape[0] if command is not None else 0
        needed = self._check_terms(terms, command)
        self.tips = TipKinematics(robot, robot.chains) if any(t.name == "tip_error" for t in terms) else None
        if self.tips is not None and self.command_dim != 3 * self.tips.n_tips:
            raise ConfigError(f"tip_error needs a command of {3 * self.tips.n_tips} numbers, got {self.command_dim}")
        if self.command_dim != 4 and any(t.name == "goal_rotation" for t in terms):
            raise ConfigError(f"goal_rotation needs a command of 4 numbers, got {self.command_dim}")
        if any(t.name.startswith("joint_error") for t in terms) and self.command_dim != len(robot.joints):
            raise ConfigError(f"joint_error needs a command of {len(robot.joints)} numbers, got {self.command_dim}")
        self.default_pos: Tensor
        self.scale: Tensor
        self.offset: Tensor
        self.low: Tensor
        self.high: Tensor
        for name, values in (
            ("default_pos", [j.default_pos_rad for j in robot.joints]),
            ("scale", action.scale_rad),
            ("offset", action.offset_rad),
            ("low", action.low_rad),
            ("high", action.high_rad),
        ):
            self.register_buffer(name, torch.tensor(values, dtype=torch.float32), persistent=False)
        self.frame_dim = sum(TERMS[t.name].size(self) for t in terms)
        self.contract = self._make_contract(needed, action, control_period_s, command, history_length)
        self.obs_dim = self.contract.observation_dim
        self.memory_names = tuple(t.name for t in self.contract.inputs if t.source == "memory")

    def encode(self, inputs: Inputs) -> Tensor:
        """Named inputs -> obs (n, history_length * frame_dim), oldest frame first.

        Each input is (n, ...) under its contract name, but for the command, which is under "command".
        """
        frame = torch.cat([TERMS[t.name].compute(self, inputs) * t.scale for t in self.terms], dim=-1)
        return torch.cat((inputs["history"], frame), dim=-1) if "history" in inputs else frame

    def decode(self, action: Tensor, last_target: Tensor) -> Tensor:
        """Action (n, n_joints) in [-1, 1] -> joint targets (n, n_joints), rad, inside the action limits."""
        base = last_target if self.contract.action.kind == "position_delta" else self.offset
        return torch.clamp(base + self.scale * action, self.low, self.high)

    def next_memory(self, memory: Inputs, obs: Tensor, action: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Memory for the next step; the obtained history drops the oldest frame, and the gait clock goes on."""
        values = {"last_action": action, "last_target": target, "history": obs[:, self.frame_dim :]}
        if self._gait_cycles is not None:
            phase = memory["gait_phase"] + self._gait_cycles
            values["gait_phase"] = phase - phase.floor()
        return {name: values[name] for name in self.memory_names}

    def start_memory(self, inputs: Inputs) -> dict[str, Tensor]:
        """Memory (n, ...) with which a policy takes over a robot in the state of `inputs`."""
        joint_pos = inputs["joint_pos"]
        memory = {
            "last_action": torch.zeros_like(joint_pos),
            "last_target": joint_pos.clamp(self.low, self.high),
            "gait_phase": joint_pos.new_zeros(len(joint_pos), 1),
        }
        if "history" in self.memory_names:
            frame = PolicyIO.encode(self, {k: v for k, v in {**inputs, **memory}.items() if k != "history"})
            memory["history"] = frame.repeat(1, self.contract.history_length - 1)
        return {name: memory[name] for name in self.memory_names}

    def state_inputs(self, state: RobotState[Tensor]) -> dict[str, Tensor]:
        """The RobotState fields that this policy reads."""
        return {t.name: getattr(state, t.name) for t in self.contract.inputs if t.source == "state"}

    def _check_terms(self, terms: tuple[ObservationTerm, ...], command: TensorSpec | None) -> set[str]:
        unknown = [t.name for t in terms if t.name not in TERMS]
        if unknown or not terms:
            raise ConfigError(f"unknown observation terms {unknown}; valid: {', '.join(TERMS)}")
        needed = {name for t in terms for name in TERMS[t.name].needs}
        if "command" in needed and command is None:
            raise ConfigError("an observation term needs the command, and the task declares none")
        if command is not None and (command.source != "command" or len(command.shape) != 1):
            raise ConfigError(f"command {command.name!r} must be a vector of source 'command'")
        if ("gait_phase" in needed) != (self._gait_cycles is not None):
            raise ConfigError("the term gait_phase and gait_period_s go together, and one of them is missing")
        unmeasured = needed - {"command", "last_action", "last_target", "gait_phase"} - set(self.robot.state_fields)
        if unmeasured:
            raise ConfigError(f"robot {self.robot.name!r} does not measure {sorted(unmeasured)}")
        return needed

    def _make_contract(
        self,
        needed: set[str],
        action: ActionSpec,
        control_period_s: float,
        command: TensorSpec | None,
        history_length: int,
    ) -> Contract:
        n = len(self.robot.joints)
        # joint_pos starts the memory and the limits read it, so it is always an input.
        fields = [f for f in self.robot.state_fields if f in needed or f == "joint_pos"]
        inputs = []
        for name in fields:
            size, unit, frame, low, high = _STATE_TENSORS[name]
            inputs.append(
                TensorSpec(name, (size or n,), unit, "state", frame, low, high, self.robot.safety.state_damp_s)
            )
        if command is not None:
            inputs.append(command)
        memory = [
            TensorSpec("last_action", (n,), "1", "memory", low=-1.0, high=1.0, start="zero", feedback="policy"),
            TensorSpec("last_target", (n,), "rad", "memory", start="joint_pos", feedback="applied"),
        ]
        if self._gait_cycles is not None:
            memory.append(
                TensorSpec("gait_phase", (1,), "1", "memory", low=0.0, high=1.0, start="zero", feedback="policy")
            )
        if history_length > 1:
            size = (history_length - 1) * self.frame_dim
            memory.append(TensorSpec("history", (size,), "1", "memory", start="observation", feedback="policy"))
        outputs = [
            TensorSpec("joint_target", (n,), "rad"),
            TensorSpec("action", (n,), "1", low=-1.0, high=1.0),
        ]
        outputs += [TensorSpec(f"next_{m.name}", m.shape, m.unit) for m in memory]
        outputs.append(TensorSpec("obs", (history_length * self.frame_dim,), "1"))
        return Contract(
            robot=self.robot.name,
            variant=self.robot.variant,
            control_period_s=control_period_s,
            joints=self.robot.joints,
            inputs=(*inputs, *memory),
            outputs=tuple(outputs),
            action=action,
            observation_terms=tuple((t.name, TERMS[t.name].size(self)) for t in self.terms),
            history_length=history_length,
        )


class PolicyGraph(nn.Module):
    """The whole policy as one graph: named raw inputs in, joint targets, next memory and obs out.

    `normalizer` maps obs (n, obs_dim) to obs, `actor` maps that to actions in [-1, 1]. Inputs and outputs are
    positional, in the order of the contract, because that is what an exporter takes.
    """

    def __init__(self, io: PolicyIO, normalizer: nn.Module, actor: nn.Module) -> None:
        super().__init__()
        self.io = io
        self.normalizer = normalizer
        self.actor = actor

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        specs = self.io.contract.inputs
        named = {("command" if s.source == "command" else s.name): x for s, x in zip(specs, inputs, strict=True)}
        obs = self.io.encode(named)
        action = self.actor(self.normalizer(obs))
        target = self.io.decode(action, named["last_target"])
        memory = self.io.next_memory(named, obs, action, target)
        values = {"joint_target": target, "action": action, "obs": obs}
        values |= {f"next_{name}": value for name, value in memory.items()}
        return tuple(values[name] for name in self.io.contract.output_names)
