"""Reward terms of walking. Each is (n,) before its weight; sources name where the field uses the term.

legged_gym: Rudin et al., arXiv 2109.11978, and its code. Isaac Lab, mjlab, MuJoCo Playground, FastSAC: their velocity
tasks for humanoids.
"""

from __future__ import annotations

import torch
from torch import Tensor


def closeness(error: Tensor, width: float) -> Tensor:
    """exp(-|error|² / width²) of error (n, k): 1 without an error, and flat far from it. legged_gym, tracking."""
    return torch.exp(error.square().sum(-1) * (-1 / width**2))


def lean(gravity_b: Tensor) -> Tensor:
    """Squared sine of the tilt, of gravity's direction (n, 3) in the body. legged_gym, orientation."""
    return gravity_b[:, :2].square().sum(-1)


def weighted_square(x: Tensor, weight: Tensor) -> Tensor:
    """Sum over k of weight (k,) x², x (n, k): deviation from a pose (FastSAC), torque as a share of its limit."""
    return x.square() @ weight


def gait_closeness(foot_height: Tensor, phase: Tensor, walking: Tensor, swing_m: float, width_m: float) -> Tensor:
    """How well both feet's heights (n, 2) m follow the clock (n,) in cycles: the left one is lifted over the first
    half, the right one over the second, each in half a sine; neither where not walking (n,). Playground, feet_phase.
    """
    wave = swing_m * walking * torch.sin(2 * torch.pi * phase)
    wanted = torch.stack((wave, -wave), -1).clamp(min=0.0)
    return closeness(foot_height - wanted, width_m)


def single_stance_time(contact: Tensor, mode_s: Tensor, longest_s: float) -> Tensor:
    """While one foot stands and the other swings (contact (n, 2) bool): the shorter of the times mode_s (n, 2) that
    both have done so, up to `longest_s`; 0 otherwise. Isaac Lab, feet_air_time_positive_biped.
    """
    alone = contact[:, 0] != contact[:, 1]
    return alone * torch.minimum(mode_s[:, 0], mode_s[:, 1]).clamp(max=longest_s)


def slip(contact: Tensor, foot_velocity: Tensor) -> Tensor:
    """Sum over standing feet of their squared horizontal speed, foot_velocity (n, 2, 3) m/s. mjlab, foot_slip."""
    return (contact * foot_velocity[..., :2].square().sum(-1)).sum(-1)


def overlap(lateral_m: Tensor, least_m: float) -> Tensor:
    """How much (m) the feet come closer sideways than `least_m`, left from right (n,). FastSAC, close_feet.

    The model's legs do not collide with each other, so nothing else keeps them from crossing.
    """
    return (least_m - lateral_m).clamp(min=0.0)


def beyond(x: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Sum over k of what x (n, k) lacks or exceeds of [low, high] (k,). legged_gym, dof_pos_limits."""
    return (x - x.clamp(low, high)).abs().sum(-1)


def power(effort: Tensor, velocity: Tensor) -> Tensor:
    """Sum over joints of |torque · velocity|, W: braking costs, too. Playground, energy."""
    return (effort * velocity).abs().sum(-1)
