"""Label Studio: tasks and interface for it, and decisions from its export."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote
from xml.etree import ElementTree

import pandas as pd
import pytest

from divacli.errors import DataError
from divacli.interchange.label_studio import LOCAL_FILES, decisions_of_export, interface_of, tasks_of
from divacli.interchange.read import read_decisions
from divacli.interchange.read_scores import read_scores
from divacli.manifest import manifest_of
from divacli.review.apply import apply
from divacli.review.decisions import decisions_of


def choice(label: str, name: str = "label") -> dict:
    """What an annotator did, as Label Studio exports it."""
    result = {"from_name": name, "to_name": "image", "type": "choices", "value": {"choices": [label]}}
    return {"id": 1, "completed_by": 1, "was_cancelled": False, "result": [result], "lead_time": 3.2}


def drop() -> dict:
    return choice("drop this image", "drop")


def skipped() -> dict:
    return {**choice("cat"), "was_cancelled": True}


def export(*annotated: tuple[str, str, list[dict]]) -> bytes:
    """An export of tasks with path, given label and annotations."""
    return json.dumps(
        [
            {"id": number, "data": {"image": "x", "path": path, "given_label": given}, "annotations": made}
            for number, (path, given, made) in enumerate(annotated, start=1)
        ]
    ).encode()


def test_tasks_name_images_paths_and_labels(scores_file, tmp_path, hostile):
    scores = read_scores(str(scores_file))
    made = tasks_of(scores)
    # A source storage is to be in the document root, and not that itself.
    assert (made.root, made.storage) == (str(tmp_path), str(tmp_path / "photos"))
    assert [task["data"]["given_label"] for task in made.tasks] == hostile
    assert [task["data"]["path"] for task in made.tasks] == [
        str(tmp_path / "photos" / name / f"{name}.png") for name in hostile
    ]
    for task in made.tasks:
        assert task["data"]["image"].startswith(LOCAL_FILES)
        relative = unquote(task["data"]["image"].removeprefix(LOCAL_FILES))
        assert str(Path(made.root, relative)) == task["data"]["path"]
        assert " " not in task["data"]["image"]
    assert made.tasks[0]["data"]["derivative"] == 0.5
    assert made.tasks[0]["data"]["mislabel_probability"] == 0.9


def test_the_prediction_is_the_most_probable_label(scores_file):
    scores = read_scores(str(scores_file))
    for task, row in zip(tasks_of(scores).tasks, scores.table.to_dict("records"), strict=True):
        (prediction,) = task["predictions"]
        wrong = row["mislabel_probability"] > 0.5
        assert prediction["result"][0]["value"]["choices"] == [row["suggested_label" if wrong else "label"]]
        assert prediction["score"] == pytest.approx(0.72 if wrong else 0.9)
        assert prediction["model_version"].startswith("divacli ")


def test_where_images_are_served(scores_file, tmp_path):
    scores = read_scores(str(scores_file))
    above = tasks_of(scores, str(tmp_path.parent))
    assert above.root == str(tmp_path.parent)
    assert above.tasks[0]["data"]["image"] == f"{LOCAL_FILES}{tmp_path.name}/photos/plain/plain.png"
    inside = tasks_of(scores, None, "https://host/").tasks[0]["data"]["image"]
    assert inside == "https://host/plain/plain.png"
    served = tasks_of(scores, str(tmp_path), "https://host/files/")
    assert served.root is None
    assert served.tasks[1]["data"]["image"] == "https://host/files/photos/two%20words/two%20words.png"
    (tmp_path / "link").symlink_to(tmp_path / "photos")
    assert tasks_of(scores, str(tmp_path / "link")).root == str(tmp_path / "photos")
    with pytest.raises(DataError, match="13 images lie outside of --image-root"):
        tasks_of(scores, str(tmp_path / "scored"))


def test_images_at_urls_keep_them(tmp_path):
    table = pd.DataFrame(
        {"path": ["https://host/a b.png", "s3://bucket/b.png"], "label": ["a", "b"], "derivative": [1.0, 0.5]}
    )
    made = tasks_of(manifest_of(table, tmp_path))
    assert [task["data"]["image"] for task in made.tasks] == table["path"].tolist()
    assert (made.root, made.tasks[0]["predictions"]) == (None, [])


def test_rows_of_an_npz_are_no_tasks(tmp_path):
    table = pd.DataFrame(
        {"path": ["0", "1"], "label": ["a", "b"], "feature_source": "x.npz", "derivative": 0.0}
    )
    with pytest.raises(DataError, match=r"2 samples are rows of an \.npz file"):
        tasks_of(manifest_of(table, tmp_path))


def test_the_interface_offers_every_class_as_it_is(hostile):
    view = ElementTree.fromstring(interface_of(hostile))
    choices = {found.get("name"): [one.get("value") for one in found] for found in view.iter("Choices")}
    assert choices == {"label": hostile, "drop": ["drop this image"]}
    assert view.find("Image").get("value") == "$image"
    with pytest.raises(DataError, match="control characters"):
        interface_of(["cat", "bell\x07"])


def test_the_interface_and_the_tasks_are_what_label_studio_takes(scores_file):
    sdk = pytest.importorskip("label_studio_sdk.label_interface", reason="label-studio-sdk is not installed")
    scores = read_scores(str(scores_file))
    interface = sdk.LabelInterface(interface_of(scores.classes))
    interface.validate()
    assert all(interface.validate_prediction(task["predictions"][0]) for task in tasks_of(scores).tasks)
    assert interface.validate_annotation(drop())
    assert not interface.validate_annotation(choice("something else"))


def test_the_round_trip(scores_file, tmp_path, hostile):
    """Tasks as they are exported once a person has worked on them: every prediction accepted, one dropped."""
    scores = read_scores(str(scores_file))
    tasks = tasks_of(scores).tasks
    for number, task in enumerate(tasks):
        chosen = task["predictions"][0]["result"][0]["value"]["choices"][0]
        task["annotations"] = [drop() if number == 5 else choice(chosen)]
    place = tmp_path / "downloads" / "project-1.json"
    place.parent.mkdir()
    place.write_text(json.dumps(tasks))
    result = apply(scores, read_decisions(str(place), scores.classes))
    assert result.removed["label"].tolist() == [hostile[5]]
    wrong = (scores.table["mislabel_probability"] > 0.5).tolist()
    suggested = scores.table["suggested_label"].tolist()
    expected = [other if bad else label for label, other, bad in zip(hostile, suggested, wrong, strict=True)]
    assert result.table["label"].tolist() == expected[:5] + expected[6:]
    assert result.summary["n_undecided"] == 0


def test_what_annotators_decide(tmp_path):
    content = export(
        ("/0.png", "cat", [choice("cat")]),
        ("/1.png", "cat", [choice("dog")]),
        ("/2.png", "cat", [drop()]),
        ("/3.png", "cat", [skipped()]),
        ("/4.png", "cat", []),
        ("/5.png", "cat", [choice("dog"), choice("dog"), skipped()]),
        ("/6.png", "cat", [{**drop(), "result": [*drop()["result"], *choice("dog")["result"]]}]),
        ("/7.png", "cat", [{"result": []}]),
        ("/8.png", "cat", [choice("drop this image")]),
        # Other parts of an interface that somebody has extended.
        ("/9.png", "cat", [{"result": [{"type": "relation"}, {"from_name": "x", "value": {"text": ["y"]}}]}]),
    )
    table, warnings = decisions_of_export(content, "export.json")
    assert warnings == []
    assert list(table.itertuples(index=False, name=None)) == [
        ("/0.png", "keep", "cat", "cat"),
        ("/1.png", "relabel", "dog", "cat"),
        ("/2.png", "drop", "cat", "cat"),
        ("/5.png", "relabel", "dog", "cat"),
        ("/6.png", "drop", "cat", "cat"),
        # A class may be called so: what counts is where it was chosen.
        ("/8.png", "relabel", "drop this image", "cat"),
    ]


def test_who_disagrees_is_said():
    both = {**choice("cat"), "result": [{**choice("x")["result"][0], "value": {"choices": ["cat", "dog"]}}]}
    content = export(
        ("/0.png", "cat", [choice("cat"), choice("dog")]),
        ("/1.png", "cat", [drop(), choice("dog")]),
        ("/2.png", "cat", [both]),
        ("/3.png", "cat", [choice("dog")]),
    )
    table, warnings = decisions_of_export(content, "export.json")
    assert table["path"].tolist() == ["/3.png"]
    assert warnings == [
        "export.json: 2 samples stay undecided, for annotators disagree: /0.png, /1.png",
        "export.json: 1 samples stay undecided, for several classes were chosen: /2.png",
    ]


def test_a_sample_in_two_tasks_is_one():
    content = export(("/0.png", "cat", [choice("dog")]), ("/0.png", "cat", [choice("eel")]))
    table, warnings = decisions_of_export(content, "export.json")
    assert table.empty
    assert "annotators disagree: /0.png" in warnings[0]


def test_nothing_annotated_is_no_decision(tmp_path):
    raw, warnings = decisions_of_export(export(("/0.png", "cat", [])), "export.json")
    assert decisions_of(raw, "export.json", tmp_path, warnings).table.empty


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[", "not valid JSON"),
        (b"{}", "no export of Label Studio"),
        (b'[{"image": "x", "choice": "cat"}]', "no export of Label Studio"),
        (b'[{"data": {"image": "x"}, "annotations": []}]', "task [?] has no path in its data"),
        (b'[{"id": 7, "data": {"path": 1}, "annotations": []}]', "task 7 has no path in its data"),
        *(
            (
                b'[{"id": 7, "data": {"path": "/0.png"}, "annotations": [{"result": %s}]}]' % result,
                "task 7 has an annotation that is not as Label Studio writes it",
            )
            for result in (
                b'"x"',
                b"{}",
                b'["x"]',
                b'[{"from_name": "label", "value": ["cat"]}]',
                b'[{"from_name": "label", "value": []}]',
                b'[{"from_name": "label", "value": {"choices": "dog"}}]',
                b'[{"from_name": "label", "value": {"choices": [3]}}]',
                b'[{"from_name": "drop", "value": {"choices": true}}]',
            )
        ),
    ],
)
def test_what_is_no_export(content, message):
    with pytest.raises(DataError, match=message):
        decisions_of_export(content, "export.json")
