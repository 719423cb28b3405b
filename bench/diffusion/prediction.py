"""What networks predict, turned into eps and x_0: one sampler file serves every parametrisation.

A network is called on its own state at its own time and answers in its own terms. `to_network` says how
x_t = sqrt(abar) x_0 + sqrt(1 - abar) eps becomes that state, `from_network` how the answer becomes (eps, x0).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from bench.diffusion.interfaces import Prediction, Variance
from bench.diffusion.schedule import ContinuousSchedule, Schedule
from bench.errors import UsageError

Predicts = Literal["eps", "x0", "v", "flow", "denoiser"]
"""What a network predicts: noise; x_0; v = sqrt(abar) eps - sqrt(1 - abar) x_0 (Salimans & Ho 2022,
arXiv:2202.00512); the velocity eps - x_0 of rectified flow; or x_0 from x_0 + sigma eps, as EDM does."""


@dataclass
class Spent:
    """What networks inside a model were asked while it answered once.

    Attributes:
        rows: rows sent through the network, None where no wrapper counted them.
        gradients: rows of a classifier's gradient, each a pass forward and one back.
    """

    rows: int | None = None
    gradients: int = 0


SPENT: ContextVar[Spent | None] = ContextVar("SPENT", default=None)
"""Where wrappers count what they ask of the networks inside, while somebody wants to know."""


def count_rows(rows: int) -> None:
    """Count rows sent through a network inside a wrapper."""
    spent = SPENT.get()
    if spent is not None:
        spent.rows = (spent.rows or 0) + rows


def count_gradients(rows: int) -> None:
    """Count rows of a classifier's gradient."""
    spent = SPENT.get()
    if spent is not None:
        spent.gradients += rows


def broadcast(values: Tensor, x: Tensor) -> Tensor:
    """Return one number a sample, (B,), in the dtype of x, to be multiplied with x (B, C, H, W)."""
    return values.to(x).view(-1, *(1,) * (x.ndim - 1))


def to_network(predicts: Predicts, x: Tensor, alpha_bar: Tensor) -> Tensor:
    """Return the state that a network is given in the place of x_t.

    Args:
        predicts: what the network predicts.
        x: x_t, (B, C, H, W).
        alpha_bar: abar_t, float64 (B,).

    Returns:
        x_t itself; for ``flow`` (1 - s) x_0 + s eps = x_t / (a + b), a = sqrt(abar), b = sqrt(1 - abar),
        s = b / (a + b); for ``denoiser`` x_0 + sigma eps = x_t / a.
    """
    if predicts == "flow":
        return x * broadcast(1 / (alpha_bar.sqrt() + (1 - alpha_bar).sqrt()), x)
    if predicts == "denoiser":
        return x * broadcast(1 / alpha_bar.sqrt(), x)
    return x


def from_network(
    predicts: Predicts, x: Tensor, raw: Tensor, alpha_bar: Tensor
) -> tuple[Tensor, Tensor | None]:
    """Return (eps, x_0) of a network's answer; x_0 is None where it follows from eps.

    With a = sqrt(abar), b = sqrt(1 - abar), z the state of `to_network`, s = b / (a + b), sigma = b / a:

        eps       eps = raw
        x0        x_0 = raw                 eps = (x_t - a raw) / b
        v         x_0 = a x_t - b raw       eps = a raw + b x_t
        flow      x_0 = z - s raw           eps = z + (1 - s) raw
        denoiser  x_0 = raw                 eps = (z - raw) / sigma

    Args:
        predicts: what the network predicts.
        x: x_t, (B, C, H, W).
        raw: the answer, shaped like x.
        alpha_bar: abar_t, float64 (B,).

    Source: Salimans & Ho 2022, arXiv:2202.00512, app. D; Karras et al. 2022, arXiv:2206.00364, eq. 3;
    Liu et al. 2023, arXiv:2209.03003.
    """
    if predicts == "eps":
        return raw, None
    a, b = alpha_bar.sqrt(), (1 - alpha_bar).sqrt()
    if predicts == "v":
        a, b = broadcast(a, x), broadcast(b, x)
        return a * raw + b * x, a * x - b * raw
    if predicts == "flow":
        z, s = to_network(predicts, x, alpha_bar), broadcast(b / (a + b), x)
        return z + (1 - s) * raw, z - s * raw
    if predicts == "denoiser":
        return (to_network(predicts, x, alpha_bar) - raw) * broadcast(a / b, x), raw
    return (x - broadcast(a, x) * raw) * broadcast(1 / b, x), raw


@dataclass(frozen=True)
class ConvertedModel:
    """A network of any parametrisation as an `EpsilonModel`; made by `from_prediction` and its like.

    Attributes:
        network: (state, t) -> answer, (B, C, H, W), or 2C channels where a variance is learned.
        schedule: gives alpha_bar_t; its time is what the network is told.
        shape: (C, H, W) of one sample.
        predicts: what the network predicts.
        variance: what the second half of its channels holds.
        continuous: whether it takes times between time steps.
    """

    network: Callable[[Tensor, Tensor], Tensor] = field(repr=False)
    schedule: Schedule
    shape: tuple[int, int, int]
    predicts: Predicts = "eps"
    variance: Variance = "fixed"
    continuous: bool = False

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Predict eps, and x_0 where the network tells it, of x (B, C, H, W) at times t (B,)."""
        alpha_bar = self.schedule.alpha_bars(t)
        count_rows(len(x))
        raw = self.network(to_network(self.predicts, x, alpha_bar), t)
        raw, variance = split_variance(raw, self.shape[0], self.variance)
        eps, x0 = from_network(self.predicts, x, raw.to(x.dtype), alpha_bar)
        return Prediction(eps, variance, x0)

    def to(self, device: torch.device | str) -> ConvertedModel:
        """Put the network on a device, where it can be put, and return the model."""
        move = getattr(self.network, "to", None)
        if callable(move):
            move(device)
        return self


def split_variance(raw: Tensor, channels: int, variance: Variance) -> tuple[Tensor, Tensor | None]:
    """Return (answer, what it says of the variance) of a network that gives both along its channels."""
    if variance == "fixed":
        return raw, None
    return raw[:, :channels], raw[:, channels:]


def from_prediction(
    network: Callable[[Tensor, Tensor], Tensor],
    schedule: Schedule,
    shape: tuple[int, int, int],
    predicts: Literal["eps", "x0", "v"] = "v",
    variance: Variance = "fixed",
    continuous: bool = False,
) -> ConvertedModel:
    """Return the `EpsilonModel` of a network that predicts eps, x_0 or v of x_t.

    Args:
        network: (x_t, t) -> tensor (B, C, H, W); with a variance, 2C channels.
        schedule: the schedule it was trained on; of zero terminal SNR too, where it predicts x_0 or v.
        shape: (C, H, W).
        predicts: ``eps``, ``x0`` or ``v``.
        variance: what the second half of the channels holds.
        continuous: whether the network takes times between time steps.

    Raises:
        UsageError: if there is no such prediction.
    """
    if predicts not in ("eps", "x0", "v"):
        raise UsageError(
            f"predicts must be eps, x0 or v, got {predicts!r}; bench.from_flow and bench.from_denoiser take"
            " the others"
        )
    return ConvertedModel(network, schedule, shape, predicts, variance, continuous)


def from_flow(
    network: Callable[[Tensor, Tensor], Tensor], shape: tuple[int, int, int], shift: float = 1.0
) -> ConvertedModel:
    """Return the `EpsilonModel` of a rectified-flow network; its schedule's time is s.

    Euler's method in s on the network is DDIM with eta = 0 on this model, step for step.

    Args:
        network: (x_s, s) -> eps - x_0, with x_s = (1 - s) x_0 + s eps and s float64 (B,) in (0, 1].
        shape: (C, H, W).
        shift: the shift of `ContinuousSchedule.flow`: what ``uniform`` grids take for equal parts.

    Source: Liu et al. 2023, arXiv:2209.03003; Lipman et al. 2023, arXiv:2210.02747.
    """
    return ConvertedModel(network, ContinuousSchedule.flow(shift), shape, "flow", "fixed", True)


def from_denoiser(
    denoiser: Callable[[Tensor, Tensor], Tensor],
    shape: tuple[int, int, int],
    sigma_min: float = 0.002,
    sigma_max: float = 80.0,
) -> ConvertedModel:
    """Return the `EpsilonModel` of an EDM denoiser; its schedule's time is sigma.

    Args:
        denoiser: D(y, sigma) -> x_0, with y = x_0 + sigma eps and sigma float64 (B,); see `preconditioned`.
        shape: (C, H, W).
        sigma_min: the least level.
        sigma_max: the greatest one.

    Source: Karras et al. 2022, arXiv:2206.00364, section 3.
    """
    schedule = ContinuousSchedule.edm(sigma_min, sigma_max)
    return ConvertedModel(denoiser, schedule, shape, "denoiser", "fixed", True)


def preconditioned(
    network: Callable[..., Tensor],
    kind: Literal["edm", "vp", "ve", "iddpm"] = "edm",
    sigma_data: float = 0.5,
) -> Callable[..., Tensor]:
    """Return the denoiser D(y, sigma) = c_skip y + c_out F(c_in y, c_noise) around a raw network F.

        edm    c_skip = s^2 / (sigma^2 + s^2), c_out = sigma s / sqrt(sigma^2 + s^2),
               c_in = 1 / sqrt(sigma^2 + s^2), c_noise = ln(sigma) / 4, with s = sigma_data
        vp     c_skip = 1, c_out = -sigma, c_in = 1 / sqrt(sigma^2 + 1), c_noise = 999 t(sigma),
               sigma(t)^2 = exp(19.9 t^2 / 2 + 0.1 t) - 1
        ve     c_skip = 1, c_out = sigma, c_in = 1, c_noise = ln(sigma / 2)
        iddpm  as vp, on sigma rounded to the nearest of 1,001 levels, c_noise = 999 - its index

    Args:
        network: F(x, c_noise, ...) -> tensor; further arguments of the denoiser are handed on.
        kind: which preconditioning.
        sigma_data: standard deviation of the data, for ``edm``.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1.
    """
    levels = iddpm_levels() if kind == "iddpm" else None

    def denoiser(y: Tensor, sigma: Tensor, *more: Any) -> Tensor:
        sigma = sigma.double()
        if kind == "edm":
            total = sigma.square() + sigma_data**2
            skip, out, into = sigma_data**2 / total, sigma * sigma_data / total.sqrt(), 1 / total.sqrt()
            noise = sigma.log() / 4
        elif kind == "ve":
            skip, out, into, noise = torch.ones_like(sigma), sigma, torch.ones_like(sigma), (sigma / 2).log()
        else:
            if levels is not None:
                table = levels.to(sigma.device)
                index = (table.view(1, -1) - sigma.view(-1, 1)).abs().argmin(1)
                sigma, noise = table[index], (len(table) - 2 - index).double()
            else:
                rest = (1 + sigma.square()).log()
                noise = 999 * ((0.1**2 + 2 * 19.9 * rest).sqrt() - 0.1) / 19.9
            skip, out, into = torch.ones_like(sigma), -sigma, 1 / (sigma.square() + 1).sqrt()
        raw = network(y * broadcast(into, y), noise, *more)
        return broadcast(skip, y) * y + broadcast(out, y) * raw

    return denoiser


def iddpm_levels(steps: int = 1000, C1: float = 0.001, C2: float = 0.008) -> Tensor:
    """Return the levels sigma_0 > ... > sigma_M of Improved DDPM's cosine schedule as EDM counts them.

    Source: Karras et al. 2022, arXiv:2206.00364, table 1 ("iDDPM").
    """

    def alpha_bar(j: int) -> float:
        return math.sin(0.5 * math.pi * j / steps / (C2 + 1)) ** 2

    levels = [0.0] * (steps + 1)
    for j in range(steps, 0, -1):
        ratio = max(alpha_bar(j - 1) / alpha_bar(j), C1)
        levels[j - 1] = math.sqrt((levels[j] ** 2 + 1) / ratio - 1)
    return torch.tensor(levels, dtype=torch.float64)
