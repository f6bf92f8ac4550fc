"""The range that the values of more than 8 bits of a set use, and what it makes of them."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from divacli.files.path_or_url import is_file
from divacli.images import pixel_range
from divacli.images.decode import decode_image
from divacli.images.header import read_header
from divacli.images.pixel_range import find_range
from divacli.images.scaling import AS_STORED, PixelRange
from divacli.images.survey import survey
from tests.images.made import colour_png, colour_tiff, dicom, encoded, grey


@pytest.fixture
def random() -> np.random.Generator:
    return np.random.default_rng(0)


def written(folder: Path, images: list[bytes], suffix: str = ".png") -> list[str]:
    files = []
    for number, data in enumerate(images):
        file = folder / f"{number:03d}{suffix}"
        file.write_bytes(data)
        files.append(str(file))
    return files


def integers(random: np.random.Generator, most: int, n: int = 8) -> list[np.ndarray]:
    made = [random.integers(0, most + 1, (12, 10)).astype(np.uint16) for _ in range(n)]
    made[n // 2][3, 3] = most
    return made


@pytest.mark.parametrize(
    ("most", "bits"), [(255, 8), (256, 10), (1000, 10), (3987, 12), (4095, 12), (4096, 14), (16_383, 14)]
)
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_integers_of_few_bits(
    most: int, bits: int, format: str, random: np.random.Generator, tmp_path: Path
) -> None:
    images = integers(random, most)
    found = find_range(written(tmp_path, [grey(image, format) for image in images], f".{format.lower()}"))
    assert found == PixelRange(integers=(0, 2**bits - 1))
    assert found.seen
    assert f" {most:,} ({bits} bits): 0 is black and {2**bits - 1:,} white" in found.sentence
    got = np.asarray(decode_image(grey(images[0], format), pixels=found))[..., 0]
    assert np.array_equal(got, np.round(images[0] * (255 / (2**bits - 1))).astype(np.uint8))


def test_all_sixteen_bits_are_as_before(random: np.random.Generator, tmp_path: Path) -> None:
    images = integers(random, 20_000)
    found = find_range(written(tmp_path, [grey(image) for image in images]))
    assert found == AS_STORED
    assert (found.text, found.sentence, found.seen) == ("", "", True)
    data = grey(images[0])
    assert decode_image(data, pixels=found).tobytes() == decode_image(data).tobytes()
    whole = PixelRange.given((0, 65_535))
    assert decode_image(data, pixels=whole).tobytes() == decode_image(data).tobytes()


def test_negative_and_large_integers(random: np.random.Generator, tmp_path: Path) -> None:
    hounsfield = [random.integers(-1024, 3072, (50, 40)).astype(np.int32) for _ in range(6)]
    hounsfield[2][0, 0] = 32_000  # a pixel that is no tissue
    files = written(tmp_path, [grey(image, "TIFF") for image in hounsfield], ".tif")
    low, high = find_range(files).integers
    assert -1100 <= low <= -1000
    assert 3000 <= high <= 3200
    large = [random.integers(0, 1_000_000, (50, 40)).astype(np.int32) for _ in range(6)]
    files = written(tmp_path, [grey(image, "TIFF") for image in large], ".tif")
    assert find_range(files).integers == (0, 1_000_000)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, None),
        (0, 200, None),
        (-1, 1, (-1, 1)),
        (-0.01, 1.01, (0, 1)),
        (0, 5000, (0, 5000)),
        (250, 320, (248, 320)),
        (-1000, 3000, (-1000, 3000)),
    ],
)
def test_floats(
    low: float, high: float, expected: tuple, random: np.random.Generator, tmp_path: Path
) -> None:
    images = [random.uniform(low, high, (50, 40)).astype(np.float32) for _ in range(6)]
    images[3][0, :2] = np.nan, np.inf
    files = written(tmp_path, [grey(image, "TIFF") for image in images], ".tif")
    found = find_range(files).floats
    if expected is None:
        assert found is None
    else:
        assert np.allclose(found, expected, atol=0.06 * (expected[1] - expected[0]))


def test_one_dark_float_image_is_judged_as_its_set(random: np.random.Generator, tmp_path: Path) -> None:
    images = [random.uniform(0, high, (20, 20)).astype(np.float32) for high in (200, 1, 250)]
    found = find_range(written(tmp_path, [grey(image, "TIFF") for image in images], ".tif"))
    assert found == PixelRange(floats=(0, 255))
    assert np.asarray(decode_image(grey(images[1], "TIFF"), pixels=found)).max() <= 1


def test_whole_numbers_kept_as_floats(random: np.random.Generator, tmp_path: Path) -> None:
    images = [image.astype(np.float32) for image in integers(random, 4000)]
    found = find_range(written(tmp_path, [grey(image, "TIFF") for image in images], ".tif"))
    assert found == PixelRange(floats=(0, 4095))


def test_dicom(random: np.random.Generator, tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    images = [dicom(image, BitsStored=12, HighBit=11) for image in integers(random, 4095)]
    assert find_range(written(tmp_path, images, "")) == PixelRange(integers=(0, 4095))


def test_what_cannot_be_deep_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pixel_range, "read_header", None)
    assert find_range([f"{tmp_path}/{n}.JPG" for n in range(5)]) == AS_STORED
    assert not find_range([]).seen


def test_so_many_headers_and_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = written(tmp_path, [encoded(Image.new("L", (4, 4)))] * 300)
    asked = []

    def read(file: str) -> object:
        asked.append(file)
        return read_header(file)

    monkeypatch.setattr(pixel_range, "read_header", read)
    assert not find_range(files).seen
    assert len(asked) == pixel_range.N_HEADERS


def test_order_and_files_without_use_do_not_matter(random: np.random.Generator, tmp_path: Path) -> None:
    files = written(tmp_path, [grey(image) for image in integers(random, 900, 20)])
    (tmp_path / "bad.png").write_bytes(b"no image")
    more = [*files[::-1], str(tmp_path / "bad.png"), str(tmp_path / "missing.png"), files[0]]
    assert find_range(more) == find_range(files) == PixelRange(integers=(0, 1023))


def test_few_are_decoded(
    random: np.random.Generator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = written(tmp_path, [grey(image) for image in integers(random, 900, 100)])
    read = []
    monkeypatch.setattr(pixel_range, "read_image", lambda file: read.append(file) or Path(file).read_bytes())
    find_range(files, n_samples=10)
    assert len(read) == 10
    read.clear()
    monkeypatch.setattr(pixel_range, "_PIXELS", 1)
    find_range(files)
    assert len(read) == pixel_range._FEWEST


@pytest.mark.parametrize(
    "found",
    [
        AS_STORED,
        PixelRange((0, 4095)),
        PixelRange((-1050, 3100)),
        PixelRange(None, (-1.5, 1e-7)),
        PixelRange((0, 1e20), (0.1, 0.30000000000000004)),
        PixelRange.given((255, 0)),
    ],
)
def test_the_text_says_it_all(found: PixelRange) -> None:
    assert PixelRange.of_text(found.text) == found
    assert PixelRange.of_text("") == AS_STORED
    with pytest.raises(ValueError, match="is no range"):
        PixelRange.of_text("0..x")


def test_black_may_be_the_larger_one() -> None:
    values = np.array([[0, 2000, 4095, 9000]], np.uint16)
    got = np.asarray(decode_image(grey(values), pixels=PixelRange.given((4095, 0))))[0, :, 0]
    assert got.tolist() == [255, 130, 0, 0]


def test_eight_bits_stay_whatever_the_range() -> None:
    image = Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16))
    for format in ("PNG", "TIFF", "BMP"):
        data = encoded(image, format)
        assert decode_image(data, pixels=PixelRange.given((0, 10))).tobytes() == decode_image(data).tobytes()


@pytest.mark.parametrize("kind", ["png", "png with alpha", "tiff", "big-endian tiff", "packed tiff"])
def test_colours_of_twelve_bits(kind: str, random: np.random.Generator, tmp_path: Path) -> None:
    values = [
        random.integers(0, 4096, (9, 7, 4 if "alpha" in kind else 3)).astype(np.uint16) for _ in range(3)
    ]
    values[1][0, 0] = 4095
    encode = {
        "tiff": colour_tiff,
        "big-endian tiff": lambda colours: colour_tiff(colours, ">"),
        "packed tiff": lambda colours: colour_tiff(colours, packed=True),
    }.get(kind, colour_png)
    images = [encode(colours) for colours in values]
    found = find_range(written(tmp_path, images, ""))
    assert found == PixelRange(integers=(0, 4095))
    expected = np.round(values[0][..., :3] * (255 / 4095)).astype(np.uint8)
    assert np.array_equal(np.asarray(decode_image(images[0], pixels=found)), expected)
    assert np.array_equal(np.asarray(decode_image(images[0])), values[0][..., :3] >> 8)
    assert survey(written(tmp_path, images, "")).modes.keys() <= {"16-bit RGB", "16-bit RGB with alpha"}


def test_colours_of_all_sixteen_bits_are_as_before(random: np.random.Generator, tmp_path: Path) -> None:
    images = [colour_png(random.integers(0, 65_536, (9, 7, 3)).astype(np.uint16)) for _ in range(3)]
    found = find_range(written(tmp_path, images))
    assert found == AS_STORED
    assert decode_image(images[0], pixels=found).tobytes() == decode_image(images[0]).tobytes()


def test_members_of_tar_files_and_rows_of_parquet_files(random: np.random.Generator, tmp_path: Path) -> None:
    images = [grey(image) for image in integers(random, 4095, 12)]
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for number, data in enumerate(images):
            info = tarfile.TarInfo(f"{number}.png")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    found = find_range([f"{tmp_path}/x.tar/{number}.png" for number in range(12)])
    assert found == PixelRange(integers=(0, 4095))
    rows = pa.table({"image": [{"bytes": data, "path": None} for data in images], "label": [0] * 12})
    pq.write_table(rows, tmp_path / "x.parquet")
    files = [f"{tmp_path}/x.parquet/{number}" for number in range(12)]
    assert all(map(is_file, files))
    assert find_range(files) == PixelRange(integers=(0, 4095))
    assert survey(files).modes == {"16-bit grey": 12}
