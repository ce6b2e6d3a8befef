"""What a model's sensors read, from the states of the bodies that they sit on: Isaac Gym has no such sensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import mujoco
import torch
from torch import Tensor

from robot_rl.networks.rotation import in_body, multiply, rotate


@dataclass(frozen=True, slots=True)
class Motion:
    """Of the point that a sensor sits at, in the world, as the last physics step began."""

    position: Tensor
    """(n, 3) m, from the world's origin."""
    quat_wxyz: Tensor
    """(n, 4)."""
    velocity: Tensor
    """(n, 3) m/s."""
    spin: Tensor
    """(n, 3) rad/s."""
    felt: Tensor
    """(n, 3) m/s², acceleration without gravity's share."""
    contact_force: Tensor
    """(n, 3) N, on the whole body after that step."""


def _touch(m: Motion) -> Tensor:
    return torch.linalg.vector_norm(m.contact_force, dim=-1, keepdim=True)


_READ: dict[int, Callable[[Motion], Tensor]] = {
    int(mujoco.mjtSensor.mjSENS_ACCELEROMETER): lambda m: in_body(m.felt, m.quat_wxyz),
    int(mujoco.mjtSensor.mjSENS_GYRO): lambda m: in_body(m.spin, m.quat_wxyz),
    int(mujoco.mjtSensor.mjSENS_FRAMEPOS): lambda m: m.position,
    int(mujoco.mjtSensor.mjSENS_FRAMEQUAT): lambda m: m.quat_wxyz,
    int(mujoco.mjtSensor.mjSENS_FRAMELINVEL): lambda m: m.velocity,
    int(mujoco.mjtSensor.mjSENS_TOUCH): _touch,
    # 1 or 0 where MuJoCo counts contacts.
    int(mujoco.mjtSensor.mjSENS_CONTACT): lambda m: (_touch(m) > 0).to(m.position.dtype),
}
_SITE, _BODY, _XBODY = (int(k) for k in (mujoco.mjtObj.mjOBJ_SITE, mujoco.mjtObj.mjOBJ_BODY, mujoco.mjtObj.mjOBJ_XBODY))
_CONTACT, _FOUND = int(mujoco.mjtSensor.mjSENS_CONTACT), 1


@dataclass(frozen=True, slots=True)
class Sensor:
    """One sensor of the model that can be read: accelerometer, gyro, framepos, framequat, framelinvel, touch, or a
    contact sensor that tells how many contacts a body has."""

    name: str
    body: int
    kind: int
    address: int
    pos: Tensor
    """(3,) of its site in the body's frame."""
    quat_wxyz: Tensor
    """(4,)."""

    def read(self, before: Tensor, after: Tensor, com: Tensor, gravity: Tensor, dt: float) -> Tensor:
        """(n, size), from the body's states (n, 16): position, xyzw, velocity of the centre of mass, angular velocity,
        contact force. `com` (n, 3) is the centre of mass in the body's frame, `gravity` (n, 3) that of each world."""
        position, xyzw, _, spin, _ = before.split((3, 4, 3, 3, 3), dim=1)
        body = xyzw.roll(1, 1)
        start, end = self._velocity(before, com), self._velocity(after, com)
        motion = Motion(
            position + rotate(self.pos.expand_as(position), body),
            multiply(body, self.quat_wxyz.expand_as(body)),
            start,
            spin,
            (end - start) / dt - gravity,
            after[:, 13:],
        )
        return _READ[self.kind](motion)

    def _velocity(self, state: Tensor, com: Tensor) -> Tensor:
        """(n, 3) m/s of the site."""
        _, xyzw, linear, spin, _ = state.split((3, 4, 3, 3, 3), dim=1)
        return linear + torch.linalg.cross(spin, rotate(self.pos - com, xyzw.roll(1, 1)))


def readable(model: mujoco.MjModel) -> dict[str, Sensor]:
    """The sensors that can be read, by name."""
    found = {}
    for i in range(model.nsensor):
        kind, place, at = int(model.sensor_type[i]), int(model.sensor_objtype[i]), int(model.sensor_objid[i])
        counts = kind != _CONTACT or (int(model.sensor_intprm[i, 0]), int(model.sensor_dim[i])) == (_FOUND, 1)
        # What a foot of a robot touches, its own links left out (see isaac_gym_assets), is the world.
        references = (-1, 0) if kind == _CONTACT else (-1,)
        if kind not in _READ or place not in (_SITE, _BODY, _XBODY) or not counts:
            continue
        if int(model.sensor_refid[i]) not in references:
            continue
        name, body = model.sensor(i).name, at
        pos, quat = torch.zeros(3), torch.tensor([1.0, 0.0, 0.0, 0.0])
        if place == _SITE:
            body = int(model.site_bodyid[at])
            pos, quat = (torch.from_numpy(x[at]).float() for x in (model.site_pos, model.site_quat))
        elif place == _BODY and kind != _CONTACT:
            continue  # the frame of the principal axes
        found[name] = Sensor(name, body, kind, int(model.sensor_adr[i]), pos, quat)
    return found
