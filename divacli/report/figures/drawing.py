"""What all plots are drawn with: one style, few colours, and bytes that depend on the results alone."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.figure import Figure
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from matplotlib.ticker import FuncFormatter

from divacli.report.terminal.plain import plain

PlotFormat = Literal["svg", "png", "pdf"]

INK, GRID = "#24292f", "#e5e5e5"
SERIES = ("#0072b2", "#d55e00", "#7f7f7f", "#009e73")
"""Told apart also by readers who see red and green alike. Plots use these colours and no others, so that a
page can put its own in their place."""

_VARIABLES = {
    INK: "--chart-ink",
    GRID: "--chart-grid",
    **{colour: f"--chart-{number}" for number, colour in enumerate(SERIES, 1)},
}
_STYLE: dict[Any, Any] = {
    # Names of elements are drawn at random otherwise.
    "svg.hashsalt": "divacli",
    # Letters of every script, and to be searched for.
    "svg.fonttype": "none",
    # A user's labels and file names may hold dollar signs.
    "text.parse_math": False,
    "text.usetex": False,
    "text.color": INK,
    "axes.titlecolor": "auto",
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid.axis": "x",
    "grid.color": GRID,
    "axes.axisbelow": True,
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9,
    "axes.titlesize": 10,
    "figure.titlesize": 10,
    "savefig.dpi": 150,
}
_METADATA: dict[str, dict[str, None]] = {
    "svg": {"Date": None},
    "png": {"Software": None},
    "pdf": {"CreationDate": None},
}
_SVG = "{http://www.w3.org/2000/svg}"
_LINK = "{http://www.w3.org/1999/xlink}href"
_LEVELS = 6
_FAINTEST, _STRONGEST = 0.12, 0.6

PLAIN_NUMBERS = FuncFormatter(lambda value, _: f"{value:g}".replace("-", "\N{MINUS SIGN}"))
"""Writes a tick without exponent."""


class Plot(Figure):
    """A figure that keeps its style wherever it is drawn, and shows itself in a notebook."""

    def draw(self, renderer: RendererBase) -> None:
        """As of any figure."""
        with styled():
            super().draw(renderer)

    def _repr_png_(self) -> bytes:
        return rendered(self, "png")


@contextmanager
def styled() -> Iterator[None]:
    """Draw in the style of all plots; also a decorator."""
    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes where letters are drawn at all.
        warnings.filterwarnings("ignore", message="Glyph")
        warnings.filterwarnings("ignore", message="Matplotlib currently does not support")
        yield


def panels(n: int, width: float, height: float, *, sharey: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of n panels side by side.

    Args:
        n: How many.
        width: In inches.
        height: In inches.
        sharey: Whether they have one vertical axis.
    """
    figure = Plot(figsize=(width, height), layout="constrained")
    return figure, figure.subplots(1, n, sharex=sharey, sharey=sharey, squeeze=False)[0].tolist()


def named(figure: Figure, title: str, about: str = "") -> None:
    """Give a figure its title, and words for those who do not see it."""
    figure.suptitle(title)
    figure.set_label(". ".join(filter(None, (*title.split("\n"), about))))


def label_text(label: object, width: int) -> str:
    """A user's text for a plot: on one line, cut at its end."""
    text = plain(str(label)).plain
    return text if len(text) <= width else text[: width - 1] + "…"


def numeric(table: pd.DataFrame, *names: str) -> pd.DataFrame:
    """The table with numbers in some columns, whose cells may be text still; NaN where there is none."""
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in names})


def density(panel: Axes, boxes: np.ndarray, counts: np.ndarray, largest: int, colour: str) -> None:
    """Boxes that are the stronger the more there is in them, on a logarithmic scale of few levels.

    All boxes of a level are one path: a file would be several times as large with one for each.

    Args:
        panel: Where.
        boxes: (m, 4) left, right, bottom, top.
        counts: (m,) in each.
        largest: That has the strongest colour.
        colour: Of all.
    """
    share = np.log1p(counts) / np.log1p(largest)
    levels = np.ceil(share * _LEVELS).astype(int)
    for level in np.unique(levels):
        left, right, bottom, top = boxes[levels == level].T
        corners = np.stack([left, bottom, right, bottom, right, top, left, top, left, bottom], axis=1)
        codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY] * len(left)
        alpha = _FAINTEST + (_STRONGEST - _FAINTEST) * (level - 1) / (_LEVELS - 1)
        panel.add_patch(
            PathPatch(Path(corners.reshape(-1, 2), codes), facecolor=colour, alpha=alpha, linewidth=0)
        )


def rendered(figure: Figure, format: PlotFormat) -> bytes:
    """A figure as a file; the same figure always gives the same bytes. Its layout is settled by this."""
    return _saved(figure, format, transparent=False)


def page_svg(figure: Figure, prefix: str) -> str:
    """A figure as an `<svg>` element for an HTML page, in the colours of that page.

    Its colours are the CSS variables `--chart-ink`, `--chart-grid` and `--chart-1` to `--chart-4`, and those
    of the file where the page sets none; the background and the font are the page's. A screen reader gets
    the figure's label.

    Args:
        figure: Drawn in the colours of this module.
        prefix: Of the names of its elements, other than that of any other figure in the page.
    """
    root = ElementTree.fromstring(_saved(figure, "svg", transparent=True))
    for parent in list(root.iter()):
        for child in list(parent):
            # A style sheet in the page would hold for the whole of it.
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        element.attrib.update(
            {name: _for_page(name, value, prefix) for name, value in element.attrib.items()}
        )
        if _LINK in element.attrib:
            element.set("href", f"#{prefix}{element.attrib.pop(_LINK)[1:]}")
    width, height = (float(root.attrib[side].removesuffix("pt")) for side in ("width", "height"))
    root.attrib = {
        "xmlns": _SVG.strip("{}"),
        "viewBox": root.attrib["viewBox"],
        "width": f"{width * 4 / 3:.0f}",
        "height": f"{height * 4 / 3:.0f}",
        "style": "max-width: 100%; height: auto; stroke-linejoin: round; stroke-linecap: butt",
        "role": "img",
        "aria-label": str(figure.get_label()),
    }
    return ElementTree.tostring(root, encoding="unicode")


def _saved(figure: Figure, format: PlotFormat, *, transparent: bool) -> bytes:
    content = io.BytesIO()
    with styled():
        if (engine := figure.get_layout_engine()) is not None:
            # Laid out again, it would move a little.
            engine.execute(figure)
            figure.set_layout_engine("none")
        figure.savefig(content, format=format, metadata=_METADATA[format], transparent=transparent)
    return content.getvalue()


def _for_page(name: str, value: str, prefix: str) -> str:
    """An attribute of an element in a page. What is written in the plot is no attribute, and stays."""
    if name == "id":
        return prefix + value
    if name == "clip-path":
        return value.replace("url(#", f"url(#{prefix}")
    if name == "style":
        value = re.sub(r"font-family: [^;]*", "font-family: inherit", value)
        return re.sub(
            "#[0-9a-f]{6}",
            lambda match: f"var({_VARIABLES[match[0]]}, {match[0]})" if match[0] in _VARIABLES else match[0],
            value,
        )
    # Hundredths of a point are as fine as any screen.
    return re.sub(r"\d+\.\d{3,}", lambda match: f"{float(match[0]):.2f}", value)
