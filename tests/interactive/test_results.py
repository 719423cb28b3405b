"""What results show in Python: the numbers that the commands print, pictures, plots in given axes."""

import base64
import io
import re
from pathlib import Path

import matplotlib as mpl
import matplotlib.pyplot as plt
import pandas as pd
import pytest
from matplotlib.figure import Figure
from PIL import Image
from support.commands import bench as command

import bench
from bench import Results, UsageError
from bench.interactive import showing

REFERENCE = Path(__file__).parents[2] / "results" / "reference"
DIGITS = REFERENCE / "digits"
ROWS = ("ddim eta=0", "heun", "dpmpp-2m")


@pytest.fixture(scope="module")
def digits():
    return Results(DIGITS)


def test_the_frame_is_that_of_load_results(digits):
    pd.testing.assert_frame_equal(digits.frame(), bench.load_results(DIGITS))


def test_the_table_and_the_comparison_are_what_the_commands_print(digits):
    table = command("table", "--results", DIGITS, "--rows", *ROWS, "--by", "steps", "--no-title")
    assert table.returncode == 0
    shown = digits.table(rows=ROWS, by="steps", title="")
    assert repr(shown) == table.stdout
    assert len(shown.rows) == len(ROWS) + 1
    compared = command("compare", "ddim:eta=0@10", "heun@10", "--results", DIGITS)
    found = digits.compare("ddim:eta=0@10", (bench.get_sampler("heun"), 10))
    assert f"{found!r}\n" == compared.stdout
    column = command("compare", "--column", "10", "--results", DIGITS)
    assert f"{digits.compare(column=10)!r}\n" == column.stdout
    assert digits.compare(column=10).frame.verdict[0] == "best"


def test_a_notebook_shows_the_table_with_stars_and_the_pictures(digits):
    html = digits._repr_html_()
    assert re.search(r"<td>1\.51 ± 0\.22\*</td>", html)
    assert re.search(r"<td>2\.18 ± 0\.19~</td>", html)
    (content,) = re.findall(r'src="data:image/png;base64,([^"]+)"', html)
    embedded = Image.open(io.BytesIO(base64.b64decode(content)))
    assert embedded.tobytes() == digits.pictures().tobytes()
    assert digits.pictures(films=True).size != embedded.size


def test_the_report_is_that_of_the_command(digits, tmp_path):
    path = digits.report(tmp_path / "pages" / "report.html")
    assert path.read_bytes() == (DIGITS / "report.html").read_bytes()


@pytest.mark.parametrize("kind", ["steps", "time", "calls", "heat", "limit"])
def test_a_plot_is_drawn_in_given_axes_under_the_settings_in_force(digits, kind):
    with mpl.rc_context({"font.size": 7, "axes.prop_cycle": mpl.cycler(color=["#123456", "#654321"])}):
        axes = Figure(layout="constrained").subplots()
        assert digits.plot(kind, axes, rows=ROWS, colours={"heun": "#00ff00"}) is axes
    assert axes.get_title() == axes.get_title(loc="left") == ""
    assert axes.yaxis.label.get_size() == 7
    if kind in ("steps", "time", "calls"):
        drawn = {c.get_label(): c.lines[0].get_color() for c in axes.containers}
        assert drawn == {"ddim eta=0": "#123456", "heun": "#00ff00", "dpmpp-2m": "#123456"}


@pytest.mark.parametrize("kind", ["ranks", "seconds", "jackknife"])
def test_a_plot_with_a_panel_a_column_takes_one_of_them(digits, kind):
    axes = Figure().subplots()
    with pytest.raises(UsageError, match="with axes give column="):
        digits.plot(kind, axes)
    assert digits.plot(kind, axes, column=20, rows=ROWS, title="Twenty") is axes
    assert axes.get_title() == "Twenty"
    assert sorted(label.get_text() for label in axes.get_yticklabels()) == sorted(ROWS)


def test_the_numbers_in_given_axes_are_the_scores(digits):
    axes = Figure().subplots()
    digits.plot("steps", axes, rows=["heun"])
    (drawn,) = axes.containers
    known = digits.frame().query("label == 'heun'").sort_values("steps")
    assert list(drawn.lines[0].get_ydata()) == pytest.approx(list(known.score))


def test_a_figure_of_its_own_has_its_width_title_and_style(digits, tmp_path):
    style = tmp_path / "paper.mplstyle"
    style.write_text("font.size: 6\naxes.prop_cycle: cycler('color', ['112233', '445566', '778899'])\n")
    axes = digits.plot("steps", rows=ROWS, labels={"heun": "Heun"}, width=3.3, title="Digits", style=style)
    assert axes.figure.get_size_inches()[0] == pytest.approx(3.3)
    assert axes.get_title(loc="left") == "Digits"
    assert [c.get_label() for c in axes.containers] == ["ddim eta=0", "Heun", "dpmpp-2m"]
    assert [c.lines[0].get_color() for c in axes.containers] == ["#112233", "#445566", "#778899"]
    assert axes.yaxis.label.get_size() == 6


def test_plots_and_reports_leave_matplotlib_as_it_was(digits, tmp_path, monkeypatch):
    backend, before = plt.get_backend(), mpl.rcParams.copy()
    monkeypatch.setattr(mpl, "use", lambda *_, **__: pytest.fail("the backend is the user's"))
    mine = plt.figure()
    digits.plot("steps")
    digits.report(tmp_path / "report.html")
    assert mpl.rcParams == before
    assert plt.get_backend() == backend
    assert plt.fignum_exists(mine.number)
    plt.close(mine)


def test_a_notebook_shows_a_figure_of_its_own(digits, monkeypatch):
    shown = []
    monkeypatch.setattr(showing, "in_notebook", lambda: True)
    monkeypatch.setitem(
        showing.sys.modules, "IPython.display", type("Display", (), {"display": shown.append})
    )
    digits.plot("steps", rows=ROWS)
    assert Image.open(io.BytesIO(shown[0]._repr_png_())).width > 500


def test_several_tables_are_told_apart_by_name(tmp_path):
    kept = {"n": 20, "steps": [2], "results": tmp_path, "progress": False}
    bench.run("ddim:eta=0", model="digits", **kept)
    bench.run("ddim:eta=0", model="exact-digits", **kept)
    both = Results(tmp_path)
    with pytest.raises(UsageError, match="there are 2 tables, name one by model= or metric="):
        both.table()
    assert both.table("digits").title.startswith("digits: ")
    assert len(both.tables()) == 2
    assert both._repr_html_().count("<table>") == 2
    with pytest.raises(
        UsageError, match="no results of model 'none'; there are those of digits, exact-digits"
    ):
        both.table("none")


@pytest.mark.parametrize(
    ("ask", "told"),
    [
        (lambda r: r.compare("ddim:eta=0@10"), "give two trials"),
        (lambda r: r.compare("ddim:eta=0@10", "ddim:eta=0@11"), "unknown trial"),
        (lambda r: r.compare(column=7), "no trial has 7 steps"),
        (lambda r: r.plot("stairs"), "unknown plot 'stairs'; did you mean steps"),
        (lambda r: r.plot("ranks", column=7), "there is no column 7; the columns are 10, 20"),
        (lambda r: r.plot("scatter"), "nothing to draw"),
        (lambda r: r.plot(width=0), "a plot is 1 to 100 inches wide, got 0"),
        (lambda r: r.plot(colours={"heun": "blu"}), "'blu' for heun is no colour"),
        (lambda r: r.plot(style="nope"), "no style 'nope'"),
        (lambda r: r.table(rows=["dim*"]), "unknown row 'dim[*]'"),
        (lambda r: r.table(labels={"heun": "dpmpp-2m"}), "two rows would be called 'dpmpp-2m'"),
        (lambda r: r.table(metric="fod"), "unknown metric 'fod'"),
        (lambda _: Results("nowhere"), "no records in nowhere"),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_said_in_a_sentence(ask, told, digits):
    with pytest.raises(UsageError, match=told):
        ask(digits)


def test_results_without_records_say_so():
    empty = Results(DIGITS, [])
    assert repr(empty) == f"no records of {DIGITS}"
    assert empty._repr_html_() == f"<p>no records of {DIGITS}</p>"
