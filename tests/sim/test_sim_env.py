"""The environment: episode ends, seeds, exact continuation, errors; obs and reward are what they claim to be."""

import dataclasses

import pytest
import torch

from robot_rl.env import RobotVecEnv
from robot_rl.errors import CheckpointError, ConfigError, EnvError
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.mdp import Outcome, Transition
from robot_rl_sim.motors import MotorConfig
from robot_rl_sim.randomization import NOMINAL, RandomizationConfig
from robot_rl_sim.sensor_config import PERFECT, SensorConfig, SensorsConfig
from robot_rl_sim.tasks import TASKS
from robot_rl_sim.tasks.assemble import assemble
from robot_rl_sim.tasks.cube_reorient.scene import touch_sensor
from robot_rl_sim.tasks.g1_balance.mdp import G1Balance
from robot_rl_sim.tasks.reach.hands import LEAP
from robot_rl_sim.tasks.reach.mdp import Reach, ReachConfig

RANDOM = RandomizationConfig()
EVERYTHING = RandomizationConfig(
    inertia_scale=(0.8, 1.2),
    payload_kg=(-0.05, 0.2),
    com_shift_m=(-0.02, 0.02),
    terrain_friction=(0.3, 1.0),
    joint_friction_share=(0.0, 0.02),
    gravity_shift_m_s2=(-1.0, 1.0),
    action_latency_steps=(0.0, 2.5),
    motor=MotorConfig("dc_motor"),
    sensors=SensorsConfig().timed(delay_s=(0.0, 0.03), jitter_s=0.005, drop_probability=0.1, period_s=0.01),
    privileged=True,
)


def leap_env(num_envs=3, seed=0, randomization=NOMINAL, steps=3, mdp=None):
    mdp = mdp or Reach(LEAP, seed=0, config=ReachConfig(pool_size=16, max_episode_steps=steps))
    return assemble(mdp, num_envs, seed, randomization, "cpu", 1)


def g1_env(num_envs=3, seed=0, randomization=RANDOM):
    return assemble(G1Balance(), num_envs, seed, randomization, "cpu", 1)


def actions(env, steps: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(steps, env.num_envs, env.action_dim, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def rollout(env, steps: int, seed: int = 0) -> list[torch.Tensor]:
    """Everything that a learner sees, step by step."""
    seen = []
    for action in actions(env, steps, seed):
        privileged = env.privileged()
        s = env.step(action)
        seen += [s.obs, s.reward, s.terminated, s.truncated, s.final_obs, *s.info.values()]
        seen += [privileged] if s.final_privileged is None else [privileged, s.final_privileged]
    return seen


def test_it_is_a_robot_vec_env() -> None:
    env = leap_env()
    assert isinstance(env, RobotVecEnv)
    assert env.reset().shape == (env.num_envs, env.obs_dim) == (3, 60)
    assert env.reset().dtype == torch.float32


def test_final_obs_is_the_observation_before_the_reset() -> None:
    """A long-lived twin takes the same steps without an episode end, and sees what final_obs must be."""
    short, long = leap_env(steps=3), leap_env(steps=100)
    assert torch.equal(short.reset(seed=1), long.reset(seed=1))
    for i, action in enumerate(actions(short, 3)):
        a, b = short.step(action), long.step(action)
        assert torch.equal(a.final_obs, b.obs)
        assert torch.equal(a.reward, b.reward)
        assert bool(a.truncated.all()) == (i == 2)
        assert not a.terminated.any()
        assert torch.equal(a.info["episode_length"], torch.full((3,), i + 1))
        if i == 2:
            assert not torch.allclose(a.obs, a.final_obs)
        else:
            assert torch.equal(a.obs, a.final_obs)


def test_only_ended_environments_start_anew() -> None:
    """Terminated rows get a new observation and a fresh clock; the others run on."""
    env = g1_env(num_envs=4)
    env.sim.qpos[1, 2] = 0.2  # a pelvis this low is a fall
    step = env.step(torch.zeros(4, 29))
    assert step.terminated.tolist() == [False, True, False, False]
    assert not step.truncated.any()
    assert torch.equal(step.obs[[0, 2, 3]], step.final_obs[[0, 2, 3]])
    assert not torch.allclose(step.obs[1], step.final_obs[1])
    following = env.step(torch.zeros(4, 29))
    assert following.info["episode_length"].tolist() == [2, 1, 2, 2]


def test_episode_return_is_the_sum_of_its_rewards() -> None:
    env = leap_env(steps=3)
    total = torch.zeros(3)
    for action in actions(env, 3):
        step = env.step(action)
        terms = sum(v for k, v in step.info.items() if k.startswith("reward/"))
        torch.testing.assert_close(step.reward, terms)
        total += step.reward
    torch.testing.assert_close(step.info["episode_return"], total)
    following = env.step(action)
    torch.testing.assert_close(following.info["episode_return"], following.reward)


@pytest.mark.parametrize(
    "make", [lambda seed: leap_env(seed=seed, randomization=RANDOM), lambda seed: g1_env(seed=seed)]
)
def test_the_seed_decides_everything(make) -> None:
    first, second, other = (rollout(make(seed), 7) for seed in (5, 5, 6))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0], other[0])


@pytest.mark.parametrize(
    "make",
    [
        lambda: leap_env(randomization=RANDOM),
        g1_env,
        lambda: leap_env(randomization=EVERYTHING),
        lambda: g1_env(randomization=EVERYTHING),
        lambda: TASKS["leap-cube"].make_env(num_envs=3, seed=0),
        lambda: TASKS["g1-velocity"].make_env(num_envs=3, seed=0),
    ],
)
def test_goes_on_bit_for_bit_from_a_saved_state(make) -> None:
    """Across episode ends, noise, latency, pushes and randomised dynamics, in another object."""
    env = make()
    rollout(env, 80, seed=1)
    state = env.state_dict()
    expected = rollout(env, 80, seed=2)
    other = make()
    rollout(other, 2, seed=3)
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(rollout(other, 80, seed=2), expected, strict=True))


def test_saved_state_is_a_copy() -> None:
    env = leap_env(randomization=RANDOM)
    state = env.state_dict()
    before = {k: v.clone() for k, v in state.items()}
    rollout(env, 4)
    assert all(torch.equal(before[k], state[k]) for k in state)


def test_state_of_another_environment_is_refused() -> None:
    with pytest.raises(CheckpointError, match="inputs/joint_pos"):
        leap_env(num_envs=2).load_state_dict(leap_env(num_envs=3).state_dict())
    with pytest.raises(CheckpointError, match="latency/delay"):
        leap_env().load_state_dict(leap_env(randomization=RANDOM).state_dict())


def test_returned_tensors_are_the_callers_own() -> None:
    """Whoever normalises an observation in place must not change the environment."""
    env, twin = leap_env(), leap_env()
    obs = env.reset(seed=0)
    obs *= 0
    twin.reset(seed=0)
    for action in actions(env, 4):
        a, b = env.step(action), twin.step(action)
        assert torch.equal(a.obs, b.obs)
        for tensor in (a.obs, a.final_obs, a.reward, *a.info.values()):
            tensor.zero_()


def test_observation_is_the_encoding_of_the_policy_inputs() -> None:
    """Names and order are the contract's; encoding them again gives the observation that the step returned."""
    env = leap_env(randomization=RANDOM)
    for action in actions(env, 4):
        step = env.step(action)
        inputs = env.policy_inputs()
        assert list(inputs) == [t.name for t in env.policy_io.contract.inputs]
        renamed = {"command" if k == "fingertip_goal" else k: v for k, v in inputs.items()}
        assert torch.equal(env.policy_io.encode(renamed), step.obs)


def test_nominal_observation_is_the_true_state() -> None:
    env = leap_env(steps=50)
    step = env.step(actions(env, 1)[0])
    default = torch.tensor([j.default_pos_rad for j in env.mdp.robot.joints])
    torch.testing.assert_close(step.obs[:, :16], env.sim.joint_pos.float() - default)
    torch.testing.assert_close(step.obs[:, 16:32], 0.1 * env.sim.joint_vel.float())
    lag = (env.policy_inputs()["last_target"] - env.sim.joint_pos.float()) / 0.1
    torch.testing.assert_close(step.obs[:, 32:48], lag)


def test_action_moves_the_target_from_where_the_episode_began() -> None:
    env = leap_env(steps=50)
    start = env.sim.joint_pos.float().clone()
    action = torch.zeros(3, 16)
    action[:, 2] = 0.5
    env.step(action)
    env.step(action)
    moved = env.policy_inputs()["last_target"] - start
    torch.testing.assert_close(moved[:, 2], torch.full((3,), 2 * 0.5 * 0.1))
    torch.testing.assert_close(moved[:, 3], torch.zeros(3))


class Poisoned(Reach):
    """leap-reach with one reward term that becomes NaN in one environment."""

    def outcome(self, t: Transition, drawn: torch.Tensor) -> Outcome:
        outcome = super().outcome(t, drawn)
        outcome.rewards["near"][1] = float("nan")
        return outcome


def test_reward_that_is_not_finite_names_term_and_env() -> None:
    env = leap_env(mdp=Poisoned(LEAP, seed=0, config=ReachConfig(pool_size=16)))
    with pytest.raises(EnvError, match=r"reward/near of env 1 is not finite"):
        env.step(torch.zeros(3, 16))


def test_observation_that_is_not_finite_names_term_and_env() -> None:
    env = leap_env()
    env._inputs["command"][2, 0] = float("inf")
    with pytest.raises(EnvError, match=r"observation/tip_error of env 2 is not finite"):
        env._encode(env._inputs)


def test_action_that_is_not_finite_names_the_env() -> None:
    env = leap_env()
    action = torch.zeros(3, 16)
    action[2, 7] = float("nan")
    with pytest.raises(EnvError, match="action of env 2"):
        env.step(action)


def test_actions_beyond_one_count_as_one() -> None:
    a, b = leap_env(), leap_env()
    assert torch.equal(a.step(torch.full((3, 16), 5.0)).obs, b.step(torch.ones(3, 16)).obs)


def test_randomisation_changes_the_dynamics_and_nominal_does_not() -> None:
    """Same start, same actions in all environments: nominal ones stay equal to the bit, randomised ones part."""
    for randomization, equal in ((NOMINAL, True), (dataclasses.replace(NOMINAL, kp_scale=(0.8, 1.2)), False)):
        env = leap_env(num_envs=4, randomization=randomization, steps=50)
        everyone = torch.arange(4)
        env.sim.set_state(everyone, env.sim.qpos[:1].expand(4, -1).clone(), torch.zeros(4, 16))
        env._inputs["last_target"] = env.sim.joint_pos.float().clone()
        for action in actions(env, 5)[:, :1]:
            env.step(action.expand(4, -1))
        assert all(torch.equal(env.sim.qpos[0], env.sim.qpos[i]) for i in range(1, 4)) == equal


def test_torch_threads_are_left_as_they_were() -> None:
    before = torch.get_num_threads()
    env = leap_env()
    try:
        torch.set_num_threads(3)
        env.reset()
        env.step(torch.zeros(3, 16))
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_a_world_that_diverges_starts_afresh_and_no_other_notices(monkeypatch) -> None:
    env, untouched = leap_env(steps=10), leap_env(steps=10)
    zeros = torch.zeros(env.num_envs, env.action_dim)
    for e in (env, untouched):
        e.step(zeros)
    before = env.sim.qpos[1].clone()
    step_physics = env.sim.step

    def diverge(ctrl: torch.Tensor) -> None:
        step_physics(ctrl)
        env.sim.qvel[1, 3] = float("nan")

    monkeypatch.setattr(env.sim, "step", diverge)
    step, other = env.step(zeros), untouched.step(zeros)
    monkeypatch.undo()
    assert step.info["diverged"].tolist() == [False, True, False]
    assert step.truncated.tolist() == [False, True, False]
    assert not step.terminated.any()
    assert not step.info["success"][1]
    for values in (step.obs, step.final_obs, step.reward):
        assert torch.isfinite(values).all()
    assert torch.equal(step.reward[[0, 2]], other.reward[[0, 2]])
    assert env.num_diverged == 1
    (divergence,) = env.divergences
    assert (divergence.world, divergence.episode_step) == (1, 1)
    assert torch.equal(divergence.qpos, before)
    for _ in range(3):
        assert not env.step(zeros).info["diverged"].any()


def test_critics_are_told_what_was_drawn_only_where_they_should_be() -> None:
    told, plain = leap_env(randomization=dataclasses.replace(RANDOM, privileged=True)), leap_env(randomization=RANDOM)
    assert plain.privileged_dim == 0
    assert told.privileged_dim == sum(size for _, size in told.draws.layout) == told.privileged().shape[1]
    step = told.step(torch.zeros(3, 16))
    assert torch.equal(step.final_privileged, told.privileged())
    assert told.privileged().abs().max() <= 1
    before = told.privileged()
    ended = [told.step(torch.zeros(3, 16)) for _ in range(2)][-1]
    assert ended.truncated.all()
    assert torch.equal(ended.final_privileged, before)
    assert not torch.equal(told.privileged(), before)


def test_critics_are_told_of_contacts_and_efforts_of_an_episode_that_has_just_begun() -> None:
    """Against a forward pass of MuJoCo at the start; and to tell them changes nothing."""
    tips = [touch_sensor(chain.name) for chain in LEAP.robot.chains]
    env, unasked = (TASKS["leap-cube"].make_env(num_envs=8, seed=2) for _ in range(2))
    ended = torch.zeros(8, dtype=torch.bool)
    for action in actions(env, 60):
        step, same = env.step(action), unasked.step(action)
        assert torch.equal(step.obs, same.obs)
        assert torch.equal(step.reward, same.reward)
        env.privileged()
        for world in (step.terminated | step.truncated).nonzero().flatten().tolist():
            ended[world] = True
            start = env.sim.snapshot(world)
            torch.testing.assert_close(env.sim.joint_effort[world], torch.from_numpy(start.actuator_force.copy()))
            touch = torch.cat([env.sim.sensor(tip) for tip in tips], 1)[world]
            expected = [start.sensor(tip).data[0] for tip in tips]
            torch.testing.assert_close(touch, torch.tensor(expected, dtype=touch.dtype))
    assert ended.sum() >= 2


def test_servos_regulate_what_their_own_encoders_say() -> None:
    """A joint that is measured too large by its offset comes to rest that much below its target."""
    sensors = dataclasses.replace(PERFECT, joint_pos=SensorConfig(bias=0.05))
    env = leap_env(randomization=dataclasses.replace(NOMINAL, sensors=sensors, gravity_shift_m_s2=(0, 0)), steps=200)
    env.sim.model_field("opt.gravity")[:] = 0.0
    env.sim.model_field("dof_frictionloss")[:] = 0.0
    for _ in range(100):
        env.step(torch.zeros(3, 16))
    inputs = env.policy_inputs()
    torch.testing.assert_close(inputs["joint_pos"], inputs["last_target"], atol=2e-3, rtol=0)
    off = inputs["last_target"] - env.sim.joint_pos.float()
    torch.testing.assert_close(off, env.imperfections.sensors.joint_bias, atol=2e-3, rtol=0)
    assert off.abs().max() > 0.02


def test_a_world_that_diverges_is_not_remembered_by_late_sensors() -> None:
    sensors = SensorsConfig().timed(delay_s=(0.02, 0.02), drop_probability=0.2)
    env = g1_env(num_envs=3, randomization=dataclasses.replace(RANDOM, sensors=sensors))
    env.sim.qvel[1, 8] = float("nan")
    step = env.step(torch.zeros(3, 29))
    assert step.info["diverged"].tolist() == [False, True, False]
    assert torch.isfinite(step.final_obs).all()
    for _ in range(3):
        assert torch.isfinite(env.step(torch.zeros(3, 29)).obs).all()


def test_pushes_of_a_robot_without_a_floating_base_are_refused() -> None:
    with pytest.raises(ConfigError, match="'leap_hand' has no floating base"):
        leap_env(randomization=dataclasses.replace(NOMINAL, push_speed_m_s=(0.1, 0.2)))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_compiled_steps_go_on_bit_for_bit_from_a_saved_state() -> None:
    """Across episodes that end one by one, which start compiled, and all at once, which do not."""

    def walkers() -> SimVecEnv:
        env = TASKS["g1-velocity"].make_env(num_envs=12, seed=3)
        assert isinstance(env, SimVecEnv)
        env.compile()
        return env

    env = walkers()
    rollout(env, 60, seed=1)
    assert len(env._steps.unique()) > 2  # robots fell one by one
    env._steps[:] = env.max_episode_steps - 30
    state = env.state_dict()
    expected = rollout(env, 40, seed=2)
    other = walkers()
    rollout(other, 2, seed=3)
    other.load_state_dict(state)
    assert all(torch.equal(a, b) for a, b in zip(rollout(other, 40, seed=2), expected, strict=True))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", ["leap-reach", "leap-cube", "g1-velocity-rough", "peg-insert"])
def test_compiled_steps_are_the_same_steps(task: str) -> None:
    plain, compiled = (TASKS[task].make_env(num_envs=4, seed=3) for _ in range(2))
    assert isinstance(compiled, SimVecEnv)
    compiled.compile()
    for env in (plain, compiled):
        env._steps[:2] = torch.tensor([env.max_episode_steps - 4, env.max_episode_steps - 6])
    for action in actions(plain, 12):
        a, b = plain.step(action), compiled.step(action)
        torch.testing.assert_close(b.obs, a.obs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(b.final_obs, a.final_obs, rtol=1e-4, atol=1e-4)
        torch.testing.assert_close(b.reward, a.reward, rtol=1e-4, atol=1e-4)
        assert torch.equal(b.terminated, a.terminated)
        assert torch.equal(b.truncated, a.truncated)
        for name, value in a.info.items():
            torch.testing.assert_close(b.info[name], value, rtol=1e-4, atol=1e-4, equal_nan=True)
