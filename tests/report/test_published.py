"""Published figures: they are what the papers print, and ours is set beside them only where it may be."""

import math
import re
from dataclasses import replace

import pytest
from support.reports import record, table

import bench
from bench.diffusion.sampling import get_sampler
from bench.errors import UnknownNameError
from bench.published.presets import PRESETS, get_preset, tolerance
from bench.published.values import FILES, SOURCES, published_frame, published_values
from bench.records.store import Store
from bench.report.tables import sheets
from bench.report.tables.comparison import compare_published, published_table
from bench.stats.comparison import interval

CIFAR = get_preset("ddim-table1-cifar10")


def test_figures_are_those_of_the_papers():
    # Song et al. 2021, table 1, and Ho et al. 2020, table 1, read independently of the files.
    ddim = {(f.label, f.steps): f.value for f in CIFAR.values()}
    assert len(ddim) == 25
    assert [ddim["ddim eta=0", s] for s in (10, 20, 50, 100, 1000)] == [13.36, 6.84, 4.67, 4.16, 4.04]
    assert [ddim["ddim eta=1", s] for s in (10, 20, 50, 100, 1000)] == [41.07, 18.36, 8.01, 5.78, 4.73]
    assert ddim["ddpm fixedlarge", 10] == 367.43
    assert {
        f.value
        for f in published_values(source="arXiv:2006.11239", metric="fid")
        if f.variance == "fixedlarge"
    } == {3.17}


def test_the_package_has_the_files_as_they_were_collected(shared):
    from importlib import resources

    for name in FILES[:-2]:  # the others were read off a README and a paper's table
        assert (
            resources.files("bench.published").joinpath(name).read_bytes()
            == (shared / "published" / name).read_bytes()
        )


def test_every_figure_has_a_source_that_is_known():
    frame = published_frame()
    assert len(frame) == 259 + 27 + 293 + 70 + 120 + 2
    assert set(frame.source) == set(SOURCES)
    assert set(frame.metric) == {"fid", "nll_bits_per_dim"}
    with pytest.raises(UnknownNameError, match=r"did you mean arXiv:2010\.02502"):
        published_values(source="arXiv:2010.0250")


def test_published_figures_are_a_frame_beside_the_results(tmp_path):
    """As the page on results shows it; the row is that of Song et al. 2021, table 1, read off the paper."""
    chosen = bench.published_frame(source="arXiv:2010.02502", dataset="cifar10")
    wide = chosen.pivot(index="label", columns="steps", values="value")
    assert wide.loc["ddim eta=0.2", [10, 20, 50, 100, 1000]].tolist() == [14.04, 7.11, 4.77, 4.25, 4.09]
    assert chosen.dtypes[["steps", "nfe", "eta"]].astype(str).tolist() == ["Int64", "Int64", "float64"]
    made = Store(tmp_path)
    made.prepare()
    made.write(record("ddim:eta=0.2", 20, 7.5))
    ours = bench.load_results(tmp_path)
    both = ours.merge(chosen, on=["label", "steps"])
    assert both[["score", "value"]].to_numpy().tolist() == [[7.5, 7.11]]
    (cell,) = (
        bench.published_table("ddim-table1-cifar10", tmp_path).frame().dropna(subset="ours").itertuples()
    )
    assert (cell.ours, cell.published) == (7.5, 7.11)


def test_a_choice_that_nothing_fits_is_an_empty_frame_of_the_same_columns():
    everything, nothing = bench.published_frame(), bench.published_frame(dataset="mnist")
    assert nothing.empty
    assert list(nothing) == list(everything)
    with pytest.raises(UnknownNameError, match=r"did you mean arXiv:2010\.02502"):
        bench.published_frame(source="arXiv:2010.0250")


def test_the_tolerance_is_what_an_independent_rerun_reached():
    paper = {(f.label, f.steps): f.value for f in get_preset("ddim-table1-celeba64").values()}
    again = {(f.label, f.steps): f.value for f in published_values(source="arXiv:2201.06503", table="9")}
    again |= {("ddim eta=1", s): v for (label, s), v in again.items() if label == "ddpm fixedsmall"}
    pairs = [(paper[place], again[place]) for place in paper if place in again]
    assert len(pairs) == 15
    low = [b - a for a, b in pairs if a < 40]
    assert 0.05 < math.sqrt(sum(d * d for d in low) / len(low)) < tolerance(39)
    assert sum(abs(d) <= tolerance(39) for d in low) == len(low) - 2
    assert max(abs(d) for d in low) == pytest.approx(0.13)
    assert all(abs(b - a) <= tolerance(a) for a, b in pairs if a >= 40)


def test_every_preset_names_what_there_is():
    from bench.plugins.loading import registry

    for preset in PRESETS.values():
        assert preset.model in registry().models.entries or preset.get
        assert set(preset.metrics) <= set(registry().metrics.entries)
        rules = {preset.spacing_of(s, row).partition(":")[0] for s in preset.columns for row in preset.rows}
        assert rules <= set(registry().spacings.entries)
        if not any(row.name for row in preset.rows):
            labels = {get_sampler(spec).label.removesuffix(" x0") for spec in preset.samplers}
            assert labels >= {value.label for value in preset.values()}
        assert preset.values()


@pytest.mark.parametrize(
    ("ours", "se", "verdict"),
    [
        (13.36, 0.05, "reproduced"),
        (13.45, 0.05, "reproduced"),
        (13.55, 0.05, "undecided"),  # 0.09 beyond the tolerance, 1.3 standard errors of the difference
        (13.61, 0.05, "differs"),  # 0.15 beyond it, 2.1 standard errors
        (13.11, 0.05, "differs"),
        (13.61, math.nan, "undecided"),
    ],
)
def test_verdicts(ours, se, verdict):
    made = record("ddim:eta=0", 10, ours, se=0.05)
    if math.isnan(se):
        made = replace(made, scores={"fid": replace(made.scores["fid"], se=math.nan)})
    cell = compare_published(CIFAR, [made]).cells[0]
    assert cell.verdict == verdict
    assert cell.difference == pytest.approx(ours - 13.36)
    if not math.isnan(se):
        assert cell.z == pytest.approx((ours - 13.36) / (0.05 * math.sqrt(2)))
        low, high = interval(made.scores["fid"])
        assert low < ours < high


def test_no_other_score_stands_in_for_one_that_failed():
    made = record("ddim:eta=0", 10, 0.5, metric="kid")
    made = replace(
        made,
        trial=replace(made.trial, metrics=("fid", "kid")),
        status="failed",
        message="RuntimeError: no light",
    )
    cell = compare_published(CIFAR, [made]).cells[0]
    assert (cell.verdict, cell.because) == ("not run", "failed: RuntimeError: no light")


def test_above_forty_the_tolerance_is_one_per_cent():
    cells = compare_published(CIFAR, [record("sigma-hat", 10, 367.43 * f, se=0.5) for f in (1.009,)]).cells
    assert next(c for c in cells if c.score).verdict == "reproduced"
    cells = compare_published(CIFAR, [record("sigma-hat", 10, 367.43 * 1.02, se=0.5)]).cells
    assert next(c for c in cells if c.score).verdict == "differs"


REFUSED = [
    ({"model": "digits"}, "other model: digits, not ema_cifar10"),
    ({"metric": "fd_inception_768"}, "other metric: fd_inception_768, not fid"),
    ({"n": 5000}, "other n: 5,000, not 50,000"),
    ({"spacing": "uniform"}, "other spacing: uniform, not quadratic"),
    ({"precision": "bfloat16"}, "other precision: bfloat16, not float32"),
    ({"flags": ("rank-deficient",)}, "the score is flagged rank-deficient"),
]


@pytest.mark.parametrize(("fields", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_what_cannot_be_compared_gets_a_reason_and_no_difference(fields, reason):
    found = compare_published(CIFAR, [record("ddim:eta=0", 10, 13.36, **fields)])
    cell = found.cells[0]
    assert (cell.verdict, cell.reasons, cell.difference, cell.z) == ("not comparable", (reason,), None, None)
    assert reason in found.sheet().note


def test_all_steps_are_the_rule_at_s_1000():
    whole = compare_published(CIFAR, [record("ddim:eta=0", 1000, 4.04, spacing="all")])
    assert whole.counts == {"not run": 24, "reproduced": 1}
    quadratic = compare_published(CIFAR, [record("ddim:eta=0", 1000, 4.04, levels=688)])
    assert quadratic.cells[4].reasons == ("other spacing: quadratic, not all",)


def test_of_several_records_the_one_that_fits_best_is_taken():
    records = [
        record("ddim:eta=0", 10, 99.0, n=1000),
        record("ddim:eta=0", 10, 13.4),
        record("ddim:eta=0", 10, status="failed", message="it broke", model="digits"),
    ]
    assert compare_published(CIFAR, records).cells[0].score.value == 13.4
    assert compare_published(CIFAR, records[:1]).cells[0].score.value == 99.0


def test_a_failure_is_told_where_its_score_would_have_counted():
    table = compare_published(CIFAR, [record("ddim:eta=0", 10, status="failed", message="it broke")])
    assert (table.cells[0].verdict, table.cells[0].because) == ("not run", "failed: it broke")
    assert "failed: it broke" in sheets.plain(table.sheet())
    other = compare_published(CIFAR, [record("ddim:eta=0", 10, status="failed", message="it broke", n=1000)])
    assert (other.cells[0].verdict, other.cells[0].because) == ("not run", "")


def test_reasons_have_a_column_only_where_a_cell_has_one_of_its_own():
    fits, other_n = record("ddim:eta=0", 10, 13.4), record("ddim:eta=0", 20, 7.0, n=1000)
    columns = ["sampler", "S", "ours", "published", "difference", "z", "verdict"]
    without = compare_published(CIFAR, [fits]).sheet()
    assert without.columns == columns
    assert without.rows[0] == ["ddim eta=0", "10", "13.40 ± 0.01", "13.36", "+0.04", "+2.8", "reproduced"]
    for form in ("text", "markdown", "latex", "html"):
        assert "because" not in sheets.FORMATS[form](without)
    shared = compare_published(CIFAR, [other_n]).sheet()  # the note below tells what all cells share
    assert shared.columns == columns
    assert "Not comparable: other n: 1,000, not 50,000." in shared.note
    own = compare_published(CIFAR, [fits, other_n]).sheet()
    assert own.columns == [*columns, "because"]
    assert [row[-1] for row in own.rows if row[-1]] == ["other n: 1,000, not 50,000"]
    assert list(without.frame) == list(own.frame)  # programs find the same columns in every CSV


def test_a_row_with_another_clip_mode_is_another_sampler():
    assert compare_published(CIFAR, [record("ddim:eta=0,clip=x0", 10, 13.36)]).counts == {"not run": 25}


def test_every_format_has_every_cell():
    records = [record(f"ddim:eta={eta}", 10, value) for eta, value in (("0", 13.4), ("0.2", 14.5))]
    sheet = compare_published(CIFAR, records).sheet()
    for name, form in sheets.FORMATS.items():
        text = form(sheet)
        assert text.count("13.4") >= 1 and text.count("367.43") == 1, name
        assert "reproduced" in text and "differs" in text, name
    assert sheets.latex(sheet).count(r"\\") == 26
    assert sheets.comma_separated(sheet).splitlines()[1].startswith("ddim eta=0,10,fid,13.4,")


def test_latex_has_no_character_that_latex_reads_as_a_command():
    assert sheets.latex_escaped("a_b 5% {x} ~^\\ ±") == (
        r"a\_b 5\% \{x\} \textasciitilde{}\textasciicircum{}\textbackslash{} $\pm$"
    )


def test_the_styler_colours_by_verdict(tmp_path):
    records = [record("ddim:eta=0", 10, 13.4), record("ddim:eta=0", 20, 7.84)]
    store = Store(tmp_path)
    store.prepare()
    for made in records:
        store.write(made)
    page = published_table("ddim-table1-cifar10", tmp_path).styler().to_html()
    assert "13.40 ± 0.01 (13.36)" in page
    colour = {cell: style for style, cells in _css(page) for cell in cells}
    assert colour["row0_col0"] != colour["row0_col1"]


def _css(page):
    for block in re.findall(r"((?:#T_published_\w+,?\s*)+)\{([^}]*)\}", page):
        yield block[1], re.findall(r"row\d+_col\d+", block[0])


def test_all_steps_join_the_table_of_the_rule_that_chose_fewer():
    made = table([record(steps=10), record(steps=1000, spacing="all"), record("ddim:eta=1", 10)])
    assert list(made.columns) == [10, 1000]
    assert "all and quadratic" in made.title
