"""The page in a real browser: nothing is loaded, nothing fails, and decisions come out as they were made."""

from __future__ import annotations

import csv
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pandas as pd
import pytest

from divacli.errors import OutputError

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ALONE = ("--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-gpu")
"""The browser itself asks nobody for anything either."""

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        # A container's root has no sandbox to offer; the pages are our own.
        found = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *ALONE])
        yield found
        found.close()


@pytest.fixture
def context(browser: Any) -> Iterator[Any]:
    """A browser profile of its own."""
    found = browser.new_context(accept_downloads=True, viewport={"width": 1280, "height": 900})
    yield found
    found.close()


@pytest.fixture
def opened(context: Any) -> Iterator[Callable[[str], Any]]:
    """Open an address; at the end of the test, the page must have had no error and loaded nothing else."""
    trouble: list[str] = []

    def show(address: str) -> Any:
        page = context.new_page()
        page.on("console", lambda message: trouble.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: trouble.append(f"error: {error}"))
        page.on(
            "request", lambda asked: trouble.append(f"request: {asked.url}") if outside(asked.url) else None
        )
        page.on("dialog", lambda dialog: trouble.append(f"dialog: {dialog.message}"))

        def outside(url: str) -> bool:
            return not (url.startswith(("data:", "blob:")) or url.startswith(address))

        page.goto(address)
        page.wait_for_selector("#cards article")
        return page

    yield show
    assert trouble == []


@pytest.fixture(scope="module")
def page(scored: Any, diva: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of plain results in a folder beside those of the tests; not to be changed."""
    target = tmp_path_factory.mktemp("written") / "report.html"
    written(scored, diva, target)
    return target


@pytest.fixture
def address(page: Path, tmp_path: Path) -> str:
    """Address of a copy of that report: a browser keeps decisions by the address."""
    return shutil.copy(page, tmp_path / "report.html").as_uri()


@pytest.fixture
def report(opened: Callable[[str], Any], address: str) -> Any:
    """The report of plain results, open."""
    return opened(address)


def written(scored: Any, diva: Callable[..., Any], target: Path) -> str:
    """Write the report of a folder of results, and give its address."""
    diva("report", scored.folder, "--out", target, "--cache-dir", scored.data.parent / "cache")
    return target.as_uri()


def downloaded(page: Any, target: Path) -> Path:
    with page.expect_download() as found:
        page.click("#download")
    assert found.value.suggested_filename == "decisions.csv"
    found.value.save_as(target)
    return target


def paths(page: Any) -> list[str]:
    return page.locator("#cards .path").all_text_contents()


def choose(page: Any, title: str) -> None:
    page.locator("#galleries button", has_text=title).click()


def test_galleries_show_every_sample_with_its_thumbnail_and_neighbours(report: Any, scored: Any) -> None:
    choose(report, "Most harmful")
    table = pd.read_csv(scored.folder / "scores.csv")
    harmful = table[table["derivative"] > 0]
    assert [path.rpartition("/")[2] for path in paths(report)] == [
        path.rpartition("/")[2] for path in harmful["path"]
    ]
    assert report.locator("#cards .image img").evaluate_all(
        "images => images.every(image => image.complete && image.naturalWidth > 0 && !image.hidden)"
    )
    first = report.locator("#cards article").first
    assert first.locator(".near li").count() == 6
    assert (
        first.locator(".near p").all_text_contents()[0].startswith(f"nearest of {harmful['label'].iloc[0]}:")
    )
    assert first.locator(".given").text_content() == harmful["label"].iloc[0]
    assert first.locator(".suggested").text_content() == harmful["suggested_label"].iloc[0]


def test_wrong_labels_are_found_by_the_first_list(report: Any, scored: Any) -> None:
    assert report.locator("#galleries button").first.text_content().startswith("Probably mislabelled")
    shown = [str(scored.folder.parent / "photos" / path) for path in paths(report)]
    assert set(shown[: len(scored.wrong)]) == scored.wrong


def test_filters_search_and_sorting(report: Any, scored: Any) -> None:
    everything = paths(report)
    report.select_option("#by-label", index=1)
    assert 0 < len(paths(report)) < len(everything)
    assert len(set(report.locator("#cards .given").all_text_contents())) == 1
    report.select_option("#by-label", "")
    report.fill("#search", everything[0].upper())
    playwright.expect(report.locator("#cards article")).to_have_count(1)
    report.fill("#search", "")
    playwright.expect(report.locator("#cards article")).to_have_count(len(everything))
    report.select_option("#sort", "path")
    assert paths(report) == sorted(everything)
    report.select_option("#sort", "harmful")
    ranked = [path.rpartition("/")[2] for path in pd.read_csv(scored.folder / "scores.csv")["path"]]
    assert paths(report) == [path for path in ranked if path in everything]


def test_decisions_by_key_come_out_of_the_download_and_through_apply(
    report: Any, scored: Any, diva: Callable[..., Any], tmp_path: Path
) -> None:
    shown = paths(report)
    given = report.locator("#cards .given").all_text_contents()
    suggested = report.locator("#cards .suggested").all_text_contents()
    report.keyboard.press("ArrowRight")
    for key in ("d", "r", "k", "d", "u"):
        report.keyboard.press(key)
    assert report.locator("#cards .state").all_text_contents()[:5] == [
        "drop",
        f"relabel as {suggested[1]}",
        "keep",
        "",
        "",
    ]
    assert "3 of them decided" in report.locator("#progress").text_content()
    file = downloaded(report, tmp_path / "decisions.csv")
    found = pd.read_csv(file).set_index("path")
    folder = scored.folder.parent / "photos"
    assert dict(found["decision"]) == {
        str(folder / shown[0]): "drop",
        str(folder / shown[1]): "relabel",
        str(folder / shown[2]): "keep",
    }
    assert found.loc[str(folder / shown[1]), ["label", "given_label"]].tolist() == [suggested[1], given[1]]
    diva("apply", scored.data, file, "--out", tmp_path / "curated")
    applied = pd.read_csv(tmp_path / "curated" / "applied.csv")
    names = applied["path"].map(lambda path: path.rpartition("/")[2])
    assert shown[0] not in set(names)
    assert applied["label"][names == shown[1]].tolist() == [suggested[1]]
    assert len(applied) == len(scored.files) - 1


def test_an_interrupted_review_continues(opened: Callable[[str], Any], address: str) -> None:
    page = opened(address)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    page.close()
    again = opened(address)
    assert "1 of them decided" in again.locator("#progress").text_content()
    assert again.locator("#cards .state").all_text_contents()[0] == "drop"
    again.select_option("#by-decision", "none")
    assert len(paths(again)) == 47  # of the 48 in the list


def test_downloaded_decisions_are_loaded_by_another_browser(
    browser: Any, report: Any, scored: Any, tmp_path: Path
) -> None:
    report.keyboard.press("ArrowRight")
    report.keyboard.press("d")
    report.keyboard.press("l")
    report.fill("#relabel-label", '=quite, "new"')
    report.keyboard.press("Enter")
    assert report.locator("#relabel").is_visible()
    assert "is a new class" in report.locator("#relabel-new").text_content()
    report.keyboard.press("Enter")
    playwright.expect(report.locator("#cards .state").nth(1)).to_have_text('relabel as =quite, "new"')
    states = report.locator("#cards .state").all_text_contents()
    assert states[0] == "drop"
    file = downloaded(report, tmp_path / "decisions.csv")
    assert "\"'=quite" in file.read_text()
    other = browser.new_context().new_page()
    other.goto(report.url)
    other.set_input_files("#file", file)
    playwright.expect(other.locator("#progress")).to_contain_text("2 of them decided")
    assert other.locator("#cards .state").all_text_contents() == states
    other.set_input_files("#file", {"name": "x.csv", "mimeType": "text/csv", "buffer": b"a,b\n1,2\n"})
    playwright.expect(other.locator("#alert")).to_contain_text("holds no decisions")
    other.context.close()


def test_hostile_names_appear_as_themselves_and_run_nothing(
    opened: Callable[[str], Any],
    make_scored: Callable[..., Any],
    diva: Callable[..., Any],
    hostile: tuple[str, ...],
    tmp_path: Path,
) -> None:
    for start in range(0, len(hostile), 3):
        names = hostile[start : start + 3]
        found = make_scored(names, 21)
        page = opened(written(found, diva, tmp_path / f"{start}.html"))
        choose(page, "Most useful")
        assert set(page.locator("#cards .given").all_text_contents()) <= set(names)
        files = {file.name for file in found.files}
        assert {path.rpartition("photos/")[2] for path in paths(page)} <= files
        assert page.title() == "diva report: out"
        page.keyboard.press("ArrowRight")
        for _ in paths(page):
            page.keyboard.press("r")
        file = downloaded(page, tmp_path / f"{start}.csv")
        diva("apply", found.data, file, "--out", tmp_path / f"{start}")
        changed = pd.read_json(tmp_path / f"{start}" / "apply.json", typ="series")
        assert changed["n_relabelled"] == len(pd.read_csv(file))


def test_dark_and_light(report: Any) -> None:
    def background() -> str:
        return report.evaluate("getComputedStyle(document.body).backgroundColor")

    light = background()
    report.click("#theme")
    assert background() != light
    report.reload()
    assert background() != light


@pytest.mark.parametrize("width", [360, 1280])
def test_no_sideways_scrolling(report: Any, width: int) -> None:
    report.set_viewport_size({"width": width, "height": 800})
    assert report.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_accessible_names_roles_and_contrast(report: Any, theme: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
    report.evaluate("theme => { document.documentElement.dataset.theme = theme }", theme)
    found = axe.Axe().run(report)
    assert found.violations_count == 0, found.generate_report()


def test_keys_are_left_alone_while_somebody_types(report: Any) -> None:
    report.click("#search")
    report.keyboard.type("dkr")
    assert report.input_value("#search") == "dkr"
    assert "0 in all" in report.locator("#progress").text_content()


def test_an_image_is_seen_large_from_its_own_file(
    context: Any, scored: Any, diva: Callable[..., Any]
) -> None:
    page = context.new_page()
    page.goto(written(scored, diva, scored.folder / "report.html"))
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    assert page.locator("#zoom").is_visible()
    source = page.locator("#zoom-image").evaluate("image => image.src")
    assert unquote(urlsplit(source).path) == str(scored.folder.parent / "photos" / paths(page)[0])
    page.keyboard.press("Escape")
    assert not page.locator("#zoom").is_visible()


def test_a_file_is_opened_only_if_its_name_is_that_of_an_image(
    context: Any, make_scored: Callable[..., Any], diva: Callable[..., Any]
) -> None:
    scored = make_scored(n=21)
    scores = scored.folder / "scores.csv"
    files = scored.files[:5]
    names = ["x.html", "x.svg", "x", "link.png", "x.png"]
    for file, name in zip(files, names, strict=True):
        scores.write_text(scores.read_text().replace(f"/{file.name},", f"/{name},"))
        file.rename(file.with_name(name if name != "link.png" else "y.html"))
    # A browser goes by the name of the file that a link in the file system leads to.
    files[0].with_name("link.png").symlink_to("y.html")
    page = context.new_page()
    page.goto(written(scored, diva, scored.folder / "report.html"))
    for name in names:
        page.get_by_label(f"See {name} large", exact=True).click()
        shown = page.locator("#zoom-image")
        playwright.expect(shown).to_have_js_property("complete", True)
        assert shown.evaluate("image => image.naturalWidth") == 24
        link = page.locator("#zoom-file")
        assert (link.is_visible(), link.get_attribute("href") is not None) == ((name == "x.png",) * 2)
        page.keyboard.press("Escape")


def test_the_keys_are_told(report: Any) -> None:
    report.keyboard.press("?")
    assert report.locator("#keys").is_visible()


def test_the_page_prints(report: Any) -> None:
    report.emulate_media(media="print")
    assert not report.locator(".tools").is_visible()
    assert report.locator("#cards article").first.is_visible()


def test_served_decisions_are_on_disk_at_once(
    opened: Callable[[str], Any], scored: Any, serving: Callable[..., str]
) -> None:
    page = opened(serving(scored))
    choose(page, "All samples")
    assert len(paths(page)) == 48  # of 63: the first page
    page.keyboard.press("]")
    assert len(paths(page)) == 15
    page.wait_for_selector("#cards .near li")
    page.keyboard.press("d")
    playwright.expect(page.locator("#cards .state").first).to_have_text("drop")
    file = scored.folder / "decisions.csv"
    page.wait_for_timeout(300)  # the request that saves it is on its way
    assert pd.read_csv(file)["decision"].tolist() == ["drop"]
    page.reload()
    page.wait_for_selector("#cards article")
    assert "1 in all" in page.locator("#progress").text_content()


def states(page: Any) -> list[str]:
    return page.locator("#cards .state").all_text_contents()


def test_keys_decide_about_the_card_that_was_clicked_or_tabbed_to(context: Any, address: str) -> None:
    page = context.new_page()
    page.goto(address)
    page.locator("#cards .image").nth(4).click()
    page.keyboard.press("Escape")
    page.keyboard.press("d")
    assert states(page)[:6] == ["", "", "", "", "drop", ""]
    page.locator("#cards article").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Tab")  # to the image of the second card
    page.keyboard.press("k")
    assert states(page)[:3] == ["", "keep", ""]


def test_a_key_held_down_decides_about_one_image(report: Any) -> None:
    report.keyboard.press("ArrowRight")
    for _ in range(4):
        report.keyboard.down("d")
    report.keyboard.up("d")
    assert states(report)[:3] == ["drop", "", ""]


def test_two_tabs_add_up(opened: Callable[[str], Any], address: str) -> None:
    first, second = opened(address), opened(address)
    first.keyboard.press("ArrowRight")
    first.keyboard.press("d")
    playwright.expect(second.locator("#progress")).to_contain_text("1 of them decided")
    second.locator("#cards article").nth(2).focus()
    second.keyboard.press("k")
    playwright.expect(first.locator("#cards .state").nth(2)).to_have_text("keep")
    first.reload()
    assert states(first)[:3] == ["drop", "", "keep"]


def test_loading_says_what_is_left_out_and_is_undone_in_one_step(
    report: Any, scored: Any, tmp_path: Path
) -> None:
    folder = scored.folder.parent / "photos"
    shown = paths(report)
    report.keyboard.press("ArrowRight")
    report.keyboard.press("k")
    file = tmp_path / "theirs.csv"
    rows = [
        "path,decision,label,given_label",
        f"{folder / shown[0]},Drop,,",
        f"{folder / shown[1]},relabel,zebra,",
        f"{folder / shown[2]},keep,zebra,zebra",
        f"{folder / shown[3]},relabel,,",
        f"{folder / shown[4]},relabel, \u00a0\t,",
        "/home/bob/photos/x.png,drop,,",
    ]
    file.write_text("\n".join(rows) + "\n")
    report.set_input_files("#file", file)
    playwright.expect(report.locator("#alert")).to_contain_text(
        "1 about other images, 1 made when the label was another, 2 without a decision"
    )
    assert states(report)[:4] == ["drop", "relabel as zebra", "", ""]
    assert "1 of them replaced" in report.locator("#said").text_content()
    report.locator("#cards article").first.focus()
    report.keyboard.press("u")
    assert states(report)[:4] == ["keep", "", "", ""]


def test_copies_of_the_data_have_decisions_of_their_own(
    opened: Callable[[str], Any], scored: Any, diva: Callable[..., Any], tmp_path: Path, address: str
) -> None:
    page = opened(address)
    page.keyboard.press("ArrowRight")
    page.keyboard.press("d")
    other = tmp_path / "elsewhere"
    shutil.copytree(scored.folder.parent, other)
    diva("report", other / "out", "--cache-dir", other / "cache", "--overwrite")
    copy = opened((other / "out" / "report.html").as_uri())
    assert "0 in all" in copy.locator("#progress").text_content()


def test_another_label_with_spaces_and_breaks_is_the_class_itself(
    opened: Callable[[str], Any], make_scored: Callable[..., Any], diva: Callable[..., Any], tmp_path: Path
) -> None:
    names = (" lead", "line\nbreak", "plain")
    page = opened(written(make_scored(names, 21), diva, tmp_path / "report.html"))
    page.locator("#cards article").first.focus()
    given = page.locator("#cards .given").first.text_content()
    wanted = next(name for name in names if name != given and name != "plain")
    page.keyboard.press("l")
    page.fill("#relabel-label", " ".join(wanted.split()))
    assert page.locator("#relabel-new").text_content() == ""
    page.keyboard.press("Enter")
    # A line break in a label is shown as a space.
    playwright.expect(page.locator("#cards .state").first).to_have_text(
        f"relabel as {' '.join(wanted.split())}"
    )
    assert states(page)[0] == f"relabel as {wanted}"


def test_decisions_arrive_once_the_disk_has_room_again(
    context: Any,
    make_scored: Callable[..., Any],
    serving: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scored = make_scored(n=21)
    page = context.new_page()
    page.goto(serving(scored))
    page.wait_for_selector("#cards article")
    page.locator("#cards article").first.focus()

    def full(*arguments: object) -> None:
        raise OutputError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr("divacli.manifest.write.write_bytes", full)
        page.keyboard.press("d")
        playwright.expect(page.locator("#alert")).to_contain_text("no space left")
        page.keyboard.press("d")
        playwright.expect(page.locator("#progress")).to_contain_text("2 not saved yet")
    playwright.expect(page.locator("#progress")).to_contain_text("saved in decisions.csv", timeout=10_000)
    assert page.locator("#alert").is_hidden()
    assert pd.read_csv(scored.folder / "decisions.csv")["decision"].tolist() == ["drop", "drop"]


def test_decisions_of_a_page_are_loaded_into_a_review(
    opened: Callable[[str], Any], make_scored: Callable[..., Any], serving: Callable[..., str], tmp_path: Path
) -> None:
    scored = make_scored(n=21)
    page = opened(serving(scored))
    file = tmp_path / "decisions.csv"
    file.write_text("path,decision\n" + "".join(f"{image},drop\n" for image in scored.files[:3]))
    page.set_input_files("#file", file)
    playwright.expect(page.locator("#progress")).to_contain_text("3 in all; saved in decisions.csv")
    assert len(pd.read_csv(scored.folder / "decisions.csv")) == 3


@pytest.fixture
def short_cells() -> Iterator[int]:
    """Have no cell of a table longer than this read."""
    usual = csv.field_size_limit(1_000)
    yield 1_000
    csv.field_size_limit(usual)


def test_a_review_takes_back_what_is_refused_says_why_and_saves_the_rest(
    context: Any,
    make_scored: Callable[..., Any],
    serving: Callable[..., str],
    short_cells: int,
    tmp_path: Path,
) -> None:
    scored = make_scored(n=21)
    page = context.new_page()
    page.goto(serving(scored))
    page.wait_for_selector("#cards article")
    choose(page, "All samples")
    labels = {0: "zebra", 1: " ", 2: "x" * (short_cells + 1), 3: "\u00a0", 4: "horse"}
    rows = [f"{scored.files[row]},relabel,{label}" for row, label in labels.items()]
    (tmp_path / "theirs.csv").write_text("\n".join(["path,decision,label", *rows]) + "\n")
    page.set_input_files("#file", tmp_path / "theirs.csv")
    alert = page.locator("#alert")
    playwright.expect(alert).to_contain_text(f"taken back: the decision about {scored.files[2]}.")
    playwright.expect(alert).to_contain_text("field larger than field limit")
    playwright.expect(page.locator("#progress")).to_contain_text("2 in all; saved in decisions.csv")
    saved = pd.read_csv(scored.folder / "decisions.csv").sort_values("label")
    assert saved["label"].tolist() == ["horse", "zebra"]
    assert sorted(filter(None, states(page))) == ["relabel as horse", "relabel as zebra"]
    page.locator("#cards article").first.focus()
    page.keyboard.press("d")
    playwright.expect(alert).to_be_hidden()


def test_keys_decide_about_no_card_that_is_out_of_sight(report: Any) -> None:
    report.locator("#cards article").first.focus()
    report.evaluate("scrollTo({ top: document.body.scrollHeight / 2, behavior: 'instant' })")
    playwright.expect(report.locator("#cards article").first).not_to_be_in_viewport()
    report.keyboard.press("d")
    assert "0 in all" in report.locator("#progress").text_content()
    assert report.evaluate("document.activeElement.getBoundingClientRect().bottom") > 60
    report.keyboard.press("d")
    assert "1 in all" in report.locator("#progress").text_content()
    assert states(report)[0] == ""


def test_large_images_are_decided_on_one_after_the_other(context: Any, address: str) -> None:
    page = context.new_page()
    page.goto(address)
    shown = paths(page)
    page.locator("#cards .image").first.click()
    page.keyboard.press("d")
    assert page.locator("#zoom-title").text_content() == shown[1]
    page.keyboard.press("ArrowRight")
    page.locator("#zoom [data-do=keep]").click()
    assert page.locator("#zoom-title").text_content() == shown[3]
    page.keyboard.press("u")
    assert page.locator("#zoom-title").text_content() == shown[2]
    page.keyboard.press("l")
    page.locator("#relabel-classes button").first.click()
    playwright.expect(page.locator("#zoom-title")).to_have_text(shown[3])
    page.keyboard.press("u")
    page.keyboard.press("Escape")
    playwright.expect(page.locator("#zoom")).to_be_hidden()
    assert states(page)[:4] == ["drop", "", "", ""]
    playwright.expect(page.locator("#cards article").nth(2)).to_be_focused()


def test_a_pressed_button_takes_its_decision_back(report: Any) -> None:
    keep = report.locator("#cards [data-do=keep]").first
    keep.click()
    assert states(report)[0] == "keep"
    keep.click()
    assert states(report)[0] == ""
    assert keep.get_attribute("aria-pressed") == "false"


def test_another_label_is_a_click_on_its_class(report: Any) -> None:
    given = report.locator("#cards .given").first.text_content()
    report.locator("#cards [data-do=other]").first.click()
    assert report.locator("#relabel-path").text_content() == paths(report)[0]
    wanted = next(name for name in ("red", "green", "blue") if name != given)
    report.locator("#relabel-classes button", has_text=wanted).click()
    playwright.expect(report.locator("#cards .state").first).to_have_text(f"relabel as {wanted}")


def test_cards_show_the_whole_image(report: Any) -> None:
    assert report.locator("#cards .image img, #cards .near img").evaluate_all(
        "images => images.every(image => getComputedStyle(image).objectFit === 'contain'"
        " && image.clientHeight <= image.parentElement.clientHeight + 1)"
    )
