"""sampler-bench: which diffusion sampler gives the best images for the time it takes?

Everything a plugin or a notebook needs is importable from here.
"""

from bench.cards import ModelCard
from bench.data import load_images
from bench.diffusion import learned_variance, posterior_constants, posterior_mean, predict_x0
from bench.download import download
from bench.errors import BenchError, NotApplicable, UnknownNameError, UsageError
from bench.frame import load_results
from bench.grid import Grid, Step, make_grid
from bench.images import from_uint8, to_uint8
from bench.interfaces import Clip, EpsilonModel, Noise, Prediction, Variance
from bench.metrics.frechet import frechet_distance
from bench.noise import normal_noise
from bench.plugins import hookimpl
from bench.published import published_frame
from bench.report.published import published_table
from bench.sampler import AtLeast, Sampler, get_sampler, sample, sampler, trajectory
from bench.schedule import NoiseSchedule

__all__ = [
    "AtLeast",
    "BenchError",
    "Clip",
    "EpsilonModel",
    "Grid",
    "ModelCard",
    "Noise",
    "NoiseSchedule",
    "NotApplicable",
    "Prediction",
    "Sampler",
    "Step",
    "UnknownNameError",
    "UsageError",
    "Variance",
    "download",
    "frechet_distance",
    "from_uint8",
    "get_sampler",
    "hookimpl",
    "learned_variance",
    "load_images",
    "load_results",
    "make_grid",
    "normal_noise",
    "posterior_constants",
    "posterior_mean",
    "predict_x0",
    "published_frame",
    "published_table",
    "sample",
    "sampler",
    "to_uint8",
    "trajectory",
]
