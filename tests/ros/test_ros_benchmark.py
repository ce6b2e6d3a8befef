"""The benchmark finds out which state an answer rests on, and a short run of it answers what was asked."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("rclpy")

from std_msgs.msg import Float64MultiArray

from robot_rl.errors import RobotRLError
from robot_rl_bridge import benchmark, converters, ros_compat
from robot_rl_bridge.benchmark import LIFE_S, Answers, Robot
from robot_rl_bridge.outputs import COMMAND_TOPIC

pytestmark = pytest.mark.ros


def test_an_answer_belongs_to_the_state_whose_stamp_it_carries(ros_domain, monkeypatch) -> None:
    with ros_compat.ros_context([]) as executor:
        robot = Robot(executor, 100.0)
        robot.answers = answers = Answers(sent_s=[10.00, 10.01, 10.02])
        robot._wall_offset_s = 1000.0
        now = [10.0132]
        monkeypatch.setattr(benchmark.time, "monotonic", lambda: now[0])

        def answer(sent_s: float, life_s: float, kp: float = 40.0) -> None:
            rows = np.repeat([0.0, 0.0, 0.0, kp, 1.0], 29)
            robot._on_answer(Float64MultiArray(data=converters.doubles([1.0, 1.0, sent_s, life_s, *rows])))

        # Sent at 10.013, to live until the state's stamp plus LIFE_S: it rests on the state of 10.01.
        robot._by_expiry = True
        answer(10.013, LIFE_S - 0.003)
        assert answers.round_trip_s == {1: pytest.approx(0.0032)}
        # Damping rests on no state: the policy was stopped.
        answer(10.013, LIFE_S, kp=0.0)
        assert (len(answers.round_trip_s), answers.limp) == (1, 1)
        # An echo, with the stamp on the wall clock; later answers to the same state do not count.
        robot._by_expiry = False
        answer(1010.0, 0.0)
        now[0] = 10.5
        answer(1010.0, 0.0)
        assert answers.round_trip_s[0] == pytest.approx(0.0132)
    # The first came after its period, the last had no time.
    assert answers.missed(0.01) == 1
    assert Answers(sent_s=[1.0, 2.0, 3.0], round_trip_s={0: 0.001}).missed(0.01) == 1


def test_no_answer_is_no_measurement(ros_domain) -> None:
    with ros_compat.ros_context([]) as executor:
        robot = Robot(executor, 100.0)
        with pytest.raises(RobotRLError, match=r"nothing came back in 0\.1 s"):
            robot.measure(0.1, [])


def test_what_was_measured_while_the_policy_was_stopped_is_measured_again(monkeypatch, tmp_path: Path) -> None:
    measured = [Answers(limp=3), Answers(limp=1, round_trip_s={0: 0.1}), Answers(round_trip_s={0: 0.2})]

    class Stopping:
        def measure(self, seconds: float, processes: list) -> Answers:
            return measured.pop(0)

    brought_to_run = []
    monkeypatch.setattr(benchmark, "_run_policy", lambda *_: brought_to_run.append(True))
    answers, repeated = benchmark._policy(Stopping(), tmp_path, [])  # type: ignore[arg-type]
    assert (answers.round_trip_s, repeated, len(brought_to_run)) == ({0: 0.2}, 2, 2)


def test_rounds_are_compared_one_by_one() -> None:
    def answers(*times_s: float) -> Answers:
        return Answers(sent_s=[0.0] * len(times_s), round_trip_s=dict(enumerate(times_s)))

    # The second round is all slower, which is no difference between the two.
    policy = [answers(0.1, 0.2, 0.9), answers(2.0, 2.0, 8.0)]
    echo = [answers(0.1, 0.1, 0.1), answers(1.0, 1.0, 1.0)]
    assert benchmark._by_round(policy, echo) == [pytest.approx(2.0), pytest.approx(2.0)]


@pytest.mark.slow
def test_a_short_run(ros_domain, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(benchmark, "ROUNDS", 1)
    started_s = time.monotonic()
    rows = {r.name.removeprefix("ros/50Hz/"): r for r in benchmark._at_rate(50.0, tmp_path)}
    assert time.monotonic() - started_s < 120.0
    for way in ("echo", "floor", "policy", "watchdog"):
        # Nothing is faster than a message's way there and back, nor slower than a period.
        assert 0.1 < rows[f"{way}/p50"].value < 20.0
        assert 0.0 < rows[f"{way}/cpu_per_cycle"].value < 20.0
    assert rows["policy/p50"].ratio == pytest.approx(rows["policy/p50"].value / rows["echo/p50"].value)
    # Of the only round.
    for other in ("echo", "floor"):
        to_other = rows["policy/p50"].value / rows[f"{other}/p50"].value
        row = rows[f"policy/p50-to-{other}"]
        assert row.value == pytest.approx(to_other)
        assert (row.reference, row.ratio) == (
            ("target", pytest.approx(to_other / 1.4)) if other == "echo" else (None, None)
        )
    assert rows["torch_in_process"].value is False


@pytest.mark.slow
@pytest.mark.parametrize("bare", ["true", "false"])
def test_an_echo_answers_and_ends_when_told_to(ros_domain, tmp_path: Path, bare: str) -> None:
    with ros_compat.ros_context([]) as executor:
        robot = Robot(executor, 50.0)
        robot.listen(COMMAND_TOPIC, by_expiry=False)
        with benchmark._nodes(tmp_path, ("echo", (f"bare:={bare}",))) as processes:
            robot.answers = answers = Answers(sent_s=[time.monotonic()])
            assert ros_compat.spin_while(executor, lambda: not answers.round_trip_s, 30.0)
    assert processes[0].returncode == 0, (tmp_path / "echo.log").read_text()
