"""Text from a user's data, made harmless for a terminal."""

from __future__ import annotations

from rich.text import Text


def plain(text: str) -> Text:
    """Text without markup, in which control characters are shown and not obeyed."""
    return Text("".join(char if char.isprintable() else repr(char)[1:-1] for char in text))


def shortened(name: str, width: int) -> str:
    """A name cut at its beginning: the end of a path says more."""
    return name if len(name) <= width else "…" + name[1 - width :]
