"""Write a bundle. The format exists here once; an exporter only supplies the graph, the golden rows and the facts."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from robot_rl.bundle.manifest import CARD_FILE, GOLDEN_FILE, MANIFEST_FILE, POLICY_FILE, FileEntry, Manifest
from robot_rl.contract import Contract, EpisodeSpec
from robot_rl.errors import BundleError


def write_bundle(
    path: Path | str,
    *,
    onnx_bytes: bytes,
    golden: Mapping[str, NDArray[Any]],
    card: str,
    contract: Contract,
    task: str,
    algorithm: str,
    git_revision: str,
    config: Mapping[str, Any],
    seeds: Mapping[str, int],
    evaluation: Mapping[str, Any],
    obs_mean: Sequence[float],
    obs_std: Sequence[float],
    episode: EpisodeSpec | None = None,
    created_utc: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a bundle as one zip if `path` ends in ".zip", else as a folder; returns the path.

    `golden` holds "in/<input>" and "out/<output>", each (rows, *shape); it is stored as float32. The whole bundle is
    written under a temporary name and renamed, so that no reader ever sees half of one. Raises BundleError if `path`
    exists and `overwrite` is false, or is something that is not a bundle.
    """
    path = Path(path)
    _check_target(path, overwrite)
    files = {
        POLICY_FILE: onnx_bytes,
        GOLDEN_FILE: _npz(golden),
        CARD_FILE: card.encode(),
    }
    manifest = Manifest(
        files={name: FileEntry.of(data) for name, data in files.items()},
        contract=contract,
        contract_digest=contract.digest(),
        task=task,
        algorithm=algorithm,
        git_revision=git_revision,
        config=config,
        seeds=seeds,
        evaluation=evaluation,
        created_utc=created_utc or datetime.now(timezone.utc).isoformat(timespec="seconds"),
        obs_mean=tuple(float(v) for v in obs_mean),
        obs_std=tuple(float(v) for v in obs_std),
        episode=episode,
    )
    files[MANIFEST_FILE] = manifest.to_json().encode()
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".zip":
        _write_zip(path, files)
    else:
        _write_folder(path, files)
    return path


def _check_target(path: Path, overwrite: bool) -> None:
    if not path.exists():
        return
    if not overwrite:
        raise BundleError(f"{path} exists; choose another name or allow overwriting")
    if path.is_dir() and not (path / MANIFEST_FILE).exists():
        raise BundleError(f"{path} is a folder without {MANIFEST_FILE}, so it is no bundle and is not overwritten")


def _npz(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as file:
                np.lib.format.write_array(file, np.asarray(array, np.float32), allow_pickle=False)
    return buffer.getvalue()


def _write_zip(path: Path, files: Mapping[str, bytes]) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as temporary:
        try:
            with zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
                for name, data in files.items():
                    archive.writestr(name, data)
            temporary.flush()
            os.fsync(temporary.fileno())
            os.chmod(temporary.name, 0o644)
            os.replace(temporary.name, path)
        except BaseException:
            Path(temporary.name).unlink(missing_ok=True)
            raise


def _write_folder(path: Path, files: Mapping[str, bytes]) -> None:
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        temporary.chmod(0o755)
        for name, data in files.items():
            with (temporary / name).open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
        if path.exists():
            # A non-empty folder cannot be replaced in one call: move the old one aside, then delete it.
            old = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.old."))
            os.replace(path, old / path.name)
            os.replace(temporary, path)
            shutil.rmtree(old)
        else:
            os.replace(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
