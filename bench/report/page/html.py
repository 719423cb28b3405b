"""The report: one HTML file that needs nothing else, made from records alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined
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
    return rendered_page("report", page(store, records, presets))


def rendered_page(
    name: str,
    values: Mapping[str, Any],
    generator: str = "sampler-bench",
    styles: Sequence[str] = ("report",),
) -> str:
    """Return a page: the template NAME.html.j2 with its own scripts after those of all pages.

    Args:
        name: the template's name, without its endings.
        values: what it shows; every text is escaped.
        generator: what the page says that it is made by.
        styles: names of its style sheets, in their order.
    """
    loader = FunctionLoader(_asset)
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["arxiv"] = _linked
    # Ours, and none has a tag that would end its element.
    css = "".join(_asset(f"{style}.css") for style in styles)
    code = {"css": Markup(css), "js": Markup(_asset("common.js") + _asset(f"{name}.js"))}
    made = environment.get_template(f"{name}.html.j2")
    return made.render(**values, **code, theme=Markup(theme_rules()), generator=generator)


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
