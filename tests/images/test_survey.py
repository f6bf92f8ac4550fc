"""A look at a set of images without a network."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from divacli.images.failures import Group, failed_counts, groups_of, left_out, said_of
from divacli.images.scaling import PixelRange
from divacli.images.survey import survey
from tests.images.made import encoded, grey


def test_a_survey(tmp_path: Path) -> None:
    pytest.importorskip("pandas")
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "a.jpg": encoded(Image.new("RGB", (30, 20)), "JPEG"),
        "b.jpg": encoded(Image.new("RGB", (40, 20)), "JPEG", exif=exif),
        "c.png": encoded(Image.new("L", (10, 50))),
        "d.png": grey(np.full((8, 9), 4000, np.uint16)),
        "e": encoded(Image.new("RGBA", (30, 20)), "WEBP", lossless=True),
        "f.png": b"no image",
        "g.psd": b"8BPS\0\1",
        "h.png": b"",
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    found = survey([f"{tmp_path}/{name}" for name in [*files, "missing.png"]])
    assert (found.n_files, found.n_looked_at, found.n_unusable, found.n_turned) == (9, 9, 4, 1)
    assert found.modes == {"8-bit RGB": 2, "8-bit grey": 1, "16-bit grey": 1, "8-bit RGB with alpha": 1}
    assert found.formats == {"JPEG": 2, "PNG": 2, "WEBP": 1}
    assert found.widths == (9, 20, 30)
    assert found.heights == (8, 20, 50)
    assert found.pixels == PixelRange(integers=(0, 4095))
    assert found.pixels.sentence
    assert {group.reason for group in found.unusable} == {
        "not an image, or of an unknown format",
        "a PSD image, which diva does not read: convert it to PNG or JPEG",
        "empty file (0 bytes)",
        "cannot be read: No such file or directory",
    }


def test_so_many_files_spread_over_all(tmp_path: Path) -> None:
    files = []
    for number in range(40):
        (tmp_path / f"{number:02d}.png").write_bytes(encoded(Image.new("L", (number + 1, 40))))
        files.append(f"{tmp_path}/{number:02d}.png")
    told: list[int] = []

    class Counting:
        def __enter__(self):
            return told.append

        def __exit__(self, *failure):
            return None

    found = survey(files, lambda what, total: Counting(), n=10)
    assert (found.n_files, found.n_looked_at, sum(told)) == (40, 10, 10)
    assert found.widths == (1, 17, 37)


def test_nothing_to_look_at() -> None:
    found = survey([])
    assert (found.n_files, found.widths, found.modes, found.unusable) == (0, None, {}, ())


def test_failures_in_a_line() -> None:
    pandas = pytest.importorskip("pandas")
    reasons = ["x"] * 3 + ["y"] * 2 + ["z", "u", "v"]
    paths = [f"a/{row}.PNG" for row in range(3)] + [
        "b.jpg",
        "c.jpg",
        "no suffix",
        "https://h/d.tif?x=.y",
        "e. f",
    ]
    groups = groups_of(paths, reasons)
    assert groups[:3] == [Group(".png", "x", 3), Group(".jpg", "y", 2), Group("", "z", 1)]
    assert said_of(groups) == "3 .png (x), 2 .jpg (y), 1 (z) and 2 more"
    failed = pandas.DataFrame({"path": paths, "reason": reasons})
    said = "8 images cannot be used and are left out: 3 .png (x), 2 .jpg (y), 1 (z) and 2 more; the first: "
    assert left_out(failed, "images") == f"{said}a/0.PNG"
    counted = failed_counts(failed[:3], failed[:0])
    assert counted == {"failed": [{"suffix": ".png", "reason": "x", "n": 3}]}
    assert failed_counts(failed[:0]) == {}
