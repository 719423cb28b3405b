"""Training of epsilon-networks: ``train(config, out_dir)`` and the presets."""

from bench.training.config import TrainConfig
from bench.training.disk import TrainingError
from bench.training.loop import TrainResult, train
from bench.training.presets import PRESETS, get_preset, read_config
from bench.training.table import Progress

__all__ = [
    "PRESETS",
    "Progress",
    "TrainConfig",
    "TrainResult",
    "TrainingError",
    "get_preset",
    "read_config",
    "train",
]
