"""Text from a user's data, made harmless for a terminal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.segment import Segment
from rich.text import Text

from divacli.errors import cut, shown

_INDENT = "  "


class PlainConsole(Console):
    """A terminal on which no text that is printed is obeyed, wherever it came from.

    Markup and names of emoji stay as they are. Control characters are shown; so are line breaks of a `str`,
    while those of a `Text` are meant. A line in which a paragraph goes on is indented, so that no text of a
    user begins a line. What Rich itself says to the terminal (colours, the position of a progress bar) is not
    text.
    """

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False, soft_wrap=False, markup=False, emoji=False)

    def print(self, *objects: Any, **options: Any) -> None:
        """Print as Rich does, each text as a paragraph."""
        texts = [plain(thing) if isinstance(thing, str) else thing for thing in objects]
        super().print(*(_Paragraph(text) if isinstance(text, Text) else text for text in texts), **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """Turn a `str` (a cell, a title) into a `Text` of one line."""
        return super().render_str(shown(text), **options)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments that a terminal gets."""
        for segment in super().render(renderable, options):
            text, style = segment.text, segment.style
            if style is not None and style.link:
                style = style.update_link(None)
            if segment.control or text.isprintable() or text == "\n":
                yield segment if style is segment.style else Segment(text, style)
            else:
                yield Segment("\n".join(map(shown, text.split("\n"))), style)


@dataclass(frozen=True)
class _Paragraph:
    """A text whose lines are indented where they go on."""

    text: Text

    def __rich_measure__(self, console: Console, options: ConsoleOptions) -> Measurement:
        """As of the text."""
        return Measurement.get(console, options, self.text)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Its lines."""
        if options.no_wrap:
            yield self.text
            return
        for line in self.text.split("\n", allow_blank=True):
            fits = line.cell_len <= options.max_width
            first, *others = [line] if fits else line.wrap(console, options.max_width - len(_INDENT))
            yield first
            yield from (Text.assemble(_INDENT, other) for other in others)


def plain(text: str, style: str = "") -> Text:
    """One line without markup, in which control characters are shown; a very long one without its middle."""
    return Text(cut(shown(text)), style=style)


def shortened(name: str, width: int) -> str:
    """A name cut at its beginning: the end of a path says more."""
    return name if len(name) <= width else "…" + name[1 - width :]
