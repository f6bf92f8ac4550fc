"""Images and embeddings made on the spot, a network in a factory file, and the command line in process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from tests.made import FACTORY, in_turn, write_images

OVERWRITING = (
    *("score", "prune", "relabel", "reweight", "extend", "aggregate", "augment", "train", "evaluate"),
    *("embed", "apply", "export", "plot", "report", "demo", "votes"),
)
"""Commands with the option --overwrite."""


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """36 images in the class folders a, b and c; not to be changed."""
    folder = tmp_path_factory.mktemp("images") / "photos"
    write_images(folder, in_turn(36), seed=0)
    return folder


@pytest.fixture(scope="session")
def more_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """70 images: enough for worker processes to start."""
    folder = tmp_path_factory.mktemp("more") / "photos"
    write_images(folder, in_turn(70), seed=1)
    return folder


@pytest.fixture
def images_table(images: Path) -> pd.DataFrame:
    """Absolute path and label of every image, shuffled."""
    files = sorted(images.rglob("*.png"))
    table = pd.DataFrame(
        {"path": [str(file) for file in files], "label": [file.parent.name for file in files]}
    )
    return table.sample(frac=1, random_state=0).reset_index(drop=True)


@pytest.fixture
def factory(tmp_path: Path) -> Path:
    """A factory file; what it does is logged beside it."""
    path = tmp_path / "net.py"
    path.write_text(FACTORY)
    return path


@pytest.fixture
def model(factory: Path) -> tuple[str, str]:
    """The option that names the network."""
    return ("--model", f"{factory}:make")


@pytest.fixture
def trained_head(factory: Path, more_images: Path, tmp_path: Path) -> Path:
    """A checkpoint whose last layer was fitted on other images of the same kind."""
    import runpy

    import torch
    from PIL import Image

    module = runpy.run_path(str(factory))
    net, transform = module["make"]()
    files = sorted(more_images.rglob("*.png"))
    inputs = torch.stack([transform(Image.open(file)) for file in files]).flatten(1)
    with torch.no_grad():
        features = torch.cat([net.hidden(inputs).relu(), torch.ones(len(files), 1)], dim=1)
        targets = torch.eye(3)[["abc".index(file.parent.name) for file in files]]
        gram = features.T @ features + 0.05 * torch.eye(11)
        solution = torch.linalg.solve(gram, features.T @ targets)
        net.fc.weight.copy_(solution[:10].T)
        net.fc.bias.copy_(solution[10])
    torch.save(net.state_dict(), tmp_path / "head.pt")
    return tmp_path / "head.pt"


@dataclass(frozen=True)
class Blobs:
    """Gaussian classes with planted wrong labels.

    Attributes:
        file: As an `.npz`.
        arrays: What is in it.
        flipped: (n,) which labels are wrong.
    """

    file: Path
    arrays: dict[str, np.ndarray]
    flipped: np.ndarray


@pytest.fixture
def blobs(tmp_path: Path) -> Callable[..., Blobs]:
    """Write Gaussian classes with a tenth of the labels wrong."""

    def write(name: str = "blobs.npz", n: int = 150, d: int = 8, seed: int = 0, **more: Any) -> Blobs:
        generator = np.random.default_rng(seed)
        centres = np.random.default_rng(99).normal(size=(3, d)) * 2
        truth = np.arange(n) % 3
        features = (centres[truth] + generator.normal(size=(n, d))).astype(np.float32)
        flipped = generator.permutation(n) < n // 10
        labels = np.where(flipped, (truth + generator.integers(1, 3, n)) % 3, truth)
        paths = np.array([f"s{number:04d}" for number in range(n)])
        arrays = {"embedding": features, "label": labels, "path": paths, **more}
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        np.savez(file, **arrays)
        return Blobs(file, arrays, flipped)

    return write


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Run the command line in this process, in a fresh folder.

    One call replaces what another one wrote into the same folder, unless that is not to be.
    """
    from divacli.cli.app import app

    monkeypatch.chdir(tmp_path)

    def invoke(*arguments: object, stdin: bytes | str | None = None, overwrite: bool = True) -> Any:
        given = [str(argument) for argument in arguments]
        if overwrite and given[:1] and given[0] in OVERWRITING:
            given.append("--overwrite")
        return CliRunner().invoke(app, given, input=stdin)

    return invoke


@pytest.fixture
def done(run: Callable[..., Any]) -> Callable[..., Any]:
    """As `run`, of a command that must succeed."""

    def invoke(*arguments: object, stdin: bytes | str | None = None, overwrite: bool = True) -> Any:
        result = run(*arguments, stdin=stdin, overwrite=overwrite)
        assert result.exit_code == 0, f"{result.stderr}\n{result.exception!r}"
        return result

    return invoke


@pytest.fixture
def scores(done: Callable[..., Any]) -> Callable[..., pd.DataFrame]:
    """Run `diva score` and return its table as written."""

    def invoke(*arguments: object, out: str = "scored", stdin: bytes | None = None) -> pd.DataFrame:
        done("score", *arguments, "--out", out, stdin=stdin)
        return pd.read_csv(
            Path(out) / "scores.csv", dtype={"path": str, "label": str, "predicted_label": str}
        )

    return invoke


@pytest.fixture
def refuse_to_compute(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From the call on, neither solve anew nor load or run a network."""

    def refuse(*arguments: object, **options: object) -> None:
        raise AssertionError("computed twice")

    def switch_on() -> None:
        loading = "backbones.load.load_backbone"
        for name in ("curate.sample_scores.score", loading, "features.extract.extract"):
            monkeypatch.setattr(f"divacli.{name}", refuse)

    return switch_on
