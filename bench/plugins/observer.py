"""What an observer of trials is: a tracker of experiments that is told every record of a run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from bench.records.record import Record


class TrialObserver(Protocol):
    """Told every trial of a run that has its record."""

    def ended(self, record: Record) -> None:
        """Take a trial's record, which may have been told by an earlier run too.

        Raises:
            Exception: whatever it likes; the run goes on, and says that nothing more is told to it.
        """

    def close(self) -> None:
        """Finish: nothing more comes."""


ObserverMaker = Callable[[str, Path], TrialObserver]
"""(what follows the colon of ``--log NAME:WHERE``, or nothing; the results folder) -> observer."""
