"""Label Studio: tasks to import there, the labelling interface for them, and its JSON export."""

from __future__ import annotations

import json
import os
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

import pandas as pd

from divacli.errors import DataError, listed
from divacli.files.urls import is_url
from divacli.interchange.read_scores import column, require_images
from divacli.manifest import Manifest
from divacli.results.write import ResultFiles
from divacli.review.decisions import DECISION_COLUMNS, DROP, KEEP, RELABEL
from divacli.version import __version__

FILES = TASKS, INTERFACE = "tasks.json", "labeling_config.xml"
"""What is written for Label Studio."""

LOCAL_FILES = "/data/local-files/?d="
"""Where Label Studio serves files below its document root."""

_LABEL, _DROP, _IMAGE = "label", "drop", "image"
_DROP_CHOICE = "drop this image"
_FEW = 12  # classes that are shown side by side and not in a list to choose from


@dataclass(frozen=True)
class Tasks:
    """What Label Studio imports.

    Attributes:
        tasks: One a sample.
        root: The folder that its document root has to be; None where the images have URLs.
        storage: The folder in it that holds all images, for a source storage: Label Studio serves only files
            in one, and takes none that is the document root itself.
    """

    tasks: list[dict[str, Any]]
    root: str | None
    storage: str | None


def tasks_of(scores: Manifest, image_root: str | None = None, url_prefix: str | None = None) -> Tasks:
    """A task for each sample, in the order of the table.

    Args:
        scores: The samples with scores.
        image_root: Folder that names of images start from; default the one that they have in common, for
            Label Studio's local files the folder above it.
        url_prefix: Where somebody serves that folder; None for Label Studio's own local files.

    Raises:
        DataError: A sample is no image file, or lies outside of `image_root`.
    """
    require_images(scores, at_urls=True)
    table = scores.table
    files = [file if is_url(file) else posixpath.normpath(file) for file in scores.files()]
    local = [file for file in files if not is_url(file)]
    common = os.path.commonpath([posixpath.dirname(file) for file in local]) if local else None
    root = common if url_prefix is not None or common is None else posixpath.dirname(common)
    if image_root is not None:
        root = _root(local, image_root)
    prefix = LOCAL_FILES if url_prefix is None else url_prefix
    tasks = []
    for file, row in zip(files, _rows(table), strict=True):
        image = file if is_url(file) else prefix + quote(posixpath.relpath(file, root))
        about: dict[str, Any] = {"image": image, "path": file, **row}
        tasks.append({"data": about, "predictions": _predictions(row)})
    return Tasks(tasks, root, common) if url_prefix is None and local else Tasks(tasks, None, None)


def interface_of(classes: list[str]) -> str:
    """The labelling interface (XML): the image, the given label, a choice of a class, and one to drop it.

    Args:
        classes: All labels there are.

    Raises:
        DataError: A label has characters that XML cannot hold.
    """
    wrong = [label for label in classes if not all(map(_in_xml, label))]
    if wrong:
        raise DataError(
            f"labels with control characters: {listed([repr(label) for label in wrong])}",
            expected="labels that an XML file can hold",
            hint="give these classes other names",
        )
    layout = "inline" if len(classes) <= _FEW else "select"
    choices = "\n".join(f"    <Choice value={_attribute(label)}/>" for label in classes)
    return f"""<View>
  <Image name="{_IMAGE}" value="$image" zoom="true"/>
  <Header value="given label" size="5"/>
  <Text name="given" value="$given_label"/>
  <Choices name="{_LABEL}" toName="{_IMAGE}" choice="single" layout="{layout}">
{choices}
  </Choices>
  <Choices name="{_DROP}" toName="{_IMAGE}" choice="single">
    <Choice value="{_DROP_CHOICE}"/>
  </Choices>
</View>
"""


def write_tasks(
    target: ResultFiles, scores: Manifest, classes: list[str], image_root: str | None, url_prefix: str | None
) -> Tasks:
    """Write tasks and interface; its arguments and errors are those of `tasks_of` and `interface_of`."""
    made = tasks_of(scores, image_root, url_prefix)
    interface = interface_of(classes)
    target.text(TASKS, json.dumps(made.tasks, indent=1, ensure_ascii=False, allow_nan=False) + "\n")
    target.text(INTERFACE, interface)
    return made


def decisions_of_export(content: bytes, name: str) -> tuple[pd.DataFrame, list[str]]:
    """The decisions in Label Studio's JSON export.

    A chosen class is a decision to relabel, or to keep where it is the given label; the choice `drop` is one
    to drop, whatever class was chosen too. Skipped tasks are undecided, and so are those about which
    annotators disagree, or where several classes were chosen.

    Args:
        content: The file.
        name: How messages call it.

    Returns:
        Columns path, decision, label and given_label, for `divacli.review.decisions.decisions_of`, and
        warnings.

    Raises:
        DataError: It is no such export, its tasks lack `data.path`, or an annotation is damaged.
    """
    verdicts: dict[str, set[tuple[str, ...]]] = {}
    given: dict[str, str] = {}
    for task, path, label, judged in _tasks(content, name):
        given[path] = label
        found = verdicts.setdefault(path, set())
        for annotation in judged:
            verdict = _verdict(annotation, task)
            if verdict:
                found.add(verdict)
    rows, differ, many = [], [], []
    for path, found in verdicts.items():
        if len(found) > 1:
            differ.append(path)
        elif found:
            (chosen,) = found
            if len(chosen) > 2:
                many.append(path)
            else:
                label = chosen[-1] if chosen[0] == RELABEL else given[path]
                action = KEEP if chosen == (RELABEL, given[path]) else chosen[0]
                rows.append((path, action, label, given[path]))
    warnings = [
        f"{name}: {len(paths):,} samples stay undecided, for {reason}: {listed(paths)}"
        for paths, reason in ((differ, "annotators disagree"), (many, "several classes were chosen"))
        if paths
    ]
    return pd.DataFrame(rows, columns=list(DECISION_COLUMNS), dtype="str"), warnings


def _root(files: list[str], image_root: str) -> str:
    """The folder that names of images start from, by the way to it that the names take."""
    roots = [os.path.abspath(image_root), os.path.realpath(image_root)]  # noqa: PTH100
    outside: list[str] = []
    for root in roots:
        outside = [file for file in files if os.path.commonpath([root, file]) != root]
        if not outside:
            return root
    raise DataError(
        f"{len(outside):,} images lie outside of --image-root {image_root}: {listed(outside)}",
        expected="a folder that all images lie in",
        hint="leave it out for the one they have in common",
    )


def _rows(table: pd.DataFrame) -> Iterator[dict[str, Any]]:
    """What a task says of its sample."""
    columns = {
        "given_label": table["label"],
        "suggested_label": column(table, "suggested_label"),
        "suggested_probability": column(table, "suggested_probability"),
        "derivative": table["derivative"],
        "mislabel_probability": column(table, "mislabel_probability"),
    }
    for cells in zip(*columns.values(), strict=True):
        named = zip(columns, cells, strict=True)
        yield {name: _number(cell) for name, cell in named if not pd.isna(cell) and cell != ""}


def _number(cell: Any) -> Any:
    """As the tables have it: nine significant digits."""
    return float(f"{cell:.9g}") if isinstance(cell, float) else cell


def _predictions(row: dict[str, Any]) -> list[dict[str, Any]]:
    """The most probable label with its probability, for whoever lets predictions be filled in beforehand."""
    if not {"suggested_label", "suggested_probability", "mislabel_probability"} <= set(row):
        return []
    label, probability = row["given_label"], 1 - row["mislabel_probability"]
    if row["suggested_probability"] > probability:
        label, probability = row["suggested_label"], row["suggested_probability"]
    choice = {"from_name": _LABEL, "to_name": _IMAGE, "type": "choices", "value": {"choices": [label]}}
    return [
        {
            "model_version": f"divacli {__version__}",
            "score": _number(probability),
            "result": [choice],
        }
    ]


def _attribute(label: str) -> str:
    return quoteattr(label, {"\n": "&#10;", "\r": "&#13;", "\t": "&#9;"})


def _in_xml(character: str) -> bool:
    """Whether XML 1.0 has a way to write a character."""
    code = ord(character)
    return character in "\t\n\r" or (
        code >= 0x20 and not 0xD800 <= code < 0xE000 and code not in (0xFFFE, 0xFFFF)
    )


def _tasks(content: bytes, name: str) -> Iterator[tuple[str, str, str, list[dict[str, Any]]]]:
    """What messages call it, path, given label and annotations of each task."""
    try:
        tasks = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{name} is not valid JSON: {error}", expected="Label Studio's export") from error
    whole = isinstance(tasks, list) and all(
        isinstance(task, dict)
        and isinstance(task.get("data"), dict)
        and isinstance(task.get("annotations"), list)
        and all(isinstance(annotation, dict) for annotation in task["annotations"])
        for task in tasks
    )
    if not whole:
        raise DataError(
            f"{name} is no export of Label Studio with tasks and their annotations",
            expected='a list of tasks, each with "data" and "annotations"',
            hint="in Label Studio choose Export, JSON (not JSON-MIN)",
        )
    for task in tasks:
        where = f"{name}: task {task.get('id', '?')}"
        path, label = task["data"].get("path"), task["data"].get("given_label", "")
        if not isinstance(path, str) or not isinstance(label, str):
            raise DataError(
                f"{where} has no path in its data",
                expected="tasks that diva export --to label-studio has made",
                hint='add "path" to the data of each task: the file of the image',
            )
        yield where, path, label, task["annotations"]


def _verdict(annotation: dict[str, Any], task: str) -> tuple[str, ...]:
    """What an annotation decides: an action, and the classes chosen; empty for nothing."""
    if annotation.get("was_cancelled"):
        return ()
    results = annotation.get("result", [])
    parts = [_choices(result) for result in results] if isinstance(results, list) else [None]
    chosen: set[str] = set()
    dropped = False
    for part in parts:
        if part is None:
            raise DataError(
                f"{task} has an annotation that is not as Label Studio writes it: {str(results)[:80]}",
                expected='a list such as [{"from_name": "label", "value": {"choices": ["cat"]}}]',
                hint="export the project again, or correct the task",
            )
        control, choices = part
        if control == _DROP:
            dropped = dropped or bool(choices)
        else:
            chosen.update(choices)
    if dropped:
        return (DROP,)
    return (RELABEL, *sorted(chosen)) if chosen else ()


def _choices(result: object) -> tuple[object, list[str]] | None:
    """The control that a part of an annotation is of, and what was chosen there; None where it is damaged."""
    if not isinstance(result, dict):
        return None
    value = result.get("value", {})
    choices = value.get("choices", []) if isinstance(value, dict) else None
    if not isinstance(choices, list) or not all(isinstance(choice, str) for choice in choices):
        return None
    return result.get("from_name"), choices
