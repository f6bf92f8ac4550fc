"""True labels are found by file, or by name in an `.npz` file, wherever the tables lie."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from divacli.errors import DataError
from divacli.manifest import Manifest, read_manifest
from divacli.manifest.truth import right_labels


def written(file: Path, **columns: list[str]) -> Manifest:
    file.parent.mkdir(exist_ok=True)
    pd.DataFrame(columns).to_csv(file, index=False)
    return read_manifest(str(file), labels="optional")


@pytest.mark.parametrize("column", ["true_label", "label"])
def test_samples_are_found_by_file_in_any_order(column, tmp_path):
    data = written(tmp_path / "a" / "data.csv", path=["1.jpg", "../b/2.jpg", "3.jpg"], label=list("xyx"))
    truth = written(
        tmp_path / "b" / "truth.csv",
        path=["2.jpg", str(tmp_path / "a" / "3.jpg"), "../a/1.jpg", "1.jpg"],
        **{column: list("yyxz")},
    )
    assert right_labels(data, truth).tolist() == [True, True, False]


def test_true_labels_beside_labels_are_those_that_count(tmp_path):
    data = written(tmp_path / "data.csv", path=["1.jpg", "2.jpg"], label=["x", "y"])
    truth = written(tmp_path / "t.csv", path=["1.jpg", "2.jpg"], label=["x", "y"], true_label=["x", "x"])
    assert right_labels(data, truth).tolist() == [True, False]


def test_rows_of_an_npz_are_found_by_name(tmp_path):
    np.savez(tmp_path / "d.npz", embedding=np.eye(3), label=[0, 1, 1], path=["p", "q", "r"])
    data = read_manifest(str(tmp_path / "d.npz"))
    truth = written(tmp_path / "else" / "t.csv", path=["r", "q", "p"], true_label=["1", "0", "0"])
    assert right_labels(data, truth).tolist() == [True, False, True]


def test_a_column_of_the_samples_themselves(tmp_path):
    data = written(tmp_path / "d.csv", path=["1.jpg", "2.jpg"], label=["1", "2"], true_label=[1, 1])
    assert right_labels(data, None).tolist() == [True, False]
    bare = written(tmp_path / "bare.csv", path=["1.jpg", "2.jpg"], label=["1", "2"])
    assert right_labels(bare, None) is None


@pytest.mark.parametrize("labels", [["x", None], ["x"]], ids=["an empty cell", "a row too few"])
def test_samples_that_the_truth_misses_are_named(labels, tmp_path):
    data = written(tmp_path / "d.csv", path=["1.jpg", "2.jpg"], label=["x", "y"])
    truth = written(tmp_path / "t.csv", path=["1.jpg", "2.jpg"][: len(labels)], true_label=labels)
    with pytest.raises(DataError, match=r"t\.csv has no true label for 1 of 2 samples: 2\.jpg"):
        right_labels(data, truth)


def test_a_truth_without_labels_is_refused(tmp_path):
    data = written(tmp_path / "d.csv", path=["1.jpg", "2.jpg"], label=["x", "y"])
    with pytest.raises(DataError, match="no true label for 2 of 2 samples"):
        right_labels(data, written(tmp_path / "t.csv", path=["1.jpg", "2.jpg"]))
