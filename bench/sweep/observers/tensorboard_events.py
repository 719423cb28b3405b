"""The observer ``tensorboard``: each trial a run of its own, with its parameters under HPARAMS."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.hooks import hookimpl
from bench.plugins.observer import ObserverMaker
from bench.records.record import Record
from bench.sweep.observers.told import Told, require


class TensorBoardEvents:
    """Event files of TensorBoard, a folder a trial; a trial told again replaces its folder's events.

    Every number is a scalar at step S, so that the runs of one sampler make a curve over S.

    Args:
        folder: what ``tensorboard --logdir`` takes.
    """

    def __init__(self, folder: Path) -> None:
        require("tensorboard", "tensorboard", "tensorboard")
        self.folder = folder

    def ended(self, record: Record) -> None:
        """Write the events of the trial's run."""
        from torch.utils.tensorboard import SummaryWriter, summary

        hparams: Any = summary.hparams  # torch has no types for it
        told, run = Told.of(record), self.folder / record.name
        for old in run.glob("events.out.tfevents.*"):
            old.unlink()
        with SummaryWriter(str(run)) as writer:
            events = writer._get_file_writer()
            for part in hparams(dict(told.parameters), dict(told.numbers)):
                events.add_summary(part)
            for name, value in told.numbers.items():
                writer.add_scalar(name, value, record.trial.steps)
            for name, text in told.texts.items():
                writer.add_text(name, text, record.trial.steps)

    def close(self) -> None:
        """Do nothing: every run is closed."""


def tensorboard_events(where: str, results: Path) -> TensorBoardEvents:
    """A run a trial for TensorBoard: tensorboard[:DIR] [RESULTS/tensorboard]."""
    return TensorBoardEvents(Path(where) if where else results / "tensorboard")


@hookimpl
def bench_observers() -> Mapping[str, ObserverMaker]:
    """Register it."""
    return {"tensorboard": tensorboard_events}
