"""Take the scores of diva into a FiftyOne dataset, and decisions back.

Run this where FiftyOne is installed; it needs nothing else:

    python import_fiftyone.py                             # makes or updates the dataset "diva"
    python import_fiftyone.py --decisions decisions.csv   # writes what was tagged keep, drop or relabel

then: diva apply DATA decisions.csv
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

ACTIONS = ("keep", "drop", "relabel")
NUMBERS = ("derivative", "loo_loss", "mislabel_probability", "outlier_score")

# Cells that begin so are formulas for a spreadsheet; diva takes the apostrophe before them away again.
FORMULA = re.compile("'*(?:[ \t\n\r\f\v]*[=+\\-@\uff1d\uff0b\uff0d\uff20]|[\t\n\r])")


def known(dataset: Any, field: str) -> dict[str, Any]:
    """What the samples have in a field, by file; nothing for those that have nothing there."""
    if not dataset.has_sample_field(field.partition(".")[0]):
        return {}
    values = zip(dataset.values("filepath"), dataset.values(field), strict=True)
    return {path: value for path, value in values if value is not None}


def update(dataset: Any, found: Iterable[dict[str, Any]], label_field: str) -> int:
    """Give each sample of the dataset, by its file, the fields of its row; files that are new are added.

    A label that the dataset has stays, for it may have been corrected there; unless it is the given one of
    the last time, which follows. Samples of an earlier table that are not in this one lose their scores, and
    keep the given label: if they come back it tells whether their tags still hold.

    Returns:
        How many samples lost their tags, for these were about something else: another given label; or to
        relabel, another suggestion.
    """
    import fiftyone as fo

    rows = {row["path"]: row for row in found}
    there = set(dataset.values("filepath"))
    dataset.add_samples([fo.Sample(filepath=path) for path in rows if path not in there])
    given, suggested = known(dataset, "given_label"), known(dataset, "suggested.label")
    labels, tags = known(dataset, f"{label_field}.label"), known(dataset, "tags")
    outdated = []
    for path in rows.keys() & given.keys():
        relabelled = rows[path]["given_label"] != given[path]
        # Whoever tagged it relabel without a label of their own meant the suggestion.
        unmeant = (rows[path].get("suggested_label") or None) != suggested.get(path)
        unmeant = unmeant and labels.get(path, given[path]) == given[path]
        spent = ACTIONS if relabelled else ("relabel",) if unmeant else ()
        if not set(spent).isdisjoint(tags.get(path, ())):
            outdated.append(path)
    judgements = {
        "suggested": {
            path: fo.Classification(label=row["suggested_label"], confidence=row.get("suggested_probability"))
            for path, row in rows.items()
            if row.get("suggested_label")
        },
        **{
            name: {path: float(row[name]) for path, row in rows.items() if row.get(name) is not None}
            for name in NUMBERS
        },
    }
    fields = {
        label_field: {
            path: fo.Classification(label=row["given_label"])
            for path, row in rows.items()
            if path not in labels or labels[path] == given.get(path) != row["given_label"]
        },
        "given_label": {path: row["given_label"] for path, row in rows.items()},
        **{
            name: {**(dict.fromkeys(given) if dataset.has_sample_field(name) else {}), **values}
            for name, values in judgements.items()
        },
    }
    for name, values in fields.items():
        if values:
            dataset.set_values(name, values, key_field="filepath")
    dataset.select_by("filepath", list({**given, **rows})).untag_samples("mislabelled")
    wrong = [path for path, row in rows.items() if row.get("mislabelled")]
    if wrong:
        dataset.select_by("filepath", wrong).tag_samples("mislabelled")
    if outdated:
        dataset.select_by("filepath", outdated).untag_samples(ACTIONS)
    return len(outdated)


def decisions(dataset: Any, label_field: str) -> Iterator[tuple[str, str, str, str]]:
    """Rows path, decision, label and given_label of the samples with a tag keep, drop or relabel.

    Only of those with scores: others were not in the last table. The new label of a sample to relabel is the
    one it has in the dataset where that was changed there, and else the suggested one.
    """
    names = ("filepath", "tags", f"{label_field}.label", "suggested.label", "given_label", "derivative")
    missing = [name for name in ("suggested", "given_label") if not dataset.has_sample_field(name)]
    if missing:
        sys.exit(f"the dataset has no field {missing[0]}: run this script without --decisions first")
    columns = [dataset.values(name) for name in names]
    for path, tags, label, suggested, given, derivative in zip(*columns, strict=True):
        chosen = [action for action in ACTIONS if action in (tags or [])]
        if given is None or derivative is None or not chosen:
            continue
        if len(chosen) > 1:
            sys.exit(f"{path} has the tags {' and '.join(chosen)}: leave one of them")
        after = given
        if chosen == ["relabel"]:
            after = label if label and label != given else suggested
            if not after:
                sys.exit(f"{path} is tagged relabel, and has no new label: set {label_field}")
        yield path, chosen[0], after, given


def safe(cell: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{cell}" if FORMULA.match(cell) else cell


def write(target: Path, rows: Sequence[tuple[str, str, str, str]]) -> None:
    """Write decisions as CSV, or as JSON lines where the name ends so."""
    columns = ("path", "decision", "label", "given_label")
    with target.open("w", encoding="utf-8", newline="") as file:
        if target.suffix == ".jsonl":
            records = (dict(zip(columns, row, strict=True)) for row in rows)
            file.writelines(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        else:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
            writer.writerow(columns)
            writer.writerows([path, *map(safe, cells)] for path, *cells in rows)


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and do as it says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--dataset", default="diva", help="name of the FiftyOne dataset (default: %(default)s)"
    )
    parser.add_argument(
        "--label-field", default="ground_truth", help="field of the label (default: %(default)s)"
    )
    parser.add_argument(
        "--table",
        type=Path,
        default=Path(__file__).with_name("fiftyone.jsonl"),
        help="what diva export wrote (default: fiftyone.jsonl beside this script)",
    )
    parser.add_argument(
        "--decisions", type=Path, help="write the decisions that were made, and change nothing"
    )
    options = parser.parse_args(arguments)
    try:
        import fiftyone as fo
    except ImportError:
        sys.exit("FiftyOne is not installed here: pip install fiftyone")

    if options.decisions is not None:
        if not fo.dataset_exists(options.dataset):
            sys.exit(f"there is no dataset {options.dataset}: run this script without --decisions first")
        found = list(decisions(fo.load_dataset(options.dataset), options.label_field))
        write(options.decisions, found)
        sys.stdout.write(f"{len(found)} decisions in {options.decisions}\n")
        return
    folder = options.table.resolve().parent
    rows = [
        json.loads(line) for line in options.table.read_text(encoding="utf-8").split("\n") if line.strip()
    ]
    for row in rows:
        row["path"] = os.path.abspath(folder / row["path"])  # noqa: PTH100  # links stay as they are
    known = fo.dataset_exists(options.dataset)
    dataset = fo.load_dataset(options.dataset) if known else fo.Dataset(options.dataset, persistent=True)
    outdated = update(dataset, rows, options.label_field)
    sys.stdout.write(
        f"{len(rows)} samples in the dataset {options.dataset}: fiftyone app launch {options.dataset}\n"
    )
    if outdated:
        sys.stdout.write(
            f"{outdated} samples lost their tag keep, drop or relabel, for it was about another label\n"
        )


if __name__ == "__main__":
    main()
