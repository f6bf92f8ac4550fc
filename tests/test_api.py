"""`divacli.score` and `divacli.prune`: what the commands write, byte for byte, and how it shows itself."""

from __future__ import annotations

import dataclasses
import inspect
import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure
from typer.testing import CliRunner

import divacli
from divacli.cli.app import app
from divacli.cli.options import ComputeOptions, NetworkOptions, ProblemOptions
from divacli.errors import DataError, DivaError
from divacli.manifest import read_manifest
from divacli.report.figures.plots import KINDS

# What differs between two runs, and what only images have.
TIMES = ("seconds", "n_embedded")


@pytest.fixture
def data(tmp_path, monkeypatch) -> Path:
    """Three Gaussian classes in an `.npz` file, a tenth of the labels wrong; some copies, an annotator."""
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    truth = np.arange(120) % 3
    features = (generator.normal(size=(3, 6))[truth] * 2 + generator.normal(size=(120, 6))).astype(np.float32)
    features[1], features[4] = features[0], features[3]
    labels = np.where(generator.random(120) < 0.1, (truth + 1) % 3, truth)
    np.savez(
        "data.npz", embedding=features, label=labels, annotator=np.array(["ann", "ben"])[np.arange(120) % 2]
    )
    return Path("data.npz")


@pytest.fixture
def images(tmp_path, monkeypatch) -> Path:
    """Images in class folders, and a network for them in `net.py`."""
    image = pytest.importorskip("PIL.Image")
    monkeypatch.chdir(tmp_path)
    generator = np.random.default_rng(0)
    for number in range(30):
        file = Path("photos", "ab"[number % 2], f"{number}.png")
        file.parent.mkdir(parents=True, exist_ok=True)
        image.fromarray(generator.integers(0, 200, (6, 6, 3)).astype(np.uint8)).save(file)
    Path("net.py").write_text(
        "import torch\n"
        "from torch import nn\n"
        "from torchvision.transforms import v2\n"
        "def make():\n"
        "    torch.manual_seed(0)\n"
        "    net = nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.ReLU(), nn.Linear(8, 2))\n"
        "    scaled = v2.ToDtype(torch.float32, scale=True)\n"
        "    return net, v2.Compose([v2.Resize((6, 6)), v2.PILToTensor(), scaled])\n"
    )
    return Path("photos")


def command(*arguments: object) -> None:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, f"{result.stderr}\n{result.exception!r}"


def recorded(content: bytes) -> list[object]:
    """The runs of a record, without measured times and options that the calls do not share."""
    runs = json.loads(content)["runs"]
    for run in runs:
        run["options"] = {
            name: str(value)
            for name, value in run["options"].items()
            if name not in ("cache_dir", "format", "workers")
        }
        run["outputs"] = {
            name: None if name.endswith(".json") else about for name, about in run["outputs"].items()
        }
    return runs


def same_files(one: str, other: str) -> None:
    """The same files, but for the times that were measured."""
    names = sorted(path.name for path in Path(one).iterdir())
    assert names == sorted(path.name for path in Path(other).iterdir())
    for name in names:
        contents = [Path(folder, name).read_bytes() for folder in (one, other)]
        if name == "run.json":
            contents = [recorded(content) for content in contents]
        elif name.endswith(".json"):
            summaries = [json.loads(content) for content in contents]
            assert list(summaries[0]) == list(summaries[1])
            contents = [{k: v for k, v in one.items() if k not in TIMES} for one in summaries]
        assert contents[0] == contents[1], name


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_saved_scores_are_what_the_command_writes(format, data):
    command("score", data, "--by", "class", "--by", "annotator", "--out", "written", "--format", format)
    result = divacli.score(data, by=["class", "annotator"])
    names = result.save("saved", format)
    same_files("written", "saved")
    assert sorted(names) == sorted(path.name for path in Path("saved").iterdir())


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"ridge": 2.0, "loss": "cross-entropy"}, ["--ridge", "2", "--loss", "cross-entropy"]),
        (
            {"validation": "balanced", "scaling": "standard"},
            ["--validation", "balanced", "--scaling", "standard"],
        ),
        ({"dtype": "float64", "group": "annotator"}, ["--dtype", "float64", "--group", "annotator"]),
        ({"group": "duplicates", "seed": 3}, ["--group", "duplicates", "--seed", "3"]),
        ({"val": "data.npz"}, ["--val", "data.npz"]),
    ],
)
def test_options_mean_what_they_mean_on_the_command_line(options, flags, data):
    command("score", data, *flags, "--out", "written")
    divacli.score(str(data), **options).save("saved")
    same_files("written", "saved")


def test_images_are_embedded_once_for_both(images):
    network = {"model": "net.py:make", "workers": 0}
    result = divacli.score(images, **network)
    assert result.summary["n_embedded"] == 30
    result.save("saved")
    command("score", images, "--model", "net.py:make", "--out", "written")
    same_files("written", "saved")
    assert divacli.score(images, **network).summary["n_embedded"] == 0
    assert divacli.score(images, **network, cache_dir="elsewhere").summary["n_embedded"] == 30


def test_tables_in_memory_and_manifests_are_data(images):
    files = sorted(images.rglob("*.png"))
    table = pd.DataFrame(
        {"path": [str(file) for file in files], "label": [file.parent.name for file in files]}
    )
    from_folder = divacli.score(images, model="net.py:make", workers=0).table
    for given in (table, table.set_index("label", drop=False), read_manifest("photos")):
        found = divacli.score(given, model="net.py:make", workers=0).table
        assert found["derivative"].tolist() == from_folder["derivative"].tolist()
    assert list(table.columns) == ["path", "label"], "the user's own table is left alone"


def test_a_note_of_saved_scores_lets_the_command_refit(data):
    with pytest.warns(UserWarning, match="copies") as warned:
        divacli.score(data).save("saved")
    assert {warning.filename for warning in warned} == {__file__}, "it names the line of the user"
    result = CliRunner().invoke(app, ["prune", "saved/scores.csv", "--keep", "auto", "--out", "pruned"])
    assert result.exit_code == 0
    assert json.loads(Path("pruned/prune.json").read_text())["forecast"] is not None


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({"keep": "auto"}, ["--keep", "auto"]),
        (
            {"keep": "auto", "threshold": 0.8, "budget": 3},
            ["--keep", "auto", "--threshold", "0.8", "--budget", "3"],
        ),
        ({"keep": 0.8, "stratify": True}, ["--keep", "0.8", "--stratify"]),
        ({"keep": 0.7, "by": "easy", "force": True}, ["--keep", "0.7", "--by", "easy", "--force"]),
        ({"keep": 0.05, "by": "random"}, ["--keep", "0.05", "--by", "random"]),
        ({"threshold": 0.0, "by": "loo_loss"}, ["--threshold", "0", "--by", "loo_loss"]),
    ],
)
def test_saved_decisions_are_what_the_command_writes(options, flags, data):
    command("prune", data, *flags, "--out", "written")
    decided = divacli.prune(divacli.score(data), **options)
    decided.save("saved")
    same_files("written", "saved")
    assert len(decided.kept) + len(decided.dropped) == 120
    assert decided.summary["n_dropped"] == len(decided.dropped)
    assert f"{len(decided.dropped):,} dropped" in decided._repr_html_()


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"keep": 0.5, "threshold": 0.1},
        {"keep": 2.0},
        {"keep": 0.5, "budget": 3},
        {"keep": "auto", "stratify": True},
        {"keep": "auto", "by": "balanced"},
        {"threshold": 0.1, "by": "balanced"},
    ],
)
def test_options_that_do_not_go_together_are_refused(options, data):
    with pytest.raises(DivaError, match="expected:"):
        divacli.prune(divacli.score(data), **options)


def test_the_defaults_are_those_of_the_command_line():
    given = inspect.signature(divacli.score).parameters
    groups = (NetworkOptions, ComputeOptions, ProblemOptions)
    options = {each.name: each.default for group in groups for each in dataclasses.fields(group)}
    assert set(options) == set(given) - {"data", "by", "progress"}
    # On the command line None, which is told as these.
    told = {"ridge": "auto", "loss": "squared"}
    assert {name: given[name].default for name in options} == {**options, **told}


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_every_kind_of_plot_of_scores_is_drawn(data):
    result = divacli.score(data, by=["class", "annotator"])
    for kind in KINDS:
        if kind != "curve":
            assert isinstance(result.plot(kind), Figure)
    labels = [label.get_text() for label in result.plot("groups", by="annotator").axes[0].get_yticklabels()]
    assert sorted(label[:3] for label in labels) == ["ann", "ben"]
    with pytest.raises(DataError, match="nothing for a plot of kind curve"):
        result.plot("curve")
    with pytest.raises(DataError, match="no kind of plot 'pie'"):
        result.plot("pie")
    with pytest.raises(DataError, match="groups"):
        divacli.score(data).plot("groups")


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_plot_marks_known_wrong_labels(data):
    arrays = dict(np.load(data))
    np.savez("truth.npz", **{**arrays, "label": np.arange(120) % 3})
    wrong = (arrays["label"] != np.arange(120) % 3).sum()
    flips = divacli.score(data).plot(truth="truth.npz").axes[0].patches[1]
    assert flips.get_data().values.sum() == wrong > 5


class Tags(HTMLParser):
    """The tags and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)

    def handle_data(self, data):
        self.text += data


def test_a_result_shows_itself_in_a_notebook_and_runs_nothing(data):
    arrays = dict(np.load(data))
    names = np.array(["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a & b"])
    np.savez(
        "evil.npz", **{**arrays, "label": names[arrays["label"]], "path": [f"<b>{i}" for i in range(120)]}
    )
    with pytest.warns(UserWarning, match="copies"):
        shown = Tags(divacli.score("evil.npz")._repr_html_())
    assert shown.tags == {"p", "b", "table", "thead", "tbody", "tr", "th", "td"}
    assert "120 samples, 3 classes" in shown.text
    assert "<script>alert(1)</script>" in shown.text
    assert "<b>" in shown.text


def test_nothing_is_printed_unless_progress_is_asked_for(data, capfd):
    for progress in (False, True):
        with pytest.warns(UserWarning, match="copies"):
            divacli.score(data, progress=progress)
    assert capfd.readouterr() == ("", ""), "nor where there is no terminal"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": 3}, "data is a int"),
        ({"data": "none.csv"}, "none.csv"),
        ({"data": pd.DataFrame({"label": ["a"]})}, "path"),
        ({"data": pd.DataFrame({"path": ["gone.png", "too.png"], "label": ["a", "b"]})}, "gone.png"),
        ({"ridge": -1}, "ridge=-1"),
        ({"ridge": "much"}, "ridge='much'"),
        ({"loss": "hinge"}, "loss='hinge'"),
        ({"scaling": "half"}, "scaling='half'"),
        ({"device": "abacus"}, "abacus"),
        ({"by": "colour"}, "no column colour"),
    ],
)
def test_what_the_user_can_mend_is_an_error_of_diva(change, said, data):
    with pytest.raises(DivaError, match=said) as caught:
        divacli.score(**{"data": data, **change})
    assert caught.value.expected or caught.value.hint


def test_the_package_is_there_at_once():
    code = "import sys, divacli; sys.exit(any(n in sys.modules for n in ('torch', 'pandas', 'matplotlib')))"
    subprocess.run([sys.executable, "-c", code], check=True)
