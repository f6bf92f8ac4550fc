"""What a person sees: the sign, the samples, the classes; and nothing that a label could do to a terminal."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from rich.console import Console

from divacli.curate.outlook import Outlook
from divacli.curate.prune import Pruning
from divacli.curate.prune_rules import Choice
from divacli.curate.verify import Verification
from divacli.report.terminal.plain import plain
from divacli.report.terminal.prune import prune_summary, pruning_verdict
from divacli.report.terminal.score import score_summary
from divacli.ridge import Forecast

EVIL = "[red]x[/red]"
ESCAPE = "\x1b[31mred\x1b[0m"
NO_GROUPS = {"group": None, "n_groups": None}
SUMMARY = {
    "n_samples": 12,
    "n_classes": 3,
    "n_features": 512,
    "n_failed": 0,
    "n_embedded": 7,
    "n_harmful": 4,
    "n_significant": 2,
    "noise_rate": 0.125,
    "noise_interval": [0.04, 0.22],
    "mislabelled": {"n": 1, "expected_precision": 0.9, "expected_recall": 0.6},
    "confusions": [{"given": "a", "suggested": "b", "expected": 1.2}],
    "n_outliers": 1,
    "loo_loss": 0.12345,
    "loo_error": 0.25,
    "ridge": 1.5,
    **NO_GROUPS,
}


def result_of(
    label: list[str] | None = None, path: list[str] | None = None, **summary: object
) -> SimpleNamespace:
    table = pd.DataFrame(
        {
            "path": path or [f"photos/{number:02d}.png" for number in range(12)],
            "label": label or list("aaaabbbbcccc"),
            "derivative": np.linspace(2, -3.5, 12),
            "loo_loss": np.linspace(1, 0, 12),
            "predicted_label": list("baaabbbbcccc"),
        }
    )
    return SimpleNamespace(table=table, summary={**SUMMARY, **summary})


def shown(parts, width: int = 80, terminal: bool = False) -> str:
    console = Console(
        width=width, file=io.StringIO(), force_terminal=terminal, highlight=False, color_system=None
    )
    if terminal:
        console = Console(
            width=width, file=io.StringIO(), force_terminal=True, color_system="standard", highlight=False
        )
    for part in parts:
        console.print(part)
    return console.file.getvalue()


def score_text(*arguments, verification=None, width=80, **options) -> str:
    return shown(score_summary(result_of(*arguments, **options), verification), width)


def test_nothing_is_wider_than_the_terminal():
    long = ["a/very/long/path/" * 10 + f"{number}.png" for number in range(12)]
    for text in (score_text(), score_text(path=long, label=["label " * 20] * 12)):
        assert max(map(len, text.splitlines())) <= 80


def test_what_was_found():
    text = " ".join(score_text().split())
    assert "12 samples, 3 classes, 512 features each; 7 embedded now" in text
    assert "leave-one-out loss 0.1235, error 25.0% (ridge 1.5)" in text


def test_groups_are_named_once_and_the_loss_is_theirs():
    text = " ".join(score_text(group="patient_id", n_groups=1234).split())
    assert text.count("leave-group-out: 1,234 groups of patient_id") == 1
    assert "leave-group-out loss 0.1235" in text
    assert "leave-one-out" not in text
    assert "groups" not in score_text()
    assert f"groups of {EVIL}" in score_text(group=EVIL, n_groups=4)
    about = {"group": "patient_id", "n_groups": 4}
    pruned = shown(prune_summary(pruning_of(about=about)))
    assert pruned.count("leave-group-out: 4 groups of patient_id") == 1


def test_the_sign_is_said():
    text = " ".join(score_text().split())
    assert "4 samples (33.3%) are harmful: their derivative is positive" in text
    assert "more of them raises the loss and less lowers it" in text


def test_how_many_labels_are_wrong_and_which():
    text = " ".join(score_text().split())
    assert "12.5% of the labels are wrong by the label-noise model (between 4.0% and 22.0%)" in text
    assert "1 are more likely wrong than right; 1 samples are outliers" in text
    assert "most frequent, given → suggested: a → b (1)" in text
    assert "most frequent" not in score_text(confusions=[])


def test_the_most_harmful_and_the_most_useful_are_named():
    lines = score_text().splitlines()
    harmful, useful = (
        lines.index(next(line for line in lines if line.startswith(f"most {what}")))
        for what in ("harmful", "useful")
    )
    assert [line.split()[-1] for line in lines[harmful + 2 : harmful + 7]] == [
        f"photos/{n:02d}.png" for n in range(5)
    ]
    assert [line.split()[-1] for line in lines[useful + 2 : useful + 7]] == [
        f"photos/{n:02d}.png" for n in range(11, 6, -1)
    ]
    first = lines[harmful + 2].split()
    assert first[0].startswith("+")
    assert float(first[0]) == 2
    assert first[1:] == ["1.000", "a", "b", "photos/00.png"]
    assert float(lines[useful + 2].split()[0]) == -3.5


def test_classes_with_the_largest_share_come_first():
    text = score_text()
    lines = text[text.index("classes with") :].splitlines()
    rows = [line.split() for line in lines if "%" in line]
    # Of the derivatives from 2 to -3.5 the first four are positive: all of class a.
    assert rows == [
        ["100.0%", "4", "4", "25.0%", "a"],
        ["0.0%", "0", "4", "0.0%", "b"],
        ["0.0%", "0", "4", "0.0%", "c"],
    ]


def test_samples_left_out_are_counted():
    assert "12 samples, 3 left out (see failed)" in score_text(n_failed=3)
    assert "left out" not in score_text()


def test_a_validation_loss_is_named():
    text = " ".join(score_text(validation_loss=0.5, validation_error=0.125, n_validation=1234).split())
    assert "validation loss 0.5000, error 12.5% over 1,234 samples: derivatives are of their loss" in text


def test_a_verification_is_named():
    text = " ".join(score_text(verification=Verification(20, 1.25e-7, 3e-6, 1e-10)).split())
    assert "verified on 20 samples against refits" in text
    assert "1.2e-07 of leave-one-out predictions, 3.0e-06 of derivatives" in text
    assert "verified" not in score_text()


def test_markup_in_labels_and_paths_is_shown_and_not_obeyed():
    text = shown(
        score_summary(result_of(label=[EVIL] * 12, path=[f"{EVIL}{n}" for n in range(12)]), None), 100, True
    )
    assert f"{EVIL}11" in text
    assert text.count(EVIL) >= 11


@pytest.mark.parametrize(
    "evil", [ESCAPE, "two\nlines", "ring\x07", "back\rward", "\u202eright to left", "\x9b31m"]
)
def test_control_characters_are_shown_and_not_obeyed(evil):
    text = shown(
        score_summary(result_of(label=[evil] * 12, path=[evil + str(n) for n in range(12)]), None), 120
    )
    assert repr(evil)[1:-1][:8] in text
    assert not set(evil) & set("\x1b\x07\r\u202e\x9b") & set(text)
    assert not any(line.startswith("lines") for line in text.splitlines())


def test_the_end_of_a_long_path_is_shown():
    text = score_text(path=["x" * 100 + f"/image{number:02d}.png" for number in range(12)])
    assert "/image00.png" in text
    assert "…" in text


def test_without_a_terminal_there_are_no_escape_codes():
    assert "\x1b" not in score_text()
    assert "\x1b" in shown(score_summary(result_of(), None), terminal=True)


# Pruning


def outlook_of(chosen: str = "balanced", **wrong: int) -> Outlook:
    """So many of 1,000 samples are wrong by each name."""
    vectors = {name: (torch.arange(1000) < count).double() for name, count in wrong.items()}
    return Outlook(Forecast(vectors, torch.full((1000,), 1e-3, dtype=torch.float64)), chosen)


BETTER = outlook_of(nothing=200, balanced=150, coverage=160, random=230)


def pruning_of(
    outlook: Outlook | None = BETTER, *, written: bool = True, n_kept: int = 7, n: int = 10, **more: object
) -> Pruning:
    about = more.pop("about", NO_GROUPS)
    scores = SimpleNamespace(table=pd.DataFrame({"path": [str(row) for row in range(n)]}), about=about)
    choice = Choice(np.arange(n) < n_kept, more.pop("rescued", []))
    given = {"by": "balanced", "asked": {}, "reasons": np.full(n, ""), "order": np.arange(n), "unknown": ""}
    return Pruning(
        scores=scores, decision=choice, written=written, auto=None, outlook=outlook, **given | more
    )


def test_pruning_says_what_goes_and_what_that_does():
    text = shown(prune_summary(pruning_of()))
    lines = text.splitlines()
    assert lines[0] == "7 of 10 samples kept, 3 dropped (30.0%)"
    said = " ".join(text.split())
    assert "Dropping these 3 should lower the error on new images from 20.0 to 15.0 % (between" in said
    assert said.endswith("dropping as many at random would raise it to 23.0.")
    rows = {line.split()[-1]: line.split() for line in lines if "%" in line and "error" not in line}
    assert rows["nothing"] == ["20.0%", "nothing"]
    assert rows["balanced"][:2] == ["15.0%", "-5.0"]
    assert rows["balanced"][3:] == ["chosen", "balanced"]
    assert rows["coverage"][:2] == ["16.0%", "-4.0"]
    assert "chosen" not in rows["random"]


def test_where_nothing_is_written_everything_stays_and_the_way_out_is_named():
    worse = outlook_of(nothing=100, balanced=200, random=180)
    text = " ".join(shown(prune_summary(pruning_of(worse, written=False, rescued=["a"]))).split())
    assert text.startswith(
        "10 of 10 samples kept, 0 dropped (0.0%) Nothing to gain by dropping: keep everything"
    )
    assert "(--force writes the choice all the same)" in text
    assert "Dropping these 3 should raise the error on new images from 10.0 to 20.0 %" in text
    assert "last of their class" not in text
    forced = " ".join(shown(prune_summary(pruning_of(worse))).split())
    assert "Nothing to gain" not in forced
    assert "Dropping these 3 should raise the error" in forced


def test_one_rule_alone_is_no_table():
    text = shown(prune_summary(pruning_of(outlook_of(nothing=200, balanced=150, random=230))))
    assert "chosen" not in text
    assert "at random would raise it to 23.0" in " ".join(text.split())


def test_a_random_choice_is_not_compared_with_itself():
    text = " ".join(shown(prune_summary(pruning_of(outlook_of("random", nothing=100, random=101)))).split())
    assert "should change the error on new images from 10.0 to 10.1 %" in text
    assert "at random" not in text


def test_pruning_without_a_forecast_or_without_a_drop_says_nothing_of_errors():
    assert pruning_verdict(pruning_of(None)) == ""
    for pruning in (pruning_of(None), pruning_of(n_kept=10)):
        assert "new images" not in shown(prune_summary(pruning))


def test_classes_that_were_rescued_are_named_as_they_are():
    text = shown(prune_summary(pruning_of(None, rescued=[EVIL, ESCAPE])))
    assert f"kept as the last of their class: {EVIL}, \\x1b[31mred" in text


def test_plain_keeps_what_can_be_printed():
    assert plain("Größe 大 [b]").plain == "Größe 大 [b]"
    assert plain("a\tb\x00").plain == "a\\tb\\x00"
