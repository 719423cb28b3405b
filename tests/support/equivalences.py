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


OTHERS = (
    ("ddim", "euler", "DDIM?clip_sample=false", "`ddim`, `euler`"),
    ("euler", "euler", "EulerDiscrete", "`euler`"),
    ("euler-a", "euler_ancestral", "EulerAncestralDiscrete", "`euler_ancestral`"),
    ("ddpm:clip=none", "", "DDPM?clip_sample=false", "`ddpm`"),
    ("ddpm:variance=fixedlarge,clip=none", "", "DDPM?clip_sample=false&variance_type=fixed_large", ""),
    ("heun", "heun", "HeunDiscrete", "`heun`"),
    ("dpm2", "dpm_2", "KDPM2Discrete", "`dpm_2`"),
    ("dpm2-ancestral", "dpm_2_ancestral", "KDPM2AncestralDiscrete", "`dpm_2_ancestral`"),
    ("lms", "lms", "LMSDiscrete", "`lms`"),
    ("dpmpp-2s-ancestral", "dpmpp_2s_ancestral", "", "`dpmpp_2s_ancestral`"),
    ("dpmpp-2m", "dpmpp_2m", "DPMSolverMultistep", "`dpmpp_2m`"),
    ("dpmpp-3m", "", "DPMSolverMultistep?solver_order=3", ""),
    ("dpmpp-2m-sde", "dpmpp_2m_sde", "DPMSolverMultistep?algorithm_type=sde-dpmsolver++", "`dpmpp_2m_sde`"),
    ("dpmpp-3m-sde", "dpmpp_3m_sde", "", "`dpmpp_3m_sde`"),
    ("dpmpp-sde-single", "dpmpp_sde", "DPMSolverSDE", "`dpmpp_sde`"),
    ("unipc:b=bh2,final=lowered", "", "UniPCMultistep?solver_order=3", "`uni_pc_bh2`"),
    ("unipc:b=bh1,final=lowered", "", "UniPCMultistep?solver_order=3&solver_type=bh1", "`uni_pc`"),
    ("deis:order=2,basis=logrho,final=lowered15", "", "DEISMultistep", ""),
)
"""Our name, k-diffusion's, diffusers', and ComfyUI's."""


def verdict_of(ours, theirs):
    """The verdict on one pair, once where it is the same at both S."""
    pair = [get_sampler(ours), get_sampler(theirs)]
    found = [shown(one) for one in likenesses(pair, (10, 20), "linspace")]
    return found[0] if len(set(found)) == 1 else f"S=10 {found[0]}; S=20 {found[1]}"


def others():
    """The table of other libraries' names, each run beside ours."""
    lines = ["| here | k-diffusion | diffusers | ComfyUI |\n|---|---|---|---|\n"]
    for ours, k_diffusion, diffusers, comfy in OTHERS:
        cells = [f"`{ours}`"]
        for library, name in (("k-diffusion", k_diffusion), ("diffusers", diffusers)):
            told = f"`{name}`: {verdict_of(ours, f'{library}:{name}')}" if name else ""
            cells.append(told)
        lines.append(f"| {' | '.join([*cells, comfy])} |\n")
    return "".join(lines)


TABLE = Generated(DOCS / "equivalences.md", "verdicts", table)
NAMES = Generated(DOCS / "equivalences.md", "names", others)

if __name__ == "__main__":
    TABLE.main()
    NAMES.main()
