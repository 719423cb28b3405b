"""Standard errors by resampling: the delete-a-group jackknife and influence values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class Jackknife:
    """Delete-a-group jackknife of an estimate f with G groups (Tukey 1958; Shao & Tu 1995, section 2.3).

    Attributes:
        value: f of everything.
        debiased: G f - (G - 1) mean_k f_(-k), free of bias of order 1/n.
        se: sqrt((G - 1) / G sum_k (f_(-k) - mean)^2); NaN for fewer than two groups.
        leave_one_out: the f_(-k).
    """

    value: float
    debiased: float
    se: float
    leave_one_out: tuple[float, ...]


def jackknife(value: float, leave_one_out: Sequence[float]) -> Jackknife:
    """Return bias correction and standard error of ``value`` from its values without each group."""
    groups = len(leave_one_out)
    if groups < 2:
        return Jackknife(value, math.nan, math.nan, tuple(leave_one_out))
    left = np.asarray(leave_one_out, dtype=np.float64)
    debiased = groups * value - (groups - 1) * float(left.mean())
    se = math.sqrt((groups - 1) / groups * float(np.sum((left - left.mean()) ** 2)))
    return Jackknife(value, debiased, se, tuple(float(v) for v in left))


def influence_se(influence: npt.ArrayLike) -> float:
    """Return sd(IF) / sqrt(n), the delta-method standard error from influence values (n,).

    For two samples that share noise give the difference of their influence values: the error of the
    difference of the scores.
    """
    values = np.asarray(influence, dtype=np.float64)
    return float(values.std(ddof=1)) / math.sqrt(values.size)
