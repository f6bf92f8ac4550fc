"""JSON files: of COCO with one category an image, and arrays of samples."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from divacli.errors import DataError
from divacli.manifest import Manifest, read_manifest
from divacli.manifest.coco import parse_json


def coco(n: int = 4, **changes: Any) -> dict[str, Any]:
    return {
        "info": {"year": 2026},
        "images": [{"id": 10 + k, "file_name": f"d/{k}.jpg", "width": 640, "height": 480} for k in range(n)],
        "annotations": [
            {"id": k, "image_id": 10 + k, "category_id": 1 + k % 2, "bbox": [0]} for k in range(n)
        ],
        "categories": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}, {"id": 3, "name": "unused"}],
        **changes,
    }


def read(tmp_path: Path, content: object, labels: str = "required") -> Manifest:
    (tmp_path / "x.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return read_manifest(str(tmp_path / "x.json"), labels=labels)  # type: ignore[arg-type]


def refused(tmp_path: Path, content: object, labels: str = "required") -> str:
    with pytest.raises(DataError) as caught:
        read(tmp_path, content, labels)
    return str(caught.value)


def test_images_with_their_categories(tmp_path: Path) -> None:
    content = coco()
    content["annotations"] *= 2  # as often as one likes, as long as they agree
    content["images"][1] |= {"license": 3, "path": "/data/1.jpg", "flags": [1]}
    manifest = read(tmp_path, content)
    table = manifest.table
    assert table["path"].tolist() == [f"d/{k}.jpg" for k in range(4)]
    assert table["label"].tolist() == ["cat", "dog"] * 2
    assert table["id"].tolist() == ["10", "11", "12", "13"]
    assert table["width"].tolist() == [640] * 4
    assert table["license"].tolist() == [None, 3, None, None]
    assert table["path_in_file"][1] == "/data/1.jpg"
    assert manifest.kind == "table"
    assert manifest.warnings[0].endswith("keys of images not kept, for they hold no single values: flags.")
    assert manifest.files()[0] == str(tmp_path / "d/0.jpg")


def test_ids_that_are_texts_here_and_numbers_there(tmp_path: Path) -> None:
    content = coco()
    for entry in content["annotations"]:
        entry["image_id"] = str(entry["image_id"])
        entry["category_id"] = float(entry["category_id"])
    assert read(tmp_path, content).table["label"].tolist() == ["cat", "dog"] * 2


def test_images_without_annotations(tmp_path: Path) -> None:
    content = coco(6)
    del content["annotations"][4:]
    content["annotations"].append({"image_id": 99, "category_id": 1})
    manifest = read(tmp_path, content)
    assert len(manifest.table) == 4
    assert manifest.warnings[0].endswith("2 of 6 images have no annotation, and are left out.")
    assert manifest.warnings[1].endswith("1 annotations of images that it does not list are not used.")
    assert "2 of 6 rows have no label" in refused(tmp_path, content, "optional")
    pool = read(tmp_path, coco(annotations=[]), "optional")
    assert len(pool.table) == 4
    assert not pool.labelled
    content = coco()
    del content["annotations"], content["categories"]
    assert not read(tmp_path, content, "optional").labelled
    assert "none of 4 images has an annotation" in refused(tmp_path, content)


def test_images_of_several_categories(tmp_path: Path) -> None:
    content = coco()
    content["annotations"] += [{"image_id": 11, "category_id": 1}, {"image_id": 13, "category_id": 1}]
    message = refused(tmp_path, content)
    assert "2 of 4 images have annotations of several categories, the first: d/1.jpg (dog, cat)" in message
    assert "crop" in message


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"images": [{"id": 1}]}, "images[0] has no file_name"),
        ({"images": [{"file_name": "a.jpg"}]}, "images[0] has no id"),
        (
            {"images": [{"id": 1, "file_name": "a"}, {"id": "1", "file_name": "b"}]},
            "images[1] has the id 1 of one",
        ),
        ({"images": []}, "has no images"),
        ({"images": [3]}, "entry 0 of the array images is a JSON int"),
        ({"annotations": {}}, "annotations is a JSON dict"),
        (
            {"annotations": [{"image_id": 10, "category_id": 7}]},
            "annotations[0] is of category 7, which has no",
        ),
        ({"annotations": [{"image_id": 10, "category_id": [1]}]}, "which has no name"),
        (
            {"categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}]},
            "two categories are called a: 1 and 2",
        ),
        ({"categories": [{"id": 1}, {"id": 2}]}, "annotations[0] is of category 1, which has no name"),
    ],
)
def test_entries_that_lack_what_they_need(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    assert said in refused(tmp_path, coco(**changes))


def test_an_array_of_samples(tmp_path: Path) -> None:
    rows = [
        {"path": "1.jpg", "label": "a", "n": 1},
        {"path": "2.jpg", "label": "b"},
        {"path": "3.jpg", "label": "a"},
    ]
    table = read(tmp_path, rows).table
    assert table["label"].tolist() == ["a", "b", "a"]
    assert table["n"].tolist() == [1, None, None]
    assert "path_column='file_name'" in refused(tmp_path, [{"file_name": "1.jpg", "label": "a"}])


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not valid JSON"),
        ("{", "is not valid JSON"),
        ("[" * 100_000, "is not valid JSON"),
        ('{"path": 1, "path": 2}', "the key 'path' twice"),
        ('["\\ud800"]', "is not valid JSON"),
        ("3", "holds a number, "),
        ('"text"', "holds a text"),
        ("null", "holds null"),
        ('{"a": 1, "b": 2}', "holds an object with the keys a, b"),
        ("{}", "holds an object with the keys (none)"),
        ('{"images": {}}', "holds an object with the keys images"),
        ("[1]", "entry 0 of its array is a JSON int"),
        ("[]", "no column path"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, content: str, said: str) -> None:
    message = refused(tmp_path, content)
    assert said.removesuffix(", ") in message
    assert "expected: " in message


def test_text_that_is_not_utf8() -> None:
    with pytest.raises(DataError, match="not UTF-8"):
        parse_json(b'{"a": "\xff"}', "x.json")
