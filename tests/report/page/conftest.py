"""Folders of results: images of three tints, some with wrong labels, scored by the command line."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from divacli.cli.app import app
from divacli.progress import silent
from divacli.report.page.review import prepare
from divacli.report.page.server import ReviewServer
from divacli.results.read import read_results
from tests.made import tinted

NET = """
import torch
from torch import nn
from torchvision.transforms import v2

class Mean(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.mix = nn.Linear(3 * 64, 16)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        return self.fc(self.mix(x.flatten(1)))

def make():
    return Mean(), v2.Compose([v2.Resize((8, 8)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
"""

HOSTILE = (
    "<script>document.title='owned'</script>",
    'quote" and \'apostrophe\' <img src=x onerror="document.title=1">',
    "line\nbreak",
    "\u202eright to left \u05e9\u05dc\u05d5\u05dd",
    "emoji 🦊",
    "=HYPERLINK(1)",
    "+1+cmd",
    "-2+3",
    "@SUM(1)",
    "</script><script>document.title='owned'</script>",
    "{{ 7 * 7 }} ${title} %s",
    "-1",
)
"""Labels that a page, a terminal or a spreadsheet may take for more than text."""


@dataclass(frozen=True)
class Scored:
    """A folder of results.

    Attributes:
        data: What was scored.
        folder: The results.
        files: Absolute path of every image.
        truth: The class that each one shows, 0 to 2.
        labels: Given labels.
    """

    data: Path
    folder: Path
    files: list[Path]
    truth: np.ndarray
    labels: list[str]

    @property
    def wrong(self) -> set[str]:
        """Files whose label is wrong."""
        right = {int(self.truth[row]): label for row, label in enumerate(self.labels) if row % 7}
        return {
            str(file)
            for file, truth, label in zip(self.files, self.truth, self.labels, strict=True)
            if label != right[int(truth)]
        }


@pytest.fixture(scope="session")
def hostile() -> tuple[str, ...]:
    """See `HOSTILE`."""
    return HOSTILE


@pytest.fixture(scope="session")
def run_diva() -> Callable[..., Any]:
    """Run a command."""
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="session")
def diva(run_diva: Callable[..., Any]) -> Callable[..., Any]:
    """Run a command that must succeed."""

    def run(*arguments: object) -> Any:
        result = run_diva(*arguments)
        assert result.exit_code == 0, f"{result.stderr}\n{result.exception!r}"
        return result

    return run


@pytest.fixture(scope="session")
def make_scored(tmp_path_factory: pytest.TempPathFactory, diva: Callable[..., Any]) -> Callable[..., Scored]:
    """Score images of three classes; every seventh label is wrong."""

    def make(names: tuple[str, str, str] = ("red", "green", "blue"), n: int = 63) -> Scored:
        root = tmp_path_factory.mktemp("page")
        generator = np.random.default_rng(0)
        (root / "net.py").write_text(NET)
        folder = root / "photos"
        folder.mkdir()
        truth = np.arange(n) % 3
        labels = [names[(one + (row % 7 == 0)) % 3] for row, one in enumerate(truth)]
        files = []
        for row, one in enumerate(truth):
            name = f"{row:02d} {names[one].replace('/', '|')}.png"
            tinted(one, generator, side=24, tint=130, noise=100).save(folder / name)
            files.append(folder / name)
        table = pd.DataFrame({"path": [f"photos/{file.name}" for file in files], "label": labels})
        table.to_json(root / "labels.jsonl", orient="records", lines=True, force_ascii=False)
        diva(
            *("score", root / "labels.jsonl", "--model", f"{root / 'net.py'}:make", "--out", root / "out"),
            *("--cache-dir", root / "cache", "--by", "class", "--workers", 0),
        )
        return Scored(root / "labels.jsonl", root / "out", files, truth, labels)

    return make


@pytest.fixture(scope="session")
def scored(make_scored: Callable[..., Scored]) -> Scored:
    """Plain names; not to be changed."""
    return make_scored()


@pytest.fixture
def serve() -> Iterator[Callable[[Scored], ReviewServer]]:
    """Serve the review of a folder of results until the test ends."""
    with _serving() as start:
        yield start


@pytest.fixture(scope="module")
def serve_all() -> Iterator[Callable[[Scored], ReviewServer]]:
    """As `serve`, until all tests of the file end."""
    with _serving() as start:
        yield start


@contextmanager
def _serving() -> Iterator[Callable[[Scored], ReviewServer]]:
    servers = []

    def start(scored: Scored) -> ReviewServer:
        review, _ = prepare(read_results(scored.folder), scored.data.parent / "cache", silent)
        server = ReviewServer(review)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        servers.append(server)
        return server

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()
        server.review.ledger.close()


@pytest.fixture
def serving(serve: Callable[[Scored], ReviewServer]) -> Callable[[Scored], str]:
    """Serve the review of a folder of results, and give its address."""
    return lambda scored: serve(scored).address
