"""Is a model wired right? Its noise error on real images, as it is and under every usual mistake.

A model that is told x_t = sqrt(abar) x_0 + sqrt(1 - abar) z of real images must find z. Where it finds it
better after its time is shifted, its sign turned, its images scaled or its answer read as something else,
that is how it was trained, and the way out is named.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from bench.data.images import from_uint8
from bench.device.clock import Clock
from bench.diffusion.answers import checked
from bench.diffusion.conditions import bound, is_conditional
from bench.diffusion.interfaces import EpsilonModel, takes_real_times
from bench.diffusion.noise import TrajectoryNoise
from bench.diffusion.posterior import diffuse
from bench.diffusion.prediction import Predicts, from_network
from bench.diffusion.schedule import NoiseSchedule
from bench.diffusion.stages import Decodes, latents_of
from bench.errors import UsageError

LEVELS = 12
"""Times at which errors are measured, denser near x_0, where a shift of time shows."""

NEAR = (1, 2, 3)
"""Time steps at which a shift by one is a large part of the noise."""

CLEARLY = 0.8
"""A reading is told where its error is below this part of the model's own."""

SHIFTED = 0.995
"""A shift of time is told where the error near x_0 is below this part of the model's own."""

Reading = Callable[["Probe", int], Tensor]
"""(probe, place of a level) -> predicted noise, shaped like the images."""


@dataclass(frozen=True)
class Probe:
    """A model with real images and the noise that was added to them.

    Attributes:
        model: bound to as many samples as there are images.
        x0: images in [-1, 1], (B, C, H, W).
        noise: shaped like x0.
        times: LEVELS times, ascending.
    """

    model: EpsilonModel
    x0: Tensor
    noise: Tensor
    times: tuple[float, ...]

    def eps(
        self, x0: Tensor, place: int, *, time: float | None = None, alpha_bar: float | None = None
    ) -> Tensor:
        """Return the model's answer for some images at a level, told another time where one is given."""
        schedule, t = self.model.schedule, self.times[place]
        alpha_bar = schedule.alpha_bar(t) if alpha_bar is None else alpha_bar
        x, told = diffuse(x0, self.noise, alpha_bar), t if time is None else time
        dtype = torch.float64 if schedule.continuous else torch.int64
        times = torch.full((len(x),), told, dtype=dtype, device=x.device)
        with torch.inference_mode():
            return checked(self.model, self.model(x, times), x).eps

    @cached_property
    def answers(self) -> list[Tensor]:
        """The model's answers at every level, as it is: several readings are of these."""
        return [self.eps(self.x0, place) for place in range(len(self.times))]

    def error(self, reading: Reading) -> list[float]:
        """Return the mean square error of the noise at every level, 1 for a model that always says 0."""
        return [float((reading(self, i) - self.noise).square().mean()) for i in range(len(self.times))]


def _shifted(by: int) -> Reading:
    def read(probe: Probe, place: int) -> Tensor:
        last = int(probe.model.schedule.last)
        return probe.eps(probe.x0, place, time=min(max(int(probe.times[place]) + by, 0), last))

    return read


def _reversed(probe: Probe, place: int) -> Tensor:
    return probe.eps(probe.x0, place, time=probe.model.schedule.last - probe.times[place])


def _answering(predicts: Predicts) -> Reading:
    def read(probe: Probe, place: int) -> Tensor:
        alpha_bar = probe.model.schedule.alpha_bar(probe.times[place])
        x, raw = diffuse(probe.x0, probe.noise, alpha_bar), probe.answers[place]
        return from_network(predicts, x, raw, torch.full((len(x),), alpha_bar, dtype=torch.float64))[0]

    return read


def _scaled(scale: float, offset: float) -> Reading:
    return lambda probe, place: probe.eps(probe.x0 * scale + offset, place)


def _on(make: Callable[[int], NoiseSchedule]) -> Reading:
    def read(probe: Probe, place: int) -> Tensor:
        other = make(int(probe.model.schedule.last) + 1)
        return probe.eps(probe.x0, place, alpha_bar=other.alpha_bar(probe.times[place]))

    return read


def _mirrored(probe: Probe, place: int) -> Tensor:
    return probe.eps(probe.x0.flip(1), place)


READINGS: Mapping[str, tuple[Reading, str]] = {
    "the sign turned": (
        lambda probe, place: -probe.answers[place],
        "it predicts -eps: return bench.Prediction(-eps)",
    ),
    "times counted from 1": (_shifted(1), "its times are counted from 1: call the network with t + 1"),
    "times counted from -1": (_shifted(-1), "its times are one too late: call the network with t - 1"),
    "times reversed": (_reversed, "its time runs from noise to images: call the network with T - 1 - t"),
    "x_0 predicted": (_answering("x0"), "it predicts x_0: bench.from_prediction(..., predicts='x0')"),
    "v predicted": (_answering("v"), "it predicts v: bench.from_prediction(..., predicts='v')"),
    "images in [0, 1]": (
        _scaled(0.5, 0.5),
        "it looks trained on images in [0, 1]: scale x_t and alpha_bar as docs/models.md shows",
    ),
    "images in [-1/2, 1/2]": (
        _scaled(0.5, 0.0),
        "it looks trained on images in [-1/2, 1/2]: scale x_t and alpha_bar as docs/models.md shows",
    ),
    "the cosine schedule": (_on(NoiseSchedule.cosine), "it looks trained on the cosine schedule: say so"),
    "the linear schedule": (_on(NoiseSchedule.linear), "it looks trained on the linear schedule: say so"),
    "channels in the other order": (_mirrored, "its channels are in the other order: flip them"),
}
"""The usual mistakes, each with the way out."""


@dataclass(frozen=True)
class Wiring:
    """What was found of a model.

    Attributes:
        times: where errors were measured.
        errors: mean square error of the noise at each, 1 for a model that always says 0.
        norms: mean square of the predicted noise at each; 1 for noise.
        readings: mean error under every usual mistake, by name; the model's own is "as it is".
        near: error near x_0 alone, likewise: there a shift of time by one shows.
        x0_range: (least, greatest, mean, standard deviation) of the predicted x_0 at the least noisy level.
        data_range: the same of the images.
        outside: share of the predicted x_0 outside [-1, 1] there, by more than a level of 8 bits; None for
            latents.
        batch_gap: greatest difference between a batch's answers and the same samples' alone.
        seconds: what a call takes, per image.
        facts: what the model says of itself.
        verdicts: sentences about what is wrong, none where nothing is.
    """

    times: tuple[float, ...]
    errors: tuple[float, ...]
    norms: tuple[float, ...]
    readings: Mapping[str, float]
    near: Mapping[str, float]
    x0_range: tuple[float, float, float, float]
    data_range: tuple[float, float, float, float]
    outside: float | None
    batch_gap: float
    seconds: float
    facts: Mapping[str, str]
    verdicts: tuple[str, ...]


def examine(model: EpsilonModel, images: Tensor, seed: int = 0) -> Wiring:
    """Return how a model is wired, as far as real images show it.

    Args:
        model: the noise predictor.
        images: uint8 (B, C, H, W), of what it was trained on; 64 are enough.
        seed: the seed of the noise.

    Raises:
        ModelError: if the model's answers are none; see `bench.diffusion.answers`.
    """
    x0 = latents_of(model, from_uint8(images))
    if x0 is None:
        raise UsageError(
            "nobody can say what the x_0 of an image is for this model: give bench.decoded(model, decoder,"
            " encoder) its encoder, and check the stages of a cascade one by one"
        )
    noise = TrajectoryNoise(seed, range(len(x0)), model.shape).initial()
    schedule, latent = model.schedule, isinstance(model, Decodes)
    parts = [(k / (LEVELS - 1)) ** 2 for k in range(LEVELS)]
    exact = [schedule.first + part * (schedule.last - schedule.first) for part in parts]
    times = tuple(exact if schedule.continuous else sorted({*NEAR, *(int(t) for t in exact)}))
    times = tuple(t for t in times if t <= schedule.last and schedule.alpha_bar(t) > 0)
    probe = Probe(bound(model, range(len(x0)), seed), x0, noise, times)
    errors = probe.error(lambda one, place: one.answers[place])
    readings, near = {"as it is": _mean(errors)}, {"as it is": _near(times, errors)}
    smaller = _hardness(x0, probe) / _hardness(x0 / 2, probe)
    for name, (reading, _) in READINGS.items():
        timed = "schedule" in name or "times" in name
        pictured = "images" in name or "channels" in name
        mirrored = "channels" in name and model.shape[0] == 1
        if (timed and schedule.continuous) or (pictured and latent) or mirrored:
            continue
        found = probe.error(reading)
        # Smaller images are easier to tell from noise: their error is put on the scale of these.
        readings[name] = _mean(found) * (smaller if "images" in name else 1.0)
        near[name] = _near(times, found)
    alpha_bar = schedule.alpha_bar(times[0])
    x = diffuse(x0, noise, alpha_bar)
    predicted = (x - (1 - alpha_bar) ** 0.5 * probe.answers[0]) / alpha_bar**0.5
    alone = Probe(bound(model, range(1), seed), x0[:1], noise[:1], times)
    gap = max(float((alone.eps(x0[:1], i) - probe.answers[i][:1]).abs().max()) for i in (0, len(times) - 1))
    clock = Clock(x0.device)
    with clock.running():
        probe.eps(x0, len(times) // 2)
    wiring = Wiring(
        times=times,
        errors=tuple(errors),
        norms=tuple(float(answer.square().mean()) for answer in probe.answers),
        readings=readings,
        near=near,
        x0_range=_range(predicted),
        data_range=_range(x0),
        outside=None if latent else float((predicted.abs() > 1 + 1 / 127.5).float().mean()),
        batch_gap=gap,
        seconds=clock.seconds / len(x0),
        facts={
            "schedule": schedule.name,
            "variance": model.variance,
            "conditional": "yes" if is_conditional(model) else "no",
            "averaged weights": AVERAGED[_averaged(model)],
            "takes real times": "yes" if takes_real_times(model) else "no, they are rounded",
        },
        verdicts=(),
    )
    return replace(wiring, verdicts=tuple(_verdicts(wiring)))


AVERAGED = {True: "yes", False: "no: expect worse scores", None: "nobody says"}
"""What is said of a model's weights, by what its files tell of an average over the training (EMA)."""


def _averaged(model: object) -> bool | None:
    """Return whether the weights inside a model are averaged; None where nobody says."""
    while model is not None:
        if isinstance(told := getattr(model, "averaged", None), bool):
            return told
        model = getattr(model, "inside", None)
    return None


def _mean(errors: list[float]) -> float:
    """Return the mean error over the levels, each at most 4: one that diverges must not drown the others."""
    return sum(min(error, 4.0) for error in errors) / len(errors)


def _near(times: tuple[float, ...], errors: list[float]) -> float:
    """Return the mean error at the times of `NEAR`."""
    found = [error for t, error in zip(times, errors, strict=True) if t in NEAR]
    return sum(found) / len(found) if found else 0.0


def _hardness(x0: Tensor, probe: Probe) -> float:
    """Return the mean error of the best rule that is linear in each pixel alone: how hard the images are.

    With v the variance of a pixel it is abar v / (abar v + 1 - abar).
    """
    variance, total = x0.var(0), 0.0
    for t in probe.times:
        alpha_bar = probe.model.schedule.alpha_bar(t)
        total += float((alpha_bar * variance / (alpha_bar * variance + 1 - alpha_bar)).mean())
    return total / len(probe.times)


def _range(values: Tensor) -> tuple[float, float, float, float]:
    return float(values.min()), float(values.max()), float(values.mean()), float(values.std())


def _verdicts(wiring: Wiring) -> list[str]:
    """Return a sentence for everything that is wrong."""
    verdicts = []
    own, (name, best) = wiring.readings["as it is"], min(wiring.readings.items(), key=lambda item: item[1])
    shifts = {name: error for name, error in wiring.near.items() if name.startswith("times counted")}
    if max(wiring.norms) < 0.01:
        verdicts.append("it says that there is no noise at any level: its answer is 0, or nearly")
    elif best < CLEARLY * own and name in READINGS:
        verdicts.append(f"with {name} its error is {best:.3g}, not {own:.3g}: {READINGS[name][1]}")
    elif own > 0.9:
        verdicts.append(
            f"its error is {own:.2g}, and 1 is that of a model that says nothing: it was trained on other"
            " images, or not at all"
        )
    elif shifts and min(shifts.values()) < SHIFTED * wiring.near["as it is"]:
        name = min(shifts, key=shifts.__getitem__)
        near, own = shifts[name], wiring.near["as it is"]
        verdicts.append(f"near x_0, with {name}, its error is {near:.3g}, not {own:.3g}: {READINGS[name][1]}")
    if wiring.batch_gap > 1e-3:
        verdicts.append(
            f"a sample's answer differs by {wiring.batch_gap:.2g} with the batch around it: put the network"
            " into evaluation mode (batch normalisation, dropout)"
        )
    return verdicts
