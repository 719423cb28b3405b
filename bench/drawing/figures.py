"""Write figures as files: equal figures give equal bytes."""

from __future__ import annotations

import io
from pathlib import Path

from matplotlib.figure import Figure

from bench.drawing.style import LIGHT, Theme, plotting
from bench.files.atomic import write_atomically


def save(figure: Figure, path: Path, theme: Theme = LIGHT) -> Path:
    """Write a figure in the format of the path's ending, without the date, and return the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, rendered(figure, path.suffix[1:], theme))
    return path


def rendered(figure: Figure, form: str, theme: Theme = LIGHT) -> bytes:
    """Return a figure as the bytes of a png, svg or pdf file: equal figures give equal bytes."""
    dateless = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {"Software": None}}
    buffer = io.BytesIO()
    with plotting(theme):
        figure.savefig(buffer, format=form, metadata=dateless.get(form))
    return buffer.getvalue()
