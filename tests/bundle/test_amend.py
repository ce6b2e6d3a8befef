"""What is written into a bundle later: it still loads, and nothing but that has changed."""

from pathlib import Path

import pytest

from robot_rl.bundle.amend import with_section, write_episode, write_section
from robot_rl.bundle.load import load_bundle
from robot_rl.bundle.verify import verify_bundle
from robot_rl.contract import EpisodeSpec
from robot_rl.errors import BundleError, ContractError
from robot_rl.robots import LEAP_HAND
from robot_rl.testing.bundles import TinyPolicy

CARD = "# A policy\n\nFirst words.\n\n## Action\n\nSome.\n\n## Not checked\n\nAll else.\n"


def test_a_new_section_comes_before_what_was_not_checked() -> None:
    card = with_section(CARD, "Backups", "A table.\n")
    assert card == CARD.replace("## Not checked", "## Backups\n\nA table.\n\n## Not checked")


def test_a_section_is_replaced_where_it_stands() -> None:
    once = with_section(CARD, "Backups", "A table.")
    assert with_section(once, "Backups", "Another.") == once.replace("A table.", "Another.")
    assert with_section(once, "Backups", "A table.") == once


def test_a_card_without_sections() -> None:
    assert with_section("# A policy\n", "Backups", "A table.") == "# A policy\n\n## Backups\n\nA table.\n"


def test_the_bundle_stays_whole_and_the_policy_as_it_was(tmp_path: Path) -> None:
    path = TinyPolicy(LEAP_HAND).write(tmp_path / "bundle", card=CARD)
    (path / "GATE.md").write_text("passed")
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    old = load_bundle(path)
    write_section(path, "Backups", "| tier |\n|---|\n| damp |")
    new = load_bundle(path)
    assert "## Backups\n\n| tier |" in new.card
    assert verify_bundle(new, LEAP_HAND).ok
    after = {p.name: p.read_bytes() for p in path.iterdir()}
    assert {name for name in before if before[name] != after[name]} == {"CARD.md", "manifest.json"}
    assert set(after) == set(before)
    assert new.contract.digest() == old.contract.digest()
    assert new.manifest.created_utc == old.manifest.created_utc
    # Digests are still those of the files: one byte more, and the bundle is refused.
    with (path / "CARD.md").open("a") as card:
        card.write(" ")
    with pytest.raises(BundleError, match=r"CARD.md"):
        load_bundle(path)


def test_a_zip_file_is_refused_by_name(tmp_path: Path) -> None:
    path = TinyPolicy(LEAP_HAND).write(tmp_path / "bundle.zip")
    with pytest.raises(BundleError, match=r"bundle\.zip is no folder"):
        write_section(path, "Backups", "")


def test_how_episodes_begin_comes_into_manifest_and_card_and_nothing_else_changes(tmp_path: Path) -> None:
    path = TinyPolicy(LEAP_HAND).write(tmp_path / "bundle", card=CARD)
    before, old = {p.name: p.read_bytes() for p in path.iterdir()}, load_bundle(path)
    episode = EpisodeSpec(tuple(j.default_pos_rad + 0.1 for j in LEAP_HAND.joints))
    write_episode(path, episode)
    new = load_bundle(path)
    assert new.manifest.episode == episode
    assert "## Begins with\n\n- joints, rad: if_mcp 0.7, if_rot 0.1," in new.card
    assert verify_bundle(new, LEAP_HAND).ok
    assert {n for n, data in before.items() if (path / n).read_bytes() != data} == {"CARD.md", "manifest.json"}
    assert new.manifest.contract_digest == old.manifest.contract_digest
    assert new.manifest.files["golden.npz"] == old.manifest.files["golden.npz"]


def test_an_episode_of_another_robot_is_refused_and_the_bundle_left_alone(tmp_path: Path) -> None:
    path = TinyPolicy(LEAP_HAND).write(tmp_path / "bundle", card=CARD)
    before = {p.name: p.read_bytes() for p in path.iterdir()}
    with pytest.raises(ContractError, match="3 joint_pos_rad for 16 joints"):
        write_episode(path, EpisodeSpec((0.0, 0.0, 0.0)))
    assert {p.name: p.read_bytes() for p in path.iterdir()} == before
