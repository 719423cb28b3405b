"""Reference statistics of others: an .npz with a mean and a covariance, read without running code in it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from bench.data.sets import IMAGE_KEYS
from bench.errors import UsageError
from bench.metrics.moments import Array
from bench.metrics.reference import UNREADABLE, Reference

_SPATIAL = (17, 17, 7)  # guided-diffusion flattens rows, columns, channels; here channels come first


def import_npz(
    path: Path, space: str, *, name: str | None = None, n: int = 0, dim: int | None = None
) -> Reference:
    """Read the statistics that EDM, guided-diffusion and pytorch-fid keep: an .npz with ``mu``, ``sigma``.

    For the spatial features of sFID those of guided-diffusion, ``mu_s`` and ``sigma_s``, are taken where the
    file has them, and brought into the order that the features have here.

    Args:
        path: the file; it is read without running anything in it.
        space: fingerprint of the feature space it is said to belong to: the file does not say.
        name: for people; default the file's.
        n: number of images, where known.
        dim: number of features of the space, where known.

    Raises:
        UsageError: for a file that is missing, truncated, or without a mean and a covariance that fit:
            finite, symmetric, no eigenvalue below zero, of ``dim`` features.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            spatial = space.startswith("inception_spatial") and "mu_s" in arrays
            keys = ("mu_s", "sigma_s") if spatial else ("mu", "sigma")
            mean, cov = (np.asarray(arrays[key], dtype=np.float64) for key in keys)
    except (*UNREADABLE, TypeError) as error:
        raise UsageError(f"{path} is not an .npz file with mu and sigma: {error}") from error
    if dim is not None and mean.ndim == 1 and mean.size != dim:
        raise UsageError(
            f"{path} has {mean.size} features, {space.rpartition('-')[0]} has {dim}: give statistics of that"
            " space, or images"
        )
    if mean.ndim != 1 or cov.shape != (mean.size, mean.size):
        raise UsageError(
            f"{path} holds {keys[0]} {mean.shape} and {keys[1]} {cov.shape}, not (d,) and (d, d)"
        )
    if spatial:
        mean, cov = _channels_first(mean, cov, path)
    data_hash = hashlib.sha256(mean.tobytes() + cov.tobytes()).hexdigest()
    made = Reference(name or path.stem, n, mean, cov, data_hash, space, imported=True)
    try:
        made.frechet  # noqa: B018  it is kept, and a covariance that is none is refused here
    except ValueError as error:
        raise UsageError(f"{path} cannot be a reference: {error}") from None
    return made


def is_statistics(path: str | Path) -> bool:
    """Return whether ``path`` is an .npz file with ``mu`` and ``sigma``."""
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return "mu" in arrays and "sigma" in arrays
    except (*UNREADABLE, TypeError):
        return False


def images_beside(path: Path) -> str:
    """Return under which name a file of statistics holds images too, as guided-diffusion's do; or nothing."""
    with np.load(path, allow_pickle=False) as arrays:
        return next((name for name in IMAGE_KEYS if name in arrays), "")


def _channels_first(mean: Array, cov: Array, path: Path) -> tuple[Array, Array]:
    order = np.arange(np.prod(_SPATIAL)).reshape(_SPATIAL).transpose(2, 0, 1).ravel()
    if mean.size != order.size:
        raise UsageError(
            f"{path} has {mean.size} spatial features, the 7 channels of 17 x 17 are {order.size}"
        )
    return mean[order], cov[np.ix_(order, order)]
