"""Frames of one sample on its way from noise to image, and of an image on its way to noise."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.data.images import to_uint8
from bench.diffusion.posterior import diffuse
from bench.diffusion.schedule import NoiseSchedule, Schedule

FRAMES = 11
"""Frames of a film: beginning, end and nine between, at equal parts of the steps."""


def frame_steps(steps: int) -> list[int]:
    """Return after how many of S steps a frame is kept: j S / (FRAMES - 1), rounded, each once."""
    return list(dict.fromkeys(round(j * steps / (FRAMES - 1)) for j in range(FRAMES)))


class Film:
    """Frames of the first image of a batch.

    Args:
        steps: that the sampler is expected to take.
    """

    def __init__(self, steps: int) -> None:
        self._wanted = frozenset(frame_steps(steps))
        self._frames: list[Tensor] = []

    def see(self, taken: int, x: Tensor) -> None:
        """Keep a frame of x (B, C, H, W) after ``taken`` steps if it is one of the film's."""
        if taken in self._wanted:
            self._frames.append(x[0].clone())

    def images(self, decode: Callable[[Tensor], Tensor]) -> Tensor:
        """Return the frames as uint8 (frames, C, H, W) on the CPU; what exceeds [-1, 1] is cut off.

        Args:
            decode: turns x (frames, c, h, w) into images (frames, C, H, W).
        """
        return to_uint8(decode(torch.stack(self._frames))).cpu()


def forward_film(x0: Tensor, schedule: Schedule, noise: Tensor, decode: Callable[[Tensor], Tensor]) -> Tensor:
    """Return x_t, from x_0 to x_T at equal parts of its time; see `diffuse`.

    Args:
        x0: an image in [-1, 1], or its latents, (C, H, W).
        schedule: the schedule of the diffusion.
        noise: standard normal, shaped like x_0.
        decode: turns x (frames, c, h, w) into images (frames, C, H, W).

    Returns:
        uint8 (frames, C, H, W).

    Source: Ho et al. 2020, arXiv:2006.11239, eq. 4.
    """
    parts = frame_steps(schedule.T if isinstance(schedule, NoiseSchedule) else FRAMES - 1)
    times = [schedule.clean + part / parts[-1] * (schedule.last - schedule.clean) for part in parts]
    frames = [diffuse(x0, noise, schedule.alpha_bar(t)) for t in times]
    return to_uint8(decode(torch.stack(frames)))
