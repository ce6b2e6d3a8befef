"""The policy node with a policy that breaks as soon as a file appears: for the fault table over ROS 2.

    python -m robot_rl_bridge.faulty_policy_node FAULT FILE --ros-args ...

Everything but the answer of the policy's graph is the real node. When that first goes wrong is told on standard output,
in s on the monotonic clock.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.runtime.controller import Controller
from robot_rl_bridge import policy_node

Outputs = dict[str, NDArray[np.float32]]

SLOW_S = 0.06
"""Longer than a loop of 100 Hz bears, shorter than a command lives."""
FOREVER_S = 3600.0


def fail(evaluate: Any) -> Outputs:
    raise ArithmeticError("the policy fails")


def nan(evaluate: Any) -> Outputs:
    outputs = evaluate()
    return outputs | {"joint_target": outputs["joint_target"] * np.float32(math.nan)}


def step(evaluate: Any) -> Outputs:
    outputs = evaluate()
    return outputs | {"joint_target": outputs["joint_target"] + np.float32(100.0)}


def slow(evaluate: Any) -> Outputs:
    time.sleep(SLOW_S)
    return evaluate()


def hang(evaluate: Any) -> Outputs:
    time.sleep(FOREVER_S)
    return evaluate()


FAULTS = {"policy_raises": fail, "policy_nan": nan, "policy_step": step, "policy_slow": slow, "policy_hangs": hang}


def main() -> None:
    name, file = sys.argv[1], Path(sys.argv[2])
    del sys.argv[1:3]
    fault, run, rehearse = FAULTS[name], OnnxPolicy.run, Controller.rehearse
    told: list[float] = []
    rehearsing: list[bool] = []

    def only_rehearse(self: Controller) -> None:
        rehearsing.append(True)
        rehearse(self)
        rehearsing.clear()

    def broken(self: OnnxPolicy, inputs: Mapping[str, NDArray[Any]]) -> Outputs:
        # What is only rehearsed moves nothing.
        if rehearsing or not file.exists():
            return run(self, inputs)
        if not told:
            told.append(time.monotonic())
            print(f"broken {told[0]}", flush=True)
        return fault(lambda: run(self, inputs))

    OnnxPolicy.run, Controller.rehearse = broken, only_rehearse
    policy_node.console()


if __name__ == "__main__":
    main()
