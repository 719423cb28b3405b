"""What a score is made of: feature spaces, sums by jackknife group, metrics, and the score itself."""

from __future__ import annotations

import hashlib
import importlib
import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

import torch

from bench.errors import UnknownNameError, UsageError
from bench.metrics.groups import GroupedStatistics

if TYPE_CHECKING:
    from bench.metrics.reference import Reference

Needs = Literal["moments", "features"]
Shape = tuple[int, int, int]

SPACES: dict[str, str] = {
    "pixels": "bench.metrics.pixels:pixel_space",
    "digits": "bench.metrics.digits:digit_space",
    "samples": "bench.metrics.law:sample_space",
    "dinov2_l14": "bench.metrics.vision:vision_space",
    "clip_l14_336": "bench.metrics.vision:vision_space",
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
        name: of the space, as in ``inception_2048``.
        dim: number of features d.
        fingerprint: name and hash of all that decides the numbers: weights, layer, resize, dtype, flags.
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


@runtime_checkable
class Metric(Protocol):
    """One column of the table.

    Attributes:
        name: of the column: ``fid``, ``fd_digits``, ``kid``...
        space: name of its feature space: a key of ``SPACES``, or "module:factory" for a plugin's own.
        needs: whether it is made of moments alone or of every feature vector.
        higher_is_better: the direction.
    """

    @property
    def name(self) -> str:
        """Name of the column."""
        ...

    @property
    def space(self) -> str:
        """Name of the feature space."""
        ...

    @property
    def needs(self) -> Needs:
        """What the score is made of."""
        ...

    @property
    def higher_is_better(self) -> bool:
        """The direction."""
        ...

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Score ``sample`` against ``reference``, with its standard error."""
        ...


@dataclass(frozen=True)
class Score:
    """A measurement: a value, how far it can be trusted, and what it can be compared with.

    Attributes:
        metric: name of the metric.
        value: the plain estimate everyone reports, FD_N for a Frechet distance.
        debiased: its group-jackknife bias correction G f - (G - 1) mean_k f_(-k).
        se: jackknife standard error; NaN where there are fewer than two groups.
        leave_one_out: f_(-k), the value without group k, in order: comparisons are paired through these.
        n: number of samples.
        space: fingerprint of the feature space.
        reference: hash of the reference.
        quantisation: what was done to the samples before the features: ``uint8`` is rounding to 256 levels.
        higher_is_better: the direction.
        flags: what a reader must know, as in ``rank-deficient``.
        influence_se: standard error by the delta method, without groups; NaN where it was not computed.
        target: the value that is right where neither more nor less is better: scores are then ranked and
            compared by their distance from it, and ``higher_is_better`` is False. None for most scores.
    """

    metric: str
    value: float
    debiased: float
    se: float
    leave_one_out: tuple[float, ...]
    n: int
    space: str
    reference: str
    quantisation: str = "uint8"
    higher_is_better: bool = False
    flags: tuple[str, ...] = ()
    influence_se: float = math.nan
    target: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the score as what ``json.dumps`` takes; numbers that are not finite become null."""
        fields = asdict(self)
        for name in ("value", "debiased", "se"):
            fields[name] = fields[name] if math.isfinite(fields[name]) else None
        fields["leave_one_out"] = [v if math.isfinite(v) else None for v in self.leave_one_out]
        fields["flags"] = list(self.flags)
        if math.isnan(self.influence_se):
            del fields["influence_se"]
        if self.target is None:
            del fields["target"]
        return fields

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Score:
        """Return the score that :meth:`to_json` wrote; every finite number to the last bit."""
        known = dict(fields)
        for name in ("value", "debiased", "se"):
            known[name] = math.nan if known[name] is None else float(known[name])
        known["leave_one_out"] = tuple(math.nan if v is None else float(v) for v in known["leave_one_out"])
        known["flags"] = tuple(known.get("flags", ()))
        return cls(**known)


def get_space(name: str, shape: Shape) -> FeatureSpace:
    """Return the feature space called ``name`` for images of ``shape`` (C, H, W).

    Args:
        name: a key of ``SPACES`` or "module:factory" with ``factory(name, shape) -> FeatureSpace``.
        shape: of one image.

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


def reference_flags(metric: Metric, reference: Reference) -> tuple[str, ...]:
    """Return the flags that every score takes from what it was measured against.

    ``imported-reference``: its statistics come from a file of others; a metric with ``uses_reference`` False
    has none. ``other-weights``: the network of the feature space has weights other than the published ones,
    and the space's name in the fingerprint goes on with ``_of_`` and their hash.
    """
    imported = reference.imported and getattr(metric, "uses_reference", True)
    name = reference.space.rpartition("-")[0]
    other = name.startswith(f"{metric.space.removesuffix('_any')}_of_")
    return (*(["imported-reference"] if imported else []), *(["other-weights"] if other else []))


def is_quantised(space: FeatureSpace) -> bool:
    """Return whether a space takes uint8 images, as most do; otherwise it takes x_0 itself."""
    return bool(getattr(space, "quantised", True))


def fingerprint(name: str, **parts: Any) -> str:
    """Return ``name-hash`` where the hash covers every named part."""
    text = json.dumps(parts, sort_keys=True, default=str)
    return f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


__all__ = [
    "SPACES",
    "FeatureSpace",
    "GroupedStatistics",
    "Metric",
    "Needs",
    "Score",
    "Shape",
    "fingerprint",
    "get_space",
    "is_quantised",
    "reference_flags",
]
