"""The files that a model is made of besides its XML: found, checked, copied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mujoco

from robot_rl.errors import ConfigError
from robot_rl_sim.importing.findings import Findings

ASSETS = "assets"
"""Folder beside the scene that holds them."""
_MESH_FORMATS = (".stl", ".obj", ".msh")
_LICENCE_NAMES = ("licen", "copying", "notice", "copyright")


@dataclass(frozen=True)
class Asset:
    """One file that an element of the model refers to."""

    element: Any
    """MjsMesh, MjsHField, MjsTexture or MjsSkin."""
    path: Path


def find_assets(spec: mujoco.MjSpec, source: Path, skip_missing: bool, findings: Findings) -> list[Asset]:
    """The model's files. Meshes in formats that MuJoCo does not read are taken out of it, as are missing ones with
    `skip_missing`. Otherwise raises ConfigError naming every file that is missing."""
    found, missing = [], []
    dependencies = _dependencies(source)
    for element, folder in _elements(spec):
        path = _locate(element.file, folder, source, dependencies)
        is_mesh = isinstance(element, mujoco.MjsMesh)
        if is_mesh and path.suffix.lower() not in _MESH_FORMATS:
            findings.add(
                f"mesh left out: MuJoCo reads {', '.join(_MESH_FORMATS)}; convert it to have it seen and touched",
                path.name,
            )
            _remove_mesh(spec, element)
        elif path.is_file():
            found.append(Asset(element, path))
        elif is_mesh and skip_missing:
            findings.add("mesh missing, left out", path.name)
            _remove_mesh(spec, element)
        else:
            missing.append(path)
    if missing:
        shown = ", ".join(sorted({str(p) for p in missing})[:8])
        raise ConfigError(
            f"{source}: {len(missing)} files are missing: {shown}; put them there; --skip-missing-meshes does without"
        )
    return found


def copy_assets(spec: mujoco.MjSpec, assets: list[Asset], folder: Path) -> None:
    """Copy the files into `folder`/assets and have the model refer to them there."""
    names: dict[str, Path] = {}
    for asset in assets:
        name = _free_name(asset.path, names)
        if not asset.element.name:
            # A mesh without a name goes by its file's; what refers to it must not notice that the file was renamed.
            asset.element.name = Path(asset.element.file).stem
        asset.element.file = name
    if names:
        (folder / ASSETS).mkdir()
    for name, path in names.items():
        shutil.copyfile(path, folder / ASSETS / name)
    spec.meshdir = spec.texturedir = ASSETS
    spec.modelfiledir = str(folder)


def copy_licences(source: Path, assets: list[Asset], folder: Path) -> list[str]:
    """Copy the licence files beside the model and its meshes, and in the folder above; returns their new names."""
    folders = [source.resolve().parent, *dict.fromkeys(a.path.resolve().parent for a in assets)]
    folders.append(folders[0].parent)
    copied: dict[str, bytes] = {}
    for candidate in folders:
        for path in sorted(candidate.iterdir()):
            if path.is_file() and path.name.lower().startswith(_LICENCE_NAMES):
                content = path.read_bytes()
                if content not in copied.values():
                    name = path.name if path.name not in copied else f"{candidate.name}-{path.name}"
                    copied[name] = content
    for name, content in copied.items():
        (folder / name).write_bytes(content)
    return list(copied)


def _elements(spec: mujoco.MjSpec) -> Iterator[tuple[Any, str]]:
    """Each element that names a file, with the folder that its paths are relative to."""
    for elements, kind in (
        (spec.meshes, "mesh"),
        (spec.hfields, "mesh"),
        (spec.skins, "mesh"),
        (spec.textures, "texture"),
    ):
        for element in list(elements):
            if element.file:
                yield element, str(getattr(element.compiler, f"{kind}dir", ""))
    for texture in spec.textures:
        if any(texture.cubefiles):
            raise ConfigError(f"texture {texture.name!r} has a file for each side of a cube; give it one file, or none")


def _locate(name: str, folder: str, source: Path, dependencies: list[Path]) -> Path:
    """Where MuJoCo finds the file, also where an included model has folders of its own; where it should, if nowhere."""
    base = source.resolve().parent
    first = base / folder / name
    candidates = [first, base / name, *(d for d in dependencies if d.as_posix().endswith(f"/{name}"))]
    return next((c for c in candidates if c.is_file()), first)


def _dependencies(source: Path) -> list[Path]:
    if source.suffix.lower() == ".urdf":
        return []
    try:
        return [Path(p) for p in mujoco.mju_getXMLDependencies(str(source.resolve()))]
    except ValueError:  # a missing file; which one is told later
        return []


def _remove_mesh(spec: mujoco.MjSpec, mesh: Any) -> None:
    name = mesh.name or Path(mesh.file).stem
    for geom in list(spec.geoms):
        if geom.meshname == name:
            spec.delete(geom)
    spec.delete(mesh)


def _free_name(path: Path, names: dict[str, Path]) -> str:
    """A file name that no other file has taken; the same file keeps the same name."""
    name, n = path.name, 2
    while names.setdefault(name, path) != path:
        name, n = f"{path.stem}_{n}{path.suffix}", n + 1
    return name
