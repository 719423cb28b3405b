"""What is kept of a bound: sums of a block of images, scores with their errors, and a table of the steps."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from bench.diffusion.bound import BoundTerms, Chain
from bench.errors import BenchError
from bench.metrics.groups import GROUPS
from bench.records.record import Record
from bench.records.store import Store
from bench.records.trial import Cost, Failure
from bench.stats.resampling import influence_se
from bench.stats.score import Score

METRICS = ("nll_bits_per_dim", "nll_prior_bits_per_dim", "nll_kl_bits_per_dim", "nll_decoder_bits_per_dim")
"""The bound and its three parts, which add up to it."""


Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class BlockTerms:
    """What is left of one block of images of one cell.

    Attributes:
        images: prior, sum of the KL terms, and decoder of each image, in bits per dimension, (3, B).
        steps: sum and sum of squares over the images of each step's KL term, (2, S - 1).
        cost: what the block took.
    """

    images: Array
    steps: Array
    cost: Cost

    def to_arrays(self) -> dict[str, Array]:
        """Return all but the cost as arrays for ``numpy.savez``."""
        return {"images": self.images, "steps": self.steps}


def make_terms(terms: BoundTerms, unit: Cost, calls: int) -> BlockTerms | Failure:
    """Return what is kept of some terms.

    Args:
        terms: the bound's terms on a block of images.
        unit: what one network call cost.
        calls: number of calls that the cell needs.
    """
    if not bool(torch.isfinite(terms.total).all()):
        error = BenchError(
            "the bound is not finite: the network returned values that are not, or a variance of 0"
        )
        return Failure.of(error, "bound")
    cost = Cost(calls, unit.sampling_seconds * calls, unit.model_seconds * calls, 0, unit.peak_bytes)
    images = torch.stack([terms.prior, terms.kl.sum(0), terms.decoder])
    steps = torch.stack([terms.kl.sum(1), terms.kl.square().sum(1)])
    return BlockTerms(images.numpy(), steps.numpy(), cost)


def mean_score(name: str, values: Array, reference: str) -> Score:
    """Return the mean of one number an image, with its standard error sd / sqrt(n).

    Args:
        name: the name of the metric.
        values: (n,), in the order of the images.
        reference: hash of the images.
    """
    n = len(values)
    groups = min(GROUPS, n)
    group = np.arange(n) * groups // n
    left = [float(values[group != k].mean()) for k in range(groups)]
    mean = float(values.mean())
    return Score(name, mean, mean, influence_se(values), tuple(left), n, "bits per dimension", reference)


def terms_path(store: Store, record: Record) -> Path:
    """Return where the terms of a trial's steps lie; see `step_table`."""
    return store.records / f"{record.name}.csv"


def read_terms(store: Store, record: Record) -> pd.DataFrame | None:
    """Return the terms of a trial's steps, None where they were not kept."""
    path = terms_path(store, record)
    return pd.read_csv(path, float_precision="round_trip") if path.is_file() else None


def step_table(chain: Chain, scores: dict[str, Score], sums: Array, n: int) -> pd.DataFrame:
    """Return one row a term, from the noisiest: ``term, t, t_next, bits_per_dim, se``.

    The prior term has no t, only the first level as its t_next; the decoder's t_next is -1, x_0 itself.

    Args:
        chain: the steps.
        scores: the scores by metric.
        sums: sum and sum of squares over the images of each step's KL term, (2, S - 1).
        n: images.
    """
    prior, decoder = (scores[METRICS[place]] for place in (1, 3))
    first, last = chain.steps[0], chain.steps[-1]
    rows: list[tuple[str, float | None, float, float, float]] = []
    rows.append(("prior", None, first.t, prior.value, prior.se))
    for step, (total, squares) in zip(chain.steps[:-1], sums.T, strict=True):
        variance = max(squares - total**2 / n, 0.0) / (n - 1)
        rows.append(("kl", step.t, step.t_next, float(total / n), math.sqrt(variance / n)))
    rows.append(("decoder", last.t, -1, decoder.value, decoder.se))
    table = pd.DataFrame(rows, columns=["term", "t", "t_next", "bits_per_dim", "se"])
    return table.astype({"t": "Int64"})
