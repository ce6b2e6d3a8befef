"""The scripted expert of peg-insert: its kinematics, its force, that quality is quality, and its demonstrations."""

import dataclasses
from pathlib import Path

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.data.transitions import read
from robot_rl.errors import ConfigError
from robot_rl.networks.kinematics import TipKinematics
from robot_rl.replay.dataset import fill_replay
from robot_rl.replay.n_step import NStep
from robot_rl.robots import FRANKA_PANDA
from robot_rl.testing.point_mass import POINT_MASS
from robot_rl.training.evaluate import evaluate
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.inverse_kinematics import jacobian, solve
from robot_rl_sim.models import load_model
from robot_rl_sim.randomization import NOMINAL
from robot_rl_sim.tasks.assemble import assemble
from robot_rl_sim.tasks.peg_insert import make_env
from robot_rl_sim.tasks.peg_insert.expert import PUSH, SEARCH, Expert, ExpertConfig
from robot_rl_sim.tasks.peg_insert.mdp import PegInsert, PegInsertConfig
from robot_rl_sim.tasks.peg_insert.record import record
from robot_rl_sim.tasks.peg_insert.scene import keypoints

SHORT = PegInsertConfig(pool_size=16, max_episode_steps=80)


def make(num_envs: int, config: PegInsertConfig = SHORT) -> SimVecEnv:
    return assemble(PegInsert(num_envs, 0, config), num_envs, 0, NOMINAL, "cpu", 1)


def test_jacobian_is_mujocos() -> None:
    model = load_model("franka_panda")
    data, rng = mujoco.MjData(model), np.random.default_rng(0)
    kinematics = TipKinematics(FRANKA_PANDA, FRANKA_PANDA.chains)
    theirs = np.zeros((3, 7))
    for _ in range(10):
        data.qpos[:] = rng.uniform(*model.jnt_range.T)
        mujoco.mj_fwdPosition(model, data)
        mujoco.mj_jacSite(model, data, theirs, None, model.site("flange").id)
        ours = jacobian(kinematics, torch.from_numpy(data.qpos[None]))[0]
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_inverse_kinematics_finds_a_pose_with_the_tips_there() -> None:
    mdp = PegInsert(1, 0, SHORT)
    goal = keypoints(torch.tensor([[0.45, 0.1, 0.1], [0.55, -0.1, 0.02]]), torch.tensor([0.3, -0.3]))
    pose = solve(mdp.kinematics, mdp.policy_io.default_pos.repeat(2, 1), goal)
    torch.testing.assert_close(mdp.kinematics(pose).flatten(1), goal, atol=2e-5, rtol=0)


def test_with_a_perfect_estimate_it_goes_straight_in() -> None:
    known = dataclasses.replace(SHORT, estimate_xy_m=0.0, estimate_z_m=0.0, estimate_yaw_rad=0.0, max_episode_steps=60)
    env = make(4, known)
    expert = Expert(env)
    obs = env.reset(0)
    for _ in range(60):
        step = env.step(expert(obs))
        obs = step.obs
    assert step.truncated.all()
    assert step.info["success"].all()


def test_it_presses_as_hard_as_it_means_to() -> None:
    """Where there is no hole: the forces of all contacts, as MuJoCo has them, add up to `press_n`."""
    env = make(1, dataclasses.replace(SHORT, hole_x_m=(0.5, 0.5), hole_y_m=(0.0, 0.0), hole_yaw_rad=0.0))
    expert = Expert(env, ExpertConfig(press_n=10.0, search_m=1e-9))
    env.reset(0)
    env._inputs["command"] = keypoints(torch.tensor([[0.53, 0.02, 0.01]]), torch.zeros(1))
    for _ in range(40):
        step = env.step(expert(env._obs))
    assert expert.phase.tolist() == [SEARCH]
    data = env.sim.snapshot(0)
    normal, force = 0.0, np.zeros(6)
    for i in range(data.ncon):
        mujoco.mj_contactForce(env.sim.model, data, i, force)
        normal += force[0]
    assert normal == pytest.approx(10.0, abs=2.0)
    assert not step.info["success"].any()


def test_only_lack_of_quality_is_random() -> None:
    def actions(quality: float, seed: int) -> torch.Tensor:
        env = make(2)
        expert = Expert(env, ExpertConfig(quality=quality), seed)
        obs = env.reset(0)
        taken = []
        for _ in range(5):
            taken.append(expert(obs))
            obs = env.step(taken[-1]).obs
        return torch.stack(taken)

    assert torch.equal(actions(1.0, 0), actions(1.0, 1))
    assert torch.equal(actions(0.5, 0), actions(0.5, 0))
    assert not torch.equal(actions(0.5, 0), actions(0.5, 1))
    assert (actions(0.0, 0) - actions(1.0, 0)).std() > 0.1


def test_a_new_episode_is_seen_by_its_command() -> None:
    env = make(2, dataclasses.replace(SHORT, max_episode_steps=50))
    expert = Expert(env)
    obs = env.reset(0)
    for _ in range(50):
        obs = env.step(expert(obs)).obs
    assert expert.phase.max() == PUSH
    assert expert.phase.min() > 0
    expert(obs)
    assert expert.phase.tolist() == [0, 0]


@pytest.mark.slow
def test_success_grows_with_quality() -> None:
    env = make_env(num_envs=64, seed=1)
    poor, fair, good = (evaluate(env, Expert(env, ExpertConfig(q), 1), 64, 5).success_rate for q in (0.0, 0.6, 1.0))
    assert poor is not None
    assert fair is not None
    assert good is not None
    assert poor < 0.2
    assert poor + 0.2 < fair < good - 0.1
    assert good > 0.9


def test_demonstrations_can_be_learned_from(tmp_path: Path) -> None:
    out = tmp_path / "demos.safetensors"
    rate = record(out, quality=1.0, episodes=2, num_envs=2, nominal=True)
    demos = read(out)
    batch = demos.transitions
    assert batch.obs.shape == (2 * 160, 30)
    assert demos.about["task"] == "peg-insert"
    assert torch.where(batch.truncated > 0)[0].tolist() == [159, 319]
    assert demos.success is not None
    assert rate == (demos.success[[159, 319]].mean().item())
    # Success is five steps in a row of reward, and the reward is that the peg is in.
    for rewards, success in zip(batch.reward.split(160), demos.success.split(160), strict=True):
        run = 0
        for r, s in zip(rewards.tolist(), success.tolist(), strict=True):
            run = run + 1 if r else 0
            assert s == (run >= 5)
    fill_replay(batch, str(out), 30, 7, n_step=NStep(3, 0.98))  # refuses rows that are out of order


def test_nonsense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"quality must lie in \[0, 1\], got 1.5"):
        ExpertConfig(quality=1.5)
    with pytest.raises(ConfigError, match="for environments of peg-insert"):
        Expert(POINT_MASS.make_env(num_envs=1, seed=0))
    with pytest.raises(ConfigError, match=r"written as .safetensors"):
        record(tmp_path / "demos.npz")
    with pytest.raises(ConfigError, match="at least 1"):
        record(tmp_path / "demos.safetensors", episodes=0)
