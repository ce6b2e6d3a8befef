"""A scripted session: what a check ends on the way is repeated, a little, and said."""

from typing import Any

import pytest

pytest.importorskip("rclpy")

from robot_rl_bridge import ros_compat
from robot_rl_bridge.operator import OperatorError
from robot_rl_bridge.session import MOST_INTERRUPTIONS, Session

pytestmark = pytest.mark.ros


class Hand:
    """Takes the place of node and operator: after each command the policy is in the next of `modes`."""

    def __init__(self, modes: list[str]) -> None:
        self.modes, self.brought_to, self.status = modes, [], {}

    def create_subscription(self, *_: Any) -> None: ...
    def up(self) -> None: ...
    def down(self) -> None: ...

    def bring_to(self, mode: str) -> int:
        self.brought_to.append(mode)
        return 2

    def send_command(self, values: list[float]) -> None:
        mode = self.modes.pop(0) if self.brought_to[-1] == "run" else "stand"
        self.status = {"mode": mode, "cause": "none" if mode == "run" else "overrun"}


def play(modes: list[str], monkeypatch: pytest.MonkeyPatch) -> tuple[Session, Hand]:
    monkeypatch.setattr(ros_compat, "spin_until", lambda executor, deadline_s: None)
    hand: Any = Hand(modes)
    played = Session(hand, None, hand, "emulator")
    played.play([[0.0], [1.0], [2.0]], 0.001, fault="")
    return played, hand


def names(played: Session) -> list[tuple[str, int | None]]:
    return [(event["name"], event.get("index")) for event in played.record["events"]]


def test_a_command_in_which_a_check_ends_the_run_is_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    played, hand = play(["run", "damp", "run", "run"], monkeypatch)
    commands = [("command", 0), ("command", 1), ("interrupted", 1), ("command", 1), ("command", 2)]
    assert names(played) == [("up", None), ("stand", None), ("run", None), *commands, ("down", None)]
    assert [e["attempts"] for e in played.record["events"] if e["name"] in ("stand", "run")] == [2, 2]
    assert hand.brought_to == ["stand", "run", "run"]
    assert [e["cause"] for e in played.record["events"] if e["name"] == "interrupted"] == ["overrun"]


def test_a_run_that_ends_again_and_again_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OperatorError, match=r"left run during command 1: .*overrun"):
        play(["run", *["damp"] * (MOST_INTERRUPTIONS + 1)], monkeypatch)
