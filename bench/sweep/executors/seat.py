"""Where a block is drawn on another machine: a process of its own, watched by the one beside it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Mapping

from bench.errors import BenchError
from bench.plugins.executor import Outcome
from bench.records.trial import Task, WorkerSetup
from bench.sweep.executors.child import Child, wait_for

LOST = 5
"""Times that a block may be lost with its worker before its trial is given up."""

PASSED_ON = ("SAMPLER_BENCH_", "TORCH_", "HF_", "MKL_", "OPENBLAS_", "OMP_", "GOMP_")
"""How the variables begin that workers on other machines are given: where weights lie, how threads wait."""


def shared_environment() -> dict[str, str]:
    """Return the variables of this process that workers on other machines are given."""
    return {name: value for name, value in os.environ.items() if name.startswith(PASSED_ON)}


Answer = tuple[Outcome, bool] | BenchError
"""(what became of a block, whether its process ended or hung), or why no block can be drawn there."""


class Seat:
    """Draws blocks in a process of its own, and tells how that ended where it did.

    Args:
        setup: what it draws with; the model is loaded once.
        device: a torch device.
        threads: torch's threads in it.
    """

    def __init__(self, setup: WorkerSetup, device: str, threads: int) -> None:
        self._child = Child(setup, device, threads)

    def settle(self, folder: str, environment: Mapping[str, str]) -> BenchError | None:
        """Go where the sweep was started, and return in a sentence why that is not possible.

        Args:
            folder: working folder, so that plugin files, models and images are found under the same names.
            environment: variables to set.
        """
        os.environ.update(environment)
        try:
            os.chdir(folder)
        except OSError as error:
            return BenchError(
                f"folder {folder} cannot be entered there ({error.strerror}): start the sweep in a folder"
                " that all machines share"
            )
        return None

    def draw(self, task: Task, tries: int = 1) -> bytes:
        """Return an `Answer`, pickled whole: arrays that come through shared memory could not be added to.

        Args:
            task: the block.
            tries: how often it is tried where its process ends or hangs.
        """
        for _ in range(tries):
            answer = self._answer(task)
            if isinstance(answer, BenchError) or not answer[1]:
                break
        return pickle.dumps(answer)

    def _answer(self, task: Task) -> Answer:
        try:
            self._child.give(task)
            while (outcome := self._child.look()) is None:
                wait_for([self._child])
        except BenchError as error:
            return BenchError(str(error))  # plain: others may not be made again from their text
        return outcome, not self._child.runs

    def is_alive(self) -> bool:
        """Return True."""
        return True

    def end(self) -> None:
        """End the process."""
        self._child.end()
