"""Franka Emika Panda, 7 joints, bare flange.

Link offsets, joint ranges, torque limits and motor inertia: the MuJoCo Menagerie model (Apache-2.0, derived from the
vendor's franka_description). Velocity limits: the vendor's interface specification.

The vendor's torque interface compensates gravity and motor friction itself, by link-side torque sensors, so a joint is
an impedance: gains are chosen for the inertia that the joint carries, not for that of its motor. Stiffness is that of
the vendor's joint impedance example (600, 600, 600, 600, 250, 150, 50 N m/rad); at half a metre it yields 1 mm per
newton, which is what lets a peg find its hole. Damping is chosen by the ratio kd / (2 sqrt(kp M)), with M the largest
diagonal entry of the mass matrix over all poses: 0.7 at the shoulder, where M varies tenfold, and 1 at the wrist, where
it hardly varies. The vendor's examples damp with (50, 50, 50, 50, 30, 25, 15) and, for the newer arm of the same
geometry, (30, 30, 30, 30, 10, 10, 5).
"""

from robot_rl.contract import JointSpec
from robot_rl.robots.spec import BACKUPS, Chain, Link, RobotSpec, SafetyProfile

_PI = 3.141592653589793
_S = 0.7071067811865476
_NO_TURN, _TURN, _TURN_BACK = (1.0, 0.0, 0.0, 0.0), (_S, _S, 0.0, 0.0), (_S, -_S, 0.0, 0.0)

# name: lower, upper, default rad; speed rad/s; torque N m; kp N m/rad; kd N m s/rad.
# The default is the vendor's ready pose: elbow up, flange pointing down, far from every limit.
_JOINTS = {
    "joint1": (-2.8973, 2.8973, 0.0, 2.175, 87.0, 600.0, 62.0),
    "joint2": (-1.7628, 1.7628, -_PI / 4, 2.175, 87.0, 600.0, 62.0),
    "joint3": (-2.8973, 2.8973, 0.0, 2.175, 87.0, 600.0, 50.0),
    "joint4": (-3.0718, -0.0698, -3 * _PI / 4, 2.175, 87.0, 600.0, 50.0),
    "joint5": (-2.8973, 2.8973, 0.0, 2.61, 12.0, 250.0, 12.0),
    "joint6": (-0.0175, 3.7525, _PI / 2, 2.61, 12.0, 150.0, 9.0),
    "joint7": (-2.8973, 2.8973, _PI / 4, 2.61, 12.0, 50.0, 5.0),
}

_Z = (0.0, 0.0, 1.0)
FLANGE = Chain(
    name="flange",
    links=(
        Link("joint1", (0.0, 0.0, 0.333), _NO_TURN, _Z),
        Link("joint2", (0.0, 0.0, 0.0), _TURN_BACK, _Z),
        Link("joint3", (0.0, -0.316, 0.0), _TURN, _Z),
        Link("joint4", (0.0825, 0.0, 0.0), _TURN, _Z),
        Link("joint5", (-0.0825, 0.384, 0.0), _TURN_BACK, _Z),
        Link("joint6", (0.0, 0.0, 0.0), _TURN, _Z),
        Link("joint7", (0.088, 0.0, 0.0), _TURN, _Z),
    ),
    tip_pos_m=(0.0, 0.0, 0.107),
)

FRANKA_PANDA = RobotSpec(
    name="franka_panda",
    variant="nohand",
    joints=tuple(
        JointSpec(name, lower, upper, speed, effort, default, kp, kd)
        for name, (lower, upper, default, speed, effort, kp, kd) in _JOINTS.items()
    ),
    # The vendor gives no figure; this is what Menagerie's model uses for what torque control leaves of the rotors.
    armature_kg_m2=(0.1,) * 7,
    root_body="link0",
    floating_base=False,
    safety=SafetyProfile(
        damping_kd_nms_rad=tuple(kd for *_, kd in _JOINTS.values()),
        # Half of the speed at which the vendor's own monitor stops the arm.
        target_rate_limit_rad_s=tuple(0.5 * speed for _, _, _, speed, *_ in _JOINTS.values()),
        joint_vel_trip_rad_s=tuple(speed for _, _, _, speed, *_ in _JOINTS.values()),
        # The largest diagonal entries of the mass matrix over all poses. Gravity is the vendor's to carry.
        joint_inertia_kg_m2=(3.3, 3.3, 1.35, 0.95, 0.14, 0.135, 0.106),
        backup=BACKUPS["arm_with_payload"],
        stand_duration_s=4.0,
    ),
    state_fields=("joint_pos", "joint_vel", "joint_effort"),
    chains=(FLANGE,),
    source="MuJoCo Menagerie franka_emika_panda (Apache-2.0); Franka Control Interface, robot limits",
)
