"""The learner benchmark in small: every row is there, and ratios are quotients of what was measured."""

import sys
from pathlib import Path

import pytest

from robot_rl.benchmarks import learner
from robot_rl.benchmarks.peers import peer_process, peers_python
from robot_rl.commands import bench
from robot_rl.commands.result import Row
from robot_rl.errors import ConfigError, RobotRLError

WORKER = """import sys
print("ready", flush=True)
for line in sys.stdin:
    print(2 * float(line), flush=True)
"""


SMALL = learner.Amounts(
    batch=16, hidden=(8,), threads=(1,), rounds=1, updates=2, compile=False, env="Pendulum-v1", env_steps=80,
    env_warmup=40, env_window=10,
)  # fmt: skip


def test_rows_and_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("stable_baselines3")
    monkeypatch.setattr(learner, "peers_python", lambda: None)
    monkeypatch.setattr(learner, "ROWS", 300)
    monkeypatch.setitem(learner.SIZES, "Tiny-v0", (3, 2))
    rows = {row.name: row for row in learner.benchmark(("Tiny-v0",), SMALL).rows}
    assert "learner/sac/Tiny-v0/sbx" not in rows
    for algo in ("sac", "dsact"):
        row = rows[f"learner/{algo}/Tiny-v0/sb3"]
        peer = rows["learner/updates/Tiny-v0/sb3"].value
        assert row.value == rows[f"learner/updates/Tiny-v0/{algo}"].value
        assert row.ratio == pytest.approx(row.value / peer)
    end_to_end = rows["learner/end-to-end/Pendulum-v1/sb3"]
    assert end_to_end.ratio == pytest.approx(end_to_end.value / rows["learner/end-to-end/Pendulum-v1/sb3/rate"].value)


@pytest.mark.parametrize(
    ("row", "text"),
    [
        (Row("learner/sac-compiled/Humanoid-v5/sb3", 1.0, "", "sb3", 2.19), "2.19, asked 2.2"),
        (Row("learner/sac-compiled/Humanoid-v5/sb3", 1.0, "", "sb3", 2.21), ""),
        (Row("learner/sac-compiled/Humanoid-v5/sbx", 1.0, "", "sbx", 1.2), "1.20, asked 1.25"),
        (Row("learner/sac-bf16/Humanoid-v5/sb3", 1.0, "", "sb3", 2.7), "2.70, asked 2.8"),
        (Row("learner/sac/Humanoid-v5/sb3", 1.0, "", "sb3", 1.0), ""),
        (Row("learner/end-to-end-compiled/HalfCheetah-v5/sb3", 1.0, "", "sb3", 1.9), "1.90, asked 2.0"),
        (Row("learner/dsact/Humanoid-v5/time", 1.0, "ms", "sac", 1.7), "1.70 times sac's, asked at most 1.6"),
        (Row("learner/dsact/Humanoid-v5/time", 1.0, "ms", "sac", 0.9), ""),
    ],
)
def test_what_is_asked(row: Row, text: str) -> None:
    short = learner._falls_short(row)
    assert short.endswith(text)
    assert bool(short) == bool(text)


def test_flags_are_parsed_and_bad_ones_named() -> None:
    with pytest.raises(ConfigError, match="unknown size Ant-v5; valid: HalfCheetah-v5, Humanoid-v5"):
        bench.run(bench.BenchArgs("learner", ("--sizes", "Ant-v5", "--rounds", "1", "--no-compile")))
    with pytest.raises(ConfigError, match=r"env_warmup \+ 3 env_window = 2000 or more; got 900"):
        bench.run(bench.BenchArgs("learner", ("--env-steps", "900")))


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
