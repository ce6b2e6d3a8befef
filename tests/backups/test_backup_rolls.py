"""Backups in simulation: that each tier does to the servos what the runtime's does, from the states that it should."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from robot_rl.bundle.load import load_bundle
from robot_rl.contract import RobotState
from robot_rl.env import get_task
from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.policy_runner import PolicyRunner
from robot_rl.testing.bundles import TinyPolicy
from robot_rl_sim.backups import page
from robot_rl_sim.backups.collect import Trips, collect
from robot_rl_sim.backups.criterion import criterion_of
from robot_rl_sim.backups.report import BackupReport, Finding, Rate
from robot_rl_sim.backups.roll import _Actor, _Policy, roll
from robot_rl_sim.backups.sources import SOURCES, sources_for
from robot_rl_sim.env import SimVecEnv
from robot_rl_sim.motors import GAIN_COLUMNS
from robot_rl_sim.randomization import RandomizationConfig

N = 3
BUNDLE = Path(__file__).parents[2] / "policies" / "leap_hand" / "leap-reach" / "v1"
STOPS = next(s for s in SOURCES if s.name == "policy stops")


@pytest.fixture
def env() -> SimVecEnv:
    made = get_task("leap-reach").make_env(num_envs=N, seed=0, randomize=False, num_threads=1)
    assert isinstance(made, SimVecEnv)
    for name, _ in GAIN_COLUMNS["pd"].kp + GAIN_COLUMNS["pd"].kd:
        made.sim.model_field(name)
    return made


def limits(env: SimVecEnv) -> SafetyLimits:
    contract = env.policy_io.contract
    return SafetyLimits.make(env.mdp.robot, contract, contract.control_period_s)


def one_trip(env: SimVecEnv, qpos: torch.Tensor, qvel: torch.Tensor) -> Trips:
    """Every world trips in the first step of its episode, in a state written by hand."""
    target = env.sim.joint_pos.float()
    return Trips(env.state_dict(), qpos[None], qvel[None], target[None], torch.zeros(N, dtype=torch.int64), {})


def test_states_are_taken_before_the_trip_and_only_where_there_were_any() -> None:
    steps = torch.arange(6.0)
    rows = steps[:, None, None] * 10 + torch.arange(3.0)[None, :, None]
    trips = Trips({}, rows, -rows, rows + 0.5, torch.tensor([5, 1, -1]), {})
    there, qpos, qvel, target = trips.before(2)
    assert there.tolist() == [True, False, False]
    assert (qpos[0, 0], qvel[0, 0], target[0, 0]) == (30.0, -30.0, 30.5)
    there, qpos, _, _ = trips.before(0)
    assert there.tolist() == [True, True, False]
    assert qpos[:2, 0].tolist() == [50.0, 11.0]


def test_damping_is_the_profiles_and_nothing_else(env: SimVecEnv) -> None:
    speed = torch.linspace(-2.0, 2.0, 16, dtype=torch.float64).repeat(N, 1)
    qpos = env.sim.qpos.clone()
    env.place(qpos, speed, env.sim.joint_pos.float())
    actor = _Actor(env, "damp", limits(env), None)
    # Forces belong to a state, so the state is set again once the servos are dampers. Far targets have no effect.
    env.sim.set_state(torch.arange(N), qpos, speed)
    damping = torch.tensor(LEAP_HAND.safety.damping_kd_nms_rad, dtype=torch.float64)
    effort_limit = torch.tensor([j.effort_limit_nm for j in LEAP_HAND.joints], dtype=torch.float64)
    expected = torch.minimum(torch.maximum(-damping * speed, -effort_limit), effort_limit)
    torch.testing.assert_close(env.sim.joint_effort, expected)
    assert actor.target(0).shape == (N, 16)


def test_hold_stays_where_the_hand_was_and_home_goes_to_its_default_pose(env: SimVecEnv) -> None:
    judge = criterion_of(LEAP_HAND, env.sim)
    default = torch.tensor([j.default_pos_rad for j in LEAP_HAND.joints], dtype=torch.float64)
    qpos = (default + 0.2).repeat(N, 1)
    trips = one_trip(env, qpos, torch.zeros(N, 16, dtype=torch.float64))
    there, recovered = roll(env, trips, 0, "hold", limits(env), judge)
    assert there.all()
    assert recovered.all()
    # Gravity pulls servos of 3 N m/rad away by no more than 0.1 N m.
    assert (env.sim.joint_pos - qpos).abs().max() < 0.05
    _, recovered = roll(env, trips, 0, "home", limits(env), judge)
    assert recovered.all()
    assert (env.sim.joint_pos - default).abs().max() < 0.05


def test_after_damping_the_servos_are_as_stiff_as_before(env: SimVecEnv) -> None:
    judge = criterion_of(LEAP_HAND, env.sim)
    gains = env.sim.model_field("actuator_gainprm").clone()
    trips = one_trip(env, env.sim.qpos.clone(), env.sim.qvel.clone())
    roll(env, trips, 0, "damp", limits(env), judge)
    assert not env.sim.model_field("actuator_gainprm")[..., 0].any()
    roll(env, trips, 0, "hold", limits(env), judge)
    torch.testing.assert_close(env.sim.model_field("actuator_gainprm"), gains)


def test_a_recovery_policy_in_a_batch_is_the_one_on_a_robot(tmp_path: Path) -> None:
    """Its targets over several steps beside PolicyRunner's, which runs one robot at a time."""
    bundle = load_bundle(TinyPolicy(UNITREE_G1, control_period_s=0.02, history_length=3).write(tmp_path / "bundle"))
    rng = np.random.default_rng(0)
    default = np.array([j.default_pos_rad for j in UNITREE_G1.joints])

    def state() -> RobotState[torch.Tensor]:
        quat = rng.normal(size=(N, 4))
        quat /= np.linalg.norm(quat, axis=1, keepdims=True)
        pos = default + 0.1 * rng.normal(size=(N, 29))
        tensors = [torch.from_numpy(v).float() for v in (np.zeros(N), pos, np.zeros((N, 29)), quat)]
        return RobotState(tensors[0], tensors[1], tensors[2], imu_quat_wxyz=tensors[3])

    def row(states: RobotState[torch.Tensor], i: int) -> RobotState[np.ndarray]:
        fields = {k: v[i : i + 1].numpy() for k, v in vars(states).items() if v is not None}
        return RobotState(**fields)

    first = state()
    batch, singles = _Policy(bundle, first), [PolicyRunner(bundle.policy, bundle.contract) for _ in range(N)]
    rest = np.zeros(3, np.float32)
    for i, single in enumerate(singles):
        single.start(row(first, i), rest)
    now, applied = first, [None] * N
    for _ in range(4):
        targets = batch.target(now).numpy()
        for i, single in enumerate(singles):
            step = single.step(row(now, i), rest, applied[i])
            np.testing.assert_allclose(targets[i], step.target, atol=1e-6)
            applied[i] = step.target
        now = state()


def test_collected_states_are_those_of_the_episode(env: SimVecEnv) -> None:
    bundle = load_bundle(BUNDLE)
    trips = collect(env, bundle.policy, STOPS, limits(env), seed=5)
    assert trips.causes == {"stopped": N}
    there, qpos, qvel, _ = trips.before(0)
    assert there.all()
    # The same episode played by hand, up to where each world stopped.
    env.reset(5)
    for step in range(int(trips.step.max()) + 1):
        for world in (trips.step == step).nonzero().flatten().tolist():
            torch.testing.assert_close(env.sim.qpos[world], qpos[world])
            torch.testing.assert_close(env.sim.qvel[world], qvel[world])
        inputs = {k: v.numpy() for k, v in env.policy_inputs().items()}
        env.step(torch.from_numpy(bundle.policy.run_batch(inputs)["action"]))


def test_sources_change_what_they_say_and_keep_ranges_sane() -> None:
    by_name = {s.name: s.change(RandomizationConfig()) for s in SOURCES}
    assert by_name["pushes"].push_speed_m_s == (0.5, 1.5)
    assert by_name["other dynamics"].link_mass_scale == pytest.approx((0.7, 1.3))
    # Three times 0.5 to 2 would reach below zero.
    assert by_name["other dynamics"].joint_frictionloss_scale == pytest.approx((0.1, 3.5))
    assert by_name["other dynamics"].action_latency_steps == pytest.approx((0.0, 2.0))
    sensors = by_name["poor sensors"].sensors
    assert (sensors.joint_pos.noise, sensors.joint_pos.drop_probability) == pytest.approx((0.02, 0.3))
    assert sensors.imu_quat_wxyz.noise == pytest.approx(0.1)
    assert by_name["policy stops"] == RandomizationConfig()
    assert {s.name for s in SOURCES} - {s.name for s in sources_for(LEAP_HAND)} == {"pushes", "standing still"}


def made_up() -> BackupReport:
    rates = (Rate("damp", 0, 10), Rate("hold", 5, 10))
    return BackupReport(
        "some-task", "leap_hand", 10, 1, "it lies still", ("hold", "damp"), "",
        {"policy stops": {"stopped": 8, "joint_vel": 2}, "poor sensors": {}}, (Finding(STOPS, 0.0, rates),),
    )  # fmt: skip


def test_the_card_says_what_was_counted(tmp_path: Path) -> None:
    lines = page.section(made_up()).split("\n")
    assert "| policy stops | at it | 10 | 0% [0%, 31%] | 50% [19%, 81%] |" in lines
    assert "Recovered means: it lies still." in lines
    assert "- poor sensors: no state, since nothing tripped" in lines
    assert any(line.endswith("ended by stopped (8), joint vel (2)") for line in lines)
    page.write_data(tmp_path / "backups.json", made_up())
    data = json.loads((tmp_path / "backups.json").read_text())
    assert data["findings"][0]["tiers"]["hold"]["recovered"] == 5
    page.write_plot(tmp_path / "backups.png", made_up())
    assert (tmp_path / "backups.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.slow
def test_the_verb_writes_into_the_bundles_card(tmp_path: Path) -> None:
    import shutil

    from robot_rl.bundle.verify import verify_bundle
    from robot_rl_sim.commands.backup_report import BackupReportArgs, run

    copy = shutil.copytree(BUNDLE, tmp_path / "bundle")
    result = run(BackupReportArgs(copy, episodes=4, num_threads=1))
    assert result.ok, result.reason
    bundle = load_bundle(copy)
    assert "## Backups" in bundle.card
    assert verify_bundle(bundle, LEAP_HAND).ok
    assert (copy / "backups.png").exists()
    values = {r.name: r.value for r in result.rows}
    assert values["backup/policy_stops/0s/states"] == 4
    assert values["backup/policy_stops/0s/hold"] == 1.0
