"""Run a log again: does the policy still say what it said, and do filter and modes still do what they did?

`replay_policy` gives the policy each tick's recorded state, command and memory, so that a difference belongs to its
tick and not to one before. `replay_safety` runs the controller over the recorded states, requests and answers of the
policy; what it remembers of earlier ticks is its own, so it needs a log that begins with the run and lacks no tick, and
after the first difference others may follow from it.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.load import Bundle
from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.contract import STATE_FIELDS, Command, Contract, NumpyState, RobotState
from robot_rl.contract.spec import dataclass_from
from robot_rl.errors import LogError
from robot_rl.robots import RobotSpec, SafetyProfile
from robot_rl.runtime.controller import Controller, Request
from robot_rl.runtime.interface import Health
from robot_rl.runtime.log_messages import messages
from robot_rl.runtime.log_reader import Log
from robot_rl.runtime.modes import Mode
from robot_rl.runtime.tick import Tick

Message = dict[str, Any]


@dataclass(frozen=True)
class Difference:
    """One value that came out otherwise."""

    tick: int
    t_s: float
    """Loop's clock."""
    term: str
    """What: a term of the observation, action, target, mode, applied, ..."""
    part: str
    """Joint, or place within the term; empty for what is one value."""
    recorded: float | str
    replayed: float | str

    @property
    def size(self) -> float:
        """Of numbers |difference| / max(1, |recorded|); infinite if only one of them is finite, or for words."""
        if isinstance(self.recorded, str) or isinstance(self.replayed, str):
            return np.inf
        difference = abs(self.replayed - self.recorded) / max(1.0, abs(self.recorded))
        return difference if np.isfinite(difference) else np.inf


@dataclass
class TermReport:
    """All that was compared of one term."""

    compared: int = 0
    """Ticks."""
    differing: int = 0
    first: Difference | None = None
    largest: Difference | None = None


@dataclass
class Replay:
    """What came out."""

    tolerance: float
    """Differences up to it are none."""
    terms: dict[str, TermReport] = dataclasses.field(default_factory=dict)
    skipped: dict[str, int] = dataclasses.field(default_factory=dict)
    """Why something was not compared -> how many ticks."""

    @property
    def same(self) -> bool:
        return not any(report.differing for report in self.terms.values())

    @property
    def compared(self) -> int:
        """Ticks of which anything was compared."""
        return max((report.compared for report in self.terms.values()), default=0)

    def skip(self, why: str, count: int = 1) -> None:
        self.skipped[why] = self.skipped.get(why, 0) + count

    def compare(self, tick: int, t_s: float, term: str, names: tuple[str, ...], recorded: Any, replayed: Any) -> None:
        """Hold one term of one tick against the record. NaN equals NaN."""
        report = self.terms.setdefault(term, TermReport())
        report.compared += 1
        found = _difference(tick, t_s, term, names, recorded, replayed)
        if found is None or found.size <= self.tolerance:
            return
        report.differing += 1
        report.first = report.first or found
        if report.largest is None or found.size > report.largest.size:
            report.largest = found


def _difference(
    tick: int, t_s: float, term: str, names: tuple[str, ...], recorded: Any, replayed: Any
) -> Difference | None:
    """The largest difference within a term; None if there is none."""
    if isinstance(recorded, str):
        return None if recorded == replayed else Difference(tick, t_s, term, "", recorded, str(replayed))
    before, after = np.atleast_1d(np.asarray(recorded, float)), np.atleast_1d(np.asarray(replayed, float))
    if before.shape != after.shape:
        return Difference(tick, t_s, term, "", f"{before.size} numbers", f"{after.size} numbers")
    with np.errstate(invalid="ignore"):
        size = np.abs(after - before) / np.maximum(1.0, np.abs(before))
    size = np.where((before == after) | (np.isnan(before) & np.isnan(after)), 0.0, size)
    size = np.where(np.isfinite(size), size, np.inf)
    if not size.any():
        return None
    worst = int(size.argmax())
    part = "" if len(names) != before.size else names[worst]
    return Difference(tick, t_s, term, part or (str(worst) if before.size > 1 else ""), before[worst], after[worst])


def replay_policy(log: Log, bundle: Bundle, tolerance: float) -> Replay:
    """Evaluate the policy on what it was given in each tick of the log in which it ran."""
    contract, result = bundle.contract, Replay(tolerance=tolerance)
    states = {message["tick"]: message for message in log.messages["/state"]}
    modes = {message["tick"]: message["mode"] for message in log.messages["/mode"]}
    joints = contract.joint_names
    terms = _term_spans(contract)
    for message in log.messages["/action"]:
        tick, t_s = message["tick"], message["t_s"]
        if Mode.RUN.value not in (modes.get(tick), modes.get(tick - 1)):
            result.skip("another policy was in charge")
            continue
        try:
            outputs = bundle.policy.run(_inputs(contract, states[tick], message))
        except (KeyError, ValueError) as error:
            # What was recorded is not what this contract asks for.
            result.skip(f"inputs are missing or of another size: {error}")
            continue
        for name, span in terms.items():
            result.compare(tick, t_s, f"obs/{name}", (), message["obs"][span], outputs["obs"][0][span])
        result.compare(tick, t_s, "target", joints, message["target"], outputs["joint_target"][0])
        if message["action"].size:
            result.compare(tick, t_s, "action", joints, message["action"], outputs["action"][0])
    return result


def _term_spans(contract: Contract) -> dict[str, slice]:
    """Term of the newest frame -> where it lies in obs. Older frames are part of what the policy was given."""
    start = (contract.history_length - 1) * sum(size for _, size in contract.observation_terms)
    spans = {}
    for name, size in contract.observation_terms:
        spans[name] = slice(start, start + size)
        start += size
    return spans


def _inputs(contract: Contract, state: Message, action: Message) -> dict[str, NDArray[Any]]:
    """What the graph was given. Raises ValueError if observation or memory are not as long as the contract says."""
    if action["obs"].size != contract.observation_dim:
        raise ValueError(f"obs has {action['obs'].size} numbers, the policy's has {contract.observation_dim}")
    inputs, at = {}, 0
    for spec in contract.inputs:
        size = int(np.prod(spec.shape))
        if spec.source == "state":
            inputs[spec.name] = state[spec.name]
        elif spec.source == "command":
            inputs[spec.name] = action["command"]
        elif spec.start == "observation":
            inputs[spec.name] = action["obs"][:size]
        else:
            inputs[spec.name] = action["memory"][at : at + size].reshape(spec.shape)
            at += size
    if at != action["memory"].size:
        raise ValueError(f"memory has {action['memory'].size} numbers, the policy takes {at}")
    return inputs


class _RecordedPolicy:
    """In place of a bundle's graph: gives the answer in the log, and fails where the policy failed."""

    def __init__(self, policy: OnnxPolicy) -> None:
        self._policy = policy
        self.metadata = policy.metadata
        self.answer: dict[str, NDArray[Any]] | None = None
        self.silent = False
        """The policy was asked in this tick, and did not answer."""

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        if self.silent:
            raise RuntimeError("the log has no answer")
        outputs = self._policy.run(inputs)
        return outputs if self.answer is None else {**outputs, **self.answer}


def replay_safety(log: Log, bundle: Bundle, robot: RobotSpec, tolerance: float) -> Replay:
    """Run modes and safety filter over the recorded run.

    Raises LogError where the log does not allow it: it must begin with the run and lack no tick.
    """
    ticks = [message["tick"] for message in log.messages["/mode"]]
    if ticks != list(range(len(ticks))):
        raise LogError("the filter remembers earlier ticks, and the log lacks its beginning or some of them")
    if any(message["mode"] == Mode.RECOVER.value for message in log.messages["/mode"]):
        raise LogError("a recovery policy took part in the run")
    result = Replay(tolerance=tolerance)
    policy = _RecordedPolicy(bundle.policy)
    profile = _profile(log)
    controller = Controller(
        dataclasses.replace(bundle, policy=policy),  # type: ignore[arg-type]
        # The profile in force may have been widened by a unit file, which a Controller does not do by itself.
        dataclasses.replace(robot, safety=profile),
        _loop_period_s(log),
    )
    before = Mode.INIT.value
    for rows in _by_tick(log):
        mode, action = rows["/mode"], rows.get("/action")
        running = Mode.RUN.value in (mode["mode"], before)
        policy.answer = _answer(action) if action is not None else None
        policy.silent = running and mode["note"].startswith("policy failed")
        tick = _step(controller, rows)
        _compare(result, rows, tick, robot.joint_names)
        before = mode["mode"]
    return result


def _profile(log: Log) -> SafetyProfile:
    try:
        return dataclass_from(SafetyProfile, json.loads(log.metadata["safety_profile"]), "safety_profile")
    except (KeyError, ValueError) as error:
        raise LogError(f"the log does not say what safety profile was in force: {error}") from error


def _loop_period_s(log: Log) -> float:
    text = log.metadata.get("loop_period_s", "")
    try:
        return float(text)
    except ValueError as error:
        raise LogError(f"the log gives {text!r} for its loop period") from error


def _by_tick(log: Log) -> Iterator[dict[str, Message]]:
    """Topic -> message of each tick in turn."""
    by_tick: dict[int, dict[str, Message]] = {}
    for topic, rows in log.messages.items():
        for message in rows:
            by_tick.setdefault(message["tick"], {})[topic] = message
    for _, topics in sorted(by_tick.items()):
        yield topics


def _answer(action: Message) -> dict[str, NDArray[Any]]:
    answer = {"joint_target": action["target"][None], "obs": action["obs"][None]}
    return {**answer, "action": action["action"][None]} if action["action"].size else answer


def _step(controller: Controller, rows: dict[str, Message]) -> Tick:
    """The tick, computed again from what was known at its beginning."""
    said, now_s = rows["/operator"], rows["/mode"]["t_s"]
    if said["request"]:
        if said["request"] not in set(Request):
            raise LogError(f"unknown request {said['request']!r}; valid: {', '.join(Request)}")
        controller.request(Request(said["request"]))
    if said["stop"]:
        controller.request(Request.ESTOP)
    controller.feed_deadman(now_s - said["deadman_age_s"])
    command = Command(said["command"], said["command_stamp_s"]) if said["command"].size else None
    return controller.step(_state(rows.get("/state")), command, now_s, health=_health(rows.get("/health")))


def _health(message: Message | None) -> Health | None:
    if message is None:
        return None
    values = {field.name: message[field.name] for field in dataclasses.fields(Health)}
    # What a robot does not know is recorded as an empty array, or as NaN.
    empty = [name for name, value in values.items() if np.size(value) == 0 or (np.ndim(value) == 0 and value != value)]
    return Health(**{**values, **dict.fromkeys(empty)})


def _state(message: Message | None) -> NumpyState | None:
    if message is None:
        return None
    # Every robot has joints; what else is empty was not measured.
    present = [n for n in STATE_FIELDS if message[n].size or n in ("joint_pos", "joint_vel")]
    fields = {name: message[name][None] for name in present}
    if not np.isnan(message["object_stamp_s"]):
        fields["object_stamp_s"] = np.array([message["object_stamp_s"]])
    return RobotState(stamp_s=np.array([message["stamp_s"]]), **fields)


def _compare(result: Replay, rows: dict[str, Message], tick: Tick, joints: tuple[str, ...]) -> None:
    mode = rows["/mode"]
    computed = dict(messages(tick, None, tick.command))
    recorded_rows = {
        "": (mode, computed["/mode"]),
        "margin/": (rows["/margins"], computed["/margins"]),
        "command/": (rows.get("/filtered") or rows["/command"], computed["/command"]),
    }
    for prefix, (recorded, replayed) in recorded_rows.items():
        for name, value in replayed.items():
            # The words of a note may be those of another version, or of a policy that failed.
            if name not in ("t_s", "note"):
                names = joints if len(np.atleast_1d(value)) == len(joints) else ()
                result.compare(mode["tick"], mode["t_s"], prefix + name, names, recorded[name], value)
