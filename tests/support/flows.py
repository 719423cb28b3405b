"""Laws in one dimension whose probability flow is known, and the order of a sampler on them.

In one dimension the flow keeps quantiles: for a mixture of Gaussians x_u = F_u^-1(F_t(x_t)), F_t the
distribution function of x_t, is its exact solution.
"""

import math

import torch

from bench import ContinuousSchedule, Prediction, get_sampler, make_grid, trajectory
from bench.diffusion.conformance import GaussianOracle

SCHEDULE = ContinuousSchedule.vp()  # beta from 0.1 to 20
END = 1e-3  # errors are those of x here: what comes after is one step to x_0
STARTS = torch.linspace(-1.9, 1.9, 41, dtype=torch.float64).view(-1, 1, 1, 1)


def even_in_log_snr(steps):
    """S steps from t = 1 to `END` at equal parts of log SNR, and the one to x_0."""
    low, high = (math.log(a / (1 - a)) for a in map(SCHEDULE.alpha_bar, (1.0, END)))
    levels = [low + (high - low) * k / steps for k in range(1, steps)]
    between = [SCHEDULE.time(1 / (1 + math.exp(-level))) for level in levels]
    return make_grid(SCHEDULE, spacing=[END, *between, 1.0])


def at_end(model, spec, steps, x, noise=None):
    """x at `END`."""
    states = trajectory(model, get_sampler(spec), even_in_log_snr(steps), x, noise)
    return [next(states) for _ in range(steps)][-1]


class Mixture:
    """The exact noise predictor for three Gaussians."""

    schedule, shape, variance = SCHEDULE, (1, 1, 1), "fixed"
    weights = torch.tensor([0.22, 0.40, 0.38], dtype=torch.float64)
    means = torch.tensor([-0.85, 0.2, 1.26], dtype=torch.float64)
    stds = torch.tensor([0.45, 0.19, 0.24], dtype=torch.float64)

    def _standardised(self, x, abar):
        std = (abar * self.stds**2 + 1 - abar).sqrt()
        return (x.view(-1, 1) - math.sqrt(abar) * self.means) / std, std

    def __call__(self, x, t):
        abar = SCHEDULE.alpha_bar(float(t[0]))
        distance, std = self._standardised(x, abar)
        shares = torch.softmax(self.weights.log() - std.log() - distance.square() / 2, dim=1)
        return Prediction((math.sqrt(1 - abar) * (shares * distance / std).sum(1)).view_as(x))

    def below(self, x, abar):
        """F(x) at a level."""
        return (self.weights * torch.special.ndtr(self._standardised(x, abar)[0])).sum(1)

    def quantiles(self, share, abar):
        """F^-1 at a level, by halving."""
        low, high = torch.full_like(share, -10), torch.full_like(share, 10)
        for _ in range(80):
            middle = (low + high) / 2
            under = self.below(middle, abar) < share
            low, high = torch.where(under, middle, low), torch.where(under, high, middle)
        return (low + high) / 2


MIXTURE = Mixture()
EXACT = MIXTURE.quantiles(MIXTURE.below(STARTS, SCHEDULE.alpha_bar(1.0)), SCHEDULE.alpha_bar(END))


def flow_error(spec, steps):
    """The greatest error of the end points."""
    return float((at_end(MIXTURE, spec, steps, STARTS).view(-1) - EXACT).abs().max())


def law_error(spec, steps):
    """The error of the standard deviation at `END` for data N(0, 1/4), where x is linear in every draw.

    Row 0 of the batch is an impulse in x_T, rows 2 k + 1 and 2 k + 2 ones in the two draws of step k that a
    rule may ask for: squared and summed they are the variance, without sampling error.
    """

    def true(t):
        abar = SCHEDULE.alpha_bar(t)
        return math.sqrt(abar / 4 + 1 - abar)

    size = 2 * steps + 1
    rows = torch.eye(size, dtype=torch.float64).view(size, -1, 1, 1, 1)
    model = GaussianOracle(SCHEDULE)
    end = at_end(model, spec, steps, true(1.0) * rows[0], lambda index, draw=0: rows[2 * index + 1 + draw])
    return abs(float(end.square().sum().sqrt()) - true(END))


def slope(error, spec, steps=(160, 320)):
    """The order of convergence: the slope of the logarithms of two errors."""
    coarse, fine = (error(spec, n) for n in steps)
    return math.log(coarse / fine) / math.log(steps[1] / steps[0])
