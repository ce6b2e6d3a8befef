"""The demonstration's report: from what each step measured to one page."""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass, field
from pathlib import Path

import mujoco
import numpy as np

from robot_rl.commands.result import Row
from robot_rl.errors import MissingDependencyError
from robot_rl.report import page as report
from robot_rl.report import plots as shared_plots
from robot_rl.robots import LEAP_HAND
from robot_rl_sim import plots
from robot_rl_sim.demo.ros_session import RosSession
from robot_rl_sim.markers import GOAL_RGBA, sphere
from robot_rl_sim.models import load_model
from robot_rl_sim.tasks.reach.goals import TOLERANCE_M
from robot_rl_sim.video import FrameRenderer, write_mp4

VIDEO_FPS = 20
VIDEO_GOALS_S = 8.0
"""How much of the run the video shows, before it jumps to the fault."""
VIDEO_FAULT_S = (1.0, 1.5)
"""Seconds shown before and after the state stream is cut."""


@dataclass
class Findings:
    """What the steps measured so far; what is None was not reached."""

    min_success: float
    min_ros_success: float
    task: str
    run_dir: Path | None = None
    train_wall_s: float = 0.0
    success: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Policy -> (episodes that succeeded, episodes)."""
    closed_loop_error: float | None = None
    golden_rows: int = 0
    session: RosSession | None = None
    rows: list[Row] = field(default_factory=list)
    video: Path | None = None
    video_problem: str = ""
    failure: str = ""


def wilson(successes: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927)."""
    p = successes / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def render_session(session: RosSession, path: Path) -> None:
    """Video of the emulated hand as it truly moved, goals as spheres. Raises MissingDependencyError without OpenGL."""
    model = load_model(LEAP_HAND.name)
    data = mujoco.MjData(model)
    palm = model.body(LEAP_HAND.root_body).id
    adr = [model.joint(name).qposadr[0] for name in LEAP_HAND.joint_names]
    first = session.truth_time_s[np.argmax(session.goal_at >= 0)]
    before, after = VIDEO_FAULT_S
    spans = ((first, first + VIDEO_GOALS_S), (session.fault_s - before, session.fault_s + after))
    times = np.concatenate([np.arange(a, b, 1 / VIDEO_FPS) for a, b in spans])
    frames = []
    with FrameRenderer(model) as renderer:
        for time_s in times:
            k = min(int(np.searchsorted(session.truth_time_s, time_s)), len(session.truth_time_s) - 1)
            data.qpos[adr] = session.truth_joint_pos[k]
            mujoco.mj_kinematics(model, data)
            goal = session.goals[max(session.goal_at[k], 0)].reshape(-1, 3)
            world = data.xpos[palm] + goal @ data.xmat[palm].reshape(3, 3).T
            frames.append(renderer.frame(data, [sphere(p, TOLERANCE_M, GOAL_RGBA) for p in world]))
    write_mp4(path, frames, VIDEO_FPS)


def write_page(path: Path, findings: Findings) -> None:
    """The page of everything that was measured, also after a failure."""
    sections = [_failure(findings), _learning(findings), _success(findings), _bundle(findings)]
    if findings.session is not None:
        sections += [_video(findings), _timeline(findings.session), _latency(findings.session)]
    sections.append(report.Section("All figures", report.result_table(findings.rows)))
    report.write_report(
        path,
        title="From training to a robot over ROS 2, on a laptop",
        lead=(
            "A policy for the LEAP hand was trained in simulation, exported with its contract, verified, and run in "
            "its own process over ROS 2 against an emulated hand whose dynamics it was not trained on. Then the state "
            "stream was cut."
        ),
        tiles=_tiles(findings),
        sections=[s for s in sections if s is not None],
    )


def _tiles(f: Findings) -> list[report.Tile]:
    tiles = []
    if "trained" in f.success:
        wins, n = f.success["trained"]
        tiles.append(report.Tile(f"{wins / n:.0%}", f"success in simulation, {n} episodes", wins / n >= f.min_success))
    if f.train_wall_s:
        tiles.append(report.Tile(f"{f.train_wall_s / 60:.1f} min", "training"))
    if f.closed_loop_error is not None:
        tiles.append(report.Tile(f"{f.closed_loop_error:.0e}", "largest difference torch / ONNX, 1,000 steps", True))
    if f.session is not None:
        s = f.session
        rate = sum(s.success) / len(s.success)
        tiles.append(
            report.Tile(f"{rate:.0%}", f"success over ROS 2, {len(s.success)} goals", rate >= f.min_ros_success)
        )
        label = f"from last state to damping; deadline {1000 * s.damp_deadline_s:.0f} ms"
        tiles.append(report.Tile(f"{1000 * s.damp_latency_s:.0f} ms", label, s.damp_latency_s <= s.damp_deadline_s))
    return tiles


def _failure(f: Findings) -> report.Section | None:
    return report.Section("Failed", report.paragraph(f.failure)) if f.failure else None


def _learning(f: Findings) -> report.Section | None:
    if f.run_dir is None or not (f.run_dir / "progress.csv").exists():
        return None
    with (f.run_dir / "progress.csv").open(newline="") as file:
        rows = [r for r in csv.DictReader(file) if r["eval_return"]]
    if not rows:
        return None
    columns = ("step", "eval_return", "eval_success", "wall_s")
    step, returns, success, wall = (np.array([float(r[c]) for r in rows]) for c in columns)
    curve = plots.learning_curve(step, returns, success, wall, f.min_success)
    caption = f"Evaluations of the deterministic policy during training of {f.task} with SAC; dynamics randomised."
    return report.Section("Learning", report.figure(curve, caption))


def _success(f: Findings) -> report.Section | None:
    if not f.success:
        return None
    counts = {f"{name}, simulation": count for name, count in f.success.items()}
    if f.session is not None:
        counts["trained, ROS 2 emulator"] = (sum(f.session.success), len(f.session.success))
    bars = [plots.Bar(label, wins / n, *wilson(wins, n)) for label, (wins, n) in counts.items()]
    caption = (
        f"Success: all four fingertips within {1000 * TOLERANCE_M:.0f} mm of their goals during the last quarter of a "
        "second of two. Whiskers: 95 % Wilson intervals. The emulator has other masses, friction, motor strength, time "
        "step and integrator than the simulation, and sensor latency, noise, loss and encoder offsets; its success is "
        "computed from the true joint positions."
    )
    return report.Section("Success", report.figure(plots.success_bars(bars), caption))


def _bundle(f: Findings) -> report.Section | None:
    if f.closed_loop_error is None:
        return None
    text = (
        "Exported as one ONNX graph from raw sensors to joint targets. Over 1,000 closed-loop steps it differs from "
        f"training's modules by at most {f.closed_loop_error:.1e}. {f.golden_rows} golden rows were replayed by "
        "verify, and again by the policy node before it would start."
    )
    return report.Section("Bundle", report.paragraph(text))


def _video(f: Findings) -> report.Section:
    if f.video is None:
        return report.Section("Video", report.paragraph(f"No video: {f.video_problem}"))
    caption = (
        f"The emulated hand as it moved over ROS 2: the first {VIDEO_GOALS_S:.0f} seconds of goals (blue, drawn at the "
        "size of the tolerance), then the moment when the state stream is cut and the joints are damped."
    )
    return report.Section("Video", report.video(f.video, caption))


def _timeline(s: RosSession) -> report.Section:
    shown = s.tick_time_s > -0.5
    figure = shared_plots.timeline(
        s.tick_time_s[shown],
        [m for m, keep in zip(s.modes, shown, strict=True) if keep],
        [("worst fingertip error (mm)", s.truth_time_s, 1000 * s.worst_tip_error_m)],
        [shared_plots.Marker(s.fault_s, "state stream cut")],
    )
    caption = (
        "Modes of the controller, and how far the worst fingertip is from its goal. The first damping command left "
        f"{1000 * s.damp_latency_s:.0f} ms after the last state was measured; the deadline is "
        f"{1000 * s.damp_deadline_s:.0f} ms."
    )
    return report.Section("What the robot did", report.figure(figure, caption))


def _latency(s: RosSession) -> report.Section:
    running = np.array([m == "RUN" for m in s.modes])
    series = [
        ("age of the state at each tick", s.age_s[running]),
        ("controller: state in, command out", s.tick_s[running]),
    ]
    caption = "Every tick in RUN. The emulated sensors add 8 to 10 ms of latency to the age."
    return report.Section("Latency", report.figure(shared_plots.histogram_ms(series), caption))


def try_video(findings: Findings, path: Path) -> None:
    """Render if OpenGL can be had; otherwise keep the reason."""
    assert findings.session is not None
    try:
        render_session(findings.session, path)
        findings.video = path
    except MissingDependencyError as error:
        findings.video_problem = str(error)
