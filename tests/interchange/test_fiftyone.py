"""FiftyOne: the fields, and the script that takes them there and brings decisions back.

The script runs against FiftyOne where that is installed with its database. Elsewhere it runs against a
stand-in for the part of its API that the script uses, which shows that script and table agree, and that
decisions come out, but not that FiftyOne works so.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from pathlib import Path

import pandas as pd
import pytest

from divacli.curate.wrong_labels import mislabelled
from divacli.errors import DataError
from divacli.interchange.fiftyone import SCRIPT, fields_of, script
from divacli.interchange.read import read_decisions
from divacli.interchange.read_scores import read_scores
from divacli.manifest import manifest_of, relocate, write_table
from divacli.review.apply import apply


class Classification:
    """Stands in for `fiftyone.Classification`."""

    def __init__(self, label=None, confidence=None):
        self.label = label
        self.confidence = confidence


class Sample:
    """Stands in for `fiftyone.Sample`."""

    def __init__(self, filepath, tags=None):
        self.fields = {"filepath": filepath, "tags": list(tags or [])}


class Dataset:
    """Stands in for `fiftyone.Dataset`, and for views of one."""

    there: dict[str, Dataset] = {}  # noqa: RUF012  # one for all, as a database is

    def __init__(self, name, persistent=False, samples=None):
        self.samples = [] if samples is None else samples
        if samples is None:
            self.there[name] = self

    def add_samples(self, samples):
        self.samples += samples

    def has_sample_field(self, path):
        return any(path in sample.fields for sample in self.samples)

    def values(self, path):
        name, _, attribute = path.partition(".")
        found = [sample.fields.get(name) for sample in self.samples]
        return [getattr(value, attribute, None) for value in found] if attribute else found

    def set_values(self, field_name, values, key_field):
        keys = {sample.fields[key_field]: sample for sample in self.samples}
        name, _, attribute = field_name.partition(".")
        for key, value in values.items():
            if attribute:
                setattr(keys[key].fields[name], attribute, value)
            else:
                keys[key].fields[name] = value

    def select_by(self, field, values):
        return Dataset("", samples=[sample for sample in self.samples if sample.fields[field] in set(values)])

    def tag_samples(self, tags):
        tags = [tags] if isinstance(tags, str) else tags
        for sample in self.samples:
            sample.fields["tags"] = sorted({*sample.fields["tags"], *tags})

    def untag_samples(self, tags):
        tags = [tags] if isinstance(tags, str) else tags
        for sample in self.samples:
            sample.fields["tags"] = [tag for tag in sample.fields["tags"] if tag not in tags]


def stand_in() -> types.ModuleType:
    module = types.ModuleType("fiftyone")
    module.Classification, module.Sample, module.Dataset = Classification, Sample, Dataset
    module.dataset_exists = lambda name: name in Dataset.there
    module.load_dataset = lambda name: Dataset.there[name]
    return module


@pytest.fixture
def fiftyone(monkeypatch):
    """FiftyOne, or what stands in for it."""
    try:
        import fiftyone

        for name in fiftyone.list_datasets():
            if name.startswith("diva-test"):
                fiftyone.delete_dataset(name)
    except Exception:  # noqa: BLE001  # not there, or without its database
        Dataset.there.clear()
        fiftyone = stand_in()
        monkeypatch.setitem(sys.modules, "fiftyone", fiftyone)
    return fiftyone


def export(scores, folder: Path) -> None:
    """What `diva export --to fiftyone` writes."""
    write_table(relocate(fields_of(scores), scores.folder, folder), folder / "fiftyone.jsonl", "jsonl")
    (folder / SCRIPT).write_text(script())


@pytest.fixture
def exported(scores_file, tmp_path):
    """Scores that are exported, and a way to run the script that lies beside them."""
    scores = read_scores(str(scores_file))
    folder = tmp_path / "to" / "fiftyone"
    export(scores, folder)

    def run(*arguments: object) -> None:
        # From the written file, and not from the package.
        spec = importlib.util.spec_from_file_location("import_fiftyone_written", folder / SCRIPT)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        module.main(["--dataset", "diva-test", *map(str, arguments)])

    return scores, run


def by_path(dataset, field: str) -> dict:
    return dict(zip(dataset.values("filepath"), dataset.values(field), strict=True))


def test_the_fields_of_the_samples(fiftyone, exported, tmp_path, hostile):
    scores, run = exported
    run()
    dataset = fiftyone.load_dataset("diva-test")
    paths = [str(tmp_path / "photos" / name / f"{name}.png") for name in hostile]
    assert dataset.values("filepath") == paths
    assert dataset.values("ground_truth.label") == hostile
    assert dataset.values("suggested.label") == scores.table["suggested_label"].tolist()
    assert dataset.values("suggested.confidence") == pytest.approx(
        scores.table["suggested_probability"].tolist()
    )
    for name in ("derivative", "loo_loss", "mislabel_probability", "outlier_score"):
        assert dataset.values(name) == pytest.approx(scores.table[name].tolist())
    wrong = mislabelled(scores.table).tolist()
    assert ["mislabelled" in tags for tags in dataset.values("tags")] == wrong


def test_a_second_run_updates_and_keeps_what_a_person_did(fiftyone, exported, tmp_path, scores_file):
    scores, run = exported
    run()
    dataset = fiftyone.load_dataset("diva-test")
    first, second = dataset.values("filepath")[:2]
    dataset.set_values("ground_truth.label", {first: "corrected"}, key_field="filepath")
    dataset.select_by("filepath", [second]).tag_samples("drop")
    calm = manifest_of(scores.table.assign(mislabel_probability=0.0, derivative=-1.0), scores.folder)
    export(calm, tmp_path / "to" / "fiftyone")
    run()
    dataset = fiftyone.load_dataset("diva-test")
    assert len(dataset.values("filepath")) == len(scores.table)
    assert by_path(dataset, "ground_truth.label")[first] == "corrected"
    assert by_path(dataset, "tags")[second] == ["drop"]
    assert set(dataset.values("derivative")) == {-1.0}
    assert not any("mislabelled" in tags for tags in dataset.values("tags"))


def second_round(scores, folder: Path, dropped: list[int] = [], **cells: dict[int, object]):  # noqa: B006
    """Export scores anew: without some rows, and with other cells in some."""
    table = scores.table.copy()
    for column, changed in cells.items():
        for row, cell in changed.items():
            table.loc[row, column] = cell
    again = manifest_of(table.drop(index=dropped), scores.folder)
    export(again, folder)
    return again


def test_tags_that_were_carried_out_decide_nothing_in_the_second_round(
    fiftyone, exported, tmp_path, hostile, capsys
):
    scores, run = exported
    run()
    dataset = fiftyone.load_dataset("diva-test")
    paths = dataset.values("filepath")
    for tag, numbers in (("drop", [0, 1]), ("keep", [2]), ("relabel", [3, 4, 5])):
        dataset.select_by("filepath", [paths[number] for number in numbers]).tag_samples(tag)
    dataset.set_values("ground_truth.label", {paths[3]: "by hand"}, key_field="filepath")
    run("--decisions", tmp_path / "first.csv")
    first = apply(scores, read_decisions(str(tmp_path / "first.csv"), scores.classes))
    after = first.table["label"].tolist()[1:4]
    assert after == ["by hand", *scores.table["suggested_label"][4:6]]
    again = second_round(
        scores,
        tmp_path / "to" / "fiftyone",
        dropped=[0, 1],
        label=dict(zip((3, 4, 5), after, strict=True)),
        suggested_label={3: "owl", 4: "owl", 5: "owl"},
    )
    capsys.readouterr()
    run()
    assert "3 samples lost their tag" in capsys.readouterr().out
    dataset = fiftyone.load_dataset("diva-test")
    # Whatever scores say of samples is not said of those that are gone.
    for field in ("derivative", "suggested.label", "mislabel_probability"):
        assert [value is None for value in dataset.values(field)] == [True, True] + [False] * (len(paths) - 2)
    assert not any("mislabelled" in tags for tags in dataset.values("tags")[:2])
    run("--decisions", tmp_path / "second.csv")
    second = read_decisions(str(tmp_path / "second.csv"), again.classes)
    assert second.table["path"].tolist() == [paths[2]]
    assert apply(again, second).summary["n_relabelled"] == 0
    # The label in the dataset was nobody's correction, and follows: to relabel anew takes the suggestion.
    assert dataset.values("ground_truth.label")[3:6] == after
    dataset.select_by("filepath", paths[3:6]).tag_samples("relabel")
    run("--decisions", tmp_path / "third.csv")
    third = apply(again, read_decisions(str(tmp_path / "third.csv"), again.classes))
    assert third.table["label"].tolist() == [hostile[2], "owl", "owl", "owl", *hostile[6:]]


def test_a_tag_lasts_as_long_as_what_it_was_given_for(fiftyone, exported, tmp_path):
    scores, run = exported
    run()
    dataset = fiftyone.load_dataset("diva-test")
    paths = dataset.values("filepath")
    for tag, numbers in (("drop", [0]), ("keep", [1]), ("relabel", [2, 3, 4])):
        dataset.select_by("filepath", [paths[number] for number in numbers]).tag_samples(tag)
    dataset.set_values("ground_truth.label", {paths[2]: "by hand"}, key_field="filepath")
    # Not applied yet, only scored anew: every suggestion is another one but the last.
    second_round(scores, tmp_path / "to" / "fiftyone", suggested_label=dict.fromkeys(range(4), "owl"))
    run()
    run("--decisions", tmp_path / "decisions.csv")
    found = read_decisions(str(tmp_path / "decisions.csv"), scores.classes).table
    rows = zip(found["path"], found["decision"], found["label"], strict=True)
    given, suggested = scores.table["label"], scores.table["suggested_label"]
    assert list(rows) == [
        (paths[0], "drop", given[0]),
        (paths[1], "keep", given[1]),
        (paths[2], "relabel", "by hand"),
        (paths[4], "relabel", suggested[4]),
    ]


def test_a_sample_that_comes_back_has_its_tag_and_not_with_another_label(fiftyone, exported, tmp_path):
    scores, run = exported
    run()
    dataset = fiftyone.load_dataset("diva-test")
    paths = dataset.values("filepath")
    dataset.select_by("filepath", paths[:2]).tag_samples("drop")
    folder = tmp_path / "to" / "fiftyone"
    second_round(scores, folder, dropped=[0, 1])
    run()
    second_round(scores, folder, label={1: "owl"})
    run()
    run("--decisions", tmp_path / "decisions.csv")
    found = read_decisions(str(tmp_path / "decisions.csv"), scores.classes).table
    assert found["path"].tolist() == paths[:1]


def test_samples_of_others_stay_as_they_are(fiftyone, exported, tmp_path):
    _, run = exported
    dataset = fiftyone.Dataset("diva-test", persistent=True)
    dataset.add_samples([fiftyone.Sample(filepath=str(tmp_path / "other.png"), tags=["keep", "mislabelled"])])
    run()
    dataset = fiftyone.load_dataset("diva-test")
    assert by_path(dataset, "tags")[str(tmp_path / "other.png")] == ["keep", "mislabelled"]
    run("--decisions", tmp_path / "decisions.csv")
    assert "other.png" not in (tmp_path / "decisions.csv").read_text()


@pytest.mark.parametrize("name", ["decisions.csv", "decisions.jsonl"])
def test_the_round_trip(fiftyone, exported, tmp_path, hostile, name):
    scores, run = exported
    run()
    dataset = fiftyone.load_dataset("diva-test")
    paths = dataset.values("filepath")
    for tag, numbers in (("drop", [0]), ("keep", [1]), ("relabel", range(2, len(paths)))):
        dataset.select_by("filepath", [paths[number] for number in numbers]).tag_samples(tag)
    # One is corrected by hand, the others get what was suggested.
    dataset.set_values("ground_truth.label", {paths[2]: "=by hand"}, key_field="filepath")
    run("--decisions", tmp_path / name)
    result = apply(scores, read_decisions(str(tmp_path / name), scores.classes))
    assert result.removed["label"].tolist() == hostile[:1]
    suggested = scores.table["suggested_label"].tolist()
    assert result.table["label"].tolist() == [hostile[1], "=by hand", *suggested[3:]]
    assert result.table["given_label"].tolist() == hostile[1:]
    if name.endswith("csv"):
        assert '"\'=by hand"' in (tmp_path / name).read_text(), "no formula for a spreadsheet"


def test_what_cannot_be_meant_ends_the_script(fiftyone, exported, tmp_path):
    _, run = exported
    target = tmp_path / "decisions.csv"
    with pytest.raises(SystemExit, match="no dataset diva-test: run this script without --decisions first"):
        run("--decisions", target)
    run()
    dataset = fiftyone.load_dataset("diva-test")
    first = dataset.select_by("filepath", dataset.values("filepath")[:1])
    first.tag_samples("drop")
    first.tag_samples("keep")
    with pytest.raises(SystemExit, match="has the tags keep and drop: leave one of them"):
        run("--decisions", target)
    assert not target.exists()


def test_without_fiftyone_it_says_what_to_install(exported, monkeypatch):
    monkeypatch.setitem(sys.modules, "fiftyone", None)
    with pytest.raises(SystemExit, match="pip install fiftyone"):
        exported[1]()


def test_the_script_needs_nothing_of_this_package():
    assert "divacli" not in script().replace("diva apply", "")
    assert Path(SCRIPT).name == "import_fiftyone.py"


@pytest.mark.parametrize(
    "columns", [{"path": ["0", "1"], "feature_source": "x.npz"}, {"path": ["s3://bucket/0", "s3://bucket/1"]}]
)
def test_samples_that_are_no_files(tmp_path, columns):
    table = pd.DataFrame({**columns, "label": ["a", "b"], "derivative": 0.0})
    with pytest.raises(DataError, match="the table: 2 "):
        fields_of(manifest_of(table, tmp_path))
