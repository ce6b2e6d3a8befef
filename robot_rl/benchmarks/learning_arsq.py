"""What is learned from recordings of mixed quality: does it help that ARSQ chooses action dimensions together?

python -m robot_rl.benchmarks.learning_arsq [--help]    # an hour on one core; finished runs are kept and not repeated

Protocol, fixed before the first run. It is that of the authors' D4RL code, smaller:

- Data: every transition of a SAC run up to a half-trained policy, and five episodes of the better policy that as much
  training again gives. One recording per task; learners differ by seed.
- Every batch is one half from the recording and one half from a replay buffer that starts as the whole recording and
  takes in one transition per update, of the learner's own noisy policy. All of the recording counts as demonstrations,
  whatever its quality: the cloning loss sees the first half. (The authors' default takes 100 % of a data set.)
- Settings are the authors' for the medium-replay set of each robot, the one nearest to these recordings: levels, bins,
  type, weight and C_m of the cloning loss, temperature. Smaller than theirs: 2 x 256 for 3 x 512, batches of 128 for
  512, and 4,000 steps where they show 500,000 and find most of the effect in the first 25,000 to 50,000.
- Score of a run: mean return of the greedy policy over the last two of four evaluations, of 8 episodes each (the
  authors keep the best evaluation of a run, which is also reported), less that of uniformly random actions. Where ARSQ
  does not reach the mean return of the recording there is no ratio: that of two failures says nothing. (This last rule
  came after the first runs; all it can do is take a ratio away.)

Beside the tasks there is a diagnostic in which dimensions must be chosen together, `paired:point-mass`: the force
is the product of two actions, and the recording reaches it with either pair of signs, at random. It was added after
half of the runs on Hopper and HalfCheetah had shown no difference, to tell whether the method or the tasks are the
reason; it is not judged. Its settings are those with which ARSQ is known to learn the task itself. (Pendulum came
first, with the settings above, and was given up after seed 0, where neither learner beat random actions in so few
steps.)

Methods:

- arsq.
- independent: the same, but a choice knows only the coarser levels (`conditioning="level"`). Nothing else differs.
- none: the same, but a choice knows nothing (`conditioning="none"`), as in the test on a bandit. With one level of bins
  this is `independent`, bit for bit, and not run again.
- separate: the same networks, data and cloning loss, but CQN's decomposition: a Q-function per dimension, each
  regressed by itself, so that it is an average over what the data did in the other dimensions.
- bc: cloning of the recording. bc-good: cloning of its good episodes alone, which a user has to know. These two do not
  act while they learn. iql: IQL-style weighted cloning, with the same batches and as many own steps.

Which of the three is the baseline of independent dimensions that ARSQ must beat by 1.3? `separate`. The 1.3 is drawn
from the authors' 76.1 / 47.1 = 1.62, and the 47.1 are CQN's: every dimension has a Q-function of its own. What makes
ours the matched one is that nothing but that differs (CQN itself has another network, learning rate, exploration, and
a value distribution). The other two are ablations of ARSQ, whose dimensions still share one Q-function. The authors
have them too, as means of hopper-medium-expert and hopper-medium-replay: 99.8 / 95.5 = 1.05 for what `independent`
takes away, 99.8 / 80.9 = 1.23 for what `none` does. So 1.3 over those is not to be expected by the authors' own
figures. All three ratios are reported. This was settled with `independent` and `separate` on Hopper (1.06 and 1.50)
and HalfCheetah (no ratio) known, and before any run of `none` and any on Walker2d, which therefore are the ones that
can still refute it.

Walker2d was added then as well, as the third robot of the paper, with the authors' settings for
walker2d-medium-replay and everything else as for the other two. Should ARSQ there fall short of the recording's mean
in 4,000 steps, as on HalfCheetah, then arsq, independent and separate are run again with `--steps 20000`, and Hopper
beside it; both amounts are reported.

`leap-reach` came next: a robot of this project, whose 16 actions are many more than the 3 to 6 of the others. With
many, what one dimension alone is worth is an average over all that the others did, and drowns in it; a sum of
advantages does not have to average. Settings, before any run: ARSQ's defaults of then (those of hopper, with the
cloning of the other two medium-replay sets), small as above, and everything else as for the other robots. (`g1-balance`
was to be another, but 60,000 steps of SAC in one environment taught it nothing, 109 for 113 of random actions: no
recording of mixed quality. So was `track-pose:unitree_g1`, 29 joints, where they left it below random actions.)

`shadow-reach`, 24 joints, came last, for the same reason and with the same settings, decided on before any learner had
run there, and with `--tune` from the start.

With `--tune`, learners that clone choose how strongly. The authors tune the cloning term for each of their data sets,
their C_m is in units of reward, and what it costs grows with the number of choices: nothing says that a setting carries
over to another robot. So each learner is run with each of CLONING on a seed of its own, TUNING_SEED, and goes on to
`seeds` with the one that scored best: the same three for all, each learner its own best. This was settled after
leap-reach with the setting above (4,000 steps: ARSQ -20.7, `separate` -26.5, the recording -18.0; ARSQ after 20,000
-18.0 and -18.8 on seeds 0 and 2), and before any run with another setting.
"""

from __future__ import annotations

import json
import os
import re
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from robot_rl.algorithms.arsq import ARSQ, ARSQConfig
from robot_rl.algorithms.compiling import compiler_found
from robot_rl.algorithms.products import quick_products
from robot_rl.benchmarks.acting import acting_rows
from robot_rl.benchmarks.mixed_quality import (
    IQL,
    PAIRED,
    Cloning,
    SeparateQ,
    buffer_of,
    coordination,
    dependence,
    episode_returns,
    make_env,
    recording,
)
from robot_rl.commands.result import Result, Row
from robot_rl.env import VecEnv
from robot_rl.replay.mixture import Mixture, Source
from robot_rl.replay.ring_buffer import Batch
from robot_rl.training.collect import collect
from robot_rl.training.evaluate import evaluate, random_policy

LEAST_RATIO = 1.3
ROBOT_TASKS = ("leap-reach", "g1-balance")
"""Whose acting is timed too, with ARSQ's default networks."""
BASELINES = ("separate", "none", "independent")
METHODS: tuple[str, ...] = ("arsq", *BASELINES, "bc", "bc-good", "iql")
JUDGED = "separate"
"""The baseline whose score ARSQ's must be LEAST_RATIO times."""


@dataclass(frozen=True)
class Problem:
    """What is learned, and from how long a recording."""

    config: ARSQConfig
    """Of ARSQ; the other methods use what applies to them. Half of a batch comes from the recording."""
    record_env_steps: int
    """Steps of SAC whose transitions are kept; its training goes on for as many again before it demonstrates."""


_SMALL: dict[str, Any] = {"hidden": (256, 256), "batch_size": 128, "compile": compiler_found()}

PROBLEMS: dict[str, Problem] = {
    "gym:Hopper-v5": Problem(ARSQConfig(**_SMALL, levels=2, bins=7, bc_weight=0.03, bc_clamp=1.0), 30_000),
    "gym:HalfCheetah-v5": Problem(ARSQConfig(**_SMALL, levels=1, bins=41, bc_weight=0.1, bc_clamp=-1.0), 30_000),
    "gym:Walker2d-v5": Problem(ARSQConfig(**_SMALL, levels=1, bins=41, bc_weight=0.1, bc_clamp=-1.0), 30_000),
    "leap-reach": Problem(ARSQConfig(**_SMALL, bc_weight=0.1, bc_clamp=-1.0), 30_000),
    "shadow-reach": Problem(ARSQConfig(**_SMALL, bc_weight=0.1, bc_clamp=-1.0), 30_000),
    "paired:point-mass": Problem(
        ARSQConfig(
            learning_rate=1e-3, batch_size=128, gamma=0.95, tau=0.02, hidden=(64, 64), activation="relu", levels=1,
            bins=15, alpha=0.1, bc_weight=0.1, bc_clamp=-1.0, compile=compiler_found(),
        ),
        3_000,
    ),
}  # fmt: skip
"""The first three: the authors' for the medium-replay sets of these robots, cloning with `margin`. The next two: ARSQ's
defaults of then. The diagnostic: the preset `arsq` of the task point-mass."""

CLONING = ((0.1, -1.0), (0.03, 1.0), (0.0, 1.0))
"""Weights and C_m of the cloning loss to choose from: the authors' for two of their medium-replay sets, for the third,
and none."""
CLONE = ("arsq", *BASELINES)
"""Methods that have such a term."""
TUNING_SEED = 100


@dataclass(frozen=True)
class Amounts:
    """How much of everything."""

    tasks: tuple[str, ...] = tuple(PROBLEMS)
    """What to learn."""
    methods: tuple[str, ...] = METHODS
    """Which learners; the ratios need arsq and the baselines."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Of the learners; there is one recording per task."""
    good_episodes: int = 5
    """Of the better policy."""
    steps: int = 4_000
    """Updates, and environment steps of the learner."""
    evaluations: int = 4
    """Spread over the run; the second half of them is the score."""
    episodes: int = 8
    """Of each evaluation."""
    tune: bool = False
    """Let each learner that clones choose from CLONING first."""
    folder: Path = Path("runs/learning_arsq")
    """Recordings and finished runs are kept here, and looked for."""
    problems: Mapping[str, Problem] = field(default_factory=lambda: PROBLEMS)
    """By task."""


class Learner(Protocol):
    """What all methods have in common."""

    def act(self, obs: Tensor, deterministic: bool = False) -> Tensor: ...

    def update(self, batch: Batch) -> object: ...


Curve = dict[int, float]
"""Update: mean return of the evaluation there."""


def benchmark(amounts: Amounts = Amounts()) -> Result:
    """Rows: score of each method, task and seed, and means; ARSQ's score over that of independent dimensions, against
    the threshold. Details hold every curve. Writes result.json and curves.png into the folder."""
    curves: dict[tuple[str, str, int], Curve] = {}
    # The two that the threshold compares come first, seed by seed, so that an interrupted run has whole pairs.
    for group in (METHODS[:2], METHODS[2:]):
        for seed in amounts.seeds:
            for task in amounts.tasks:
                for method in (m for m in group if m in amounts.methods):
                    curves[task, method, seed] = curve = run(task, method, seed, tuned(task, method, amounts))
                    print(f"{task} {method} seed {seed}: {_text(curve)}", flush=True)
    rows: list[Row] = []
    short: list[str] = []
    levels = {task: reference_levels(task, amounts) for task in amounts.tasks}
    for task in amounts.tasks:
        name = f"learning/arsq-{_short(task)}"
        rows += [Row(f"{name}/{what}", value, "return") for what, value in levels[task].items()]
        means: dict[str, float] = {}
        for method in amounts.methods:
            scores = [_score(curves[task, method, seed]) - levels[task]["random"] for seed in amounts.seeds]
            best = [max(curves[task, method, seed].values()) - levels[task]["random"] for seed in amounts.seeds]
            means[method] = statistics.fmean(scores)
            rows.append(Row(f"{name}/{method}", means[method], "score"))
            if amounts.tune and method in CLONE:
                own = tuned(task, method, amounts).problems[task].config
                rows.append(Row(f"{name}/{method}/cloning", f"{own.bc_weight:g}, C_m {own.bc_clamp:g}"))
            rows += [Row(f"{name}/{method}/seed-{s}", v, "score") for s, v in zip(amounts.seeds, scores, strict=True)]
            rows.append(Row(f"{name}/{method}/best-evaluation", statistics.fmean(best), "score"))
        nats = coordination(data(task, amounts)[0], amounts.problems[task].config, amounts.steps // 2)
        rows.append(Row(f"{name}/coordination-in-recording", nats, "nats"))
        ratios = {baseline: _ratio(means, baseline, levels[task]) for baseline in BASELINES}
        rows += [Row(f"{name}/ratio-to-{baseline}", value) for baseline, value in ratios.items()]
        if task.startswith(PAIRED):
            continue
        ratio = ratios[JUDGED]
        rows.append(Row(f"{name}/ratio", ratio, "", "threshold", None if ratio is None else ratio / LEAST_RATIO))
        if ratio is None or ratio < LEAST_RATIO:
            shown = "undefined" if ratio is None else f"{ratio:.2f}"
            short.append(f"{name}/ratio is {shown}, asked {LEAST_RATIO}")
    configs = {task: amounts.problems[task].config for task in amounts.tasks if not task.startswith(PAIRED)}
    rows += acting_rows(configs | dict.fromkeys(ROBOT_TASKS, ARSQConfig()))
    plot = _plot(amounts, curves, levels)
    details = {
        "curves": {"/".join(map(str, key)): curve for key, curve in curves.items()},
        "amounts": asdict(amounts),
        "plot": str(plot),
    }
    result = Result(not short, tuple(rows), "; ".join(short), details)
    result.write(amounts.folder / "result.json")
    return result


def run(task: str, method: str, seed: int, amounts: Amounts) -> Curve:
    """One learner from nothing to its last evaluation; read from the folder if it was finished before with the same
    amounts and settings."""
    config = amounts.problems[task].config
    if method == "none" and config.levels == 1:
        method = "independent"  # with no coarser level to know, the two are one
    cloning = f"_{config.bc_weight:g}_{config.bc_clamp:g}" if method in CLONE else ""
    file = amounts.folder / task.replace(":", "-") / f"{method}_{seed}{cloning}.json"
    of = {name: getattr(amounts, name) for name in ("good_episodes", "steps", "evaluations", "episodes")}
    settings = {name: value for name, value in asdict(config).items() if name != "compile"}  # changes no result
    of = {"record_env_steps": amounts.problems[task].record_env_steps, **of, "config": settings}
    of = json.loads(json.dumps(of))
    if file.exists() and (known := json.loads(file.read_text()))["of"] == of:
        return {int(step): value for step, value in known["curve"].items()}
    mixed, good = data(task, amounts)
    env, start = make_env(task, num_envs=1, seed=1), make_env(task, num_envs=8, seed=2)
    learner = make(method, config, env, mixed, seed)
    curve = learn(learner, env, start, good if method == "bc-good" else mixed, config.batch_size, amounts, seed)
    env.close()
    start.close()
    found: dict[str, object] = {"of": of, "curve": curve}
    if isinstance(learner, ARSQ):
        found["dependence"] = dependence(learner, mixed)
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.tmp")
    temporary.write_text(json.dumps(found, indent=1) + "\n")
    os.replace(temporary, file)
    return curve


def tuned(task: str, method: str, amounts: Amounts) -> Amounts:
    """With the cloning term under which the method scores best on TUNING_SEED, if it has one and `tune` asks for it."""
    if not amounts.tune or method not in CLONE:
        return amounts
    problem = amounts.problems[task]
    choices: dict[float, Amounts] = {}
    for weight, clamp in CLONING:
        config = replace(problem.config, bc_weight=weight, bc_clamp=clamp)
        choice = replace(amounts, problems={**amounts.problems, task: replace(problem, config=config)})
        choices[_score(run(task, method, TUNING_SEED, choice))] = choice
    return choices[max(choices)]


def make(method: str, config: ARSQConfig, env: VecEnv, mixed: Batch, seed: int) -> Learner:
    """A learner at its start."""
    sizes = (env.obs_dim, env.action_dim, seed)
    match method:
        case "arsq":
            return ARSQ(config, *sizes)
        case "independent":
            return ARSQ(replace(config, conditioning="level"), *sizes)
        case "none":
            return ARSQ(replace(config, conditioning="none"), *sizes)
        case "separate":
            return SeparateQ(config, *sizes)
        case "iql":
            returns = episode_returns(mixed)
            return IQL(config, *sizes, reward_scale=1000 / (max(returns) - min(returns)))
        case _:
            return Cloning(config, *sizes)


@quick_products()
def learn(
    learner: Learner, env: VecEnv, start: VecEnv, recorded: Batch, batch_size: int, amounts: Amounts, seed: int
) -> Curve:
    """One update per step, of a batch that is half recording and half what was recorded or done since."""
    replay = buffer_of(recorded, amounts.steps, seed)
    demonstrations = Source(buffer_of(recorded, 0, seed + 1_000), 0.5, demonstration=True)
    mixture = Mixture({"recorded": demonstrations, "replay": Source(replay, 0.5)})
    curve: Curve = {}
    obs = env.reset(seed)
    for step in range(1, amounts.steps + 1):
        if not isinstance(learner, Cloning):
            obs = collect(env, replay, obs, learner.act(obs)).obs
        learner.update(mixture.sample(batch_size))
        if step * amounts.evaluations % amounts.steps < amounts.evaluations:
            policy = lambda obs: learner.act(obs, deterministic=True)  # noqa: E731
            curve[step] = evaluate(start, policy, amounts.episodes, seed=3).return_mean
    return curve


def data(task: str, amounts: Amounts) -> tuple[Batch, Batch]:
    """The recording of a task, and its good episodes."""
    return recording(task, amounts.problems[task].record_env_steps, amounts.good_episodes, amounts.folder)


def reference_levels(task: str, amounts: Amounts) -> dict[str, float]:
    """Mean returns of uniformly random actions, of the recording, and of its good episodes."""
    mixed, good = data(task, amounts)
    start = make_env(task, num_envs=8, seed=2)
    random = evaluate(start, random_policy(start, seed=0), 5 * amounts.episodes, seed=3).return_mean
    start.close()
    return {
        "random": random,
        "recorded": statistics.fmean(episode_returns(mixed)),
        "good-episodes": statistics.fmean(episode_returns(good)),
    }


def _short(task: str) -> str:
    return re.sub(r"-v\d+$", "", task.replace(PAIRED, "paired-").replace("gym:", "")).lower()


def _score(curve: Curve) -> float:
    values = [curve[step] for step in sorted(curve)]
    return statistics.fmean(values[len(values) // 2 :])


def _ratio(means: Mapping[str, float], other: str, levels: Mapping[str, float]) -> float | None:
    """ARSQ's mean score over another method's. None where one of them is missing, where the other is no better than
    random actions, and where ARSQ itself falls short of the recording's mean: a ratio of failures says nothing."""
    if "arsq" not in means or means.get(other, 0.0) <= 0 or means["arsq"] < levels["recorded"] - levels["random"]:
        return None
    return means["arsq"] / means[other]


def _text(curve: Curve) -> str:
    return " ".join(f"{curve[step]:.0f}" for step in sorted(curve))


def _plot(
    amounts: Amounts, curves: Mapping[tuple[str, str, int], Curve], levels: Mapping[str, Mapping[str, float]]
) -> Path:
    """Every seed, the mean of each method, and the reference levels."""
    import matplotlib.pyplot as plt
    from matplotlib.lines import Line2D

    palette = ("#2864c7", "#c4314b", "#b8860b", "#d9822b", "#7f8c8d", "#2e8b57", "#8e5bb5")
    colours = dict(zip(METHODS, palette, strict=True))
    figure, axes = plt.subplots(1, len(amounts.tasks), figsize=(5.6 * len(amounts.tasks), 4.0), squeeze=False)
    for ax, task in zip(axes[0], amounts.tasks, strict=True):
        for method in amounts.methods:
            own = [curves[task, method, seed] for seed in amounts.seeds]
            steps = sorted(own[0])
            for curve in own:
                ax.plot(steps, [curve[s] for s in steps], color=colours[method], alpha=0.25, linewidth=1)
            mean = [statistics.fmean(c[s] for c in own) for s in steps]
            ax.plot(steps, mean, color=colours[method], linewidth=2)
        lines = [
            ax.axhline(value, color="#555555", linewidth=0.9, linestyle=style, label=f"{what} {value:.0f}")
            for (what, value), style in zip(levels[task].items(), (":", "-.", "--"), strict=True)
        ]
        ax.legend(handles=lines, fontsize=7, loc="center right", framealpha=0.9, edgecolor="none")
        ax.set_title(f"{task.removeprefix('gym:')}, {len(amounts.seeds)} seeds and their mean", loc="left", fontsize=10)
        ax.set_xlabel("updates = own environment steps")
        ax.set_ylabel("return of the greedy policy")
        ax.grid(alpha=0.3)
    methods = [Line2D([], [], color=colours[method], linewidth=2, label=method) for method in amounts.methods]
    figure.legend(handles=methods, fontsize=8, frameon=False, loc="lower center", ncol=len(methods))
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    path = amounts.folder / "curves.png"
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path


if __name__ == "__main__":
    import sys

    import tyro

    torch.set_num_threads(1)
    outcome = benchmark(tyro.cli(Amounts))
    print(outcome.table(), outcome.reason, sep="\n")
    sys.exit(not outcome.ok)
