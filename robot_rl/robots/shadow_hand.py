"""Shadow Dexterous Hand, right, on its forearm: 24 joints, two of them the wrist's.

Joint ranges, link offsets, armature, torque limits and stiffness: the MuJoCo Menagerie model of the hand (Apache-2.0),
in the form that MuJoCo MJX tests with; but no joint is softer than 1 N m/rad, as the outer joints and parts of the
thumb are there. Joint speeds: Shadow Robot's URDF, sr_description (2 rad/s; thumb 4 rad/s).

The real hand drives the two outer joints of a finger, J2 and J1, with one tendon, so that 20 motors move 24 joints.
Here, as in MJX's model, every joint has a motor of its own: a policy is then free to use what a tendon would couple,
and one for the real hand must be trained with J1 following J2. It is the second hand that the dexterous tasks run on,
not a hand that this project drives.
"""

from __future__ import annotations

from robot_rl.contract import JointSpec
from robot_rl.robots.spec import BACKUPS, Chain, Link, RobotSpec, SafetyProfile

_ARMATURE = 2e-4

# Joint of a finger: (lower, upper, default) rad, kp N m/rad, effort N m. The default is a half-open hand.
_FINGER = {
    "J4": ((-0.349066, 0.349066, 0.0), 1.0, 1.0),
    "J3": ((-0.261799, 1.5708, 0.5), 1.0, 1.0),
    "J2": ((0.0, 1.5708, 0.5), 1.0, 1.0),
    "J1": ((0.0, 1.5708, 0.4), 1.0, 1.0),
}
_JOINTS = {
    "rh_WRJ2": ((-0.523599, 0.174533, 0.0), 10.0, 10.0),
    "rh_WRJ1": ((-0.698132, 0.488692, 0.0), 8.0, 5.0),
    **{f"rh_FF{name}": value for name, value in _FINGER.items()},
    **{f"rh_MF{name}": value for name, value in _FINGER.items()},
    **{f"rh_RF{name}": value for name, value in _FINGER.items()},
    "rh_LFJ5": ((0.0, 0.785398, 0.1), 1.0, 1.0),
    **{f"rh_LF{name}": value for name, value in _FINGER.items()},
    "rh_THJ5": ((-1.0472, 1.0472, 0.2), 1.0, 3.0),
    "rh_THJ4": ((0.0, 1.22173, 0.6), 1.0, 2.0),
    "rh_THJ3": ((-0.20944, 0.20944, 0.0), 1.0, 1.0),
    "rh_THJ2": ((-0.698132, 0.698132, 0.2), 1.5, 1.0),
    "rh_THJ1": ((-0.261799, 1.5708, 0.4), 1.0, 1.0),
}


def _kd(name: str) -> float:
    """N m s/rad. Fingers and thumb: damping ratio kd / (2 sqrt(kp I)) of 0.9 to 1.1 with the armature alone; the links
    that a joint carries add at most as much inertia again, and its own damping twice as much to kd. The wrist carries
    the whole hand, 0.006 to 0.011 kg m² about it, and has a ratio of 0.8 to 1.1 with that."""
    return 0.5 if name.startswith("rh_WR") else 0.03


def _speed(name: str) -> float:
    """rad/s."""
    return 4.0 if name.startswith("rh_TH") else 2.0


def _inertia(name: str) -> float:
    """kg m². Largest about a joint over its poses, in the model of the hand."""
    if name.startswith("rh_WR"):
        return 0.0116 if name == "rh_WRJ2" else 0.0065
    return 0.00062 if name == "rh_LFJ5" else 0.00043


_STRAIGHT = (1.0, 0.0, 0.0, 0.0)
_X, _Y, _Z = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0)
_MINUS_Y, _MINUS_Z = (0.0, -1.0, 0.0), (0.0, 0.0, -1.0)
_ORIGIN = (0.0, 0.0, 0.0)
_S = 0.7071067811865476

_WRIST = (
    Link("rh_WRJ2", (0.0, -0.01, 0.21301), _STRAIGHT, _Y),
    Link("rh_WRJ1", (0.0, 0.0, 0.034), _STRAIGHT, _X),
)


def _finger(name: str, knuckle: tuple[float, float, float], spread: tuple[float, float, float]) -> tuple[Link, ...]:
    return (
        Link(f"rh_{name}J4", knuckle, _STRAIGHT, spread),
        Link(f"rh_{name}J3", _ORIGIN, _STRAIGHT, _X),
        Link(f"rh_{name}J2", (0.0, 0.0, 0.045), _STRAIGHT, _X),
        Link(f"rh_{name}J1", (0.0, 0.0, 0.025), _STRAIGHT, _X),
    )


_LITTLE = Link("rh_LFJ5", (-0.033, 0.0, 0.02071), _STRAIGHT, (0.573576, 0.0, 0.819152))
_THUMB = (
    Link("rh_THJ5", (0.034, -0.00858, 0.029), (0.9238795325112867, 0.0, 0.3826834323650898, 0.0), _MINUS_Z),
    Link("rh_THJ4", _ORIGIN, _STRAIGHT, _X),
    Link("rh_THJ3", (0.0, 0.0, 0.038), _STRAIGHT, _X),
    Link("rh_THJ2", _ORIGIN, _STRAIGHT, _MINUS_Y),
    Link("rh_THJ1", (0.0, 0.0, 0.032), (_S, 0.0, 0.0, -_S), _X),
)
_TIP, _THUMB_TIP = (0.0, 0.0, 0.026), (0.0, 0.0, 0.0275)

_CHAINS = (
    Chain("rh_fftip", (*_WRIST, *_finger("FF", (0.033, 0.0, 0.095), _MINUS_Y)), _TIP),
    Chain("rh_mftip", (*_WRIST, *_finger("MF", (0.011, 0.0, 0.099), _MINUS_Y)), _TIP),
    Chain("rh_rftip", (*_WRIST, *_finger("RF", (-0.011, 0.0, 0.095), _Y)), _TIP),
    Chain("rh_lftip", (*_WRIST, _LITTLE, *_finger("LF", (0.0, 0.0, 0.06579), _Y)), _TIP),
    Chain("rh_thtip", (*_WRIST, *_THUMB), _THUMB_TIP),
)

SHADOW_HAND = RobotSpec(
    name="shadow_hand",
    variant="right_24_motors",
    joints=tuple(
        JointSpec(name, lower, upper, _speed(name), effort, default, kp, _kd(name))
        for name, ((lower, upper, default), kp, effort) in _JOINTS.items()
    ),
    armature_kg_m2=(_ARMATURE,) * len(_JOINTS),
    root_body="rh_forearm",
    floating_base=False,
    safety=SafetyProfile(
        damping_kd_nms_rad=tuple(_kd(name) for name in _JOINTS),
        target_rate_limit_rad_s=tuple(_speed(name) for name in _JOINTS),
        # A servo follows its target with some overshoot; a free fall or a fault goes far beyond.
        joint_vel_trip_rad_s=tuple(3 * _speed(name) for name in _JOINTS),
        joint_inertia_kg_m2=tuple(_inertia(name) for name in _JOINTS),
        backup=BACKUPS["hand"],
        stand_duration_s=2.0,
    ),
    state_fields=("joint_pos", "joint_vel", "joint_effort", "object_pos", "object_quat_wxyz"),
    chains=_CHAINS,
    source="MuJoCo Menagerie shadow_hand (Apache-2.0), as in MuJoCo MJX 3.17; Shadow Robot sr_description",
)
