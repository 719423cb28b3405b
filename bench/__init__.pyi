from .data.images import from_uint8, to_uint8
from .data.sets import load_images
from .diffusion.grid import Grid, Step, make_grid
from .diffusion.interfaces import Clip, EpsilonModel, Noise, Prediction, Variance
from .diffusion.noise import TrajectoryNoise, normal_noise
from .diffusion.posterior import (
    diffuse,
    learned_variance,
    posterior_constants,
    posterior_mean,
    predict_x0,
)
from .diffusion.sampling import AtLeast, Sampler, get_sampler, sample, sampler, trajectory
from .diffusion.schedule import NoiseSchedule
from .errors import BenchError, NotApplicable, UnknownNameError, UsageError
from .files.download import download
from .hooks import hookimpl
from .metrics.frechet import frechet_distance
from .metrics.metric import Metric
from .plugins.cards import ModelCard
from .plugins.lookup import load_model
from .published.values import published_frame
from .records.frame import load_results
from .report.tables.comparison import published_table
from .stats.comparison import compare
from .stats.score import Score

__all__ = [
    "AtLeast",
    "BenchError",
    "Clip",
    "EpsilonModel",
    "Grid",
    "Metric",
    "ModelCard",
    "Noise",
    "NoiseSchedule",
    "NotApplicable",
    "Prediction",
    "Sampler",
    "Score",
    "Step",
    "TrajectoryNoise",
    "UnknownNameError",
    "UsageError",
    "Variance",
    "compare",
    "diffuse",
    "download",
    "frechet_distance",
    "from_uint8",
    "get_sampler",
    "hookimpl",
    "learned_variance",
    "load_images",
    "load_model",
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
