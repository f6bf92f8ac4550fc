"""Labels and names that would leave the folder that is made: nothing is ever written outside of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from urllib.parse import unquote

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from divacli.errors import OutputError
from divacli.manifest import manifest_of
from divacli.progress import silent
from divacli.review.materialize import laid_out, materialize, safe_name

EVIL = [
    *(
        "../../etc",
        "..",
        ".",
        "/etc/passwd",
        "a/../../b",
        "",
        "\0",
        "a\0b",
        "x\ny",
        "\r",
        "\x1b[2J",
        "~",
        "~root",
    ),
    *(
        "x" * 300,
        "é" * 200,
        "CON",
        "nul.txt",
        "a:b",
        "C:\\x",
        "\\\\server\\share",
        ".ssh",
        "-rf",
        "metadata.csv",
    ),
    *(
        "%2e%2e",
        "%00",
        "\u202egpj.exe",
        "ﬀ",
        "\u2044etc",
        "e\u0301",
        "__pycache__",
        " ",
        "a ",
        "*",
        "$(id)",
        "`id`",
    ),
]

# What paths are made of, more often than chance would have it.
texts = st.one_of(
    st.sampled_from(EVIL),
    st.text(
        st.sampled_from(["/", "\\", ".", "%", "\0", "\n", ":", "a", "é", "~", "2", "E", "\x1b"]),
        max_size=12,
    ),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=300),
)


@given(texts)
@settings(deadline=None, max_examples=200)
def test_a_name_stays_where_it_is_put(text: str) -> None:
    name = safe_name(text)
    assert os.path.normpath(f"/safe/{name}") == f"/safe/{name}"
    assert "/" not in name
    assert len(name.encode()) <= 240
    assert not any(ord(char) < 32 or 127 <= ord(char) < 160 for char in name)
    if "~" not in name[-30:]:
        assert ("" if name == "%" else unquote(name)) == text


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=12))
@settings(deadline=None, max_examples=100)
def test_all_places_are_different_and_inside(given_names: list[tuple[str, str]]) -> None:
    labels, names = zip(*given_names, strict=True)
    places = laid_out(labels, names, [str(number) for number in range(len(names))])
    assert len(set(places)) == len(places)
    for place in places:
        assert os.path.normpath(f"/safe/{place}") == f"/safe/{place}"
        assert place.count("/") == 1


@given(labels=st.lists(texts.filter(str.strip), min_size=2, max_size=6, unique=True))
@settings(
    deadline=None,
    max_examples=25,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_files_are_made_below_the_folder_alone(
    tmp_path_factory: pytest.TempPathFactory, labels: list[str]
) -> None:
    top = tmp_path_factory.mktemp("names")
    Image.new("RGB", (2, 2)).save(top / "x.png")
    rows = []
    for number, label in enumerate(labels):
        (top / f"{number}.png").write_bytes((top / "x.png").read_bytes())
        rows.append({"path": f"{number}.png", "label": label})
    manifest = manifest_of(pd.DataFrame(rows), top)
    before = {str(path) for path in top.rglob("*")}
    materialize(manifest, top / "out" / "images", "copy", "jsonl", silent)
    new = {str(path) for path in top.rglob("*")} - before
    assert all(path == f"{top}/out" or path.startswith(f"{top}/out/images") for path in new)
    assert len(list((top / "out" / "images").glob("*/*.png"))) == len(labels)


@pytest.fixture
def elsewhere(tmp_path: Path) -> Path:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("planted", ["images", "images/a"])
def test_links_that_wait_in_the_results(
    planted: str, photos: Path, elsewhere: Path, run: Callable, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    (out / planted).parent.mkdir(parents=True)
    (out / planted).symlink_to(elsewhere)
    (tmp_path / "d.csv").write_text("path,decision\na/000.png,drop\n")
    result = run("apply", photos, "d.csv", "--materialize", "copy", "--out", out, "--overwrite")
    assert "Traceback" not in result.stderr
    assert not list(elsewhere.iterdir())


def test_tables_replace_links_and_do_not_follow_them(
    photos: Path, network: Path, run: Callable, tmp_path: Path
) -> None:
    mine = tmp_path / "mine.txt"
    mine.write_text("precious")
    (tmp_path / "diva-out").mkdir()
    for name in ("scores.csv", "summary.json", "run.json", "failed.csv"):
        (tmp_path / "diva-out" / name).symlink_to(mine)
    run("score", photos, "--model", f"{network}:make", "--overwrite")
    assert mine.read_text() == "precious"


@pytest.mark.parametrize("planted", ["images", "images/000000.png"])
def test_links_that_wait_for_the_images_of_a_data_set(planted: str, elsewhere: Path, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    from divacli.interchange.huggingface import from_dataset

    mine = elsewhere / "mine.txt"
    mine.write_text("precious")
    target = tmp_path / "target"
    (target / planted).parent.mkdir(parents=True)
    (target / planted).symlink_to(elsewhere if planted == "images" else mine)
    images = [Image.new("RGB", (2, 2), (number, 0, 0)) for number in range(2)]
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("string"))
    data = datasets.Dataset.from_dict({"image": images, "label": ["a", "b"]}, features=features)
    with pytest.raises(OutputError, match="through a symbolic link"):
        from_dataset(data, target)
    assert mine.read_text() == "precious"
    assert [file.name for file in elsewhere.iterdir()] == ["mine.txt"]
