"""A fault of each boundary over ROS 2, with the processes that a user starts; `robot-rl faults --ros` runs them all."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from robot_rl.errors import ConfigError
from robot_rl.robots import UNITREE_G1
from robot_rl.testing.bundles import TinyPolicy
from robot_rl_bridge.fault_trials import Trials

pytestmark = pytest.mark.ros

BUNDLE = Path(__file__).parents[2] / "policies/leap_hand/leap-reach/v1"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "cause", "mode", "damped"),
    [
        ("nan/one", "", "run", False),
        ("duplicate/lasting", "state_stale", "damp", True),
        ("policy_nan/lasting", "policy_invalid", "hold", False),
        ("policy_hangs/lasting", "expired", "run", True),
        ("second_publisher/watchdog", "", "run", False),
        ("second_publisher/robot", "", "run", False),
    ],
)
def test_a_fault_over_ros(ros_domain: int, name: str, cause: str, mode: str, damped: bool) -> None:
    outcome = Trials(BUNDLE).run[name]()
    assert outcome.problem == ""
    # A policy that hangs says nothing any more: the last mode that was heard of is run.
    assert (outcome.cause, outcome.mode, outcome.robot_damped) == (cause, mode, damped)


def test_another_robot_is_refused(tmp_path: Path) -> None:
    path = TinyPolicy(UNITREE_G1, control_period_s=0.02, command_dim=0).write(tmp_path / "g1.zip")
    with pytest.raises(ConfigError, match="leap_hand only, not unitree_g1"):
        Trials(path)
