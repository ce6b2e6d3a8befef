"""Uneven ground: one height field of square patches, kinds of ground along x, their difficulty along y.

Every patch is level with the ground at its rim and rises inside it, so that patches fit together and a robot can walk
off the field onto the floor. Kinds and their sizes follow the terrain curricula of legged_gym (Rudin et al., arXiv
2109.11978, section 3.3) and Isaac Lab, lowered to what a 1.3 m humanoid steps over.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from robot_rl.errors import ConfigError

Heights = NDArray[np.floating[Any]]

_RIM_M = 0.7
"""Level margin of every patch."""
_PLATFORM_M = 0.8
"""Half width of the level top of slopes and stairs."""
_FLOOR_BELOW_M = 0.02
"""How far the endless floor lies under the field's rim: enough that the two never touch a foot together."""
_FOOTPRINT_M = 0.3
"""Half width of the square in which a robot puts its feet at the start."""


def flat(x: Heights, y: Heights, difficulty: float, rng: np.random.Generator) -> Heights:
    return np.zeros_like(x)


def slope(x: Heights, y: Heights, difficulty: float, rng: np.random.Generator) -> Heights:
    """A pyramid with a level top, rising by 0.05 to 0.3 per metre."""
    return (0.05 + 0.25 * difficulty) * _up_the_pyramid(x, y)


def stairs(x: Heights, y: Heights, difficulty: float, rng: np.random.Generator) -> Heights:
    """A stepped pyramid: treads of 0.3 m, risers of 0.02 to 0.14 m."""
    return (0.02 + 0.12 * difficulty) * np.ceil(_up_the_pyramid(x, y) / 0.3 - 1e-9)


def waves(x: Heights, y: Heights, difficulty: float, rng: np.random.Generator) -> Heights:
    """Two by two hills of 0.03 to 0.2 m, each as wide as half a patch."""
    width = np.ptp(x) / 2
    return (0.03 + 0.17 * difficulty) * (np.sin(np.pi * x / width) * np.sin(np.pi * y / width)) ** 2


def blocks(x: Heights, y: Heights, difficulty: float, rng: np.random.Generator) -> Heights:
    """Square steps of 0.45 m, each 0 to (0.02 to 0.1) m high."""
    column, row = (np.floor((axis - axis.min()) / 0.45 + 1e-9).astype(int) for axis in (x, y))
    return rng.uniform(0.0, 0.02 + 0.08 * difficulty, (column.max() + 1, row.max() + 1))[column, row]


def obstacles(x: Heights, y: Heights, difficulty: float, rng: np.random.Generator) -> Heights:
    """Twelve boxes, 0.3 to 1 m wide and 0.03 to 0.15 m high, that may overlap."""
    heights = np.zeros_like(x)
    reach = x.max()
    for x0, y0, width, depth in zip(
        *rng.uniform(-reach, reach, (2, 12)), *rng.uniform(0.15, 0.5, (2, 12)), strict=True
    ):
        heights[(abs(x - x0) < width) & (abs(y - y0) < depth)] = 0.03 + 0.12 * difficulty
    return heights


def _up_the_pyramid(x: Heights, y: Heights) -> Heights:
    """Metres walked uphill from the rim, on the straightest way, to the platform's edge."""
    uphill = x.max() - _RIM_M - np.maximum(abs(x), abs(y))
    return np.clip(uphill, 0.0, x.max() - _RIM_M - _PLATFORM_M)


KINDS: dict[str, Callable[[Heights, Heights, float, np.random.Generator], Heights]] = {
    "flat": flat,
    "slope": slope,
    "stairs": stairs,
    "waves": waves,
    "blocks": blocks,
    "obstacles": obstacles,
}
"""Kind -> heights (k, k) m over x, y (k, k) m from the patch's middle, at a difficulty in [0, 1]."""


@dataclass(frozen=True, slots=True)
class TerrainConfig:
    seed: int = 0
    kinds: tuple[str, ...] = tuple(KINDS)
    levels: int = 6
    """Difficulties, evenly from 0 to 1."""
    patch_m: float = 6.0
    cell_m: float = 0.05
    border_m: float = 1.0
    """Level margin around the field."""
    spots: int = 16
    """Start positions in each patch."""

    def __post_init__(self) -> None:
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise ConfigError(f"terrain kinds {unknown or 'missing'}; valid: {', '.join(KINDS)}")
        if self.levels < 1 or self.spots < 1:
            raise ConfigError(f"terrain levels and spots must be at least 1, got {self.levels}, {self.spots}")
        if not 0 < self.cell_m <= 0.2 or self.patch_m < 2 * (_RIM_M + _PLATFORM_M) + self.cell_m:
            raise ConfigError(
                f"terrain needs cells of at most 0.2 m and patches of more than {2 * (_RIM_M + _PLATFORM_M):g} m, got "
                f"{self.cell_m} and {self.patch_m}"
            )


class Terrain:
    """The field of a config, the same for the same seed. Patch (kind, level) lies at `center`."""

    def __init__(self, config: TerrainConfig) -> None:
        self.config = c = config
        self._cells = round(c.patch_m / c.cell_m)
        border = round(c.border_m / c.cell_m)
        shape = (c.levels * self._cells + 2 * border + 1, len(c.kinds) * self._cells + 2 * border + 1)
        self._half_m = tuple(0.5 * c.cell_m * (nodes - 1) for nodes in (shape[1], shape[0]))
        heights = np.zeros(shape)
        rng = np.random.default_rng(c.seed)
        spots = np.zeros((len(c.kinds), c.levels, c.spots, 3))
        for k, kind in enumerate(c.kinds):
            for level in range(c.levels):
                patch = _patch(kind, level / max(1, c.levels - 1), self._cells, c.cell_m, rng)
                row, column = border + level * self._cells, border + k * self._cells
                heights[row : row + self._cells + 1, column : column + self._cells + 1] = patch
                spots[k, level] = _spots(patch, c.cell_m, c.spots, rng)
                spots[k, level, :, :2] += self.center(k, level)
        self.spots = torch.from_numpy(spots).float()
        """(kinds, levels, spots, 3) m: where a robot can stand best in each patch; z is the highest ground around."""
        self.heights = torch.from_numpy(heights).float()
        """(rows, columns) m, of the grid's nodes: rows along y, columns along x, from the corner of least x and y."""
        self._flat = self.heights.flatten()

    def center(self, kind: int, level: int) -> tuple[float, float]:
        """x, y (m) of a patch's middle. The field's middle is the world's origin."""
        kinds, levels = len(self.config.kinds), self.config.levels
        return self.config.patch_m * (kind + 0.5 - kinds / 2), self.config.patch_m * (level + 0.5 - levels / 2)

    def add_to(self, spec: mujoco.MjSpec) -> None:
        """Lay the field over the scene's endless geom "floor", whose look and friction it takes."""
        rows, columns = self.heights.shape
        top = max(float(self.heights.max()), 1e-3)
        spec.add_hfield(
            name="terrain",
            nrow=rows,
            ncol=columns,
            size=[*self._half_m, top, 0.1],
            userdata=self._flat.tolist(),
        )
        floor = spec.geom("floor")
        floor.pos = [0.0, 0.0, -_FLOOR_BELOW_M]
        spec.worldbody.add_geom(
            name="terrain",
            type=mujoco.mjtGeom.mjGEOM_HFIELD,
            hfieldname="terrain",
            material=floor.material,
            friction=floor.friction,
            contype=floor.contype,
            conaffinity=floor.conaffinity,
        )

    def to(self, device: torch.device) -> Terrain:
        """The same, its tensors on `device`."""
        self.spots, self.heights, self._flat = (x.to(device) for x in (self.spots, self.heights, self._flat))
        return self

    def height(self, xy: Tensor) -> Tensor:
        """(...) m, of the ground at xy (..., 2) m; beyond the field that of its rim, 0.

        Exact: MuJoCo splits each cell into two triangles along the diagonal of its least and greatest corner.
        """
        rows, columns = self.heights.shape
        u = ((xy[..., 0] + self._half_m[0]) / self.config.cell_m).clamp(0.0, columns - 1.001)
        v = ((xy[..., 1] + self._half_m[1]) / self.config.cell_m).clamp(0.0, rows - 1.001)
        corner = v.long() * columns + u.long()
        du, dv = u.frac(), v.frac()
        third = torch.where(du > dv, corner + 1, corner + columns)
        near, mid, far = self._flat[torch.stack((corner, third, corner + columns + 1))]
        most, least = torch.maximum(du, dv), torch.minimum(du, dv)
        return near + most * (mid - near) + least * (far - mid)


def _patch(kind: str, difficulty: float, cells: int, cell_m: float, rng: np.random.Generator) -> Heights:
    """Node heights (cells + 1, cells + 1) m, rows along y; 0 within the rim."""
    axis = cell_m * (np.arange(cells + 1) - cells / 2)
    x, y = np.meshgrid(axis, axis)
    heights = KINDS[kind](x, y, difficulty, rng)
    inside = np.maximum(abs(x), abs(y)) < axis[-1] - _RIM_M + 1e-9
    # Waves come down to zero on their own; cutting them off would make a ledge.
    return heights if kind == "waves" else np.where(inside, heights, 0.0)


def _spots(patch: Heights, cell_m: float, count: int, rng: np.random.Generator) -> Heights:
    """(count, 3) m from the patch's middle: drawn from the flattest tenth of the places that lie inside it."""
    reach = round(_FOOTPRINT_M / cell_m)
    windows = np.lib.stride_tricks.sliding_window_view(patch, (2 * reach + 1, 2 * reach + 1))
    highest, lowest = windows.max((2, 3)), windows.min((2, 3))
    flattest = np.argsort((highest - lowest + 1e-6 * rng.random(highest.shape)).ravel())
    chosen = rng.choice(flattest[: max(count, len(flattest) // 10)], count, replace=False)
    row, column = np.unravel_index(chosen, highest.shape)
    middle = (len(patch) - 1) / 2
    xy = cell_m * (np.stack((column, row), -1) + reach - middle)
    return np.column_stack((xy, highest[row, column]))
