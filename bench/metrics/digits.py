"""The feature space ``digits``: the penultimate layer of a small classifier of handwritten digits.

It was trained on 12 x 12 pixels; gray images of another size are resized to that.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional

from bench.data.images import from_uint8
from bench.device.precision import full_float32
from bench.errors import UsageError
from bench.hooks import hookimpl
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.metric import Metric
from bench.metrics.network_features import for_shape, load_shipped
from bench.metrics.space import FeatureSpace, Shape, fingerprint

CLASSIFIER_FILE = "digits-classifier.safetensors"
CLASSIFIER_SHA256 = "36df1ed847683ae787fefa1dffcadc368ebae17169ba367c7e87b812a4eb5952"
IMAGE_SHAPE: Shape = (1, 12, 12)
DIM = 64

_BATCH = 500  # images at a time, whatever is given: the work fits the caches


class DigitsClassifier(nn.Module):
    """Three convolutions, a layer of 64 features, one of 10 classes; (B, 1, 12, 12) in [-1, 1] -> (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 24, 3, padding=1)
        self.conv2 = nn.Conv2d(24, 48, 3, padding=1, stride=2)
        self.conv3 = nn.Conv2d(48, 64, 3, padding=1)
        self.embed = nn.Linear(64 * 6 * 6, DIM)
        self.classify = nn.Linear(DIM, 10)
        self.dropout = nn.Dropout(0.3)

    def features(self, x: Tensor) -> Tensor:
        """Return the penultimate layer, (B, 64)."""
        for conv in (self.conv1, self.conv2, self.conv3):
            x = functional.silu(conv(x))
        return functional.silu(self.embed(self.dropout(x.flatten(1))))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the ten digits, (B, 10)."""
        logits: Tensor = self.classify(self.dropout(self.features(x)))
        return logits


class DigitsFeatures:
    """uint8 images (B, 1, 12, 12) -> 64 float32 features, always in float32, never TF32.

    The classifier is the shipped one, verified by hash and read when the space is made.

    Attributes:
        name: ``digits``.
        dim: 64.
        fingerprint: covers the weight file, the layer, the preprocessing and the dtype.

    Raises:
        UsageError: if the weight file is missing or damaged.
    """

    name = "digits"
    dim = DIM
    most_at_once = _BATCH

    def __init__(self) -> None:
        self.classifier = load_classifier()
        self.fingerprint = fingerprint(
            self.name, weights=CLASSIFIER_SHA256, layer="embed, SiLU", input="x / 127.5 - 1", dtype="float32"
        )

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, 1, 12, 12) to float32 features (B, 64) on the same device.

        Raises:
            UsageError: for images of another shape or dtype.
        """
        if images.dtype != torch.uint8 or tuple(images.shape[1:]) != IMAGE_SHAPE:
            raise UsageError(
                f"feature space digits expects uint8 images (B, 1, 12, 12), got {images.dtype}"
                f" {tuple(images.shape)}; use pixels for other images"
            )
        if not len(images):
            return torch.empty(0, DIM, device=images.device)
        with torch.autocast(images.device.type, enabled=False), full_float32():
            return torch.cat(
                [
                    self.classifier.features(from_uint8(images[i : i + _BATCH]))
                    for i in range(0, len(images), _BATCH)
                ]
            )

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the classifier's logits (B, 10) for uint8 images (B, 1, 12, 12)."""
        logits: Tensor = self.classifier.classify(self(images))
        return logits

    def to(self, device: torch.device | str) -> DigitsFeatures:
        """Move the classifier to ``device`` and return the space itself."""
        self.classifier.to(device)
        return self


def load_classifier() -> DigitsClassifier:
    """Return the shipped classifier in evaluation mode.

    Raises:
        UsageError: if its file is missing, truncated or damaged.
    """
    shipped = load_shipped(DigitsClassifier, CLASSIFIER_FILE, CLASSIFIER_SHA256)
    return shipped.eval().requires_grad_(False)


def digit_space(name: str, shape: Shape) -> FeatureSpace:
    """Make the space for gray images of ``shape``; all but 12 x 12 pixels are resized.

    Raises:
        UsageError: if the images are not gray, or the weight file is missing or damaged.
    """
    return for_shape(DigitsFeatures(), IMAGE_SHAPE, shape)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer ``fd_digits``."""
    return [FrechetMetric("fd_digits", space="digits")]
