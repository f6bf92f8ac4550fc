"""The file of decisions: gone on from, whatever is in it, and never lost to another hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from divacli.errors import DataError
from divacli.interchange.read import read_decisions
from divacli.manifest import Manifest, manifest_of
from divacli.manifest.bounded import LONGEST_LINE
from divacli.review.decisions import decisions_of, verdicts_of
from divacli.review.ledger import Change, Ledger

LABELS = {"a.png": "cat", "b.png": "dog", "c.png": "cat", "d.png": "dog"}


@pytest.fixture
def samples(tmp_path: Path) -> Manifest:
    (tmp_path / "photos").mkdir()
    paths = [f"../photos/{name}" for name in LABELS]
    (tmp_path / "out").mkdir()
    return manifest_of(pd.DataFrame({"path": paths, "label": list(LABELS.values())}), tmp_path / "out")


@pytest.fixture
def places(tmp_path: Path) -> list[str]:
    return [str(tmp_path / "photos" / name) for name in LABELS]


@pytest.fixture
def ledger(samples: Manifest, places: list[str]) -> Iterator[Callable[[], Ledger]]:
    """Begin a review of the folder."""
    begun: list[Ledger] = []

    def begin() -> Ledger:
        begun.append(Ledger(samples.folder, samples, places))  # type: ignore[arg-type]
        return begun[-1]

    yield begin
    for one in begun:
        one.close()


def write(samples: Manifest, text: str) -> Path:
    file = Path(str(samples.folder)) / "decisions.csv"
    file.write_text(text)
    return file


def decided(file: Path) -> dict[str, str]:
    table = pd.read_csv(file)
    return {
        Path(path).name: decision for path, decision in zip(table["path"], table["decision"], strict=True)
    }


def test_decisions_by_hand_are_gone_on_from_however_they_name_the_sample(
    samples: Manifest, places: list[str], ledger: Callable[[], Ledger]
) -> None:
    file = write(samples, f"path,decision,label\n../photos/a.png,drop,\n{places[1]},relabel,cat\n")
    begun = ledger()
    begun.make([Change(places[0], "keep"), Change(places[2], "drop")])
    assert decided(file) == {"a.png": "keep", "b.png": "relabel", "c.png": "drop"}
    found = decisions_of(pd.read_csv(file, dtype=str), "it", samples.folder)
    assert verdicts_of(found, samples).actions.tolist() == ["keep", "relabel", "drop", ""]


def test_what_fits_no_sample_is_set_aside_and_kept(
    samples: Manifest, places: list[str], ledger: Callable[[], Ledger]
) -> None:
    rows = [
        f"{places[0]},drop,cat,cat",
        f"{places[1]},keep,zebra,zebra",
        "/gone/x.png,drop,cat,cat",
        f"{places[2]},drop,cat,cat",
        f"{places[2]},keep,cat,cat",
        f"{places[3]},keep,dog,",
    ]
    file = write(samples, "\n".join(["path,decision,label,given_label", *rows]) + "\n")
    begun = ledger()
    assert (len(begun), begun.set_aside) == (2, 4)
    assert decided(file) == {"a.png": "drop", "d.png": "keep"}
    aside = file.with_name("decisions-set-aside.csv")
    assert sorted(aside.read_text().splitlines()[1:]) == sorted(rows[1:5])
    begun.close()
    file.write_text(file.read_text() + "/gone/y.png,drop,,\n")
    assert ledger().set_aside == 5
    assert len(aside.read_text().splitlines()) == 6


def test_what_another_hand_writes_meanwhile_is_read_first(
    samples: Manifest, places: list[str], ledger: Callable[[], Ledger]
) -> None:
    begun = ledger()
    begun.make([Change(places[0], "drop")])
    file = begun.file
    file.write_text(file.read_text() + f"{places[1]},drop,,\n")
    begun.make([Change(places[2], "keep")])
    assert decided(file) == {"a.png": "drop", "b.png": "drop", "c.png": "keep"}
    file.unlink()
    begun.make([Change(places[3], "keep")])
    assert decided(file) == {"d.png": "keep"}


def test_a_folder_is_reviewed_once_at_a_time(samples: Manifest, ledger: Callable[[], Ledger]) -> None:
    first = ledger()
    with pytest.raises(DataError, match="being reviewed already"):
        ledger()
    first.close()
    ledger()


@pytest.mark.parametrize("text", ["path,label\na,b\n", "path,decision\na,explode\n", ""])
def test_a_file_of_something_else_is_refused_and_left_alone(
    samples: Manifest, ledger: Callable[[], Ledger], text: str
) -> None:
    file = write(samples, text)
    with pytest.raises(DataError):
        ledger()
    assert file.read_text() == text
    file.unlink()
    ledger()  # the refused one holds the folder no longer


def test_a_folder_in_the_place_of_the_file_is_refused(
    samples: Manifest, ledger: Callable[[], Ledger]
) -> None:
    (Path(str(samples.folder)) / "decisions.csv").mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        ledger()


BLANK = {
    "none": "",
    "space": " ",
    "breaks": "\t\r\n",
    "separator": "\x1c",
    "next line": "\x85",
    "no-break": "\xa0",
}
UNREADABLE = {
    **BLANK,
    "as long as a line": "x" * LONGEST_LINE,
    "longer than a cell": ("x" * (1 << 20) + "\n") * 5,
    "half a pair": "\ud800",
}


@pytest.mark.parametrize("label", UNREADABLE.values(), ids=UNREADABLE)
def test_a_label_that_the_file_would_not_give_back_is_refused_and_nothing_changes(
    places: list[str], ledger: Callable[[], Ledger], label: str
) -> None:
    begun = ledger()
    begun.make([Change(places[0], "drop")])
    before = begun.file.read_bytes()
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        begun.make([Change(places[1], "keep"), Change(places[2], "relabel", label)])
    assert begun.file.read_bytes() == before
    assert [row[:2] for row in begun.as_rows()] == [[places[0], "drop"]]


READABLE = {
    **{
        name: name
        for name in ("007", "-1", "1_000", "NaN", "None", "true", "=1+1", "'=x", "'", "./=x", "path")
    },
    "spaces around": "  x\t",
    "breaks": "\r\nx\ry\n",
    "quotes": 'a "b", c',
    "zero byte": "a\0b",
    "byte order mark": "\ufeff",
    "line separator": "a\u2028b",
    "long": "x" * (LONGEST_LINE - 10_000),
}


@pytest.mark.parametrize("label", READABLE.values(), ids=READABLE)
def test_what_is_accepted_is_read_again_by_review_and_apply(
    samples: Manifest, places: list[str], ledger: Callable[[], Ledger], label: str
) -> None:
    begun = ledger()
    begun.make([Change(places[1], "keep"), Change(places[2], "relabel", label)])
    made = begun.as_rows()
    begun.close()
    again = ledger()
    assert again.as_rows() == made
    assert again.set_aside == 0
    verdicts = verdicts_of(read_decisions(str(begun.file), []), samples)
    assert verdicts.labels.tolist() == ["cat", "dog", label, "dog"]


def test_a_file_that_somebody_broke_is_not_replaced_however_often_it_is_tried(
    places: list[str], ledger: Callable[[], Ledger]
) -> None:
    begun = ledger()
    begun.make([Change(places[0], "drop")])
    whole = begun.file.read_text()
    begun.file.write_text("half of a table")
    for _ in range(2):
        with pytest.raises(DataError):
            begun.make([Change(places[1], "drop")])
    assert begun.file.read_text() == "half of a table"
    begun.file.write_text(whole)
    begun.make([Change(places[1], "drop")])
    assert decided(begun.file) == {"a.png": "drop", "b.png": "drop"}


def test_a_folder_in_the_place_of_what_was_set_aside_is_refused(
    samples: Manifest, ledger: Callable[[], Ledger]
) -> None:
    file = write(samples, "path,decision\n/gone/x.png,drop\n")
    file.with_name("decisions-set-aside.csv").mkdir()
    with pytest.raises(DataError, match=r"set-aside\.csv cannot be read"):
        ledger()
