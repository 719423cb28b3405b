"""What ``--model`` takes: a checkpoint and, after a colon, what its file does not say."""

from __future__ import annotations

import re
from typing import Any

OPTIONS = frozenset(
    {"T", "schedule", "variance", "rescale_timesteps", "image_size", "ema", "family", "digest"}
)
"""Options of `models.load_checkpoint`; every other name is an argument of the family's own constructor."""

_WORDS: dict[str, bool | None] = {"true": True, "false": False, "none": None}


def split_spec(spec: str) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """Split ``SOURCE:name=value,...`` into the source, the loader's options and the network's arguments.

    An example: ``model.pt:T=4000,schedule=cosine,rescale_timesteps=true,num_heads=4``. Values are true,
    false, none, numbers or text.
    """
    found = re.fullmatch(r"(.+?):(\w+=.*)", spec)
    if found is None:
        return spec, {}, {}
    options: dict[str, Any] = {}
    config: dict[str, Any] = {}
    for item in found[2].split(","):
        name, _, text = item.partition("=")
        (options if name in OPTIONS else config)[name] = _value(text)
    return found[1], options, config


def _value(text: str) -> Any:
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
