from .data.images import from_uint8, to_uint8
from .data.sets import load_images
from .diffusion.conditions import ConditionalModel
from .diffusion.grid import Grid, Step, make_grid, times_like
from .diffusion.guidance import ConditionalNetwork, GuidedByGradient, classifier_guided, guided, thresholded
from .diffusion.interfaces import Clip, EpsilonModel, Noise, Prediction, Variance, takes_real_times
from .diffusion.moments import NoiseMoments, read_moments
from .diffusion.noise import TrajectoryNoise, normal_noise
from .diffusion.posterior import (
    diffuse,
    learned_log_variance,
    learned_variance,
    posterior_constants,
    posterior_mean,
    predict_x0,
    weighted_sum,
)
from .diffusion.prediction import from_denoiser, from_flow, from_prediction, preconditioned
from .diffusion.projected import projected
from .diffusion.sampling import (
    Added,
    AtLeast,
    AtMost,
    Checked,
    Sampler,
    get_sampler,
    sample,
    sampler,
    trajectory,
)
from .diffusion.schedule import ContinuousSchedule, NoiseSchedule, Schedule, zero_terminal_snr
from .diffusion.spacing import on_levels
from .diffusion.stages import cascade, decoded
from .errors import BenchError, NotApplicable, UnknownNameError, UsageError
from .files.download import download
from .hooks import hookimpl
from .interactive.results import Results
from .interactive.running import run
from .metrics.frechet import frechet_distance
from .metrics.metric import Metric
from .plugins.cards import ModelCard, SamplerSet
from .plugins.lookup import load_model
from .published.values import published_frame
from .records.frame import load_results
from .report.tables.comparison import published_table
from .stats.comparison import compare
from .stats.score import Score
from .sweep.given import score

__all__ = [
    "Added",
    "AtLeast",
    "AtMost",
    "BenchError",
    "Checked",
    "Clip",
    "ConditionalModel",
    "ConditionalNetwork",
    "ContinuousSchedule",
    "EpsilonModel",
    "Grid",
    "GuidedByGradient",
    "Metric",
    "ModelCard",
    "Noise",
    "NoiseMoments",
    "NoiseSchedule",
    "NotApplicable",
    "Prediction",
    "Results",
    "Sampler",
    "SamplerSet",
    "Schedule",
    "Score",
    "Step",
    "TrajectoryNoise",
    "UnknownNameError",
    "UsageError",
    "Variance",
    "cascade",
    "classifier_guided",
    "compare",
    "decoded",
    "diffuse",
    "download",
    "frechet_distance",
    "from_denoiser",
    "from_flow",
    "from_prediction",
    "from_uint8",
    "get_sampler",
    "guided",
    "hookimpl",
    "learned_log_variance",
    "learned_variance",
    "load_images",
    "load_model",
    "load_results",
    "make_grid",
    "normal_noise",
    "on_levels",
    "posterior_constants",
    "posterior_mean",
    "preconditioned",
    "predict_x0",
    "projected",
    "published_frame",
    "published_table",
    "read_moments",
    "run",
    "sample",
    "sampler",
    "score",
    "takes_real_times",
    "thresholded",
    "times_like",
    "to_uint8",
    "trajectory",
    "weighted_sum",
    "zero_terminal_snr",
]
