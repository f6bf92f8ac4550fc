"""What every test stands on."""

import json
import math
import os

# Before torch is imported: its threads are not to spin while another process has the core.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import functools
import hashlib
import importlib.metadata
import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import typer.main

from tests.made import Forks

SHARED = Path(__file__).resolve().parents[1].parent / "shared"

LONGEST = (
    *("report/page/test_browser.py", "cli/test_processes.py", "cli/test_torchrun.py", "faults/test_kills.py"),
    *("ridge/test_noise.py", "test_determinism.py", "cli/test_groups.py", "cli/test_prune.py"),
    *("cli/test_extend.py", "cli/test_numbers.py", "curate/test_reweight.py", "curate/test_extend.py"),
    *("ridge/test_device.py", "ridge/test_worlds.py", "training/test_train.py", "cli/test_score.py"),
    *(
        "cli/test_demo.py",
        "report/page/test_server.py",
        "report/test_figures.py",
        "report/page/test_report.py",
    ),
    *("fuzz/test_command_line.py", "faults/test_changes.py", "faults/test_damage.py", "faults/test_disk.py"),
    *("api/test_commands.py", "cli/test_pipelines.py", "cli/test_around_head.py", "test_notebook.py"),
    *("ridge/test_properties.py", "files/test_staging.py", "hostile/test_pickles.py", "doors/test_walks.py"),
)
"""Files of tests that take longest. They begin, so that none of them is left when all others are done."""


DECISIONS = ("test_prune.py", "test_relabel.py")
"""Files of tests that judge what is decided by the noise model: they need all of it."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the tests that take longest first; within a file the order stays."""
    order = {Path(__file__).parent / file: place for place, file in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path, len(order)))


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real weights and images beside the repository; tests that want it skip without it."""
    if not SHARED.is_dir():
        pytest.skip(f"no folder {SHARED.name} beside the repository")
    return SHARED


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders for caches, in one: among those of all tests pytest looks for the next number each time."""
    folder = tmp_path_factory.mktemp("caches")
    return (folder / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def own_cache(caches: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep the user's feature cache out of the tests, and let torch download no weights."""
    cache = next(caches)
    cache.mkdir()
    monkeypatch.setenv("DIVA_CACHE_DIR", str(cache))
    monkeypatch.setenv("TORCH_HOME", "/dev/null/torch")
    return cache


command_of = functools.cache(typer.main.get_command)
version_of = functools.cache(importlib.metadata.version)


@functools.cache
def remembering() -> Callable[..., Any]:
    """`fit_shape` of the noise model, which does not fit to the same numbers again."""
    from divacli.ridge.labels.noise_fit import Labelled, fit_shape

    known: dict[tuple[object, ...], Any] = {}

    def fit(samples: Labelled, *choice: object, **more: object) -> Any:
        numbers = [tensor.cpu().numpy().tobytes() for tensor in (samples.predictions, samples.labels)]
        key = *(hashlib.sha256(one).digest() for one in numbers), *choice, *sorted(more.items())
        if key not in known:
            known[key] = fit_shape(samples, *choice, **more)
        return known[key]

    return fit


@pytest.fixture(autouse=True)
def made_once(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Share between tests what is the same each time: most of the time of small commands goes there.

    The command line is made of the options once a process, not once a run, and so is it looked up which
    versions are installed. A noise model is fitted once to the same numbers, and chosen from two strengths of
    its prior in place of five. Tests of the model itself, in `tests/ridge`, fit every time and try all; so do
    tests of decisions by it.
    """
    monkeypatch.setattr("typer.testing._get_command", command_of)
    monkeypatch.setattr("importlib.metadata.version", version_of)
    if request.path.parent.name == "ridge":
        return
    monkeypatch.setattr("divacli.ridge.labels.noise_choice.fit_shape", remembering())
    if request.path.name not in DECISIONS:
        from divacli.ridge.labels.noise import fit_noise

        monkeypatch.setitem(fit_noise.__kwdefaults__, "strengths", (math.inf, 300.0))


@pytest.fixture(scope="session")
def forks() -> Iterator[Forks]:
    """Processes of `diva` that start in a fraction of a second."""
    started = Forks()
    yield started
    started.close()


@pytest.fixture(scope="session")
def save_clip() -> Callable[..., Path]:
    """Write a tiny CLIP model of random weights as `save_pretrained` does: 16 features, 12 tokens a text."""
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    import torch

    def save(folder: Path, seed: int = 0) -> Path:
        folder.mkdir(parents=True)
        letters = "abcdefghijklmnopqrstuvwxyz0123456789,.!"
        start, end = "<|startoftext|>", "<|endoftext|>"
        words = [*letters, *(f"{letter}</w>" for letter in letters), "ca", "cat</w>", start, end]
        (folder / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
        (folder / "merges.txt").write_text("#version: 0.2\nc a\nca t</w>\n")
        transformers.CLIPTokenizerFast.from_pretrained(folder).save_pretrained(folder)
        image_processor = transformers.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)
        image_processor.save_pretrained(folder)
        both = {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        }
        texts = {
            "vocab_size": len(words),
            "max_position_embeddings": 12,
            "bos_token_id": words.index(start),
            "eos_token_id": words.index(end),
            "pad_token_id": words.index(end),
        }
        config = transformers.CLIPConfig(
            projection_dim=16,
            text_config={**both, **texts},
            vision_config={**both, "image_size": 32, "patch_size": 8},
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            transformers.CLIPModel(config).save_pretrained(folder)
        return folder

    return save


@pytest.fixture(scope="session")
def clip_folder(save_clip: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny CLIP model; not to be changed."""
    return save_clip(tmp_path_factory.mktemp("clip") / "tiny")


@pytest.fixture
def bucket() -> Iterator[fsspec.AbstractFileSystem]:
    """A file system of fsspec with an empty folder, `memory://bucket`, that is gone after the test."""
    system = fsspec.filesystem("memory")
    system.mkdirs("/bucket", exist_ok=True)
    yield system
    system.rm("/bucket", recursive=True)
