"""Every sample of the input is in exactly one output, whatever the command, the input and the format."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from divacli.files.lock import locked

PARTS = {
    "score": ("scores", "failed"),
    "prune": ("kept", "dropped", "failed"),
    "relabel": ("relabelled", "failed"),
    "reweight": ("reweighted", "failed"),
    "extend": ("extended", "remaining", "failed"),
    "train": ("reweighted", "failed"),
    "embed": ("samples", "failed"),
    "apply": ("applied", "removed"),
}
"""The tables that share the samples of the input."""

READERS = {"csv": pd.read_csv, "parquet": pd.read_parquet}


def read(file: Path) -> pd.DataFrame:
    if file.suffix == ".jsonl":
        return pd.read_json(file, lines=True, dtype=False, convert_axes=False)
    options = {"dtype": str, "keep_default_na": False} if file.suffix == ".csv" else {}
    return READERS[file.suffix[1:]](file, **options)


def rows_in(folder: Path, command: str) -> Counter[str]:
    """The samples in the outputs of a command: absolute files, or names in a file of embeddings."""
    found: Counter[str] = Counter()
    for name in PARTS[command]:
        files = [file for file in folder.glob(f"{name}.*") if file.suffix in (".csv", ".jsonl", ".parquet")]
        assert len(files) <= 1
        for file in files:
            table = read(file) if file.stat().st_size else pd.DataFrame({"path": []})
            sources = table.get("feature_source", pd.Series("", index=table.index)).fillna("")
            for path, source in zip(table["path"], sources, strict=True):
                found[str(path) if str(source).endswith(".npz") else str((folder / str(path)).resolve())] += 1
    return found


@pytest.fixture
def photos(images, tmp_path, monkeypatch):
    """A folder with a truncated image, one that is text, copies, and odd names."""
    folder = tmp_path / "photos"
    for number, file in enumerate(sorted(images.rglob("*.png"))):
        target = folder / file.parent.name / f"{number} ü'\"=1.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    first = sorted(folder.rglob("*.png"))[0]
    (folder / "a/truncated.png").write_bytes(first.read_bytes()[:60])
    (folder / "b/text.jpg").write_text("not an image")
    (folder / "b/copy.png").write_bytes(first.read_bytes())
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ("score",),
        ("score", "--format", "jsonl"),
        ("score", "--format", "parquet"),
        ("score", "--by", "class", "--verify", 2),
        ("prune", "--keep", "0.7", "--format", "parquet"),
        ("prune", "--keep", "auto", "--format", "jsonl"),
        ("prune", "--threshold", "-1e9"),
        ("prune", "--keep", "0.5", "--stratify", "--by", "loo_loss"),
        ("relabel",),
        ("relabel", "--threshold", "0", "--format", "jsonl"),
        ("reweight",),
        ("reweight", "--group", "duplicates"),
        ("embed",),
    ],
    ids=lambda arguments: " ".join(map(str, arguments)),
)
def test_images(done, model, photos, arguments):
    command, *options = arguments
    result = done(command, photos, *options, *model, "--out", "out/below")
    wanted = {str(file.resolve()): 1 for file in photos.rglob("*.*") if file.is_file()}
    assert rows_in(Path("out/below"), command) == wanted
    assert len(wanted) == 39
    assert "2 images cannot be used" in result.stderr
    [run] = json.loads(Path("out/below/run.json").read_text())["runs"]
    counts = run["samples"]
    assert counts.pop("read") == 39 == sum(counts.values())
    assert counts["failed"] == 2


@pytest.mark.parametrize("command", ["score", "prune", "relabel", "reweight"])
def test_embeddings_with_numbers_that_are_none(done, blobs, command):
    given = blobs()
    given.arrays["embedding"][[3, 77]] = np.nan
    given.arrays["embedding"][5, 1] = np.inf
    np.savez(given.file, **given.arrays)
    done(command, given.file, *(("--keep", "0.8") if command == "prune" else ()), "--out", "out")
    assert rows_in(Path("out"), command) == dict.fromkeys(given.arrays["path"].tolist(), 1)
    assert set(read(Path("out/failed.csv"))["path"]) == {"s0003", "s0077", "s0005"}


def test_every_later_command_takes_what_the_first_one_left(done, model, photos):
    """A chain of commands: at each step the samples are those of the step before."""
    done("score", photos, *model, "--out", "1")
    done("prune", "1/scores.csv", "--keep", "0.8", "--out", "2")
    before, after = rows_in(Path("1"), "score"), rows_in(Path("2"), "prune")
    failed = {str((Path("1") / path).resolve()) for path in read(Path("1/failed.csv"))["path"]}
    assert after == {file: 1 for file in before if file not in failed}
    done("relabel", "1/scores.csv", "--out", "3")
    assert rows_in(Path("3"), "relabel") == after


def test_a_core_and_its_pool(done, model, photos, more_images):
    done("extend", photos, "--pool", more_images, *model, "--budget", 9, "--out", "out")
    wanted = [file for folder in (photos, more_images) for file in folder.rglob("*.*") if file.is_file()]
    assert rows_in(Path("out"), "extend") == {str(file.resolve()): 1 for file in wanted}
    assert len(wanted) == 39 + 70


def test_decisions(done, photos):
    files = sorted(photos.rglob("*.png"))
    decisions = pd.DataFrame({"path": files[:5], "decision": ["drop", "keep", "relabel", "drop", "keep"]})
    decisions["label"] = ["", "", "c", "", ""]
    decisions.to_csv("decisions.csv", index=False)
    done("apply", photos, "decisions.csv", "--out", "out")
    assert rows_in(Path("out"), "apply") == {
        str(file.resolve()): 1 for file in photos.rglob("*.*") if file.is_file()
    }
    done("apply", photos, "decisions.csv", "--materialize", "copy", "--out", "folder")
    made = [
        file for file in Path("folder/images").rglob("*") if file.is_file() and file.parent.name != "images"
    ]
    assert len(made) == 39 - 2
    assert len(read(Path("folder/removed.csv"))) == 2


def test_a_mistake_in_diva_writes_nothing(run, model, photos, monkeypatch):
    from divacli.curate import prune as pruning

    real = pruning.split

    def loses_one(*arguments):
        kept, dropped = real(*arguments)
        return kept.iloc[1:], dropped

    monkeypatch.setattr(pruning, "split", loses_one)
    result = run("prune", photos, "--keep", "0.8", *model, "--out", "out")
    assert result.exit_code == 1
    assert "of the 39 samples of " in result.stderr
    assert "1 are lost" in result.stderr
    assert "mistake in diva" in result.stderr
    assert not Path("out").exists()
    piped = run("prune", photos, "--keep", "0.8", *model, "--out", "-")
    assert (piped.exit_code, piped.stdout) == (1, "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("score",),
        ("prune", "--keep", "0.8"),
        ("relabel",),
        ("reweight",),
        ("embed",),
        ("extend", "--pool", "MORE"),
        ("augment", "--transform", "hflip"),
        ("evaluate", "--test", "MORE", "--manifest", "MORE", "--learner", "ridge"),
        ("train", "--epochs", "1"),
        ("apply", "DECISIONS"),
    ],
    ids=lambda arguments: arguments[0],
)
def test_an_existing_output_is_not_overwritten(run, model, photos, more_images, arguments):
    Path("decisions.csv").write_text(f"path,decision\n{photos}/a/truncated.png,drop\n")
    places = {"MORE": str(more_images), "DECISIONS": "decisions.csv"}
    command, *options = (places.get(part, part) for part in arguments)
    network = () if command == "apply" else model
    call = (command, photos, *options, *network, "--out", "out")
    assert run(*call, overwrite=False).exit_code == 0
    before = {file: file.read_bytes() for file in Path("out").rglob("*") if file.is_file()}
    again = run(*call, overwrite=False)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    assert {file: file.read_bytes() for file in Path("out").rglob("*") if file.is_file()} == before
    replaced = run(*call, "--quiet")
    assert replaced.exit_code == 0, replaced.stderr
    runs = json.loads(Path("out/run.json").read_text())["runs"]
    assert [one["command"] for one in runs] == [command]
    assert set(runs[0]["outputs"]) | {"run.json"} <= {file.name for file in Path("out").iterdir()}


def test_no_folder_of_images_is_ever_removed(run, done, photos):
    done("apply", photos, "--materialize", "copy", "--out", "out")
    before = sorted(Path("out/images").rglob("*"))
    Path("decisions.csv").write_text(f"path,decision\n{photos}/a/truncated.png,drop\n")
    for options in (("--materialize", "copy"), ("decisions.csv",)):
        refused = run("apply", photos, *options, "--out", "out")
        assert refused.exit_code == 1
        assert "images" in refused.stderr
    assert sorted(Path("out/images").rglob("*")) == before
    assert len(read(Path("out/applied.csv"))) == 39


def test_a_page_and_plots_are_outputs_too(run, done, blobs):
    done("score", blobs().file)
    calls = (
        ("report",),
        ("plot", "--kind", "loss"),
        ("export", "diva-out/scores.csv", "--to", "cleanlab"),
    )
    for call in calls:
        assert run(*call, overwrite=False).exit_code == 0
    commands = [one["command"] for one in json.loads(Path("diva-out/run.json").read_text())["runs"]]
    assert commands == ["score", "report", "plot", "export"]
    replaced = done("score", blobs().file, "--ridge", "7")
    assert (
        "report.html, loss.svg, cleanlab.csv in diva-out were made from what is replaced" in replaced.stderr
    )
    for call in calls:
        refused = run(*call, overwrite=False)
        assert (refused.exit_code, "--overwrite" in refused.stderr) == (1, True)


def test_a_result_does_not_replace_what_it_is_made_from(run, done, blobs):
    done("score", blobs().file)
    done("prune", "diva-out/scores.csv", "--keep", "0.8")
    before = Path("diva-out/kept.csv").read_bytes()
    again = run("prune", "diva-out/kept.csv", "--keep", "0.8", "--overwrite", overwrite=False)
    assert again.exit_code == 1
    assert "diva-out/kept.csv is DATA, and diva-out/kept.csv would replace it" in " ".join(
        again.stderr.split()
    )
    assert Path("diva-out/kept.csv").read_bytes() == before


def test_a_folder_in_use_is_refused_before_any_work(run, blobs, refuse_to_compute):
    Path("diva-out").mkdir()
    refuse_to_compute()
    with locked(Path("diva-out"), wait=False):
        refused = run("score", blobs().file)
    assert refused.exit_code == 1
    assert "diva-out is in use by process" in refused.stderr


def test_the_demonstration_is_not_made_over_other_files(run):
    Path("diva-demo").mkdir()
    Path("diva-demo/labels.csv").write_text("mine")
    refused = run("demo", overwrite=False)
    assert refused.exit_code == 1
    assert "diva-demo is not empty" in refused.stderr
    assert Path("diva-demo/labels.csv").read_text() == "mine"
    again = run("demo", "--overwrite")
    assert again.exit_code == 1
    assert "was not made by diva demo" in again.stderr
    assert Path("diva-demo/labels.csv").read_text() == "mine"
