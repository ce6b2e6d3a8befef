"""The task table, and what every task's environment must do."""

import subprocess
import sys

import pytest
import torch

from robot_rl.env import RobotVecEnv, load_tasks
from robot_rl.errors import ConfigError
from robot_rl.robots import check_contract, get_robot
from robot_rl_sim.tasks import TASKS


def test_the_table_is_what_the_entry_point_loads() -> None:
    assert set(TASKS) == {
        "leap-reach",
        "shadow-reach",
        "leap-cube",
        "shadow-cube",
        "g1-balance",
        "g1-velocity",
        "g1-velocity-rough",
        "peg-insert",
        "peg-insert-dense",
    }
    assert all(load_tasks()[name] is task for name, task in TASKS.items())
    assert all(name == task.name for name, task in TASKS.items())


def test_listing_tasks_imports_nothing_heavy() -> None:
    code = "import sys, robot_rl_sim.tasks; sys.exit(any(m in sys.modules for m in ('torch', 'mujoco')))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", TASKS)
def test_contract_fits_the_robot_and_policies_run(name: str) -> None:
    task = TASKS[name]
    assert task.robot is not None
    env = task.make_env(num_envs=4, seed=0, num_threads=1)
    assert isinstance(env, RobotVecEnv)
    check_contract(env.policy_io.contract, get_robot(task.robot))
    generator = torch.Generator().manual_seed(0)
    for amplitude in (0.0, 1.0):
        for _ in range(60):
            action = amplitude * (2 * torch.rand(4, env.action_dim, generator=generator) - 1)
            step = env.step(action)
            assert not (step.terminated & step.truncated).any()
            assert step.obs.abs().max() < 50


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize(
    ("device", "backend", "message"),
    [("cuda", "mujoco", "'cuda'.*take backend 'warp'"), ("cpu", "bullet", "'bullet'; valid: auto, mujoco, warp")],
)
def test_physics_that_does_not_fit_the_device_is_refused(name: str, device: str, backend: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TASKS[name].make_env(num_envs=1, seed=0, device=device, backend=backend)
