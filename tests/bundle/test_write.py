from pathlib import Path

import pytest

from robot_rl.bundle import write
from robot_rl.bundle.load import load_bundle
from robot_rl.errors import BundleError
from robot_rl.robots import LEAP_HAND
from robot_rl.testing.bundles import TinyPolicy

TINY = TinyPolicy(LEAP_HAND)


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_never_overwrites_unasked(tmp_path: Path, name: str) -> None:
    path = TINY.write(tmp_path / name, task="first")
    with pytest.raises(BundleError, match="exists"):
        TINY.write(path, task="second")
    assert load_bundle(path).manifest.task == "first"
    TINY.write(path, task="second", overwrite=True)
    assert load_bundle(path).manifest.task == "second"
    assert [p.name for p in tmp_path.iterdir()] == [name]


def test_never_overwrites_a_folder_that_is_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("only copy")
    with pytest.raises(BundleError, match="no bundle"):
        TINY.write(tmp_path / "home", overwrite=True)
    assert (tmp_path / "home" / "thesis.txt").read_text() == "only copy"


@pytest.mark.parametrize("name", ["bundle", "bundle.zip"])
def test_a_full_disk_leaves_the_old_bundle_and_nothing_else(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = TINY.write(tmp_path / name, task="first")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(write.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        TINY.write(path, task="second", overwrite=True)
    assert load_bundle(path).manifest.task == "first"
    assert [p.name for p in tmp_path.iterdir()] == [name]
