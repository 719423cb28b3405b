"""The second moment of a model's noise at a time, one number: what analytic reverse variances are made of."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from bench.diffusion.conditions import bound
from bench.diffusion.grid import times_like
from bench.diffusion.interfaces import EpsilonModel
from bench.diffusion.noise import TrajectoryNoise
from bench.diffusion.posterior import diffuse
from bench.errors import UsageError


@dataclass(frozen=True)
class NoiseMoments:
    """Estimates of Gamma_t = E |eps(x_t, t)|^2 / d over data and noise, d the number of values of a sample.

    Attributes:
        model: the name of the model.
        weights: the hash of its weights.
        images: how many images each was estimated from.
        evaluations: images sent through the network so far, for all of them.
        values: Gamma_t by time.

    Source: Bao et al. 2022, Analytic-DPM, arXiv:2201.06503, where it is of the score: Gamma_t / (1 - abar_t).
    """

    model: str
    weights: str
    images: int
    evaluations: int = 0
    values: Mapping[float, float] = field(default_factory=dict)

    def at(self, t: float) -> float:
        """Return Gamma_t.

        Raises:
            UsageError: if it was not estimated.
        """
        if t not in self.values:
            raise UsageError(
                f"there is no moment of {self.model} for the time {t:g}; `sampler-bench moments` adds those"
                " of its --steps and --spacing to the file"
            )
        return self.values[t]

    def text(self) -> str:
        """Return them as JSON, which `read_moments` reads."""
        return json.dumps(asdict(self) | {"values": sorted(self.values.items(), reverse=True)}, indent=1)


def read_moments(path: Path) -> NoiseMoments:
    """Return the moments that a file holds.

    Raises:
        UsageError: if there is no such file, or it holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        values = {float(t): float(value) for t, value in found["values"]}
        return NoiseMoments(**{**found, "values": values})
    except OSError as error:
        raise UsageError(
            f"cannot read moments from {path}: {error.strerror}; `sampler-bench moments` makes such a file"
        ) from None
    except (ValueError, TypeError, KeyError):
        raise UsageError(f"{path} holds no moments; `sampler-bench moments` makes such a file") from None


def noise_moment(model: EpsilonModel, x0: Tensor, t: float, seed: int = 0, batch: int = 250) -> float:
    """Return the mean square of the predicted noise in images with noise in them, at a time:

        Gamma_t = mean of eps(sqrt(abar_t) x_0 + sqrt(1 - abar_t) z, t)^2

    Args:
        model: the noise predictor.
        x0: its data, (N, C, H, W), on its device.
        t: the time.
        seed: the seed of z, which is the same at every time.
        batch: images at a time.
    """
    total = 0.0
    for start in range(0, len(x0), batch):
        part = x0[start : start + batch]
        indices = range(start, start + len(part))
        z = TrajectoryNoise(seed, indices, tuple(part.shape[1:]), part.device).initial()
        x = diffuse(part, z, model.schedule.alpha_bar(t))
        with torch.inference_mode():
            eps = bound(model, indices, seed)(x, times_like(x, t)).eps
        total += float(eps.double().square().sum())
    return total / x0.numel()
