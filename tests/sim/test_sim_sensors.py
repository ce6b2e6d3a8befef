"""Sensors: true without noise, within the stated error with it."""

import mujoco
import numpy as np
import pytest
import torch

from robot_rl.errors import ConfigError
from robot_rl.networks.rotation import gravity_in_body
from robot_rl.robots import UNITREE_G1
from robot_rl_sim.backends.mujoco_cpu import MujocoCpuSim
from robot_rl_sim.models import load_model
from robot_rl_sim.sensors import NO_NOISE, SensorNoise, Sensors

FIELDS = UNITREE_G1.state_fields


@pytest.fixture
def sim() -> MujocoCpuSim:
    """Two humanoids in flight, tilted and turning."""
    sim = MujocoCpuSim(load_model("unitree_g1"), UNITREE_G1, 2, 4, 1)
    rng = np.random.default_rng(0)
    qpos, qvel = np.zeros((2, 36)), rng.normal(size=(2, 35))
    qpos[:, 2] = 3.0
    qpos[:, 3:7] = [[0.8, 0.6, 0, 0], [0.8, 0, 0.48, 0.36]]
    qpos[:, 7:] = 0.1 * rng.normal(size=(2, 29))
    sim.set_state(torch.arange(2), torch.from_numpy(qpos), torch.from_numpy(qvel))
    return sim


def test_without_noise_they_read_what_the_models_own_sensors_read(sim: MujocoCpuSim) -> None:
    state = Sensors(sim, FIELDS, NO_NOISE).read(torch.Generator())
    for i in range(2):
        data = sim.snapshot(i)
        np.testing.assert_allclose(state.imu_quat_wxyz[i], data.sensor("imu_quat").data, atol=1e-6)
        np.testing.assert_allclose(state.imu_ang_vel_b[i], data.sensor("imu_gyro").data, atol=1e-5)
        np.testing.assert_allclose(state.imu_lin_acc_b[i], data.sensor("imu_acc").data, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(state.joint_effort[i], data.actuator_force, rtol=1e-5)
        np.testing.assert_allclose(state.joint_pos[i], data.qpos[7:], atol=1e-6)
        np.testing.assert_allclose(state.joint_vel[i], data.qvel[6:], atol=1e-6)


def test_gravity_seen_by_the_imu(sim: MujocoCpuSim) -> None:
    """A body turned by +roll sees gravity on its right: quaternion order and sign, by hand."""
    state = Sensors(sim, FIELDS, NO_NOISE).read(torch.Generator())
    # (0.8, 0.6, 0, 0) is a roll of 2 acos(0.8): cos = 0.28, sin = 0.96.
    torch.testing.assert_close(gravity_in_body(state.imu_quat_wxyz)[0], torch.tensor([0.0, -0.96, -0.28]))


def test_only_the_fields_asked_for_are_read(sim: MujocoCpuSim) -> None:
    state = Sensors(sim, ("imu_ang_vel_b",), NO_NOISE).read(torch.Generator(), torch.tensor([1]))
    assert state.imu_quat_wxyz is None
    assert state.imu_ang_vel_b.shape == (1, 3)
    assert state.joint_pos.shape == (1, 29)


def test_noise_stays_within_its_bounds_and_fills_them(sim: MujocoCpuSim) -> None:
    noise = SensorNoise(joint_pos_rad=0.01, joint_vel_rad_s=0.5, ang_vel_rad_s=0.2, tilt_rad=0.05, joint_bias_rad=0.0)
    sensors, generator = Sensors(sim, FIELDS, noise), torch.Generator().manual_seed(0)
    truth = Sensors(sim, FIELDS, NO_NOISE).read(generator)
    readings = [sensors.read(generator) for _ in range(300)]
    for field, bound in (("joint_pos", 0.01), ("joint_vel", 0.5), ("imu_ang_vel_b", 0.2)):
        error = torch.stack([getattr(r, field) - getattr(truth, field) for r in readings])
        assert 0.9 * bound < error.abs().max() <= bound * 1.001
        assert error.mean().abs() < 0.05 * bound
    quats = torch.stack([r.imu_quat_wxyz for r in readings])
    torch.testing.assert_close(quats.norm(dim=-1), torch.ones(300, 2))
    # Angle between two orientations: 2 acos |<p, q>|. Its largest component is tilt_rad, and there are three.
    angle = 2 * torch.acos((quats * truth.imu_quat_wxyz).sum(-1).abs().clamp(max=1))
    assert 0.05 < angle.max() < 0.05 * 2.01
    assert 0.03 < angle.mean() < 0.06


def test_bias_is_kept_for_an_episode_and_redrawn_for_the_next(sim: MujocoCpuSim) -> None:
    sensors = Sensors(sim, FIELDS, SensorNoise(0, 0, 0, 0, joint_bias_rad=0.02))
    generator = torch.Generator().manual_seed(0)
    sensors.reset(torch.arange(2), generator)
    first = sensors.read(generator).joint_pos - sim.joint_pos.float()
    torch.testing.assert_close(sensors.read(generator).joint_pos - sim.joint_pos.float(), first, rtol=0, atol=0)
    assert 0.015 < first.abs().max() <= 0.0201
    sensors.reset(torch.tensor([1]), generator)
    second = sensors.read(generator).joint_pos - sim.joint_pos.float()
    assert torch.equal(second[0], first[0])
    assert not torch.allclose(second[1], first[1])


def test_unknown_field_and_negative_noise_are_refused(sim: MujocoCpuSim) -> None:
    with pytest.raises(ConfigError, match="lidar"):
        Sensors(sim, ("lidar",), NO_NOISE)
    with pytest.raises(ConfigError, match="tilt_rad"):
        SensorNoise(tilt_rad=-0.1)


def test_imu_body_frame_is_the_base_frame() -> None:
    """The IMU site must not be turned against the pelvis, or quaternion and gyroscope would disagree."""
    model = load_model("unitree_g1")
    np.testing.assert_array_equal(model.site("imu").quat, [1, 0, 0, 0])
    assert model.body(model.site("imu").bodyid[0]).name == UNITREE_G1.root_body
    assert int(model.sensor("imu_quat").type[0]) == int(mujoco.mjtSensor.mjSENS_FRAMEQUAT)
