"""All that is random in a training step, as a function of (seed, step): nothing has to be saved."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

_ORDER, _STEP, _WEIGHTS = 1, 2, 3  # streams of one seed


class Draw(NamedTuple):
    """The random choices of one step's batch, on the CPU.

    Attributes:
        indices: the indices of the images, int64 (B,).
        t: time steps, int64 (B,).
        weights: 1 / (T p(t)), float32 (B,).
        noise: standard normal, (B, C, H, W).
        flips: which images are mirrored, bool (B,).
        dropout_seed: for the network's own randomness.
        hidden: whose label is hidden, bool (B,); None where there are no labels.
    """

    indices: Tensor
    t: Tensor
    weights: Tensor
    noise: Tensor
    flips: Tensor
    dropout_seed: int
    hidden: Tensor | None = None


def batch_indices(seed: int, step: int, batch: int, count: int) -> Tensor:
    """Return the ``batch`` image indices of a step: every epoch is a new permutation of ``count`` images.

    The epochs follow each other without a gap, so that each image is seen equally often.
    """
    first = step * batch
    wanted, parts = batch, []
    while wanted:
        epoch, offset = divmod(first, count)
        part = _permutation(seed, epoch, count)[offset : offset + wanted]
        parts.append(part)
        first, wanted = first + len(part), wanted - len(part)
    return torch.from_numpy(np.concatenate(parts))


def step_generator(seed: int, step: int) -> torch.Generator:
    """Return the generator of a step's t, noise and flips."""
    return torch.Generator().manual_seed(_derived(seed, _STEP, step))


def initial_seed(seed: int) -> int:
    """Return the seed of the initial weights."""
    return _derived(seed, _WEIGHTS, 0)


def derived_seed(generator: torch.Generator) -> int:
    """Return a seed drawn from ``generator``."""
    return int(torch.randint(2**62, (1,), generator=generator))


_permutations: dict[tuple[int, int, int], np.ndarray[tuple[int], np.dtype[np.int64]]] = {}


def _permutation(seed: int, epoch: int, count: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    key = (seed, epoch, count)
    if key not in _permutations:
        while len(_permutations) > 1:  # an epoch and its successor at most
            _permutations.pop(next(iter(_permutations)))
        rng = np.random.Generator(np.random.Philox(np.random.SeedSequence([seed, _ORDER, epoch])))
        _permutations[key] = rng.permutation(count)
    return _permutations[key]


def _derived(seed: int, stream: int, index: int) -> int:
    words = np.random.SeedSequence([seed, stream, index]).generate_state(2, np.uint32)
    return int(words[0]) << 31 ^ int(words[1])
