"""What goes wrong with a checkpoint."""

from __future__ import annotations

from bench import UsageError


class CheckpointError(UsageError):
    """A checkpoint that cannot be read, does not fit, or leaves something open that must be said.

    Its message is one sentence: what is wrong and what to do. Nothing was executed or half-loaded.
    """
