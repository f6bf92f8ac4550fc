"""The experiments of the paper, end to end on data that are made here."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import Result
from typer.testing import CliRunner

from benchmarks import machine
from benchmarks.paper import app, markdown, share_of_classes
from divacli.features import Samples, load_samples
from tests.made import in_turn, write_images

NETWORK = """
import torch
from torch import nn
from torchvision.transforms import v2

def make():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(48, 80), nn.ReLU(), nn.Linear(80, 3))
    return net, v2.Compose([v2.Resize((4, 4)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
"""

Run = Callable[..., Result]
Page = Callable[..., tuple[str, list[dict[str, Any]]]]


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run the program, its results going to the test's own folder."""
    monkeypatch.setattr(machine, "RESULTS", tmp_path / "results")
    return lambda *arguments: CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def page(run: Run, tmp_path: Path) -> Page:
    """The page and the rows of a run, by the name of the data set."""

    def invoke(name: str, *arguments: object) -> tuple[str, list[dict[str, Any]]]:
        result = run(name, *arguments, "--seeds", 1)
        assert result.exit_code == 0, f"{result.output}\n{result.exception!r}"
        (file,) = (tmp_path / "results").glob("*.md")
        text = file.read_text()
        assert text.split() == result.stdout.split("wrote")[0].split()
        assert "network that was named" not in result.stderr
        return text, json.loads(file.with_suffix(".json").read_text())["rows"]

    return invoke


def blobs(file: Path, n: int, seed: int) -> Path:
    """Features of three classes that lie well apart."""
    labels = np.arange(n) % 3
    noise = np.random.default_rng(seed).normal(size=(n, 8))
    np.savez(file, embedding=(4 * np.eye(3, 8)[labels] + noise).astype(np.float32), label=labels)
    return file


def test_features_allow_all_but_augment(page: Page, tmp_path: Path) -> None:
    data, test = blobs(tmp_path / "train.npz", 90, 0), blobs(tmp_path / "test.npz", 45, 1)
    text, rows = page("flowers102", "--data", data, "--test", test)
    assert text.startswith("# The DIVA paper's experiments: Flowers102\n")
    assert [line for line in text.splitlines() if line.startswith("## ")] == [
        "## Wrong labels",
        "## Reweighting",
        "## Extension",
    ]
    lines = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert "| 0.83 " in lines["derivative > 0"]
    assert "| 0.97 " in lines["derivative > 0"]
    assert "| 20.23 " in lines["constant"]
    assert "| 19.16 " in lines["3 x 0.1, squared loss"]
    assert "19.16" not in lines["automatic steps, cross-entropy"]
    # A table of scores is sorted; were flips and scores not of one order, they would have nothing in common.
    (derivative,) = (row for row in rows if row.get("rule") == "derivative")
    assert derivative["auc"] > 0.95
    (curve,) = (row for row in rows if row["part"] == "extend")
    assert curve["n_pool"] == 45
    assert curve["random_100%"] == curve["pool"]


def test_images_also_allow_augment(page: Page, tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    for split, n in (("train", 36), ("test", 18)):
        write_images(tmp_path / split, in_turn(n), seed=n)
    model = ("--model", f"{tmp_path / 'net.py'}:make")
    data = ("--data", tmp_path / "train", "--test", tmp_path / "test")
    text, rows = page("OxfordIIITPet", *data, *model, "--limit", 20)
    assert "## Augmentation" in text
    assert {row["part"] for row in rows} == {"data", "detect", "reweight", "extend", "augment"}
    (row,) = (row for row in rows if row["part"] == "augment")
    assert row["n"] == 21  # seven of every class
    assert sum(row["probability"]) == pytest.approx(1)
    by_transform = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert by_transform["vflip"].endswith("| penalised |")
    assert by_transform["hflip"].split("|")[-2].strip() == "-"


def test_texts_are_added_to_images(page: Page, tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    centres = 3 * generator.normal(size=(4, 8))
    label = np.repeat(np.arange(4), 30)
    embedding = centres[label] + generator.normal(size=(120, 8))
    np.savez(tmp_path / "images.npz", embedding=embedding, label=label)
    prompts = {f"embedding_prompt_{prompt}": centres + 1 for prompt in "ab"}
    matched = {"matched_caltech_label": np.arange(4), "matched_imagenet_index": np.arange(4)}
    np.savez(tmp_path / "texts.npz", **prompts, **matched)
    files = ("--images", tmp_path / "images.npz", "--texts", tmp_path / "texts.npz")
    text, rows = page("clip", *files)
    assert "some texts help, all of them hurt" in text
    assert [(row["part"], row["per_class"]) for row in rows] == [("modalities", 20), ("modalities", 5)]


def test_parts_that_the_data_do_not_allow_are_refused(run: Run, tmp_path: Path) -> None:
    data = blobs(tmp_path / "train.npz", 30, 0)
    both = ("--data", data, "--test", data)
    for arguments in (
        ("x", *both, "--parts", "augment"),
        ("x", *both, "--parts", "modalities"),
        ("x", *both, "--parts", "detect,detekt"),
        ("x", "--data", data),
        ("x",),
        ("CUB200", "--root", tmp_path),
        ("SVHN", "--root", tmp_path, "--data", data),
    ):
        assert run(*arguments).exit_code == 2, arguments
    missing = run("stanfordcars", "--root", tmp_path)
    assert missing.exit_code == 1
    assert "devkit/{cars_train_annos,cars_meta}.mat" in missing.stderr
    assert not (tmp_path / "results").exists()


def test_a_share_is_taken_of_every_class(tmp_path: Path) -> None:
    file = tmp_path / "uneven.npz"
    label = np.repeat([0, 1, 2], [10, 5, 1])
    np.savez(file, embedding=np.random.default_rng(0).normal(size=(16, 3)), label=label)
    samples = load_samples(str(file), None, None, tmp_path)  # type: ignore[arg-type]  # no network
    assert isinstance(samples, Samples)
    rows = share_of_classes(samples, 0.5, seed=0)
    assert np.bincount(label[rows]).tolist() == [5, 3, 1]
    assert len(share_of_classes(samples, 1.0, seed=0)) == 16
    assert rows.tolist() != share_of_classes(samples, 0.5, seed=1).tolist()


def test_columns_are_of_one_width() -> None:
    assert markdown([{"a": "1", "bb": "long"}, {"a": "22", "bb": "3"}]).splitlines() == [
        "| a  | bb   |",
        "| -- | ---- |",
        "| 1  | long |",
        "| 22 | 3    |",
    ]
