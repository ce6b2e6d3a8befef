"""Sensors: true without flaws, and with them off, late, coarse and lost by as much as was configured."""

import dataclasses
import math

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.networks.rotation import conjugate, gravity_in_body, multiply, rotate, rotation_angle
from robot_rl.robots import LEAP_HAND, UNITREE_G1
from robot_rl_sim.backends.addresses import state_columns
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.backends.state_view import StateView
from robot_rl_sim.draws import Draws
from robot_rl_sim.models import load_model, load_spec
from robot_rl_sim.sensor_config import PERFECT, SensorConfig, SensorsConfig
from robot_rl_sim.sensors import Sensors

FIELDS = UNITREE_G1.state_fields
NOISE = torch.Generator()


def in_flight() -> MujocoCpuSim:
    """Two humanoids, tilted and turning."""
    sim = MujocoCpuSim(load_model("unitree_g1"), UNITREE_G1, 2, 4, 1)
    rng = np.random.default_rng(0)
    qpos, qvel = np.zeros((2, 36)), rng.normal(size=(2, 35))
    qpos[:, 2] = 3.0
    qpos[:, 3:7] = [[0.8, 0.6, 0, 0], [0.8, 0, 0.48, 0.36]]
    qpos[:, 7:] = 0.1 * rng.normal(size=(2, 29))
    sim.set_state(torch.arange(2), torch.from_numpy(qpos), torch.from_numpy(qvel))
    return sim


def begin(sensors: Sensors, draws: Draws, worlds: torch.Tensor, seed: int = 0) -> None:
    if len(draws.values) == 0:
        draws.allocate(sensors._now.num_worlds, torch.device("cpu"))
    draws.draw(worlds, torch.Generator().manual_seed(seed))
    sensors.reset(worlds)


def g1_sensors(sim: MujocoCpuSim, config: SensorsConfig, fields: tuple[str, ...] = FIELDS) -> tuple[Sensors, Draws]:
    draws = Draws()
    sensors = Sensors(sim, UNITREE_G1, fields, config, draws)
    begin(sensors, draws, torch.arange(sim.num_worlds))
    return sensors, draws


class Signals:
    """n worlds of a hand whose joints follow given signals, (t, n, 16), one row per physics step of 10 ms."""

    device = torch.device("cpu")

    def __init__(self, signals: torch.Tensor) -> None:
        self.model = load_model("leap_hand")
        self.model.opt.timestep = 0.01
        self.signals = signals.double()
        self.num_worlds = signals.shape[1]
        self.row = 0

    def _view(self, rows: torch.Tensor) -> StateView:
        empty = torch.zeros(*rows.shape[:-1], 0)
        columns = state_columns(self.model, (slice(0, 16), slice(0, 16)))
        return StateView(self.model, columns, rows, 10 * rows, empty, empty)

    def __getattr__(self, name: str):
        return getattr(self._view(self.signals[self.row]), name)

    def advance(self, steps: int) -> StateView:
        rows = self.signals[self.row + 1 : self.row + 1 + steps].transpose(0, 1)
        self.row += steps
        return self._view(rows)


def follow(signals: torch.Tensor, config: SensorConfig, substeps: int, **others: SensorConfig):
    """Readings (t, n, 16) of joint_pos at the end of every control period, and the sensors."""
    now, draws = Signals(signals), Draws()
    sensors = Sensors(now, LEAP_HAND, (), dataclasses.replace(PERFECT, joint_pos=config, **others), draws)
    begin(sensors, draws, torch.arange(now.num_worlds))
    generator, readings = torch.Generator().manual_seed(1), []
    for _ in range((len(signals) - 1) // substeps):
        trace = now.advance(substeps)
        if sensors.late:
            sensors.update(trace)
        readings.append(sensors.read(generator).joint_pos)
    return torch.stack(readings), sensors


def white(steps: int, worlds: int = 1) -> torch.Tensor:
    return torch.randn(steps, worlds, 16, generator=torch.Generator().manual_seed(0))


def test_without_flaws_they_read_what_the_models_own_sensors_read() -> None:
    sim = in_flight()
    state = g1_sensors(sim, PERFECT)[0].read(NOISE)
    for i in range(2):
        data = sim.snapshot(i)
        np.testing.assert_allclose(state.imu_quat_wxyz[i], data.sensor("imu_quat").data, atol=1e-6)
        np.testing.assert_allclose(state.imu_ang_vel_b[i], data.sensor("imu_gyro").data, atol=1e-5)
        np.testing.assert_allclose(state.imu_lin_acc_b[i], data.sensor("imu_acc").data, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(state.joint_effort[i], data.actuator_force, rtol=1e-5)
        np.testing.assert_allclose(state.joint_pos[i], data.qpos[7:], atol=1e-6)
        np.testing.assert_allclose(state.joint_vel[i], data.qvel[6:], atol=1e-6)


def test_gravity_seen_by_the_imu() -> None:
    """A body turned by +roll sees gravity on its right: quaternion order and sign, by hand."""
    state = g1_sensors(in_flight(), PERFECT)[0].read(NOISE)
    # (0.8, 0.6, 0, 0) is a roll of 2 acos(0.8): cos = 0.28, sin = 0.96.
    torch.testing.assert_close(gravity_in_body(state.imu_quat_wxyz)[0], torch.tensor([0.0, -0.96, -0.28]))


def test_only_the_fields_asked_for_are_read() -> None:
    state = g1_sensors(in_flight(), PERFECT, ("imu_ang_vel_b",))[0].read(NOISE, torch.tensor([1]))
    assert state.imu_quat_wxyz is None
    assert state.imu_ang_vel_b.shape == (1, 3)
    assert state.joint_pos.shape == (1, 29)


def test_an_object_is_seen_from_the_root_body() -> None:
    """Where a tilted palm is, and what stands before it: checked with MuJoCo's own frame sensor."""
    spec = load_spec("leap_hand")
    thing = spec.worldbody.add_body(name="thing", pos=[0.1, 0.2, 0.3])
    thing.add_freejoint()
    thing.add_geom(size=[0.02, 0.02, 0.02], type=mujoco.mjtGeom.mjGEOM_BOX)
    body = mujoco.mjtObj.mjOBJ_XBODY
    for name, kind in (("pos", mujoco.mjtSensor.mjSENS_FRAMEPOS), ("quat", mujoco.mjtSensor.mjSENS_FRAMEQUAT)):
        spec.add_sensor(name=name, type=kind, objtype=body, objname="thing", reftype=body, refname="palm")
    sim = MujocoCpuSim(spec.compile(), LEAP_HAND, 3, 4, 1)
    draws = Draws()
    late = PERFECT.timed(delay_s=(0.0, 0.0), drop_probability=1e-9)
    for config in (PERFECT, late):
        sensors = Sensors(sim, LEAP_HAND, ("object_pos", "object_quat_wxyz"), config, draws, "thing")
        _, velocity = sim.free_joint("thing")
        velocity[:, 3:] = torch.tensor([1.0, -2.0, 3.0])
        begin(sensors, draws, torch.arange(3))
        if sensors.late:
            sim.trace()
        sim.step(sim.joint_pos.clone())
        if sensors.late:
            sensors.update(sim.trace())
        state = sensors.read(NOISE)
        data = sim.snapshot(0)
        np.testing.assert_allclose(state.object_pos[0], data.sensor("pos").data, atol=1e-6)
        assert abs(np.dot(state.object_quat_wxyz[0].numpy(), data.sensor("quat").data)) == pytest.approx(1.0, abs=1e-6)


def test_uniform_noise_stays_within_its_bounds_and_fills_them() -> None:
    config = dataclasses.replace(
        PERFECT,
        joint_pos=SensorConfig(noise=0.01),
        joint_vel=SensorConfig(noise=0.5),
        imu_ang_vel_b=SensorConfig(noise=0.2),
    )
    sensors, _ = g1_sensors(in_flight(), config)
    generator = torch.Generator().manual_seed(0)
    truth = g1_sensors(in_flight(), PERFECT)[0].read(generator)
    readings = [sensors.read(generator) for _ in range(300)]
    for field, bound in (("joint_pos", 0.01), ("joint_vel", 0.5), ("imu_ang_vel_b", 0.2)):
        error = torch.stack([getattr(r, field) - getattr(truth, field) for r in readings])
        assert 0.9 * bound < error.abs().max() <= bound * 1.001
        assert error.mean().abs() < 0.05 * bound
        assert error.std() == pytest.approx(bound / math.sqrt(3), rel=0.05)
    assert torch.equal(readings[0].imu_quat_wxyz, truth.imu_quat_wxyz)


def test_gaussian_errors_have_the_stated_deviation_also_beside_uniform_ones() -> None:
    gaussian = SensorConfig(noise=0.01, bias=0.03, distribution="gaussian")
    config = dataclasses.replace(PERFECT, joint_pos=gaussian, joint_vel=SensorConfig(noise=0.5))
    sim = MujocoCpuSim(load_model("leap_hand"), LEAP_HAND, 500, 4, 1)
    draws = Draws()
    sensors = Sensors(sim, LEAP_HAND, (), config, draws)
    begin(sensors, draws, torch.arange(500))
    generator = torch.Generator().manual_seed(0)
    error = torch.stack([sensors.read(generator).joint_pos - sim.joint_pos.float() for _ in range(20)])
    bias = error.mean(0)
    assert (error - bias).std() == pytest.approx(0.01, rel=0.05)
    assert (error - bias).abs().max() > 0.03
    assert bias.std() == pytest.approx(0.03, rel=0.05)
    assert bias.abs().max() > 0.08
    speeds = sensors.read(generator).joint_vel - sim.joint_vel.float()
    assert 0.48 < speeds.abs().max() <= 0.5


def test_an_orientation_is_off_by_the_stated_angle_about_each_axis() -> None:
    sensors, _ = g1_sensors(in_flight(), dataclasses.replace(PERFECT, imu_quat_wxyz=SensorConfig(noise=0.05)))
    generator = torch.Generator().manual_seed(0)
    truth = g1_sensors(in_flight(), PERFECT)[0].read(generator).imu_quat_wxyz
    off = torch.cat([multiply(conjugate(truth), sensors.read(generator).imu_quat_wxyz) for _ in range(400)])
    torch.testing.assert_close(off.norm(dim=-1), torch.ones(800))
    about_axes = 2 * off[:, 1:] * off[:, :1].sign()
    assert about_axes.abs().max() <= 0.0501
    assert (about_axes.abs().amax(0) > 0.048).all()
    torch.testing.assert_close(about_axes.std(0), torch.full((3,), 0.05 / math.sqrt(3)), rtol=0.1, atol=0)


def test_a_crooked_imu_is_off_by_the_same_rotation_of_its_body_in_every_attitude() -> None:
    sim = in_flight()
    sensors, _ = g1_sensors(sim, dataclasses.replace(PERFECT, imu_quat_wxyz=SensorConfig(bias=0.05)))
    seen = []
    for turn in ([1.0, 0, 0, 0], [0.6, 0.0, 0.8, 0.0], [0.0, 0.6, 0.0, 0.8]):
        sim.qpos[:, 3:7] = torch.tensor(turn)
        truth = sim.qpos[:, 3:7].float()
        seen.append(multiply(conjugate(truth), sensors.read(NOISE).imu_quat_wxyz))
    torch.testing.assert_close(seen[1], seen[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[2], seen[0], atol=1e-6, rtol=0)
    assert 0.01 < rotation_angle(seen[0]).max() < 0.05 * math.sqrt(3)
    upright = rotate(torch.tensor([[0.0, 0.0, 1.0]]), seen[0][:1])
    assert upright[0, 2] < 1.0


def test_bias_is_kept_for_an_episode_and_redrawn_for_the_next() -> None:
    sim = in_flight()
    sensors, draws = g1_sensors(sim, dataclasses.replace(PERFECT, joint_pos=SensorConfig(bias=0.02)))
    first = sensors.read(NOISE).joint_pos - sim.joint_pos.float()
    torch.testing.assert_close(sensors.read(NOISE).joint_pos - sim.joint_pos.float(), first, rtol=0, atol=0)
    torch.testing.assert_close(sensors.joint_bias, first, atol=1e-6, rtol=0)
    assert 0.015 < first.abs().max() <= 0.0201
    begin(sensors, draws, torch.tensor([1]), seed=1)
    second = sensors.read(NOISE).joint_pos - sim.joint_pos.float()
    assert torch.equal(second[0], first[0])
    assert not torch.allclose(second[1], first[1])


@pytest.mark.parametrize("delay_s", [0.0, 0.01, 0.03, 0.05, 0.11, 0.2])
def test_the_delay_measured_by_cross_correlation_is_the_one_configured(delay_s: float) -> None:
    """Control periods of 5 physics steps: delays are finer than they."""
    signals = white(501)
    readings, _ = follow(signals, SensorConfig(delay_s=(delay_s, delay_s), noise=0.1), substeps=5)
    truth, seen = signals[:, 0], readings[10:, 0]
    times = torch.arange(55, 501, 5)
    correlation = torch.stack([(truth[times - lag] * seen).mean() for lag in range(40)])
    assert int(correlation.argmax()) == round(delay_s / 0.01)
    assert correlation.max() > 0.9


def test_delays_differ_between_episodes_and_cover_their_range() -> None:
    signals = torch.arange(301.0).view(-1, 1, 1).expand(-1, 200, 16)  # the value is the time
    readings, sensors = follow(signals, SensorConfig(delay_s=(0.02, 0.07)), substeps=5)
    ages = 300 - readings[-1, :, 0]
    assert ages.unique().tolist() == [2, 3, 4, 5, 6, 7]
    assert torch.equal(300 - readings[-2, :, 0], ages + 5)
    torch.testing.assert_close(300.0 - sensors.sample_steps, ages)


def test_before_the_first_sample_arrives_the_start_is_read() -> None:
    signals = 5.0 + torch.arange(21.0).view(-1, 1, 1).expand(-1, 1, 16)
    readings, _ = follow(signals, SensorConfig(delay_s=(0.1, 0.1)), substeps=2)
    assert readings[:, 0, 0].tolist() == [5, 5, 5, 5, 5, 7, 9, 11, 13, 15]


def test_a_slow_sensor_holds_its_last_sample_with_its_noise() -> None:
    """Samples 3 steps apart, read every 2, one step late."""
    signals = torch.arange(31.0).view(-1, 1, 1).expand(-1, 1, 16)
    config = SensorConfig(period_s=0.03, delay_s=(0.01, 0.01), noise=0.1)
    readings, _ = follow(signals, config, substeps=2)
    sampled = [max(0, (t - 1) // 3 * 3) for t in range(2, 31, 2)]
    torch.testing.assert_close(readings[:, 0, 0].round(), torch.tensor(sampled).float())
    for i in range(1, len(sampled)):
        assert torch.equal(readings[i], readings[i - 1]) == (sampled[i] == sampled[i - 1])


def test_dropped_samples_are_lost_for_good_and_the_last_one_is_held() -> None:
    """With a reading per sample, each is lost with the stated chance, on its own."""
    signals = torch.arange(401.0).view(-1, 1, 1).expand(-1, 100, 16)
    readings, _ = follow(signals, SensorConfig(drop_probability=0.3, noise=0.1), substeps=1)
    arrived = readings[:, :, 0].round() == torch.arange(1.0, 401.0).unsqueeze(1)
    assert (~arrived).float().mean() == pytest.approx(0.3, abs=0.01)
    held = (readings[1:] == readings[:-1]).all(-1)
    assert torch.equal(held, ~arrived[1:])
    pairs = (~arrived[1:] & ~arrived[:-1]).float().mean()
    assert pairs == pytest.approx(0.09, abs=0.01)


def test_the_newest_sample_that_was_not_dropped_is_read() -> None:
    """With ten samples per reading, the age of what is read has a geometric distribution."""
    signals = torch.arange(1001.0).view(-1, 1, 1).expand(-1, 100, 16)
    readings, _ = follow(signals, SensorConfig(drop_probability=0.5), substeps=10)
    ages = torch.arange(10.0, 1001.0, 10).unsqueeze(1) - readings[:, :, 0]
    for age in range(4):
        assert (ages == age).float().mean() == pytest.approx(0.5 ** (age + 1), abs=0.01)


def test_jitter_spreads_ages_and_never_goes_back() -> None:
    signals = torch.arange(1001.0).view(-1, 1, 1).expand(-1, 50, 16)
    readings, _ = follow(signals, SensorConfig(jitter_s=0.08), substeps=10)
    ages = torch.arange(10.0, 1001.0, 10).unsqueeze(1) - readings[:, :, 0]
    assert ages.unique().tolist() == list(range(9))
    assert ages.mean() == pytest.approx(4.0, abs=0.1)
    close, _ = follow(signals, SensorConfig(jitter_s=0.08), substeps=1)
    assert (close[1:] >= close[:-1]).all()


def test_fields_of_one_message_are_late_and_lost_together() -> None:
    signals = torch.arange(201.0).view(-1, 1, 1).expand(-1, 20, 16)
    now, draws = Signals(signals), Draws()
    config = PERFECT.timed(delay_s=(0.0, 0.05), drop_probability=0.3, jitter_s=0.02)
    sensors = Sensors(now, LEAP_HAND, (), config, draws)
    begin(sensors, draws, torch.arange(20))
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        sensors.update(now.advance(4))
        state = sensors.read(generator)
        assert torch.equal(state.joint_vel, 10 * state.joint_pos)
    assert (state.joint_pos[:, 0] != 200).any()


def test_a_camera_may_be_slower_than_joints() -> None:
    signals = torch.arange(41.0).view(-1, 1, 1).expand(-1, 1, 16)
    readings, sensors = follow(signals, SensorConfig(), 4, joint_vel=SensorConfig(delay_s=(0.03, 0.03), period_s=0.02))
    assert readings[-1, 0, 0] == 40
    assert int(sensors.sample_steps) == 36


def test_numbers_come_in_multiples_of_the_resolution() -> None:
    signals = white(41)
    readings, _ = follow(signals, SensorConfig(resolution=0.25), substeps=4)
    truth = signals[4::4]
    assert torch.equal(readings, torch.round(truth / 0.25) * 0.25)
    assert (readings != truth).any()


def test_a_new_episode_of_one_world_leaves_the_others_alone() -> None:
    signals = torch.arange(101.0).view(-1, 1, 1).expand(-1, 2, 16)
    now, draws = Signals(signals), Draws()
    config = dataclasses.replace(PERFECT, joint_pos=SensorConfig(delay_s=(0.06, 0.06), drop_probability=1e-9))
    sensors = Sensors(now, LEAP_HAND, (), config, draws)
    begin(sensors, draws, torch.arange(2))
    for _ in range(10):
        sensors.update(now.advance(4))
        sensors.read(NOISE)
    begin(sensors, draws, torch.tensor([1]), seed=3)
    assert sensors.read(NOISE, torch.tensor([1])).joint_pos[0, 0] == 40
    sensors.update(now.advance(4))
    assert sensors.read(NOISE).joint_pos[:, 0].tolist() == [38, 40]
    sensors.update(now.advance(4))
    assert sensors.read(NOISE).joint_pos[:, 0].tolist() == [42, 42]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"noise": -0.1}, "noise"),
        ({"bias": float("nan")}, "bias"),
        ({"delay_s": (0.2, 0.1)}, "delay_s"),
        ({"drop_probability": 1.0}, "drop_probability"),
        ({"distribution": "cauchy"}, "uniform, gaussian"),
    ],
)
def test_impossible_sensors_are_refused_by_name(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        SensorConfig(**change)


def test_unknown_fields_and_coarse_orientations_are_refused() -> None:
    with pytest.raises(ConfigError, match="lidar"):
        g1_sensors(in_flight(), PERFECT, ("lidar",))
    with pytest.raises(ConfigError, match="imu_quat_wxyz"):
        SensorsConfig(imu_quat_wxyz=SensorConfig(resolution=0.1))


def test_imu_body_frame_is_the_base_frame() -> None:
    """The IMU site must not be turned against the pelvis, or quaternion and gyroscope would disagree."""
    model = load_model("unitree_g1")
    np.testing.assert_array_equal(model.site("imu").quat, [1, 0, 0, 0])
    assert model.body(model.site("imu").bodyid[0]).name == UNITREE_G1.root_body
    assert int(model.sensor("imu_quat").type[0]) == int(mujoco.mjtSensor.mjSENS_FRAMEQUAT)
