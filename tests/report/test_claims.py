"""Claims by shape: true on the tables they were read from, and as often wrong by chance as they say."""

import itertools
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from support.reports import record, score, table

from bench.published.claims import CLAIMS, Claim, Link, Shape
from bench.published.presets import get_preset
from bench.records.record import FLOOR
from bench.report.tables import sheets
from bench.report.tables.findings import claims_sheet, find_claims, judge
from bench.stats.resampling import jackknife

BY_NAME = {claim.name: claim for claim in CLAIMS}
PAPER = [claim for claim in CLAIMS if "2010.02502" in claim.source]


def published(name, se=0.001):
    """A paper's table as if it were ours, with an error far below its differences."""
    preset = get_preset(name)
    specs = {"ddpm fixedlarge": "sigma-hat"}
    return table(
        record(specs.get(f.label, f.label.replace(" ", ":")), f.steps, f.value, se=se, seed=i,
               spacing=preset.spacing_of(f.steps))
        for i, f in enumerate(preset.values())
    )  # fmt: skip


def verdicts(made, claims=CLAIMS):
    return {found.claim.name: found.verdict for found in find_claims(made, claims)}


def test_every_claim_holds_on_the_table_it_was_read_from():
    found = verdicts(published("ddim-table1-cifar10"), PAPER)
    assert found == dict.fromkeys(found, "holds")
    assert len(found) == 8


def test_on_celeba_all_hold_but_the_one_read_from_cifar():
    found = verdicts(published("ddim-table1-celeba64"), PAPER)
    assert found.pop("eta-0-near-limit") == "fails"  # 9.17 against 3.51
    assert found == dict.fromkeys(found, "holds")


def test_errors_as_large_as_the_differences_leave_a_claim_undecided():
    found = verdicts(published("ddim-table1-cifar10", se=0.5))
    assert found["sigma-hat-worst"] == "holds"  # 32.72 against 8.01
    assert found["eta-order-10"] == "undecided"  # 13.36 against 14.04
    assert found["sigma-hat-best"] == "undecided"  # 3.17 against 4.04
    assert found["learned-best-few"] == "not tested"


def test_a_reversed_order_fails_and_the_weakest_link_says_where():
    values = {"ddim:eta=0": 13.0, "ddim:eta=0.2": 12.0, "ddim:eta=0.5": 16.0, "ddim:eta=1": 41.0}
    made = table([record(spec, 10, value, seed=i) for i, (spec, value) in enumerate(values.items())])
    (found,) = find_claims(made, [BY_NAME["eta-order-10"]])
    assert found.verdict == "fails"
    assert found.p < 1e-6
    assert found.in_order == 2
    assert found.weakest.startswith("ddim eta=0 better than ddim eta=0.2 at S=10 by -1 ± 0.0")


def test_a_score_whose_greater_values_are_better_is_read_the_other_way_round():
    values = {"ddim:eta=0": 0.9, "ddim:eta=0.2": 0.8, "ddim:eta=0.5": 0.6, "ddim:eta=1": 0.3}
    records = [
        record(spec, 10, value, metric="precision", higher_is_better=True, seed=i)
        for i, (spec, value) in enumerate(values.items())
    ]
    claim = [BY_NAME["eta-order-10"]]
    assert verdicts(table(records), claim) == {"eta-order-10": "holds"}
    lower = [
        replace(r, scores={m: replace(s, higher_is_better=False) for m, s in r.scores.items()})
        for r in records
    ]
    assert verdicts(table(lower), claim) == {"eta-order-10": "fails"}


@pytest.mark.parametrize(
    ("value", "higher", "verdict"),
    [(1.15, False, "holds"), (1.25, False, "fails"), (0.9, True, "holds"), (0.8, True, "fails")],
)
def test_within_twenty_per_cent(value, higher, verdict):
    made = table([
        record(steps=50, value=value, higher_is_better=higher, seed=1),
        record(steps=1000, value=1.0, higher_is_better=higher, spacing="all", seed=2),
    ])  # fmt: skip
    assert verdicts(made, [BY_NAME["eta-0-near-limit"]]) == {"eta-0-near-limit": verdict}


def test_a_grid_with_repeated_levels_is_not_all_steps():
    values = [record("sigma-hat", 1000, 3.0, levels=688)]
    values += [record(f"ddim:eta={eta}", 1000, 4.0, levels=688) for eta in ("0", "0.2", "0.5", "1")]
    (found,) = find_claims(table(values), [BY_NAME["sigma-hat-best"]])
    assert (found.verdict, found.p) == ("not tested", None)
    assert found.message == "needs ddpm fixedlarge and ddim at eta 0, 0.2, 0.5 and 1 with S=T"


def test_failed_cells_and_real_images_are_no_evidence():
    values = [record(f"ddim:eta={eta}", 10, 1.0 + i) for i, eta in enumerate(("0", "0.2", "0.5"))]
    values += [record("ddim:eta=1", 10, status="failed"), record(FLOOR, 0, 0.5)]
    assert verdicts(table(values), [BY_NAME["eta-order-10"]]) == {"eta-order-10": "not tested"}


def _simulated(rng, means, groups=20):
    """Scores that are means of groups of normal draws, paired through a common part."""
    common = rng.normal(size=groups)
    made = []
    for mean in means:
        draws = mean + common + 0.3 * rng.normal(size=groups)
        total = draws.sum()
        found = jackknife(draws.mean(), ((total - draws) / (groups - 1)).tolist())
        base = score(0.0, n=1000)
        made.append(
            replace(
                base,
                value=found.value,
                debiased=found.debiased,
                se=found.se,
                leave_one_out=found.leave_one_out,
            )
        )
    return made


def test_a_tie_is_called_an_order_in_one_of_twenty_runs():
    rng = np.random.default_rng(0)
    places = [("a", 10), ("b", 10)]
    claim = Claim("c", "a better than b", "arXiv", lambda shape: [Link(*places)], "")
    shape, runs = Shape(frozenset(places), None), 2000
    found = [
        judge(claim, shape, dict(zip(places, _simulated(rng, (0, 0)), strict=True))).verdict
        for _ in range(runs)
    ]
    # 5% each way; the count's standard deviation is 10, four of them are allowed
    assert 60 < found.count("holds") < 140
    assert 60 < found.count("fails") < 140


def test_a_chain_of_ties_is_called_wrong_no_more_often():
    rng = np.random.default_rng(1)
    places = [(row, 10) for row in "abcd"]
    links = [Link(x, y) for x, y in itertools.pairwise(places)]
    claim = Claim("c", "a better than b better than c better than d", "arXiv", lambda shape: links, "")
    shape, runs = Shape(frozenset(places), None), 600
    found = [
        judge(claim, shape, dict(zip(places, _simulated(rng, (0,) * 4), strict=True))).verdict
        for _ in range(runs)
    ]
    assert found.count("holds") <= 3
    assert found.count("fails") < 30 + 4 * 5.4


def test_pairing_finds_what_errors_of_their_own_would_hide():
    rng = np.random.default_rng(2)
    places = [("a", 10), ("b", 10)]
    a, b = _simulated(rng, (0.0, 0.5))
    assert abs(a.value - b.value) < 2 * np.hypot(a.se, b.se)
    claim = Claim("c", "a better than b", "arXiv", lambda shape: [Link(*places)], "")
    assert (
        judge(claim, Shape(frozenset(places), None), dict(zip(places, (a, b), strict=True))).verdict
        == "holds"
    )


def test_claims_in_every_format():
    made = published("ddim-table1-cifar10")
    few = replace(made, cells={place: cell for place, cell in made.cells.items() if place[1] != 1000})
    for name, form in sheets.FORMATS.items():
        assert form(claims_sheet(made, find_claims(made))).count("holds") >= 8, name
        assert "not tested" in form(claims_sheet(few, find_claims(few))), name


def test_claims_of_papers_that_a_table_cannot_test_are_left_out_of_its_sheet():
    made = published("ddim-table1-cifar10")
    assert {row[-1][:16] for row in claims_sheet(made, find_claims(made)).rows} == {"arXiv:2010.02502"}
    nothing = table([record("ddim", 10, 4.0)])
    assert len(claims_sheet(nothing, find_claims(nothing)).rows) == len(CLAIMS)


def test_claims_have_names_of_their_own_and_sources():
    assert len(BY_NAME) == len(CLAIMS)
    cited = resources.files("bench.published").joinpath("bibliography.bib").read_text(encoding="utf-8")
    for claim in CLAIMS:
        assert claim.source[claim.source.index("arXiv:") + 6 :][:10] in cited


def solvers(values):
    """A table of solvers: {(row, S): value}, with an error far below the differences."""
    return table(record(row, s, v, se=0.001, seed=i) for i, ((row, s), v) in enumerate(values.items()))


@pytest.mark.parametrize(
    ("name", "holding", "failing"),
    [
        (
            "order-2-beats-ddim",
            {("ddim", 10): 13.0, ("dpmpp-2m", 10): 5.0, ("unipc", 10): 4.0},
            {("ddim", 10): 13.0, ("dpmpp-2m", 10): 5.0, ("unipc", 10): 14.0},
        ),
        (
            "unipc-few",
            {("unipc", 5): 23.9, ("dpmpp-2m", 5): 24.9, ("unipc", 12): 9.0, ("dpmpp-2m", 12): 1.0},
            {("unipc", 8): 4.5, ("dpmpp-2m", 8): 4.0},
        ),
        (
            "order-3-late",
            {("dpmpp-3m", 15): 3.0, ("dpmpp-2m", 15): 3.5, ("dpmpp-3m", 8): 9.0, ("dpmpp-2m", 8): 8.0},
            {("dpmpp-3m", 20): 3.6, ("dpmpp-2m", 20): 3.5},
        ),
        (
            "multistep-beats-single",
            {("dpmpp-2m", 9): 4.0, ("dpmpp-2s", 5): 6.0, ("dpmpp-2m", 5): 20.0},
            {("dpmpp-2m", 9): 8.0, ("dpmpp-2s", 5): 6.0},
        ),
        (
            "heun-late",
            {("ddim", 5): 49.0, ("heun", 3): 200.0, ("ddim", 9): 18.0, ("heun", 5): 30.0},
            {("ddim", 9): 18.0, ("heun", 5): 17.0},
        ),
    ],
)
def test_claims_of_the_solver_papers(name, holding, failing):
    claim = [BY_NAME[name]]
    assert verdicts(solvers(holding), claim) == {name: "holds"}
    assert verdicts(solvers(failing), claim) == {name: "fails"}
    assert verdicts(published("ddim-table1-cifar10"), claim) == {name: "not tested"}
