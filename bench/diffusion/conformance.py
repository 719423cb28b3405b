"""The conformance kit: whether a sampler keeps the contract, and the order it truly has.

Every clause is measured on Gaussian data, whose exact noise predictor is known, but the last, the order,
which `orders` measures on a mixture where the rule draws no noise. Each clause stands alone: a sampler that
breaks one and keeps the others is told that one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, sqrt

import torch
from torch import Tensor

from bench.device.state import changed_since, put_back, read_state
from bench.diffusion.grid import Grid, make_grid
from bench.diffusion.interfaces import Prediction
from bench.diffusion.noise import TrajectoryNoise
from bench.diffusion.orders import STD, STEPS, GaussianOracle, draws, measured_order, output_variance
from bench.diffusion.sampling import Sampler, StepCountError, sample, trajectory
from bench.diffusion.schedule import NoiseSchedule, zero_terminal_snr
from bench.errors import BenchError, NotApplicable, sentence_of, users_code

BELOW, ABOVE = 0.3, 0.8
"""How far the measured order may lie below the declared one, and above: asymptotic slopes of order 4 show 3.7
at 320 steps, and a rule that gains a whole order should say so."""

EXACT = 1e-9
"""A rule with smaller errors at every S has no order to be measured: the optimal variance has none."""

LIMIT = 0.05
"""The greatest relative error of the standard deviation when every time step is taken."""

_SHAPE = GaussianOracle.shape


@dataclass(frozen=True)
class Clause:
    """One clause of the contract.

    Attributes:
        clause: what was asked.
        kept: the answer; None where the clause does not apply.
        detail: the measurement.
    """

    clause: str
    kept: bool | None
    detail: str = ""


Answer = tuple[bool | None, str]
"""Whether a clause is kept, None where it does not apply, and the measurement."""


def check_sampler(sampler: Sampler) -> list[Clause]:
    """Return what was found for every clause; a clause that raises is not kept."""
    return [check_clause(sampler, text) for text in CLAUSES]


def check_clause(sampler: Sampler, text: str) -> Clause:
    """Return what was found for one of `CLAUSES`. What the sampler changes globally is put back."""
    model = GaussianOracle(NoiseSchedule.linear())
    kept: bool | None
    try:
        with put_back():
            kept, detail = CLAUSES[text](sampler, model, make_grid(model.schedule, 10))
    except NotApplicable as reason:
        kept, detail = None, str(reason)
    except StepCountError as error:  # there is no x_0 to measure the other clauses on
        kept, detail = False if text == YIELDS else None, str(error)
    except users_code() as error:
        kept, detail = False, sentence_of(error)
    return Clause(text, kept, detail)


def counted(findings: list[Clause]) -> tuple[int, int]:
    """Return how many clauses are kept, and how many apply."""
    asked = [finding.kept for finding in findings if finding.kept is not None]
    return sum(asked), len(asked)


def badge(findings: list[Clause]) -> str:
    """Return a line of Markdown that tells how many clauses are kept, for a plugin's README."""
    kept, asked = counted(findings)
    colour = "brightgreen" if kept == asked else "red"
    told = f"{kept} of {asked} clauses kept"
    label = told.replace(" ", "_")
    return f"![sampler-bench: {told}](https://img.shields.io/badge/sampler--bench-{label}-{colour})"


def _start(rows: int = 4) -> Tensor:
    return TrajectoryNoise(0, range(rows), _SHAPE).initial()


def _noise(rows: int = 4) -> TrajectoryNoise:
    return TrajectoryNoise(0, range(rows), _SHAPE)


def _finite(x: Tensor, advice: str) -> None:
    if not bool(torch.isfinite(x).all()):
        raise BenchError(f"the result is not finite; {advice}")


def _yields(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    taken = sum(1 for _ in trajectory(model, sampler, grid, _start(), _noise()))
    return True, f"{taken} times in {len(grid)} steps"


def _calls(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    counted = []
    for steps in (20, 40):
        model.calls = 0
        sample(model, sampler, make_grid(model.schedule, steps, "openai"), _start(), _noise())
        counted.append(model.calls)
    a_step, declared = (counted[1] - counted[0]) / 20, sampler.calls_per_step
    detail = f"{counted[0]} and {counted[1]} calls in 20 and 40 steps, {a_step:g} a step more"
    if declared is None:
        return None, detail
    advice = "" if a_step == declared else f"; say @sampler(calls_per_step={a_step:g})"
    return a_step == declared, f"{detail}, declared {declared}{advice}"


def _repeatable(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    first, second = (sample(model, sampler, grid, _start(), _noise()) for _ in range(2))
    return torch.equal(first, second), ""


def _independent(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    together = sample(model, sampler, grid, _start(4), _noise(4))[:2]
    apart = sample(model, sampler, grid, _start(2), _noise(2))
    gap = float((together - apart).abs().max())
    return gap < 1e-5, f"differs by {gap:.1e} in another batch"


def _harmless(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    x, source = _start(), _noise()
    before, given = x.clone(), list[tuple[Tensor, Tensor]]()

    def noise(index: int, draw: int = 0) -> Tensor:
        z = source(index, draw)
        given.append((z, z.clone()))
        return z

    sample(model, sampler, grid, x, noise)
    detail = "" if torch.equal(x, before) else "x_T was changed in place; work on a copy"
    if any(not torch.equal(z, copy) for z, copy in given):
        detail = detail or "the noise it was given was changed in place; work on a copy"
    return not detail, detail


def _nothing_global(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    before = read_state()
    sample(model, sampler, grid, _start(), _noise())
    changed = changed_since(before)
    advice = "; noise comes from noise(index)" if any("generator" in name for name in changed) else ""
    return not changed, f"it changed {', '.join(changed)}{advice}" if changed else ""


def _last_noise(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    asked = {index for index, _ in draws(sampler, grid)}
    used = f"noise at {len(asked)} of {len(grid)} steps"
    return len(grid) - 1 not in asked, used


@dataclass(frozen=True)
class _Like:
    """Noise in the dtype and on the device of a tensor."""

    noise: TrajectoryNoise
    like: Tensor

    def __call__(self, index: int, draw: int = 0) -> Tensor:
        return self.noise(index, draw).to(self.like)


def _dtype(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        for dtype in (torch.float32, torch.float64):
            x = _start().to(device, dtype)
            noise = _Like(_noise(), x)
            for index, state in enumerate(trajectory(model, sampler, grid, x, noise)):
                if state.dtype != dtype or state.device.type != device:
                    return False, f"x is {state.dtype} on {state.device} after step {index + 1}, was {dtype}"
    return True, f"float32 and float64 on {' and '.join(devices)}"


def _repeated(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    repeats = make_grid(model.schedule, spacing=[0, 300, 300, 600, 900])
    _finite(sample(model, sampler, repeats, _start(), _noise()), "quadratic grids repeat time steps")
    return True, ""


def _few(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    for times in ([999], [499, 999]):
        few = make_grid(model.schedule, spacing=times)
        _finite(sample(model, sampler, few, _start(), _noise()), f"a grid may have {len(times)} steps")
    return True, ""


class _Listening(GaussianOracle):
    """Keeps the times that it is told."""

    told: tuple[float, ...] = ()

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        self.told += (float(t[0]),)
        return super().__call__(x, t)


def _told(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    listening = _Listening(model.schedule)
    real = make_grid(model.schedule, spacing=[0, 250.25, 500.5, 750.75, 999])
    sample(listening, sampler, real, _start(), _noise())
    missing = [t for t in real.timesteps[1:] if all(abs(t - told) > 1e-6 for told in listening.told)]
    if missing:
        listed = ", ".join(f"{t:g}" for t in missing)
        return False, f"the network was never told {listed} of the grid; give it step.times(x)"
    return True, ""


class _Terminal(GaussianOracle):
    """Tells x_0 too, as a network must where alpha_bar is 0: E[x_0 | x_t] = sqrt(abar) s^2 x / total."""

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        eps, raw, _ = super().__call__(x, t)
        abar = self.schedule.alpha_bars(t).to(x).view(-1, 1, 1, 1)
        return Prediction(eps, raw, abar.sqrt() * self.std**2 / (abar * self.std**2 + 1 - abar) * x)


def _ends(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    terminal = _Terminal(zero_terminal_snr(NoiseSchedule.linear()))
    whole = make_grid(terminal.schedule, 10, "trailing")
    end = sample(terminal, sampler, whole, _start(), _noise())
    _finite(end, "x_0 comes from bench.predict_x0 where alpha_bar is 0, or raise NotApplicable")
    return True, ""


class _Failing(GaussianOracle):
    """Fails at its third call."""

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        if self.calls == 2:
            raise ArithmeticError("a failure of the network")
        return super().__call__(x, t)


def _errors(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    try:
        sample(_Failing(model.schedule), sampler, grid, _start(), _noise())
    except ArithmeticError as error:
        notes = getattr(error, "__notes__", ())
        return any("step" in note for note in notes), "; ".join(notes)
    return False, "a failure of the network was kept from the caller"


def _limit(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    std = sqrt(output_variance(sampler, model.schedule, make_grid(model.schedule, 1000, "openai")))
    gap = abs(std - STD) / STD
    return gap < LIMIT, f"the standard deviation is {gap:.2%} off where all 1,000 time steps are taken"


def _source(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    return bool(sampler.source), sampler.source or 'give @sampler(source="paper, equation")'


def _order(sampler: Sampler, model: GaussianOracle, grid: Grid) -> Answer:
    order, errors = measured_order(sampler)
    shown = f"error at S={STEPS}: {', '.join(f'{error:.2e}' for error in errors)}"
    if max(errors) < EXACT:
        return None, f"exact on Gaussian data; {shown}"
    detail = f"measured {order:.2f}, declared {sampler.order}; {shown}"
    if sampler.order is None:
        return None, detail
    return isfinite(order) and sampler.order - BELOW <= order <= sampler.order + ABOVE, detail


YIELDS = "yields x after every step"

CLAUSES: Mapping[str, Callable[[Sampler, GaussianOracle, Grid], Answer]] = {
    YIELDS: _yields,
    "makes the declared calls a step": _calls,
    "gives the same for the same noise": _repeatable,
    "treats each sample alone": _independent,
    "leaves its input alone": _harmless,
    "changes nothing global": _nothing_global,
    "adds no noise at the last step": _last_noise,
    "keeps dtype and device": _dtype,
    "survives a repeated time step": _repeated,
    "survives one step and two": _few,
    "tells the network the grid's times": _told,
    "starts where no signal is left": _ends,
    "lets a failure of the network through": _errors,
    "converges as S goes to T": _limit,
    "states a source": _source,
    "has the declared order": _order,
}
"""The contract of a sampler, each clause with what measures it."""
