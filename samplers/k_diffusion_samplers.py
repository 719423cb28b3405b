"""Any sampler of k-diffusion: ``k-diffusion:dpmpp_2m_sde?eta=0.5``."""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from math import sqrt
from types import FunctionType, ModuleType
from typing import Annotated, Any

import torch
from torch import Tensor

from bench import (
    Checked,
    EpsilonModel,
    Grid,
    Noise,
    NotApplicable,
    Sampler,
    hookimpl,
    predict_x0,
    sampler,
    times_like,
)
from bench.errors import UnknownNameError, UsageError
from samplers.ode import Level
from samplers.others import level_of_sigma, refuse_unknown, split_call

_NOT_TAKEN = {"model", "x", "sigmas", "extra_args", "callback", "disable", "noise_sampler"}
_NO_SAMPLER = {"sample_dpm_adaptive"}
"""It chooses its own number of steps, another one for every batch: no cell of a table."""


@sampler(
    name="k-diffusion",
    source="Crowson 2022, k-diffusion, https://github.com/crowsonkb/k-diffusion",
    calls_per_step=None,
    most_steps=100,
)
def k_diffusion(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    function: Annotated[str, Checked(_find)] = "euler",
) -> Iterator[Tensor]:
    """A function ``sample_NAME`` of k-diffusion on the grid's levels, sigma = sqrt(1 / abar - 1), and then 0.

    Its state is y = x / sqrt(abar), its denoiser D(y, sigma) the network's x_0. Noise is ours: draw 0, 1, ...
    of a step. With churn the x of a step but the last has the next step's noise in it.

    Args:
        model: the noise predictor.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for as often as the function draws.
        function: its name without ``sample_``, and arguments: ``NAME?key=value&key=value``.

    Yields:
        x after every step; the last is what the function returns.

    Raises:
        NotApplicable: if the grid begins at alpha_bar = 0, where sigma is infinite.
    """
    if grid[0].alpha_bar == 0:
        raise NotApplicable("k-diffusion needs a finite sigma: choose a grid that begins at alpha_bar > 0")
    run, arguments = _find(function)
    levels = [Level.start(step) for step in grid]
    sigmas = [*(level.sigma for level in levels), Level.end(grid[len(grid) - 1]).sigma]
    told: list[Tensor] = []
    draws = 0

    def denoiser(y: Tensor, sigma: Tensor, **_: Any) -> Tensor:
        level = level_of_sigma(model, levels, float(sigma.flatten()[0]))
        at = y * sqrt(level.alpha_bar)
        return predict_x0(at, model(at, times_like(at, level.t)), level.alpha_bar)[0]

    def drawn(*_: Any) -> Tensor:
        nonlocal draws
        draws += 1
        return noise(len(told) - 1, draws - 1)

    def churned(*_: Any) -> Tensor:  # drawn in every step, and used where there is churn alone
        return noise(len(told)) if arguments.get("s_churn") else torch.zeros_like(x)

    def asked(state: dict[str, Any]) -> None:  # once in a step, after its first call, before noise is drawn
        nonlocal draws
        place = min(len(told), len(grid) - 1)
        told.append(state["x"] / sqrt(1 + sigmas[place] ** 2))
        draws = 0

    error: Exception | None = None
    try:
        last = _with_noise(run, churned)(
            denoiser,
            x * sqrt(1 + sigmas[0] ** 2),
            **_levels(run, x.new_tensor(sigmas)),
            **({"noise_sampler": drawn} if "noise_sampler" in _taken(run) else {}),
            **arguments,
            callback=asked,
            disable=True,
        )
    except Exception as failure:
        error = failure
    yield from told[1:]
    if error is not None:
        raise error  # after what was reached, so that the failure names its step
    yield last / sqrt(1 + sigmas[-1] ** 2)


def _find(text: str) -> tuple[Callable[..., Tensor], dict[str, Any]]:
    """Return a function of k-diffusion and the arguments that a text gives it.

    Raises:
        UsageError: if k-diffusion is not installed, or has no such sampler or argument.
    """
    name, arguments = split_call(text)
    module = _module()
    known = {
        key.removeprefix("sample_"): value
        for key, value in vars(module).items()
        if key.startswith("sample_") and key not in _NO_SAMPLER
    }
    name = name.replace("-", "_").removeprefix("sample_")
    if name not in known:
        raise UnknownNameError("sampler of k-diffusion", name, known)
    refuse_unknown(f"k-diffusion's {name}", arguments, known[name])
    if own := _NOT_TAKEN & set(arguments):
        raise UsageError(f"{text}: the benchmark gives {', '.join(sorted(own))} itself")
    return known[name], arguments


@cache
def _module() -> ModuleType:
    """Return ``k_diffusion.sampling`` without the rest of the package, which needs much else."""
    if "k_diffusion" in sys.modules:
        from k_diffusion import sampling

        return sampling  # type: ignore[no-any-return]
    found = importlib.util.find_spec("k_diffusion")
    if found is None or not found.submodule_search_locations:
        raise UsageError("k-diffusion is not installed: pip install 'sampler-bench[k-diffusion]'")
    bare = ModuleType("k_diffusion")
    bare.__path__ = list(found.submodule_search_locations)
    sys.modules["k_diffusion"] = bare
    try:
        from k_diffusion import sampling
    except ImportError as error:
        raise UsageError(f"k-diffusion cannot be imported ({error}): install it anew") from error
    finally:  # who imports the package itself gets all of it
        for name in [name for name in sys.modules if name.partition(".")[0] == "k_diffusion"]:
            del sys.modules[name]
    return sampling  # type: ignore[no-any-return]


def _taken(function: Callable[..., Any]) -> set[str]:
    return set(inspect.signature(function).parameters)


def _levels(function: Callable[..., Any], sigmas: Tensor) -> dict[str, Any]:
    """Return the levels as a function takes them: all, or the two ends above 0 and their number."""
    if "sigmas" in _taken(function):
        return {"sigmas": sigmas}
    return {"sigma_min": float(sigmas[-2]), "sigma_max": float(sigmas[0]), "n": len(sigmas) - 1}


class _Torch:
    """torch, with another source of noise."""

    def __init__(self, drawn: Callable[..., Tensor]) -> None:
        self.randn_like = drawn

    def __getattr__(self, name: str) -> Any:
        return getattr(torch, name)


def _with_noise(function: Callable[..., Tensor], drawn: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """Return a copy of a function whose ``torch.randn_like`` is another; nothing is changed for others."""
    inner = inspect.unwrap(function)
    assert isinstance(inner, FunctionType)
    seen = {**inner.__globals__, "torch": _Torch(drawn)}
    copy = FunctionType(inner.__code__, seen, inner.__name__, inner.__defaults__, inner.__closure__)
    copy.__kwdefaults__ = inner.__kwdefaults__
    return torch.no_grad()(copy)


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register the rule."""
    return [k_diffusion]
