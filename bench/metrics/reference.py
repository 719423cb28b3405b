"""Reference statistics: computed once per content of the data and of the feature space, and cached."""

from __future__ import annotations

import hashlib
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from bench.atomic import temporary
from bench.errors import UsageError
from bench.images import to_device
from bench.metrics.base import FeatureSpace, Needs
from bench.metrics.frechet import FrechetReference
from bench.metrics.moments import Accumulator, Array, Moments

Images = npt.NDArray[np.uint8] | torch.Tensor | Iterable[torch.Tensor] | Callable[[], Iterable[torch.Tensor]]
SHIPPED = Path(__file__).parent / "references"
"""Statistics of the shipped images, so that a first run need not measure them."""

_FORMAT = "1"  # of the cached files; a change makes all of them old


@dataclass(frozen=True, eq=False)
class Reference:
    """What samples are scored against.

    Attributes:
        name: for people.
        n: number of images; 0 where an imported file does not say.
        mean: (d,) of their features.
        cov: (d, d), unbiased.
        data_hash: of the images' shape and bytes, or of the imported statistics.
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
        return _digest(self.data_hash, self.space, str(self.n))[:16]

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


def reference_statistics(
    images: Images,
    space: FeatureSpace,
    *,
    name: str = "reference",
    needs: Needs = "moments",
    device: torch.device | str = "cpu",
    batch: int = 256,
    cache: Path | None = None,
    progress: Callable[[int], None] | None = None,
) -> Reference:
    """Return the reference statistics of ``images`` in ``space``, from the cache where it holds them.

    The cache is keyed by the bytes of the images, their number and shape, and the fingerprint of the
    space: it never answers for other data or other weights.

    Args:
        images: uint8 images: an array or tensor (N, C, H, W), anything that can be iterated more than once
            over tensors (B, C, H, W), or a function that starts such an iteration. An iterator, which can be
            read only once, is measured each time anew.
        space: the feature space, already on ``device``.
        name: for people.
        needs: ``features`` keeps every feature vector.
        device: where the images are put.
        batch: images at a time, where ``images`` is one array.
        cache: folder; default ``cache_folder()``.
        progress: called with the number of images done.

    Raises:
        UsageError: for images that are not uint8, of different shapes, or fewer than two.
    """
    once = isinstance(images, Iterator)
    folder = (cache_folder() if cache is None else cache) / "references"
    if not once:
        data_hash, n = hash_images(_batches(images, batch))
        path = _place(folder, data_hash, n, space, needs)
        found = _load(path, name) or _load(_place(folder, data_hash, n, space, "features"), name)
        found = found or _load(_place(SHIPPED, data_hash, n, space, needs), name)
        if found is not None:
            return found
    digest = _ImageHash()
    accumulator = Accumulator(space.dim)
    kept: list[npt.NDArray[np.float32]] = []
    for part in _batches(images, batch):
        if once:
            digest.update(part)
        with torch.inference_mode():
            features = space(to_device(part, device))
        accumulator.add(features)
        if needs == "features":
            kept.append(features.to("cpu", torch.float32).numpy())
        if progress is not None:
            progress(accumulator.n)
    if accumulator.n < 2:
        raise UsageError(f"a reference needs at least 2 images, {name!r} has {accumulator.n}")
    if once:
        data_hash, n = digest.hexdigest(), digest.n
        path = _place(folder, data_hash, n, space, needs)
    moments = accumulator.moments()
    rows = np.concatenate(kept) if needs == "features" else None
    made = Reference(name, n, moments.mean, moments.cov, data_hash, space.fingerprint, rows)
    _save(path, made)
    return made


def from_moments(moments: Moments, space: str, *, name: str, data_hash: str | None = None) -> Reference:
    """Return a reference made of moments that are at hand already."""
    content = data_hash or hashlib.sha256(moments.mean.tobytes() + moments.scatter.tobytes()).hexdigest()
    return Reference(name, moments.n, moments.mean, moments.cov, content, space)


def hash_images(batches: Iterable[torch.Tensor]) -> tuple[str, int]:
    """Return (SHA-256, number) of uint8 images, independent of how they are batched."""
    digest = _ImageHash()
    for part in batches:
        digest.update(part)
    return digest.hexdigest(), digest.n


def cache_folder() -> Path:
    """Return ``$SAMPLER_BENCH_CACHE``, by default ``~/.cache/sampler-bench``."""
    chosen = os.environ.get("SAMPLER_BENCH_CACHE")
    return Path(chosen) if chosen else Path.home() / ".cache" / "sampler-bench"


class _ImageHash:
    def __init__(self) -> None:
        self._digest = hashlib.sha256()
        self._shape: tuple[int, ...] | None = None
        self.n = 0

    def update(self, images: torch.Tensor) -> None:
        if self._shape is None:
            self._shape = tuple(images.shape[1:])
        if tuple(images.shape[1:]) != self._shape:
            raise UsageError(f"images must have one shape, got {self._shape} and {tuple(images.shape[1:])}")
        self._digest.update(images.contiguous().numpy().data)
        self.n += int(images.shape[0])

    def hexdigest(self) -> str:
        return _digest(str(self._shape), str(self.n), self._digest.hexdigest())


def _batches(images: Images, batch: int) -> Iterator[torch.Tensor]:
    source = images() if callable(images) and not isinstance(images, torch.Tensor) else images
    if isinstance(source, np.ndarray | torch.Tensor):
        whole = torch.as_tensor(source)
        source = (whole[i : i + batch] for i in range(0, len(whole), batch))
    for part in source:
        tensor = torch.as_tensor(part)
        if tensor.dtype != torch.uint8 or tensor.ndim != 4:
            raise UsageError(
                f"reference images must be uint8 (B, C, H, W), got {tensor.dtype} {tuple(tensor.shape)}"
            )
        yield tensor.cpu()


def _place(folder: Path, data_hash: str, n: int, space: FeatureSpace, needs: Needs) -> Path:
    return folder / f"{_digest(_FORMAT, data_hash, str(n), space.fingerprint, needs)[:32]}.npz"


def _load(path: Path, name: str) -> Reference | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            features = arrays.get("features")
            n, data_hash, space = int(arrays["n"]), str(arrays["data_hash"]), str(arrays["space"])
            return Reference(name, n, arrays["mean"], arrays["cov"], data_hash, space, features)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # a damaged file is no answer: it is computed anew and replaced


def _save(path: Path, reference: Reference) -> None:
    arrays: dict[str, Any] = {
        "n": np.array(reference.n),
        "mean": reference.mean,
        "cov": reference.cov,
        "data_hash": np.array(reference.data_hash),
        "space": np.array(reference.space),
    }
    if reference.features is not None:
        arrays["features"] = reference.features
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary(path) as beside:
            with beside.open("wb") as file:
                np.savez(file, **arrays)
            beside.replace(path)
    except OSError:
        return  # a cache that cannot be written costs time, not the result


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()
