"""Networks and closed forms that predict noise, and the loaders of public checkpoints."""

from models.cards import CheckpointCard, all_cards, find_card
from models.checkpoints import load_model, load_network, load_spec, save_network
from models.epsilon import EpsilonNetwork
from models.errors import CheckpointError
from models.families.base import Process
from models.hub import fetch, resolve
from models.unet import UNet, UNetConfig

__all__ = [
    "CheckpointCard",
    "CheckpointError",
    "EpsilonNetwork",
    "Process",
    "UNet",
    "UNetConfig",
    "all_cards",
    "fetch",
    "find_card",
    "load_model",
    "load_network",
    "load_spec",
    "resolve",
    "save_network",
]
