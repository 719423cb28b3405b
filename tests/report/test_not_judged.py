"""No verdict where none can be had, and rows that clip x_0 differently say so."""

from dataclasses import replace

import pytest
from rich.console import Console
from support.commands import bench as run_bench
from support.reports import record, table

from bench import load_results
from bench.commands.options import parse_samplers
from bench.errors import UsageError
from bench.report.site.boards import boards_of
from bench.report.site.page import _overview
from bench.report.tables import sheets
from bench.report.tables.findings import find_claims
from bench.report.tables.scores import score_sheet, show
from bench.report.tables.summary import sentences
from bench.stats.comparison import not_judged

DEFICIENT = {"flags": ("rank-deficient",)}


def two(first=None, second=None, steps=10):
    """Records of two samplers at one S, each with flags of its own."""
    return [
        record("ddim:eta=0", steps, 1.0, **(first or {})),
        record("ddim:eta=1", steps, 9.0, **(second or {})),
    ]


def test_a_column_is_not_judged_where_every_score_has_such_a_flag():
    saturated = {"flags": ("saturated", "few-samples")}
    whole = table([*two(DEFICIENT, saturated), *two(DEFICIENT, steps=20)])
    assert whole.unjudged(10) == "rank-deficient, saturated"
    assert whole.leaders(10) == (None, ())
    assert whole.unjudged(20) == ""
    assert whole.leaders(20)[0] == "ddim eta=0"
    assert not_judged([]) == ""


def test_the_best_of_all_leads_a_column_that_is_judged():
    saturated = {"flags": ("saturated",)}
    least = record("ddim:eta=0", 20, 0.5, **saturated)  # alone in its column
    judged, nothing = [*two(), least], [*two(saturated, saturated), least]
    assert sentences(table(judged), ())[0].startswith("The best fid is 1.000 ")
    assert sentences(table(nothing), ()) == ["Nothing here can be judged: every score is saturated."]
    beside = two(saturated)  # of the first a verdict can be had, since there is one of the second
    assert sentences(table(beside), ())[0].startswith("The best fid is 1.000 ")
    best = [_overview(boards_of(records))[0]["best"] for records in (judged, nothing, beside)]
    assert [(one["score"].split(" ±")[0], one["label"]) for one in best] == [
        ("1.000", "ddim eta=0"),
        ("not judged", "saturated"),
        ("1.000", "ddim eta=0"),
    ]


def test_its_cells_are_grey_and_a_line_says_why():
    whole = table([*two(DEFICIENT, DEFICIENT), *two(steps=20)])
    sheet = score_sheet(whole)
    assert sheet.marks == {
        (0, 1): "unjudged", (1, 1): "unjudged", (0, 2): "best",
    }  # fmt: skip
    text = sheets.plain(sheet)
    assert "not judged at S=10: every score is rank-deficient" in text
    assert r"\textcolor{gray}{" in sheets.latex(sheet)
    assert "**" not in sheets.markdown(sheet).splitlines()[4].split("|")[2]
    console = Console(record=True, width=200, force_terminal=True, color_system="truecolor")
    show(whole, console)
    assert "not judged at S=10" in console.export_text()


def test_a_table_without_any_verdict_has_no_legend_of_stars():
    sheet = score_sheet(table(two(DEFICIENT, DEFICIENT)))
    text = sheets.plain(sheet)
    assert "not judged: every score is rank-deficient" in text
    assert "best of its column" not in text


def test_claims_of_scores_that_allow_none_are_not_judged():
    rows = ["ddim:eta=0", "ddim:eta=0.2", "ddim:eta=0.5", "ddim:eta=1"]
    flagged = [record(row, 10, 1.0 + i, **DEFICIENT) for i, row in enumerate(rows)]
    found = {one.claim.name: one for one in find_claims(table(flagged))}["eta-order-10"]
    assert (found.verdict, found.weakest) == ("not judged", "not judged: every score is rank-deficient")
    sound = [record(row, 10, 1.0 + i) for i, row in enumerate(rows)]
    mixed = [flagged[0], *sound[1:]]
    assert {one.claim.name: one.verdict for one in find_claims(table(mixed))}["eta-order-10"] == "holds"


def test_rows_that_clip_differently_say_so():
    mixed = table([record("ddim:eta=0", 10, 1.0), record("ddpm", 10, 2.0)])
    assert mixed.rows == ["ddim eta=0", "ddpm fixedsmall clip x0"]
    assert "clip x0: rows so labelled clip the predicted x_0" in score_sheet(mixed).note
    alike = table([record("ddim:eta=0,clip=x0", 10, 1.0), record("ddpm", 10, 2.0)])
    assert alike.rows == ["ddim eta=0 clip x0", "ddpm fixedsmall"]
    assert "rows so labelled" not in score_sheet(alike).note


def test_one_clip_for_every_row_that_can(tmp_path):
    chosen = parse_samplers(["ddim", "ddim:clip=x0", "ddpm", "heun"], "none")
    assert [one.parameters.get("clip") for one in chosen] == ["none", "none", None]
    with pytest.raises(UsageError, match="clip must be one of"):
        parse_samplers(["ddpm"], "x0-raw-eps")
    options = ["--model", "exact-gaussian", "--steps", "2", "--n", "20", "--results", tmp_path]
    out = run_bench("run", "--samplers", "ddim", "ddpm", "--clip", "x0", *options)
    assert out.returncode == 0, out.stderr
    frame = load_results(tmp_path)
    assert set(frame[frame.kind == "samples"]["clip"]) == {"x0"}


def test_pixels_of_large_images_have_no_frechet_distance(tmp_path):
    from bench.metrics.metric import check_offered
    from bench.metrics.pixels import pixel_space
    from bench.plugins.loading import registry

    metric = registry().metrics.get("fd_pixels")
    check_offered(metric, pixel_space("pixels", (1, 32, 32)))
    with pytest.raises(
        UsageError, match=r"fd_pixels takes at most 1,024 numbers an image, here are 3,072: take"
    ):
        check_offered(metric, pixel_space("pixels", (3, 32, 32)))
    sliced = registry().metrics.get("sliced_wasserstein_pixels")
    check_offered(sliced, pixel_space("pixels", (3, 32, 32)))
    assert replace(metric, name="mine").space == "pixels"
