"""The certificates of the built-in samplers in docs/samplers.md, measured anew: --write puts them there."""

import re
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from bench import get_sampler
from bench.diffusion.conformance import check_sampler, counted
from bench.plugins.loading import registry

sys.path.insert(0, str(Path(__file__).parents[1]))

from support.generated import DOCS, Generated
from support.golden import (
    MULTISTEP,
    SINGLE,
    multistep_spec,
    published_moments,
    run_multistep,
    run_single,
    single_spec,
)

HEAD = (
    "| sampler | order declared | measured | calls a step | clauses kept | published trajectories"
    " (greatest deviation) |\n|---|---|---|---|---|---|\n"
)
FURTHER = (
    "dpmpp:order=3,weights=exact",
    "dpm-solver:order=3,weights=exact",
    "unipc:order=2,final=only",
    "unipc:order=3,final=only",
    "deis:order=3",
    "deis:order=4,basis=rho",
    "ipndm-v:order=4,weights=exact",
    "dpm-single:order=3",
    "dpmpp-single:order=3",
    "er-sde:order=3,scale=ode,weights=exact",
    "sa-solver:predictor=3,corrector=4,tau=0,mode=more,final=only",
)
"""Choices of parameters beside the registered ones."""


ADAPTERS = ("diffusers", "k-diffusion", "learned")
"""Rules of other libraries or of files: which it is, a parameter says."""


def deviations():
    """{name of a rule: [(deviation, tolerance) of each published trajectory]}."""
    found = defaultdict(list)
    for case in MULTISTEP.values():
        found[multistep_spec(case).partition(":")[0]].append((run_multistep(case)[0], case["tolerance"]))
    with tempfile.TemporaryDirectory() as folder:
        moments = published_moments(folder)
        for case in SINGLE.values():
            if case["sampler"] != "ddim-inverse":
                name = single_spec(case, moments).partition(":")[0]
                found[name].append((run_single(case, moments)[0], case["tolerance"]))
    return found


def chosen():
    """{name: sampler} of every registered choice, one name each, and some more."""
    offered = registry().default_samplers.entries | registry().samplers.entries
    names = {one.spec: one.label for one in offered.values() if one.name not in ADAPTERS}
    return {label: get_sampler(spec) for spec, label in names.items()} | {
        spec: get_sampler(spec) for spec in FURTHER
    }


def order_of(findings):
    """The measured order as the last clause tells it."""
    detail = findings[-1].detail
    measured = re.match(r"measured ([\d.]+),", detail)
    return measured[1] if measured else "exact" if detail.startswith("exact") else "does not apply"


def rows():
    """The rows of the table."""
    golden, told = deviations(), set()
    for label, one in chosen().items():
        findings = check_sampler(one)
        kept, asked = counted(findings)
        match = ""
        if one.name in golden and one.name not in told:
            told.add(one.name)
            gaps = golden[one.name]
            match = f"{len(gaps)} ({max(gap for gap, _ in gaps):.0e})"
        declared = "none" if one.order is None else one.order
        calls = "varies" if one.calls_per_step is None else one.calls_per_step
        yield f"| `{label}` | {declared} | {order_of(findings)} | {calls} | {kept} of {asked} | {match} |\n"


def table():
    """The whole table, as it stands in the document."""
    return HEAD + "".join(rows())


TABLE = Generated(DOCS / "samplers.md", "certificates", table)

if __name__ == "__main__":
    TABLE.main()
