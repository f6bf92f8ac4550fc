"""The losses' values and gradients, and the calibration of the cross-entropy's scale."""

import math

import pytest
import torch
from torch.nn import functional

from divacli.ridge import CrossEntropyLoss, SquaredLoss, fit_inverse_temperature

EVERY_LOSS = pytest.mark.parametrize(
    "loss", [SquaredLoss(), CrossEntropyLoss(), CrossEntropyLoss(7.5)], ids=["squared", "t=1", "t=7.5"]
)


def random_predictions(m=20, k=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    predictions = torch.randn(m, k, generator=generator, dtype=torch.float64)
    return predictions, torch.randint(0, k, (m,), generator=generator)


@EVERY_LOSS
@pytest.mark.parametrize("soft", [False, True], ids=["one-hot", "soft"])
def test_gradients_are_those_of_autograd(loss, soft):
    predictions, labels = random_predictions()
    targets = functional.one_hot(labels, 4).double()
    if soft:  # not normalised: the gradient must not take for granted that targets sum to one
        targets = torch.rand(20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    predictions.requires_grad_()
    loss.value(predictions, targets).sum().backward()
    torch.testing.assert_close(
        loss.gradient(predictions.detach(), targets), predictions.grad, rtol=1e-12, atol=1e-13
    )


def test_values_are_those_of_torch():
    predictions, labels = random_predictions()
    targets = functional.one_hot(labels, 4).double()
    squared = functional.mse_loss(predictions, targets, reduction="none").sum(dim=1)
    torch.testing.assert_close(SquaredLoss().value(predictions, targets), squared)
    entropy = functional.cross_entropy(2.5 * predictions, labels, reduction="none")
    torch.testing.assert_close(CrossEntropyLoss(2.5).value(predictions, targets), entropy)


def planted(t, seed=0):
    """Predictions in which every class occurs exactly as often as `softmax(t f)` says, by masks."""
    f, _ = random_predictions(30, 4, seed)
    probabilities = (t * f).softmax(dim=1)
    return f.repeat_interleave(4, dim=0), torch.eye(4).repeat(30, 1), probabilities.reshape(-1)


@pytest.mark.parametrize("t", [0.02, 0.5, 1.0, 3.0, 9.0])
def test_a_planted_scale_is_recovered(t):
    assert fit_inverse_temperature(*planted(t)) == pytest.approx(t, rel=1e-7)


def test_a_sampled_scale_is_recovered_within_its_standard_error():
    generator = torch.Generator().manual_seed(0)
    f = torch.randn(20_000, 5, generator=generator)
    labels = torch.multinomial((4 * f).softmax(dim=1), 1, generator=generator)[:, 0]
    found = fit_inverse_temperature(f, functional.one_hot(labels, 5), torch.ones(20_000))
    assert found == pytest.approx(4, rel=0.05)


@pytest.mark.parametrize("seed", range(5))
def test_the_scale_is_the_minimum_of_a_dense_grid_and_stationary(seed):
    """Ridge-like predictions between 0 and 1, two in five samples wrong, samples counted unequally."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 4, (200,), generator=generator)
    shown = torch.where(torch.rand(200, generator=generator) < 0.4, (labels + 1) % 4, labels)
    f = 0.6 * functional.one_hot(shown, 4) + 0.3 * torch.rand(200, 4, generator=generator)
    y, v = functional.one_hot(labels, 4).double(), torch.rand(200, generator=generator, dtype=torch.float64)
    f = f.double()

    def total(t):
        return float(v @ CrossEntropyLoss(t).value(f, y))

    found = fit_inverse_temperature(f, y, v)
    grid = torch.logspace(-2, 3, 4001, dtype=torch.float64).tolist()
    nearest = min(grid, key=total)
    assert found == pytest.approx(nearest, rel=10 ** (5 / 4000) - 1)
    assert total(found) <= total(nearest)
    slope = (total(found * (1 + 1e-4)) - total(found * (1 - 1e-4))) / (2e-4 * found)
    steepness = (total(1.5 * found) - total(found)) / (0.5 * found)
    assert abs(slope) < 1e-6 * steepness
    assert 0.02 < found < 500


@pytest.mark.parametrize("scale", [1e-3, 1.0, 10.0])
@pytest.mark.parametrize("seed", range(6))
def test_predictions_without_a_mistake_want_the_highest_scale(seed, scale):
    f, _ = random_predictions(50, 4, seed)
    y = functional.one_hot(f.argmax(dim=1), 4)
    assert fit_inverse_temperature(scale * f, y, torch.ones(50)) == 1000
    assert fit_inverse_temperature(scale * y, y, torch.ones(50)) == 1000


def test_one_slight_mistake_ends_below_the_highest_scale():
    """Right by 1 a hundred times, wrong by 0.01 once: `100 / (1 + e^t) = 0.01 / (1 + e^(-0.01 t))`."""
    y = torch.tensor([[1.0, 0.0]]).repeat(101, 1)
    f = torch.cat([y[:100], torch.tensor([[0.0, 0.01]])])
    t = fit_inverse_temperature(f, y, torch.ones(101))
    assert 100 / (1 + math.exp(t)) == pytest.approx(0.01 / (1 + math.exp(-0.01 * t)), rel=1e-5)
    assert 5 < t < 15


def test_the_search_ends_where_a_mistake_weighs_next_to_nothing():
    """The minimum lies at about `60 ln 10`, where the loss has long been flat to the last digit."""
    y = torch.tensor([[1.0, 0.0]]).repeat(2, 1)
    f = torch.tensor([[1.0, 0.0], [0.0, 0.5]])
    mask = torch.tensor([1.0, 1e-60], dtype=torch.float64)
    found = fit_inverse_temperature(f, y, mask)
    total = [
        float(mask @ CrossEntropyLoss(t).value(f.double(), y.double())) for t in (found, 60 * math.log(10))
    ]
    assert 50 < found < 200
    assert abs(total[0] - total[1]) < 1e-20


def test_predictions_against_the_labels_want_the_lowest_scale():
    _, labels = random_predictions(50)
    y = functional.one_hot(labels, 4)
    assert fit_inverse_temperature(-y, y, torch.ones(50)) == pytest.approx(0.01, rel=1e-6)


@pytest.mark.parametrize("what", ["constant", "masked"])
def test_nothing_to_be_told_apart_wants_the_lowest_scale(what):
    f, labels = random_predictions(50)
    mask = torch.ones(50)
    if what == "constant":
        f = f[:, :1].expand(50, 4)
    else:
        mask.zero_()
    assert fit_inverse_temperature(f, functional.one_hot(labels, 4), mask) == 0.01


def test_masked_samples_have_no_say():
    f, y, v = planted(3.0)
    wrong = functional.one_hot((f.argmin(dim=1)), 4)
    found = fit_inverse_temperature(
        torch.cat([f, f]), torch.cat([y, wrong]), torch.cat([v, torch.zeros_like(v)])
    )
    assert found == pytest.approx(3, rel=1e-7)
    heard = fit_inverse_temperature(torch.cat([f, f]), torch.cat([y, wrong]), torch.cat([v, v]))
    assert not math.isclose(heard, 3, rel_tol=0.1)
