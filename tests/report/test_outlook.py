"""The sentence that a person acts on."""

from __future__ import annotations

import pytest
import torch

from divacli.curate.outlook import Outlook
from divacli.report.terminal.outlook import Deed, outlook_sentence
from divacli.ridge import Forecast

DEED = Deed("dropping these 784", "dropping as many at random", "keep everything", "dropping")


def sentence(
    chosen: int,
    random: int = 250,
    *,
    nothing: int = 200,
    written: bool = True,
    deed: Deed = DEED,
    n: int = 1000,
) -> str:
    """So many of n samples are wrong."""
    wrong = {"nothing": nothing, "rule": chosen, "random": random}
    vectors = {name: (torch.arange(n) < count).double() for name, count in wrong.items()}
    forecast = Forecast(vectors, torch.full((n,), 1 / n, dtype=torch.float64))
    return outlook_sentence(Outlook(forecast, "rule"), deed, written=written)


def test_a_sure_gain():
    found = sentence(100)
    assert found.startswith(
        "Dropping these 784 should lower the error on new images from 20.0 to 10.0 % (between "
    )
    assert found.endswith("); dropping as many at random would raise it to 25.0")
    assert "no more than chance" not in found


def test_a_sure_loss_that_is_written_all_the_same():
    found = sentence(300)
    assert found.startswith("Dropping these 784 should raise the error on new images from 20.0 to 30.0 %")
    assert "Nothing to gain" not in found


def test_a_loss_that_is_not_written():
    assert sentence(300, written=False).startswith(
        "Nothing to gain by dropping: keep everything (--force writes the choice all the same). "
        "Dropping these 784 should raise the error on new images from 20.0 to 30.0 % (between "
    )


def test_an_error_that_stays_is_said_once():
    found = sentence(200)
    assert "Dropping these 784 should leave the error on new images at 20.0 % (between " in found


@pytest.mark.parametrize("chosen", [199, 201])
def test_what_chance_may_do(chosen):
    found = sentence(chosen)
    assert f"should change the error on new images from 20.0 to {chosen / 10} %" in found
    assert "), no more than chance may do; dropping as many" in found


@pytest.mark.parametrize(
    ("random", "said"),
    [(250, "would raise it to 25.0"), (150, "would lower it to 15.0"), (200, "would leave it at 20.0")],
)
def test_what_a_random_choice_does(random, said):
    assert sentence(100, random).endswith(f"; dropping as many at random {said}")


def test_without_a_random_rival_none_is_named():
    found = sentence(100, deed=Deed("weighting", "", "keep the weights", "weighting"))
    assert found.startswith("Weighting should lower")
    assert found.endswith(")")


def test_an_interval_is_within_what_an_error_can_be():
    assert "(between 0.0 and" in sentence(0, nothing=2, n=20)
    assert "and 100.0)" in sentence(20, nothing=18, n=20)


def test_a_rival_is_named_where_there_is_one():
    deed = Deed("correcting them", "", "leave them", "correcting", "dropping them: 17.1")
    assert sentence(100, deed=deed).endswith("; dropping them: 17.1")
