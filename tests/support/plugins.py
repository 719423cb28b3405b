"""Plugins as third parties would write them, as text."""

HEUN = '''
from math import sqrt

from bench import NotApplicable, hookimpl, sampler, times_like


@sampler(order=2, calls_per_step=2, source="Karras et al. 2022, arXiv:2206.00364, algorithm 1")
def my_heun(model, x, grid, noise):
    """Heun's rule for dx/dsigma = eps, with x scaled by 1/sqrt(abar) and sigma = sqrt(1/abar - 1)."""
    for step in grid:
        if step.alpha_bar == 0:
            raise NotApplicable("sigma is infinite where x_T holds no signal")
        here, there = sqrt(1 / step.alpha_bar - 1), sqrt(1 / step.alpha_bar_next - 1)
        scaled = x / sqrt(step.alpha_bar)
        slope = model(x, step.times(x)).eps
        if step.last:
            x = scaled + (there - here) * slope
        else:
            ahead = sqrt(step.alpha_bar_next) * (scaled + (there - here) * slope)
            slope = (slope + model(ahead, times_like(x, step.t_next)).eps) / 2
            x = sqrt(step.alpha_bar_next) * (scaled + (there - here) * slope)
        yield x


@hookimpl
def bench_samplers():
    return [my_heun]
'''

PYPROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"

[project]
name = "heun-for-sampler-bench"
version = "1.2.3"
dependencies = []

[project.entry-points.sampler_bench]
heun = "heun_plugin"

[tool.hatch.build.targets.wheel]
packages = ["heun_plugin.py"]
"""
