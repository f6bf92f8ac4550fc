"""Rows read from disk are the rows numpy loads."""

import pickle
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from divacli.errors import DataError
from divacli.manifest import ArrayFile


def array(dtype: str = "f4", n: int = 41) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(n, 7)).astype(dtype)


def saved(tmp_path: Path, values: np.ndarray) -> ArrayFile | np.ndarray:
    np.savez(tmp_path / "a.npz", first=np.arange(3), embedding=values, last=np.arange(5))
    return ArrayFile.from_npz(tmp_path / "a.npz", "embedding")


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "i8", "U3"])
def test_blocks_of_rows(tmp_path: Path, dtype: str) -> None:
    values = array(dtype)
    file = saved(tmp_path, values)
    assert isinstance(file, ArrayFile)
    assert (file.shape, file.dtype, len(file)) == (values.shape, values.dtype, 41)
    blocks = [file[start : start + 9] for start in range(0, 41, 9)]
    assert [len(block) for block in blocks] == [9, 9, 9, 9, 5]
    assert (np.concatenate(blocks) == values).all()


@pytest.mark.parametrize("rows", [[], [0], [40, 0], [3, 4, 5, 9, 10, 2, 2, 40], list(range(41))])
@pytest.mark.parametrize("dtype", [np.int64, np.uint8])
def test_rows_by_number(tmp_path: Path, rows: list[int], dtype: type) -> None:
    numbers = np.array(rows, dtype)
    assert np.array_equal(saved(tmp_path, array())[numbers], array()[numbers])


@pytest.mark.parametrize("rows", [slice(None), slice(5, 5), slice(-3, None), slice(30, 99), slice(40, 2, -3)])
def test_slices_are_those_of_numpy(tmp_path: Path, rows: slice) -> None:
    assert np.array_equal(saved(tmp_path, array())[rows], array()[rows])


@pytest.mark.parametrize("rows", [[41], [-1], [0.0], [[1]], [True] * 41])
def test_other_rows_are_refused(tmp_path: Path, rows: list) -> None:
    with pytest.raises(IndexError, match="rows"):
        saved(tmp_path, array())[np.array(rows)]


def test_a_vector(tmp_path: Path) -> None:
    values = np.arange(12.0)
    assert (saved(tmp_path, values)[3:8] == values[3:8]).all()


@pytest.mark.parametrize("kind", ["compressed", "fortran", "foreign byte order"])
def test_what_cannot_be_read_in_place_is_loaded(tmp_path: Path, kind: str) -> None:
    values = array()
    if kind == "compressed":
        np.savez_compressed(tmp_path / "a.npz", embedding=values)
    elif kind == "fortran":
        np.savez(tmp_path / "a.npz", embedding=np.asfortranarray(values))
    else:
        np.savez(tmp_path / "a.npz", embedding=values.astype(">f4"))
    loaded = ArrayFile.from_npz(tmp_path / "a.npz", "embedding")
    assert isinstance(loaded, np.ndarray)
    assert loaded.dtype.isnative
    assert loaded.flags.c_contiguous
    assert np.array_equal(loaded, values)


def test_zip_members_with_and_without_zip64_fields(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array())
    for force_zip64 in (False, True):
        path = tmp_path / f"{force_zip64}.npz"
        with zipfile.ZipFile(path, "w") as archive:
            for member in ("other", "embedding"):
                with archive.open(f"{member}.npy", "w", force_zip64=force_zip64) as stream:
                    stream.write((tmp_path / "a.npy").read_bytes())
        file = ArrayFile.from_npz(path, "embedding")
        assert isinstance(file, ArrayFile)
        assert np.array_equal(file[:], array())


def test_npz_member_shorter_than_its_header_states(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", array())
    for compression in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(tmp_path / "a.npz", "w", compression) as archive:
            archive.writestr("embedding.npy", (tmp_path / "a.npy").read_bytes()[:-8])
        with pytest.raises(ValueError, match="holds 1,140 bytes where its header states 1,148"):
            ArrayFile.from_npz(tmp_path / "a.npz", "embedding")


def test_truncated_while_open(tmp_path: Path) -> None:
    file = saved(tmp_path, array())
    with file.path.open("r+b") as stream:
        stream.truncate(file.offset + array().nbytes - 4)
    assert np.array_equal(file[:40], array()[:40])
    with pytest.raises(DataError, match="truncated while reading"):
        file[40:]
    file.path.unlink()
    with pytest.raises(DataError, match="No such file"):
        file[:1]


def test_threads_and_pickles(tmp_path: Path) -> None:
    file = pickle.loads(pickle.dumps(saved(tmp_path, array(n=500))))
    wrong = []

    def read(seed: int) -> None:
        random = np.random.default_rng(seed)
        for _ in range(50):
            rows = random.integers(0, 500, 20)
            if not np.array_equal(file[rows], array(n=500)[rows]):
                wrong.append(seed)

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
