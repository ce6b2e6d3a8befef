"""The command line's frame: exit codes, JSON result, help, and what it says when something is missing."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

from robot_rl.commands import main as command_line
from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.errors import BundleError, ConfigError


@dataclass(frozen=True)
class Arguments:
    """Add numbers."""

    amount: int = 1
    """How much."""


def _run(arguments: Arguments) -> Result:
    if arguments.amount == 13:
        raise BundleError("policy.onnx is truncated: 10 bytes, manifest says 20")
    if arguments.amount == 14:
        raise ConfigError("amount must not be 14")
    if arguments.amount == 15:
        raise ModuleNotFoundError("No module named 'mujoco'", name="mujoco")
    row = Row("sum", float(arguments.amount), "1", reference="one", ratio=float(arguments.amount))
    return Result(ok=arguments.amount > 0, rows=(row,), reason="" if arguments.amount > 0 else "not positive")


VERB = Verb(Arguments, _run)


@pytest.fixture(autouse=True)
def _one_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "verb_under_test", sys.modules[__name__])
    entry = EntryPoint("add", "verb_under_test:VERB", "robot_rl.commands")
    monkeypatch.setattr(command_line, "load_verbs", lambda: {"add": entry})


def test_success_writes_json_that_a_script_can_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["add", "--amount", "3", "--json", str(tmp_path / "deep" / "r.json")]) == 0
    data = json.loads((tmp_path / "deep" / "r.json").read_text())
    assert data["ok"] is True
    assert data["rows"] == [{"name": "sum", "value": 3.0, "unit": "1", "reference": "one", "ratio": 3.0}]
    assert capsys.readouterr().out.split() == ["sum", "3", "1", "3", "x", "one"]


@pytest.mark.parametrize(
    ("argv", "code", "words"),
    [
        (["add", "--amount", "-1"], 1, "not positive"),
        (["add", "--amount", "13"], 1, "policy.onnx is truncated"),
        (["add", "--amount", "14"], 2, "amount must not be 14"),
        (["add", "--amount", "15"], 3, "pip install 'robot-rl[sim]'"),
        (["subtract"], 2, "unknown verb 'subtract'; valid: add"),
    ],
)
def test_failures_have_codes_and_reasons(
    argv: list[str], code: int, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command_line.main(argv) == code
    assert words in capsys.readouterr().err


def test_a_result_that_cannot_be_written_is_shown_all_the_same(tmp_path: Path, capsys) -> None:
    (tmp_path / "file").touch()
    assert command_line.main(["add", "--amount", "3", "--json", str(tmp_path / "file" / "r.json")]) == 1
    said = capsys.readouterr()
    assert said.out.startswith("sum")
    assert "r.json was not written: File exists" in said.err


def test_a_failure_is_in_the_json_too(tmp_path: Path) -> None:
    command_line.main([f"--json={tmp_path / 'r.json'}", "add", "--amount", "13"])
    data = json.loads((tmp_path / "r.json").read_text())
    assert (data["ok"], data["reason"]) == (False, "policy.onnx is truncated: 10 bytes, manifest says 20")


def test_a_wrong_flag_exits_with_2_and_says_what_is_valid(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_info:
        command_line.main(["add", "--amuont", "3"])
    assert exit_info.value.code == 2
    assert "--amount" in capsys.readouterr().err


def test_overview_lists_verbs_with_summaries(capsys: pytest.CaptureFixture[str]) -> None:
    assert command_line.main(["--help"]) == 0
    assert "add  Add numbers." in capsys.readouterr().out


def test_json_keeps_no_number_that_json_cannot_hold() -> None:
    text = Result(ok=True, rows=(Row("r", float("nan")),), details={"x": [float("inf")]}).to_json()
    assert json.loads(text)["rows"][0]["value"] is None
    assert json.loads(text)["details"] == {"x": [None]}


def test_help_of_the_installed_command_is_quick_to_reach() -> None:
    """`robot-rl --help` loads every verb module, so it also proves that none of them imports torch or mujoco."""
    code = (
        "import sys; from robot_rl.commands.main import main; code = main(['--help']);"
        "heavy = sorted({'torch', 'mujoco', 'rclpy', 'matplotlib'} & set(sys.modules)); print(heavy, file=sys.stderr);"
        "sys.exit(code or bool(heavy))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for verb in ("list", "train", "evaluate", "export", "verify", "deploy", "demo", "doctor", "bench"):
        assert f"  {verb} " in done.stdout


_VERBS_THAT_PRINT = """
import sys
import time
from dataclasses import dataclass
from importlib.metadata import EntryPoint
from robot_rl.commands import main as command_line
from robot_rl.commands.result import Result, Row

@dataclass(frozen=True)
class Arguments:
    'Print.'
    lines: int = 0
    wait: float = 0.0

def run(arguments):
    try:
        for line in range(arguments.lines):
            print(line, flush=True)
        time.sleep(arguments.wait)
    finally:
        time.sleep(min(arguments.wait, 0.5))
        if arguments.wait:
            print("ended in order", flush=True)
    return Result(True, (Row("sum", 1.0),))

sys.modules["printing"] = sys.modules["__main__"]
VERB = command_line.Verb(Arguments, run)
command_line.load_verbs = lambda: {"show": EntryPoint("show", "printing:VERB", "robot_rl.commands")}
command_line.console()
"""


@pytest.mark.parametrize(("lines", "code", "said"), [("0", 0, ""), ("5", 1, "robot-rl: stopped, because what read")])
def test_a_result_that_nobody_reads_is_no_failure_and_a_run_that_nobody_reads_ends(
    lines: str, code: int, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "r.json"
    arguments = [sys.executable, "-c", _VERBS_THAT_PRINT, "show", "--lines", lines, "--json", str(file)]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.close()  # as `head` does when it has its lines
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert errors.startswith(said)
    assert len(errors.splitlines()) == (1 if said else 0)
    assert file.exists() == (code == 0)


@pytest.mark.usefixtures("hangup_is_heard")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_verb_that_is_told_to_end_cleans_up(number: signal.Signals, code: int) -> None:
    arguments = [sys.executable, "-c", _VERBS_THAT_PRINT, "show", "--lines", "1", "--wait", "30"]
    process = subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "0\n"
    process.send_signal(number)
    time.sleep(0.1)
    process.send_signal(signal.SIGHUP)  # a lost terminal sends two
    said = process.communicate(timeout=20)[0]
    assert (said, process.returncode) == ("ended in order\n", code)
