"""``--log``: observers that are told of every trial of a run; one that fails harms nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from bench.commands.options import warn
from bench.errors import UsageError, sentence_of, users_code
from bench.plugins.loading import registry
from bench.plugins.observer import TrialObserver
from bench.records.ledger import Plan
from bench.records.record import Record
from bench.records.running import Run
from bench.records.trial import Trial
from bench.sweep.runner import Observer, SampledCell


class Trackers:
    """Observers by what ``--log`` was given; one that fails is told nothing more.

    Args:
        observers: the observers.

    Attributes:
        failed: what ``--log`` was given of those that failed.
    """

    def __init__(self, observers: Iterable[tuple[str, TrialObserver]]) -> None:
        self._observers = dict(observers)
        self._told: set[str] = set()
        self.failed: list[str] = []

    def tell(self, record: Record) -> None:
        """Tell all of them of a trial that ended, once; of rounds that were drawn on only the last."""
        if record.key in self._told or record.continued:
            return
        self._told.add(record.key)
        for name in list(self._observers):
            try:
                self._observers[name].ended(record)
            except users_code() as error:
                self._fail(name, error)

    def close(self) -> None:
        """Close them."""
        for name in list(self._observers):
            try:
                self._observers.pop(name).close()
            except users_code() as error:
                self._fail(name, error)

    def _fail(self, name: str, error: BaseException) -> None:
        self._observers.pop(name, None)
        self.failed.append(name)
        warn(f"--log {name} failed and is told nothing more: {sentence_of(error)}")

    def beside(self, display: Observer) -> Observer:
        """Return an observer of a sweep that tells these of the trials, and ``display`` of everything."""
        return _Beside(self, display)


class _Beside:
    """Passes everything on to what shows it, and records to the trackers as well."""

    def __init__(self, trackers: Trackers, display: Observer) -> None:
        self._trackers = trackers
        self._display = display

    def planned(self, plan: Plan[SampledCell]) -> None:
        self._display.planned(plan)

    def advanced(self, trial: Trial, samples: int) -> None:
        self._display.advanced(trial, samples)

    def ended(self, record: Record) -> None:
        self._display.ended(record)
        self._trackers.tell(record)

    def waiting(self, runs: Sequence[Run]) -> None:
        self._display.waiting(runs)


def check_trackers(given: Sequence[str]) -> None:
    """Raise UsageError where ``--log`` names an observer that is unknown, twice, or nothing after a colon."""
    for text in given:
        name, colon, where = text.partition(":")
        if colon and not where.strip():
            raise UsageError(f"--log {text} is given nothing after the colon; leave it out or say where to")
        if given.count(text) > 1:
            raise UsageError(f"--log {text} is given {given.count(text)} times; give it once")
        registry().observers.get(name)


@contextmanager
def tracking(given: Sequence[str], results: Path) -> Iterator[Trackers]:
    """Give the observers that ``--log`` names, and close them in the end.

    Args:
        given: names, each alone or as in ``csv:trials.csv``, found good by `check_trackers`.
        results: the results folder.

    Raises:
        UsageError: if one cannot be made.
    """
    made = Trackers([(one, _made(one, results)) for one in given])
    try:
        yield made
    finally:
        made.close()


def _made(text: str, results: Path) -> TrialObserver:
    name, _, where = text.partition(":")
    try:
        return registry().observers.get(name)(where, results)
    except UsageError:
        raise
    except users_code() as error:
        raise UsageError(f"--log {text} cannot be begun: {sentence_of(error)}") from error
