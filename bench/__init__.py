"""sampler-bench: which diffusion sampler gives the best images for the time it takes?

Everything a plugin or a notebook needs is importable from here.
"""

from bench.diffusion import posterior, predict_x0
from bench.errors import BenchError, NotApplicable, UnknownNameError, UsageError
from bench.grid import Grid, Step, make_grid
from bench.interfaces import Clip, EpsilonModel, Noise, Prediction, Variance
from bench.noise import normal_noise
from bench.plugins import hookimpl
from bench.sampler import AtLeast, Sampler, get_sampler, sample, sampler
from bench.schedule import NoiseSchedule

__all__ = [
    "AtLeast",
    "BenchError",
    "Clip",
    "EpsilonModel",
    "Grid",
    "Noise",
    "NoiseSchedule",
    "NotApplicable",
    "Prediction",
    "Sampler",
    "Step",
    "UnknownNameError",
    "UsageError",
    "Variance",
    "get_sampler",
    "hookimpl",
    "make_grid",
    "normal_noise",
    "posterior",
    "predict_x0",
    "sample",
    "sampler",
]
