"""The release of diva."""

from __future__ import annotations

__version__ = "0.1.0"
