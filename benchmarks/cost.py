"""How many floating-point operations a solve takes, phase by phase: what its speed is measured against.

A product of (a, b) and (b, c) counts 2 a b c; of symmetric products only the blocks that are computed count.
What is done to single entries counts nothing: it takes bandwidth, not arithmetic. Rotated rows are taken to
be kept, which they are where there is room for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from divacli.ridge.noise import FIT_VALUES
from divacli.ridge.path import PATH_SAMPLES
from divacli.ridge.ranking import FACTORS, JUDGED
from divacli.ridge.uncertainty import MOST_SAMPLES


@dataclass(frozen=True)
class Size:
    """A solve.

    Attributes:
        n: Samples.
        d: Features.
        k: Classes.
        ridges: On the path.
        blocks: Of columns, that symmetric products are computed in.
    """

    n: int
    d: int
    k: int
    ridges: int = 21
    blocks: int = 1


def operations(size: Size) -> dict[str, float]:
    """Floating-point operations of each phase.

    A table of scores takes `noise_predictions` and `scores` in place of `derivative`: losses, predictions and
    the noise of labels at one ridge, derivatives and their standard errors at another. The noise model is
    fitted to a part of the samples that does not grow, and is not counted.
    """
    n, d, k = size.n, size.d, size.k
    r = d + 1  # with the intercept
    half = (size.blocks + 1) / (2 * size.blocks)
    walked, judged, drawn = (_spaced(n, most) for most in (PATH_SAMPLES, JUDGED, MOST_SAMPLES))
    labels = _spaced(n, FIT_VALUES // k)
    fitted, squared = 2 * n * r * k, 2 * n * r * r * half
    # The samples of the path are read twice, and rows that are drawn are not kept.
    path_rotation, rest = (2 * n * d * d, 0) if walked == n else (4 * walked * d * d, 2 * n * d * d)
    candidate = fitted + 2 * judged * r * k + 2 * n * judged * (r + 2 * k + 2)
    derivative = 2 * (2 * fitted + squared)  # residuals, `P` and `M`; and what these say of every sample
    return {
        "moments": 2 * n * (d * d * half + d * k + d + k),
        # Golub and Van Loan, Matrix Computations, 8.3: all eigenvalues and eigenvectors.
        "eigenbasis": 9 * d**3 + 2 * d * d * k,
        "path": path_rotation + 2 * walked * d * size.ridges * (k + 1),
        "ranking": rest + 2 * judged * d * d + len(FACTORS) * candidate,
        "derivative": derivative,
        "noise_predictions": 2 * labels * (d * d + r * k),
        "scores": fitted + 2 * n * k * k + derivative + 2 * drawn * (d * d + r * k) + 2 * n * drawn * (r + k),
    }


def _spaced(n: int, most: int) -> int:
    """How many of n samples are drawn, evenly spaced, where there may be so many."""
    return -(-n // max(1, -(-n // most)))
