"""Draw the README's picture of the terminal: `python docs/picture.py` scores the demonstration's digits."""

import tempfile
from pathlib import Path

import torch
from rich.console import Console

from divacli.curate.score import score
from divacli.curate.solution import SolveOptions
from divacli.curate.verify import verify
from divacli.demo.digits import make_digits
from divacli.embed import BackboneChoice, ExtractOptions, load_samples
from divacli.report.terminal import score_summary

COMMAND = "diva score labels.csv --model network.py:digit_net --checkpoint checkpoint.pt --verify 20"


def main() -> None:
    """Write docs/images/score.svg."""
    with tempfile.TemporaryDirectory() as folder:
        digits = make_digits(Path(folder))
        choice = BackboneChoice(f"{digits.factory}:digit_net", digits.checkpoint)
        options = ExtractOptions(torch.device("cpu"))
        samples = load_samples(str(digits.labels), choice, options, Path(folder) / "cache")
        result = score(samples, SolveOptions())
        verification = verify(result, 20)
    with Path("/dev/null").open("w") as nowhere:
        console = Console(record=True, width=96, file=nowhere, force_terminal=True, highlight=False)
        console.print(f"[bold]$[/bold] {COMMAND}")
        for part in score_summary(result, verification):
            console.print(part)
    target = Path(__file__).parent / "images" / "score.svg"
    target.write_text(console.export_svg(title="diva score"))


if __name__ == "__main__":
    main()
