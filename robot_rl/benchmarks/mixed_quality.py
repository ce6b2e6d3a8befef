"""Recordings of mixed quality, and the methods that ARSQ is compared with on them: behaviour cloning, implicit
Q-learning, and Q-learning with a Q-function for every action dimension by itself."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from robot_rl.algorithms.adam import polyak
from robot_rl.algorithms.arsq import ARSQ, ARSQConfig, bc_loss, bc_violation, decode, encode, prefixes
from robot_rl.algorithms.sac import SAC, SACConfig
from robot_rl.env import Step, VecEnv, get_task
from robot_rl.networks.mlp import MLPStack
from robot_rl.replay.dataset import FIELDS, read_transitions, write_transitions
from robot_rl.replay.ring_buffer import Batch, RingBuffer
from robot_rl.training.collect import collect
from robot_rl.training.evaluate import uniform_actions

NOISE = 0.1
"""Standard deviation of what is added to deterministic policies when they collect, in units of the action range."""


PAIRED = "paired:"
"""Before the name of a task: see PairedActions."""


class PlainEnv:
    """The environment without observations for critics alone, of which the methods compared here make no use."""

    def __init__(self, env: VecEnv) -> None:
        self.env = env
        self.num_envs, self.obs_dim, self.action_dim = env.num_envs, env.obs_dim, env.action_dim
        self.max_episode_steps, self.device = env.max_episode_steps, env.device

    def reset(self, seed: int | None = None) -> Tensor:
        return self.env.reset(seed)

    def step(self, action: Tensor) -> Step:
        return self.env.step(action)

    def state_dict(self) -> dict[str, Tensor]:
        return self.env.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.env.load_state_dict(state)

    def close(self) -> None:
        self.env.close()


class PairedActions(PlainEnv):
    """The environment with two actions for each of its own, which is their product: that of (½, ½) is that of
    (-½, -½), and neither action alone says anything."""

    def __init__(self, env: VecEnv) -> None:
        super().__init__(env)
        self.action_dim = 2 * env.action_dim

    def step(self, action: Tensor) -> Step:
        return self.env.step(action.unflatten(-1, (-1, 2)).prod(-1))


def pair(action: Tensor, generator: torch.Generator) -> Tensor:
    """Actions (n, D) as pairs (n, 2 D) whose product they are: of equal size, and of either sign at random."""
    first = action.abs().sqrt() * (2.0 * torch.randint(2, action.shape, generator=generator) - 1)
    return torch.stack((first, first * action.sign()), dim=-1).flatten(-2)


def make_env(task: str, num_envs: int, seed: int) -> VecEnv:
    """The environments of a task, paired if its name says so."""
    env = get_task(task.removeprefix(PAIRED)).make_env(num_envs=num_envs, seed=seed)
    return PairedActions(env) if task.startswith(PAIRED) else PlainEnv(env)


def recording(task: str, env_steps: int, good_episodes: int, folder: Path) -> tuple[Batch, Batch]:
    """All transitions, the good episodes last, and the good episodes alone; made once and then read from `folder`. A
    paired task has the recording of the task itself, with the actions as pairs."""
    own = task.removeprefix(PAIRED)
    folder = folder / own.replace(":", "-") / f"{env_steps}_{good_episodes}"
    files = (folder / "mixed.safetensors", folder / "good.safetensors")
    if not all(file.exists() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        env = make_env(own, num_envs=1, seed=1)
        for file, batch in zip(files, record(env, env_steps, good_episodes), strict=True):
            write_transitions(file, batch, {"task": own, "source": "robot_rl.benchmarks.learning_arsq"})
        env.close()
    mixed, good = (read_transitions(file) for file in files)
    if task.startswith(PAIRED):
        mixed = replace(mixed, action=pair(mixed.action, torch.Generator().manual_seed(0)))
        good = replace(good, action=mixed.action[-len(good.reward) :])
    return mixed, good


def record(env: VecEnv, env_steps: int, good_episodes: int, seed: int = 0) -> tuple[Batch, Batch]:
    """Train SAC for twice env_steps on one environment. Kept are its transitions up to half of that, and then a few
    episodes of the policy at the end, without its noise."""
    sac = SAC(SACConfig(learning_rate=1e-3), env.obs_dim, env.action_dim, seed)
    replay = RingBuffer(2 * env_steps, env.obs_dim, env.action_dim, seed)
    generator = torch.Generator().manual_seed(seed)
    warm_up, obs = min(5_000, env_steps // 4), env.reset(seed)
    for t in range(2 * env_steps):
        obs = collect(env, replay, obs, uniform_actions(env, generator) if t < warm_up else sac.act(obs)).obs
        if t >= warm_up:
            sac.update(replay.sample(sac.config.batch_size))
    kept = replay.batch(replay.rows(0, env_steps))
    # What was going on when recording stopped was cut off there.
    kept.truncated[-1] = 1 - kept.terminated[-1]
    good = RingBuffer(good_episodes * env.max_episode_steps, env.obs_dim, env.action_dim)
    obs = env.reset(seed + 1)
    for _ in range(good_episodes):
        ended = False
        while not ended:
            step = collect(env, good, obs, sac.act(obs, deterministic=True))
            obs, ended = step.obs, bool(step.terminated | step.truncated)
    shown = good.batch(good.rows(0, len(good)))
    return Batch(*(torch.cat((getattr(kept, f), getattr(shown, f))) for f in FIELDS)), shown


def buffer_of(batch: Batch, room: int, seed: int) -> RingBuffer:
    """The transitions in a buffer that holds `room` more."""
    replay = RingBuffer(len(batch.reward) + room, batch.obs.shape[1], batch.action.shape[1], seed)
    replay.add(**{name: getattr(batch, name) for name in FIELDS})
    return replay


def episode_returns(batch: Batch) -> list[float]:
    """Undiscounted return of each episode of a recording of one environment."""
    ends = (batch.terminated + batch.truncated).nonzero()[:, 0].tolist()
    starts = [0, *(end + 1 for end in ends[:-1])]
    return [batch.reward[start : end + 1].sum().item() for start, end in zip(starts, ends, strict=True)]


def coordination(recorded: Batch, config: ARSQConfig, updates: int, seed: int = 0) -> float:
    """How much the recorded action dimensions tell of each other beyond what the state tells, in nats per action.

    That is the conditional total correlation E log p(a | s) - Σ_d E log p(a_d | s) of the discretised actions. Both
    densities are ARSQ's advantage networks at α = 1, fitted by maximum likelihood to nine tenths of the rows; what one
    network predicts better than the other of the remaining tenth is a lower bound, up to the error of fitting.
    """
    shuffled = torch.randperm(len(recorded.reward), generator=torch.Generator().manual_seed(seed))
    held_out, kept = shuffled[: len(shuffled) // 10], shuffled[len(shuffled) // 10 :]
    log_likelihood = {
        conditioning: _log_likelihood(replace(config, alpha=1.0, conditioning=conditioning), recorded, kept, held_out,
                                      updates, seed)
        for conditioning in ("prefix", "level")
    }  # fmt: skip
    return log_likelihood["prefix"] - log_likelihood["level"]


def _log_likelihood(
    config: ARSQConfig, recorded: Batch, kept: Tensor, held_out: Tensor, updates: int, seed: int
) -> float:
    """Mean log p(a | s) of the held-out rows, after fitting to the kept ones."""
    arsq = ARSQ(config, recorded.obs.shape[1], recorded.action.shape[1], seed)
    optimizer = torch.optim.Adam(arsq.advantage.parameters(), lr=1e-3, fused=True)
    mean, deviation = recorded.obs.mean(0), recorded.obs.std(0) + 1e-4
    generator = torch.Generator().manual_seed(seed)

    def log_likelihood(rows: Tensor) -> Tensor:
        _, advantage, choices = arsq.evaluate((recorded.obs[rows] - mean) / deviation, recorded.action[rows])
        return advantage.gather(-1, choices.expand(2, -1, -1).unsqueeze(-1)).sum((-1, -2)).mean()

    for _ in range(updates):
        rows = kept[torch.randint(len(kept), (config.batch_size,), generator=generator)]
        _step(optimizer, -log_likelihood(rows))
    with torch.no_grad():
        return statistics.fmean(log_likelihood(rows).item() for rows in held_out.split(512))


@torch.no_grad()
def dependence(arsq: ARSQ, recorded: Batch, rows: int = 2_000) -> dict[str, float]:
    """How much a learner's best choices of the first level hang on those of the dimensions before, at recorded states:
    the true choices before are replaced by another row's. Over the choices whose prefix this changes:

    changed: share whose best bin is then another. regret: how much lower the advantage of that other bin is under the
    true choices before, in units of return. spread: standard deviation of the advantages over bins, to compare with.
    """
    generator = torch.Generator().manual_seed(0)
    at = torch.randint(len(recorded.reward), (2, rows), generator=generator)
    obs, actions = arsq.normalizer(recorded.obs[at[0]]), recorded.action[at]
    first, bins = slice(0, arsq.action_dim), arsq.config.bins
    true, swapped = (arsq.evaluate(obs, a)[1].amin(0)[:, first] for a in actions)
    before, after = (
        prefixes(encode(a, arsq.config.levels, bins), bins, arsq.config.conditioning)[:, first] for a in actions
    )
    moved = (before != after).any(-1)
    if not moved.any():
        return {"changed": 0.0, "regret": 0.0, "spread": true.std(-1).mean().item()}
    best = swapped.argmax(-1, keepdim=True)
    regret = (true.amax(-1) - true.gather(-1, best).squeeze(-1))[moved]
    changed = (true.argmax(-1) != best.squeeze(-1))[moved].float()
    spread = true.std(-1)[moved]
    return {"changed": changed.mean().item(), "regret": regret.mean().item(), "spread": spread.mean().item()}


class Cloning:
    """Least squares on the actions of every batch."""

    def __init__(self, config: ARSQConfig, obs_dim: int, action_dim: int, seed: int) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.policy = MLPStack(1, obs_dim, config.hidden, action_dim)
        self.optimizer = torch.optim.Adam(self.policy.parameters(), lr=config.learning_rate, fused=True)

    def act(self, obs: Tensor, deterministic: bool = False) -> Tensor:
        return self.policy(obs)[0].tanh()

    def update(self, batch: Batch) -> None:
        loss = (self.policy(batch.obs)[0].tanh() - batch.action).square().sum(-1).mean()
        _step(self.optimizer, loss)


class IQL:
    """Implicit Q-learning (Kostrikov et al. 2021, arXiv 2110.06169) with its locomotion settings: expectile 0.7, β 3,
    weights up to 100. The policy is a mean, so that its weighted likelihood is weighted least squares. Rewards come
    times 1000 / range of the recorded returns, `reward_scale`."""

    expectile, beta, largest_weight = 0.7, 3.0, 100.0

    def __init__(self, config: ARSQConfig, obs_dim: int, action_dim: int, seed: int, reward_scale: float) -> None:
        self.config, self.reward_scale = config, reward_scale
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.critic = MLPStack(2, obs_dim + action_dim, config.hidden, 1)
            self.value = MLPStack(1, obs_dim, config.hidden, 1)
            self.policy = MLPStack(1, obs_dim, config.hidden, action_dim)
        self.target = deepcopy(self.critic).requires_grad_(False)
        parameters = [p for stack in (self.critic, self.value, self.policy) for p in stack.parameters()]
        self.optimizer = torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)
        self.generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def act(self, obs: Tensor, deterministic: bool = False) -> Tensor:
        action = self.policy(obs)[0].tanh()
        return action if deterministic else _noisy(action, self.generator)

    def update(self, batch: Batch) -> None:
        pair = torch.cat((batch.obs, batch.action), -1)
        v = self.value(batch.obs)[0, :, 0]
        with torch.no_grad():
            q = self.target(pair)[..., 0].amin(0)
            next_v = self.value(batch.next_obs)[0, :, 0]
            y = self.reward_scale * batch.reward + self.config.gamma * (1 - batch.terminated) * next_v
            weight = (self.beta * (q - v)).exp().clamp(max=self.largest_weight)
        above = q - v
        value_loss = (torch.where(above > 0, self.expectile, 1 - self.expectile) * above.square()).mean()
        critic_loss = (self.critic(pair)[..., 0] - y).square().mean(-1).sum()
        policy_loss = (weight * (self.policy(batch.obs)[0].tanh() - batch.action).square().sum(-1)).mean()
        _step(self.optimizer, value_loss + critic_loss + policy_loss)
        with torch.no_grad():
            polyak(self.target, self.critic, self.config.tau)


class SeparateQ:
    """CQN's decomposition on ARSQ's terms: every level and dimension has a Q-function of its own choice and the coarser
    levels, and each is regressed by itself onto r + γ (its own value of the greedy next action).

    As in CQN (Seo et al. 2024, arXiv 2407.07787) a choice's Q is V + u - mean u. Networks, their number, optimiser,
    targets' rate, discount, and the cloning loss and its weight are ARSQ's, of `config`; the value is a number, not a
    distribution of 51 atoms.
    """

    def __init__(self, config: ARSQConfig, obs_dim: int, action_dim: int, seed: int) -> None:
        self.config, self.action_dim = config, action_dim
        outputs = config.levels * action_dim * config.bins
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.heads = MLPStack(2, obs_dim + action_dim, config.hidden, outputs, config.activation)
            self.value = MLPStack(2, obs_dim, config.hidden, 1, config.activation)
        self.heads_target = deepcopy(self.heads).requires_grad_(False)
        self.value_target = deepcopy(self.value).requires_grad_(False)
        self.optimizer = torch.optim.Adam(
            [*self.heads.parameters(), *self.value.parameters()], lr=config.learning_rate, fused=True
        )
        self.generator = torch.Generator().manual_seed(seed)

    def q(self, heads: MLPStack, value: MLPStack, obs: Tensor, choices: Tensor) -> Tensor:
        """Q of every bin (2, n, L, D, B), of each choice given the coarser levels of choices (n, L, D)."""
        n, levels, dims = choices.shape
        known = prefixes(choices, self.config.bins, "level").view(n, levels, dims, dims)[:, :, 0]
        rows = torch.cat((obs.unsqueeze(1).expand(-1, levels, -1), known), -1).flatten(0, 1)
        u = heads(rows).view(2, n, levels, levels, dims, self.config.bins)
        u = u.diagonal(dim1=2, dim2=3).movedim(-1, 2)
        return value(obs).view(2, n, 1, 1, 1) + u - u.mean(-1, keepdim=True)

    @torch.no_grad()
    def greedy(self, obs: Tensor) -> Tensor:
        """Choices (n, L, D) of the highest Q, the smaller of the two networks', level by level."""
        choices = torch.zeros(len(obs), self.config.levels, self.action_dim, dtype=torch.long)
        for level in range(self.config.levels):
            choices[:, level] = self.q(self.heads, self.value, obs, choices).amin(0).argmax(-1)[:, level]
        return choices

    def act(self, obs: Tensor, deterministic: bool = False) -> Tensor:
        action = decode(self.greedy(obs), self.config.bins)
        return action if deterministic else _noisy(action, self.generator)

    def update(self, batch: Batch) -> None:
        config = self.config
        with torch.no_grad():
            following = self.greedy(batch.next_obs)
            after = self.q(self.heads_target, self.value_target, batch.next_obs, following)
            next_q = after.amin(0).gather(-1, following.unsqueeze(-1)).squeeze(-1)
            y = batch.reward.view(-1, 1, 1) + config.gamma * (1 - batch.terminated).view(-1, 1, 1) * next_q
        choices = encode(batch.action, config.levels, config.bins).expand(2, -1, -1, -1)
        q = self.q(self.heads, self.value, batch.obs, choices[0])
        taken = q.gather(-1, choices.unsqueeze(-1)).squeeze(-1)
        loss = config.rl_weight * (taken - y).square().mean((1, 2, 3)).sum()
        if batch.demonstration is not None:
            violation = bc_violation(q.flatten(2, 3), choices.flatten(2), config.bc_loss, config.bc_clamp)
            loss = loss + config.bc_weight * bc_loss(violation, batch.demonstration)
        _step(self.optimizer, loss)
        with torch.no_grad():
            polyak(self.heads_target, self.heads, config.tau)
            polyak(self.value_target, self.value, config.tau)


def _noisy(action: Tensor, generator: torch.Generator) -> Tensor:
    return (action + NOISE * torch.randn(action.shape, generator=generator)).clamp(-1, 1)


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
