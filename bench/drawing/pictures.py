"""Write pictures as files."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from bench.files.atomic import write_atomically


def save_picture(picture: Image.Image, path: Path) -> Path:
    """Write a picture as PNG and return the path."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG", optimize=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, buffer.getvalue())
    return path
