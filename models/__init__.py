"""Networks and closed forms that predict noise, and the loaders of public checkpoints."""

from models.cards import CheckpointCard
from models.checkpoints import load_checkpoint, load_network, load_spec, save_network
from models.config import UNetConfig
from models.epsilon import EpsilonNetwork
from models.errors import CheckpointError
from models.families.base import Process
from models.hub import fetch, resolve
from models.public import all_cards, get_checkpoint_card
from models.unet import UNet

__all__ = [
    "CheckpointCard",
    "CheckpointError",
    "EpsilonNetwork",
    "Process",
    "UNet",
    "UNetConfig",
    "all_cards",
    "fetch",
    "get_checkpoint_card",
    "load_checkpoint",
    "load_network",
    "load_spec",
    "resolve",
    "save_network",
]
