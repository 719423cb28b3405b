"""The Frechet distance as a metric in any feature space, with the error of one run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bench.device.threads import in_threads
from bench.errors import UsageError
from bench.metrics.groups import GroupedStatistics, Needs
from bench.metrics.metric import reference_flags
from bench.metrics.reference import Reference
from bench.stats.resampling import jackknife
from bench.stats.score import Score

_JACKKNIFE_TOLERANCE = 1e-5  # of a cautious bound; the values without a group only carry the error


_LEFT_OVER = 0.5  # bias in standard errors: with this much 95% intervals held the truth 94% of the time


@dataclass(frozen=True)
class FrechetMetric:
    """Frechet distance between samples and reference in one feature space.

    The value is FD_N, biased upwards by C/N with C depending on the model; the score carries its jackknife
    correction beside it. Lower is better; the unit is that of the squared features.

    Source: Heusel et al. 2017, arXiv:1706.08500; bias: Binkowski et al. 2018, arXiv:1801.01401, appendix D.

    Attributes:
        name: column name. Only the 2048-d Inception layer is called ``fid``.
        space: name of the feature space.
        quantisation: the quantisation of the samples before their features.
    """

    name: str
    space: str
    needs: Needs = "moments"
    higher_is_better: bool = False
    quantisation: str = "uint8"

    def score(self, sample: GroupedStatistics, reference: Reference) -> Score:
        """Return the distance, its bias-corrected value, standard error and leave-one-group-out values.

        Flags: ``rank-deficient`` where the samples, or the samples without one group, are too few for a
        covariance of full rank (bias is then not of order 1/N); ``few-samples`` where the rank is full and
        the correction leaves a bias of more than half a standard error, by :func:`remaining_bias`;
        ``singular-reference``; ``imported-reference``; ``other-weights`` where a network's weights are not
        the published ones; ``incomplete`` where samples are missing; ``no-error`` for fewer than two groups.

        Raises:
            UsageError: for fewer than two samples or a reference of another dimension.
        """
        total = sample.total
        if total.n < 2:
            raise UsageError(f"{self.name} needs at least 2 samples, got {total.n}")
        if reference.mean.shape[0] != sample.dim:
            raise UsageError(
                f"{self.name}: the samples have {sample.dim} features and reference {reference.name!r} has"
                f" {reference.mean.shape[0]}; build the reference in the same feature space"
            )
        value = reference.frechet.distance_to(total)

        def without(group: int) -> tuple[int, float]:
            rest = sample.leave_out(group, total)
            if rest.n < 2:
                return rest.n, math.nan
            return rest.n, reference.frechet.distance_to(rest, tolerance=_JACKKNIFE_TOLERANCE)

        rests = in_threads(without, list(sample.present))
        fewest = min((n for n, _ in rests), default=total.n)
        found = jackknife(value, [distance for _, distance in rests] if fewest >= 2 else [])
        deficient = fewest - 1 < sample.dim
        left_over = remaining_bias(value, found.debiased, total.n, sample.dim)
        flags = {
            "rank-deficient": deficient,
            "few-samples": not deficient and left_over > _LEFT_OVER * found.se,
            "singular-reference": not reference.frechet.full_rank,
            **dict.fromkeys(reference_flags(self, reference), True),
            "no-error": math.isnan(found.se),
        }
        return Score(
            metric=self.name,
            value=value,
            debiased=found.debiased,
            se=found.se,
            leave_one_out=found.leave_one_out,
            n=total.n,
            space=reference.space,
            reference=reference.hash,
            quantisation=self.quantisation,
            higher_is_better=self.higher_is_better,
            flags=(*sample.flags, *(name for name, raised in flags.items() if raised)),
        )


def remaining_bias(value: float, debiased: float, n: int, dim: int) -> float:
    """Size of the bias that the jackknife leaves in a Frechet distance: d / (8 N) of what it takes away.

    For N Gaussian samples of the reference's covariance s I the mean of tr(S^(1/2)) is
    d s^(1/2) (1 - c/8 - c^2/64 - ...), c = d/N, by the moments of Marchenko & Pastur 1967. The distance is
    too large by 2 s^(1/2) times what is missing: c/4 of d s, which the jackknife takes away, and c^2/32,
    which it turns into its negative. By repetition 0.5 to 1.6 times that is left over where N/d is 1.25 to 8.
    """
    return dim / (8.0 * n) * abs(value - debiased)
