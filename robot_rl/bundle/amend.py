"""Add to a bundle what was not known, or not asked, when it was exported. Policy, golden rows and contract stay as they
are, bit for bit."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from robot_rl.bundle.load import Bundle, load_bundle
from robot_rl.bundle.manifest import CARD_FILE, MANIFEST_FILE, FileEntry, Manifest
from robot_rl.contract import Contract, EpisodeSpec
from robot_rl.errors import BundleError

EPISODE_TITLE = "Begins with"


def write_section(path: Path, title: str, text: str) -> None:
    """Write the section "## `title`" into the card of the bundle folder `path`. Raises BundleError for a bundle that
    cannot be loaded, or a zip file: nothing beside it would be seen."""
    bundle = _load_folder(path)
    _rewrite(path, bundle.manifest, {CARD_FILE: with_section(bundle.card, title, text).encode()})


def write_episode(path: Path, episode: EpisodeSpec) -> None:
    """Write into the bundle folder `path`, manifest and card, how episodes begin. Raises BundleError likewise, and
    ContractError if a policy of its contract cannot have such episodes."""
    bundle = _load_folder(path)
    episode.check(bundle.contract)
    card = with_section(bundle.card, EPISODE_TITLE, episode_text(episode, bundle.contract))
    _rewrite(path, dataclasses.replace(bundle.manifest, episode=episode), {CARD_FILE: card.encode()})


def with_section(card: str, title: str, text: str) -> str:
    """The card with its section "## `title`" replaced, or else added before "Not checked", or at the end."""
    parts = ("\n" + card).split("\n## ")
    section = f"{title}\n\n{text.strip()}\n"
    titles = [part.split("\n", 1)[0].strip() for part in parts]
    if title in titles[1:]:
        at = titles.index(title, 1)
        parts[at : at + 1] = [section]
    else:
        at = titles.index("Not checked", 1) if "Not checked" in titles[1:] else len(parts)
        parts[at - 1] = parts[at - 1].rstrip("\n") + "\n"
        parts.insert(at, section)
    return "\n## ".join(parts).removeprefix("\n").rstrip("\n") + "\n"


def episode_text(episode: EpisodeSpec, contract: Contract) -> str:
    """What an operator must bring about before the policy may run, in Markdown."""
    pose = ", ".join(f"{j.name} {value:g}" for j, value in zip(contract.joints, episode.joint_pos_rad, strict=True))
    lines = [f"- joints, rad: {pose}"]
    if (start := episode.object) is not None:
        free = "" if not any(start.free_axis) else f" but for any turn about {start.free_axis}"
        lines += [
            f"- an object within {start.pos_tolerance_m:g} m of {start.pos_m} m, turned less than "
            f"{start.angle_tolerance_rad:g} rad from {start.quat_wxyz} (scalar first){free}, in the frame of the root "
            f"body; farther than {start.lost_distance_m:g} m it is lost"
        ]
    if (goals := episode.goals) is not None:
        low, high = goals.turn_rad
        lines += [
            f"- goals, each {low:.3g} to {high:.3g} rad about {goals.axis} from the one before, either way; reached "
            f"within {goals.tolerance_rad:g} rad"
        ]
    return "\n".join(lines)


def _load_folder(path: Path) -> Bundle:
    if not path.is_dir():
        raise BundleError(f"{path} is no folder: unpack the bundle to write into it")
    return load_bundle(path)


def _rewrite(path: Path, manifest: Manifest, files: Mapping[str, bytes]) -> None:
    """Replace files of a bundle, each whole, and at last the manifest. Before that a reader finds a digest that does
    not fit, and refuses."""
    entries = {**manifest.files, **{name: FileEntry.of(data) for name, data in files.items()}}
    text = dataclasses.replace(manifest, files=entries).to_json().encode()
    for name, data in {**files, MANIFEST_FILE: text}.items():
        temporary = path / f".{name}.tmp"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path / name)
