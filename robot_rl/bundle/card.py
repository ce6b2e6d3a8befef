"""Add what was found out later to a bundle's card; policy, golden rows and contract stay as they are, bit for bit."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from robot_rl.bundle.load import load_bundle
from robot_rl.bundle.manifest import CARD_FILE, MANIFEST_FILE, FileEntry
from robot_rl.errors import BundleError


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


def write_section(path: Path, title: str, text: str) -> None:
    """Write a section into the card of the bundle folder `path`, and the manifest with the card's new digest.

    Each file is replaced whole. Between the two a reader finds a digest that does not fit, and refuses. Raises
    BundleError for a bundle that cannot be loaded, or a zip file: nothing beside it would be seen.
    """
    if not path.is_dir():
        raise BundleError(f"{path} is no folder: unpack the bundle to write into its card")
    bundle = load_bundle(path)
    card = with_section(bundle.card, title, text).encode()
    files = {**bundle.manifest.files, CARD_FILE: FileEntry.of(card)}
    manifest = dataclasses.replace(bundle.manifest, files=files).to_json().encode()
    for name, data in ((CARD_FILE, card), (MANIFEST_FILE, manifest)):
        temporary = path / f".{name}.tmp"
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path / name)
