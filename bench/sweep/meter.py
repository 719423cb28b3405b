"""Count, time and check the calls of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.device.clock import Clock
from bench.diffusion.answers import ModelError, blamed, check_finite, checked, name_of
from bench.diffusion.guidance import GuidedByGradient
from bench.diffusion.interfaces import EpsilonModel, Prediction, Variance, takes_real_times
from bench.diffusion.prediction import SPENT, Spent
from bench.diffusion.schedule import Schedule
from bench.errors import users_code


@dataclass
class Meter:
    """A model that counts its calls and times them, and is otherwise the model.

    Attributes:
        model: what is called.
        clock: the network's share of the time.
        precision: dtype of the network's arithmetic, by autocast; its answer has the dtype of x again.
        finite: whether every answer is looked at for values that are not finite, which costs a wait for it.
        calls: calls of the model so far, each on a whole batch.
        rows: rows of x that the model was asked about so far.
        evaluations: rows sent through networks so far: under guidance more than were asked about.
        gradients: rows of a classifier's gradient so far.
    """

    model: EpsilonModel
    clock: Clock
    precision: torch.dtype = torch.float32
    finite: bool = False
    calls: int = 0
    rows: int = 0
    evaluations: int = 0
    gradients: int = 0

    @property
    def schedule(self) -> Schedule:
        """The model's."""
        return self.model.schedule

    @property
    def shape(self) -> tuple[int, int, int]:
        """The model's."""
        return self.model.shape

    @property
    def continuous(self) -> bool:
        """Whether the model takes real times."""
        return takes_real_times(self.model)

    @property
    def variance(self) -> Variance:
        """The model's."""
        return self.model.variance

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        """Call the model, count it, time it, and check its answer.

        Raises:
            ModelError: if the model raises, or answers anything but a `Prediction` for x; see `blamed`.
        """
        return self._asked(self.model, x, t)

    def _asked(self, model: Callable[[Tensor, Tensor], object], x: Tensor, t: Tensor) -> Prediction:
        self.calls += 1
        self.rows += len(x)
        answer = checked(self.model, self._counted(model, x, t, len(x)), x)
        if self.finite:
            check_finite(self.model, answer, x, t)
        return answer

    def _counted(self, call: Callable[[Tensor, Tensor], object], x: Tensor, t: Tensor, rows: int) -> object:
        """Return what a call gives, timed, in the precision asked for, with what it spent inside counted."""
        spent = Spent()
        token = SPENT.set(spent)
        try:
            with self.clock.running(), _casting(x.device.type, self.precision):
                return call(x, t)
        except users_code() as error:
            fault = blamed(self.model, error, x, t)
            if fault is error:
                raise
            raise fault from error
        finally:
            SPENT.reset(token)
            self.evaluations += rows if spent.rows is None else spent.rows
            self.gradients += spent.gradients


class GuidedMeter(Meter):
    """A meter on a model that tells its guidance apart; see `GuidedByGradient`."""

    def gradient(self, x: Tensor, t: Tensor) -> Tensor:
        """Return the model's gradient, counted and timed.

        Raises:
            ModelError: if it is not shaped like x.
        """
        assert isinstance(self.model, GuidedByGradient)  # `metered` looked
        found = self._counted(self.model.gradient, x, t, 0)
        if not isinstance(found, Tensor) or found.shape != x.shape:
            raise ModelError(
                f"the gradient of model {name_of(self.model)} is not shaped like x, {tuple(x.shape)}"
            )
        return found.to(x.dtype)

    def unguided(self, x: Tensor, t: Tensor) -> Prediction:
        """Return the model's prediction without its guidance, counted, timed and checked as a call."""
        assert isinstance(self.model, GuidedByGradient)
        return self._asked(self.model.unguided, x, t)


def metered(
    model: EpsilonModel, clock: Clock, precision: torch.dtype = torch.float32, *, finite: bool = False
) -> Meter:
    """Return a meter on a model, one that keeps its guidance apart where the model does."""
    kind = GuidedMeter if isinstance(model, GuidedByGradient) else Meter
    return kind(model, clock, precision, finite)


def _casting(device: str, precision: torch.dtype) -> torch.autocast:
    return torch.autocast(device, precision, enabled=precision != torch.float32)
