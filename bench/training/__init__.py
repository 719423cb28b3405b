"""Training of epsilon-networks: ``train(config, out_dir)`` and the presets."""

from bench.training.config import TrainConfig
from bench.training.disk import TrainingError
from bench.training.loop import TrainResult, train
from bench.training.recipes import RECIPES, get_recipe, read_config
from bench.training.table import Progress

__all__ = [
    "RECIPES",
    "Progress",
    "TrainConfig",
    "TrainResult",
    "TrainingError",
    "get_recipe",
    "read_config",
    "train",
]
