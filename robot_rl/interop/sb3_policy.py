"""Policies that Stable-Baselines3 or sb3-contrib saved, as modules that `robot_rl.bundle.export` takes.

Their own loader unpickles, and a pickle runs what its author put into it. But what a plain MlpPolicy computes is also
in the clear: weights in policy.pth, which torch reads as tensors and nothing else, and settings with the names of
classes in the JSON beside it. Such a model is read from these alone. Every other model, and what VecNormalize saved, is
refused unless it is trusted.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.distributions import Distribution

from robot_rl.errors import CheckpointError, ConfigError
from robot_rl.networks.normalizer import Normalizer

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Sb3Policy:
    """The deterministic policy of a saved model, on the CPU."""

    algorithm: str
    """Such as "stable-baselines3 SAC"."""
    actor: nn.Module
    """Observations (n, obs_dim), normalised if the model was trained so -> actions (n, action_dim) in [-1, 1]: what
    `model.predict(deterministic=True)` returns."""
    sha256: str
    """Of the zip."""
    settings: Mapping[str, Any]
    """JSON values: the model's hyperparameters, and the version of the library that saved it."""


class _Plain(NamedTuple):
    """How a kind of MlpPolicy names its parameters."""

    algorithm: str
    layers: tuple[str, ...]
    """Prefixes of the actor's linear layers."""
    others: tuple[str, ...]
    """Prefixes of what the deterministic action does not depend on."""
    activation: type[nn.Module]
    """Default."""


# By the module of the policy class. A2C and others share PPO's; DDPG is saved as the TD3 that it is a case of.
_SAC, _TQC, _TD3, _PPO = (
    "stable_baselines3.sac.policies",
    "sb3_contrib.tqc.policies",
    "stable_baselines3.td3.policies",
    "stable_baselines3.common.policies",
)
_PLAIN = {
    _SAC: _Plain("stable-baselines3 SAC", ("actor.latent_pi.", "actor.mu"), ("actor.log_std", "critic"), nn.ReLU),
    _TQC: _Plain("sb3-contrib TQC", ("actor.latent_pi.", "actor.mu"), ("actor.log_std", "critic"), nn.ReLU),
    _TD3: _Plain("stable-baselines3 TD3", ("actor.mu.",), ("actor_target.", "critic"), nn.ReLU),
    _PPO: _Plain(
        "stable-baselines3 PPO",
        ("mlp_extractor.policy_net.", "action_net"),
        ("log_std", "mlp_extractor.value_net.", "value_net."),
        nn.Tanh,
    ),
}

# Classes as the JSON names them.
_ACTIVATIONS = {str(a): a for a in (nn.ReLU, nn.Tanh, nn.ELU, nn.SiLU, nn.GELU, nn.LeakyReLU)}
_FLATTEN = "<class 'stable_baselines3.common.torch_layers.FlattenExtractor'>"

# Entries of policy_kwargs that are read here, that the weights' shapes tell, or that no action depends on.
_KNOWN_KWARGS = {
    "activation_fn", "features_extractor_class", "use_sde", "clip_mean", "squash_output", "net_arch", "n_critics",
    "n_quantiles", "log_std_init", "full_std", "use_expln", "ortho_init", "share_features_extractor",
    "normalize_images", "optimizer_class", "optimizer_kwargs", ":type:", ":serialized:",
}  # fmt: skip

# Paths and clocks are nobody else's business.
_OF_THE_MACHINE = {"tensorboard_log", "start_time", "verbose"}


class _NotPlain(Exception):
    """What the model computes is not in the clear; the message says why."""


def read_sb3(path: Path, obs_dim: int, action_dim: int, *, trust: bool = False) -> Sb3Policy:
    """Read a model that `model.save` of Stable-Baselines3 or sb3-contrib wrote.

    Without `trust`, no code of the model runs: SAC, TQC, TD3 and PPO with an MlpPolicy. With it, any other model is
    loaded by Stable-Baselines3, which runs what its pickles say; a warning is logged first.

    Raises ConfigError if the model's spaces are not those of an Sb3Env with these dimensions, or if it needs `trust`;
    CheckpointError if it cannot be read.
    """
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            data = json.loads(archive.read("data"))
            weights = torch.load(io.BytesIO(archive.read("policy.pth")), map_location="cpu", weights_only=True)
            version = archive.read("_stable_baselines3_version").decode()
        _check_spaces(path, data["observation_space"], data["action_space"], obs_dim, action_dim)
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, RuntimeError, pickle.UnpicklingError) as error:
        reason = f"{type(error).__name__}: {error}".splitlines()[0]
        raise CheckpointError(f"{path} is no model that Stable-Baselines3 saved: {reason}") from error
    try:
        algorithm, actor = _plain_actor(data, weights)
    except _NotPlain as reason:
        if not trust:
            raise ConfigError(
                f"{path}: {reason}, so only Stable-Baselines3 can load it, and that runs code: its pickles do whatever "
                "their author wrote. Give --trust if you know where the file comes from"
            ) from None
        _log.warning("warning: loading %s runs the code in its pickles (--trust)", path)
        algorithm, actor = _trusted_actor(path, content, obs_dim)
    settings = {k: v for k, v in data.items() if k[0] != "_" and k not in _OF_THE_MACHINE and _is_plain_json(v)}
    settings["policy_kwargs"] = {k: v for k, v in data.get("policy_kwargs", {}).items() if k[0] != ":"}
    settings["stable_baselines3"] = version
    return Sb3Policy(algorithm, actor.eval(), hashlib.sha256(content).hexdigest(), settings)


def read_vec_normalize(path: Path, obs_dim: int, *, trust: bool = False) -> nn.Module:
    """The observation normaliser (n, obs_dim) -> (n, obs_dim) of what `VecNormalize.save` wrote, with its clip_obs and
    epsilon. Rewards play no part in a policy.

    Raises ConfigError without `trust`, or if it is of another dimension; CheckpointError if it cannot be read.
    """
    if not trust:
        raise ConfigError(
            f"{path} is a pickle, and loading one runs code: whatever its author wrote. Give --trust if you know where "
            "the file comes from"
        )
    from stable_baselines3.common.vec_env import VecNormalize

    _log.warning("warning: loading %s runs the code in it (--trust)", path)
    try:
        saved = pickle.loads(path.read_bytes())
    except Exception as error:  # a pickle can raise anything
        raise CheckpointError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    if not isinstance(saved, VecNormalize):
        raise CheckpointError(f"{path} holds a {type(saved).__name__}; expected what VecNormalize.save wrote")
    if not saved.norm_obs:
        return nn.Identity()
    shape, statistics = saved.observation_space.shape, saved.obs_rms
    if shape != (obs_dim,) or isinstance(statistics, dict):
        raise ConfigError(f"{path} normalises observations of shape {shape}; those of the task have ({obs_dim},)")
    normalizer = Normalizer(obs_dim, clip=saved.clip_obs)
    normalizer.mean.copy_(torch.from_numpy(statistics.mean))
    normalizer.inverse_std.copy_(torch.from_numpy((statistics.var + saved.epsilon) ** -0.5))
    return normalizer


def _plain_actor(data: Mapping[str, Any], weights: Mapping[str, Tensor]) -> tuple[str, nn.Module]:
    """(algorithm, actor) from what is in the clear. Raises _NotPlain where that may not be all."""
    kind = data.get("policy_class", {}).get("__module__")
    plain = _PLAIN.get(kind)
    if plain is None or (kind == _PPO and "clip_range" not in data):
        raise _NotPlain(f"its policy (of {kind}) is not the MlpPolicy of SAC, TQC, TD3 or PPO")
    kwargs = data.get("policy_kwargs", {})
    extractor = kwargs.get("features_extractor_class", _FLATTEN)
    if extractor != _FLATTEN:
        raise _NotPlain(f"its features extractor is {extractor}")
    activation = _ACTIVATIONS.get(kwargs.get("activation_fn", str(plain.activation)))
    if activation is None:
        raise _NotPlain(f"its activation is {kwargs['activation_fn']}")
    own = {name: value for name, value in weights.items() if not name.startswith(plain.others)}
    layers = [name.removesuffix(".weight") for name in own if name.endswith(".weight")]
    unknown = {name for name in own if not name.startswith(plain.layers)}
    unknown |= set(own) - {f"{layer}.{part}" for layer in layers for part in ("weight", "bias")}
    unknown |= set(kwargs) - _KNOWN_KWARGS
    if unknown:
        raise _NotPlain(f"an MlpPolicy has no {', '.join(sorted(unknown))}")

    modules: list[nn.Module] = []
    for layer in layers:
        weight, bias = own[f"{layer}.weight"], own[f"{layer}.bias"]
        linear = nn.Linear(weight.shape[1], weight.shape[0])
        linear.load_state_dict({"weight": weight, "bias": bias})
        modules += [linear, activation()]
    return plain.algorithm, nn.Sequential(*modules[:-1], *_output(kind, kwargs, data.get("use_sde", False)))


def _output(kind: str, kwargs: Mapping[str, Any], use_sde: bool) -> list[nn.Module]:
    """From the last layer's output to the deterministic action."""
    if kind == _PPO:
        return [nn.Tanh() if kwargs.get("squash_output") else nn.Hardtanh()]
    clip_mean = kwargs.get("clip_mean", 2.0) if kind in (_SAC, _TQC) and use_sde else 0.0
    return [nn.Hardtanh(-clip_mean, clip_mean), nn.Tanh()] if clip_mean > 0 else [nn.Tanh()]


class _PredictingActor(nn.Module):
    """The deterministic action of any Stable-Baselines3 policy with actions in [-1, 1]."""

    def __init__(self, policy: Any) -> None:
        super().__init__()
        self.policy = policy

    def forward(self, obs: Tensor) -> Tensor:
        # A distribution looks at its parameters' values to validate them: a graph that is being traced has none.
        validate = Distribution._validate_args
        Distribution.set_default_validate_args(False)
        try:
            action = self.policy._predict(obs, deterministic=True)
        finally:
            Distribution.set_default_validate_args(validate)
        return action if self.policy.squash_output else action.clamp(-1.0, 1.0)


def _trusted_actor(path: Path, content: bytes, obs_dim: int) -> tuple[str, nn.Module]:
    """(algorithm, actor), unpickled."""
    from stable_baselines3.common.save_util import load_from_zip_file

    try:
        data, parameters, _ = load_from_zip_file(io.BytesIO(content), device="cpu")
        assert data is not None
        kwargs = data["policy_kwargs"]
        if data.get("use_sde", False):
            kwargs = {"use_sde": True, **kwargs}
        spaces = data["observation_space"], data["action_space"]
        policy = data["policy_class"](*spaces, lambda _: 0.0, **kwargs)
        policy.load_state_dict(parameters["policy"])
        actor = _PredictingActor(policy).eval()
        with torch.no_grad():
            actor(torch.zeros(1, obs_dim))
    except Exception as error:  # a pickle can raise anything, and a recurrent policy takes more than observations
        raise CheckpointError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    return f"stable-baselines3 {type(policy).__module__}.{type(policy).__name__}", actor


def _check_spaces(path: Path, observation: Any, action: Any, obs_dim: int, action_dim: int) -> None:
    found = _described(observation), _described(action, bounds=True)
    wanted = f"Box({obs_dim},)", f"Box({action_dim},) in [-1.0, 1.0]"
    if found != wanted:
        raise ConfigError(
            f"{path} has observations {found[0]} and actions {found[1]}; the task has {wanted[0]} and {wanted[1]}. "
            "Train on the task's Sb3Env as it is: stacked frames and rescaled actions cannot be exported"
        )


def _described(space: Mapping[str, Any], bounds: bool = False) -> str:
    """Such as "Box(16,) in [-1.0, 1.0]", or the class of another kind of space."""
    name = space[":type:"].split("'")[1].rpartition(".")[2]
    if name != "Box":
        return name
    text = f"Box{tuple(space['_shape'])}"
    if not bounds:
        return text
    values = {float(value) for end in ("low", "high") for value in space[end].strip("[]").split()}
    return f"{text} in {sorted(values)}"


def _is_plain_json(value: Any) -> bool:
    return value is None or isinstance(value, (bool, int, float, str))
