import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.bundle.verify import verify_bundle
from robot_rl.errors import BundleError
from robot_rl.robots import LEAP_HAND, UNITREE_G1, RobotSpec
from robot_rl.testing.bundles import TinyPolicy

LEAP = TinyPolicy(LEAP_HAND)
G1 = TinyPolicy(UNITREE_G1, control_period_s=0.02)


@pytest.mark.parametrize("tiny", [LEAP, G1])
def test_a_good_bundle(tmp_path: Path, tiny: TinyPolicy) -> None:
    report = verify_bundle(tiny.write(tmp_path / "bundle"), tiny.robot)
    assert report.problems == ()
    assert report.rows == 8
    assert set(report.golden_errors) == set(tiny.contract().output_names)
    assert max(report.golden_errors.values()) < 1e-6


def test_a_graph_that_computes_something_else(tmp_path: Path) -> None:
    other = dataclasses.replace(LEAP, action_scale_rad=0.1005)
    path = LEAP.write(tmp_path / "bundle", golden=other.golden())
    report = verify_bundle(path, LEAP_HAND)
    wrong = {name for name, error in report.golden_errors.items() if error > 1e-5}
    # The scale acts after the action, so the action and all that comes before it are right.
    assert wrong == {"joint_target", "next_last_target"}
    with pytest.raises(BundleError, match="output 'joint_target' is off by"):
        report.require_ok()


def test_a_graph_that_yields_nan(tmp_path: Path) -> None:
    bundle = load_bundle(LEAP.write(tmp_path / "bundle"))
    bundle.policy.run = lambda _: {n: np.full((1, *s.shape), np.nan) for n, s in outputs.items()}  # type: ignore[method-assign]
    outputs = {t.name: t for t in bundle.contract.outputs}
    assert not verify_bundle(bundle).ok


def changed(robot: RobotSpec, index: int, **fields: float) -> RobotSpec:
    joints = list(robot.joints)
    joints[index] = dataclasses.replace(joints[index], **fields)
    return dataclasses.replace(robot, joints=tuple(joints))


def swapped(robot: RobotSpec) -> RobotSpec:
    return dataclasses.replace(robot, joints=(robot.joints[1], robot.joints[0], *robot.joints[2:]))


def renamed(robot: RobotSpec) -> RobotSpec:
    joint = dataclasses.replace(robot.joints[0], name="index_base")
    return dataclasses.replace(robot, joints=(joint, *robot.joints[1:]), chains=())


@pytest.mark.parametrize(
    ("robot", "message"),
    [
        (UNITREE_G1, "policy is for leap_hand/right, robot is unitree_g1/29dof"),
        (dataclasses.replace(LEAP_HAND, variant="left"), "robot is leap_hand/left"),
        (swapped(LEAP_HAND), "joint order differs"),
        (renamed(LEAP_HAND), r"joint names differ: robot lacks \['if_mcp'\], policy lacks \['index_base'\]"),
        (changed(LEAP_HAND, 2, upper_rad=1.5), "if_pip: policy limits .*1.885.* exceed the robot's .*1.5"),
        (changed(LEAP_HAND, 5, kp_nm_rad=1.0), "mf_rot: kp_nm_rad 3.0 exceeds the robot's maximum 2.0"),
        (dataclasses.replace(LEAP_HAND, state_fields=("joint_vel",)), "robot does not measure joint_pos"),
    ],
)
def test_a_robot_that_does_not_fit(tmp_path: Path, robot: RobotSpec, message: str) -> None:
    report = verify_bundle(LEAP.write(tmp_path / "bundle"), robot)
    with pytest.raises(BundleError, match=message):
        report.require_ok()


def test_a_graph_that_reads_quaternions_in_another_order(tmp_path: Path) -> None:
    """Golden rows and graph agree with each other here, and are both wrong: only the meaning of the numbers tells."""
    model = onnx.load_from_string(G1.onnx_bytes())
    split = next(n for n in model.graph.node if n.op_type == "Split")
    split.output[:] = ["x", "y", "z", "w"]
    golden = G1.golden()
    misread = {n.removeprefix("in/"): v for n, v in golden.items() if n.startswith("in/")}
    misread["imu_quat_wxyz"] = misread["imu_quat_wxyz"][:, [3, 0, 1, 2]]
    golden |= {f"out/{n}": v for n, v in G1.evaluate(misread).items()}
    report = verify_bundle(
        G1.write(tmp_path / "bundle", onnx_bytes=model.SerializeToString(), golden=golden), UNITREE_G1
    )
    assert max(report.golden_errors.values()) < 1e-6
    assert len(report.problems) == 1
    assert "quaternion order" in report.problems[0]


@pytest.mark.parametrize("key", ["joint_names", "joint_stiffness", "action_scale", "robot_rl.contract"])
def test_metadata_that_is_missing_or_rounded(tmp_path: Path, key: str) -> None:
    model = onnx.load_from_string(LEAP.onnx_bytes())
    prop = next(p for p in model.metadata_props if p.key == key)
    prop.value = prop.value[:-1]
    report = verify_bundle(LEAP.write(tmp_path / "rounded", onnx_bytes=model.SerializeToString()), LEAP_HAND)
    assert len(report.problems) == 1
    assert f"ONNX metadata '{key}' is" in report.problems[0]
    model.metadata_props.remove(prop)
    report = verify_bundle(LEAP.write(tmp_path / "missing", onnx_bytes=model.SerializeToString()), LEAP_HAND)
    assert report.problems == (f"ONNX metadata lacks '{key}'",)
