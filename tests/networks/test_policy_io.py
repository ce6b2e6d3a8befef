"""PolicyIO and TipKinematics against hand-computed values, and the exported form against both."""

import math

import pytest
import torch

from robot_rl.contract import ActionSpec, TensorSpec
from robot_rl.errors import ConfigError
from robot_rl.networks.kinematics import TipKinematics, rotation_from_quat_wxyz
from robot_rl.networks.policy_io import ObservationTerm, PolicyGraph, PolicyIO
from robot_rl.networks.rotation import gravity_in_body
from robot_rl.robots import LEAP_HAND, UNITREE_G1

GOAL = TensorSpec("fingertip_goal", (12,), "m", "command", frame="palm")
LOW = tuple(j.lower_rad for j in LEAP_HAND.joints)
HIGH = tuple(j.upper_rad for j in LEAP_HAND.joints)
DEFAULT = torch.tensor([j.default_pos_rad for j in LEAP_HAND.joints])


def leap_io(*terms: str, kind: str = "position_delta", history_length: int = 1) -> PolicyIO:
    action = ActionSpec(kind, (0.1,) * 16, tuple(DEFAULT.tolist()), LOW, HIGH)  # type: ignore[arg-type]
    return PolicyIO(LEAP_HAND, tuple(ObservationTerm(t) for t in terms), action, 0.05, GOAL, history_length)


def random_inputs(n: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    low, high = torch.tensor(LOW), torch.tensor(HIGH)
    pos = low + (high - low) * torch.rand(n, 16, generator=generator)
    return {
        "joint_pos": pos,
        "joint_vel": torch.randn(n, 16, generator=generator),
        "command": torch.randn(n, 12, generator=generator),
        "last_action": torch.rand(n, 16, generator=generator) * 2 - 1,
        "last_target": pos + 0.05,
    }


def test_a_straight_finger_points_where_hand_arithmetic_says() -> None:
    """All joints of the index at zero: every rotation is a product of quarter turns, so the tip is a sum of offsets."""
    tips = TipKinematics(LEAP_HAND, LEAP_HAND.chains)(torch.zeros(1, 16))[0]
    chain = LEAP_HAND.chains[0]
    point = torch.tensor(chain.tip_pos_m)
    for link in reversed(chain.links):
        point = rotation_from_quat_wxyz(torch.tensor(link.quat_wxyz)) @ point + torch.tensor(link.pos_m)
    torch.testing.assert_close(tips[0], point, atol=1e-7, rtol=0)


def test_tip_velocity_matches_rigid_body_motion() -> None:
    """d(tip)/dq of a finger's last joint is axis × lever: its length is the tip's distance from the joint axis."""
    kinematics = TipKinematics(LEAP_HAND, LEAP_HAND.chains)
    q = random_inputs(1)["joint_pos"]
    jacobian = torch.autograd.functional.jacobian(lambda x: kinematics(x)[0], q)[:, :, 0]  # (tips, 3, joints)
    # Index finger: joint axis z, tip offset (0, -0.05, 0.015) from the last joint, so 0.05 m from the axis.
    assert float(jacobian[0, :, 3].norm()) == pytest.approx(0.05, abs=1e-6)
    assert float(jacobian[0, :, 4:].abs().max()) == 0.0  # other fingers do not move it


def test_a_robot_without_chains_has_no_tips() -> None:
    with pytest.raises(ConfigError, match="'leap_hand' has no chains"):
        TipKinematics(LEAP_HAND, ())


def test_gravity_in_body_of_known_attitudes() -> None:
    half = math.sqrt(0.5)
    quats = torch.tensor([[1.0, 0, 0, 0], [half, half, 0, 0], [half, 0, half, 0], [0, 1.0, 0, 0]])
    # Upright: down is -z. Rolled 90° (about x): down is -y. Pitched 90° (about y): down is +x. Upside down: +z.
    expected = torch.tensor([[0.0, 0, -1], [0, -1, 0], [1, 0, 0], [0, 0, 1]])
    torch.testing.assert_close(gravity_in_body(quats), expected, atol=1e-6, rtol=0)


def test_gravity_in_body_is_down_turned_into_the_body() -> None:
    quats = torch.nn.functional.normalize(torch.randn(20, 4, generator=torch.Generator().manual_seed(0)), dim=-1)
    down = torch.tensor([0.0, 0.0, -1.0])
    expected = rotation_from_quat_wxyz(quats).transpose(1, 2) @ down
    torch.testing.assert_close(gravity_in_body(quats), expected)


def test_terms_are_what_they_say_in_the_order_asked() -> None:
    io = leap_io("joint_vel", "joint_pos", "target_error", "last_action", "command")
    x = random_inputs(3)
    expected = torch.cat((x["joint_vel"], x["joint_pos"] - DEFAULT, torch.full((3, 16), 0.05), x["last_action"]), 1)
    obs = io.encode(x)
    torch.testing.assert_close(obs[:, :64], expected)
    torch.testing.assert_close(obs[:, 64:], x["command"])
    assert io.contract.observation_terms[0] == ("joint_vel", 16)


def test_tip_error_is_zero_at_the_goal() -> None:
    io = leap_io("tip_error")
    x = random_inputs(4)
    x["command"] = TipKinematics(LEAP_HAND, LEAP_HAND.chains)(x["joint_pos"]).flatten(1)
    assert float(io.encode(x).abs().max()) < 1e-6


@pytest.mark.parametrize("kind", ["position_delta", "position_relative"])
def test_decode_adds_to_the_right_base_and_stays_inside_the_limits(kind: str) -> None:
    io = leap_io("joint_pos", kind=kind)
    last_target = random_inputs(2)["last_target"].clamp(torch.tensor(LOW), torch.tensor(HIGH))
    base = last_target if kind == "position_delta" else DEFAULT.expand(2, 16)
    action = torch.full((2, 16), 0.5)
    torch.testing.assert_close(
        io.decode(action, last_target), (base + 0.05).clamp(torch.tensor(LOW), torch.tensor(HIGH))
    )
    far = io.decode(torch.full((2, 16), 1e9), last_target)
    torch.testing.assert_close(far, torch.tensor(HIGH).expand(2, 16))


def test_history_holds_the_last_frames_oldest_first() -> None:
    io = leap_io("joint_pos", history_length=3)
    frames = [random_inputs(1)["joint_pos"] + 0.01 * k for k in range(4)]
    inputs = {**random_inputs(1), "joint_pos": frames[0]}
    memory = io.start_memory(inputs)
    for k, pos in enumerate(frames):
        inputs |= memory | {"joint_pos": pos}
        obs = io.encode(inputs)
        memory = io.next_memory(inputs, obs, inputs["last_action"], inputs["last_target"])
        seen = [frames[max(0, k - 2)], frames[max(0, k - 1)], frames[k]]
        torch.testing.assert_close(obs, torch.cat(seen, 1) - DEFAULT.repeat(3))


def test_memory_starts_from_the_measured_pose() -> None:
    memory = leap_io("joint_pos").start_memory(random_inputs(2))
    torch.testing.assert_close(memory["last_target"], random_inputs(2)["joint_pos"])
    assert float(memory["last_action"].abs().max()) == 0.0


def test_graph_outputs_follow_the_contract() -> None:
    io = leap_io("joint_pos", "tip_error", history_length=2)
    graph = PolicyGraph(io, torch.nn.Identity(), torch.nn.Sequential(torch.nn.Linear(io.obs_dim, 16), torch.nn.Tanh()))
    x = random_inputs(2)
    x |= {"history": io.start_memory(x)["history"], "fingertip_goal": x["command"]}
    outputs = graph(*(x[s.name] for s in io.contract.inputs))
    for spec, value in zip(io.contract.outputs, outputs, strict=True):
        assert value.shape == (2, *spec.shape), spec.name


@pytest.mark.parametrize(
    ("terms", "robot", "command", "words"),
    [
        (("joint_torque",), LEAP_HAND, GOAL, r"unknown observation terms \['joint_torque'\]; valid: joint_pos"),
        (("base_ang_vel",), LEAP_HAND, GOAL, "does not measure"),
        (("command",), LEAP_HAND, None, "needs the command"),
        (("tip_error",), LEAP_HAND, TensorSpec("goal", (3,), "m", "command"), "needs a command of 12 numbers, got 3"),
    ],
)
def test_impossible_observations_are_refused(terms, robot, command, words) -> None:  # type: ignore[no-untyped-def]
    n = len(robot.joints)
    action = ActionSpec("position_relative", (0.1,) * n, (0.0,) * n, (-3.0,) * n, (3.0,) * n)
    with pytest.raises(ConfigError, match=words):
        PolicyIO(robot, tuple(ObservationTerm(t) for t in terms), action, 0.05, command)


def test_a_humanoid_reads_its_imu() -> None:
    n = len(UNITREE_G1.joints)
    action = ActionSpec("position_relative", (0.1,) * n, (0.0,) * n, (-3.0,) * n, (3.0,) * n)
    io = PolicyIO(
        UNITREE_G1, (ObservationTerm("projected_gravity"), ObservationTerm("base_ang_vel", 0.25)), action, 0.02
    )
    upright = {"imu_quat_wxyz": torch.tensor([[1.0, 0, 0, 0]]), "imu_ang_vel_b": torch.tensor([[0.0, 4.0, 0.0]])}
    torch.testing.assert_close(io.encode(upright), torch.tensor([[0.0, 0, -1, 0, 1.0, 0]]))
    assert [t.name for t in io.contract.inputs if t.source == "state"] == [
        "joint_pos",
        "imu_quat_wxyz",
        "imu_ang_vel_b",
    ]


def walking_io(*terms: str, gait_period_s: float | None = 0.8) -> PolicyIO:
    limits = ((0.1,) * 29, (0.0,) * 29, (-3.0,) * 29, (3.0,) * 29)
    command = TensorSpec("velocity_command", (3,), "m/s, m/s, rad/s", "command")
    return PolicyIO(
        UNITREE_G1,
        tuple(ObservationTerm(t) for t in terms),
        ActionSpec("position_relative", *limits),
        0.02,
        command,
        gait_period_s=gait_period_s,
    )


def test_the_gait_clock_is_memory_and_turns_once_in_its_period() -> None:
    """Ten of forty steps are a quarter of a cycle; whoever is asked to stand sees no clock, and yet it goes on."""
    io = walking_io("gait_phase")
    inputs = {"joint_pos": torch.zeros(2, 29), "command": torch.tensor([[0.0, 0.0, 0.5], [0.05, -0.05, 0.0]])}
    memory = io.start_memory(inputs)
    assert memory["gait_phase"].tolist() == [[0.0], [0.0]]
    torch.testing.assert_close(io.encode(inputs | memory), torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    seen = []
    for _ in range(50):
        obs = io.encode(inputs | memory)
        memory = io.next_memory(memory, obs, torch.zeros(2, 29), torch.zeros(2, 29))
        seen.append(memory["gait_phase"][1].item())
    assert seen[9] == pytest.approx(0.25, abs=1e-6)
    assert seen[49] == pytest.approx(0.25, abs=1e-5)
    assert all(0 <= phase < 1 for phase in seen)
    torch.testing.assert_close(io.encode(inputs | memory), torch.tensor([[1.0, 0.0], [0.0, 0.0]]), atol=1e-4, rtol=0)
    spec = next(t for t in io.contract.inputs if t.name == "gait_phase")
    assert (spec.source, spec.start, spec.feedback) == ("memory", "zero", "policy")
    graph = PolicyGraph(io, torch.nn.Identity(), torch.nn.Linear(2, 29))
    named = inputs | memory
    row = [named["command" if t.source == "command" else t.name] for t in io.contract.inputs]
    outputs = dict(zip(io.contract.output_names, graph(*row), strict=True))
    torch.testing.assert_close(outputs["next_gait_phase"], memory["gait_phase"] + 0.025)


@pytest.mark.parametrize(("terms", "period"), [(("gait_phase",), None), (("command",), 0.8)])
def test_a_gait_clock_without_its_period_is_refused(terms: tuple[str, ...], period: float | None) -> None:
    with pytest.raises(ConfigError, match="gait_phase and gait_period_s go together"):
        walking_io(*terms, gait_period_s=period)
