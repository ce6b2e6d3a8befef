"""Models of Stable-Baselines3 as bundles: the truth is `model.predict(deterministic=True)`."""

import base64
import json
import pickle
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from sb3_contrib import TQC
from stable_baselines3 import A2C, PPO, SAC, TD3
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize
from torch import nn

from robot_rl.bundle import export as bundle_export
from robot_rl.bundle.latency import measure_latency
from robot_rl.bundle.load import load_bundle
from robot_rl.commands import export
from robot_rl.commands.deploy import DeployArgs
from robot_rl.commands.deploy import run as deploy
from robot_rl.commands.main import main
from robot_rl.env import RobotVecEnv, get_task
from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.interop.sb3 import Sb3Env
from robot_rl.interop.sb3_policy import read_sb3, read_vec_normalize

OBS_DIM, ACTION_DIM = 60, 16
OFF_POLICY = {"learning_starts": 20, "buffer_size": 1000, "batch_size": 16}
ON_POLICY = {"n_steps": 20}
SETTINGS: dict[type[BaseAlgorithm], dict[str, Any]] = {
    SAC: OFF_POLICY,
    TD3: OFF_POLICY,
    TQC: OFF_POLICY,
    PPO: {**ON_POLICY, "batch_size": 40, "n_epochs": 1},
    A2C: ON_POLICY,
}


@pytest.fixture(scope="module")
def env() -> Iterator[Sb3Env]:
    env = Sb3Env(get_task("leap-reach").make_env(num_envs=2, seed=0, num_threads=1))
    yield env
    env.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shorter measurements at export; what is compared stays."""
    monkeypatch.setattr(export, "EPISODES", 4)
    monkeypatch.setattr(bundle_export, "CLOSED_LOOP_STEPS", 80)
    monkeypatch.setattr(bundle_export, "measure_latency", partial(measure_latency, runs=20))


def train(algorithm: type[BaseAlgorithm], env: Any, steps: int = 40, **settings: Any) -> Any:
    """A model that has learned for a few steps, with its last layer widened until its actions reach the limits."""
    settings = {"seed": 0, **SETTINGS[algorithm], **settings}
    settings["policy_kwargs"] = {"net_arch": [32, 24], **settings.get("policy_kwargs", {})}
    model: Any = algorithm("MlpPolicy", env, **settings)
    model.learn(steps)
    policy = model.policy
    output = policy.action_net if hasattr(policy, "action_net") else policy.actor.mu
    last = [m for m in output.modules() if isinstance(m, nn.Linear)][-1]
    with torch.no_grad():
        last.weight *= 1.5 / model.predict(observations(), deterministic=True)[0].std()
    return model


def observations(rows: int = 200, dim: int = OBS_DIM) -> np.ndarray:
    return np.random.default_rng(1).normal(0, 2, (rows, dim)).astype(np.float32)


def actions_of(path: Path, obs: np.ndarray, trust: bool = False) -> np.ndarray:
    with torch.no_grad():
        return read_sb3(path, OBS_DIM, ACTION_DIM, trust=trust).actor(torch.from_numpy(obs)).numpy()


@pytest.mark.parametrize(
    ("algorithm", "settings"),
    [
        (SAC, {}),
        (TD3, {}),
        (TQC, {}),
        (PPO, {}),
        (SAC, {"policy_kwargs": {"activation_fn": nn.ELU, "net_arch": []}}),
        (SAC, {"use_sde": True}),
        (TQC, {"use_sde": True, "policy_kwargs": {"clip_mean": 0.3, "activation_fn": nn.Tanh}}),
        (SAC, {"use_sde": True, "policy_kwargs": {"clip_mean": 0.0}}),
        (TD3, {"policy_kwargs": {"activation_fn": nn.SiLU, "net_arch": {"pi": [8, 8, 8], "qf": [16]}}}),
        (PPO, {"use_sde": True}),
        (PPO, {"use_sde": True, "policy_kwargs": {"squash_output": True}}),
        (PPO, {"policy_kwargs": {"share_features_extractor": False, "activation_fn": nn.GELU, "ortho_init": False}}),
    ],
)
def test_actor_read_without_pickle_is_the_models(
    algorithm: type[BaseAlgorithm], settings: dict, env: Sb3Env, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = train(algorithm, env, **settings)
    model.save(tmp_path / "model.zip")
    expected, _ = model.predict(observations(), deterministic=True)
    assert expected.std() > 0.15
    if algorithm is PPO and not settings.get("policy_kwargs", {}).get("squash_output"):
        assert 0.01 < (np.abs(expected) == 1).mean() < 0.99, "the clip is not tested"
    monkeypatch.setattr(pickle, "loads", None)
    monkeypatch.setattr(pickle, "load", None)
    np.testing.assert_allclose(actions_of(tmp_path / "model.zip", observations()), expected, atol=2e-6)


@pytest.mark.parametrize("algorithm", [SAC, TD3, TQC, PPO])
def test_bundle_acts_as_the_model_in_closed_loop_and_verifies(
    algorithm: type[BaseAlgorithm], env: Sb3Env, quick: None, tmp_path: Path
) -> None:
    model = train(algorithm, env)
    model.save(tmp_path / "model.zip")
    assert main(["export", str(tmp_path / "model.zip"), "--task", "leap-reach"]) == 0
    path = tmp_path / "model-bundle"
    assert main(["verify", str(path), "--robot", "leap_hand"]) == 0
    assert follow(path, lambda obs: model.predict(obs, deterministic=True)[0]) > 0.3

    bundle = load_bundle(path)
    package = "sb3-contrib" if algorithm is TQC else "stable-baselines3"
    assert bundle.manifest.algorithm == f"{package} {algorithm.__name__}"
    assert bundle.manifest.seeds == {"training": 0}
    assert bundle.manifest.config["gamma"] == 0.99
    assert bundle.manifest.config["policy_kwargs"]["net_arch"] == [32, 24]
    assert bundle.manifest.evaluation["episodes"] == 4
    card = (path / "CARD.md").read_text()
    assert bundle.manifest.config["model_sha256"] in card
    assert "success_rate" in card
    assert str(tmp_path) not in bundle.manifest.to_json() + card


def follow(bundle_path: Path, predict: Any, steps: int = 60) -> float:
    """Drive one environment with the bundle, comparing each action with `predict`; returns the largest action."""
    bundle = load_bundle(bundle_path)
    one = get_task("leap-reach").make_env(num_envs=1, seed=3, num_threads=1)
    assert isinstance(one, RobotVecEnv)
    obs, largest = one.reset(seed=3), 0.0
    for _ in range(steps):
        action = bundle.policy.run({n: v.numpy() for n, v in one.policy_inputs().items()})["action"]
        np.testing.assert_allclose(action, predict(obs.numpy()), atol=1e-5)
        largest = max(largest, float(np.abs(action).max()))
        obs = one.step(torch.from_numpy(action)).obs
    one.close()
    return largest


@pytest.mark.realtime
def test_vec_normalize_is_part_of_the_bundle_and_it_deploys(
    env: Sb3Env, quick: None, tmp_path: Path, capsys: pytest.CaptureFixture, caplog: pytest.LogCaptureFixture
) -> None:
    normalized = VecNormalize(env, clip_obs=1.5, epsilon=0.01)
    model = train(PPO, normalized, steps=200)
    model.save(tmp_path / "model.zip")
    normalized.save(str(tmp_path / "normalize.pkl"))
    arguments = ["export", str(tmp_path / "model.zip"), "--task", "leap-reach", "--out", str(tmp_path / "reach.zip")]
    arguments += ["--vec-normalize", str(tmp_path / "normalize.pkl")]
    assert main(arguments) == 2
    assert "is a pickle, and loading one runs code" in capsys.readouterr().err
    assert main([*arguments, "--trust"]) == 0
    assert "normalize.pkl runs the code in it" in caplog.text
    assert "model.zip" not in caplog.text  # read without its pickles all the same

    def predict(obs: np.ndarray) -> np.ndarray:
        seen = normalized.normalize_obs(obs)
        clipped.append(np.abs(seen) == 1.5)
        return model.predict(seen, deterministic=True)[0]

    clipped: list[np.ndarray] = []
    follow(tmp_path / "reach.zip", predict)
    assert 0.01 < np.mean(clipped) < 0.9, "the clip is not tested"
    assert len(load_bundle(tmp_path / "reach.zip").manifest.config["vec_normalize_sha256"]) == 64

    result = deploy(DeployArgs(tmp_path / "reach.zip", interface="sim", auto_run=True, duration=3.4))
    assert result.ok, result.reason
    assert {row.name: row.value for row in result.rows}["modes"] == "idle > damp > stand > run"


def test_vec_normalize_files_that_do_not_fit(env: Sb3Env, tmp_path: Path) -> None:
    path = tmp_path / "normalize.pkl"
    VecNormalize(env).save(str(path))
    with pytest.raises(ConfigError, match=r"of shape \(60,\); those of the task have \(61,\)"):
        read_vec_normalize(path, 61, trust=True)
    VecNormalize(env, norm_obs=False).save(str(path))
    assert isinstance(read_vec_normalize(path, OBS_DIM, trust=True), nn.Identity)
    path.write_bytes(pickle.dumps([1, 2]))
    with pytest.raises(CheckpointError, match=r"holds a list; expected what VecNormalize\.save wrote"):
        read_vec_normalize(path, OBS_DIM, trust=True)
    path.write_text("nonsense")
    with pytest.raises(CheckpointError, match="cannot be loaded: UnpicklingError"):
        read_vec_normalize(path, OBS_DIM, trust=True)


class Mischief:
    """Unpickling it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return (Path.touch, (self.path,))


def test_nothing_in_the_zip_runs_unless_trusted(env: Sb3Env, tmp_path: Path) -> None:
    """Every pickle of a good model is replaced by one that leaves a trace."""
    model = train(SAC, env)
    model.save(tmp_path / "good.zip")
    trace = tmp_path / "trace"
    evil = pickle.dumps(Mischief(trace), protocol=2)
    with zipfile.ZipFile(tmp_path / "good.zip") as good:
        files = {name: good.read(name) for name in good.namelist()}
    data = json.loads(files["data"])
    for value in data.values():
        if isinstance(value, dict) and ":serialized:" in value:
            value[":serialized:"] = base64.b64encode(evil).decode()
    files |= {name: evil for name in files if name.endswith(".pth") and name != "policy.pth"}
    write(tmp_path / "evil.zip", files | {"data": json.dumps(data).encode()})
    expected, _ = model.predict(observations(), deterministic=True)
    np.testing.assert_allclose(actions_of(tmp_path / "evil.zip", observations()), expected, atol=2e-6)

    write(tmp_path / "evil.zip", files | {"policy.pth": evil})
    with pytest.raises(CheckpointError, match="no model that Stable-Baselines3 saved: UnpicklingError"):
        actions_of(tmp_path / "evil.zip", observations())

    (tmp_path / "evil.pkl").write_bytes(evil)
    with pytest.raises(ConfigError, match="Give --trust"):
        read_vec_normalize(tmp_path / "evil.pkl", OBS_DIM)
    assert not trace.exists()
    with pytest.raises(CheckpointError):
        read_vec_normalize(tmp_path / "evil.pkl", OBS_DIM, trust=True)
    assert trace.exists(), "the trap does not work"


def write(path: Path, files: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)


class Sines(BaseFeaturesExtractor):
    def __init__(self, space: spaces.Space) -> None:
        super().__init__(space, 24)
        self.layer = nn.Linear(OBS_DIM, 24)

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return torch.sin(self.layer(obs))


@pytest.mark.parametrize(
    ("algorithm", "settings", "reason"),
    [
        (SAC, {"policy_kwargs": {"features_extractor_class": Sines}}, r"its features extractor is <class '.*Sines'>"),
        (PPO, {"use_sde": True, "policy_kwargs": {"activation_fn": nn.Mish}}, r"its activation is .*\.Mish'>"),
        (A2C, {}, r"is not the MlpPolicy of SAC, TQC, TD3 or PPO"),
    ],
)
def test_other_policies_are_refused_by_name_unless_trusted(
    algorithm: type[BaseAlgorithm],
    settings: dict,
    reason: str,
    env: Sb3Env,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    model = train(algorithm, env, **settings)
    path = tmp_path / "model.zip"
    model.save(path)
    with pytest.raises(ConfigError, match=rf"{reason}.*that runs code.*--trust"):
        actions_of(path, observations())
    assert not caplog.text
    expected, _ = model.predict(observations(), deterministic=True)
    np.testing.assert_allclose(actions_of(path, observations(), trust=True), expected, atol=2e-6)
    assert "runs the code in its pickles" in caplog.text


def test_a_trusted_policy_is_exported(env: Sb3Env, quick: None, tmp_path: Path) -> None:
    """Its graph is traced through Stable-Baselines3's own modules, distributions included."""
    model = train(PPO, env, policy_kwargs={"features_extractor_class": Sines})
    model.save(tmp_path / "model.zip")
    assert main(["export", str(tmp_path / "model.zip"), "--task", "leap-reach", "--trust"]) == 0
    assert main(["verify", str(tmp_path / "model-bundle")]) == 0
    follow(tmp_path / "model-bundle", lambda obs: model.predict(obs, deterministic=True)[0])


def test_spaces_that_are_not_the_tasks_are_named(env: Sb3Env, tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    PPO("MlpPolicy", VecFrameStack(env, 3), n_steps=20, batch_size=40).save(path)
    with pytest.raises(
        ConfigError, match=r"observations Box\(180,\) and actions Box\(16,\) in \[-1\.0, 1\.0\]; the .*60"
    ):
        read_sb3(path, OBS_DIM, ACTION_DIM)
    SAC("MlpPolicy", "Pendulum-v1").save(path)
    with pytest.raises(
        ConfigError, match=r"actions Box\(1,\) in \[-2\.0, 2\.0\]; the task has .* Box\(1,\) in \[-1\.0"
    ):
        read_sb3(path, 3, 1)
    PPO("MlpPolicy", "CartPole-v1").save(path)
    with pytest.raises(ConfigError, match=r"actions Discrete;"):
        read_sb3(path, 4, 1)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda path: None, "No such file"),
        (lambda path: path.write_bytes(b"text"), "BadZipFile"),
        (lambda path: write(path, {"manifest.json": b"{}", "policy.onnx": b""}), "no item named 'data'"),
    ],
    ids=["nothing", "text", "bundle"],
)
def test_files_that_are_no_models(make: Any, reason: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    make(tmp_path / "model.zip")
    assert main(["export", str(tmp_path / "model.zip"), "--task", "leap-reach"]) == 1
    error = capsys.readouterr().err
    assert reason in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["model.zip"], "needs --task"),
        (["model.zip", "--task", "point-mass"], "is no robot task"),
        (["runs/some", "--trust"], "--trust are for Stable-Baselines3 models; runs/some is none"),
    ],
)
def test_arguments_that_do_not_go_together(arguments: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    assert main(["export", *arguments]) == 2
    assert message in capsys.readouterr().err
