"""The mathematics: weighted ridge, its leave-one-out loss and the derivative in every sample weight.

Tensors in, tensors out: no files, no logging, no choice of device. The notation is that of `docs/method.md`.

    task = RidgeTask(features, labels, n_classes, weights)
    spectrum = decompose(task)
    path = ridge_path(task, spectrum)
    fit = spectrum.fit(float(path.ridges[path.best]))
    result = loo_derivative(task, fit, SquaredLoss())
"""

from divacli.ridge.derivative import (
    DatasetDerivative,
    ValidationResult,
    loo_derivative,
    validation_derivative,
)
from divacli.ridge.dual import Span
from divacli.ridge.functional import loo_loss
from divacli.ridge.leave_one_out import LooResult, leave_one_out, loo_predictions
from divacli.ridge.losses import CrossEntropyLoss, Loss, SquaredLoss, fit_inverse_temperature
from divacli.ridge.oracle import Oracle
from divacli.ridge.path import RidgePath, ridge_grid, ridge_path
from divacli.ridge.ranking import RankingChoice, choose_ranking_ridge
from divacli.ridge.rows import LinearOutput, Rows
from divacli.ridge.scaling import SCALINGS, Scaling, fit_scaling
from divacli.ridge.spectrum import RidgeFit, Spectrum, decompose
from divacli.ridge.task import RidgeTask

__all__ = [
    "SCALINGS",
    "CrossEntropyLoss",
    "DatasetDerivative",
    "LinearOutput",
    "LooResult",
    "Loss",
    "Oracle",
    "RankingChoice",
    "RidgeFit",
    "RidgePath",
    "RidgeTask",
    "Rows",
    "Scaling",
    "Span",
    "Spectrum",
    "SquaredLoss",
    "ValidationResult",
    "choose_ranking_ridge",
    "decompose",
    "fit_inverse_temperature",
    "fit_scaling",
    "leave_one_out",
    "loo_derivative",
    "loo_loss",
    "loo_predictions",
    "ridge_grid",
    "ridge_path",
    "validation_derivative",
]
