"""Flat state of an algorithm: every tensor under one dotted name, ready for a safetensors file."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robot_rl.errors import CheckpointError

Part = nn.Module | torch.optim.Optimizer | torch.Generator | Tensor


def pack(parts: Mapping[str, Part]) -> dict[str, Tensor]:
    """All tensors of the parts: "<part>", "<part>.<parameter>" or "<part>.<parameter index>.<optimiser slot>"."""
    state: dict[str, Tensor] = {}
    for name, part in parts.items():
        if isinstance(part, nn.Module):
            state |= {f"{name}.{key}": value for key, value in part.state_dict().items()}
        elif isinstance(part, torch.optim.Optimizer):
            for index, slots in part.state_dict()["state"].items():
                state |= {f"{name}.{index}.{slot}": value for slot, value in slots.items()}
        elif isinstance(part, torch.Generator):
            state[name] = part.get_state()
        else:
            state[name] = part.detach()
    return state


def unpack(parts: Mapping[str, Part], state: Mapping[str, Tensor]) -> None:
    """Load into the parts, in place, what `pack` made. Raises CheckpointError naming a missing or misshapen tensor."""
    try:
        for name, part in parts.items():
            own = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            if isinstance(part, nn.Module):
                part.load_state_dict(_by_tensor(own, part))
            elif isinstance(part, torch.optim.Optimizer):
                slots: dict[int, dict[str, Tensor]] = {}
                for key, value in own.items():
                    index, slot = key.split(".")
                    slots.setdefault(int(index), {})[slot] = value.clone()
                part.load_state_dict({"state": slots, "param_groups": part.state_dict()["param_groups"]})
            elif isinstance(part, torch.Generator):
                part.set_state(state[name].cpu())
            else:
                with torch.no_grad():
                    part.copy_(state[name])
    except KeyError as error:
        raise CheckpointError(
            f"the checkpoint lacks {error}; it was written by another algorithm or version"
        ) from error
    except (RuntimeError, ValueError) as error:
        raise CheckpointError(f"the checkpoint does not fit these networks: {error}") from error


def _by_tensor(state: dict[str, Tensor], part: nn.Module) -> dict[str, Tensor]:
    """State of an earlier version, in which a network, and each of its moments, was one vector: its tensors one after
    another, in their order of today."""
    own = part.state_dict()
    for vector, tensors in (("flat", "layers."), ("mean", "means."), ("square", "squares.")):
        for name in [name for name in state if name.split(".")[-1] == vector]:
            prefix = name.removesuffix(vector) + tensors
            places = {key: value for key, value in own.items() if key.startswith(prefix)}
            if places:
                pieces = state.pop(name).reshape(-1).split([value.numel() for value in places.values()])
                state |= {k: piece.view_as(v) for (k, v), piece in zip(places.items(), pieces, strict=True)}
    return state
