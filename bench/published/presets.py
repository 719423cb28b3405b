"""Presets: the protocols behind published tables, as data that ``run`` and ``table`` take by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.data.cifar10 import TRAIN_SET
from bench.errors import UnknownNameError
from bench.published.values import PublishedValue, published_values

RERUN_ABSOLUTE = 0.1
"""Agreement to be expected below an FID of 40."""


RERUN_RELATIVE = 0.01
"""Agreement to be expected above it, as a part of the value.

Both are what an independent rerun of the DDIM paper's CelebA rows reached (arXiv:2201.06503, table 9): below
40 the root mean square of its differences is 0.06 and the largest 0.13, above 40 the largest is 0.75%.
"""


def tolerance(published: float) -> float:
    """Return how far from a published FID an independent rerun is to be expected."""
    return RERUN_ABSOLUTE if published < 40 else RERUN_RELATIVE * published


@dataclass(frozen=True)
class Preset:
    """The protocol of a published table.

    Attributes:
        name: what ``--preset`` takes.
        summary: one line.
        model: card of the checkpoint the table was made with.
        samplers: its rows.
        steps: its columns.
        spacing: rule for the time steps.
        spacing_at: another rule at some numbers of steps.
        metrics: the first is the table's.
        source: the source of the published figures, a key of ``bench.published.SOURCES``.
        table: its number there.
        dataset: what the models of the figures were trained on.
        published_model: the figures' model where the table has several.
        reference: name of the image set that samples are scored against.
        images: what it must be, in words.
        image_shape: (C, H, W) of the reference's images.
        image_count: their number, where the source says it.
        image_hash: `bench.data.set_hash` of them, where it is known.
        n: images a trial.
        quick_n: with ``--quick``: for a look, never comparable with the published figures.
        notes: what a reader must know of the protocol.
    """

    name: str
    summary: str
    model: str
    samplers: tuple[str, ...]
    steps: tuple[int, ...]
    spacing: str
    source: str
    table: str
    dataset: str
    reference: str
    images: str
    image_shape: tuple[int, int, int]
    image_count: int | None = None
    image_hash: str | None = None
    spacing_at: Mapping[int, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("fid",)
    published_model: str | None = None
    n: int = 50_000
    quick_n: int = 5_000
    notes: tuple[str, ...] = ()

    def spacing_of(self, steps: int) -> str:
        """Return the rule that chooses S time steps."""
        return self.spacing_at.get(steps, self.spacing)

    def values(self) -> tuple[PublishedValue, ...]:
        """Return the published values of the table."""
        found = published_values(
            source=self.source, table=self.table, dataset=self.dataset, metric=self.metrics[0]
        )
        return tuple(f for f in found if self.published_model in (None, f.model))


_ROWS = (
    *(f"ddim:eta={eta},clip=none" for eta in ("0", "0.2", "0.5", "1")),
    "ddpm:variance=fixedlarge,clip=x0",
)


_DDIM_NOTES = (
    "eta rows without clipping, the sigma-hat row (ddpm fixedlarge) with x_0 clamped to [-1, 1], as in the"
    " published code",
    "all 1000 time steps at S=1000; images rounded to 256 levels",
)


PRESETS: Mapping[str, Preset] = {
    preset.name: preset
    for preset in (
        Preset(
            name="ddim-table1-cifar10",
            summary="DDIM, table 1, CIFAR-10: FID of five samplers at 10 to 1000 steps",
            model="ema_cifar10",
            samplers=_ROWS,
            steps=(10, 20, 50, 100, 1000),
            spacing="quadratic",
            spacing_at={1000: "all"},
            source="arXiv:2010.02502",
            table="1",
            dataset="cifar10",
            reference="cifar10",
            images="the 50,000 training images of CIFAR-10",
            image_shape=(3, 32, 32),
            image_count=50_000,
            image_hash=TRAIN_SET,
            notes=_DDIM_NOTES,
        ),
        Preset(
            name="ddim-table1-celeba64",
            summary="DDIM, table 1, CelebA 64x64: FID of five samplers at 10 to 1000 steps",
            model="ddim-celeba64",
            samplers=_ROWS,
            steps=(10, 20, 50, 100, 1000),
            spacing="uniform",
            spacing_at={1000: "all"},
            source="arXiv:2010.02502",
            table="1",
            dataset="celeba64",
            reference="celeba64",
            images="CelebA, cropped to 128x128 around (89, 121) and resized to 64x64",
            image_shape=(3, 64, 64),
            notes=_DDIM_NOTES,
        ),
        Preset(
            name="iddpm-steps",
            summary="Improved DDPM, figure 8: FID against steps, learned against fixed variances",
            model="cifar10_uncond_50M_500K",
            samplers=(
                "ddpm:variance=learned,clip=x0",
                "ddpm:variance=fixedsmall,clip=x0",
                "ddpm:variance=fixedlarge,clip=x0",
                "ddim:eta=0,clip=x0",
            ),
            steps=(25, 50, 100, 200, 400, 1000, 4000),
            spacing="openai",
            source="arXiv:2102.09672",
            table="2",
            dataset="cifar10",
            published_model="4K cosine L_hybrid",
            reference="cifar10",
            images="the 50,000 training images of CIFAR-10",
            image_shape=(3, 32, 32),
            image_count=50_000,
            image_hash=TRAIN_SET,
            notes=(
                "x_0 clamped to [-1, 1]; T=4000; bits per dimension of the same steps: `python -m bench nll`",
            ),
        ),
    )
}
"""Every preset by name."""


def get_preset(name: str) -> Preset:
    """Return the preset called ``name``.

    Raises:
        UnknownNameError: with the nearest known names.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset", name, PRESETS)
    return PRESETS[name]
