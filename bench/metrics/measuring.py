"""Measuring reference statistics: once per content, several feature spaces in one pass, resumable."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from bench.data.images import to_device
from bench.errors import UsageError
from bench.files.claims import SUFFIX, claimed
from bench.metrics.groups import Needs
from bench.metrics.moments import Accumulator
from bench.metrics.reference import (
    SHIPPED,
    UNREADABLE,
    ImageHash,
    Reference,
    cache_folder,
    cached_path,
    load_reference,
    save_arrays,
    save_reference,
)
from bench.metrics.space import FeatureSpace

Images = npt.NDArray[np.uint8] | torch.Tensor | Iterable[torch.Tensor] | Callable[[], Iterable[torch.Tensor]]
Progress = Callable[[int, int], None]
"""Called with the number of images done, and of all."""

KEEP_EVERY = 30.0
"""Seconds between two savings of a measurement that is under way."""


def reference_statistics(
    images: Images,
    space: FeatureSpace,
    *,
    name: str = "reference",
    needs: Needs = "moments",
    device: torch.device | str = "cpu",
    batch: int = 256,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> Reference:
    """Return the reference statistics of ``images`` in ``space``, from the cache where it holds them.

    ``needs="features"`` keeps every feature vector. The other arguments and what is raised are those of
    `measure_references`, which measures in several spaces at once.
    """
    (found,) = measure_references(
        images, [(space, needs)], name=name, device=device, batch=batch, cache=cache, progress=progress
    )
    return found


def measure_references(
    images: Images,
    wanted: Sequence[tuple[FeatureSpace, Needs]],
    *,
    name: str = "reference",
    device: torch.device | str = "cpu",
    batch: int = 256,
    cache: Path | None = None,
    progress: Progress | None = None,
) -> list[Reference]:
    """Return the reference statistics of ``images`` in several spaces, measured in one pass over them.

    Of several processes that want the same, one measures and the others wait for it.
    The cache is keyed by the bytes of the images, their number and shape, and the fingerprint of the
    space: it never answers for other data or other weights. What a stopped measurement had done is kept
    there too, every `KEEP_EVERY` seconds: the next one goes on from it, to the same bits.

    Args:
        images: uint8 images: an array or tensor (N, C, H, W), anything that can be iterated more than once
            over tensors (B, C, H, W), or a function that starts such an iteration. An iterator, which can be
            read only once, is measured each time anew.
        wanted: feature spaces, already on ``device``, each with what is needed of it.
        name: for people.
        device: where the images are put.
        batch: images at a time, where ``images`` is one array.
        cache: folder; default ``cache_folder()``.
        progress: called with the number of images done and of all of them (0 where it is not known).

    Raises:
        UsageError: for images that are not uint8, of different shapes, or fewer than two.
    """
    folder = (cache_folder() if cache is None else cache) / "references"
    once = isinstance(images, Iterator)
    digest = ImageHash()
    if not once:
        for part in _batches(images, batch):
            digest.update(part)

    def known() -> list[Reference | None]:
        return [_known(folder, digest, space, needs, name) for space, needs in wanted]

    found: list[Reference | None] = [None] * len(wanted) if once else known()
    if all(found):
        return [one for one in found if one]
    with nullcontext() if once else _alone_at(folder / f"{digest.hexdigest()}{SUFFIX}"):
        if not once:
            found = known()  # another process may have measured them while it was waited for
        missing = [
            _Measurement(*one, folder, device) for one, there in zip(wanted, found, strict=True) if not there
        ]
        for measurement in missing if not once else ():
            measurement.go_on(digest)
        reached, kept_at = 0, time.monotonic()
        for part in _batches(images, batch) if missing else ():
            if once:
                digest.update(part)
            moved = to_device(part, device)
            for measurement in missing:
                measurement.add(moved, reached)
            reached += len(part)
            if progress is not None:
                progress(reached, 0 if once else digest.n)
            if not once and time.monotonic() - kept_at >= KEEP_EVERY:
                for measurement in missing:
                    measurement.keep(digest)
                kept_at = time.monotonic()
        if missing and reached < 2:
            raise UsageError(f"a reference needs at least 2 images, {name!r} has {reached}")
        measured = iter([measurement.finish(name, digest) for measurement in missing])
        return [one or next(measured) for one in found]


@contextmanager
def _alone_at(path: Path) -> Iterator[None]:
    """Hold a measurement, once no other process is at it; where the cache cannot be written, at once."""
    with ExitStack() as held:
        with suppress(OSError):  # such a cache costs time only
            held.enter_context(claimed(path))
        yield


class _Measurement:
    """The statistics of one set of images in one space, under way."""

    def __init__(self, space: FeatureSpace, needs: Needs, folder: Path, device: torch.device | str) -> None:
        self._space, self._needs, self._folder, self._device = space, needs, folder, device
        self._sums = Accumulator(space.dim)
        self._kept: list[npt.NDArray[np.float32]] = []

    def add(self, images: torch.Tensor, first: int) -> None:
        """Measure the images (B, C, H, W), the first of which is number ``first``, but for those done."""
        if first + len(images) <= self._sums.n:
            return
        with torch.inference_mode():
            features = self._space(images[self._sums.n - first :] if self._sums.n > first else images)
        self._sums.add(features)
        if self._needs == "features":
            self._kept.append(features.to("cpu", torch.float32).numpy())

    def finish(self, name: str, digest: ImageHash) -> Reference:
        """Return the reference, kept in the cache."""
        moments = self._sums.moments()
        rows = np.concatenate(self._kept) if self._needs == "features" else None
        data_hash, fingerprint = digest.hexdigest(), self._space.fingerprint
        made = Reference(name, moments.n, moments.mean, moments.cov, data_hash, fingerprint, rows)
        save_reference(self._path(digest), made)
        self._partial(digest).unlink(missing_ok=True)
        return made

    def keep(self, digest: ImageHash) -> None:
        """Keep what is done."""
        arrays = self._sums.to_arrays()
        if self._kept:
            self._kept = [np.concatenate(self._kept)]
            arrays["features"] = self._kept[0]
        save_arrays(self._partial(digest), arrays)

    def go_on(self, digest: ImageHash) -> None:
        """Go on from what an earlier measurement kept; a damaged file is none."""
        try:
            with np.load(self._partial(digest), allow_pickle=False) as arrays:
                sums = Accumulator.from_arrays(arrays, self._space.dim, self._device)
                kept = [arrays["features"]] if self._needs == "features" and sums.n else []
        except UNREADABLE:
            return
        if not kept or len(kept[0]) == sums.n:
            self._sums, self._kept = sums, kept

    def _path(self, digest: ImageHash) -> Path:
        return cached_path(self._folder, digest.hexdigest(), digest.n, self._space, self._needs)

    def _partial(self, digest: ImageHash) -> Path:
        return self._path(digest).with_suffix(".part.npz")


def _known(folder: Path, digest: ImageHash, space: FeatureSpace, needs: Needs, name: str) -> Reference | None:
    """Return the statistics that the cache, or else the package, holds; features serve for moments too."""
    content = digest.hexdigest(), digest.n
    found = load_reference(cached_path(folder, *content, space, needs), name)
    found = found or load_reference(cached_path(folder, *content, space, "features"), name)
    return found or load_reference(cached_path(SHIPPED, *content, space, needs), name)


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
