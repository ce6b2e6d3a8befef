"""LEAP hand, right, 16 joints: three fingers and a thumb of four Dynamixel servos each.

Joint ranges and link offsets: the MuJoCo Menagerie model of the hand (MIT licence, K. Shaw, A. Agarwal, D. Pathak,
"LEAP Hand", RSS 2023). Servo XL330-M288: rotor inertia 1.7e-8 kg m² behind a 288:1 gear, 0.366 N m/A limited to
0.6 A, no-load speed 103 rpm at 5 V (figures of the MuJoCo Playground model and of the servo's data sheet).
"""

from robot_rl.contract import JointSpec
from robot_rl.robots.spec import BACKUPS, Chain, Link, RobotSpec, SafetyProfile

_ARMATURE = 1.7e-8 * 288**2
_EFFORT = 0.6 * 0.366
_SPEED = 103 * 2 * 3.141592653589793 / 60
_KP = 3.0
# With the armature above, kd = 0.1 gives a damping ratio kd / (2 sqrt(kp I)) of 0.75.
_KD = 0.1

# Largest inertia about a joint over its poses, in the model of the hand: the rotor's and what the joint carries, kg m².
_INERTIA = {"mcp": 0.0021, "rot": 0.0016, "pip": 0.00155, "dip": 0.00145}
_THUMB_INERTIA = {"cmc": 0.0021, "axl": 0.0017, "mcp": 0.0017, "ipl": 0.0015}


def _inertia(name: str) -> float:
    finger, joint = name.split("_")
    return (_THUMB_INERTIA if finger == "th" else _INERTIA)[joint]


_H, _S = 0.5, 0.7071067811865476

# name: (lower, upper, default) rad. The default is a half-open hand: every finger can both reach out and curl.
_JOINTS = {
    "if_mcp": (-0.314, 2.23, 0.6),
    "if_rot": (-1.047, 1.047, 0.0),
    "if_pip": (-0.506, 1.885, 0.6),
    "if_dip": (-0.366, 2.042, 0.5),
    "mf_mcp": (-0.314, 2.23, 0.6),
    "mf_rot": (-1.047, 1.047, 0.0),
    "mf_pip": (-0.506, 1.885, 0.6),
    "mf_dip": (-0.366, 2.042, 0.5),
    "rf_mcp": (-0.314, 2.23, 0.6),
    "rf_rot": (-1.047, 1.047, 0.0),
    "rf_pip": (-0.506, 1.885, 0.6),
    "rf_dip": (-0.366, 2.042, 0.5),
    "th_cmc": (-0.349, 2.094, 0.8),
    "th_axl": (-0.349, 2.094, 0.8),
    "th_mcp": (-0.47, 2.443, 0.6),
    "th_ipl": (-1.34, 1.88, 0.3),
}


def _finger(prefix: str, pos_m: tuple[float, float, float], distal_y_m: float) -> Chain:
    return Chain(
        name=f"{prefix}_tip",
        links=(
            Link(f"{prefix}_mcp", pos_m, (_H, _H, _H, -_H)),
            Link(f"{prefix}_rot", (-0.0122, 0.0381, 0.0145), (_H, -_H, -_H, _H)),
            Link(f"{prefix}_pip", (0.015, 0.0143, -0.013), (_H, _H, -_H, _H)),
            Link(f"{prefix}_dip", (0.0, distal_y_m, 0.0002), (1.0, 0.0, 0.0, 0.0)),
        ),
        tip_pos_m=(0.0, -0.05, 0.015),
    )


_CHAINS = (
    _finger("if", (-0.007, 0.023, -0.0187), -0.0361),
    _finger("mf", (-0.0071, -0.0224, -0.0187), -0.0361),
    _finger("rf", (-0.00709, -0.0678, -0.0187), -0.03609),
    Chain(
        name="th_tip",
        links=(
            Link("th_cmc", (-0.0693, -0.0012, -0.0216), (_S, 0.0, _S, 0.0)),
            Link("th_axl", (0.0, 0.0143, -0.013), (_H, _H, -_H, _H)),
            Link("th_mcp", (0.0, 0.0145, -0.017), (_S, -_S, 0.0, 0.0)),
            Link("th_ipl", (0.0, 0.0466, 0.0002), (0.0, 0.0, 0.0, 1.0)),
        ),
        tip_pos_m=(0.0, -0.06, -0.015),
    ),
)

LEAP_HAND = RobotSpec(
    name="leap_hand",
    variant="right",
    joints=tuple(
        JointSpec(name, lower, upper, _SPEED, _EFFORT, default, _KP, _KD)
        for name, (lower, upper, default) in _JOINTS.items()
    ),
    armature_kg_m2=(_ARMATURE,) * 16,
    root_body="palm",
    floating_base=False,
    safety=SafetyProfile(
        damping_kd_nms_rad=(0.1,) * 16,
        # Half the servo's no-load speed: beyond it, the torque limit leaves no margin to brake.
        target_rate_limit_rad_s=(_SPEED / 2,) * 16,
        joint_vel_trip_rad_s=(1.2 * _SPEED,) * 16,
        # Without the braking bound, a target that jumps throws a finger 0.3 rad beyond its limit. What is held adds to
        # the inertia; braking with half of the torque leaves room for half of it again.
        joint_inertia_kg_m2=tuple(_inertia(name) for name in _JOINTS),
        backup=BACKUPS["hand"],
        stand_duration_s=2.0,
    ),
    # The object at hand is what a camera beside the hand reports; tasks without an object need none.
    state_fields=("joint_pos", "joint_vel", "joint_effort", "object_pos", "object_quat_wxyz"),
    chains=_CHAINS,
    source="MuJoCo Menagerie leap_hand (MIT); Dynamixel XL330-M288 data sheet",
)
