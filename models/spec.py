"""What ``--model`` takes: a checkpoint and, after a colon, what its file does not say."""

from __future__ import annotations

from typing import Any, NamedTuple

import bench.spec
from bench.diffusion.conditions import OPTIONS as CONDITIONS

OPTIONS = frozenset(
    {"T", "schedule", "variance", "rescale_timesteps", "image_size", "ema", "family", "digest", "predicts"}
    | {"null_label"}
)
"""Options of `models.load_checkpoint`; every other name is an argument of the family's own constructor."""

_WORDS: dict[str, bool | None] = {"true": True, "false": False, "none": None}


class Spec(NamedTuple):
    """What ``SOURCE:name=value,...`` says.

    Attributes:
        source: the checkpoint.
        options: what the loader takes.
        config: the arguments of the network's own constructor.
        conditions: the options of a conditional model, as text: ``guidance``, ``label``...
    """

    source: str
    options: dict[str, Any]
    config: dict[str, Any]
    conditions: dict[str, str]


def split_spec(spec: str) -> Spec:
    """Split ``SOURCE:name=value,...`` into the source and what it is given.

    An example: ``model.pt:T=4000,schedule=cosine,channel_mult=1,2,2,guidance=3``. Values are true, false,
    none, numbers, text, or several of them with commas between.
    """
    source, text = bench.spec.split_spec(spec)
    bench.spec.refuse_repeated(text, f"model {spec!r}")
    found = Spec(source, {}, {}, {})
    for name, value in bench.spec.parse_options(text, f"model {spec!r}").items():
        if name in CONDITIONS:
            found.conditions[name] = value
        else:
            (found.options if name in OPTIONS else found.config)[name] = _value(value)
    return found


def _value(text: str) -> Any:
    if "," in text:
        return tuple(_value(part.strip()) for part in text.split(","))
    if text.lower() in _WORDS:
        return _WORDS[text.lower()]
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
