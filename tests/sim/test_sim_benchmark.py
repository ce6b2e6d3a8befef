"""The simulation benchmark: that the reference does the same physics, and that the rows say what was promised."""

import numpy as np
import pytest
import torch

from robot_rl_sim.benchmark import NUM_ENVS, _benchmark_task
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


def test_rows_name_value_and_reference() -> None:
    rows = _benchmark_task(TASKS["leap-reach"], rounds=1, round_s=0.01)
    ours = [r for r in rows if r.name == f"env/leap-reach/{NUM_ENVS}"]
    assert [r.reference for r in ours] == ["mujoco.rollout", "gymnasium.SyncVectorEnv", "gymnasium.AsyncVectorEnv"]
    theirs = {r.name.removeprefix(f"env/leap-reach/{NUM_ENVS}/"): r.value for r in rows[3:]}
    for row in ours:
        assert row.value > 0
        assert row.ratio == pytest.approx(row.value / theirs[row.reference])
