"""Where features are kept between commands."""

from __future__ import annotations

import os
from pathlib import Path

CACHE_VARIABLE = "DIVA_CACHE_DIR"


def default_cache() -> Path:
    """The user's cache folder: `DIVA_CACHE_DIR`, or `diva` in the folder that the system has for caches."""
    named = os.environ.get(CACHE_VARIABLE)
    if named:
        return Path(named)
    system = Path(os.environ.get("XDG_CACHE_HOME", ""))
    # One that is relative is to be ignored, says the XDG Base Directory Specification.
    return (system if system.is_absolute() else Path.home() / ".cache") / "diva"
