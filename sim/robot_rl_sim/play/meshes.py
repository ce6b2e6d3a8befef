"""Surfaces of a model's geoms as triangles, for viewers that know no MuJoCo."""

from __future__ import annotations

import mujoco
import numpy as np
import trimesh
from numpy.typing import NDArray

_ARROW_HEAD = 0.25
"""Share of an arrow's length."""
_HEIGHTS = 400
"""Most points of a height field along a side; every second, third, ... of a finer one is left out."""


def geom_mesh(model: mujoco.MjModel, geom: int) -> trimesh.Trimesh | None:
    """The surface of a geom in its own frame; None for planes, which have no end, and kinds without a surface."""
    size = model.geom_size[geom]
    kind = int(model.geom_type[geom])
    if kind == int(mujoco.mjtGeom.mjGEOM_MESH):
        mesh = int(model.geom_dataid[geom])
        first_vertex, first_face = int(model.mesh_vertadr[mesh]), int(model.mesh_faceadr[mesh])
        vertices = model.mesh_vert[first_vertex : first_vertex + int(model.mesh_vertnum[mesh])]
        faces = model.mesh_face[first_face : first_face + int(model.mesh_facenum[mesh])]
        return trimesh.Trimesh(vertices, faces, process=False)
    if kind == int(mujoco.mjtGeom.mjGEOM_HFIELD):
        return _height_field(model, int(model.geom_dataid[geom]))
    names = {
        int(mujoco.mjtGeom.mjGEOM_SPHERE): "sphere",
        int(mujoco.mjtGeom.mjGEOM_CAPSULE): "capsule",
        int(mujoco.mjtGeom.mjGEOM_ELLIPSOID): "ellipsoid",
        int(mujoco.mjtGeom.mjGEOM_CYLINDER): "cylinder",
        int(mujoco.mjtGeom.mjGEOM_BOX): "box",
    }
    return shape_mesh(names[kind], size) if kind in names else None


def shape_mesh(shape: str, size: NDArray[np.float64]) -> trimesh.Trimesh:
    """A primitive as MuJoCo understands `size` (3,), in its own frame."""
    if shape == "box":
        return trimesh.creation.box(2 * size)
    if shape in ("sphere", "ellipsoid"):
        mesh = trimesh.creation.icosphere(subdivisions=3)
        mesh.apply_scale(size if shape == "ellipsoid" else size[0])
        return mesh
    if shape == "capsule":
        return trimesh.creation.capsule(height=2 * size[1], radius=size[0], count=[24, 24])
    if shape == "cylinder":
        return trimesh.creation.cylinder(radius=size[0], height=2 * size[1], sections=32)
    radius, _, length = size
    head = _ARROW_HEAD * length
    shaft = trimesh.creation.cylinder(radius=radius, height=length - head, sections=20)
    shaft.apply_translation([0, 0, (length - head) / 2])
    cone = trimesh.creation.cone(radius=2 * radius, height=head, sections=20)
    cone.apply_translation([0, 0, length - head])
    return trimesh.util.concatenate([shaft, cone])  # pyright: ignore[reportReturnType]


def _height_field(model: mujoco.MjModel, field: int) -> trimesh.Trimesh:
    rows, columns = int(model.hfield_nrow[field]), int(model.hfield_ncol[field])
    reach_x, reach_y, top, _ = model.hfield_size[field]
    first = int(model.hfield_adr[field])
    heights = top * model.hfield_data[first : first + rows * columns].reshape(rows, columns)
    x, y = np.meshgrid(np.linspace(-reach_x, reach_x, columns), np.linspace(-reach_y, reach_y, rows))
    stride = -(-max(rows, columns) // _HEIGHTS)
    x, y, heights = (values[::stride, ::stride] for values in (x, y, heights))
    rows, columns = heights.shape
    vertices = np.stack((x, y, heights), -1).reshape(-1, 3)
    corner = (np.arange(rows - 1)[:, None] * columns + np.arange(columns - 1)).ravel()
    lower = np.stack((corner, corner + 1, corner + columns), 1)
    upper = np.stack((corner + 1, corner + columns + 1, corner + columns), 1)
    return trimesh.Trimesh(vertices, np.concatenate((lower, upper)), process=False)


def geom_rgba(model: mujoco.MjModel, geom: int) -> NDArray[np.float64]:
    """(4,): the geom's own colour, or where it has none its material's."""
    own, material = model.geom_rgba[geom], int(model.geom_matid[geom])
    unset = np.allclose(own, [0.5, 0.5, 0.5, 1.0])
    return np.asarray(model.mat_rgba[material] if unset and material >= 0 else own, dtype=np.float64)


def unit_shape(shape: str, size: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(size of a mesh, scale (3,) that makes it `size`): a shape that can be stretched needs no new mesh."""
    if shape == "capsule":
        return size, np.ones(3)
    stretched = {"sphere": size[[0, 0, 0]], "cylinder": size[[0, 0, 1]]}
    return np.ones(3), stretched.get(shape, size)
