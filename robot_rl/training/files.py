"""Files that are whole or not there, and on the disk once the call returns."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, flushed. Not atomic by itself: for folders that are renamed when all is written.

    Raises OSError naming the file."""
    try:
        save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, path)
        sync(path)
    except (SafetensorError, OSError) as error:
        raise OSError(f"{path.name}: {error}") from error


def write_json(path: Path, data: Any) -> None:
    write_text(path, json.dumps(data, indent=1) + "\n")


def write_text(path: Path, text: str) -> None:
    """Atomically."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, data: bytes) -> None:
    """Atomically."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def sync(path: Path) -> None:
    """Have the system write the file or folder to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
