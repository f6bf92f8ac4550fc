"""What several votes an image say of its class, together with its features, and how good each annotator is.

    p(votes of image i | f_i) = sum_c q(c | f_i) prod_v M_a(v)[c, y_v],   q(. | f) = softmax(tau L(f) + b)
    p(c | votes of image i, f_i) ~ q(c | f_i) (prod_v M_a(v)[c, y_v])^gamma

`M_a` is the confusion matrix of an annotator: row c, column y is the probability of the vote y where c is
true (Dawid and Skene 1979, Maximum likelihood estimation of observer error-rates using the EM algorithm).
That paper has one distribution of the classes for all images. Here it is `q`, what features say of the image,
as in CROWDLAB (Goh, Tkachenko and Mueller 2022, arXiv 2210.06812). `L` are calibrated log-probabilities of
left-out predictions. Their exponent `tau` and the biases `b` are fitted with the matrices, so that features
which say little do not overrule votes.

Annotators err in the same images, so that two votes say less than twice what one says. `gamma` is the weight
of votes by which a vote is best predicted from the features and the other votes for its image. It is 1 where
votes are independent.

A row of a matrix has a Dirichlet prior. For the matrix of all annotators together it is around one rate for
all mistakes; for that of one annotator it is around the common one, with all its mistakes made more or less
frequent by one factor of the annotator. Priors are held fixed in each expectation maximisation, of which no
step lowers the penalised likelihood.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from divacli.errors import Advice, SolveError
from divacli.ridge.labels.mistakes import one_rate

MOST_VALUES = 100_000_000
"""Numbers in all confusion matrices together, at the most."""

_SHARED_STRENGTH = 30.0
"""Votes' worth of the prior of a row of the common matrix."""

_OWN_STRENGTH = 20.0
"""Votes' worth of the prior of a row of an annotator's matrix."""

_FACTOR_STRENGTH = 2.0
"""Mistakes' worth of the prior of an annotator's factor around 1."""

_MOST_WRONG = 0.99
_FIRST_WRONG = 0.2
_ROUNDS = 4
"""How often a prior is put around what was found with the one before."""

_EXPONENT_SPREAD = 0.03
"""Standard deviation of the normal prior of `tau` around 1.

Features come calibrated, so that only clear evidence is to move it. With one vote an image there is little,
and a wide prior would trust the features too much.
"""

_WEIGHTS = tuple(1 - step / 20 for step in range(13))
"""Values of `gamma` that are tried."""

_LEFT_OUT_VALUES = 2_000_000
"""Votes times classes by which it is chosen, at the most."""

_TOLERANCE = 1e-6
"""Gain of a step, in nats an image, below which a search ends."""

_MOST_STEPS = 300
_HALVINGS = 12
_BATCH_VALUES = 10_000_000
_LEAST = 1e-300
_ROUNDING = 1e-9
"""Gain below which there is none."""


@dataclass(frozen=True)
class Votes:
    """Votes of annotators for images.

    Attributes:
        images: (v,) int64 number of the image of each vote, in [0, m).
        labels: (v,) int64 class that it is for, in [0, k).
        annotators: (v,) int64 who gave it, in [0, A).
        n_images: m. Each has a vote.
        n_classes: k.
        n_annotators: A.
    """

    images: Tensor
    labels: Tensor
    annotators: Tensor
    n_images: int
    n_classes: int
    n_annotators: int

    def counts(self) -> Tensor:
        """(m, k) float64 number of votes for each class."""
        found = torch.zeros(self.n_images, self.n_classes, dtype=torch.float64)
        return found.index_put_((self.images, self.labels), torch.ones(()).double(), accumulate=True)

    def together(self) -> Votes:
        """The same votes as if one annotator had given them all."""
        return replace(self, annotators=torch.zeros_like(self.annotators), n_annotators=1)

    def logs(self, matrices: Tensor) -> Tensor:
        """(m, k) float64 `sum_v log M_a[c, y]` of the votes of each image.

        Args:
            matrices: (A, k, k) `M`.
        """
        of_votes = matrices.clamp_min(_LEAST).log().transpose(1, 2)[self.annotators, self.labels]
        zeros = torch.zeros(self.n_images, self.n_classes, dtype=torch.float64)
        return zeros.index_add_(0, self.images, of_votes)

    def counted(self, posterior: Tensor) -> Tensor:
        """(A, k, k) float64 expected number of votes by annotator, true class and vote.

        Args:
            posterior: (m, k) probability of each class being the true one.
        """
        k = self.n_classes
        found = torch.zeros(self.n_annotators * k, k, dtype=torch.float64)
        found.index_add_(0, self.annotators * k + self.labels, posterior[self.images])
        return found.view(self.n_annotators, k, k).transpose(1, 2)


@dataclass(frozen=True)
class VotesFit:
    """What votes and features say together.

    Attributes:
        posterior: (m, k) float64 probability of each class being the true one.
        matrices: (A, k, k) float64 confusion matrix of each annotator.
        exponent: `tau`; 1 trusts the features as they were calibrated, 0 not at all.
        bias: (k,) float64 `b`.
        vote_exponent: `gamma`.
        likelihoods: Penalised log-likelihood at the start of each step of the last search and at its end;
            it does not fall.
    """

    posterior: Tensor
    matrices: Tensor
    exponent: float
    bias: Tensor
    vote_exponent: float
    likelihoods: tuple[float, ...]


def fit_votes(votes: Votes, logs: Tensor) -> VotesFit:
    """Fit confusion matrices and the trust in the features by expectation maximisation.

    Args:
        votes: What annotators said.
        logs: (m, k) float64 log-probability of each class by the features; zeros where there are none.

    Raises:
        SolveError: The matrices of so many annotators and classes are too large.
    """
    k = votes.n_classes
    if votes.n_annotators * k * k > MOST_VALUES:
        raise SolveError(
            f"{votes.n_annotators:,} annotators and {k:,} classes make "
            f"{votes.n_annotators * k * k:,} numbers in confusion matrices",
            expected=f"{MOST_VALUES:,} at the most",
            hint=Advice("use {annotator} none, which takes all votes for those of one annotator"),
        )
    together = votes.together()
    fit = VotesFit(torch.empty(0), one_rate(_FIRST_WRONG, k)[None], 1.0, torch.zeros(k).double(), 1.0, ())
    for _ in range(_ROUNDS):
        wrong = 1 - float(fit.matrices.diagonal(dim1=1, dim2=2).mean())
        if len(fit.posterior):
            counts = together.counted(fit.posterior)[0]
            wrong = 1 - float(counts.diagonal().sum() / counts.sum())
        fit = _climbed(together, logs, fit, one_rate(wrong, k)[None], _SHARED_STRENGTH)
    if votes.n_annotators == 1:
        return _weighed(votes, logs, fit)
    common = fit.matrices[0]
    fit = replace(fit, matrices=common.expand(votes.n_annotators, k, k).clone())
    for _ in range(_ROUNDS):
        base = _by_factors(common, votes.counted(fit.posterior))
        fit = _climbed(votes, logs, fit, base, _OWN_STRENGTH)
    return _weighed(votes, logs, fit)


def right_shares(votes: Votes, posterior: Tensor) -> tuple[Tensor, Tensor]:
    """Expected share of right votes of each annotator, and its variance, (A,) float64 each.

    The share is that of the votes at hand with one more, half right: `r = (sum_v w_v + 1/2) / (n + 1)`. The
    variance is that of the binomial draw of `n` votes and that of what is unknown of their truth,
    `r (1 - r) / (n + 2) + sum_v w_v (1 - w_v) / n^2`.

    Args:
        votes: With annotators.
        posterior: (m, k) probability of each class being the true one.
    """
    right = posterior[votes.images, votes.labels]

    def summed(values: Tensor) -> Tensor:
        return torch.zeros(votes.n_annotators, dtype=torch.float64).index_add_(0, votes.annotators, values)

    n = summed(torch.ones_like(right))
    share = (summed(right) + 0.5) / (n + 1)
    return share, share * (1 - share) / (n + 2) + summed(right * (1 - right)) / n.square()


def gain_of_a_vote(posterior: Tensor, matrix: Tensor) -> Tensor:
    """How much more probable the best class is expected to be after one more vote, (m,) float64 >= 0.

    `sum_y max_c P(c) M[c, y] - max_c P(c)`: 0 where no single vote would change the consensus.

    Args:
        posterior: (m, k) `P`.
        matrix: (k, k) `M` of whoever would vote.
    """
    found = []
    for rows in torch.split(posterior, max(1, _BATCH_VALUES // matrix.numel())):
        after = (rows[:, :, None] * matrix).amax(dim=1).sum(dim=1)
        gain = after - rows.amax(dim=1)
        found.append(torch.where(gain > _ROUNDING, gain, 0.0))
    return torch.cat(found)


def left_out_likelihood(votes: Votes, logs: Tensor, fit: VotesFit, exponent: float) -> Tensor:
    """Log-likelihood (b,) of votes, in nats, each by the features and the other votes for its image.

    Args:
        votes: Of many, evenly spaced ones are left out.
        logs: (m, k) as of `fit_votes`.
        fit: Of all votes.
        exponent: `gamma` that the other votes have.
    """
    chosen = torch.arange(
        0, len(votes.images), max(1, len(votes.images) * votes.n_classes // _LEFT_OUT_VALUES)
    )
    image = votes.images[chosen]
    own = fit.matrices.clamp_min(_LEAST).log().transpose(1, 2)[votes.annotators[chosen], votes.labels[chosen]]
    prior = (fit.exponent * logs + fit.bias)[image]
    others = torch.log_softmax(prior + exponent * (votes.logs(fit.matrices)[image] - own), dim=1)
    return torch.logsumexp(others + own, dim=1)


def _weighed(votes: Votes, logs: Tensor, fit: VotesFit) -> VotesFit:
    """The fit with the largest weight of the votes that is within a standard error of the best one."""
    likelihoods = [left_out_likelihood(votes, logs, fit, weight) for weight in _WEIGHTS]
    best = max(likelihoods, key=lambda values: float(values.mean()))
    losses = [best - values for values in likelihoods]
    exponent = next(
        weight
        for weight, loss in zip(_WEIGHTS, losses, strict=True)
        if float(loss.mean()) <= float(loss.std(correction=0)) / math.sqrt(len(loss))
    )
    joint = fit.exponent * logs + fit.bias + exponent * votes.logs(fit.matrices)
    return replace(fit, posterior=torch.softmax(joint, dim=1), vote_exponent=exponent)


def _by_factors(common: Tensor, counts: Tensor) -> Tensor:
    """The common matrix with the mistakes of each annotator more or less frequent, (A, k, k).

    Args:
        common: (k, k).
        counts: (A, k, k) expected votes.
    """
    right = common.diagonal()
    wrong = counts.sum(dim=(1, 2)) - counts.diagonal(dim1=1, dim2=2).sum(dim=1)
    usual = counts.sum(dim=2) @ (1 - right)
    factors = (wrong + _FACTOR_STRENGTH) / (usual + _FACTOR_STRENGTH)
    mistakes = (factors[:, None] * (1 - right)).clamp_max(_MOST_WRONG)
    shape = (common / (1 - right)[:, None]).fill_diagonal_(0)
    return mistakes[:, :, None] * shape + torch.diag_embed(1 - mistakes)


def _climbed(votes: Votes, logs: Tensor, start: VotesFit, base: Tensor, strength: float) -> VotesFit:
    """One expectation maximisation, with the prior of the matrices held fixed.

    Beside the priors of the matrices, of the exponent and of the biases there is one image more, whose class
    is drawn at random: features without a mistake would otherwise ask for certainty.

    Args:
        votes: What is fitted.
        logs: (m, k) `L`.
        start: Where to begin.
        base: (A, k, k) what the prior of the rows is around.
        strength: Its pseudo-counts a row.
    """
    matrices, exponent, bias = start.matrices, start.exponent, start.bias
    likelihoods: list[float] = []
    while True:
        prior = torch.log_softmax(exponent * logs + bias, dim=1)
        joint = prior + votes.logs(matrices)
        likelihood = torch.logsumexp(joint, dim=1)
        posterior = (joint - likelihood[:, None]).exp()
        likelihoods.append(
            float(likelihood.sum())
            + strength * float((base * matrices.clamp_min(_LEAST).log()).sum())
            + _of_trust(exponent, bias)
            + float(prior.mean())
        )
        ended = len(likelihoods) > 1 and likelihoods[-1] - likelihoods[-2] < _TOLERANCE * len(logs)
        if ended or len(likelihoods) > _MOST_STEPS:
            return VotesFit(posterior, matrices, exponent, bias, 1.0, tuple(likelihoods))
        counts = votes.counted(posterior)
        matrices = (counts + strength * base) / (counts.sum(dim=2, keepdim=True) + strength)
        exponent, bias = _trusted(logs, posterior + 1 / posterior.numel(), exponent, bias)


def _of_trust(exponent: float, bias: Tensor) -> float:
    """Logarithm of the prior of the exponent and the biases, which are standard normal."""
    return -(((exponent - 1) / _EXPONENT_SPREAD) ** 2 + float(bias.square().sum())) / 2


def _trusted(logs: Tensor, targets: Tensor, exponent: float, bias: Tensor) -> tuple[float, Tensor]:
    """One Newton step on exponent and biases that does not lower the expected likelihood.

    Args:
        logs: (m, k) `L`.
        targets: (m, k) expected counts of the true class.
        exponent: `tau`.
        bias: (k,) `b`.
    """
    counting = targets.sum(dim=1)
    q = torch.softmax(exponent * logs + bias, dim=1)
    expected = counting[:, None] * q
    surplus = targets - expected
    mean = (q * logs).sum(dim=1)
    slope = torch.cat([(surplus * logs).sum()[None], surplus.sum(dim=0)])
    slope[0] -= (exponent - 1) / _EXPONENT_SPREAD**2
    slope[1:] -= bias
    curvature = torch.eye(len(bias) + 1, dtype=torch.float64)
    curvature[0, 0] = _EXPONENT_SPREAD**-2 + (expected * (logs - mean[:, None]).square()).sum()
    curvature[0, 1:] = (expected * (logs - mean[:, None])).sum(dim=0)
    curvature[1:, 0] = curvature[0, 1:]
    curvature[1:, 1:] += expected.sum(dim=0).diag() - expected.T @ q
    step = torch.linalg.solve(curvature, slope)

    def objective(at: tuple[float, Tensor]) -> float:
        return float((targets * torch.log_softmax(at[0] * logs + at[1], dim=1)).sum()) + _of_trust(*at)

    now = objective((exponent, bias))
    tried = (
        (exponent + 0.5**halvings * float(step[0]), bias + 0.5**halvings * step[1:])
        for halvings in range(_HALVINGS)
    )
    # None is better where rounding hides what is left to gain.
    return next((found for found in tried if objective(found) >= now), (exponent, bias))
