"""Policy node: a lifecycle node that runs one bundle on the robot behind the topics of `ros_robot`.

configure   loads the bundle, replays its golden rows on this machine and checks it against the robot; refuses with the
            reason otherwise
activate    refuses until the robot is connected: states arrive, somebody hears our commands, nobody else sends any;
            then the control loop starts, without torque
deactivate  ends the loop; damping is streamed for a second

Services `~/stand`, `~/run`, `~/stop`, `~/estop`, `~/reset` (std_srvs/Trigger) answer when granted or refused.
`~/command` (std_msgs/Float64MultiArray) takes the policy's command, `cmd_vel` that of a policy for velocities,
`goal_orientation` that of one that turns an object, whose pose it hears on `object_pose` (see `object_topics`);
`~/deadman` (std_msgs/Bool) the operator's button, `estop` (std_msgs/Bool, true stops) anybody's. `~/mode`
(std_msgs/String, latched) tells the mode, /diagnostics everything. SIGINT, SIGTERM and SIGHUP damp for a second, then
end the process.

Joint commands go to `~/joint_command`, which the watchdog node passes on to the robot.

One thread: the loop's clock serves callbacks until the next deadline. Nothing here knows how to control a robot; the
controller and the loop of robot_rl.runtime do.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import QuaternionStamped, Twist, TwistStamped
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.task import Future
from std_msgs.msg import Bool, Float64MultiArray, String
from std_srvs.srv import Trigger

from robot_rl.bundle.load import Bundle, load_bundle
from robot_rl.contract import Command
from robot_rl.errors import ConfigError, RobotRLError
from robot_rl.robots import robot_names
from robot_rl.runtime.controller import Controller, Request, Tick
from robot_rl.runtime.loop import run
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.recorder import Recorder
from robot_rl.runtime.signals import stop_on_signals
from robot_rl_bridge import object_topics, ros_compat
from robot_rl_bridge.converters import MessageError, decode_command, twist_command
from robot_rl_bridge.pace import StatePace
from robot_rl_bridge.requests import Answer, PendingRequest
from robot_rl_bridge.ros_compat import ParameterSpec
from robot_rl_bridge.ros_robot import RosRobot
from robot_rl_bridge.status import TOPIC as STATUS_TOPIC
from robot_rl_bridge.status import Level, status_message
from robot_rl_bridge.watchdog_node import ESTOP_TOPIC

COMMAND_TOPIC = "~/joint_command"
STATUS_PERIOD_S = 0.1
RIVAL_PERIOD_S = 1.0
"""How often to look for a second sender of commands."""
WINDOW_TICKS = 1000
"""Ticks over which the status gives percentiles."""

PARAMETERS = (
    ParameterSpec("bundle", "", "Policy bundle to run: a folder or a zip file."),
    ParameterSpec("recovery", "", "Bundle of a policy that takes over after a soft trip; empty: none."),
    ParameterSpec("robot", "leap_hand", "Robot that the topics lead to.", choices=robot_names()),
    ros_compat.UNIT,
    ParameterSpec("loop_rate_hz", 100.0, "Rate of the control loop; a multiple of the policy's rate.", 10.0, 1000.0),
    ParameterSpec("follow_states", True, "Begin a tick when its state arrives, not by this host's clock alone."),
    ParameterSpec("cmd_vel", "twist_stamped", "Type of the topic cmd_vel.", choices=("twist_stamped", "twist", "none")),
    ParameterSpec("log", "", "MCAP file to record every tick to; empty: no record. Never overwritten: see the status."),
    object_topics.FRAME,
    ros_compat.PRIORITY,
    ros_compat.CORES,
)


class PolicyNode(LifecycleNode):
    """Wires one Controller to topics and services."""

    def __init__(self) -> None:
        super().__init__("policy", enable_rosout=False)
        values = ros_compat.declare_parameters(self, PARAMETERS)
        ros_compat.schedule(self, values)
        self.problem = ""
        """Why the last transition failed, or who else sends commands; empty if all is well."""
        self.finished = False
        self.spec, thresholds = ros_compat.robot_of(values)
        for line in thresholds:
            print(f"{self.get_name()}: {line}", flush=True)
        self._bundle_path, self._recovery_path, self._log_path = values["bundle"], values["recovery"], values["log"]
        self._loop_period_s = 1.0 / values["loop_rate_hz"]
        self._follow_states = values["follow_states"]
        self._bundle: Bundle | None = None
        self._recovery: Bundle | None = None
        self._controller: Controller | None = None
        """While active: what the loop runs."""
        self._robot = RosRobot(self, self.spec, COMMAND_TOPIC, watchdog=True)
        self._object_frame = object_topics.frame_of(values, self.spec)
        self._object = object_topics.ObjectInput(self, self._object_frame, self._reject)
        self._recorder: Recorder | None = None
        self._running = False
        self._command: Command | None = None
        self._pending: tuple[PendingRequest, Future[Answer]] | None = None
        self._tick: Tick | None = None
        self._ticks = 0
        self._last_note = ""
        self._latency_s: deque[float] = deque(maxlen=WINDOW_TICKS)
        self._age_s: deque[float] = deque(maxlen=WINDOW_TICKS)
        self._next_status_s = self._next_rival_s = 0.0
        self._status = self.create_publisher(DiagnosticArray, STATUS_TOPIC, ros_compat.STATUS_QOS)
        self.create_subscription(Float64MultiArray, "~/command", self._on_command, ros_compat.COMMAND_QOS)
        self.create_subscription(Bool, "~/deadman", self._on_deadman, ros_compat.COMMAND_QOS)
        ros_compat.hear_all(self, Bool, ESTOP_TOPIC, self._on_estop)
        if values["cmd_vel"] != "none":
            kind = Twist if values["cmd_vel"] == "twist" else TwistStamped
            self.create_subscription(kind, "cmd_vel", self._on_twist, ros_compat.COMMAND_QOS)
        goal_topic = object_topics.GOAL_TOPIC
        self.create_subscription(QuaternionStamped, goal_topic, self._on_goal, ros_compat.COMMAND_QOS)
        self._mode = self.create_publisher(String, "~/mode", ros_compat.LATCHED_QOS)
        self._tell_mode()
        for request in Request:
            # rclpy awaits a coroutine, but its types do not say so.
            callback: Any = functools.partial(self._on_request, request)
            self.create_service(Trigger, f"~/{request.value}", callback)

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt(self._configure)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt(self._activate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt(self._end_loop)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        return self._attempt(self._clean_up)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        # A node without its loop has nothing left to do: main ends.
        self.finished = True
        return self._attempt(self._end_loop)

    def _attempt(self, transition: Callable[[], None]) -> TransitionCallbackReturn:
        """Success, or failure with the reason in `problem`: rclpy drops exceptions without a word."""
        try:
            transition()
            self.problem = ""
        except Exception as error:
            self.problem = str(error) if isinstance(error, RobotRLError) else f"{type(error).__name__}: {error}"
            self.get_logger().error(self.problem)
        self.publish_status()
        return TransitionCallbackReturn.FAILURE if self.problem else TransitionCallbackReturn.SUCCESS

    def _configure(self) -> None:
        if not self._bundle_path:
            raise ConfigError("parameter bundle is empty: give the path of a policy bundle")
        self._bundle = load_bundle(self._bundle_path)
        self._recovery = load_bundle(self._recovery_path) if self._recovery_path else None
        # Built to prove that it can be: this replays the golden rows and checks joints, limits, gains and rates.
        self._make_controller()
        # Opened now, so that topics can match before activation asks whether they did.
        self._robot.open()

    def _activate(self) -> None:
        self._refuse_while_damping()
        self._robot.connect()
        self._command = None
        self._object.forget()
        controller = self._make_controller()
        if self._log_path:
            self._recorder = Recorder(self._log_path, controller)
        self._controller = controller

    def _end_loop(self) -> None:
        self._controller = None

    def _clean_up(self) -> None:
        self._refuse_while_damping()
        self._robot.close()
        self._bundle = None

    @property
    def active(self) -> bool:
        return self._controller is not None

    def run_loop(self, clock: ros_compat.RosClock) -> str:
        """Run until deactivated or told to stop; returns why it ended. The robot is damped on every way out."""
        controller = self._controller
        assert controller is not None
        self._running = True
        self._latency_s.clear()
        self._age_s.clear()
        pace = StatePace(self.executor, lambda: self._robot.stamp_s, self._loop_period_s)
        try:
            report = run(
                controller,
                object_topics.RobotWithObject(self._robot, self._object),
                clock,
                until=lambda _: self._controller is not controller,
                get_command=lambda _: self._command,
                on_tick=self._on_tick,
                recorder=self._recorder,
                wait_for_state=pace if self._follow_states else None,
            )
            return report.reason
        finally:
            self._running = False
            self._tick = None
            self._tell_mode()
            if self._recorder is not None:
                self._recorder.close()
            self._answer(Answer(False, "the control loop has ended"))

    def publish_status(self) -> None:
        """Publish now."""
        self._next_status_s = time.monotonic() + STATUS_PERIOD_S
        level, summary, values = self._describe()
        self._status.publish(status_message(self.get_name(), "policy", self.spec.name, level, summary, values))

    @property
    def _mode_name(self) -> str:
        return "none" if self._tick is None else self._tick.mode.value

    def _tell_mode(self) -> None:
        self._mode.publish(String(data=self._mode_name))

    def _make_controller(self) -> Controller:
        assert self._bundle is not None
        return Controller(self._bundle, self.spec, self._loop_period_s, recovery=self._recovery)

    def _refuse_while_damping(self) -> None:
        if self._running:
            raise RobotRLError("the last run is still being damped out; try again in a second")

    def _on_tick(self, tick: Tick) -> None:
        """After every tick: answer whoever asked, and tell how things are."""
        now = time.monotonic()
        self._ticks += 1
        self._latency_s.append(now - tick.now_s)
        self._age_s.append(tick.age_s)
        changed = self._tick is None or (tick.mode, tick.cause) != (self._tick.mode, self._tick.cause)
        self._tick = tick
        self._last_note = tick.note or self._last_note
        if self._pending is not None and (answer := self._pending[0].judge(tick)) is not None:
            self._answer(answer)
        if now >= self._next_rival_s:
            self._next_rival_s = now + RIVAL_PERIOD_S
            self.problem = ros_compat.publisher_problem(self, COMMAND_TOPIC, ros_compat.COMMAND_QOS) or ""
        if changed:
            self._tell_mode()
        if changed or now >= self._next_status_s:
            self.publish_status()

    def _describe(self) -> tuple[Level, str, dict[str, Any]]:
        tick, robot = self._tick, self._robot
        values: dict[str, Any] = {
            "mode": self._mode_name,
            "cause": "none" if tick is None else tick.cause.value,
            "problem": self.problem,
            "bundle": self._bundle_path,
            "ticks": self._ticks,
            "rejected_messages": sum(robot.rejected.values()),
            "last_rejection": robot.last_rejection,
            "time_s": time.monotonic(),
        }
        if self._recorder is not None:
            values |= {"log": str(self._recorder.path), "log_dropped": self._recorder.dropped}
        if tick is None or self._controller is None:
            return ("error" if self.problem else "ok"), self.problem or "no control loop", values
        values |= {
            "severity": tick.severity.name.lower(),
            "margin": tick.margin,
            "age_s": tick.age_s,
            "note": self._last_note,
            "tick_s": tick.now_s,
            "policy_s": tick.policy_s,
            "modified": int(self._controller.modifications.sum()),
            **_percentiles("latency", self._latency_s),
            **_percentiles("age", self._age_s),
        }
        level: Level = "ok"
        if tick.cause.value != "none" or self.problem:
            level = "error" if tick.mode in (Mode.DAMP, Mode.FAULT) else "warn"
        return level, f"{tick.mode.value}: {tick.cause.value}", values

    def _on_command(self, message: Float64MultiArray) -> None:
        spec = None if self._bundle is None else self._bundle.contract.command
        try:
            if spec is None:
                raise MessageError("the policy takes no command" if self._bundle else "no bundle is loaded")
            self._command = decode_command(message, spec.shape[0], time.monotonic())
        except MessageError as error:
            self._robot.reject("command", error)

    def _on_twist(self, message: Twist | TwistStamped) -> None:
        spec = None if self._bundle is None else self._bundle.contract.command
        try:
            self._command = twist_command(message, spec, time.monotonic())
        except MessageError as error:
            self._robot.reject("cmd_vel", error)

    def _on_goal(self, message: QuaternionStamped) -> None:
        spec = None if self._bundle is None else self._bundle.contract.command
        try:
            self._command = object_topics.decode_goal(message, self._object_frame, spec, time.monotonic())
        except MessageError as error:
            self._reject(object_topics.GOAL_TOPIC, error)

    def _reject(self, topic: str, error: MessageError) -> None:
        """Count it, and say it once: a camera in the wrong frame sends 30 such messages per second."""
        if f"{topic}: {error}" != self._robot.last_rejection:
            self.get_logger().error(f"{topic}: {error}")
        self._robot.reject(topic, error)

    def _on_estop(self, message: Bool) -> None:
        if message.data and self._controller is not None:
            self._controller.request(Request.ESTOP)

    def _on_deadman(self, message: Bool) -> None:
        if message.data and self._controller is not None:
            self._controller.feed_deadman(time.monotonic())

    async def _on_request(self, request: Request, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        future = self._ask(request)
        await future
        answer = future.result()
        assert answer is not None
        response.success, response.message = answer.granted, answer.reason
        return response

    def _ask(self, request: Request) -> Future[Answer]:
        """The answer, which a later tick gives. An emergency stop overtakes what is pending."""
        future: Future[Answer] = Future(executor=self.executor)
        if self._controller is None:
            future.set_result(Answer(False, f"{request.value} refused: the node is not active"))
        elif self._pending is not None and request != Request.ESTOP:
            pending = self._pending[0].request.value
            future.set_result(Answer(False, f"{request.value} refused: {pending} is still pending"))
        else:
            self._answer(Answer(False, "overtaken by an emergency stop"))
            self._controller.request(request)
            self._pending = (PendingRequest(request), future)
        return future

    def _answer(self, answer: Answer) -> None:
        if self._pending is not None:
            self._pending[1].set_result(answer)
            self._pending = None


def _percentiles(name: str, values: deque[float]) -> dict[str, float]:
    p50, p99 = np.percentile(values, [50, 99])
    return {f"{name}_p50_s": float(p50), f"{name}_p99_s": float(p99), f"{name}_max_s": max(values)}


def main() -> int:
    """Serve the lifecycle, and the control loop while active, until SIGINT, SIGTERM, SIGHUP or shutdown."""
    with stop_on_signals() as stop, ros_compat.ros_context(coroutines=True) as executor:
        node = PolicyNode()
        executor.add_node(node)
        clock = ros_compat.RosClock(executor)
        while not (stop or node.finished):
            if not node.active:
                clock.sleep_until(clock.now() + STATUS_PERIOD_S)
                node.publish_status()
                continue
            reason = node.run_loop(clock)
            print(f"{node.get_name()}: control loop ended: {reason}", flush=True)
            if reason != "until":
                break
    return 0


def console() -> None:
    raise SystemExit(ros_compat.run_node(main))


if __name__ == "__main__":
    console()
