"""Sentences on results, as lines of a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from rich.text import Text

from divacli.report.terminal.plain import plain
from divacli.report.words import Sentence, groups_sentences


def sentence_line(sentence: Sentence) -> Text:
    """A sentence on one line, its lead in bold."""
    lead = plain(sentence.lead)
    lead.stylize("bold")
    return Text.assemble(lead, plain(sentence.rest))


def groups_line(about: Mapping[str, Any]) -> Iterator[Text]:
    """That whole groups are left out, where they are.

    Args:
        about: A summary, or as from `divacli.solve.provenance.grouping`.
    """
    yield from map(sentence_line, groups_sentences(about))
