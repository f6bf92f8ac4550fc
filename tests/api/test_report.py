"""The result of a command in memory: its tables, plots, warnings, files, and how it shows itself."""

from __future__ import annotations

import json
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from typer.testing import CliRunner

import divacli
from divacli import Compute, Network
from divacli.cli.app import app
from divacli.errors import DataError, DivaError, OutputError
from divacli.report.figures.plots import KINDS


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_note_of_saved_scores_lets_the_command_refit(data):
    divacli.score(data).save("saved")
    result = CliRunner().invoke(app, ["prune", "saved/scores.csv", "--keep", "auto", "--out", "pruned"])
    assert result.exit_code == 0
    assert json.loads(Path("pruned/prune.json").read_text())["forecast"] is not None


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_images_are_embedded_once_for_both(images, command, same_files):
    network = Network("net.py:make")
    result = divacli.score(images, network, compute=Compute(workers=0))
    assert result.summary["n_embedded"] == 30
    result.save("saved")
    command("score", images, "--model", "net.py:make", "--out", "written")
    same_files("written", "saved")
    assert divacli.score(images, network, compute=Compute(workers=0)).summary["n_embedded"] == 0
    elsewhere = Compute(workers=0, cache_dir="elsewhere")
    assert divacli.score(images, network, compute=elsewhere).summary["n_embedded"] == 30


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tables_have_names_and_paths_that_open(images):
    result = divacli.prune(images, "net.py:make", keep=0.5, force=True, compute=Compute(workers=0))
    assert result.table is result.kept is result.tables["kept"]
    assert all(Path(path).is_file() for path in [*result.kept["path"], *result.dropped["path"]])
    assert {"kept", "dropped", "summary"} <= set(dir(result))
    with pytest.raises(AttributeError, match="no table 'keep'; there are: "):
        _ = result.keep
    assert repr(result) == "<diva prune: kept 15, dropped 15 rows>"


def test_warnings_are_those_of_python_and_of_the_result(data):
    with pytest.warns(UserWarning, match="copies") as warned:
        result = divacli.score(data)
    assert [str(warning.message) for warning in warned] == list(result.warnings)
    assert {warning.filename for warning in warned} == {__file__}, "each names the line of the user"


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_nothing_is_replaced_unless_that_is_asked_for(data):
    result = divacli.score(data)
    result.save("saved")
    with pytest.raises(OutputError, match="overwrite"):
        result.save("saved")
    result.save("saved", overwrite=True)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_other_results_have_their_plots(data):
    assert isinstance(divacli.reweight(data, step_size=0.1).plot(), Figure)
    assert isinstance(divacli.extend(data, "pool.npz", budget=5).plot("curve"), Figure)
    assert isinstance(divacli.evaluate(data, "test.npz", manifests="pool.npz", seeds=1).plot(), Figure)
    with pytest.raises(DataError, match="diva relabel has no plot"):
        divacli.relabel(data).plot()


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
    assert shown.tags == {"pre", "code", "span"}
    assert "120 samples, 3 classes" in shown.text
    assert "<script>alert(1)</script>" in shown.text
    assert "<b>" in shown.text


def test_nothing_is_printed_unless_progress_is_asked_for(data, capfd):
    for progress in (False, True):
        with pytest.warns(UserWarning, match="copies"):
            divacli.score(data, compute=Compute(progress=progress))
    assert capfd.readouterr() == ("", ""), "nor where there is no terminal"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"data": 3}, "data is a int"),
        ({"data": "none.csv"}, "none.csv"),
        ({"data": pd.DataFrame({"label": ["a"]})}, "path"),
        ({"data": pd.DataFrame({"path": ["gone.png", "too.png"], "label": ["a", "b"]})}, "gone.png"),
        ({"compute": Compute(device="abacus")}, "abacus"),
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


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tables_that_were_edited_are_refused(data):
    for edit in (
        lambda report: report.table.__setitem__("derivative", 0.0),
        lambda report: report.scores.drop(index=0, inplace=True),
        lambda report: setattr(report, "table", report.table[:50]),
        lambda report: report.tables.pop("scores"),
    ):
        report = divacli.score(data)
        edit(report)
        for use in (lambda r: r.save("edited"), lambda r: divacli.prune(r, keep=0.5), divacli.reweight):
            with pytest.raises(DataError, match="was edited"):
                use(report)
    assert not Path("edited").exists()
    edited = divacli.score(data).table.assign(label="a")
    edited.loc[:50, "label"] = "b"
    assert divacli.reweight(edited, step_size=0.1).summary["n_classes"] == 2


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_a_manifest_is_not_called_as_another_set_is(data):
    test = pd.DataFrame(divacli.load("test.npz").table)
    for name in ("data", "test", "pool", "data.npz"):
        with pytest.raises(DivaError, match="other names than those of data, test and pool"):
            divacli.evaluate("data.npz", test, manifests={name: "pool.npz"}, learners=["ridge"], seeds=1)


@pytest.mark.filterwarnings("ignore::UserWarning")
def test_what_the_result_has_is_the_report_s_too(data):
    report = divacli.score(data, verify=2)
    assert report.verification is report.result.verification is not None
    assert (
        repr(Network(torch.nn.Linear(2, 2), transform=str))
        == "Network(model=<Linear>, transform=<class 'str'>)"
    )
