"""`robot-rl stress`: drive a task's worlds beyond their limits, and look again at worlds that did not survive."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from robot_rl_sim.env import SimVecEnv


@dataclass(frozen=True)
class StressArgs:
    """Random controls beyond the limits: fail if anything that a learner sees is not finite; or see a failure again."""

    what: Annotated[str, tyro.conf.Positional]
    """Task; or a file that a stress test or a training run dumped: that control period is run again, step by step."""
    steps: int = 1_000_000
    """Steps of single environments."""
    scale: float = 2.0
    """Targets are drawn from each joint's range, widened this many times about its middle."""
    num_envs: int = 256
    seed: int = 0
    nominal: bool = False
    """The model as written: no domain randomisation, sensor noise or latency."""
    backend: str = "auto"
    """Physics, such as mujoco or warp. Of a file: auto is the one that it failed in."""
    device: str = "cpu"
    """Where the physics runs."""
    out: Path = Path("stress")
    """Folder for worlds whose physics failed (the last 16 of a task): state before, controls, model fields."""


def run(args: StressArgs) -> Result:
    return _replay(args) if Path(args.what).is_file() else _stress(args)


def _stress(args: StressArgs) -> Result:
    from robot_rl.training.progress import Progress
    from robot_rl_sim.stress import Stress, stress

    env = _env(args.what, args, args.num_envs, args.backend)
    show = Progress()

    def progress(s: Stress) -> None:
        rate = s.env_steps / max(s.seconds, 1e-9)
        ends = f"{s.terminated:,} terminated, {s.truncated:,} truncated, {s.diverged:,} diverged"
        show.update(f"{args.what}: {s.env_steps:,} of {args.steps:,} steps, {rate:,.0f}/s; {ends}")

    s = stress(env, args.steps, args.scale, args.seed, progress)
    folder = args.out / args.what.replace(":", "-").replace("/", "-")
    dumps = [str(path) for path in env.dump_failures(folder, args.what, args.seed, args.backend)]
    if dumps:
        show.note(f"the physics of worlds failed; to see it again: robot-rl stress {dumps[0]}")
    rows = (
        Row(f"stress/{args.what}/env_steps", float(s.env_steps), "steps"),
        Row(f"stress/{args.what}/terminated", float(s.terminated), "episodes"),
        Row(f"stress/{args.what}/truncated", float(s.truncated), "episodes"),
        Row(f"stress/{args.what}/diverged", float(s.diverged), "worlds"),
        Row(f"stress/{args.what}/rate", s.env_steps / s.seconds, "steps/s"),
    )
    reason = f"{s.not_finite} is not finite" if s.not_finite else ""
    return Result(ok=not s.not_finite, rows=rows, reason=reason, details={"dumps": dumps})


def _replay(args: StressArgs) -> Result:
    from robot_rl_sim.divergence import read
    from robot_rl_sim.stress import replay

    divergence, origin = read(Path(args.what))
    backend = origin.backend if args.backend == "auto" else args.backend
    env = _env(origin.task, args, 1, backend)
    moments = replay(env, divergence, backend)
    print(f"{origin.task}, seed {origin.seed}, world {divergence.world}, episode step {divergence.episode_step}")
    print("step      speed  of                              penetration  between")
    for i, m in enumerate(moments):
        print(f"{i:4d} {m.speed:10.4g}  {m.fastest:30s} {1000 * m.penetration_m:8.2f} mm  {m.touching}")
    failed = moments[-1].failed
    print(f"failed again in physics step {len(moments) - 1}" if failed else "did not fail again")
    return Result(ok=failed, rows=(Row(f"stress/{origin.task}/failed_again", failed),), reason="did not fail again")


def _env(task: str, args: StressArgs, num_envs: int, backend: str) -> SimVecEnv:
    import torch

    from robot_rl.env import get_task
    from robot_rl_sim.env import SimVecEnv

    torch.set_num_threads(1)
    make = get_task(task).make_env
    env = make(num_envs=num_envs, seed=args.seed, randomize=not args.nominal, device=args.device, backend=backend)
    if not isinstance(env, SimVecEnv):
        raise ConfigError(f"task {task!r} is not one of a simulated robot")
    return env


VERB = Verb(arguments=StressArgs, run=run)
