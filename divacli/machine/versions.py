"""Which releases of the packages that matter are installed, without importing them."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator

from divacli.version import __version__

_REQUIRED = (
    "torch",
    "torchvision",
    "numpy",
    "pandas",
    "pyarrow",
    "pillow",
    "scikit-learn",
    "safetensors",
    "typer",
    "rich",
)
_EXTRAS = ("timm", "transformers", "datasets", "onnxruntime")


def versions() -> Iterator[tuple[str, str | None]]:
    """Name and version of diva, Python, the system and packages; None of a package that is not installed."""
    yield "diva", __version__
    yield "python", platform.python_version()
    yield "system", f"{platform.system()} {platform.release()} {platform.machine()}"
    for name in (*_REQUIRED, *_EXTRAS):
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            yield name, None
