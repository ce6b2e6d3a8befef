"""Soft Actor-Critic with automatic temperature (Haarnoja et al. 2018, "Soft Actor-Critic Algorithms and Applications",
arXiv 1812.05905). Equation numbers below are that paper's.

Choices that official codes make differently, made explicit here:
- critic target: minimum of the target critics; next action from the current actor (there is no target actor);
- temperature loss on log α; the critic and actor losses use α as it was before this update's α step;
- actor loss: minimum of the critics, after their step, unless `actor_critic` says mean;
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

from robot_rl.algorithms.adam import Adam, polyak
from robot_rl.algorithms.kernel import compiled_update
from robot_rl.algorithms.products import quick_products
from robot_rl.algorithms.state import Part, pack, unpack
from robot_rl.errors import ConfigError
from robot_rl.networks.categorical import (
    cross_entropy,
    cross_entropy_gradient,
    expectation,
    expectation_gradient,
    histogram,
    project,
    support,
)
from robot_rl.networks.critic import CriticEnsemble
from robot_rl.networks.mlp import Activation
from robot_rl.networks.normalizer import Normalizer, actor_and_critic_obs, make_normalizer
from robot_rl.networks.squashed_gaussian import Sample, SquashedGaussianActor
from robot_rl.replay.ring_buffer import Batch

HISTOGRAM_SIGMA = 0.75
"""Deviation of HL-Gauss histograms in steps between atoms, as its authors chose."""


EntropyUnits = Literal["normalized", "environment"]
TimeLimit = Literal["bootstrap", "terminal"]
Precision = Literal["float32", "bfloat16"]

DTYPES: dict[Precision, torch.dtype | None] = {"float32": None, "bfloat16": torch.bfloat16}


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
    """Size of the ensemble."""
    target_critics: int | None = None
    """Target critics, drawn anew at every update, of which the minimum is taken (REDQ, RLPD: 2); None: all."""
    critic_head: Literal["scalar", "categorical", "histogram"] = "scalar"
    """What a critic puts out: Q; probabilities of atoms, trained on the projected distribution of the next state (C51);
    or the same, trained on a histogram around the scalar target (HL-Gauss)."""
    atoms: tuple[float, float, int] = (-20.0, 20.0, 101)
    """First, last and number of atoms of the last two; they must span the discounted return with its entropy bonus."""
    own_target: bool = False
    """Each critic learns from its own target critic (FastSAC), instead of all from the smallest."""
    actor_critic: Literal["min", "mean"] = "min"
    """What of the critics the actor climbs: their minimum, or their mean (REDQ, RLPD, FastSAC)."""
    policy_delay: int = 1
    """Updates of the critics to one of actor and temperature."""
    backup_entropy: bool = True
    """Whether the critics' target contains the entropy of the next action."""
    critic_layer_norm: bool = False
    """Normalise each hidden layer of the critics before its activation: bounds what they extrapolate (RLPD)."""
    actor_layer_norm: bool = False
    """The same in the actor."""
    initial_std: float | None = None
    """Standard deviation of the first policy, before the tanh (FastSAC: 0.08); None: what random weights yield."""
    initial_alpha: float = 1.0
    """Temperature at the start."""
    target_entropy: float | None = None
    """Entropy that the temperature steers to, nats, in `entropy_units`; None: minus the number of action dimensions."""
    entropy_units: EntropyUnits = "normalized"
    """Where log π is measured: actions in [-1, 1], or in the environment's own units, which adds the log half-range
    of every action dimension to the entropy (DSAC-T, FastSAC and LIFT do that)."""
    time_limit: TimeLimit = "bootstrap"
    """At a time limit, bootstrap from the true last observation, or treat it as the end of the MDP."""
    precision: Precision = "float32"
    """Of the matrix products in the hidden layers; parameters, outputs, losses and acting stay in float32. bfloat16
    needs a processor that computes in it (AVX512-BF16, AMX, or a GPU), else it is slower."""
    compile: bool = False
    """Fuse the update into one compiled graph, and what surrounds the physics in a step of our environments: a quarter
    faster after half a minute, and needs a C++ compiler."""
    normalize_obs: bool = False
    """Standardise observations with their running mean and deviation; exported with the actor."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch_size", "tau", "n_critics", "policy_delay", "initial_alpha"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.gamma <= 1 or self.tau > 1:
            raise ConfigError(f"gamma must lie in [0, 1] and tau in (0, 1], got {self.gamma} and {self.tau}")
        if self.target_critics is not None and not 1 <= self.target_critics <= self.n_critics:
            raise ConfigError(
                f"target_critics must lie between 1 and n_critics = {self.n_critics}, got {self.target_critics}"
            )
        if self.own_target and self.target_critics is not None:
            raise ConfigError("own_target and target_critics exclude each other")
        if self.atoms[0] >= self.atoms[1] or self.atoms[2] < 2:
            raise ConfigError(f"atoms must be an increasing pair and a number of at least 2, got {self.atoms}")
        if self.initial_std is not None and not self.initial_std > 0:
            raise ConfigError(f"initial_std must be positive, got {self.initial_std}")


def target_terms(
    reward: Tensor, ended: Tensor, next_log_prob: Tensor, alpha: Tensor | float, discount: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Eq. 2-3 as shift + scale Q'(s', a'), all (batch,): scale = γ (1 - ended), shift = r - scale α log π(a'|s')."""
    scale = discount * (1 - ended)
    return reward - scale * alpha * next_log_prob, scale


def smallest(out: Tensor, q: Tensor) -> Tensor:
    """Outputs (batch, n) of the critic whose q (n_critics, batch) is smallest, out of (n_critics, batch, n)."""
    index = q.argmin(0).view(1, -1, 1).expand(1, *out.shape[1:])
    return out.gather(0, index).squeeze(0)


def critic_loss(q: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Eq. 5, summed over the critics: ½ Σ_j mean w (Q_j - y)², with q (n_critics, batch) and w (batch,) or 1."""
    error = (q - target).square()
    return 0.5 * (error if weight is None else weight * error).mean(-1).sum()


def actor_loss(
    q: Tensor, log_prob: Tensor, alpha: Tensor, weight: Tensor | None = None, of: Literal["min", "mean"] = "min"
) -> Tensor:
    """Eq. 9: mean w (α log π(a|s) - min_j Q_j(s, a)), a reparameterised, w (batch,) or 1; or with the mean over j."""
    loss = alpha * log_prob - (q.amin(0) if of == "min" else q.mean(0))
    return (loss if weight is None else weight * loss).mean()


def alpha_loss(log_alpha: Tensor, log_prob: Tensor, target_entropy: float) -> Tensor:
    """Eq. 18 with log α in place of α: the same zero, and a step size that does not shrink with α."""
    return -log_alpha * (log_prob.detach() + target_entropy).mean()


def critic_gradient(q: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Of critic_loss with respect to q, (n_critics, batch)."""
    error = (q - target) / q.shape[1]
    return error if weight is None else weight * error


def actor_gradients(
    q: Tensor, alpha: Tensor, weight: Tensor | None = None, of: Literal["min", "mean"] = "min"
) -> tuple[Tensor, Tensor]:
    """Of actor_loss with respect to q (n_critics, batch), of which only the smallest counts or all do, and to log π
    (batch,)."""
    each = torch.full_like(q[0], 1 / q.shape[1]) if weight is None else weight / q.shape[1]
    if of == "mean":
        return (-each / len(q)).expand_as(q), alpha * each
    smallest = q.argmin(0, keepdim=True)
    return torch.zeros_like(q).scatter(0, smallest, -each.unsqueeze(0)), alpha * each


class SAC:
    """Networks, optimisers and one gradient update. Observations come raw: normalising happens inside.

    `action_half_range` (action_dim,) is half the width of the environment's action box, needed only for
    `entropy_units="environment"`. Batches hold `privileged_dim` columns behind obs_dim that only the critics see. All
    randomness comes from `seed`.
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
        privileged_dim: int = 0,
    ) -> None:
        self.config = config
        self.obs_dim, self.action_dim, self.device = obs_dim, action_dim, torch.device(device)
        self.normalizer = make_normalizer(config.normalize_obs, obs_dim).to(device)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy = SquashedGaussianActor(
                obs_dim,
                action_dim,
                config.actor_hidden,
                config.activation,
                layer_norm=config.actor_layer_norm,
                initial_std=config.initial_std,
                dtype=DTYPES[config.precision],
            ).to(device)
            critic = CriticEnsemble(
                obs_dim + privileged_dim,
                action_dim,
                config.critic_hidden,
                config.activation,
                config.n_critics,
                config.critic_layer_norm,
                1 if config.critic_head == "scalar" else config.atoms[2],
                DTYPES[config.precision],
            )
        self.critic = critic.to(device)
        self.atoms = support(*config.atoms).to(device)
        self.critic_target = deepcopy(self.critic).requires_grad_(False)
        self.log_alpha = torch.tensor(math.log(config.initial_alpha), device=device)
        self.target_entropy = -float(action_dim) if config.target_entropy is None else config.target_entropy
        self.log_volume = log_volume(config.entropy_units, action_half_range)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.updates = torch.zeros((), dtype=torch.int64)
        self._actor_loss = torch.zeros((), device=device)
        self._lr = torch.zeros((), device=device)

        self.actor_optimizer = Adam(self.policy.parameters())
        self.critic_optimizer = Adam(self.critic.parameters())
        self.alpha_optimizer = Adam([self.log_alpha])
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
        """One gradient step of temperature, critics, actor and targets, of `learning_rate` times `lr_scale`; returns
        scalars named by `metrics`."""
        self.updates += 1
        self._lr.fill_(self.config.learning_rate * lr_scale)
        noise = torch.randn(2 * len(batch.action), self.action_dim, generator=self.generator, device=self.device)
        with_actor = int(self.updates) % self.config.policy_delay == 0
        values = self._update(batch, noise, self._target_members(), with_actor)
        return dict(zip(self.metrics, values, strict=True))

    def _update(self, batch: Batch, noise: Tensor, members: Tensor | None, with_actor: bool) -> tuple[Tensor, ...]:
        """All of an update that is not chance, with noise (2 batch, action_dim): what `compile` compiles."""
        own, obs = actor_and_critic_obs(batch.obs, self.obs_dim, self.normalizer)
        next_own, next_obs = actor_and_critic_obs(batch.next_obs, self.obs_dim, self.normalizer)
        n, alpha = len(own), self.log_alpha.exp()
        sample, following = self.policy.run(own, noise[:n]), self.policy.run(next_own, noise[n:])
        log_prob = sample.log_prob - self.log_volume

        q, loss_critic, gradient = self._critic_phase(obs, next_obs, batch, alpha, following, members)
        self.critic_optimizer.step(gradient, self._lr)
        if with_actor:
            self.alpha_optimizer.step([-(log_prob.mean() + self.target_entropy)], self._lr)
            q_of_policy, gradient = self._actor_phase(obs, sample, alpha, batch.weight)
            self.actor_optimizer.step(gradient, self._lr)
            self._actor_loss.copy_(actor_loss(q_of_policy, log_prob, alpha, batch.weight, self.config.actor_critic))
        polyak(self.critic_target, self.critic, self.config.tau)

        loss_alpha = alpha_loss(alpha.log(), log_prob, self.target_entropy)
        return loss_critic, self._actor_loss.clone(), loss_alpha, alpha, -log_prob.mean(), q.mean()

    def _critic_phase(
        self, obs: Tensor, next_obs: Tensor, batch: Batch, alpha: Tensor, following: Sample, members: Tensor | None
    ) -> tuple[Tensor, Tensor, list[Tensor]]:
        """q (n_critics, batch), the critics' loss and its gradient."""
        ended = batch.terminated if self.config.time_limit == "bootstrap" else batch.terminated + batch.truncated
        discount = self.config.gamma if batch.discount is None else batch.discount
        bonus = alpha if self.config.backup_entropy else 0.0
        shift, scale = target_terms(batch.reward, ended, following.log_prob - self.log_volume, bonus, discount)
        next_out, _ = self.critic_target.run(next_obs, following.action, members=members)
        out, tape = self.critic.run(obs, batch.action)
        loss, gradient = self._critic_loss(out, next_out, shift, scale, batch.weight)
        return self._q(out), loss, self.critic.gradient(tape, gradient)

    def _critic_loss(
        self, out: Tensor, next_out: Tensor, shift: Tensor, scale: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Loss, and its gradient with respect to `out`, against the target shift + scale Z(s', a')."""
        next_q = self._q(next_out)
        if self.config.critic_head == "categorical":
            chosen = next_out if self.config.own_target else smallest(next_out, next_q)
            target = project(chosen.softmax(-1), self.atoms, shift, scale)
        else:
            target = shift + scale * (next_q if self.config.own_target else next_q.amin(0))
            if self.config.critic_head == "scalar":
                q = self._q(out)
                return critic_loss(q, target, weight), critic_gradient(q, target, weight).unsqueeze(-1)
            low, high, n = self.config.atoms
            target = histogram(target, self.atoms, HISTOGRAM_SIGMA * (high - low) / (n - 1))
        return cross_entropy(out, target, weight), cross_entropy_gradient(out, target, weight)

    def _q(self, out: Tensor) -> Tensor:
        return out.squeeze(-1) if self.config.critic_head == "scalar" else expectation(out, self.atoms)

    def _actor_phase(
        self, obs: Tensor, sample: Sample, alpha: Tensor, weight: Tensor | None
    ) -> tuple[Tensor, list[Tensor]]:
        """q (n_critics, batch) of the policy's sample, and the gradient of the actor."""
        out, tape = self.critic.run(obs, sample.action)
        q = self._q(out)
        q_gradient, log_prob_gradient = actor_gradients(q, alpha, weight, self.config.actor_critic)
        out_gradient = q_gradient.unsqueeze(-1)
        if self.config.critic_head != "scalar":
            out_gradient = expectation_gradient(out, self.atoms, q_gradient)
        action_gradient = self.critic.then_gradient(tape, out_gradient, self.action_dim)
        return q, self.policy.gradient(sample, action_gradient, log_prob_gradient)

    def _target_members(self) -> Tensor | None:
        """Which target critics count in this update."""
        if self.config.target_critics is None:
            return None
        order = torch.randperm(self.config.n_critics, generator=self.generator, device=self.device)
        return order[: self.config.target_critics]

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
            "critic": self.critic,
            "critic_target": self.critic_target,
            "log_alpha": self.log_alpha,
            "actor_optimizer": self.actor_optimizer,
            "critic_optimizer": self.critic_optimizer,
            "alpha_optimizer": self.alpha_optimizer,
            "generator": self.generator,
            "updates": self.updates,
            "last_actor_loss": self._actor_loss,
        }


def log_volume(units: EntropyUnits, action_half_range: Tensor | None) -> float:
    """What to subtract from log π in [-1, 1] to have it in `units`: Σ log(half-range), or nothing."""
    if units == "normalized":
        return 0.0
    if action_half_range is None:
        raise ConfigError("entropy_units='environment' needs an environment that states its action_half_range")
    return float(action_half_range.log().sum())
