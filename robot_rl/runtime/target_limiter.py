"""What the safety filter does to a joint target: one pipeline, for one robot in numpy and for many worlds in torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.runtime.limits import SafetyLimits

MODIFICATIONS = (
    "not_finite",
    "action_bound",
    "residual_bound",
    "low_pass",
    "rate_limit",
    "braking",
    "soft_limit",
    "soft_start",
    "self_collision",
)
"""Reasons for which a target is changed, in the order in which they apply; the last one is not TargetLimiter's."""
ROUNDING_RAD = 1e-6
"""A smaller change is not reported: it is the graph's float32 against the limits' float64."""
_LEAST_KP = 1e-9
_UNBOUNDED = 1e9
_REVERSED = 3.0
"""A joint beyond its limit is to turn back this much faster than it moves outwards. That is the full brake for all but
a joint at rest, which noise in its velocity would else throw back."""


class TargetLimiter:
    """The limits of one robot as arrays of `xp`, which is numpy or torch, with the working memory for a batch.

    Nothing is kept from one call to the next, and no call allocates an array. `convert` makes an array of `xp` from one
    of numpy: with torch, on the device and in the type of the targets.
    """

    def __init__(
        self,
        limits: SafetyLimits,
        *,
        xp: Any = np,
        convert: Callable[[NDArray[Any]], Any] = np.asarray,
        batch: tuple[int, ...] = (),
    ) -> None:
        profile, n, dt = limits.profile, limits.n_joints, limits.loop_period_s
        self.limits = limits
        self._xp = xp
        self._dt = dt
        self._most_age_s = limits.state_damp_s
        self._action_low, self._action_high = convert(limits.action_low), convert(limits.action_high)
        self._soft_lower, self._soft_upper = convert(limits.soft_lower), convert(limits.soft_upper)
        self._max_step = convert(limits.max_step)
        self._residual = None if profile.residual_bound_rad is None else convert(np.full(n, profile.residual_bound_rad))
        cut_off = limits.low_pass_hz
        self._low_pass = None if cut_off is None else 1.0 - float(np.exp(-2.0 * np.pi * cut_off * dt))
        self._bounded = limits.brake_accel is not None or profile.effort_clamp_share is not None

        def both(upper: NDArray[np.float64], mirrored: NDArray[np.float64] | None = None) -> Any:
            # Both directions at once: a joint's lower limit is the upper one of its mirror image.
            pair = np.stack((upper, upper if mirrored is None else mirrored))
            return convert(pair.reshape(2, *(1,) * len(batch), n))

        # Of the shape of what they meet: for numpy, broadcasting takes longer than computing.
        self._mirror, self._zero = both(np.ones(n), -np.ones(n)), both(np.zeros(n))
        self._reversed, self._steep = both(np.full(n, _REVERSED)), both(np.full(n, -_UNBOUNDED))
        self._kp, self._kd = both(limits.kp), both(limits.kd)
        self._effort, self._least_effort = both(limits.effort), both(-limits.effort)
        clamp = profile.effort_clamp_share
        self._most_effort = None if clamp is None else both(clamp * limits.effort)
        self._clamped = clamp is not None and clamp <= 1.0
        self._accel = None if limits.brake_accel is None else both(limits.brake_accel)
        if limits.brake_accel is not None and limits.inertia is not None:
            # root = (A dt/2)² + 2 A gap, with what does not change in one constant.
            half = 0.5 * dt * limits.brake_accel
            room = [half**2 + 2.0 * limits.brake_accel * far for far in (limits.brake_upper, -limits.brake_lower)]
            self._room, self._half = both(room[0], room[1]), both(half)
            self._per_pos, self._per_vel = both(2.0 * limits.brake_accel), both(2.0 * half)
            self._inertia_per_s = both(limits.inertia / dt)
        shape = (*batch, n)
        self._step = convert(np.zeros(shape))
        self._stages = convert(np.zeros((len(MODIFICATIONS), *shape)))
        """The target after each of MODIFICATIONS."""
        self._changes = convert(np.zeros((len(MODIFICATIONS), *shape)))
        self._pos, self._vel, self._root, self._outward, self._torque = (
            convert(np.zeros((2, *shape))) for _ in range(5)
        )
        self._soft_kp = both(np.zeros(n))

    def limit(
        self,
        position: Any,
        reference: Any,
        joint_pos: Any,
        joint_vel: Any,
        age_s: float,
        *,
        policy: bool = True,
        base: Any | None = None,
        stiffness: float = 1.0,
        modified: Any | None = None,
    ) -> None:
        """Make `position` (*batch, n_joints) safe, in place. It must be finite, as must all else that is given.

        `reference` is the target of the last tick, `joint_pos` and `joint_vel` the measurement of age `age_s`, `base`
        the target that `position` corrects; `stiffness` the share of kp that is in force. `modified`, of bool and
        (len(MODIFICATIONS), *batch, n_joints), is set where a stage changed a target.

        Order: bound of the trained action (of a policy's target), residual bound, low-pass, rate limit, braking bound
        and effort clamp, soft joint limits.
        """
        keep = _ignore if modified is None else self._stages.__setitem__
        keep(0, position)
        if policy:
            self._clip(position, self._action_low, self._action_high)
        keep(1, position)
        if base is not None and self._residual is not None:
            self._clip_around(position, base, self._residual)
        keep(2, position)
        if policy and self._low_pass is not None:
            position -= reference
            position *= self._low_pass
            position += reference
        keep(3, position)
        self._clip_around(position, reference, self._max_step)
        keep(4, position)
        if self._bounded:
            self._bound(position, joint_pos, joint_vel, age_s, stiffness)
        keep(5, position)
        self._clip(position, self._soft_lower, self._soft_upper)
        keep(6, position)
        if modified is not None:
            self._mark(modified, 1, 6)

    def soft_start(self, position: Any, start: Any, blend: float, modified: Any | None = None) -> None:
        """Put `position` at the share `blend`, in [0, 1], of the way from `start`; in place, inside the soft limits."""
        self._stages[6] = position
        self._step[...] = start
        self._clip(self._step, self._soft_lower, self._soft_upper)
        position -= self._step
        position *= blend
        position += self._step
        # Rounding may have left the last bit outside.
        self._clip(position, self._soft_lower, self._soft_upper)
        self._stages[7] = position
        if modified is not None:
            self._mark(modified, 7, 7)

    def _bound(self, position: Any, joint_pos: Any, joint_vel: Any, age_s: float, stiffness: float) -> None:
        """The torque that a target asks for at the start of the tick, kp (target - q) - kd v, is kept to the profile's
        share of what the motor can give and, where the inertia is known, to what leaves room to stop before the limit.

        With A the acceleration that braking can count on, the greatest next velocity from which it can stop is
        v' = -A dt/2 + sqrt((A dt/2)² + 2 A gap), gap = limit - q - v dt/2, and the torque that leads there I (v' - v) /
        dt. q is the measured position predicted forward by the measurement's age. It is a bound given the inertia, not
        a guarantee.
        """
        xp, pos, vel = self._xp, self._pos, self._vel
        root, outward, torque = self._root, self._outward, self._torque
        age_s = age_s if age_s < self._most_age_s else self._most_age_s
        vel[...] = joint_vel
        vel *= self._mirror
        pos[...] = joint_pos
        pos *= self._mirror
        xp.multiply(vel, age_s, out=root)
        pos += root
        if self._accel is None:
            torque[...] = self._most_effort
        else:
            xp.multiply(pos, self._per_pos, out=root)
            xp.multiply(vel, self._per_vel, out=outward)
            root += outward
            xp.subtract(self._room, root, out=root)
            # torque = v' - v
            xp.maximum(root, self._zero, out=torque)
            xp.sqrt(torque, out=torque)
            torque -= self._half
            torque -= vel
            # Less what an outward velocity beyond the limit calls for: a factor without a branch, large where root < 0.
            root *= self._steep
            xp.multiply(vel, self._reversed, out=outward)
            xp.minimum(root, outward, out=root)
            xp.maximum(root, self._zero, out=root)
            torque -= root
            torque *= self._inertia_per_s
            if not self._clamped:
                # A torque that the motor cannot give bounds no target.
                xp.subtract(torque, self._effort, out=root)
                xp.maximum(root, self._zero, out=root)
                root *= self._steep
                torque -= root
            if self._most_effort is not None:
                xp.minimum(torque, self._most_effort, out=torque)
            xp.maximum(torque, self._least_effort, out=torque)
        # The target that asks for this torque: q + (kd v + torque) / kp.
        vel *= self._kd
        torque += vel
        torque /= self._kp if stiffness == 1.0 else xp.multiply(self._kp, max(stiffness, _LEAST_KP), out=self._soft_kp)
        torque += pos
        torque *= self._mirror
        self._clip(position, torque[1], torque[0])

    def _clip(self, value: Any, low: Any, high: Any) -> None:
        self._xp.maximum(value, low, out=value)
        self._xp.minimum(value, high, out=value)

    def _clip_around(self, value: Any, centre: Any, reach: Any) -> None:
        self._xp.subtract(centre, reach, out=self._step)
        self._xp.maximum(value, self._step, out=value)
        self._xp.add(centre, reach, out=self._step)
        self._xp.minimum(value, self._step, out=value)

    def _mark(self, modified: Any, first: int, last: int) -> None:
        """Note in `modified` what the stages from `first` to `last` have changed."""
        xp, change = self._xp, self._changes[first : last + 1]
        xp.subtract(self._stages[first : last + 1], self._stages[first - 1 : last], out=change)
        xp.absolute(change, out=change)
        xp.greater(change, ROUNDING_RAD, out=modified[first : last + 1])


def _ignore(stage: int, position: Any) -> None:
    pass
