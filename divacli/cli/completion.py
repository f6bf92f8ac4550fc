"""What the shell completes beyond commands, options and files."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

_NETWORK = re.compile(r"^@register_model\(\)\n(?:.*\n)*?def (\w+)", re.MULTILINE)


def torchvision_names(incomplete: str) -> list[str]:
    """Names of torchvision's classifiers that begin so; none where they cannot be told.

    They are read from its source: to import it takes seconds.

    Args:
        incomplete: What was typed.
    """
    package = importlib.util.find_spec("torchvision")
    if package is None or package.origin is None:
        return []
    sources = (Path(package.origin).parent / "models").glob("*.py")
    names = [name for source in sources for name in _NETWORK.findall(source.read_text(encoding="utf-8"))]
    return sorted(name for name in names if name.startswith(incomplete))
