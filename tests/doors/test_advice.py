"""Each message that gives a command or a source: what it gives is typed, or evaluated, and works.

Wrong advice is worse than none.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.doors.kinds import KINDS, Size, advised, classes_in, ids, put, write_table
from tests.hub import images, png, write_hub

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

Built = tuple[str, Size]
"""DATA that is refused, and what the advice leads to: samples and classes."""


def splits(here: Path) -> Built:
    put(here / "root", classes_in("train", "val") | classes_in("test", n=2))
    return "root", (12, 3)


def one_split(here: Path) -> Built:
    put(here / "root", classes_in("train"))
    return "root", (12, 3)


def wrapper(here: Path) -> Built:
    put(here / "root", classes_in("a/b"))
    return "root", (12, 3)


def wrapped_splits(here: Path) -> Built:
    put(here / "root", classes_in("a/train", "a/test"))
    return "root", (12, 3)


def release(here: Path) -> Built:
    for number, (name, kind) in enumerate(ids(12).items()):
        put(here / "root", {f"part{number % 2}/{name}.png": kind}, seed=number)
    write_table(here / "root" / "meta.csv", ("image_id", "dx"), ids(12).items())
    return "root", (12, 3)


def release_with_several_labels(here: Path) -> Built:
    rows = []
    for number, (name, kind) in enumerate(ids(12).items()):
        put(here / "root", {f"part{number % 2}/{name}.png": kind}, seed=number)
        rows.append((name, kind, ("light", "dark")[number // 6]))
    write_table(here / "root" / "meta.csv", ("image_id", "animal", "background"), rows)
    return "root", (12, 3)


def release_with_splits(here: Path) -> Built:
    rows = []
    for number, (name, kind) in enumerate(ids(12).items()):
        put(here / "root", {f"part{number % 2}/{name}.png": kind}, seed=number)
        rows.append((name, kind, ("train", "test")[number // 6]))
    write_table(here / "root" / "meta.csv", ("image_id", "dx", "subset"), rows)
    return "root", (6, 3)


def splits_with_labels_in_a_table(here: Path) -> Built:
    rows = []
    for number, (name, kind) in enumerate(ids(12).items()):
        put(here / "root", {f"{('train', 'test')[number % 2]}/{name}.png": kind}, seed=number)
        rows.append((name, kind))
    write_table(here / "root" / "labels.csv", ("id", "breed"), rows)
    return "root", (12, 3)


def flat_with_table(here: Path) -> Built:
    put(here / "root", {f"{name}.png": kind for name, kind in ids(12).items()})
    write_table(here / "labels.csv", ("id", "breed"), ids(12).items())
    return "root", (12, 3)


def flat_with_table_inside(here: Path) -> Built:
    put(here / "root", {f"{name}.png": kind for name, kind in ids(12).items()})
    write_table(here / "root" / "labels.tsv", ("id", "breed"), ids(12).items(), "\t")
    return "root", (12, 3)


def names_of_files(here: Path) -> Built:
    put(here / "root", {f"{kind}.{number}.jpg": kind for kind in KINDS for number in range(4)})
    return "root", (12, 3)


def imagefolder_of_one_split(here: Path) -> Built:
    labels = {f"{name}.png": kind for name, kind in ids(12).items()}
    put(here / "root" / "train", labels)
    write_table(here / "root" / "train" / "metadata.csv", ("file_name", "label"), labels.items())
    return "root", (12, 3)


def imagefolder_of_other_columns(here: Path) -> Built:
    labels = {f"{name}.png": kind for name, kind in ids(12).items()}
    put(here / "root", labels)
    write_table(here / "root" / "metadata.csv", ("file_name", "breed"), labels.items())
    return "root", (12, 3)


def imagefolder_with_a_column_of_splits(here: Path) -> Built:
    labels = {f"{name}.png": kind for name, kind in ids(12).items()}
    put(here / "root", labels)
    rows = [(*row, ("train", "test")[n // 6]) for n, row in enumerate(labels.items())]
    write_table(here / "root" / "metadata.csv", ("file_name", "label", "split"), rows)
    return "root", (6, 3)


def table_of_ids(here: Path) -> Built:
    put(here / "images", {f"{name}.png": kind for name, kind in ids(12).items()})
    write_table(here / "t.csv", ("image_id", "dx"), ids(12).items())
    return "t.csv", (12, 3)


def table_of_ids_and_splits(here: Path) -> Built:
    put(here / "images", {f"{name}.png": kind for name, kind in ids(12).items()})
    rows = [(*row, ("Train", "Test")[n // 6]) for n, row in enumerate(ids(12).items())]
    write_table(here / "t.csv", ("image_id", "dx", "Usage"), rows)
    return "t.csv", (6, 3)


def two_tables_of_the_same_ids(here: Path) -> Built:
    for split, n in {"test_images": 9, "train_images": 12}.items():
        put(here / split, {f"{name}.png": kind for name, kind in ids(n).items()}, n)
    write_table(here / "train.csv", ("image_id", "dx"), ids(9).items())
    return "train.csv", (9, 3)


def folders_of_the_same_names(here: Path) -> Built:
    for split, n in {"annotations": 12, "images": 12, "test": 12}.items():
        put(here / split, {f"{name}.png": kind for name, kind in ids(n).items()}, n)
    write_table(here / "labels.csv", ("image_id", "dx"), ids(12).items())
    return "labels.csv", (12, 3)


def one_hot(here: Path) -> Built:
    put(here / "input", {f"{name}.png": kind for name, kind in ids(12).items()})
    rows = [(name, *(int(kind == other) for other in KINDS)) for name, kind in ids(12).items()]
    write_table(here / "truth.csv", ("image", *KINDS), rows)
    return "truth.csv", (12, 3)


def json_lines(here: Path) -> Built:
    put(here / "images", {f"{name}.png": kind for name, kind in ids(12).items()})
    lines = [json.dumps({"img": f"{name}.png", "class": kind}) + "\n" for name, kind in ids(12).items()]
    (here / "t.jsonl").write_text("".join(lines))
    return "t.jsonl", (12, 3)


def paths_of_another_folder(here: Path) -> Built:
    put(here / "data" / "val", {f"{name}.png": kind for name, kind in ids(12).items()})
    text = "".join(f"{name}.png {kind}\n" for name, kind in ids(12).items())
    (here / "data" / "lists").mkdir()
    (here / "data" / "lists" / "val.txt").write_text(text)
    return "data/lists/val.txt", (12, 3)


def paths_of_windows(here: Path) -> Built:
    put(here / "images", {f"{name}.png": kind for name, kind in ids(12).items()})
    rows = [(f"E:\\work\\images\\{name}.png", kind) for name, kind in ids(12).items()]
    write_table(here / "t.csv", ("file", "class"), rows)
    return "t.csv", (12, 3)


def hub_splits(here: Path) -> Built:
    for split, n in {"train": 12, "validation": 6}.items():
        columns = {"image": images([png(k) for k in range(n)]), "label": [k % 3 for k in range(n)]}
        write_hub(here / "hub" / f"{split}-00000-of-00001.parquet", columns, {"label": KINDS})
    return "hub", (12, 3)


def hub_of_two_images(here: Path) -> Built:
    pictures = images([png(n) for n in range(12)])
    columns = {"image": pictures, "mask": pictures, "label": [n % 3 for n in range(12)]}
    write_hub(here / "two.parquet", columns, {"label": KINDS})
    return "two.parquet", (12, 3)


def hub_of_two_labels(here: Path) -> Built:
    pictures, numbers = images([png(n) for n in range(12)]), range(12)
    columns = {"image": pictures, "fine": [n % 3 for n in numbers], "coarse": [n % 2 for n in numbers]}
    write_hub(here / "two.parquet", columns, {"fine": KINDS, "coarse": ("pet", "wild")})
    return "two.parquet", (12, 3)


BUILDERS: list[Callable[[Path], Built]] = [
    *(splits, one_split, wrapper, wrapped_splits, release, release_with_several_labels, release_with_splits),
    *(splits_with_labels_in_a_table, flat_with_table, flat_with_table_inside, names_of_files),
    *(imagefolder_of_one_split, imagefolder_of_other_columns, imagefolder_with_a_column_of_splits),
    *(
        table_of_ids,
        table_of_ids_and_splits,
        two_tables_of_the_same_ids,
        folders_of_the_same_names,
        one_hot,
        json_lines,
    ),
    *(paths_of_another_folder, paths_of_windows, hub_splits, hub_of_two_images, hub_of_two_labels),
]


@pytest.mark.parametrize("build", BUILDERS, ids=lambda build: build.__name__)
def test_advice_leads_to_the_samples(build, tmp_path, monkeypatch, followed, from_python, looked):
    monkeypatch.chdir(tmp_path)
    data, size = build(tmp_path)
    assert followed(data) == size
    assert from_python(data) == size
    # What inspect says settles it is the same, and of all splits.
    found = looked(data)
    assert found["n_classes"] == size[1]
    assert found["n_samples"] >= size[0]
    assert found["settled_by"]


COMMANDS = {
    "embed": (),
    "prune": ("--keep", "0.5", "--force"),
    "relabel": (),
    "reweight": (),
    "augment": ("--transform", "hflip"),
    "train": ("--epochs", "1"),
    "evaluate": ("--test-split", "test", "--curve", "remove", "--fractions", "0.5"),
    "extend": ("--pool", "pool", "--budget", "2"),
}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_gives_its_own(command, tmp_path, run, model):
    splits(tmp_path)
    put(tmp_path / "pool", classes_in("", n=3), 9)
    given = (*COMMANDS[command], *model, "--workers", "0", "--out", "made")
    refused = run(command, "root", *given)
    assert refused.exit_code == 1, refused.output
    words = advised(refused.stderr)
    assert words[:2] == [command, "root"]
    result = run(*words, overwrite=False)
    assert result.exit_code == 0, f"{words}\n{result.stderr}\n{result.exception!r}"
    read = json.loads(Path("made/run.json").read_text())["runs"][-1]["inputs"]
    assert (read[0]["given"], read[0]["samples"]) == ("root", 12)


def test_votes(tmp_path, run, model):
    put(tmp_path / "images", {f"{name}.png": kind for name, kind in ids(12).items()})
    rows = [(name, kind, who) for name, kind in ids(12).items() for who in ("ann", "ben")]
    write_table(tmp_path / "votes.csv", ("image_id", "dx", "annotator"), rows)
    refused = run("votes", "votes.csv", "--annotator", "annotator", *model, "--out", "made")
    assert refused.exit_code == 1, refused.output
    result = run(*advised(refused.stderr), overwrite=False)
    assert result.exit_code == 0, f"{refused.stderr}{result.stderr}"


def test_apply(tmp_path, run):
    table_of_ids(tmp_path)
    refused = run("apply", "t.csv", "--materialize", "copy", "--out", "made")
    assert refused.exit_code == 1, refused.output
    result = run(*advised(refused.stderr), overwrite=False)
    assert result.exit_code == 0, f"{refused.stderr}{result.stderr}"
    assert len([*Path("made/images").rglob("*.png")]) == 12
