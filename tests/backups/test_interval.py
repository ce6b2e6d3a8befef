"""Clopper-Pearson intervals against published figures, closed forms and the definition in exact arithmetic."""

import math
from fractions import Fraction

import pytest

from robot_rl_sim.backups.interval import at_least, clopper_pearson

# The exact 95 % intervals that R's binom.test prints.
PUBLISHED = {
    (0, 10): (0.0, 0.3084971),
    (1, 10): (0.002528579, 0.445016117),
    (2, 10): (0.02521073, 0.55609546),
    (3, 10): (0.06673951, 0.65245285),
    (5, 10): (0.1870860, 0.8129140),
    (10, 20): (0.2719578, 0.7280422),
    (50, 100): (0.3983211, 0.6016789),
    (95, 100): (0.8871651, 0.9835681),
}


@pytest.mark.parametrize(("case", "interval"), PUBLISHED.items())
def test_published_intervals(case, interval) -> None:
    assert clopper_pearson(*case) == pytest.approx(interval, abs=1e-7)


@pytest.mark.parametrize("trials", [1, 3, 29, 1000])
def test_none_and_all(trials: int) -> None:
    # (1 - p)^n = 0.025 has a closed form.
    bound = 1.0 - 0.025 ** (1.0 / trials)
    assert clopper_pearson(0, trials) == pytest.approx((0.0, bound), abs=1e-12)
    assert clopper_pearson(trials, trials) == pytest.approx((1.0 - bound, 1.0), abs=1e-12)


def test_no_trials_say_nothing() -> None:
    assert clopper_pearson(0, 0) == (0.0, 1.0)


@pytest.mark.parametrize("case", [(-1, 10), (11, 10)])
def test_more_successes_than_trials(case) -> None:
    with pytest.raises(ValueError, match=r"successes must be in \[0, 10\]"):
        clopper_pearson(*case)


def tail(successes: int, trials: int, share: Fraction) -> Fraction:
    """P(X >= successes), exactly."""
    terms = (math.comb(trials, k) * share**k * (1 - share) ** (trials - k) for k in range(successes, trials + 1))
    return sum(terms, Fraction(0))


@pytest.mark.parametrize(("successes", "trials", "share"), [(0, 5, 1 / 3), (3, 7, 0.1), (40, 64, 0.5), (64, 64, 0.99)])
def test_the_tail_in_exact_arithmetic(successes: int, trials: int, share: float) -> None:
    assert at_least(successes, trials, share) == pytest.approx(
        float(tail(successes, trials, Fraction(share))), rel=1e-12
    )


def test_ninety_five_of_a_hundred_intervals_hold_the_truth_and_no_fewer() -> None:
    trials = 15
    intervals = [clopper_pearson(k, trials) for k in range(trials + 1)]
    for share in [Fraction(i, 40) for i in range(1, 40)]:
        covered = sum(
            math.comb(trials, k) * share**k * (1 - share) ** (trials - k)
            for k, (low, high) in enumerate(intervals)
            if low <= share <= high
        )
        assert covered >= Fraction(95, 100)
