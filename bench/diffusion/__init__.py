"""A small library of diffusion sampling: schedule, grid, noise, samplers, bound."""

from bench.diffusion.grid import Grid, Step, make_grid
from bench.diffusion.interfaces import Clip, EpsilonModel, Noise, Prediction, Variance
from bench.diffusion.noise import TrajectoryNoise, normal_noise
from bench.diffusion.posterior import (
    diffuse,
    learned_log_variance,
    learned_variance,
    posterior_constants,
    posterior_mean,
    predict_x0,
)
from bench.diffusion.sampling import AtLeast, Sampler, get_sampler, sample, sampler, trajectory
from bench.diffusion.schedule import NoiseSchedule

__all__ = [
    "AtLeast",
    "Clip",
    "EpsilonModel",
    "Grid",
    "Noise",
    "NoiseSchedule",
    "Prediction",
    "Sampler",
    "Step",
    "TrajectoryNoise",
    "Variance",
    "diffuse",
    "get_sampler",
    "learned_log_variance",
    "learned_variance",
    "make_grid",
    "normal_noise",
    "posterior_constants",
    "posterior_mean",
    "predict_x0",
    "sample",
    "sampler",
    "trajectory",
]
