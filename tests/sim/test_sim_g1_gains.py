"""The gains of the Unitree G1: where they come from, and what its card says of the damping that they give."""

import math
import re
from pathlib import Path

import mujoco
import numpy as np
import pytest

import robot_rl.robots
from robot_rl.robots import UNITREE_G1
from robot_rl_sim.models import default_qpos, load_model

CARD = Path(robot_rl.robots.__file__).parent / "unitree_g1.md"
JOINTS = {j.name.removesuffix("_joint"): i for i, j in enumerate(UNITREE_G1.joints)}


def card_rows() -> dict[str, list[float]]:
    """Joint -> armature, kp, kd, inertia held, ζ held, inertia loose, ζ loose."""
    rows = re.findall(r"^\| (\w+) \| ((?:[\d.]+ \| ){6}[\d.]+) \|$", CARD.read_text(), re.MULTILINE)
    return {name: [float(x) for x in values.split(" | ")] for name, values in rows}


def test_motors_alone_swing_at_ten_hertz_with_twice_critical_damping() -> None:
    for joint, armature in zip(UNITREE_G1.joints, UNITREE_G1.armature_kg_m2, strict=True):
        assert math.sqrt(joint.kp_nm_rad / armature) == pytest.approx(2 * math.pi * 10)
        assert joint.kd_nms_rad / (2 * math.sqrt(joint.kp_nm_rad * armature)) == pytest.approx(2.0)


def test_the_cards_table_is_what_the_model_says() -> None:
    model = load_model("unitree_g1")
    data = mujoco.MjData(model)
    data.qpos[:] = default_qpos(model, UNITREE_G1)
    mujoco.mj_forward(model, data)
    mass = np.zeros((model.nv, model.nv))
    mujoco.mj_fullM(model, data, mass)
    held, loose = np.diag(mass)[6:], 1 / np.diag(np.linalg.inv(mass))[6:]
    rows = card_rows()
    assert len(rows) == 16  # a leg, the waist, an arm
    for name, row in rows.items():
        index = JOINTS.get(name, JOINTS.get(f"left_{name}"))
        assert index is not None
        joint = UNITREE_G1.joints[index]

        def zeta(inertia: float, kp: float = joint.kp_nm_rad, kd: float = joint.kd_nms_rad) -> float:
            return kd / (2 * math.sqrt(kp * inertia))

        computed = [
            UNITREE_G1.armature_kg_m2[index],
            joint.kp_nm_rad,
            joint.kd_nms_rad,
            held[index],
            zeta(held[index]),
            loose[index],
            zeta(loose[index]),
        ]
        off = np.abs(np.array(row) - computed)
        assert (off < [6e-5, 0.06, 6e-3, 6e-5, 6e-3, 6e-5, 6e-3]).all(), (name, off)
        if f"left_{name}" in JOINTS:
            right = JOINTS[f"right_{name}"]
            assert held[right] == pytest.approx(held[index], rel=0.01)


@pytest.mark.parametrize("name", ["hip_pitch", "shoulder_roll", "waist_pitch"])
def test_a_joint_let_go_overshoots_as_its_damping_ratio_says(name: str) -> None:
    """The first swing past the target of a linear oscillator is exp(-π ζ / √(1 - ζ²)) of where it started. Everything
    else is held by inertia, without gravity, friction or ground."""
    model = load_model("unitree_g1")
    model.opt.gravity[:] = 0.0
    model.opt.timestep = 2e-4
    model.dof_frictionloss[:] = 0.0
    model.geom_conaffinity[:] = 0
    index = JOINTS.get(name, JOINTS.get(f"left_{name}"))
    assert index is not None
    model.dof_armature[[d for d in range(model.nv) if d != 6 + index]] = 1e6
    data = mujoco.MjData(model)
    data.qpos[:] = default_qpos(model, UNITREE_G1)
    data.ctrl[:] = data.qpos[7:]
    data.qpos[7 + index] += 0.05
    lowest = 0.0
    for _ in range(8000):
        mujoco.mj_step(model, data)
        lowest = min(lowest, data.qpos[7 + index] - data.ctrl[index])
    zeta = card_rows()[name][4]
    assert -lowest / 0.05 == pytest.approx(math.exp(-math.pi * zeta / math.sqrt(1 - zeta**2)), abs=0.02)
