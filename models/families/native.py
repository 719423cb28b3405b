"""Checkpoints of this project: the U-Net's weights under their own names."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, ClassVar

from bench import NoiseSchedule
from models.config import UNetConfig
from models.errors import CheckpointError
from models.families.base import Config, Family, Place, Process, State
from models.files import CONFIG_KEY, PROCESS_KEY


class Native(Family):
    """``UNetConfig``'s fields; the safetensors metadata holds them, and the diffusion, as JSON."""

    name = "sampler-bench"
    origin = "this project's training"
    signature = frozenset({"middle.block1.norm1.weight", "middle.attention.qkv.weight"})
    arguments = frozenset(field.name for field in dataclasses.fields(UNetConfig))
    lists = frozenset({"widths", "attention"})
    stem: ClassVar[Mapping[str, str]] = {}
    leaves: ClassVar[Mapping[str, tuple[str, ...]]] = {}

    def infer(self, state: State) -> dict[str, Any]:
        """Nothing: these files carry their configuration."""
        return {}

    def undecided(self, given: Config) -> str | None:
        """Ask for the configuration where the file has lost it."""
        return None if given else "its configuration: give config= with the fields of UNetConfig"

    def read(self, config: Config) -> UNetConfig:
        """Make the configuration of its fields."""
        fields = {name: config[name] for name in self.arguments & config.keys()}
        return UNetConfig(
            **fields | {name: tuple(fields[name]) for name in ("widths", "attention") if name in fields}
        )

    def sources(self, key: str, config: UNetConfig) -> tuple[str, ...]:
        """Every weight has its own name."""
        return (key,)

    def prefix(self, place: Place, config: UNetConfig) -> str:
        """Never needed: every weight has its own name."""
        raise NotImplementedError

    def schedule(self, T: int, kind: str) -> NoiseSchedule:
        """Linear from 1e-4 to 0.02 whatever T."""
        return NoiseSchedule.cosine(T) if kind == "cosine" else NoiseSchedule.linear(T)

    def process(self, state: State, config: Config, unet: UNetConfig) -> Process:
        """What the metadata says."""
        stored: Mapping[str, Any] = config.get("_process") or {}
        schedule = stored.get("schedule")
        if schedule is not None:
            schedule = dataclasses.replace(NoiseSchedule.from_betas(schedule["betas"]), name=schedule["name"])
        return Process(schedule, stored.get("variance"), stored.get("rescale_timesteps"))


def metadata(config: UNetConfig, process: Process) -> dict[str, str]:
    """Return what :class:`Native` reads back, as safetensors metadata."""
    schedule = process.schedule
    if schedule is not None and not isinstance(schedule, NoiseSchedule):
        raise CheckpointError(f"only schedules of time steps can be written into a file, not {schedule.name}")
    described = schedule and {"name": schedule.name, "betas": schedule.betas.tolist()}
    return {
        CONFIG_KEY: json.dumps(dataclasses.asdict(config)),
        PROCESS_KEY: json.dumps(
            {
                "schedule": described,
                "variance": process.variance,
                "rescale_timesteps": process.rescale_timesteps,
            }
        ),
    }
