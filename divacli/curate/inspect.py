"""What DATA is taken for, before anything is computed."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any

import pandas as pd

from divacli.errors import Again, DataError
from divacli.files.path_or_url import STORE_FILE
from divacli.images.survey import Survey, survey
from divacli.manifest import Labels, Manifest, check_files, read_manifest
from divacli.manifest.bounded import read_stream
from divacli.manifest.columns import FEATURE_SOURCE, GROUP
from divacli.manifest.splits import split_column
from divacli.manifest.suggest import group_column
from divacli.manifest.understood import sentence, split_counts
from divacli.progress import Progress
from divacli.reading import ALL, OPTIONS, NamedData
from divacli.results.result import Target

CLASSES = "classes"
"""The table of classes."""

INSPECTION = "inspect"
"""The file with everything else."""

FILES = (CLASSES, f"{INSPECTION}.json")
"""What is always written."""

_TINY = 5
"""A class of fewer samples is said to be tiny."""


@dataclass(frozen=True)
class Refusal:
    """What other commands refuse, and the options that settle it.

    Attributes:
        got: What was found.
        expected: What would have been right.
        options: Names and values of options that settle it.
        data: DATA that is to be given with them; "" where no option settles it.
    """

    got: str
    expected: str
    options: dict[str, Any]
    data: str


@dataclass(frozen=True)
class Inspection:
    """What DATA is taken for.

    Attributes:
        manifest: The samples, read with the options that `refusals` name; all splits.
        refusals: What other commands refuse without these options.
        images: What a sample of the images looks like; None where there are no images.
        missing: Why some images are not there, in one line; "" where all are.
    """

    manifest: Manifest
    refusals: tuple[Refusal, ...]
    images: Survey | None
    missing: str = ""

    @property
    def summary(self) -> dict[str, Any]:
        """What `inspect.json` holds."""
        manifest = self.manifest
        splits = split_counts(manifest)
        left_out = [
            {"reason": reason, "suffix": suffix, "n": n} for (reason, suffix), n in manifest.left_out.items()
        ]
        return {
            "data": manifest.given or manifest.name,
            "kind": manifest.kind,
            "understood": sentence(manifest),
            "n_samples": len(manifest.table),
            "n_classes": len(manifest.classes),
            "classes": {label: int(n) for label, n in self.classes.set_index("label")["samples"].items()},
            "splits": splits or None,
            "columns": self.columns,
            "other_columns": list(manifest.unused),
            "settled_by": [asdict(refusal) for refusal in self.refusals],
            "images": None if self.images is None else {**_images(self.images), "range": self.range},
            "missing": self.missing,
            "left_out": left_out,
            "not_listed": manifest.n_unlisted,
            "odd": self.odd,
        }

    @property
    def range(self) -> str:
        """The values that are black and white in images of more than 8 bits, in a sentence; "" for none."""
        given = self.manifest.pixel_range
        if isinstance(given, tuple):
            return f"of images of more than 8 bits, {given[0]:g} is black and {given[1]:g} white, as given"
        return "" if self.images is None else self.images.pixels.sentence

    @property
    def table(self) -> pd.DataFrame:
        """The classes."""
        return self.classes

    @property
    def classes(self) -> pd.DataFrame:
        """One row a class: label, samples, and a column for each split."""
        table = self.manifest.table
        counts = table["label"].value_counts()
        rows = pd.DataFrame({"label": self.manifest.classes or [""]})
        rows["samples"] = rows["label"].map(counts).astype("int64")
        column = self.manifest.roles.get("split", "split")
        for split in split_counts(self.manifest):
            here = table["label"][table[column].map(str) == split].value_counts()
            rows[split if split not in rows else f"split {split}"] = (
                rows["label"].map(here).fillna(0).astype("int64")
            )
        return rows

    @property
    def columns(self) -> dict[str, str | None]:
        """The column, or what stands for it, of path, label, weight, group and split."""
        manifest, roles = self.manifest, self.manifest.roles
        if manifest.kind == "folder":
            found: dict[str, str | None] = {"path": "the file", "label": roles.get("label", "the folder")}
            split = "the folder" if split_counts(manifest) else None
            return {**found, "weight": None, "group": None, "split": split}
        table = manifest.table
        weighed = roles.get("weight", "weight" if table["weight"].nunique() > 1 else None)
        return {
            "path": roles.get("path", "path"),
            "label": roles.get("label", "label" if manifest.labelled else None),
            "weight": weighed,
            "group": GROUP if GROUP in table else None,
            "split": roles.get("split") or split_column(table),
        }

    @property
    def odd(self) -> list[str]:
        """What may be otherwise than it is meant, one sentence each."""
        manifest = self.manifest
        said = list(manifest.warnings)
        sizes = self.classes[self.classes["label"] != ""]
        tiny = sizes[(sizes["samples"] > 1) & (sizes["samples"] < _TINY)]
        if len(tiny):
            named = ", ".join(f"{row['label']} ({row['samples']})" for row in tiny.head(5).to_dict("records"))
            more = f" and {len(tiny) - 5:,} more" if len(tiny) > 5 else ""
            said.append(f"{manifest.name}: classes of fewer than {_TINY} samples: {named}{more}.")
        if manifest.kind == "table" and (group := group_column(manifest.table, "path", ["label"])):
            said.append(
                f"{manifest.name}: column {group} may tell samples that belong together: --group {group} "
                "leaves them out together."
            )
        if self.missing:
            said.append(self.missing)
        return said

    def warnings(self) -> Iterator[str]:
        """Nothing: what is odd is a part of the result."""
        yield from ()

    def write(self, target: Target) -> None:
        """Write the inspection, which is what goes to standard output, and the table of classes."""
        content = json.dumps(self.summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
        target.text(f"{INSPECTION}.json", content)
        target.records(CLASSES, self.classes)


def inspect_data(data: NamedData | Manifest, progress: Progress, n_looked_at: int = 500) -> Inspection:
    """Find out what DATA is taken for.

    Args:
        data: By its name, or as it was read.
        progress: Told of the images that are looked at.
        n_looked_at: So many images are opened, evenly spread.

    Raises:
        DataError: It is no DATA, or nothing is known that would make it such.
    """
    if isinstance(data, NamedData):
        manifest, refusals, missing = _read(data)
    else:
        manifest, refusals, missing = data, (), _missing(data)
    found = survey(manifest.files(), progress, n_looked_at) if _of_images(manifest) else None
    return Inspection(manifest, tuple(refusals), found, "" if missing is None else f"{missing.got}.")


def _read(named: NamedData) -> tuple[Manifest, Sequence[Refusal], DataError | None]:
    """Read DATA with the options that its own refusals advise.

    Returns:
        All of its splits, what was refused, and why images are missing.
    """
    labels: Labels = "required"
    refusals: list[Refusal] = []
    content = read_stream(sys.stdin.buffer, "standard input") if named.name == "-" else b""
    while True:
        try:
            manifest = _opened(named, labels, content)
            missing = _missing(manifest)
            if missing is None or not _advises(missing, refusals):
                return manifest, refusals, missing
            error = missing
        except DataError as refused:
            error = refused
        if _advises(error, refusals):
            advice = error.hint
            assert isinstance(advice, Again)
            refusals.append(Refusal(error.got, error.expected, dict(advice.options), advice.data))
            named = _with_advice(named, advice)
        elif labels == "required":
            # As a pool, which may lack labels.
            labels = "optional"
            refusals.append(Refusal(error.got, error.expected, {}, ""))
        else:
            raise error


def _opened(named: NamedData, labels: Labels, content: bytes) -> Manifest:
    if (Path(named.name) / STORE_FILE).exists():
        from divacli.features import Samples, read_data  # only here: it takes torch, which is slow to import

        opened = read_data(named.name, labels=labels, reading=named.reading)
        return opened.manifest if isinstance(opened, Samples) else opened
    return read_manifest(named.name, stdin=BytesIO(content), labels=labels, reading=named.reading)


def _of_images(manifest: Manifest) -> bool:
    return manifest.kind != "store" and manifest.embeddings is None and FEATURE_SOURCE not in manifest.table


def _missing(manifest: Manifest) -> DataError | None:
    """Why images are not there; None where all are."""
    try:
        if _of_images(manifest):
            check_files(manifest)
    except DataError as error:
        return error
    return None


def _advises(error: DataError, before: Sequence[Refusal]) -> bool:
    """Whether an error names options that have not been tried yet."""
    advice = error.hint
    return isinstance(advice, Again) and not any(
        one.data == advice.data and one.options == advice.options for one in before
    )


def _with_advice(named: NamedData, advice: Again) -> NamedData:
    """DATA as advised, but with all splits, for all are to be seen."""
    values: dict[str, Any] = {}
    for name, value in advice.options.items():
        if name == "split":
            value = ALL
        if name in OPTIONS:
            values[name] = (value,) if name in ("split", "label_column", "exclude") else value
    return NamedData(advice.data, replace(named.reading, **values))


def _images(found: Survey) -> dict[str, Any]:
    """A look at images, as JSON holds it."""
    return {
        "looked_at": found.n_looked_at,
        "formats": dict(found.formats),
        "modes": dict(found.modes),
        "widths": found.widths,
        "heights": found.heights,
        "turned_by_exif": found.n_turned,
        "unusable": [asdict(group) for group in found.unusable],
    }
