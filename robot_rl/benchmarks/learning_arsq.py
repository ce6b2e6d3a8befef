"""What is learned from recordings of mixed quality: ARSQ, the same networks with independent action dimensions,
behaviour cloning, and implicit Q-learning (Kostrikov et al. 2021, arXiv 2110.06169), all from the same files.

python -m robot_rl.benchmarks.learning_arsq --help

The recordings are made here: every transition of a SAC run up to a half-trained policy, and a few episodes of the
better policy that more training gives. Those episodes are also the demonstrations. All methods learn offline for
equally many updates; `online_env_steps` lets the two Q-learners go on in the environment, one update per step.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from robot_rl.algorithms.arsq import ARSQ, ARSQConfig, Conditioning
from robot_rl.algorithms.sac import SAC, SACConfig
from robot_rl.commands.result import Result, Row
from robot_rl.env import VecEnv, get_task
from robot_rl.networks.mlp import MLPStack
from robot_rl.replay.dataset import FIELDS, read_transitions, write_transitions
from robot_rl.replay.mixture import Mixture, Source
from robot_rl.replay.ring_buffer import Batch, RingBuffer
from robot_rl.training.collect import collect
from robot_rl.training.evaluate import Policy, evaluate, random_policy, uniform_actions


@dataclass(frozen=True)
class Amounts:
    """How much of everything."""

    tasks: tuple[str, ...] = ("gym:Hopper-v5", "gym:HalfCheetah-v5")
    """What to learn."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the learners; there is one recording per task."""
    record_env_steps: int = 50_000
    """Steps of SAC whose transitions are kept; its training goes on for as many again before it demonstrates."""
    good_episodes: int = 5
    """Demonstrations."""
    updates: int = 25_000
    """Offline, of every method."""
    online_env_steps: int = 0
    """Steps, and updates, of the two Q-learners afterwards."""
    episodes: int = 20
    """Of each evaluation."""
    batch_size: int = 256
    """Half of it demonstrations."""
    hidden: tuple[int, ...] = (256, 256)
    """Of every network."""
    arsq: ARSQConfig = field(default_factory=lambda: ARSQConfig(bc_loss="cql", bc_weight=2.0, bc_clamp=0.0))
    """Remaining settings of both Q-learners. Type and weight of the cloning loss are the authors' for
    hopper-medium-expert, the data set nearest to these recordings; they give no C_m for it."""
    data: Path = Path("runs/learning_arsq")
    """Where recordings are kept, and looked for."""


def benchmark(amounts: Amounts = Amounts()) -> Result:
    """Rows: undiscounted return of the last policy of each method, task and seed, and means over seeds; what the
    recording itself reaches; and ARSQ's mean score as a multiple of the independent dimensions' (0 is the uniformly
    random policy, so that the ratio means something where returns are negative)."""
    rows: list[Row] = []
    for name in amounts.tasks:
        task = get_task(name)
        env, start = task.make_env(num_envs=1, seed=1), task.make_env(num_envs=8, seed=2)
        mixed, good = recording(name, env, amounts)
        random = evaluate(start, random_policy(start, seed=0), amounts.episodes, seed=3)
        rows += [
            Row(f"learning/mixed/{name}/random", random.return_mean),
            Row(f"learning/mixed/{name}/recorded", statistics.mean(episode_returns(mixed))),
            Row(f"learning/mixed/{name}/demonstrated", statistics.mean(episode_returns(good))),
        ]
        means: dict[str, float] = {}
        for method, learn in METHODS.items():
            returns = []
            for seed in amounts.seeds:
                result = evaluate(start, learn(env, mixed, good, amounts, seed), amounts.episodes, seed=3)
                returns.append(result.return_mean)
                rows.append(Row(f"learning/mixed/{name}/{method}/seed{seed}", result.return_mean))
                print(rows[-1], flush=True)
            means[method] = statistics.mean(returns)
            rows.append(Row(f"learning/mixed/{name}/{method}/mean", means[method]))
        score = {method: mean - random.return_mean for method, mean in means.items()}
        ratio = score["arsq"] / score["independent"] if score["independent"] > 0 else None
        rows.append(Row(f"learning/mixed/{name}/arsq/score", score["arsq"], "", "independent", ratio))
        env.close()
        start.close()
    return Result(True, tuple(rows))


def recording(name: str, env: VecEnv, amounts: Amounts) -> tuple[Batch, Batch]:
    """All transitions, the good episodes last, and the good episodes alone; made once and then read."""
    folder = amounts.data / name.replace(":", "-") / f"{amounts.record_env_steps}_{amounts.good_episodes}"
    files = (folder / "mixed.safetensors", folder / "good.safetensors")
    if not all(file.exists() for file in files):
        folder.mkdir(parents=True, exist_ok=True)
        for file, batch in zip(files, record(env, amounts.record_env_steps, amounts.good_episodes), strict=True):
            write_transitions(file, batch, {"task": name, "source": "robot_rl.benchmarks.learning_arsq"})
    mixed, good = (read_transitions(file) for file in files)
    return mixed, good


def record(env: VecEnv, env_steps: int, good_episodes: int, seed: int = 0) -> tuple[Batch, Batch]:
    """Train SAC for twice env_steps on one environment; see `recording`."""
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


def learn_arsq(
    env: VecEnv, mixed: Batch, good: Batch, amounts: Amounts, seed: int, conditioning: Conditioning = "prefix"
) -> Policy:
    """Half of each batch from all data, half from the demonstrations, as the authors do."""
    config = replace(amounts.arsq, hidden=amounts.hidden, batch_size=amounts.batch_size, conditioning=conditioning)
    arsq = ARSQ(config, env.obs_dim, env.action_dim, seed)
    replay = buffer_of(mixed, amounts.online_env_steps, seed)
    mixture = Mixture({"all": Source(replay, 0.5), "good": Source(buffer_of(good, 0, seed), 0.5, demonstration=True)})
    for _ in range(amounts.updates):
        arsq.update(mixture.sample(config.batch_size))
    obs = env.reset(seed)
    for _ in range(amounts.online_env_steps):
        obs = collect(env, replay, obs, arsq.act(obs)).obs
        arsq.update(mixture.sample(config.batch_size))
    return lambda obs: arsq.act(obs, deterministic=True)


def learn_independent(env: VecEnv, mixed: Batch, good: Batch, amounts: Amounts, seed: int) -> Policy:
    """ARSQ's networks, losses and amounts, but a choice knows only the coarser levels, as in CQN."""
    return learn_arsq(env, mixed, good, amounts, seed, conditioning="level")


def learn_bc(env: VecEnv, mixed: Batch, good: Batch, amounts: Amounts, seed: int) -> Policy:
    """Least squares on the demonstrations."""
    torch.manual_seed(seed)
    policy = MLPStack(1, env.obs_dim, amounts.hidden, env.action_dim)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-4, fused=True)
    replay = buffer_of(good, 0, seed)
    for _ in range(amounts.updates):
        batch = replay.sample(amounts.batch_size)
        loss = (policy(batch.obs)[0].tanh() - batch.action).square().sum(-1).mean()
        _step(optimizer, loss)
    return _greedy(policy)


def learn_iql(env: VecEnv, mixed: Batch, good: Batch, amounts: Amounts, seed: int) -> Policy:
    """IQL with its locomotion settings (expectile 0.7, β 3, weights up to 100, rewards times 1000 / range of the
    returns) on the same batches, half of them demonstrations; the policy is a mean, so that its weighted likelihood is
    weighted least squares."""
    torch.manual_seed(seed)
    gamma, tau, expectile, beta = 0.99, 0.005, 0.7, 3.0
    critic = MLPStack(2, env.obs_dim + env.action_dim, amounts.hidden, 1)
    target, value = (
        MLPStack(2, env.obs_dim + env.action_dim, amounts.hidden, 1),
        MLPStack(1, env.obs_dim, amounts.hidden, 1),
    )
    target.load_state_dict(critic.state_dict())
    policy = MLPStack(1, env.obs_dim, amounts.hidden, env.action_dim)
    optimizer = torch.optim.Adam([critic.flat, value.flat, policy.flat], lr=3e-4, fused=True)
    returns = episode_returns(mixed)
    scale = 1000 / (max(returns) - min(returns))
    mixture = Mixture({"all": Source(buffer_of(mixed, 0, seed), 0.5), "good": Source(buffer_of(good, 0, seed), 0.5)})
    for _ in range(amounts.updates):
        batch = mixture.sample(amounts.batch_size)
        pair = torch.cat((batch.obs, batch.action), -1)
        v = value(batch.obs)[0, :, 0]
        with torch.no_grad():
            q = target(pair)[..., 0].amin(0)
            y = scale * batch.reward + gamma * (1 - batch.terminated) * value(batch.next_obs)[0, :, 0]
            weight = (beta * (q - v)).exp().clamp(max=100)
        above = q - v
        value_loss = (torch.where(above > 0, expectile, 1 - expectile) * above.square()).mean()
        critic_loss = (critic(pair)[..., 0] - y).square().mean(-1).sum()
        policy_loss = (weight * (policy(batch.obs)[0].tanh() - batch.action).square().sum(-1)).mean()
        _step(optimizer, value_loss + critic_loss + policy_loss)
        with torch.no_grad():
            target.flat.lerp_(critic.flat, tau)
    return _greedy(policy)


Learn = Callable[[VecEnv, Batch, Batch, Amounts, int], Policy]

METHODS: dict[str, Learn] = {
    "arsq": learn_arsq,
    "independent": learn_independent,
    "bc": learn_bc,
    "iql": learn_iql,
}


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


def _greedy(policy: MLPStack) -> Policy:
    return lambda obs: policy(obs)[0].tanh()


def _step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


if __name__ == "__main__":
    import tyro

    torch.set_num_threads(1)
    print(benchmark(tyro.cli(Amounts)).table())
