"""Logs whose file is intact and whose content is not: whoever reads one refuses it or copes."""

import dataclasses
import math
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from robot_rl.bundle.load import Bundle, load_bundle
from robot_rl.data import log as log_dataset
from robot_rl.errors import RobotRLError
from robot_rl.report.flight_data import flight_data
from robot_rl.robots import LEAP_HAND
from robot_rl.runtime.log_reader import Log, read_log
from robot_rl.runtime.replay import replay_policy, replay_safety
from robot_rl.testing.flights import record

NUMBERS = (0.0, -1.0, math.nan, math.inf, -math.inf, 1e308, -1e308, 5e-324)
TEXTS = ("", "run", "fault", "policy failed", "estop", "\x00", "<b>$", "x" * 1000)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("garbage")
    record(folder / "log.mcap", folder, count=90)
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder / "bundle")


@pytest.fixture(scope="module")
def whole(folder: Path) -> Log:
    return read_log(folder / "log.mcap")


def spoiled(log: Log, seed: int, count: int) -> Log:
    """With `count` fields replaced by something of the same kind."""
    rng = random.Random(seed)
    messages = {topic: [dict(m) for m in rows] for topic, rows in log.messages.items()}
    metadata = dict(log.metadata)
    for _ in range(count):
        topic = rng.choice([t for t, rows in messages.items() if rows])
        message = rng.choice(messages[topic])
        name = rng.choice(sorted(set(message) - {"tick"}))
        value = message[name]
        if isinstance(value, np.ndarray):
            size = rng.choice((0, 1, value.size, value.size, value.size + 1))
            message[name] = np.array([rng.choice(NUMBERS) for _ in range(size)]).astype(value.dtype, casting="unsafe")
        elif isinstance(value, str):
            message[name] = rng.choice(TEXTS)
        else:
            message[name] = type(value)(rng.choice(NUMBERS)) if isinstance(value, float) else rng.choice((0, 1))
        if rng.random() < 0.2:
            metadata[rng.choice(sorted(metadata))] = rng.choice(("", "0", "-1", "nan", "{}", "[]", '{"x": 1}', "{"))
    return dataclasses.replace(log, messages=messages, metadata=metadata)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 2**32), count=st.integers(1, 40))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nobody_stumbles_over_what_a_log_says(whole: Log, bundle: Bundle, seed: int, count: int) -> None:
    log = spoiled(whole, seed, count)
    for use in (
        lambda: flight_data(log),
        lambda: replay_policy(log, bundle, 1e-4),
        lambda: replay_safety(log, bundle, LEAP_HAND, 1e-4),
        lambda: dataset(log),
    ):
        try:
            use()
        except RobotRLError as error:
            # One sentence for whoever sees it, not the inside of a library.
            assert 0 < len(str(error)) < 2000  # noqa: PT017


def dataset(log: Log) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(log_dataset, "read_log", lambda path: log)
        log_dataset.read(Path("made.mcap"))
