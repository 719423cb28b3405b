"""Checkpoints as models: what ``--model PATH`` opens and ``fetch NAME`` downloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import cast

from bench import EpsilonModel, ModelCard, hookimpl
from bench.files.download import Download
from bench.records.trainings import TRAINING_TABLE
from models.checkpoints import load_checkpoint, load_spec
from models.hub import fetch
from models.pipelines import PIPELINE, load_pipeline
from models.public import CARDS
from models.spec import split_spec

SUFFIXES = frozenset({".safetensors", ".pt", ".pth", ".ckpt", ".bin", ".pkl"})
"""Suffixes that mark a checkpoint file."""


@hookimpl
def bench_models() -> Sequence[ModelCard]:
    """Return a card for every known public checkpoint; its weights are looked for when it is loaded."""
    return [
        ModelCard(card.name, partial(load_checkpoint, card.name), card.summary, batch=100) for card in CARDS
    ]


@hookimpl
def bench_open_model(spec: str) -> ModelCard | None:
    """Return a card for a checkpoint: a path, ``hub:OWNER/NAME``, either with options after a colon."""
    if spec.startswith(PIPELINE):
        return ModelCard(spec, lambda: load_pipeline(spec), f"diffusers pipeline {spec}", batch=16)
    path = Path(spec)
    if not (
        spec.startswith("hub:") or "/" in spec or "=" in spec or path.suffix in SUFFIXES or path.exists()
    ):
        return None
    return ModelCard(
        spec,
        lambda: cast(EpsilonModel, load_spec(spec)),
        f"checkpoint {spec}",
        batch=100,
        training=_table_beside(spec),
    )


@hookimpl
def bench_downloads() -> Mapping[str, Download]:
    """Return the downloads of the known public checkpoints."""
    return {card.name: partial(fetch, card.name) for card in CARDS}


def _table_beside(spec: str) -> Path | None:
    """Return the table that ``bench train`` left beside a file of weights."""
    weights = Path(split_spec(spec).source)
    table = weights.with_name(TRAINING_TABLE)
    return table if weights.is_file() and table.is_file() else None
