"""Label errors by the labels of nearest neighbours, after SimiFeat, and its estimate of the noise, HOC.

Both assume that a sample and its two nearest neighbours have the same true label (2-NN clusterability).

Sources: Zhu, Dong and Liu, "Detecting Corrupted Labels Without Training a Model to Predict", ICML 2022, for
the vote and the rank. Zhu, Song and Liu, "Clusterability as an Alternative to Anchor Points When Learning
with Noisy Labels", ICML 2021, for HOC. The papers repeat the detection on randomly augmented images and
take the majority. Here features are given, so there is one round.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

NEIGHBOURS = 10
STEPS = 500
RATE = 0.1
CHUNK = 1024
"""Rows whose similarities are held at a time."""


@dataclass(frozen=True)
class Noise:
    """The label noise of a set.

    Attributes:
        transitions: (k, k) probability of each given label (column) for each true class (row).
        prior: (k,) share of each true class.
    """

    transitions: np.ndarray
    prior: np.ndarray

    @property
    def rate(self) -> float:
        """Share of the labels that are wrong."""
        return float(1 - self.prior @ self.transitions.diagonal())

    def wrong_by_label(self) -> np.ndarray:
        """Share of wrong labels among the samples of each given label, (k,)."""
        right = self.prior * self.transitions.diagonal()
        return np.asarray(1 - right / (self.prior @ self.transitions))


def nearest(features: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Nearest other samples by cosine similarity, the nearest first.

    Args:
        features: (n, d) rows of length 1.
        count: Neighbours of each sample.

    Returns:
        Their row numbers and their similarities, both (n, count).
    """
    rows = torch.from_numpy(np.ascontiguousarray(features, dtype=np.float32))
    places, similarities = [], []
    for start in range(0, len(rows), CHUNK):
        similarity = rows[start : start + CHUNK] @ rows.T
        own = torch.arange(len(similarity))
        similarity[own, start + own] = -torch.inf
        best = similarity.topk(count, dim=1)
        places.append(best.indices)
        similarities.append(best.values)
    return torch.cat(places).numpy(), torch.cat(similarities).numpy()


def hoc(features: np.ndarray, labels: np.ndarray, seed: int = 0) -> Noise:
    """Estimate the noise from how often the labels of a sample and its two nearest neighbours meet.

    With true class i of probability p_i and noise T, three independent labels a, b, c have the probability
    sum_i p_i T_ia T_ib T_ic. Adam minimises the sum of three Frobenius distances: between the frequencies of
    one label, of two and of three, and these probabilities. The squared norm of the probabilities of order m
    is sum_ij p_i p_j (T_i . T_j)^m, so no array of k^3 numbers is made.

    Args:
        features: (n, d) rows of length 1.
        labels: (n,) class numbers from 0 to k - 1, each of which occurs.
        seed: Of the first guess of the prior.
    """
    places, _ = nearest(features, 2)
    triples = np.column_stack([labels, labels[places]])
    observed = [frequencies(triples[:, :order]) for order in (1, 2, 3)]
    k = int(labels.max()) + 1
    generator = torch.Generator().manual_seed(seed)
    rows = (5 * torch.eye(k, dtype=torch.float64) - 1).requires_grad_()
    shares = 1 / k + 0.1 * torch.rand(k, generator=generator, dtype=torch.float64)
    shares.requires_grad_()
    optimizer = torch.optim.Adam([rows, shares], lr=RATE)
    least, best = np.inf, Noise(np.eye(k), np.full(k, 1 / k))
    for _ in range(STEPS):
        transitions, prior = rows.softmax(dim=1), shares.softmax(dim=0)
        loss = distance(transitions, prior, observed)
        if loss.item() < least:
            least, best = loss.item(), Noise(transitions.detach().numpy(), prior.detach().numpy())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return best


def frequencies(tuples: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """The different rows (m, order) and the share of each among all rows (m,)."""
    different, counts = np.unique(tuples, axis=0, return_counts=True)
    return torch.from_numpy(different), torch.from_numpy(counts / len(tuples))


def distance(
    transitions: torch.Tensor, prior: torch.Tensor, observed: list[tuple[torch.Tensor, torch.Tensor]]
) -> torch.Tensor:
    """Sum of the Frobenius distances between observed and expected frequencies of labels.

    Args:
        transitions: (k, k) probabilities of given labels by true class.
        prior: (k,) shares of the true classes.
        observed: Of order 1, 2 and 3, the result of `frequencies`.
    """
    total = torch.zeros((), dtype=prior.dtype)
    overlap = transitions @ transitions.T
    for order, (tuples, shares) in enumerate(observed, start=1):
        expected = transitions.T[tuples].prod(dim=1) @ prior
        squared = prior @ overlap**order @ prior - 2 * expected @ shares + shares @ shares
        total = total + squared.clamp(min=1e-12).sqrt()
    return total


def votes(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Votes of the ten most similar samples, weighted by their similarity, (n, k).

    A sample is its own first neighbour. It weighs as much above the second as that above the third, as in
    the authors' code.

    Args:
        features: (n, d) rows of length 1.
        labels: (n,) class numbers.
    """
    places, weights = nearest(features, NEIGHBOURS - 1)
    own = np.arange(len(labels))
    places = np.column_stack([own, places])
    weights = np.column_stack([2 * weights[:, 0] - weights[:, 1], weights])
    counts = np.zeros((len(labels), int(labels.max()) + 1))
    for place, weight in zip(places.T, weights.T, strict=True):
        counts[own, labels[place]] += weight
    return counts


def winners(counts: np.ndarray, seed: int) -> np.ndarray:
    """The class with the most votes, (n,); of equals, one at random.

    Args:
        counts: (n, k) votes.
        seed: Of the draws.
    """
    draws = np.random.default_rng(seed).random(counts.shape)
    return np.where(counts == counts.max(axis=1, keepdims=True), draws, -1.0).argmax(axis=1)


def agreement(counts: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cosine similarity of each row of votes and the given label as a unit vector, (n,)."""
    norms = np.linalg.norm(counts, axis=1)
    return np.asarray(counts[np.arange(len(labels)), labels] / np.maximum(norms, 1e-12))


def lowest_by_label(score: np.ndarray, labels: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The samples of each label that score lowest, (n,) bool.

    Args:
        score: (n,) the lower, the likelier wrong.
        labels: (n,) class numbers.
        shares: (k,) which share of the samples of a label to take; values outside [0, 1] are cut.
    """
    found = np.zeros(len(labels), bool)
    for label, share in enumerate(shares):
        rows = np.flatnonzero(labels == label)
        count = round(min(max(float(share), 0.0), 1.0) * len(rows))
        found[rows[np.argsort(score[rows], kind="stable")[:count]]] = True
    return found
