"""The inertia that the braking bound computes with, against MuJoCo's mass matrices over many poses."""

import mujoco
import numpy as np
import pytest

from robot_rl.robots import FRANKA_PANDA, LEAP_HAND, SHADOW_HAND, UNITREE_G1, RobotSpec
from robot_rl_sim.models import load_model


@pytest.mark.parametrize("robot", [LEAP_HAND, SHADOW_HAND, UNITREE_G1, FRANKA_PANDA])
def test_it_is_the_largest_over_all_poses_and_not_much_more(robot: RobotSpec) -> None:
    model = load_model(robot.name)
    data = mujoco.MjData(model)
    qpos = [model.joint(name).qposadr[0] for name in robot.joint_names]
    dofs = [model.joint(name).dofadr[0] for name in robot.joint_names]
    lower, upper = np.array([(j.lower_rad, j.upper_rad) for j in robot.joints]).T
    rng = np.random.default_rng(1)
    full, largest = np.zeros((model.nv, model.nv)), np.zeros(len(dofs))
    for _ in range(1000):
        data.qpos[qpos] = rng.uniform(lower, upper)
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_fullM(model, data, full)
        largest = np.maximum(largest, np.diag(full)[dofs])
    stated = np.array(robot.safety.joint_inertia_kg_m2)
    assert (stated >= largest).all()
    # Of a group of like joints the largest is stated for all.
    assert (stated <= 2.2 * largest).all()
    assert stated.sum() <= 1.3 * largest.sum()
