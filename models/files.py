"""Reading checkpoint files, which are untrusted: tensors and plain data come out, nothing is executed."""

from __future__ import annotations

import argparse
import json
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench.files.digests import file_digest
from bench.files.tensors import NOT_TENSORS, read_tensors
from models.errors import CheckpointError

PICKLES = {".pt", ".pth", ".ckpt", ".bin"}
AVERAGED = ("ema_model", "ema", "model_ema", "ema_state_dict")
AVERAGES = re.compile(r"(^|[^a-z])(ema|swa|averaged?|shadow)([^a-z]|$)", re.IGNORECASE)
"""Names under which training loops keep averaged weights somewhere below, as in ``ema.shadow``."""
RAW = ("net_model", "model", "state_dict", "model_state_dict")
AVERAGED_PREFIXES = ("ema_model.", "model_ema.", "ema.")
WRAPPERS = ("module.", "_orig_mod.", "model.", "net.", "network.", "online_model.", *AVERAGED_PREFIXES)
"""Prefixes that wrappers put before a network's names: DataParallel, torch.compile, Lightning, averages."""

CONFIG_KEY, PROCESS_KEY = "sampler_bench_config", "sampler_bench_process"
"""Metadata of this project's own .safetensors files, as JSON."""

CLASSES = ("UNet2DModel", "DiTTransformer2DModel")
"""diffusers' networks that are understood."""

NETWORKS = ("unet_ema", "unet", "transformer")
"""Where a pipeline's folder keeps its network."""

FOLDER_WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")

DEEPEST = 6
"""Names below names, dots within them counted, among which averaged weights are looked for."""


@dataclass(frozen=True)
class Checkpoint:
    """The weights of one network and what its files say about it.

    Attributes:
        name: for messages.
        state: every weight by the family's own name.
        config: the constructor's arguments in the family's terms, as far as the files have them; names with a
            leading underscore hold what is not one of them (``_scheduler``, ``_process``).
        averaged: whether the weights are averaged (EMA); None where the files do not say.
    """

    name: str
    state: dict[str, Tensor]
    config: dict[str, Any] = field(default_factory=dict)
    averaged: bool | None = None


def read_checkpoint(
    source: str | Path | Mapping[str, Any] | Sequence[Any], ema: bool | None = None
) -> Checkpoint:
    """Read a diffusers folder, a .safetensors, a .pt/.pth/.ckpt/.bin file, or what is in memory already.

    Args:
        source: where the weights are.
        ema: True for averaged weights, False for the raw ones, None for averaged ones where there are any.

    Raises:
        CheckpointError: if there is no such file, it is damaged, it holds code, or not the weights asked for.
    """
    if isinstance(source, Mapping | list | tuple):
        return _chosen("this state dict", source, ema)
    if not isinstance(source, str | Path):
        raise CheckpointError(
            f"a checkpoint is a path, a name or a state dict, got {type(source).__name__}: give one of these"
        )
    path = Path(source)
    if path.is_dir():
        return _read_folder(path, ema)
    if not path.is_file():
        raise CheckpointError(f"there is no checkpoint at {path}")
    config = _neighbour(path)
    if path.suffix == ".safetensors":
        state, metadata = _read_safetensors(path)
        if own := metadata.get(CONFIG_KEY):
            config = {**_json(own, path), "_process": _json(metadata.get(PROCESS_KEY, "{}"), path)}
        return _chosen(str(path), state, ema, config)
    if path.suffix == ".pkl":
        raise CheckpointError(
            f"{path} is a pickle that carries code, as EDM's files do, and none of it was run: convert it to"
            " .safetensors by the recipe in docs/networks.md under EDM"
        )
    if path.suffix in PICKLES or path.name.endswith(".pth.tar"):
        return _chosen(str(path), _read_pickle(path), ema, config)
    raise CheckpointError(
        f"{path} is not a checkpoint file: "
        f"give a diffusers folder, a .safetensors or a {'/'.join(sorted(PICKLES))}"
    )


def check_digest(path: Path, digest: str) -> None:
    """Compare a file with a digest written ``md5:...`` or ``sha256:...``.

    Raises:
        CheckpointError: if they differ.
    """
    algorithm, _, expected = digest.partition(":")
    try:
        found = file_digest(path, algorithm)
    except OSError as error:
        raise CheckpointError(f"{path} has no digest to check: {error.strerror}") from error
    if found != expected.lower():
        raise CheckpointError(
            f"{path} has {algorithm} {found}, not {expected}: it is damaged or another file"
        )


def _read_folder(folder: Path, ema: bool | None) -> Checkpoint:
    networks = [folder / name for name in NETWORKS if (folder / name).is_dir()]
    if ema is False:
        networks.reverse()
    if ema is True and folder.name != "unet_ema" and not (folder / "unet_ema").is_dir():
        raise CheckpointError(
            f"{folder} does not say that it holds averaged weights: leave ema out to load it"
        )
    root = next((f for f in [folder, *networks] if (f / "config.json").is_file()), None)
    if root is not None and (index := _index_in(root)):
        return Checkpoint(str(folder), _sharded(index), _neighbour(index, required=True))
    weights = root and _weights_in(root)
    if weights is None:
        held = [f for f in [folder, *networks] if root is None and _has_weights(f)]
        if held:
            raise CheckpointError(
                f"{held[0]} holds weights without their config.json: put the one they were made with beside"
                " them"
            )
        raise CheckpointError(
            f"{folder} is not a diffusers model: it needs config.json and {' or '.join(FOLDER_WEIGHTS)}"
        )
    state = _read_safetensors(weights)[0] if weights.suffix == ".safetensors" else _read_pickle(weights)
    found = _chosen(str(weights), state, None, _neighbour(weights, required=True))
    return replace(found, name=str(folder), averaged=True if weights.parent.name == "unet_ema" else None)


def _sharded(index: Path) -> dict[str, Tensor]:
    """Return the weights of several .safetensors that an index lists."""
    names = _json(index.read_bytes(), index).get("weight_map")
    if not isinstance(names, dict) or not names:
        raise CheckpointError(f"{index} lists no weights: get it again")
    state: dict[str, Tensor] = {}
    for name in sorted(set(map(str, names.values()))):
        shard = index.parent / Path(name).name
        if not shard.is_file():
            raise CheckpointError(f"{index} lists {shard.name}, which is not beside it: get it again")
        held = _read_safetensors(shard)[0] if shard.suffix == ".safetensors" else _read_pickle(shard)
        if not _is_state(held):
            raise CheckpointError(f"{shard} holds no state dict: get it again")
        state |= held
    if missing := sorted(set(names) - set(state)):
        raise CheckpointError(f"{index} lists {missing[0]}, which its files do not hold: get them again")
    return state


def _index_in(folder: Path) -> Path | None:
    """Return the index of weights in several files, of .safetensors before .bin; None where there is none.

    Raises:
        CheckpointError: if there are several of one kind.
    """
    for suffix in (".safetensors", ".bin"):
        found = sorted(folder.glob(f"*{suffix}.index.json")) if not _usual_in(folder) else []
        found = [path for path in found if path.name.removesuffix(".index.json") in FOLDER_WEIGHTS] or found
        if len(found) > 1:
            raise _several(folder, found)
        if found:
            return found[0]
    return None


def _several(folder: Path, found: Sequence[Path]) -> CheckpointError:
    names = ", ".join(path.name for path in found)
    return CheckpointError(
        f"{folder} holds several networks' weights ({names}): leave one of them there, beside config.json"
    )


def _has_weights(folder: Path) -> bool:
    return any(next(folder.glob(f"*{suffix}"), None) for suffix in (".safetensors", ".bin"))


def _weights_in(folder: Path) -> Path | None:
    """Return the weights by their usual name, or else the only ones there are, .safetensors before .bin.

    Raises:
        CheckpointError: if there are several, none of the usual name.
    """
    if usual := _usual_in(folder):
        return usual
    for suffix in (".safetensors", ".bin"):
        others = sorted(folder.glob(f"*{suffix}"))
        if len(others) > 1:
            raise _several(folder, others)
        if others:
            return others[0]
    return None


def _usual_in(folder: Path) -> Path | None:
    """Return a folder's weights by their usual name."""
    return next((folder / name for name in FOLDER_WEIGHTS if (folder / name).is_file()), None)


def _neighbour(weights: Path, *, required: bool = False) -> dict[str, Any]:
    """Read the config.json and scheduler_config.json that belong to a file of diffusers weights.

    A config.json that does not say whose it is, or names another network, is somebody else's, or, if
    ``required``, an error.
    """
    path = weights.parent / "config.json"
    if not path.is_file():
        return {}
    config = _json(path.read_bytes(), path)
    kind = config.get("_class_name", "UNet2DModel" if required or weights.name in FOLDER_WEIGHTS else None)
    if kind not in CLASSES:
        if required:
            raise CheckpointError(
                f"{path} describes a {kind}, and only diffusers' {' and '.join(CLASSES)} are"
                " supported: wrap it in a function and give it as FILE.py:FUNCTION"
            )
        return {}
    for folder in (weights.parent, weights.parent / "scheduler", weights.parent.parent / "scheduler"):
        scheduler = folder / "scheduler_config.json"
        if scheduler.is_file():
            return {**config, "_scheduler": _json(scheduler.read_bytes(), scheduler)}
    return config


def _json(text: str | bytes, path: Path) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: its configuration is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged: its configuration is not a JSON object")
    return value


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        return read_tensors(path)
    except NOT_TENSORS as error:
        raise CheckpointError(
            f"{path} is damaged or not safetensors: get it again ({first_line(error)})"
        ) from error


def _read_pickle(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # torch's remarks on the pickle's protocol
            with _plain_data():
                return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged or hostile pickle can make the reader raise anything
        if found := re.search(r"GLOBAL ([\w.]+)", str(error)):
            raise CheckpointError(
                f"{path} holds code or objects besides weights ({found[1]}) and none of it was run: "
                "save its state dict alone, best as .safetensors"
            ) from error
        raise CheckpointError(f"{path} is damaged or no PyTorch checkpoint: get it again") from error


def _plain_data() -> AbstractContextManager[Any]:
    """Let a pickle hold options (argparse.Namespace) and NumPy numbers beside weights: mere data."""
    scalar = np.float64(0).__reduce__()[0]  # the function that a pickle names, wherever this NumPy keeps it
    numbers = [np.dtype, scalar, *(type(np.dtype(name)) for name in ("float64", "float32", "int64"))]
    allow = getattr(torch.serialization, "safe_globals", None)  # torch 2.5
    return allow([argparse.Namespace, *numbers]) if allow is not None else nullcontext()


def _chosen(name: str, value: Any, ema: bool | None, config: Mapping[str, Any] | None = None) -> Checkpoint:
    """Take one state dict out of what a training loop saved, and a DataParallel prefix off its keys."""
    averaged, raw = (_network_in(found) for found in _candidates(value))
    if averaged is None and ema is not False and isinstance(value, Mapping):
        averaged = _shadow(name, value, raw)
    if averaged is None and raw is None:
        raise CheckpointError(f"{name} holds no state dict: give one of a network's weights by name")
    if ema is True and averaged is None:
        raise CheckpointError(f"{name} does not say that it holds averaged weights: leave ema out to load it")
    if ema is False and raw is None:
        raise CheckpointError(f"{name} holds averaged weights only: leave ema out to load them")
    if averaged is None and raw is not value and ema is not False:
        warnings.warn(f"{name} holds no averaged (EMA) weights: expect a much worse FID", stacklevel=2)
    chosen = raw if ema is False or averaged is None else averaged
    assert chosen is not None
    told = None if chosen is value else chosen is averaged
    return Checkpoint(name, unwrapped(chosen), dict(config or {}), told)


def unwrapped(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict without the prefixes that all of its names share and that wrappers put there."""
    found = dict(state)
    while prefix := next((p for p in WRAPPERS if all(key.startswith(p) for key in found)), ""):
        found = {key.removeprefix(prefix): weight for key, weight in found.items()}
    return found


def _apart(state: dict[str, Tensor]) -> tuple[dict[str, Tensor] | None, dict[str, Tensor]]:
    """Return (averaged, raw) weights of a state dict that holds both side by side, by their prefixes."""
    for prefix in AVERAGED_PREFIXES:
        averaged = {key: weight for key, weight in state.items() if key.startswith(prefix)}
        if averaged and len(averaged) < len(state):
            return averaged, {key: weight for key, weight in state.items() if key not in averaged}
    return None, state


def _candidates(value: Any) -> tuple[dict[str, Tensor] | None, dict[str, Tensor] | None]:
    """Return the averaged and the raw state dict among what was saved."""
    if _is_state(value):
        return _apart(value)
    if (
        isinstance(value, list | tuple) and len(value) >= 4
    ):  # ermongroup: [model, optimiser, epoch, step, (ema)]
        return _state(value[4]) if len(value) > 4 else None, _state(value[0])
    if isinstance(value, Mapping):
        averaged = next((value[name] for name in AVERAGED if _is_state(value.get(name))), None)
        if averaged is not None:  # what an averaging wrapper saved holds both, and counters
            beside, own = _apart(averaged)
            averaged = own if beside is None else beside
        raw = next((value[name] for name in RAW if _is_state(value.get(name))), None)
        if averaged is None and raw is not None:
            averaged, raw = _apart(raw)
        return averaged, raw
    return None, None


def _network_in(state: dict[str, Tensor] | None) -> dict[str, Tensor] | None:
    """Return the network's weights out of those of a diffusion that holds it beside tables of its own.

    The tables are ``betas`` and their like in denoising-diffusion-pytorch, ``u`` in EDM's iDDPM.
    """
    if state is None or not any(key.rpartition(".")[2] in ("betas", "u") for key in state):
        return state
    held = {key: weight for key, weight in state.items() if ".model." in f".{key}"}
    return held or state


def _shadow(
    name: str | Path, value: Mapping[str, Any], raw: dict[str, Tensor] | None
) -> dict[str, Tensor] | None:
    """Return averaged weights from somewhere below, by name or as a list in the order of the network's.

    Raises:
        CheckpointError: if the list does not fit the names of the raw weights.
    """
    where, shadow = next(_averages(value), ("", None))
    if shadow is None or isinstance(shadow, Mapping):
        return None if shadow is None else _fitted(shadow, raw)
    if raw is None or [weight.shape for weight in raw.values()] != [weight.shape for weight in shadow]:
        told = "no names" if raw is None else f"{len(raw)} names"
        raise CheckpointError(
            f"{name} holds averaged weights as a list of {len(shadow)} ({where}) for {told}: save the"
            " averaged network's state dict, or give ema=false for the raw one"
        )
    return dict(zip(raw, shadow, strict=True))


def _averages(
    value: Mapping[Any, Any], where: str = "", *, inside: bool = False
) -> Iterator[tuple[str, dict[str, Tensor] | Sequence[Tensor]]]:
    """Yield (where, weights) that are kept under a name of averages, by name or as a list of tensors."""
    for key, held in value.items():
        name = f"{where}.{key}" if where else str(key)
        named = inside or AVERAGES.search(str(key)) is not None
        if named and (_is_state(held) or _is_list(held)):
            yield name, held
        elif isinstance(held, Mapping) and name.count(".") < DEEPEST:
            yield from _averages(held, name, inside=named)


def _is_list(value: Any) -> bool:
    return isinstance(value, list | tuple) and len(value) > 0 and all(isinstance(w, Tensor) for w in value)


def _fitted(averaged: Mapping[str, Tensor], raw: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
    """Return averages with the raw weights that they leave out, as buffers; None where they do not fit."""
    found = unwrapped(averaged)
    if raw is None:
        return found
    known = unwrapped(raw)
    if any(name not in known or known[name].shape != weight.shape for name, weight in found.items()):
        return None
    return {**known, **found}


def _state(value: Any) -> dict[str, Tensor] | None:
    return value if _is_state(value) else None


def _is_state(value: Any) -> bool:
    return (
        isinstance(value, Mapping)
        and len(value) > 0
        and all(isinstance(key, str) and isinstance(weight, Tensor) for key, weight in value.items())
        and any(weight.ndim for weight in value.values())  # counters alone are no network
    )


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or what kind it is."""
    return (str(error).splitlines() or [type(error).__name__])[0]
