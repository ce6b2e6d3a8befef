"""Links of the G1 stop one another: where they touch, that a commanded pose inside the robot is not reached, and that
both backends agree."""

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl.robots.unitree_g1_capsules import COLLISION
from robot_rl.runtime.self_collision import SelfCollision
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.models import default_qpos, hang, load_model, load_spec
from robot_rl_sim.tasks.g1_velocity.feet import add_foot_sensors

PROXY = SelfCollision(UNITREE_G1, 0.0)
DEFAULT = np.array([j.default_pos_rad for j in UNITREE_G1.joints])
POSES = {
    "hands into hips": {"shoulder_roll": -0.35, "elbow": 1.3},
    "hands into pelvis": {"shoulder_roll": -0.5, "shoulder_yaw": 0.5, "elbow": 1.4},
    "elbows into trunk": {"shoulder_roll": -0.8},
    "forearms into trunk": {"shoulder_roll": -0.3, "shoulder_yaw": 1.2, "elbow": 0.2},
    "legs into each other": {"hip_roll": -0.45, "hip_yaw": -0.4, "knee": 0.3},
}


def hung(contacts: bool = True) -> mujoco.MjModel:
    """The robot without floor, its pelvis fixed."""
    spec = load_spec("unitree_g1")
    if not contacts:
        for pair in list(spec.pairs):
            spec.delete(pair)
    hang(spec, spec.compile(), UNITREE_G1)
    return spec.compile()


def pose(angles: dict[str, float]) -> np.ndarray:
    """The default pose, but for joints of both sides, as named of the left one."""
    target = DEFAULT.copy()
    for name, angle in angles.items():
        left = UNITREE_G1.joint_names.index(f"left_{name}_joint")
        other, sign = UNITREE_G1.mirror[left]
        target[left], target[UNITREE_G1.joint_names.index(other)] = angle, sign * angle
    return target


def touching(model: mujoco.MjModel, data: mujoco.MjData) -> set[frozenset[str]]:
    """Pairs of capsules in contact."""
    names = [[model.geom(int(g)).name.removeprefix("self_") for g in data.contact.geom[i]] for i in range(data.ncon)]
    return {
        frozenset(pair) for pair, distance in zip(names, data.contact.dist[: data.ncon], strict=True) if distance < 0
    }


def test_capsules_touch_where_the_safety_filter_says_so_and_nowhere_else() -> None:
    model = hung()
    data = mujoco.MjData(model)
    rng, seen = np.random.default_rng(0), 0
    for _ in range(200):
        data.qpos[:] = DEFAULT + rng.uniform(-0.6, 0.6, len(DEFAULT))
        mujoco.mj_forward(model, data)
        distance = PROXY.distances(data.qpos)
        found = touching(model, data)
        for pair, apart in zip(COLLISION.pairs, distance, strict=True):
            if abs(apart) > 1e-6:
                assert (frozenset(pair) in found) == (apart < 0), pair
        assert found <= {frozenset(pair) for pair in COLLISION.pairs}
        seen += len(found)
    assert seen > 100


def test_nothing_touches_where_episodes_begin() -> None:
    rng = np.random.default_rng(0)
    starts = DEFAULT + rng.uniform(-0.05, 0.05, (500, len(DEFAULT)))
    assert min(PROXY.distances(q).min() for q in (DEFAULT, *starts)) > 0.003


@pytest.mark.parametrize("angles", POSES.values(), ids=POSES)
def test_a_pose_inside_the_robot_is_not_reached(angles: dict[str, float]) -> None:
    """Servos draw the links together for two seconds: they end less than 2 mm deep, at rest, and no faster meanwhile
    than without contacts, where they end more than 5 cm deep."""
    fastest = []
    for contacts in (False, True):
        model = hung(contacts)
        data = mujoco.MjData(model)
        data.qpos[:], data.ctrl[:] = DEFAULT, pose(angles)
        speed = 0.0
        for _ in range(400):
            mujoco.mj_step(model, data)
            speed = max(speed, float(np.abs(data.qvel).max()))
        deepest = PROXY.distances(data.qpos).min()
        assert -0.002 < deepest < 0.0 if contacts else deepest < -0.05
        assert np.abs(data.qvel).max() < 0.05
        fastest.append(speed)
    assert fastest[1] < 1.2 * fastest[0]


def test_contacts_take_energy_and_give_none() -> None:
    """Arms without motors fall onto the robot, without gravity afterwards: kinetic energy never grows."""
    model = hung()
    model.opt.gravity[:] = 0.0
    model.actuator_gainprm[:], model.actuator_biasprm[:] = 0.0, 0.0
    data = mujoco.MjData(model)
    data.qpos[:] = pose({"shoulder_roll": 0.5, "elbow": 1.3})
    for side, sign in (("left", -1), ("right", 1)):
        data.joint(f"{side}_shoulder_roll_joint").qvel = 4.0 * sign
    model.opt.enableflags |= int(mujoco.mjtEnableBit.mjENBL_ENERGY)
    energy, met = [], False
    for _ in range(200):
        mujoco.mj_step(model, data)
        energy.append(data.energy[1])
        met |= bool(touching(model, data))
    assert met
    assert max(np.diff(energy)) < 0.01 * energy[0]


def test_a_foot_on_the_other_one_is_not_on_the_ground() -> None:
    spec = load_spec("unitree_g1")
    add_foot_sensors(spec)
    model = spec.compile()
    data = mujoco.MjData(model)
    found = {}
    for height in (0.0, 1.0):
        data.qpos[:] = default_qpos(model, UNITREE_G1)
        data.qpos[2] += height - 0.001
        data.qpos[7:] = pose({"hip_roll": -0.3}) if height else DEFAULT
        mujoco.mj_forward(model, data)
        met = any("left_foot" in pair or "right_foot" in pair for pair in touching(model, data))
        found[height] = met, *(data.sensor(f"{side}_sole_contact").data[0] > 0 for side in ("left", "right"))
    assert found[0.0] == (False, True, True)
    assert found[1.0] == (True, False, False)


def test_both_backends_agree_on_hands_that_press_on_hips() -> None:
    warp = pytest.importorskip("robot_rl_sim.backends.mujoco_warp")
    model, target = hung(), torch.from_numpy(pose(POSES["hands into hips"])).float().unsqueeze(0)
    sims = MujocoCpuSim(model, UNITREE_G1, 1, 4, 1), warp.MujocoWarpSim(model, UNITREE_G1, 1, 4, "cpu")
    ends = []
    for sim in sims:
        sim.set_state(torch.arange(1), torch.from_numpy(DEFAULT).unsqueeze(0), torch.zeros(1, 29))
        for _ in range(60):
            sim.step(target)
        ends.append(sim.joint_pos[0].double().numpy())
    assert PROXY.distances(ends[0]).min() < 0.0
    np.testing.assert_allclose(ends[0], ends[1], atol=2e-3)


def test_robots_without_capsules_have_no_self_contacts() -> None:
    assert LEAP_HAND.collision is None
    assert load_model("leap_hand").npair == 0


def test_a_standing_robot_starts_at_the_same_height_as_without_capsules() -> None:
    """They touch nothing but each other, so that the soles still are what is lowest."""
    model = load_model("unitree_g1")
    data = mujoco.MjData(model)
    data.qpos[:] = default_qpos(model, UNITREE_G1)
    mujoco.mj_forward(model, data)
    soles = [g for g in range(model.ngeom) if model.geom(g).name.startswith(("left_foot_", "right_foot_"))]
    assert min(data.geom_xpos[g][2] - model.geom_size[g][0] for g in soles) == pytest.approx(0.0, abs=1e-9)
