"""Load a bundle: a folder or one zip of manifest.json, policy.onnx, golden.npz and CARD.md. No pickle, no torch.

A bundle may come from anywhere, and whoever made it can make its digests right. So nothing is unpacked to disk, links
are not followed, sizes are checked before anything is read or allocated, and whatever else is wrong with it ends in a
BundleError.
"""

from __future__ import annotations

import contextlib
import io
import math
import os
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.manifest import CARD_FILE, GOLDEN_FILE, MANIFEST_FILE, POLICY_FILE, FileEntry, Manifest
from robot_rl.bundle.policy import OnnxPolicy
from robot_rl.contract import Contract
from robot_rl.errors import BundleError, ContractError

MANIFEST_BYTES = 2**20
MOST_BYTES = {POLICY_FILE: 2**28, GOLDEN_FILE: 2**27, CARD_FILE: 2**22}
"""Of each file; a hundred times what policies need."""
GOLDEN_BYTES = 2**28
"""Of all golden rows, unpacked."""
_DIRECTORY_BYTES = 2**20
"""Of a zip's list of files."""
_DIRECTORY_END = struct.Struct("<4s4H2LH")


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
    try:
        read = _reader(path)
        manifest = Manifest.from_json(_text(MANIFEST_FILE, read(MANIFEST_FILE, MANIFEST_BYTES)))
        for name, entry in manifest.files.items():
            if not 0 <= entry.size <= MOST_BYTES[name]:
                raise BundleError(f"{name}: the manifest says {entry.size} bytes; valid: 0 to {MOST_BYTES[name]}")
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
    except Exception as error:
        # Parsers raise whatever comes to them on what was made to break them.
        raise BundleError(f"bundle {path}: malformed: {type(error).__name__} {str(error)[:200]}") from error


def _reader(path: Path) -> Callable[[str, int], bytes]:
    """Function (file name, most bytes wanted) -> up to one byte more than that, so that a caller sees an excess."""
    if path.is_dir():
        return lambda name, size: _read_file(path / name, size)
    if not path.exists():
        raise BundleError("no such file or folder")
    if not path.is_file() or not zipfile.is_zipfile(path):
        raise BundleError("neither a folder nor a complete zip file (truncated?)")
    _check_directory(path)
    return lambda name, size: _read_zipped(path, name, size)


def _read_file(path: Path, size: int) -> bytes:
    try:
        # A link may lead anywhere, and reading a pipe may never end.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        with open(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise BundleError(f"{path.name} is no regular file")
            return file.read(size + 1)
    except FileNotFoundError as error:
        raise BundleError(f"{path.name} is missing") from error
    except OSError as error:
        why = "a symbolic link; put the file itself there" if path.is_symlink() else str(error)
        raise BundleError(f"{path.name} cannot be read: {why}") from error


def _check_directory(path: Path) -> None:
    """Raise BundleError for a zip whose list of files is absurd, ambiguous, or leads out of the bundle."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16 - _DIRECTORY_END.size))
        end = file.read()
    at = end.rfind(b"PK\x05\x06")
    if at < 0 or len(end) - at < _DIRECTORY_END.size:
        raise BundleError("not a complete zip file (truncated?)")
    size = _DIRECTORY_END.unpack_from(end, at)[5]
    # "PK67" is where a zip with more entries, or larger ones, keeps their list.
    if size > _DIRECTORY_BYTES or end[max(0, at - 20) : at].startswith(b"PK\x06\x07"):
        raise BundleError(f"its list of files has {size} bytes; the most is {_DIRECTORY_BYTES}, without zip64")
    with _zip_errors(path.name), zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
    names = [info.filename for info in infos]
    for info in infos:
        parts = info.filename.replace("\\", "/").split("/")
        if parts[0] == "" or ".." in parts or ":" in parts[0] or stat.S_ISLNK(info.external_attr >> 16):
            raise BundleError(f"zip entry {info.filename!r} leads out of the bundle; valid: plain files")
        if names.count(info.filename) > 1:
            raise BundleError(f"zip entry {info.filename!r} is there more than once")


def _read_zipped(path: Path, name: str, size: int) -> bytes:
    try:
        with _zip_errors(name), zipfile.ZipFile(path) as archive, archive.open(name) as file:
            return file.read(size + 1)
    except KeyError as error:
        raise BundleError(f"{name} is missing") from error


@contextlib.contextmanager
def _zip_errors(name: str) -> Iterator[None]:
    try:
        yield
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
        _check_unpacked(data)
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


def _check_unpacked(data: bytes) -> None:
    """Raise BundleError before golden rows that say they are huge, or larger than they are, take memory."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        total = sum(info.file_size for info in archive.infolist())
        if total > GOLDEN_BYTES:
            raise BundleError(f"{GOLDEN_FILE}: {total} bytes, unpacked; the most is {GOLDEN_BYTES}")
        for info in archive.infolist():
            with archive.open(info) as file:
                version = np.lib.format.read_magic(file)
                read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
                shape, _, dtype = read(file)
            if math.prod(shape) * dtype.itemsize > info.file_size:
                raise BundleError(
                    f"{GOLDEN_FILE}: {info.filename} says it is {dtype} {shape}, and is {info.file_size} bytes"
                )
