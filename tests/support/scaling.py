"""What a sweep costs on several GPUs, from what the committed run on one of them measured: docs/scale.md.

A sweep is a list of blocks. Worker after worker takes the next one, so that with W workers

    T  =  sum of the blocks' seconds / W  +  tail,      0 <= tail < seconds of the longest block

which `simulated` tells exactly, block by block.
"""

import heapq
import sys
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import load_results
from bench.published.presets import get_preset
from support.generated import DOCS, Generated

RUN = Path(__file__).parents[2] / "results" / "reference" / "cifar10-ddpm"
PRESET = "ddim-table1-cifar10"
GPUS = (1, 8, 64)
IMAGES = 50_000


class Measured(NamedTuple):
    """Seconds of one image on one GPU: of a call, and of all that is not a call (decoding, scoring, ...)."""

    call: float
    other: float
    batch: int
    device: str
    precision: str


def measured():
    """The medians of the committed run."""
    frame = load_results(RUN).drop_duplicates("key")
    done = frame[(frame["kind"] == "samples") & (frame["status"] == "done")]
    call = done["model_seconds"] / done["n"] / done["network_calls"]
    other = (done["sampling_seconds"] - done["model_seconds"] + done["scoring_seconds"]) / done["n"]
    first = done.iloc[0]
    return Measured(call.median(), other.median(), int(first.batch), first.device_name, first.precision)


def blocks(cost, images=IMAGES):
    """Seconds of every block of the preset in the order of a sweep: fewest steps first."""
    preset = get_preset(PRESET)
    return [
        cost.batch * (steps * cost.call + cost.other)
        for steps in sorted(preset.steps)
        for _ in preset.rows
        for _ in range(images // cost.batch)
    ]


def predicted(seconds, workers, overhead=0.0):
    """The least and the most that the formula says: no tail, and the longest that it can be."""
    each = [one + overhead for one in seconds]
    shared = sum(each) / workers
    return shared, shared + (1 - 1 / workers) * max(each)


def simulated(seconds, workers, overhead=0.0):
    """When the last of some workers is done, each of which takes the next block when it is free."""
    free = [0.0] * workers
    for one in seconds:
        heapq.heappush(free, heapq.heappop(free) + one + overhead)
    return max(free)


def span(seconds):
    """Hours, or minutes where they are fewer."""
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"


def table():
    """The table of the document, as Markdown."""
    cost = measured()
    every = blocks(cost)
    lines = [
        f"| {gpus} | {span(predicted(every, gpus)[0])} | {span(simulated(every, gpus))} |"
        f" {predicted(every, gpus)[0] / simulated(every, gpus):.1%} |"
        for gpus in GPUS
    ]
    return (
        f"{len(every):,} blocks of {cost.batch} images on {cost.device} in {cost.precision}: "
        f"{cost.call * 1e6:.0f} µs a call and image, {cost.other * 1e6:.0f} µs an image for all else.\n\n"
        "| GPUs | work shared equally | until the last is done | kept busy |\n|--:|--:|--:|--:|\n"
        + "\n".join(lines)
        + "\n"
    )


TABLE = Generated(DOCS / "scale.md", "cost of the DDIM table", table)

if __name__ == "__main__":
    TABLE.main()
