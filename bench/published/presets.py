"""Presets: the protocols behind published tables, as data that ``run`` and ``table`` take by name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.data.cifar10 import TRAIN_SET
from bench.errors import UnknownNameError
from bench.published.values import (
    ADM,
    ADM_PAPER,
    DIFF_SAMPLER,
    EDM,
    GITS,
    LDM,
    PublishedValue,
    published_values,
)
from bench.spec import split_spec

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
class PresetRow:
    """A row of a published table.

    Attributes:
        sampler: ours, as text.
        name: what the source calls it; empty where rule and parameters tell which of its values are meant.
        spacing: rule for the time steps, where it is not that of the whole table.
        columns: its columns, where they are not all of the table's.
    """

    sampler: str
    name: str = ""
    spacing: str = ""
    columns: tuple[int, ...] = ()


@dataclass(frozen=True)
class Preset:
    """The protocol of a published table.

    Attributes:
        name: what ``--preset`` takes.
        summary: one line.
        model: card of the checkpoint the table was made with.
        rows: its rows.
        steps: its columns, where they are numbers of steps.
        calls: its columns, where they are network calls.
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
        get: how to come by the model, where it is not enough that its name is known.
        n: images a trial.
        quick_n: with ``--quick``: for a look, never comparable with the published figures.
        notes: what a reader must know of the protocol.
    """

    name: str
    summary: str
    model: str
    rows: tuple[PresetRow, ...]
    spacing: str
    source: str
    table: str
    dataset: str
    reference: str | None
    images: str
    image_shape: tuple[int, int, int]
    image_count: int | None = None
    image_hash: str | None = None
    steps: tuple[int, ...] = ()
    calls: tuple[int, ...] = ()
    spacing_at: Mapping[int, str] = field(default_factory=dict)
    metrics: tuple[str, ...] = ("fid",)
    published_model: str | None = None
    get: str = ""
    n: int = 50_000
    quick_n: int = 5_000
    notes: tuple[str, ...] = ()

    @property
    def samplers(self) -> tuple[str, ...]:
        """Our samplers, as text, in the order of the rows."""
        return tuple(row.sampler for row in self.rows)

    @property
    def columns(self) -> tuple[int, ...]:
        """Numbers of steps, or of network calls."""
        return self.calls or self.steps

    def spacing_of(self, steps: int, row: PresetRow | None = None) -> str:
        """Return the rule that chooses S time steps, in a row where rows differ in it."""
        own = self.spacing if row is None else row.spacing or self.spacing
        return self.spacing_at.get(steps, own)

    def by_spacing(self) -> dict[str, list[str]]:
        """Return the samplers of every rule for the time steps."""
        found: dict[str, list[str]] = {}
        for row in self.rows:
            found.setdefault(row.spacing or self.spacing, []).append(row.sampler)
        return found

    def is_model(self, model: str) -> bool:
        """Return whether ``--model`` names the table's model: by its name, or what is called so."""
        name = split_spec(model)[0]
        return self.model in (model, Path(name).stem, name.rpartition(":")[2])

    def values(self) -> tuple[PublishedValue, ...]:
        """Return the published values of the table."""
        found = published_values(
            source=self.source, table=self.table, dataset=self.dataset, metric=self.metrics[0]
        )
        return tuple(f for f in found if self.published_model in (None, f.model))


_ROWS = (
    *(PresetRow(f"ddim:eta={eta},clip=none") for eta in ("0", "0.2", "0.5", "1")),
    PresetRow("ddpm:variance=fixedlarge,clip=x0"),
)

_EDM, _LOGSNR, _VP = "edm:rho=7,stop=true", "logsnr:stop=true", "vp:rho=2,stop=true"

_FEW_CALLS = (
    PresetRow("ddim", "euler", _EDM),
    PresetRow("heun", "heun", _EDM),
    PresetRow("dpm2", "dpm-solver-2", _EDM),
    PresetRow("dpmpp:order=3,final=lowered", "dpmpp-3m", _LOGSNR),
    PresetRow("unipc:order=3,b=bh2,final=lowered", "unipc-3", _LOGSNR),
    PresetRow("deis:basis=vp", "deis-tab3", _VP),
    PresetRow("ipndm", "ipndm-4", _EDM),
    PresetRow("ipndm-v", "ipndm-v-4", _EDM),
)
"""The rows of diff-sampler's tables and their time grids, as its README tells them."""

_FEW_CALLS_NOTES = (
    "S steps between S + 1 levels, the last of which is the end: no step to x_0",
    "Euler, Heun, DPM-Solver-2, iPNDM and iPNDM_v on Karras et al.'s levels with rho = 7, DPM-Solver++ and"
    " UniPC even in log SNR with their orders lowered at the end, DEIS-tAB3 on squares of equal parts of a"
    " variance-preserving diffusion's time, in which its polynomials are",
)

_CONVERT = "convert EDM's file as docs/networks.md says and give --model PATH/{}.safetensors"


_CIFAR10: dict[str, Any] = {
    "dataset": "cifar10",
    "reference": "cifar10",
    "images": "the 50,000 training images of CIFAR-10",
    "image_shape": (3, 32, 32),
    "image_count": 50_000,
    "image_hash": TRAIN_SET,
}
"""The images behind several tables, as `Preset` takes them."""


def _not_at_hand(dataset: str, images: str, side: int) -> dict[str, Any]:
    """Return the same of images that the user must name."""
    return {"dataset": dataset, "reference": None, "images": images, "image_shape": (3, side, side)}


_BEDROOM = _not_at_hand("lsun-bedroom256", "the images of LSUN bedroom at 256x256", 256)


def _few_calls(name: str, title: str, model: str, images: dict[str, Any]) -> Preset:
    """Return the preset of one of diff-sampler's tables: solvers at 3 to 10 network calls."""
    return Preset(
        name=name,
        summary=f"diff-sampler, {title}: FID of solvers at 3 to 10 network calls",
        model=model,
        rows=_FEW_CALLS,
        calls=(3, 4, 5, 6, 7, 8, 9, 10),
        spacing=_EDM,
        source=DIFF_SAMPLER,
        table="",
        get=_CONVERT.format(model),
        notes=_FEW_CALLS_NOTES,
        **images,
    )


def _latent(name: str, title: str, dataset: str, eta: int, steps: int = 200) -> Preset:
    """Return the preset of one of the first latent diffusion models, drawn by DDIM."""
    model = f"{name}-256"
    taken = ("of 1,000 time steps every second is taken, 500 and not 400, as in the published code",)
    return Preset(
        name=name,
        summary=f"Latent diffusion, {title}: DDIM with {steps} steps",
        model=model,
        rows=(PresetRow(f"ddim:eta={eta}"),),
        steps=(steps,),
        spacing="uniform",
        source=LDM,
        table="",
        get=f"give --model diffusers:PATH/{model}, a folder in diffusers' form",
        notes=taken if steps == 400 else (),
        **_not_at_hand(dataset, f"the images of {title} at 256x256", 256),
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
            rows=_ROWS,
            steps=(10, 20, 50, 100, 1000),
            spacing="quadratic",
            spacing_at={1000: "all"},
            source="arXiv:2010.02502",
            table="1",
            **_CIFAR10,
            notes=_DDIM_NOTES,
        ),
        Preset(
            name="ddim-table1-celeba64",
            summary="DDIM, table 1, CelebA 64x64: FID of five samplers at 10 to 1000 steps",
            model="ddim-celeba64",
            rows=_ROWS,
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
            rows=(
                PresetRow("ddpm:variance=learned,clip=x0"),
                PresetRow("ddpm:variance=fixedsmall,clip=x0"),
                PresetRow("ddpm:variance=fixedlarge,clip=x0"),
                PresetRow("ddim:eta=0,clip=x0"),
            ),
            steps=(25, 50, 100, 200, 400, 1000, 4000),
            spacing="openai",
            source="arXiv:2102.09672",
            table="2",
            published_model="4K cosine L_hybrid",
            **_CIFAR10,
            notes=(
                "x_0 clamped to [-1, 1]; T=4000; bits per dimension of the same steps: `sampler-bench nll`",
            ),
        ),
        _few_calls("edm-cifar10-uncond", "CIFAR-10", "edm-cifar10-32x32-uncond-vp", _CIFAR10),
        _few_calls(
            "edm-ffhq64",
            "FFHQ 64x64",
            "edm-ffhq-64x64-uncond-vp",
            _not_at_hand("ffhq64", "the images that FFHQ 64x64 is of", 64),
        ),
        _few_calls(
            "edm-imagenet64",
            "ImageNet 64x64",
            "edm-imagenet-64x64-cond-adm",
            _not_at_hand("imagenet64", "the images that ImageNet 64x64 is of", 64),
        ),
        Preset(
            name="edm-lsun-bedroom",
            summary="GITS, LSUN bedroom 256x256: FID of solvers at 5 to 10 network calls",
            model="edm_bedroom256_ema",
            rows=(
                PresetRow("ddim", "ddim", _EDM),
                PresetRow("dpm2", "dpm-solver-2", _EDM, columns=(6, 8, 10)),
                PresetRow("dpmpp:order=3,final=lowered", "dpmpp-3m", _LOGSNR),
                PresetRow("unipc:order=3,b=bh2,final=lowered", "unipc", _LOGSNR),
                PresetRow("ipndm", "ipndm", _EDM),
            ),
            calls=(5, 6, 8, 10),
            spacing=_EDM,
            source=GITS,
            table="1",
            published_model="consistency edm_bedroom256_ema",
            get="give --model mine.py:edm_bedroom256_ema, a function that returns the network of"
            " https://github.com/openai/consistency_models on ContinuousSchedule.edm()",
            notes=_FEW_CALLS_NOTES[:1],
            **_BEDROOM,
        ),
        Preset(
            name="edm-heun-cifar10",
            summary="EDM, table 2, CIFAR-10: Heun's method with 35 network calls",
            model="edm-cifar10-32x32-uncond-vp",
            rows=(PresetRow("heun", "edm"),),
            calls=(35,),
            spacing="edm:rho=7",
            source=EDM,
            table="2",
            **_CIFAR10,
            get=_CONVERT.format("edm-cifar10-32x32-uncond-vp"),
            notes=("the published value is the least of three runs, and compared as what that is",),
        ),
        Preset(
            name="dpm-solver-cifar10",
            summary="DPM-Solver, CIFAR-10: DPM-Solver-fast with 10 and 20 network calls",
            model="cifar10_ddpmpp_deep_continuous",
            rows=(
                PresetRow("dpm-single:order=3,final=1", "dpm-solver", columns=(10,)),
                PresetRow("dpm-single:order=3,final=2", "dpm-solver", columns=(20,)),
            ),
            calls=(10, 20),
            spacing=_LOGSNR,
            source="arXiv:2206.00927",
            table="",
            **_CIFAR10,
            get="give --model mine.py:cifar10_ddpmpp_deep_continuous, a function that returns score_sde's"
            " network on ContinuousSchedule.vp()",
            notes=(
                "steps even in log SNR of three calls each, the last of one or two, which end before x_0 at"
                " the schedule's first time",
            ),
        ),
        _latent("ldm-celebahq", "CelebA-HQ", "celebahq256", 0),
        _latent("ldm-ffhq", "FFHQ", "ffhq256", 1),
        _latent("ldm-lsun-church", "LSUN church", "lsun-church256", 0, 400),
        _latent("ldm-lsun-bedroom", "LSUN bedroom", "lsun-bedroom256", 1),
        Preset(
            name="lsun-bedroom",
            summary="ADM, LSUN bedroom: learned variance with 1000 steps",
            model="guided_lsun_bedroom",
            rows=(PresetRow("ddpm:variance=learned,clip=x0", "ddpm learned_range"),),
            steps=(1000,),
            spacing="all",
            source=ADM,
            table="",
            **_BEDROOM,
        ),
        Preset(
            name="adm-imagenet64",
            summary="ADM, table 5, ImageNet 64x64: learned variance with 250 steps, without guidance",
            model="guided_64x64_diffusion",
            rows=(PresetRow("ddpm:variance=learned,clip=x0", "ddpm learned_range"),),
            steps=(250,),
            spacing="openai",
            source=ADM_PAPER,
            table="5",
            published_model="ADM (dropout)",
            notes=("x_0 clamped to [-1, 1]; classes are drawn evenly",),
            **_not_at_hand("imagenet64", "the images that ImageNet 64x64 is of", 64),
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
