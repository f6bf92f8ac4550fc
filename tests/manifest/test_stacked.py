"""Tables of samples below one another: no cell of the user's columns is changed."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import pytest

from divacli.manifest.column_types import stacked

ROWS = pd.DataFrame({"path": ["1", "2"], "label": ["a", "b"], "weight": [1.0, 1.0]})
CELLS = {
    "whole": [2**60 + 1, 20240101000],
    "truth": [True, False],
    "decimal": [Decimal("1.10"), Decimal(2)],
    "date": [datetime.date(2024, 1, 2), datetime.date(1, 1, 1)],
    "unsigned": np.array([2**64 - 1, 0], np.uint64),
    "list": [[1, 2], []],
}


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("last", [True, False])
def test_where_another_table_lacks_the_column(name: str, last: bool) -> None:
    column = pd.Series(CELLS[name])
    tables = [ROWS.assign(own=column), ROWS]
    found = stacked(tables if last else tables[::-1])["own"].tolist()
    assert (found[:2] if last else found[2:]) == column.tolist()
    assert (found[2:] if last else found[:2]) == [None, None]


@pytest.mark.parametrize("name", CELLS)
@pytest.mark.parametrize("other", CELLS)
def test_where_another_table_has_other_cells(name: str, other: str) -> None:
    first, second = pd.Series(CELLS[name]), pd.Series(CELLS[other])
    found = stacked([ROWS.assign(own=first), ROWS.assign(own=second)])["own"].tolist()
    expected = [*first.tolist(), *second.tolist()]
    assert found == expected
    assert list(map(type, found)) == list(map(type, expected))


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
def test_extending_keeps_whole_numbers(
    format: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, embedded: Callable[..., None]
) -> None:
    from typer.testing import CliRunner

    from divacli.cli.app import app
    from divacli.manifest import read_manifest

    monkeypatch.chdir(tmp_path)
    ids = [20240101000123 + row for row in range(15)]
    embedded("core", 15, flickr=ids)
    embedded("pool", 12)
    line = ["extend", "core.jsonl", "--pool", "pool.jsonl", "--budget", "3", "--format", format]
    result = CliRunner().invoke(app, line)
    assert result.exit_code == 0, result.stderr
    table = read_manifest(f"diva-out/extended.{format}").table
    core = table[table["origin"] == "core"]
    assert sorted(map(int, core["flickr"])) == ids
    assert all(str(cell) in map(str, ids) for cell in core["flickr"])


@pytest.fixture
def embedded(tmp_path: Any) -> Callable[..., None]:
    """Write embeddings, and a table that names them."""

    def write(name: str, n: int, **columns: Any) -> None:
        labels = np.arange(n) % 3
        generator = np.random.default_rng(len(name) + n)
        paths = np.array([f"{name}-{row}" for row in range(n)])
        vectors = np.eye(3)[labels] * 2 + generator.normal(size=(n, 3))
        np.savez(tmp_path / f"{name}.npz", embedding=vectors, label=labels, path=paths)
        table = pd.DataFrame({"path": paths, "label": labels.astype(str), "feature_source": f"{name}.npz"})
        table.assign(**columns).to_json(tmp_path / f"{name}.jsonl", orient="records", lines=True)

    return write
