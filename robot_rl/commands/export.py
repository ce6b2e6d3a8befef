"""`robot-rl export`: from a training run, or a model of Stable-Baselines3, to a bundle."""

from __future__ import annotations

import hashlib
import json
import subprocess
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from robot_rl.bundle.manifest import MANIFEST_FILE
from robot_rl.commands.main import Verb
from robot_rl.commands.result import Result, Row
from robot_rl.errors import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from robot_rl.bundle.export import Provenance
    from robot_rl.env import RobotVecEnv

EPISODES, EVALUATION_ENVS, EVALUATION_SEED = 200, 64, 1_000
"""Of the evaluation of a policy that comes without one."""


@dataclass(frozen=True)
class ExportArgs:
    """Export a trained policy as a bundle: one ONNX graph, contract, golden rows, card.

    Given a bundle, write into it what its task says about how episodes begin: bundles of earlier versions lack that.
    """

    policy: Annotated[Path, tyro.conf.Positional]
    """Run folder of `robot-rl train`, a .zip that Stable-Baselines3 or sb3-contrib saved (SAC, TD3, TQC, PPO), or the
    folder of a bundle."""
    out: Path | None = None
    """Where the bundle goes; a name that ends in .zip makes one file. Default: RUN/bundle, MODEL-bundle."""
    overwrite: bool = False
    """Replace a bundle that is already there."""
    task: str | None = None
    """Task that a Stable-Baselines3 model was trained on; a run folder knows its own."""
    vec_normalize: Path | None = None
    """What VecNormalize.save wrote, where a Stable-Baselines3 model was trained under it: it is part of the policy, and
    the model does not tell. Needs --trust."""
    trust: bool = False
    """Allow pickles, which run the code in them, to be loaded: VecNormalize files, and Stable-Baselines3 models that
    are no plain MlpPolicy. Only for files whose origin you know."""


def run(args: ExportArgs) -> Result:
    if (args.policy / MANIFEST_FILE).is_file():
        return _amend(args)
    from robot_rl.bundle.export import export_policy

    load = _load_sb3 if args.policy.suffix == ".zip" else _load_run
    env, normalizer, actor, provenance, default_out = load(args)
    path = args.out or default_out
    loop = export_policy(env, normalizer, actor, path, provenance, overwrite=args.overwrite)
    env.close()
    period_s = env.policy_io.contract.control_period_s
    assert loop.latency is not None
    rows = [
        Row("export/closed_loop_error", loop.max_error, "1"),
        Row("export/closed_loop_steps", loop.steps, "steps"),
        Row("export/action_p99", loop.latency.p99_s * 1e3, "ms", "control period", loop.latency.p99_s / period_s),
        Row("export/bundle", str(path)),
    ]
    if provenance.evaluation.get("success_rate") is not None:
        rows.insert(0, Row("export/success", provenance.evaluation["success_rate"]))
    return Result(ok=True, rows=tuple(rows), details={"bundle": str(path), "contract": env.policy_io.contract.digest()})


def _amend(args: ExportArgs) -> Result:
    """Bring a bundle up to date with its task."""
    from robot_rl.bundle.amend import write_episode
    from robot_rl.bundle.load import load_bundle
    from robot_rl.env import EpisodicVecEnv

    if args.out is not None or args.task is not None or args.vec_normalize is not None:
        raise ConfigError(f"{args.policy} is a bundle already: --out, --task and --vec-normalize are not for it")
    bundle = load_bundle(args.policy)
    env = _robot_env(bundle.manifest.task, 1, bundle.manifest.seeds.get("training", 0))
    episode = env.episode if isinstance(env, EpisodicVecEnv) else None
    found, expected = bundle.contract.digest(), env.policy_io.contract.digest()
    env.close()
    if found != expected:
        raise ConfigError(f"task {bundle.manifest.task!r} is another now: contract {expected}, the bundle's is {found}")
    if episode is not None:
        write_episode(args.policy, episode)
    begins = "as its task says" if episode else "in the default pose: its task says nothing else"
    return Result(ok=True, rows=(Row("export/bundle", str(args.policy)), Row("export/begins", begins)))


def _load_run(args: ExportArgs) -> tuple[RobotVecEnv, nn.Module, nn.Module, Provenance, Path]:
    """(one environment, normalizer, actor, where they come from, where the bundle goes) of a run folder."""
    from robot_rl.bundle.export import Provenance
    from robot_rl.env import limited
    from robot_rl.training.checkpoint import load_policy

    if args.task is not None or args.vec_normalize is not None or args.trust:
        raise ConfigError(
            f"--task, --vec-normalize and --trust are for Stable-Baselines3 models; {args.policy} is none"
        )
    normalizer, actor, config = load_policy(args.policy)
    evaluation = args.policy / "evaluation.json"
    provenance = Provenance(
        task=config.task,
        algorithm=config.algo,
        git_revision=git_revision(),
        run=args.policy.name,
        config=portable(json.loads(config.to_json())),
        seeds={"training": config.seed},
        evaluation=json.loads(evaluation.read_text()) if evaluation.exists() else {},
    )
    env = _robot_env(config.task, 1, config.seed)
    if config.safety_filter:
        limited(env, config.task, config.low_pass_hz)
    return env, normalizer, actor, provenance, args.policy / "bundle"


def _load_sb3(args: ExportArgs) -> tuple[RobotVecEnv, nn.Module, nn.Module, Provenance, Path]:
    """The same of a model that Stable-Baselines3 saved, which is evaluated here."""
    from torch import nn

    from robot_rl.bundle.export import Provenance
    from robot_rl.interop.sb3_policy import read_sb3, read_vec_normalize
    from robot_rl.training.evaluate import evaluate

    if args.task is None:
        raise ConfigError(f"exporting {args.policy} needs --task: the one it was trained on; see `robot-rl list`")
    envs = _robot_env(args.task, min(EVALUATION_ENVS, EPISODES), EVALUATION_SEED)
    model = read_sb3(args.policy, envs.obs_dim, envs.action_dim, trust=args.trust)
    normalizer: nn.Module = nn.Identity()
    config = {"model_sha256": model.sha256, **model.settings}
    if args.vec_normalize is not None:
        normalizer = read_vec_normalize(args.vec_normalize, envs.obs_dim, trust=args.trust)
        config["vec_normalize_sha256"] = hashlib.sha256(args.vec_normalize.read_bytes()).hexdigest()
    evaluation = evaluate(envs, nn.Sequential(normalizer, model.actor), EPISODES, EVALUATION_SEED)
    envs.close()
    seed = model.settings.get("seed")
    provenance = Provenance(
        task=args.task,
        algorithm=model.algorithm,
        git_revision=git_revision(),
        run=f"{args.policy.name}, sha256 {model.sha256}",
        config=config,
        seeds={} if seed is None else {"training": seed},
        evaluation={"step": model.settings.get("num_timesteps"), **asdict(evaluation)},
    )
    out = args.policy.with_name(f"{args.policy.stem}-bundle")
    return _robot_env(args.task, 1, EVALUATION_SEED), normalizer, model.actor, provenance, out


def _robot_env(task: str, num_envs: int, seed: int) -> RobotVecEnv:
    from robot_rl.env import RobotVecEnv, get_task

    env = get_task(task).make_env(num_envs=num_envs, seed=seed, num_threads=1)
    if not isinstance(env, RobotVecEnv):
        raise ConfigError(f"task {task!r} is no robot task: it has no contract to export. See `robot-rl list`")
    return env


def portable(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a run without its paths: where files lie on the machine that trained is nobody else's
    business. Of what was learned from, the name stays."""
    named = {k: Path(config[k]).name for k in ("demos", "start_from") if config.get(k)}
    return {k: v for k, v in (config | named).items() if k != "runs"}


def git_revision() -> str:
    """Commit of this package's source tree, with "+changes" if it was edited; "" outside a repository."""
    here = Path(__file__).resolve().parent

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        revision = git("rev-parse", "HEAD")
        return revision + "+changes" if revision and git("status", "--porcelain", "--untracked-files=no") else revision
    except OSError:  # no git installed
        return ""


VERB = Verb(arguments=ExportArgs, run=run)
