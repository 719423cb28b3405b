"""A model made ready to be run otherwise than it is, and its answers held to those it gives as it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from bench.device.clock import Clock, free_memory
from bench.device.modes import EAGER, Mode, Prepared
from bench.device.precision import PRECISIONS, allow_tf32
from bench.diffusion.answers import answers_gap
from bench.diffusion.conditions import bound
from bench.diffusion.grid import Grid, Step
from bench.diffusion.interfaces import Clip, EpsilonModel, Prediction
from bench.diffusion.noise import INITIAL, normal_noise
from bench.diffusion.posterior import diffuse, predict_x0
from bench.diffusion.stages import Decodes
from bench.errors import BenchError, UsageError, one_line, sentence_of, users_code
from bench.sweep.meter import metered
from bench.sweep.tolerances import TOLERANCES

AS_IT_IS = (EAGER, "float32")
"""The mode and the precision that all others are held to: admitted without being asked."""


Question = tuple[Tensor, Step]
"""What a network is asked about: x_t and the step at whose time."""


class ModeRefused(BenchError):  # noqa: N818  it is an answer, and no fault
    """A mode that cannot be had, or whose answers or images are not those of the network as it is."""


def is_out_of_memory(error: BaseException | None) -> bool:
    """Return whether memory is what an error, or one that it came of, is about: of a GPU or of the host."""
    while error is not None:
        told = isinstance(error, RuntimeError) and "allocate memory" in str(error)  # torch's, on a CPU
        if told or isinstance(error, MemoryError | torch.OutOfMemoryError):
            return True
        error = error.__cause__
    return False


@dataclass
class Readiness:
    """A model on a device with everything that was made ready to run its networks otherwise.

    Attributes:
        model: the model.
        name: what it is called in a sentence.
        device: where it is.
        seconds: what making ready has taken so far: compiling and recording, which no cost of a trial holds.
    """

    model: EpsilonModel
    name: str
    device: torch.device
    seconds: float = 0.0
    _prepared: dict[str, Prepared] = field(default_factory=dict)
    _gaps: dict[tuple[str, str, int], float] = field(default_factory=dict)

    @contextmanager
    def running(self, mode: str) -> Iterator[None]:
        """Run the networks in a mode within, for batches that they were made ready for."""
        with self._of(mode).running():
            yield

    def make_ready(self, mode: str, precision: str, batch: int, grid: Grid, seed: int) -> float:
        """Prepare the networks for batches of a size, and return how far their answers then are from before.

        The answers are to noise at the first time of a grid, and at a middle one and the last to x_t of the
        x_0 that the network predicts there. The distance is the greatest difference from those of the
        networks as they are in float32, as a part of the greatest value. What is ready is not asked again.

        Args:
            mode: how they are to be run, see `bench.device.modes.Mode`.
            precision: a key of `PRECISIONS`.
            batch: samples at a time.
            grid: the steps.
            seed: the seed of the noise.

        Raises:
            UsageError: if there is no such mode on this device, or nothing to be run in it.
            ModeRefused: if it does not work, or an answer is further off than `TOLERANCES` allows.
        """
        key = (mode, precision, batch)
        if key not in self._gaps:
            self._gaps[key] = self._checked(mode, precision, batch, grid, seed)
        return self._gaps[key]

    def forget(self, mode: str) -> None:
        """Let go of what a mode was made ready with, and of the memory that it holds."""
        self._prepared.pop(mode, None)
        self._gaps = {key: gap for key, gap in self._gaps.items() if key[0] != mode}
        free_memory(self.device)

    def _of(self, mode: str) -> Prepared:
        if mode not in self._prepared:
            parsed = Mode.parse(mode)
            if lacking := parsed.lacking(self.device):
                raise UsageError(f"mode {mode} is not to be had: {lacking}")
            try:
                self._prepared[mode] = Prepared(self.model, parsed)
            except UsageError:
                raise
            except users_code() as error:
                raise self._unusable(mode, error) from error
        return self._prepared[mode]

    def _unusable(self, mode: str, error: BaseException) -> ModeRefused:
        reason = one_line(sentence_of(error).partition("\n\n")[0])
        return ModeRefused(f"mode {mode} does not work for model {self.name}: {reason}")

    def _checked(self, mode: str, precision: str, batch: int, grid: Grid, seed: int) -> float:
        greatest, most = 0.0, TOLERANCES[precision].answers
        with torch.no_grad():
            asked, before = self._questions(batch, grid, seed)
            after = self._answers_in(mode, precision, asked, seed)
        for (_, step), own, other in zip(asked, before, after, strict=True):
            gap = answers_gap(other, own, range(batch), step)
            if not gap <= most:
                raise ModeRefused(
                    f"mode {mode} in {precision} is refused: an answer of model {self.name} at t={step.t:g}"
                    f" differs by {gap:.2g} of the greatest value from the network's as it is in float32,"
                    f" and {most:g} is allowed"
                )
            greatest = max(greatest, gap)
        return greatest

    def _questions(self, batch: int, grid: Grid, seed: int) -> tuple[list[Question], list[Prediction]]:
        """Return what the network is asked, and what it answers as it is, in float32."""
        first, *later = {s.t: s for s in (grid[0], grid[len(grid) // 2], grid[len(grid) - 1])}.values()
        noise = normal_noise(seed, range(batch), INITIAL, self.model.shape, device=self.device)
        answers = [self._answer((noise, first), seed, "float32")]
        clip: Clip = "none" if isinstance(self.model, Decodes) else "x0"
        x0, _ = predict_x0(noise, answers[0], first.alpha_bar, clip)
        asked = [(noise, first), *((diffuse(x0, noise, step.alpha_bar), step) for step in later)]
        answers += [self._answer(question, seed, "float32") for question in asked[1:]]
        return asked, answers

    def _answers_in(
        self, mode: str, precision: str, asked: Sequence[Question], seed: int
    ) -> list[Prediction]:
        """Return the answers in a mode, everything in it that can be made beforehand being made now."""
        began = time.perf_counter()
        prepared = self._of(mode)
        try:
            with _quiet(), prepared.preparing():
                for question in asked:
                    self._answer(question, seed, precision)
            self.seconds += time.perf_counter() - began
            with prepared.running():
                return [self._answer(question, seed, precision) for question in asked]
        except users_code() as error:
            if is_out_of_memory(error):
                raise
            raise self._unusable(mode, error) from error

    def _answer(self, question: Question, seed: int, precision: str) -> Prediction:
        x, step = question
        allow_tf32(precision == "tf32")
        mine = bound(self.model, range(len(x)), seed)
        eps, raw, x0 = metered(mine, Clock(self.device), PRECISIONS[precision])(x, step.times(x))
        raw = None if self.model.variance == "fixed" else raw
        raw, x0 = (None if part is None else part.clone() for part in (raw, x0))
        return Prediction(eps.clone(), raw, x0)


@contextmanager
def _quiet() -> Iterator[None]:
    """Have nobody log warnings within: compilers tell at length what is no concern of who wants images."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
