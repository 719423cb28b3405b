"""Time points and coefficients that somebody optimised for a model, read from a JSON file:

    {
      "source": "Tong et al. 2024, arXiv:2405.15506",
      "tuning_calls": 1200000,
      "solvers": [
        {"sigmas": [80.0, 9.7, 0.5], "weights": [[-70.3], [0.4, -9.6], [0.0, 0.0, -0.5]]},
        {"sigmas": [80.0, 24.4, 5.8, 0.9, 0.1]}
      ]
    }

One solver for each number of steps; its levels as ``sigmas`` = sqrt(1 / alpha_bar - 1), as ``logsnr`` or as
``times``, from the noisiest. ``weights``, one list a step, may be left out.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from bench.errors import UsageError

Kind = Literal["sigmas", "logsnr", "times"]


@dataclass(frozen=True)
class LearnedSolver:
    """What was learned for one number of steps.

    Attributes:
        kind: how the levels are told.
        levels: S of them, from the noisiest.
        weights: for each step k the weights w_k0 .. w_kk of y_(k+1) = y_k + sum_j w_kj eps_j, with
            y = x / sqrt(alpha_bar); None where only the levels were learned.
    """

    kind: Kind
    levels: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...] | None


@dataclass(frozen=True)
class Learned:
    """A file of learned solvers.

    Attributes:
        source: where they are from.
        tuning_calls: network calls, of one sample each, that learning them took; 0 where it is not told.
        solvers: one for each number of steps, by that.
    """

    source: str
    tuning_calls: int
    solvers: Mapping[int, LearnedSolver]

    def solver(self, steps: int, path: str) -> LearnedSolver:
        """Return the solver of S steps.

        Raises:
            UsageError: if there is none.
        """
        if steps not in self.solvers:
            known = ", ".join(map(str, self.solvers))
            raise UsageError(f"{path} has solvers of {known} steps, not of {steps}; give --steps {known}")
        return self.solvers[steps]


def is_learned(spacing: str) -> bool:
    """Return whether a time grid is named by a file of learned solvers."""
    return spacing.endswith(".json")


def read_learned(path: Path) -> Learned:
    """Return what a file holds.

    Raises:
        UsageError: if it cannot be read, or holds something else.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"cannot read learned time points from {path}: {error.strerror}") from None
    except ValueError:
        raise UsageError(f"{path} is no JSON: docs/models.md has the format") from None
    try:
        solvers = [_solver(one) for one in found["solvers"]]
        made = Learned(
            str(found.get("source", "")),
            int(found.get("tuning_calls", 0)),
            {len(one.levels): one for one in sorted(solvers, key=lambda one: len(one.levels))},
        )
    except (TypeError, KeyError, ValueError, AttributeError) as error:
        raise UsageError(
            f"{path} holds no learned solvers ({error}): docs/models.md has the format"
        ) from None
    if not solvers:
        raise UsageError(f"{path} holds no learned solvers")
    return made


def _solver(given: Mapping[str, Any]) -> LearnedSolver:
    kinds: tuple[Kind, ...] = ("sigmas", "logsnr", "times")
    kind = next((one for one in kinds if one in given), None)
    if kind is None:
        raise ValueError(f"a solver needs one of {', '.join(kinds)}")
    levels = tuple(float(level) for level in given[kind])
    weights = given.get("weights")
    return LearnedSolver(kind, levels, None if weights is None else _weights(weights, len(levels)))


def _weights(given: Sequence[Sequence[float]], steps: int) -> tuple[tuple[float, ...], ...]:
    rows = tuple(tuple(float(weight) for weight in row) for row in given)
    lengths = [len(row) for row in rows]
    if lengths != list(range(1, steps + 1)):
        raise ValueError(f"the weights of {steps} steps must be lists of 1 to {steps} numbers, got {lengths}")
    return rows


def tuning_calls(path: Path) -> int:
    """Return the network calls that a file of learned numbers took; 0 where it does not tell them.

    A file of moments, from ``sampler-bench moments``, tells them as ``evaluations``.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return int(found.get("tuning_calls", found.get("evaluations", 0)))
    except (OSError, ValueError, TypeError, AttributeError):
        return 0
