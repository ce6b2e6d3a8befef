"""Steps of one of EnvPool's environments, on request: runs in the interpreter of the peers' environment, without us.

Usage: envpool_worker.py TASK NUM_ENVS THREADS. Prints "ready", then for each number of seconds read from standard input
steps for that long and prints environment steps per second.
"""

from __future__ import annotations

import sys
import time

import envpool  # pyright: ignore[reportMissingImports]
import numpy as np


def main() -> None:
    task, num_envs, threads = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    env = envpool.make_gymnasium(task, num_envs=num_envs, num_threads=threads)
    env.reset()
    rng = np.random.default_rng(0)
    actions = rng.uniform(-1, 1, (20, num_envs, *env.action_space.shape)).astype(env.action_space.dtype)
    env.step(actions[0])
    print("ready", flush=True)
    for line in sys.stdin:
        seconds, steps, start = float(line), 0, time.perf_counter()
        while (elapsed := time.perf_counter() - start) < seconds:
            env.step(actions[steps % len(actions)])
            steps += 1
        print(steps * num_envs / elapsed, flush=True)


if __name__ == "__main__":
    main()
