"""Emulator: a simulated robot in real time behind the topics of a real one, with faults on demand.

Publishes `joint_states`, for a robot with an IMU `imu/data`, and under its own name `~/status` (std_msgs/String, JSON)
and `~/ground_truth` (sensor_msgs/JointState without noise, latency and fault). Obeys `joint_command` until each
command's time to live has passed, then damps on its own. The parameters `fault`, `suspended` and `camera` may be set at
run time.

With a `bundle` whose policy goes by an object's pose, the object of its task is there as well. A person holds it until
`~/place_object` (std_srvs/Trigger) is called, as often as it may be needed; from then on a camera sees it, and
`object_pose` tells where (see `object_topics`).
"""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

from geometry_msgs.msg import PoseStamped
from rcl_interfaces.msg import SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter
from sensor_msgs.msg import Imu, JointState
from std_msgs.msg import Float64MultiArray, String
from std_srvs.srv import Trigger

from robot_rl.bundle.load import load_bundle
from robot_rl.contract import JointCommand, NumpyState
from robot_rl.errors import ConfigError
from robot_rl.robots import get_robot, robot_names
from robot_rl.runtime.signals import stop_on_signals
from robot_rl_bridge import converters, object_topics, ros_compat
from robot_rl_bridge.receiver import CommandReceiver
from robot_rl_bridge.ros_compat import ParameterSpec
from robot_rl_bridge.ros_robot import COMMAND_TOPIC, IMU_TOPIC, STATE_TOPIC
from robot_rl_sim.faults.state import STATE_FAULT_NAMES, make_state_fault
from robot_rl_sim.object_scene import ObjectScene
from robot_rl_sim.sim_robot import SimRobot
from robot_rl_sim.sim_robot_config import MISMATCHED, NOMINAL, SimRobotConfig

STATUS_PERIOD_S = 0.05
PRESETS = {"mismatched": MISMATCHED, "nominal": NOMINAL}

NODE_PARAMETERS = (
    ParameterSpec("robot", "leap_hand", "Robot to emulate.", choices=robot_names()),
    ParameterSpec("bundle", "", "Policy bundle whose task's object is there too; empty, or without one: none."),
    ParameterSpec("rate_hz", 200.0, "Rate at which states are published.", 10.0, 1000.0),
    ParameterSpec("seed", 0, "Seed of noise, loss, latency and encoder offsets.", 0, 2**31 - 1),
    ParameterSpec("preset", "mismatched", "What the sim.* parameters start from.", choices=tuple(PRESETS)),
    ParameterSpec("fault", "none", "Fault of the published states.", choices=STATE_FAULT_NAMES, at_run_time=True),
    ParameterSpec("suspended", False, "Hang a floating base from a gantry; false lets go.", at_run_time=True),
    ParameterSpec("camera", True, "Whether the camera sees the object.", at_run_time=True),
    object_topics.FRAME,
    ros_compat.PRIORITY,
    ros_compat.CORES,
)


def sim_parameters(preset: SimRobotConfig) -> tuple[ParameterSpec, ...]:
    """One parameter `sim.<field>` for each field of SimRobotConfig; SimRobotConfig itself checks the values."""
    return tuple(
        ParameterSpec(f"sim.{f.name}", getattr(preset, f.name), f"SimRobotConfig.{f.name}")
        for f in dataclasses.fields(preset)
    )


PARAMETERS = (*NODE_PARAMETERS, *sim_parameters(MISMATCHED))


class EmulatorNode(Node):
    """Wires one SimRobot to topics."""

    def __init__(self) -> None:
        super().__init__("emulator", enable_rosout=False)
        preset = self._preset()
        values = ros_compat.declare_parameters(self, (*NODE_PARAMETERS, *sim_parameters(preset)))
        config = SimRobotConfig(**{f.name: values[f"sim.{f.name}"] for f in dataclasses.fields(SimRobotConfig)})
        ros_compat.schedule(self, values)
        self.spec = get_robot(values["robot"])
        self.period_s = 1.0 / values["rate_hz"]
        scene = _scene(values["bundle"])
        self.robot = SimRobot(self.spec, config, seed=values["seed"], scene=scene)
        self._camera, self._object_frame = values["camera"], object_topics.frame_of(values, self.spec)
        self._picture_s = -1.0
        self.robot.suspended = values["suspended"]
        self._set_fault(values["fault"])
        self._order = converters.JointOrder(self.spec.joint_names, extra_allowed=False)
        self._receiver = CommandReceiver()
        self._accepted = self._published = 0
        self._last_stamp_s = self._sent_stamp_s = -1.0
        self._damping_since_s = time.monotonic()
        self._damping = True
        self._next_status_s = 0.0
        self._joints = self.create_publisher(JointState, STATE_TOPIC, ros_compat.SENSOR_QOS)
        has_imu = "imu_quat_wxyz" in self.spec.state_fields
        self._imu = self.create_publisher(Imu, IMU_TOPIC, ros_compat.SENSOR_QOS) if has_imu else None
        self._object = None
        if scene is not None:
            self._object = self.create_publisher(PoseStamped, object_topics.POSE_TOPIC, ros_compat.SENSOR_QOS)
            self.create_service(Trigger, "~/place_object", self._on_place)
        self._truth = self.create_publisher(JointState, "~/ground_truth", ros_compat.SENSOR_QOS)
        self._status = self.create_publisher(String, "~/status", ros_compat.STATUS_QOS)
        self.create_subscription(Float64MultiArray, COMMAND_TOPIC, self._on_command, ros_compat.COMMAND_QOS)
        self.add_on_set_parameters_callback(self._on_parameters)

    def _preset(self) -> SimRobotConfig:
        """The preset is needed before the other parameters can be declared with its values as defaults."""
        override = getattr(self, "_parameter_overrides", {}).get("preset")
        name = "mismatched" if override is None else override.value
        return PRESETS.get(name, MISMATCHED)

    def tick(self) -> None:
        """Bring physics up to now, and publish what was measured since the last tick."""
        state = self.robot.read()
        now = time.monotonic()
        self._watch_damping(now)
        if state is not None and state.stamp_s[0] > self._last_stamp_s:
            self._last_stamp_s = float(state.stamp_s[0])
            for arriving in self._fault(state, now):
                self._publish(arriving, now)
            self._publish_object(state)
        if self._truth.get_subscription_count():
            pos, vel = self.robot.joint_pos, self.robot.joint_vel
            self._truth.publish(converters.encode_joint_state(self.spec.joint_names, time.time(), pos, vel, None))
        if now >= self._next_status_s:
            self._next_status_s = now + STATUS_PERIOD_S
            self._status.publish(String(data=json.dumps(self.status())))

    def status(self) -> dict[str, Any]:
        """What a demonstration or test asks of the robot's side. Times are s on this host's monotonic clock."""
        return {
            "robot": self.spec.name,
            "time_s": time.monotonic(),
            "fault": self._fault_name,
            "fault_since_s": self._fault_since_s,
            "last_state_s": self._sent_stamp_s,
            "states_published": self._published,
            "damping": self._damping,
            "damping_since_s": self._damping_since_s,
            "commands_accepted": self._accepted,
            "commands_rejected": dict(self._receiver.rejected),
            "last_rejection": self._receiver.last_rejection,
            "suspended": self.robot.suspended,
            "object_placed": self.robot.object_placed_s is not None,
            "slipped_s": self.robot.slipped_s,
        }

    def _publish(self, state: NumpyState, now: float) -> None:
        # The header carries the time of measurement on the wall clock, as a driver's would.
        stamp_s = time.time() - (now - float(state.stamp_s[0]))
        effort = None if state.joint_effort is None else state.joint_effort[0]
        self._joints.publish(
            converters.encode_joint_state(
                self.spec.joint_names, stamp_s, state.joint_pos[0], state.joint_vel[0], effort
            )
        )
        if self._imu is not None:
            assert state.imu_quat_wxyz is not None
            assert state.imu_ang_vel_b is not None
            assert state.imu_lin_acc_b is not None
            imu = (state.imu_quat_wxyz[0], state.imu_ang_vel_b[0], state.imu_lin_acc_b[0])
            self._imu.publish(converters.encode_imu(stamp_s, self.spec.root_body, *imu))
        self._published += 1
        self._sent_stamp_s = float(state.stamp_s[0])

    def _publish_object(self, state: NumpyState) -> None:
        """Each picture once."""
        if self._object is None or not self._camera or state.object_stamp_s is None:
            return
        picture_s = float(state.object_stamp_s[0])
        if picture_s > self._picture_s:
            assert state.object_pos is not None
            assert state.object_quat_wxyz is not None
            self._picture_s = picture_s
            stamp_s = time.time() - (time.monotonic() - picture_s)
            pose = (state.object_pos[0], state.object_quat_wxyz[0])
            self._object.publish(object_topics.encode_pose(self._object_frame, stamp_s, *pose))

    def _on_place(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        self.robot.place_object()
        response.success = True
        return response

    def _set_fault(self, name: str) -> None:
        self._fault, self._fault_name = make_state_fault(name, self.spec), name
        self._fault_since_s = time.monotonic()

    def _watch_damping(self, now: float) -> None:
        if self.robot.damping != self._damping:
            self._damping, self._damping_since_s = self.robot.damping, now

    def _on_command(self, message: Float64MultiArray) -> None:
        now = time.monotonic()
        try:
            received = converters.decode_joint_command(message, self._order)
        except converters.MessageError as error:
            self._receiver.reject_malformed(error)
            return
        command: JointCommand | None = self._receiver.accept(received, now)
        if command is not None:
            self.robot.write(command)
            self._accepted += 1

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        specs = {spec.name: spec for spec in NODE_PARAMETERS}
        try:
            for parameter in parameters:
                ros_compat.check_parameter(specs[parameter.name], parameter.value)
                if parameter.name == "fault":
                    make_state_fault(str(parameter.value), self.spec)
        except (ConfigError, KeyError) as error:
            return SetParametersResult(successful=False, reason=str(error))
        for parameter in parameters:
            if parameter.name == "fault":
                self._set_fault(str(parameter.value))
            elif parameter.name == "suspended":
                self.robot.suspended = bool(parameter.value)
            elif parameter.name == "camera":
                self._camera = bool(parameter.value)
        return SetParametersResult(successful=True)


def _scene(path: str) -> ObjectScene | None:
    """What the bundle's policy handles; None if it reads no object's pose, or there is no bundle."""
    if not path:
        return None
    bundle = load_bundle(path)
    return ObjectScene.of(bundle.manifest.task) if bundle.contract.reads_object else None


def main() -> int:
    """Run in real time, at absolute deadlines, until SIGINT, SIGTERM or SIGHUP."""
    with stop_on_signals() as stop, ros_compat.ros_context() as executor:
        node = EmulatorNode()
        executor.add_node(node)
        clock = ros_compat.RosClock(executor)
        node.robot.connect()
        deadline_s = clock.now()
        while not stop:
            # A deadline missed by more than a period is given up, not caught up with in a burst.
            deadline_s = max(deadline_s + node.period_s, clock.now())
            clock.sleep_until(deadline_s)
            node.tick()
        print(f"{node.get_name()}: {json.dumps(node.status())}", flush=True)
    return 0


def console() -> None:
    raise SystemExit(ros_compat.run_node(main))


if __name__ == "__main__":
    console()
