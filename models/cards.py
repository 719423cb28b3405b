"""What is known of a public checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from bench import Variance
from models.config import UNetConfig
from models.families import find_family


@dataclass(frozen=True)
class RemoteFile:
    """A file of a checkpoint.

    Attributes:
        path: where it lies below the folder of models.
        url: where it can be had directly; None where its origin has only a web page.
        digest: ``md5:...`` or ``sha256:...`` as its origin states it; None where it states none.
    """

    path: str
    url: str | None = None
    digest: str | None = None


@dataclass(frozen=True)
class CheckpointCard:
    """A public checkpoint: what it is, what it needs, and what to beware of.

    Attributes:
        name: what ``--model`` takes (after ``hub:`` where ``hub`` is true).
        family: name of the code base whose keys it has.
        origin: where it is published.
        dataset: what it was trained on.
        files: what to put where; the weights are the last.
        config: the family's constructor arguments, for what the weights cannot tell.
        averaged: whether the weights are exponential moving averages; None where the origin does not say.
        T: number of time steps.
        schedule: its kind.
        parameters: their number.
        variance: what the network says of the variance.
        rescale_timesteps: whether it receives t 1000/T.
        warnings: sentences for whoever uses it.
        hub: whether it is a model repository of the Hugging Face Hub.
    """

    name: str
    family: str
    origin: str
    dataset: str
    files: tuple[RemoteFile, ...]
    config: Mapping[str, Any]
    parameters: int
    averaged: bool | None = None
    T: int = 1000
    schedule: Literal["linear", "cosine"] = "linear"
    variance: Variance = "fixed"
    rescale_timesteps: bool = False
    warnings: tuple[str, ...] = field(default=())
    hub: bool = False

    @property
    def unet(self) -> UNetConfig:
        """The options of our U-Net that hold its weights."""
        return find_family(self.family).read(self.config)

    @property
    def megabytes(self) -> int:
        """Size of the weights in MB: 4 bytes a parameter, half of it where they are stored in float16."""
        return round(4 * self.parameters / 1e6)

    @property
    def summary(self) -> str:
        """One line for a list."""
        averaged = {True: "EMA", False: "no EMA", None: "EMA not stated"}[self.averaged]
        size = self.unet.image_size
        digest = next((file.digest for file in self.files if file.digest), "no hash published")
        return "; ".join(
            [
                f"{self.dataset} {size}x{size}, {self.schedule} T={self.T}",
                f"{self.variance} variance, {averaged}",
                f"about {self.megabytes} MB, {digest}",
                self.origin,
                *self.warnings,
            ]
        )
