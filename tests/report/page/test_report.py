"""The page as a file: what is in it, from every kind of results, whatever is missing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from divacli.errors import DataError
from divacli.manifest import manifest_of
from divacli.report.figures.plots import kinds_of, plots_of
from divacli.report.page.galleries import all_samples, galleries
from divacli.report.page.payload import links, places_of, shown_paths
from divacli.report.page.thumbnails import thumbnail
from divacli.report.words import summary_sentences, tiles
from divacli.results.read import read_results


def payload(page: Path) -> dict[str, Any]:
    return json.loads(re.search(r'id="data">(.*?)</script>', page.read_text(), re.DOTALL)[1])


def names(page: Path) -> set[str]:
    return {one["name"] for one in payload(page)["galleries"]}


@pytest.fixture
def reported(scored: Any, diva: Callable[..., Any], tmp_path: Path) -> Callable[..., Path]:
    """Write a report of some results into a folder of its own."""

    def write(folder: Path | None = None, *options: object) -> Path:
        target = tmp_path / "report.html"
        cache = scored.data.parent / "cache"
        given = ("--out", target, "--cache-dir", cache, "--overwrite", *options)
        diva("report", folder or scored.folder, *given)
        return target

    return write


def test_the_same_results_give_the_same_bytes(reported: Callable[..., Path]) -> None:
    first = reported().read_bytes()
    assert reported().read_bytes() == first


def test_lists_are_those_of_the_scores(reported: Callable[..., Path], scored: Any) -> None:
    found = payload(reported())
    scores = pd.read_csv(scored.folder / "scores.csv")
    lists = {one["name"]: one for one in found["galleries"]}
    samples = found["samples"]
    for name, order in (("harmful", scores), ("useful", scores[::-1])):
        sign = 1 if name == "harmful" else -1
        wanted = order[sign * order["derivative"] > 0]
        assert lists[name]["total"] == len(wanted)
        shown = [samples["derivative"][row] for row in lists[name]["rows"]]
        assert np.allclose(shown, wanted["derivative"][: len(shown)], rtol=1e-5)
    assert all(thumbnail.startswith("data:image/webp;base64,") for thumbnail in found["thumbnails"])


def test_a_list_is_cut_at_the_limit_and_says_so(reported: Callable[..., Path]) -> None:
    found = payload(reported(None, "--limit", 4))
    for one in found["galleries"]:
        assert len(one["rows"]) == min(4, one["total"])
    assert len(found["samples"]["path"]) <= 4 * len(found["galleries"])


def test_without_the_cache_there_are_no_neighbours_and_the_page_says_why(
    scored: Any, diva: Callable[..., Any], tmp_path: Path
) -> None:
    target = tmp_path / "report.html"
    result = diva("report", scored.folder, "--out", target, "--cache-dir", tmp_path / "empty")
    assert "eighbours are not shown" in result.stderr
    assert "eighbours are not shown" in target.read_text()
    assert payload(target)["near"] == []


def test_missing_and_damaged_images_leave_a_gap(
    make_scored: Callable[..., Any], diva: Callable[..., Any]
) -> None:
    scored = make_scored(n=21)
    scored.files[0].unlink()
    scored.files[1].write_bytes(b"no image")
    diva("report", scored.folder, "--cache-dir", scored.data.parent / "cache")
    found = payload(scored.folder / "report.html")
    missing = {
        path for path, image in zip(found["samples"]["path"], found["thumbnails"], strict=True) if not image
    }
    assert missing == {scored.files[0].name, scored.files[1].name}


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (("prune", "--keep", "0.8"), {"dropped"}),
        (("prune", "--keep", "0.8", "--format", "parquet"), {"dropped"}),
        (("relabel", "--budget", "3", "--threshold", "0"), {"changes"}),
        (("reweight", "--steps", "1", "--step-size", "0.5"), {"lowered", "raised"}),
    ],
)
def test_report_on_a_command_shows_what_it_decided(
    scored: Any, diva: Callable[..., Any], tmp_path: Path, command: tuple[str, ...], expected: set[str]
) -> None:
    name, *options = command
    network = () if name == "prune" else ("--model", f"{scored.data.parent / 'net.py'}:make", "--workers", 0)
    data = scored.folder / "scores.csv" if name == "prune" else scored.data
    cache = scored.data.parent / "cache"
    result = diva(name, data, *options, *network, "--out", tmp_path, "--cache-dir", cache, "--report")
    assert "report.html" in result.stderr
    assert expected <= names(tmp_path / "report.html")
    assert f"diva {name}" in (tmp_path / "report.html").read_text()


def test_report_on_extend_shows_the_choice(scored: Any, diva: Callable[..., Any], tmp_path: Path) -> None:
    network = ("--model", f"{scored.data.parent / 'net.py'}:make", "--workers", 0)
    table = pd.read_json(scored.data, orient="records", lines=True)
    table["path"] = [str(scored.data.parent / path) for path in table["path"]]
    table[:40].to_csv(tmp_path / "core.csv", index=False)
    table[40:].to_csv(tmp_path / "pool.csv", index=False)
    diva(
        *("extend", tmp_path / "core.csv", "--pool", tmp_path / "pool.csv", "--budget", 5, *network),
        *("--out", tmp_path / "out", "--cache-dir", scored.data.parent / "cache", "--report"),
    )
    assert names(tmp_path / "out" / "report.html") == {"selected"}
    assert "Loss and error by samples chosen" in (tmp_path / "out" / "report.html").read_text()


def test_embeddings_without_images_have_a_page_too(diva: Callable[..., Any], tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 3
    features = np.eye(3)[labels] + generator.normal(size=(60, 3)) / 2
    paths = np.array([f"=row {row}" for row in range(60)])
    np.savez(tmp_path / "some.npz", embedding=features, label=labels, path=paths)
    cache = ("--cache-dir", tmp_path / "cache")
    diva("score", tmp_path / "some.npz", "--out", tmp_path / "out", "--report", *cache)
    found = payload(tmp_path / "out" / "report.html")
    assert set(found["samples"]["place"]) <= set(paths)
    assert not any(found["thumbnails"])
    assert not any(found["samples"]["link"])
    assert len(found["near"]) == len(found["samples"]["path"])


def test_true_labels_mark_wrong_ones_in_the_figures(
    scored: Any, reported: Callable[..., Path], tmp_path: Path
) -> None:
    right = {int(scored.truth[row]): label for row, label in enumerate(scored.labels) if row % 7}
    truth = pd.DataFrame({"path": scored.files, "label": [right[int(one)] for one in scored.truth]})
    truth.to_csv(tmp_path / "truth.csv", index=False)
    plain = reported().read_text()
    marked = reported(None, "--truth", tmp_path / "truth.csv").read_text()
    assert "wrong label" not in re.sub(r"(?s)<script.*", "", plain)
    assert marked.count("<path") > plain.count("<path")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda folder: None, "does not exist"),
        (lambda folder: folder.mkdir(), "holds no results"),
        (lambda folder: folder.write_text(""), "is no folder"),
        (
            lambda folder: (folder.mkdir(), (folder / "summary.json").write_text("{")),
            "is no JSON",
        ),
        (
            lambda folder: (folder.mkdir(), (folder / "summary.json").write_text("[]")),
            "no JSON object",
        ),
        (lambda folder: (folder.mkdir(), (folder / "scores.csv").write_text("a,b\n1,2\n")), "no column path"),
    ],
)
def test_what_is_no_folder_of_results_is_refused(
    run_diva: Callable[..., Any], tmp_path: Path, make: Callable[[Path], Any], said: str
) -> None:
    make(tmp_path / "out")
    for command in ("report", "review"):
        result = run_diva(command, tmp_path / "out", *(["--no-browser"] if command == "review" else []))
        assert result.exit_code == 1
        assert said in " ".join(result.stderr.split())
    assert not (tmp_path / "out" / "report.html").exists()


def test_report_needs_a_folder(run_diva: Callable[..., Any], scored: Any) -> None:
    result = run_diva("score", scored.data, "--out", "-", "--report")
    assert result.exit_code == 2
    assert "--report" in result.stderr


def test_one_sample_in_several_tables_is_one_sample(
    make_scored: Callable[..., Any], diva: Callable[..., Any]
) -> None:
    scored = make_scored(n=21)
    folder = scored.folder
    diva("prune", folder / "scores.csv", "--keep", "0.9", "--out", folder, "--cache-dir", folder.parent)
    results = read_results(folder)
    samples = all_samples(results)
    assert len(samples.table) == len(scored.files)
    assert samples.table["path"].is_unique
    found = {one.name: one for one in galleries(results, samples, None)}
    dropped = pd.read_csv(folder / "dropped.csv")["path"]
    assert samples.table["path"].iloc[found["dropped"].rows].tolist() == dropped.tolist()


def test_paths_are_shown_without_the_folder_that_all_lie_in() -> None:
    assert shown_paths(["/a/b/c/1.png", "/a/b/d/2.png"]) == ["c/1.png", "d/2.png"]
    assert shown_paths(["/a/1.png", "s3://b/2.png"]) == ["/a/1.png", "s3://b/2.png"]
    assert shown_paths(["row 1", "row 2"]) == ["row 1", "row 2"]
    assert shown_paths([]) == []


def test_a_thumbnail_is_small_upright_and_keeps_tiny_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (30, 20, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "tiny.png")
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(np.zeros((400, 800, 3), np.uint8)).save(tmp_path / "lying.jpg", exif=exif)

    def opened(name: str, side: int) -> Image.Image:
        import io

        return Image.open(io.BytesIO(thumbnail(str(tmp_path / name), side) or b""))

    assert np.array_equal(np.asarray(opened("tiny.png", 16).convert("RGB")), pixels)
    assert opened("lying.jpg", 100).size == (50, 100)
    assert thumbnail(str(tmp_path / "none.png")) is None


def test_links_lead_to_images_alone(tmp_path: Path) -> None:
    (tmp_path / "link.png").symlink_to("page.html")
    (tmp_path / "Named.jpg").symlink_to("stored.JPEG")
    expected = {
        "a b.png": "a%20b.png",
        "A.WebP": "A.WebP",
        "javascript:alert(1).png": "javascript%3Aalert%281%29.png",
        "x.html?.png": "x.html%3F.png",
        "Named.jpg": "Named.jpg",
        "link.png": None,
        "x.html": None,
        "x.png.html": None,
        "x.svg": None,
        "x.tif": None,
        "x": None,
        ".png": None,
        "zero\0.png": None,
        "javascript://%0aalert(1).png": None,
        "s3://b/1.png": None,
        "filecache::https://h/1.png": None,
        "https://h/2.png": "https://h/2.png",
        "http://h/2.AVIF?size=1#x": "http://h/2.AVIF?size=1#x",
        "https://h/x.html?.png": None,
        "https://h/x.html#.png": None,
        "https://h.png": None,
        "https://h": None,
    }
    table = pd.DataFrame({"path": list(expected), "label": ["x", "y"] * (len(expected) // 2)})
    samples = manifest_of(table, tmp_path)
    found = links(samples, places_of(samples), np.arange(len(expected)), tmp_path)
    assert dict(zip(expected, found["link"], strict=True)) == expected
    files = dict(zip(expected, found["file"], strict=True))
    assert (files["x.html"], files["https://h/2.png"]) == ("x.html", None)


WRONG: list[Any] = [None, {}, [], "text", -1, [{}], {"x": None}, True]


@pytest.mark.parametrize("wrong", WRONG, ids=repr)
def test_a_summary_that_somebody_edited_is_an_error_about_the_folder(
    scored: Any, tmp_path: Path, wrong: Any
) -> None:
    """Each value of it in turn is of another kind."""
    folder = tmp_path / "results"
    shutil.copytree(scored.folder, folder)
    whole = json.loads((folder / "summary.json").read_text())
    refused = 0
    for name in whole:
        (folder / "summary.json").write_text(json.dumps({**whole, name: wrong}))
        results = read_results(folder)
        try:
            with results.read_as_written():
                tiles(results.summaries)
                list(summary_sentences(results.summaries))
            if "ridge" in kinds_of(results) and "ridge" in name:  # nothing else is plotted
                plots_of(results, "ridge")
        except DataError as error:
            refused += "is not as diva writes it" in str(error)
    assert refused


@pytest.mark.parametrize("written", ["choice", "everything"])
def test_the_forecast_of_pruning_is_told(written: str) -> None:
    gone = 30 if written == "choice" else 0
    summary = {
        **{"n_kept": 300 - gone, "n_dropped": gone, "n_chosen": 30, "written": written},
        "forecast": {"chosen": "balanced", "error": {"nothing": 0.2, "balanced": 0.155, "random": 0.21}},
    }
    [found] = summary_sentences({"prune": summary})
    assert found.lead == f"{300 - gone} of 300 samples kept by diva prune"
    assert found.rest == (
        ": forecast error on new images 20.0% with all of them, 15.5% without the 30 chosen to go"
    )
    [without] = summary_sentences({"prune": {**summary, "forecast": None}})
    assert without.rest == ""


@pytest.mark.parametrize("content", ["{}", '{"n_samples": "many"}'])
def test_a_summary_of_another_program(
    scored: Any, tmp_path: Path, content: str, run_diva: Callable[..., Any]
) -> None:
    shutil.copytree(scored.folder, tmp_path / "results")
    (tmp_path / "results/summary.json").write_text(content)
    said = run_diva("report", tmp_path / "results", "--out", tmp_path / "page.html")
    assert said.exit_code == 1
    assert "holds a table or a JSON file that is not as diva writes it" in said.stderr
    assert not (tmp_path / "page.html").exists()
