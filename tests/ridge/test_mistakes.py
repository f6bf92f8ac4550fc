"""How labels go wrong: probabilities that sum up to 1, and Bayes' rule, computed again class by class."""

from __future__ import annotations

import math

import pytest
import torch

from divacli.ridge.labels.mistakes import LEARNED, PEOPLE, RANDOM, Mistakes, Shape, one_rate, surer

SHAPES = [RANDOM, PEOPLE, LEARNED, Shape("growth alone", 0.7, 0.0), Shape("likeness alone", 0.0, 0.6)]


def drawn(shape: Shape, k: int, seed: int = 0) -> Mistakes:
    """Rates and pairs drawn at random."""
    generator = torch.Generator().manual_seed(seed)
    rates = -2 + torch.randn(k, generator=generator, dtype=torch.float64)
    pairs = torch.rand(k, k, generator=generator, dtype=torch.float64).fill_diagonal_(0)
    return Mistakes(shape, rates, pairs / pairs.sum(dim=1, keepdim=True))


def logs_of(m: int, k: int, sharpness: float = 2.0, seed: int = 1) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    values = sharpness * torch.randn(m, k, generator=generator, dtype=torch.float64)
    return torch.log_softmax(values, dim=1)


def by_hand(mistakes: Mistakes, q: list[float]) -> list[list[float]]:
    """`p(y | c, f)` of one sample as [c][y], by the formulas of the module's docstring."""
    k, shape = len(q), mistakes.shape
    most = max(q)
    sure = min(max(math.log(most / (1 - most)) - 2, -4), 4)
    table = []
    for c in range(k):
        rate = 1 / (1 + math.exp(shape.growth * sure - float(mistakes.rates[c])))
        chosen = [float(mistakes.pairs[c, y]) * q[y] ** shape.likeness if y != c else 0.0 for y in range(k)]
        table.append([1 - rate if y == c else rate * chosen[y] / sum(chosen) for y in range(k)])
    return table


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("k", [2, 3, 7])
def test_the_joint_probability_is_that_of_bayes_rule(shape, k):
    mistakes, logs = drawn(shape, k), logs_of(6, k)
    labels = torch.arange(6) % k
    joint = mistakes.joint(logs, labels)
    assert joint.shape == (6, k)
    for row, (log, label) in enumerate(zip(logs, labels.tolist(), strict=True)):
        q = log.exp().tolist()
        table = by_hand(mistakes, q)
        for c in range(k):
            assert float(joint[row, c].exp()) == pytest.approx(q[c] * table[c][label], rel=1e-9)


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
@pytest.mark.parametrize("k", [2, 5])
@pytest.mark.parametrize("sharpness", [0.1, 3.0, 40.0])
def test_probabilities_of_the_labels_of_a_class_sum_up_to_one(shape, k, sharpness):
    mistakes, logs = drawn(shape, k), logs_of(20, k, sharpness)
    every = [mistakes.joint(logs, torch.full((20,), y)) - logs for y in range(k)]
    torch.testing.assert_close(torch.stack(every).exp().sum(dim=0), torch.ones(20, k, dtype=torch.float64))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_wrong_label_is_another_one(shape):
    mistakes, logs = drawn(shape, 4), logs_of(10, 4)
    into = torch.stack([mistakes.into(logs, torch.full((10,), y)) for y in range(4)], dim=2).exp()
    torch.testing.assert_close(into.sum(dim=2), torch.ones(10, 4, dtype=torch.float64))
    assert float(into.diagonal(dim1=1, dim2=2).max()) < 1e-250


def test_the_three_shapes_say_where_mistakes_are_and_what_they_look_like():
    mistakes = [Mistakes.even(shape, 0.1, 3) for shape in (RANDOM, PEOPLE, LEARNED)]
    # The prediction speaks for class 0, hardly for class 2, or for class 0 with less confidence.
    sure = torch.tensor([[0.97, 0.02, 0.01]], dtype=torch.float64).log()
    unsure = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64).log()

    def wrong(one: Mistakes, logs: torch.Tensor) -> torch.Tensor:
        """Probability of label 1 and of label 2 if class 0 is the true one."""
        return torch.stack([(one.joint(logs, torch.tensor([y])) - logs)[0, 0] for y in (1, 2)]).exp()

    at = {one.shape.name: (wrong(one, sure), wrong(one, unsure)) for one in mistakes}
    more = {name: float(there.sum() / here.sum()) for name, (here, there) in at.items()}
    alike = {name: float(there[0] / there[1]) for name, (_, there) in at.items()}
    assert more["random"] == pytest.approx(1)
    assert more["learned"] > 2 * more["people"] > 2
    assert alike["random"] == pytest.approx(1)
    assert alike["people"] == pytest.approx(3**0.13)
    assert alike["learned"] == pytest.approx(3**0.35)


@pytest.mark.parametrize("shape", [RANDOM, PEOPLE, LEARNED], ids=lambda shape: shape.name)
def test_even_mistakes_have_the_rate_where_predictions_are_as_sure_as_usual(shape):
    usual = 1 / (1 + math.exp(-2))
    logs = torch.tensor([[usual, (1 - usual) / 2, (1 - usual) / 2]], dtype=torch.float64).log()
    mistakes = Mistakes.even(shape, 0.3, 3)
    right = mistakes.joint(logs, torch.tensor([0])) - logs
    assert float(right[0, 0].exp()) == pytest.approx(0.7)
    torch.testing.assert_close(mistakes.pairs.sum(dim=1), torch.ones(3, dtype=torch.float64))
    assert torch.equal(mistakes.pairs.diagonal(), torch.zeros(3, dtype=torch.float64))
    assert len(mistakes.pairs.unique()) == 2


def test_rates_of_none_and_all_are_not_quite_that():
    for rate, expected in ((0.0, 1e-12), (1.0, 1 - 1e-12)):
        assert float(Mistakes.even(RANDOM, rate, 2).rates.sigmoid()[1]) == pytest.approx(
            expected, rel=1e-3, abs=0
        )
        assert float(one_rate(rate, 3)[0, 1:].sum()) == pytest.approx(expected, rel=1e-3, abs=0)


def test_a_single_class_has_no_mistakes():
    mistakes = Mistakes.even(PEOPLE, 0.1, 1)
    assert mistakes.pairs.tolist() == [[0.0]]
    assert bool(torch.isfinite(mistakes.into(torch.zeros(2, 1).double(), torch.zeros(2).long())).all())
    assert bool(torch.isfinite(mistakes.joint(torch.zeros(2, 1).double(), torch.zeros(2).long())).all())


def test_how_sure_a_prediction_is_has_ends():
    most = torch.tensor([0.5, 1 / (1 + math.exp(-2)), 0.99, 1 - 1e-5, 1.0], dtype=torch.float64)
    logs = torch.stack([most, 1 - most], dim=1).clamp_min(1e-300).log()
    expected = torch.tensor([-2, 0, math.log(99) - 2, 4, 4], dtype=torch.float64)
    torch.testing.assert_close(surer(logs), expected)
    many = torch.full((1, 2000), 1 / 2000, dtype=torch.float64).log()
    assert surer(many).tolist() == [-4.0]
    # The larger of the two decides, whichever it is.
    torch.testing.assert_close(surer(logs.flip(1)), surer(logs))


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_moved_mistakes_have_other_odds_and_nothing_else(shape):
    mistakes, logs = drawn(shape, 3), logs_of(5, 3)
    moved = mistakes.moved(0.7)
    assert moved.shape == shape
    assert torch.equal(moved.pairs, mistakes.pairs)
    for label in range(3):
        labels = torch.full((5,), label)
        before, after = ((one.joint(logs, labels) - logs).exp()[:, label] for one in (mistakes, moved))
        torch.testing.assert_close(
            torch.logit(1 - after) - torch.logit(1 - before), torch.full((5,), 0.7).double()
        )


def test_predictions_beyond_doubt_leave_everything_finite():
    logs = torch.tensor([[0.0, -800.0, -2000.0]], dtype=torch.float64)
    for shape in SHAPES:
        for label in range(3):
            labels = torch.tensor([label])
            variable = logs.clone().requires_grad_()
            joint = drawn(shape, 3).joint(variable, labels)
            assert bool(torch.isfinite(joint).all())
            joint.logsumexp(dim=1).sum().backward()
            assert bool(torch.isfinite(variable.grad).all())


def test_mistakes_move_to_a_device():
    moved = drawn(LEARNED, 3).to(torch.device("meta"))
    assert moved.shape == LEARNED
    assert {moved.rates.device.type, moved.pairs.device.type} == {"meta"}


def test_one_rate_is_a_matrix_of_probabilities():
    expected = torch.tensor([[0.7, 0.15, 0.15], [0.15, 0.7, 0.15], [0.15, 0.15, 0.7]], dtype=torch.float64)
    torch.testing.assert_close(one_rate(0.3, 3), expected)
