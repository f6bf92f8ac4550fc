"""Fine-tuning without samples and its prediction, on images and features that are made here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from scipy.stats import spearmanr  # type: ignore[import-untyped]
from torch import Tensor

from benchmarks import datamodel_truths
from benchmarks.datamodel import (
    LOSSES,
    Truth,
    ceiling,
    correlation,
    correlation_by_image,
    influences,
    predictions,
    refitted,
    spearman,
)
from benchmarks.datamodel_truths import (
    AGAIN,
    FineTuning,
    Posed,
    Row,
    Setting,
    bits,
    dropped_of,
    losses_of,
    measure_truths,
    packed,
    pose,
    read_truths,
    subsets,
)
from divacli.curate.sample_scores import score
from divacli.features import BackboneChoice
from divacli.ridge import SquaredLoss, validation_sums
from divacli.solve.ridge_problem import SolveOptions
from divacli.solve.solution import solve

NETWORK = """
import torch
from torch import nn
from torchvision import models
from torchvision.transforms import v2

def transform(side):
    return v2.Compose([v2.Resize((side, side)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])

def small():
    torch.manual_seed(0)
    pooled = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    return nn.Sequential(pooled, nn.Linear(64, 3)), transform(6)

def mobilenet():
    torch.manual_seed(0)
    net = models.mobilenet_v2(num_classes=3)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    net(torch.rand(64, 3, 32, 32))  # statistics under which images do not all look the same
    return net, transform(32)
"""

N, M = 60, 21

Make = Callable[..., Posed]


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Images of three tints; every seventh training label is wrong."""
    folder, generator, found = tmp_path_factory.mktemp("images"), np.random.default_rng(0), []
    for split, n in (("train", N), ("test", M)):
        truth = np.arange(n) % 3
        for number, tint in enumerate(truth):
            pixels = 60 * np.eye(3)[tint] + generator.integers(0, 190, (6, 6, 3))
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{split}{number:02d}.png")
        wrong = (np.arange(n) % 7 == 0) & (split == "train")
        paths = [str(folder / f"{split}{number:02d}.png") for number in range(n)]
        names = np.array(["a", "b", "c"])
        label = names[(truth + wrong) % 3]
        found.append(pd.DataFrame({"path": paths, "label": label, "truth": names[truth]}))
    return found[0], found[1]


@pytest.fixture
def make(tables: tuple[pd.DataFrame, pd.DataFrame], tmp_path: Path) -> Make:
    """Pose a setting on these images."""
    (tmp_path / "net.py").write_text(NETWORK)

    def posed(network: str = "small", trainable: str = "all", *, own_head: bool = False) -> Posed:
        setting = Setting("made here", "clothing", trainable, epochs=2, lr=0.02, own_head=own_head)
        choice = BackboneChoice(f"{tmp_path / 'net.py'}:{network}")
        return pose(setting, choice, (tables[0].copy(), tables[1].copy()), tmp_path / "cache")

    return posed


def some(share: float = 0.5, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(N) < share


def relabelled(posed: Posed, row: int) -> Tensor:
    """What is learned without some samples when another one's label is different."""
    posed.tables[0].loc[row, "label"] = "a" if posed.tables[0].loc[row, "label"] != "a" else "b"
    posed.training.manifest.table["label"] = posed.tables[0]["label"]
    return FineTuning(posed)(some(), seed=0)


def test_a_run_sees_no_dropped_sample(make: Make) -> None:
    dropped = some()
    plain = FineTuning(make())(dropped, seed=0)
    assert torch.equal(FineTuning(make())(dropped, seed=0), plain)
    assert torch.equal(relabelled(make(), int(np.flatnonzero(dropped)[0])), plain)
    assert not torch.allclose(relabelled(make(), int(np.flatnonzero(~dropped)[0])), plain, atol=1e-4)
    assert not torch.allclose(FineTuning(make())(dropped, seed=1), plain, atol=1e-4)


def test_the_network_learns_and_wrong_labels_harm_it(make: Make) -> None:
    posed = make()
    tuning = FineTuning(posed)
    nothing, everything, right = (
        tuning.judge(tuning(dropped, seed=0))
        for dropped in (np.ones(N, bool), np.zeros(N, bool), posed.wrong)
    )
    assert nothing["cross_entropy"] == pytest.approx(np.log(3), abs=1e-5)  # the head is zero
    assert nothing["brier"] == pytest.approx(2 / 3, abs=1e-5)
    assert right["cross_entropy"] < everything["cross_entropy"] < nothing["cross_entropy"]
    np.testing.assert_allclose(losses_of(right).mean(), right["cross_entropy"], rtol=1e-3)


def test_frozen_layers_that_run_once_change_nothing(make: Make) -> None:
    posed = make("mobilenet", "last", own_head=True)
    untrained = FineTuning(posed)(np.ones(N, bool), seed=0)
    weight, bias = posed.test.head or pytest.fail("a head")
    expected = posed.test.features[:] @ weight.T + bias
    torch.testing.assert_close(untrained.float(), expected, rtol=1e-4, atol=1e-4)
    tuning = FineTuning(posed)
    trained = tuning(np.zeros(N, bool), seed=0)
    assert not torch.allclose(trained.float(), expected, atol=1e-2)
    # Nothing that one run has learned is there in the next one.
    torch.testing.assert_close(tuning(np.ones(N, bool), seed=0), untrained)


def test_subsets_are_what_they_are_called(make: Make) -> None:
    posed = make()
    found = {subset.name: subset for subset in subsets(posed)}
    harm = score(posed.training, SolveOptions()).derivative
    assert not found["none"].dropped.any()
    assert found["most harmful 20%"].dropped.sum() == 12
    assert harm[found["most harmful 20%"].dropped].min() >= harm[~found["most harmful 20%"].dropped].max()
    assert harm[found["most useful 20%"].dropped].max() <= harm[~found["most useful 20%"].dropped].min()
    assert (found["wrong labels"].dropped == posed.wrong).all()
    assert not found["20% of the right labels"].dropped[posed.wrong].any()
    halves = [subset.dropped for subset in found.values() if subset.kind == "random half"]
    assert {int(half.sum()) for half in halves} == {N // 2}
    assert len({bits(half) for half in halves}) == len(halves) == datamodel_truths.HALVES
    assert len(found) >= 33


def test_runs_are_made_once(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(datamodel_truths, "TRUTHS", tmp_path / "truths.json")
    monkeypatch.setattr(datamodel_truths, "HALVES", 2)
    posed = make()
    measure_truths(posed, AGAIN)
    rows = read_truths()
    assert [row["subset"] for row in rows] == ["none", "random half 0", "random half 1"]
    by_name = {subset.name: subset.dropped for subset in subsets(posed)}
    for row in rows:
        assert (dropped_of(row) == by_name[row["subset"]]).all()
        assert len(losses_of(row)) == M
    datamodel_truths.write_truths(rows[:-1])
    capsys.readouterr()
    measure_truths(posed, AGAIN)
    assert capsys.readouterr().out.count("\n") == 1
    again = read_truths()
    assert again[-1]["cross_entropy"] == rows[-1]["cross_entropy"]
    # Runs on other labels say nothing.
    posed.tables[0].loc[0, "label"] = "c"
    assert not datamodel_truths.truths_of(replace(posed))


@pytest.mark.parametrize("loss", LOSSES)
def test_influences_add_up_to_the_derivative(make: Make, loss: str) -> None:
    posed = make()
    options = SolveOptions(loss=loss)
    derivative = score(posed.training, options, posed.test).derivative
    found = influences(solve(posed.training, options, posed.test))
    assert found.shape == (N, M)
    np.testing.assert_allclose(found.sum(dim=1), derivative, rtol=1e-4, atol=1e-5 * np.abs(derivative).max())


def test_refits_are_fits_without_the_samples(make: Make) -> None:
    posed = make()
    options = SolveOptions(ridge=0.3, scaling="none")
    whole = solve(posed.training, options, posed.test)
    dropped = np.stack([some(0.1, 1), some(0.5, 2)])
    found = refitted(whole, dropped, {"squared": SquaredLoss()})["squared"]
    for absent, change in zip(dropped, found, strict=True):
        rest = solve(posed.training.select(~absent), options, posed.test)
        losses = []
        for solution in (rest, whole):
            assert solution.solved_validation is not None
            fit = solution.spectrum.fit(0.3)
            losses.append(validation_sums(solution.solved_validation, fit, SquaredLoss())[1].loss.numpy())
        np.testing.assert_allclose(change, losses[0] - losses[1], rtol=1e-3, atol=1e-5)


def test_predictions_agree_for_few_samples_and_have_their_sign(make: Make) -> None:
    posed = make()
    wrong = np.flatnonzero(posed.wrong)
    one = np.zeros((2, N), bool)
    # All nine wrong ones, and ten others: of one or two, among 60, the leave-one-out derivative is noise.
    one[0, wrong] = True
    one[1, np.flatnonzero(~posed.wrong)[:10]] = True
    found = predictions(posed, one)
    assert set(found) == {
        (loss, method) for loss in LOSSES for method in ("derivative", "leave-one-out derivative", "refit")
    }
    for values in found.values():
        change = values.sum(axis=1)
        assert change[0] < 0 < change[1]


def test_rank_correlations_are_those_of_scipy() -> None:
    generator = np.random.default_rng(0)
    first, second = generator.integers(0, 6, (2, 5, 12))  # with ties
    expected = [spearmanr(one, other).statistic for one, other in zip(first, second, strict=True)]
    np.testing.assert_allclose(spearman(first, second), expected)
    assert np.isnan(spearman(np.ones(4), np.arange(4.0)))


def test_intervals_hold_the_correlation_and_shrink() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for n in (12, 200):
        truth = generator.normal(size=n)
        estimate, resampled = correlation(truth + generator.normal(size=n), truth)
        low, high = np.nanpercentile(resampled, [2.5, 97.5])
        assert low < estimate < high
        widths.append(high - low)
    assert widths[1] < widths[0] / 2
    by_image = generator.normal(size=(30, 4))
    assert correlation_by_image(by_image, by_image)[0] == pytest.approx(1)
    assert correlation_by_image(by_image, -by_image)[0] == pytest.approx(-1)


def test_the_ceiling_is_that_of_noise() -> None:
    generator = np.random.default_rng(0)
    expected = generator.normal(size=100_000)
    seeds = expected + 0.7 * generator.normal(size=(2, 100_000))
    between, reached = (np.corrcoef(*pair)[0][1] for pair in (seeds, (expected, seeds[0])))
    assert ceiling(between) == pytest.approx(reached, abs=0.01)


def row_of(name: str, kind: str, seed: int, value: float) -> Row:
    row: Row = {
        "subset": name,
        "kind": kind,
        "seed": seed,
        "n": 3,
        "cross_entropy": value,
        "brier": value / 2,
    }
    losses = packed(np.array([value, 2 * value], np.float16))
    return {**row, "dropped": bits(np.array([True, False, True])), "losses": losses}


def test_a_truth_is_that_of_the_first_seed_and_beside_it_what_was_run_again() -> None:
    rows = [row_of("none", "all", 0, 9.0)]
    rows += [row_of(f"half {i}", "random half", 0, float(i)) for i in range(3)]
    rows += [row_of("worst", "chosen", 0, 7.0), row_of("half 0", "random half", 1, 4.0)]
    one = Truth.of(rows)
    assert one.mean.tolist() == [0.0, 1.0, 2.0, 7.0]
    np.testing.assert_equal(one.again, [4.0, np.nan, np.nan, np.nan])
    assert one.by_image[:, 1].tolist() == [0.0, 2.0, 4.0, 14.0]
    assert one.dropped.tolist() == [[True, False, True]] * 4
    assert one.members("halves").tolist() == [0, 1, 2]
