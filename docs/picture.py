"""Draw the README's pictures, of the demonstration's digits: `python docs/picture.py`; needs Chromium."""

import shutil
import tempfile
from pathlib import Path

import torch
from playwright.sync_api import sync_playwright
from rich.console import Console
from typer.testing import CliRunner

from divacli.cli.app import app
from divacli.curate.sample_scores import score
from divacli.curate.verify import verify
from divacli.demo.digits import make_digits
from divacli.features import BackboneChoice, ExtractOptions, load_samples
from divacli.report.terminal.score import score_summary
from divacli.solve.ridge_problem import SolveOptions

COMMAND = "diva score labels.csv --model network.py:digit_net --checkpoint checkpoint.pt --verify 20"
IMAGES = Path(__file__).parent / "images"


def main() -> None:
    """Write the files of docs/images that show the terminal and the page of a report."""
    with tempfile.TemporaryDirectory() as name:
        draw_terminal(Path(name))
        draw_page(Path(name))


def draw_terminal(folder: Path) -> None:
    """Write score.svg."""
    digits = make_digits(folder)
    choice = BackboneChoice(f"{digits.factory}:digit_net", digits.checkpoint)
    options = ExtractOptions(torch.device("cpu"))
    samples = load_samples(str(digits.labels), choice, options, folder / "cache")
    result = score(samples, SolveOptions())
    verification = verify(result, 20)
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=96, file=nowhere, force_terminal=True, highlight=False)
        console.print(f"[bold]$[/bold] {COMMAND}")
        for part in score_summary(result, verification):
            console.print(part)
    (IMAGES / "score.svg").write_text(console.export_svg(title="diva score"))


def draw_page(folder: Path) -> None:
    """Write report.png, as wide as a desktop, and report-phone.png."""
    done = CliRunner().invoke(app, ["demo", "--out", str(folder / "demo"), "--quiet"])
    if done.exit_code:
        raise SystemExit(done.stderr)
    chromium = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        for target, width, height in (("report", 1280, 960), ("report-phone", 390, 960)):
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto((folder / "demo" / "scores" / "report.html").as_uri())
            page.keyboard.press("ArrowRight")
            for key in ("r", "d"):
                page.keyboard.press(key)
            page.locator("#galleries" if width > 1000 else "#cards").evaluate(
                "part => window.scrollTo(0, part.getBoundingClientRect().top + scrollY - 70)"
            )
            page.wait_for_timeout(500)
            page.screenshot(path=IMAGES / f"{target}.png")
        browser.close()


if __name__ == "__main__":
    main()
