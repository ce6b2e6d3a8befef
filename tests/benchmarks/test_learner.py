"""The learner benchmark in small: every row is there, and ratios are quotients of what was measured."""

import sys
from pathlib import Path

import pytest

from robot_rl.benchmarks import learner
from robot_rl.benchmarks.peers import peer_process, peers_python
from robot_rl.errors import RobotRLError

WORKER = """import sys
print("ready", flush=True)
for line in sys.stdin:
    print(2 * float(line), flush=True)
"""


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3")
    for name, value in {"SIZES": {"Tiny-v0": (3, 2)}, "ROUNDS": 1, "UPDATES": 2, "THREADS": (1,), "ROWS": 300,
                        "HIDDEN": (8,), "END_TO_END_ENV": "Pendulum-v1", "END_TO_END_STEPS": 80, "WARMUP": 40,
                        "WINDOW": 10,
                        "COMPILE": False}.items():  # fmt: skip
        monkeypatch.setattr(learner, name, value)


def test_rows_and_ratios(small: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learner, "peers_python", lambda: None)
    rows = {row.name: row for row in learner.benchmark().rows}
    assert "learner/sac/Tiny-v0/sbx" not in rows
    for algo in ("sac", "dsact"):
        row = rows[f"learner/{algo}/Tiny-v0/sb3"]
        peer = rows["learner/updates/Tiny-v0/sb3"].value
        assert row.value == rows[f"learner/updates/Tiny-v0/{algo}"].value
        assert row.ratio == pytest.approx(row.value / peer)
    end_to_end = rows["learner/end-to-end/Pendulum-v1/sb3"]
    assert end_to_end.ratio == pytest.approx(end_to_end.value / rows["learner/end-to-end/Pendulum-v1/sb3/rate"].value)


def test_a_peer_in_another_interpreter_is_asked_and_ended(tmp_path: Path) -> None:
    worker = tmp_path / "worker.py"
    worker.write_text(WORKER)
    with peer_process(Path(sys.executable), worker, "3", "2") as ask:
        assert ask(7) == 14.0
    worker.write_text("raise SystemExit('no sbx')")
    with pytest.raises(RobotRLError, match="make peers"), peer_process(Path(sys.executable), worker):
        pass


def test_peers_are_found_where_make_puts_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ROBOT_RL_PEERS", str(tmp_path))
    assert peers_python() is None
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").touch()
    assert peers_python() == tmp_path / "bin" / "python"
