"""DSAC-T (Duan et al. 2023, "Distributional Soft Actor-Critic with Three Refinements", arXiv 2310.05858). Each critic
gives the mean Q and the standard deviation σ of a Gaussian return; Q learns from a target without sampling noise, σ
from a sampled one, both with steps scaled to the return's size.

The actor and temperature losses are SAC's. Choices that official codes make differently, made explicit here:
- critic loss: form A (the authors' 2024 code) or form B (their 2025 code), see `critic_loss_a` and `critic_loss_b`;
- the next action comes from a target copy of the policy, and the temperature of before this update enters all losses;
- critics step at every update; policy, temperature and all targets at every `delay`-th, beginning with the first;
- the actor loss sees the critics as they were before this update's step.
dsact.md has the equations, every deviation and what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_rl.algorithms.adam import Adam, polyak
from robot_rl.algorithms.kernel import compiled_update
from robot_rl.algorithms.products import quick_products
from robot_rl.algorithms.sac import (
    DTYPES,
    EntropyUnits,
    Precision,
    TimeLimit,
    actor_gradients,
    actor_loss,
    alpha_loss,
    log_volume,
)
from robot_rl.algorithms.state import Part, pack, unpack
from robot_rl.errors import ConfigError
from robot_rl.networks.critic import GaussianCriticEnsemble, gaussian
from robot_rl.networks.mlp import Activation
from robot_rl.networks.normalizer import Normalizer, actor_and_critic_obs, make_normalizer
from robot_rl.networks.squashed_gaussian import Sample, SquashedGaussianActor
from robot_rl.replay.ring_buffer import Batch

CriticLoss = Literal["A", "B"]
AlphaUnits = Literal["reward", "reward_std"]

LOG_STD_BOUNDS = (-20.0, 0.5)
NOISE_CLIP = 3.0
"""Standard deviations that a sampled return lies from its mean at most."""
BOUND = 3.0
"""Running mean standard deviations that a sampled target counts as being away from Q at most."""
EPSILON = 0.1
"""Keeps a small deviation from blowing up the steps."""
HUBER = 50.0
"""Where form B's squared errors turn linear."""
LEAST_REWARD_STD = 1e-3
"""Taken for the unit of the temperature where the first rewards are all alike."""


@dataclass(frozen=True)
class DSACTConfig:
    """Hyperparameters of DSAC-T; the defaults are those of the authors' code, except for `entropy_units`."""

    learning_rate: float = 1e-4
    """Adam step size of actor and critics."""
    alpha_learning_rate: float = 3e-4
    """Adam step size of the log temperature."""
    batch_size: int = 256
    """Transitions per gradient update."""
    gamma: float = 0.99
    """Discount per control step."""
    tau: float = 0.005
    """Share of policy and critics that moves into their target copies at every `delay`-th update."""
    tau_b: float = 0.005
    """Share of the batch's mean deviation of the return that moves into its running mean at every update."""
    delay: int = 2
    """Policy, temperature and targets move at every so many updates."""
    critic_loss: CriticLoss = "A"
    """A: learns the deviation of the return. B: a robust mean critic, its deviation near the noise of one step."""
    actor_hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of the actor's hidden layers."""
    critic_hidden: tuple[int, ...] = (256, 256, 256)
    """Widths of each critic's hidden layers."""
    activation: Activation = "gelu"
    """Non-linearity of all networks."""
    initial_alpha: float = math.e
    """Temperature at the start, in `initial_alpha_units`."""
    initial_alpha_units: AlphaUnits = "reward"
    """What 1 of `initial_alpha` is: 1 of reward, as for the authors, or one standard deviation of the first batch's
    rewards. With the second, scaled rewards are the same problem in other units, whatever the scale."""
    target_entropy: float | None = None
    """Entropy that the temperature steers to, nats, in `entropy_units`; None: minus the number of action dimensions."""
    entropy_units: EntropyUnits = "normalized"
    """Where log π is measured: actions in [-1, 1], or, as the authors do, in the environment's own units, which adds
    the log half-range of every action dimension to the entropy."""
    time_limit: TimeLimit = "bootstrap"
    """At a time limit, bootstrap from the true last observation, or treat it as the end of the MDP."""
    precision: Precision = "float32"
    """Of the matrix products in the hidden layers; parameters, outputs, losses and acting stay in float32. bfloat16
    needs a processor that computes in it (AVX512-BF16, AMX, or a GPU), else it is slower."""
    compile: bool = False
    """Fuse the update with torch.compile: a quarter faster after half a minute, and needs a C++ compiler."""
    normalize_obs: bool = False
    """Standardise observations with their running mean and deviation; exported with the actor."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "alpha_learning_rate", "batch_size", "tau", "tau_b", "delay", "initial_alpha"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.gamma <= 1 or self.tau > 1 or self.tau_b > 1:
            raise ConfigError(
                f"gamma must lie in [0, 1], tau and tau_b in (0, 1], got {self.gamma}, {self.tau} and {self.tau_b}"
            )
        if self.initial_alpha_units not in get_args(AlphaUnits):
            valid = ", ".join(get_args(AlphaUnits))
            raise ConfigError(f"initial_alpha_units must be one of {valid}, got {self.initial_alpha_units!r}")
        if self.critic_loss not in CRITIC_LOSSES:
            raise ConfigError(f"critic_loss must be one of {', '.join(CRITIC_LOSSES)}, got {self.critic_loss!r}")


def critic_targets(
    reward: Tensor,
    ended: Tensor,
    next_mean: Tensor,
    next_std: Tensor,
    noise: Tensor,
    next_log_prob: Tensor,
    alpha: Tensor,
    discount: float | Tensor,
) -> tuple[Tensor, Tensor]:
    """Targets (batch,) of Q and of σ, the same for both critics: with i the target critic of the lower mean,

        ȳ   = r + γ (1 - ended) (Q'_i - α log π(a'|s'))             expected value substitution
        y_z = r + γ (1 - ended) (Q'_i + σ'_i z - α log π(a'|s'))    twin value distribution learning

    next_mean and next_std are (n_critics, batch), noise z (batch,) is normal, clipped to ±NOISE_CLIP.
    """
    mean, lower = next_mean.min(0, keepdim=True)
    std = next_std.gather(0, lower)
    factor = discount * (1 - ended)
    target = reward + factor * (mean[0] - alpha * next_log_prob)
    return target, target + factor * std[0] * noise


def critic_loss_a(mean: Tensor, std: Tensor, target: Tensor, sample: Tensor, mean_std: Tensor) -> Tensor:
    """Per-sample loss (n_critics, batch) of mean Q and standard deviation σ (n_critics, batch) against ȳ and y_z
    (batch,), with m (n_critics, 1) the running mean of σ. Its gradients are the paper's variance-based adjustment,

        ∂Q = (m² + ε) (Q - ȳ) / (σ² + ε),    ∂σ = -(m² + ε) ((Q - C)² - σ²) / (σ³ + ε),

    where C is y_z clipped to Q ± BOUND m. σ is at rest where σ² = E[(C - Q)²].
    """
    fixed = std.detach()
    variance = fixed.square()
    squared = _bounded_error(mean, sample, mean_std).square()
    loss = 0.5 * (mean - target).square() / (variance + EPSILON)
    loss = loss + std * ((variance - squared) / (variance * fixed + EPSILON))
    return (mean_std.square() + EPSILON) * loss


def critic_loss_b(mean: Tensor, std: Tensor, target: Tensor, sample: Tensor, mean_std: Tensor) -> Tensor:
    """As `critic_loss_a`, with Huber losses h in place of squares and one clipped weight per sample:

        w (h(Q - ȳ) + σ (σ² - h(Q - C)) / (σ + ε)),    w = clip(m² / (σ² + ε), 0.1, 10),

    the σ in w, in brackets and in the denominator held fixed. h carries the ½ of a Huber loss, so that σ is at rest
    where σ² = ½ E[(C - Q)²]: every backup shrinks σ, and what it settles at is near the noise of one step.
    """
    fixed = std.detach()
    variance = fixed.square()
    error = _bounded_error(mean, sample, mean_std)
    squared = _huber(error)
    loss = _huber(mean - target)
    loss = loss + std * ((variance - squared) / (fixed + EPSILON))
    return (mean_std.square() / (variance + EPSILON)).clamp(0.1, 10.0) * loss


def critic_gradients_a(
    mean: Tensor, std: Tensor, target: Tensor, sample: Tensor, mean_std: Tensor
) -> tuple[Tensor, Tensor]:
    """Of `critic_loss_a` with respect to mean and std, per sample (n_critics, batch)."""
    variance = std.square()
    scale = mean_std.square() + EPSILON
    squared = _bounded_error(mean, sample, mean_std).square()
    return scale * (mean - target) / (variance + EPSILON), scale * (variance - squared) / (variance * std + EPSILON)


def critic_gradients_b(
    mean: Tensor, std: Tensor, target: Tensor, sample: Tensor, mean_std: Tensor
) -> tuple[Tensor, Tensor]:
    """Of `critic_loss_b` with respect to mean and std, per sample (n_critics, batch)."""
    variance = std.square()
    weight = (mean_std.square() / (variance + EPSILON)).clamp(0.1, 10.0)
    squared = _huber(_bounded_error(mean, sample, mean_std))
    return weight * (mean - target).clamp(-HUBER, HUBER), weight * (variance - squared) / (std + EPSILON)


def _bounded_error(mean: Tensor, sample: Tensor, mean_std: Tensor) -> Tensor:
    """C - Q (n_critics, batch), without gradient."""
    bound = BOUND * mean_std
    return torch.clamp(sample - mean.detach(), -bound, bound)


def _huber(error: Tensor) -> Tensor:
    return F.huber_loss(error, torch.zeros_like(error), reduction="none", delta=HUBER)


_Form = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], Tensor]
_Gradients = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
CRITIC_LOSSES: dict[CriticLoss, tuple[_Form, _Gradients]] = {
    "A": (critic_loss_a, critic_gradients_a),
    "B": (critic_loss_b, critic_gradients_b),
}


class DSACT:
    """Networks, optimisers and one gradient update. Observations come raw: normalising happens inside.

    `action_half_range` (action_dim,) is half the width of the environment's action box, needed only for
    `entropy_units="environment"`. Batches hold `privileged_dim` columns behind obs_dim that only the critics see. All
    randomness comes from `seed`.
    """

    metrics = ("critic_loss", "actor_loss", "alpha_loss", "alpha", "entropy", "q", "return_std")

    def __init__(
        self,
        config: DSACTConfig,
        obs_dim: int,
        action_dim: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        action_half_range: Tensor | None = None,
        privileged_dim: int = 0,
    ) -> None:
        self.config = config
        self.obs_dim, self.action_dim, self.device = obs_dim, action_dim, torch.device(device)
        self.normalizer = make_normalizer(config.normalize_obs, obs_dim).to(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            dtype = DTYPES[config.precision]
            policy = SquashedGaussianActor(
                obs_dim, action_dim, config.actor_hidden, config.activation, LOG_STD_BOUNDS, dtype=dtype
            )
            critic = GaussianCriticEnsemble(
                obs_dim + privileged_dim, action_dim, config.critic_hidden, config.activation, dtype=dtype
            )
        self.policy, self.critic = policy.to(device), critic.to(device)
        self.policy_target = deepcopy(self.policy).requires_grad_(False)
        self.critic_target = deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = torch.tensor(math.log(config.initial_alpha), device=device)
        self.target_entropy = -float(action_dim) if config.target_entropy is None else config.target_entropy
        self.log_volume = log_volume(config.entropy_units, action_half_range)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.mean_std = torch.zeros(self.critic.n, 1, device=device)
        """m (n_critics, 1): running mean of each critic's deviation."""
        self.updates = torch.zeros((), dtype=torch.int64)
        """Updates made. On the CPU, so that reading it waits for no device."""
        self.policy_metrics = torch.zeros(3, device=device)
        """Actor loss, temperature loss and entropy of the last update that moved the policy."""

        self.actor_optimizer = Adam(self.policy.parameters())
        self.critic_optimizer = Adam(self.critic.parameters())
        self.alpha_optimizer = Adam([self.log_alpha])
        self._lr, self._alpha_lr = torch.zeros((), device=device), torch.zeros((), device=device)
        if config.compile:
            self._update = compiled_update(self._update, self.device)

    @torch.no_grad()
    @quick_products()
    def act(self, obs: Tensor, deterministic: bool = False) -> Tensor:
        """obs (n, obs_dim) -> action (n, action_dim) in [-1, 1]."""
        obs = self.normalizer(obs)
        return self.policy(obs) if deterministic else self.policy.sample(obs, self.generator)[0]

    def observe(self, obs: Tensor) -> None:
        """Take the observations (n, obs_dim) of a collection step into the normaliser."""
        if isinstance(self.normalizer, Normalizer):
            self.normalizer.update(obs)

    @torch.no_grad()
    @quick_products()
    def update(self, batch: Batch, lr_scale: float = 1.0) -> dict[str, Tensor]:
        """One gradient step of the critics and, at every `delay`-th call, of temperature, policy and targets, of the
        learning rates times `lr_scale`; returns scalars named by `metrics`."""
        self._lr.fill_(self.config.learning_rate * lr_scale)
        self._alpha_lr.fill_(self.config.alpha_learning_rate * lr_scale)
        n, draw = len(batch.reward), {"generator": self.generator, "device": self.device}
        noise, value_noise = torch.randn(2 * n, self.action_dim, **draw), torch.randn(n, **draw)
        made = int(self.updates)
        if made == 0 and self.config.initial_alpha_units == "reward_std":
            self.log_alpha += torch.log(batch.reward.std(correction=0).clamp(min=LEAST_REWARD_STD))
        values = self._update(batch, noise, value_noise, made % self.config.delay == 0, made == 0)
        self.updates += 1
        return dict(zip(self.metrics, values, strict=True))

    def _update(
        self, batch: Batch, noise: Tensor, value_noise: Tensor, policy_moves: bool, first: bool
    ) -> tuple[Tensor, ...]:
        """All of an update that is not chance, with noise (2 batch, action_dim) and (batch,): what is compiled."""
        own, obs = actor_and_critic_obs(batch.obs, self.obs_dim, self.normalizer)
        n, alpha = len(obs), self.log_alpha.exp()
        target, sample = self._targets(batch, alpha, noise[n:], value_noise)
        out, tape = self.critic.run(obs, batch.action)
        mean, std = gaussian(out)
        share = 1.0 if first else self.config.tau_b  # the first batch's mean starts the average
        self.mean_std.lerp_(std.mean(-1, keepdim=True), share)
        loss_of, gradients_of = CRITIC_LOSSES[self.config.critic_loss]
        arguments = (mean, std, target, sample, self.mean_std)
        weight = 1.0 if batch.weight is None else batch.weight
        loss = (weight * loss_of(*arguments)).mean(-1).sum()
        mean_gradient, std_gradient = (weight / n * part for part in gradients_of(*arguments))
        raw_gradient = std_gradient * torch.sigmoid(out[..., 1])  # σ is the softplus of the output

        if policy_moves:  # before the critics' step: the paper's gradients are all taken at the same parameters
            self._update_policy(self.policy.run(own, noise[:n]), obs, alpha, batch.weight)
        gradient = self.critic.gradient(tape, torch.stack((mean_gradient, raw_gradient), dim=-1))
        self.critic_optimizer.step(gradient, self._lr)
        if policy_moves:
            polyak(self.policy_target, self.policy, self.config.tau)
            polyak(self.critic_target, self.critic, self.config.tau)
        loss_actor, loss_alpha, entropy = self.policy_metrics.clone().unbind()
        return loss, loss_actor, loss_alpha, alpha, entropy, mean.mean(), std.mean()

    def _targets(self, batch: Batch, alpha: Tensor, noise: Tensor, value_noise: Tensor) -> tuple[Tensor, Tensor]:
        """Targets (batch,) of Q and of σ."""
        ended = batch.terminated if self.config.time_limit == "bootstrap" else batch.terminated + batch.truncated
        discount = self.config.gamma if batch.discount is None else batch.discount
        own, next_obs = actor_and_critic_obs(batch.next_obs, self.obs_dim, self.normalizer)
        following = self.policy_target.run(own, noise)
        mean, std = gaussian(self.critic_target.run(next_obs, following.action)[0])
        clipped, log_prob = value_noise.clamp(-NOISE_CLIP, NOISE_CLIP), following.log_prob - self.log_volume
        return critic_targets(batch.reward, ended, mean, std, clipped, log_prob, alpha, discount)

    def _update_policy(self, sample: Sample, obs: Tensor, alpha: Tensor, weight: Tensor | None) -> None:
        """One step of policy and temperature, by the policy's sample at obs."""
        out, tape = self.critic.run(obs, sample.action)
        q, log_prob = out[..., 0], sample.log_prob - self.log_volume
        q_gradient, log_prob_gradient = actor_gradients(q, alpha, weight)
        out_gradient = torch.stack((q_gradient, torch.zeros_like(q)), dim=-1)
        action_gradient = self.critic.then_gradient(tape, out_gradient, self.action_dim)
        gradient = self.policy.gradient(sample, action_gradient, log_prob_gradient)
        entropy = -log_prob.mean()
        loss = actor_loss(q, log_prob, alpha, weight)
        self.policy_metrics.copy_(torch.stack((loss, alpha_loss(alpha.log(), log_prob, self.target_entropy), entropy)))
        self.actor_optimizer.step(gradient, self._lr)
        self.alpha_optimizer.step([entropy - self.target_entropy], self._alpha_lr)

    def actor(self) -> nn.Module:
        """The deterministic policy for export: normalised obs (n, obs_dim) -> action (n, action_dim) in [-1, 1]."""
        return self.policy.deterministic()

    def state_dict(self) -> dict[str, Tensor]:
        return pack(self._parts())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        unpack(self._parts(), state)

    def _parts(self) -> dict[str, Part]:
        return {
            "normalizer": self.normalizer,
            "actor": self.policy,
            "actor_target": self.policy_target,
            "critic": self.critic,
            "critic_target": self.critic_target,
            "log_alpha": self.log_alpha,
            "mean_std": self.mean_std,
            "updates": self.updates,
            "policy_metrics": self.policy_metrics,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "alpha_optimizer": self.alpha_optimizer,
            "generator": self.generator,
        }
