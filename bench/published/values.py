"""Published figures as data, one row a value, each labelled by its source.

A published value is never a measured one: it stands in a column of its own, with its source beside it.
"""

from __future__ import annotations

import csv
import functools
import io
from collections.abc import Mapping
from dataclasses import dataclass, fields
from importlib import resources

import pandas as pd

from bench.errors import UnknownNameError

FILES = (
    "fid_published.csv",
    "nll_published.csv",
    "fid_solvers.csv",
    "fid_more.csv",
    "fid_diff_sampler.csv",
    "fid_adm.csv",
)


@dataclass(frozen=True)
class Citation:
    """Where figures come from.

    Attributes:
        authors: and year.
        title: the title of the paper or repository.
        url: where it can be read.
    """

    authors: str
    title: str
    url: str

    def __str__(self) -> str:
        return f"{self.authors}, {self.title}, {self.url}"


DIFF_SAMPLER = "zju-pi/diff-sampler README"
EDM = "NVlabs/edm README / abstract (arXiv:2206.00364)"
LDM = "CompVis/latent-diffusion README"
ADM = "openai/guided-diffusion README"
ADM_PAPER = "arXiv:2105.05233"
GITS = "zju-pi/diff-sampler gits-main/assets/fid.png (arXiv:2405.11326)"

_REPOSITORY = "https://github.com/zju-pi/diff-sampler"

SOURCES: Mapping[str, Citation] = {
    "arXiv:2006.11239": Citation(
        "Ho, Jain & Abbeel 2020",
        "Denoising Diffusion Probabilistic Models",
        "https://arxiv.org/abs/2006.11239",
    ),
    "arXiv:2010.02502": Citation(
        "Song, Meng & Ermon 2021", "Denoising Diffusion Implicit Models", "https://arxiv.org/abs/2010.02502"
    ),
    "arXiv:2102.09672": Citation(
        "Nichol & Dhariwal 2021",
        "Improved Denoising Diffusion Probabilistic Models",
        "https://arxiv.org/abs/2102.09672",
    ),
    "arXiv:2201.06503": Citation(
        "Bao, Li, Zhu & Zhang 2022",
        "Analytic-DPM: an Analytic Estimate of the Optimal Reverse Variance in Diffusion Probabilistic"
        " Models",
        "https://arxiv.org/abs/2201.06503",
    ),
    "arXiv:2204.13902": Citation(
        "Zhang & Chen 2023",
        "Fast Sampling of Diffusion Models with Exponential Integrator",
        "https://arxiv.org/abs/2204.13902",
    ),
    "arXiv:2206.00364": Citation(
        "Karras, Aittala, Aila & Laine 2022",
        "Elucidating the Design Space of Diffusion-Based Generative Models",
        "https://arxiv.org/abs/2206.00364",
    ),
    "arXiv:2206.00927": Citation(
        "Lu, Zhou, Bao, Chen, Li & Zhu 2022",
        "DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling in Around 10 Steps",
        "https://arxiv.org/abs/2206.00927",
    ),
    "arXiv:2302.04867": Citation(
        "Zhao, Bai, Rao, Zhou & Lu 2023",
        "UniPC: A Unified Predictor-Corrector Framework for Fast Sampling of Diffusion Models",
        "https://arxiv.org/abs/2302.04867",
    ),
    DIFF_SAMPLER: Citation("Zhou, Chen et al.", "diff-sampler, README", _REPOSITORY),
    "zju-pi/diff-sampler diff-solvers-main/README.md (68d5ce4)": Citation(
        "Zhou, Chen et al.", "diff-sampler, README of diff-solvers", _REPOSITORY
    ),
    GITS: Citation(
        "Chen, Zhou, Wang, Shen & Lyu 2024",
        "On the Trajectory Regularity of ODE-based Diffusion Sampling",
        "https://arxiv.org/abs/2405.11326",
    ),
    "zju-pi/diff-sampler amed-solver-main/assets/fid.jpg (arXiv:2312.00094)": Citation(
        "Zhou, Chen, Wang & Chen 2024",
        "Fast ODE-based Sampling for Diffusion Models in Around 5 Steps",
        "https://arxiv.org/abs/2312.00094",
    ),
    EDM: Citation(
        "Karras, Aittala, Aila & Laine 2022",
        "Elucidating the Design Space of Diffusion-Based Generative Models, README",
        "https://github.com/NVlabs/edm",
    ),
    LDM: Citation(
        "Rombach, Blattmann, Lorenz, Esser & Ommer 2022",
        "High-Resolution Image Synthesis with Latent Diffusion Models, README",
        "https://github.com/CompVis/latent-diffusion",
    ),
    ADM_PAPER: Citation(
        "Dhariwal & Nichol 2021",
        "Diffusion Models Beat GANs on Image Synthesis",
        "https://arxiv.org/abs/2105.05233",
    ),
    ADM: Citation(
        "Dhariwal & Nichol 2021",
        "Diffusion Models Beat GANs on Image Synthesis, README",
        "https://github.com/openai/guided-diffusion",
    ),
    "ShiguiLi/SciRE-Solver README (arXiv:2308.07896)": Citation(
        "Li, Chen & Zeng 2023",
        "SciRE-Solver: Accelerating Diffusion Models Sampling by Score-integrand Solver with Recursive"
        " Difference",
        "https://arxiv.org/abs/2308.07896",
    ),
    "yang-song/score_sde_pytorch README (arXiv:2011.13456)": Citation(
        "Song, Sohl-Dickstein, Kingma, Kumar, Ermon & Poole 2021",
        "Score-Based Generative Modeling through Stochastic Differential Equations, README",
        "https://github.com/yang-song/score_sde_pytorch",
    ),
    "arXiv:2310.13268 abstract (DPM-Solver-v3)": Citation(
        "Zheng, Lu, Chen & Zhu 2023",
        "DPM-Solver-v3: Improved Diffusion ODE Solver with Empirical Model Statistics",
        "https://arxiv.org/abs/2310.13268",
    ),
    "arXiv:2502.17423 abstract (S4S-Alt)": Citation(
        "Frankel, Chen, Li, Koh, Ratliff & Oh 2025",
        "S4S: Solving for a Diffusion Model Solver",
        "https://arxiv.org/abs/2502.17423",
    ),
    "arXiv:2507.14797 abstract (EPD)": Citation(
        "Zhu, Zhou, Chen et al. 2025",
        "Distilling Parallel Gradients for Fast ODE Solvers of Diffusion Models",
        "https://arxiv.org/abs/2507.14797",
    ),
    "arXiv:2510.23285 abstract (AdaSDE)": Citation(
        "Wang et al. 2025",
        "Adaptive Stochastic Coefficients for Accelerating Diffusion Sampling",
        "https://arxiv.org/abs/2510.23285",
    ),
}
"""What a value's ``source`` stands for."""


@dataclass(frozen=True)
class PublishedValue:
    """One published number.

    Attributes:
        source: a key of `SOURCES`.
        table: its number in the source, empty where it has none.
        dataset: what the model was trained on and is scored against.
        model: in the source's words.
        sampler: rule.
        eta: DDIM's parameter; None for other rules.
        variance: DDPM's choice; empty for other rules.
        spacing: rule for the time steps the source says it used.
        steps: S; None where the source counts network calls only.
        nfe: network calls; None where it does not say.
        metric: ``fid`` or ``nll_bits_per_dim``.
        value: as printed.
        note: what a reader must know.
    """

    source: str
    table: str
    dataset: str
    model: str
    sampler: str
    eta: float | None
    variance: str
    spacing: str
    steps: int | None
    nfe: int | None
    metric: str
    value: float
    note: str = ""

    @property
    def label(self) -> str:
        """The sampler as the tables here name it: ``ddim eta=0.2``, ``ddpm fixedlarge``."""
        parts = [self.sampler]
        if self.eta is not None:
            parts.append(f"eta={self.eta:g}")
        if self.variance:
            parts.append(VARIANCES.get(self.variance, self.variance))
        return " ".join(parts)

    @property
    def parameters(self) -> dict[str, object]:
        """What the source says of the rule's parameters, under our names; the others it does not name."""
        variance = VARIANCES.get(self.variance, self.variance)
        named = {"eta": self.eta, "variance": variance or None}
        return {name: value for name, value in named.items() if value is not None}

    def is_of(self, sampler: str, parameters: Mapping[str, object]) -> bool:
        """Return whether the number is of a rule with some parameters."""
        told = self.parameters.items()
        return self.sampler == sampler and all(parameters.get(name) == value for name, value in told)

    @property
    def best_of(self) -> int:
        """Number of runs of which the value is the least; 1 where the source tells one run or nothing."""
        return 3 if self.note.startswith("minimum of three runs") else 1

    @property
    def where(self) -> str:
        """Citation and table in a few words."""
        return f"{self.source}, table {self.table}" if self.table else self.source


VARIANCES = {"learned_range": "learned"}
"""Kinds of variance that the sources and our samplers name differently."""


def published_values(
    *,
    source: str | None = None,
    table: str | None = None,
    dataset: str | None = None,
    metric: str | None = None,
) -> tuple[PublishedValue, ...]:
    """Return the published figures that fit what is given, in the order of the files.

    Raises:
        UnknownNameError: if there is no such source.
    """
    if source is not None and source not in SOURCES:
        raise UnknownNameError("source of published figures", source, SOURCES)
    wanted = {"source": source, "table": table, "dataset": dataset, "metric": metric}
    return tuple(
        one
        for one in _all()
        if all(value is None or getattr(one, name) == value for name, value in wanted.items())
    )


def published_frame(
    *,
    source: str | None = None,
    table: str | None = None,
    dataset: str | None = None,
    metric: str | None = None,
) -> pd.DataFrame:
    """Return the published figures that fit what is given, all where nothing is, as a data frame.

    One row a value, in the order of the files. Columns: ``label``, the sampler as `bench.load_results` names
    it (without a clip mode, which no source gives a column), and the fields of `PublishedValue`: ``source,
    table, dataset, model, sampler, eta, variance, spacing, steps, nfe, metric, value, note``. ``steps`` and
    ``nfe`` are whole numbers that may be missing.

    Args:
        source: a key of `SOURCES`, as in ``arXiv:2010.02502``.
        table: its number or name there.
        dataset: as in ``cifar10``.
        metric: as in ``fid``.

    Raises:
        UnknownNameError: if there is no such source.
    """
    found = published_values(source=source, table=table, dataset=dataset, metric=metric)
    columns = ["label", *(field.name for field in fields(PublishedValue))]
    rows = [{"label": value.label, **vars(value)} for value in found]
    return pd.DataFrame(rows, columns=columns).astype({"steps": "Int64", "nfe": "Int64", "eta": float})


@functools.cache
def _all() -> tuple[PublishedValue, ...]:
    found = []
    for name in FILES:
        text = resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
        found += [_value(row) for row in csv.DictReader(io.StringIO(text))]
    return tuple(found)


def _value(row: Mapping[str, str]) -> PublishedValue:
    text = {name: row[name] for name in ("source", "table", "dataset", "model", "sampler", "variance")}
    return PublishedValue(
        **text,
        eta=float(row["eta"]) if row["eta"] else None,
        spacing=row["spacing"],
        steps=int(row["steps"]) if row["steps"] else None,
        nfe=int(row["nfe"]) if row["nfe"] else None,
        metric=row["metric"],
        value=float(row["value"]),
        note=row["note"],
    )
