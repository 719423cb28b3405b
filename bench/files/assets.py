"""Files that ship with the project: verified before they are used."""

from __future__ import annotations

import hashlib
from importlib import resources

from bench.errors import UsageError


def read_asset(name: str, sha256: str, size: int | None = None) -> bytes:
    """Return the content of a file in ``models/assets``.

    Args:
        name: the name of the file.
        sha256: its digest, 64 hex digits.
        size: in bytes, where a truncated file is to be told from a damaged one.

    Raises:
        UsageError: if the file is missing, truncated or damaged.
    """
    again = "install the package again"
    try:
        data = resources.files("models").joinpath("assets", name).read_bytes()
    except OSError as error:
        raise UsageError(f"the package's {name} cannot be read ({error.strerror}); {again}") from None
    if size is not None and len(data) != size:
        raise UsageError(
            f"the package's {name} has {len(data)} bytes, not {size}: it is truncated or not the shipped one;"
            f" {again}"
        )
    if hashlib.sha256(data).hexdigest() != sha256:
        raise UsageError(f"the package's {name} is damaged: its SHA-256 is not {sha256[:16]}...; {again}")
    return data
