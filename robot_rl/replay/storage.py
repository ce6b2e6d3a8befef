"""Where the rows of a replay buffer lie: in the memory of a device, or in a file that is mapped into memory."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import torch
from torch import Tensor

from robot_rl.errors import ConfigError


def in_memory(rows: int, width: int, device: torch.device) -> Tensor:
    """Zeros (rows, width), float32. Raises ConfigError when the device has not that much free memory."""
    needed, free = 4 * rows * width, free_memory(device)
    if needed > free:
        raise ConfigError(
            f"{_too_big(rows, width)} and {free / 1e9:.2f} GB are free on {device}; at most "
            f"{max(0, free // (4 * width)):,} fit: lower buffer_size"
            + (", or set replay_storage to mapped" if device.type == "cpu" else "")
        )
    # zeros, not empty: the system hands out pages as rows are written, so an unfilled buffer costs nothing.
    return torch.zeros((rows, width), device=device)


def in_file(rows: int, width: int, path: Path) -> Tensor:
    """Zeros (rows, width), float32, whose contents the system keeps in a file and caches in free memory.

    The whole size is claimed at once, so that a disk too small is an error here and not a crash on a later write. The
    file loses its name as soon as it is mapped: its space is free again when the process ends, however it ends.

    Raises ConfigError when the file cannot be made or the disk has not that much room.
    """
    needed = 4 * rows * width
    try:
        with path.open("wb") as file:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, needed)
            elif shutil.disk_usage(path.parent).free > needed:  # macOS has no way to claim it
                file.truncate(needed)
            else:
                raise OSError("No space left on device")
        flat = torch.from_file(str(path), shared=True, size=rows * width)
    except (OSError, RuntimeError) as error:
        free = shutil.disk_usage(path.parent).free if path.parent.is_dir() else 0
        raise ConfigError(
            f"{_too_big(rows, width)}, which {path} cannot have: {error}; {free / 1e9:.2f} GB are free on that disk"
        ) from error
    finally:
        path.unlink(missing_ok=True)
    return flat.view(rows, width)


def free_memory(device: torch.device) -> int:
    """Bytes that can still be allocated on the device, as the system reports them."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    try:
        with open("/proc/meminfo") as file:
            available = next(line for line in file if line.startswith("MemAvailable"))
        return int(available.split()[1]) * 1024
    except (OSError, StopIteration):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _too_big(rows: int, width: int) -> str:
    return f"a replay buffer of {rows:,} transitions needs {4e-9 * rows * width:.2f} GB ({4 * width} bytes each)"
