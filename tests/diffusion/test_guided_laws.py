"""What guided samplers draw, where it is known exactly: Gaussians on every grid, limits, a mixture's flow.

Classifier-free guidance does not sample the tilted density p^(1-w) p_c^w: its law depends on the sampler, and
the tests below hold each to its own.
"""

import json
from pathlib import Path

import pytest
import torch

from bench import NoiseSchedule, Prediction, from_prediction, get_sampler, guided, make_grid, sample

GOLDEN = Path(__file__).parents[1] / "golden" / "guided"
GAUSSIANS = json.loads((GOLDEN / "guided_gaussians.json").read_text())
MIXTURE = json.loads((GOLDEN / "guided_mixture.json").read_text())
DIRECTIONS = GAUSSIANS["directions"]
LINEAR = NoiseSchedule.linear()


def column(name):
    return torch.tensor([one[name] for one in DIRECTIONS], dtype=torch.float64).view(1, -1, 1, 1)


class Gaussians:
    """The exact network of N(m_u, v_u), and with label 0 of N(m_c, v_c), one coordinate a direction."""

    schedule, shape, variance, prediction, classes = LINEAR, (len(DIRECTIONS), 1, 1), "fixed", "eps", 1

    def __call__(self, x, t, label):
        abar = self.schedule.alpha_bars(t).view(-1, 1, 1, 1)
        none = (label == self.classes).view(-1, 1, 1, 1)
        mean = torch.where(none, column("m_u"), column("m_c"))
        spread = torch.where(none, column("v_u"), column("v_c"))
        total = abar * spread + 1 - abar
        return Prediction((1 - abar).sqrt() / total * (x - abar.sqrt() * mean))


def law(sampler, grid, scale):
    """Mean, variance and factor of x_T: the output is affine in x_T and in every draw of noise."""
    rows = len(grid) + 2  # nothing, x_T alone, one draw alone
    unit = (
        torch.eye(rows, dtype=torch.float64)
        .view(rows, rows, 1, 1, 1)
        .expand(rows, rows, len(DIRECTIONS), 1, 1)
    )
    model = guided(Gaussians(), [0] * rows, scale)
    end = sample(model, sampler, grid, unit[1].clone(), lambda index: unit[index + 2])[:, :, 0, 0]
    parts = end[1:] - end[0]
    return end[0], parts.square().sum(0), parts[0]


@pytest.mark.parametrize(
    "row", GAUSSIANS["grids"], ids=lambda row: f"{row['sampler']}-{row['steps']}-w{row['scale']:g}"
)
def test_every_guided_sampler_has_the_gaussian_law_of_its_grid(row):
    grid = make_grid(LINEAR, row["steps"], row["spacing"])
    mean, variance, factor = law(get_sampler(row["sampler"]), grid, row["scale"])
    for found, known in ((mean, "mean"), (variance, "variance"), (factor, "factor_of_x_T")):
        error = found - torch.tensor(row[known], dtype=torch.float64)
        assert float(error.abs().max()) < GAUSSIANS["tolerance"]


@pytest.mark.parametrize("limit", GAUSSIANS["limits"], ids=lambda limit: f"w{limit['scale']:g}")
def test_small_steps_end_in_the_flow_s_law_and_not_in_the_tilted_density(limit):
    grid = make_grid(LINEAR, 1000)
    known = torch.tensor(limit["ode"], dtype=torch.float64)
    mean, variance, _ = law(get_sampler("ddim"), grid, limit["scale"])
    assert float((mean - known[:, 0]).abs().max()) < 0.02
    assert torch.allclose(variance, known[:, 1], rtol=0.05, atol=2e-3)
    ancestral = law(get_sampler("ddim:eta=1"), grid, limit["scale"])[1]
    assert torch.allclose(
        ancestral, torch.tensor(limit["sde_infinite"], dtype=torch.float64), rtol=0.05, atol=2e-3
    )
    if limit["scale"] not in (0, 1):
        tilted = torch.tensor(limit["tilted"], dtype=torch.float64)[:, 1]
        for found in (variance, ancestral):
            assert bool(((found - tilted)[:3].abs() > 0.1 * tilted[:3]).all())


class TwoClasses:
    """Classes N(+-m, lam) of equal weight in one coordinate; label 0 is "+"."""

    schedule, shape, variance, prediction, classes = LINEAR, (1, 1, 1), "fixed", "eps", 1

    def __call__(self, x, t, label):
        abar = self.schedule.alpha_bars(t).view(-1, 1, 1, 1)
        m, total = MIXTURE["m"], abar * MIXTURE["lam"] + 1 - abar
        mean = torch.where((label == 1).view(-1, 1, 1, 1), m * torch.tanh(abar.sqrt() * m * x / total), m)
        return Prediction((1 - abar).sqrt() / total * (x - abar.sqrt() * mean))


@pytest.mark.parametrize("row", MIXTURE["rows"], ids=lambda row: f"w{row['scale']:g}")
def test_a_guided_mixture_carries_quantiles_to_quantiles(row):
    """First order: the error halves with the step, and is small at S = 1000."""
    start = torch.tensor(row["x_T"], dtype=torch.float64).view(-1, 1, 1, 1)
    known = torch.tensor(row["x_0"], dtype=torch.float64).view(-1, 1, 1, 1)
    model = guided(TwoClasses(), [0] * len(start), row["scale"])
    gaps = []
    for steps in (500, 1000):
        end = sample(model, get_sampler("ddim"), make_grid(LINEAR, steps), start, None)
        gaps.append(float((end - known).abs().max()))
    assert gaps[1] < 6e-3
    assert gaps[1] < 0.7 * gaps[0]


@pytest.mark.parametrize("predicts", ["x0", "v"])
@pytest.mark.parametrize("spec", ["ddim:eta=0.5", "ddpm:clip=none", "ddpm:variance=fixedlarge"])
def test_a_conversion_is_the_eps_model_to_rounding(predicts, spec):
    network = guided(Gaussians(), [0] * 4)

    def converted(x, t):
        abar = LINEAR.alpha_bars(t).view(-1, 1, 1, 1)
        eps = network(x, t).eps
        x0 = (x - (1 - abar).sqrt() * eps) / abar.sqrt()
        return x0 if predicts == "x0" else abar.sqrt() * eps - (1 - abar).sqrt() * x0

    generator = torch.Generator().manual_seed(0)
    shape = (4, *Gaussians.shape)
    x = torch.randn(shape, generator=generator, dtype=torch.float64)
    draws = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(20)]
    grid, sampler = make_grid(LINEAR, 20), get_sampler(spec)
    model = from_prediction(converted, LINEAR, Gaussians.shape, predicts)
    ends = [sample(one, sampler, grid, x, lambda index: draws[index]) for one in (network, model)]
    assert float((ends[0] - ends[1]).abs().max()) < 1e-10
