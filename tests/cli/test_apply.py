"""`diva apply`: from decisions of any kind to tables and folders."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from divacli.manifest import read_manifest, write_table

HOSTILE = [
    'quo"te',
    "it's",
    "<script>alert(1)",
    "new\nline",
    "\u202e\u0645\u0631\u062d\u0628\u0627",
    "😀",
    "=1+1",
    "+1",
    "-x",
    "@y",
]


def read(file: str | Path) -> pd.DataFrame:
    """A table as it is read as DATA."""
    return read_manifest(str(file), labels="optional").table


def write_decisions(file: str | Path, rows: list[tuple[str, ...]]) -> None:
    """With the csv module: as another program would."""
    with Path(file).open("w", newline="", encoding="utf-8") as stream:
        writer = csv.writer(stream)
        writer.writerow(("path", "decision", "label", "given_label"))
        writer.writerows(rows)


def text_of(result) -> str:
    return " ".join(result.stderr.split())


@pytest.fixture
def decisions(images, run) -> Path:
    """Of 36 images one is dropped, two are relabelled, one is kept."""
    rows = [
        (f"{images}/a/000.png", "drop", "a", "a"),
        (f"{images}/b/001.png", "relabel", "c", "b"),
        (f"{images}/b/004.png", "relabel", "a", "b"),
        (f"{images}/c/002.png", "keep", "c", "c"),
    ]
    write_decisions("decisions.csv", rows)
    return Path("decisions.csv").absolute()


def test_a_folder_and_decisions(images, decisions, done):
    result = done("apply", images, decisions)
    assert result.stdout == ""
    assert sorted(file.name for file in Path("diva-out").iterdir()) == [
        "applied.csv",
        "apply.json",
        "removed.csv",
        "run.json",
    ]
    applied, removed = read_manifest("diva-out/applied.csv"), read("diva-out/removed.csv")
    assert applied.unused == ()
    assert (len(applied.table), len(removed)) == (35, 1)
    files = [os.path.realpath(file) for file in applied.files()]
    labels = dict(zip(files, applied.table["label"], strict=True))
    assert labels.pop(f"{images}/b/001.png") == "c"
    assert labels.pop(f"{images}/b/004.png") == "a"
    assert all(Path(file).parent.name == label for file, label in labels.items())
    assert f"{images}/a/000.png" not in labels
    changed = applied.table[applied.table["label"] != applied.table["given_label"]]
    assert changed["given_label"].tolist() == ["b", "b"]
    content = json.loads(Path("diva-out/apply.json").read_text())
    assert (content["n_samples"], content["n_kept"], content["n_dropped"]) == (36, 35, 1)
    assert (content["n_relabelled"], content["n_undecided"]) == (2, 32)
    said = text_of(result)
    assert "35 of 36 samples stay, 2 of them with another label; 1 are removed" in said
    assert "wrote removed.csv, apply.json, applied.csv in diva-out" in said


def test_the_same_decisions_in_every_format_and_from_a_pipe(images, decisions, done):
    done("apply", images, decisions, "--out", "first")
    expected = Path("first/applied.csv").read_bytes()
    table = pd.read_csv(decisions, dtype=str)
    table.to_json("decisions.jsonl", orient="records", lines=True)
    table.to_parquet("decisions.parquet")
    for name in ("decisions.jsonl", "decisions.parquet"):
        done("apply", images, name, "--out", "again")
        assert Path("again/applied.csv").read_bytes() == expected
    done("apply", images, "-", "--out", "again", stdin=decisions.read_bytes())
    assert Path("again/applied.csv").read_bytes() == expected
    piped = done("apply", images, decisions, "--out", "-")
    assert pd.read_csv(pd.io.common.BytesIO(piped.stdout_bytes))["label"].tolist() == (
        read("first/applied.csv")["label"].tolist()
    )


def test_data_from_a_pipe(images, images_table, decisions, done):
    stdin = images_table.to_csv(index=False).encode()
    result = done("apply", "-", decisions, "--out", "-", "--format", "jsonl", stdin=stdin)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    kept = [path for path in images_table["path"] if not path.endswith("a/000.png")]
    assert [row["path"] for row in rows] == kept


def test_scores_decisions_and_what_stays(images, model, scores, decisions, done):
    table = scores(images, *model)
    done("apply", "scored/scores.csv", decisions, "--out", "applied")
    applied, removed = read("applied/applied.csv"), read("applied/removed.csv")
    assert "derivative" not in applied
    assert [Path(path).name for path in applied["path"]] == [
        Path(path).name for path in table["path"] if not path.endswith("a/000.png")
    ]
    assert removed["derivative"].item() == pytest.approx(
        table["derivative"][table["path"].str.endswith("a/000.png")].item(), rel=1e-8
    )
    # And it is DATA again.
    assert len(scores("applied/applied.csv", *model, out="again")) == 35


def test_an_npz_and_a_store(blobs, images, model, done):
    data = blobs(n=12)
    write_decisions("decisions.csv", [("s0003", "drop", "", ""), ("s0004", "relabel", "2", "")])
    done("apply", data.file, "decisions.csv", "--out", "applied")
    applied = read("applied/applied.csv")
    assert "s0003" not in applied["path"].tolist()
    assert applied.set_index("path")["label"]["s0004"] == "2"
    assert set(applied["feature_source"]) == {"../blobs.npz"}
    done("embed", images, *model, "--out", "store")
    write_decisions("decisions.csv", [(f"{images}/a/000.png", "drop", "", "")])
    done("apply", "store", "decisions.csv", "--out", "of-store")
    applied = read_manifest("of-store/applied.csv")
    assert len(applied.table) == 35
    assert set(applied.table["feature_source"]) == {"../store"}
    # Without the network: the features are those of the store.
    done("score", "of-store/applied.csv", "--out", "scored")


def test_hostile_names_go_through_unchanged(tmp_path, done):
    rows = []
    for number, name in enumerate(HOSTILE):
        file = tmp_path / name / f"{name}.png"
        file.parent.mkdir()
        Image.new("RGB", (2, 2), (number, 0, 0)).save(file)
        rows.append((str(file), "relabel", f"{name} corrected", name))
    table = pd.DataFrame({"path": [f"{name}/{name}.png" for name in HOSTILE], "label": HOSTILE})
    write_table(table, tmp_path / "labels.csv", "csv")
    write_decisions("decisions.csv", rows)
    done("apply", "labels.csv", "decisions.csv", "--out", "applied")
    applied = read_manifest("applied/applied.csv")
    assert applied.table["label"].tolist() == [f"{name} corrected" for name in HOSTILE]
    assert applied.table["given_label"].tolist() == HOSTILE
    assert [os.path.realpath(file) for file in applied.files()] == [row[0] for row in rows]
    done("apply", "labels.csv", "decisions.csv", "--materialize", "copy", "--out", "made")
    made = read_manifest("made/images")
    assert sorted(made.table["label"]) == sorted(f"{name} corrected" for name in HOSTILE)
    assert read("made/applied.csv")["given_label"].tolist() == HOSTILE


def test_a_folder_is_made_and_named_by_the_table(images, decisions, done):
    before = {file: file.read_bytes() for file in images.rglob("*.png")}
    for way in ("symlink", "hardlink", "copy"):
        result = done("apply", images, decisions, "--materialize", way, "--out", way)
        assert "wrote images, removed.csv, apply.json, applied.csv in" in text_of(result)
        applied = read(f"{way}/applied.csv")
        assert len(applied) == 35
        assert all(
            path.startswith(f"images/{label}/")
            for path, label in zip(applied["path"], applied["label"], strict=True)
        )
        assert sorted(file.name for file in Path(way, "images").rglob("*.png")) == sorted(
            file.name for file in before if file.name != "000.png"
        )
    assert before == {file: file.read_bytes() for file in images.rglob("*.png")}


def test_a_folder_of_data_as_it_is(images, model, scores, done):
    done("apply", images, "--materialize", "copy", "--out", "copied")
    assert json.loads(Path("copied/apply.json").read_text())["n_undecided"] == 36
    table = scores("copied/applied.csv", *model)
    again = scores("copied/images", *model, out="again")
    original = scores(images, *model, out="original")
    for other in (table, again):
        pd.testing.assert_series_equal(other["derivative"], original["derivative"])


def test_features_are_found_again_for_a_materialised_folder(images, model, done):
    done("score", images, *model, "--out", "scored")
    done("apply", "scored/scores.csv", "--materialize", "copy", "--out", "made")
    result = done("score", "made/applied.csv", *model, "--out", "again")
    assert result.exit_code == 0
    assert json.loads(Path("again/summary.json").read_text())["n_embedded"] == 0


def test_a_second_folder_is_refused_and_nothing_changes(images, decisions, run, done):
    done("apply", images, decisions, "--materialize", "copy")
    before = Path("diva-out/applied.csv").read_bytes()
    result = run("apply", images, "--materialize", "copy")
    assert result.exit_code == 1
    assert "error: diva-out/images is there already" in text_of(result)
    assert Path("diva-out/applied.csv").read_bytes() == before


@pytest.mark.parametrize("linked", [False, True])
def test_what_was_read_is_not_replaced(images, decisions, run, done, linked):
    done("apply", images, decisions, "--out", "curated")
    before = {file.name: file.read_bytes() for file in Path("curated").iterdir()}
    write_decisions("second.csv", [(f"{images}/a/003.png", "drop", "", "")])
    if linked:
        Path("elsewhere").symlink_to("curated")
    folder = "elsewhere" if linked else "curated"
    for arguments in (
        ["curated/applied.csv", "second.csv"],
        ["curated/removed.csv", "--materialize", "copy"],
        ["curated/applied.csv", "-"],
        [images, "curated/applied.csv"],
        # The same table in another format would take the place of all files of the run before.
        ["curated/applied.csv", "second.csv", "--format", "jsonl"],
    ):
        result = run("apply", *arguments, "--out", folder, stdin=Path("second.csv").read_bytes())
        assert result.exit_code == 1
        said = text_of(result)
        name = next(str(argument) for argument in arguments if str(argument).startswith("curated"))
        what = "DATA" if arguments[0] == name else "DECISIONS"
        assert f"{name} is {what}, and {folder}/{Path(name).name} would replace it" in said
        assert "to do: choose another folder with --out" in said
        assert before == {file.name: file.read_bytes() for file in Path("curated").iterdir()}
    done("apply", "curated/applied.csv", "second.csv", "--out", "again")
    piped = done("apply", "curated/applied.csv", "second.csv", "--out", "-")
    assert piped.stdout_bytes.count(b"\n") == 35


def test_a_place_in_data_is_refused_and_not_made(tmp_path, images, run):
    import shutil

    shutil.copytree(images, "photos")
    result = run("apply", "photos", "--materialize", "copy", "--out", "photos/result")
    assert result.exit_code == 1
    assert "photos/result/images would lie in photos, which is DATA itself" in text_of(result)
    assert sorted(entry.name for entry in Path("photos").iterdir()) == ["a", "b", "c"]


def test_warnings_of_labels(images, run, done):
    write_decisions(
        "decisions.csv", [(f"{images}/{file}", "relabel", "dog", "") for file in ("a/000.png", "b/001.png")]
    )
    assert "warning: no sample had the label dog before: check the spelling" in text_of(
        done("apply", images, "decisions.csv")
    )
    rows = [(str(file), "drop", "", "") for file in images.glob("b/*.png")]
    write_decisions("decisions.csv", rows)
    assert "warning: no sample is left with the label b" in text_of(done("apply", images, "decisions.csv"))


def test_quiet_says_warnings_alone(images, decisions, done):
    assert done("apply", images, decisions, "--quiet").stderr == ""


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (["none.csv", "decisions.csv"], 1, "none.csv does not exist"),
        (["{images}", "none.csv"], 1, "none.csv does not exist"),
        (["{images}"], 2, "give DECISIONS, or --materialize"),
        (["-", "-"], 2, "cannot both come on standard input"),
        (
            ["{images}", "decisions.csv", "--materialize", "copy", "--out", "-"],
            2,
            "--materialize needs a folder",
        ),
        (["{images}", "decisions.csv", "--materialize", "move"], 2, "'move' is not one of"),
        (["{images}", "photo.png"], 1, "photo.png is no kind of decisions"),
        (["{images}", "empty.csv"], 1, "empty.csv is empty"),
        (["{images}", "bad.json"], 1, "bad.json is not valid JSON"),
        (["{images}", "other.csv"], 1, "other.csv has no column decision"),
        (["{images}", "unknown.csv"], 1, "1 of 1 decisions are about no sample of"),
        (["{images}", "stale.csv"], 1, "1 decisions were made with another label"),
    ],
)
def test_what_is_refused(images, decisions, run, arguments, status, message):
    Path("photo.png").touch()
    Path("empty.csv").touch()
    Path("bad.json").write_text("[")
    Path("other.csv").write_text("path,comment\nx,y\n")
    Path("unknown.csv").write_text("path,decision\na/000.jpg,drop\n")
    Path("stale.csv").write_text("path,decision,given_label\na/000.png,drop,b\n")
    result = run("apply", *(argument.format(images=images) for argument in arguments))
    assert result.exit_code == status
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert "Traceback" not in result.stderr
    assert not Path("diva-out").exists()


def test_tables_need_no_torch(images, images_table, decisions, tmp_path):
    images_table.to_csv(tmp_path / "labels.csv", index=False)
    code = (
        "import sys; from divacli.cli.app import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print([name for name in ('torch', 'torchvision', 'sklearn') if name in sys.modules])"
    )
    for data in (str(images), "labels.csv"):
        arguments = [data, str(decisions), "--materialize", "symlink", "--out", f"out-{len(data)}", "-q"]
        found = subprocess.run(
            [sys.executable, "-c", code, "apply", *arguments],
            capture_output=True,
            text=True,
            check=True,
            cwd=tmp_path,
            timeout=60,
        )
        assert found.stdout == "[]\n"


def test_the_same_bytes_wherever_it_runs(images, model, done, tmp_path, monkeypatch):
    """What a cache of a pipeline relies on: equal inputs in the same relation, equal outputs."""
    import shutil

    written = []
    for place in ("one", "two/deeper"):
        folder = tmp_path / place
        folder.mkdir(parents=True)
        shutil.copytree(images, folder / "photos")
        monkeypatch.chdir(folder)
        done("score", "photos", *model, "--out", "scored")
        done("prune", "scored/scores.csv", "--keep", "0.8", "--out", "pruned")
        write_decisions(
            "decisions.csv", [("photos/a/000.png", "drop", "", ""), ("photos/b/001.png", "relabel", "c", "")]
        )
        done("apply", "scored/scores.csv", "decisions.csv", "--materialize", "copy", "--out", "applied")
        done("export", "scored/scores.csv", "--to", "cleanlab", "--out", "exported")
        done("export", "scored/scores.csv", "--to", "fiftyone", "--out", "exported")
        files = sorted(
            file for out in ("scored", "pruned", "applied", "exported") for file in Path(out).rglob("*")
        )
        written.append(
            {
                str(file): file.read_bytes()
                for file in files
                # It holds what the computation took, and the record a digest of it.
                if file.is_file() and str(file) not in ("scored/summary.json", "scored/run.json")
            }
        )
    assert written[0] == written[1]
    assert {"scored/scores.csv", "pruned/kept.csv", "applied/applied.csv", "applied/apply.json"} <= set(
        written[0]
    )
    assert {"exported/cleanlab.csv", "exported/fiftyone.jsonl", "applied/images/metadata.csv"} <= set(
        written[0]
    )


def test_the_same_samples_for_torch(images, decisions, done):
    from torchvision.datasets import ImageFolder

    from divacli import ManifestDataset

    done("apply", images, decisions, "--materialize", "symlink", "--out", "made")
    table, folder = ManifestDataset("made/applied.csv"), ImageFolder("made/images")
    assert table.classes == folder.classes
    samples = [(str(Path(file).absolute()), number) for file, number in folder.samples]
    assert sorted(zip(table.files, table.targets, strict=True)) == sorted(samples)
    by_file = {file: row for row, (file, _) in enumerate(samples)}
    for row, file in enumerate(table.files):
        assert (np.asarray(table[row][0]) == np.asarray(folder[by_file[file]][0])).all()
