"""The files of a result: all or none, never over others, with a record of the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from divacli.errors import DataError, DivaError, OutputError
from divacli.files.lock import locked
from divacli.manifest import Manifest, manifest_of, read_manifest
from divacli.results.read import read_results
from divacli.results.runfile import RUN_FILE
from divacli.results.write import ResultFiles
from divacli.run_record import Run, running

ROWS = pd.DataFrame({"path": ["1.png", "2.png", "3.png"], "label": ["a", "b", "a"]})


def write(
    folder: Path, names: dict[str, str], *, command: str = "score", whole: bool = True, **options: object
) -> None:
    with ResultFiles(folder, "csv", tuple(names), command=command, **options) as target:  # type: ignore[arg-type]
        for name, text in names.items():
            target.text(name, text)
        target.finish(whole=whole)


def write_part(folder: Path, table: pd.DataFrame, origin: Path, read: Manifest) -> None:
    """Write a table that is to hold all samples that were read."""
    with ResultFiles(folder, "csv") as target:
        target.table("kept", table, origin, part=True)
        target.finish([read])


def names_in(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_nothing_is_there_before_the_end(tmp_path):
    folder = tmp_path / "out"
    with ResultFiles(folder, "csv", ("scores",)) as target:
        target.table("scores", ROWS, tmp_path)
        assert not (folder / "scores.csv").exists()
        target.finish()
        assert names_in(folder) == {"scores.csv", RUN_FILE}


def test_a_failure_leaves_nothing_not_even_the_folder(tmp_path):
    folder = tmp_path / "out"

    def fail() -> None:
        with ResultFiles(folder, "csv", ("scores",)) as target:
            target.table("scores", ROWS, tmp_path)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert not folder.exists()


@pytest.mark.parametrize("there", ["scores.csv", "scores.jsonl", "scores.parquet", "summary.json"])
def test_what_is_there_is_refused_before_any_work(tmp_path, there):
    """In whichever format: which of two is the result could not be told."""
    (tmp_path / there).write_text("precious")
    with pytest.raises(OutputError, match=f"holds {there} already") as caught:
        ResultFiles(tmp_path, "csv", ("scores", "summary.json"))
    assert "--overwrite" in str(caught.value)
    assert names_in(tmp_path) == {there}
    assert (tmp_path / there).read_text() == "precious"


def test_what_was_not_announced_is_refused_at_the_end(tmp_path):
    (tmp_path / "harm.csv").write_text("of another command")
    with ResultFiles(tmp_path, "csv") as target:
        target.text("scores.csv", "new")
        target.text("harm.csv", "new")
        with pytest.raises(OutputError, match=r"holds harm\.csv already"):
            target.finish()
    assert names_in(tmp_path) == {"harm.csv"}


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_failed_in_two_commands_is_in_two_files(tmp_path, overwrite):
    write(tmp_path, {"scores.csv": "1", "failed.csv": "2 of the core"})
    with ResultFiles(tmp_path, "csv", ("extended",), command="extend", overwrite=overwrite) as target:
        target.text("extended.csv", "2")
        target.text("failed.csv", "3 of core and pool")
        target.finish()
    assert (tmp_path / "failed.csv").read_text() == "2 of the core"
    assert (tmp_path / "failed-extend.csv").read_text() == "3 of core and pool"
    runs = json.loads((tmp_path / RUN_FILE).read_text())["runs"]
    assert [list(run["outputs"]) for run in runs] == [
        ["scores.csv", "failed.csv"],
        ["extended.csv", "failed-extend.csv"],
    ]
    write(tmp_path, {"scores.csv": "4", "failed.csv": "5"}, overwrite=True)
    assert (tmp_path / "failed.csv").read_text() == "5"


def test_an_equal_file_is_no_obstacle(tmp_path):
    write(tmp_path, {"scores.csv": "1", "failed.csv": "none"})
    with ResultFiles(tmp_path, "csv", ("kept",), command="prune") as target:
        target.text("kept.csv", "2")
        target.text("failed.csv", "none")
        target.finish()
    assert names_in(tmp_path) == {"scores.csv", "failed.csv", "kept.csv", RUN_FILE}


def test_overwriting_leaves_no_file_of_the_run_before(tmp_path):
    """Not harm.csv of scores that are gone, and not the same table in another format."""
    write(tmp_path, {"scores.csv": "1", "harm.csv": "1", "summary.json": "1"})
    write(tmp_path, {"kept.csv": "of prune"}, command="prune")
    (tmp_path / "mine.txt").write_text("my notes")
    write(tmp_path, {"scores.parquet": "2", "summary.json": "2"}, overwrite=True)
    assert names_in(tmp_path) == {"scores.parquet", "summary.json", "kept.csv", "mine.txt", RUN_FILE}
    runs = json.loads((tmp_path / RUN_FILE).read_text())["runs"]
    assert [(run["command"], list(run["outputs"])) for run in runs] == [
        ("prune", ["kept.csv"]),
        ("score", ["scores.parquet", "summary.json"]),
    ]


def test_plots_stay_beside_those_that_are_drawn_anew(tmp_path):
    write(tmp_path, {"loss.svg": "1", "ridge.svg": "1"}, command="plot", whole=False)
    write(tmp_path, {"loss.svg": "2"}, command="plot", whole=False, overwrite=True)
    assert names_in(tmp_path) == {"loss.svg", "ridge.svg", RUN_FILE}
    runs = json.loads((tmp_path / RUN_FILE).read_text())["runs"]
    assert [list(run["outputs"]) for run in runs] == [["ridge.svg"], ["loss.svg"]]


def test_files_of_another_command_are_not_replaced_even_if_that_is_asked_for(tmp_path):
    write(tmp_path, {"extended.csv": "1", "aggregate.json": "1"}, command="aggregate")
    with pytest.raises(OutputError, match=r"holds extended\.csv of diva aggregate already") as caught:
        write(tmp_path, {"extended.csv": "2", "extend.json": "2"}, command="extend", overwrite=True)
    assert "--overwrite" not in caught.value.hint
    assert (tmp_path / "extended.csv").read_text() == "1"


def test_an_equal_file_belongs_to_both_and_stays_with_the_other(tmp_path):
    write(tmp_path, {"scores.csv": "1", "failed.csv": "2"})
    write_failed = {"kept.csv": "1", "failed.csv": "2"}
    with ResultFiles(tmp_path, "csv", ("kept",), command="prune") as target:
        for name, text in write_failed.items():
            target.text(name, text)
        target.finish()
    runs = json.loads((tmp_path / RUN_FILE).read_text())["runs"]
    assert [sorted(run["outputs"]) for run in runs] == [
        ["failed.csv", "scores.csv"],
        ["failed.csv", "kept.csv"],
    ]
    with ResultFiles(tmp_path, "csv", ("kept",), command="prune", overwrite=True) as target:
        target.text("kept.csv", "3")
        target.text("failed.csv", "of other data")
        target.finish()
    assert (tmp_path / "failed.csv").read_text() == "2"
    assert (tmp_path / "failed-prune.csv").read_text() == "of other data"


def test_what_was_made_of_replaced_files_is_told(tmp_path):
    write(tmp_path, {"scores.csv": "1"})
    read = manifest_of(ROWS, tmp_path, name="scores")
    run = Run("prune")
    run.read(str(tmp_path / "scores.csv"), read)
    with running(run):
        write(tmp_path, {"kept.csv": "1"}, command="prune")
    with ResultFiles(tmp_path, "csv", ("scores",), command="score", overwrite=True) as target:
        target.text("scores.csv", "2")
        target.finish()
    assert target.outdated == ["kept.csv"]
    assert target.is_of_others("kept.csv")
    assert not target.is_of_others("scores.csv")
    with ResultFiles(tmp_path, "csv", ("scores",), command="score", overwrite=True) as target:
        target.text("scores.csv", "2")
        target.finish()
    assert target.outdated == []


def test_a_process_that_does_not_write_is_refused_too(tmp_path):
    write(tmp_path, {"scores.csv": "1"})
    with pytest.raises(OutputError, match="already"):
        ResultFiles(tmp_path, "csv", ("scores",), command="score", writes=False)
    ResultFiles(tmp_path, "csv", ("scores",), command="score", overwrite=True, writes=False)


def test_a_forged_record_removes_nothing_outside(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    folder = tmp_path / "out"
    write(folder, {"scores.csv": "1"})
    record = json.loads((folder / RUN_FILE).read_text())
    record["runs"][0]["outputs"] |= {"../victim": {}, str(victim): {}}
    (folder / RUN_FILE).write_text(json.dumps(record))
    write(folder, {"scores.csv": "2"}, overwrite=True)
    assert victim.read_text() == "precious"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("{", "is not what diva writes"),
        ("[]", "is not what diva writes"),
        ('{"format": 1, "runs": [3]}', "is not what diva writes"),
        ('{"format": 1, "runs": [{"outputs": {}}]}', "is not what diva writes"),
        ('{"format": 2, "runs": []}', "is of format 2"),
        ("[" * 100_000, "is not what diva writes"),
    ],
)
def test_a_record_that_cannot_be_read(tmp_path, content, said):
    (tmp_path / RUN_FILE).write_text(content)
    with pytest.raises(OutputError, match=said):
        write(tmp_path, {"scores.csv": "1"})
    # It may be of another program, which uses that name.
    with pytest.raises(OutputError, match=said):
        write(tmp_path, {"scores.csv": "1"}, overwrite=True)
    assert names_in(tmp_path) == {RUN_FILE}
    assert (tmp_path / RUN_FILE).read_text() == content
    with ResultFiles(tmp_path, "csv", ("report.html",), command="report", recorded=False) as target:
        target.text("report.html", "page")
        target.finish()
    assert names_in(tmp_path) == {RUN_FILE, "report.html"}
    assert (tmp_path / RUN_FILE).read_text() == content


def test_one_writer_at_a_time(tmp_path):
    with locked(tmp_path, wait=False), pytest.raises(OutputError, match="is in use by process"):
        ResultFiles(tmp_path, "csv")
    with ResultFiles(tmp_path, "csv"), pytest.raises(OutputError, match="is in use"):
        ResultFiles(tmp_path, "csv")
    write(tmp_path, {"scores.csv": "1"})


def unfinished(folder: Path, command: str) -> None:
    """Leave what a command leaves that is killed while it puts its files into place."""
    stage = folder / ".diva-staged"
    stage.mkdir(parents=True)
    (stage / "summary.json").write_text('{"n": 2}')
    note = {"command": command, "names": ["scores.csv", "summary.json"], "stale": []}
    (stage / "commit.json").write_text(json.dumps(note))


def test_what_a_kill_left_half_in_place_is_refused_until_it_is_made_anew(tmp_path):
    write(tmp_path, {"scores.csv": "1", "summary.json": "1"})
    (tmp_path / "scores.csv").write_text("2")
    unfinished(tmp_path, "score")
    for options in ({"command": "prune"}, {"command": "score", "overwrite": True}):
        with pytest.raises(DataError, match="may hold files of two runs") as caught:
            write(tmp_path, {"kept.csv": "3"}, **options)
        assert f"remove {tmp_path / '.diva-staged'}, then run the command" in str(caught.value)
    shutil.rmtree(tmp_path / ".diva-staged")
    write(tmp_path, {"scores.csv": "3", "summary.json": "3"}, overwrite=True)
    assert names_in(tmp_path) == {"scores.csv", "summary.json", RUN_FILE}
    assert (tmp_path / "summary.json").read_text() == "3"


def test_readers_of_results_refuse_files_of_two_runs_and_change_nothing(tmp_path):
    write(tmp_path, {"summary.json": '{"n": 1}'})
    unfinished(tmp_path, "score")
    before = names_in(tmp_path)
    with pytest.raises(DataError, match="may hold files of two runs"):
        read_results(tmp_path)
    with pytest.raises(DataError, match="may hold files of two runs"):
        read_manifest(str(tmp_path / "summary.json"))
    assert names_in(tmp_path) == before
    assert (tmp_path / "summary.json").read_text() == '{"n": 1}'


@pytest.mark.parametrize("told", [{}, {"bytes": 8, "sha256": "0" * 64}, "text", None])
def test_a_forged_record_removes_no_file_that_diva_did_not_write(tmp_path, told):
    """A stranger's archive may bring a record into a folder that holds files of the user."""
    write(tmp_path, {"scores.csv": "1", "harm.csv": "1"})
    (tmp_path / "thesis.docx").write_text("precious")
    record = json.loads((tmp_path / RUN_FILE).read_text())
    record["runs"][0]["outputs"]["thesis.docx"] = told
    (tmp_path / RUN_FILE).write_text(json.dumps(record))
    with ResultFiles(tmp_path, "csv", ("scores",), command="score", overwrite=True) as target:
        target.text("scores.csv", "2")
        target.finish()
    assert names_in(tmp_path) == {"scores.csv", "thesis.docx", RUN_FILE}
    assert target.outdated == ["thesis.docx"]


def test_the_record_says_what_was_made_of_what(tmp_path):
    read = manifest_of(ROWS, tmp_path, name="photos.csv")
    url = "https://me:password@host/photos.csv?X-Amz-Signature=secret"
    run = Run("score", {"data": url, "ridge": 0.5, "by": ["class"]})
    run.read(url, read)
    run.embedded(read, "f1", {"model": "net"})
    with running(run), ResultFiles(tmp_path / "out", "csv") as target:
        target.table("scores", ROWS, tmp_path, part=True)
        target.finish(read=[read])
    text = (tmp_path / "out" / RUN_FILE).read_text()
    assert "password" not in text
    assert "secret" not in text
    [content] = json.loads(text)["runs"]
    assert content["options"] == {"data": "https://host/photos.csv", "ridge": 0.5, "by": ["class"]}
    assert content["samples"] == {"read": 3, "scores": 3}
    [given] = content["inputs"]
    assert given["samples"] == 3
    assert given["features"] == {"fingerprint": "f1", "identity": {"model": "net"}}
    assert content["outputs"]["scores.csv"]["bytes"] == (tmp_path / "out/scores.csv").stat().st_size
    assert "pandas" in content["versions"]


def test_the_fingerprint_of_an_input_is_that_of_its_rows(tmp_path):
    def fingerprint(table: pd.DataFrame, name: str) -> str:
        run = Run("score")
        run.read("data", manifest_of(table, tmp_path))
        with running(run):
            write(tmp_path / name, {"scores.csv": "1"})
        return json.loads((tmp_path / name / RUN_FILE).read_text())["runs"][0]["inputs"][0]["fingerprint"]

    first = fingerprint(ROWS, "1")
    assert fingerprint(ROWS.copy(), "2") == first
    assert fingerprint(ROWS.assign(label=["a", "b", "b"]), "3") != first
    assert fingerprint(ROWS.iloc[[1, 0, 2]], "4") != first
    # A boundary that moves from one cell to the next is a difference.
    assert fingerprint(ROWS.assign(path=["1.pn", "2.png", "3.png"], label=["ga", "b", "a"]), "5") != first


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda table: table.iloc[1:], "1 are lost .*1.png"),
        (lambda table: pd.concat([table, table.iloc[:1]]), "1 are too many .*1.png"),
        (lambda table: table.assign(label=["b", "a", "a"]), "2 are lost"),
        (
            lambda table: table.assign(path=["x.png", "2.png", "3.png"]),
            "1 are lost .*1.png.* 1 are too many .*x.png",
        ),
    ],
)
def test_samples_are_accounted_for(tmp_path, change, said):
    read = manifest_of(ROWS, tmp_path)
    with pytest.raises(DivaError, match=said):
        write_part(tmp_path / "out", change(ROWS), tmp_path, read)
    assert not (tmp_path / "out").exists()


def test_samples_are_known_by_their_file_in_whichever_folder(tmp_path):
    (tmp_path / "photos").mkdir()
    read = manifest_of(ROWS, tmp_path / "photos")
    with ResultFiles(tmp_path / "a/b", "csv") as target:
        target.table("kept", ROWS.iloc[:1], tmp_path / "photos", part=True)
        absolute = ROWS.iloc[1:].assign(
            path=[str(tmp_path / "photos/x/.." / name) for name in ("2.png", "3.png")]
        )
        target.table("dropped", absolute, tmp_path, part=True)
        target.finish([read])
    assert names_in(tmp_path / "a/b") == {"kept.csv", "dropped.csv", RUN_FILE}


def test_labels_may_change_where_that_is_the_work(tmp_path):
    read = manifest_of(ROWS, tmp_path)
    with ResultFiles(tmp_path / "out", "csv") as target:
        changed = ROWS.assign(label=["b", "a", "a"])
        target.table("relabelled", changed, tmp_path, part=True, relabelled=True)
        target.finish([read])


def test_names_in_two_files_of_embeddings_are_two_samples(tmp_path):
    rows = pd.DataFrame({"path": ["0", "1"], "label": ["a", "b"], "feature_source": "one.npz"})
    read = manifest_of(rows, tmp_path)
    with pytest.raises(DivaError, match="2 are lost"):
        write_part(tmp_path / "out", rows.assign(feature_source="other.npz"), tmp_path, read)
    write_part(tmp_path / "out", rows, tmp_path, read)


def test_a_path_that_climbs_out_of_a_link_stays_the_file_that_it_is(tmp_path):
    """`link/../x.png` lies beside what the link leads to, not beside the link."""
    (tmp_path / "real/sub").mkdir(parents=True)
    (tmp_path / "table").mkdir()
    (tmp_path / "table/link").symlink_to(tmp_path / "real/sub")
    for place in ("real/1.png", "table/1.png", "table/2.png"):
        (tmp_path / place).write_text(place)
    rows = pd.DataFrame({"path": ["link/../1.png", "2.png"], "label": ["a", "b"]})
    read = manifest_of(rows, tmp_path / "table")
    write_part(tmp_path / "out", rows, tmp_path / "table", read)
    written = manifest_of(pd.read_csv(tmp_path / "out/kept.csv"), tmp_path / "out")
    assert [Path(file).read_text() for file in written.files()] == ["real/1.png", "table/2.png"]
    wrong = rows.assign(path=["1.png", "2.png"])
    with pytest.raises(DivaError, match="1 are lost"):
        write_part(tmp_path / "wrong", wrong, tmp_path / "table", read)
