"""Spacings: the rules that choose the times a sampler visits.

A rule on time steps, (T, S) -> steps, counts the steps of a discrete schedule. A rule on levels, marked by
`on_levels`, (schedule, S) -> times, asks the schedule for noise levels and works on every one.
"""

from __future__ import annotations

import inspect
import math
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy.special import betaincinv

from bench.catalog import Catalog, load_plugins
from bench.diffusion.learned import is_learned, read_learned
from bench.diffusion.schedule import ContinuousSchedule, NoiseSchedule, Schedule
from bench.errors import UnknownNameError, UsageError
from bench.spec import is_number, join_spec, parse_options, refuse_repeated

Spacing = Callable[..., Sequence[float]]
"""A rule (T, S) -> time steps, or, marked by `on_levels`, (schedule, S) -> times; both ascending."""

Rule = TypeVar("Rule", bound=Spacing)


def on_levels(rule: Rule) -> Rule:
    """Mark a rule that takes (schedule, S) and keyword parameters, and returns real times, ascending."""
    rule.takes_schedule = True  # type: ignore[attr-defined]
    return rule


def uniform(T: int, S: int) -> list[int]:
    """Return range(0, T, T // S): more than S steps where S does not divide T (30 of 1000 gives 31).

    Source: Song et al. 2021, arXiv:2010.02502, appendix D.2, and its published code.
    """
    return list(range(0, T, T // S))


def quadratic(T: int, S: int) -> list[int]:
    """Return int(linspace(0, sqrt(0.8 T), S)^2): dense near t=0, repeats at large S.

    Source: Song et al. 2021, appendix D.2; the 0.8 is in the published code only.
    """
    return [int(u * u) for u in _linspace(0, math.sqrt(0.8 * T), S)]


def openai(T: int, S: int) -> list[int]:
    """Return round(k (T-1)/(S-1)), k = 0 .. S-1: both ends included.

    Source: Nichol & Dhariwal 2021, arXiv:2102.09672, section 4.
    """
    if S == 1:
        return [0]
    stride, at, steps = (T - 1) / (S - 1), 0.0, []
    for _ in range(S):  # a running sum, as in the published tables: a product rounds some ties the other way
        steps.append(round(at))
        at += stride
    return steps


def openai_ddim(T: int, S: int) -> list[int]:
    """Return range(0, T, stride) with the first integer stride that gives exactly S steps.

    Source: the ``ddimN`` sections of Nichol & Dhariwal 2021's published code.

    Raises:
        UsageError: where no integer stride gives S steps (T=1000: 300, 400).
    """
    for stride in range(1, T + 1):
        if len(range(0, T, stride)) == S:
            return list(range(0, T, stride))
    raise UsageError(f"no integer stride visits exactly {S} of {T} time steps; use spacing 'openai'")


def linspace(T: int, S: int) -> list[int]:
    """Return round(linspace(0, T-1, S))."""
    return [round(u) for u in _linspace(0, T - 1, S)]


def trailing(T: int, S: int) -> list[int]:
    """Return round(arange(T, 0, -T/S)) - 1: the last step is T-1, the first about T/S - 1.

    Source: Lin et al. 2023, arXiv:2305.08891, table 2.
    """
    return sorted(round(T - k * T / S) - 1 for k in range(S))


def every(T: int, S: int) -> list[int]:
    """Return all T time steps.

    Raises:
        UsageError: if S is not T.
    """
    if S != T:
        raise UsageError(f"spacing 'all' takes all {T} time steps; ask for {T} steps, not {S}")
    return list(range(T))


@on_levels
def equal_parts(schedule: Schedule, S: int) -> list[float]:
    """Return S times at equal parts of the schedule's own time, both ends included."""
    return _linspace(schedule.first, schedule.last, S)


@on_levels
def time_quadratic(schedule: Schedule, S: int) -> list[float]:
    """Return S times whose roots lie at equal parts, both ends included: dense near x_0.

    Source: Lu et al. 2022, arXiv:2206.00927, app. E.1.
    """
    return [u * u for u in _linspace(math.sqrt(schedule.first), math.sqrt(schedule.last), S)]


@on_levels
def logsnr(schedule: Schedule, S: int) -> list[float]:
    """Return S times at equal parts of log(alpha_bar / (1 - alpha_bar)), both ends included.

    In sigma the levels are a geometric sequence. Where the last alpha_bar is 0 they end at the one before.

    Source: Lu et al. 2022, arXiv:2206.00927, app. E.1.
    """
    low, high = _sigma_ends(schedule)
    logs = _linspace(math.log(low), math.log(high), S)
    ends = {0: low, S - 1: high}  # as they are, not through a logarithm and back
    return _times(schedule, [ends.get(i, math.exp(log)) for i, log in enumerate(logs)])


@on_levels
def edm(
    schedule: Schedule,
    S: int,
    *,
    rho: float = 7.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> list[float]:
    """Return the times of Karras et al.'s levels, i = 0 .. S-1:

        sigma_i = (sigma_max^(1/rho) + i / (S-1) (sigma_min^(1/rho) - sigma_max^(1/rho)))^rho

    Args:
        schedule: gives the time of a level.
        S: the number of levels.
        rho: 7 in the paper; larger is denser near x_0.
        sigma_min: 0.002 in the paper, or the schedule's least where that is more.
        sigma_max: 80 in the paper, or the schedule's greatest where that is less.

    Source: Karras et al. 2022, arXiv:2206.00364, eq. 5.

    Raises:
        UsageError: if a level that was asked for lies outside the schedule.
    """
    return _karras(schedule, S, rho, *_karras_ends(schedule, sigma_min, sigma_max))


@on_levels
def karras(schedule: Schedule, S: int, *, rho: float = 7.0) -> list[float]:
    """Return `edm`'s times between the schedule's own least and greatest level.

    Source: Karras et al. 2022, eq. 5, with the ends that k-diffusion's samplers are given.
    """
    return _karras(schedule, S, rho, *_sigma_ends(schedule))


@on_levels
def vp(
    schedule: Schedule,
    S: int,
    *,
    rho: float = 1.0,
    sigma_min: float | None = None,
    sigma_max: float | None = None,
) -> list[float]:
    """Return the times of S levels whose times in a variance-preserving diffusion have equal distances:

        t_i = (first^(1/rho) + i / (S-1) (1 - first^(1/rho)))^rho

    with the linear beta of `ContinuousSchedule.vp_between`, whatever the schedule's own time is.

    Args:
        schedule: gives the time of a level.
        S: the number of levels.
        rho: 1 is DPM-Solver's choice for large images, 2 DEIS's.
        sigma_min: 0.002, or the schedule's least where that is more.
        sigma_max: 80, or the schedule's greatest where that is less.

    Source: Zhang & Chen 2022, arXiv:2204.13902, app. H.3; Lu et al. 2022, arXiv:2206.00927, app. E.1.

    Raises:
        UsageError: if a level that was asked for lies outside the schedule.
    """
    _refuse_unless_positive("vp", rho=rho)
    least, most = _karras_ends(schedule, sigma_min, sigma_max)
    clock = ContinuousSchedule.vp_between(least, most)
    inner = _linspace(clock.first ** (1 / rho), 1.0, S)[1:-1]
    abars = [clock.alpha_bar(root**rho) for root in inner]
    return _times(schedule, [*[least][: S - 1], *(math.sqrt(1 / abar - 1) for abar in abars), most])


@on_levels
def beta(schedule: Schedule, S: int, *, alpha: float = 0.6, beta: float = 0.6) -> list[float]:
    """Return S times at the quantiles of a beta distribution: dense at both ends.

    Source: Lee et al. 2024, arXiv:2407.12173.
    """
    _refuse_unless_positive("beta", alpha=alpha, beta=beta)
    parts = betaincinv(alpha, beta, np.linspace(0, 1, S) if S > 1 else np.ones(1))
    return [float(schedule.first + u * (schedule.last - schedule.first)) for u in parts]


AYS: dict[str, tuple[float, ...]] = {
    "sd15": (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152),
    "sdxl": (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113),
    "svd": (700.0, 54.5, 15.886, 7.977, 4.248, 1.789, 0.981, 0.403, 0.173, 0.034),
}
"""Levels sigma of ten steps, from the noisiest. Source: Sabour et al. 2024, arXiv:2404.14507."""


@on_levels
def ays(schedule: Schedule, S: int, *, model: str = "sd15") -> list[float]:
    """Return the times of levels that were optimised for a model; those beyond the schedule's are its ends.

    For S other than 10 log sigma is interpolated in the number of the step, as the paper does.

    Args:
        schedule: gives the time of a level.
        S: the number of levels.
        model: ``sd15``, ``sdxl`` or ``svd``.

    Source: Sabour et al. 2024, arXiv:2404.14507.

    Raises:
        UsageError: if there is no such list.
    """
    if model not in AYS:
        raise UsageError(f"spacing 'ays' has the levels of {', '.join(AYS)}, not of {model!r}")
    table = np.log(AYS[model][::-1])
    places = np.linspace(0, len(table) - 1, S) if S > 1 else np.array([len(table) - 1.0])
    sigmas = np.exp(np.interp(places, np.arange(len(table)), table))
    return _times(schedule, np.clip(sigmas, *_sigma_ends(schedule)))


RULES: dict[str, Spacing] = {
    "uniform": uniform,
    "quadratic": quadratic,
    "openai": openai,
    "openai-ddim": openai_ddim,
    "linspace": linspace,
    "trailing": trailing,
    "all": every,
    "time": equal_parts,
    "time-quadratic": time_quadratic,
    "logsnr": logsnr,
    "exponential": logsnr,
    "edm": edm,
    "karras": karras,
    "vp": vp,
    "beta": beta,
    "ays": ays,
}
"""The built-in rules; ``exponential`` is the name of ``logsnr`` where levels are told as sigma."""

SPACINGS: Catalog[Spacing] = Catalog("spacing", fill=load_plugins)
"""Every rule: the built-in ones, and those that plugins add through the hook ``bench_spacings``."""


def get_spacing(name: str) -> Spacing:
    """Return the rule called ``name``.

    Raises:
        UnknownNameError: (a ValueError) with the nearest known names.
    """
    return SPACINGS.get(name)


def check_spacing(spacing: str) -> None:
    """Raise UsageError where a rule is given an option twice, one that it has not, or text for a number.

    A rule's own signature says what it takes, as ``edm`` takes ``rho: float = 7.0``; lists of times and files
    have no options.
    """
    name, _, given = spacing.partition(":")
    if is_learned(spacing) or "=" not in given:
        return
    what, rule = f"spacing {spacing!r}", get_spacing(name)
    refuse_repeated(given, what)
    _, _, *known = inspect.signature(rule).parameters.values()
    hints = typing.get_type_hints(rule)
    for key, value in parse_options(given, what).items():
        own = key.replace("-", "_")
        if own == "stop" or any(one.kind is inspect.Parameter.VAR_KEYWORD for one in known):
            continue
        if own not in [one.name for one in known]:
            raise UnknownNameError(f"option of spacing {name}", key, [*(one.name for one in known), "stop"])
        kinds = typing.get_args(hints.get(own)) or (hints.get(own),)
        if str not in kinds and {int, float} & set(kinds) and not is_number(value):
            raise UsageError(f"{what}: {key} must be a number, got {value!r}")


def _refuse_unless_positive(rule: str, **values: float | None) -> None:
    for name, value in values.items():
        number = value is None or (isinstance(value, int | float) and 0 < value < math.inf)
        if not number:
            raise UsageError(f"{name} of spacing {rule} must be a positive number, got {value}")


def chosen_times(schedule: Schedule, steps: int, spacing: str) -> list[float]:
    """Return the times that a named rule chooses, ascending.

    Args:
        schedule: the model's.
        steps: the number of steps.
        spacing: ``NAME``, ``NAME:key=value,...``, or a file of learned time points, ``FILE.json``.

    Raises:
        UsageError: if the rule or a parameter is unknown, or the rule does not work on the schedule.
    """
    if is_learned(spacing):
        return _learned(schedule, steps, spacing)
    name, _, given = spacing.partition(":")
    rule = get_spacing(name)
    options = parse_options(given, f"spacing {spacing!r}")
    parameters = {key.replace("-", "_"): _number(value) for key, value in options.items()}
    try:
        if getattr(rule, "takes_schedule", False):
            return [_snapped(schedule, float(t)) for t in rule(schedule, steps, **parameters)]
        if isinstance(schedule, NoiseSchedule):
            return [int(t) for t in rule(schedule.T, steps, **parameters)]
    except UsageError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"spacing {spacing!r} cannot be used here: {error}") from None
    if rule is uniform and isinstance(schedule, ContinuousSchedule):
        return [schedule.from_unit(k / steps) for k in range(1, steps + 1)]
    raise UsageError(
        f"spacing {name!r} counts the time steps of a discrete schedule and {schedule.name} has none; use"
        " uniform, time, logsnr, edm or karras"
    )


def listed_times(schedule: Schedule, spacing: str) -> list[float] | None:
    """Return the times that a text lists, ascending; None where it is the name of a rule.

    ``999,750,0`` lists times, ``sigma:80,10,1`` levels sigma = sqrt(1/alpha_bar - 1), and ``logsnr:-8,0,8``
    values of log(alpha_bar / (1 - alpha_bar)).

    Raises:
        UsageError: if a value is no number, or a level lies outside the schedule.
    """
    kind, numbers = _listed(spacing)
    if not numbers:
        # Of a level's name with a value that is no number, only the parameters of a rule are meant otherwise.
        if kind and "=" not in spacing and any(c.isdigit() for c in spacing):
            raise UsageError(f"spacing {spacing!r} must list numbers, as in sigma:80,10,1")
        return None
    if kind == "sigma":
        return _times(schedule, numbers)
    if kind == "logsnr":
        return _times(schedule, [math.exp(-value / 2) for value in numbers])
    return sorted(numbers)


def split_stop(spacing: str) -> tuple[str, bool]:
    """Return (the rule without it, whether ``stop=true`` is among the options of a time grid).

    Raises:
        UsageError: if its value is neither true nor false.
    """
    name, _, given = spacing.partition(":")
    if "=" not in given:
        return spacing, False
    options = parse_options(given, f"spacing {spacing!r}")
    stops = options.pop("stop", "false").lower()
    if stops not in ("true", "false"):
        raise UsageError(f"spacing {spacing!r}: stop must be true or false, got {stops}")
    return join_spec(name, options), stops == "true"


def _learned(schedule: Schedule, steps: int, path: str) -> list[float]:
    """Return the times of the levels that a file has for S steps."""
    solver = read_learned(Path(path)).solver(steps, path)
    if solver.kind == "times":
        return sorted(solver.levels)
    as_sigma = solver.kind == "sigmas"
    return _times(schedule, solver.levels if as_sigma else [math.exp(-v / 2) for v in solver.levels])


def steps_of(spacing: str) -> tuple[int, ...]:
    """Return the numbers of steps that a time grid has, where it is no rule: of a list, or of a file."""
    if is_learned(spacing):
        return tuple(read_learned(Path(spacing)).solvers)
    count = count_listed(spacing)
    return (count,) if count else ()


def count_listed(spacing: str) -> int:
    """Return how many times or levels a text lists; 0 where it is the name of a rule."""
    return len(_listed(spacing)[1])


def _listed(spacing: str) -> tuple[str, list[float]]:
    """Return (``sigma``, ``logsnr`` or nothing, the numbers that a text lists); none where it lists none."""
    kind, _, values = spacing.rpartition(":")
    if kind not in ("", "sigma", "logsnr"):
        return "", []
    try:
        return kind, [float(part) for part in values.split(",") if part.strip()]
    except ValueError:
        return kind, []


def _snapped(schedule: Schedule, t: float) -> float:
    """Return a time that rounding has moved off an end of the schedule, or off a time step, put back."""
    close = 1e-9 * max(1.0, schedule.last)
    steps = () if schedule.continuous else (round(t),)
    return next((at for at in (schedule.first, schedule.last, *steps) if abs(t - at) < close), t)


def _times(schedule: Schedule, sigmas: Iterable[float]) -> list[float]:
    """Return the times of levels, ascending."""
    times = []
    for sigma in sigmas:
        try:
            times.append(_snapped(schedule, schedule.time(1 / (1 + float(sigma) ** 2))))
        except ValueError:
            low, high = _sigma_ends(schedule)
            raise UsageError(
                f"sigma {float(sigma):g} lies outside {low:.4g} .. {high:.4g} of {schedule.name}"
            ) from None
    return sorted(times)


def _karras(schedule: Schedule, S: int, rho: float, least: float, most: float) -> list[float]:
    _refuse_unless_positive("edm or karras", rho=rho)
    _times(schedule, [most, least])  # an end that was asked for and is outside is named as it was given
    try:
        roots = _linspace(least ** (1 / rho), most ** (1 / rho), S)
        sigmas = [root**rho for root in roots]
    except OverflowError:
        raise UsageError(f"rho of spacing edm or karras is too small, got {rho:g}; 7 is usual") from None
    if S > 1:  # the ends are levels of the schedule, whatever the roots' rounding
        sigmas[0], sigmas[-1] = least, most
    else:
        sigmas = [most]
    return _times(schedule, sigmas)


def _karras_ends(schedule: Schedule, sigma_min: float | None, sigma_max: float | None) -> tuple[float, float]:
    """Return the levels that were asked for, or 0.002 and 80 as far as the schedule reaches."""
    _refuse_unless_positive("edm or vp", sigma_min=sigma_min, sigma_max=sigma_max)
    low, high = _sigma_ends(schedule)
    least = max(0.002, low) if sigma_min is None else sigma_min
    most = min(80.0, high) if sigma_max is None else sigma_max
    _times(schedule, [most, least])  # an end that was asked for and is outside is named as it was given
    return least, most


def _sigma_ends(schedule: Schedule) -> tuple[float, float]:
    """Return sigma at the schedule's first time and at its last, or the last before alpha_bar is 0."""
    first, last = schedule.alpha_bar(schedule.first), schedule.alpha_bar(schedule.last)
    if last == 0:
        last = schedule.alpha_bar(schedule.last - (1e-3 if schedule.continuous else 1))
    # The nearest number inside: an end's own sigma must not fall outside by a rounding.
    return math.sqrt(1 / first - 1), _within(last, math.sqrt(1 / last - 1))


def _within(alpha_bar: float, sigma: float) -> float:
    while 1 / (1 + sigma**2) < alpha_bar:
        sigma = math.nextafter(sigma, 0)
    return sigma


def _number(value: str) -> Any:
    try:
        return float(value)
    except ValueError:
        return value


def _linspace(start: float, stop: float, n: int) -> list[float]:
    """Return n floats from start to stop, rounded as numpy.linspace rounds them."""
    step = (stop - start) / (n - 1) if n > 1 else 0.0
    return [k * step + start for k in range(n - 1)] + [stop if n > 1 else start]
