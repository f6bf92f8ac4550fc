"""Lists of images in text: what is path, what is label, and what is no such list."""

from __future__ import annotations

from pathlib import Path

import pytest

from divacli.errors import DataError
from divacli.manifest import read_manifest
from divacli.manifest.list_file import parse_list


def pairs(text: str) -> list[tuple[str, str]]:
    return list(parse_list(text.encode(), "val.txt").itertuples(index=False, name=None))


def refused(text: str | bytes, *, labels_required: bool = True) -> str:
    content = text if isinstance(text, bytes) else text.encode()
    with pytest.raises(DataError) as caught:
        parse_list(content, "val.txt", labels_required=labels_required)
    return str(caught.value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.JPEG 65\nb.JPEG 970\n", [("a.JPEG", "65"), ("b.JPEG", "970")]),
        ("\ufeffa.png 01\r\n\r\n# more\r\n  b.png   1\r\n", [("a.png", "01"), ("b.png", "1")]),
        ("my photo 1.jpg 3\ncat/2.jpg cat", [("my photo 1.jpg", "3"), ("cat/2.jpg", "cat")]),
        ("a.jpg\tgolden retriever\nb c.jpg\t5", [("a.jpg", "golden retriever"), ("b c.jpg", "5")]),
        ("a.jpg,cat\nb, c.jpg,dog", [("a.jpg", "cat"), ("b, c.jpg", "dog")]),
        ("a.jpg, cat\nb.jpg, dog", [("a.jpg", "cat"), ("b.jpg", "dog")]),
        ("a,b.jpg 1\nc,d.jpg 2", [("a,b.jpg", "1"), ("c,d.jpg", "2")]),
        ("path label\na.jpg 0", [("a.jpg", "0")]),
        ("# made by hand\nimage,class\na.jpg,0", [("a.jpg", "0")]),
        ("2008_000008 -1\n2008_000015  1", [("2008_000008", "-1"), ("2008_000015", "1")]),
        ("i1, 3\ni2, 4", [("i1", "3"), ("i2", "4")]),
        ("C:\\photos\\a.jpg 3\nb.jpg 3", [("C:\\photos\\a.jpg", "3"), ("b.jpg", "3")]),
        ("a\u2028b.jpg 1\n\u00fc.jpg 2", [("a\u2028b.jpg", "1"), ("\u00fc.jpg", "2")]),
    ],
)
def test_paths_and_labels(text: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(text) == expected


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "val.txt has no lines"),
        ("# nothing\n\npath label\n", "val.txt has no lines"),
        ("a.jpg 3\nb.jpg 3 5", "line 2 has several labels: '3 5'"),
        ("a.jpg,1,0,1", "line 1 has several labels: '1,0,1'"),
        ("a.jpg 10,20,30,40,1", "line 1 has several labels: '10,20,30,40,1'"),
        ("a.jpg\t1\t2", "line 1 has several labels"),
        ("a.jpg golden retriever", "line 1 has several labels: 'golden retriever'"),
        ("i1 3 5\ni2 4 6", "line 1 has several labels: '3 5'"),
        ("a.jpg 3\n\nb.jpg", "line 3 has no label: 'b.jpg'"),
        ("3\ta.jpg", "line 1 has the label first"),
        ("label path\n3 a.jpg", "line 2 has the label first"),
        ("a.jpg\nb.jpg", "has paths and no labels: 'a.jpg' is line 1"),
        ("This is a file that somebody\nshould read.", "line 1 is no line of a list of images: 'This is a"),
        ("numpy==2.0\ntorch>=2", "has paths and no labels"),
        (b"\xff\xfea\x00", "line 1 is not UTF-8"),
    ],
)
def test_what_is_no_list(text: str | bytes, said: str) -> None:
    message = refused(text)
    assert said in message
    assert "expected: " in message


def test_paths_alone_where_labels_are_optional() -> None:
    table = parse_list(b"path\na b.jpg\nc.jpg\n", "val.txt", labels_required=False)
    assert list(table) == ["path"]
    assert table["path"].tolist() == ["a b.jpg", "c.jpg"]
    assert "line 2 has no label" in refused("a.jpg 3\nb.jpg", labels_required=False)


def test_as_data(tmp_path: Path) -> None:
    file = tmp_path / "val.txt"
    file.write_text("a.jpg 10\nb.jpg 9\nc.jpg 10\nd.jpg 9\n")
    manifest = read_manifest(str(file))
    assert manifest.kind == "table"
    assert manifest.classes == ["9", "10"]
    assert manifest.files()[0] == str(tmp_path / "a.jpg")
    file.write_text("a.jpg\nb.jpg\n")
    assert not read_manifest(str(file), labels="optional").labelled
    file.write_text("x" * (5 << 20))
    with pytest.raises(DataError, match="a line has more than"):
        read_manifest(str(file))
