"""What a robot measures and what it is told: the values that travel between simulator, policy and robot.

The same types carry torch tensors of many environments and numpy arrays of one robot; the leading dimension `n` is
the number of environments, and 1 on a robot.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

ArrayT = TypeVar("ArrayT")


# Without slots: a frozen generic with slots cannot be made through an alias such as NumpyState(...).
@dataclass(frozen=True)
class RobotState(Generic[ArrayT]):
    """Only what a real robot measures. Privileged simulation state is another type that no actor accepts.

    Joints are in contract order. Fields that a robot does not have are None.
    """

    stamp_s: ArrayT
    """(n,) time of measurement, s, on the reader's monotonic clock."""
    joint_pos: ArrayT
    """(n, n_joints) rad."""
    joint_vel: ArrayT
    """(n, n_joints) rad/s."""
    joint_effort: ArrayT | None = None
    """(n, n_joints) N m, as estimated by the motor drivers."""
    imu_quat_wxyz: ArrayT | None = None
    """(n, 4) orientation of the IMU body in the world, scalar first."""
    imu_ang_vel_b: ArrayT | None = None
    """(n, 3) rad/s, in the IMU body frame."""
    imu_lin_acc_b: ArrayT | None = None
    """(n, 3) m/s², in the IMU body frame, gravity included (at rest it reads +g upwards)."""
    object_pos: ArrayT | None = None
    """(n, 3) m, of the object at hand in the robot's root body frame, as a camera reports it."""
    object_quat_wxyz: ArrayT | None = None
    """(n, 4) its orientation in the robot's root body frame, scalar first."""
    object_stamp_s: ArrayT | None = None
    """(n,) time of the picture that the object's pose was seen in, s, on the reader's monotonic clock. None: `stamp_s`,
    or there is no object."""


NumpyState = RobotState[NDArray[Any]]

STATE_FIELDS: tuple[str, ...] = tuple(n for n in RobotState.__dataclass_fields__ if not n.endswith("stamp_s"))
"""Names that a TensorSpec of source "state" may carry."""
OBJECT_FIELDS: tuple[str, ...] = ("object_pos", "object_quat_wxyz")
"""Those that no sensor of the robot's own measures, but a camera."""


@dataclass(frozen=True, slots=True)
class Command:
    """What the operator or planner wants, with the time at which it was said."""

    values: NDArray[np.float32]
    """(command_dim,) in the units of the contract's command spec."""
    stamp_s: float
    """Receiver's monotonic clock, s."""


@dataclass(frozen=True, slots=True)
class JointCommand:
    """One command to all joints, in contract order: torque = kp (position - q) + kd (velocity - dq) + effort.

    A driver must stop obeying at `expires_s` and damp on its own.
    """

    position: NDArray[np.float64]
    """(n_joints,) rad; ignored where kp is 0."""
    velocity: NDArray[np.float64]
    """(n_joints,) rad/s."""
    effort: NDArray[np.float64]
    """(n_joints,) N m, feed-forward."""
    kp: NDArray[np.float64]
    """(n_joints,) N m/rad."""
    kd: NDArray[np.float64]
    """(n_joints,) N m s/rad."""
    stamp_s: float
    expires_s: float


def damping_command(kd: NDArray[np.float64], stamp_s: float, time_to_live_s: float) -> JointCommand:
    """The command that needs no state at all: zero stiffness, zero effort, damping `kd` (n_joints,) N m s/rad."""
    zero = np.zeros_like(kd)
    return JointCommand(zero, zero, zero, zero, kd, stamp_s, stamp_s + time_to_live_s)
