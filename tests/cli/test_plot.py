"""`diva plot`: what a folder allows, in every format of tables and of plots."""

from __future__ import annotations

import json
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest

from divacli.cli.commands.plot import KindName
from divacli.report.figures.plots import KINDS

OF_SCORES = ["histogram", "loss", "classes", "confusions", "ridge"]


def names_in(folder: str, format: str = "svg") -> list[str]:
    return sorted(path.stem for path in Path(folder).glob(f"*.{format}"))


def text_of(file: str | Path) -> str:
    svg = ElementTree.parse(file)
    return " ".join("".join(element.itertext()) for element in svg.findall(".//{*}text"))


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_scores_of_every_format_give_the_same_plots(format, blobs, done):
    data = blobs(n=300).file  # enough to call a label wrong
    done("score", data, "--by", "class", "--by", "pair", "--format", format, "--out", format)
    done("plot", format)
    assert names_in(format) == sorted([*OF_SCORES, "groups-class", "groups-pair"])
    if format != "csv":
        done("score", data, "--by", "class", "--by", "pair", "--out", "csv")
        done("plot", "csv", "--kind", "classes", "--kind", "groups")
        # Parquet has more digits, which only move what is drawn.
        read = text_of if format == "parquet" else Path.read_bytes
        for name in ("classes", "groups-class"):
            assert read(Path(format, f"{name}.svg")) == read(Path("csv", f"{name}.svg"))


@pytest.mark.parametrize(("format", "head"), [("svg", b"<?xml"), ("png", b"\x89PNG"), ("pdf", b"%PDF")])
def test_a_kind_is_a_file_of_the_format_that_was_asked_for(format, head, blobs, done):
    done("score", blobs().file, "--out", "scored")
    result = done("plot", "scored", "--kind", "histogram", "--format", format, "--out", "paper/figures")
    assert names_in("paper/figures", format) == ["histogram"]
    assert Path("paper/figures", f"histogram.{format}").read_bytes().startswith(head)
    assert f"wrote histogram.{format} in paper/figures" in result.stderr
    assert result.stdout == ""
    first = Path("paper/figures", f"histogram.{format}").read_bytes()
    assert done("plot", "scored", "--kind", "histogram", "--format", format, "-q").output == ""
    assert Path("scored", f"histogram.{format}").read_bytes() == first


def test_the_path_of_the_ridge_is_in_the_summary(blobs, done):
    data = blobs().file
    done("score", data, "--out", "scored")
    summary = json.loads(Path("scored/summary.json").read_text())
    ridges, losses = summary["ridge_path"]["ridge"], summary["ridge_path"]["loss"]
    assert ridges == sorted(ridges)
    assert ridges[int(np.argmin(losses))] == summary["ridge"]
    done("score", data, "--ridge", "1", "--out", "given")
    assert json.loads(Path("given/summary.json").read_text())["ridge_path"] is None
    done("plot", "given")
    assert "ridge" not in names_in("given")
    result = done("plot", "scored", "--kind", "ridge")
    assert "ridge.svg" in result.stderr
    assert f"chosen: {summary['ridge']:.3g}" in text_of("scored/ridge.svg")


def test_curves_of_other_commands(blobs, done):
    data, pool = blobs(n=60).file, blobs("pool.npz", n=60, seed=1).file
    done("extend", data, "--pool", pool, "--out", "extended", "--budget", "10")
    done("reweight", data, "--out", "weights")
    done("evaluate", data, "--test", pool, "--manifest", data, "--curve", "remove", "--out", "tested")
    for folder, names in (
        ("extended", ["choice"]),
        ("weights", ["steps"]),
        ("tested", ["curve", "evaluation"]),
    ):
        done("plot", folder, "--kind", "curve", "--out", f"{folder}/again")
        assert names_in(f"{folder}/again") == names
    for name in ("curve", "evaluation"):
        assert Path(f"tested/again/{name}.svg").read_bytes() == Path(f"tested/{name}.svg").read_bytes()


def test_known_wrong_labels_are_marked(blobs, done):
    made = blobs()
    truth = pd.DataFrame({"path": made.arrays["path"], "label": made.arrays["label"]})
    done("score", made.file, "--out", "scored")
    done("plot", "scored", "--kind", "histogram", "--out", "without")
    assert "wrong labels" not in text_of("without/histogram.svg")
    truth.loc[made.flipped, "label"] = 9
    labelled = pd.read_csv("scored/scores.csv")
    right = labelled["path"].map(dict(zip(truth["path"], truth["label"], strict=True)))
    labelled.assign(true_label=right).to_csv("scored/scores.csv", index=False)
    done("plot", "scored", "--kind", "histogram", "--kind", "loss", "--out", "column")
    for name in ("histogram", "loss"):
        assert "wrong labels" in text_of(f"column/{name}.svg")
    np.savez("truth.npz", **{**made.arrays, "label": truth["label"].to_numpy(str)})
    done("plot", "scored", "--kind", "histogram", "--truth", "truth.npz", "--out", "table")
    assert Path("table/histogram.svg").read_bytes() == Path("column/histogram.svg").read_bytes()


def test_a_truth_that_lacks_samples_is_refused(blobs, done, run):
    made = blobs()
    done("score", made.file, "--out", "scored")
    np.savez("truth.npz", **{name: values[:20] for name, values in made.arrays.items()})
    result = run("plot", "scored", "--truth", "truth.npz")
    assert result.exit_code == 1
    assert "no true label for 130 of 150 samples" in result.stderr
    assert names_in("scored") == []


@pytest.mark.parametrize(
    ("kind", "needs", "command"),
    [
        ("histogram", "scores.csv", "diva score DATA"),
        ("loss", "scores.csv", "diva score DATA"),
        ("classes", "scores.csv", "diva score DATA"),
        ("confusions", "scores.csv", "diva score DATA"),
        ("groups", "harm.csv", "--by"),
        ("ridge", "summary.json", "without --ridge"),
    ],
)
def test_what_a_kind_lacks_is_said(kind, needs, command, blobs, done, run):
    done("reweight", blobs().file, "--out", "weights")
    result = run("plot", "weights", "--kind", "curve", "--kind", kind)
    assert result.exit_code == 1
    assert needs in result.stderr
    assert command in result.stderr
    assert names_in("weights") == [], "all or nothing"


def test_what_a_curve_lacks_is_said(blobs, done, run):
    done("score", blobs().file, "--out", "scored")
    result = run("plot", "scored", "--kind", "curve")
    assert result.exit_code == 1
    assert "history.csv" in result.stderr
    assert "diva extend" in result.stderr


def test_a_folder_without_results(run):
    Path("empty").mkdir()
    for folder in ("empty", "none"):
        result = run("plot", folder)
        assert result.exit_code == 1
        assert "Traceback" not in result.stderr
        assert f"error: {folder}" in result.stderr
    assert run("plot", "empty", "--out", "-").exit_code == 2
    assert run("plot", "empty", "--kind", "pie").exit_code == 2


def test_a_truth_without_scores_is_refused(blobs, done, run):
    data = blobs().file
    done("reweight", data, "--out", "weights")
    result = run("plot", "weights", "--truth", data)
    assert result.exit_code == 1
    assert "without scores" in result.stderr


def test_names_of_columns_are_no_paths(blobs, done):
    columns = {"a/b": ["x", "y"] * 75, "a b": ["x", "z"] * 75, "../..": ["x", "q"] * 75}
    data = blobs(**{name: np.array(values) for name, values in columns.items()}).file
    done("score", data, *(word for name in columns for word in ("--by", name)), "--out", "scored")
    done("plot", "scored", "--kind", "groups", "--out", "plots")
    assert names_in("plots") == ["groups-a-b", "groups-a-b-2", "groups-column"]


def test_every_kind_can_be_asked_for():
    assert tuple(name.value for name in KindName) == KINDS
