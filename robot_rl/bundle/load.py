"""Load a bundle: a folder or one zip of manifest.json, policy.onnx, golden.npz and CARD.md. No pickle, no torch."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.manifest import CARD_FILE, GOLDEN_FILE, MANIFEST_FILE, POLICY_FILE, FileEntry, Manifest
from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.contract import Contract
from robot_rl.errors import BundleError, ContractError

_MANIFEST_LIMIT = 16 * 1024 * 1024
"""A manifest larger than this is not one; do not read it into memory."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A loaded policy with everything that came with it."""

    path: Path
    manifest: Manifest
    policy: OnnxPolicy
    golden: dict[str, NDArray[np.float32]]
    """"in/<input>" and "out/<output>" -> (rows, *shape): what the trained policy computed before export."""
    card: str

    @property
    def contract(self) -> Contract:
        return self.manifest.contract


def load_bundle(path: Path | str) -> Bundle:
    """Read, check and prepare a bundle.

    Checks presence, size and digest of every file, the digests of manifest and contract, and names, shapes and types of
    the graph's inputs and outputs. Raises BundleError (or ContractError for a malformed contract) naming the file and
    both values. It does not replay the golden rows: `verify_bundle` does.
    """
    path = Path(path)
    read = _reader(path)
    try:
        manifest = Manifest.from_json(_text(MANIFEST_FILE, read(MANIFEST_FILE, _MANIFEST_LIMIT)))
        files = {name: _checked(name, read(name, entry.size), entry) for name, entry in manifest.files.items()}
        return Bundle(
            path=path,
            manifest=manifest,
            policy=OnnxPolicy(files[POLICY_FILE], manifest.contract),
            golden=_golden(files[GOLDEN_FILE], manifest.contract),
            card=_text(CARD_FILE, files[CARD_FILE]),
        )
    except (BundleError, ContractError) as error:
        raise type(error)(f"bundle {path}: {error}") from error


def _reader(path: Path) -> Callable[[str, int], bytes]:
    """Function (file name, most bytes wanted) -> up to one byte more than that, so that a caller sees an excess."""
    if path.is_dir():
        return lambda name, size: _read_file(path / name, size)
    if not path.exists():
        raise BundleError(f"bundle {path}: no such file or folder")
    if not zipfile.is_zipfile(path):
        raise BundleError(f"bundle {path}: neither a folder nor a complete zip file (truncated?)")
    return lambda name, size: _read_zipped(path, name, size)


def _read_file(path: Path, size: int) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(size + 1)
    except FileNotFoundError as error:
        raise BundleError(f"{path.name} is missing") from error
    except OSError as error:
        raise BundleError(f"{path.name} cannot be read: {error}") from error


def _read_zipped(path: Path, name: str, size: int) -> bytes:
    try:
        with zipfile.ZipFile(path) as archive, archive.open(name) as file:
            return file.read(size + 1)
    except KeyError as error:
        raise BundleError(f"{name} is missing") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
        raise BundleError(f"{name} cannot be read from the zip: {error}") from error


def _checked(name: str, data: bytes, entry: FileEntry) -> bytes:
    if len(data) != entry.size:
        more = "more than " if len(data) > entry.size else ""
        raise BundleError(f"{name}: {more}{min(len(data), entry.size)} bytes, the manifest says {entry.size}")
    found = FileEntry.of(data).sha256
    if found != entry.sha256:
        raise BundleError(f"{name}: sha256 is {found}, the manifest says {entry.sha256}")
    return data


def _text(name: str, data: bytes) -> str:
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BundleError(f"{name}: not UTF-8 text: {error}") from error


def _golden(data: bytes, contract: Contract) -> dict[str, NDArray[np.float32]]:
    expected = {f"in/{t.name}": t.shape for t in contract.inputs} | {f"out/{t.name}": t.shape for t in contract.outputs}
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, OSError, zipfile.BadZipFile, zlib.error) as error:
        raise BundleError(f"{GOLDEN_FILE}: cannot be read: {error}") from error
    if set(arrays) != set(expected):
        missing, extra = sorted(set(expected) - set(arrays)), sorted(set(arrays) - set(expected))
        raise BundleError(f"{GOLDEN_FILE}: lacks {missing}, contract lacks {extra}")
    rows = {len(a) if a.ndim else 0 for a in arrays.values()}
    if len(rows) != 1 or 0 in rows:
        raise BundleError(f"{GOLDEN_FILE}: arrays must have equally many rows, at least one; got {sorted(rows)}")
    for name, shape in expected.items():
        array = arrays[name]
        if array.dtype != np.float32 or array.shape[1:] != shape:
            raise BundleError(
                f"{GOLDEN_FILE}: {name} is {array.dtype} {array.shape[1:]} per row, the contract says float32 {shape}"
            )
        if not np.isfinite(array).all():
            raise BundleError(
                f"{GOLDEN_FILE}: {name} is not finite in row {int(np.argwhere(~np.isfinite(array))[0][0])}"
            )
    return arrays
