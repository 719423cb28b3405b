"""The report: one HTML file that needs nothing else, made from records alone."""

from __future__ import annotations

import re
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from bench.drawing.style import DARK, LIGHT, Theme
from bench.records.record import Record
from bench.records.store import Store
from bench.report.page.page import page
from bench.report.plots.svg import variables

_ARXIV = re.compile(r"(?:https://arxiv\.org/abs/|arXiv:)(\d{4}\.\d{4,5})")


def report(store: Store, records: Sequence[Record], presets: Sequence[str] = ()) -> str:
    """Return the report on some records as the text of an HTML file.

    Equal records give equal text: it holds no time of its making. Whatever a record says is escaped.

    Args:
        store: has the pictures.
        records: what it is about.
        presets: published tables to be set beside ours even where no cell can be compared.
    """
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["arxiv"] = _linked
    template = environment.from_string(_asset("report.html.j2"))
    # Ours, and neither has a tag that would end its element.
    code = {name: Markup(_asset(f"report.{name}")) for name in ("css", "js")}
    return template.render(**page(store, records, presets), **code, theme=Markup(theme_rules()))


def theme_rules() -> str:
    """Return the style rules that give the plots their colours: light, dark where the reader has it so."""
    dark = _variables(DARK)
    return (
        f":root{{{_variables(LIGHT)}}}"
        f'@media screen and (prefers-color-scheme:dark){{:root:not([data-theme="light"]){{{dark}}}}}'
        f'@media screen{{:root[data-theme="dark"]{{{dark}}}}}\n'
    )


def _variables(theme: Theme) -> str:
    return ";".join(f"{name[4:-1]}:{value}" for name, value in variables(theme).items())


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


def _linked(text: str) -> Markup:
    """Return text with its arXiv numbers as links; following one is the reader's choice."""
    parts = []
    end = 0
    for found in _ARXIV.finditer(text):
        parts += [escape(text[end : found.start()])]
        parts += [Markup('<a href="https://arxiv.org/abs/{0}">arXiv:{0}</a>').format(found[1])]
        end = found.end()
    return Markup().join([*parts, escape(text[end:])])
