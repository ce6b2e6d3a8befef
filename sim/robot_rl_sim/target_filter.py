"""The safety filter's limits on targets, in all worlds of an environment: policies learn under their own filter."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from robot_rl.contract import Contract
from robot_rl.robots import RobotSpec
from robot_rl.runtime.limits import SafetyLimits
from robot_rl.runtime.target_limiter import TargetLimiter


class TargetFilter:
    """What the runtime does to a policy's targets when its loop runs at the policy's rate; the same code, in torch."""

    def __init__(
        self,
        robot: RobotSpec,
        contract: Contract,
        num_envs: int,
        device: torch.device,
        low_pass_hz: float | None = None,
    ) -> None:
        self._limiter = TargetLimiter(
            SafetyLimits.make(robot, contract, contract.control_period_s, low_pass_hz=low_pass_hz),
            xp=torch,
            convert=partial(torch.as_tensor, dtype=torch.float32, device=device),
            batch=(num_envs,),
        )

    def apply(self, target: Tensor, last_target: Tensor, joint_pos: Tensor, joint_vel: Tensor) -> Tensor:
        """Targets (n_envs, n_joints) rad of a policy -> those that are sent, given the present joint positions and
        velocities. As on a robot, rates are limited from what was sent last."""
        sent = target.clone()
        self._limiter.limit(sent, last_target, joint_pos, joint_vel, 0.0)
        return sent
