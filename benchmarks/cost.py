"""How many floating-point operations a solve takes, phase by phase: what its speed is measured against.

A product of (a, b) and (b, c) counts 2 a b c; of symmetric products only the blocks that are computed count.
What is done to single entries counts nothing: it takes bandwidth, not arithmetic. Rotated rows are taken to
be kept, which they are where there is room for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from divacli.ridge.labels.noise import FIT_VALUES
from divacli.ridge.leave_out.jackknife import MOST_DELETED
from divacli.ridge.leave_out.ridge_path import PATH_SAMPLES


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

    A table of scores takes `noise_predictions` and `scores` in place of `derivative`: the same pass judges
    labels as well, and standard errors are added. Rows that the path has not rotated are counted in
    `derivative`; without it `scores` rotates them. The noise model is fitted to a part of the samples that
    does not grow, and is not counted.
    """
    n, d, k = size.n, size.d, size.k
    r = d + 1  # with the intercept
    half = (size.blocks + 1) / (2 * size.blocks)
    walked, drawn = (_spaced(n, most) for most in (PATH_SAMPLES, MOST_DELETED))
    labels = _spaced(n, FIT_VALUES // k)
    fitted, squared = 2 * n * r * k, 2 * n * r * r * half
    # The samples of the path are read twice, and rows that are drawn are not kept.
    path_rotation, rest = (2 * n * d * d, 0) if walked == n else (4 * walked * d * d, 2 * n * d * d)
    passes = 2 * (2 * fitted + squared)  # residuals, `P` and `M`; and what these say of every sample
    # Samples that are deleted: their moments, and what each is to each other and to all.
    deleting = drawn * (d * d + r * r + 3 * r * k + drawn * (r + 3 * k) + n * (3 * r + 4 * k))
    return {
        "moments": 2 * n * (d * d * half + d * k + d + k),
        # Golub and Van Loan, Matrix Computations, 8.3: all eigenvalues and eigenvectors.
        "eigenbasis": 9 * d**3 + 2 * d * d * k,
        "path": path_rotation + 2 * walked * d * size.ridges * (k + 1),
        "derivative": rest + passes,
        "noise_predictions": 2 * labels * (d * d + r * k),
        "scores": 2 * n * k * k + passes + 2 * deleting,
    }


def _spaced(n: int, most: int) -> int:
    """How many of n samples are drawn, evenly spaced, where there may be so many."""
    return -(-n // max(1, -(-n // most)))
