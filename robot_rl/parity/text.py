"""What a cause means and what to mend, in words."""

from __future__ import annotations

from collections.abc import Sequence

from robot_rl.parity.causes import ALL_UNITS, Cause
from robot_rl.parity.diagnose import AT_REST, EITHER

AXES = {"imu_ang_vel_b": "xyz", "imu_lin_acc_b": "xyz", "imu_quat_wxyz": "wxyz"}

_SERVO_UNITS = {"target": "rad", "joints": "rad", "imu_ang_vel_b": "rad/s", "imu_lin_acc_b": "m/s²"}


def names(signal: str, joints: Sequence[str]) -> tuple[str, ...]:
    """Names of the channels of a signal."""
    return tuple(AXES[signal]) if signal in AXES else tuple(joints)


def describe(cause: Cause, joints: Sequence[str]) -> str:
    """One sentence that says what is wrong, and one that says what to mend."""
    channel = names(cause.signal, joints)
    where = ", ".join(channel[i] for i in cause.channels)
    mend = _where_to_mend(cause.signal)
    if cause.kind == "permutation":
        if len(cause.channels) == 2:
            what = f"{cause.signal}: {' and '.join(channel[i] for i in cause.channels)} are swapped"
        else:
            taken = (
                f"{channel[i]} has that of {channel[j]}" for i, j in zip(cause.channels, cause.sources, strict=True)
            )
            what = f"{cause.signal} is in the wrong order: {', '.join(taken)}"
        return f"{what}. {mend} in the contract's order."
    if cause.kind == "limits":
        return (
            f"{cause.signal} of {where} lies outside of its limits, by a wrong order, sign, zero or scale, and the "
            f"robot refused to move. {_wiggle(cause, channel)}"
        )
    if cause.kind == "unclear" and len(cause.channels) > 1:
        return (
            f"{cause.signal}: {where}, or some of these, are in the wrong order; they moved too much alike to tell. "
            f"{_wiggle(cause, channel)}"
        )
    if cause.kind == "unclear":
        return (
            f"{cause.signal} of {where} is wrong, by a sign, scale or offset: it moved too little to tell. "
            f"{_wiggle(cause, channel)}"
        )
    if cause.kind == "sign":
        return f"{cause.signal} of {where} has the wrong sign. {mend} with the sign of the joint's or the body's axis."
    if cause.kind == "scale":
        return f"{cause.signal} of {where} is {cause.value:.3g} times what it should be. {mend} without that factor."
    if cause.kind == "offset":
        unit = _SERVO_UNITS.get(cause.signal, "")
        return f"{cause.signal} of {where} is off by {cause.value:+.3g} {unit}. {mend} from the contract's zero."
    if cause.kind == "unit":
        unit = next((text for ratio, text in ALL_UNITS.items() if ratio == cause.value), "another unit")
        return f"{cause.signal} comes as {unit} (x {cause.value:.4g}). {mend} in the contract's unit."
    if cause.kind == "lag":
        late = f"{abs(cause.value) * 1e3:.0f} ms {'late' if cause.value > 0 else 'early'}"
        return f"{cause.signal} is {late}, more than latency. Look for a buffered message, or one used a step too late."
    if cause.kind == "quaternion_order":
        return f"{cause.signal} comes as x, y, z, w. Hand it over as w, x, y, z."
    if cause.kind == "quaternion_conjugate":
        return f"{cause.signal} is that of the world in the body. Hand over its conjugate, the body in the world."
    return f"{cause.signal} is given in the world's frame. Turn it into the body's, by the conjugate of imu_quat_wxyz."


def _wiggle(cause: Cause, channel: Sequence[str]) -> str:
    joints = " ".join(channel[i] for i in cause.channels)
    it = "it" if len(cause.channels) == 1 else "them"
    return f"`robot-rl wiggle --joints {joints} --log FILE.npz` moves {it}; then give parity that file as well."


def _where_to_mend(signal: str) -> str:
    if signal == "target":
        return "Tell the servos their targets, or, if it is the state that is wrong, report positions,"
    if signal == "joints":
        return "Report joint_pos and joint_vel, or tell the servos their targets,"
    if signal == AT_REST:
        return "Report joint_pos"
    if signal == EITHER:
        return "Report whichever of the two is wrong"
    return f"Report {signal}"
