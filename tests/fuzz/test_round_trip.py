"""Any table is the same after being written and read, and paths mean the same files wherever it lies."""

from __future__ import annotations

import json
import posixpath
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from divacli.errors import DataError, OutputError
from divacli.manifest import manifest_of, read_manifest, relocate, write_table
from divacli.manifest.columns import COLUMN_TYPES
from tests.made import WEIGHTS

steady = settings(
    derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)

ODD = st.sampled_from(
    [
        *(
            "",
            "NA",
            "nan",
            "None",
            "null",
            "1e5",
            "01",
            "1.0",
            "True",
            "inf",
            "-0",
            "=1+1",
            "-x",
            "+",
            "@a",
            "'",
        ),
        *(
            "'=",
            "''=x",
            "./=x",
            "././=",
            " =x",
            "\t=x",
            "\x0b-",
            '"',
            '""',
            "a,b",
            "a;b",
            " a ",
            "\r",
            "a\rb",
        ),
        *(
            "a\r\nb",
            "\n",
            "\t",
            "\0",
            "\x1a",
            "\x1b[2J",
            "\u2028",
            "\x85",
            "\ufeff",
            "\u00a0",
            "\u3000",
            "\u202e",
        ),
        *("\u0130", "\uff1dx", "é", "e\u0301", "😀", "\U0010ffff"),
    ]
)
CELL = st.one_of(ODD, st.text(st.characters(exclude_categories=["Cs"]), max_size=8))
LABEL = CELL.filter(str.strip)
OWN = st.one_of(CELL.filter(lambda name: name not in COLUMN_TYPES), st.sampled_from(["=x", "own"]))
NUMBER = st.one_of(st.floats(), st.integers(-(2**53), 2**53).map(float))
VALUE = st.one_of(CELL, st.none())
LEAF = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(allow_infinity=False), CELL
)
NESTED = st.recursive(
    st.one_of(
        st.lists(LEAF, max_size=4),
        st.dictionaries(CELL, LEAF, max_size=3),
        st.lists(st.floats(width=32), max_size=4).map(lambda numbers: np.array(numbers, np.float32)),
    ),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(CELL, inner, max_size=3)),
    max_leaves=4,
)


@st.composite
def tables(draw: st.DrawFn) -> pd.DataFrame:
    """A table of every kind of column that there is."""
    n = draw(st.integers(2, 5))

    def column(cells: st.SearchStrategy) -> list:
        return draw(st.lists(cells, min_size=n, max_size=n))

    paths = draw(st.lists(CELL.filter(bool), min_size=n, max_size=n, unique_by=posixpath.normpath))
    made = {"path": paths, "label": [f"{draw(LABEL)}{row}" for row in range(n)]}
    made["weight"] = [1.0, *column(st.floats(0, 1e12, allow_subnormal=False))[1:]]
    if draw(st.booleans()):
        made["derivative"] = column(NUMBER)
        made["rank"] = pd.array(range(n, 0, -1), "Int64")
        made["significant"] = pd.array(column(st.one_of(st.none(), st.booleans())), "boolean")
        made["suggested_label"] = column(CELL)
    made["group"] = column(CELL)
    for name in draw(st.lists(OWN, max_size=3, unique=True)):
        kind = draw(st.sampled_from([CELL, VALUE, NUMBER, st.integers(-(2**63), 2**63 - 1), st.booleans()]))
        made[name] = pd.Series(column(kind), dtype=object).infer_objects()
    return pd.DataFrame(made)


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
@settings(steady, max_examples=50)
@given(table=tables())
def test_written_read_and_written_again(
    tmp_path_factory: pytest.TempPathFactory, format: str, table: pd.DataFrame
) -> None:
    folder = tmp_path_factory.getbasetemp()
    first, second = folder / f"first.{format}", folder / f"second.{format}"
    write_table(table, first, format)  # type: ignore[arg-type]
    again = read_manifest(str(first), reading=WEIGHTS).table
    assert set(again) == set(table)
    for name in ("path", "label", "group", "suggested_label"):
        if name in table:
            assert again[name].tolist() == table[name].tolist()
    for name in ("weight", "derivative"):
        if name in table:
            digits = "" if format == "parquet" else ".9g"
            wanted = [float(f"{number:{digits}}") for number in table[name]]
            assert str(again[name].tolist()) == str(wanted)
    write_table(again[list(table)], second, format)  # type: ignore[arg-type]
    assert second.read_bytes() == first.read_bytes()


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
@settings(steady, max_examples=50)
@given(cells=st.lists(st.one_of(st.none(), NESTED), min_size=2, max_size=3))
def test_lists_are_the_same_or_refused_by_name(
    tmp_path_factory: pytest.TempPathFactory, format: str, cells: list
) -> None:
    folder = tmp_path_factory.getbasetemp()
    first, second = folder / f"first.{format}", folder / f"second.{format}"
    rows = [f"{row}.png" for row in range(len(cells))]
    table = pd.DataFrame({"path": rows, "label": rows, "weight": 1.0, "own": pd.Series(cells, dtype=object)})
    try:
        write_table(table, first, format)  # type: ignore[arg-type]
    except OutputError as error:
        assert "column 'own'" in error.got or "the table cannot be written as Parquet" in error.got  # noqa: PT017
        return
    again = read_manifest(str(first), reading=WEIGHTS).table
    write_table(again, second, format)  # type: ignore[arg-type]
    assert second.read_bytes() == first.read_bytes()
    if format == "csv":
        assert [json.loads(cell) if cell else None for cell in again["own"]] == _as_lists(cells)
    if format == "jsonl":
        assert [None if cell is None else cell for cell in again["own"]] == _as_lists(cells)


def _as_lists(value: object) -> object:
    """A nested value with lists in place of arrays."""
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _as_lists(inner) for key, inner in value.items()}
    return [_as_lists(inner) for inner in value] if isinstance(value, list) else value


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("column", ["path", "label", "own"])
def test_half_of_a_surrogate_pair_is_refused(tmp_path: Path, format: str, column: str) -> None:
    cells = {"path": ["a", "b"], "label": ["x", "y"], "own": ["p", "q"], column: ["\udc80", "z"]}
    table = pd.DataFrame({name: pd.Series(values, dtype=object) for name, values in cells.items()})

    def checked_and_written() -> None:
        write_table(manifest_of(table, tmp_path, reading=WEIGHTS).table, tmp_path / "t", format)  # type: ignore[arg-type]

    with pytest.raises((DataError, OutputError)):
        checked_and_written()
    assert not list(tmp_path.iterdir())


PART = st.sampled_from(["a", "b", "..", ".", "x y", "é", "=c", "...", "a.tar", "\n"])
RELATIVE = st.lists(PART, min_size=1, max_size=4).map("/".join)
PATH = st.one_of(RELATIVE, RELATIVE.map("/top/".__add__), st.just("s3://bucket/a/../b.png"))
FOLDER = st.lists(st.sampled_from(["f", "g", "h i"]), min_size=1, max_size=3).map(
    lambda parts: Path("/nowhere").joinpath(*parts)
)


@settings(steady, max_examples=100)
@given(paths=st.lists(PATH, min_size=1, max_size=4), first=FOLDER, second=FOLDER, third=FOLDER)
def test_relocating_composes_and_inverts(paths: list[str], first: Path, second: Path, third: Path) -> None:
    table = pd.DataFrame({"path": paths, "feature_source": paths})
    moved = relocate(table, first, second)
    for column in table:
        assert _places(moved[column], second) == _places(table[column], first)
        assert _places(relocate(moved, second, third)[column], third) == _places(
            relocate(table, first, third)[column], third
        )
        assert _places(relocate(moved, second, first)[column], first) == _places(table[column], first)


def _places(paths: pd.Series, folder: Path) -> list[str]:
    return [path if "://" in path else posixpath.normpath(posixpath.join(folder, path)) for path in paths]


@pytest.mark.parametrize("source", ["s3://[", "http://[::1", "//[", "http://a]b/x.npz", "\0.npz", "x.NPZ"])
def test_a_source_with_an_odd_name(tmp_path: Path, source: str) -> None:
    """Whatever a cell calls the file of embeddings, the table can be read and moved."""
    table = pd.DataFrame({"path": ["0", "1"], "label": ["a", "b"], "feature_source": source})
    found = manifest_of(table, tmp_path, reading=WEIGHTS)
    assert len(relocate(found.table, found.folder, tmp_path / "other")) == 2
