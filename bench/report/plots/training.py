"""How the models of a results folder were trained, from the tables it keeps of that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from matplotlib.figure import Figure

from bench.drawing.curves import extent, training_curves
from bench.drawing.style import LIGHT, Theme
from bench.errors import BenchError
from bench.records.record import Record
from bench.records.store import Store, file_slug
from bench.records.trainings import read_metrics
from bench.records.trial import split_option

TITLE = "How it was trained"


@dataclass(frozen=True)
class Training:
    """The training of one model.

    Attributes:
        model: what ``--model`` was given.
        table: columns of its ``metrics.csv`` by name; empty where the file is damaged.
        damage: one sentence where it is.
    """

    model: str
    table: Mapping[str, Sequence[float]]
    damage: str = ""

    @property
    def slug(self) -> str:
        """The model as part of a file name."""
        return f"{file_slug(self.model)}-training"

    @property
    def caption(self) -> str:
        """What is to be seen."""
        second = " L_vlb is the variational bound." if "vlb_bits_per_dim" in self.table else ""
        return (
            f"Losses of {extent(self.table)}. A point is the mean of the steps since the one before, the"
            f" line their course.{second} They say how far the training went, not how good the samples are."
        )

    def figure(self, theme: Theme = LIGHT) -> Figure:
        """Draw it."""
        return training_curves(self.table, self.model, theme)


def trainings(store: Store, models: Iterable[str]) -> list[Training]:
    """Return the trainings that a store keeps of some models, by name; those damaged say so.

    A model has one, whatever it was guided by.
    """
    found = []
    for model in sorted({split_option(model, "guidance")[0] for model in models}):
        path = store.training_table(model)
        if path.is_file():
            try:
                made = Training(model, read_metrics(path, str(path.relative_to(store.folder))))
            except BenchError as error:
                made = Training(model, {}, str(error))
            found.append(made)
    return found


def models_of(records: Iterable[Record]) -> set[str]:
    """Return what ``--model`` was given for some records."""
    return {record.trial.model for record in records}
