"""Contract: validation at construction and load, lossless JSON, stable digest."""

import dataclasses
import hashlib
import json

import pytest

from robot_rl.contract import ActionSpec, Contract, JointSpec, TensorSpec
from robot_rl.errors import ContractError


def joint(name: str = "elbow", **changes: float) -> JointSpec:
    values = {
        "lower_rad": -1.0,
        "upper_rad": 1.0,
        "velocity_limit_rad_s": 5.0,
        "effort_limit_nm": 2.0,
        "default_pos_rad": 0.1,
        "kp_nm_rad": 3.0,
        "kd_nms_rad": 0.1,
    }
    return JointSpec(name=name, **{**values, **changes})


def contract(**changes: object) -> Contract:
    values: dict[str, object] = {
        "robot": "arm",
        "variant": "a",
        "control_period_s": 0.02,
        "joints": (joint("elbow"), joint("wrist", default_pos_rad=1 / 3)),
        "inputs": (
            TensorSpec("joint_pos", (2,), "rad", "state", max_age_s=0.1),
            TensorSpec("goal", (3,), "m", "command", frame="base"),
            TensorSpec("last_target", (2,), "rad", "memory", start="joint_pos", feedback="applied"),
        ),
        "outputs": (
            TensorSpec("joint_target", (2,), "rad"),
            TensorSpec("next_last_target", (2,), "rad"),
            TensorSpec("obs", (5,), "1"),
        ),
        "action": ActionSpec("position_relative", (0.1, 0.2), (0.0, 0.0), (-1.0, -1.0), (1.0, 1.0)),
        "observation_terms": (("joint_pos", 2), ("command", 3)),
    }
    return Contract(**{**values, **changes})  # type: ignore[arg-type]


def test_json_is_lossless_at_full_precision() -> None:
    original = contract()
    restored = Contract.from_json(original.to_json())
    assert restored == original
    assert restored.joints[1].default_pos_rad == 1 / 3  # not 0.333


def test_digest_is_sha256_of_the_canonical_json_and_sees_the_last_bit() -> None:
    original = contract()
    canonical = json.dumps(json.loads(original.to_json()), sort_keys=True, indent=1)
    assert original.digest() == hashlib.sha256(canonical.encode()).hexdigest()
    changed = contract(joints=(joint("elbow", kp_nm_rad=3.0 + 2**-51), joint("wrist", default_pos_rad=1 / 3)))
    assert changed.digest() != original.digest()


def test_json_key_order_does_not_change_the_digest() -> None:
    data = json.loads(contract().to_json())
    shuffled = json.dumps(dict(reversed(list(data.items()))))
    assert Contract.from_json(shuffled).digest() == contract().digest()


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("lower_rad", 2.0, "lower 2.0 must be below upper 1.0"),
        ("default_pos_rad", 1.5, r"default 1.5 is outside \[-1.0, 1.0\]"),
        ("kp_nm_rad", 0.0, "kp_nm_rad must be positive, got 0.0"),
        ("kd_nms_rad", -1.0, "kd_nms_rad must not be negative"),
        ("effort_limit_nm", float("nan"), "effort_limit_nm=nan"),
    ],
)
def test_a_bad_joint_is_refused_by_name(field: str, value: float, words: str) -> None:
    with pytest.raises(ContractError, match=f"joint 'elbow': .*{words}"):
        joint(**{field: value})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"control_period_s": 0.0}, "control_period_s must be positive"),
        ({"history_length": 0}, "history_length must be at least 1"),
        ({"joints": (joint("elbow"), joint("elbow"))}, "joint names must be unique; repeated: elbow"),
        ({"joints": (joint("elbow"),)}, "action has 2 entries for 1 joints"),
        ({"outputs": (TensorSpec("obs", (5,), "1"),)}, "needs an output 'next_last_target'"),
        ({"schema_version": 99}, "schema version 99 is not supported"),
    ],
)
def test_an_inconsistent_contract_is_refused(changes: dict[str, object], words: str) -> None:
    with pytest.raises(ContractError, match=words):
        contract(**changes)


def test_tensor_specs_are_checked() -> None:
    with pytest.raises(ContractError, match="no RobotState field; valid: joint_pos"):
        TensorSpec("joint_positions", (2,), "rad", "state")
    with pytest.raises(ContractError, match="start and feedback belong to memory"):
        TensorSpec("history", (2,), "1", "memory")
    with pytest.raises(ContractError, match="positive integers"):
        TensorSpec("joint_pos", (0,), "rad", "state")


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda d: d.pop("robot"), "missing keys robot"),
        (lambda d: d.update(colour="red"), "unknown keys colour; valid: robot"),
        (lambda d: d["joints"][1].pop("kp_nm_rad"), r"joints\[1\]: missing keys kp_nm_rad"),
        (lambda d: d["inputs"][0].update(units="deg"), r"inputs\[0\]: unknown keys units"),
        (lambda d: d["joints"][0].update(lower_rad="low"), r"joints\[0\]"),
        (lambda d: d.update(schema_version=0), "schema version 0 is not supported"),
    ],
)
def test_malformed_json_is_refused_by_key(edit: object, words: str) -> None:
    data = json.loads(contract().to_json())
    edit(data)  # type: ignore[operator]
    with pytest.raises(ContractError, match=words):
        Contract.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "[]", "{", "null", "3"])
def test_what_is_no_contract_at_all_is_refused(text: str) -> None:
    with pytest.raises(ContractError):
        Contract.from_json(text)


def test_contracts_cannot_be_changed_after_construction() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        contract().control_period_s = 1.0  # type: ignore[misc]
