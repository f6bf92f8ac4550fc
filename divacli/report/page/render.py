"""Fill in the page: one HTML file with everything in it, or the page that a server answers for."""

from __future__ import annotations

import base64
import hashlib
import json
import shlex
from importlib.resources import files
from typing import Any

import numpy as np
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from divacli.report.page.charts import charts, page_tables
from divacli.report.words import summary_sentences, tiles
from divacli.results.names import EXTENDED, SCORES, SELECTED
from divacli.results.read import Results, newest
from divacli.review.ledger import DECISIONS
from divacli.version import __version__


def page(results: Results, payload: dict[str, Any], notes: list[str], wrong: np.ndarray | None) -> str:
    """The page as HTML. The same results and payload give the same text.

    Args:
        results: Summaries and figures are of them.
        payload: What the script is given.
        notes: Sentences on what the page lacks.
        wrong: (n,) bool, samples of `scores` whose label is known to be wrong, or None.
    """
    style, script = _part("report.css"), _part("report.js")
    served = bool(payload["served"])
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(_part("report.html"))
    if served:
        where = "Every decision is written at once to a table"
        decisions = shlex.quote(str(results.folder / DECISIONS))
    else:
        where, decisions = "Decisions stay in this browser. The download is a table", DECISIONS
    # Marked as safe: files of this package, and JSON in which no "<" is left that could end its element.
    with results.read_as_written():
        text = template.render(
            title=f"diva report: {results.folder.name}",
            policy=_policy(script, served=served),
            style=Markup(style),
            script=Markup(script),
            data=Markup(_json(payload)),
            images=served or bool(payload["galleries"]),
            tiles=tiles(results.summaries),
            sentences=[
                *summary_sentences(results.summaries),
                *({"lead": "", "rest": note} for note in notes),
            ],
            figures=charts(results, wrong),
            tables=page_tables(results),
            next_step=f"{where} that diva applies to the data that were scored. Images without a decision "
            "stay as they are.",
            next_command=f"diva apply {_decided_on(results)} {decisions} --out curated",
            footer=f"Made by diva {__version__}. A positive derivative is harmful: more of that sample "
            "raises the validation loss.",
        )
    # A folder's name may be no UTF-8.
    return text.encode("utf-8", "replace").decode()


def _decided_on(results: Results) -> str:
    """The DATA that decisions are about: of samples chosen from a pool the extended set, which has them."""
    if SCORES in results.samples or SELECTED not in results.samples:
        return "DATA"
    return shlex.quote(str(newest(results.folder, EXTENDED) or results.folder / "extended.csv"))


def _part(name: str) -> str:
    return (files("divacli.report.page") / name).read_text(encoding="utf-8")


def _json(payload: dict[str, Any]) -> str:
    text = json.dumps(payload, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    # File names that are no UTF-8 hold halves of surrogate pairs, which HTML cannot.
    return text.encode("utf-8", "backslashreplace").decode()


def _policy(script: str, *, served: bool) -> str:
    """Nothing is loaded from anywhere, and no script runs but the page's own, whatever a label says."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    parts = {
        "default-src": "'none'",
        "script-src": f"'sha256-{digest}'",
        "style-src": "'unsafe-inline'",
        "img-src": "'self' data:" if served else "data: file:",
        "connect-src": "'self'" if served else "'none'",
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in parts.items())
