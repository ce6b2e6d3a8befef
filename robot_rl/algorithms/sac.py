"""Soft Actor-Critic with automatic temperature (Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications",
arXiv 1812.05905). Equation numbers below are that paper's.

Choices that official codes make differently, made explicit here:
- critic target: minimum of the two target critics; next action from the current actor (there is no target actor);
- temperature loss on log α; the critic and actor losses use α as it was before this update's α step;
- actor loss: minimum of the two critics, after their step;
- entropy convention and time limits: see SACConfig.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from robot_rl.algorithms.state import Part, pack, unpack
from robot_rl.errors import ConfigError
from robot_rl.networks.critic import CriticEnsemble
from robot_rl.networks.mlp import Activation
from robot_rl.networks.normalizer import Normalizer, make_normalizer
from robot_rl.networks.squashed_gaussian import SquashedGaussianActor
from robot_rl.replay.ring_buffer import Batch

EntropyUnits = Literal["normalized", "environment"]
TimeLimit = Literal["bootstrap", "terminal"]


@dataclass(frozen=True)
class SACConfig:
    """Hyperparameters of SAC; the defaults are those of Stable-Baselines3."""

    learning_rate: float = 3e-4
    """Adam step size of actor, critics and log temperature."""
    batch_size: int = 256
    """Transitions per gradient update."""
    gamma: float = 0.99
    """Discount per control step."""
    tau: float = 0.005
    """Share of the critics that moves into their target copies at every update."""
    actor_hidden: tuple[int, ...] = (256, 256)
    """Widths of the actor's hidden layers."""
    critic_hidden: tuple[int, ...] = (256, 256)
    """Widths of each critic's hidden layers."""
    activation: Activation = "relu"
    """Non-linearity of all networks."""
    n_critics: int = 2
    """Critics whose minimum is taken."""
    critic_layer_norm: bool = False
    """Normalise each hidden layer of the critics before its activation: bounds what they extrapolate (RLPD)."""
    actor_layer_norm: bool = False
    """The same in the actor."""
    initial_alpha: float = 1.0
    """Temperature at the start."""
    target_entropy: float | None = None
    """Entropy that the temperature steers to, nats, in `entropy_units`; None: minus the number of action dimensions."""
    entropy_units: EntropyUnits = "normalized"
    """Where log π is measured: actions in [-1, 1], or in the environment's own units, which adds the log half-range
    of every action dimension to the entropy (DSAC-T, FastSAC and LIFT do that)."""
    time_limit: TimeLimit = "bootstrap"
    """At a time limit, bootstrap from the true last observation, or treat it as the end of the MDP."""
    normalize_obs: bool = False
    """Standardise observations with their running mean and deviation; exported with the actor."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch_size", "tau", "n_critics", "initial_alpha"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.gamma <= 1 or self.tau > 1:
            raise ConfigError(f"gamma must lie in [0, 1] and tau in (0, 1], got {self.gamma} and {self.tau}")


def critic_target(
    reward: Tensor, ended: Tensor, next_q: Tensor, next_log_prob: Tensor, alpha: Tensor, discount: float | Tensor
) -> Tensor:
    """Eq. 2-3: y (batch,) = r + γ (1 - ended) (min_j Q'_j(s', a') - α log π(a'|s')), with next_q (n_critics, batch) and
    γ the discount, one for all or (batch,)."""
    return reward + discount * (1 - ended) * (next_q.amin(0) - alpha * next_log_prob)


def critic_loss(q: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Eq. 5, summed over the critics: ½ Σ_j mean w (Q_j - y)², with q (n_critics, batch) and w (batch,) or 1."""
    error = (q - target).square()
    return 0.5 * (error if weight is None else weight * error).mean(-1).sum()


def actor_loss(q: Tensor, log_prob: Tensor, alpha: Tensor, weight: Tensor | None = None) -> Tensor:
    """Eq. 9: mean w (α log π(a|s) - min_j Q_j(s, a)), a reparameterised, w (batch,) or 1."""
    loss = alpha * log_prob - q.amin(0)
    return (loss if weight is None else weight * loss).mean()


def alpha_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Eq. 18 with log α in place of α: the same zero, and a step size that does not shrink with α."""
    return -log_alpha * (log_prob.detach() + target_entropy).mean()


class SAC:
    """Networks, optimisers and one gradient update. Observations come raw: normalising happens inside.

    `action_half_range` (action_dim,) is half the width of the environment's action box, needed only for
    `entropy_units="environment"`. All randomness comes from `seed`.
    """

    metrics = ("critic_loss", "actor_loss", "alpha_loss", "alpha", "entropy", "q")

    def __init__(
        self,
        config: SACConfig,
        obs_dim: int,
        action_dim: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        action_half_range: Tensor | None = None,
    ) -> None:
        self.config = config
        self.obs_dim, self.action_dim, self.device = obs_dim, action_dim, torch.device(device)
        self.normalizer = make_normalizer(config.normalize_obs, obs_dim).to(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy = SquashedGaussianActor(
                obs_dim, action_dim, config.actor_hidden, config.activation, layer_norm=config.actor_layer_norm
            ).to(device)
            critic = CriticEnsemble(
                obs_dim,
                action_dim,
                config.critic_hidden,
                config.activation,
                config.n_critics,
                config.critic_layer_norm,
            )
        self.critic = critic.to(device)
        self.critic_target = deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = torch.tensor(math.log(config.initial_alpha), device=device, requires_grad=True)
        self.target_entropy = -float(action_dim) if config.target_entropy is None else config.target_entropy
        self.log_volume = log_volume(config.entropy_units, action_half_range)
        self.generator = torch.Generator(device).manual_seed(seed)

        self.actor_optimizer = torch.optim.Adam(self.policy.parameters(), lr=config.learning_rate, fused=True)
        self.critic_optimizer = torch.optim.Adam(self.critic.parameters(), lr=config.learning_rate, fused=True)
        self.alpha_optimizer = torch.optim.Adam([self.log_alpha], lr=config.learning_rate, fused=True)

    @torch.no_grad()
    def act(self, obs: Tensor, deterministic: bool = False) -> Tensor:
        """obs (n, obs_dim) -> action (n, action_dim) in [-1, 1]."""
        obs = self.normalizer(obs)
        return self.policy(obs) if deterministic else self.policy.sample(obs, self.generator)[0]

    def observe(self, obs: Tensor) -> None:
        """Take the observations (n, obs_dim) of a collection step into the normaliser."""
        if isinstance(self.normalizer, Normalizer):
            self.normalizer.update(obs)

    def update(self, batch: Batch, lr_scale: float = 1.0) -> dict[str, Tensor]:
        """One gradient step of temperature, critics, actor and targets, of `learning_rate` times `lr_scale`; returns
        scalars named by `metrics`."""
        lr = self.config.learning_rate * lr_scale
        obs, next_obs = self.normalizer(batch.obs), self.normalizer(batch.next_obs)
        ended = batch.terminated if self.config.time_limit == "bootstrap" else batch.terminated + batch.truncated
        discount = self.config.gamma if batch.discount is None else batch.discount
        alpha = self.log_alpha.detach().exp()

        action, log_prob = self._sample(obs)
        loss_alpha = alpha_loss(self.log_alpha, log_prob, self.target_entropy)
        gradient_step(self.alpha_optimizer, loss_alpha, lr)

        with torch.no_grad():
            next_action, next_log_prob = self._sample(next_obs)
            next_q = self.critic_target(next_obs, next_action)
            target = critic_target(batch.reward, ended, next_q, next_log_prob, alpha, discount)
        q = self.critic(obs, batch.action)
        loss_critic = critic_loss(q, target, batch.weight)
        gradient_step(self.critic_optimizer, loss_critic, lr)

        loss_actor = actor_loss(self.critic(obs, action, frozen=True), log_prob, alpha, batch.weight)
        gradient_step(self.actor_optimizer, loss_actor, lr)

        with torch.no_grad():
            self.critic_target.flat.lerp_(self.critic.flat, self.config.tau)
            values = (loss_critic, loss_actor, loss_alpha, alpha, -log_prob.mean(), q.mean())
        return {name: value.detach() for name, value in zip(self.metrics, values, strict=True)}

    def actor(self) -> nn.Module:
        """The deterministic policy for export: normalised obs (n, obs_dim) -> action (n, action_dim) in [-1, 1]."""
        return self.policy.deterministic()

    def state_dict(self) -> dict[str, Tensor]:
        return pack(self._parts())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        unpack(self._parts(), state)

    def _sample(self, obs: Tensor) -> tuple[Tensor, Tensor]:
        action, log_prob = self.policy.sample(obs, self.generator)
        return action, log_prob - self.log_volume

    def _parts(self) -> dict[str, Part]:
        return {
            "normalizer": self.normalizer,
            "actor": self.policy,
            "critic": self.critic,
            "critic_target": self.critic_target,
            "log_alpha": self.log_alpha,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "alpha_optimizer": self.alpha_optimizer,
            "generator": self.generator,
        }


def log_volume(units: EntropyUnits, action_half_range: Tensor | None) -> float:
    """What to subtract from log π in [-1, 1] to have it in `units`: Σ log(half-range), or nothing."""
    if units == "normalized":
        return 0.0
    if action_half_range is None:
        raise ConfigError("entropy_units='environment' needs an environment that states its action_half_range")
    return float(action_half_range.log().sum())


def gradient_step(optimizer: torch.optim.Optimizer, loss: Tensor, lr: float) -> None:
    """One step of size `lr` down the gradient of the loss."""
    optimizer.param_groups[0]["lr"] = lr
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
