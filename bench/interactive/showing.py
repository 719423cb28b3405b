"""What a sweep shows while it runs: in a notebook a bar below the cell, elsewhere what the command shows."""

from __future__ import annotations

import html
import sys
import time
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure

from bench.commands.progress import Display, Measuring, Shown, say_plan
from bench.drawing.figures import rendered
from bench.drawing.style import Theme
from bench.records.ledger import Plan
from bench.records.running import Run
from bench.records.trial import Trial
from bench.sweep.runner import SampledCell

EVERY = 0.2
"""Least seconds between two drawings of a bar."""


def in_notebook() -> bool:
    """Return whether this is the kernel of a notebook, which shows HTML."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython is not None else None
    return hasattr(shell, "kernel")


def shown_here(*, quiet: bool) -> Shown:
    """Return what a sweep shows where it was started.

    Args:
        quiet: show nothing at all.
    """
    if quiet:
        return Silent(quiet=True)
    return InNotebook(quiet=False) if in_notebook() else Shown(quiet=False)


def shown(figure: Figure, theme: Theme) -> Figure:
    """Show a figure that was made without a screen below the cell of a notebook, and return it."""
    if in_notebook():
        sys.modules["IPython.display"].display(Picture(figure, theme))
    return figure


class Picture:
    """A figure as PNG: what a notebook shows of it.

    Args:
        figure: the figure.
        theme: what it was drawn with.
    """

    def __init__(self, figure: Figure, theme: Theme) -> None:
        self._figure, self._theme = figure, theme

    def __repr__(self) -> str:
        return "<plot>"

    def _repr_png_(self) -> bytes:
        return rendered(self._figure, "png", self._theme)


class Silent(Shown):
    """Shows nothing, and tells nothing that is done other than it was asked for."""

    def say(self, sentence: str) -> None:
        """Tell nothing."""


class InNotebook(Shown):
    """Shows bars below the cell."""

    def measuring(self) -> Measuring:
        """Return a bar of reference images."""
        return _MeasuringBelow()

    def display(self) -> Display:
        """Return a bar of the sweep."""
        return _SweepBelow()


class _Below:
    """A bar below the cell of a notebook, drawn again in its place."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._began = self._drawn = time.monotonic()

    def draw(self, done: float, total: float, told: str) -> None:
        """Draw the bar with a text beside it, not too often."""
        now = time.monotonic()
        if self._handle is not None and now - self._drawn < EVERY:
            return
        self._drawn = now
        left = (total - done) * (now - self._began) / done if done else None
        time_left = "" if left is None else f", {left:.0f} s left"
        bar = f'<progress value="{done:g}" max="{total:g}" style="width:20em"></progress>'
        self._put(f"{bar} {html.escape(told + time_left)}")

    def end(self, told: str) -> None:
        """Put a text in the place of the bar."""
        if self._handle is not None:
            self._put(f"<small>{html.escape(told)}</small>")

    @property
    def seconds(self) -> float:
        """Time since the bar was made."""
        return time.monotonic() - self._began

    def _put(self, content: str) -> None:
        ipython: Any = sys.modules["IPython.display"]  # a notebook's kernel has it
        shown = ipython.HTML(content)
        if self._handle is None:
            self._handle = ipython.display(shown, display_id=True)
        else:
            self._handle.update(shown)


class _MeasuringBelow(Measuring):
    """The bar of reference images that are measured."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self._below = _Below()

    def __call__(self, done: int, total: int) -> None:
        """Move the bar, where it takes more than a moment."""
        if self._below.seconds > self.MOMENT:
            self._below.draw(done, total, f"measuring the reference, {done:,} of {total:,} images")

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._below.end(f"reference measured in {self._below.seconds:.0f} s")


class _SweepBelow(Display):
    """The bar of the trials."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self._below = _Below()
        self._whole = 0

    def planned(self, plan: Plan[SampledCell]) -> None:
        """Say what was found and set the bar up."""
        say_plan(plan)
        super().planned(plan)
        self._whole = sum(cell.trial.steps * cell.trial.n for cell in plan.pending)

    def advanced(self, trial: Trial, samples: int) -> None:
        """Move the bar by the network's work."""
        super().advanced(trial, samples)
        if self._whole:  # what was found drawn is told before the plan
            told = f"S={trial.steps}, {self._done} of {self._total} trials"
            self._below.draw(self._work, self._whole, told)

    def waiting(self, runs: Sequence[Run]) -> None:
        """Say beside the bar which other runs have what is left."""
        told = "; ".join(map(str, runs))
        self._below.draw(self._work, self._whole or 1, f"what is left is with {told}")

    def __exit__(self, *error: object) -> None:
        super().__exit__(*error)
        self._below.end(f"{self._done} trials computed in {self._below.seconds:.0f} s")
