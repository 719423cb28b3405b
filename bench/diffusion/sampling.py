"""Samplers: a generator function with its parameters bound, and the one function that runs it."""

from __future__ import annotations

import inspect
import math
import sys
import types
import typing
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, overload

import torch
from torch import Tensor

from bench.catalog import Catalog, load_plugins
from bench.diffusion.grid import Grid
from bench.diffusion.interfaces import EpsilonModel, Noise, SamplerFunction
from bench.errors import BenchError, UnknownNameError, UsageError
from bench.spec import parse_options

Parameter = float | int | bool | str

Order = int | Callable[..., int | None] | None
"""The order that a rule declares: a number, or a function of its parameters, by name; None if none."""


@dataclass(frozen=True)
class AtLeast:
    """Put into ``Annotated[float, AtLeast(0)]`` to have a parameter's lower bound checked."""

    bound: float


@dataclass(frozen=True)
class AtMost:
    """Put into ``Annotated[float, AtMost(1)]`` to have a parameter's upper bound checked.

    ``AtMost(math.inf)`` says that the value may be infinite; without it a number must be finite.
    """

    bound: float


@dataclass(frozen=True)
class Added:
    """Put into ``Annotated[float, Added("0.2.0")]`` where a rule gains a parameter after it was published.

    At its default the parameter is left out of `Sampler.spec`, so that the records of earlier versions, which
    are found by that text, are found still. The default must do what the rule did before.
    """

    version: str


@dataclass(frozen=True)
class Checked:
    """Put into ``Annotated[str, Checked(function)]`` to have a value refused when it is given.

    The function raises `UsageError`; it is called with the value, but not with the default, and what it
    returns is not looked at.
    """

    refuse: Callable[[str], object]


class StepCountError(BenchError):
    """A sampler yielded more or fewer times than its grid has steps."""


@dataclass(frozen=True)
class Sampler:
    """A sampling rule with its parameters bound.

    Calling it gives an iterator over x after every step; the last x is x_0. History of multistep rules
    lives in the generator's local variables.

    Attributes:
        name: the rule's name, e.g. ``ddim``.
        function: (model, x, grid, noise, **parameters) -> iterator of tensors shaped like x.
        parameters: every parameter with its value, in the order of the signature.
        declared: what the rule says of its `order`.
        source: paper and equation.
        alias: a name of its own for this choice of parameters, e.g. ``sigma-hat``.
        calls: what the rule says of its `calls_per_step`.
        most_steps: the greatest number of steps that the rule is made for; None if any is.
    """

    name: str
    function: SamplerFunction = field(repr=False)
    parameters: Mapping[str, Parameter]
    declared: Order = None
    source: str = ""
    alias: str | None = None
    calls: Order = 1
    most_steps: int | None = None

    @property
    def calls_per_step(self) -> int | None:
        """The network calls that one step more costs, as declared; None if that is no fixed number."""
        return self.calls(**self.parameters) if callable(self.calls) else self.calls

    @property
    def order(self) -> int | None:
        """The declared order of convergence in the step size, on the noise-free path; None if none."""
        return self.declared(**self.parameters) if callable(self.declared) else self.declared

    def __call__(self, model: EpsilonModel, x: Tensor, grid: Grid, noise: Noise) -> Iterator[Tensor]:
        """Return the iterator over x after every step; `trajectory` checks what it yields."""
        return self.function(model, x, grid, noise, **self.parameters)

    def __hash__(self) -> int:
        return hash(self.spec)

    @property
    def spec(self) -> str:
        """The text that `get_sampler` turns back into this sampler: ``ddim:eta=0.2,clip=none``."""
        later = _added(self.function)
        given = ",".join(
            f"{key}={_text(value)}" for key, value in self.parameters.items() if later.get(key) != value
        )
        return f"{self.name}:{given}" if given else self.name

    @property
    def label(self) -> str:
        """A short name for tables: the parameters that differ from their defaults, and the first always.

        Of a path the file's name stands for all of it.
        """
        if self.alias:
            return self.alias
        defaults = {p.name: p.default for p in _keyword_parameters(self.function)}
        shown = [
            _shown(key, value)
            for i, (key, value) in enumerate(self.parameters.items())
            if i == 0 or value != defaults[key]
        ]
        return " ".join([self.name, *shown])

    @property
    def place(self) -> tuple[float, ...]:
        """What sorts the choices of parameters of one rule: a number itself, the index of a named choice."""
        kinds = typing.get_type_hints(self.function, include_extras=True)
        return tuple(_place(value, kinds.get(key)) for key, value in self.parameters.items())

    def with_(self, alias: str | None = None, **parameters: object) -> Sampler:
        """Return the same rule with other parameters, and optionally a name for that choice.

        Raises:
            UsageError: if a parameter is unknown, of the wrong type or out of its bounds.
        """
        bound = dict(self.parameters)
        kinds = typing.get_type_hints(self.function, include_extras=True)
        for key, value in parameters.items():
            if key not in bound:
                raise UnknownNameError(f"parameter of sampler {self.name}", key, bound)
            bound[key] = _coerce(f"{self.name}:{key}", value, kinds.get(key, type(bound[key])))
        return replace(self, parameters=types.MappingProxyType(bound), alias=alias)


@overload
def sampler(function: SamplerFunction, /) -> Sampler: ...


@overload
def sampler(
    *,
    name: str | None = None,
    order: Order = None,
    source: str = "",
    calls_per_step: Order = 1,
    most_steps: int | None = None,
) -> Callable[[SamplerFunction], Sampler]: ...


def sampler(
    function: SamplerFunction | None = None,
    /,
    *,
    name: str | None = None,
    order: Order = None,
    source: str = "",
    calls_per_step: Order = 1,
    most_steps: int | None = None,
) -> Sampler | Callable[[SamplerFunction], Sampler]:
    """Turn a generator function into a `Sampler` (decorator).

    The function takes (model, x, grid, noise) and keyword-only parameters, each with a type and a default,
    and yields x after every step.

    Args:
        function: given when the decorator is used without brackets.
        name: defaults to the function's name with hyphens for underscores.
        order: the order of convergence the paper claims, or a function that tells it of the parameters, given
            by name; ``bench check`` measures it.
        source: paper and equation.
        calls_per_step: the network calls that one step more costs, or a function that tells them of the
            parameters; None if that is no fixed number.
        most_steps: the greatest number of steps that the rule is made for; ``--samplers all`` runs it up to
            there, and further where ``--steps`` asks for it.

    Raises:
        UsageError: if the signature is not of that form.
    """

    def decorate(function: SamplerFunction) -> Sampler:
        called = name or function.__name__.replace("_", "-")
        if len(_positional(function)) != 4:
            raise UsageError(
                f"sampler {called!r} must take (model, x, grid, noise) and keyword-only parameters"
            )
        parameters: dict[str, Parameter] = {}
        for parameter in _keyword_parameters(function):
            if parameter.default is inspect.Parameter.empty:
                raise UsageError(f"parameter {parameter.name!r} of sampler {called!r} needs a default")
            parameters[parameter.name] = parameter.default
        bound = types.MappingProxyType(parameters)
        return Sampler(called, function, bound, order, source, calls=calls_per_step, most_steps=most_steps)

    return decorate if function is None else decorate(function)


def sample(model: EpsilonModel, sampler: Sampler, grid: Grid, x: Tensor, noise: Noise) -> Tensor:
    """Run a sampler to its end and return x_0, shaped like x.

    The arguments and what is raised are those of `trajectory`.
    """
    return deque(trajectory(model, sampler, grid, x, noise), maxlen=1).pop()


def trajectory(
    model: EpsilonModel, sampler: Sampler, grid: Grid, x: Tensor, noise: Noise
) -> Iterator[Tensor]:
    """Yield x after every step of a sampler; the last is x_0.

    No graph for gradients is kept, unless x_T requires them.

    Args:
        model: the noise predictor.
        sampler: from `get_sampler` or a ``@sampler`` function.
        grid: from `make_grid`, on the model's schedule.
        x: x_T, standard normal, shape (B, C, H, W).
        noise: noise(index) -> tensor like x, standard normal, for the step with that index.

    Raises:
        StepCountError: if the sampler yields more or fewer times than the grid has steps.
        BenchError: if it yields something that is not shaped like x.
        NotApplicable: if the sampler cannot run on this model.
    """
    taken, shape, graph = 0, x.shape, torch.is_grad_enabled() and x.requires_grad
    steps = iter(sampler(model, x, grid, noise))
    while True:
        with torch.set_grad_enabled(graph):  # for one step at a time: the caller's mode is his own
            try:
                following = next(steps, None)
            except Exception as error:
                error.add_note(f"in step {taken + 1} of {len(grid)} of sampler {sampler.label!r}")
                raise
        if following is None:
            break
        taken, x = taken + 1, following
        if taken > len(grid):  # an endless generator ends here
            raise StepCountError(_miscounted(sampler, f"more than {len(grid)} times", grid))
        if not isinstance(x, Tensor) or x.shape != shape:
            got = f"shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise BenchError(
                f"sampler {sampler.label!r} yielded {got} at step {taken}, not shape {tuple(shape)}"
            )
        yield x
    if taken < len(grid):
        times = f"{taken} time{'s' if taken > 1 else ''}" if taken else "nothing"
        raise StepCountError(_miscounted(sampler, times, grid))


def _miscounted(sampler: Sampler, times: str, grid: Grid) -> str:
    steps = f"{len(grid)} step{'s' if len(grid) > 1 else ''}"
    return f"sampler {sampler.label!r} yielded {times} in {steps}; it must yield x once after every step"


SAMPLERS: Catalog[Sampler] = Catalog("sampler", fill=load_plugins)
"""Every sampler by name: rules under their own names, choices of parameters under their aliases."""


def get_sampler(spec: str) -> Sampler:
    """Return the sampler a text names: ``ddim``, ``sigma-hat``, ``ddim:eta=0.35,clip=none``.

    Of a rule whose first parameter is a text, that one may stand without its name, and what follows its "?"
    is part of it: ``NAME:TEXT?key=value&key=value,parameter=value``.

    Raises:
        UsageError: if the name or a parameter is unknown or a value is out of bounds.
    """
    name, _, given = spec.partition(":")
    found = SAMPLERS.get(name.strip())
    if not given:
        return found
    first, (head, *_) = _first_text(found), given.partition("?")
    if first and "=" not in head.partition(",")[0]:
        given = f"{first}={given}"
    named = {k.replace("-", "_"): v for k, v in parse_options(given, f"sampler {spec!r}").items()}
    kinds = typing.get_type_hints(found.function)
    return found.with_(**{key: _choice(kinds.get(key), value) for key, value in named.items()})


def _choice(kind: Any, text: str) -> Any:
    """Return what a text names among the choices of a Literal, which may be numbers; the text otherwise."""
    choices = typing.get_args(kind) if typing.get_origin(kind) is Literal else ()
    return next((choice for choice in choices if str(choice) == text), text)


def _first_text(sampler: Sampler) -> str | None:
    """Return the name of a rule's first parameter if it is a text of any content."""
    first = next(iter(sampler.parameters), None)
    return first if typing.get_type_hints(sampler.function).get(first or "") is str else None


def _positional(function: SamplerFunction) -> list[inspect.Parameter]:
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return [p for p in inspect.signature(function).parameters.values() if p.kind in kinds]


def _keyword_parameters(function: SamplerFunction) -> list[inspect.Parameter]:
    parameters = inspect.signature(function).parameters.values()
    return [p for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]


def _added(function: SamplerFunction) -> dict[str, Any]:
    """Return the defaults of the parameters that a rule gained later."""
    kinds = typing.get_type_hints(function, include_extras=True)
    return {
        p.name: p.default
        for p in _keyword_parameters(function)
        if any(isinstance(mark, Added) for mark in typing.get_args(kinds.get(p.name)))
    }


def _shown(key: str, value: Parameter) -> str:
    """Return a parameter as a label has it: a word alone says enough, but for how x_0 is clipped."""
    if not isinstance(value, str):
        return f"{key}={_text(value)}"
    return f"clip {value}" if key == "clip" else value.rpartition("/")[2]


def _text(value: Parameter) -> str:
    return f"{value:g}" if isinstance(value, float) and float(f"{value:g}") == value else str(value)


def _coerce(where: str, value: object, kind: Any) -> Parameter:
    """Return value as the annotated type, text from a command line included."""
    bounds: tuple[object, ...] = ()
    if typing.get_origin(kind) is typing.Annotated:
        kind, *rest = typing.get_args(kind)
        bounds = tuple(rest)
    if typing.get_origin(kind) is Literal:
        choices = typing.get_args(kind)
        if value not in choices:
            raise UsageError(f"{where} must be one of {', '.join(map(str, choices))}, got {value}")
        return typing.cast(Parameter, value)
    try:
        number = _convert(value, kind, infinite=AtMost(math.inf) in bounds)
    except ValueError:
        raise UsageError(f"{where} must be {_kind_name(kind)}, got {value!r}") from None
    for bound in bounds:
        if isinstance(bound, Checked):
            bound.refuse(str(number))
        if isinstance(bound, AtLeast) and isinstance(number, int | float) and number < bound.bound:
            raise UsageError(f"{where} must be at least {bound.bound:g}, got {value}")
        if isinstance(bound, AtMost) and isinstance(number, int | float) and number > bound.bound:
            raise UsageError(f"{where} must be at most {bound.bound:g}, got {value}")
    return number


def _convert(value: object, kind: Any, *, infinite: bool = False) -> Parameter:
    text = str(value)
    if kind is bool:
        if text.lower() not in ("true", "false"):
            raise ValueError
        return text.lower() == "true"
    if kind is int:
        return int(text)
    if kind is float:
        number = float(text)
        if math.isnan(number) or (math.isinf(number) and not infinite):
            raise ValueError
        return number
    return text


def _place(value: Parameter, kind: Any) -> float:
    if isinstance(value, int | float):
        return min(float(value), sys.float_info.max)
    return float(typing.get_args(kind).index(value)) if typing.get_origin(kind) is Literal else 0.0


def _kind_name(kind: Any) -> str:
    return {int: "a whole number", float: "a finite number", bool: "true or false"}.get(kind, "text")
