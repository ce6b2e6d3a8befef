"""Environments under the safety filter: the same limits as the runtime's, and what is sent is what is seen."""

import numpy as np
import pytest
import torch

from robot_rl.contract import RobotState
from robot_rl.env import get_task, limited
from robot_rl.errors import ConfigError
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.checks import Target
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.safety import SafetyMemory, filter_command
from robot_rl.testing.point_mass import POINT_MASS
from robot_rl_sim.target_filter import TargetFilter

N = 16


@pytest.fixture
def env():
    env = get_task("leap-reach").make_env(num_envs=6, seed=0, randomize=False, num_threads=1)
    yield env
    env.close()


def test_the_filter_of_training_is_that_of_the_runtime(env) -> None:
    contract = env.policy_io.contract
    limits = SafetyLimits.make(LEAP_HAND, contract, contract.control_period_s)
    rng = np.random.default_rng(0)
    last = rng.uniform(limits.soft_lower, limits.soft_upper, (6, N))
    target = last + rng.normal(scale=0.3, size=(6, N))
    pos = np.clip(last + rng.normal(scale=0.1, size=(6, N)), limits.lower, limits.upper)
    vel = rng.normal(scale=2.0, size=(6, N))
    arrays = [torch.from_numpy(a).float() for a in (target, last, pos, vel)]
    sent = TargetFilter(LEAP_HAND, contract, 6, torch.device("cpu")).apply(*arrays)
    assert (sent - arrays[0]).abs().max() > 0.1
    assert torch.equal(arrays[0], torch.from_numpy(target).float())
    for world in range(6):
        state = RobotState(np.array([1.0]), pos[world][None], vel[world][None])
        _, _, memory = filter_command(state, 0.0, None, limits, SafetyMemory.start(limits), 1.0)
        # What was sent last, wherever the robot is now.
        memory = memory._replace(reference=last[world])
        state = RobotState(np.array([1.05]), pos[world][None], vel[world][None])
        command, _, _ = filter_command(state, 0.0, Target(target[world], "policy"), limits, memory, 1.05)
        np.testing.assert_allclose(command.position, sent[world].numpy(), atol=1e-5)


def test_what_is_sent_is_what_a_policy_sees_as_its_last_target(env) -> None:
    limited(env, "leap-reach")
    env.reset(seed=0)
    robot = env.mdp.robot
    rates = torch.tensor(robot.safety.target_rate_limit_rad_s) * env.policy_io.contract.control_period_s
    upper = torch.tensor([j.upper_rad for j in robot.joints])
    before = env.policy_inputs()["last_target"]
    wanted = before
    cut = False
    for _ in range(12):
        action = torch.ones(6, N)
        wanted = env.policy_io.decode(action, before)
        env.step(action)
        after = env.policy_inputs()["last_target"]
        assert (after - before).abs().max() <= rates.max() + 1e-6 or cut
        assert (after < upper).all()
        cut = cut or bool((wanted - after).abs().max() > 1e-3)
        before = after
    # A policy that pushes on into its limits is held back before them.
    assert cut


def test_low_pass_of_training(env) -> None:
    limited(env, "leap-reach", 2.0)
    env.reset(seed=0)
    before, action = env.policy_inputs()["last_target"], torch.full((6, N), 0.2)
    wanted = env.policy_io.decode(action, before)
    env.step(action)
    share = 1.0 - np.exp(-2.0 * np.pi * 2.0 * env.policy_io.contract.control_period_s)
    torch.testing.assert_close(env.policy_inputs()["last_target"], before + share * (wanted - before))


def test_without_it_nothing_changes(env) -> None:
    plain = get_task("leap-reach").make_env(num_envs=6, seed=0, randomize=False, num_threads=1)
    for e in (env, plain):
        e.reset(seed=3)
    limited(env, "leap-reach")
    # Small actions in the middle of the range: nothing to limit.
    for _ in range(5):
        first, second = env.step(torch.full((6, N), 0.05)), plain.step(torch.full((6, N), 0.05))
        assert torch.equal(first.obs, second.obs)
        assert torch.equal(first.reward, second.reward)
    plain.close()


def test_a_task_without_a_robot_has_no_filter() -> None:
    env = POINT_MASS.make_env(num_envs=1, seed=0)
    with pytest.raises(ConfigError, match="of no robot that has a safety filter"):
        limited(env, POINT_MASS.name)
