"""Times as fast as the network is in each mode, and how far off: --write puts it in docs/performance.md."""

import gc
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from bench import get_sampler, load_model
from bench.data.images import to_uint8
from bench.device.bfloat16 import computes_bfloat16
from bench.device.clock import free_memory
from bench.device.modes import Mode
from bench.diffusion.conditions import bound
from bench.diffusion.grid import grid_for
from bench.diffusion.noise import TrajectoryNoise
from bench.errors import UsageError
from bench.records.provenance import environment
from bench.sweep.admission import levels_apart
from bench.sweep.readiness import AS_IT_IS, ModeRefused, Readiness
from bench.sweep.speed import call_seconds, in_turns
from bench.sweep.tolerances import TOLERANCES
from bench.sweep.worker import draw

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.generated import DOCS, Generated, measured_on

MODELS = ("digits", "cifar10-small")
BATCH, STEPS, TURNS = 50, 10, 7
"""Images a call, steps of the images that are compared, and turns of each measurement."""

CPU = torch.device("cpu")
HEAD = "| network | mode | precision | times as fast | answers | images | made ready |"
RULE = "|---|---|---|--:|--:|--:|--:|"


@dataclass(frozen=True)
class Measured:
    """A mode beside the network as it is, in float32.

    Attributes:
        rate: images a second of the network alone.
        ratio: how many times as fast.
        answers: greatest difference of the network's answers, as a part of the greatest value.
        images: mean absolute difference of images, in levels of 256: the greatest of the samplers'; None
            where no images were drawn.
        seconds: what making ready took.
        refused: why it is not admitted; empty where it is.
    """

    rate: float = 0.0
    ratio: float = 0.0
    answers: float = 0.0
    images: float | None = None
    seconds: float = 0.0
    refused: str = ""


def asked():
    """Every (mode, precision) of a CPU, the one that others are measured against first."""
    precisions = ["float32", *(["bfloat16"] if computes_bfloat16(CPU) else [])]
    modes = [Mode(engine, last) for engine in ("eager", "compile") for last in (False, True)]
    return [(str(mode), precision) for mode in modes for precision in precisions]


def measured(model, name, way, batch, device=CPU, samplers=("ddim",), turns=TURNS):
    """Measure a way, (mode, precision), beside the network as it is: nothing made ready is left behind."""
    gc.collect()  # recordings of a GPU that nobody plays any more hold gigabytes
    free_memory(device)
    readiness, grid = Readiness(model, repr(name), device), grid_for(model, STEPS, "uniform")
    try:
        gap = readiness.make_ready(*way, batch, grid, 0)
    except (ModeRefused, UsageError) as refused:
        return Measured(refused=str(refused))
    mine = bound(model, range(batch), 0)
    x = TrajectoryNoise(0, range(batch), model.shape, device).initial()
    times = [grid[0].times(x)] * (20 if batch == 1 else 1)

    def seconds(mode, precision):
        with readiness.running(mode):
            return call_seconds(mine, x, times, precision) / len(times)

    own, other = in_turns([lambda: seconds(*AS_IT_IS), lambda: seconds(*way)], turns)
    both = [[images(readiness, grid, one, batch, spec) for one in (AS_IT_IS, way)] for spec in samplers]
    apart = max((levels_apart(*pair) for pair in both), default=None)
    most = TOLERANCES[way[1]].images
    refused = "" if (apart or 0) <= most else f"images differ by {apart:.2g} levels, {most:g} is allowed"
    ratio = median(a / b for a, b in zip(own, other, strict=True))
    return Measured(batch / min(other), ratio, gap, apart, readiness.seconds, refused)


def images(readiness, grid, way, batch, spec):
    """uint8 images of a sampler in a mode and precision."""
    mode, precision = way
    with torch.no_grad(), readiness.running(mode):
        drawn = draw(readiness.model, get_sampler(spec), grid, range(batch), 0, precision, readiness.device)
    return to_uint8(drawn.x0)


def rows(name):
    """A row for every mode of a model."""
    model = load_model(name).model
    for mode, precision in asked():
        way = mode, precision
        one = measured(model, name, way, BATCH)
        seconds = f"{one.seconds:.0f} s" if mode.startswith("compile") else ""
        told = [f"{one.ratio:.2f}", f"{one.answers:.1g}", f"{one.images or 0:.2g}", seconds]
        if way == AS_IT_IS:
            told = ["1", "", "", ""]
        elif one.refused:
            told = [one.refused, "", "", ""]
        yield [f"`{name}`", f"`{mode}`", precision, *told]


def table():
    """Machine, versions and the rows, as Markdown."""
    lines = [f"| {' | '.join(row)} |" for name in MODELS for row in rows(name)]
    return measured_on(environment("cpu")) + "\n\n" + "\n".join([HEAD, RULE, *lines]) + "\n"


TABLE = Generated(DOCS / "performance.md", "modes", table)

if __name__ == "__main__":
    TABLE.main()
