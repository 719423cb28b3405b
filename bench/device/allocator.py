"""Memory that this process has freed, kept for what it allocates next."""

from __future__ import annotations

import ctypes
import os
from functools import cache

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # M_TRIM_THRESHOLD and M_MMAP_MAX of mallopt(3)

_TUNED = ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "MALLOC_MMAP_THRESHOLD_", "MALLOC_TOP_PAD_")
"""Variables by which a user tells the allocator himself what it is to keep."""


@cache
def keep_freed_memory() -> bool:
    """Have the C library keep what is freed, once for the process; return whether it does.

    A network frees and allocates the same arrays at every call. GNU's C library gives the large ones back to
    the system, which clears every page of them anew: with ``cifar10-small`` at 250 images that was a tenth of
    all processor time. The process's peak stays what it was. More than 64 MiB at a time is given back all the
    same where another thread than the first allocates it. Other C libraries are left alone, and so is one
    that is told otherwise in the environment.
    """
    if any(name in os.environ for name in _TUNED) or "malloc" in os.environ.get("GLIBC_TUNABLES", ""):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):  # another C library, or a system without a common one
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, -1))
