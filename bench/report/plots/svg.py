"""A plot as part of a page: its colours are the page's, its names its own, its points say what they are."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence

from matplotlib.figure import Figure

from bench.drawing.figures import rendered
from bench.drawing.style import PAGE, Theme

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"


def variables(theme: Theme) -> dict[str, str]:
    """Return a theme's colours by the variables that stand for them in a page."""
    named = {"ink": theme.ink, "muted": theme.muted, "grid": theme.grid, "band": theme.band}
    series = {f"series-{place}": colour for place, colour in enumerate(theme.series)}
    return {f"var(--{name})": colour for name, colour in (named | series).items()}


VARIABLES = {colour: name for name, colour in variables(PAGE).items()}


def inline_svg(figure: Figure, name: str, title: str, points: Mapping[str, Sequence[str]]) -> str:
    """Return a figure drawn in `PAGE` as an ``svg`` element that can stand in a page.

    Args:
        figure: as drawn.
        name: unique in the page; every id begins with it.
        title: what a reader who does not see it is told.
        points: what each marker of a line is, by the line's gid.
    """
    for prefix, uri in (("", SVG), ("xlink", XLINK)):
        ET.register_namespace(prefix, uri)
    root = ET.fromstring(rendered(figure, "svg", PAGE))
    for child in [c for c in root if c.tag.endswith("metadata")]:
        root.remove(child)
    for parent in root.iter():
        for style in [c for c in parent if c.tag == f"{{{SVG}}}style"]:
            parent.remove(style)  # it is for every element of the page
    for gid, texts in points.items():
        _label(root, gid, texts)
    _own_names(root, name)
    for size in ("width", "height"):
        root.attrib.pop(size, None)
    root.attrib |= {"class": "plot", "role": "img", "aria-label": title}
    text = ET.tostring(root, encoding="unicode")
    return re.sub("|".join(VARIABLES), lambda found: VARIABLES[found[0]], text)


def _label(root: ET.Element, gid: str, texts: Sequence[str]) -> None:
    """Give each marker of a line a title, which browsers show beside the pointer."""
    for group in root.iter(f"{{{SVG}}}g"):
        if group.get("id") != gid:
            continue
        for marker, text in zip(group.iter(f"{{{SVG}}}use"), texts, strict=False):
            ET.SubElement(marker, f"{{{SVG}}}title").text = text


def _own_names(root: ET.Element, name: str) -> None:
    for element in root.iter():
        for key, value in element.attrib.items():
            if key == "id":
                element.set(key, f"{name}-{value}")
            elif value.startswith("#") and key == f"{{{XLINK}}}href":
                element.set(key, f"#{name}-{value[1:]}")
            elif "url(#" in value:
                element.set(key, value.replace("url(#", f"url(#{name}-"))
