"""From the statistics of a cell's samples to its scores: the metrics of a sweep with their references."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray

from bench.data.images import to_uint8
from bench.diffusion.conditions import bound, labels_in
from bench.diffusion.interfaces import EpsilonModel
from bench.diffusion.stages import image_shape
from bench.errors import UsageError, users_code
from bench.files.source import code_hash
from bench.metrics.groups import GroupedStatistics
from bench.metrics.influence import influence_of
from bench.metrics.levels import Levels
from bench.metrics.measuring import Progress
from bench.metrics.metric import Metric
from bench.metrics.reference import Reference
from bench.metrics.space import FeatureSpace, features_of, is_quantised, takes_labels
from bench.metrics.tiles import computing_on
from bench.plugins.loading import registry
from bench.records.trial import Failure
from bench.stats.resampling import jackknife
from bench.stats.score import Score
from bench.sweep.references import References, held_out_hashes, with_held_out
from bench.sweep.worker import Worker

TRIED = 20
"""Samples whose labels are tried before any is drawn."""

Statistics = Mapping[str, GroupedStatistics]
"""Sums by jackknife group, by feature space."""


class Scoring:
    """The metrics of a sweep, each with the reference that it scores against.

    Args:
        names: the names of the metrics.
        worker: holds the model and the feature spaces.
        progress: called with the number of reference images measured and of all, where any are.

    Attributes:
        metrics: in the order of the names.

    Raises:
        UsageError: if nobody said what samples should resemble, or it does not fit a metric.
    """

    def __init__(self, names: Sequence[str], worker: Worker, progress: Progress | None = None) -> None:
        loaded, device, self.spaces = worker.loaded, worker.device, worker.spaces
        self.device = device
        chosen = [registry().metrics.get(name) for name in names]
        for metric in chosen:
            if takes_labels(self.spaces[metric.space]):
                _try_labels(metric, self.spaces[metric.space], loaded.model, loaded.card.name, device)
        self.metrics: list[Metric] = [with_held_out(loaded, m, self.spaces[m.space], device) for m in chosen]
        self.references = References(loaded, self.metrics, self.spaces, device, progress)

    @cached_property
    def provenance(self) -> dict[str, str]:
        """What would make a score stale if it changed, by name."""
        metrics, spaces = self.metrics, self.spaces
        return {
            **{f"reference of {name}": hash_ for name, hash_ in self.references.hashes.items()},
            **{f"held-out images of {name}": hash_ for name, hash_ in held_out_hashes(metrics).items()},
            **{f"code of metric {m.name}": code_hash(type(m), GroupedStatistics) for m in metrics},
            **{f"feature space of {m.name}": spaces[m.space].fingerprint for m in metrics},
            **{f"code of the feature space of {m.name}": code_hash(spaces[m.space]) for m in metrics},
        }

    def scores(
        self,
        statistics: Statistics,
        levels: Levels | None = None,
        reference_of: Callable[[str], Reference] | None = None,
    ) -> tuple[dict[str, Score], list[Failure]]:
        """Return the scores, and why a metric gave none: one that fails costs no other its score.

        Args:
            statistics: the statistics of the samples.
            levels: how the samples' values are spread: scores of rounded images are flagged by it.
            reference_of: gives the reference by metric; None: the sweep's.
        """
        reference_of = reference_of or self.references.of
        scores, failures = dict[str, Score](), list[Failure]()
        for metric in self.metrics:
            if metric.space not in statistics:
                continue
            try:
                with computing_on(self.device):
                    score = metric.score(statistics[metric.space], reference_of(metric.name))
            except users_code() as error:
                failures.append(Failure.of(error, f"metric {metric.name}"))
                continue
            if levels is not None and is_quantised(self.spaces[metric.space]):
                lossy = self.references.lossy and getattr(metric, "uses_reference", True)
                more = (*levels.flags(self.references.levels), *(["lossy-reference"] if lossy else []))
                score = replace(score, flags=(*score.flags, *more))
            scores[metric.name] = score
        return scores, failures

    def influences(
        self, statistics: Statistics, scored: Collection[str]
    ) -> Iterator[tuple[str, NDArray[np.float64]]]:
        """Yield the influence values (n,) of the samples on every score that has them, by metric.

        Args:
            statistics: the statistics of the samples.
            scored: names of the metrics that gave a score.
        """
        for metric in self.metrics:
            if metric.name not in scored:
                continue
            values = influence_of(metric, statistics[metric.space], self.references.of(metric.name))
            if values is not None:
                yield metric.name, values


def _try_labels(
    metric: Metric, space: FeatureSpace, model: EpsilonModel, name: str, device: torch.device
) -> None:
    """Give a space the labels of a few samples before any is drawn: what it cannot take is said now.

    Raises:
        UsageError: if the model's samples have no labels, or not of a kind that the space takes.
    """
    labels = labels_in(bound(model, range(TRIED), 0))
    if labels is None:
        raise UsageError(
            f"{metric.name} asks whether samples show their labels, and model {name!r} takes none: leave it"
            " out of --metrics"
        )
    x0 = torch.zeros((TRIED, *image_shape(model)), device=device)
    features_of(space, to_uint8(x0), x0, labels.to(device))


def mean_of_scores(scores: Sequence[Score]) -> Score:
    """Return the mean of scores of independent samples of one size, with its standard error.

    What a score's error holds beyond its own jackknife is the reference's, which all of them share: it does
    not shrink with their number.
    """
    k = len(scores)
    own = [jackknife(score.value, score.leave_one_out).se for score in scores]
    own = [score.se if math.isnan(se) else min(se, score.se) for score, se in zip(scores, own, strict=True)]
    shared = sum(score.se**2 - se**2 for score, se in zip(scores, own, strict=True)) / k
    return replace(
        scores[0],
        value=sum(score.value for score in scores) / k,
        debiased=sum(score.debiased for score in scores) / k,
        se=math.sqrt(sum(se**2 for se in own) / k**2 + shared),
        leave_one_out=(),
        flags=tuple(dict.fromkeys(flag for score in scores for flag in score.flags)),
    )
