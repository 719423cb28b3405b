"""Parts of a sample made of whole jackknife groups: smaller samples of the same law."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from bench.errors import UsageError
from bench.metrics.groups import GroupedStatistics
from bench.metrics.moments import Moments


def cut(groups: Sequence[int], parts: int, metric: str) -> list[Sequence[int]]:
    """Return the groups in equal parts, in order; where they do not come out even one part has a group more.

    Args:
        groups: numbers of the groups that have samples.
        parts: how many parts.
        metric: the name of the metric that asks, for the message.

    Raises:
        UsageError: for fewer groups than parts.
    """
    if len(groups) < parts:
        raise UsageError(f"{metric} takes {parts} parts of the samples, and there are {len(groups)} groups")
    bounds = [k * len(groups) // parts for k in range(parts + 1)]
    return [groups[a:b] for a, b in pairwise(bounds)]


def sum_of_groups(sample: GroupedStatistics, groups: Sequence[int]) -> Moments:
    """Return the moments of some groups together, added in order."""
    total = Moments.empty(sample.dim)
    for group in groups:
        total = total + sample.group(group)
    return total
