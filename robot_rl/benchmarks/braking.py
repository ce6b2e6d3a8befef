"""How far a joint overshoots its limit under each law that limits its target: `robot-rl bench braking`.

One joint under a PD servo with a torque limit, in 200 trials of 4 s. Its targets jump at random between two points far
beyond its limits, so that what holds it back is the law and not the target. The laws know a design inertia; the joint's
own is half, once or twice that, and it may carry a load that they do not know of. What a law costs is the time that a
step takes from one limit to within a tenth of a radian of the other.

`python -m robot_rl.benchmarks.braking FOLDER` writes the table and the plot as well.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.benchmarks import braking_robots
from robot_rl.commands.result import Result, Row
from robot_rl.contract import ActionSpec, Contract, JointSpec, TensorSpec
from robot_rl.robots import RobotSpec, SafetyProfile
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.target_limiter import TargetLimiter

Array = NDArray[np.float64]

LIMIT_RAD, FAR_RAD, NEAR_RAD = 1.0, 2.0, 0.1
EFFORT_NM, DESIGN_INERTIA = 40.0, 0.1
SPEED_RAD_S = 30.0
"""Rated speed. At full torque the joint reaches 28 rad/s between its limits."""
FAST_S, SLOW_S, PHYSICS_S = 0.002, 0.02, 0.0005
TRIALS, DURATION_S = 200, 4.0
INERTIA_SHARES = (0.5, 1.0, 2.0)
LOAD_SHARE = 0.25
STALE_TICKS = 2
ROBOT_SHARES = (1.0, 1.5, 2.0)

Law = Callable[[Array, Array, Array, Array], Array]
"""(target, joint_pos, joint_vel, target of the last tick), each (trials,) -> target to send (trials,)."""


@dataclass(frozen=True)
class Servo:
    """Gains of the joint."""

    name: str
    kp_nm_rad: float
    kd_nms_rad: float

    @property
    def damping_ratio(self) -> float:
        """kd / (2 sqrt(kp I)) at the design inertia."""
        return self.kd_nms_rad / (2.0 * math.sqrt(self.kp_nm_rad * DESIGN_INERTIA))


UNDER_DAMPED = Servo("under-damped", 100.0, 2.0)
WELL_DAMPED = Servo("well-damped", 100.0, 6.0)
SOFT = Servo("soft", 40.0, 8.0)
SERVOS = (UNDER_DAMPED, WELL_DAMPED, SOFT)


@dataclass(frozen=True)
class Plant:
    """What the joint really is, and how old the state is that the law sees."""

    inertia: float = DESIGN_INERTIA
    load_nm: float = 0.0
    """Constant, in either direction."""
    state_age_s: float = 0.0


# ---- laws


def clipping(servo: Servo, period_s: float) -> Law:
    """The target is clipped to the limits, and nothing else."""
    return lambda target, joint_pos, joint_vel, last: np.clip(target, -LIMIT_RAD, LIMIT_RAD)


def braking_bound(servo: Servo, period_s: float, *, told_age_s: float = 0.0) -> Law:
    """The safety filter's own pipeline; `told_age_s`: how old it believes the state to be."""
    limits = joint_limits(servo, period_s)
    limiter = TargetLimiter(limits, batch=(TRIALS,))

    def law(target: Array, joint_pos: Array, joint_vel: Array, last: Array) -> Array:
        sent = target.copy()
        column = np.s_[:, None]
        limiter.limit(sent[column], last[column], joint_pos[column], joint_vel[column], told_age_s, policy=False)
        return sent

    return law


def joint_limiter(servo: Servo, period_s: float, *, stiffness_1_s: float = 20.0) -> Law:
    """ros2_control's limiter of position commands (joint_limits 6.8, JointSoftLimiter), with the soft limits at the
    limits: within ±v dt of the last command, v at most the rated speed and k (limit - last command); 1 °/s where the
    joint is beyond a limit. Where that is by 0.5° more, it stops the controllers by an exception; here it goes on."""

    def law(target: Array, joint_pos: Array, joint_vel: Array, last: Array) -> Array:
        up = np.clip(stiffness_1_s * (LIMIT_RAD - last), -SPEED_RAD_S, SPEED_RAD_S)
        down = np.clip(stiffness_1_s * (-LIMIT_RAD - last), -SPEED_RAD_S, SPEED_RAD_S)
        beyond = np.abs(joint_pos) > LIMIT_RAD
        up, down = (np.where(beyond, np.copysign(math.radians(1.0), v), v) for v in (up, down))
        sent = np.clip(target, last + down * period_s, last + up * period_s)
        return np.clip(sent, -LIMIT_RAD, LIMIT_RAD)

    return law


def exponential_cbf(servo: Servo, period_s: float, *, pole_1_s: float) -> Law:
    """The exponential control barrier function of each limit, h = limit - q, with both poles alike: acceleration at
    most -2 p v + p² h, and the target that asks for it at the design inertia, inside the torque limit and the limits.
    """

    def law(target: Array, joint_pos: Array, joint_vel: Array, last: Array) -> Array:
        bounds = []
        for sign in (1.0, -1.0):
            accel = -2.0 * pole_1_s * sign * joint_vel + pole_1_s**2 * (LIMIT_RAD - sign * joint_pos)
            torque = sign * np.clip(DESIGN_INERTIA * accel, -EFFORT_NM, EFFORT_NM)
            bounds.append(joint_pos + (servo.kd_nms_rad * joint_vel + torque) / servo.kp_nm_rad)
        return np.clip(np.minimum(np.maximum(target, bounds[1]), bounds[0]), -LIMIT_RAD, LIMIT_RAD)

    return law


def joint_limits(servo: Servo, period_s: float, **changes: Any) -> SafetyLimits:
    """The filter's limits for the joint; `changes` of its profile, which brakes with half of the effort."""
    joint = JointSpec("joint", -LIMIT_RAD, LIMIT_RAD, SPEED_RAD_S, EFFORT_NM, 0.0, servo.kp_nm_rad, servo.kd_nms_rad)
    safety = SafetyProfile(
        damping_kd_nms_rad=(servo.kd_nms_rad,),
        target_rate_limit_rad_s=(1e6,),
        joint_vel_trip_rad_s=(100.0,),
        soft_margin=0.0,
        joint_inertia_kg_m2=(DESIGN_INERTIA,),
    )
    safety = replace(safety, **changes)
    robot = RobotSpec("joint", "one", (joint,), (0.0,), "base", False, safety, ("joint_pos", "joint_vel"))
    action = ActionSpec("position_relative", (1.0,), (0.0,), (-LIMIT_RAD,), (LIMIT_RAD,))
    outputs = (TensorSpec("joint_target", (1,), "rad"), TensorSpec("obs", (1,), "1"))
    contract = Contract("joint", "one", period_s, (joint,), (), outputs, action, (("joint_pos", 1),))
    return SafetyLimits.make(robot, contract, period_s)


# ---- trials


def simulate(servo: Servo, law: Law, period_s: float, plant: Plant, targets: Array, start_rad: float = 0.0) -> Array:
    """Joint positions (steps, trials) at every physics step under `targets` (steps, trials), from rest."""
    trials = targets.shape[1]
    pos, vel = np.full(trials, start_rad), np.zeros(trials)
    load = plant.load_nm * np.where(np.arange(trials) % 2, 1.0, -1.0)
    every, age = round(period_s / PHYSICS_S), round(plant.state_age_s / PHYSICS_S)
    sent, positions, velocities = pos, np.empty(targets.shape), np.empty(targets.shape)
    for step, target in enumerate(targets):
        positions[step], velocities[step] = pos, vel
        if step % every == 0:
            seen = max(step - age, 0)
            sent = law(target, positions[seen], velocities[seen], sent)
        torque = np.clip(servo.kp_nm_rad * (sent - pos) - servo.kd_nms_rad * vel, -EFFORT_NM, EFFORT_NM)
        vel = vel + (torque + load) / plant.inertia * PHYSICS_S
        pos = pos + vel * PHYSICS_S
    return positions


def jumping_targets(trials: int = TRIALS, seed: int = 0) -> Array:
    """(steps, trials): ±FAR_RAD, each kept for 0.02 to 0.5 s."""
    rng = np.random.default_rng(seed)
    steps = round(DURATION_S / PHYSICS_S)
    targets = np.empty((steps, trials))
    for column in targets.T:
        step = 0
        while step < steps:
            kept = int(rng.integers(round(0.02 / PHYSICS_S), round(0.5 / PHYSICS_S)))
            column[step : step + kept] = rng.choice((-FAR_RAD, FAR_RAD))
            step += kept
    return targets


def overshoot(servo: Servo, law: Law, period_s: float, plant: Plant) -> float:
    """Worst way beyond a limit over all trials, rad; 0 if there is none."""
    return max(0.0, float(np.abs(simulate(servo, law, period_s, plant, jumping_targets())).max()) - LIMIT_RAD)


def travel_s(servo: Servo, law: Law, period_s: float, plant: Plant) -> float:
    """Time of a step from one limit to within NEAR_RAD of the other; infinite if it takes longer than a trial."""
    steps = round(DURATION_S / PHYSICS_S)
    pos = simulate(servo, law, period_s, plant, np.full((steps, TRIALS), FAR_RAD), start_rad=NEAR_RAD - LIMIT_RAD)
    arrived = pos[:, 0] >= LIMIT_RAD - NEAR_RAD
    return float(np.argmax(arrived)) * PHYSICS_S if arrived.any() else math.inf


# ---- the table


@dataclass(frozen=True)
class Entry:
    """One law at one rate."""

    name: str
    period_s: float
    make: Callable[[Servo, float], Law]
    state_age_s: float = 0.0


_STALE_S = STALE_TICKS * FAST_S
ENTRIES = (
    Entry("clipping", FAST_S, clipping),
    Entry("joint_limiter", FAST_S, joint_limiter),
    Entry("ecbf_20", FAST_S, lambda s, dt: exponential_cbf(s, dt, pole_1_s=20.0)),
    Entry("ecbf_60", FAST_S, lambda s, dt: exponential_cbf(s, dt, pole_1_s=60.0)),
    Entry("bound", FAST_S, braking_bound),
    Entry("bound_50hz", SLOW_S, braking_bound),
    Entry("bound_stale", FAST_S, braking_bound, _STALE_S),
    Entry("bound_stale_predicted", FAST_S, lambda s, dt: braking_bound(s, dt, told_age_s=_STALE_S), _STALE_S),
)
TITLES = {
    "clipping": "clipped to the limits",
    "joint_limiter": "ros2_control's soft limiter",
    "ecbf_20": "exponential CBF, poles 20 /s",
    "ecbf_60": "exponential CBF, poles 60 /s",
    "bound": "braking bound",
    "bound_50hz": "braking bound, tick of 20 ms",
    "bound_stale": "braking bound, state 2 ticks old",
    "bound_stale_predicted": "the same, predicted forward",
}


COLUMNS = {f"inertia_{share:g}": f"{share:g} I" for share in INERTIA_SHARES}
COLUMNS |= {f"load_{share:g}": f"{share:g} I, load" for share in INERTIA_SHARES}
COLOURS = {
    "clipping": "#9aa4af",
    "joint_limiter": "#d9822b",
    "ecbf_20": "#7b5fc4",
    "ecbf_60": "#c4314b",
    "bound": "#2864c7",
}


def benchmark() -> Result:
    """Rows `braking/<servo>/<law>/inertia_<share>` and `.../load_<inertia share>` in rad, `.../travel` in s; for the
    project's robots `braking/<robot>/<rate>/<clipping or bound>/inertia_<share>` in rad beyond the hard limits."""
    rows: list[Row] = []
    for servo in SERVOS:
        for entry in ENTRIES:
            name = f"braking/{servo.name}/{entry.name}"
            law = entry.make(servo, entry.period_s)
            for load_nm, kind in ((0.0, "inertia"), (LOAD_SHARE * EFFORT_NM, "load")):
                for share in INERTIA_SHARES:
                    plant = Plant(share * DESIGN_INERTIA, load_nm, entry.state_age_s)
                    rows.append(Row(f"{name}/{kind}_{share:g}", overshoot(servo, law, entry.period_s, plant), "rad"))
            plant = Plant(state_age_s=entry.state_age_s)
            rows.append(Row(f"{name}/travel", travel_s(servo, law, entry.period_s, plant), "s"))
    for case in braking_robots.CASES:
        for law_name, bound in (("clipping", False), ("bound", True)):
            for share in ROBOT_SHARES:
                worst = float(braking_robots.worst_beyond_rad(case, share, bound=bound).max())
                rows.append(Row(f"braking/{case.name}/{law_name}/inertia_{share:g}", worst, "rad"))
    return Result(ok=True, rows=tuple(rows))


def table(rows: tuple[Row, ...]) -> str:
    """The rows in markdown, one table per servo."""
    value = {row.name: row.value for row in rows}
    lines = []
    for servo in SERVOS:
        gains = f"kp {servo.kp_nm_rad:g}, kd {servo.kd_nms_rad:g}, damping ratio {servo.damping_ratio:.2f}"
        lines += [f"### {servo.name}: {gains}", ""]
        lines += ["| | " + " | ".join(COLUMNS.values()) + " | travel |", "|---|" + "--:|" * 7]
        for entry in ENTRIES:
            name = f"braking/{servo.name}/{entry.name}"
            cells = [f"{value[f'{name}/{column}']:.4f}" for column in COLUMNS]
            travel = value[f"{name}/travel"]
            cells.append(f"{travel:.2f} s" if isinstance(travel, float) and math.isfinite(travel) else "never")
            lines.append(f"| {TITLES[entry.name]} | " + " | ".join(cells) + " |")
        lines.append("")
    titles = [f"{law}, {share:g} I" for law in ("clipped", "bound") for share in ROBOT_SHARES]
    lines += ["### The project's robots", ""]
    lines += ["| | " + " | ".join(titles) + " |", "|---|" + "--:|" * len(titles)]
    for case in braking_robots.CASES:
        names = [f"{law}/inertia_{share:g}" for law in ("clipping", "bound") for share in ROBOT_SHARES]
        cells = [f"{value[f'braking/{case.name}/{name}']:.3f}" for name in names]
        lines.append(f"| {case.robot}, {case.loop_rate_hz:g} Hz | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def plot(rows: tuple[Row, ...], path: Path) -> None:
    """What each law does with one step into a limit, and its worst overshoots. Needs matplotlib."""
    import matplotlib

    matplotlib.use("Agg")  # no display is needed, and none is opened
    import matplotlib.pyplot as plt

    value = {row.name: float(row.value or 0.0) for row in rows}
    widths = {"width_ratios": (1, 1, 1.2), "layout": "constrained"}
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.5, 4.2), **widths)
    for axes, share in ((left, 1.0), (middle, 2.0)):
        for entry in ENTRIES[: len(COLOURS)]:
            law = entry.make(UNDER_DAMPED, FAST_S)
            targets = np.full((round(0.8 / PHYSICS_S), TRIALS), FAR_RAD)
            pos = simulate(UNDER_DAMPED, law, FAST_S, Plant(share * DESIGN_INERTIA), targets, NEAR_RAD - LIMIT_RAD)
            time_s = np.arange(len(pos)) * PHYSICS_S
            axes.plot(time_s, pos[:, 0], color=COLOURS[entry.name], linewidth=1.8, label=TITLES[entry.name])
        axes.axhline(LIMIT_RAD, color="#1b1f24", linewidth=0.8, linestyle="--")
        axes.set(xlabel="s", title=f"a step; inertia {share:g} of design", ylim=(-1.1, 2.6))
    left.set_ylabel("joint position, rad")
    left.legend(frameon=False, fontsize=8, loc="upper right")
    for offset, entry in enumerate(ENTRIES[: len(COLOURS)]):
        heights = [max(value[f"braking/under-damped/{entry.name}/{column}"], 1e-4) for column in COLUMNS]
        right.bar(np.arange(len(COLUMNS)) + 0.16 * (offset - 2), heights, 0.15, color=COLOURS[entry.name])
    right.set(yscale="log", ylim=(1e-4, 10), title="worst overshoot, rad (no bar: none)")
    right.set_xticks(np.arange(len(COLUMNS)), list(COLUMNS.values()), rotation=30, ha="right")
    for axes in (left, middle, right):
        axes.grid(color="#e4e8ec")
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    result = benchmark()
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    result.write(folder / "braking.json")
    (folder / "braking_table.md").write_text(table(result.rows))
    plot(result.rows, folder / "braking.png")
