"""Label errors by how well the linear subspace of each class reconstructs a sample.

Source: Marks, Griffin and Corso, "Class-wise Autoencoders Measure Classification Difficulty And Detect Label
Mistakes", arXiv 2412.02596, 2024: the ratio of the reconstruction error under the given class to the least
one under another. They take shallow autoencoders; the linear autoencoder of least error is a class's
principal subspace, and that is what stands here.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

SHARES = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95)
"""Shares of a class's variance that its subspace may keep."""


def error_ratio(
    features: np.ndarray, labels: np.ndarray, folds: Iterable[tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Error under the given class by the least error under another, (n,), of samples that were held out.

    The share of variance is the one with which the class of least error is most often the given one.

    Args:
        features: (n, d).
        labels: (n,) class numbers from 0 to k - 1.
        folds: Rows to fit and rows held out, which together hold out every sample once.
    """
    k = int(labels.max()) + 1
    errors = np.full((len(SHARES), len(labels), k), np.inf)
    for fitted, held_out in folds:
        for label in range(k):
            rows = features[fitted[labels[fitted] == label]].astype(float)
            if len(rows):
                errors[:, held_out, label] = reconstruction_errors(rows, features[held_out].astype(float))
    right = (errors.argmin(axis=2) == labels).mean(axis=1)
    best = errors[right.argmax()]
    samples = np.arange(len(labels))
    given = best[samples, labels]
    best[samples, labels] = np.inf
    return np.asarray(given / np.maximum(best.min(axis=1), 1e-12))


def reconstruction_errors(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Squared distances of samples from the principal subspaces of a class, (shares, m).

    Args:
        rows: (n, d) samples of the class.
        others: (m, d) samples to reconstruct.
    """
    center = rows.mean(axis=0)
    # Eigenvectors of the smaller of the two Gram matrices are much faster than singular vectors.
    centered = rows - center
    wide = centered.shape[1] > centered.shape[0]
    variances, vectors = np.linalg.eigh(centered @ centered.T if wide else centered.T @ centered)
    variances, vectors = variances[::-1].clip(min=0), vectors[:, ::-1]
    kept = variances > 1e-10 * max(variances[0], 1e-300)
    variances, vectors = variances[kept], vectors[:, kept]
    directions = centered.T @ vectors / np.sqrt(variances) if wide else vectors
    distances = others - center
    explained = np.cumsum((distances @ directions) ** 2, axis=1)
    explained = np.column_stack([np.zeros(len(others)), explained])
    total = variances.sum()
    reached = np.cumsum(variances) / total if total > 0 else np.zeros(0)
    ranks = [min(int(np.searchsorted(reached, share)) + 1, len(variances)) for share in SHARES]
    return np.asarray(((distances**2).sum(axis=1)[:, None] - explained[:, ranks]).clip(min=0).T)
