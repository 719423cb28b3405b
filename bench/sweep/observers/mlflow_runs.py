"""The observer ``mlflow``: each trial a run of an experiment, on a server or in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bench.hooks import hookimpl
from bench.plugins.observer import ObserverMaker
from bench.records.record import Record
from bench.sweep.observers.told import Told, require

EXPERIMENT = "sampler-bench"


class MlflowRuns:
    """Runs of an MLflow experiment; a trial told again goes into its run.

    The server is the one that ``MLFLOW_TRACKING_URI`` names; without it runs are kept in a folder.

    Args:
        experiment: name of the experiment, made where it is not there.
        folder: where runs are kept without a server.
    """

    def __init__(self, experiment: str, folder: Path) -> None:
        require("mlflow", "mlflow", "mlflow-skinny")
        # MLflow would tell its makers of its use: nothing here speaks to a network unasked.
        os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
        uri = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not uri:
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")  # newer versions ask for this consent
            uri = folder.resolve().as_uri()
        from mlflow.tracking import MlflowClient

        self._client: Any = MlflowClient(tracking_uri=uri)
        known = self._client.get_experiment_by_name(experiment)
        self._experiment: str = (
            known.experiment_id if known is not None else self._client.create_experiment(experiment)
        )

    def ended(self, record: Record) -> None:
        """Write the trial's run."""
        from mlflow.entities import Metric, Param, RunTag

        told, now = Told.of(record), int(1000 * time.time())
        run = self._run_of(record)
        self._client.log_batch(
            run,
            metrics=[Metric(n, value, now, record.trial.steps) for n, value in told.numbers.items()],
            params=[Param(name, str(value)) for name, value in told.parameters.items()],
            tags=[RunTag(name, text) for name, text in told.texts.items()],
        )
        self._client.set_terminated(run, "FAILED" if record.status == "failed" else "FINISHED")

    def _run_of(self, record: Record) -> str:
        """Return the id of the run that has the trial's key, a new one where none has."""
        found = self._client.search_runs(
            [self._experiment], f"tags.key = '{record.trial.key}'", max_results=1
        )
        if found:
            return str(found[0].info.run_id)
        made = self._client.create_run(
            self._experiment, run_name=record.title, tags={"key": record.trial.key}
        )
        return str(made.info.run_id)

    def close(self) -> None:
        """Do nothing: every run is closed."""


def mlflow_runs(where: str, results: Path) -> MlflowRuns:
    """A run a trial for MLflow: mlflow[:EXPERIMENT] [sampler-bench], without a server in RESULTS/mlruns."""
    return MlflowRuns(where or EXPERIMENT, results / "mlruns")


@hookimpl
def bench_observers() -> Mapping[str, ObserverMaker]:
    """Register it."""
    return {"mlflow": mlflow_runs}
