"""Auto-regressive soft Q-learning (Liu et al. 2025, "Learning from Suboptimal Data in Continuous Control via
Auto-Regressive Soft Q-Network", arXiv 2502.00288).

An action is L x D choices among B bins: levels outside, dimensions inside. Each level splits the interval that the one
before chose into B bins; the action is the centre of the last. Each choice has a normalised soft advantage, given the
choices before it, so that

    Q(s, a) = V(s) + Σ_{l,d} A_{l,d}(s, choices before, choice),   Σ_bins exp(A_{l,d} / α) = 1,   π = exp(A / α)

hold exactly, and V is the soft value α log Σ_a exp(Q(s, a) / α) without any sum over actions. arsq.md beside this file
has the equations, the deviations from the paper and its code, and what was measured.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from robot_rl.algorithms.adam import Adam, polyak
from robot_rl.algorithms.kernel import compiled_update
from robot_rl.algorithms.products import quick_products
from robot_rl.algorithms.state import Part, pack, unpack
from robot_rl.errors import ConfigError
from robot_rl.networks.mlp import ACTIVATIONS, Activation, Layer, MLPStack
from robot_rl.networks.normalizer import Normalizer, make_normalizer
from robot_rl.replay.ring_buffer import Batch

Conditioning = Literal["prefix", "level", "none"]
BCLoss = Literal["margin", "cql"]


@dataclass(frozen=True)
class ARSQConfig:
    """Hyperparameters of ARSQ; the defaults are those of the authors' run on D4RL's hopper-medium-replay."""

    learning_rate: float = 3e-4
    """Adam step size of all networks."""
    batch_size: int = 512
    """Transitions per gradient update; the authors draw one half from the demonstrations."""
    gamma: float = 0.99
    """Discount per control step."""
    tau: float = 0.005
    """Share of the value networks that moves into their target copies at every update."""
    hidden: tuple[int, ...] = (512, 512, 512)
    """Widths of the hidden layers of every network; at least one."""
    activation: Activation = "tanh"
    """Non-linearity of all networks."""
    levels: int = 2
    """L: how often the interval of an action dimension is split; 1 is the ablation without coarse-to-fine."""
    bins: int = 7
    """B: parts of each split; an action dimension has B^L values."""
    alpha: float = 0.01
    """Temperature of values, advantages and policy, in units of reward."""
    conditioning: Conditioning = "prefix"
    """What a choice knows of those before it: all of them (ARSQ), those of coarser levels only (dimensions independent
    within a level, as in CQN), or nothing. The last two are ablations."""
    rl_weight: float = 1.0
    """Factor on the squared Bellman error."""
    bc_weight: float = 0.03
    """Factor on the behaviour-cloning loss, which sees only demonstration rows."""
    bc_loss: BCLoss = "margin"
    """What is pushed below the demonstrated bin: each other bin, or the log-sum-exp of all others."""
    bc_clamp: float = 1.0
    """C_m: a violation A_other - A_demo is pushed down only while it exceeds this, in units of reward. +1 does nothing
    until another leads by 1; -1 goes on pushing until the demonstrated bin leads by 1, for each of L * D choices: with
    many of them, and demonstrations that are not all good, learning stops there."""
    time_limit: Literal["bootstrap", "terminal"] = "bootstrap"
    """At a time limit, bootstrap from the true last observation, or treat it as the end of the MDP."""
    compile: bool = False
    """Fuse the update with torch.compile: 1.4 times as fast where networks are small, little where they are large.
    Takes half a minute at first, and a C++ compiler."""
    normalize_obs: bool = False
    """Standardise observations with their running mean and deviation; exported with the actor."""

    def __post_init__(self) -> None:
        for name in ("learning_rate", "batch_size", "tau", "levels", "alpha"):
            if not getattr(self, name) > 0:
                raise ConfigError(f"{name} must be positive, got {getattr(self, name)}")
        for name in ("rl_weight", "bc_weight"):
            if not getattr(self, name) >= 0:
                raise ConfigError(f"{name} must not be negative, got {getattr(self, name)}")
        if not 0 <= self.gamma <= 1 or self.tau > 1:
            raise ConfigError(f"gamma must lie in [0, 1] and tau in (0, 1], got {self.gamma} and {self.tau}")
        if self.bins < 2 or self.bins**self.levels > 2**20:
            # Beyond 2^20 values per dimension float32 no longer tells neighbouring bins apart.
            raise ConfigError(f"bins must be at least 2 and bins**levels at most 2**20, got {self.bins}, {self.levels}")
        if not self.hidden:
            raise ConfigError("hidden must name at least one layer, got ()")


def encode(action: Tensor, levels: int, bins: int) -> Tensor:
    """Action (n, D) in [-1, 1] -> choices (n, L, D), the base-B digits of the cell that it falls into. An action on the
    upper bound, or beyond a bound, belongs to the last cell there."""
    cells = bins**levels
    cell = ((action + 1) * (cells / 2)).floor().long().clamp(0, cells - 1)
    return torch.stack([cell // bins ** (levels - 1 - level) % bins for level in range(levels)], dim=1)


def centres(choices: Tensor, bins: int) -> Tensor:
    """Choices (n, L, D) -> centres (n, L + 1, D) of the intervals before the first level (0) and after each level."""
    after = [torch.zeros_like(choices[:, 0], dtype=torch.float32)]
    cell = torch.zeros_like(choices[:, 0])
    for level in range(choices.shape[1]):
        cell = cell * bins + choices[:, level]
        after.append((2 * cell + 1) / bins ** (level + 1) - 1)
    return torch.stack(after, dim=1)


def decode(choices: Tensor, bins: int) -> Tensor:
    """Choices (n, L, D) -> action (n, D), the centres of the last intervals."""
    return centres(choices, bins)[:, -1]


def prefixes(choices: Tensor, bins: int, conditioning: Conditioning) -> Tensor:
    """What each choice knows of the others: (n, L, D) -> interval centres (n, L * D, D).

    With "prefix", entry (l, d) holds dimensions before d as they are after level l, the rest as they are before it.
    """
    centre = centres(choices, bins)
    n, levels, dims = choices.shape
    before, after = (c.unsqueeze(2).expand(-1, -1, dims, -1) for c in (centre[:, :-1], centre[:, 1:]))
    if conditioning == "prefix":
        known = torch.ones(dims, dims, dtype=torch.bool, device=choices.device).tril(-1)
        before = torch.where(known, after, before)
    elif conditioning == "none":
        before = torch.zeros_like(before)
    return before.reshape(n, levels * dims, dims)


def normalize_advantage(u: Tensor, alpha: float) -> Tensor:
    """A = u - α log Σ_bins exp(u / α), over the last dimension: makes exp(A / α) a distribution."""
    return alpha * F.log_softmax(u / alpha, dim=-1)


def soft_target(reward: Tensor, ended: Tensor, next_value: Tensor, discount: Tensor | float) -> Tensor:
    """y (n,) = r + γ (1 - ended) min_i V'_i(s'), next_value (n_networks, n). V' is soft: no next action is drawn."""
    return reward + discount * (1 - ended) * next_value.amin(0)


def rl_loss(q: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Σ_i mean (Q_i - y)², q (n_networks, n); each row times its weight."""
    error = (q - target).square()
    return (error if weight is None else error * weight).mean(-1).sum()


def bc_violation(advantage: Tensor, choices: Tensor, kind: BCLoss, clamp: float) -> Tensor:
    """How far other bins are above the demonstrated one, (..., K), from advantage (..., K, B) and choices (..., K).

    margin: mean over the others of max(A_other - A_demo, C_m); cql: max(log Σ_others exp(A_other) - A_demo, C_m).
    """
    chosen = choices.unsqueeze(-1)
    demo = advantage.gather(-1, chosen)
    is_demo = torch.zeros_like(advantage, dtype=torch.bool).scatter(-1, chosen, True)
    if kind == "margin":
        violation = (advantage - demo).clamp(min=clamp).masked_fill(is_demo, 0.0)
        return violation.sum(-1) / (advantage.shape[-1] - 1)
    others = advantage.masked_fill(is_demo, -torch.inf).logsumexp(-1)
    return (others - demo.squeeze(-1)).clamp(min=clamp)


def bc_loss(violation: Tensor, demonstration: Tensor, weight: Tensor | None = None) -> Tensor:
    """Violations (n_networks, n, K) summed over choices and networks, mean over the rows with demonstration (n,) = 1;
    0 if there is none."""
    rows = violation.sum(-1) * (demonstration if weight is None else demonstration * weight)
    return rows.sum() / demonstration.sum().clamp(min=1)


def choose_in_sequence(
    layers: Sequence[Layer],
    obs: Tensor,
    action_dim: int,
    config: ARSQConfig,
    choose: Callable[[Tensor], Tensor],
) -> Tensor:
    """Action (n, D): L * D passes through the advantage networks, each knowing the choices of those before.

    `layers` are those of the advantage networks. `choose` maps A (n, B), bin by bin the smallest of the networks'
    advantages, to a bin (n, 1). The share of the observation in the first layer is the same in every pass.
    """
    bins, activation = config.bins, ACTIVATIONS[config.activation]()
    first, *hidden, last = layers
    obs_dim = obs.shape[-1]
    from_obs = torch.matmul(obs, first.weight[:, :obs_dim]) + first.bias
    start = [torch.zeros_like(obs[:, :1])] * action_dim
    centre = list(start)
    for level in range(config.levels):
        before = start if config.conditioning == "none" else list(centre)
        for dim in range(action_dim):
            known = torch.cat(centre if config.conditioning == "prefix" else before, dim=-1)
            h = activation(from_obs + torch.matmul(known, first.weight[:, obs_dim:]))
            for layer in hidden:
                h = activation(torch.matmul(h, layer.weight) + layer.bias)
            head = slice((level * action_dim + dim) * bins, (level * action_dim + dim + 1) * bins)
            u = torch.matmul(h, last.weight[..., head]) + last.bias[..., head]
            choice = choose(normalize_advantage(u, config.alpha).amin(0))
            centre[dim] = centre[dim] + ((2 * choice + 1) / bins - 1) / bins**level
    return torch.cat(centre, dim=-1)


class SequentialActor(nn.Module):
    """Normalised obs (n, obs_dim) -> the action (n, action_dim) of highest advantage, choice by choice; for export.

    It holds copies of the weights, and its loop over levels and dimensions unrolls into one static graph.
    """

    def __init__(self, advantage: MLPStack, action_dim: int, config: ARSQConfig) -> None:
        super().__init__()
        self.action_dim, self.config = action_dim, config
        self.advantage = deepcopy(advantage).requires_grad_(False)

    def forward(self, obs: Tensor) -> Tensor:
        return choose_in_sequence(self.advantage.layers, obs, self.action_dim, self.config, _highest)


class ARSQ:
    """Networks, optimiser and one gradient update. Observations come raw: normalising happens inside.

    Two advantage networks, (obs, prefix) -> L * D heads of B bins of which one is read, and two value networks of the
    observation. All randomness comes from `seed`; `action_half_range` is not used.
    """

    metrics = ("rl_loss", "bc_loss", "q", "value", "target")

    def __init__(
        self,
        config: ARSQConfig,
        obs_dim: int,
        action_dim: int,
        seed: int = 0,
        device: torch.device | str = "cpu",
        action_half_range: Tensor | None = None,
        privileged_dim: int = 0,
    ) -> None:
        """What is privileged is not used: the advantages that learn are the policy that acts."""
        self.config = config
        self.obs_dim, self.action_dim, self.device = obs_dim, action_dim, torch.device(device)
        self.choices_per_action = config.levels * action_dim
        self.normalizer = make_normalizer(config.normalize_obs, obs_dim).to(device)
        outputs = self.choices_per_action * config.bins
        # Copies of a row that know different prefixes; choices that know the same share one.
        self.copies = {"prefix": self.choices_per_action, "level": config.levels, "none": 1}[config.conditioning]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            advantage = MLPStack(2, obs_dim + action_dim, config.hidden, outputs, config.activation, heads=self.copies)
            value = MLPStack(2, obs_dim, config.hidden, 1, config.activation)
            for stack in (advantage, value):
                _init_orthogonal(stack)
        self.advantage, self.value = advantage.to(device), value.to(device)
        self.value_target = deepcopy(self.value).requires_grad_(False)
        self.generator = torch.Generator(device).manual_seed(seed)
        self.advantage_optimizer, self.value_optimizer = (
            Adam(stack.parameters()) for stack in (self.advantage, self.value)
        )
        self._lr = torch.zeros((), device=device)
        if config.compile:
            self._update = compiled_update(self._update, self.device)

    @torch.no_grad()
    @quick_products()
    def act(self, obs: Tensor, deterministic: bool = False) -> Tensor:
        """obs (n, obs_dim) -> action (n, action_dim) in (-1, 1), a bin's centre in every dimension."""
        choose = _highest if deterministic else self._sample
        return choose_in_sequence(self.advantage.layers, self.normalizer(obs), self.action_dim, self.config, choose)

    def observe(self, obs: Tensor) -> None:
        """Take the observations (n, obs_dim) of a collection step into the normaliser."""
        if isinstance(self.normalizer, Normalizer):
            self.normalizer.update(obs)

    def evaluate(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Of normalised obs (n, obs_dim) and action (n, D): V (2, n), A of every bin (2, n, L * D, B), and the choices
        (n, L * D) that are the action."""
        rows, choices = self._rows(obs, action)
        return self.value(obs).squeeze(-1), self._advantages(self.advantage(rows)), choices

    @quick_products()
    def update(self, batch: Batch, lr_scale: float = 1.0) -> dict[str, Tensor]:
        """One gradient step of all networks, of `learning_rate` times `lr_scale`, and of the targets; returns scalars
        named by `metrics`."""
        self._lr.fill_(self.config.learning_rate * lr_scale)
        return dict(zip(self.metrics, self._update(batch), strict=True))

    @torch.no_grad()
    def _update(self, batch: Batch) -> tuple[Tensor, ...]:
        """What is compiled. The loss is differentiated down to the networks' outputs; the networks know the rest."""
        config = self.config
        obs, next_obs = (self.normalizer(rows[:, : self.obs_dim]) for rows in (batch.obs, batch.next_obs))
        ended = batch.terminated if config.time_limit == "bootstrap" else batch.terminated + batch.truncated
        discount = config.gamma if batch.discount is None else batch.discount
        target = soft_target(batch.reward, ended, self.value_target.run(next_obs)[0].squeeze(-1), discount)

        rows, choices = self._rows(obs, batch.action)
        (out, tape), (value, value_tape) = self.advantage.run(rows), self.value.run(obs)
        gradients, metrics = torch.func.grad(self._loss, argnums=(0, 1), has_aux=True)(
            out, value, choices.expand(2, -1, -1), target, batch.demonstration, batch.weight
        )
        self.advantage_optimizer.step(self.advantage.gradient(tape, gradients[0]), self._lr)
        self.value_optimizer.step(self.value.gradient(value_tape, gradients[1]), self._lr)
        polyak(self.value_target, self.value, config.tau)
        return *metrics, value.mean(), target.mean()

    def _loss(
        self,
        out: Tensor,
        value: Tensor,
        choices: Tensor,
        target: Tensor,
        demonstration: Tensor | None,
        weight: Tensor | None,
    ) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """Of the networks' outputs: the loss, and its two parts and the mean Q."""
        config, advantage = self.config, self._advantages(out)
        q = value.squeeze(-1) + advantage.gather(-1, choices.unsqueeze(-1)).squeeze(-1).sum(-1)
        loss_rl = rl_loss(q, target, weight)
        loss_bc = torch.zeros_like(loss_rl)
        if demonstration is not None and config.bc_weight > 0:
            violation = bc_violation(advantage, choices, config.bc_loss, config.bc_clamp)
            loss_bc = bc_loss(violation, demonstration, weight)
        return config.rl_weight * loss_rl + config.bc_weight * loss_bc, (loss_rl, loss_bc, q.mean())

    def _rows(self, obs: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
        """Input of the advantage networks (copies * n, obs_dim + D), one block of rows for each prefix and so for each
        head, and the choices (n, L * D)."""
        choices = encode(action, self.config.levels, self.config.bins)
        alike = self.choices_per_action // self.copies
        known = prefixes(choices, self.config.bins, self.config.conditioning)[:, ::alike].transpose(0, 1)
        return torch.cat((obs.expand(self.copies, -1, -1), known), dim=-1).flatten(0, 1), choices.flatten(1)

    def _advantages(self, out: Tensor) -> Tensor:
        """A (2, n, L * D, B), from the output of the advantage networks (2, copies * n, bins of the choices alike)."""
        u = out.unflatten(1, (self.copies, -1)).unflatten(-1, (-1, self.config.bins))
        return normalize_advantage(u.transpose(1, 2).flatten(2, 3), self.config.alpha)

    def actor(self) -> SequentialActor:
        """The deterministic policy for export: normalised obs (n, obs_dim) -> action (n, action_dim) in (-1, 1)."""
        return SequentialActor(self.advantage, self.action_dim, self.config)

    def state_dict(self) -> dict[str, Tensor]:
        return pack(self._parts())

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        unpack(self._parts(), state)

    def _sample(self, advantage: Tensor) -> Tensor:
        """A bin from softmax(A / α). The minimum of two normalised advantages is not normalised; the softmax is."""
        return torch.multinomial((advantage / self.config.alpha).softmax(-1), 1, generator=self.generator)

    def _parts(self) -> dict[str, Part]:
        return {
            "normalizer": self.normalizer,
            "advantage": self.advantage,
            "value": self.value,
            "value_target": self.value_target,
            "advantage_optimizer": self.advantage_optimizer,
            "value_optimizer": self.value_optimizer,
            "generator": self.generator,
        }


def _highest(advantage: Tensor) -> Tensor:
    return advantage.argmax(-1, keepdim=True)


@torch.no_grad()
def _init_orthogonal(stack: MLPStack) -> None:
    """Orthogonal weights of gain √2, 0.01 in the last layer, and zero biases: all bins start about equal."""
    for layer in stack.layers:
        layer.bias.zero_()
        for member in layer.weight:
            nn.init.orthogonal_(member, gain=0.01 if layer is stack.layers[-1] else 2**0.5)
