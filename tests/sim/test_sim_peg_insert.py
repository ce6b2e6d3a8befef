"""peg-insert: the scene measured, contact that holds, depth and rewards by hand, what episodes begin with."""

import mujoco
import numpy as np
import pytest
import torch
from torch import Tensor

from robot_rl.errors import ConfigError
from robot_rl_sim.inverse_kinematics import solve
from robot_rl_sim.randomization import NOMINAL
from robot_rl_sim.tasks.assemble import assemble
from robot_rl_sim.tasks.peg_insert.mdp import PegInsert, PegInsertConfig, insertion_depth
from robot_rl_sim.tasks.peg_insert.scene import PegScene, keypoints

CENTRED = PegInsertConfig(
    hole_x_m=(0.5, 0.5), hole_y_m=(0.0, 0.0), hole_yaw_rad=0.0, pool_size=8, estimate_xy_m=0.0, estimate_z_m=0.0,
    estimate_yaw_rad=0.0,
)  # fmt: skip
"""The hole always in the same place, and known."""
RIM_M = 0.04


def make(num_envs: int = 1, **changes: object):
    import dataclasses

    mdp = PegInsert(num_envs, 0, dataclasses.replace(CENTRED, **changes))
    return assemble(mdp, num_envs, 0, NOMINAL, "cpu", 1)


def pose_with_tip_at(mdp: PegInsert, tip: tuple[float, float, float], yaw: float = 0.0) -> Tensor:
    """(1, 7) rad, the peg upright."""
    goal = keypoints(torch.tensor([tip]), torch.tensor([yaw]))
    pose = solve(mdp.kinematics, mdp.state["pool_poses"][:1], goal)
    torch.testing.assert_close(mdp.kinematics(pose).flatten(1), goal, atol=2e-5, rtol=0)
    return pose


def place(env, *tips: tuple[float, float, float]) -> None:
    """Put the tips of the peg of all worlds there, at rest, with the targets where the joints are."""
    poses = torch.cat([pose_with_tip_at(env.mdp, tip) for tip in tips])
    qpos = torch.cat((poses, env.sim.qpos[:, 7:].float()), -1)
    env.sim.set_state(torch.arange(len(tips)), qpos, torch.zeros_like(qpos))
    env._inputs["last_target"] = poses


def contacts_at(model: mujoco.MjModel, pose: Tensor) -> int:
    data = mujoco.MjData(model)
    data.qpos[:7] = pose[0]
    mujoco.mj_forward(model, data)
    return data.ncon


def test_half_a_millimetre_is_free_on_each_side() -> None:
    mdp = PegInsert(1, 0, CENTRED)
    model = mdp.model_spec().compile()
    peg = model.geom("peg").size
    walls = {name: model.geom(f"wall_{name}") for name in ("left", "right", "front", "back")}
    along_y = (walls["left"].pos[1] - walls["left"].size[1]) - (walls["right"].pos[1] + walls["right"].size[1])
    along_x = (walls["front"].pos[0] - walls["front"].size[0]) - (walls["back"].pos[0] + walls["back"].size[0])
    assert along_x - 2 * peg[0] == pytest.approx(0.001)
    assert along_y - 2 * peg[1] == pytest.approx(0.001)
    # And as it collides: with the tip 2 cm deep in the hole.
    for offset, touches in ((0.0004, False), (0.0006, True)):
        for sign_x, sign_y in ((1, 0), (-1, 0), (0, 1), (0, -1)):
            pose = pose_with_tip_at(mdp, (0.5 + sign_x * offset, sign_y * offset, RIM_M - 0.02))
            assert (contacts_at(model, pose) > 0) == touches, (offset, sign_x, sign_y)


@pytest.mark.parametrize(("clearance_mm", "free"), [(0.4, False), (3.0, True)])
def test_clearance_is_configured(clearance_mm: float, free: bool) -> None:
    import dataclasses

    mdp = PegInsert(1, 0, dataclasses.replace(CENTRED, scene=PegScene(clearance_m=clearance_mm / 1000)))
    pose = pose_with_tip_at(mdp, (0.501, 0.0, RIM_M - 0.02))
    assert (contacts_at(mdp.model_spec().compile(), pose) == 0) == free


def test_keypoints_are_on_the_peg_of_the_model() -> None:
    mdp = PegInsert(1, 0, CENTRED)
    model = mdp.model_spec().compile()
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    peg = model.geom("peg").id
    for _ in range(20):
        data.qpos[:7] = rng.uniform(*model.jnt_range[:7].T)
        mujoco.mj_kinematics(model, data)
        x, _, z = data.geom_xmat[peg].reshape(3, 3).T
        tip = data.geom_xpos[peg] + model.geom_size[peg, 2] * z
        ours = mdp.kinematics(torch.from_numpy(data.qpos[None, :7]))[0].numpy()
        np.testing.assert_allclose(ours, [tip, tip - 0.05 * z, tip - 0.05 * x], atol=1e-6)


@pytest.mark.parametrize("push", [(0.0, 0.0, -0.3), (0.3, 0.0, -0.1), (0.0, -0.3, -0.1)])
@pytest.mark.parametrize("tip", [(0.53, 0.02, RIM_M), (0.5, 0.0, RIM_M - 0.025)], ids=["on the block", "in the hole"])
def test_walls_hold_all_the_torque_there_is(tip: tuple[float, float, float], push: tuple[float, float, float]) -> None:
    """The servos want the tip 30 cm further and give all they have at once; in the hole, the peg is their lever. Walls
    are 4 cm thick: the peg gets less than a millimetre into them, and the block stays where it is."""
    mdp = PegInsert(1, 0, CENTRED)
    model = mdp.model_spec().compile()
    data = mujoco.MjData(model)
    block = [i for i in range(model.ngeom) if model.geom(i).name.startswith("wall_")]
    pose = pose_with_tip_at(mdp, tip)
    further = torch.tensor([[a + b for a, b in zip(tip, push, strict=True)]])
    data.qpos[:7] = pose[0]
    data.ctrl[:] = solve(mdp.kinematics, pose, keypoints(further, torch.zeros(1)), iterations=50)[0]
    deepest, strongest = 0.0, np.zeros(7)
    for _ in range(500):
        mujoco.mj_step(model, data)
        walls = np.isin(data.contact.geom, block).any(1)
        deepest = max(deepest, -data.contact.dist[walls].min(initial=0.0))
        strongest = np.maximum(strongest, np.abs(data.actuator_force))
    assert (strongest > np.array([87.0] * 4 + [12.0] * 3) - 0.01).any()
    assert 0 < deepest < 0.001
    assert np.abs(data.qpos[7:]).max() < 1e-4
    if tip[2] < RIM_M:  # pushed as it may be, it never leaves through a wall
        assert np.abs(data.geom("peg").xpos[:2] - (0.5, 0.0)).max() < 0.003


def test_depth_by_hand() -> None:
    scene = PegScene()
    straight, turned = [0.5, 0.1, 0.0], [0.5, 0.1, 0.3]
    tip, hole, depth = zip(
        ((0.5, 0.1, 0.015), straight, 0.025),
        ((0.508, 0.092, 0.015), straight, 0.025),
        ((0.51, 0.1, 0.015), straight, -0.015),  # through the wall: not in the hole
        ((0.5 + 0.0084, 0.1 + 0.0084, 0.015), straight, 0.025),  # a corner of the hole
        ((0.5 + 0.0084, 0.1 + 0.0084, 0.015), turned, -0.015),  # which has turned away
        ((0.6, 0.1, 0.001), straight, -0.001),  # beside the block, on the table
        ((0.5, 0.1, 0.05), straight, -0.01),
        strict=True,
    )
    got = insertion_depth(torch.tensor(tip), torch.tensor(hole), scene)
    torch.testing.assert_close(got, torch.tensor(depth), atol=1e-6, rtol=0)


def test_reward_is_for_a_peg_that_is_in() -> None:
    env = make(num_envs=4)
    place(env, (0.5, 0.0, RIM_M - 0.025), (0.5, 0.0, RIM_M - 0.015), (0.5, 0.0, RIM_M + 0.01), (0.58, 0.0, 0.01))
    step = env.step(torch.zeros(4, 7))
    assert step.reward.tolist() == [1.0, 0.0, 0.0, 0.0]
    assert set(step.info) >= {"reward/inserted", "insertion_depth_m"}
    torch.testing.assert_close(
        step.info["insertion_depth_m"], torch.tensor([0.025, 0.015, 0.0, 0.0]), atol=1e-4, rtol=0
    )


def test_dense_reward_by_hand() -> None:
    env = make(num_envs=1, reward="dense")
    place(env, (0.5, 0.0, RIM_M - 0.025))
    step = env.step(torch.full((1, 7), 0.1))
    # 5 mm short of the commanded 30 mm, which is as far for each of the three points.
    assert step.info["reward/distance"].item() == pytest.approx(-5.0 * 0.005, abs=5e-3)
    assert step.info["reward/near"].item() == pytest.approx(0.5 * np.exp(-0.25), abs=0.05)
    assert step.info["reward/depth"].item() == pytest.approx(25 / 30, abs=0.05)
    assert step.info["reward/action"].item() == pytest.approx(-0.01 * 0.01)
    assert step.info["reward/inserted"].item() == 1.0


def test_success_is_to_be_in_at_the_end() -> None:
    """Placed by hand before each step: always in, always out, out in the last step but one."""
    env = make(num_envs=3, max_episode_steps=8)
    inside, outside = (0.5, 0.0, RIM_M - 0.025), (0.5, 0.0, RIM_M + 0.01)
    for k in range(8):
        place(env, inside, outside, outside if k == 6 else inside)
        step = env.step(torch.zeros(3, 7))
    assert step.truncated.all()
    assert step.info["success"].tolist() == [True, False, False]


def test_episodes_begin_above_holes_that_differ_with_estimates_that_err() -> None:
    mdp = PegInsert(64, 3, PegInsertConfig(pool_size=64))
    env = assemble(mdp, 64, 3, NOMINAL, "cpu", 1)
    env.reset(seed=1)
    hole = mdp.state["hole"]
    for world in range(8):
        data = env.sim.snapshot(world)
        assert data.ncon == 0
        walls = [data.geom(f"wall_{name}").xpos for name in ("left", "right", "front", "back")]
        np.testing.assert_allclose(np.mean(walls, axis=0)[:2], hole[world, :2], atol=1e-6)
        across = walls[2] - walls[3]
        assert np.arctan2(across[1], across[0]) == pytest.approx(hole[world, 2].item(), abs=1e-6)
    low, high = hole.min(0).values, hole.max(0).values
    assert (low >= torch.tensor([0.45, -0.1, -0.2])).all()
    assert (high <= torch.tensor([0.55, 0.1, 0.2])).all()
    assert (high - low > torch.tensor([0.06, 0.12, 0.2])).all()

    command = env.policy_inputs()["peg_goal"]
    error = command[:, :3] - torch.cat((hole[:, :2], torch.full((64, 1), RIM_M - 0.03)), -1)
    half_width = torch.tensor([0.0015, 0.0015, 0.0005])
    assert (error.abs() <= half_width + 1e-6).all()
    assert (error.abs().amax(0) > 0.8 * half_width).all()
    assert (error.mean(0).abs() < 0.3 * half_width).all()

    tip = mdp.kinematics(env.sim.joint_pos.float())[:, 0]
    assert ((tip[:, 2] > RIM_M + 0.03 - 1e-4) & (tip[:, 2] < RIM_M + 0.06 + 1e-4)).all()
    assert ((tip[:, :2] - hole[:, :2]).abs() < 0.02 + 1e-4).all()


def test_the_hole_is_part_of_what_is_saved() -> None:
    mdp_config = PegInsertConfig(pool_size=16)
    first, second = (assemble(PegInsert(4, 0, mdp_config), 4, seed, NOMINAL, "cpu", 1) for seed in (1, 2))
    assert not torch.equal(first.mdp.state["hole"], second.mdp.state["hole"])
    second.load_state_dict(first.state_dict())
    assert torch.equal(first.mdp.state["hole"], second.mdp.state["hole"])
    for _ in range(3):
        action = torch.rand(4, 7)
        assert torch.equal(first.step(action).obs, second.step(action).obs)


def test_nonsense_is_refused() -> None:
    with pytest.raises(ConfigError, match="'shaped'; valid: sparse, dense"):
        PegInsertConfig(reward="shaped")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="clearance_m must lie in"):
        PegScene(clearance_m=-0.001)
    with pytest.raises(ConfigError, match="success_depth_m < command_depth_m"):
        PegInsertConfig(success_depth_m=0.035)
    with pytest.raises(ConfigError, match="cannot reach above every hole"):
        PegInsert(1, 0, PegInsertConfig(hole_x_m=(0.9, 1.2), pool_size=16))
