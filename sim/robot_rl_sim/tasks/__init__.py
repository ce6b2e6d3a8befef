"""The simulated tasks. Adding one: a folder here, and a line in the table. Importing this imports nothing heavy."""

from robot_rl.env import Task
from robot_rl_sim.tasks import g1_balance, leap_reach

TASKS: dict[str, Task] = {
    "leap-reach": Task(
        name="leap-reach",
        summary="LEAP hand: bring four fingertips to goal positions in two seconds",
        robot="leap_hand",
        make_env=leap_reach.make_env,
    ),
    "g1-balance": Task(
        name="g1-balance",
        summary="Unitree G1: stay standing for ten seconds under pushes",
        robot="unitree_g1",
        make_env=g1_balance.make_env,
    ),
}
