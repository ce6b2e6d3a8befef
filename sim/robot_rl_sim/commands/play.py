"""`robot-rl play`: watch a policy."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError


@dataclass(frozen=True)
class PlayArgs:
    """Watch a policy: in MuJoCo's window, in a browser, as a video, or many randomised worlds on one picture."""

    policy: Annotated[str, tyro.conf.Positional]
    """Run folder of `robot-rl train`, a bundle, or zero, random, scripted."""
    task: str | None = None
    """Task; default: that of the run or the bundle."""
    web: bool = False
    """Serve a page with the scene, sliders for the command, pause, reset and speed, until Ctrl-C."""
    video: Path | None = None
    """Write an MP4 file, without a display."""
    contact_sheet: Path | None = None
    """Write a PNG of many worlds, each with what the randomisation drew for it."""
    seconds: float = 10.0
    """Length of the video, or how far the worlds of a contact sheet have gone."""
    worlds: int = 12
    """Worlds on a contact sheet."""
    size: tuple[int, int] = (640, 480)
    """Width and height of the video."""
    shadows: bool = False
    """Draw shadows in videos; without a GPU that takes several times as long."""
    seed: int = 0
    """Of starts, commands and dynamics."""
    nominal: bool = False
    """The model as written: no domain randomisation, sensor noise or latency."""
    backend: str = "auto"
    """Physics, such as mujoco or warp."""
    host: str = "127.0.0.1"
    """Address that the page is served at; 0.0.0.0 lets other machines in."""
    port: int = 8080
    """Its port; the next free one is taken if it is in use."""


def run(args: PlayArgs) -> Result:
    if sum((args.web, args.video is not None, args.contact_sheet is not None)) > 1:
        raise ConfigError("--web, --video and --contact-sheet exclude one another")
    if not args.seconds > 0 or args.worlds < 1:
        raise ConfigError(f"--seconds and --worlds must be above 0, got {args.seconds:g} and {args.worlds}")
    offscreen = args.video is not None or args.contact_sheet is not None
    if offscreen and sys.platform == "linux":
        os.environ.setdefault("MUJOCO_GL", "egl")  # read when mujoco is first imported
    from robot_rl.training.policies import find_policy
    from robot_rl_sim.env import SimVecEnv
    from robot_rl_sim.play.playback import Playback

    if not (offscreen or args.web):
        from robot_rl_sim.play.native import check_display

        check_display()
    policy = find_policy(args.policy, args.task, args.seed)
    env = policy.task.make_env(
        num_envs=args.worlds if args.contact_sheet is not None else 1,
        seed=args.seed,
        randomize=not args.nominal,
        num_threads=1,
        backend=args.backend,
    )
    if not isinstance(env, SimVecEnv):
        raise ConfigError(f"task {policy.task.name!r} is not simulated here: there is nothing to see")
    if args.contact_sheet is not None:
        from robot_rl_sim.play.contact_sheet import write_contact_sheet

        write_contact_sheet(args.contact_sheet, env, policy.make(env), args.seconds, args.seed, policy.task.name)
        return Result(ok=True, rows=(Row("play/contact_sheet", str(args.contact_sheet)),))
    playback = Playback(env, policy.make(env), args.seed)
    if args.video is not None:
        from robot_rl_sim.play.film import film

        shots = film(playback, args.video, args.seconds, args.size, args.shadows)
        return Result(ok=True, rows=(Row("play/frames", shots, "frames"), Row("play/video", str(args.video))))
    try:
        if args.web:
            from robot_rl_sim.play.web import watch

            watch(playback, args.host, args.port)
        else:
            from robot_rl_sim.play import native

            print(native.KEYS, flush=True)
            native.watch(playback)
    except KeyboardInterrupt:  # how a person closes a page
        pass
    return Result(ok=True)


VERB = Verb(PlayArgs, run)
