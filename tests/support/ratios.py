"""Ratios of speed, each within one run on a quiet machine, for docs/performance.md: --write puts them in.

What was before is what the same ratio was on the version before noise, steps and threads were made anew,
measured on the same kind of machine.
"""

import os
import subprocess
import sys
import tempfile
import time
import warnings
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
import torch

from bench import NoiseSchedule, Prediction, get_sampler, make_grid, normal_noise, sample
from bench.commands.parser import command_parser
from bench.commands.speed import measured
from bench.metrics.frechet import FrechetReference
from bench.records.provenance import environment
from bench.sweep.speed import in_turns

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.generated import DOCS, Generated, measured_on
from support.machine import wall_seconds

BATCH, SHAPE, STEPS = 256, (3, 32, 32), 10
TURNS = 15
HEAD = "| what | before | now | aim |\n|---|--:|--:|--:|"

STEPPERS = {
    "ddim:eta=0": ("DDIMScheduler", {"clip_sample": False}, {}, "2.8", 10),
    "ddim:eta=1": ("DDIMScheduler", {"clip_sample": False}, {"eta": 1.0}, "0.7", 3),
    "ddpm": ("DDPMScheduler", {}, {}, "0.7", 3),
    "ddpm:variance=learned": ("DDPMScheduler", {"variance_type": "learned_range"}, {}, "", 3),
    "dpmpp-2m": ("DPMSolverMultistepScheduler", {}, {}, "", 10),
    "dpmpp-2m-sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}, {}, "", 3),
    "unipc": ("UniPCMultistepScheduler", {"solver_order": 3}, {}, "", 10),
    "deis:order=3": ("DEISMultistepScheduler", {"solver_order": 3}, {}, "", 10),
    "plms": ("PNDMScheduler", {"skip_prk_steps": True}, {}, "", 10),
    "ipndm": ("IPNDMScheduler", {}, {}, "", 10),
    "sa-solver": ("SASolverScheduler", {}, {}, "", 3),
}
"""Samplers and the scheduler of diffusers that takes the same steps: before, and the aim."""


class Ready:
    """A network that costs nothing."""

    schedule, shape, variance = NoiseSchedule.linear(), SHAPE, "learned_range"

    def __init__(self):
        self.answer = Prediction(torch.randn(BATCH, *SHAPE), torch.rand(BATCH, *SHAPE) * 2 - 1)

    def __call__(self, x, t):
        return self.answer


def medians(*works, turns=TURNS):
    """The median seconds of each, done in turns."""
    return [median(one) for one in in_turns([partial(_seconds, work) for work in works], turns)]


_seconds = partial(wall_seconds, device=torch.device("cpu"))


OVERHEADS = {
    "ddim:eta=0": "1.05",
    "ddim:eta=1": "1.23",
    "ddpm:variance=fixedlarge": "1.17",
    "ddpm:variance=learned": "1.24",
}
"""Samplers of the shipped networks, and what a trajectory of the digits took over its bare calls before."""


def overheads():
    """A trajectory of the shipped networks over its bare calls."""
    for model, batch in (("digits", "250"), ("cifar10-small", "50")):
        asked = ["--model", model, "--batch", batch, "--turns", "9", "--samplers", *OVERHEADS]
        found = measured(command_parser("speed").parse_args(asked)).overheads
        for (spec, before), one in zip(OVERHEADS.items(), found, strict=True):
            told = f"`{model}`, `{spec}`: a trajectory over its bare calls"
            now = f"{one.ratio:.2f} ({min(one.ratios):.2f} to {max(one.ratios):.2f})"
            yield told, before if model == "digits" else "", now, "1.02"


def noise():
    """Our noise over torch's."""
    ours, theirs = medians(
        lambda: normal_noise(0, range(BATCH), 1, SHAPE), lambda: torch.randn(BATCH, *SHAPE), turns=40
    )
    yield "noise (256, 3, 32, 32) over `torch.randn`", "2.1 to 2.3", f"{ours / theirs:.2f}", "1.0"


def steps():
    """How many times as fast a step is as the one of diffusers, noise included."""
    import diffusers

    diffusers.logging.set_verbosity_error()
    model, x = Ready(), torch.randn(BATCH, *SHAPE)
    both = torch.cat(model.answer[:2], dim=1)
    grid = make_grid(model.schedule, STEPS)

    def noise(index, draw=0):
        return normal_noise(0, range(BATCH), index + 1, SHAPE, draw=draw)

    for spec, (name, options, asked, before, aim) in STEPPERS.items():
        sampler = get_sampler(spec)

        def theirs(name=name, options=options, asked=asked):
            scheduler = getattr(diffusers, name)(num_train_timesteps=1000, **options)
            scheduler.set_timesteps(STEPS)
            answer, at = both if "learned_range" in options.values() else model.answer.eps, x
            for t in scheduler.timesteps:
                at = scheduler.step(answer, t, at, **asked).prev_sample

        mine, other = medians(lambda sampler=sampler: sample(model, sampler, grid, x, noise), theirs)
        yield f"`{spec}`: steps a second over `{name}`'s", before, f"{other / mine:.1f}", str(aim)


def busy():
    """A process that keeps a core."""
    return subprocess.Popen([sys.executable, "-c", "while True: pass"])


def scoring():
    """A distance of 192 features while every core is held by another process, over one that is alone."""
    draw = np.random.default_rng(0)
    one, other = (np.cov(draw.normal(size=(1000, 192)), rowvar=False) for _ in range(2))
    reference, mean = FrechetReference(np.zeros(192), one), np.zeros(192)

    def work():
        reference.distance(mean, other)

    alone = median(_seconds(work) for _ in range(TURNS))
    others = [busy() for _ in range(os.cpu_count())]
    try:
        beside = median(_seconds(work) for _ in range(TURNS))
    finally:
        for process in others:
            process.kill()
    yield "a distance of 192 features beside busy cores over alone", "4,800", f"{beside / alone:.1f}", ""


def sweeps():
    """Two sweeps at once over one, and the speed of one; before: where threads wait awake."""
    command = [sys.executable, "-m", "bench", "run", "--samplers", "ddim", "ddpm", "--steps", "10,50"]

    def seconds(count, **variables):
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            running = [
                subprocess.Popen(
                    [*command, "--results", f"{folder}/{number}"],
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                    env={**os.environ, **variables},
                )
                for number in range(count)
            ]
            for process in running:
                process.wait()
            return time.perf_counter() - began

    awake = {"GOMP_SPINCOUNT": "300000"}  # what it is where nobody says anything
    turns = [(seconds(1), seconds(2), seconds(1, **awake), seconds(2, **awake)) for _ in range(3)]
    alone, both, old, old_both = (median(one) for one in zip(*turns, strict=True))
    yield (
        "two sweeps at once over one alone",
        f"{old_both / old:.1f}",
        f"{both / alone:.1f}",
        "2.3",
    )
    yield "a sweep alone, speed over that of threads waiting awake", "1", f"{old / alone:.2f}", "0.97"


def table():
    """Machine, versions and the rows, as Markdown."""
    warnings.simplefilter("ignore")
    rows = [*sweeps(), *overheads(), *noise(), *steps(), *scoring()]
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return measured_on(environment("cpu")) + "\n\n" + "\n".join([HEAD, *lines]) + "\n"


TABLE = Generated(DOCS / "performance.md", "ratios", table)

if __name__ == "__main__":
    TABLE.main()
