"""The CPU backend against a plain loop over MuJoCo's own step."""

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.robots import LEAP_HAND
from robot_rl_sim.backends.batch_sim import MAX_SPEED
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.models import load_model

SUBSTEPS = 10


@pytest.fixture
def sim() -> MujocoCpuSim:
    return make_sim()


def make_sim(num_worlds: int = 4, threads: int = 1) -> MujocoCpuSim:
    sim = MujocoCpuSim(load_model("leap_hand"), LEAP_HAND, num_worlds, SUBSTEPS, threads)
    sim.set_state(torch.arange(num_worlds), poses(num_worlds), torch.zeros(num_worlds, 16))
    return sim


def poses(n: int) -> torch.Tensor:
    default = torch.tensor([j.default_pos_rad for j in LEAP_HAND.joints])
    return default + 0.1 * torch.rand(n, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("threads", [1, 2])
def test_steps_are_those_of_a_plain_loop(threads: int) -> None:
    sim = make_sim(threads=threads)
    targets = poses(4) + 0.2
    model = load_model("leap_hand")
    for _ in range(3):
        sim.step(targets)
    for i in range(4):
        data = mujoco.MjData(model)
        data.qpos[:] = poses(4)[i]
        data.ctrl[:] = poses(4)[i]
        mujoco.mj_forward(model, data)
        data.ctrl[:] = targets[i]
        for _ in range(3 * SUBSTEPS):
            mujoco.mj_step(model, data)
        np.testing.assert_array_equal(sim.joint_pos[i], data.qpos)
        np.testing.assert_array_equal(sim.joint_vel[i], data.qvel)
        np.testing.assert_array_equal(sim.joint_effort[i], data.actuator_force)


def test_one_target_per_physics_step() -> None:
    """Targets that change halfway are those of two half periods."""
    sim, model = make_sim(1), load_model("leap_hand")
    first, second = poses(1), poses(1) + 0.3
    sim.step(torch.stack([first] * 4 + [second] * 6, dim=1))
    data = mujoco.MjData(model)
    data.qpos[:] = data.ctrl[:] = first[0]
    mujoco.mj_forward(model, data)
    for target, steps in ((first, 4), (second, 6)):
        data.ctrl[:] = target[0]
        mujoco.mj_step(model, data, steps)
    np.testing.assert_array_equal(sim.joint_pos[0], data.qpos)


def test_views_are_live_and_writable(sim: MujocoCpuSim) -> None:
    view = sim.joint_pos
    before = view.clone()
    sim.step(poses(4) + 0.5)
    assert not torch.equal(view, before)
    view[2, 0] = 1.25
    assert sim.snapshot(2).qpos[0] == 1.25


def test_only_the_chosen_worlds_start_afresh(sim: MujocoCpuSim) -> None:
    sim.step(poses(4) + 0.5)
    others = sim.qpos[[0, 2]].clone()
    sim.set_state(torch.tensor([1, 3]), poses(4)[[1, 3]], torch.zeros(2, 16))
    torch.testing.assert_close(sim.qpos[[0, 2]], others, rtol=0, atol=0)
    torch.testing.assert_close(sim.qpos[[1, 3]].float(), poses(4)[[1, 3]], rtol=0, atol=0)
    # A servo that holds the pose it is in pushes nothing, and says so at once.
    assert (sim.joint_effort[[1, 3]].abs() < 1e-6).all()


def test_world_fields_differ_per_world(sim: MujocoCpuSim) -> None:
    gravity_only = poses(4)
    mass = sim.model_field("body_mass")
    mass[1] *= 3
    sim.apply_model(torch.tensor([1]))
    sim.set_state(torch.arange(4), gravity_only[:1].expand(4, -1), torch.zeros(4, 16))
    for _ in range(5):
        sim.step(gravity_only[:1].expand(4, -1))
    assert torch.equal(sim.qpos[0], sim.qpos[2])
    assert not torch.allclose(sim.qpos[0], sim.qpos[1], atol=1e-4)
    torch.testing.assert_close(sim.nominal("body_mass"), mass[0])


def test_state_dict_goes_on_bit_for_bit(sim: MujocoCpuSim) -> None:
    sim.model_field("dof_damping")[:] *= 2
    sim.step(poses(4) + 0.2)
    state = sim.state_dict()
    sim.step(poses(4) - 0.1)
    expected = sim.qpos.clone()
    other = make_sim()
    other.model_field("dof_damping")
    other.load_state_dict(state)
    other.step(poses(4) - 0.1)
    assert torch.equal(other.qpos, expected)


def test_state_of_another_size_is_refused(sim: MujocoCpuSim) -> None:
    with pytest.raises(CheckpointError, match="rows"):
        make_sim(3).load_state_dict(sim.state_dict())


@pytest.mark.parametrize(
    ("field", "joint", "value"),
    [("qpos", 5, float("nan")), ("qvel", 0, 1e12), ("qvel", 3, float("nan")), ("qvel", 3, 2e3)],
)
@pytest.mark.parametrize("targets", [(4, 16), (4, SUBSTEPS, 16)])
def test_diverged_world_is_marked_until_it_starts_afresh(
    sim: MujocoCpuSim, tmp_path, monkeypatch, field: str, joint: int, value: float, targets
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo writes its warning to a file in the working directory
    undisturbed = make_sim()
    assert not sim.failed.any()
    getattr(sim, field)[2, joint] = value
    for s in (sim, undisturbed):
        s.step(torch.zeros(targets))
    if value != 2e3:  # which MuJoCo may well brake to a plausible speed within one control period
        assert sim.failed.tolist() == [False, False, True, False]
        assert sim.any_failed
    rest = [0, 1, 3]
    assert torch.equal(sim.qpos[rest], undisturbed.qpos[rest])
    sim.set_state(torch.tensor([2]), torch.zeros(1, 16), torch.zeros(1, 16))
    assert not sim.failed.any()
    assert not sim.any_failed
    sim.step(torch.zeros(targets))
    assert sim.qpos.abs().max() < 3.0


@pytest.mark.parametrize(("speed", "failed"), [(0.9 * MAX_SPEED, False), (1.1 * MAX_SPEED, True)])
def test_many_worlds_may_be_fast_at_once(sim: MujocoCpuSim, speed: float, failed: bool) -> None:
    sim.qvel[:, :2] = 0.9 * MAX_SPEED  # the sum of whose squares is well above that of MAX_SPEED
    sim.qvel[1, 3] = -speed
    assert sim.any_failed == failed
    assert sim.failed.tolist() == [False, failed, False, False]


def test_model_with_other_joint_order_is_refused() -> None:
    import dataclasses

    swapped = dataclasses.replace(LEAP_HAND, joints=LEAP_HAND.joints[::-1], chains=())
    with pytest.raises(ConfigError, match="order"):
        MujocoCpuSim(load_model("leap_hand"), swapped, 1, SUBSTEPS)
