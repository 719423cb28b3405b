"""Rows, labels and titles that are chosen, on the command line and in tables; LaTeX for papers."""

import re

import matplotlib.image
import pytest
from support.reports import record, table

from bench.commands.main import main
from bench.errors import UsageError
from bench.records.store import Store
from bench.report.tables.choice import Choice, parse_labels
from bench.report.tables.latex import _form, latex_table
from bench.report.tables.scores import score_sheet
from bench.report.tables.sheets import latex_escaped
from bench.report.tables.table import tables_of

MADE = [
    record("ddim:eta=0", 10, 4.0, se=0.05),
    record("ddim:eta=1", 10, 6.0, se=0.05),
    record("sigma-hat", 10, 36.67, se=0.89),
    record("ddim:eta=0", 20, 3.0, se=0.05),
    record("sigma-hat", 20, 12.0, se=0.5, seed=1),
]


def test_rows_stand_in_the_order_in_which_they_are_named():
    chosen = Choice(["ddim:eta=1,clip=none", "ddim eta=0"])
    (found,) = chosen.of([table(MADE)])
    assert found.rows == ["ddim eta=1", "ddim eta=0"]
    assert found.left_out == 1
    assert "1 further row of these results not shown" in score_sheet(found).note
    (alone,) = Choice(["*eta=1"]).of([table(MADE)])
    assert alone.columns == [10]
    assert alone.best(10) == "ddim eta=1"


def test_labels_are_those_that_are_given():
    labels = parse_labels([r"ddim eta=0=DDIM, $\eta=0$", "sigma-hat=DDPM"], [table(MADE)])
    (found,) = Choice(labels=labels).of([table(MADE)])
    assert found.rows == [r"DDIM, $\eta=0$", "ddim eta=1", "DDPM"]
    assert found.cells[r"DDIM, $\eta=0$", 20].score.value == 3.0


def test_labels_hold_on_every_time_grid():
    both = [record("ddim:eta=0", 10, 4.0), record("ddim:eta=0", 10, 5.0, spacing="uniform")]
    (found,) = Choice(labels={"ddim eta=0": "DDIM"}).of(tables_of(both))
    assert found.rows == ["DDIM on quadratic", "DDIM on uniform"]
    assert [part.rows for _, part in found.on_each_grid()] == [["DDIM"], ["DDIM"]]


def test_a_table_without_the_rows_is_left_out():
    tables = [table(MADE), table([record("heun", 10, 2.0, model="digits")])]
    assert [found.trial.model for found in Choice(["heun"]).of(tables)] == ["digits"]


@pytest.mark.parametrize(
    ("choice", "told"),
    [
        (Choice(["dim eta=0"]), "unknown row 'dim eta=0'; did you mean ddim eta=0"),
        (Choice(labels={"heun": "Heun"}), "unknown row 'heun'"),
        (Choice(labels={"ddim eta=0": "ddim eta=1"}), "two rows would be called 'ddim eta=1'"),
    ],
)
def test_rows_that_are_not_there_are_refused(choice, told):
    with pytest.raises(UsageError, match=told):
        choice.of([table(MADE)])


def test_numbers_of_siunitx_columns_are_those_of_the_table():
    """Every cell as (value, error), parsed as siunitx reads it, in columns wide enough for all of them."""
    sheet = score_sheet(table(MADE))
    text = latex_table(sheet, "Scores, lower is better", "tab:scores", siunitx=True)
    assert r"\caption{Scores, lower is better}" in text
    assert r"\label{tab:scores}" in text
    assert text.startswith("\\begin{table}\n\\centering\n")
    assert text.endswith("\\end{table}\n")
    room = r"(?:, table-space-text-post=\{\\textsuperscript\{\$\\sim\$\}\})?"
    forms = re.findall(rf"S\[table-format=(\d)\.(\d)\((\d)\){room}\]", text)
    assert [tuple(map(int, form)) for form in forms] == [(2, 3, 3), (2, 3, 3)]
    body = text.split(r"\midrule")[1].split(r"\bottomrule")[0]
    found = [tuple(map(float, pair)) for pair in re.findall(r"(\d+\.\d+) \+- (\d+\.\d+)", body)]
    known = [(4.0, 0.05), (3.0, 0.05), (6.0, 0.05), (36.67, 0.89), (12.0, 0.5)]
    assert found == known
    assert len(re.findall(r"\\bfseries", body)) == 2


def test_what_stands_behind_a_number_has_room_in_its_column():
    """Otherwise it is printed over the next column: the longest counts."""
    tie = r"\textsuperscript{$\sim$}"
    cells = [("4.75 ± 0.54", "best"), ("5.00 ± 0.50 (19)", None), ("4.80 ± 0.50 (19)", "tie"), ("", None)]
    assert _form(cells) == rf"S[table-format=1.2(2), table-space-text-post={{{tie}\,(19)}}]"
    assert _form(cells[:1]) == "S[table-format=1.2(2)]"


def test_formulas_of_a_label_stay_formulas_in_latex():
    assert latex_escaped(r"DDIM_2, $\eta=0$ & more") == r"DDIM\_2, $\eta=0$ \& more"
    assert latex_escaped("5 $") == r"5 \$"


@pytest.fixture
def folder(tmp_path):
    store = Store(tmp_path)
    store.prepare()
    for one in MADE:
        store.write(one)
    return str(tmp_path)


def test_the_command_shows_what_was_chosen(folder, capsys):
    asked = ["--rows", "sigma-hat", "ddim eta=0", "--label", "sigma-hat=DDPM", "--title", "Mine"]
    assert main(["table", "--results", folder, *asked]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "Mine"
    assert [line.split("  ")[0] for line in lines[4:6]] == ["DDPM", "ddim eta=0"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--caption", "x"], "--caption is for LaTeX: give --format latex too"),
        (["--siunitx", "--format", "html"], "--siunitx is for LaTeX"),
        (["--rows", "ddim*", "--json"], "--rows is for tables that are read"),
        (["--no-title", "--claims"], "--no-title is for tables of scores"),
        (["--title", "a", "--no-title"], "not allowed with argument"),
        (["--label", "sigma=DDPM"], "unknown row 'sigma'"),
    ],
)
def test_what_would_be_passed_over_is_refused(folder, asked, told, capsys):
    assert main(["table", "--results", folder, *asked]) == 2
    assert told in capsys.readouterr().err


def test_the_command_draws_as_wide_as_asked(folder, tmp_path, capsys):
    out = tmp_path / "plots"
    asked = ["--width", "3.5", "--no-title", "--rows", "ddim*", "--colour", "ddim eta=0=red"]
    assert main(["plot", "--results", folder, "--out", str(out), *asked]) == 0
    plots = [path for path in out.glob("*.png") if "pictures" not in path.name and "films" not in path.name]
    assert len(plots) >= 5
    assert {matplotlib.image.imread(path).shape[1] for path in plots} == {round(3.5 * 160)}
    red = matplotlib.image.imread(next(path for path in plots if path.name.endswith("-steps.png")))[..., :3]
    assert ((red - [1, 0, 0]) ** 2).sum(-1).min() < 1e-3


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (["--style", "nope"], "no style 'nope'; give an .mplstyle file, or one of matplotlib's: "),
        (["--colour", "ddim eta=0=blu"], "'blu' for ddim eta=0 is no colour"),
        (["--colour", "heun=blue"], "unknown row 'heun'"),
        (["--width", "500"], "a plot is 1 to 100 inches wide, got 500"),
        (["--title", r"a $\foo$"], r"--title a $\foo$ has a formula that cannot be drawn (Unknown symbol"),
        (
            ["--label", r"ddim eta=0=$\frac$"],
            r"--label ddim eta=0=$\frac$ has a formula that cannot be drawn (Expected",
        ),
    ],
)
def test_a_look_that_cannot_be_is_refused(folder, asked, told, capsys):
    assert main(["plot", "--results", folder, *asked]) == 2
    assert told in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("figure.dpi: abc", "Could not convert 'abc' to float"),
        ("axes.foo: 1", "Bad key axes.foo"),
        ("nonsense", "Missing colon"),
        ("savefig.dpi: 100000", "savefig.dpi must be 1 to 600, got 100000"),
        ('axes.prop_cycle: cycler("color", [])', "no plot can be drawn"),
        ("text.usetex: True", "no plot can be drawn"),
    ],
)
def test_a_style_that_cannot_be_drawn_with_is_named(folder, line, told, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", "")  # without TeX
    style = tmp_path / "mine.mplstyle"
    style.write_text(f"{line}\n")
    assert main(["plot", "--results", folder, "--style", str(style)]) == 2
    (sentence,) = capsys.readouterr().err.splitlines()
    assert f"style file {style}" in sentence and told in sentence
