"""Several votes an image: Bayes' rule by hand, planted annotators found again, and what must not matter."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from divacli.errors import SolveError
from divacli.ridge import Votes, VotesFit, fit_votes, gain_of_a_vote, right_shares
from divacli.ridge.labels import votes as module
from divacli.ridge.labels.mistakes import one_rate


def spammer(k: int) -> torch.Tensor:
    """Says anything."""
    return torch.full((k, k), 1 / k, dtype=torch.float64)


def confuser(k: int) -> torch.Tensor:
    """Takes class 0 for class 1 more often than not, and is right elsewhere."""
    matrix = one_rate(0.05, k)
    matrix[0] = torch.full((k,), 0.02).double()
    matrix[0, 1] = 1 - 0.02 * (k - 1)
    return matrix


def planted(
    n: int, matrices: torch.Tensor, seed: int = 0, most: int = 3
) -> tuple[Votes, torch.Tensor, torch.Tensor]:
    """Votes of annotators for n images, `log q` of features, and the true classes."""
    generator = torch.Generator().manual_seed(seed)
    n_annotators, k, _ = matrices.shape
    truth = torch.randint(0, k, (n,), generator=generator)
    who = torch.rand(n, n_annotators, generator=generator).argsort(dim=1)[:, :most]
    images = torch.arange(n).repeat_interleave(most)
    annotators = who.flatten()
    labels = torch.multinomial(matrices[annotators, truth[images]], 1, generator=generator)[:, 0]
    logits = torch.randn(n, k, generator=generator, dtype=torch.float64)
    logits += 2 * torch.nn.functional.one_hot(truth, k)
    # By Bayes' rule for these normal variables.
    return Votes(images, labels, annotators, n, k, n_annotators), torch.log_softmax(2 * logits, dim=1), truth


CROWD = torch.stack([one_rate(0.05, 4), one_rate(0.2, 4), one_rate(0.3, 4), spammer(4), confuser(4)])


@pytest.fixture(scope="module")
def crowd() -> tuple[Votes, torch.Tensor, torch.Tensor, VotesFit]:
    votes, logs, truth = planted(3000, CROWD)
    return votes, logs, truth, fit_votes(votes, logs)


def test_posterior_is_that_of_bayes_rule():
    votes = Votes(
        torch.tensor([0, 0, 1, 2, 2, 2]),
        torch.tensor([0, 1, 2, 1, 1, 0]),
        torch.tensor([0, 1, 0, 1, 0, 1]),
        n_images=3,
        n_classes=3,
        n_annotators=2,
    )
    logs = torch.log_softmax(torch.randn(3, 3, generator=torch.Generator().manual_seed(1)).double(), dim=1)
    fit = fit_votes(votes, logs)
    for image in range(3):
        product = torch.exp(fit.exponent * logs[image] + fit.bias)
        for one in (votes.images == image).nonzero()[:, 0]:
            column = fit.matrices[votes.annotators[one], :, votes.labels[one]]
            product = product * column**fit.vote_exponent
        torch.testing.assert_close(fit.posterior[image], product / product.sum())


def test_no_step_lowers_the_penalised_likelihood(crowd, monkeypatch):
    votes, logs, _, _ = crowd
    climbed, found = module._climbed, []

    def noted(*arguments):
        found.append(climbed(*arguments).likelihoods)
        return climbed(*arguments)

    monkeypatch.setattr(module, "_climbed", noted)
    monkeypatch.setattr(module, "_TOLERANCE", 1e-9)
    fit_votes(votes, logs)
    assert len(found) == 2 * module._ROUNDS
    assert max(map(len, found)) > 5
    for likelihoods in found:
        assert torch.tensor(likelihoods).double().diff().min() >= -1e-7


def test_a_search_ends_where_nothing_nearby_is_more_likely(crowd, monkeypatch):
    monkeypatch.setattr(module, "_TOLERANCE", 1e-11)
    votes, logs, _, fit = crowd
    base = fit.matrices
    end = module._climbed(votes, logs, fit, base, 20.0)

    def likelihood(matrices: torch.Tensor, exponent: float, bias: torch.Tensor) -> float:
        start = replace(end, matrices=matrices, exponent=exponent, bias=bias)
        return module._climbed(votes, logs, start, base, 20.0).likelihoods[0]

    best = likelihood(end.matrices, end.exponent, end.bias)
    for size in (-0.03, 0.03):
        assert likelihood(end.matrices, end.exponent + size, end.bias) < best
        assert likelihood(end.matrices, end.exponent, end.bias + size * torch.eye(4)[1]) < best
        moved = end.matrices.clone()
        moved[1, 2] = moved[1, 2] * torch.tensor([1.0, 1.0, 1 + size, 1.0]).double()
        moved[1, 2] /= moved[1, 2].sum()
        assert likelihood(moved, end.exponent, end.bias) < best


def test_planted_annotators_are_found(crowd):
    votes, _, truth, fit = crowd
    assert (fit.matrices - CROWD).abs().max() < 0.06
    torch.testing.assert_close(fit.matrices.sum(dim=2), torch.ones(5, 4).double())
    right = (votes.labels == truth[votes.images]).double()
    share, variance = right_shares(votes, fit.posterior)
    for one in range(5):
        true = float(right[votes.annotators == one].mean())
        assert abs(float(share[one]) - true) < 3 * float(variance[one].sqrt())
    assert fit.vote_exponent >= 0.9
    assert 0.8 < fit.exponent < 1.2


def test_probabilities_are_those_of_being_right(crowd):
    votes, _, truth, fit = crowd
    sure, consensus = fit.posterior.max(dim=1)
    wrong = (consensus != truth).double()
    assert abs(float(wrong.sum() - (1 - sure).sum())) < 4 * float((sure * (1 - sure)).sum().sqrt())
    majority = votes.counts().argmax(dim=1)
    assert wrong.sum() < 0.5 * (majority != truth).sum()


def test_order_of_votes_and_numbers_of_classes_and_annotators_change_nothing(crowd):
    votes, logs, _, fit = crowd
    generator = torch.Generator().manual_seed(5)
    order = torch.randperm(len(votes.images), generator=generator)
    classes, people = torch.randperm(4, generator=generator), torch.randperm(5, generator=generator)
    other = Votes(
        votes.images[order],
        classes[votes.labels[order]],
        people[votes.annotators[order]],
        votes.n_images,
        4,
        5,
    )
    moved = torch.empty_like(logs)
    moved[:, classes] = logs
    again = fit_votes(other, moved)
    assert again.vote_exponent == fit.vote_exponent
    torch.testing.assert_close(again.posterior[:, classes], fit.posterior, atol=1e-6, rtol=0)
    torch.testing.assert_close(
        again.matrices[people][:, classes][:, :, classes], fit.matrices, atol=1e-6, rtol=0
    )


def test_features_that_say_nothing_do_not_overrule_votes():
    votes, _, _ = planted(1500, one_rate(0.15, 4).expand(3, 4, 4))
    noise = torch.randn(1500, 4, generator=torch.Generator().manual_seed(2)).double()
    fit = fit_votes(votes.together(), torch.log_softmax(3 * noise, dim=1))
    assert abs(fit.exponent) < 0.15
    counts = votes.counts()
    same = counts.max(dim=1).values == 3
    assert torch.equal(fit.posterior.argmax(dim=1)[same], counts.argmax(dim=1)[same])


def test_single_votes_are_enough():
    votes, logs, truth = planted(2000, one_rate(0.3, 4)[None], most=1)
    fit = fit_votes(votes, logs)
    assert fit.vote_exponent == 1
    assert abs(float(fit.posterior[votes.images, votes.labels].mean()) - 0.7) < 0.05
    assert (fit.posterior.argmax(dim=1) != truth).sum() < 0.6 * (votes.labels != truth).sum()


def test_votes_weigh_less_where_images_mislead_all_annotators():
    votes, logs, truth = planted(2000, one_rate(0.1, 4).expand(6, 4, 4), most=6)
    generator = torch.Generator().manual_seed(3)
    misleading = torch.rand(2000, generator=generator) < 0.3
    misled = misleading[votes.images] & (torch.rand(12000, generator=generator) < 0.5)
    labels = torch.where(misled, (truth[votes.images] + 1 + votes.images % 3) % 4, votes.labels)
    fit = fit_votes(replace(votes.together(), labels=labels), logs)
    assert fit.vote_exponent < 0.9
    assert fit_votes(votes.together(), logs).vote_exponent >= 0.95


def test_left_out_likelihood_is_that_of_each_vote_by_the_others(crowd):
    votes, logs, _, fit = crowd
    few = Votes(votes.images[:9], votes.labels[:9], votes.annotators[:9], 3, 4, 5)
    expected = []
    for one in range(9):
        at = torch.exp(fit.exponent * logs[few.images[one]] + fit.bias)
        for other in range(9):
            if other != one and few.images[other] == few.images[one]:
                at = at * fit.matrices[few.annotators[other], :, few.labels[other]] ** 0.7
        own = fit.matrices[few.annotators[one], :, few.labels[one]]
        expected.append(float((at / at.sum() @ own).log()))
    found = module.left_out_likelihood(few, logs[:3], fit, 0.7).tolist()
    assert found == pytest.approx(expected)


def test_gain_is_what_one_more_vote_is_expected_to_change(monkeypatch):
    generator = torch.Generator().manual_seed(4)
    posterior = torch.softmax(3 * torch.randn(20, 4, generator=generator).double(), dim=1)
    matrix = torch.softmax(2 * torch.randn(4, 4, generator=generator).double(), dim=1)
    expected = torch.zeros(20).double()
    for vote in range(4):
        chance = posterior @ matrix[:, vote]
        after = posterior * matrix[:, vote] / chance[:, None]
        expected += chance * after.max(dim=1).values
    expected -= posterior.max(dim=1).values
    torch.testing.assert_close(gain_of_a_vote(posterior, matrix), expected.clamp_min(0))
    monkeypatch.setattr(module, "_BATCH_VALUES", 50)
    torch.testing.assert_close(gain_of_a_vote(posterior, matrix), expected.clamp_min(0))
    assert gain_of_a_vote(torch.eye(4).double(), matrix).sum() == 0


def test_share_and_variance_of_right_votes_by_hand():
    votes = Votes(torch.tensor([0, 1, 1]), torch.tensor([0, 1, 0]), torch.tensor([0, 0, 1]), 2, 2, 2)
    posterior = torch.tensor([[0.9, 0.1], [0.2, 0.8]]).double()
    share, variance = right_shares(votes, posterior)
    torch.testing.assert_close(share, torch.tensor([2.2 / 3, 0.7 / 2]).double())
    first = 2.2 / 3 * 0.8 / 3 / 4 + (0.9 * 0.1 + 0.8 * 0.2) / 4
    torch.testing.assert_close(variance, torch.tensor([first, 0.35 * 0.65 / 3 + 0.16]).double())


def test_too_many_matrices_are_refused(monkeypatch):
    votes, logs, _ = planted(10, CROWD)
    monkeypatch.setattr(module, "MOST_VALUES", 79)
    with pytest.raises(SolveError, match="5 annotators and 4 classes") as caught:
        fit_votes(votes, logs)
    assert "annotator none" in caught.value.hint
