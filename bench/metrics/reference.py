"""Reference statistics: what they are, their identity, and the cache that keeps them."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench.errors import UsageError
from bench.files.atomic import writing
from bench.metrics.frechet import FrechetReference
from bench.metrics.groups import Needs
from bench.metrics.moments import Array
from bench.metrics.space import FeatureSpace

SHIPPED = Path(__file__).parent / "references"
"""Statistics of the shipped images, so that a first run need not measure them."""

UNREADABLE = (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error)
"""What reading a damaged .npz file raises."""

_FORMAT = "1"  # of the cached files; a change makes all of them old


@dataclass(frozen=True, eq=False)
class Reference:
    """What samples are scored against.

    Attributes:
        name: for people.
        n: number of images; 0 where an imported file does not say.
        mean: (d,) of their features.
        cov: (d, d), unbiased.
        data_hash: the SHA-256 of the images' shape and bytes, or of the imported statistics.
        space: fingerprint of the feature space.
        features: every feature vector (n, d), float32, where a metric needs them.
        imported: whether the statistics come from a file of others.
    """

    name: str
    n: int
    mean: Array
    cov: Array
    data_hash: str
    space: str
    features: npt.NDArray[np.float32] | None = None
    imported: bool = False

    @property
    def hash(self) -> str:
        """Identity of the reference for a record: 16 hex digits over data, feature space and n."""
        return reference_hash(self.data_hash, self.n, self.space)

    @cached_property
    def frechet(self) -> FrechetReference:
        """The factored Gaussian, computed at the first distance and kept."""
        return FrechetReference(self.mean, self.cov, rank=self.n - 1 if self.n else None)

    def need_features(self, metric: str) -> npt.NDArray[np.float32]:
        """Return the feature vectors; UsageError where the reference has none."""
        if self.features is None:
            raise UsageError(
                f"{metric} needs every feature vector of reference {self.name!r}, which holds only mean and"
                " covariance; build it from images"
            )
        return self.features


def reference_hash(data_hash: str, n: int, space: str) -> str:
    """Return the identity of the reference that n images of this hash make in the space of a fingerprint."""
    return _digest(data_hash, space, str(n))[:16]


def hash_images(batches: Iterable[torch.Tensor]) -> tuple[str, int]:
    """Return (SHA-256, number) of uint8 images, independent of how they are batched."""
    digest = ImageHash()
    for part in batches:
        digest.update(part)
    return digest.hexdigest(), digest.n


def cache_folder() -> Path:
    """Return ``$SAMPLER_BENCH_CACHE``, by default ``~/.cache/sampler-bench``."""
    chosen = os.environ.get("SAMPLER_BENCH_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "sampler-bench"


class ImageHash:
    """SHA-256 of uint8 images, whatever the batches they come in."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._shape: tuple[int, ...] | None = None
        self.n = 0

    def update(self, images: torch.Tensor) -> None:
        """Take in a batch (B, C, H, W); UsageError for images of another shape."""
        if self._shape is None:
            self._shape = tuple(images.shape[1:])
        if tuple(images.shape[1:]) != self._shape:
            raise UsageError(f"images must have one shape, got {self._shape} and {tuple(images.shape[1:])}")
        self._digest.update(images.contiguous().numpy().data)
        self.n += int(images.shape[0])

    def hexdigest(self) -> str:
        """Return the hash over shape, number and bytes."""
        return _digest(str(self._shape), str(self.n), self._digest.hexdigest())


def cached_path(folder: Path, data_hash: str, n: int, space: FeatureSpace, needs: Needs) -> Path:
    """Return where the statistics of these images in this space are kept."""
    return folder / f"{_digest(_FORMAT, data_hash, str(n), space.fingerprint, needs)[:32]}.npz"


def load_reference(path: Path, name: str) -> Reference | None:
    """Return the reference that a file of the cache holds; None where there is none, or a damaged one."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            features = arrays.get("features")
            n, data_hash, space = int(arrays["n"]), str(arrays["data_hash"]), str(arrays["space"])
            return Reference(name, n, arrays["mean"], arrays["cov"], data_hash, space, features)
    except UNREADABLE:
        return None  # a damaged file is no answer: it is computed anew and replaced


def save_reference(path: Path, reference: Reference) -> None:
    """Keep a reference in the cache, if that can be written."""
    arrays: dict[str, Any] = {
        "n": np.array(reference.n),
        "mean": reference.mean,
        "cov": reference.cov,
        "data_hash": np.array(reference.data_hash),
        "space": np.array(reference.space),
    }
    if reference.features is not None:
        arrays["features"] = reference.features
    save_arrays(path, arrays)


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write an .npz file of the cache, whole or not at all; one that cannot be written costs time only."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as file:
            np.savez(file, **arrays)
    except OSError:
        return


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
