"""What the documentation site makes of the code: formulas, the options of every verb, licences."""

import argparse
import inspect
import pkgutil
import re
from pathlib import Path

import pytest
import tex
import verbs
from support.licences import TABLE, licence, required, written

from bench.commands.parser import command_parser
from bench.commands.usage import VERBS

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("formula", "told"),
    [
        ("a b / c d", r"\frac{a b}{c} d"),
        ("1/2 (log v - 1)", r"\frac{1}{2} \left( \log v - 1 \right)"),
        ("beta' = 1 - abar_t / abar_s", r"\beta' = 1 - \frac{\bar\alpha_{t}}{\bar\alpha_{s}}"),
        ("alpha_bar = (1 - s)^2", r"\bar\alpha = {\left( 1 - s \right)}^{2}"),
        ("sqrt(abar_s) x_0 <= beta~", r"\sqrt{\bar\alpha_{s}} x_{0} \le \tilde{\beta}"),
        ("(m - m^)^2 / v", r"\frac{{\left( m - \hat{m} \right)}^{2}}{v}"),
        ("eps(x_t, t)", r"\epsilon\!\left( x_{t} ,\  t \right)"),
        ("||eps - x||^2", r"{\| \epsilon - x \|}^{2}"),
        (
            "KL(q(x_{t-1} | x_t) || p)",
            r"\mathrm{KL}\!\left( q\!\left( x_{t - 1} \mid x_{t} \right) \,\|\, p \right)",
        ),
        ("a^(1/rho)", r"{a}^{\frac{1}{\rho}}"),
    ],
)
def test_a_formula_of_a_docstring_becomes_latex(formula, told):
    assert tex.latex(formula) == told


@pytest.mark.parametrize("text", ["the mean of x", "a = `b`", "(1 - s", "1 - s)", "a / / b", "x = ?"])
def test_what_is_no_formula_is_refused(text):
    with pytest.raises(ValueError, match=r"is no|begins no|is missing|closes nothing"):
        tex.latex(text)


def test_a_block_is_aligned_and_keeps_its_remarks():
    found = tex.block("    small = beta~    of a point\n    large   = beta'\n")
    assert found == (
        r"\begin{aligned} \mathrm{small} &= \tilde{\beta}\quad \text{of a point} \\ \mathrm{large} &= \beta'"
        r" \end{aligned}"
    )
    assert tex.block("    python -m bench run\n") is None


def test_equations_within_a_sentence_are_found():
    told = tex.inline("Return x_t = a x_0 + b noise, a draw, s the next time.")
    assert told == r"Return $x_{t} = a x_{0} + b \mathrm{noise}$, a draw, s the next time."


@pytest.mark.parametrize(
    "name",
    [
        "bench.posterior_mean",
        "bench.posterior_constants",
        "bench.learned_variance",
        "bench.guided",
        "samplers.ddim.ddim",
    ],
)
def test_equations_of_the_api_pages_are_rendered(name):
    found = pkgutil.resolve_name(name)
    text = inspect.getdoc(getattr(found, "function", found))
    block = re.search(r"\n\n((?: {4}.*\n)+)", text)
    assert tex.block(block[1])


def test_the_reference_of_the_command_line_has_every_verb_and_option():
    text = verbs.reference()
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^### |\Z)", text, flags=re.S | re.M))
    assert list(sections) == list(VERBS)
    for verb, section in sections.items():
        for action in command_parser(verb)._actions:
            if not isinstance(action, argparse._HelpAction):
                rows = [line for line in section.splitlines() if line.startswith("| `")]
                shown = action.option_strings or [action.metavar or action.dest]
                assert any(str(shown[0]) in row for row in rows) or action.choices, (verb, action)
        assert not re.search(r"%\(\w+\)s|==SUPPRESS==", section)


def test_every_package_that_is_needed_has_its_licence_listed():
    """`python tests/support/licences.py --write` lists them anew."""
    known = written()
    assert set(known) == set(required()), TABLE.document
    stated = {name: licence(name) for name in known}
    assert {name: told for name, told in stated.items() if told and told != known[name]} == {}


def test_every_page_stands_in_the_navigation():
    nav = (ROOT / "mkdocs.yml").read_text(encoding="utf-8").partition("\nnav:")[2].partition("\nplugins:")[0]
    named = set(re.findall(r"([\w-]+\.md)$", nav, re.M)) - {"index.md", "contributing.md", "changelog.md"}
    assert named == {path.name for path in (ROOT / "docs").glob("*.md")}
