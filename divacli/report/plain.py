"""Text from a user's data, made harmless for a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text


class PlainConsole(Console):
    """A terminal on which no text that is printed is obeyed, wherever it came from.

    Markup and names of emoji stay as they are, and control characters are shown. What Rich itself says to the
    terminal (colours, the position of a progress bar) is not text.
    """

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False, soft_wrap=False, markup=False, emoji=False)

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """The segments that a terminal gets."""
        for segment in super().render(renderable, options):
            text, style = segment.text, segment.style
            if style is not None and style.link:
                style = style.update_link(None)
            if segment.control or text.isprintable() or text == "\n":
                yield segment if style is segment.style else Segment(text, style)
            else:
                yield Segment(shown(text), style)


def shown(text: str) -> str:
    """Text of one or several lines in which other control characters are shown."""
    return "\n".join(_shown(line) for line in text.split("\n"))


def plain(text: str) -> Text:
    """Text without markup, in which control characters are shown and not obeyed."""
    return Text(_shown(text))


def _shown(text: str) -> str:
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def shortened(name: str, width: int) -> str:
    """A name cut at its beginning: the end of a path says more."""
    return name if len(name) <= width else "…" + name[1 - width :]
