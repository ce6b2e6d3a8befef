"""Pushes and action latency, checked by hand."""

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.robots import UNITREE_G1
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.disturbances import ActionLatency, PushConfig, Pushes
from robot_rl_sim.models import load_model

CPU = torch.device("cpu")


def test_pushes_come_when_due_with_the_stated_speed() -> None:
    sim = MujocoCpuSim(load_model("unitree_g1"), UNITREE_G1, 200, 4, 1)
    pushes = Pushes(PushConfig((0.3, 0.8), (2, 4)), 200, CPU)
    generator = torch.Generator().manual_seed(0)
    pushes.reset(torch.arange(200), generator)
    due_at = pushes.state["countdown"].clone()
    assert due_at.unique().tolist() == [2, 3, 4]
    speeds = []
    for step in range(1, 5):
        sim.qvel[:] = 0
        pushes.apply(sim, generator)
        speed = sim.qvel[:, :2].norm(dim=1)
        first = due_at == step
        assert (speed[first] > 0).all()
        assert (speed[due_at > step] == 0).all()
        assert (sim.qvel[:, 2:] == 0).all()
        speeds.append(speed[first])
    all_speeds = torch.cat(speeds)
    assert all_speeds.min() >= 0.3
    assert all_speeds.max() <= 0.8
    assert all_speeds.std() > 0.1


def test_late_targets_arrive_after_the_delay() -> None:
    latency = ActionLatency(3, 1, 4, (0.0, 1.0), CPU)
    latency.reset(torch.arange(3), torch.full((3, 1), 7.0), torch.Generator())
    latency.state["delay"][:] = torch.tensor([0, 1, 4])
    first = latency.apply(torch.full((3, 1), 8.0)).squeeze(-1)
    assert first.tolist() == [[8, 8, 8, 8], [7, 8, 8, 8], [7, 7, 7, 7]]
    second = latency.apply(torch.full((3, 1), 9.0)).squeeze(-1)
    assert second.tolist() == [[9, 9, 9, 9], [8, 9, 9, 9], [8, 8, 8, 8]]


def test_delays_cover_the_stated_range() -> None:
    latency = ActionLatency(500, 1, 10, (0.2, 0.5), CPU)
    latency.reset(torch.arange(500), torch.zeros(500, 1), torch.Generator().manual_seed(0))
    assert latency.state["delay"].unique().tolist() == [2, 3, 4, 5]


@pytest.mark.parametrize(
    "bad",
    [
        lambda: PushConfig((0.8, 0.3)),
        lambda: PushConfig(interval_steps=(0, 5)),
        lambda: ActionLatency(1, 1, 4, (0.0, 1.5), CPU),
        lambda: ActionLatency(1, 1, 4, (0.5, 0.2), CPU),
    ],
)
def test_impossible_ranges_are_refused(bad) -> None:
    with pytest.raises(ConfigError):
        bad()
