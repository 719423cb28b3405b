"""What a model answers, checked: a wrong wiring is one sentence about the model, no crash in a sampler."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from bench.diffusion.grid import Step
from bench.diffusion.interfaces import EpsilonModel, Prediction, takes_real_times
from bench.errors import BenchError, one_line, sentence_of

RETURN = "it must return bench.Prediction(eps, raw_variance)"


class ModelError(BenchError):
    """A model that does not keep the contract of `EpsilonModel`: its own fault and no sampler's."""


def checked(model: EpsilonModel, answer: object, x: Tensor) -> Prediction:
    """Return a model's answer if it is a `Prediction` for x.

    Args:
        model: who answered.
        answer: what it returned.
        x: what it was asked about, (B, C, H, W).

    Raises:
        ModelError: if it is anything else; the sentence names what came back and the wrapper to use.
    """
    name = name_of(model)
    if not isinstance(answer, Prediction):
        raise ModelError(f"model {name} returned {_described(answer)}, and {_advice(answer, x)}")
    for part, given in (("eps", answer.eps), ("raw_variance", answer.raw_variance), ("x0", answer.x0)):
        if given is None and part != "eps":
            continue
        if not isinstance(given, Tensor):
            raise ModelError(
                f"model {name} returned a Prediction whose {part} is {_described(given)}; {RETURN}"
            )
        if given.shape != x.shape:
            both = given.ndim == x.ndim and given.shape[1] == 2 * x.shape[1]
            more = "; split its channels: the second half is raw_variance" if both else ""
            got, wanted = tuple(given.shape), tuple(x.shape)
            raise ModelError(f"model {name} returned {part} of shape {got} for x of shape {wanted}{more}")
        if not given.is_floating_point():
            raise ModelError(f"model {name} returned {part} of {given.dtype}, not a floating-point tensor")
    if model.variance != "fixed" and answer.raw_variance is None:
        raise ModelError(
            f"model {name} says that its variance is {model.variance!r} and returned none; give raw_variance,"
            " or variance = 'fixed'"
        )
    eps, raw, x0 = answer
    if eps.dtype == x.dtype:
        return answer
    raw, x0 = (None if part is None else part.to(x.dtype) for part in (raw, x0))
    return Prediction(eps.to(x.dtype), raw, x0)


ORDINARY = 100.0
"""A state of unit variance stays in [-100, 100]: an answer to one outside is the sampler's fault."""


def blamed(model: EpsilonModel, error: BaseException, x: Tensor, t: Tensor) -> BaseException:
    """Return what a model raised as a fault of the model's, where the question was one that it must answer.

    Args:
        model: who raised.
        error: what it raised.
        x: what it was asked about.
        t: the times that it was told.

    Returns:
        A `ModelError` for float32 x of the model's shape, finite, and times (B,) of its schedule; the error
        itself for any other question, which is the asker's fault, and where memory ran out.
    """
    if isinstance(error, BenchError | MemoryError | torch.OutOfMemoryError) or not _well_put(model, x, t):
        return error
    where = f"x of {x.dtype} and shape {tuple(x.shape)} at t={float(t.reshape(-1)[0]):g}"
    return ModelError(one_line(f"model {name_of(model)} cannot answer for {where}: {sentence_of(error)}"))


def _well_put(model: EpsilonModel, x: Tensor, t: Tensor) -> bool:
    """Return whether a question keeps the sampler's side of the contract."""
    if x.dtype != torch.float32 or tuple(x.shape[1:]) != tuple(model.shape) or t.shape != (len(x),):
        return False
    if t.is_floating_point() and not takes_real_times(model):
        return False
    schedule = model.schedule
    inside = (t >= schedule.first) & (t <= schedule.last)
    return len(x) > 0 and bool(inside.all()) and bool(torch.isfinite(x).all())


def check_finite(model: EpsilonModel, answer: Prediction, x: Tensor, t: Tensor) -> None:
    """Raise ModelError if an answer to an ordinary state is not finite.

    Args:
        model: who answered.
        answer: what it answered.
        x: what it was asked about, (B, C, H, W).
        t: the times that it was told, (B,).
    """
    broken = _not_finite(answer)
    if broken and float(x.abs().max()) <= ORDINARY:  # false for NaN too
        raise ModelError(
            f"model {name_of(model)} returned {broken} that is not finite at t={float(t[0]):g}, for x within"
            f" -{ORDINARY:g} .. {ORDINARY:g}"
        )


def check_function(
    name: str,
    ask: Callable[[Tensor, Sequence[int], Step], Prediction],
    x: Tensor,
    steps: Sequence[Step],
    tolerance: float,
) -> None:
    """Raise ModelError if a model is no function of its input: samples must not depend on chance or company.

    At every step it is asked about a block and about half of it, cut out of the middle so that neither the
    first nor the last is the same; at the first step about the block in another order too. On the way of a
    model that is a function this makes 1.5 calls a step and one more.

    Args:
        name: what the model is called.
        ask: (x, the places in the block that its rows have, step) -> its answer for these samples.
        x: a block of noise, (B, C, H, W).
        steps: the steps at whose times it is asked.
        tolerance: how far two answers may differ, as a part of the greatest value.

    Raises:
        ModelError: if it changes x, returns what is not finite, or answers differently when asked twice, for
            half of a batch or for a batch in another order.
    """
    whole, size = list(range(len(x))), len(x)
    half = whole[1 : 1 + size // 2] or whole
    turned = whole[-max(1, size // 3) :] + whole[: -max(1, size // 3)]
    for number, step in enumerate(steps):
        questions = {"for a batch in another order": turned} if number == 0 else {}
        questions["for half of a batch"] = half
        first = _answer(name, ask, x, whole, step)
        if broken := _not_finite(first):
            if number == 0:
                raise ModelError(
                    f"model {name} returned {broken} that is not finite for a block of noise at t={step.t:g}"
                )
            continue  # noise is no state of later times: samples will tell
        for how, rows in questions.items():
            gap = answers_gap(_answer(name, ask, x, rows, step), first, rows, step)
            if not gap <= tolerance:
                again = answers_gap(_answer(name, ask, x, whole, step), first, whole, step)
                raise _no_function(name, how, step, gap, again, tolerance)


def _answer(
    name: str,
    ask: Callable[[Tensor, Sequence[int], Step], Prediction],
    x: Tensor,
    rows: Sequence[int],
    step: Step,
) -> Prediction:
    """Return a copy of the answer for some rows of a block: a model may give the same memory again."""
    asked = x[list(rows)]
    before = asked.clone()
    eps, raw, x0 = ask(asked, rows, step)
    if not torch.equal(asked, before):
        raise ModelError(f"model {name} changes the x it is given in place; let it work on a copy")
    raw, x0 = (None if part is None else part.clone() for part in (raw, x0))
    return Prediction(eps.clone(), raw, x0)


def _no_function(name: str, how: str, step: Step, gap: float, again: float, tolerance: float) -> ModelError:
    """Return the sentence about answers that differ: by chance, or with the company of a sample."""
    mode = "put every network in it into evaluation mode"
    if not again <= tolerance:
        return ModelError(
            f"model {name} answers differently when it is asked twice, by {again:.2g} of its greatest value"
            f" at t={step.t:g}: it draws random numbers (dropout?); {mode}"
        )
    return ModelError(
        f"model {name} answers differently {how}, by {gap:.2g} of its greatest value at t={step.t:g}: a"
        " sample's answer depends on those beside it or on its place (batch normalisation? a seed set at each"
        f" call? answers that are kept?); {mode}"
    )


def answers_gap(found: Prediction, first: Prediction, rows: Sequence[int], step: Step) -> float:
    """Return how far an answer for some rows of a block is from the block's, as a part of the greatest value.

    It is infinite where one of them lacks a part or is no number. Where the network tells x_0, eps follows
    with its rounding errors grown by sqrt(abar / (1 - abar)): only what is beyond that counts.
    """
    gaps = [0.0]
    grown = max(1.0, math.sqrt(step.alpha_bar / max(1e-12, 1 - step.alpha_bar)))
    for part, mine, whole in zip(Prediction._fields, found, first, strict=True):
        if mine is None or whole is None:
            gaps.append(0.0 if mine is whole else math.inf)
            continue
        size = max(1e-6, float(whole.abs().max()))
        gap = float((mine - whole[list(rows)]).abs().max()) / size
        gaps.append(gap / grown if part == "eps" and first.x0 is not None else gap)
    return math.inf if any(map(math.isnan, gaps)) else max(gaps)


def _not_finite(answer: Prediction) -> str:
    """Return which part of an answer is not finite, an empty text where all are."""
    parts = zip(Prediction._fields, answer, strict=True)
    return next((name for name, part in parts if part is not None and not _is_finite(part)), "")


def _is_finite(part: Tensor) -> bool:
    return bool(torch.isfinite(part).all())


def check_contract(model: object, name: str) -> None:
    """Raise ModelError if an object lacks what an `EpsilonModel` has: schedule, shape, variance, a call."""
    lacking = [part for part in ("schedule", "shape", "variance") if not hasattr(model, part)]
    if lacking or not callable(model):
        what = ", ".join(lacking) if lacking else "a call"
        raise ModelError(
            f"model {name} is {_described(model)} without {what}; wrap a network with"
            " bench.from_prediction(network, schedule, shape, predicts='eps')"
        )
    shape = getattr(model, "shape", ())
    whole = isinstance(shape, Sequence | torch.Size) and len(shape) == 3
    if not whole or not all(isinstance(side, int) and side > 0 for side in shape):
        raise ModelError(f"model {name} has the shape {shape!r}; it must be (channels, height, width)")


def name_of(model: object) -> str:
    """Return what a model is called in a sentence."""
    return str(getattr(model, "name", "") or type(model).__name__)


def _described(value: object) -> str:
    if value is None:
        return "None"
    if isinstance(value, Tensor):
        return f"a tensor of shape {tuple(value.shape)}"
    if isinstance(value, Mapping):
        return f"a dict with {', '.join(map(str, value)) or 'nothing'}"
    if isinstance(value, tuple | list):
        return f"a {type(value).__name__} of {len(value)}"
    return f"a {type(value).__name__}"


def _advice(answer: object, x: Tensor) -> str:
    """Return what to do about an answer that is no Prediction."""
    if isinstance(answer, Tensor):
        if answer.shape == x.shape:
            return (
                f"{RETURN}; wrap a network that predicts noise with"
                " bench.from_prediction(network, schedule, shape, predicts='eps')"
            )
        if answer.ndim == x.ndim and answer.shape[1] == 2 * x.shape[1]:
            return (
                f"{RETURN}; a network with twice the channels tells a variance too: wrap it with"
                " bench.from_prediction(network, schedule, shape, predicts='eps', variance='learned_range')"
            )
        return f"{RETURN}, each shaped like x, {tuple(x.shape)}"
    if hasattr(answer, "sample") and isinstance(getattr(answer, "sample", None), Tensor):
        return f"{RETURN}; take its .sample, as in bench.Prediction(output.sample)"
    if isinstance(answer, Mapping | tuple | list):
        return f"{RETURN}; take the tensor out of it"
    return RETURN
