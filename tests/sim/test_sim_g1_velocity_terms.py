"""The parts of walking by hand: reward terms, the feet's clock, commands and their curriculum."""

import math

import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl_sim.tasks.g1_velocity import rewards
from robot_rl_sim.tasks.g1_velocity.commands import COMMAND_DRAWS, CommandConfig, VelocityCommands
from robot_rl_sim.tasks.g1_velocity.feet import Feet

CPU = torch.device("cpu")


def row(*values: float) -> torch.Tensor:
    return torch.tensor([values])


def test_closeness() -> None:
    error = torch.tensor([[0.0, 0.0], [0.3, -0.4], [0.5, 0.5]])
    expected = torch.tensor([1.0, math.exp(-1.0), math.exp(-2.0)])
    torch.testing.assert_close(rewards.closeness(error, 0.5), expected)


def test_lean_is_the_squared_sine_of_the_tilt() -> None:
    tilt = 0.3
    assert rewards.lean(row(math.sin(tilt), 0.0, -math.cos(tilt))).item() == pytest.approx(math.sin(tilt) ** 2)


def test_weighted_square() -> None:
    assert rewards.weighted_square(row(1.0, -2.0, 3.0), torch.tensor([1.0, 0.5, 0.0])).item() == pytest.approx(3.0)


@pytest.mark.parametrize(
    ("phase", "left", "right"), [(0.25, 0.09, 0.0), (0.75, 0.0, 0.09), (0.0, 0.0, 0.0), (10.125, 0.09 * 0.5**0.5, 0.0)]
)
def test_gait_wants_the_left_foot_up_first(phase: float, left: float, right: float) -> None:
    """Whole cycles do not count; a centimetre off costs exp(-(1/6.5)²)."""
    clock, walking = torch.tensor([phase]), torch.tensor([True])
    assert rewards.gait_closeness(row(left, right), clock, walking, 0.09, 0.065).item() == pytest.approx(1.0, abs=1e-4)
    lower = rewards.gait_closeness(row(left - 0.01, right), clock, walking, 0.09, 0.065).item()
    assert lower == pytest.approx(math.exp(-((0.01 / 0.065) ** 2)), abs=1e-3)


def test_gait_wants_both_feet_down_when_standing() -> None:
    phase, standing = torch.tensor([0.25]), torch.tensor([False])
    assert rewards.gait_closeness(row(0.0, 0.0), phase, standing, 0.09, 0.065).item() == 1.0
    assert rewards.gait_closeness(row(0.09, 0.0), phase, standing, 0.09, 0.065).item() < 0.2


def test_single_stance_over_a_scripted_walk() -> None:
    """Steps of 0.1 s. Both stand for 2, the right swings for 6, both stand for 1, the left swings for 2, both fly."""
    script = 2 * ["LR"] + 6 * ["L"] + ["LR"] + 2 * ["R"] + 2 * [""]
    feet = Feet(1, CPU)
    feet.reset(torch.tensor([0]))
    seen, ages = [], []
    for standing in script:
        contact = torch.tensor([["L" in standing, "R" in standing]])
        ages.append([round(age, 3) for age in feet.update(contact, 0.1)[0].tolist()])
        seen.append(rewards.single_stance_time(contact, feet.state["mode_s"], 0.4).item())
    # The left has stood since the start, 0.2 s before the right took off; it landed after 0.6 s in the air.
    assert ages[:2] == [[0.1, 0.1], [0.2, 0.2]]
    assert ages[2] == [0.3, 0.1]
    assert ages[7] == [0.8, 0.6]
    assert ages[8] == [0.9, 0.1]
    assert ages[9] == [0.1, 0.2]
    assert ages[10] == [0.2, 0.3]
    assert ages[11] == [0.3, 0.1]
    expected = [0, 0, 0.1, 0.2, 0.3, 0.4, 0.4, 0.4, 0, 0.1, 0.2, 0, 0]  # never above the longest that counts
    assert seen == pytest.approx(expected, abs=1e-5)


def test_feet_start_on_the_ground() -> None:
    feet = Feet(2, CPU)
    feet.update(torch.zeros(2, 2, dtype=torch.bool), 0.1)
    feet.reset(torch.tensor([1]))
    assert feet.state["standing"].tolist() == [[False, False], [True, True]]
    assert feet.state["mode_s"][1].tolist() == [0.0, 0.0]


def test_slip_counts_standing_feet_and_the_ground_plane_only() -> None:
    velocity = torch.tensor([[[0.3, 0.4, 5.0], [1.0, 1.0, 0.0]]])
    assert rewards.slip(torch.tensor([[True, False]]), velocity).item() == pytest.approx(0.25)
    assert rewards.slip(torch.tensor([[True, True]]), velocity).item() == pytest.approx(2.25)


def test_overlap_beyond_and_power() -> None:
    torch.testing.assert_close(rewards.overlap(torch.tensor([0.2, 0.1, -0.1]), 0.16), torch.tensor([0.0, 0.06, 0.26]))
    low, high = torch.tensor([-1.0, 0.0]), torch.tensor([1.0, 0.5])
    assert rewards.beyond(row(-1.5, 0.7), low, high).item() == pytest.approx(0.7)
    assert rewards.beyond(row(1.0, 0.0), low, high).item() == 0.0
    assert rewards.power(row(10.0, -20.0), row(-2.0, 0.5)).item() == pytest.approx(30.0)


def drawn(config: CommandConfig, level: float, n: int = 4000) -> tuple[torch.Tensor, VelocityCommands]:
    commands = VelocityCommands(config, n, CPU)
    commands.state["level"].fill_(level)
    chance = torch.rand(n, COMMAND_DRAWS, generator=torch.Generator().manual_seed(0))
    return commands.draw(torch.arange(n), chance), commands


def test_commands_fill_the_ranges_of_their_level() -> None:
    whole = torch.tensor([[-0.5, 1.0], [-0.4, 0.4], [-1.0, 1.0]])
    for level, share in ((0.0, 0.3), (0.5, 0.65), (1.0, 1.0)):
        command, commands = drawn(CommandConfig(), level)
        low, high = (share * whole).unbind(-1)
        assert (command >= low).all()
        assert (command <= high).all()
        torch.testing.assert_close(command.amin(0), low, rtol=0.03, atol=0)
        torch.testing.assert_close(command.amax(0), high, rtol=0.03, atol=0)
        assert commands.state["countdown"].min() == 200
        assert commands.state["countdown"].max() == 500


def test_a_tenth_of_the_commands_is_to_stand_and_none_is_a_creep() -> None:
    command, _ = drawn(CommandConfig(), 1.0)
    norm = command.norm(dim=-1)
    assert 0.09 < (norm == 0).float().mean() < 0.12  # ten percent, and what would have been slower than 0.1
    assert norm[norm > 0].min() >= 0.1


def test_a_command_holds_until_its_countdown_ends() -> None:
    commands = VelocityCommands(CommandConfig(interval_steps=(3, 3), standing_share=0.0), 2, CPU)
    generator = torch.Generator().manual_seed(0)
    first = commands.draw(torch.arange(2), torch.rand(2, COMMAND_DRAWS, generator=generator))
    commands.state["countdown"][1] = 5
    ahead, chance = torch.tensor([[1.0, 0.0]] * 2), torch.rand(2, COMMAND_DRAWS, generator=generator)
    second = commands.next(commands.next(first, ahead, chance), ahead, chance)
    assert torch.equal(second, first)
    third = commands.next(second, ahead, chance)
    assert not torch.equal(third[0], first[0])
    assert torch.equal(third[1], first[1])
    assert commands.state["countdown"].tolist() == [3, 2]


def test_a_heading_turns_the_shorter_way_with_its_gain() -> None:
    commands = VelocityCommands(CommandConfig(heading_share=1.0, standing_share=0.0), 4, CPU)
    commands.state["countdown"].fill_(100)
    commands.state["heading"].copy_(torch.tensor([0.5, 3.0, 0.0, torch.nan]))
    heading = torch.tensor([[1.0, 0.0], [math.cos(-3.0), math.sin(-3.0)], [-1.0, 1e-3], [1.0, 0.0]])
    command = torch.tensor([[0.5, 0.1, 0.7]] * 4)
    rate = commands.next(command, heading, torch.rand(4, COMMAND_DRAWS))[:, 2]
    # Half of 0.5 rad; of 6 - 2π, across the back; of almost -π, limited to -1 rad/s; as commanded.
    torch.testing.assert_close(rate, torch.tensor([0.25, 0.5 * (6 - 2 * math.pi), -1.0, 0.7]), rtol=1e-5, atol=1e-5)


def test_headings_are_asked_of_their_share_of_the_walkers() -> None:
    command, commands = drawn(CommandConfig(heading_share=0.5), 1.0)
    has = ~commands.state["heading"].isnan()
    standing = command.norm(dim=-1) == 0
    assert not (has & standing).any()
    assert 0.47 < has[~standing].float().mean() < 0.53
    assert commands.state["heading"][has].abs().max() <= math.pi


def test_levels_follow_obedience() -> None:
    commands = VelocityCommands(CommandConfig(), 6, CPU)
    torch.testing.assert_close(commands.state["level"], torch.linspace(0, 1, 6))
    commands.state["level"].copy_(torch.tensor([0.5, 0.5, 0.5, 0.5, 0.95, 0.05]))
    commands.judge(torch.arange(6), torch.tensor([0.8, 0.5, 0.2, torch.nan, 0.9, 0.0]))
    torch.testing.assert_close(commands.state["level"], torch.tensor([0.6, 0.5, 0.4, 0.5, 1.0, 0.0]))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"forward_m_s": (0.2, 1.0)}, r"forward_m_s must hold 0, got \(0.2, 1.0\)"),
        ({"interval_steps": (0, 5)}, "at least 1"),
        ({"standing_share": 1.5}, r"standing_share must lie in \[0, 1\], got 1.5"),
    ],
)
def test_impossible_commands_are_refused(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        CommandConfig(**settings)  # type: ignore[arg-type]
