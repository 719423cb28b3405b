"""Checks of what a caller gives to the loader, who may have typed it on a command line."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any, get_args

from bench import NoiseSchedule, Variance
from models.config import is_whole
from models.errors import CheckpointError

SCHEDULES = ("linear", "cosine")
_VARIANCES = ("fixed", *(kind for kind in get_args(Variance) if kind != "fixed"))


def check_options(
    T: Any, schedule: Any, variance: Any, rescale_timesteps: Any, image_size: Any, ema: Any
) -> None:
    """Refuse options of `models.load_checkpoint` that are not what they should be; None is always one.

    Raises:
        CheckpointError: naming the option and what it takes.
    """
    for name, number, example in (("T", T, 1000), ("image_size", image_size, 32)):
        if number is not None and (not is_whole(number) or number < 1):
            raise CheckpointError(
                f"{name} must be a whole number of at least 1, got {number!r}: give {name}={example}, say"
            )
    for name, flag in (("rescale_timesteps", rescale_timesteps), ("ema", ema)):
        if flag is not None and not isinstance(flag, bool):
            raise CheckpointError(f"{name} must be true or false, got {flag!r}: give {name}=true, say")
    if not (schedule is None or isinstance(schedule, NoiseSchedule) or schedule in SCHEDULES):
        raise CheckpointError(f"unknown schedule {schedule!r}: give 'linear', 'cosine' or a NoiseSchedule")
    if variance is not None and variance not in _VARIANCES:
        raise CheckpointError(f"unknown variance {variance!r}: give {' or '.join(map(repr, _VARIANCES))}")


def check_source(source: Any, config: Any, ema: Any, digest: Any) -> None:
    """Refuse arguments of `models.load_network` that are not what they should be.

    Raises:
        CheckpointError: naming the argument and what it takes.
    """
    check_options(None, None, None, None, None, ema)
    if config is not None and not isinstance(config, Mapping):
        raise CheckpointError(
            f"config must be a mapping of constructor arguments, got {type(config).__name__}: give"
            " config={'dropout': 0.1}, say"
        )
    if digest is None:
        return
    if isinstance(source, Mapping | list | tuple):
        raise CheckpointError("a state dict in memory has no digest: leave it out, or give the file's path")
    algorithm, _, value = str(digest).partition(":")
    if not value or algorithm not in hashlib.algorithms_available:
        raise CheckpointError(f"a digest is written md5:... or sha256:..., got {digest!r}")
