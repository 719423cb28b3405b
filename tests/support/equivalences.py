"""The tables of docs/equivalences.md, made by comparing trajectories: --write puts them there."""

import re
import sys
from pathlib import Path

from bench import get_sampler
from bench.diffusion.equivalence import likenesses

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.generated import DOCS, Generated

HEAD = "| one | other | S=10 | S=20 |\n|---|---|---|---|\n"
PAIRS = (
    ("ddim", "euler"),
    ("ddim", "dpmpp:order=1"),
    ("ddim", "dpm-solver:order=1"),
    ("ddim", "er-sde:order=1,scale=ode"),
    ("ddim", "unipc:order=1"),
    ("ddim:eta=1", "ddpm:clip=none"),
    ("ddim:eta=1", "euler-ancestral"),
    ("ddim:eta=1", "dpmpp-sde:order=1"),
    ("ddim:eta=1", "sa-solver:predictor=1,corrector=0,final=only"),
    ("ddpm:clip=none", "sigma-hat:clip=none"),
    ("dpm2", "dpm-single:order=2"),
    ("dpm2", "dpmpp-2s"),
    ("heun", "edm:churn=0"),
    ("heun", "dpm2"),
    ("plms", "ipndm"),
    ("dpmpp-2m", "dpmpp"),
    ("dpmpp-2m", "dpmpp:order=2,form=heun"),
    ("dpmpp-2m", "dpm-solver"),
    ("dpmpp-2m-sde:eta=0", "dpmpp-2m"),
    ("dpmpp-3m", "dpmpp:order=3,final=only"),
    ("dpmpp-3m", "dpmpp:order=3,weights=exact"),
    (
        "dpmpp:order=3,form=heun,weights=exact,final=only",
        "sa-solver:predictor=3,corrector=0,tau=0,mode=more,final=only",
    ),
    ("deis:order=2,basis=logrho", "dpm-solver:order=2,form=heun,final=only"),
    ("deis:order=4,basis=rho,final=none", "lms"),
    ("deis:order=4", "lms"),
    ("ipndm-v:order=2", "lms:order=2,final=only"),
    ("ipndm-v", "ipndm-v:weights=exact"),
    ("unipc:b=bh1", "unipc:b=bh2"),
    ("unipc:order=2,b=bh1", "unipc:order=2,b=bh2"),
    ("dpmpp-single:order=3", "dpmpp-single:order=3,inner=midpoint"),
)


def shown(found):
    """The verdict without the digits that another machine rounds otherwise."""
    if max(found.differences) < 1e-10:
        return "same"
    return re.sub(r"( to|:) \d.*?(?=,|$)", "", found.verdict)


def rows():
    """The rows of the table."""
    for one, other in PAIRS:
        pair = [get_sampler(one), get_sampler(other)]
        verdicts = [shown(found) for found in likenesses(pair, (10, 20), "linspace")]
        yield f"| `{one}` | `{other}` | {' | '.join(verdicts)} |\n"


def table():
    """The whole table, as it stands in the document."""
    return HEAD + "".join(rows())


TABLE = Generated(DOCS / "equivalences.md", "verdicts", table)

if __name__ == "__main__":
    TABLE.main()
