import html.parser
import json
import math
import re
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robot_rl.bundle.load import load_bundle
from robot_rl.errors import LogError
from robot_rl.report.flight import write_flight_page
from robot_rl.report.flight_data import flight_data
from robot_rl.report.flight_plots import POINTS, thinned
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.controller import Request
from robot_rl.runtime.log_reader import Log, read_log
from robot_rl.runtime.recorder import Recorder
from robot_rl.runtime.safety import MODIFICATIONS
from robot_rl.testing.bundles import TinyPolicy
from robot_rl.testing.flights import PERIOD_S, Flight


@pytest.fixture(scope="module")
def flown(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Flight]:
    """Up to RUN with targets that the filter limits, then an emergency stop."""
    folder = tmp_path_factory.mktemp("report")
    policy = TinyPolicy(LEAP_HAND, action_scale_rad=0.8, weight_scale=0.3)
    flight = Flight(load_bundle(policy.write(folder / "bundle")))
    with Recorder(folder / "log.mcap", flight.controller) as recorder:
        for row in flight.ticks(120):
            recorder.record(*row)
        flight.controller.request(Request.ESTOP)
        for row in flight.ticks(20):
            recorder.record(*row)
    return folder / "log.mcap", flight


@pytest.fixture
def log(flown: tuple[Path, Flight]) -> Log:
    return read_log(flown[0])


def test_figures_are_those_of_the_run(flown: tuple[Path, Flight], log: Log) -> None:
    ticks = [tick for tick, _, _ in flown[1].rows]
    data = flight_data(log)
    assert data.time_s[-1] == pytest.approx(139 * PERIOD_S)
    assert data.share("run") == sum(t.mode.value == "run" for t in ticks) / 140
    for number, reason in enumerate(MODIFICATIONS):
        np.testing.assert_array_equal(data.modified[reason], sum(t.modified[number] for t in ticks))
        assert data.modified_ticks[reason] == sum(t.modified[number].any() for t in ticks)
    assert data.modified_ticks["rate_limit"] > 0
    (trip,) = [change for change in data.changes if change.trip]
    assert (trip.time_s, trip.cause) == (pytest.approx(120 * PERIOD_S), "operator_stop")
    assert [c.what for c in data.changes if "operator" in c.what][:2] == ["operator: stand", "operator: run"]
    assert next(iter(data.margins)) == "operator_stop"
    assert "tilt" not in data.margins


def test_tracking_is_sent_less_measured_while_stiff(flown: tuple[Path, Flight], log: Log) -> None:
    stiff = [(t, s, c) for t, s, c in flown[1].rows if t.mode.value in ("stand", "run") and s is not None]
    error = np.array([sent.position - state.joint_pos[0] for _, state, sent in stiff])
    tracking = flight_data(log).tracking
    assert tracking is not None
    np.testing.assert_allclose(tracking.rms, np.sqrt((error**2).mean(0)))
    np.testing.assert_allclose(tracking.largest, np.abs(error).max(0))


class _Links(html.parser.HTMLParser):
    """Collects what a page would fetch, and checks that its tags are closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []
        self.scripts = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.scripts += tag == "script"
        self.links += [
            v for k, v in attrs if k in ("src", "href", "xlink:href") and v and not v.startswith(("#", "data:"))
        ]
        if tag not in ("meta", "br", "img", "link", "input"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def parse(path: Path) -> _Links:
    page = _Links()
    page.feed(path.read_text())
    assert not page.open
    return page


def test_the_page_is_whole_and_fetches_nothing(log: Log, tmp_path: Path) -> None:
    write_flight_page(log, tmp_path / "page.html", "log.mcap")
    page = parse(tmp_path / "page.html")
    assert (page.links, page.scripts) == ([], 0)
    text = (tmp_path / "page.html").read_text()
    titles = re.findall("<h2>(.*?)</h2>", text)
    assert titles == [
        "What the robot did", "Changes", "Margins of the checks", "Tracking", "Timing",
        "What the safety filter changed", "About the log",
    ]  # fmt: skip
    assert text.count("<svg") >= 6
    for name in LEAP_HAND.joint_names:
        assert name in text


def test_words_in_a_log_stay_words(log: Log, tmp_path: Path) -> None:
    """Not markup, not a formula."""
    evil = "<script>alert(1)</script>$\\frac{"
    assert log.contract is not None
    joints = (replace(log.contract.joints[0], name=evil), *log.contract.joints[1:])
    log.metadata.update(robot=evil, task=evil, **{evil: evil})
    for message in log.messages["/mode"][-25:]:
        message.update(cause=evil, note=evil, mode="damp")
    write_flight_page(replace(log, contract=replace(log.contract, joints=joints)), tmp_path / "page.html", evil)
    assert parse(tmp_path / "page.html").scripts == 0


def test_short_logs_and_those_without_a_tick(log: Log, tmp_path: Path) -> None:
    one = {topic: [m for m in messages if m["tick"] == 0] for topic, messages in log.messages.items()}
    write_flight_page(replace(log, messages=one), tmp_path / "one.html", "one")
    parse(tmp_path / "one.html")
    with pytest.raises(LogError, match="holds no tick"):
        flight_data(replace(log, messages={topic: [] for topic in log.messages}))


def test_thinning_keeps_every_spike() -> None:
    time_s, values = np.arange(100_000.0), np.sin(np.arange(100_000) / 3000)
    spikes = 4_321 * np.arange(1, 21) + np.arange(20)
    values[spikes] = np.linspace(5, 10, 20) * (-1.0) ** np.arange(20)
    values[500:520] = math.nan
    at, kept = thinned(time_s, values)
    assert len(at) <= 2 * POINTS
    assert set(spikes) <= set(at.astype(int))
    np.testing.assert_array_equal(kept, values[at.astype(int)])


def test_the_verb_needs_neither_torch_nor_mujoco_and_reads_a_cut_log(
    flown: tuple[Path, Flight], tmp_path: Path
) -> None:
    program = textwrap.dedent("""
        import sys
        for name in ("torch", "mujoco", "rclpy", "onnx"):
            sys.modules[name] = None
        from pathlib import Path
        from robot_rl.commands.report import ReportArgs, run
        log, result = map(Path, sys.argv[1:])
        run(ReportArgs(log)).write(result)
    """)
    data = flown[0].read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(data[: len(data) // 2])
    subprocess.run([sys.executable, "-c", program, cut, tmp_path / "r.json"], check=True, capture_output=True)
    rows = {row["name"]: row["value"] for row in json.loads((tmp_path / "r.json").read_text())["rows"]}
    assert rows["page"] == str(tmp_path / "cut.html")
    assert rows["ticks"] == len(read_log(cut).messages["/mode"]) < 140
    parse(tmp_path / "cut.html")
    assert "The log has no end" in (tmp_path / "cut.html").read_text()
