"""The conformance kit: whether a sampler keeps the contract, and the order it truly has.

Every clause is measured on Gaussian data, whose exact noise predictor is known, but the last two, the order,
which `orders` measures on a mixture where the rule draws no noise. Each clause stands alone: a sampler that
breaks one and keeps the others is told that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import isfinite, sqrt

import torch
from torch import Tensor

from bench.device.state import PROCESS, changed_since, put_back, read_state
from bench.diffusion.grid import Grid, make_grid
from bench.diffusion.interfaces import Prediction
from bench.diffusion.noise import TrajectoryNoise
from bench.diffusion.orders import (
    STEPS,
    Law,
    PixelOracle,
    draws,
    laws,
    measured_order,
    uneven_in_log_snr,
)
from bench.diffusion.sampling import Sampler, StepCountError, sample, trajectory
from bench.diffusion.schedule import NoiseSchedule, Schedule, zero_terminal_snr
from bench.errors import BenchError, NotApplicable, sentence_of, users_code

BELOW, ABOVE = 0.3, 0.8
"""How far the measured order may lie below the declared one, and above: asymptotic slopes of order 4 show 3.7
at 320 steps, and a rule that gains a whole order should say so."""

EXACT = 1e-9
"""A rule with smaller errors at every S has no order to be measured: the optimal variance has none."""

LIMIT = 0.05
"""The greatest error of mean and standard deviation, as a part of the latter, when every step is taken."""

COARSE = 0.25
"""The same after each of 20 steps: DDPM is 0.18 off."""

END = 0.02
"""How far x_0 may be beyond what an end may be of the x_t before it, as a part of its standard deviation."""

SILENT = 1e-5
"""What noise may move at most where it is multiplied by 0: published codes bound variances from below."""

LEAST = 0.6
"""The least part of E[x_0 | x_t]: a rule that adds noise before its last call, or goes back to a noisier
level first, ends at less than the best prediction from x_t."""

EQUAL_STEPS = frozenset({"ipndm", "ipndm-v", "pndm"})
"""Published with the weights of equal steps: what uneven ones cost is told, and is no fault of theirs."""

_SHAPE = PixelOracle.shape


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
    model = PixelOracle(NoiseSchedule.linear())
    kept: bool | None
    try:
        with put_back(PROCESS):
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


def nothing_measured(findings: list[Clause]) -> str:
    """Return why no clause was measured: the sampler cannot run on the kit's model; empty where one was."""
    first = findings[0]
    return first.detail if first.clause == YIELDS and first.kept is None else ""


def badge(findings: list[Clause]) -> str:
    """Return a line of Markdown that tells how many clauses are kept, for a plugin's README."""
    kept, asked = counted(findings)
    colour = "brightgreen" if kept == asked else "red"
    told = f"{kept} of {asked} clauses kept"
    if nothing_measured(findings):
        colour, told = "lightgrey", "nothing measured"
    label = told.replace(" ", "_")
    return f"![sampler-bench: {told}](https://img.shields.io/badge/sampler--bench-{label}-{colour})"


def _start(rows: int = 4) -> Tensor:
    return TrajectoryNoise(0, range(rows), _SHAPE).initial()


def _noise(rows: int = 4) -> TrajectoryNoise:
    return TrajectoryNoise(0, range(rows), _SHAPE)


def _finite(x: Tensor, advice: str) -> None:
    if not bool(torch.isfinite(x).all()):
        raise BenchError(f"the result is not finite; {advice}")


def _yields(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    """Count on every kind of grid: what else goes wrong on another than the first, other clauses tell."""
    schedule = model.schedule
    others = [make_grid(schedule, steps, "openai") for steps in (1, 2, 1000)]
    others += [_repeats(model), make_grid(schedule, 10, STOPPING)]
    start = _start(1)
    for other in others:
        with _only_miscounted():  # any noise will do, and drawing it for 1,000 steps takes long
            sample(model, sampler, other, start.clone(), lambda index, draw=0: start.clone())
    taken = sum(1 for _ in trajectory(model, sampler, grid, _start(), _noise()))
    return True, f"{taken} times in {len(grid)} steps, and on grids of 1, 2 and 1,000 steps"


@contextmanager
def _only_miscounted() -> Iterator[None]:
    try:
        yield
    except StepCountError:
        raise
    except users_code():
        return


def _calls(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
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


def _repeatable(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    first, second = (sample(model, sampler, grid, _start(), _noise()) for _ in range(2))
    return torch.equal(first, second), ""


@dataclass(frozen=True)
class _Grown:
    """Noise for some rows of a block, in which that of some is so great that clamps act on them."""

    rows: Sequence[int]

    def _of(self, drawn: Tensor) -> Tensor:
        factors = torch.tensor([5.0 if row % 4 == 0 else 1.0 for row in self.rows]).view(-1, 1, 1, 1)
        return factors.to(drawn) * drawn

    def initial(self) -> Tensor:
        return self._of(TrajectoryNoise(0, self.rows, _SHAPE).initial())

    def __call__(self, index: int, draw: int = 0) -> Tensor:
        return self._of(TrajectoryNoise(0, self.rows, _SHAPE)(index, draw))


def _independent(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    """Compare a block with a part from its middle, in other pairs, and with itself in another order."""

    def end(*rows: int) -> Tensor:
        noise = _Grown(rows)
        return sample(model, sampler, grid, noise.initial(), noise)

    together = end(0, 1, 2, 3, 4, 5)
    parts = {rows: end(*rows) for rows in [(1, 2, 3), (4, 5, 0, 1, 2, 3)]}
    gap = max(float((part - together[list(rows)]).abs().max()) for rows, part in parts.items())
    return gap < 1e-5, f"differs by {gap:.1e} in another batch"


def _harmless(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    lent = _Lent()
    x = lent.of("x_T", _start())
    answering, source = _Answering(model.schedule, lent), _noise()
    sample(answering, sampler, grid, x, lambda index, draw=0: lent.of("the noise", source(index, draw)))
    changed = lent.changed()
    return not changed, f"{changed} was changed in place; work on a copy" if changed else ""


class _Lent:
    """Tensors that a sampler is given, each with a copy: whoever gave them may have a use for them yet."""

    def __init__(self) -> None:
        self._given: list[tuple[str, Tensor, Tensor]] = []

    def of(self, name: str, tensor: Tensor) -> Tensor:
        """Return a tensor that is looked at again."""
        self._given.append((name, tensor, tensor.clone()))
        return tensor

    def changed(self) -> str:
        """Return the name of the first that is not what it was; empty where none is."""
        return next((name for name, now, copy in self._given if not torch.equal(now, copy)), "")


class _Answering(PixelOracle):
    """Lends its answers."""

    def __init__(self, schedule: Schedule, lent: _Lent) -> None:
        super().__init__(schedule)
        self.lent = lent

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        eps, raw, _ = super().__call__(x, t)
        assert raw is not None
        return Prediction(
            self.lent.of("the network's eps", eps), self.lent.of("the network's variance", raw.clone())
        )


def _nothing_global(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    before = read_state(PROCESS)
    sample(model, sampler, grid, _start(), _noise())
    changed = changed_since(before, PROCESS)
    advice = "; noise comes from noise(index)" if any("generator" in name for name in changed) else ""
    return not changed, f"it changed {', '.join(changed)}{advice}" if changed else ""


def _last_noise(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    """Give other noise at the last step: what is asked for and multiplied by 0 is not added."""
    last = len(grid) - 1

    def end(more: float) -> Tensor:
        def noise(index: int, draw: int = 0) -> Tensor:
            return source(index, draw).double() + (more if index == last else 0)

        source = _noise()
        return sample(model, sampler, grid, source.initial().double(), noise)

    moved = float((end(1) - end(0)).abs().max()) > SILENT
    used = {index for index, _ in draws(sampler, grid) if index != last or moved}
    return not moved, f"noise at {len(used)} of {len(grid)} steps"


@dataclass(frozen=True)
class _Like:
    """Noise in the dtype and on the device of a tensor."""

    noise: TrajectoryNoise
    like: Tensor

    def __call__(self, index: int, draw: int = 0) -> Tensor:
        return self.noise(index, draw).to(self.like)


def _dtype(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for device in devices:
        for dtype in (torch.float32, torch.float64):
            x = _start().to(device, dtype)
            noise = _Like(_noise(), x)
            for index, state in enumerate(trajectory(model, sampler, grid, x, noise)):
                if state.dtype != dtype or state.device.type != device:
                    return False, f"x is {state.dtype} on {state.device} after step {index + 1}, was {dtype}"
    return True, f"float32 and float64 on {' and '.join(devices)}"


def _repeats(model: PixelOracle) -> Grid:
    return make_grid(model.schedule, spacing=[0, 300, 300, 600, 900])


def _repeated(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    _finite(sample(model, sampler, _repeats(model), _start(), _noise()), "quadratic grids repeat time steps")
    return True, ""


def _few(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    for times in ([999], [499, 999]):
        few = make_grid(model.schedule, spacing=times)
        _finite(sample(model, sampler, few, _start(), _noise()), f"a grid may have {len(times)} steps")
    return True, ""


class _Listening(PixelOracle):
    """Keeps the times that it is told."""

    told: tuple[float, ...] = ()

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        self.told += (float(t[0]),)
        return super().__call__(x, t)


def _told(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    listening = _Listening(model.schedule)
    real = make_grid(model.schedule, spacing=[0, 250.25, 500.5, 750.75, 999])
    sample(listening, sampler, real, _start(), _noise())
    missing = [t for t in real.timesteps[1:] if all(abs(t - told) > 1e-6 for told in listening.told)]
    if missing:
        listed = ", ".join(f"{t:g}" for t in missing)
        return False, f"the network was never told {listed} of the grid; give it step.times(x)"
    return True, ""


class _Terminal(PixelOracle):
    """Tells x_0 too, as a network must where alpha_bar is 0."""

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        eps, raw, _ = super().__call__(x, t)
        abar = self.schedule.alpha_bars(t).to(x).view(-1, 1, 1, 1)
        means, variance = self.means.to(x), self.stds.to(x) ** 2
        gain = abar.sqrt() * variance / (abar * variance + 1 - abar)
        return Prediction(eps, raw, means + gain * (x - abar.sqrt() * means))


def _ends(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    terminal = _Terminal(zero_terminal_snr(NoiseSchedule.linear()))
    whole = make_grid(terminal.schedule, 10, "trailing")
    end = sample(terminal, sampler, whole, _start(), _noise())
    _finite(end, "x_0 comes from bench.predict_x0 where alpha_bar is 0, or raise NotApplicable")
    return True, ""


class _Failing(PixelOracle):
    """Fails at its third call."""

    def __call__(self, x: Tensor, t: Tensor) -> Prediction:
        if self.calls == 2:
            raise ArithmeticError("a failure of the network")
        return super().__call__(x, t)


def _errors(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    try:
        sample(_Failing(model.schedule), sampler, grid, _start(), _noise())
    except ArithmeticError as error:
        notes = getattr(error, "__notes__", ())
        told = any("step" in note for note in notes)
        return told, "; ".join(notes) if told else "it failed before its first step: yield x, return no list"
    return False, "a failure of the network was kept from the caller"


def _laws(sampler: Sampler, model: PixelOracle, grid: Grid) -> list[Law]:
    try:
        return laws(sampler, model, grid)
    except NotApplicable:
        _finite(sample(model, sampler, grid, _start(), _noise()), f"on a grid of {len(grid)} steps")
        raise


def _gap(law: Law, model: PixelOracle, alpha_bar: float) -> float:
    """Return how far a law is from that of x_t at a level, as a part of the standard deviation there."""
    true = _std(model, alpha_bar)
    means = (law.mean - sqrt(alpha_bar) * model.means) / true
    return float(torch.stack([means, law.std / true - 1]).abs().max())


def _std(model: PixelOracle, alpha_bar: float) -> Tensor:
    return (alpha_bar * model.stds**2 + 1 - alpha_bar).sqrt()


def _levels(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    coarse = make_grid(model.schedule, 20, "trailing")
    found = zip(coarse, _laws(sampler, model, coarse), strict=True)
    gap = max(_gap(law, model, step.alpha_bar_next) for step, law in found if not step.last)
    return gap < COARSE, f"x is at most {gap:.0%} of its standard deviation off on a grid of 20 steps"


def _denoised(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    """Hold x_0 to the x_t before it: no rule takes less noise out than the flow, s / std(x_t) x_t, does."""
    for spacing in ("trailing", "uniform"):  # x_t is noisy before the last step, and all but clean
        coarse = make_grid(model.schedule, 20, spacing)
        *_, before, end = _laws(sampler, model, coarse)
        alpha_bar = coarse[len(coarse) - 1].alpha_bar
        spread, part = _std(model, alpha_bar), end.std / before.std
        flow, mean = model.stds / spread, sqrt(alpha_bar) * (model.stds / spread) ** 2
        if bool((part > (1 + END) * flow).any()) or bool((part < LEAST * mean).any()):
            worst = int((part / flow).log().abs().argmax())
            told = f"x_0 is {part.flatten()[worst]:.3f} times as wide as x_t at alpha_bar = {alpha_bar:.4f}"
            either = f"from {mean.flatten()[worst]:.3f} to {flow.flatten()[worst]:.3f}"
            return False, f"{told}, the best prediction and the exact flow are {either}"
    return True, ""


def _stops(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    stopping = make_grid(model.schedule, 40, STOPPING)
    gap = _gap(_laws(sampler, model, stopping)[-1], model, stopping[len(stopping) - 1].alpha_bar_next)
    return gap < COARSE, f"x is {gap:.0%} of its standard deviation off at the end of {STOPPING}"


def _limit(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    gap = _gap(_laws(sampler, model, make_grid(model.schedule, 1000, "openai"))[-1], model, 1.0)
    return gap < LIMIT, f"x_0 is {gap:.2%} of its standard deviation off where all 1,000 time steps are taken"


def _source(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    return bool(sampler.source), sampler.source or 'give @sampler(source="paper, equation")'


def _uneven(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    if sampler.order is None:
        raise NotApplicable("no order is declared")
    order, errors = measured_order(sampler, uneven_in_log_snr, STEPS[1:])
    shown = f"{order:.2f} on long and short steps in turn"
    if max(errors) < EXACT:
        raise NotApplicable("exact on Gaussian data")
    if isfinite(order) and order >= sampler.order - BELOW:
        return True, shown
    if sampler.name in EQUAL_STEPS:
        raise NotApplicable(f"{shown}: published with the weights of equal steps")
    return (
        False,
        f"{shown}, declared {sampler.order}; a rule of several steps needs the ratio of their lengths",
    )


def _order(sampler: Sampler, model: PixelOracle, grid: Grid) -> Answer:
    order, errors = measured_order(sampler)
    shown = f"error at S={STEPS}: {', '.join(f'{error:.2e}' for error in errors)}"
    if max(errors) < EXACT:
        return None, f"exact on Gaussian data; {shown}"
    detail = f"measured {order:.2f}, declared {sampler.order}; {shown}"
    if sampler.order is None:
        return None, detail
    return isfinite(order) and sampler.order - BELOW <= order <= sampler.order + ABOVE, detail


STOPPING = "edm:rho=7,stop=true"
"""A grid that ends above x_0."""

YIELDS = "yields x after every step"

CLAUSES: Mapping[str, Callable[[Sampler, PixelOracle, Grid], Answer]] = {
    YIELDS: _yields,
    "makes the declared calls a step": _calls,
    "gives the same for the same noise": _repeatable,
    "treats each sample alone": _independent,
    "leaves its input alone": _harmless,
    "changes nothing global": _nothing_global,
    "adds no noise at the last step": _last_noise,
    "yields x_t of the grid's levels": _levels,
    "takes the noise out at the last step": _denoised,
    "stops where the grid stops": _stops,
    "keeps dtype and device": _dtype,
    "survives a repeated time step": _repeated,
    "survives one step and two": _few,
    "tells the network the grid's times": _told,
    "starts where no signal is left": _ends,
    "lets a failure of the network through": _errors,
    "converges as S goes to T": _limit,
    "states a source": _source,
    "keeps its order on uneven steps": _uneven,
    "has the declared order": _order,
}
"""The contract of a sampler, each clause with what measures it."""
