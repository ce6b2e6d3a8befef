"""One joint's law, written down with known mistakes: what the fit finds is what was put in."""

from typing import Any

import numpy as np
import pytest

from robot_rl.parity.assignment import cycles
from robot_rl.parity.causes import Cause
from robot_rl.parity.servo import SERVO
from robot_rl.parity.servo_law import Law, cheapest

ROWS = 400
DOUBT = 3.0


def law(
    *, target: float = 1.0, position: float = 1.0, offset: float = 0.0, effort: float = 1.0, noise_rad: float = 0.0,
    moves: bool = True, loaded: bool = True, seed: int = 0,
) -> Law:  # fmt: skip
    """Of a servo told `target` times its target and `offset`, whose position is read `position` times too large, and
    whose effort `effort` times; `noise_rad` is that of its damping term."""
    rng, t = np.random.default_rng(seed), np.linspace(0.0, 8.0, ROWS)
    meant = 0.6 + 0.2 * np.sin(2.0 * t) * moves
    pull = 0.2 * np.sin(5.0 * t) * loaded
    seen = position * (target * meant + offset - pull) + noise_rad * rng.standard_normal(ROWS)
    terms = np.stack([meant, -seen, np.ones(ROWS), -effort * pull])
    return Law.of(terms, np.full(ROWS, noise_rad), np.full(ROWS, 1.0 / SERVO.floor**2))


def test_a_sound_joint_is_left_alone_though_its_effort_is_misread() -> None:
    assert cheapest(3, [], law(effort=1.15, offset=0.01), SERVO, DOUBT) == []


@pytest.mark.parametrize("factor", [0.6, 1.6])
def test_a_position_that_is_scaled_is_told_from_a_target_by_its_load(factor: float) -> None:
    own = [Cause("unclear", "target", (3,))]
    (cause,) = cheapest(3, own, law(position=factor, moves=False), SERVO, DOUBT)
    assert (cause.kind, cause.signal, cause.channels) == ("scale", "joints", (3,))
    assert cause.value == pytest.approx(factor, rel=0.02)
    # Nothing else was said of it: it still is.
    assert [c.kind for c in cheapest(3, [], law(position=factor), SERVO, DOUBT)] == ["scale"]


def test_a_joint_at_rest_without_load_does_not_tell() -> None:
    own = [Cause("unclear", "target", (3,))]
    still = law(position=1.6, moves=False, loaded=False)
    assert [c.kind for c in cheapest(3, own, still, SERVO, DOUBT)] == ["unclear"]


@pytest.mark.parametrize(
    ("mistake", "own"),
    [
        ({"target": 1.6}, Cause("scale", "target", (3,), 1.6)),
        ({"offset": 0.3}, Cause("offset", "target", (3,), 0.3)),
    ],
)
def test_what_is_the_targets_stays_the_targets(mistake: dict[str, Any], own: Cause) -> None:
    assert cheapest(3, [own], law(**mistake), SERVO, DOUBT) == [own]


def test_noise_of_a_velocity_does_not_make_a_position_seem_scaled() -> None:
    noisy = law(noise_rad=0.15)
    assert noisy.fit([1], 1.0).values[1] == pytest.approx(1.0, abs=0.05)
    # Least squares on single rows: 1 / (1 + noise² / variance of what is fitted).
    assert cheapest(3, [], noisy, SERVO, DOUBT) == []


def test_what_no_mistake_explains_is_no_scale() -> None:
    rng = np.random.default_rng(1)
    terms = np.stack([np.full(ROWS, 0.5), -rng.uniform(-1, 1, ROWS), np.ones(ROWS), rng.uniform(-1, 1, ROWS)])
    anything = Law.of(terms, np.zeros(ROWS), np.full(ROWS, 1.0 / SERVO.floor**2))
    assert cheapest(3, [], anything, SERVO, DOUBT) == []


def test_cycles() -> None:
    assert cycles(np.array([0, 2, 1, 5, 4, 7, 6, 3])) == [[1, 2], [3, 5, 7]]
    assert cycles(np.arange(4)) == []
