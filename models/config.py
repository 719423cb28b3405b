"""The configuration of a U-Net: whatever passes the checks here can be built, and runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

EmbeddingOrder = Literal["sin-cos", "cos-sin", "interleaved"]


@dataclass(frozen=True)
class UNetConfig:
    """What distinguishes one U-Net of the line from another. The defaults are the DDPM network for CIFAR-10.

    Attributes:
        image_size: height and width it was made for; no layer depends on it. None where nobody said.
        in_channels: channels of x.
        out_channels: channels of the output; twice ``in_channels`` where the variance is learned.
        channels: width of the first convolution and of the sinusoidal embedding of t; its two-layer
            perceptron makes 4 times as many.
        widths: channels of each level, from the highest resolution to the lowest.
        blocks: residual blocks of a level on the way down (one more on the way up).
        attention: for each level, whether self-attention follows its residual blocks.
        heads: attention heads; ignored where ``head_channels`` is given.
        head_channels: channels of one head.
        heads_first: whether the rows of a fused q, k, v projection are ordered (head, q|k|v, channel) as in
            improved-diffusion, instead of (q|k|v, head, channel).
        dropout: probability, in training, before the second convolution of a residual block.
        scale_shift: whether t scales and shifts the second norm's output, instead of being added before it.
        resample: ``"conv"``, a 3x3 convolution; or ``"resblock"``, a residual block that resamples inside.
        asymmetric_padding: whether a stride-2 convolution pads right and bottom only, as TensorFlow does.
        norm_groups: groups of every GroupNorm.
        norm_eps: epsilon of every GroupNorm.
        embedding_order: how the sines and cosines of t are arranged.
        embedding_shift: the frequencies are 10000^(-i / (channels/2 - embedding_shift)).
        patch: the first convolution sees squares of ``patch`` x ``patch`` pixels as the channels of one, and
            the last one makes them: a network for a CPU spends nothing at full resolution. No published one
            has it.
        classes: rows of the table of labels whose embedding is added to that of t; 0 for no labels.
        residual: 0 where the first half of the output is eps, as in every published network; else the number
            of time steps T, and the network corrects the best scalar predictor: see `best_scalar`.
    """

    image_size: int | None = 32
    in_channels: int = 3
    out_channels: int = 3
    channels: int = 128
    widths: tuple[int, ...] = (128, 256, 256, 256)
    blocks: int = 2
    attention: tuple[bool, ...] = (False, True, False, False)
    heads: int = 1
    head_channels: int | None = None
    heads_first: bool = False
    dropout: float = 0.0
    scale_shift: bool = False
    resample: Literal["conv", "resblock"] = "conv"
    asymmetric_padding: bool = True
    norm_groups: int = 32
    norm_eps: float = 1e-6
    embedding_order: EmbeddingOrder = "sin-cos"
    embedding_shift: int = 1
    patch: int = 1
    residual: int = 0
    classes: int = 0

    def __post_init__(self) -> None:
        check_config(self)

    @property
    def divisor(self) -> int:
        """What height and width of an image must be multiples of."""
        halvings = len(self.widths) - 1
        return self.patch << halvings

    def heads_of(self, width: int) -> int:
        """Return the number of attention heads at a level with ``width`` channels."""
        return self.heads if self.head_channels is None else width // self.head_channels


_COUNTS = ("in_channels", "out_channels", "channels", "blocks", "heads", "norm_groups", "patch")
_OPTIONAL = ("image_size", "head_channels")
_FLAGS = ("heads_first", "scale_shift", "asymmetric_padding")
_CHOICES = {"resample": ("conv", "resblock"), "embedding_order": get_args(EmbeddingOrder)}


def check_config(config: UNetConfig) -> None:
    """Refuse what makes no network.

    Raises:
        ValueError: naming the option.
    """
    for name in _COUNTS:
        _whole(name, getattr(config, name))
    for name in _OPTIONAL:
        if getattr(config, name) is not None:
            _whole(name, getattr(config, name))
    for name in _FLAGS:
        if not isinstance(getattr(config, name), bool):
            raise ValueError(f"{name} must be true or false, got {getattr(config, name)!r}")
    for name, choices in _CHOICES.items():
        if getattr(config, name) not in choices:
            raise ValueError(f"{name} must be {' or '.join(choices)}, got {getattr(config, name)!r}")
    if not is_whole(config.classes) or config.classes < 0:
        raise ValueError(f"classes must be 0 or a number of labels, got {config.classes!r}")
    if not is_whole(config.residual) or config.residual < 0:
        raise ValueError(f"residual must be 0 or a number of time steps, got {config.residual!r}")
    if not (is_number(config.dropout) and 0 <= config.dropout < 1):
        raise ValueError(f"dropout must lie in [0, 1), got {config.dropout!r}")
    if not (is_number(config.norm_eps) and 0 < config.norm_eps < math.inf):
        raise ValueError(f"norm_eps must be positive, got {config.norm_eps!r}")
    _check_widths(config)
    shift = config.embedding_shift
    if config.channels % 2 or not (is_number(shift) and 0 <= shift < config.channels / 2):
        raise ValueError(
            "the embedding needs an even number of channels and embedding_shift between 0 and half of it,"
            f" got {config.channels} and {shift!r}"
        )


def _check_widths(config: UNetConfig) -> None:
    widths, attention = config.widths, config.attention
    if len(attention) != len(widths) or not widths:
        raise ValueError(
            f"widths and attention need one entry a level, got {len(widths)} and {len(attention)}"
        )
    for width in {config.channels, *widths}:
        _whole("every width", width)
        if width % config.norm_groups:
            raise ValueError(f"{width} channels cannot be normalised in {config.norm_groups} groups")
    attending = {width for width, attend in zip(widths, attention, strict=True) if attend}
    for width in attending | {widths[-1]}:
        if width % (config.head_channels or config.heads):
            heads = f"heads of {config.head_channels}" if config.head_channels else None
            raise ValueError(
                f"{width} channels cannot be split into {heads or f'{config.heads} attention heads'}"
            )


def is_whole(value: Any) -> bool:
    """Return whether ``value`` is an integer, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a number, and no bool."""
    return is_whole(value) or isinstance(value, float)


def _whole(name: str, value: Any) -> None:
    if not is_whole(value) or value < 1:
        raise ValueError(f"{name} must be a whole number of at least 1, got {value!r}")
