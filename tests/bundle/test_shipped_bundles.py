"""Bundles that are shipped prove themselves here, and do what their README says."""

from pathlib import Path

import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.bundle.verify import verify_bundle
from robot_rl.robots import get_robot

POLICIES = Path(__file__).parents[2] / "policies"
BUNDLES = sorted(path.parent for path in POLICIES.rglob("manifest.json"))


def test_there_are_some() -> None:
    assert BUNDLES


@pytest.mark.parametrize("path", BUNDLES, ids=lambda p: "/".join(p.parts[-3:]))
def test_it_verifies_for_its_robot_and_lies_where_it_belongs(path: Path) -> None:
    bundle = load_bundle(path)
    assert path.parts[-3:-1] == (bundle.contract.robot, bundle.manifest.task)
    result = verify_bundle(path, get_robot(bundle.contract.robot))
    result.require_ok()
    assert result.rows >= 32
    assert sum(file.stat().st_size for file in path.iterdir()) < 2_000_000


def test_the_hand_policy_reaches_nine_goals_in_ten() -> None:
    pytest.importorskip("mujoco")
    from robot_rl.commands import evaluate

    path = POLICIES / "leap_hand" / "leap-reach" / "v1"
    result = evaluate.run(evaluate.EvaluateArgs(policy=str(path), episodes=100, seed=12))
    wins = {name: sum(evaluation["successes"]) for name, evaluation in result.details.items()}
    assert wins["trained"] >= 90
    assert wins["zero"] == wins["random"] == 0


def test_a_bundle_of_another_contract_is_refused() -> None:
    from robot_rl.commands import evaluate
    from robot_rl.errors import ConfigError

    path = POLICIES / "leap_hand" / "leap-reach" / "v1"
    for task in ("g1-balance", "gym:Pendulum-v1"):
        with pytest.raises(ConfigError, match=f"made for robot 'leap_hand' and task 'leap-reach'.*{task}"):
            evaluate.run(evaluate.EvaluateArgs(policy=str(path), task=task, episodes=4))
