"""Parse a `.json` file: one in the format of COCO with one category an image, or an array of samples.

Source of the format: cocodataset.org/#format-data. An image may have many annotations there, each with a
category; images to be classified have one, or several that agree.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pandas as pd

from divacli.errors import DataError, listed
from divacli.manifest.column_types import stepped_aside
from divacli.manifest.columns import ID
from divacli.manifest.tabular import decoded_text, records_table, unambiguous

_EXPECTED = (
    "a file in the format of COCO, with images, annotations and categories, or an array of objects such as "
    '[{"path": "cat/1.jpg", "label": "cat"}]'
)
_KEYS = ("images", "annotations", "categories")


def parse_json(data: bytes, name: str, *, labels_required: bool = True) -> tuple[pd.DataFrame, list[str]]:
    """Read a table of samples from JSON.

    Args:
        data: The whole file.
        name: How messages call it.
        labels_required: Whether images must have labels: those without an annotation are left out then.

    Returns:
        The table and the warnings. Of COCO its columns are path (the `file_name`), label (the name of the
        category), id (text) and every other key of an image with a single value; of an array, its keys.

    Raises:
        DataError: No JSON, or none of these; entries without what they need; images of several categories.
    """
    text = decoded_text(data, name)
    try:
        found = json.loads(text, object_pairs_hook=unambiguous)
        if "\\u" in text:
            json.dumps(found, ensure_ascii=False).encode()  # half a surrogate pair is no text: refuse it here
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not valid JSON: {error}", expected=_EXPECTED) from error
    if isinstance(found, list):
        return records_table(_objects(found, name, "its array"), len(data), name), []
    if isinstance(found, dict) and isinstance(found.get("images"), list):
        return _parse_coco(found, len(data), name, labels_required)
    keys = f" with the keys {listed([*found], limit=8) or '(none)'}" if isinstance(found, dict) else ""
    kind = {dict: "an object", str: "a text", bool: "a truth value", type(None): "null"}
    raise DataError(f"{name} holds {kind.get(type(found), 'a number')}{keys}", expected=_EXPECTED)


def _parse_coco(
    found: Mapping[str, object], held: int, name: str, labels_required: bool
) -> tuple[pd.DataFrame, list[str]]:
    images, annotations, categories = (
        _objects(found.get(key, []), f"{name}: {key}", f"the array {key}") for key in _KEYS
    )
    ids = _ids(images, f"{name}: images")
    files = [image.get("file_name") for image in images]
    unnamed = [number for number, file in enumerate(files) if not isinstance(file, str) or not file]
    if not images or unnamed:
        raise DataError(
            f"{name}: images[{unnamed[0]}] has no file_name" if unnamed else f"{name} has no images",
            expected='images such as {"id": 1, "file_name": "cat/1.jpg"}',
        )
    labels, astray = _labels(annotations, categories, set(ids), name)
    _refuse_several(dict(zip(ids, files, strict=True)), labels, name)
    entries = []
    nested: dict[str, None] = {}
    for number, image in zip(ids, images, strict=True):
        nested |= dict.fromkeys(key for key, value in image.items() if isinstance(value, (list, dict)))
        if number in labels or not labels_required:
            entries.append({**image, ID: number})
    if not entries:
        raise DataError(
            f"{name}: none of {len(images):,} images has an annotation",
            expected='annotations such as {"image_id": 1, "category_id": 1}',
        )
    table = records_table(entries, held, name).drop(columns=list(nested), errors="ignore")
    for column in ("path", "label"):
        table = stepped_aside(table, column)
    table = table.rename(columns={"file_name": "path"})
    given = [next(iter(labels.get(str(number), {"": None}))) for number in table[ID]]
    table.insert(0, "label", pd.Series(given, dtype=object))
    warnings = []
    if left := len(images) - len(entries):
        warnings.append(f"{name}: {left:,} of {len(images):,} images have no annotation, and are left out.")
    if astray:
        warnings.append(f"{name}: {astray:,} annotations of images that it does not list are not used.")
    if nested:
        warnings.append(
            f"{name}: keys of images not kept, for they hold no single values: {listed(list(nested))}."
        )
    return table, warnings


def _labels(
    annotations: Sequence[Mapping[str, object]],
    categories: Sequence[Mapping[str, object]],
    images: set[str],
    name: str,
) -> tuple[dict[str, dict[str, None]], int]:
    """The different labels of each image, by its id, and how many annotations are of no image."""
    names = dict(zip(_ids(categories, f"{name}: categories"), categories, strict=True))
    labels: dict[str, dict[str, None]] = {}
    numbers: dict[str, str] = {}
    astray = 0
    for position, annotation in enumerate(annotations):
        image, number = (_id(annotation.get(key)) for key in ("image_id", "category_id"))
        label = names.get(number or "", {}).get("name")
        if not isinstance(label, str) or not label.strip():
            raise DataError(
                f"{name}: annotations[{position}] is of category {number}, which has no name",
                expected='categories such as {"id": 1, "name": "cat"}',
            )
        if numbers.setdefault(label, number or "") != number:
            raise DataError(
                f"{name}: two categories are called {label}: {numbers[label]} and {number}",
                expected="different names of categories",
            )
        if image not in images:
            astray += 1
        else:
            labels.setdefault(image, {})[label] = None
    return labels, astray


def _refuse_several(files: Mapping[str, object], labels: Mapping[str, Mapping[str, None]], name: str) -> None:
    several = [number for number, found in labels.items() if len(found) > 1]
    if several:
        first = several[0]
        raise DataError(
            f"{name}: {len(several):,} of {len(files):,} images have annotations of several categories, the "
            f"first: {files[first]} ({listed(list(labels[first]))})",
            expected="one category for each image: a classifier gives one label",
            hint="crop every annotated object to an image of its own, or leave these images out",
        )


def _objects(found: object, where: str, what: str) -> list[dict[str, object]]:
    """An array whose entries are all objects."""
    if not isinstance(found, list):
        raise DataError(f"{where} is a JSON {type(found).__name__}", expected="an array of objects")
    for position, entry in enumerate(found):
        if not isinstance(entry, dict):
            raise DataError(
                f"{where}: entry {position} of {what} is a JSON {type(entry).__name__}", expected=_EXPECTED
            )
    return found


def _ids(entries: Sequence[Mapping[str, object]], where: str) -> list[str]:
    """The id of each entry as text, all different."""
    ids = []
    seen: set[str] = set()
    for position, entry in enumerate(entries):
        number = _id(entry.get("id"))
        if number is None or number in seen:
            got = "has no id" if number is None else f"has the id {number} of one before it"
            raise DataError(f"{where}[{position}] {got}", expected="an id for each, all different")
        seen.add(number)
        ids.append(number)
    return ids


def _id(value: object) -> str | None:
    """An id as text, for files that write it now as a number and now as a text; None where it is none."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else None
