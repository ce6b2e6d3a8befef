"""The simulated tasks. Adding one: a folder here, and a line in the table. Importing this imports nothing heavy."""

from robot_rl.env import Task
from robot_rl_sim.tasks import g1_balance, leap_reach

TASKS: dict[str, Task] = {
    "leap-reach": Task(
        name="leap-reach",
        summary="LEAP hand: bring four fingertips to goal positions in two seconds",
        robot="leap_hand",
        make_env=leap_reach.make_env,
        presets={
            "sac": {
                "num_envs": 256,
                "total_env_steps": 300_000,
                "warmup_env_steps": 3_000,
                "updates_per_env_step": 0.03125,
                "batch_size": 512,
                "buffer_size": 300_000,
                "evaluate_every": 25_000,
                "evaluate_episodes": 128,
                "checkpoint_every": 100_000,
                "log_every": 5_000,
                "torch_threads": 2,
                "learning_rate": 2e-3,
                "lr_decay": True,
                "gamma": 0.9,
                "tau": 0.02,
                "initial_alpha": 0.02,
                "target_entropy": -16.0,
                "actor_hidden": (256, 256),
                "critic_hidden": (256, 256),
            },
        },
    ),
    "g1-balance": Task(
        name="g1-balance",
        summary="Unitree G1: stay standing for ten seconds under pushes",
        robot="unitree_g1",
        make_env=g1_balance.make_env,
    ),
}
