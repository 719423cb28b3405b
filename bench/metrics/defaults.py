"""The score where nobody says which, chosen by what the images are."""

from __future__ import annotations

from bench.metrics.space import Shape

_SMALLEST_SIDE = 8  # pixels; a smaller image is a few numbers, and no network knows it

_LARGEST_DIGIT = 28  # pixels a side, MNIST's; in larger gray images a digit classifier sees little


def default_metric(shape: Shape) -> str:
    """Return the name of the default metric of images of ``shape`` (C, H, W).

    RGB images are measured by ``fd_cifar_resnet_96``, gray images of at most 28 x 28 pixels by ``fd_digits``,
    larger ones and images of other channels by ``fd_random``, and images with a side below 8 pixels by
    ``fd_pooled``. None needs a download, and each has at most 192 features (one a channel and more where
    there are that many channels): 1,000 samples give a covariance of full rank, which they do not in the
    3,072 pixels of a 32 x 32 RGB image.
    """
    channels, height, width = shape
    if min(height, width) < _SMALLEST_SIDE:
        return "fd_pooled"
    if channels == 3:
        return "fd_cifar_resnet_96"
    return "fd_digits" if channels == 1 and max(height, width) <= _LARGEST_DIGIT else "fd_random"
