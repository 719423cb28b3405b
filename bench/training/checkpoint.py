"""Training checkpoints: one safetensors file, written whole or not at all, and read without running code."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from bench.errors import UsageError
from bench.files.tensors import NOT_TENSORS, read_tensors, write_tensors


class Checkpoint(NamedTuple):
    """What was read: named tensors, and the metadata's JSON."""

    tensors: dict[str, Tensor]
    metadata: dict[str, Any]


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write tensors and JSON-able metadata to ``path``: whoever reads it sees the old file or the new one."""
    text = {key: value if isinstance(value, str) else json.dumps(value) for key, value in metadata.items()}
    write_tensors(path, tensors, text)


def read_safetensors(path: Path) -> Checkpoint:
    """Return what :func:`write_safetensors` wrote.

    Raises:
        UsageError: if the file is truncated or not a safetensors file.
    """
    try:
        tensors, text = read_tensors(path)
    except NOT_TENSORS as error:
        raise UsageError(
            f"{path} is no readable checkpoint ({error}); delete it and train again, or restore it"
        ) from None
    return Checkpoint(tensors, {key: _parsed(value) for key, value in text.items()})


def optimiser_tensors(optimiser: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return the optimiser's state as named tensors: ``INDEX.FIELD`` in the order of its parameters."""
    state: Mapping[int, Mapping[str, Any]] = optimiser.state_dict()["state"]
    return {f"{i}.{k}": torch.as_tensor(v) for i, fields in state.items() for k, v in fields.items()}


def load_optimiser_tensors(optimiser: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimiser the state that :func:`optimiser_tensors` returned."""
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        index, _, field = name.partition(".")
        state.setdefault(int(index), {})[field] = tensor
    optimiser.load_state_dict({"state": state, "param_groups": optimiser.state_dict()["param_groups"]})
    for parameter, held in optimiser.state.items():
        for field, tensor in held.items():
            if tensor.shape == parameter.shape:  # in its memory format: another one rounds otherwise
                held[field] = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names start with ``prefix.``, without it."""
    return {name[len(prefix) + 1 :]: t for name, t in tensors.items() if name.startswith(f"{prefix}.")}


def named(prefix: str, tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> dict[str, Tensor]:
    """Return the tensors with ``prefix.`` before each name."""
    return {f"{prefix}.{name}": tensor for name, tensor in dict(tensors).items()}


def load_into(module: nn.Module, tensors: Mapping[str, Tensor], what: str) -> None:
    """Load all of a module's tensors, or none.

    Raises:
        UsageError: naming the first tensor that is missing, left over or of another shape.
    """
    own = module.state_dict()
    for name in sorted(own.keys() ^ tensors.keys()):
        problem = "lacks" if name in own else "has an unknown tensor"
        raise UsageError(f"{what} {problem} {name}: it is of another network")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise UsageError(
                f"{what} has {name} of shape {tuple(tensors[name].shape)} where the network has"
                f" {tuple(tensor.shape)}: it is of another network"
            )
    module.load_state_dict(dict(tensors))


def _parsed(text: str) -> Any:
    """Return what a text stands for: itself, unless it is JSON as we write it, as ``1e5`` is not."""
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return value if not isinstance(value, float) or json.dumps(value) == text else text
