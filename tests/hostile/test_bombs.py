"""Files of some kilobytes that would unpack to gigabytes: refused before they do."""

from __future__ import annotations

import functools
import io
import json
import re
import resource
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from divacli.backbones.load import load_backbone
from divacli.errors import DataError, ModelError
from divacli.files.path_or_url import file_digest, read_bytes
from divacli.files.tar import MAX_BYTES, members, read_member
from divacli.images.decode import MAX_PIXELS, UndecodableImage, decode_image
from divacli.manifest import bounded, read_manifest
from divacli.manifest.tabular import parse

pytestmark = pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")

SIDE = 50_000


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@functools.cache
def png(side: int, *before: bytes) -> bytes:
    """One-bit pixels, all of them black and really there."""
    rows = zlib.compressobj(9)
    row = bytes(1 + -(-side // 8))
    packed = b"".join(rows.compress(row * 100) for _ in range(side // 100)) + rows.flush()
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def bmp(side: int) -> bytes:
    header = struct.pack("<IiiHHIIiiII", 40, side, side, 1, 8, 1, 4, 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 100, 0, 0, 54 + 1024) + header + bytes(1024) + b"\x00\x01"


def gif(side: int) -> bytes:
    """A small screen with a frame that is not."""
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, side, side, 0) + b"\x08\x03\x00\x01\x01\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0x80, 0, 0) + bytes(6) + frame + b"\x3b"


def tiff(side: int) -> bytes:
    entries = [
        (256, 4, 1, side),
        (257, 4, 1, side),
        (258, 3, 1, 8),
        (259, 3, 1, 8),
        (262, 3, 1, 1),
        (273, 4, 1, 8),
        (278, 4, 1, side),
        (279, 4, 1, 20),
    ]
    listed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    packed = zlib.compress(bytes(1000)).ljust(20, b"\0")
    return b"II*\0" + struct.pack("<I", 28) + packed + struct.pack("<H", len(entries)) + listed + bytes(4)


BOMBS = {
    "png": png,
    "bmp": bmp,
    "gif": gif,
    "tif": tiff,
    "pgm": lambda side: b"P5 %d %d 255\n" % (side, side),
}


def memory() -> int:
    """The most that this process has had, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("lifted", [False, True])
def test_an_image_of_50_000_by_50_000(kind: str, lifted: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    data = BOMBS[kind](SIDE)
    assert len(data) < 500_000
    if lifted:  # as other packages do for all of a process
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    before = memory()
    with pytest.raises(UndecodableImage, match=r"^too large: 2,500,000,000 pixels.*178,956,970; scale it"):
        decode_image(data)
    assert memory() - before < 100_000_000


def test_the_limit_is_one(encoded: Callable) -> None:
    rows = MAX_PIXELS // 10_000
    assert rows * 10_000 <= MAX_PIXELS < (rows + 1) * 10_000
    small = b"P4 10000 %d\n"
    with pytest.raises(UndecodableImage, match="too large"):
        decode_image(small % (rows + 1))
    with pytest.raises(UndecodableImage, match="truncated"):
        decode_image(small % rows)


def test_a_jpeg_that_would_be_decoded_at_an_eighth(encoded: Callable) -> None:
    data = bytearray(encoded(Image.new("L", (16, 16)), "JPEG"))
    start = data.index(b"\xff\xc0") + 5
    data[start : start + 4] = struct.pack(">HH", SIDE, SIDE)
    with pytest.raises(UndecodableImage, match="too large: 2,500,000,000"):
        decode_image(bytes(data), least_side=64)


@pytest.mark.parametrize("kind", [b"zTXt", b"iTXt", b"iCCP"])
def test_text_in_a_png(kind: bytes) -> None:
    packed = zlib.compress(bytes(200_000_000), 9)
    between = {b"zTXt": b"x\0\0", b"iTXt": b"x\0\1\0\0\0", b"iCCP": b"x\0\0"}[kind]
    data = png(100, chunk(kind, between + packed))
    assert len(data) < 300_000
    before = memory()
    try:
        decode_image(data)
    except UndecodableImage as error:
        assert "too large" in str(error)  # noqa: PT017  # either answer is right, none unpacks it
    assert memory() - before < 150_000_000


def test_a_gif_of_many_frames(encoded: Callable) -> None:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 8, 8, 0) + b"\x02\x02\x84\x51\x00"
    data = encoded(Image.new("L", (8, 8)), "GIF").removesuffix(b"\x3b") + frame * 200_000 + b"\x3b"
    assert decode_image(data).size == (8, 8)


def test_an_image_too_large_is_left_out_and_named(photos: Path, network: Path, run: Callable) -> None:
    (photos / "a" / "bomb.png").write_bytes(png(SIDE))
    result = run("score", photos, "--model", f"{network}:make")
    assert result.exit_code == 0, result.stderr
    assert "1 .png (too large: 2,500,000,000 pixels, the limit is" in result.stderr
    said = run("score", photos, "--model", f"{network}:make", "--strict", "--out", "strict")
    assert said.exit_code == 1
    assert said.stderr.count("error:") == 1


def zipped_zeros(file: Path, member: str, n: int, header: bytes = b"") -> None:
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open(member, "w", force_zip64=True) as stream,
    ):
        stream.write(header)
        for _ in range(n >> 24):
            stream.write(bytes(1 << 24))


def npy_header(rows: int, columns: int) -> bytes:
    stream = io.BytesIO()
    shape = {"descr": "<f4", "fortran_order": False, "shape": (rows, columns)}
    np.lib.format.write_array_header_1_0(stream, shape)
    return stream.getvalue()


def test_an_npz_that_is_denser_than_any_features(
    tmp_path: Path, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bounded._LARGE == 1 << 32
    monkeypatch.setattr(bounded, "_LARGE", 1 << 28)
    zipped_zeros(tmp_path / "x.npz", "embedding.npy", 1 << 29, npy_header(1 << 17, 1 << 10))
    assert (tmp_path / "x.npz").stat().st_size < 3_000_000
    with zipfile.ZipFile(tmp_path / "x.npz", "a") as archive, archive.open("label.npy", "w") as stream:
        np.save(stream, np.zeros(3))
    before = memory()
    said = refused("score", "x.npz")
    assert "embedding unpacks to 536,871,040 bytes from" in said
    assert "to do: save it with numpy.savez instead of numpy.savez_compressed" in said
    assert memory() - before < 200_000_000


def test_honest_features_that_are_as_dense(tmp_path: Path) -> None:
    words = np.zeros((80_000, 1 << 10), np.float32)
    words[:, 7] = 1
    labels = np.repeat(["a", "b"], 40_000)
    np.savez_compressed(tmp_path / "x.npz", embedding=words, label=labels)
    assert words.nbytes > max(1 << 28, 100 * (tmp_path / "x.npz").stat().st_size)
    manifest = read_manifest(str(tmp_path / "x.npz"))
    assert manifest.embeddings is not None
    np.testing.assert_array_equal(manifest.embeddings[:3], words[:3])


def test_an_npz_of_more_rows_than_it_has_room_for(
    tmp_path: Path, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "_MANY_ROWS", 1000)
    rows = np.zeros((200_000, 1), np.float16)
    np.savez_compressed(tmp_path / "x.npz", embedding=rows, label=np.zeros(200_000, np.int8))
    said = refused("score", "x.npz")
    assert re.search(r"x.npz states 200,000 rows and has 1,\d\d\d bytes", said)
    assert "to do: save it with numpy.savez instead of numpy.savez_compressed" in said


def one_value(text: str, rows: int) -> pa.Array:
    """A column that has the same text in every row, and holds it once."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array([text]))


def test_a_parquet_table_of_more_rows_than_it_has_room_for(tmp_path: Path, refused: Callable) -> None:
    rows = 3_000_000
    table = pa.table({"path": one_value("x.png", rows), "label": one_value("a", rows)})
    pq.write_table(table, tmp_path / "x.parquet")
    del table
    assert (tmp_path / "x.parquet").stat().st_size < 50_000
    before = memory()
    said = refused("score", "x.parquet")
    assert "x.parquet states 3,000,000 rows and has " in said
    assert "to do: give the table as .csv" in said
    assert memory() - before < 30_000_000


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"])
def test_honest_paths_that_are_the_easiest_to_pack(encoding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bounded, "_MANY_ROWS", 1000)
    paths = [f"{row:08d}.jpg" for row in range(200_000)]
    file = io.BytesIO()
    pq.write_table(
        pa.table({"path": paths, "label": one_value("a", len(paths))}),
        file,
        use_dictionary=["label"],
        column_encoding={"path": encoding},
        compression="zstd",
        compression_level=19,
    )
    assert parse(file.getvalue(), "parquet", "table")["path"].tolist() == paths


def test_a_parquet_table_of_many_columns_of_one_value(
    tmp_path: Path, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "_LARGE", 1 << 24)
    column = one_value("x", 100_000)
    pq.write_table(pa.table({f"c{number}": column for number in range(100)}), tmp_path / "x.parquet")
    assert (tmp_path / "x.parquet").stat().st_size < 100_000
    assert "a table of 10,000,000 cells unpacks to 80,000,000 bytes from" in refused("score", "x.parquet")


@pytest.mark.parametrize("encoding", ["dictionary", "differences"])
def test_a_parquet_table_with_one_long_text_in_every_row(
    encoding: str, tmp_path: Path, refused: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bounded, "_LARGE", 1 << 24)
    rows = 40_000 if encoding == "dictionary" else 10_000
    paths, label = [f"{row}.png" for row in range(rows)], one_value("x" * 10_000, rows)
    if encoding == "dictionary":
        pq.write_table(pa.table({"path": paths, "label": label}), tmp_path / "x.parquet")
    else:
        table = pa.table({"path": paths, "label": label.cast(pa.string())})
        options = {"use_dictionary": False, "column_encoding": {"label": "DELTA_BYTE_ARRAY"}}
        pq.write_table(table, tmp_path / "x.parquet", **options)
    del label
    held = (tmp_path / "x.parquet").stat().st_size
    assert held * 100 < rows * 10_000
    before = memory()
    said = refused("score", "x.parquet")
    assert re.search(r"x.parquet unpacks to [\d,]+ bytes from", said)
    assert memory() - before < 200_000_000


def test_json_lines_without_keys(tmp_path: Path, refused: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each of them is a row of as many missing cells as the first line has keys."""
    monkeypatch.setattr(bounded, "_LARGE", 1 << 20)
    first = {"path": "a", "label": "x"} | {f"c{number}": 1 for number in range(98)}
    (tmp_path / "x.jsonl").write_text(json.dumps(first) + "\n{}" * 9_999)
    assert "x.jsonl: a table of 1,000,000 cells unpacks to 8,000,000 bytes" in refused("score", "x.jsonl")


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("everywhere", [False, True])
def test_an_npz_whose_header_states_terabytes(
    compressed: bool, everywhere: bool, embeddings: Callable, refused: Callable
) -> None:
    file = embeddings(compressed=compressed)
    data = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        info = archive.getinfo("embedding.npy")
        content = archive.read(info)
    evil = content.replace(b"(30, 4)", b"(%d, 4)" % (1 << 40))[: len(content)]
    evil = evil.replace(b"}        ", b"}", 1) if len(evil) > len(content) else evil
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(file, "w", kind) as archive:
        archive.writestr("embedding.npy", evil)
        archive.writestr("label.npy", b"")
    if everywhere:  # the directory of the zip file lies as well
        data = bytearray(file.read_bytes())
        entry = data.index(b"PK\x01\x02")
        data[entry + 24 : entry + 28] = struct.pack("<I", 0xFFFFFFF0)
        if not compressed:
            data[entry + 20 : entry + 24] = struct.pack("<I", 0xFFFFFFF0)
        file.write_bytes(bytes(data))
    assert "embedding cannot be read" in refused("score", file)


def test_a_checkpoint_that_unpacks_to_much_more(tmp_path: Path) -> None:
    torch.save({"x": torch.ones(4)}, tmp_path / "honest.pt")
    zipped_zeros(tmp_path / "w.pt", "w/data/0", 1 << 29)
    with zipfile.ZipFile(tmp_path / "honest.pt") as honest, zipfile.ZipFile(tmp_path / "w.pt", "a") as evil:
        evil.writestr("w/data.pkl", honest.read("honest/data.pkl"))
    with pytest.raises(ModelError, match=r"unpacks to 536,\d+,\d+ bytes, and has (.|\n)*refused"):
        load_backbone("resnet18", tmp_path / "w.pt")


def tar_header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = abs(size)
    header = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    if size < 0:
        header[124:136] = (size + (1 << 96)).to_bytes(12, "big")
        header[124] = 0xFF
        header[148:156] = b"        "
        header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


@pytest.mark.parametrize("size", [1 << 40, 1 << 62, -512, -1024])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME])
def test_a_tar_file_that_states_any_size(size: int, kind: bytes, tmp_path: Path) -> None:
    """In a process of its own: what is tried here once had readers go round in circles."""
    first = tarfile.TarInfo("a.jpg")
    header = bytearray(tar_header("b.jpg", size))
    header[156:157] = kind
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    (tmp_path / "x.tar").write_bytes(first.tobuf(tarfile.GNU_FORMAT) + header + bytes(2048))
    code = (
        "import sys; from divacli.files.tar import members; from divacli.errors import DataError\n"
        "try: members(sys.argv[1])\n"
        "except DataError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x.tar")], capture_output=True, text=True, timeout=20
    )
    assert "x.tar is damaged or was cut off" in done.stdout, done.stderr


def test_a_sparse_member_and_one_of_a_terabyte(tmp_path: Path) -> None:
    sparse = tarfile.TarInfo("a.jpg")
    sparse.pax_headers = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.realsize": str(1 << 50),
    }
    sparse.size = 512
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(sparse, io.BytesIO(b"1\n0\n512\n".ljust(512, b"\0")))
    assert not members(str(tmp_path / "s.tar"))
    size = MAX_BYTES + 512
    with (tmp_path / "l.tar").open("wb") as file:
        file.write(tar_header("a.jpg", size))
        file.seek(512 + size)
        file.write(bytes(1024))
    assert (tmp_path / "l.tar").stat().st_blocks < 1000, "a file of holes"
    with pytest.raises(DataError, match=r"a.jpg has 4,294,967,808 bytes"):
        read_member(str(tmp_path / "l.tar"), "a.jpg")


def test_a_file_of_holes(tmp_path: Path) -> None:
    file = tmp_path / "x.jpg"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    with pytest.raises(OSError, match="1,099,511,627,776 bytes, the limit is 4,294,967,296"):
        read_bytes(str(file))
    with pytest.raises(OSError, match="the limit is"):
        file_digest(file, MAX_BYTES)


def test_a_label_of_a_shard_that_is_no_label(tmp_path: Path, encoded: Callable) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name, content in {"1.png": encoded(Image.new("L", (2, 2))), "1.json": b"[" * 100_000}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    with pytest.raises(DataError, match=r"x.tar/1.json is not valid JSON"):
        read_manifest(str(tmp_path / "x.tar"))
