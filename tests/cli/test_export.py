"""`diva export`: what is written for each tool, and that `diva apply` takes it back."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

from divacli.manifest import read_manifest


def text_of(result) -> str:
    return " ".join(result.stderr.replace("│", " ").split())


@pytest.fixture
def scored(images, model, done) -> Path:
    """`scored/scores.csv` of 36 images."""
    done("score", images, *model, "--out", "scored")
    return Path("scored/scores.csv")


def test_cleanlab_there_and_back(scored, done):
    scores = pd.read_csv(scored)
    scores.loc[:2, "mislabel_probability"] = 0.9
    scores.to_csv(scored, index=False)
    result = done("export", scored, "--to", "cleanlab", "--out", "exported")
    assert "wrote cleanlab.csv in exported (36 samples)" in text_of(result)
    issues = pd.read_csv("exported/cleanlab.csv")
    assert issues["is_near_duplicate_issue"].dtype == bool
    assert (Path("exported") / issues["path"][0]).is_file()
    wrong = scores["mislabel_probability"] > 0.5
    assert issues["is_label_issue"].tolist() == wrong.tolist()
    done("apply", scored, "exported/cleanlab.csv", "--out", "dropped")
    assert pd.read_csv("dropped/removed.csv")["path"].tolist() == scores["path"][wrong].tolist()
    done("apply", scored, "exported/cleanlab.csv", "--label-issues", "relabel", "--out", "relabelled")
    relabelled = pd.read_csv("relabelled/applied.csv")
    assert relabelled["label"].tolist() == scores["suggested_label"].where(wrong, scores["label"]).tolist()


def test_cleanlab_from_pipe_to_pipe(scored, done):
    done("export", scored, "--to", "cleanlab", "--out", "exported")
    piped = done("export", "-", "--to", "cleanlab", "--out", "-", stdin=_from_here(scored))
    ours, theirs = pd.read_csv("exported/cleanlab.csv"), pd.read_csv(pd.io.common.BytesIO(piped.stdout_bytes))
    columns = [name for name in ours if name not in ("path", "is_near_duplicate_issue")]
    pd.testing.assert_frame_equal(ours[columns], theirs[columns])


def _from_here(scored: Path) -> bytes:
    """The table with paths from the current folder, as a pipe has it."""
    table = pd.read_csv(scored)
    return (
        table.assign(path=[str(scored.parent / path) for path in table["path"]]).to_csv(index=False).encode()
    )


def test_copies_of_other_samples_are_not_mixed_in(scored, done):
    scored.with_name("duplicates.csv").write_text("set,path,label\n1,elsewhere.png,a\n")
    result = done("export", scored, "--to", "cleanlab", "--out", "exported")
    assert "is of other samples than" in text_of(result)
    assert "is_near_duplicate_issue" not in pd.read_csv("exported/cleanlab.csv")


def test_label_studio_there_and_back(scored, images, done):
    result = done("export", scored, "--to", "label-studio", "--limit", "4", "--out", "exported")
    assert f"Label Studio's document root: {images.parent} its source storage: {images}" in text_of(result)
    assert "wrote tasks.json, labeling_config.xml in exported (4 samples)" in text_of(result)
    tasks = json.loads(Path("exported/tasks.json").read_text())
    scores = read_manifest(str(scored))
    # Most harmful first, and all classes to choose from.
    assert [task["data"]["path"] for task in tasks] == [
        str(Path(file).resolve()) for file in scores.files()[:4]
    ]
    assert Path("exported/labeling_config.xml").read_text().count("<Choice ") == 4
    for task, chosen in zip(tasks, ("a", "b", None, "drop this image"), strict=True):
        name = "drop" if chosen == "drop this image" else "label"
        made = [] if chosen is None else [{"result": [{"from_name": name, "value": {"choices": [chosen]}}]}]
        task["annotations"] = made
    Path("project.json").write_text(json.dumps(tasks))
    done("apply", images, "project.json", "--out", "applied")
    applied = read_manifest("applied/applied.csv")
    labels = {
        Path(file).resolve(): label
        for file, label in zip(applied.files(), applied.table["label"], strict=True)
    }
    first, second, third, fourth = (Path(task["data"]["path"]) for task in tasks)
    assert (labels[first], labels[second], labels[third]) == ("a", "b", third.parent.name)
    assert fourth not in labels
    assert len(labels) == 35


def test_label_studio_served_elsewhere(scored, images, done):
    arguments = ("--image-root", images.parent, "--url-prefix", "https://host/")
    result = done("export", scored, "--to", "label-studio", *arguments, "--out", "exported")
    assert "document root" not in text_of(result)
    tasks = json.loads(Path("exported/tasks.json").read_text())
    assert all(task["data"]["image"].startswith("https://host/photos/") for task in tasks)


def test_fiftyone_writes_fields_and_a_script(scored, done):
    done("export", scored, "--to", "fiftyone", "--format", "csv", "--out", "exported")
    assert sorted(file.name for file in Path("exported").iterdir()) == [
        "fiftyone.jsonl",
        "import_fiftyone.py",
        "run.json",
    ]
    rows = [json.loads(line) for line in Path("exported/fiftyone.jsonl").read_text().splitlines()]
    assert len(rows) == 36
    assert all((Path("exported") / row["path"]).is_file() for row in rows)
    compile(Path("exported/import_fiftyone.py").read_text(), "import_fiftyone.py", "exec")


def test_the_first_few_of_every_kind(scored, done):
    for tool, file in (("cleanlab", "cleanlab.csv"), ("fiftyone", "fiftyone.jsonl")):
        done("export", scored, "--to", tool, "--limit", "3", "--out", "exported")
        lines = Path("exported", file).read_text().splitlines()
        assert len(lines) == 3 + file.endswith("csv")


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["scored/scores.csv"], 2, "Missing option '--to'"),
        (["scored/scores.csv", "--to", "excel"], 2, "'excel' is not one of"),
        (["none.csv", "--to", "cleanlab"], 1, "none.csv does not exist"),
        (["plain.csv", "--to", "cleanlab"], 1, "plain.csv has no scores"),
        (["scored/scores.csv", "--to", "fiftyone", "--out", "-"], 2, "--out - is for --to cleanlab"),
        (["scored/scores.csv", "--to", "cleanlab", "--image-root", "."], 2, "is for --to label-studio"),
        (["scored/scores.csv", "--to", "cleanlab", "--limit", "0"], 2, "Invalid value for '--limit'"),
        (
            ["scored/scores.csv", "--to", "label-studio", "--image-root", "x"],
            1,
            "lie outside of --image-root x",
        ),
    ],
)
def test_what_is_refused(scored, run, arguments, status, message):
    Path("plain.csv").write_text("path,label\nx.png,a\ny.png,b\n")
    result = run("export", *arguments)
    assert result.exit_code == status
    assert message in text_of(result)


def test_embeddings_without_images(blobs, done, run):
    done("score", blobs().file, "--out", "scored")
    done("export", "scored/scores.csv", "--to", "cleanlab", "--out", "exported")
    result = done("apply", "scored/scores.csv", "exported/cleanlab.csv", "--out", "applied")
    assert "removed" in text_of(result)
    for tool in ("label-studio", "fiftyone"):
        result = run("export", "scored/scores.csv", "--to", tool)
        assert result.exit_code == 1
        assert "150 samples are rows of an .npz file, not images" in text_of(result)
