"""The simulation benchmark: that the reference does the same physics, and that the rows say what was promised."""

import mujoco
import numpy as np
import pytest
import torch

from robot_rl_sim import benchmark, benchmark_peers, benchmark_scaling
from robot_rl_sim.benchmark_peers import PhysicsOnly
from robot_rl_sim.tasks import TASKS


@pytest.mark.parametrize("name", TASKS)
def test_physics_only_repeats_what_the_environment_did(name: str) -> None:
    """Nominal dynamics, no episode end: the recorded states and controls must lead to the environment's own state."""
    env = TASKS[name].make_env(num_envs=4, seed=0, randomize=False, num_threads=1)
    actions = 0.3 * torch.rand(20, 4, env.action_dim, generator=torch.Generator().manual_seed(0))
    physics = PhysicsOnly(env, actions, segment=10)
    assert physics.run() == 80
    last_segment = physics._state[4:, -1]  # the second segments of all four; time, qpos, qvel
    np.testing.assert_allclose(last_segment[:, 1 : 1 + env.sim.qpos.shape[1]], env.sim.qpos, atol=1e-3)


@pytest.mark.parametrize("compiled", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_rows_name_value_and_reference(monkeypatch, compiled: bool) -> None:
    monkeypatch.setattr(benchmark, "peers_python", lambda: None)
    monkeypatch.setattr(benchmark, "compiler_found", lambda: compiled)
    rows = benchmark.benchmark_task(TASKS["leap-reach"], rounds=1, round_s=0.01)
    name = f"env/leap-reach/{benchmark.NUM_ENVS}"
    own = [name, f"{name}/compiled"] if compiled else [name]
    references = ["mujoco.rollout", "gymnasium.AsyncVectorEnv", "sb3.SubprocVecEnv"]
    ours = [r for r in rows if r.name in own]
    assert [(r.name, r.reference) for r in ours] == [(n, reference) for n in own for reference in references]
    theirs = {r.name.removeprefix(f"{name}/"): r.value for r in rows if r.name not in own}
    for row in ours:
        assert row.value > 0
        assert row.ratio == pytest.approx(row.value / theirs[row.reference])


def test_the_bare_environment_steps_the_same_physics() -> None:
    env = TASKS["g1-balance"].make_env(num_envs=1, seed=0, randomize=False, num_threads=1)
    bare = benchmark_peers.bare_env(env)
    bare.reset(seed=0)
    action = np.full(env.action_dim, 0.1, np.float32)
    data = mujoco.MjData(bare.model)
    data.qpos[:] = bare.start
    low, high = bare.model.jnt_range[1:].T
    data.ctrl[:] = low + 0.55 * (high - low)
    for _ in range(3):
        obs, *_ = bare.step(action)
        mujoco.mj_step(bare.model, data, env.sim.substeps)
    np.testing.assert_allclose(obs, np.concatenate((data.qpos, data.qvel)), atol=1e-4)


def test_scaling_rows_and_plot(monkeypatch, tmp_path) -> None:
    monkeypatch.setattr(benchmark_scaling, "SIZES", (2, 4))
    monkeypatch.setattr(benchmark_scaling, "TASK_NAMES", ("leap-reach",))
    monkeypatch.setattr(benchmark_scaling, "ROUNDS", 1)
    monkeypatch.setattr(benchmark_scaling, "ROUND_S", 0.1)
    monkeypatch.setattr(benchmark_scaling, "PLOT", tmp_path / "scaling.png")
    ours = np.ones(2**27)  # a gigabyte that is not the measured processes'
    rows = {r.name: r.value for r in benchmark_scaling.benchmark().rows}
    assert set(rows) == {f"scaling/leap-reach/{n}{end}" for n in (2, 4) for end in ("", "/memory")}
    assert 50 < rows["scaling/leap-reach/2/memory"] < 900
    assert len(ours)
    assert all(value > 0 for value in rows.values())
    assert (tmp_path / "scaling.png").read_bytes().startswith(b"\x89PNG")
