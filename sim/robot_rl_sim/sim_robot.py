"""SimRobot: one robot in MuJoCo behind RobotInterface, with the flaws of a real one.

It is what a policy meets before the hardware: torque limits, sensor latency, noise and loss, an encoder offset, and
dynamics that differ from those of training. Sensors and motors are those of training (robot_rl_sim.sensors and
robot_rl_sim.motors), with flaws of their own. It has no thread: physics catches up with the clock whenever the robot is
read or written, so the same code runs in real time and, under a fake clock, step by step.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from dataclasses import fields
from typing import TYPE_CHECKING

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray

from robot_rl.bundle.manifest import Manifest
from robot_rl.contract import JointCommand, NumpyState, RobotState
from robot_rl.errors import ConfigError, ContractError
from robot_rl.robots import RobotSpec
from robot_rl.runtime.interface import Clock, MonotonicClock
from robot_rl_sim.backends.addresses import state_columns
from robot_rl_sim.backends.state_view import StateView
from robot_rl_sim.draws import Draws
from robot_rl_sim.models import default_qpos, reach_m
from robot_rl_sim.motors import Motors
from robot_rl_sim.object_scene import ObjectScene
from robot_rl_sim.sensor_readings import OBJECT
from robot_rl_sim.sensors import Sensors
from robot_rl_sim.sim_robot_config import MISMATCHED, SimRobotConfig, make_model

# The gantry: a critically damped 5 Hz spring on the robot's mass, and a torque that a humanoid's trunk cannot overcome.
_GANTRY_RAD_S = 2 * math.pi * 5.0
_GANTRY_NM_RAD = 1000.0
_GANTRY_NMS_RAD = 20.0

_CPU, _WORLD = torch.device("cpu"), torch.arange(1)
_MOST_ROWS = 1000
"""Of physics steps that nobody has read."""

if TYPE_CHECKING:
    from robot_rl_sim.robot_film import RobotFilm

Array = NDArray[np.float64]


class SimRobot:
    """One simulated robot; a RobotInterface.

    Joint torque is `kp (position - q) + kd (velocity - dq) + effort` of the command in force, computed at every physics
    step, clipped to the joint's limit. A command is in force until it expires; before the first one, and after
    expiry, the joints are damped with the robot's own gains. A `scene` adds an object, which a person holds until
    `place_object`. Raises ConfigError for a payload on an unknown body.
    """

    def __init__(
        self,
        spec: RobotSpec,
        config: SimRobotConfig = MISMATCHED,
        *,
        seed: int = 0,
        clock: Clock | None = None,
        model: mujoco.MjModel | None = None,
        scene: ObjectScene | None = None,
    ) -> None:
        self.spec = spec
        self.config = config
        self.clock: Clock = clock if clock is not None else MonotonicClock()
        self.suspended = False
        """While true, the trunk of a floating base hangs where it started, upright, as from a gantry."""
        self.slipped_s = 0.0
        """Simulated time given up because the machine could not keep pace."""
        self.damping = True
        """Whether the last physics step only damped, by command or on its own."""
        self.on_step: Callable[[], None] | None = None
        """Called after every physics step, by whoever measures."""
        self.scene = scene
        self._model = make_model(spec, config, scene.model if scene is not None else model)
        self._data = mujoco.MjData(self._model)
        self._rng = np.random.default_rng(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self._motors = Motors.of(spec, config.motors)
        self._damping_kd = np.array(spec.safety.damping_kd_nms_rad)
        joints = [self._model.joint(name) for name in spec.joint_names]
        self._qpos = np.array([j.qposadr[0] for j in joints])
        self._dof = np.array([j.dofadr[0] for j in joints])
        self._columns = state_columns(self._model, (torch.from_numpy(self._qpos), torch.from_numpy(self._dof)))
        # Where a person would fix the straps. Held by the pelvis, a limp humanoid's trunk would fold over it.
        self._trunk = int(self._model.body_mass.argmax())
        self._connected = False
        self._torque, self._torque_noise = np.zeros(len(joints)), np.zeros(len(joints))
        self.torque_asked = np.zeros(len(joints))
        """(n_joints,) N m of the last physics step, before the motors' limits."""
        self._rows: list[tuple[Array, ...]] = []
        """States after the physics steps that the sensors have not been told of."""
        draws = Draws()
        fields = ("joint_effort", *(f for f in spec.state_fields if scene is not None or f not in OBJECT))
        body = None if scene is None else scene.body
        self._sensors = Sensors(self._now(), spec, fields, config.sensors, draws, body)
        draws.allocate(1, _CPU)
        draws.draw(_WORLD, self._generator)
        self.reset()
        bias = self._sensors.joint_bias
        self._bias = np.zeros(len(joints)) if bias is None else bias[0].double().numpy()

    def _now(self) -> StateView:
        """The present state, live."""
        return self._view(self._data.qpos[None], self._data.qvel[None], self._torque[None], self._data.sensordata[None])

    def _view(self, *arrays: Array) -> StateView:
        return StateView(self._model, self._columns, *(torch.from_numpy(a) for a in arrays))

    def reset(self) -> None:
        """Back to the start pose at the clock's now, with no command and no measurement under way."""
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = default_qpos(self._model, self.spec)
        mujoco.mj_forward(self._model, self._data)
        self._trunk_pos, self._trunk_quat = self._data.xipos[self._trunk].copy(), self._data.xquat[self._trunk].copy()
        self._upright_quat = self._trunk_quat.copy()
        self._torque[:] = 0.0
        self._command: JointCommand | None = None
        self._under_way: deque[tuple[float, JointCommand]] = deque()
        """Commands that the motors do not know of yet, with the times when they will."""
        self._state: NumpyState | None = None
        self._placed_at: int | None = None
        """Physics step in which the object was let go; None: a person still holds it out of the camera's sight."""
        self._start_s = self.clock.now()
        self._steps = self._read_at = 0
        self._rows.clear()
        self._sensors.reset(_WORLD)

    def hoist(self) -> None:
        """Hang a floating base so high that no limb reaches the ground, for policies that do not balance it.

        Call it before anything moves. A fixed base stays as it is.
        """
        if self.spec.floating_base:
            self.suspended = True
            lift = reach_m(self._model, self.spec) - self._data.body(self.spec.root_body).xpos[2]
            self._data.qpos[2] += lift
            mujoco.mj_forward(self._model, self._data)
            self._trunk_pos[2] += lift
            self._sensors.reset(_WORLD)

    def tilt_gantry(self, rotation: Array) -> None:
        """Turn what a suspended trunk hangs on from upright, by a rotation vector (3,) rad about the trunk's axes."""
        turned, angle = np.zeros(4), float(np.linalg.norm(rotation))
        mujoco.mju_axisAngle2Quat(turned, rotation / max(angle, 1e-12), angle)
        mujoco.mju_mulQuat(self._trunk_quat, self._upright_quat, turned)

    def place_object(self) -> None:
        """Put the object where an episode of its task begins, as a person would, and let go. Raises ConfigError for a
        robot without one."""
        if self.scene is None:
            raise ConfigError(f"robot {self.spec.name!r} is alone: there is no object to place")
        qpos, dofs = self.scene.columns
        self._data.qpos[qpos] = self.scene.start_pose(self._generator).numpy()
        self._data.qvel[dofs] = 0.0
        self._placed_at = self._steps

    @property
    def object_placed_s(self) -> float | None:
        """Since when nobody holds the object, on the clock; None: somebody does, or there is none."""
        return None if self._placed_at is None else self._time_of(self._placed_at)

    def film(self) -> RobotFilm:
        """A film of what happens from now on; whoever runs the robot tells it of each tick."""
        from robot_rl_sim.robot_film import RobotFilm  # which imports what draws

        return RobotFilm(self._model, self._data, None if self.scene is None else self.scene.mdp)

    @property
    def time_s(self) -> float:
        """How far physics has come, on the clock."""
        return self._start_s + self._steps * self.config.timestep_s

    @property
    def joint_pos(self) -> Array:
        """(n_joints,) true positions, rad."""
        return self._data.qpos[self._qpos]

    @property
    def joint_vel(self) -> Array:
        """(n_joints,) true velocities, rad/s."""
        return self._data.qvel[self._dof]

    @property
    def model(self) -> mujoco.MjModel:
        return self._model

    @property
    def data(self) -> mujoco.MjData:
        """Live physics state, to render from."""
        return self._data

    def connect(self) -> None:
        """Start the clock of physics now; measurements arrive from here on."""
        if not self._connected:
            self.reset()
            self._connected = True

    def read(self) -> NumpyState | None:
        self.advance()
        if self._steps == self._read_at:
            return self._state
        self._read_at = self._steps
        self._observe()
        if self._sensors.arrived():
            state = self._sensors.read(self._generator)
            measured = {f.name: getattr(state, f.name) for f in fields(state)}
            arrays = {name: value.double().numpy() for name, value in measured.items() if value is not None}
            arrays |= {"stamp_s": np.array([self._time_of(float(self._sensors.sample_steps))])}
            self._state = RobotState(**self._with_object(arrays))
        return self._state

    def _time_of(self, steps: float) -> float:
        return self._start_s + steps * self.config.timestep_s

    def _with_object(self, arrays: dict[str, Array]) -> dict[str, Array]:
        """A state's fields with the time of the picture, or without the object while no picture shows it."""
        if self.scene is None:
            return arrays
        steps = float(self._sensors.object_sample_steps)
        if self._placed_at is None or steps <= self._placed_at:
            return {name: value for name, value in arrays.items() if name not in OBJECT}
        return arrays | {"object_stamp_s": np.array([self._time_of(steps)])}

    def write(self, command: JointCommand) -> JointCommand:
        """Put a command in force. Raises ContractError naming the field that is not finite or has the wrong length."""
        for name in ("position", "velocity", "effort", "kp", "kd"):
            values = getattr(command, name)
            if np.shape(values) != self._torque.shape or not np.isfinite(values).all():
                raise ContractError(f"joint command: {name} must be {len(self._torque)} finite numbers, got {values}")
        self.advance()
        self._under_way.append((self.time_s + self.config.command_latency_s, command))
        return command

    def stop(self) -> None:
        self._command = None
        self._under_way.clear()

    def __enter__(self) -> SimRobot:
        self.connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def advance(self) -> None:
        """Step physics up to the clock's now."""
        now = self.clock.now()
        behind = now - self.time_s - self.config.catch_up_s
        if behind > 0:
            self._start_s += behind
            self.slipped_s += behind
        # Half a step of tolerance: the clock's deadlines and sums of steps round differently.
        while self.time_s + 0.5 * self.config.timestep_s < now:
            self._step()

    def _step(self) -> None:
        while self._under_way and self._under_way[0][0] < self.time_s + 1e-9:
            self._command = self._under_way.popleft()[1]
            share = self.config.torque_noise_share
            self._torque_noise = share * self._motors.effort_limit * self._rng.uniform(-1, 1, len(self._torque))
        command = self._command
        if command is None or self.time_s >= command.expires_s:
            torque = -self._damping_kd * self.joint_vel
            self.damping = True
        else:
            error = command.position - (self.joint_pos + self._bias)
            torque = command.kp * error + command.kd * (command.velocity - self.joint_vel) + command.effort
            torque += self._torque_noise
            self.damping = not (command.kp.any() or command.effort.any())
        self.torque_asked[:] = torque
        self._torque[:] = self._motors.torque(torque, self.joint_vel, self.config.strength_scale)
        self._data.qfrc_applied[self._dof] = self._torque
        if self.spec.floating_base:
            self._data.xfrc_applied[self._trunk] = self._gantry_wrench() if self.suspended else 0.0
        mujoco.mj_step(self._model, self._data)
        if self.scene is not None and self._placed_at is None:
            # Above the robot, where the model has it.
            qpos, dofs = self.scene.columns
            self._data.qpos[qpos], self._data.qvel[dofs] = self._model.qpos0[qpos], 0.0
        self._steps += 1
        data = self._data
        self._rows.append((data.qpos.copy(), data.qvel.copy(), self._torque.copy(), data.sensordata.copy()))
        if len(self._rows) == _MOST_ROWS:
            self._observe()
        if self.on_step is not None:
            self.on_step()

    def _observe(self) -> None:
        """Let the sensors see what has happened since they last looked."""
        if not self._rows:
            return
        self._sensors.update(self._view(*(np.stack(column)[None] for column in zip(*self._rows, strict=True))))
        self._rows.clear()

    def _gantry_wrench(self) -> Array:
        """(6,) force and torque on the trunk, world frame: the whole weight, and a spring-damper to the start pose."""
        trunk, data = self._trunk, self._data
        mass = self._model.body_subtreemass[0]
        lean, twist = np.zeros(3), np.zeros(6)
        mujoco.mju_subQuat(lean, self._trunk_quat, data.xquat[trunk])
        mujoco.mj_objectVelocity(self._model, data, mujoco.mjtObj.mjOBJ_BODY, trunk, twist, 0)
        force = mass * (_GANTRY_RAD_S**2 * (self._trunk_pos - data.xipos[trunk]) - 2 * _GANTRY_RAD_S * twist[3:])
        torque = data.xmat[trunk].reshape(3, 3) @ lean * _GANTRY_NM_RAD - _GANTRY_NMS_RAD * twist[:3]
        return np.concatenate((force - mass * self._model.opt.gravity, torque))


def connect(spec: RobotSpec, manifest: Manifest | None = None) -> SimRobot:
    """Driver entry point: `spec` with dynamics that training has not seen, connected; a floating base hangs. With the
    manifest of a bundle whose policy reads an object's pose comes the object of its task."""
    robot = SimRobot(spec, scene=None if manifest is None else ObjectScene.of(manifest.task))
    robot.suspended = spec.floating_base
    robot.connect()
    return robot
