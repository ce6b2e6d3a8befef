"""Pushes, action latency and torque noise, checked by hand."""

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.robots import LEAP_HAND
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.disturbances import PUSH_DRAWS, ActionLatency, PushConfig, Pushes, TorqueNoise
from robot_rl_sim.draws import Draws
from robot_rl_sim.models import load_model

CPU = torch.device("cpu")


def test_pushes_come_when_due_with_the_stated_speed() -> None:
    pushes = Pushes(PushConfig((0.3, 0.8), (2, 4)), 200, CPU)
    generator = torch.Generator().manual_seed(0)
    pushes.reset(torch.arange(200), torch.rand(200, generator=generator))
    due_at = pushes.state["countdown"].clone()
    assert due_at.unique().tolist() == [2, 3, 4]
    speeds = []
    for step in range(1, 5):
        speed = pushes.kick(torch.rand(200, PUSH_DRAWS, generator=generator)).norm(dim=1)
        first = due_at == step
        assert (speed[first] > 0).all()
        assert (speed[due_at > step] == 0).all()
        speeds.append(speed[first])
    all_speeds = torch.cat(speeds)
    assert all_speeds.min() >= 0.3
    assert all_speeds.max() <= 0.8
    assert all_speeds.std() > 0.1


def latency(worlds: int, substeps: int, control_steps: tuple[float, float]) -> ActionLatency:
    """Episodes just begun, in which the servos held 7 before."""
    draws = Draws()
    made = ActionLatency(worlds, 1, substeps, control_steps, draws, CPU)
    draws.allocate(worlds, CPU)
    draws.draw(torch.arange(worlds), torch.Generator().manual_seed(0))
    made.reset(torch.arange(worlds), torch.full((worlds, 1), 7.0))
    return made


def test_late_targets_arrive_after_the_delay() -> None:
    late = latency(3, 4, (0.0, 1.0))
    late.set_delay(torch.arange(3), torch.tensor([0, 1, 4]))
    first = late.apply(torch.full((3, 1), 8.0)).squeeze(-1)
    assert first.tolist() == [[8, 8, 8, 8], [7, 8, 8, 8], [7, 7, 7, 7]]
    second = late.apply(torch.full((3, 1), 9.0)).squeeze(-1)
    assert second.tolist() == [[9, 9, 9, 9], [8, 9, 9, 9], [8, 8, 8, 8]]


@pytest.mark.parametrize("delay", range(13))
def test_delays_of_several_control_periods(delay: int) -> None:
    """Physics step i of all gets the target issued at control step floor((i - delay) / 4)."""
    late = latency(1, 4, (0.0, 3.0))
    late.set_delay(torch.tensor([0]), torch.tensor([delay]))
    targets = [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]
    got = torch.cat([late.apply(torch.full((1, 1), t))[0, :, 0] for t in targets])
    issued = [(i - delay) // 4 for i in range(len(got))]
    assert got.tolist() == [targets[k] if k >= 0 else 7.0 for k in issued]


def test_a_new_episode_forgets_targets_on_their_way() -> None:
    late = latency(2, 4, (1.0, 1.0))
    late.apply(torch.full((2, 1), 8.0))
    late.reset(torch.tensor([1]), torch.full((1, 1), 5.0))
    assert late.apply(torch.full((2, 1), 9.0))[:, 0, 0].tolist() == [8.0, 5.0]


def test_delays_cover_the_stated_range() -> None:
    assert latency(500, 10, (0.2, 0.5)).state["delay"].unique().tolist() == [2, 3, 4, 5]


def test_torque_noise_is_the_stated_share_of_the_effort_limit() -> None:
    """At rest, a servo's torque is what its target is off, and the noise of one period says nothing of the next."""
    sim = MujocoCpuSim(load_model("leap_hand"), LEAP_HAND, 300, 1, 1)
    sim.model_field("opt.gravity")[:] = 0.0
    noise = TorqueNoise(LEAP_HAND, 0.1, CPU)
    generator = torch.Generator().manual_seed(0)
    limit = torch.tensor([j.effort_limit_nm for j in LEAP_HAND.joints])
    shares = []
    for _ in range(2):
        sim.set_state(torch.arange(300), sim.qpos.clone(), torch.zeros(300, 16))
        sim.step(sim.joint_pos.float() + noise.offset(torch.rand(300, 16, generator=generator)))
        shares.append(sim.joint_effort.float() / limit)
    drawn = torch.stack(shares)
    assert drawn.abs().max() <= 0.1 + 1e-5
    assert drawn.abs().amax((0, 1)).min() > 0.098
    assert drawn.mean().abs() < 0.002
    assert (drawn[0] * drawn[1]).mean().abs() < 2e-4


def test_an_offset_comes_without_delay_and_is_held_for_a_control_period() -> None:
    late = latency(1, 4, (0.5, 0.5))
    first = late.apply(torch.full((1, 1), 8.0), torch.full((1, 1), 0.25))
    second = late.apply(torch.full((1, 1), 9.0), torch.full((1, 1), -0.5))
    assert first[0, :, 0].tolist() == [7.25, 7.25, 8.25, 8.25]
    assert second[0, :, 0].tolist() == [7.5, 7.5, 8.5, 8.5]


@pytest.mark.parametrize(
    "bad",
    [
        lambda: PushConfig((0.8, 0.3)),
        lambda: PushConfig(interval_steps=(0, 5)),
        lambda: ActionLatency(1, 1, 4, (-0.1, 1.5), Draws(), CPU),
        lambda: ActionLatency(1, 1, 4, (0.5, 0.2), Draws(), CPU),
    ],
)
def test_impossible_ranges_are_refused(bad) -> None:
    with pytest.raises(ConfigError):
        bad()
