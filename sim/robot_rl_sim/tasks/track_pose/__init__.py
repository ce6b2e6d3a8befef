"""Pose tracking with any robot: the task that a robot from a file trains on first."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from robot_rl.env import RobotVecEnv, Task, TaskFamily, VecEnv
from robot_rl.robots import get_robot

if TYPE_CHECKING:
    from torch import Tensor

    from robot_rl_sim.env import SimVecEnv
    from robot_rl_sim.randomization import RandomizationConfig

NAME = "track-pose"


def sac_preset(n_joints: int) -> dict[str, Any]:
    """About a minute on one idle core, from 6 to 32 joints; see card.md."""
    return {
        "num_envs": 128,
        "total_env_steps": 15_000 + 2_500 * n_joints,
        "warmup_env_steps": 2_560,
        # More joints, more actions whose worth the critics must tell apart.
        "updates_per_env_step": 0.008 * n_joints,
        "batch_size": 256,
        "buffer_size": 100_000,
        "evaluate_every": 0,
        "evaluate_episodes": 200,
        "checkpoint_every": 0,
        "log_every": 5_000,
        "learning_rate": 2e-3,
        "lr_decay": True,
        "gamma": 0.7,
        "tau": 0.02,
        # Rewards are means over joints, so what one action is worth, and with it the temperature that the tuning of the
        # entropy ends at, goes with 1 / n. Starting ten times higher, the policy stays random for half the training.
        "initial_alpha": 0.06 / n_joints,
        "actor_hidden": (128, 128),
        "critic_hidden": (128, 128),
    }


def make_task(robot: str) -> Task:
    """track-pose of any robot that `get_robot` knows."""
    n_joints = len(get_robot(robot).joints)
    return Task(
        name=f"{NAME}:{robot}",
        summary=f"{robot}: bring every joint to a goal pose in two seconds",
        robot=robot,
        make_env=partial(make_env, robot=robot),
        presets={"sac": sac_preset(n_joints)},
        randomization=partial(default_ranges, robot),
        scripted=scripted,
    )


def scripted(env: VecEnv) -> Callable[[Tensor], Tensor]:
    """Moves every target straight to the goal, and does nothing about what gravity and friction leave."""
    assert isinstance(env, RobotVecEnv)
    scale, goal = env.policy_io.scale.to(env.device), "joint_goal"

    def act(obs: Tensor) -> Tensor:
        inputs = env.policy_inputs()
        return ((inputs[goal] - inputs["last_target"]) / scale).clamp(-1.0, 1.0)

    return act


def default_ranges(robot: str) -> RandomizationConfig:
    """See track_pose.mdp.randomization."""
    from robot_rl_sim.tasks.track_pose.mdp import randomization

    return randomization(get_robot(robot))


def make_env(
    *,
    robot: str,
    num_envs: int,
    seed: int,
    randomize: bool | RandomizationConfig = True,
    device: str = "cpu",
    num_threads: int = 0,
    backend: str = "auto",
) -> SimVecEnv:
    """See robot_rl.env.EnvFactory."""
    from robot_rl_sim.randomization import chosen
    from robot_rl_sim.tasks.assemble import assemble
    from robot_rl_sim.tasks.track_pose.mdp import TrackPose, randomization

    mdp = TrackPose(get_robot(robot), num_envs, seed)
    ranges = chosen(randomize, randomization(mdp.robot))
    return assemble(mdp, num_envs, seed, ranges, device, num_threads, backend)


FAMILY = TaskFamily("<robot>", "any robot: bring every joint to a goal pose in two seconds", make_task)
