"""The comparison on recordings of mixed quality, in miniature."""

import json
from pathlib import Path
from typing import Any

import pytest

from robot_rl.algorithms.arsq import ARSQConfig
from robot_rl.benchmarks import learning_arsq
from robot_rl.benchmarks.learning_arsq import METHODS, Amounts, Problem, benchmark


def amounts(folder: Path, **changes: Any) -> Amounts:
    tiny: dict[str, Any] = {
        "tasks": ("gym:Pendulum-v1", "paired:gym:Pendulum-v1"), "seeds": (0, 1), "good_episodes": 1, "steps": 20,
        "evaluations": 2,
        "problems": dict.fromkeys(
            ("gym:Pendulum-v1", "paired:gym:Pendulum-v1"),
            Problem(ARSQConfig(hidden=(8,), batch_size=8, levels=1, bins=5), record_env_steps=250),
        ),
    }  # fmt: skip
    return Amounts(folder=folder, **{**tiny, **changes})


@pytest.mark.slow
def test_one_command_records_learns_compares_and_does_not_repeat_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_arsq, "ROBOT_TASKS", ())
    result = benchmark(amounts(tmp_path))
    rows: dict[str, Any] = {row.name: row for row in result.rows}
    for task in ("pendulum", "paired-pendulum"):
        name = f"learning/arsq-{task}"
        for method in METHODS:
            seeds = [rows[f"{name}/{method}/seed-{seed}"].value for seed in (0, 1)]
            assert rows[f"{name}/{method}"].value == pytest.approx(sum(seeds) / 2)
        arsq = rows[f"{name}/arsq"].value
        recorded, random = (rows[f"{name}/{level}"].value for level in ("recorded", "random"))
        for baseline in ("separate", "none", "independent"):
            ratio, other = rows[f"{name}/ratio-to-{baseline}"].value, rows[f"{name}/{baseline}"].value
            if other > 0 and arsq + random >= recorded:
                assert ratio == pytest.approx(arsq / other)
            else:
                assert ratio is None
    # One dimension and one level: that choices know of each other makes no difference.
    assert len({rows[f"learning/arsq-pendulum/{m}"].value for m in ("arsq", "independent", "none")}) == 1
    judged = rows["learning/arsq-pendulum/ratio"]
    assert judged.value == rows["learning/arsq-pendulum/ratio-to-separate"].value
    assert judged.ratio == (None if judged.value is None else pytest.approx(judged.value / 1.3))
    assert "learning/arsq-paired-pendulum/ratio" not in rows  # a diagnostic
    assert result.ok == ((judged.ratio or 0) >= 1) == (result.reason == "")
    assert json.loads((tmp_path / "result.json").read_text())["ok"] == result.ok
    assert (tmp_path / "curves.png").stat().st_size > 10_000

    monkeypatch.setattr(learning_arsq, "learn", lambda *args: pytest.fail("a finished run was repeated"))
    assert [r.value for r in benchmark(amounts(tmp_path)).rows if "acting" not in r.name] == [
        r.value for r in result.rows if "acting" not in r.name
    ]
    with pytest.raises(pytest.fail.Exception):
        benchmark(amounts(tmp_path, steps=30))


def test_each_learner_that_clones_chooses_how_strongly_on_a_seed_of_its_own(tmp_path, monkeypatch):
    best = {"arsq": (0.0, 1.0), "separate": (0.03, 1.0)}

    def run(task, method, seed, amounts):
        assert seed == learning_arsq.TUNING_SEED
        config = amounts.problems[task].config
        assert config.bins == 5
        return {1: 9.0, 2: float(best[method] == (config.bc_weight, config.bc_clamp))}

    monkeypatch.setattr(learning_arsq, "run", run)
    asked = amounts(tmp_path, tune=True)
    assert learning_arsq.TUNING_SEED not in asked.seeds
    for method, (weight, clamp) in best.items():
        config = learning_arsq.tuned("gym:Pendulum-v1", method, asked).problems["gym:Pendulum-v1"].config
        assert (config.bc_weight, config.bc_clamp) == (weight, clamp)
    assert learning_arsq.tuned("gym:Pendulum-v1", "iql", asked) is asked
    assert learning_arsq.tuned("gym:Pendulum-v1", "arsq", amounts(tmp_path)) == amounts(tmp_path)


@pytest.mark.slow
def test_with_tuning_the_result_says_what_was_chosen(tmp_path, monkeypatch):
    monkeypatch.setattr(learning_arsq, "ROBOT_TASKS", ())
    asked = amounts(tmp_path, tasks=("gym:Pendulum-v1",), methods=("arsq", "separate"), tune=True, steps=8)
    rows: dict[str, Any] = {row.name: row.value for row in benchmark(asked).rows}
    chosen = {f"{w:g}, C_m {c:g}" for w, c in learning_arsq.CLONING}
    assert {rows["learning/arsq-pendulum/arsq/cloning"], rows["learning/arsq-pendulum/separate/cloning"]} <= chosen


def test_a_ratio_of_failures_is_none():
    levels = {"random": -300.0, "recorded": 100.0}
    assert learning_arsq._ratio({"arsq": 600.0, "independent": 400.0}, "independent", levels) == 1.5
    assert learning_arsq._ratio({"arsq": 60.0, "independent": 20.0}, "independent", levels) is None  # both at random
    assert learning_arsq._ratio({"arsq": 600.0, "independent": -1.0}, "independent", levels) is None
    assert learning_arsq._ratio({"arsq": 600.0}, "independent", levels) is None
