"""The ranking ridge: chosen by how derivatives are reproduced on unseen samples, good at finding flips."""

from dataclasses import replace

import pytest
import torch

from divacli.ridge import (
    RidgeTask,
    Scaling,
    SquaredLoss,
    choose_ranking_ridge,
    decompose,
    loo_derivative,
    ridge_path,
    validation_derivative,
)
from divacli.ridge import ranking as ranking_module
from divacli.ridge.folds import split_in_folds
from divacli.ridge.ranking import FACTORS, JUDGED, correlation


def noisy_mixture(seed, n=600, d=40, k=6):
    """A Gaussian mixture with a fifth of its labels wrong: the task, and which labels those are."""
    generator = torch.Generator().manual_seed(seed)
    truth = torch.arange(n) % k
    means = torch.randn(k, d, generator=generator, dtype=torch.float64)
    features = means[truth] + 1.7 * torch.randn(n, d, generator=generator, dtype=torch.float64)
    flipped = torch.zeros(n, dtype=torch.bool)
    flipped[torch.randperm(n, generator=generator)[: n // 5]] = True
    shift = torch.randint(1, k, (n,), generator=generator)
    task = RidgeTask(
        features,
        torch.where(flipped, (truth + shift) % k, truth),
        k,
        torch.ones(n, dtype=torch.float64),
        scaling=Scaling("unit"),
        dtype=torch.float64,
    )
    return task, flipped


def auroc(score, positive):
    """The share of pairs of a positive and a negative sample which the score puts in order."""
    return float((score[positive][:, None] > score[~positive]).double().mean())


def best_ridge(task, spectrum):
    path = ridge_path(task, spectrum)
    return float(path.ridges[path.best])


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_wrong_labels_are_found_at_least_as_well_as_at_the_loo_optimum(seed):
    task, flipped = noisy_mixture(seed)
    spectrum = decompose(task)
    best = best_ridge(task, spectrum)
    choice = choose_ranking_ridge(task, spectrum, best, SquaredLoss())
    chosen, optimum = (
        auroc(loo_derivative(task, spectrum.fit(ridge), SquaredLoss()).derivative, flipped)
        for ridge in (choice.ridge, best)
    )
    assert chosen >= optimum
    assert chosen >= 0.9


def test_the_choice_improves_the_ranking_where_there_is_room():
    """Control of the test above: the chosen ridge is another than the LOO optimum, and the better for it."""
    gains = []
    for seed in range(4):
        task, flipped = noisy_mixture(seed)
        spectrum = decompose(task)
        best = best_ridge(task, spectrum)
        choice = choose_ranking_ridge(task, spectrum, best, SquaredLoss())
        assert choice.ridge > best
        derivatives = [
            loo_derivative(task, spectrum.fit(r), SquaredLoss()).derivative for r in (choice.ridge, best)
        ]
        gains.append(auroc(derivatives[0], flipped) - auroc(derivatives[1], flipped))
    assert sum(gains) / 4 > 0.005


def slow_agreement(derivatives):
    """Pearson correlation of each candidate's half with the other half at the first, over both directions."""
    first_a, first_b = derivatives[0]
    pairs = [(torch.stack([b, first_a]), torch.stack([a, first_b])) for a, b in derivatives]
    return torch.stack([(torch.corrcoef(x)[0, 1] + torch.corrcoef(y)[0, 1]) / 2 for x, y in pairs])


@pytest.mark.parametrize("masked", [False, True], ids=["all-samples", "mask"])
def test_agreement_is_the_correlation_of_masked_derivatives(masked, loss_name, losses, make_problem):
    """The slow way: two whole derivatives at every candidate, each of one half of the validation samples."""
    problem = make_problem(90, 6, 3, batch_rows=40)
    task = problem.task
    if not masked:
        task = replace(task, validation_mask=torch.ones(90, dtype=torch.float64))
    assert len(task) <= JUDGED
    spectrum, loss = decompose(task), losses[loss_name]
    choice = choose_ranking_ridge(task, spectrum, 0.5, loss, seed=3)
    half = split_in_folds(task.labels, torch.arange(len(task)), 3, 2)
    derivatives = [
        [
            loo_derivative(
                replace(task, validation_mask=task.validation_mask * (half == side)),
                spectrum.fit(ridge),
                loss,
            ).derivative
            for side in (0, 1)
        ]
        for ridge in choice.candidates.tolist()
    ]
    torch.testing.assert_close(choice.agreement, slow_agreement(derivatives), rtol=1e-10, atol=1e-12)
    assert choice.ridge == float(choice.candidates[choice.agreement.argmax()])
    assert len(set(choice.agreement.tolist())) == len(FACTORS)


def test_candidates_rise_from_the_loo_optimum():
    task, _ = noisy_mixture(0, n=60)
    choice = choose_ranking_ridge(task, decompose(task), 0.25, SquaredLoss())
    assert choice.candidates.tolist() == pytest.approx([0.25 * factor for factor in FACTORS])
    assert float(choice.candidates[0]) == 0.25
    assert bool((choice.candidates.diff() > 0).all())


def test_the_choice_depends_on_nothing_but_its_seed():
    task, _ = noisy_mixture(0, n=200)
    spectrum = decompose(task)
    first = choose_ranking_ridge(task, spectrum, 1.0, SquaredLoss(), seed=5)
    torch.manual_seed(99)
    again = choose_ranking_ridge(task, spectrum, 1.0, SquaredLoss(), seed=5)
    other = choose_ranking_ridge(task, spectrum, 1.0, SquaredLoss(), seed=6)
    assert first.ridge == again.ridge
    assert torch.equal(first.agreement, again.agreement)
    assert not torch.allclose(first.agreement, other.agreement)


def test_a_share_of_the_training_samples_is_judged_when_there_are_many(monkeypatch):
    """All validation samples still count, so the sampled correlation is close to that over everyone."""
    task, _ = noisy_mixture(0)
    spectrum = decompose(task)
    everyone = choose_ranking_ridge(task, spectrum, 1.0, SquaredLoss())
    monkeypatch.setattr(ranking_module, "JUDGED", 250)
    some = choose_ranking_ridge(replace(task, batch_rows=64), spectrum, 1.0, SquaredLoss())
    half = split_in_folds(task.labels, torch.arange(len(task)), 0, 2)
    halves = [
        loo_derivative(
            replace(task, validation_mask=(half == side).double()), spectrum.fit(1.0), SquaredLoss()
        ).derivative[::3]
        for side in (0, 1)
    ]
    assert float(some.agreement[0]) == pytest.approx(float(correlation(*halves)), rel=1e-10)
    torch.testing.assert_close(some.agreement, everyone.agreement, rtol=0, atol=0.1)
    assert not torch.equal(some.agreement, everyone.agreement)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_halves_are_disjoint_and_balanced_within_every_class(seed):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 7, (151,), generator=generator)
    half = split_in_folds(labels, torch.arange(len(labels)), seed, 2)
    assert set(half.tolist()) == {0, 1}  # one number a sample: no sample is in both
    for label in range(7):
        zeros, ones = ((half[labels == label] == side).sum() for side in (0, 1))
        assert abs(int(zeros) - int(ones)) <= 1
    assert torch.equal(half, split_in_folds(labels, torch.arange(len(labels)), seed, 2))
    assert not torch.equal(half, split_in_folds(labels, torch.arange(len(labels)), seed + 1, 2))


def test_correlation_is_pearsons_and_zero_for_a_constant():
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    assert float(correlation(a, b)) == pytest.approx(
        float(torch.corrcoef(torch.stack([a, b]))[0, 1]), rel=1e-12
    )
    assert float(correlation(a, -3 * a + 1)) == pytest.approx(-1, rel=1e-12)
    assert float(correlation(a, torch.zeros(50, dtype=torch.float64))) == 0.0


@pytest.mark.parametrize("intercept", [True, False])
def test_agreement_on_a_separate_validation_set_is_that_of_masked_derivatives(
    intercept, loss_name, losses, make_problem
):
    task = make_problem(90, 6, 3, batch_rows=40, intercept=intercept, offset=True).task
    held_out = make_problem(50, 6, 3, seed=1, batch_rows=20, intercept=intercept, offset=True).task
    spectrum, loss = decompose(task), losses[loss_name]
    choice = choose_ranking_ridge(task, spectrum, 0.5, loss, seed=3, validation=held_out)
    half = split_in_folds(held_out.labels, torch.arange(len(held_out)), 3, 2)
    derivatives = [
        [
            validation_derivative(
                task,
                replace(held_out, validation_mask=held_out.validation_mask * (half == side)),
                spectrum.fit(ridge),
                loss,
            )[0]
            for side in (0, 1)
        ]
        for ridge in choice.candidates.tolist()
    ]
    torch.testing.assert_close(choice.agreement, slow_agreement(derivatives), rtol=1e-10, atol=1e-12)
    assert choice.ridge == float(choice.candidates[choice.agreement.argmax()])
    own = choose_ranking_ridge(task, spectrum, 0.5, loss, seed=3)
    assert not torch.allclose(own.agreement, choice.agreement, atol=1e-3)


def test_an_order_by_name_makes_the_choice_independent_of_the_arrangement():
    (task, _), generator = noisy_mixture(0), torch.Generator().manual_seed(3)
    names = torch.randperm(len(task), generator=generator)
    agreements = []
    for rows in (torch.arange(len(task)), torch.randperm(len(task), generator=generator)):
        arranged = replace(
            task,
            features=task.features[rows],
            labels=task.labels[rows],
            weights=task.weights[rows],
            validation_mask=task.validation_mask[rows],
            dtype=torch.float64,
        )
        order = names[rows].argsort()
        choice = choose_ranking_ridge(arranged, decompose(arranged), 1.0, SquaredLoss(), order=order)
        agreements.append(choice.agreement)
    torch.testing.assert_close(agreements[0], agreements[1], rtol=0, atol=1e-9)
