"""The score where nobody says which, chosen by what the images are."""

from __future__ import annotations

from bench.metrics.space import Shape

_SMALLEST_SIDE = 8  # pixels; a smaller image is a few numbers, and no network knows it

_BY_CHANNELS = {1: "fd_digits", 3: "fd_cifar_resnet_96"}


def default_metric(shape: Shape) -> str:
    """Return the name of the default metric of images of ``shape`` (C, H, W).

    Gray images are measured by ``fd_digits``, RGB images by ``fd_cifar_resnet_96``, images of other channels
    by ``fd_random``, and images with a side below 8 pixels by ``fd_pooled``. None needs a download, and each
    has at most 192 features (``fd_pooled`` one a channel where there are more): 1,000 samples give a
    covariance of full rank, which they do not in the 3,072 pixels of a 32 x 32 RGB image.
    """
    channels, height, width = shape
    if min(height, width) < _SMALLEST_SIDE:
        return "fd_pooled"
    return _BY_CHANNELS.get(channels, "fd_random")
