"""The interface of a metric, one column of the table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, runtime_checkable

import torch

from bench.errors import UsageError
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.moments import Moments
from bench.metrics.reference import Reference
from bench.metrics.space import FeatureSpace, Shape, get_space
from bench.stats.resampling import Jackknife, jackknife
from bench.stats.score import Score


@runtime_checkable
class Metric(Protocol):
    """One column of the table.

    Attributes:
        name: the name of the column: ``fid``, ``fd_digits``, ``kid``...
        space: name of its feature space: a key of ``SPACES``, or "module:factory" for a plugin's own.
        needs: whether it is made of moments alone or of every feature vector.
        higher_is_better: the direction.

    One that needs more than two samples, or images in the reference, says how many by an attribute
    ``fewest``: a sweep of fewer is refused before anything is drawn.
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


def check_enough(metric: Metric, n: int, images: int) -> None:
    """Raise UsageError if samples or reference images are fewer than a metric needs.

    Args:
        metric: the metric.
        n: number of samples.
        images: number of images in the reference; 0 where nobody knows.
    """
    fewest = getattr(metric, "fewest", 2)
    if n < fewest:
        raise UsageError(f"{metric.name} needs at least {fewest} samples, got --n {n}")
    if 0 < images < fewest and getattr(metric, "uses_reference", True):
        raise UsageError(f"{metric.name} needs at least {fewest} images in the reference, which has {images}")


def check_offered(metric: Metric, space: FeatureSpace) -> None:
    """Raise UsageError if a metric is of a covariance that its feature space does not offer.

    A space with an attribute ``most_moments`` has none of more features than that.
    """
    most = getattr(space, "most_moments", math.inf)
    if metric.needs == "moments" and space.dim > most:
        raise UsageError(
            f"{metric.name} takes at most {most:,} numbers an image, here are {space.dim:,}: take fd_pooled,"
            " or leave --metrics out for the default of such images"
        )


def spaces_of(metrics: Iterable[Metric], shape: Shape, device: torch.device | str) -> dict[str, FeatureSpace]:
    """Return the feature spaces of metrics for images of ``shape`` on a device, by name, each once.

    Raises:
        UsageError: as `get_space` and `check_offered`.
    """
    found: dict[str, FeatureSpace] = {}
    for metric in metrics:
        if metric.space not in found:
            found[metric.space] = get_space(metric.space, shape).to(device)
        check_offered(metric, found[metric.space])
    return found


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


def score_without_reference(
    metric: Metric, sample: GroupedStatistics, reference: Reference, value: Callable[[Moments], float]
) -> Score:
    """Return a score of the samples' moments alone, with its jackknife error.

    Scores with different references can be compared: none enters.

    Args:
        metric: whose score it is.
        sample: the samples' statistics.
        reference: tells the feature space.
        value: the score of moments.

    Raises:
        UsageError: for no samples.
    """
    total = sample.total
    if total.n == 0:
        raise UsageError(f"{metric.name} needs samples")
    groups = sample.present
    left = [value(sample.leave_out(group, total)) for group in groups] if len(groups) > 1 else []
    return scored(metric, sample, reference, jackknife(value(total), left))


def scored(
    metric: Metric,
    sample: GroupedStatistics,
    reference: Reference,
    found: Jackknife,
    *,
    corrected: bool = True,
    flags: Sequence[str] = (),
) -> Score:
    """Return the score of a metric from its value with and without each group.

    Args:
        metric: whose score it is; one with ``uses_reference`` False has the same of every reference.
        sample: what was scored.
        reference: what it was scored against, or what tells the feature space.
        found: value, error and leave-one-out values.
        corrected: whether the jackknife's correction of the bias means anything here.
        flags: what the metric has to say itself.
    """
    return Score(
        metric=metric.name,
        value=found.value,
        debiased=found.debiased if corrected else found.value,
        se=found.se,
        leave_one_out=found.leave_one_out,
        n=sample.count,
        space=reference.space,
        reference=reference.hash if getattr(metric, "uses_reference", True) else "none",
        quantisation=getattr(metric, "quantisation", "uint8"),
        higher_is_better=metric.higher_is_better,
        flags=(*sample.flags, *flags, *reference_flags(metric, reference)),
    )
