"""`diva relabel`: what is written, what is said, and what is not computed twice."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from divacli.curate.wrong_labels import MORE_LIKELY_WRONG, balanced_threshold
from divacli.manifest import read_manifest

N = 300
PAIRS = [f"g{row // 2}" for row in range(N)]


def read(file: str | Path) -> pd.DataFrame:
    return pd.read_csv(file, dtype={"path": str, "label": str, "given_label": str, "suggested_label": str})


def read_lines(file: str) -> list[str]:
    return Path(file).read_text().splitlines()


def table_of(data) -> pd.DataFrame:
    """Samples of an `.npz` in the current folder as a table."""
    columns = {name: data.arrays[name] for name in ("path", "label")}
    return pd.DataFrame({**columns, "feature_source": data.file.name})


def text_of(result) -> str:
    return " ".join(result.stderr.split())


@pytest.fixture
def data(blobs):
    """300 samples of three classes, a tenth of the labels wrong."""
    return blobs(n=N)


@pytest.fixture
def relabelled(done):
    """Run `diva relabel` and return its three results."""

    def invoke(*arguments, out="relabelled", stdin=None):
        done("relabel", *arguments, "--out", out, stdin=stdin)
        content = json.loads((Path(out) / "relabel.json").read_text())
        return read(f"{out}/relabelled.csv"), read(f"{out}/changes.csv"), content

    return invoke


def same(content: dict, other: dict) -> bool:
    """Whether two relabel.json agree as far as a table of text tells numbers."""
    flat = pd.json_normalize([content, other])
    numbers = flat.select_dtypes("number")
    texts = flat.drop(columns=list(numbers)).astype(str)
    return bool(np.allclose(*numbers.to_numpy(), atol=1e-7)) and texts.iloc[0].equals(texts.iloc[1])


def test_planted_errors_are_corrected(data, relabelled):
    table, changes, content = relabelled(data.file)
    truth = (np.arange(N) % 3).astype(str)
    given = data.arrays["label"].astype(str)
    assert table["path"].tolist() == data.arrays["path"].tolist()
    assert table["given_label"].tolist() == given.tolist()
    changed = (table["label"] != given).to_numpy()
    assert (table["label"] == truth)[changed & data.flipped].all()
    # Of thirty, and two good labels at the most.
    assert (changed & data.flipped).sum() >= 25
    assert (changed & ~data.flipped).sum() <= 2
    assert (table["label"] != truth).sum() < (given != truth).sum() / 4
    assert content["n_corrected"] == changed.sum()
    assert len(changes) == content["n_corrected"] + content["n_unclear"] + content["n_outliers"]
    assert content["mislabelled"]["expected_precision"] == pytest.approx(
        data.flipped[np.isin(table["path"], changes["path"])].mean(), abs=0.1
    )


def test_the_files_and_what_they_hold(data, done):
    result = done("relabel", data.file)
    folder = Path("diva-out")
    assert sorted(file.name for file in folder.iterdir()) == [
        "changes.csv",
        "failed.csv",
        "relabel.json",
        "relabelled.csv",
        "run.json",
    ]
    assert result.stdout == ""
    assert list(read(folder / "relabelled.csv")) == [
        "path",
        "label",
        "given_label",
        "weight",
        "feature_source",
    ]
    changes = read(folder / "changes.csv")
    assert list(changes)[:7] == [
        "path",
        "label",
        "suggested_label",
        "suggested_probability",
        "mislabel_probability",
        "action",
        "predicted_label",
    ]
    assert "derivative" in changes
    assert changes["mislabel_probability"].is_monotonic_decreasing
    text = (folder / "relabel.json").read_text()
    assert text.endswith("}\n")
    assert list(json.loads(text)) == [
        "n_samples",
        "n_corrected",
        "n_chosen",
        "written",
        "n_unclear",
        "n_outliers",
        "decide",
        "threshold",
        "budget",
        "n_above_threshold",
        "mislabelled",
        "expected_right",
        "noise_rate",
        "noise_rate_after",
        "corrections",
        "emptied",
        "features",
        "group",
        "n_groups",
        "forecast",
    ]


def test_threshold_and_budget(data, relabelled, scores):
    wrong = scores(data.file)["mislabel_probability"]
    _, changes, content = relabelled(data.file)
    assert (content["decide"], content["threshold"]) == ("likely", MORE_LIKELY_WRONG)
    assert len(changes) == (wrong > 0.5).sum()
    _, strict, content = relabelled(data.file, "--threshold", "0.95")
    assert (content["decide"], content["threshold"], content["budget"]) == ("threshold", 0.95, None)
    assert 0 < len(strict) == (wrong > 0.95).sum() < len(changes)
    table, few, content = relabelled(data.file, "--budget", "5")
    assert few["path"].tolist() == changes["path"].head(5).tolist()
    assert (table["label"] != table["given_label"]).sum() == content["n_corrected"] <= 5
    assert (content["budget"], content["n_above_threshold"]) == (5, len(changes))


def test_the_balanced_decision(blobs, relabelled, scores, done):
    # Classes that overlap, so that not every probability is near 0 or 1.
    data = blobs(n=N, d=2)
    wrong = scores(data.file)["mislabel_probability"].to_numpy()
    likely, _, before = relabelled(data.file, "--decide", "likely")
    table, changes, content = relabelled(data.file, "--decide", "balanced", out="balanced")
    assert (before["decide"], content["decide"], content["budget"]) == ("likely", "balanced", None)
    assert content["threshold"] == pytest.approx(balanced_threshold(wrong), abs=1e-7)
    assert content["threshold"] < MORE_LIKELY_WRONG
    assert len(changes) == (wrong > content["threshold"]).sum() > before["mislabelled"]["n"]
    assert content["mislabelled"]["expected_recall"] > before["mislabelled"]["expected_recall"]
    # A list for a review: the labels that are corrected are the same.
    pd.testing.assert_frame_equal(table, likely)
    # The same decision by its threshold, and a budget.
    given, _, _ = relabelled(data.file, "--threshold", str(content["threshold"]), out="given")
    pd.testing.assert_frame_equal(given, table)
    _, few, cut = relabelled(data.file, "--decide", "balanced", "--budget", "5", out="few")
    assert few["path"].tolist() == changes["path"].head(5).tolist()
    assert (cut["decide"], cut["budget"], cut["n_above_threshold"]) == ("balanced", 5, len(changes))
    text = text_of(done("relabel", data.file, "--decide", "balanced", "--out", "told"))
    n, sure = len(changes), content["mislabelled"]
    assert (
        f"{n} of {N} labels are called wrong, with a probability above {content['threshold']:g}: the best F1 "
        "that the model expects, for a review"
    ) in text
    assert f"about {sure['expected_precision']:.0%} of these {n} are wrong (precision)" in text
    assert f"about {sure['expected_recall']:.0%} of all wrong labels (recall)" in text


def test_the_result_is_data(data, relabelled, scores, done):
    _, changes, before = relabelled(data.file)
    assert read_manifest("relabelled/relabelled.csv").unused == ()
    again = scores("relabelled/relabelled.csv", out="again")
    assert len(again) == N
    summary = json.loads(Path("again/summary.json").read_text())
    assert summary["noise_rate"] < before["noise_rate"] / 2
    # The labels of the first run are still there, to undo it.
    table, _, _ = relabelled("relabelled/relabelled.csv", out="third")
    assert table["given_label"].tolist() == data.arrays["label"].astype(str).tolist()
    assert read_manifest("relabelled/changes.csv").table["path"].tolist() == changes["path"].tolist()


def test_a_table_of_scores_gives_what_data_gives(data, relabelled, done, refuse_to_compute):
    table, changes, content = relabelled(data.file)
    scored = done("score", data.file, "-o", "-").stdout
    refuse_to_compute()
    piped, piped_changes, piped_content = relabelled("-", out="piped", stdin=scored.encode())
    pd.testing.assert_frame_equal(piped.sort_values("path").reset_index(drop=True), table)
    pd.testing.assert_frame_equal(piped_changes, changes)
    assert same(piped_content, content)
    # Nothing could fail where nothing was embedded.
    assert not Path("piped/failed.csv").exists()


def test_scores_from_elsewhere_need_neither_features_nor_images(images, model, done, monkeypatch):
    done("score", images, *model, "--out", "scored")
    cells = {"mislabel_probability": 0.9, "suggested_probability": 0.8, "outlier_score": 0.1}
    pd.read_csv("scored/scores.csv").assign(**cells).to_csv("scored/scores.csv", index=False)

    def refuse(*arguments):
        raise AssertionError("images were read")

    monkeypatch.setattr("divacli.curate.score_note.content_keys", refuse)
    arguments = ("relabel", "scored/scores.csv", "--cache-dir", "another")
    # Most labels are called wrong, and nothing judges that.
    assert "--force writes the corrections" in text_of(done(*arguments, "--out", "given"))
    given = json.loads(Path("given/relabel.json").read_text())
    assert (given["forecast"], given["written"], given["n_corrected"]) == (None, "given labels", 0)
    result = done(*arguments, "--force", "--out", "relabelled")
    table = read("relabelled/relabelled.csv")
    assert len(table) == 36
    assert table["path"].tolist() == read("scored/scores.csv")["path"].tolist()
    content = json.loads(Path("relabelled/relabel.json").read_text())
    assert (content["forecast"], content["written"]) == (None, "choice")
    assert content["n_corrected"] == content["n_chosen"] > 0
    assert "no forecast was made: the cache knows nothing of these scores" in text_of(result)
    assert "error on new images" not in text_of(result)


@pytest.fixture
def noisy(tmp_path):
    """240 samples in 100 dimensions, three in ten labels wrong, and a ridge at which these do harm."""
    generator = np.random.default_rng(4)
    truth = np.arange(240) % 3
    flipped = generator.random(240) < 0.3
    label = np.where(flipped, (truth + generator.integers(1, 3, 240)) % 3, truth)
    features = (4 * np.eye(100)[truth] + generator.normal(size=(240, 100))).astype(np.float32)
    paths = [f"s{row:03d}" for row in range(240)]
    np.savez(tmp_path / "noisy.npz", embedding=features, label=label, path=paths)
    return tmp_path / "noisy.npz", "--ridge", "0.5"


def test_the_verdict_names_both_rivals(noisy, done):
    result = done("relabel", *noisy)
    content = json.loads(Path("diva-out/relabel.json").read_text())
    forecast = content["forecast"]
    assert (forecast["chosen"], forecast["pays"], content["written"]) == ("correcting", True, "choice")
    assert [*forecast["error"]] == ["nothing", "correcting", "dropping", "random"]
    assert [*forecast["change"]] == ["correcting", "dropping", "random"]
    assert {*forecast["change"]["random"]} == {"mean", "se", "low", "high"}
    assert {*forecast["versus_dropping"]} == {"mean", "se"}
    error = {name: f"{100 * share:.1f}" for name, share in forecast["error"].items()}
    assert forecast["error"]["correcting"] < forecast["error"]["nothing"] < forecast["error"]["random"]
    assert (
        f"Correcting these {content['n_chosen']} labels should lower the error on new images from "
        f"{error['nothing']} to {error['correcting']} % (between "
    ) in text_of(result)
    assert (
        f"); dropping them: {error['dropping']}; correcting as many at random would raise it to "
        f"{error['random']}."
    ) in text_of(result)


def test_labels_stay_where_correcting_does_not_pay(noisy, done, monkeypatch):
    done("relabel", *noisy, "--out", "pays")
    changes = read("pays/changes.csv")
    monkeypatch.setattr("divacli.curate.outlook.Outlook.pays", False)
    result = done("relabel", *noisy, "--out", "stay")
    assert "Nothing to gain by correcting: the labels stay (--force writes the choice" in text_of(result)
    table, listed = read("stay/relabelled.csv"), read("stay/changes.csv")
    assert (table["label"] == table["given_label"]).all()
    assert listed["path"].tolist() == changes["path"].tolist()
    assert set(listed["action"][changes["action"] == "corrected"]) == {"not written"}
    content = json.loads(Path("stay/relabel.json").read_text())
    assert (content["written"], content["n_corrected"]) == ("given labels", 0)
    assert content["n_chosen"] == (changes["action"] == "corrected").sum() > 0
    assert content["noise_rate_after"] == content["noise_rate"]
    done("relabel", *noisy, "--force", "--out", "forced")
    for name in ("relabelled.csv", "changes.csv"):
        assert (Path("forced") / name).read_text() == (Path("pays") / name).read_text()
    assert json.loads(Path("forced/relabel.json").read_text())["written"] == "choice"


def test_nothing_to_correct_asks_no_folds(done, monkeypatch):
    features = 9 * np.eye(3)[np.arange(60) % 3] + np.random.default_rng(0).normal(size=(60, 3))
    np.savez("clean.npz", embedding=features, label=np.arange(60) % 3)
    monkeypatch.setattr("divacli.curate.outlook.Judge.forecast", None)
    done("relabel", "clean.npz")
    content = json.loads(Path("diva-out/relabel.json").read_text())
    assert (content["n_chosen"], content["forecast"], content["written"]) == (0, None, "choice")


def test_the_order_of_data_does_not_matter(data, relabelled):
    table_of(data).to_csv("labels.csv", index=False)
    table_of(data)[::-1].to_csv("reversed.csv", index=False)
    table, changes, content = relabelled("labels.csv", "--budget", "20")
    other, other_changes, other_content = relabelled("reversed.csv", "--budget", "20", out="reversed")
    assert len(changes) == 20
    pd.testing.assert_frame_equal(table, other[::-1].reset_index(drop=True))
    columns = ["path", "label", "suggested_label", "action"]
    pd.testing.assert_frame_equal(changes[columns], other_changes[columns])
    assert same(content, other_content)


def test_the_main_table_goes_to_standard_output_alone(data, done):
    done("relabel", data.file, "--out", "files")
    before = set(Path().rglob("*"))
    result = done("relabel", data.file, "-o", "-")
    paths = [line.replace("../blobs.npz", "blobs.npz") for line in read_lines("files/relabelled.csv")]
    assert result.stdout.splitlines() == paths
    assert set(Path().rglob("*")) == before
    assert "are called wrong" in result.stderr


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_every_format_reads_back(kind, data, done):
    done("relabel", data.file, "--format", kind)
    table = read_manifest(f"diva-out/relabelled.{kind}").table
    changed = table[table["label"] != table["given_label"]]
    assert 20 < len(changed) < 40


def test_the_summary_says_what_was_done(data, done):
    result = done("relabel", data.file)
    content = json.loads(Path("diva-out/relabel.json").read_text())
    changes = read("diva-out/changes.csv")
    text = text_of(result)
    n, sure = len(changes), content["mislabelled"]
    assert (
        f"{n} of {N} labels are called wrong, with a probability above 0.5: more likely wrong than right"
        in text
    )
    right = f"about {content['expected_right']:.0%} of the corrections are right"
    assert f"{content['n_corrected']} corrected: {right}" in text
    assert f"about {sure['expected_precision']:.0%} of these {n} are wrong (precision)" in text
    assert f"they are about {sure['expected_recall']:.0%} of all wrong labels (recall)" in text
    before, after = (content[name] * N for name in ("noise_rate", "noise_rate_after"))
    assert f"expected number of wrong labels: {before:.1f} (" in text
    assert f"before, {after:.1f} (" in text
    first = content["corrections"][0]
    assert f"given → suggested: {first['given']} → {first['suggested']} ({first['n']})" in text
    assert "budget" not in text
    for path in changes["path"].head(5):
        assert path in text
    assert changes["path"].iloc[5] not in text
    assert "wrote failed.csv, changes.csv, relabel.json, relabelled.csv in diva-out" in text
    assert f"the budget leaves out {n - 3}" in text_of(done("relabel", data.file, "--budget", "3"))
    text = text_of(done("relabel", data.file, "--threshold", "0.6"))
    assert "labels are called wrong, with a probability above 0.6 " in text
    assert "more likely wrong than right" not in text


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--threshold", "0.9999999"), "none is called wrong with a probability above 1"),
        (("--budget", "0"), "none is called wrong within the budget of 0"),
        (("--decide", "balanced", "--budget", "0"), "none is called wrong within the budget of 0"),
    ],
)
def test_where_nothing_is_called_wrong_it_is_said(options, message, data, done):
    result = done("relabel", data.file, *options)
    assert message in text_of(result)
    assert "nothing is corrected" in text_of(result)
    table = read("diva-out/relabelled.csv")
    assert table["label"].tolist() == table["given_label"].tolist()
    assert len(read("diva-out/changes.csv")) == 0
    assert json.loads(Path("diva-out/relabel.json").read_text())["expected_right"] is None


@pytest.fixture
def judged(data, scores) -> pd.DataFrame:
    """Scores as written, in the folder scored."""
    return scores(data.file).assign(feature_source=str(data.file))


def test_a_class_that_is_emptied_is_a_warning(judged, done):
    judged["label"] = ["rare", *judged["label"][1:]]
    judged["mislabel_probability"] = [0.9, *[0.1] * (N - 1)]
    judged["suggested_probability"] = [0.8, *[0.1] * (N - 1)]
    judged.assign(outlier_score=0.1).to_csv("scores.csv", index=False)
    result = done("relabel", "scores.csv")
    assert "warning: the corrections leave no sample with the label rare" in result.stderr
    assert "warning: the corrections" in done("relabel", "scores.csv", "--quiet").stderr


def test_an_outlier_is_listed_and_keeps_its_label(judged, relabelled, done):
    worst = judged["mislabel_probability"].idxmax()
    judged.loc[worst, "outlier_score"] = 50
    judged.to_csv("scores.csv", index=False)
    table, changes, content = relabelled("scores.csv")
    assert changes["action"][0] == "outlier"
    row = table.set_index("path").loc[changes["path"][0]]
    assert row["label"] == row["given_label"] == changes["label"][0]
    assert content["n_outliers"] >= 1
    assert "outliers, like nothing else in the set" in text_of(done("relabel", "scores.csv"))


@pytest.mark.parametrize("column", ["mislabel_probability", "suggested_label", "suggested_probability"])
def test_scores_that_do_not_judge_labels_are_refused(column, judged, run):
    judged.drop(columns=column).to_csv("scores.csv", index=False)
    result = run("relabel", "scores.csv")
    assert result.exit_code == 1
    first, *rest = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert first == f"error: the scores have no value of {column} in any row"
    assert [line.split(":")[0] for line in rest] == ["expected", "to do"]
    assert not Path("diva-out/relabelled.csv").exists()


def test_groups_are_named_as_they_were_left_out(data, relabelled, done):
    table_of(data).assign(group=PAIRS).to_csv("grouped.csv", index=False)
    _, _, content = relabelled("grouped.csv")
    assert (content["group"], content["n_groups"]) == ("group", N // 2)
    scored = done("score", "grouped.csv", "-o", "-").stdout
    _, _, piped = relabelled("-", stdin=scored.encode())
    assert (piped["group"], piped["n_groups"]) == ("group", N // 2)
    assert f"leave-group-out: {N // 2} groups of group" in text_of(done("relabel", "grouped.csv"))


def test_a_column_of_groups_that_was_cut_out_is_no_error(data, relabelled, done):
    table_of(data).assign(patient=PAIRS).to_csv("grouped.csv", index=False)
    done("score", "grouped.csv", "--group", "patient", "--out", "scored")
    scored = pd.read_csv("scored/scores.csv").drop(columns="patient")
    scored.to_csv("scored/less.csv", index=False)
    _, _, content = relabelled("scored/less.csv")
    assert content["group"] is None


def test_options_of_a_configuration_file(data, relabelled):
    Path("relabel.yaml").write_text(f"data: {data.file}\nrelabel:\n  threshold: 0.8\n  budget: 4\n")
    _, changes, content = relabelled("--config", "relabel.yaml")
    assert (content["threshold"], content["budget"], len(changes)) == (0.8, 4, 4)
    _, _, content = relabelled("--config", "relabel.yaml", "--budget", "2")
    assert (content["threshold"], content["budget"]) == (0.8, 2)


def test_the_decision_of_a_configuration_file(data, relabelled, run):
    Path("relabel.yaml").write_text(f"data: {data.file}\nrelabel:\n  decide: balanced\n")
    _, _, content = relabelled("--config", "relabel.yaml")
    assert content["decide"] == "balanced"
    _, _, content = relabelled("--config", "relabel.yaml", "--decide", "likely")
    assert content["decide"] == "likely"
    result = run("relabel", "--config", "relabel.yaml", "--threshold", "0.8")
    assert result.exit_code == 2
    assert "also of a --config file" in " ".join(result.stderr.replace("│", " ").split())


def test_evil_labels_and_paths_are_shown_and_not_obeyed(data, run):
    labels = np.array(["[red]a[/red]", "\x1b[31mb\x1b[0m", "two\nlines"])[data.arrays["label"]]
    paths = np.array([f"[bold]{number}\x1b[5m\x07" for number in range(N)])
    np.savez("x.npz", embedding=data.arrays["embedding"], label=labels, path=paths)
    result = run("relabel", "x.npz")
    assert result.exit_code == 0, result.output
    assert not set("\x1b\x07") & set(result.stderr)
    assert "two\\nlines" in result.stderr
    assert sorted(pd.read_csv("diva-out/relabelled.csv")["path"]) == sorted(paths)


def test_the_summary_fits_into_80_columns(data, done, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    result = done("relabel", data.file)
    lines = [line for line in result.stderr.splitlines() if not line.startswith("note: ")]
    assert max(map(len, lines)) <= 80
    assert "corrected" in result.stderr


def test_out_that_is_read_only(data, run, monkeypatch):
    Path("closed").mkdir()
    # The super-user, who may run this, can write everywhere.
    true = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "closed" and true(path, mode))
    result = run("relabel", data.file, "--out", "closed")
    assert result.exit_code == 1
    assert "error: --out closed cannot be written to" in result.stderr
    assert list(Path("closed").iterdir()) == []


def test_quiet_says_nothing(data, done):
    result = done("relabel", data.file, "--quiet", "-o", "out")
    assert (result.stdout, result.stderr) == ("", "")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--threshold", "1"), "[0, 1)"),
        (("--threshold", "-0.1"), "[0, 1)"),
        (("--threshold", "nan"), "expected a number"),
        (("--threshold", "high"), "Invalid value for '--threshold'"),
        (("--decide", "f1"), "'likely', 'balanced'"),
        *(
            (
                ("--decide", decide, "--threshold", "0.9"),
                f"--decide {decide} and --threshold 0.9: expected one of them, for each is a decision; leave "
                "the other out",
            )
            for decide in ("likely", "balanced")
        ),
        (("--budget", "-1"), "Invalid value for '--budget'"),
        (("--budget", "0.5"), "Invalid value for '--budget'"),
    ],
)
def test_wrong_usage(options, message, data, run):
    result = run("relabel", data.file, *options)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not Path("diva-out").exists()


def test_help_has_the_options_and_examples(run):
    text = run("relabel", "--help").stdout
    for part in (
        "--decide ",
        "balanced",
        "--threshold ",
        "--budget ",
        "--model ",
        "--group ",
        "Example",
        "diva relabel photos/",
    ):
        assert part in text
