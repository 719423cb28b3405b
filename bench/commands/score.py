"""Score images from anywhere: a folder, an .npz or .npy file, whatever drew them, each score with its error.

`score samples/ --reference cifar10 --metrics fid,kid` prints the scores. With --name they become a record of
--results, a row of its tables: beside the samples of a model with --model, which must be there with as many
images.
"""

from __future__ import annotations

import argparse
import math
import sys

from bench.commands.options import (
    load_plugins,
    parse_devices,
    parse_metrics,
    print_json,
    say_remarks,
)
from bench.commands.progress import Measuring
from bench.errors import UsageError, one_line
from bench.records.provenance import environment
from bench.records.record import GIVEN, GridInfo, ImagesInfo, ModelInfo, Record, RowInfo
from bench.records.store import Store
from bench.records.trial import Cost, Trial, kept_of
from bench.report.tables.summary import plus_minus
from bench.sweep.given import GivenScores, scores_of


def execute(options: argparse.Namespace) -> int:
    """Score the images, print the scores, and keep them where a name was given."""
    if options.name is None and (options.model or options.steps or options.calls):
        raise UsageError("--model, --steps and --calls say where a row stands: give --name too")
    if options.name is not None and options.steps is None:
        raise UsageError("a row needs its column: give --steps with --name")
    load_plugins(options.plugin)
    metrics = parse_metrics(options.metrics) if options.metrics is not None else ()
    (device, *_) = parse_devices(options.device)
    with Measuring(quiet=options.json) as progress:
        found = scores_of(
            options.images,
            options.reference,
            metrics,
            held_out=options.held_out,
            device=device,
            n=options.n,
            progress=progress,
        )
    say_remarks(found.remarks)
    if options.json:
        print_json([score.to_json() for score in found.scores.values()])
    else:
        print("\n".join(_lines(found)))
    for failure in found.failures:
        print(one_line(f"failed: {failure.stage}: {failure.message}"), file=sys.stderr)
    if options.name is not None and found.scores:
        store = Store(options.results)
        record = _record(options, found, device, store)
        store.prepare()
        path = store.write(record, kept_of(found.images.images))
        if not options.json:
            print(f"{path}: a row of `sampler-bench table --results {options.results}`")
    return 1 if found.failures else 0


def _lines(found: GivenScores) -> list[str]:
    """Return the scores as lines of text."""
    lines = [f"{len(found.images.images):,} images of {found.images.name}"]
    for name, score in found.scores.items():
        corrected = "-" if math.isnan(score.debiased) else f"{score.debiased:.4g}"
        flags = f"  {', '.join(score.flags)}" if score.flags else ""
        lines.append(f"{name:<24} {plus_minus(score):>20}  corrected {corrected:>9}{flags}")
    return lines


def _record(options: argparse.Namespace, found: GivenScores, device: str, store: Store) -> Record:
    """Return the record of a row of given images."""
    beside = _beside(options.model, len(found.images.images), store) if options.model else None
    trial = Trial(
        model=options.model or found.images.name,
        sampler=options.name,
        spacing=beside.trial.spacing if beside else "given",
        steps=options.steps,
        n=len(found.images.images),
        seed=beside.trial.seed if beside else 0,
        batch=len(found.images.images),
        precision=beside.trial.precision if beside else "float32",
        device=beside.trial.device if beside else device.partition(":")[0],
        metrics=found.metrics,
        reference=beside.trial.reference if beside else options.reference,
    )
    return Record(
        kind="samples",
        trial=trial,
        status="done",
        sampler=RowInfo(name=options.name, label=options.name, plugin=f"{GIVEN}{found.images.name}"),
        model=beside.model if beside else ModelInfo(""),
        grid=GridInfo(options.steps, options.steps),
        images=ImagesInfo.of(found.levels),
        scores=dict(found.scores),
        cost=Cost(calls=options.calls) if options.calls else None,
        environment=environment(device),
        provenance=dict(found.provenance),
    )


def _beside(model: str, n: int, store: Store) -> Record:
    """Return a record of a model's own samples, to whose table the images are to belong.

    Raises:
        UsageError: if there is none of as many images.
    """
    records = [record for record in store.read()[0] if record.kind == "samples" and record.model.weights]
    of_model = [record for record in records if record.trial.model == model]
    counts = sorted({record.trial.n for record in of_model})
    if not of_model:
        raise UsageError(
            f"no samples of {model} are in {store.folder}; leave --model out for a table of its own"
        )
    if n not in counts:
        raise UsageError(
            f"{n:,} images cannot stand beside {', '.join(f'{count:,}' for count in counts)} of {model}:"
            f" give --n {counts[-1]}"
        )
    return next(record for record in of_model if record.trial.n == n)
