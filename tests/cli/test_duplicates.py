"""Copies of images, as a user meets them: the table, the warning, and `--group duplicates`."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

COPIES = {
    "a/equal.jpg": "a/003.jpg",
    "b/again.jpg": "b/004.jpg",
    "c/foreign.jpg": "a/006.jpg",
    "b/saved.jpg": "b/007.jpg",
    "b/small.jpg": "b/010.jpg",
}
"""Which file each copy is of: three equal ones, of which one under another class, and two saved anew."""


def write_photo(target: Path, label: int, generator: np.random.Generator) -> None:
    """A smooth image of 48 x 48 with a tint of its class."""
    pixels = np.eye(3)[label] * 20 + generator.integers(0, 180, (6, 6, 3))
    target.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels.astype(np.uint8)).resize((48, 48), Image.Resampling.BICUBIC)
    image.save(target, quality=92)


@pytest.fixture
def model(tmp_path: Path, factory: Path) -> tuple[str, str]:
    """A network of enough features to tell photos from their copies."""
    wide = tmp_path / "wide.py"
    wide.write_text(factory.read_text().replace("10", "100").replace("48", "108").replace("(4, 4)", "(6, 6)"))
    return ("--model", f"{wide}:make")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Sixty photos in the classes a, b and c."""
    generator = np.random.default_rng(0)
    for number in range(60):
        write_photo(tmp_path / "photos" / "abc"[number % 3] / f"{number:03d}.jpg", number % 3, generator)
    return tmp_path / "photos"


@pytest.fixture
def copied(photos: Path) -> Path:
    """The same with the copies."""
    for copy, original in COPIES.items():
        if "saved" in copy or "small" in copy:
            image = Image.open(photos / original)
            image = image.resize((36, 36)) if "small" in copy else image
            image.save(photos / copy, quality=80)
        else:
            shutil.copy(photos / original, photos / copy)
    return photos


@pytest.fixture
def by_hand(copied: Path, images_of) -> pd.DataFrame:
    """Their table with the sets as a person would write them, as hand.csv in the current folder."""
    table = images_of(copied)
    table["same"] = [COPIES.get(name, name) for name in table["path"].str.removeprefix("photos/")]
    table.to_csv("hand.csv", index=False)
    return table


@pytest.fixture
def images_of(run):
    """Path (from the current folder) and label of the images of a folder."""

    def table(folder: Path) -> pd.DataFrame:
        files = sorted(folder.rglob("*.jpg"))
        paths = [str(file.relative_to(Path.cwd())) for file in files]
        return pd.DataFrame({"path": paths, "label": [file.parent.name for file in files]})

    return table


def text_of(result) -> str:
    return " ".join(result.stderr.split())


def summary_of(folder: str, name: str = "summary.json") -> dict:
    return json.loads((Path(folder) / name).read_text())


def in_order(table: pd.DataFrame) -> pd.DataFrame:
    return table.sort_values("path").reset_index(drop=True)


BY_COPIES = ("--group", "duplicates")
WARNED = "copies of others"


# What is told


def test_copies_are_written_and_told(copied, model, done):
    result = done("score", "photos", *model, "--out", "out")
    table = pd.read_csv("out/duplicates.csv", dtype={"path": str})
    assert list(table) == ["set", "path", "label", "kind", "similarity", "conflict"]
    names = [set(paths.str.removeprefix("../photos/")) for _, paths in table.groupby("set")["path"]]
    assert sorted(names, key=sorted) == sorted(({copy, of} for copy, of in COPIES.items()), key=sorted)
    assert names[0] == {"a/006.jpg", "c/foreign.jpg"}
    assert table["conflict"].tolist() == [True] * 2 + [False] * 8
    kinds = dict(zip(table["path"].str.removeprefix("../photos/"), table["kind"], strict=True))
    assert {name for name, kind in kinds.items() if kind == "near"} == {
        "b/007.jpg",
        "b/saved.jpg",
        "b/010.jpg",
        "b/small.jpg",
    }
    assert (table["similarity"][table["kind"] == "exact"] == 1).all()
    assert table["similarity"].between(0.99, 1).all()
    summary = summary_of("out")
    assert (summary["n_duplicates"], summary["n_duplicate_sets"], summary["n_conflicting_sets"]) == (10, 5, 1)
    assert text_of(result).count(WARNED) == 1
    assert (
        "10 samples are copies of others, in 5 sets (labels conflict in 1), the first: a/006.jpg (a) and "
        "c/foreign.jpg (c). Leave-one-out losses are optimistic" in text_of(result)
    )
    assert "duplicates.csv" in result.stderr


def test_the_table_of_copies_is_data(copied, model, done):
    done("score", "photos", *model, "--out", "out")
    done("score", "out/duplicates.csv", *model, "--out", "again")
    assert len(pd.read_csv("again/scores.csv")) == 10


def test_without_copies_there_is_a_header_and_no_warning(photos, model, done):
    result = done("score", "photos", *model, "--out", "out")
    assert Path("out/duplicates.csv").read_text() == "set,path,label,kind,similarity,conflict\n"
    assert summary_of("out")["n_duplicates"] == 0
    assert WARNED not in text_of(result)


@pytest.mark.parametrize("column", ["same", "duplicates"])
def test_no_warning_where_copies_are_left_out_together(column, by_hand, model, done):
    result = done("score", "hand.csv" if column == "same" else "photos", *model, "--group", column)
    assert WARNED not in text_of(result)
    assert len(pd.read_csv("diva-out/duplicates.csv")) == 10


def test_a_pipe_gets_the_scores_alone(copied, model, done):
    result = done("score", "photos", *model, "--out", "-", "--quiet")
    assert result.stdout.startswith("rank,path,label")
    assert len(result.stdout.splitlines()) == 66
    assert WARNED in text_of(result)


# What it does


def test_groups_of_copies_are_those_written_by_hand(by_hand, model, scores):
    expected = scores("hand.csv", *model, "--group", "same", out="hand")
    found = scores("photos", *model, *BY_COPIES, out="found")
    for column in ("derivative", "loo_loss"):
        np.testing.assert_allclose(in_order(found)[column], in_order(expected)[column], rtol=1e-6)
    assert summary_of("found")["n_groups"] == summary_of("hand")["n_groups"] == 60
    assert summary_of("found")["group"] == "duplicates"
    sets = pd.read_csv("found/duplicates.csv").set_index("path")["set"]
    assert found.set_index("path")["duplicates"].dropna().astype(int).to_dict() == sets.to_dict()


def test_losses_of_copies_rise(copied, model, scores):
    alone = in_order(scores("photos", *model, "--ridge", "0.1", out="alone"))
    together = in_order(scores("photos", *model, "--ridge", "0.1", *BY_COPIES, out="together"))
    name = alone["path"].str.removeprefix("../photos/")
    right = name.isin([name for pair in COPIES.items() for name in pair if "foreign" not in pair[0]])
    wrong = name.isin(["a/006.jpg", "c/foreign.jpg"])
    # A copy of another class, which taught the wrong, is gone as well.
    assert (together["loo_loss"][right] > alone["loo_loss"][right]).all()
    assert (together["loo_loss"][wrong] < alone["loo_loss"][wrong]).all()
    np.testing.assert_allclose(
        together["loo_loss"][~right & ~wrong], alone["loo_loss"][~right & ~wrong], rtol=1e-5
    )


def test_no_copies_is_no_error(photos, model, scores, done):
    expected = scores("photos", *model, out="alone")
    result = done("score", "photos", *model, *BY_COPIES, "--out", "out")
    assert "note: no copies found of samples of photos: each is left out by itself" in text_of(result)
    assert (summary_of("out")["group"], summary_of("out")["n_groups"]) == (None, None)
    pd.testing.assert_frame_equal(pd.read_csv("out/scores.csv", dtype=expected.dtypes.to_dict()), expected)
    assert "no copies" not in text_of(done("score", "photos", *model, *BY_COPIES, "--quiet"))


def test_a_column_of_that_name_is_a_column(by_hand, model, scores):
    table = by_hand.assign(pair=np.arange(65) // 2)
    table.to_csv("hand.csv", index=False)
    expected = scores("hand.csv", *model, "--group", "pair")
    table.rename(columns={"pair": "duplicates"}).to_csv("hand.csv", index=False)
    found = scores("hand.csv", *model, *BY_COPIES)
    np.testing.assert_allclose(found["derivative"], expected["derivative"], rtol=1e-6)
    assert summary_of("scored")["n_groups"] == 33


def test_a_pipe_keeps_the_copies_together(copied, model, done):
    done("prune", "photos", *model, *BY_COPIES, "--keep", "0.9", "--out", "at once")
    scored = done("score", "photos", *model, *BY_COPIES, "--out", "-", "--quiet")
    result = done("prune", "-", "--keep", "0.9", "--out", "piped", stdin=scored.stdout)
    assert "no forecast was made" not in result.stderr
    one, other = (summary_of(name, "prune.json") for name in ("at once", "piped"))
    assert one["group"] == other["group"] == "duplicates"
    assert one["n_groups"] == other["n_groups"] == 60
    assert one["forecast"]["error"] == pytest.approx(other["forecast"]["error"], abs=1e-5)
    done("prune", "photos", *model, "--keep", "0.9", "--out", "alone")
    alone = summary_of("alone", "prune.json")
    assert alone["group"] is None
    # Copies are no draws of their own: in groups there are fewer, and less is known.
    assert alone["forecast"]["change"]["random"] != one["forecast"]["change"]["random"]


def test_copies_in_a_validation_set_are_counted(copied, images_of, model, done):
    table = images_of(copied)
    second = table["path"].isin([f"photos/{name}" for name in ("a/equal.jpg", "b/saved.jpg", "b/013.jpg")])
    table[~second].to_csv("train.csv", index=False)
    table[second].to_csv("val.csv", index=False)
    result = done("score", "train.csv", "--val", "val.csv", *model, *BY_COPIES)
    assert "2 of the 3 samples of val.csv have copies in train.csv" in text_of(result)
    # Those with a copy in the other set only have none to be left out with.
    assert summary_of("diva-out")["n_duplicates"] == 6
    assert summary_of("diva-out")["n_groups"] == 59


@pytest.fixture
def core(copied, images_of) -> pd.DataFrame:
    """core.csv without copies, pool.csv with the copies and ten images more."""
    table = images_of(copied)
    pooled = table["path"].isin([f"photos/{name}" for name in COPIES]) | table["path"].str.contains("/04")
    table[~pooled].to_csv("core.csv", index=False)
    table[pooled].to_csv("pool.csv", index=False)
    return table[~pooled]


def test_copies_of_the_core_are_not_chosen_from_a_pool(core, model, done):
    done("extend", "core.csv", "--pool", "pool.csv", *model, *BY_COPIES, "--out", "out")
    table = pd.read_csv("out/remaining.csv")
    near = table["path"].str.contains("saved|small")
    assert table["reason"][near].str.contains("its duplicates is in the core").all()
    assert near.sum() == 2
    done("extend", "core.csv", "--pool", "pool.csv", *model, "--out", "alone")
    assert not pd.read_csv("alone/remaining.csv")["reason"].str.contains("duplicates").any()


def test_a_column_that_the_pool_lacks_is_refused_with_the_way_out(core, model, run):
    core.assign(duplicates=np.arange(len(core)) // 2).to_csv("core.csv", index=False)
    result = run("extend", "core.csv", "--pool", "pool.csv", *model, *BY_COPIES)
    assert result.exit_code == 1
    assert "pool.csv has no column duplicates for --group" in text_of(result)
    assert "leave that column out of DATA" in text_of(result)


def test_sets_that_are_compared_are_searched_together(copied, images_of, model, done):
    done("prune", "photos", *model, *BY_COPIES, "--keep", "0.95", "--out", "pruned")
    assert "duplicates" in pd.read_csv("pruned/kept.csv")
    table = images_of(copied)
    table[table["path"].str.contains("equal|saved|01")].to_csv("test.csv", index=False)
    table[~table["path"].str.contains("equal|saved|01")].to_csv("train.csv", index=False)
    arguments = ("--manifest", "pruned/kept.csv", "--test", "test.csv", "--learner", "ridge", "--seeds", "1")
    result = done("evaluate", "train.csv", *arguments, *model, *BY_COPIES, "--out", "out")
    assert "no column duplicates" not in text_of(result)
    assert "3 of the 13 samples of test.csv have copies in train.csv" in text_of(result)
    assert summary_of("out", "evaluation.json")["group"] == "duplicates"


@pytest.mark.parametrize(
    ("command", "summary"),
    [
        (("reweight", "--step-size", "0.1"), "reweight.json"),
        (("augment", "--transform", "hflip"), "augment.json"),
        (("train", "--epochs", "1", "--workers", "0", "--step-size", "0"), "train.json"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_every_command_leaves_copies_out_together(command, summary, copied, model, done):
    done(*command[:1], "photos", *command[1:], *model, *BY_COPIES, "--out", "out")
    about = summary_of("out", summary)
    assert (about["group"], about["n_groups"]) == ("duplicates", 60)


def test_training_counts_copies_among_the_test_images(copied, images_of, model, done):
    table = images_of(copied)
    table[table["path"].str.contains("equal|saved|01")].to_csv("test.csv", index=False)
    table[~table["path"].str.contains("equal|saved|01")].to_csv("train.csv", index=False)
    command = (
        "train",
        "train.csv",
        "--test",
        "test.csv",
        "--epochs",
        "1",
        "--workers",
        "0",
        "--step-size",
        "0",
    )
    result = done(*command, *model, *BY_COPIES)
    assert "3 of the 13 samples of test.csv have copies in train.csv" in text_of(result)
    assert text_of(result).count("note: 7 of the 52 samples of train.csv have copies") == 1


def test_embeddings_without_images_have_copies_too(blobs, done):
    data = blobs()
    features = np.concatenate([data.arrays["embedding"], data.arrays["embedding"][:4]])
    labels = np.concatenate([data.arrays["label"], data.arrays["label"][:4]])
    np.savez("copies.npz", embedding=features, label=labels)
    done("score", "copies.npz", *BY_COPIES)
    table = pd.read_csv("diva-out/duplicates.csv")
    assert table["feature_source"].unique().tolist() == ["../copies.npz"]
    assert set(table["kind"]) == {"exact"}
    assert summary_of("diva-out")["n_groups"] == 150
