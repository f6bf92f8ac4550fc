"""What diva sees of the machine it runs on: for people, and for reports of bugs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from divacli.files.path_or_url import STORE_FILE
from divacli.machine.versions import versions

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "firefox", "safari", "xdg-open")
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OMP_WAIT_POLICY", "CUDA_VISIBLE_DEVICES")
_LITTLE = 1 << 30
"""Free bytes below which features of a large set may not fit."""


@dataclass(frozen=True)
class Checkup:
    """What was found.

    Attributes:
        found: Values by name, by section; for JSON and for people.
        problems: What would not work, each with what to do.
    """

    found: dict[str, dict[str, Any]]
    problems: list[str] = field(default_factory=list)


def check_up(cache: Path) -> Checkup:
    """Look at versions, devices, memory, threads, the cache, free space, decoders and browsers.

    Nothing secret is in it: no name of a user or machine, and of variables only those of threads and devices.

    Args:
        cache: Where features are kept.
    """
    problems: list[str] = []
    found = {
        "versions": dict(versions()),
        "devices": dict(_devices(problems)),
        "processor": dict(_processor()),
        "cache": dict(_cache(cache, problems)),
        "space": dict(_space(cache, problems)),
        "images": dict(_images(problems)),
        "browser": {"found": [name for name in _BROWSERS if shutil.which(name)]},
    }
    return Checkup(found, problems)


def size_text(size: float) -> str:
    """A number of bytes as people read it."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _devices(problems: list[str]) -> Iterator[tuple[str, Any]]:
    import torch

    try:
        import torchvision  # noqa: F401 - its operators are built for one release of torch
    except (ImportError, OSError, RuntimeError) as error:
        problems.append(
            f"torchvision cannot be imported beside torch {torch.__version__} ({error}): install both "
            "together, pip install --force-reinstall torch torchvision"
        )
    yield "default", "cuda" if torch.cuda.is_available() else "cpu"
    yield "torch built for CUDA", torch.version.cuda
    for number in range(torch.cuda.device_count()):
        about = torch.cuda.get_device_properties(number)
        yield f"cuda:{number}", f"{about.name}, {size_text(about.total_memory)}"
    if torch.version.cuda and not torch.cuda.is_available():
        if shutil.which("nvidia-smi"):
            problems.append(
                "there is an NVIDIA driver, and torch sees no device: the driver may be too old for CUDA "
                f"{torch.version.cuda} (see nvidia-smi), or CUDA_VISIBLE_DEVICES hides the device"
            )
        yield "why no CUDA", "no driver" if not shutil.which("nvidia-smi") else "the driver shows no device"


def _processor() -> Iterator[tuple[str, Any]]:
    import torch

    yield "cores", os.cpu_count()
    yield (
        "cores for this process",
        len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count(),
    )
    yield "threads of torch", torch.get_num_threads()
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        yield "memory", size_text(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for name in _THREADS:
        if name in os.environ:
            yield name, os.environ[name]


def _cache(cache: Path, problems: list[str]) -> Iterator[tuple[str, Any]]:
    yield "folder", _shown(cache)
    if not cache.exists():
        yield "state", "not there yet"
        return
    try:
        files = [file for file in cache.rglob("*") if file.is_file()]
        yield "size", size_text(sum(file.stat().st_size for file in files))
        yield "feature stores", sum(file.name == STORE_FILE for file in files)
    except OSError as error:
        problems.append(
            f"the cache {_shown(cache)} cannot be read: {error.strerror}; give another --cache-dir"
        )
        return
    if not os.access(cache, os.W_OK | os.X_OK):
        problems.append(f"the cache {_shown(cache)} cannot be written to: give another one with --cache-dir")


def _space(cache: Path, problems: list[str]) -> Iterator[tuple[str, Any]]:
    for name, folder in (("for the cache", cache), ("in the current folder", Path.cwd())):
        there = next(one for one in (folder, *folder.parents) if one.exists())
        free = shutil.disk_usage(there).free
        yield name, size_text(free)
        if free < _LITTLE:
            problems.append(
                f"{size_text(free)} are free {name}, {_shown(folder)}: make room, or choose another place"
            )


def _images(problems: list[str]) -> Iterator[tuple[str, Any]]:
    from PIL import features

    for name, what in (("JPEG", "jpg"), ("JPEG turbo", "libjpeg_turbo"), ("WebP", "webp"), ("AVIF", "avif")):
        try:
            there = bool(features.check(what))
        except ValueError:  # a feature that this Pillow has not heard of
            there = False
        yield name, there
        if what in ("jpg", "webp") and not there:
            problems.append(f"Pillow was built without {name}: pip install --force-reinstall pillow")


def _shown(folder: Path) -> str:
    """A path without the name of its user."""
    try:
        return str(Path("~") / folder.absolute().relative_to(Path.home()))
    except ValueError:
        return str(folder)
