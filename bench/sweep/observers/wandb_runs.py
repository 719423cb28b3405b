"""The observer ``wandb``: each trial a run of a Weights & Biases project."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from bench.hooks import hookimpl
from bench.plugins.observer import ObserverMaker
from bench.records.record import Record
from bench.sweep.observers.told import Told, require

PROJECT = "sampler-bench"


class WandbRuns:
    """Runs of a project, whose ids are the trials' keys; a trial told again goes into its run.

    Whether they go to a server is the user's choice, by ``wandb login`` or ``WANDB_MODE=offline``.

    Args:
        project: name of the project.
        folder: where runs are kept until they are sent.
    """

    def __init__(self, project: str, folder: Path) -> None:
        require("wandb", "wandb", "wandb")
        self.project = project
        self.folder = folder

    def ended(self, record: Record) -> None:
        """Write the trial's run."""
        import wandb

        told = Told.of(record)
        self.folder.mkdir(parents=True, exist_ok=True)
        run = wandb.init(
            project=self.project,
            dir=str(self.folder),
            id=record.trial.key,
            name=record.title,
            config={**told.parameters, **told.texts},
            resume="allow",
            settings=wandb.Settings(silent=True, console="off"),
        )
        run.log({**told.numbers, "steps": record.trial.steps})
        run.summary.update(dict(told.numbers))
        run.finish(exit_code=int(record.status == "failed"))

    def close(self) -> None:
        """Do nothing: every run is closed."""


def wandb_runs(where: str, results: Path) -> WandbRuns:
    """A run a trial for Weights & Biases: wandb[:PROJECT] [sampler-bench], kept in RESULTS."""
    return WandbRuns(where or PROJECT, results)


@hookimpl
def bench_observers() -> Mapping[str, ObserverMaker]:
    """Register it."""
    return {"wandb": wandb_runs}
