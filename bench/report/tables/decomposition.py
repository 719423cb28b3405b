"""Where the error is: the parts of a score, and the error of every step, as sheets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from bench.diffusion.local import LocalErrors
from bench.report.tables.sheets import Sheet
from bench.stats.decomposition import Decomposition, Part
from bench.stats.resampling import Jackknife
from bench.stats.score import Score

NOTES = (
    "± one standard error; score = sampling + network + solver, in squared features",
    "sampling: the bias of so few images, and what keeps real images from the reference",
    "network: the sampler's fine limit against real images",
    "solver: the sampler against its limit; below 0 it makes the score better",
    "images: mean squared distance in features to the limit's image from the same noise; none of a sampler"
    " that draws noise, whose paths have no common limit. distributions: Frechet distance to the limit's"
    " images, bias-corrected",
)
"""What a reader of the parts must know."""

STEP_NOTES = (
    "each step from a point of the exact path; own: what it then lies off the path, in units of x_0 (images"
    " are in [-1, 1]); at x_0: what that alone does to the image, and its part in the sum of their squares",
)


@dataclass(frozen=True)
class DecomposedRow:
    """A sampler's score in parts.

    Attributes:
        sampler: its label.
        steps: S.
        calls: network calls an image.
        score: the score of its images.
        limit: what its fine limit is, in words.
        parts: the score in parts.
        paths: mean squared distance to the limit's images; None for samplers that draw noise.
        laws: Frechet distance to the limit's images.
    """

    sampler: str
    steps: int
    calls: float
    score: Score
    limit: str
    parts: Decomposition
    paths: Jackknife | None
    laws: Jackknife

    def to_json(self) -> dict[str, Any]:
        """Return the numbers by name."""
        parts = {
            name if key == "value" else f"{name}_{key}": value
            for name, part in asdict(self.parts).items()
            for key, value in part.items()
        }
        return {
            "sampler": self.sampler,
            "steps": self.steps,
            "calls": self.calls,
            "score": self.score.value,
            "score_se": self.score.se,
            "limit": self.limit,
            **parts,
            "images": None if self.paths is None else self.paths.value,
            "images_se": None if self.paths is None else self.paths.se,
            "distributions": self.laws.debiased,
            "distributions_se": self.laws.se,
        }


@dataclass(frozen=True)
class SteppedRow:
    """A sampler's errors step by step.

    Attributes:
        sampler: its label.
        steps: S.
        errors: one a step.
    """

    sampler: str
    steps: int
    errors: LocalErrors

    def to_json(self) -> list[dict[str, Any]]:
        """Return the numbers by name, one mapping a step."""
        return [{"sampler": self.sampler, "steps": self.steps, **asdict(one)} for one in self.errors.steps]


def parts_sheet(title: str, rows: Sequence[DecomposedRow], notes: Sequence[str] = ()) -> Sheet:
    """Return the parts of some samplers' scores, one a row."""
    shown = [
        [
            row.sampler,
            str(row.steps),
            f"{row.calls:g}",
            _told(Part(row.score.value, row.score.se)),
            *(_told(part) for part in (row.parts.sampling, row.parts.network, row.parts.solver)),
            "" if row.paths is None else _told(Part(row.paths.value, row.paths.se)),
            _told(Part(row.laws.debiased, row.laws.se)),
        ]
        for row in rows
    ]
    heads = ["sampler", "S", "calls", "score", "sampling", "network", "solver", "images", "distributions"]
    frame = pd.DataFrame([row.to_json() for row in rows])
    return Sheet(title, heads, shown, frame, "\n".join([*NOTES, *notes]), frozenset({"sampler"}))


def steps_sheet(title: str, rows: Sequence[SteppedRow]) -> Sheet:
    """Return the errors of the steps of one grid, a row a step, three columns a sampler."""
    first = rows[0].errors.steps
    columns = ["step", "sigma"]
    for row in rows:
        columns += [f"{row.sampler}: own", "at x_0", "part"]
    shown = []
    for place, step in enumerate(first):
        cells = [str(step.step), f"{step.sigma:.3g} to {step.sigma_next:.3g}"]
        for one in (row.errors.steps[place] for row in rows):
            cells += [f"{one.error:.2g}", f"{one.carried:.2g}", f"{one.share:.0%}"]
        shown.append(cells)
    unknown = max(row.errors.path_error for row in rows)
    notes = [*STEP_NOTES, f"the exact path is known to {unknown:.1g} at x_0"]
    anew = [row.sampler for row in rows if row.errors.from_rest]
    if anew:
        notes.append(f"begun anew at every point, without history: {', '.join(anew)}")
    return Sheet(title, columns, shown, steps_frame(rows), "\n".join(notes), frozenset({"sigma"}))


def steps_frame(rows: Sequence[SteppedRow]) -> pd.DataFrame:
    """Return the errors of all steps with unrounded numbers, one row a sampler, S and step."""
    return pd.DataFrame([line for row in rows for line in row.to_json()])


def _told(part: Part) -> str:
    """Return a part with its error, as many decimals as show the error with two figures."""
    digits = next((d for d in range(1, 6) if part.se >= 10 ** (1 - d)), 6)
    return f"{part.value:.{digits}f} ± {part.se:.{digits}f}"
