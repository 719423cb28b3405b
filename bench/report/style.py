"""How every plot looks: colours that colour-blind readers can tell apart, one for each sampler."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes

# Okabe & Ito 2008, "Color universal design", yellow left out: it vanishes on white.
COLOURS = ("#0072B2", "#56B4E9", "#009E73", "#E69F00", "#D55E00", "#CC79A7", "#000000", "#7F7F7F")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")

STYLE: dict[Any, Any] = {
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "lines.linewidth": 1.6,
    "lines.markersize": 5.5,
    "svg.hashsalt": "sampler-bench",  # equal figures give equal files
}


@contextmanager
def plotting() -> Iterator[None]:
    """Draw without a screen, in the project's style."""
    mpl.use("agg")
    with mpl.rc_context(STYLE):
        yield


def looks(rows: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return (colour, marker) of every row, in the order of the table."""
    return {row: (COLOURS[i % len(COLOURS)], MARKERS[i % len(MARKERS)]) for i, row in enumerate(rows)}


def plain_ticks(axes: Axes, values: Sequence[int]) -> None:
    """Label a logarithmic x axis with the numbers of steps themselves."""
    axes.set_xscale("log")
    axes.set_xticks(values, [str(value) for value in values])
    axes.xaxis.set_minor_locator(mpl.ticker.NullLocator())
