"""One trial as the report shows it: scores, cost, where its number comes from, the command that makes it."""

from __future__ import annotations

import base64
import math
import re
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from bench.device.modes import EAGER, Mode
from bench.records.record import DrawingInfo, Record
from bench.records.store import Store, shown_images
from bench.records.trial import is_points
from bench.report.tables.summary import plus_minus, short
from bench.stats.score import Score

DRAWING = ("n", "seed", "spacing", "batch", "precision", "device")
"""Fields of a trial that say how it is drawn."""


@dataclass(frozen=True)
class Strip:
    """Pictures of a trial side by side: its first samples, or the frames of its film.

    Attributes:
        name: the name of its style class in the page.
        source: the PNG file as a data URI.
        count: number of pictures in it.
        side: width of one in pixels.
        ratio: height of one over its width.
    """

    name: str
    source: str
    count: int
    side: int
    ratio: float = 1.0


def strip_of(store: Store, record: Record) -> Strip | None:
    """Return the first samples of a trial, None where none were kept, or points, which a plot shows."""
    return _strip(f"p-{safe(record.key)}", store.records / f"{record.name}.png", store.previews(record))


def film_of(store: Store, record: Record) -> Strip | None:
    """Return the film of a trial, None where none was kept."""
    return _strip(f"f-{safe(record.key)}", store.records / f"{record.name}.film.png", store.film(record))


def _strip(name: str, path: Path, images: Tensor | None) -> Strip | None:
    if images is None or not len(images) or is_points(images.shape[1:]):
        return None
    data = base64.b64encode(path.read_bytes()).decode()
    _, _, tall, wide = shown_images(images).shape
    return Strip(name, f"data:image/png;base64,{data}", len(images), wide, tall / wide)


def safe(key: str) -> str:
    """Return a record's key without what could end a name in a page: a record is anybody's file."""
    return re.sub(r"[^0-9A-Za-z_-]", "", key)


def trial_view(store: Store, record: Record) -> dict[str, Any]:
    """Return one trial in plain values."""
    trial, cost = record.trial, record.cost
    score = next(iter(record.scores.values()), None)
    sampling = cost.sampling_seconds if cost else None
    return {
        "key": safe(record.key),
        "label": record.sampler.label,
        "model": trial.model,
        "steps": trial.steps,
        "status": record.status,
        "message": record.message,
        "metric": score.metric if score else next(iter(trial.metrics), ""),
        "score": score.value if score else None,
        "score_text": plus_minus(score) if score else "",
        "numbers": {
            "bias-corrected": _number(score.debiased if score else None),
            "calls": _number(cost.calls if cost else None),
            "ms an image": _number(1000 * sampling / trial.n if sampling else None),
            "images/s": _number(trial.n / sampling if sampling else None),
            "n": {"value": trial.n, "text": f"{trial.n:,}"},
        },
        "n": trial.n,
        "spacing": trial.spacing,
        "strip": strip_of(store, record),
        "scores": [_score(name, s) for name, s in record.scores.items()],
        "facts": facts_of(record),
        "again": command_of(record),
        "command": record.environment.command,
        "stage": record.stage,
        "traceback": record.failure.traceback if record.failure else "",
    }


def _number(value: float | None) -> dict[str, Any]:
    if value is None or not math.isfinite(value):
        return {"value": "", "text": ""}
    return {"value": value, "text": short(value)}


def _score(name: str, score: Score) -> dict[str, Any]:
    debiased = "" if not math.isfinite(score.debiased) else f"{score.debiased:.4g}"
    return {"name": name, "text": plus_minus(score), "debiased": debiased, "flags": ", ".join(score.flags)}


def facts_of(record: Record) -> dict[str, str]:
    """Return what is known of a trial besides its scores, by name, without what is empty."""
    trial, cost, environment = record.trial, record.cost, record.environment
    facts: dict[str, str] = {
        "sampler": record.sampler.source,
        "parameters": _pairs(record.sampler.parameters),
        "trial": _pairs({name: getattr(trial, name) for name in DRAWING}),
        "mode": trial.mode if trial.mode != EAGER else "",
        "differs": _differs(record.drawing),
        "grid": _pairs(record.grid.to_json()),
    }
    if cost:
        sampling, model = cost.sampling_seconds, cost.model_seconds
        facts["network calls"] = f"{cost.calls:g} an image, counted"
        if cost.evaluations is not None and cost.evaluations != cost.calls:
            facts["network evaluations"] = f"{cost.evaluations:g} rows an image, counted inside the guide"
        if cost.gradients:
            facts["classifier gradients"] = f"{cost.gradients:g} an image, each a pass forward and one back"
        for name in ("upsampler", "decoder"):
            if rows := getattr(cost, f"{name}_evaluations"):
                facts[f"{name} evaluations"] = f"{rows:g} rows an image"
        decoding = f" decoding {cost.decoding_seconds:.3g}," if cost.decoder_evaluations else ""
        facts["seconds"] = (
            f"sampling {sampling:.3g} (network {model:.3g}, sampler and noise {sampling - model:.3g}),"
            f"{decoding} scoring {cost.scoring_seconds:.3g}"
        )
        facts["peak memory"] = f"{cost.peak_bytes / 2**20:,.0f} MiB"
    images = record.images
    if images.mean is not None:
        facts["images"] = (
            f"mean {images.mean:.3f}, standard deviation {images.sd:.3f}, {images.outside:.1%} of the values"
            " far outside [-1, 1] before rounding"
        )
    if record.stopping is not None:
        by = f" {record.stopping.by}" if record.stopping.by else ""
        rounds = ", ".join(f"{n:,}" for n in record.stopping.rounds)
        facts["rounds"] = f"{record.stopping.rule}, n = {rounds}: {record.stopping.outcome}{by}"
    dirty = " with local changes" if environment.dirty else ""
    plugin = f"{record.sampler.plugin} {record.sampler.version}".strip()
    facts |= {
        "plugin": plugin,
        "provenance": _pairs(record.provenance),
        "commit": f"{environment.commit}{dirty}" if environment.commit else "",
        "versions": _pairs(environment.versions),
        "machine": environment.device_name,
        "finished": environment.finished,
        "record": f"records/{record.name}.json",
    }
    return {name: value for name, value in facts.items() if value}


def command_of(record: Record) -> str:
    """Return the command that makes this trial alone; empty for real images, which every sweep measures.

    Of a trial of objects it is the call in Python.
    """
    trial = record.trial
    drawing = [text for name in DRAWING for text in (f"--{name}", getattr(trial, name))]
    mode = Mode.parse(trial.mode)
    drawing += [] if mode.is_eager else ["--mode", mode.engine]
    drawing += ["--channels-last"] if mode.channels_last else []
    if record.kind == "real":
        return ""
    if record.kind == "bound":
        parameters = record.sampler.parameters
        options = ["nll", "--model", trial.model, "--variance", parameters["variance"]]
        options += ["--clip", parameters["clip"], "--steps", trial.steps, *drawing]
        options += ["--data", trial.reference] if trial.reference else []
    else:
        options = ["run", "--model", trial.model, "--samplers", trial.sampler, "--steps", trial.steps]
        options += [*drawing, "--metrics", ",".join(trial.metrics)]
        options += ["--reference", trial.reference] if trial.reference else []
    if record.environment.of_objects:  # their names stand for them
        given = zip(options[1::2], options[2::2], strict=True)
        return f"bench.run({', '.join(f'{name[2:]}={value!r}' for name, value in given)})"
    return shlex.join(["python", "-m", "bench", *map(str, options)])


def _differs(drawing: DrawingInfo | None) -> str:
    """Return what is changed by how the network was run, from as it is in float32 on whole batches."""
    if drawing is None:
        return ""
    told = []
    if drawing.answers is not None:
        told.append(f"answers by at most {drawing.answers:.2g} of the greatest value from eager float32")
    if drawing.images is not None:
        which = f"{drawing.compared} at S={drawing.steps}"
        told.append(f"images by {drawing.images:.2g} of 256 levels on average ({which})")
    if drawing.ready_seconds:
        told.append(f"made ready in {drawing.ready_seconds:.3g} s, which no cost holds")
    if drawing.batch is not None:
        told.append(f"memory held {drawing.batch} samples at a time")
    return ", ".join(told)


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())


def environment_of(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Return every fact of the machines and versions with the number of trials it holds for."""
    counted: dict[str, Counter[str]] = {}
    for record in records:
        environment = record.environment
        dirty = " with local changes" if environment.dirty else ""
        facts: dict[str, Any] = {
            "machine": environment.device_name,
            "device": record.trial.device,
            "threads": environment.threads,
            "commit": f"{environment.commit[:12]}{dirty}" if environment.commit else None,
            **environment.versions,
            "model's weights": record.model.weights,
            "schedule": record.model.schedule,
        }
        for name, value in facts.items():
            if value not in (None, ""):
                counted.setdefault(name, Counter())[str(value)] += 1
    return [
        {
            "name": name,
            "values": [{"text": t, "count": c} for t, c in values.items()],
            "several": len(values) > 1,
        }
        for name, values in counted.items()
    ]
