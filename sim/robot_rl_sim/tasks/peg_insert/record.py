"""Record demonstrations of the scripted expert, for `robot-rl train peg-insert --demos FILE`:

python -m robot_rl_sim.tasks.peg_insert.record --quality 0.8 --episodes 100 --out demos.safetensors
"""

from __future__ import annotations

from pathlib import Path

import torch
import tyro

from robot_rl.env import get_task
from robot_rl.errors import ConfigError
from robot_rl.replay.dataset import by_episode, write_transitions
from robot_rl.replay.ring_buffer import RingBuffer
from robot_rl.training.collect import collect
from robot_rl_sim.tasks.peg_insert.expert import Expert, ExpertConfig


def record(
    out: Path,
    quality: float = 1.0,
    episodes: int = 100,
    task: str = "peg-insert",
    num_envs: int = 16,
    seed: int = 0,
    nominal: bool = False,
) -> float:
    """Write `episodes` episodes, rounded up to whole rounds of `num_envs`, to `out` (.safetensors). `task` may be
    peg-insert-dense; `nominal` leaves out randomisation and noise. Returns the success rate."""
    if out.suffix != ".safetensors":
        raise ConfigError(f"demonstrations are written as .safetensors, got {out}")
    if episodes < 1 or num_envs < 1:
        raise ConfigError(f"episodes and num_envs must be at least 1, got {episodes} and {num_envs}")
    torch.set_num_threads(1)
    num_envs = min(num_envs, episodes)
    env = get_task(task).make_env(num_envs=num_envs, seed=seed, randomize=not nominal)
    expert = Expert(env, ExpertConfig(quality=quality), seed)
    steps = -(-episodes // num_envs) * env.max_episode_steps
    replay = RingBuffer(steps * num_envs, env.obs_dim, env.action_dim)
    obs = env.reset(seed)
    success, ended = [], []
    for _ in range(steps):
        step = collect(env, replay, obs, expert(obs))
        obs = step.obs
        success.append(step.info["success"])
        ended.append(step.terminated | step.truncated)
    batch = by_episode(replay.batch(replay.rows(0, replay.total)), num_envs)
    solved = torch.stack(success, 1).flatten()  # environment after environment, as the batch
    about = {"task": task, "source": f"scripted expert of quality {quality}", "seed": str(seed)}
    out.parent.mkdir(parents=True, exist_ok=True)
    write_transitions(out, batch, about, {"success": solved.float()})
    last = torch.stack(ended, 1).flatten()
    return (solved & last).sum().item() / last.sum().item()


def main() -> None:
    rate = tyro.cli(record, description=__doc__)
    print(f"success {rate:.3f}")


if __name__ == "__main__":
    main()
