"""TOML files of users, read in one way."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from bench.errors import UsageError


def read_toml(path: Path, what: str) -> dict[str, Any]:
    """Return what a TOML file holds.

    Args:
        path: the file.
        what: what the file is, for the message.

    Raises:
        UsageError: if it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(f"{what} {path} cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # of its form, of bytes that are no text, of its depth
        raise UsageError(f"{what} {path} is not TOML: {error}") from None
