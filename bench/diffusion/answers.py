"""What a model answers, checked: a wrong wiring is one sentence about the model, no crash in a sampler."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from bench.diffusion.interfaces import EpsilonModel, Prediction
from bench.errors import BenchError, sentence_of, users_code

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


def check_function(name: str, ask: Callable[[Tensor, int], Prediction], x: Tensor, tolerance: float) -> None:
    """Raise ModelError if a model is no function of its input: samples must not depend on chance or company.

    Args:
        name: what the model is called.
        ask: (x, number of samples) -> its answer for the first so many samples of a block.
        x: a block of noise, (B, C, H, W).
        tolerance: how far two answers may differ, as a part of the greatest value.

    Raises:
        ModelError: if it changes x, answers differently when asked twice, or for half the batch.
    """
    before = x.clone()
    try:
        first = ask(x, len(x)).eps.clone()  # a model may give the same memory again
    except BenchError:
        raise
    except users_code() as error:
        raise ModelError(
            f"model {name} cannot answer for a block of noise, x of {x.dtype} and shape {tuple(x.shape)}:"
            f" {sentence_of(error)}"
        ) from error
    if not torch.equal(x, before):
        raise ModelError(f"model {name} changes the x it is given in place; let it work on a copy")
    size = max(1e-6, float(first.abs().max()))
    mode = "put every network in it into evaluation mode"
    if (gap := float((ask(x, len(x)).eps - first).abs().max()) / size) > tolerance:
        raise ModelError(
            f"model {name} answers differently when it is asked twice, by {gap:.2g} of its greatest value: it"
            f" draws random numbers (dropout?); {mode}"
        )
    half = max(1, len(x) // 2)
    if (gap := float((ask(x[:half], half).eps - first[:half]).abs().max()) / size) > tolerance:
        raise ModelError(
            f"model {name} answers differently for half of a batch, by {gap:.2g} of its greatest value: a"
            f" sample's answer depends on those beside it (batch normalisation?); {mode}"
        )


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
