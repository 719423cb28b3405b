"""What the loader must know about a family of checkpoints, and the conversion that all families share."""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from bench import NoiseSchedule, Schedule, Variance
from bench.diffusion.prediction import Predicts
from models.config import UNetConfig
from models.errors import CheckpointError
from models.unet import UNet

State = Mapping[str, Tensor]
"""A state dict: the name of every weight, and the weight."""

Config = Mapping[str, Any]
"""The arguments of a family's own constructor, by name."""

Part = Literal["down", "up", "middle"]
Kind = Literal["block", "attention", "resample"]


@dataclass(frozen=True)
class Place:
    """Where a residual block, an attention or a resampler stands.

    Attributes:
        part: the way down, the way up, or between them.
        kind: which of the three it is.
        level: 0 is the highest resolution.
        index: counts the kind within its level, or within the middle.
    """

    part: Part
    kind: Kind
    level: int
    index: int


@dataclass(frozen=True)
class Process:
    """The diffusion a network was trained for, as far as its checkpoint or its family tells.

    Attributes:
        schedule: the schedule of the forward process; None where it must be given.
        variance: what the second half of the output channels holds; None where it must be given.
        rescale_timesteps: whether the network receives t 1000/T for the time step t; None where it must be
            given.
        predicts: what the network predicts.
        assumed: a sentence where nothing told the diffusion and a convention was taken; it may say
            ``{predicts}`` where it says what the network is taken to predict.
    """

    schedule: Schedule | None
    variance: Variance | None
    rescale_timesteps: bool | None = False
    predicts: Predicts = "eps"
    assumed: str = ""


class Family(ABC):
    """One public code base: its key names, its constructor's arguments, its diffusion.

    A family names, for every weight of ours, the weights of its own that make it up. Everything else (fusing
    q, k and v, dropping the two trailing dimensions of a 1x1 convolution, completeness, shapes) is shared.
    """

    name: ClassVar[str]
    origin: ClassVar[str]
    signature: ClassVar[frozenset[str]]
    """Keys that its state dicts have and no other family's has."""
    arguments: ClassVar[frozenset[str]]
    """Arguments of its constructor that are understood."""
    lists: ClassVar[frozenset[str]] = frozenset()
    """Arguments that are lists, where one number stands for a list of it."""
    stem: ClassVar[Mapping[str, str]]
    """Names of ``time_embed.0`` and ``.2``, ``conv_in``, ``norm_out``, ``conv_out`` and ``label_embed``."""
    leaves: ClassVar[Mapping[str, tuple[str, ...]]]
    """Names, below a block, attention or resampler, of its layers; several where ours is a fusion of them."""

    @abstractmethod
    def infer(self, state: State) -> dict[str, Any]:
        """Return the constructor's arguments that the weights themselves tell."""

    @abstractmethod
    def read(self, config: Config) -> UNetConfig:
        """Translate the constructor's arguments, inferred and given; absent ones have its defaults.

        Raises:
            CheckpointError: if a needed one is absent, or one asks for what our U-Net does not have.
        """

    @abstractmethod
    def prefix(self, place: Place, config: UNetConfig) -> str:
        """Return the family's name of the module at ``place``."""

    @abstractmethod
    def schedule(self, T: int, kind: str) -> NoiseSchedule:
        """Return what the family calls its ``"linear"`` or ``"cosine"`` schedule of T steps."""

    @abstractmethod
    def process(self, state: State, config: Config, unet: UNetConfig) -> Process:
        """Return the diffusion, as far as the checkpoint or the family's convention tells."""

    def check(self, config: Config) -> None:
        """Refuse an argument that the family does not have.

        Raises:
            CheckpointError: naming it, and the nearest known one.
        """
        for name, value in config.items():
            if name not in self.arguments and not name.startswith("_") and value is not None:
                near = difflib.get_close_matches(name, self.arguments, n=1)
                hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(self.arguments))}"
                raise CheckpointError(f"this {self.name} network takes no argument {name!r}; {hint}")

    def listed(self, config: Config) -> dict[str, Any]:
        """Return the arguments with a list wherever one number was given in the place of one."""
        return {
            name: (value,) if name in self.lists and isinstance(value, int | float | str) else value
            for name, value in config.items()
        }

    def demand(self, config: Config, name: str, *supported: Any) -> None:
        """Refuse a value of an argument that our U-Net cannot represent; absent means the first one.

        Raises:
            CheckpointError: naming the argument and what is supported.
        """
        value = config.get(name, supported[0])
        if value not in supported:
            shown = " or ".join(repr(choice) for choice in supported)
            raise CheckpointError(
                f"{name}={value!r} of this {self.name} network is not supported, only {shown}"
            )

    def undecided(self, given: Config) -> str | None:
        """Return a clause naming what neither weights nor ``given`` arguments tell; None if they tell all."""
        return None

    def complete(self, given: Config) -> bool:
        """Return whether ``given`` are all arguments, so that an absent one has the constructor's default."""
        return False

    def modernise(self, state: State) -> State:
        """Return the state dict in the family's current names and without what is not a weight."""
        return state

    def sources(self, key: str, config: UNetConfig) -> tuple[str, ...]:
        """Return the family's weights whose concatenation is our weight ``key``."""
        module, _, parameter = key.rpartition(".")
        if module in self.stem:
            return (f"{self.stem[module]}.{parameter}",)
        place, leaf = locate(module)
        prefix = self.prefix(place, config)
        leaves = self.leaves[leaf if place.kind != "resample" or leaf != "conv" else f"{place.part}.conv"]
        return tuple(f"{prefix}.{name}.{parameter}" if name else f"{prefix}.{parameter}" for name in leaves)


def locate(module: str) -> tuple[Place, str]:
    """Split the name of one of our layers into the place of its module and the layer's name in it."""
    match module.split("."):
        case ["middle", "attention", leaf]:
            return Place("middle", "attention", -1, 0), leaf
        case ["middle", "block1" | "block2" as block, leaf]:
            return Place("middle", "block", -1, int(block[-1]) - 1), leaf
        case ["down" | "up" as part, level, "resample", leaf]:
            return Place("down" if part == "down" else "up", "resample", int(level), 0), leaf
        case ["down" | "up" as part, level, "blocks" | "attentions" as kind, index, leaf]:
            return (
                Place(
                    "down" if part == "down" else "up",
                    "block" if kind == "blocks" else "attention",
                    int(level),
                    int(index),
                ),
                leaf,
            )
    raise KeyError(module)


def convert(family: Family, state: State, config: UNetConfig) -> UNet:
    """Return our U-Net with a family's weights, in float32.

    Every weight is checked before the first is taken: nothing is ever half-loaded.

    Raises:
        CheckpointError: see `whole`.
    """
    with torch.device("meta"):
        network = UNet(config)
    sources = {key: family.sources(key, config) for key in network.state_dict()}
    wanted = {
        name: (meta.shape[0] // len(sources[key]), *meta.shape[1:])
        for key, meta in network.state_dict().items()
        for name in sources[key]
    }
    held = whole(family.name, state, wanted)
    weights = {key: torch.cat([held[name] for name in names]) for key, names in sources.items()}
    network.load_state_dict(weights, assign=True)  # copies: the caller keeps his own
    return network


def whole(
    kind: str, state: State, wanted: Mapping[str, tuple[int, ...]], *, configured: bool = True
) -> dict[str, Tensor]:
    """Return the weights that a network has, in float32, if they are exactly these.

    Args:
        kind: the family, for messages.
        state: what a checkpoint holds.
        wanted: the shape of every weight; dimensions of 1 may trail in the checkpoint.
        configured: whether a configuration tells the shapes; else the weights told them themselves.

    Raises:
        CheckpointError: if a key is missing, left over, of another shape, no real number, NaN or infinite.
    """
    asks, remedy = "its other weights ask", "get it again"
    if configured:
        asks, remedy = "its configuration asks", "give the configuration it was made with"
    for verb, keys in (("lacks", wanted.keys() - state.keys()), ("has", state.keys() - wanted.keys())):
        if names := sorted(keys):
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            beyond = f", beyond what {asks} for," if verb == "has" else ""
            raise CheckpointError(
                f"this {kind} checkpoint {verb}{beyond} {', '.join(names[:3])}{more}: it is damaged,"
                f" {'or ' * configured}{remedy}"
            )
    held = {}
    for name, expected in wanted.items():
        piece = _weight(kind, name, state[name])
        if _squeeze(piece.shape, len(expected)) != tuple(expected):
            raise CheckpointError(
                f"{name} of this {kind} checkpoint has shape {tuple(piece.shape)} where {asks} for"
                f" {tuple(expected)}: {remedy}"
            )
        if not bool(torch.isfinite(piece).all()):
            raise CheckpointError(f"{name} of this {kind} checkpoint holds NaN or infinity: get it again")
        held[name] = piece.reshape(expected)
    return held


def count(keys: Iterable[str], pattern: str) -> int:
    """Return one more than the largest number at ``*`` in keys that begin with ``pattern``, or 0."""
    before, after = pattern.split("*")
    found = [
        rest.split(".", 1)[0]
        for key in keys
        if key.startswith(before) and after in (rest := key[len(before) :])
    ]
    return max((int(number) + 1 for number in found if number.isdigit()), default=0)


def size(state: State, key: str, dim: int = 0) -> int:
    """Return the size of a weight that every checkpoint of the family has.

    Raises:
        CheckpointError: if it is not there.
    """
    if key not in state or state[key].ndim <= dim:
        raise CheckpointError(f"this checkpoint lacks {key}: it is damaged, get it again")
    return state[key].shape[dim]


def ratio(width: int, channels: int) -> int | float:
    """Return width / channels, an int where it is whole."""
    return width // channels if width % channels == 0 else width / channels


def _weight(kind: str, name: str, weight: Tensor) -> Tensor:
    if not weight.is_floating_point() or weight.layout is not torch.strided or weight.is_meta:
        raise CheckpointError(
            f"{name} of this {kind} checkpoint is no plain tensor of real numbers: save its weights in"
            " float32"
        )
    return weight.detach().to("cpu", torch.float32)


def _squeeze(shape: torch.Size, dims: int) -> tuple[int, ...]:
    trailing = tuple(shape[dims:])
    return tuple(shape[:dims]) if all(size == 1 for size in trailing) else tuple(shape)
