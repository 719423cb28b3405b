"""The feature spaces ``cifar_resnet_96`` and ``_128``: a small residual network for RGB images.

It was trained to classify CIFAR-10; the features are the means over places of its second and its last map.
Images of another size than 32 x 32 are resized to that.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bench.hooks import hookimpl
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.metric import Metric
from bench.metrics.network_features import NetworkFeatures, for_shape, load_shipped
from bench.metrics.space import FeatureSpace, Shape

CLASSIFIER_FILE = "cifar-resnet.safetensors"
CLASSIFIER_SHA256 = "18627628f72dc01341a62b4f4d70e47e1237c1bde08b299d10a18966999f8283"
IMAGE_SHAPE: Shape = (3, 32, 32)
WIDTHS = (48, 96, 128)
"""Features after each stage: maps of 16 x 16, 8 x 8 and 4 x 4 places."""

OFFERED = (96, 128)
"""The first is the default score's: it sees noise, blur and compression that the last stage forgets."""

_STEM = 32


class ConvBlock(nn.Module):
    """A 3 x 3 convolution, batch normalisation and SiLU; folded, the normalisation is in the convolution."""

    def __init__(self, given: int, made: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(given, made, 3, stride, padding=1)
        self.norm: nn.Module = nn.BatchNorm2d(made)

    def forward(self, x: Tensor) -> Tensor:
        """Return SiLU(norm(conv(x)))."""
        return nn.functional.silu(self.norm(self.conv(x)))

    def fold(self) -> None:
        """Put the normalisation's running statistics into the convolution, for evaluation only."""
        if isinstance(self.norm, nn.BatchNorm2d):
            self.conv = fuse_conv_bn_eval(self.conv.eval(), self.norm.eval())
            self.norm = nn.Identity()


class Stage(nn.Module):
    """A block that halves the size, and a residual pair: y = block(x), y + second(first(y))."""

    def __init__(self, given: int, made: int) -> None:
        super().__init__()
        self.down = ConvBlock(given, made, 2)
        self.first = ConvBlock(made, made)
        self.second = ConvBlock(made, made)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C', H/2, W/2)."""
        x = self.down(x)
        y: Tensor = x + self.second(self.first(x))
        return y


class CifarResNet(nn.Module):
    """Ten convolutions in three residual stages, averaged over places; (B, 3, 32, 32) in [-1, 1] -> (B, 10).

    Source: He et al. 2016, arXiv:1512.03385, with SiLU in the place of ReLU.
    """

    def __init__(self) -> None:
        super().__init__()
        self.stem = ConvBlock(3, _STEM)
        self.stages = nn.ModuleList(Stage(*pair) for pair in pairwise((_STEM, *WIDTHS)))
        self.classify = nn.Linear(WIDTHS[-1], 10)
        self.to(memory_format=torch.channels_last)  # the layout that convolutions are fastest in

    def features(self, x: Tensor, stages: int = len(WIDTHS)) -> Tensor:
        """Return the means over places of the map after so many stages, (B, 48), (B, 96) or (B, 128)."""
        x = self.stem(x)
        for stage in self.stages[:stages]:
            x = stage(x)
        return x.mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits of the ten classes, (B, 10)."""
        logits: Tensor = self.classify(self.features(x))
        return logits

    def folded(self) -> CifarResNet:
        """Fold every normalisation and return the network itself, in evaluation mode."""
        for module in self.modules():
            if isinstance(module, ConvBlock):
                module.fold()
        return self.eval()


def load_classifier() -> CifarResNet:
    """Return the shipped classifier, folded.

    Raises:
        UsageError: if its file is missing, truncated or damaged.
    """
    return load_shipped(lambda: CifarResNet().folded(), CLASSIFIER_FILE, CLASSIFIER_SHA256)


def cifar_space(name: str, shape: Shape) -> FeatureSpace:
    """Make a space for RGB images of ``shape``; all but 32 x 32 pixels are resized.

    Raises:
        UsageError: if the images are not RGB, or the weight file is missing or damaged.
    """
    network, dim = load_classifier(), int(name.rpartition("_")[2])
    stages = WIDTHS.index(dim) + 1
    space = NetworkFeatures(
        name,
        IMAGE_SHAPE,
        dim,
        network,
        partial(network.features, stages=stages),
        weights=CLASSIFIER_SHA256,
        layer=f"mean after {stages} stages",
    )
    return for_shape(space, IMAGE_SHAPE, shape)


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer the distance in each."""
    return [FrechetMetric(f"fd_cifar_resnet_{dim}", f"cifar_resnet_{dim}") for dim in OFFERED]
