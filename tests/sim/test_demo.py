"""The demonstration's parts that need no robot: what it concludes from records, and what its page shows."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from robot_rl.errors import ConfigError, RobotRLError
from robot_rl.networks.kinematics import TipKinematics
from robot_rl.robots import LEAP_HAND
from robot_rl_sim.commands import demo
from robot_rl_sim.demo import page, ros_session
from robot_rl_sim.demo.page import Findings, wilson, write_page
from robot_rl_sim.demo.processes import Processes
from robot_rl_sim.demo.ros_session import RosSession, analyse


def tips_of(joint_pos: np.ndarray) -> np.ndarray:
    kinematics = TipKinematics(LEAP_HAND, LEAP_HAND.chains)
    return kinematics(torch.from_numpy(joint_pos[None]).float())[0].double().numpy().ravel()


class FakeLog:
    """What read_log returns: ticks at 100 Hz for 8 s; states stop at 6 s; DAMP from 6.11 s on."""

    def __init__(self) -> None:
        ticks = np.arange(100.0, 108.0, 0.01)
        mode = ["run" if t < 106.05 else "hold" if t < 106.11 else "damp" for t in ticks]
        stamps = [min(t, 106.0) for t in ticks]
        self.messages = {
            "/mode": [{"t_s": t, "mode": m} for t, m in zip(ticks, mode, strict=True)],
            "/timing": [
                {"t_s": t, "age_s": t - s, "tick_s": 2e-4, "policy_s": 1e-4} for t, s in zip(ticks, stamps, strict=True)
            ],
            "/state": [{"t_s": t, "stamp_s": s} for t, s in zip(ticks, stamps, strict=True)],
        }


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RosSession:
    """Three goals of two seconds: reached; reached and left again too early; never reached."""
    pose = np.array([j.default_pos_rad for j in LEAP_HAND.joints])
    away = pose + 0.3
    times = np.arange(100.0, 107.5, 0.005)
    truth = np.array([pose if t < 103.9 else away for t in times])
    goals = np.stack([tips_of(pose), tips_of(pose), tips_of(pose)])
    events: list[dict] = [{"name": n, "time_s": t} for n, t in (("stand", 99.0), ("run", 99.9))]
    events += [{"name": "command", "time_s": t, "index": k} for k, t in enumerate((100.0, 102.0, 104.0))]
    events += [{"name": n, "time_s": t} for n, t in (("fault", 106.0), ("damped", 106.2))]
    record = {
        "events": events,
        "truth": {"time_s": times.tolist(), "joint_pos": truth.tolist()},
        "emulator": {"damping": True},
    }
    (tmp_path / "session.json").write_text(json.dumps(record))
    monkeypatch.setattr(ros_session, "read_log", lambda path: FakeLog())
    return analyse(tmp_path / "session.json", tmp_path / "session.mcap", goals, deadline_s=0.15)


def test_a_goal_counts_only_if_it_is_held_until_its_time_is_up(session: RosSession) -> None:
    assert session.success == (True, False, False)


def test_a_goal_that_was_interrupted_counts_as_it_ended(tmp_path: Path, session: RosSession, monkeypatch) -> None:
    """The second goal, left too early, is asked for once more while the hand is there again; the third likewise not."""
    assert session.interruptions == ()
    record = json.loads((tmp_path / "session.json").read_text())
    times, pose = np.array(record["truth"]["time_s"]), record["truth"]["joint_pos"][0]
    back = (times >= 104.5) & (times < 105.0)
    record["truth"]["joint_pos"] = [
        pose if b else row for b, row in zip(back, record["truth"]["joint_pos"], strict=True)
    ]
    events = [event for event in record["events"] if event.get("index") != 2]
    events += [
        {"name": "interrupted", "time_s": 103.5, "index": 1, "cause": "overrun"},
        {"name": "command", "time_s": 104.0, "index": 1},
        {"name": "command", "time_s": 105.0, "index": 2},
    ]
    record["events"] = sorted(events, key=lambda event: event["time_s"])
    (tmp_path / "again.json").write_text(json.dumps(record))
    again = analyse(tmp_path / "again.json", tmp_path / "session.mcap", session.goals, deadline_s=0.15)
    assert again.success == (True, True, False)
    assert again.interruptions == ("overrun",)
    assert again.goal_at.max() == 2


def test_damp_latency_runs_from_the_last_measurement_to_the_first_damping_tick(session: RosSession) -> None:
    assert session.fault_s == pytest.approx(7.0)
    assert session.damp_latency_s == pytest.approx(0.11, abs=1e-6)
    assert session.robot_damped


def test_error_is_the_worst_fingertip_and_unknown_before_the_first_goal(session: RosSession) -> None:
    assert session.worst_tip_error_m[0] == pytest.approx(0.0, abs=1e-6)
    pose = np.array([j.default_pos_rad for j in LEAP_HAND.joints])
    distances = np.linalg.norm((tips_of(pose + 0.3) - tips_of(pose)).reshape(4, 3), axis=1)
    assert session.worst_tip_error_m[-1] == pytest.approx(distances.max(), abs=1e-6)


def test_a_session_that_broke_off_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "s.json").write_text(json.dumps({"events": [{"name": "stand", "time_s": 1.0}], "truth": {}}))
    monkeypatch.setattr(ros_session, "read_log", lambda path: FakeLog())
    with pytest.raises(RobotRLError, match="never came to damped, fault, run"):
        analyse(tmp_path / "s.json", tmp_path / "s.mcap", np.zeros((1, 12)), 0.15)


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, Statistics in Medicine 17, table I, method 3 (score interval without continuity correction).
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_wilson_interval_matches_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


def test_page_shows_every_part_and_needs_no_other_file(session: RosSession, tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "progress.csv").write_text("step,wall_s,eval_return,eval_success\n100,1,-5,0.1\n150,1.5,,\n200,2,-1,0.95\n")
    findings = Findings(
        0.9, 0.8, "leap-reach", run, 120.0, {"trained": (190, 200), "zero": (0, 200)}, 3e-7, 64, session
    )
    findings.video_problem = "no OpenGL"
    write_page(tmp_path / "report.html", findings)
    text = (tmp_path / "report.html").read_text()
    for words in (
        "95%",
        "success rate",
        "trained, ROS 2 emulator",
        "state stream cut",
        "110 ms",
        "No video: no OpenGL",
    ):
        assert words in text, words
    assert "src=" not in text  # no image, script or style from elsewhere
    assert "http" not in text.replace("http://www.w3.org", "").replace("http://purl.org", "").replace(
        "http://creativecommons.org", ""
    ).replace("https://matplotlib.org", "")


def test_page_after_an_early_failure_says_why(tmp_path: Path) -> None:
    findings = Findings(0.9, 0.8, "leap-reach", failure="success in simulation is 12 % <of> 200")
    write_page(tmp_path / "report.html", findings)
    assert "success in simulation is 12 % &lt;of&gt; 200" in (tmp_path / "report.html").read_text()


def test_missing_ros_wheels_are_found_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from robot_rl.commands import main

    monkeypatch.setattr(demo, "find_spec", lambda name: None if name == "rclpy" else object())
    monkeypatch.setattr(demo, "_train", lambda *args: pytest.fail("training began"))
    assert main.main(["demo", "--out", str(tmp_path / "demo")]) == main.EXIT_MISSING
    assert "'rclpy' is not installed; pip install 'robot-rl[ros]'" in capsys.readouterr().err


def test_demo_replaces_its_own_folder_and_no_other(tmp_path: Path) -> None:
    out = tmp_path / "demo"
    demo._check_out(out)
    (out / "old.txt").touch()
    demo._check_out(out)
    assert [p.name for p in out.iterdir()] == [".robot-rl-demo"]
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(ConfigError, match="holds files that no demo wrote"):
        demo._check_out(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").exists()


def test_a_failed_step_fails_the_demo_with_its_reason_and_a_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(args: demo.DemoArgs, findings: Findings) -> None:
        raise RobotRLError("no disk left")

    monkeypatch.setattr(demo, "_train", fail)
    result = demo.run(demo.DemoArgs(out=tmp_path / "demo"))
    assert (result.ok, result.reason) == (False, "no disk left")
    assert "no disk left" in (tmp_path / "demo" / "report.html").read_text()


def test_a_process_that_fails_is_quoted_and_the_others_are_ended(tmp_path: Path) -> None:
    (tmp_path / "dies.py").write_text("import sys; print('bundle is truncated'); sys.exit(3)")
    (tmp_path / "runs.py").write_text("import time; time.sleep(60)")
    with Processes(tmp_path / "logs", {"PYTHONPATH": str(tmp_path)}) as processes:
        processes.start("emulator", "runs")
        processes.start("policy", "dies")
        with pytest.raises(RobotRLError, match=r"policy ended with exit code 3; (.|\n)*bundle is truncated"):
            processes.wait("policy", 20.0)
    assert all(p.poll() is not None for p in processes._running.values())


def test_video_is_left_out_with_its_reason_where_opengl_is_missing(
    session: RosSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class NoContext:
        def __init__(self, *_: object, **__: object) -> None:
            raise RuntimeError("cannot initialize EGL")

    monkeypatch.setattr("robot_rl_sim.video.mujoco.Renderer", NoContext)
    findings = Findings(0.9, 0.8, "leap-reach", session=session)
    page.try_video(findings, tmp_path / "v.mp4")
    assert findings.video is None
    assert "cannot initialize EGL" in findings.video_problem
    assert "apt install libegl1" in findings.video_problem
