"""Noise that is a function of its arguments alone.

Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", SC '11) maps a 256-bit
counter and a 128-bit key to four 64-bit words. Sample ``index`` owns the counters

    (index * B + b, step, draw, 0),  b = 0 .. B-1,  B = ceil(numbers per sample / 8),

under the key (seed, 0), so its numbers do not depend on which other samples are drawn beside it, in what
order, in batches of what size, or on what device. Its words are 8 B 32-bit integers, low half first; u from
the first 4 B of them and w from the last give

    sqrt(-2 ln((u + 1) / 2^32)) * (cos, sin)(2 pi w / 2^32)        (Box & Muller 1958)

in float32, first the 4 B cosines, then the 4 B sines. The integers are the same bit for bit everywhere;
logarithm, cosine and sine differ between kinds of device by rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bench.device.threads import in_threads

INITIAL = 0
"""``step`` of the noise that a trajectory starts from; the step with index k draws with ``step = k + 1``."""


AUGMENTATION = 1 << 34
"""``draw`` of the noise that is put on the picture a stage of a cascade is bound to."""


STAGE = 1 << 40
"""How far apart the ``draw`` of two stages of a cascade lie: no sampler counts that far."""


_MASK = (1 << 64) - 1


_MULTIPLIERS = (0xD2E7470EE14C6C93, 0xCA5A826395121157)


_WEYL = (0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B)


_ROUNDS = 10


_NORMALS_PER_COUNTER = 8


_COUNTERS_AT_ONCE = 1 << 14  # on a CPU: 131,072 numbers and what they are made of stay in its cache


_COUNTERS_A_THREAD = 1 << 12  # fewer are made sooner than another thread is woken


def normal_noise(
    seed: int,
    indices: Sequence[int] | range,
    step: int,
    shape: tuple[int, ...],
    *,
    draw: int = 0,
    device: torch.device | str = "cpu",
) -> Tensor:
    """Return standard normal noise, float32, shape (len(indices), *shape).

    Args:
        seed: the seed of the run; 0 .. 2^64 - 1.
        indices: sample indices, >= 0; row i depends on indices[i] and on no other.
        step: 0 for the noise a trajectory starts from, k + 1 for the step with index k.
        shape: the shape of one sample.
        draw: for samplers that need several independent draws at one step.
        device: where the numbers are made; on a GPU they never visit the CPU.

    Raises:
        ValueError: if seed, step, draw or an index is negative.
    """
    if min(seed, step, draw) < 0 or (len(indices) and min(indices) < 0):
        raise ValueError(f"seed, step, draw and indices must not be negative, got {seed}, {step}, {draw}")
    device, size = torch.device(device), math.prod(shape)
    counters = -(-size // _NORMALS_PER_COUNTER)
    flat = torch.empty((len(indices), counters * _NORMALS_PER_COUNTER), dtype=torch.float32, device=device)
    make = _normals_numpy if device.type == "cpu" else _normals_torch
    most = _rows_at_once(len(indices), counters) if device.type == "cpu" else len(indices)

    def fill(run: tuple[int, range]) -> None:
        place, owners = run
        make(seed, owners, counters, step, draw, flat[place : place + len(owners)])

    in_threads(fill, list(_consecutive(indices, most)) if size else [])
    return flat[:, :size].reshape(-1, *shape)


def _rows_at_once(rows: int, counters: int) -> int:
    """Return how many samples one call makes: a share of each thread's, no more than the cache holds."""
    share = max(rows * counters // torch.get_num_threads(), _COUNTERS_A_THREAD)
    return max(1, min(-(-share // max(1, counters)), _COUNTERS_AT_ONCE // max(1, counters)))


@dataclass(frozen=True)
class TrajectoryNoise:
    """All noise of some trajectories: x_T, and what a sampler adds at each step.

    Attributes:
        seed: seed of the run, 0 .. 2^64 - 1.
        indices: sample indices, one a trajectory.
        shape: shape (C, H, W) of one sample.
        device: where the numbers are made.
        stage: 0 for a model alone, 1, 2, ... for the later ones of a cascade: a stream of its own each.
    """

    seed: int
    indices: Sequence[int] | range
    shape: tuple[int, ...]
    device: torch.device | str = "cpu"
    stage: int = 0

    def initial(self) -> Tensor:
        """Return x_T, standard normal, float32 (B, C, H, W)."""
        return self._drawn(INITIAL, 0)

    def __call__(self, index: int, draw: int = 0) -> Tensor:
        """Return the noise of the step with an index, standard normal, float32 (B, C, H, W).

        Args:
            index: 0 for the first step taken, then 1, 2, ...
            draw: number of the draw, for samplers that need several independent ones at a step.
        """
        return self._drawn(index + 1, draw)

    def _drawn(self, step: int, draw: int) -> Tensor:
        draw += self.stage * STAGE
        return normal_noise(self.seed, self.indices, step, self.shape, draw=draw, device=self.device)


def _consecutive(indices: Sequence[int] | range, most: int) -> Iterator[tuple[int, range]]:
    """Split indices into runs of at most ``most`` consecutive numbers, each one call of the generator.

    Yields:
        (the place of a run's first row, its indices).
    """
    if isinstance(indices, range) and indices.step == 1:
        yield from ((i, indices[i : i + most]) for i in range(0, len(indices), most))
        return
    start = 0
    for i in range(1, len(indices) + 1):
        if i == len(indices) or i - start == most or indices[i] != indices[i - 1] + 1:
            yield start, range(int(indices[start]), int(indices[i - 1]) + 1)
            start = i


def philox_numpy(key: tuple[int, int], counter: tuple[int, int, int, int], n: int) -> NDArray[np.uint64]:
    """Return the 4 n words of Philox4x64-10 for n consecutive counters, the first word counting fastest."""
    value = sum(word << (64 * i) for i, word in enumerate(counter))
    before = (value - 1) % (1 << 256)  # numpy counts up before it generates
    generator = np.random.Philox(
        key=np.array(key, dtype=np.uint64),
        counter=np.array([(before >> (64 * i)) & _MASK for i in range(4)], dtype=np.uint64),
    )
    return generator.random_raw(4 * n)


def philox_torch(
    key: tuple[int, int], counter: tuple[int, int, int, int], n: int, device: torch.device
) -> Tensor:
    """Return the same words as `philox_numpy` as int64 (bit for bit), shape (n, 4), made on ``device``."""
    first = torch.arange(n, dtype=torch.int64, device=device) + _signed(counter[0])
    x = [first, *(torch.full_like(first, _signed(word)) for word in counter[1:])]
    k0, k1 = key
    for _ in range(_ROUNDS):
        high0, low0 = _multiply(x[0], _MULTIPLIERS[0])
        high1, low1 = _multiply(x[2], _MULTIPLIERS[1])
        x = [high1 ^ x[1] ^ _signed(k0), low1, high0 ^ x[3] ^ _signed(k1), low0]
        k0, k1 = (k0 + _WEYL[0]) & _MASK, (k1 + _WEYL[1]) & _MASK
    return torch.stack(x, dim=1)


def _multiply(a: Tensor, constant: int) -> tuple[Tensor, Tensor]:
    """Return the high and low 64 bits of the unsigned product, from four products of 32-bit halves."""
    half = 0xFFFFFFFF
    a0, a1 = a & half, (a >> 32) & half
    b0, b1 = constant & half, constant >> 32
    low, mid0, mid1 = a0 * b0, a1 * b0, a0 * b1
    carry = ((low >> 32) & half) + (mid0 & half) + (mid1 & half)
    high = a1 * b1 + ((mid0 >> 32) & half) + ((mid1 >> 32) & half) + (carry >> 32)
    return high, a * _signed(constant)


def _signed(word: int) -> int:
    """Return the int64 with the bits of an unsigned 64-bit word."""
    return word - (1 << 64) if word >> 63 else word


def _normals_numpy(seed: int, run: range, counters: int, step: int, draw: int, out: Tensor) -> None:
    """Put the numbers of consecutive samples into ``out``, (len(run), 8 counters), by numpy's generator."""
    words = philox_numpy((seed, 0), (run.start * counters, step, draw, 0), len(run) * counters)
    halves = words.view(np.uint32).reshape(len(run), 2, -1)  # little-endian: the low half of a word first
    normals = out.numpy().reshape(halves.shape)
    radius = halves[:, 0].astype(np.float32)
    radius += np.float32(1)
    radius *= np.float32(2.0**-32)
    np.log(radius, out=radius)
    radius *= np.float32(-2)
    np.sqrt(radius, out=radius)
    angle = halves[:, 1].astype(np.float32)
    angle *= np.float32(2 * math.pi * 2.0**-32)
    np.cos(angle, out=normals[:, 0])
    np.sin(angle, out=normals[:, 1])
    normals *= radius[:, None]


def _normals_torch(seed: int, run: range, counters: int, step: int, draw: int, out: Tensor) -> None:
    """Put the same numbers, up to rounding, into ``out``, by integer arithmetic on its device."""
    words = philox_torch((seed, 0), (run.start * counters, step, draw, 0), len(run) * counters, out.device)
    low, high = words & 0xFFFFFFFF, (words >> 32) & 0xFFFFFFFF
    halves = torch.stack([low, high], dim=-1).reshape(len(run), 2, -1).float()
    radius = ((halves[:, 0] + 1) * 2.0**-32).log_().mul_(-2).sqrt_()
    angle = halves[:, 1] * (2 * math.pi * 2.0**-32)
    torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1, out=out)
