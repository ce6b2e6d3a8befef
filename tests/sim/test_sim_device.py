"""Everything that an environment computes is on its device: seen on one that is pretended."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pretend_device import ELSEWHERE, There, pretended_device
from torch import Tensor
from torch.utils._pytree import tree_leaves

from robot_rl.env import get_task
from robot_rl.robots import RobotSpec
from robot_rl.training.config import make_config
from robot_rl.training.loop import resume, train
from robot_rl_sim.backends.addresses import joint_columns, state_columns
from robot_rl_sim.backends.batch_sim import BatchSim
from robot_rl_sim.backends.state_view import StateView
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.tasks import TASKS, assemble


class SimThere:
    """A BatchSim whose tensors are elsewhere."""

    def __init__(self, sim: BatchSim, robot: RobotSpec) -> None:
        self.here, self.robot = sim, robot
        self.model, self.num_worlds, self.substeps = sim.model, sim.num_worlds, sim.substeps
        self.device = ELSEWHERE
        self.qpos, self.qvel = There(sim.qpos), There(sim.qvel)
        self.joint_pos, self.joint_vel = There(sim.joint_pos), There(sim.joint_vel)
        self.joint_effort = There(sim.joint_effort)

    @property
    def any_failed(self) -> bool:
        return self.here.any_failed

    @property
    def failed(self) -> Tensor:
        return There(self.here.failed)

    def free_joint(self, body: str) -> tuple[Tensor, Tensor]:
        pose, velocity = self.here.free_joint(body)
        return There(pose), There(velocity)

    def sensor(self, name: str) -> Tensor:
        return There(self.here.sensor(name))

    def nominal(self, name: str) -> Tensor:
        return There(self.here.nominal(name))

    def model_field(self, name: str) -> Tensor:
        return There(self.here.model_field(name))

    def apply_model(self, worlds: Tensor) -> None:
        self.here.apply_model(brought_here(worlds))

    def set_state(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        self.here.set_state(*(brought_here(x) for x in (worlds, qpos, qvel)))

    def write_state(self, worlds: Tensor, qpos: Tensor, qvel: Tensor) -> None:
        self.here.write_state(*(brought_here(x) for x in (worlds, qpos, qvel)))

    def refresh(self, worlds: Tensor) -> None:
        self.here.refresh(brought_here(worlds))

    def view(self, qpos: Tensor, qvel: Tensor) -> StateView:
        assert isinstance(qpos, There)
        assert isinstance(qvel, There)
        columns = state_columns(self.model, joint_columns(self.model, self.robot))
        return StateView(self.model, columns, qpos.to(self.qpos), qvel.to(self.qvel))

    def step(self, ctrl: Tensor) -> None:
        self.here.step(brought_here(ctrl))

    def state_dict(self) -> dict[str, Tensor]:
        return {name: There(value) for name, value in self.here.state_dict().items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        # From a file it comes on the CPU.
        self.here.load_state_dict({name: getattr(value, "here", value) for name, value in state.items()})


def brought_here(tensor: Tensor) -> Tensor:
    assert isinstance(tensor, There), "the simulation was given a CPU tensor"
    return tensor.here


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, tasks for device ELSEWHERE run on MuJoCo and pretend."""
    make_sim = assemble.make_sim

    def make_sim_there(*args: Any) -> Any:
        return SimThere(make_sim(*args[:4], "cpu", 1, "mujoco"), robot=args[1])

    monkeypatch.setattr(assemble, "make_sim", make_sim_there)
    with pretended_device():
        yield


@pytest.mark.parametrize("task", TASKS)
def test_environment_keeps_to_its_device(task: str, elsewhere: None) -> None:
    env = get_task(task).make_env(num_envs=3, seed=0, device=str(ELSEWHERE))
    assert isinstance(env, SimVecEnv)
    generator = torch.Generator(ELSEWHERE).manual_seed(0)
    assert isinstance(env.reset(seed=1), There)
    env._steps[1] = env.max_episode_steps - 2
    for i in range(4):
        if i == 3:
            env.sim.qvel[2] = float("nan")
        action = 2 * torch.rand(3, env.action_dim, generator=generator, device=ELSEWHERE) - 1
        step = env.step(action)
        given = [x for x in tree_leaves(vars_of(step)) if isinstance(x, Tensor)]
        assert all(isinstance(x, There) for x in given)
    assert env.num_diverged == 1
    env.load_state_dict(env.state_dict())
    env.policy_inputs()


def vars_of(step: Any) -> dict[str, Any]:
    return {name: getattr(step, name) for name in step.__slots__}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_learning_beside_environments_on_another_device(elsewhere: None, tmp_path: Path) -> None:
    settings = {"num_envs": 4, "warmup_env_steps": 40, "evaluate_episodes": 4, "checkpoint_every": 40, "log_every": 20}
    config = make_config(get_task("leap-reach"), runs=tmp_path, env_device=str(ELSEWHERE), **settings)
    result = train(replace(config, total_env_steps=60, evaluate_every=0))
    resumed = resume(result.run_dir, total_env_steps=80)
    assert resumed.env_steps == 80
    assert resumed.evaluation is not None
