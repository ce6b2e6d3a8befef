import dataclasses
import json

import pytest

from robot_rl.bundle.manifest import CONTENT_FILES, FileEntry, Manifest
from robot_rl.contract import EpisodeSpec, ObjectStart, TensorSpec, TurnGoals
from robot_rl.errors import BundleError, ContractError
from robot_rl.robots import LEAP_HAND
from robot_rl.testing.bundles import TinyPolicy


def make(**changes) -> Manifest:
    contract = TinyPolicy(LEAP_HAND).contract()
    arguments = {
        "files": {name: FileEntry.of(name.encode()) for name in CONTENT_FILES},
        "contract": contract,
        "contract_digest": contract.digest(),
        "task": "t",
        "algorithm": "sac",
        "git_revision": "abc",
        "config": {"rate": 0.1, "layers": (1, 2)},
        "seeds": {"training": 3},
        "evaluation": {"success": 0.95},
        "created_utc": "2026-01-02T03:04:05+00:00",
        "obs_mean": (0.1,) * contract.observation_dim,
        "obs_std": (1.0,) * contract.observation_dim,
    }
    return Manifest(**{**arguments, **changes})


def test_survives_json_at_full_precision() -> None:
    manifest = make(obs_mean=(1 / 3,) * TinyPolicy(LEAP_HAND).contract().observation_dim)
    again = Manifest.from_json(manifest.to_json())
    assert again.obs_mean == manifest.obs_mean
    assert again.contract == manifest.contract
    assert again.config == {"rate": 0.1, "layers": [1, 2]}
    assert again.to_json() == manifest.to_json()


def test_every_altered_value_is_found() -> None:
    data = json.loads(make().to_json())
    for key, value in (("task", "other"), ("evaluation", {"success": 0.96}), ("seeds", {"training": 4})):
        with pytest.raises(BundleError, match="altered"):
            Manifest.from_json(json.dumps({**data, key: value}))


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.pop("task"), "missing keys .*task"),
        (lambda d: d.update(extra=1), "unknown keys .*extra"),
        (lambda d: d.update(task=5), "task must be str, got int 5"),
        (lambda d: d.update(schema_version=99), "schema version 99"),
    ],
)
def test_strict_about_keys_and_types(edit, message: str) -> None:
    data = json.loads(make().to_json())
    edit(data)
    with pytest.raises(BundleError, match=message):
        Manifest.from_json(json.dumps(data))


@pytest.mark.parametrize("text", ["", "[]", "{", "null"])
def test_not_even_a_manifest(text: str) -> None:
    with pytest.raises(BundleError, match=r"manifest\.json"):
        Manifest.from_json(text)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"obs_mean": (0.0,)}, "obs_mean must be"),
        ({"obs_std": (float("nan"),)}, "obs_std must be"),
        ({"contract_digest": "0" * 64}, "contract digest is 000"),
        ({"files": {}}, "lists files"),
        ({"created_utc": "yesterday"}, "created_utc 'yesterday'"),
        ({"created_utc": "2026-01-02T03:04:05"}, "UTC offset"),
    ],
)
def test_refuses_at_construction(changes: dict, message: str) -> None:
    with pytest.raises(BundleError, match=message):
        make(**changes)


def test_low_pass_behind_which_a_policy_was_trained() -> None:
    assert make(config={}).low_pass_hz is None
    assert make(config={"low_pass_hz": None}).low_pass_hz is None
    assert make(config={"low_pass_hz": 4.0}).low_pass_hz == 4.0
    for bad in (0, -1.0, "fast", True):
        with pytest.raises(BundleError, match="low_pass_hz must be a positive number"):
            _ = make(config={"low_pass_hz": bad}).low_pass_hz


def test_names_the_field_that_is_no_json() -> None:
    with pytest.raises(BundleError, match="evaluation cannot be written"):
        make(evaluation={"success": float("nan")}).to_json()
    with pytest.raises(BundleError, match="config cannot be written"):
        make(config={"device": object()}).to_json()


GRASP = tuple(j.default_pos_rad for j in LEAP_HAND.joints)


def test_how_episodes_begin_survives_and_a_bundle_without_it_reads_as_before() -> None:
    episode = EpisodeSpec(GRASP)
    again = Manifest.from_json(make(episode=episode).to_json())
    assert again.episode == episode
    assert "episode" not in json.loads(make().to_json())
    assert Manifest.from_json(make().to_json()).episode is None
    assert make(episode=episode).digest() != make().digest()


def quaternion_contract():
    contract = TinyPolicy(LEAP_HAND, command_dim=4).contract()
    pose = TensorSpec("object_pos", (3,), "m", "state")
    return dataclasses.replace(contract, inputs=(*contract.inputs, pose))


@pytest.mark.parametrize(
    ("episode", "message"),
    [
        ({"joint_pos_rad": [0.0] * 3}, "3 joint_pos_rad for 16 joints"),
        ({"joint_pos_rad": [9.0] * 16}, "starts at 9.0, outside"),
        ({"joint_pos_rad": [None] * 16}, "16 finite numbers"),
        ({"joint_pos_rad": GRASP, "lenght": 1}, "unknown keys lenght"),
        ({"joint_pos_rad": GRASP, "object": 5}, "episode.object: expected an object, got int"),
        ({"joint_pos_rad": GRASP, "goals": {"axis": [0, 0, 1], "turn_rad": [1, 0.5], "tolerance_rad": 0.4}}, "increas"),
        ({"joint_pos_rad": GRASP, "goals": {"axis": [0, 0, 2], "turn_rad": [1, 2], "tolerance_rad": 0.4}}, "norm 1"),
        ({"joint_pos_rad": GRASP, "goals": {"axis": [0, 0, 1], "turn_rad": [1, 2], "tolerance_rad": -1}}, "positive"),
    ],
)
def test_strict_about_how_episodes_begin(episode: dict, message: str) -> None:
    contract = quaternion_contract()
    with pytest.raises(ContractError, match=message):
        EpisodeSpec.from_dict(json.loads(json.dumps(episode))).check(contract)


def test_episodes_fit_what_the_policy_takes() -> None:
    held = ObjectStart((0.0, 0.0, 0.0), 0.04, (1.0, 0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.6, 0.1)
    goals = TurnGoals((0.0, 0.0, 1.0), (0.8, 1.6), 0.4)
    EpisodeSpec(GRASP, held, goals).check(quaternion_contract())
    with pytest.raises(ContractError, match="the policy reads none of object_pos"):
        make(episode=EpisodeSpec(GRASP, held))
    with pytest.raises(ContractError, match="command is no quaternion"):
        make(episode=EpisodeSpec(GRASP, None, goals))
    with pytest.raises(ContractError, match=r"lost_distance_m 0\.01 must not be below"):
        dataclasses.replace(held, lost_distance_m=0.01)
