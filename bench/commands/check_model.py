"""Tell whether a model is wired right, on images of what it was trained on."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from rich.table import Table

from bench.commands.options import console, load_plugins, print_json, say_remarks
from bench.data.sets import load_images
from bench.diffusion.stages import image_shape
from bench.errors import UsageError
from bench.plugins.lookup import load_model
from bench.sweep.wiring import Wiring, examine


def execute(options: argparse.Namespace) -> int:
    """Print what was found; exit status 1 where something is wrong."""
    load_plugins(options.plugin)
    loaded = load_model(options.model, reference=options.reference)
    if options.reference is None and loaded.card.data is not None:
        data = load_images(loaded.card.held_out or loaded.card.data, strict=True)
    elif loaded.reference is not None:
        data = loaded.reference.data()
    else:
        raise UsageError(
            f"model {options.model!r} does not say what it was trained on; give --reference with images of it"
        )
    say_remarks(data.remarks)
    images, shape = data.images, image_shape(loaded.model)
    if tuple(images.shape[1:]) != tuple(shape):
        raise UsageError(
            f"images are {tuple(images.shape[1:])} and the model's {tuple(shape)} (channels,"
            " height, width); give --reference with images of the model's shape"
        )
    found = examine(loaded.model, images[: options.n], options.seed)
    if options.json:
        print_json(asdict(found))
    else:
        _print(options.model, found)
    return 1 if found.verdicts else 0


def _print(model: str, found: Wiring) -> None:
    terminal = console()
    levels = Table(title=f"{model}: noise found in real images", title_justify="left")
    for name in ("t", "error", "mean square of eps"):
        levels.add_column(name, justify="right")
    for t, error, norm in zip(found.times, found.errors, found.norms, strict=True):
        levels.add_row(f"{t:g}", f"{error:.4f}", f"{norm:.3f}")
    terminal.print(levels)
    readings = Table(title="mean error, as it is and under the usual mistakes", title_justify="left")
    readings.add_column("read as")
    readings.add_column("error", justify="right")
    for name, error in sorted(found.readings.items(), key=lambda item: item[1]):
        readings.add_row(name, f"{error:.4f}")
    terminal.print(readings)
    shown = "least {:.2f}, greatest {:.2f}, mean {:.3f}, sd {:.3f}"
    latent = found.outside is None
    outside = "" if latent else f"; {found.outside:.1%} outside [-1, 1]"
    print(f"predicted x_0 near x_0: {shown.format(*found.x0_range)}{outside}")
    print(f"{'the latents: ' if latent else 'the images:  '}           {shown.format(*found.data_range)}")
    pace = f"a call takes {1000 * found.seconds:.2f} ms an image"
    print(f"{pace}; alone a sample's answer differs by {found.batch_gap:.1e}")
    print("; ".join(f"{name}: {value}" for name, value in found.facts.items()))
    for verdict in found.verdicts:
        print(f"wrong: {verdict}")
    if not found.verdicts:
        print("nothing is wrong that real images show")
