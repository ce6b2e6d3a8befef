"""However a process ends, the robot is damped in time and stays so; and the table is made of what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy")

from robot_rl.commands.result import Row
from robot_rl.robots import LEAP_HAND
from robot_rl.testing.bundles import TinyPolicy
from robot_rl_bridge.exit_paths import PATHS, ExitPath, markdown, take

pytestmark = pytest.mark.ros

# From a bench that is busy with other tests; `robot-rl bench exits` holds the figures to the deadlines themselves.
SLACK_S = 0.05
QUICK = {"policy/sigkill", "watchdog/sigkill", "policy/exception"}


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TinyPolicy(LEAP_HAND).write(tmp_path_factory.mktemp("exit_paths") / "tiny.zip")


@pytest.mark.parametrize(
    "path", [pytest.param(p, id=p.name, marks=() if p.name in QUICK else pytest.mark.slow) for p in PATHS]
)
def test_the_robot_ends_damped(path: ExitPath, bundle: Path, ros_domain: int) -> None:
    outcome = take(path, bundle, "stand")
    assert outcome.latency_s <= path.deadline_s + SLACK_S
    assert outcome.stayed
    # Whoever is left does not go on as if nothing had happened.
    assert outcome.mode not in ("run", "stand")


def test_all_ends_of_all_processes_are_in_the_table() -> None:
    signals = {"sigkill", "sigstop", "sigint", "sigterm", "sighup"}
    ends = {node: {p.how.lower() for p in PATHS if p.node == node} for node in ("policy", "watchdog", "emulator")}
    assert ends == dict.fromkeys(("policy", "watchdog", "emulator"), signals | {"exception"})
    table = markdown([Row(f"exit/{p.name}", 0.0123, "s") for p in PATHS])
    assert table.count("| 12 ms |") == len(PATHS)
