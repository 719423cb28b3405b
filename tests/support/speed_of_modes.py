"""How fast the shipped networks are in each mode, measured in turns on this machine, and how far off."""

import torch

from bench import get_sampler, load_model
from bench.data.images import to_uint8
from bench.device.bfloat16 import computes_bfloat16
from bench.device.modes import Mode
from bench.diffusion.conditions import bound
from bench.diffusion.grid import grid_for
from bench.diffusion.noise import TrajectoryNoise
from bench.records.provenance import environment
from bench.sweep.admission import levels_apart
from bench.sweep.readiness import AS_IT_IS, Readiness
from bench.sweep.speed import call_seconds, in_turns
from bench.sweep.worker import draw

MODELS = ("digits", "cifar10-small")
BATCHES = (1, 50, 256)
TURNS = 15
STEPS, DRAWN = 10, 50
"""Steps and samples of the images that are compared, and the batch at which answers are."""

CPU = torch.device("cpu")
HEAD = "| network | mode | precision | batch 1 | batch 50 | batch 256 | answers | images | made ready |"
RULE = "|---|---|---|--:|--:|--:|--:|--:|--:|"


def asked():
    """Every (mode, precision), the one that others are measured against first."""
    precisions = ["float32", *(["bfloat16"] if computes_bfloat16(CPU) else [])]
    modes = [Mode(engine, last) for engine in ("eager", "compile") for last in (False, True)]
    return [(str(mode), precision) for mode in modes for precision in precisions]


def ratios(readiness, grid, batch):
    """How many times as fast each is as the first: least seconds of the turns over least seconds."""
    model = bound(readiness.model, range(batch), 0)
    x = TrajectoryNoise(0, range(batch), model.shape, CPU).initial()
    t = grid[0].times(x)

    def measure(mode, precision):
        readiness.make_ready(mode, precision, batch, grid, 0)

        def seconds():
            with readiness.running(mode):
                return call_seconds(model, x, [t] * (20 if batch == 1 else 1), precision)

        return seconds

    least = [min(turns) for turns in in_turns([measure(*one) for one in asked()], TURNS)]
    return {one: least[0] / seconds for one, seconds in zip(asked(), least, strict=True)}


def images(readiness, grid, mode, precision):
    """uint8 images of ddim in a mode."""
    with torch.no_grad(), readiness.running(mode):
        drawn = draw(readiness.model, get_sampler("ddim"), grid, range(DRAWN), 0, precision, CPU)
    return to_uint8(drawn.x0)


def rows(name):
    """A row for every mode of a model."""
    model = load_model(name).model
    readiness, grid = Readiness(model, repr(name), CPU), grid_for(model, STEPS, "uniform")
    found = {batch: ratios(readiness, grid, batch) for batch in BATCHES}
    own = images(readiness, grid, *AS_IT_IS)
    for mode, precision in asked():
        fresh = Readiness(model, repr(name), CPU)
        gap = fresh.make_ready(mode, precision, DRAWN, grid, 0)
        apart = levels_apart(own, images(readiness, grid, mode, precision))
        speeds = [f"{found[batch][mode, precision]:.2f}" for batch in BATCHES]
        seconds = f"{fresh.seconds:.0f} s" if mode.startswith("compile") else ""
        told = ["", "", ""] if (mode, precision) == AS_IT_IS else [f"{gap:.1g}", f"{apart:.2g}", seconds]
        yield [f"`{name}`", f"`{mode}`", precision, *speeds, *told]


def table():
    """Machine, versions and the rows, as Markdown."""
    machine = environment("cpu")
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items() if version)
    lines = [f"| {' | '.join(row)} |" for name in MODELS for row in rows(name)]
    return (
        f"{machine.finished[:10]}, {machine.device_name}, threads: {machine.threads}; {versions}.\n\n"
        + "\n".join([HEAD, RULE, *lines])
        + "\n"
    )


if __name__ == "__main__":
    print(table(), end="")
