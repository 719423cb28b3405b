"""How far answers and images may be from those of the network as it is, in float32; one row a precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple


class Tolerance(NamedTuple):
    """How far what a network says may differ.

    Attributes:
        answers: greatest difference of two answers for one input, as a part of the greatest value: with the
            batch around it, and from the same network run as it is in float32.
        images: mean absolute difference of images drawn from the same noise, from those of the network as it
            is in float32, in levels of 256.
    """

    answers: float
    images: float


TOLERANCES: Mapping[str, Tolerance] = {
    "float32": Tolerance(1e-3, 0.1),
    "tf32": Tolerance(1e-2, 0.5),
    "bfloat16": Tolerance(0.1, 1.0),
    "float16": Tolerance(0.05, 1.0),
}
"""Tolerances by precision, whatever runs the network.

In float32 another way to run it rounds elsewhere: a pixel in a hundred falls on the other side of a level.
One level is what the rounding of images to 8 bits takes at most; half of that TF32 may.
"""
