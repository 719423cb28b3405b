"""A score: a measurement with its error and with what it can be compared with."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


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
