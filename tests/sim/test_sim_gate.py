"""The gate: its statistics against known distributions, a healthy policy passes, a wrong sensor is named."""

import json
import math
from dataclasses import replace
from pathlib import Path
from statistics import NormalDist

import pytest
import torch

from robot_rl.bundle.load import load_bundle
from robot_rl.commands.main import main
from robot_rl.env import get_task
from robot_rl.errors import ConfigError
from robot_rl_sim.commands.gate import under_its_filter
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.gate import gate as gate_module
from robot_rl_sim.gate.compare import observation_differences, paired_p, replay_error, sign_p
from robot_rl_sim.gate.gate import run_gate, select, variant_env
from robot_rl_sim.gate.page import explain, reason
from robot_rl_sim.gate.rollout import Rollout, replay
from robot_rl_sim.gate.variants import Variant, corners, make_variants
from robot_rl_sim.randomization import NOMINAL, RandomizationConfig
from robot_rl_sim.sensor_config import PERFECT

BUNDLE = Path(__file__).parents[2] / "policies" / "leap_hand" / "leap-reach" / "v1"
EPISODES = 40


def rollout(obs: torch.Tensor) -> Rollout:
    """Obs (t, n, d) of whole episodes; the rest does not matter here."""
    t, n, _ = obs.shape
    zeros = torch.zeros(n)
    return Rollout(obs, torch.ones(t, n, dtype=torch.bool), zeros, torch.full((n,), t), zeros.bool(), {}, zeros, 0)


def test_paired_p_is_that_of_the_normal_distribution() -> None:
    difference = torch.tensor([0.5, 1.5, -0.5, 2.5], dtype=torch.float64)  # mean 1, standard deviation 1.290994
    z = 1 / (1.2909944487358056 / 2)
    assert float(paired_p(difference)) == pytest.approx(2 * (1 - NormalDist().cdf(z)), rel=1e-9)
    assert float(paired_p(torch.zeros(5, dtype=torch.float64))) == 1.0
    assert float(paired_p(torch.ones(5, dtype=torch.float64))) == 0.0


def test_sign_p_by_hand() -> None:
    assert sign_p(torch.tensor([1] * 10 + [0] * 50)) == pytest.approx(2 / 1024)
    assert sign_p(torch.tensor([1] * 4 + [-1])) == pytest.approx(2 * (1 + 5) / 32)
    assert sign_p(torch.tensor([1, -1, 0])) == 1.0


def test_known_differences_of_normal_observations() -> None:
    """Columns: the same; mean + 0.5; standard deviation x 1.5."""
    generator = torch.Generator().manual_seed(0)
    obs = torch.randn(50, 400, 3, generator=generator)
    other = torch.randn(50, 400, 3, generator=generator) * torch.tensor([1, 1, 1.5]) + torch.tensor([0, 0.5, 0])
    shift, spread, distribution = observation_differences(rollout(obs), rollout(other), alpha=0.01)
    assert shift[0] == spread[0] == distribution[0] == 0.0
    assert shift[1] == pytest.approx(0.5, abs=0.03)
    assert spread[1] == 0.0
    assert spread[2] == pytest.approx(math.log(1.5), abs=0.02)
    # Two normals half a deviation apart differ most halfway between their means.
    assert distribution[1] == pytest.approx(2 * NormalDist().cdf(0.25) - 1, abs=0.02)


def test_steps_of_one_episode_are_not_taken_for_independent() -> None:
    """Every episode has its own constant: 30 episodes of 1,000 steps say no more than 30 numbers."""
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        pair = [torch.randn(1, 30, 5, generator=generator).expand(1000, -1, -1) for _ in range(2)]
        for difference in observation_differences(rollout(pair[0]), rollout(pair[1]), alpha=0.01):
            assert not difference.any()


def test_episodes_that_end_early_count_as_much_as_long_ones() -> None:
    """World 0 ends after one step at 1; world 1 goes on at 0: what comes after an end must not matter."""
    obs = torch.zeros(10, 60, 1)
    obs[0, :30] = 1.0
    ended = replace(rollout(obs), valid=torch.ones(10, 60, dtype=torch.bool), lengths=torch.full((60,), 10))
    ended.valid[1:, :30] = False
    ended.lengths[:30] = 1
    later = replace(ended, obs=obs.clone())
    later.obs[1:, :30] = 99.0
    for difference in observation_differences(ended, later, alpha=0.5):
        assert not difference.any()


def test_corners_pin_one_range_each() -> None:
    config = RandomizationConfig(friction_scale=(0.5, 2.0), kp_scale=None)
    found = dict(corners(config))
    assert found["friction_scale/low"] == replace(config, friction_scale=(0.5, 0.5))
    assert found["friction_scale/high"] == replace(config, friction_scale=(2.0, 2.0))
    assert not any(name.startswith("kp_scale") for name in found)
    assert not dict(corners(NOMINAL))


@pytest.fixture(scope="module")
def env() -> SimVecEnv:
    return get_task("leap-reach").make_env(num_envs=EPISODES, seed=7, num_threads=2)


@pytest.fixture(scope="module")
def bundle():
    return load_bundle(BUNDLE)


def gate(bundle, env: SimVecEnv, build, variant: Variant | None = None):
    variants = [variant or Variant("changed", "mujoco", env.randomization)]
    return run_gate(bundle, env, variants, 7, build)


def test_a_variant_that_changes_nothing_is_the_reference_bit_for_bit(bundle, env) -> None:
    report = gate(bundle, env, lambda v: variant_env(env, v))
    assert all(m.value == 0.0 for m in report.findings[0].measures)
    assert reason(report) == ""


def test_a_healthy_policy_passes_other_physics(bundle, env) -> None:
    variants = select(make_variants(env, "mujoco"), ["timestep/*", "integrator/euler", "cone/*"])
    assert [v.name for v in variants] == ["timestep/half", "timestep/double", "integrator/euler", "cone/elliptic"]
    report = run_gate(bundle, env, variants, 7, lambda v: variant_env(env, v))
    assert reason(report) == ""
    assert all(f.success_rate > 0.9 for f in report.findings)
    # The physics did change, but for the cone perhaps, which takes a contact.
    changed = {f.variant.name for f in report.findings if f.return_mean != report.reference.returns.mean()}
    assert changed >= {"timestep/half", "timestep/double", "integrator/euler"}


def swap_joints(x: torch.Tensor) -> torch.Tensor:
    order = list(range(16))
    order[1], order[2] = 2, 1
    return x[:, order]


@pytest.mark.parametrize(
    ("field", "wrong"),
    [
        ("joint_vel", lambda x: -x),
        ("joint_vel", lambda x: 2 * x),
        ("joint_vel", lambda x: torch.rad2deg(x)),
        ("joint_pos", swap_joints),
        ("joint_pos", lambda x: x + 0.1),
    ],
    ids=["sign", "scale", "unit", "permutation", "offset"],
)
def test_a_wrong_sensor_fails_and_is_named(bundle, env, field: str, wrong) -> None:
    def build(variant: Variant) -> SimVecEnv:
        changed = variant_env(env, variant)
        read = changed.imperfections.sensors.reading

        def misread(*args):
            state = read(*args)
            return replace(state, **{field: wrong(getattr(state, field))})

        changed.imperfections.sensors.reading = misread
        return changed

    report = gate(bundle, env, build)
    worst = report.findings[0].worst
    assert worst is not None
    assert (worst.quantity, worst.term) == ("replay", field)
    assert reason(report).startswith(f"1 of 1 variants differ; most: changed: {field} replay ")


@pytest.mark.parametrize("change", [{"kd_scale": (4.0, 4.0)}, {"kp_scale": (0.4, 0.4)}], ids=["time constant", "gain"])
def test_servos_with_other_dynamics_fail_and_their_lag_is_named(bundle, env, change) -> None:
    randomization = replace(env.randomization, **change)
    report = gate(bundle, env, lambda v: variant_env(env, v), Variant("slow", "mujoco", randomization))
    finding = report.findings[0]
    assert finding.worst is not None
    assert finding.most_different is not None
    assert finding.most_different.term in ("target_error", "tip_error")
    assert "target_error" in [m.term for m in finding.measures if m.excess > 1]


def test_a_lost_success_names_what_was_observed(bundle, env) -> None:
    """A corner judges only what is lost."""
    corner = make_variants(env, "mujoco")[-1]
    weak = replace(corner, name="weak", randomization=replace(corner.randomization, kp_scale=(0.02, 0.02)))
    finding = gate(bundle, env, lambda v: variant_env(env, v), weak).findings[0]
    assert finding.worst is not None
    assert finding.worst.quantity in ("success_loss", "return_loss")
    assert "the observation that differs most is" in explain(finding)


def test_a_policy_that_does_nothing_is_turned_away(bundle, env) -> None:
    class Idle:
        def run_batch(self, inputs):
            outputs = bundle.policy.run_batch(inputs)
            return {**outputs, "action": 0 * outputs["action"]}

    report = gate(replace(bundle, policy=Idle()), env, lambda v: variant_env(env, v))
    assert "no more than the action zero" in reason(report)
    assert report.findings == []


def test_a_backend_that_is_missing_is_skipped_with_its_reason(bundle, env) -> None:
    def build(variant: Variant) -> SimVecEnv:
        raise ModuleNotFoundError("No module named 'mujoco_warp'")

    report = gate(bundle, env, build)
    assert report.findings[0].skipped == "No module named 'mujoco_warp'"
    assert reason(report) == ""


def test_quaternions_in_another_order_are_named() -> None:
    env = get_task("g1-balance").make_env(num_envs=8, seed=0, num_threads=2)
    actions = torch.rand(5, 8, 29, generator=torch.Generator().manual_seed(0)) - 0.5
    inputs, valid = replay(env, actions, 3)
    reference = replace(rollout(torch.zeros(5, 8, 1)), first_inputs=inputs)
    again, valid = replay(env, actions, 3)
    contract = env.policy_io.contract
    assert set(replay_error(contract, reference, again, valid).values()) == {0.0}
    wrong = {**inputs, "imu_quat_wxyz": inputs["imu_quat_wxyz"][..., [1, 2, 3, 0]]}
    errors = replay_error(contract, reference, wrong, valid)
    assert errors.pop("imu_quat_wxyz") > 1
    assert set(errors.values()) == {0.0}


def test_exit_codes_and_files(tmp_path, monkeypatch, capsys) -> None:
    command = ["gate", str(BUNDLE), "--episodes", "30", "--out", str(tmp_path), "--only", "timestep/half"]
    assert main([*command, "--json", str(tmp_path / "result.json")]) == 0
    assert "timestep/half  pass" in capsys.readouterr().out
    data = json.loads((tmp_path / "gate.json").read_text())
    assert data["passed"]
    assert [v["variant"] for v in data["variants"]] == ["timestep/half"]
    assert "Sim-to-sim gate: passed" in (tmp_path / "GATE.md").read_text()
    names = [row["name"] for row in json.loads((tmp_path / "result.json").read_text())["rows"]]
    assert {"gate/timestep/half/success", "gate/timestep/half/replay/joint_vel"} <= set(names)

    def halved(env, variant, num_threads=0):
        weak = replace(variant, randomization=replace(variant.randomization, kp_scale=(0.3, 0.3)))
        return variant_env(env, weak, num_threads)

    monkeypatch.setattr(gate_module, "variant_env", halved)
    assert main(command) == 1
    assert "1 of 1 variants differ; most: timestep/half: " in capsys.readouterr().err
    assert "FAILED" in (tmp_path / "GATE.md").read_text()

    assert main(["gate", str(BUNDLE), "--only", "timestep/third"]) == 2
    assert "no variant matches ['timestep/third']; valid: backend/warp, " in capsys.readouterr().err
    assert main(["gate", str(BUNDLE), "--episodes", "10"]) == 2


def test_a_policy_trained_under_the_safety_filter_is_judged_under_it(bundle) -> None:
    """Which leaves room to brake before a joint limit."""
    trained = {**bundle.manifest.config, "safety_filter": True}
    filtered = replace(bundle, manifest=replace(bundle.manifest, config=trained))
    moved = []
    for judged in (bundle, filtered):
        env = get_task("leap-reach").make_env(num_envs=2, seed=0, randomize=False, num_threads=1)
        under_its_filter(env, judged).step(torch.ones(2, 16))
        moved.append(env._inputs["last_target"].clone())
    assert (moved[1] < moved[0] - 0.02).any()


def test_what_a_task_learned_of_its_worlds_does_not_pass_to_a_variant() -> None:
    """Levels of the ground rise and fall with success; every variant must start from the first ones."""
    env = get_task("g1-velocity-rough").make_env(num_envs=4, seed=0, num_threads=2)
    first = env.reset(seed=5)
    for value in env.mdp.state.values():
        value.logical_not_() if value.dtype == torch.bool else value.add_(1)
    changed = variant_env(env, Variant("same", "mujoco", env.randomization), 2)
    assert torch.equal(changed.reset(seed=5), first)


def test_too_few_episodes_are_refused(bundle) -> None:
    env = get_task("leap-reach").make_env(num_envs=4, seed=0, num_threads=1)
    with pytest.raises(ConfigError, match="at least 30 episodes, got 4"):
        run_gate(bundle, env, [], 0, lambda v: env)


def test_nothing_of_the_reference_is_left_unsaid() -> None:
    """Corners follow the fields of the configuration, so that a new range is not forgotten."""
    env = get_task("leap-reach").make_env(num_envs=1, seed=0, num_threads=1)
    names = {v.name for v in make_variants(env, "mujoco")}
    for field in ("link_mass_scale", "friction_scale", "kp_scale", "kd_scale", "action_latency_steps"):
        assert {f"corner/{field}/low", f"corner/{field}/high"} <= names
    assert env.randomization.sensors != PERFECT


def test_a_replay_is_judged_by_what_most_worlds_show() -> None:
    """A fault is in all worlds. Contacts that come a moment later change a few of them, and those by any amount."""
    contract = get_task("leap-reach").make_env(num_envs=1, seed=0, num_threads=1).policy_io.contract
    generator = torch.Generator().manual_seed(0)
    inputs = {name: torch.randn(10, 50, 16, generator=generator) for name in ("joint_pos", "joint_vel")}
    reference = replace(rollout(torch.zeros(10, 50, 1)), first_inputs=inputs)
    valid = torch.ones(10, 50, dtype=torch.bool)
    few = {name: value.clone() for name, value in inputs.items()}
    few["joint_pos"][:, :20] += 100.0
    assert replay_error(contract, reference, few, valid) == {"joint_pos": 0.0, "joint_vel": 0.0}
    # The median of |2 x| for normal x is twice its third quartile.
    wrong = replay_error(contract, reference, {**inputs, "joint_vel": -inputs["joint_vel"]}, valid)
    assert wrong["joint_vel"] == pytest.approx(2 * NormalDist().inv_cdf(0.75), rel=0.2)
    # Worlds whose first episode is over are left out.
    few["joint_pos"][:, :30] += 100.0
    over = valid.clone()
    over[:, :30] = False
    assert replay_error(contract, reference, few, over)["joint_pos"] == 0.0
