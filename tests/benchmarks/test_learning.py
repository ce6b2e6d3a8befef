"""The learning benchmark on a check that takes seconds: seeds, thresholds, and the plot."""

import dataclasses
from pathlib import Path

import pytest

from robot_rl.benchmarks import learning
from robot_rl.errors import ConfigError

CURVES = {0: {100: -4.0, 200: -2.0}, 1: {100: -6.0, 200: -1.0}}


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    check = learning.Check("sac", "gym:Pendulum-v1", (0, 1), {}, {100: -4.5, 200: -2.0}, {200: -1.0}, "someone")
    monkeypatch.setattr(learning, "CHECKS", {"tiny": check})
    monkeypatch.setattr(learning, "_curve", lambda name, seed, runs: CURVES[seed])

    class Now:
        """Runs in this process, so that what is patched here holds."""

        def __init__(self, *args: object, **kwargs: object) -> None: ...
        def __enter__(self) -> "Now":
            return self

        def __exit__(self, *args: object) -> None: ...
        def submit(self, function, *args):
            value = function(*args)
            return type("Future", (), {"result": lambda self: value})()

    monkeypatch.setattr(learning, "ProcessPoolExecutor", Now)


def test_the_mean_over_seeds_is_held_against_the_threshold(small: None, tmp_path: Path) -> None:
    result = learning.run_checks(["tiny"], tmp_path)
    rows = {row.name: row for row in result.rows}
    assert rows["learning/tiny/100"].value == -5.0
    assert rows["learning/tiny/200"].value == -1.5
    assert rows["learning/tiny/100/seed-1"].value == -6.0
    assert not result.ok
    assert result.reason == "learning/tiny/100 is -5, asked -4"
    assert (tmp_path / "curves.png").stat().st_size > 5_000


def test_unknown_checks_are_named(small: None) -> None:
    with pytest.raises(ConfigError, match="unknown check tinny; valid: tiny"):
        learning.run_checks(["tinny"])


def test_a_curve_holds_every_evaluation_of_a_real_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check = learning.CHECKS["sac-pendulum"]
    short = {**check.settings, "total_env_steps": 300, "evaluate_every": 150, "evaluate_episodes": 2, "log_every": 150}
    monkeypatch.setitem(learning.CHECKS, "sac-pendulum", dataclasses.replace(check, settings=short))
    curve = learning._curve("sac-pendulum", 0, tmp_path)
    assert list(curve) == [150, 300]
    assert all(-2000 < value < 0 for value in curve.values())


def test_a_check_without_a_threshold_stands_beside_another(small: None, tmp_path: Path, monkeypatch) -> None:
    tiny = learning.CHECKS["tiny"]
    beside = dataclasses.replace(tiny, thresholds={}, published={}, beside="tiny")
    monkeypatch.setattr(learning, "CHECKS", {"tiny": tiny, "other": beside})
    halved = {seed: {step: value / 2 for step, value in curve.items()} for seed, curve in CURVES.items()}
    monkeypatch.setattr(learning, "_curve", lambda name, seed, runs: (CURVES if name == "tiny" else halved)[seed])
    row = next(r for r in learning.run_checks(["tiny", "other"], tmp_path).rows if r.name == "learning/other/200")
    assert (row.value, row.reference, row.ratio) == (-0.75, "tiny", 0.5)


def test_finished_runs_are_not_repeated_and_interrupted_ones_go_on(tmp_path: Path, monkeypatch) -> None:
    check = learning.CHECKS["sac-pendulum"]
    settings = {
        **check.settings,
        "total_env_steps": 300,
        "evaluate_every": 150,
        "evaluate_episodes": 1,
        "log_every": 150,
    }
    monkeypatch.setitem(learning.CHECKS, "sac-pendulum", dataclasses.replace(check, settings=settings))
    first = learning._curve("sac-pendulum", 0, tmp_path)
    folders = list(tmp_path.glob("*/*"))
    assert learning._curve("sac-pendulum", 0, tmp_path) == first
    assert list(tmp_path.glob("*/*")) == folders
    longer = {**settings, "total_env_steps": 450}
    monkeypatch.setitem(learning.CHECKS, "sac-pendulum", dataclasses.replace(check, settings=longer))
    assert list(learning._curve("sac-pendulum", 0, tmp_path)) == [150, 300, 450]
    assert list(tmp_path.glob("*/*")) == folders
    other = {**longer, "gamma": 0.9}
    monkeypatch.setitem(learning.CHECKS, "sac-pendulum", dataclasses.replace(check, settings=other))
    learning._curve("sac-pendulum", 0, tmp_path)
    assert len(list(tmp_path.glob("*/*"))) == 2
