"""Which mistakes explain a flight: as few as possible, each with what it strikes."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from robot_rl.parity import relations
from robot_rl.parity.causes import PRICE, Cause
from robot_rl.parity.compare import Comparison
from robot_rl.parity.flight import Flight
from robot_rl.parity.servo import servo

Array = NDArray[np.float64]

EITHER = "joint_vel or joint_pos"
"""Signal of a cause where the two disagree, and no target says which of them is wrong."""
_BLAMED = 4
"""More differences between joint_vel and joint_pos than this are not each held against the other."""
AT_REST = "joint_pos at rest"
"""Signal of a cause that is known from where the joints are: whether joint_vel shares it cannot be seen."""
_BEYOND_RAD = 0.07
"""A joint this far outside its limits is not there: stops give way by 0.02, and encoders are off by as much."""
_OFTEN, _MANY = 0.05, 0.3
"""Share of the time, and of the joints, that must be elsewhere for the unit to be wrong."""


@dataclass(frozen=True)
class Diagnosis:
    """What is wrong, and how far each signal is from the one that it should equal."""

    causes: tuple[Cause, ...]
    comparisons: dict[str, Comparison]
    """Relation -> as compared, with everything else mended."""
    not_judged: tuple[str, ...]
    """What could not be looked at, and why."""

    @property
    def ok(self) -> bool:
        return not self.causes


def diagnose(*flights: Flight) -> Diagnosis:
    """The fewest mistakes that explain what differs from what it should equal (robot_rl.parity.relations and .servo).

    Several flights of the same robot under the same contract are judged together.
    """
    joint_causes, comparisons, notes = _joints(flights)
    if all("imu_quat_wxyz" in flight.state for flight in flights):
        imu_causes, imu_comparisons, imu_notes = _imu(flights)
        joint_causes += imu_causes
        comparisons |= imu_comparisons
        notes += imu_notes
    return Diagnosis(tuple(joint_causes), comparisons, tuple(notes))


def _joints(flights: Sequence[Flight]) -> tuple[list[Cause], dict[str, Comparison], list[str]]:
    """joint_pos, joint_vel and target: which of the three is wrong where two disagree."""
    resting = _resting(flights)
    flights = mend_all(flights, [replace(cause, signal="joint_pos") for cause in resting])
    velocity = relations.joint_velocity(flights)
    if velocity is None:
        return resting, {}, ["joints: the flight is too short"]
    # What is said of joint_vel against joint_pos may be the other one's mistake, if the target disagrees as well.
    choices = list(itertools.product(*map(_suspects, velocity.causes)))
    if len(velocity.causes) > _BLAMED:
        choices = [tuple(_suspects(cause)[0] for cause in velocity.causes)]
    options = []
    for blamed in choices:
        causes = [_blame(c, signal) for c, signal in zip(velocity.causes, blamed, strict=True)]
        mended = mend_all(flights, causes)
        held = servo(mended)
        outside = PRICE * float(_often_outside(mended).sum())
        options.append(((0.0 if held is None else held.cost) + outside, causes, held))
    best = min(range(len(options)), key=lambda k: options[k][0])
    _, causes, held = options[best]
    for i in range(len(causes)):
        others = [option[0] for option, blamed in zip(options, choices, strict=True) if blamed[i] != choices[best][i]]
        if others and min(others) < options[best][0] + PRICE:
            causes[i] = replace(causes[i], signal=EITHER)
    comparisons = {"joint_vel": velocity}
    notes = []
    if held is None:
        needs = (
            "joint_effort is not in the log"
            if any("joint_effort" not in flight.state for flight in flights)
            else "the joints were never held by their servos"
        )
        notes.append(f"target: {needs}")
    else:
        comparisons["target"] = held
        causes += held.causes
    causes = resting + causes
    named = {i for cause in causes for i in cause.channels or range(len(flights[0].contract.joints))}
    if held is None:
        causes += _beyond(flights, named)
    return causes, comparisons, notes


def _suspects(cause: Cause) -> tuple[str, ...]:
    """Signals that may be at fault where joint_vel and joint_pos differ: nothing measured comes early."""
    if cause.kind == "lag":
        return ("joint_vel",) if cause.value > 0 else ("joint_pos",)
    return ("joint_vel", "joint_pos")


def _resting(flights: Sequence[Flight]) -> list[Cause]:
    """Mistakes of positions that lie where no joint can be: known even of a robot that refuses to move."""
    wrong = _often_outside(flights)
    if wrong.sum() <= max(1.0, _MANY * len(wrong)):
        return []
    return [] if _often_outside(flights, np.pi / 180).any() else [Cause("unit", AT_REST, value=180 / np.pi)]


def _beyond(flights: Sequence[Flight], named: set[int]) -> list[Cause]:
    """Joints that refuse to move because they seem to be beyond their limits; turned about, they may not be."""
    beyond = [int(i) for i in np.flatnonzero(_often_outside(flights)) if i not in named]
    turned = set(np.flatnonzero(~_often_outside(flights, -1.0)).tolist())
    causes = [Cause("sign", AT_REST, (i,)) for i in beyond if i in turned]
    left = tuple(i for i in beyond if i not in turned)
    return [*causes, Cause("limits", "joint_pos", left)] if left else causes


def _often_outside(flights: Sequence[Flight], factor: float = 1.0) -> NDArray[np.bool_]:
    """(n_joints,) joints that are where none of them can be, once their positions are multiplied by `factor`."""
    joints = flights[0].contract.joints
    low = np.array([j.lower_rad for j in joints]) - _BEYOND_RAD
    high = np.array([j.upper_rad for j in joints]) + _BEYOND_RAD
    pos = factor * np.concatenate([flight.state["joint_pos"] for flight in flights])
    return ((pos < low) | (pos > high)).mean(0) > _OFTEN


def _blame(cause: Cause, signal: str) -> Cause:
    """The same difference, as a mistake of joint_pos where it was one of joint_vel."""
    if signal == "joint_vel":
        return cause
    if cause.kind in ("scale", "unit"):
        return replace(cause, signal=signal, value=1 / cause.value)
    if cause.kind == "permutation":
        return replace(cause, signal=signal, channels=cause.sources, sources=cause.channels)
    return replace(cause, signal=signal, value=-cause.value)


def mend_all(flights: Sequence[Flight], causes: Sequence[Cause]) -> list[Flight]:
    return [mend(flight, causes) for flight in flights]


def mend(flight: Flight, causes: Sequence[Cause]) -> Flight:
    """The flight as it would have been recorded without these mistakes of measured signals."""
    for cause in causes:
        values = flight.state[cause.signal].copy()
        columns = list(cause.channels) if cause.channels else slice(None)
        if cause.kind == "sign":
            values[:, columns] *= -1
        elif cause.kind in ("scale", "unit"):
            values[:, columns] /= cause.value
        elif cause.kind == "offset":
            values[:, columns] -= cause.value
        elif cause.kind == "permutation":
            values[:, list(cause.sources)] = flight.state[cause.signal][:, list(cause.channels)]
        elif cause.kind == "lag":
            later = flight.stamp_s + cause.value
            values = np.stack([np.interp(later, flight.stamp_s, column) for column in values.T], 1)
        flight = flight.with_state(**{cause.signal: values})
    return flight


def _imu(flights: Sequence[Flight]) -> tuple[list[Cause], dict[str, Comparison], list[str]]:
    """Orientation, rate of turn and acceleration: the reading of all three with the fewest mistakes."""
    recorded = [flight.state["imu_quat_wxyz"] for flight in flights]
    best: tuple[float, list[Cause], dict[str, Comparison]] | None = None
    for order, conjugated in itertools.product((False, True), repeat=2):
        quats = [quat[:, [3, 0, 1, 2]] for quat in recorded] if order else recorded
        quats = [relations.conjugate(quat) for quat in quats] if conjugated else quats
        wrong = {"quaternion_order": order, "quaternion_conjugate": conjugated}
        causes = [Cause(kind, "imu_quat_wxyz") for kind, is_so in wrong.items() if is_so]
        cost, comparisons = PRICE * len(causes), {}
        for signal, relation in (
            ("imu_ang_vel_b", relations.angular_velocity), ("imu_lin_acc_b", relations.linear_acceleration),
        ):  # fmt: skip
            if any(signal not in flight.state for flight in flights):
                continue
            readings = [(relation(flights, quats, world=world), world) for world in (False, True)]
            usable = [(c.cost + PRICE * world, c, world) for c, world in readings if c is not None]
            if not usable:
                continue
            own_cost, comparison, world = min(usable, key=lambda reading: reading[0])
            causes += [Cause("frame", signal)] * world
            causes += [_late_quat(cause) for cause in comparison.causes]
            comparisons[signal] = comparison
            cost += own_cost
        if best is None or cost < best[0]:
            best = cost, causes, comparisons
    assert best is not None
    return best[1], best[2], [] if best[2] else ["IMU: the flight is too short"]


def _late_quat(cause: Cause) -> Cause:
    """A rate that comes early is an orientation that comes late."""
    return Cause("lag", "imu_quat_wxyz", value=-cause.value) if cause.kind == "lag" and cause.value < 0 else cause
