"""Feature spaces: what maps images to the vectors that metrics are made of."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import torch

from bench.errors import UnknownNameError, UsageError

Shape = tuple[int, int, int]


SPACES: dict[str, str] = {
    "pixels": "bench.metrics.pixels:pixel_space",
    "pooled": "bench.metrics.pixels:pooled_space",
    "random": "bench.metrics.random_features:random_space",
    "cifar_resnet_96": "bench.metrics.cifar_resnet:cifar_space",
    "cifar_resnet_128": "bench.metrics.cifar_resnet:cifar_space",
    "efficientnet_lite0_112": "bench.metrics.efficientnet:efficientnet_space",
    "efficientnet_lite0_192": "bench.metrics.efficientnet:efficientnet_space",
    "digits": "bench.metrics.digits:digit_space",
    "digits_recognised": "bench.metrics.labels:recognised_space",
    "samples": "bench.metrics.samples:sample_space",
    "size": "bench.metrics.size:size_space",
    "dinov2_l14": "bench.metrics.vision:vision_space",
    "clip_l14_336": "bench.metrics.vision:vision_space",
    "clip_prompts": "bench.metrics.prompts:prompt_space",
    "inception_64": "bench.metrics.inception:inception_space",
    "inception_192": "bench.metrics.inception:inception_space",
    "inception_768": "bench.metrics.inception:inception_space",
    "inception_2048": "bench.metrics.inception:inception_space",
    "inception_2048_any": "bench.metrics.inception:inception_space",
    "inception_spatial": "bench.metrics.inception:inception_space",
    "inception_probs": "bench.metrics.inception:inception_space",
}
"""Built-in feature spaces: name -> "module:factory", imported when first asked for."""


@runtime_checkable
class FeatureSpace(Protocol):
    """Maps images to feature vectors.

    Attributes:
        name: the name of the space, as in ``inception_2048``.
        dim: number of features d.
        fingerprint: name and hash of all that decides the numbers: weights, layer, resize, dtype, flags.

    A space with an attribute ``quantised`` that is False is called with x_0 in the place of uint8 images; one
    with ``labelled`` that is True with (images, labels), int64 (B,), and serves conditional models only.
    """

    @property
    def name(self) -> str:
        """Name of the space."""
        ...

    @property
    def dim(self) -> int:
        """Number of features."""
        ...

    @property
    def fingerprint(self) -> str:
        """Identity of the space; equal only where equal images give equal features."""
        ...

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 images (B, C, H, W) to floating-point features (B, d) on the same device."""
        ...

    def to(self, device: torch.device | str) -> FeatureSpace:
        """Move the network to ``device`` and return the space itself."""
        ...


def get_space(name: str, shape: Shape) -> FeatureSpace:
    """Return the feature space called ``name`` for images of ``shape`` (C, H, W).

    Args:
        name: a key of ``SPACES`` or "module:factory" with ``factory(name, shape) -> FeatureSpace``.
        shape: the shape of one image.

    Raises:
        UnknownNameError: if there is no such space.
        UsageError: if what it needs is missing; the sentence says what, and where to get it.
    """
    target = SPACES.get(name, name)
    module, separator, factory = target.partition(":")
    if not separator:
        raise UnknownNameError("feature space", name, SPACES)
    space = getattr(importlib.import_module(module), factory)(name, shape)
    if not isinstance(space, FeatureSpace):
        raise UsageError(f"{target} made a {type(space).__name__}, which lacks a part of FeatureSpace")
    return space


def is_quantised(space: FeatureSpace) -> bool:
    """Return whether a space takes uint8 images, as most do; otherwise it takes x_0 itself."""
    return bool(getattr(space, "quantised", True))


def takes_labels(space: FeatureSpace) -> bool:
    """Return whether a space is called with (images, labels): the labels that samples were drawn for."""
    return bool(getattr(space, "labelled", False))


def features_of(
    space: FeatureSpace,
    images: torch.Tensor,
    x0: torch.Tensor | None = None,
    labels: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """Return the features (B, d) of samples; None where the space takes something that is not given.

    Args:
        space: maps them.
        images: uint8 (B, C, H, W).
        x0: what they were rounded from.
        labels: what they were drawn for, (B,).
    """
    given = images if is_quantised(space) else x0
    if given is None or (takes_labels(space) and labels is None):
        return None
    call: Callable[..., torch.Tensor] = space
    return call(given, labels) if takes_labels(space) else call(given)


def fingerprint(name: str, **parts: Any) -> str:
    """Return ``name-hash`` where the hash covers every named part."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
