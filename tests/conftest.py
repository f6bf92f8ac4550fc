"""What every test stands on."""

import os

# Before torch is imported: its threads are not to spin while another process has the core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[1].parent / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real weights and images beside the repository; tests that want it skip without it."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED.name} beside the repository")
    return SHARED


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's feature cache out of the tests."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DIVA_CACHE_DIR", str(cache))
    return cache
