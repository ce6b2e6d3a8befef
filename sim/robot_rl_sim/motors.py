"""Motor models: how much torque a joint's motor makes of what it is commanded, in closed form and as MuJoCo actuators.

The command is the torque of a PD servo, kp (target - q) - kd dq. Both kinds of motor clip it to the joint's effort
limit; a DC motor clips it besides to what its supply voltage leaves against the back-EMF, the torque-speed line

    τ_max(ω) = τ_stall (1 - ω / ω_0),    τ_min(ω) = -τ_stall (1 + ω / ω_0),

which for ω > ω_0 makes it brake. With motor constant K, winding resistance R and supply V: τ_stall = K V / R and
ω_0 = V / K (quasi-static; the winding's inductance is left out). MuJoCo computes both within its physics steps, so that
neither costs anything.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import mujoco
import numpy as np
from numpy.typing import NDArray

from robot_rl.contract import JointSpec
from robot_rl.errors import ConfigError
from robot_rl.robots import RobotSpec

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class MotorConfig:
    """The motors of all joints of a robot."""

    kind: Literal["pd", "dc_motor"] = "pd"
    """pd: the commanded torque, up to the effort limit, at any speed."""
    stall_torque_scale: float = 1.0
    """τ_stall of a DC motor, as a multiple of the joint's effort limit."""
    no_load_speed_scale: float = 1.0
    """ω_0 of a DC motor, as a multiple of the joint's velocity limit."""

    def __post_init__(self) -> None:
        if self.kind not in ("pd", "dc_motor"):
            raise ConfigError(f"unknown kind of motor {self.kind!r}; valid: pd, dc_motor")
        for name in ("stall_torque_scale", "no_load_speed_scale"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"motor {name} must be positive and finite, got {value}")


PD = MotorConfig()


@dataclass(frozen=True, slots=True)
class Motors:
    """The motors of one robot, one entry per joint."""

    config: MotorConfig
    effort_limit: Array
    """N m."""
    velocity_limit: Array
    """rad/s."""

    @classmethod
    def of(cls, robot: RobotSpec, config: MotorConfig) -> Motors:
        limits = [(j.effort_limit_nm, j.velocity_limit_rad_s) for j in robot.joints]
        effort, velocity = np.array(limits).T
        return cls(config, effort, velocity)

    def torque(self, commanded: Array, velocity: Array, strength: float = 1.0) -> Array:
        """Torque (..., n_joints) N m that a command gets at a joint velocity (..., n_joints) rad/s; a motor of another
        `strength` delivers that share of everything, limits included."""
        low, high = -self.effort_limit, self.effort_limit
        if self.config.kind == "dc_motor":
            stall = self.config.stall_torque_scale * self.effort_limit
            slowed = stall * velocity / (self.config.no_load_speed_scale * self.velocity_limit)
            commanded = np.clip(commanded, -stall - slowed, stall - slowed)
        return strength * np.clip(commanded, low, high)


def set_motors(spec: mujoco.MjSpec, robot: RobotSpec, config: MotorConfig) -> None:
    """Exchange the motors of a model that has one actuator per joint of `robot`, each named as its joint."""
    for joint in robot.joints:
        set_motor(spec.actuator(joint.name), joint, config)


def set_motor(actuator: mujoco.MjsActuator, joint: JointSpec, config: MotorConfig) -> None:
    """Make an actuator on `joint` its motor: a servo whose control is the target, in rad."""
    if config.kind == "pd":
        actuator.set_to_position(kp=joint.kp_nm_rad, kv=joint.kd_nms_rad)
    else:
        stall = config.stall_torque_scale * joint.effort_limit_nm
        no_load = config.no_load_speed_scale * joint.velocity_limit_rad_s
        actuator.set_to_dcmotor(
            motorconst=[1.0, 0.0],  # only K²/R and V/K matter; the second entry, 0, is "as the first"
            resistance=no_load / stall,
            controller=[joint.kp_nm_rad, 0.0, joint.kd_nms_rad, 0.0, 0.0, no_load],
            ctrlspec=int(mujoco.mjtCtrlInput.mjINPUT_POS),
        )
    actuator.forcelimited = True
    actuator.forcerange = (-joint.effort_limit_nm, joint.effort_limit_nm)


@dataclass(frozen=True, slots=True)
class GainColumns:
    """Where the fields of the actuators of one kind hold the gains of their servo: (field, column) each."""

    kp: tuple[tuple[str, int], ...]
    kd: tuple[tuple[str, int], ...]
    resistance: tuple[tuple[str, int], ...]


GAIN_COLUMNS = {
    "pd": GainColumns(
        kp=(("actuator_gainprm", 0), ("actuator_biasprm", 1)), kd=(("actuator_biasprm", 2),), resistance=()
    ),
    "dc_motor": GainColumns(
        kp=(("actuator_gainprm", 4),), kd=(("actuator_gainprm", 6),), resistance=(("actuator_gainprm", 0),)
    ),
}
"""A position servo is gain[0] u + bias[1] q + bias[2] dq, with gain[0] = kp, bias[1] = -kp, bias[2] = -kd; a DC motor
has R, K in gain[0], gain[1] and its controller's gains in gain[4], gain[6]."""
