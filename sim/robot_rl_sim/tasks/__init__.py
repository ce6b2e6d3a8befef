"""The simulated tasks. Adding one: a folder here, and a line in the table. Importing this imports nothing heavy."""

from functools import partial

from robot_rl.env import Task
from robot_rl_sim.tasks import cube_reorient, g1_balance, g1_velocity, peg_insert, reach
from robot_rl_sim.tasks.ranges import usual

TASKS: dict[str, Task] = {
    "leap-reach": Task(
        name="leap-reach",
        summary="LEAP hand: bring four fingertips to goal positions in two seconds",
        robot="leap_hand",
        make_env=partial(reach.make_env, reach.LEAP),
        randomization=usual,
        scripted=reach.scripted,
        presets={"sac": reach.LEAP_SAC},
    ),
    "shadow-reach": Task(
        name="shadow-reach",
        summary="Shadow hand: bring five fingertips to goal positions in two seconds",
        robot="shadow_hand",
        make_env=partial(reach.make_env, reach.SHADOW),
        randomization=usual,
        scripted=reach.scripted,
        presets={"sac": reach.SHADOW_SAC},
    ),
    "leap-cube": Task(
        name="leap-cube",
        summary="LEAP hand: turn a cube in the hand to one goal orientation after the other, for twenty seconds",
        robot="leap_hand",
        make_env=partial(cube_reorient.make_env, cube_reorient.LEAP),
        scripted=cube_reorient.scripted,
        randomization=usual,
        presets={"sac": cube_reorient.LEAP_SAC},
    ),
    "shadow-cube": Task(
        name="shadow-cube",
        summary="Shadow hand: turn a cube in the hand to one goal orientation after the other, for twenty seconds",
        robot="shadow_hand",
        make_env=partial(cube_reorient.make_env, cube_reorient.SHADOW),
        scripted=cube_reorient.scripted,
        randomization=usual,
        presets={"sac": cube_reorient.SHADOW_SAC},
    ),
    "g1-balance": Task(
        name="g1-balance",
        summary="Unitree G1: stay standing for ten seconds under pushes",
        robot="unitree_g1",
        make_env=g1_balance.make_env,
        randomization=g1_balance.randomized,
        presets={"sac": g1_balance.SAC},
        scripted=g1_balance.scripted,
    ),
    "g1-velocity": Task(
        name="g1-velocity",
        summary="Unitree G1: walk at commanded velocities on level ground, under pushes",
        robot="unitree_g1",
        make_env=g1_velocity.make_env,
        randomization=usual,
        presets={"sac": g1_velocity.SAC},
    ),
    "g1-velocity-rough": Task(
        name="g1-velocity-rough",
        summary="Unitree G1: walk at commanded velocities over slopes, stairs, waves, steps and obstacles",
        robot="unitree_g1",
        make_env=g1_velocity.make_rough_env,
        randomization=usual,
        presets={"sac": g1_velocity.SAC},
    ),
    "peg-insert": Task(
        name="peg-insert",
        summary="Franka Panda: put a peg into a hole with half a millimetre to spare, reward only when it is in",
        robot="franka_panda",
        make_env=peg_insert.make_env,
        randomization=peg_insert.randomized,
        presets={"sac": peg_insert.SAC},
        scripted=peg_insert.scripted,
    ),
    "peg-insert-dense": Task(
        name="peg-insert-dense",
        summary="The same with a reward for getting nearer",
        robot="franka_panda",
        make_env=partial(peg_insert.make_env, reward="dense"),
        randomization=peg_insert.randomized,
        presets={"sac": peg_insert.SAC},
        scripted=peg_insert.scripted,
    ),
}
