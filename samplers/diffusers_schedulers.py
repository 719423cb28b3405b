"""Any scheduler of diffusers: ``diffusers:UniPCMultistepScheduler?solver_order=3``."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from itertools import pairwise
from math import floor, log, sqrt
from types import ModuleType
from typing import Annotated, Any, NamedTuple

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from bench import (
    Checked,
    EpsilonModel,
    Grid,
    Noise,
    NoiseSchedule,
    NotApplicable,
    Prediction,
    Sampler,
    hookimpl,
    predict_x0,
    sampler,
    times_like,
)
from bench.errors import UnknownNameError, UsageError
from samplers.ode import Level
from samplers.others import refuse_unknown, split_call

_TIMES = frozenset(
    {
        "timestep_spacing",
        "steps_offset",
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
        "use_lu_lambdas",
        "rescale_betas_zero_snr",
        "original_inference_steps",
    }
)
"""Arguments that choose times: with one of them the scheduler walks its own."""

_BY_TIME = frozenset({"LCMScheduler", "SASolverScheduler", "TCDScheduler"})
"""Rules in which the number of a time step itself stands: they walk their own times always."""

_NOT_TAKEN = frozenset({"num_train_timesteps", "trained_betas", "beta_start", "beta_end", "beta_schedule"})
_STEP = frozenset(
    {"self", "model_output", "timestep", "sample", "generator", "return_dict", "variance_noise"}
)


class _Scheduler(NamedTuple):
    """What a text names.

    Attributes:
        kind: the class.
        config: arguments of its making.
        step: arguments of every step.
    """

    kind: Any
    config: dict[str, Any]
    step: dict[str, Any]

    @property
    def own_times(self) -> bool:
        """Whether it walks its own times."""
        return self.kind.__name__ in _BY_TIME or bool(_TIMES & set(self.config))


@sampler(
    name="diffusers",
    source="von Platen et al. 2022, Diffusers, https://github.com/huggingface/diffusers",
    calls_per_step=None,
    most_steps=100,
)
def diffusers(
    model: EpsilonModel,
    x: Tensor,
    grid: Grid,
    noise: Noise,
    *,
    scheduler: Annotated[str, Checked(_find)] = "DDIMScheduler",
) -> Iterator[Tensor]:
    """A scheduler of diffusers, on the grid's levels or on its own.

    On the grid's: it is made for a diffusion of S steps whose alpha_bar are those of the grid, and visits all
    of them, so that rule and grid are told apart. Arguments that choose times, ``timestep_spacing=linspace``
    or ``use_karras_sigmas=true``, leave these to the scheduler: it is then made for the model's T steps, and
    chooses S of them as it does for everybody, faults included.

    A scheduler that cannot step to alpha_bar = 1 arrives at the grid's last level in one step less; x_0 is
    what the network says there. Noise is ours: draw 0, 1, ... of a step. diffusers computes in float32.

    Args:
        model: the noise predictor; its learned variance is given on where ``variance_type`` asks for it.
        x: x_T, shape (B, C, H, W).
        grid: the time steps.
        noise: asked for as often as the scheduler draws.
        scheduler: the class, and arguments: ``CLASS?key=value&key=value``. Those of its method ``step``, as
            ``eta=1``, are given to every step; the others to its making.

    Yields:
        x after every step; the last is what the scheduler returns.

    Raises:
        NotApplicable: if the scheduler's own times are asked for on a schedule without time steps, or the
            grid begins at alpha_bar = 0.
    """
    found = _find(scheduler)
    if grid.end is not None:
        raise NotApplicable("diffusers steps to x_0: choose a grid without stop=true")
    if not found.own_times and grid[0].alpha_bar == 0:
        raise NotApplicable("diffusers derives x_0 from eps: choose a grid that begins at alpha_bar > 0")
    made = _own(found, model, grid) if found.own_times else _on_grid(found, grid)
    lifted = made.init_noise_sigma != 1  # its state is x / sqrt(abar)
    start = made.init_noise_sigma if found.own_times else sqrt(1 + Level.start(grid[0]).sigma ** 2)
    state, mode = x * float(start) if lifted else x, _Noise(noise)
    if hasattr(made, "noise_sampler"):
        made.noise_sampler = lambda *_: mode.drawn()
    for place, t in enumerate(made.timesteps, start=1):
        level = Level.at(model, float(t)) if found.own_times else _level(model, grid, float(t))
        at = made.scale_model_input(state, t)
        output = _output(model(at, times_like(at, level.t)), found)
        with mode:
            state = made.step(output, t, state, **found.step, return_dict=True).prev_sample
        if place < len(made.timesteps) and not getattr(made, "state_in_first_order", True):
            continue  # between the two calls of a step
        mode.next_step()
        x = state / sqrt(1 + float(made.sigmas[made.step_index]) ** 2) if lifted else state
        yield x
    if not found.own_times and _stops_early(made):
        last = grid[len(grid) - 1]
        yield predict_x0(x, model(x, last.times(x)), last.alpha_bar)[0]


class _Noise(TorchFunctionMode):
    """While it is on, what a scheduler draws with torch.randn is the benchmark's noise."""

    def __init__(self, noise: Noise) -> None:
        super().__init__()
        self._noise, self._index, self._draws = noise, 0, 0

    def next_step(self) -> None:
        self._index, self._draws = self._index + 1, 0

    def drawn(self) -> Tensor:
        self._draws += 1
        return self._noise(self._index, self._draws - 1)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.randn, torch.randn_like):
            return self.drawn()
        return func(*args, **(kwargs or {}))


def _on_grid(found: _Scheduler, grid: Grid) -> Any:
    """Return a scheduler of S steps, all of them to be taken, whose alpha_bar are the grid's."""
    levels = [step.alpha_bar for step in reversed(list(grid))]
    config = {**found.config, **_of_trailing(found.kind)}
    made = _made(found, levels, config)
    # Its own product of betas is a float32 one, and wrong by 1e-4 where alpha_bar is near 1.
    made.alphas_cumprod = torch.tensor(levels, dtype=torch.float64)
    made.set_timesteps(len(levels))
    if _stops_early(made):
        made.timesteps, made.sigmas = made.timesteps[:-1], made.sigmas[:-1]
        made.num_inference_steps = len(made.timesteps)
    return made


def _stops_early(made: Any) -> bool:
    """Return whether the last level of a scheduler is that of its time 0, not alpha_bar = 1."""
    return hasattr(made, "sigmas") and float(made.sigmas[-1]) > 0


def _own(found: _Scheduler, model: EpsilonModel, grid: Grid) -> Any:
    """Return a scheduler of the model's T steps that chooses S of them itself."""
    schedule = model.schedule
    if not isinstance(schedule, NoiseSchedule):
        raise NotApplicable(f"the own times of {found.kind.__name__} need a schedule of time steps")
    made = _made(found, schedule.alphas_cumprod.tolist(), found.config)
    made.set_timesteps(grid.requested)
    return made


def _made(found: _Scheduler, alpha_bars: Sequence[float], config: dict[str, Any]) -> Any:
    """Return the scheduler of a diffusion.

    Raises:
        UsageError: if the class refuses its arguments.
    """
    betas = [1 - b / a for a, b in pairwise([1.0, *alpha_bars])]
    try:
        return found.kind(num_train_timesteps=len(betas), trained_betas=betas, **config)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise UsageError(f"{found.kind.__name__} refuses its arguments: {error}") from error


def _of_trailing(kind: Any) -> dict[str, Any]:
    """Return the arguments by which a scheduler visits every one of its time steps."""
    return {"timestep_spacing": "trailing"} if "timestep_spacing" in _config_of(kind) else {}


def _level(model: EpsilonModel, grid: Grid, place: float) -> Level:
    """Return the level of a place among the S steps, 0 the least noisy; between two even in log sigma."""
    if place.is_integer():
        return Level.start(grid[len(grid) - 1 - int(place)])
    below = floor(place)
    low, high = (Level.start(grid[len(grid) - 1 - at]).sigma for at in (below, below + 1))
    return Level.of(model, -log(low) - (place - below) * (log(high) - log(low)))


def _output(told: Prediction, found: _Scheduler) -> Tensor:
    """Return eps, with the raw variance beside it where the scheduler was told that it is learned."""
    if not str(found.config.get("variance_type", "")).startswith("learned"):
        return told.eps
    if told.raw_variance is None:
        raise NotApplicable("the model predicts no variance")
    return torch.cat([told.eps, told.raw_variance], dim=1)


def _config_of(kind: Any) -> set[str]:
    return set(inspect.signature(kind.__init__).parameters)


def _usable(schedulers: ModuleType, name: str) -> bool:
    """Return whether a name is that of a scheduler that can be made for any betas."""
    try:
        kind = getattr(schedulers, name, None) if name.endswith("Scheduler") else None
    except (ImportError, AttributeError, RuntimeError):  # some need what is not installed
        return False
    return kind is not None and "trained_betas" in _config_of(kind)


def _find(text: str) -> _Scheduler:
    """Return what a text names.

    Raises:
        UsageError: if diffusers is not installed, or has no such scheduler or argument.
    """
    try:
        from diffusers import schedulers
    except ImportError as error:
        raise UsageError(
            f"diffusers cannot be imported ({error}): pip install 'sampler-bench[diffusers]'"
        ) from error
    name, arguments = split_call(text)
    name = name if name.endswith("Scheduler") else f"{name}Scheduler"
    if not _usable(schedulers, name):
        known = [one for one in dir(schedulers) if _usable(schedulers, one)]
        raise UnknownNameError("scheduler of diffusers for a noise predictor", name, known)
    kind = getattr(schedulers, name)
    refuse_unknown(name, arguments, kind.__init__, kind.step)
    if own := (_NOT_TAKEN | _STEP) & set(arguments):
        raise UsageError(f"{text}: the benchmark gives {', '.join(sorted(own))} itself")
    in_making = _config_of(kind)
    config = {key: value for key, value in arguments.items() if key in in_making}
    return _Scheduler(kind, config, {k: v for k, v in arguments.items() if k not in in_making})


@hookimpl
def bench_named_samplers() -> Sequence[Sampler]:
    """Register the rule."""
    return [diffusers]
