"""Votes are read as they are meant: one image for each path, annotators by name, and odd tables refused."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from divacli.curate.ballots import Ballots, collected, read_ballots
from divacli.errors import DataError
from divacli.manifest import read_manifest
from divacli.reading import NamedData
from tests.made import WEIGHTS

VOTES = """path,label,annotator,camera,confidence
b.png,dog,ann,x,0.9
a.png,cat,ann,y,0.8
./a.png,dog,bob,y,0.1
b.png,dog, bob,x,0.2
a.png,cat,eve,y,0.5
c.png,ant,eve,z,0.5
"""


@pytest.fixture
def read(tmp_path: Path):
    """Ballots of a table's text."""

    def reader(text: str, annotator: str | None = None) -> Ballots:
        (tmp_path / "votes.csv").write_text(text)
        return read_ballots(NamedData(str(tmp_path / "votes.csv"), WEIGHTS), annotator)

    return reader


def refusal(read, text: str, annotator: str | None = None) -> str:
    with pytest.raises(DataError) as caught:
        read(text, annotator)
    assert caught.value.expected
    return f"{caught.value.got} | {caught.value.hint}"


def test_one_row_an_image_with_the_label_of_most_votes(read):
    ballots = read(VOTES)
    table = ballots.images.table
    assert table["path"].tolist() == ["b.png", "a.png", "c.png"]
    assert table["label"].tolist() == ["dog", "cat", "ant"]
    assert list(table) == ["path", "label", "weight", "camera"]
    assert table["camera"].tolist() == ["x", "y", "z"]
    assert ballots.image.tolist() == [0, 1, 1, 0, 1, 2]
    assert ballots.annotators.tolist() == ["ann", "ann", "bob", "bob", "eve", "eve"]
    assert ballots.counts().tolist() == [[0, 0, 2], [0, 2, 1], [1, 0, 0]]
    warnings = " ".join(ballots.images.warnings)
    assert "spaces around the names of annotators do not count: 1 votes" in warnings
    assert "columns that differ between votes for an image are left out: confidence" in warnings
    assert ballots.images.unused == ("camera",)
    assert not ballots.images.repeated


def test_of_equally_many_votes_the_first_class(read):
    ballots = read("path,label\na,dog\na,cat\nb,dog\n")
    assert ballots.images.table["label"].tolist() == ["cat", "dog"]
    assert ballots.column is None
    assert set(ballots.annotators) == {""}


def test_annotators_as_asked_for(read):
    text = "path,label,worker,annotator\na,x,1,p\na,y,2,q\nb,y,1,p\n"
    assert read(text).annotators.tolist() == ["p", "q", "p"]
    assert read(text, "worker").annotators.tolist() == ["1", "2", "1"]
    assert read(text, "none").column is None
    assert "no column staff for --annotator" in refusal(read, text, "staff")


def test_names_that_may_be_mistyped_are_named(read):
    ballots = read("path,label,annotator\na,x,Ann\na,y,ann\nb,y,Ann\nb,y,Ann\nc,x,\n")
    said = " ".join(ballots.images.warnings)
    assert "'Ann' / 'ann'" in said
    assert "1 votes have no annotator and count as those of one without name" in said
    assert "1 votes are further ones of an annotator for the same image, the first: b" in said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("path,label\na,x\na,\nb,y\n", "label is empty in data row 2"),
        ("path,label\n,x\na,y\n", "path is empty"),
        (
            "path,label,weight\na,x,1\nb,y,1\na,x,2\n",
            "weight is not that of the other votes for the image in data row 3",
        ),
        ("path,label,group\na,x,p\na,y,q\n", "group is not that of the other votes"),
        ("path,label\na,x\na,x\n", "one class only"),
    ],
)
def test_tables_that_cannot_be_meant_are_refused(read, text, said):
    assert said in refusal(read, text)


def test_images_with_one_label_are_no_votes(tmp_path, monkeypatch):
    (tmp_path / "photos/cat").mkdir(parents=True)
    (tmp_path / "photos/dog").mkdir()
    for name in ("cat/1.png", "dog/2.png"):
        (tmp_path / "photos" / name).write_bytes(b"")
    with pytest.raises(DataError, match="is a folder, in which a sample has one label"):
        read_ballots(str(tmp_path / "photos"))


def test_other_commands_refuse_votes_and_name_the_command(tmp_path):
    (tmp_path / "votes.csv").write_text(VOTES)
    with pytest.raises(DataError) as caught:
        read_manifest(str(tmp_path / "votes.csv"))
    assert "same path more than once" in caught.value.got
    assert "diva votes makes one label of several votes" in caught.value.hint


def test_votes_for_some_of_the_images(read):
    ballots = read(VOTES)
    some = ballots.of(ballots.images.select([2, 1]))
    assert some.image.tolist() == [1, 1, 1, 0]
    assert some.labels.tolist() == ["cat", "dog", "cat", "ant"]
    assert some.counts().tolist() == [[1, 0, 0], [0, 2, 1]]


def test_results_of_an_earlier_run_are_made_anew(read):
    ballots = read("path,label,gain,n_votes\na,x,0.5,3\nb,y,0.2,3\n")
    assert list(ballots.images.table) == ["path", "label", "weight"]
    assert "columns that are made anew" in " ".join(ballots.images.warnings)


def test_rows_of_one_name_in_two_files_are_two_samples(tmp_path):
    table = pd.DataFrame(
        {"path": ["s", "s", "s"], "label": ["x", "y", "y"], "feature_source": ["a.npz", "b.npz", "./a.npz"]}
    )
    table.to_csv(tmp_path / "v.csv", index=False)
    ballots = collected(read_manifest(str(tmp_path / "v.csv"), repeated=True))
    assert ballots.image.tolist() == [0, 1, 0]
