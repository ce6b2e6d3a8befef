import os
import signal
from collections.abc import Iterator

import pytest
from machine_stalls import StallMeter

# Tests run side by side on few cores, where torch's spinning threads cost far more than they give.
os.environ.setdefault("OMP_NUM_THREADS", "1")

REPEATS = 2
_meter = pytest.StashKey[StallMeter]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """A test that keeps real time is repeated if it failed while the machine stood still."""

    def stalled() -> bool:
        return bool(config.stash[_meter].since_mark())

    for item in items:
        if item.get_closest_marker("ros") or item.get_closest_marker("realtime"):
            item.add_marker(pytest.mark.flaky(reruns=REPEATS, condition=stalled))


@pytest.fixture(scope="session")
def stall_meter(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StallMeter]:
    with StallMeter(tmp_path_factory.mktemp("stalls") / "stalls.txt") as meter:
        pytestconfig.stash[_meter] = meter
        yield meter


@pytest.fixture(autouse=True)
def _stalls_are_of_this_test(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("flaky"):
        request.getfixturevalue("stall_meter").mark()


@pytest.fixture
def hangup_is_heard() -> Iterator[None]:
    """Also where the tests run under nohup, which makes all that they start ignore it."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)
