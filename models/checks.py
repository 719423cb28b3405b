"""What a U-Net's configuration may be: whatever passes here can be built, and runs."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, get_args

from models.layers import EmbeddingOrder

if TYPE_CHECKING:
    from models.unet import UNetConfig

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
