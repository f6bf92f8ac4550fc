"""Rows that lie in several blocks are indexed as those of one array."""

from pathlib import Path

import numpy as np
import pytest
import torch

from divacli.features.feature_rows import GatheredRows, whole
from divacli.manifest import ArrayFile

SELECTIONS = [
    slice(None),
    slice(3, 11),
    slice(None, None, 4),
    slice(5, 5),
    np.array([7]),
    np.array([19, 0, 3, 3, 12, 8, 0]),
    np.array([], np.int64),
]


def in_file(array: np.ndarray, path: Path) -> ArrayFile:
    np.savez(path, rows=array)
    file = ArrayFile.from_npz(path, "rows")
    assert isinstance(file, ArrayFile)
    return file


@pytest.fixture
def blocks() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(m, 3)).astype(dtype) for m, dtype in [(4, "f2"), (9, "f4"), (6, "f8")]]


@pytest.fixture
def gathered(blocks: list[np.ndarray], tmp_path: Path) -> tuple[GatheredRows, np.ndarray]:
    """Twenty rows of three blocks, two of them on disk, and the same rows as one array."""
    random = np.random.default_rng(1)
    block = random.integers(0, 3, 20)
    row = np.array([random.integers(0, len(blocks[number])) for number in block])
    dense = np.stack([blocks[b][r].astype(np.float64) for b, r in zip(block, row, strict=True)])
    on_disk = [in_file(blocks[0], tmp_path / "0.npz"), blocks[1], in_file(blocks[2], tmp_path / "2.npz")]
    return GatheredRows(on_disk, block, row), dense


@pytest.mark.parametrize("rows", SELECTIONS, ids=str)
def test_indexing_equals_that_of_one_array(
    gathered: tuple[GatheredRows, np.ndarray], rows: slice | np.ndarray
) -> None:
    features, dense = gathered
    assert features.shape == (20, 3)
    assert features[rows].dtype == torch.float64
    assert torch.equal(features[rows], torch.from_numpy(dense[rows]))


@pytest.mark.parametrize("rows", SELECTIONS, ids=str)
def test_indexing_after_select_equals_indexing_twice(
    gathered: tuple[GatheredRows, np.ndarray], rows: slice | np.ndarray
) -> None:
    features, dense = gathered
    order = np.random.default_rng(2).permutation(20)
    assert torch.equal(features.select(order)[rows], torch.from_numpy(dense[order][rows]))


def test_row_numbers_may_be_a_tensor(gathered: tuple[GatheredRows, np.ndarray]) -> None:
    features, dense = gathered
    rows = torch.tensor([19, 0, 3, 3, 12])
    assert torch.equal(features[rows], torch.from_numpy(dense[rows.numpy()]))


def test_select_by_mask(gathered: tuple[GatheredRows, np.ndarray]) -> None:
    features, dense = gathered
    mask = np.arange(20) % 3 == 1
    chosen = features.select(mask)
    assert chosen.shape == (7, 3)
    assert torch.equal(chosen[:], torch.from_numpy(dense[mask]))


def test_single_precision_holds_what_no_block_has_in_double(blocks: list[np.ndarray]) -> None:
    features = GatheredRows(blocks[:2], np.array([1, 0, 1]), np.array([8, 3, 0]))
    assert features[:].dtype == torch.float32
    assert (features[:].numpy() == np.stack([blocks[1][8], blocks[0][3], blocks[1][0]])).all()


def test_numbers_beyond_single_precision_are_kept_beside_rows_of_it(blocks: list[np.ndarray]) -> None:
    features = GatheredRows([blocks[1], np.full((1, 3), -1e300)], np.array([1, 0]), np.array([0, 2]))
    assert features[:].numpy().tolist() == [[-1e300] * 3, blocks[1][2].astype(float).tolist()]


def test_double_precision_is_kept(blocks: list[np.ndarray]) -> None:
    features = whole(blocks[2])
    assert features.shape == (6, 3)
    assert features[:].dtype == torch.float64
    assert (features[np.array([5, 0])].numpy() == blocks[2][[5, 0]]).all()


def test_whole_array_in_its_own_order(blocks: list[np.ndarray], tmp_path: Path) -> None:
    features = whole(in_file(blocks[1], tmp_path / "1.npz"))
    assert (features[:].numpy() == blocks[1]).all()
