"""Where features are kept between commands."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "DIVA_CACHE_DIR"


def default_cache() -> Path:
    """The user's cache folder: `DIVA_CACHE_DIR`, or `diva` in the folder that the system has for caches."""
    named = os.environ.get(CACHE_VARIABLE)
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diva"
