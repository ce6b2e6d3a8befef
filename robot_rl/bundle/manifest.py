"""The manifest: what a bundle holds, where it came from, and the digests that show it was not altered on the way."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from robot_rl.contract import Contract, EpisodeSpec
from robot_rl.errors import BundleError

MANIFEST_VERSION = 1

MANIFEST_FILE = "manifest.json"
POLICY_FILE = "policy.onnx"
GOLDEN_FILE = "golden.npz"
CARD_FILE = "CARD.md"
CONTENT_FILES = (POLICY_FILE, GOLDEN_FILE, CARD_FILE)
"""Every file of a bundle but the manifest, which lists them."""


@dataclass(frozen=True, slots=True)
class FileEntry:
    """Size and sha256 of one file."""

    size: int
    """Bytes."""
    sha256: str
    """64 hexadecimal characters."""

    @staticmethod
    def of(data: bytes) -> FileEntry:
        return FileEntry(len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything about a bundle that is not in its graph.

    The JSON carries a sha256 of its own content ("digest"), so that one altered byte anywhere in a bundle is found. The
    digests guard against accidents and mix-ups; they are no signature.
    """

    files: Mapping[str, FileEntry]
    """File name -> size and digest, for exactly CONTENT_FILES."""
    contract: Contract
    contract_digest: str
    task: str
    algorithm: str
    git_revision: str
    """Revision of the code that trained it; "" where there was no repository."""
    config: Mapping[str, Any]
    """Resolved training configuration, as JSON values."""
    seeds: Mapping[str, int]
    """What was seeded -> seed."""
    evaluation: Mapping[str, Any]
    """Figures measured before export, as JSON values."""
    created_utc: str
    """ISO 8601 with a UTC offset."""
    obs_mean: tuple[float, ...]
    """(obs_dim,) mean of the training observations, before normalisation."""
    obs_std: tuple[float, ...]
    """(obs_dim,) their standard deviation: what lies many of these away was never seen in training."""
    episode: EpisodeSpec | None = None
    """How episodes begin and what they ask for. None: from the default pose, with no object."""
    schema_version: int = MANIFEST_VERSION

    def __post_init__(self) -> None:
        if self.schema_version != MANIFEST_VERSION:
            raise BundleError(
                f"{MANIFEST_FILE}: schema version {self.schema_version!r} is not supported; this code reads "
                f"{MANIFEST_VERSION}"
            )
        if set(self.files) != set(CONTENT_FILES):
            raise BundleError(
                f"{MANIFEST_FILE}: lists files {sorted(self.files)}; a bundle has {sorted(CONTENT_FILES)}"
            )
        if self.contract_digest != self.contract.digest():
            raise BundleError(
                f"{MANIFEST_FILE}: contract digest is {self.contract_digest}, its contract gives "
                f"{self.contract.digest()}; the contract was altered after export"
            )
        dim = self.contract.observation_dim
        for name in ("obs_mean", "obs_std"):
            values = getattr(self, name)
            if len(values) != dim or not all(math.isfinite(v) for v in values):
                raise BundleError(f"{MANIFEST_FILE}: {name} must be {dim} finite numbers, got {len(values)}: {values}")
        if any(v < 0 for v in self.obs_std):
            raise BundleError(f"{MANIFEST_FILE}: obs_std must not be negative, got {min(self.obs_std)}")
        if self.episode is not None:
            self.episode.check(self.contract)
        _check_time(self.created_utc)

    @property
    def low_pass_hz(self) -> float | None:
        """Cut-off of the filter of first order on targets behind which the policy was trained; None: there was none.

        Raises BundleError for one that is no positive number.
        """
        value = self.config.get("low_pass_hz")
        if value is not None and not (type(value) in (int, float) and math.isfinite(value) and value > 0):
            raise BundleError(f"{MANIFEST_FILE}: config low_pass_hz must be a positive number, got {value!r}")
        return value

    def to_json(self) -> str:
        """Canonical JSON with its own digest. Raises BundleError naming the field that is no JSON value."""
        body = self._body()
        return json.dumps({**body, "digest": _digest(body)}, sort_keys=True, indent=1, allow_nan=False) + "\n"

    def digest(self) -> str:
        """sha256 of everything in it, and through the digests of the files of the whole bundle."""
        return _digest(self._body())

    def _body(self) -> dict[str, Any]:
        body = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        body["files"] = {name: dataclasses.asdict(entry) for name, entry in self.files.items()}
        body["contract"] = json.loads(self.contract.to_json())
        # Left out where there is none, as in bundles from before there was any: their digest stays.
        body.pop("episode")
        if self.episode is not None:
            body["episode"] = self.episode.to_dict()
        for name, value in body.items():
            try:
                # Through JSON and back, so that what is digested is what a reader will see (tuples become lists).
                body[name] = json.loads(json.dumps(value, allow_nan=False))
            except (TypeError, ValueError) as error:
                raise BundleError(f"{MANIFEST_FILE}: {name} cannot be written as JSON: {error}") from error
        return body

    @staticmethod
    def from_json(text: str) -> Manifest:
        """Parse and validate. Raises BundleError or ContractError naming the key and both values."""
        try:
            data = json.loads(text, parse_constant=_no_constant, parse_float=_finite)
        except (ValueError, RecursionError) as error:
            raise BundleError(f"{MANIFEST_FILE}: not JSON: {error}") from error
        if not isinstance(data, dict):
            raise BundleError(f"{MANIFEST_FILE}: expected an object, got {type(data).__name__}")
        if data.get("schema_version") != MANIFEST_VERSION:
            raise BundleError(
                f"{MANIFEST_FILE}: schema version {data.get('schema_version')!r} is not supported; this code reads "
                f"{MANIFEST_VERSION}"
            )
        optional = {"episode": dict} if "episode" in data else {}
        _check_keys("", data, {**_TYPES, **optional, "digest": str})
        stated = data.pop("digest")
        if stated != _digest(data):
            raise BundleError(
                f"{MANIFEST_FILE}: digest is {stated}, its content gives {_digest(data)}; the manifest was altered"
            )
        for name, entry in data["files"].items():
            _check_keys(f"files[{name!r}]", entry, {"size": int, "sha256": str})
        return Manifest(
            **{
                **data,
                "files": {name: FileEntry(**entry) for name, entry in data["files"].items()},
                "contract": Contract.from_json(json.dumps(data["contract"])),
                "obs_mean": _numbers("obs_mean", data["obs_mean"]),
                "obs_std": _numbers("obs_std", data["obs_std"]),
                "episode": EpisodeSpec.from_dict(data["episode"]) if optional else None,
            }
        )


_TYPES: dict[str, type] = {
    "schema_version": int,
    "files": dict,
    "contract": dict,
    "contract_digest": str,
    "task": str,
    "algorithm": str,
    "git_revision": str,
    "config": dict,
    "seeds": dict,
    "evaluation": dict,
    "created_utc": str,
    "obs_mean": list,
    "obs_std": list,
}


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no JSON number")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is too large a number")
    return value


def _digest(body: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True, allow_nan=False).encode()).hexdigest()


def _check_keys(where: str, data: Any, types: Mapping[str, type]) -> None:
    prefix = f"{MANIFEST_FILE}: {where + ': ' if where else ''}"
    if not isinstance(data, dict):
        raise BundleError(f"{prefix}expected an object, got {type(data).__name__}")
    unknown, missing = sorted(set(data) - set(types)), sorted(set(types) - set(data))
    if unknown or missing:
        raise BundleError(f"{prefix}unknown keys {unknown}, missing keys {missing}; valid: {', '.join(types)}")
    for key, kind in types.items():
        if not isinstance(data[key], kind) or isinstance(data[key], bool):
            raise BundleError(f"{prefix}{key} must be {kind.__name__}, got {type(data[key]).__name__} {data[key]!r}")


def _numbers(name: str, values: list[Any]) -> tuple[float, ...]:
    if any(isinstance(v, bool) or not isinstance(v, (int, float)) for v in values):
        raise BundleError(f"{MANIFEST_FILE}: {name} must hold numbers only, got {values}")
    return tuple(float(v) for v in values)


def _check_time(text: str) -> None:
    try:
        offset = datetime.fromisoformat(text).utcoffset()
    except ValueError as error:
        raise BundleError(f"{MANIFEST_FILE}: created_utc {text!r} is no ISO 8601 time: {error}") from error
    if offset is None or offset.total_seconds() != 0:
        raise BundleError(f"{MANIFEST_FILE}: created_utc {text!r} must carry the UTC offset +00:00")
