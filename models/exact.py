r"""Noise predictors in closed form: the oracle that everything else is tested against.

For data x_0 ~ p and x_t = sqrt(abar) x_0 + sqrt(1 - abar) z, the best noise predictor is

    eps(x_t, t) = (x_t - sqrt(abar) E[x_0 | x_t]) / sqrt(1 - abar)

and for Gaussians and their mixtures the conditional mean and variance of x_0 are elementary. No training,
no network error: whatever distance a sampler leaves is the sampler's own.

Source: Bao et al. 2022, Analytic-DPM, arXiv:2201.06503, section 3 (the optimal mean and variance).
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

from bench import (
    ModelCard,
    NoiseSchedule,
    Prediction,
    Variance,
    from_uint8,
    hookimpl,
    load_images,
    normal_noise,
)

LAW_SEED = 2**63
"""Added to the seed of draws from the law, so that they never repeat a trajectory's noise."""


class ExactGaussian:
    """Data x_0 ~ N(mean, covariance): everything is linear, the output's law too.

    Args:
        mean: (C, H, W).
        covariance: (D, D), D = C H W; positive semi-definite.
        schedule: the schedule of the forward process.

    Raises:
        ValueError: if the covariance does not fit the mean.
    """

    variance: Variance = "x0"
    continuous = True

    def __init__(self, mean: Tensor, covariance: Tensor, schedule: NoiseSchedule | None = None) -> None:
        self.schedule = schedule or NoiseSchedule.linear()
        self.shape: tuple[int, int, int] = (mean.shape[0], mean.shape[1], mean.shape[2])
        if covariance.shape != (mean.numel(), mean.numel()):
            raise ValueError(f"a mean of {mean.numel()} numbers needs a square covariance of that size")
        self.law_mean = mean.double().flatten()
        self.law_covariance = covariance.double()
        eigenvalues, self._basis = torch.linalg.eigh(self.law_covariance)
        self._eigenvalues = eigenvalues.clamp(min=0)

    @property
    def fingerprint(self) -> str:
        """Hash of the law."""
        return _hash(self.law_mean, self.law_covariance)

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Return eps and, as raw variance, the diagonal of Cov(x_0 | x_t) at (B, C, H, W)."""
        abar = self.schedule.alpha_bars(t).to(x).view(-1, 1)
        mean, basis, spectrum = (v.to(x) for v in (self.law_mean, self._basis, self._eigenvalues))
        total = abar * spectrum + 1 - abar
        centred = (x.flatten(1) - abar.sqrt() * mean) @ basis
        eps = (centred / total * (1 - abar).sqrt()) @ basis.T
        variance = (spectrum * (1 - abar) / total) @ (basis**2).T
        return Prediction(eps.view_as(x), variance.view_as(x))

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """Return n independent draws from the law, float32 (n, C, H, W)."""
        z = normal_noise(seed + LAW_SEED, range(n), 0, self.shape).double().flatten(1)
        x0: Tensor = self.law_mean + (z * self._eigenvalues.sqrt()) @ self._basis.T
        return x0.float().view(n, *self.shape)


class ExactMixture:
    """Data x_0 ~ sum_k w_k N(mean_k, std^2 I): with the means a set of images, their kernel density.

    Args:
        means: (K, C, H, W).
        std: the common standard deviation, > 0: the kernel's bandwidth.
        weights: (K,), positive; equal where left out.
        schedule: the schedule of the forward process.

    Raises:
        ValueError: if std is not positive or the weights do not fit.
    """

    variance: Variance = "x0"
    continuous = True

    def __init__(
        self,
        means: Tensor,
        std: float,
        weights: Sequence[float] | None = None,
        schedule: NoiseSchedule | None = None,
    ) -> None:
        if std <= 0:
            raise ValueError(f"the components' standard deviation must be positive, got {std}")
        if weights is not None and (len(weights) != len(means) or min(weights) <= 0):
            raise ValueError(f"{len(means)} means need as many positive weights")
        self.schedule = schedule or NoiseSchedule.linear()
        self.shape: tuple[int, int, int] = (means.shape[1], means.shape[2], means.shape[3])
        self.std = std
        self._weights = torch.tensor(weights or [1.0] * len(means), dtype=torch.float64)
        self._weights /= self._weights.sum()
        self._means = means.double().flatten(1)
        self._tables: dict[tuple[torch.dtype, torch.device], tuple[Tensor, Tensor, Tensor]] = {}

    @property
    def law_mean(self) -> Tensor:
        """Mean of the data, float64 (D,)."""
        return self._weights @ self._means

    @property
    def law_covariance(self) -> Tensor:
        """Covariance of the data, float64 (D, D)."""
        centred = self._means - self.law_mean
        identity = torch.eye(len(self.law_mean), dtype=torch.float64)
        return (centred * self._weights[:, None]).T @ centred + self.std**2 * identity

    @property
    def fingerprint(self) -> str:
        """Hash of the law."""
        return _hash(self._means, self._weights, torch.tensor(self.std))

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Return eps and, as raw variance, the diagonal of Cov(x_0 | x_t) at (B, C, H, W).

        With r_k the posterior probability of component k and u = abar std^2 + 1 - abar:

            E[x_0 | x_t]   = (1 - abar)/u sum_k r_k mean_k + sqrt(abar) std^2/u x_t
            Var[x_0 | x_t] = ((1 - abar)/u)^2 Var_r(mean_k) + std^2 (1 - abar)/u
        """
        means, moments, log_weights = self._table(x)
        abar = self.schedule.alpha_bars(t).to(x).view(-1, 1)
        u = abar * self.std**2 + 1 - abar
        flat = x.flatten(1)
        half_norms = means.square().sum(1) / 2
        logits = (abar.sqrt() * (flat @ means.T) - abar * half_norms) / u + log_weights
        first, second = (torch.softmax(logits, dim=1) @ moments).chunk(2, dim=1)
        shrink = (1 - abar) / u
        x0 = shrink * first + abar.sqrt() * self.std**2 / u * flat
        variance = shrink.square() * (second - first.square()).clamp(min=0) + self.std**2 * shrink
        eps = (flat - abar.sqrt() * x0) / (1 - abar).sqrt()
        return Prediction(eps.view_as(x), variance.view_as(x))

    def draw(self, n: int, seed: int = 0) -> Tensor:
        """Return n independent draws from the law, float32 (n, C, H, W)."""
        generator = torch.Generator().manual_seed(seed)
        chosen = torch.multinomial(self._weights, n, replacement=True, generator=generator)
        noise = normal_noise(seed + LAW_SEED, range(n), 0, self.shape)
        return self._means[chosen].float().view(n, *self.shape) + self.std * noise

    def _table(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        key = (x.dtype, x.device)
        if key not in self._tables:
            means = self._means.to(x)
            self._tables[key] = (means, torch.cat([means, means.square()], 1), self._weights.log().to(x))
        return self._tables[key]


def kernel_density(images: Tensor, bandwidth: float, schedule: NoiseSchedule | None = None) -> ExactMixture:
    """Return the kernel-density model of uint8 images (K, C, H, W), bandwidth in units of [-1, 1]."""
    return ExactMixture(from_uint8(images), bandwidth, schedule=schedule)


def _gaussian() -> ExactGaussian:
    """N(m, C) on 8x8 grey images: smooth random fields, correlation exp(-distance / 2), sd 0.2."""
    axis = torch.arange(8, dtype=torch.float64)
    points = torch.cartesian_prod(axis, axis)
    covariance = 0.04 * torch.exp(-torch.cdist(points, points) / 2)
    mean = 0.3 * torch.cos(torch.pi * axis / 8)[:, None] * torch.ones(8, dtype=torch.float64)
    return ExactGaussian(mean[None], covariance)


def _mixture() -> ExactMixture:
    """Four patterns of stripes on 8x8 grey images, sd 0.15, with unequal weights."""
    wave = 0.5 * torch.sin(torch.pi / 2 * (torch.arange(8, dtype=torch.float64) + 0.5))
    rows, columns = wave[:, None].expand(8, 8), wave.expand(8, 8)
    means = torch.stack([rows, -rows, columns, rows * columns * 2])[:, None]
    return ExactMixture(means, 0.15, weights=[0.4, 0.3, 0.2, 0.1])


def _digits() -> ExactMixture:
    """The first 200 training digits with a Gaussian kernel."""
    return kernel_density(load_images("digits").images[:200], 0.1)


def _hash(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(tensor.double().contiguous().numpy().tobytes())
    return digest.hexdigest()


@hookimpl
def bench_models() -> Sequence[ModelCard]:
    """Register one model of each kind."""
    return [
        ModelCard(
            "exact-gaussian", _gaussian, "closed form: smooth Gaussian fields, 8x8", metrics=("fd_pixels",)
        ),
        ModelCard("exact-mixture", _mixture, "closed form: four noisy patterns, 8x8", metrics=("fd_pixels",)),
        ModelCard(
            "exact-digits",
            _digits,
            "closed form: kernel density of 200 digits",
            metrics=("fd_pixels", "fd_digits"),
        ),
    ]
