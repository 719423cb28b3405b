"""The families of public checkpoints, one file each, and which of them a state dict belongs to."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from models.errors import CheckpointError
from models.families.base import Family
from models.families.diffusers import Diffusers
from models.families.native import Native
from models.families.openai import OpenAI
from models.families.pesser import Pesser
from models.families.pytorch_ddpm import PytorchDDPM

FAMILIES: tuple[Family, ...] = (Diffusers(), OpenAI(), Pesser(), PytorchDDPM(), Native())

OTHERS = {"init_conv.weight": "denoising-diffusion-pytorch's Unet"}
"""Weights by which networks are known that are not among the families."""


def find_family(name: str) -> Family:
    """Return the family called ``name``.

    Raises:
        CheckpointError: if there is none.
    """
    for family in FAMILIES:
        if family.name == name:
            return family
    raise CheckpointError(f"unknown family {name!r}; known: {_names(FAMILIES)}")


def detect_family(keys: Collection[str]) -> Family:
    """Return the family whose key names these are.

    Raises:
        CheckpointError: if they are nobody's.
    """
    best = max(FAMILIES, key=lambda family: len(family.signature & set(keys)))
    if not best.signature & set(keys):
        if known := [OTHERS[key] for key in OTHERS if key in keys]:
            raise CheckpointError(
                f"these are the weights of {known[0]}, whose layers the loader does not know: make the"
                " network by its own code in a file, wrap it with bench.from_prediction and give --model"
                " FILE.py:FUNCTION"
            )
        shown = ", ".join(sorted(keys)[:3])
        raise CheckpointError(
            f"these are not the weights of a known network (they begin with {shown or 'nothing'}): give a"
            f" checkpoint of {_names(FAMILIES)}, of EDM or a DiT, or a function that makes the network as"
            " FILE.py:FUNCTION"
        )
    return best


def _names(families: Iterable[Family]) -> str:
    return ", ".join(family.name for family in families)


__all__ = ["FAMILIES", "Family", "detect_family", "find_family"]
