"""What adapters of other libraries' samplers share: the text that names one, and the levels it asks about."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import EpsilonModel
from bench.errors import UnknownNameError, UsageError
from samplers.ode import Level

SAME = 1e-5
"""Relative difference of two sigmas that are one: other codes compute them in float32."""


def split_call(text: str) -> tuple[str, dict[str, Any]]:
    """Return name and arguments of ``NAME?key=value&key=value``.

    A value is what Python reads it as (numbers, ``True``, ``None``), or ``true``, ``false``, ``none``, else a
    text.

    Raises:
        UsageError: if an argument has no value.
    """
    name, _, given = text.partition("?")
    found: dict[str, Any] = {}
    for item in given.split("&") if given else ():
        key, equals, value = item.partition("=")
        if not equals:
            raise UsageError(f"{text}: expected key=value after the question mark, got {item!r}")
        found[key] = _literal(value)
    return name, found


def _literal(value: str) -> Any:
    known = {"true": True, "false": False, "none": None}
    if value in known:
        return known[value]
    try:
        return ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return value


def refuse_unknown(name: str, given: Mapping[str, Any], *functions: Callable[..., Any]) -> None:
    """Raise where an argument is none of those that some functions take.

    Raises:
        UsageError: with the nearest known names.
    """
    known = {key for function in functions for key in inspect.signature(function).parameters}
    for key in given:
        if key not in known:
            raise UnknownNameError(f"argument of {name}", key, known)


def level_of_sigma(model: EpsilonModel, levels: Sequence[Level], sigma: float) -> Level:
    """Return the level of sigma = sqrt(1 / abar - 1): one of those given where it is that to float32.

    A network that takes time steps alone is asked at the nearest one; the level stays what it is.

    Args:
        model: the noise predictor.
        levels: those of the grid.
        sigma: the level asked for.
    """
    for level in levels:
        if abs(level.sigma - sigma) <= SAME * level.sigma:
            return level
    schedule, abar = model.schedule, 1 / (1 + sigma**2)
    least, most = schedule.alpha_bar(schedule.last), schedule.alpha_bar(schedule.first)
    t = schedule.time(min(max(abar, least), most))  # churn may lead beyond the noisiest level
    return Level(Level.at(model, t).t, abar)
