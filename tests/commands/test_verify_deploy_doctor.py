import json
import os
import signal
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from pseudo_terminal import ProgramOnTerminal

from robot_rl.commands.deploy import DeployArgs
from robot_rl.commands.deploy import run as deploy
from robot_rl.commands.doctor import CHECKS, DoctorArgs
from robot_rl.commands.doctor import run as doctor
from robot_rl.commands.main import main
from robot_rl.errors import ConfigError, MissingDependencyError
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.log_reader import read_log
from robot_rl.testing.bundles import TinyPolicy

TINY = TinyPolicy(LEAP_HAND)
EXAMPLE = Path(__file__).parents[2] / "hardware" / "units" / "leap-example.yaml"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return TINY.write(tmp_path_factory.mktemp("b") / "bundle.zip")


def test_verify_reports_each_output_and_the_time(bundle: Path, tmp_path: Path, capsys) -> None:
    assert main(["verify", str(bundle), "--json", str(tmp_path / "result.json")]) == 0
    result = json.loads((tmp_path / "result.json").read_text())
    rows = {row["name"]: row for row in result["rows"]}
    assert {f"golden/{name}" for name in TINY.contract().output_names} < set(rows)
    assert rows["golden/action"]["reference"] == "tolerance"
    assert rows["golden/action"]["ratio"] < 1
    assert rows["policy/p50"]["unit"] == "ms"
    assert "golden/action" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("break_it", "arguments", "code", "message"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-100]), [], 1, "truncated"),
        (lambda p: p.unlink(), [], 1, "no such file"),
        (lambda p: None, ["--robot", "unitree_g1"], 1, "policy is for leap_hand/right"),
        (lambda p: None, ["--robot", "r2d2"], 2, "unknown robot 'r2d2'; valid: leap_hand, shadow_hand, unitree_g1"),
    ],
)
def test_verify_fails_in_one_line(tmp_path: Path, break_it, arguments, code: int, message: str, capsys) -> None:
    path = TINY.write(tmp_path / "bundle.zip")
    break_it(path)
    assert main(["verify", str(path), *arguments]) == code
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_verify_fails_where_the_golden_rows_do(tmp_path: Path, capsys) -> None:
    golden = TINY.golden()
    golden["out/joint_target"] += 1e-4
    path = TINY.write(tmp_path / "bundle", golden=golden)
    assert main(["verify", str(path)]) == 1
    assert "output 'joint_target' is off by 0.0001" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--duration", "--loop-rate-hz"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf"])
def test_deploy_refuses_what_makes_no_sense_before_it_reaches_for_a_robot(bundle, flag, value, capsys) -> None:
    assert main(["deploy", str(bundle), f"{flag}={value}"]) == 2
    said = capsys.readouterr()
    assert f"{flag} must be positive and finite, got {float(value)}" in said.err
    assert not said.out


@pytest.mark.realtime
def test_deploy_runs_unattended_on_the_mock_robot(bundle: Path, tmp_path: Path) -> None:
    args = DeployArgs(bundle, auto_run=True, duration=3.4, record=tmp_path / "log.mcap")
    result = deploy(args)
    rows = {row.name: row.value for row in result.rows}
    assert result.ok, result.reason
    assert rows["modes"] == "idle > damp > stand > run"
    assert rows["dropped log ticks"] == 0
    log = read_log(tmp_path / "log.mcap")
    assert log.metadata["interface"] == "mock"
    assert log.complete
    assert log.messages["/mode"][-1]["mode"] == "run"
    assert log.messages["/action"]


@pytest.mark.realtime
def test_deploy_moves_nothing_unasked_and_damps_on_ctrl_c(bundle: Path, tmp_path: Path) -> None:
    """Without --auto-run, and with no terminal: idle until SIGINT, then a second of damping and a clean exit."""
    command = [
        sys.executable,
        "-m",
        "robot_rl.commands.main",
        "deploy",
        str(bundle),
        "--json",
        str(tmp_path / "r.json"),
    ]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "idle" not in (line := process.stdout.readline()):
        assert line, "ended before it was idle"
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    started = time.monotonic()
    process.stdout.read()
    assert process.wait(10) == 0
    assert time.monotonic() - started >= 0.9
    result = json.loads((tmp_path / "r.json").read_text())
    assert result["details"]["ended_by"] == "SIGINT"
    assert result["details"]["modes"] == [["idle", "none"]]


@pytest.mark.realtime
@pytest.mark.parametrize(
    ("key", "number"), [("\x03", "SIGINT"), ("\x1c", "SIGQUIT"), ("\x1a", "SIGTSTP"), ("", "SIGHUP")]
)
def test_deploy_damps_and_keeps_its_result_whatever_is_typed_and_when_its_connection_is_lost(
    bundle: Path, tmp_path: Path, key: str, number: str
) -> None:
    command = [sys.executable, "-m", "robot_rl.commands.main", "deploy", str(bundle)]
    program = ProgramOnTerminal([*command, "--json", str(tmp_path / "r.json"), "--record", str(tmp_path / "log.mcap")])
    program.read_until("idle")
    if key:
        program.type(key)
    else:
        program.lose()
    started = time.monotonic()
    assert program.process.wait(10) == 0
    assert time.monotonic() - started >= 0.9
    assert json.loads((tmp_path / "r.json").read_text())["details"]["ended_by"] == number
    assert read_log(tmp_path / "log.mcap").complete


@pytest.mark.realtime
def test_deploy_obeys_typed_requests(bundle: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "robot_rl.commands.main", "deploy", str(bundle), "--duration", "1.5"]
    words = "dance\nstand\n"
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    while "idle" not in (line := process.stdout.readline()):
        assert line, "ended before it was idle"
    process.stdin.write(words)
    process.stdin.close()
    out = process.stdout.read()
    assert process.wait(10) == 0
    assert "unknown request 'dance'; valid: stand, run, stop, estop, reset" in out
    assert "idle > damp > stand" in out


@pytest.mark.realtime
def test_a_halted_terminal_holds_up_no_robot(bundle: Path, tmp_path: Path) -> None:
    """Ctrl-S, which takes effect with the next line that is written."""
    command = [sys.executable, "-m", "robot_rl.commands.main", "deploy", str(bundle)]
    program = ProgramOnTerminal([*command, "--json", str(tmp_path / "r.json")])
    program.read_until("idle")
    program.type("\x13")
    program.type("stand\n")
    time.sleep(2.0)
    program.process.send_signal(signal.SIGTERM)
    time.sleep(1.5)
    program.type("\x11")  # Ctrl-Q
    assert program.process.wait(10) == 0
    result = json.loads((tmp_path / "r.json").read_text())
    assert [mode for mode, _ in result["details"]["modes"] if mode != "idle"][:2] == ["damp", "stand"]
    (worst_ms,) = [row["value"] for row in result["rows"] if row["name"] == "late/worst"]
    assert worst_ms < 500


@pytest.mark.realtime
@pytest.mark.parametrize("priority", [0, 20])
def test_deploy_asks_for_real_time_and_says_what_it_got(bundle: Path, priority: int) -> None:
    flags = ["--duration", "1.5", "--realtime-priority", str(priority)]
    command = [sys.executable, "-m", "robot_rl.commands.main", "deploy", str(bundle), *flags]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "scheduling: " not in (line := process.stdout.readline()):
        assert line, "ended before it said how it is scheduled"
    policy, of_thread = os.sched_getscheduler(process.pid), os.sched_getparam(process.pid).sched_priority
    process.communicate()
    assert process.returncode == 0
    if priority and "not granted" not in line:
        assert policy == os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
        assert (of_thread, f"SCHED_FIFO {priority};" in line) == (priority, True)
    else:
        assert policy == os.SCHED_OTHER
        assert priority or line == "scheduling: as started\n"


@pytest.mark.realtime
def test_deploy_keeps_to_its_core(bundle: Path) -> None:
    core = max(os.sched_getaffinity(0))
    flags = ["--duration", "1.5", "--cpu-affinity", str(core)]
    command = [sys.executable, "-m", "robot_rl.commands.main", "deploy", str(bundle), *flags]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    while "scheduling: " not in (line := process.stdout.readline()):
        assert line, "ended before it said how it is scheduled"
    kept = os.sched_getaffinity(process.pid)
    process.communicate()
    assert (line, kept, process.returncode) == (f"scheduling: as started; on core {core}\n", {core}, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"interface": "telepathy"}, "unknown interface 'telepathy'; valid: leap_hand, mock, ros, sim"),
        ({"interface": "ros", "auto_run": True}, "--auto-run is for simulated robots"),
        ({"interface": "leap_hand", "auto_run": True}, "--auto-run is for simulated robots"),
        ({"interface": "leap_hand"}, "interface 'leap_hand' needs --unit FILE"),
        ({"unit": EXAMPLE, "auto_run": True}, "--auto-run is for simulated robots"),
        ({"unit": EXAMPLE, "interface": "ros"}, "reached by 'leap_hand', not by 'ros'; valid: leap_hand, mock, sim"),
        ({"unit": EXAMPLE, "robot": "unitree_g1"}, "unit 'leap-example' is a leap_hand, not a unitree_g1"),
        ({"command": (1.0, 2.0)}, r"command 'velocity' has 3 numbers \(m/s\), got 2"),
        ({"loop_rate_hz": 30.0}, "does not divide the policy's control period"),
        ({"duration": 0.0}, "--duration must be positive"),
        ({"realtime_priority": 91}, r"--realtime-priority must lie in \[0, 90\], got 91"),
        ({"cpu_affinity": (4096,)}, r"cores must be some of \[\d.*\], or \[-1\] for any, got \[4096\]"),
        ({"robot": "r2d2"}, "unknown robot"),
    ],
)
def test_deploy_refuses_before_anything_moves(bundle: Path, arguments: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        deploy(DeployArgs(bundle, **arguments))


def test_deploy_over_ros_becomes_the_policy_node(bundle: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    called: list = []
    monkeypatch.setattr(os, "execv", lambda path, argv: called.append((path, argv)) or sys.exit(0))
    monkeypatch.setattr("shutil.which", lambda _: "/somewhere/policy_node")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    core = min(os.sched_getaffinity(0))
    with pytest.raises(SystemExit):
        deploy(DeployArgs(bundle, interface="ros", loop_rate_hz=100.0, realtime_priority=20, cpu_affinity=(core,)))
    path, argv = called[0]
    assert path == argv[0] == "/somewhere/policy_node"
    assert argv[1] == "--ros-args"
    assert {f"bundle:={bundle.resolve()}", "robot:=leap_hand", "loop_rate_hz:=100.0"} <= set(argv)
    assert {"realtime_priority:=20", f"cpu_affinity:=[{core}]"} <= set(argv)
    monkeypatch.setattr("shutil.which", lambda _: None)
    with pytest.raises(MissingDependencyError, match="policy node is not installed"):
        deploy(DeployArgs(bundle, interface="ros"))


@pytest.mark.realtime
def test_deploy_says_why_an_unattended_run_failed(bundle: Path, tmp_path: Path, capsys) -> None:
    assert main(["deploy", str(bundle), "--auto-run", "--duration", "0.5"]) == 1
    assert "the policy never ran: ended in mode stand" in capsys.readouterr().err


@pytest.mark.realtime
def test_a_units_thresholds_hold_and_are_named(bundle: Path, tmp_path: Path, capsys) -> None:
    """A simulated robot stands in for the unit. It runs a second earlier than the robot's own profile lets it."""
    unit = tmp_path / "quick.yaml"
    safety = "{stand_duration_s: 0.4, joint_vel_trip_rad_s: 9.0}"
    unit.write_text(f"serial: quick\nrobot: leap_hand\ndriver: {{name: leap_hand}}\nsafety: {safety}\n")
    result = deploy(DeployArgs(bundle, interface="mock", unit=unit, auto_run=True, duration=1.8))
    assert result.ok, result.reason
    out = capsys.readouterr().out
    assert "unit quick: safety limit stand_duration_s WIDENED from 2.0 to 0.4" in out
    assert "unit quick: safety limit joint_vel_trip_rad_s tightened" in out


def test_drivers_are_registered() -> None:
    drivers = {e.name: e for e in entry_points(group="robot_rl.drivers")}
    assert {"mock", "sim", "leap_hand"} <= set(drivers)
    with drivers["mock"].load()(LEAP_HAND) as robot:
        assert robot.read() is not None


def test_doctor_names_every_part_with_its_fix() -> None:
    result = doctor(DoctorArgs())
    assert result.ok, result.reason
    assert {"python", "torch", "mujoco", "onnxruntime", "disk", "clock", "real-time", "ros"} <= set(result.details)
    for name, found in result.details.items():
        assert found["status"] in ("ok", "warn"), name
        assert found["found"]
        assert found["fix"] or found["status"] == "ok"


def test_doctor_fails_where_the_laptop_path_lacks_something(monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    import importlib.util

    good = importlib.util.find_spec
    absent = {"mujoco", "stable_baselines3", "rclpy"}
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *a: None if name in absent else good(name, *a))
    assert main(["doctor"]) == 1
    captured = capsys.readouterr()
    assert "missing: mujoco" in captured.err
    assert "pip install 'robot-rl[sim]'" in captured.out
    assert "pip install 'robot-rl[sb3]'" in captured.out


def test_doctor_warns_of_a_network_wide_ros(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rclpy")
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "SUBNET")
    assert doctor(DoctorArgs()).details["ros discovery"]["status"] == "warn"
    monkeypatch.setenv("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    assert doctor(DoctorArgs()).details["ros discovery"]["status"] == "ok"


def test_doctor_checks_stand_alone() -> None:
    for check in CHECKS:
        assert check(), check.__name__
