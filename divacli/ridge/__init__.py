"""The mathematics: weighted ridge, its leave-one-out loss and the derivative in every sample weight.

Tensors in, tensors out: no files, no logging, no choice of device. The notation is that of `docs/method.md`.

    task = RidgeTask(features, labels, n_classes, weights)
    spectrum = decompose(task)
    path = ridge_path(task, spectrum)
    fit = spectrum.fit(float(path.ridges[path.best]))
    result = loo_derivative(task, fit, SquaredLoss())
"""

from divacli.ridge.calibration import RobustCrossEntropy, calibrate
from divacli.ridge.class_probability import Calibration
from divacli.ridge.coreset import Coreset
from divacli.ridge.derivative import (
    DatasetDerivative,
    ValidationResult,
    loo_derivative,
    loo_sums,
    validation_derivative,
    validation_sums,
)
from divacli.ridge.diagnosis import Diagnosis, diagnose
from divacli.ridge.disagreement import Disagreement, examine_disagreement
from divacli.ridge.dropping import Evidence, Kept, dropping_order, kept_fraction
from divacli.ridge.dual import Span
from divacli.ridge.eigen import in_eigenbasis
from divacli.ridge.extension import Candidates, Extension, State
from divacli.ridge.folds import split_in_folds
from divacli.ridge.forecast import FOLDS, NOTHING, RANDOM, Change, Decide, Forecast, Rest, Training, forecast
from divacli.ridge.functional import loo_loss
from divacli.ridge.kfold import StepChoice, Trial
from divacli.ridge.leave_one_out import LooResult, leave_one_out, loo_predictions, predictable
from divacli.ridge.losses import CrossEntropyLoss, Loss, SquaredLoss, fit_inverse_temperature
from divacli.ridge.mistakes import Mistakes, Shape
from divacli.ridge.moments import Moments, decompose, moments
from divacli.ridge.neighbours import NearDuplicates, near_duplicates
from divacli.ridge.noise import NoiseFit, fit_noise, noise_rows
from divacli.ridge.noise_fit import NoiseModel
from divacli.ridge.oracle import Oracle
from divacli.ridge.path import RidgePath, ridge_grid, ridge_path
from divacli.ridge.pool_choice import (
    RULES,
    PoolProblem,
    PoolWalk,
    batch_size,
    started,
)
from divacli.ridge.pool_forecast import POOL_FOLDS, TRUSTED, forecast_rules
from divacli.ridge.problem import Problem, differentiate
from divacli.ridge.reduction import Reduction, merged
from divacli.ridge.removal import Removal
from divacli.ridge.reweighting import SIZES, LeftOut, choose_steps, left_out, stepped
from divacli.ridge.rows import LinearOutput, Rows
from divacli.ridge.scaling import SCALINGS, Scaling, fit_scaling
from divacli.ridge.scores import Scores, scores
from divacli.ridge.shares import ShareDerivative, choose_shares, differentiate_shares, share_weights
from divacli.ridge.spectrum import RidgeFit, Spectrum
from divacli.ridge.task import RidgeTask
from divacli.ridge.trust import PoolTrust, fit_trust
from divacli.ridge.uncertainty import derivative_errors, significant
from divacli.ridge.votes import Votes, VotesFit, fit_votes, gain_of_a_vote, right_shares

__all__ = [
    "FOLDS",
    "NOTHING",
    "POOL_FOLDS",
    "RANDOM",
    "RULES",
    "SCALINGS",
    "SIZES",
    "TRUSTED",
    "Calibration",
    "Candidates",
    "Change",
    "Coreset",
    "CrossEntropyLoss",
    "DatasetDerivative",
    "Decide",
    "Diagnosis",
    "Disagreement",
    "Evidence",
    "Extension",
    "Forecast",
    "Kept",
    "LeftOut",
    "LinearOutput",
    "LooResult",
    "Loss",
    "Mistakes",
    "Moments",
    "NearDuplicates",
    "NoiseFit",
    "NoiseModel",
    "Oracle",
    "PoolProblem",
    "PoolTrust",
    "PoolWalk",
    "Problem",
    "Reduction",
    "Removal",
    "Rest",
    "RidgeFit",
    "RidgePath",
    "RidgeTask",
    "RobustCrossEntropy",
    "Rows",
    "Scaling",
    "Scores",
    "Shape",
    "ShareDerivative",
    "Span",
    "Spectrum",
    "SquaredLoss",
    "State",
    "StepChoice",
    "Training",
    "Trial",
    "ValidationResult",
    "Votes",
    "VotesFit",
    "batch_size",
    "calibrate",
    "choose_shares",
    "choose_steps",
    "decompose",
    "derivative_errors",
    "diagnose",
    "differentiate",
    "differentiate_shares",
    "dropping_order",
    "examine_disagreement",
    "fit_inverse_temperature",
    "fit_noise",
    "fit_scaling",
    "fit_trust",
    "fit_votes",
    "forecast",
    "forecast_rules",
    "gain_of_a_vote",
    "in_eigenbasis",
    "kept_fraction",
    "leave_one_out",
    "left_out",
    "loo_derivative",
    "loo_loss",
    "loo_predictions",
    "loo_sums",
    "merged",
    "moments",
    "near_duplicates",
    "noise_rows",
    "predictable",
    "ridge_grid",
    "ridge_path",
    "right_shares",
    "scores",
    "share_weights",
    "significant",
    "split_in_folds",
    "started",
    "stepped",
    "validation_derivative",
    "validation_sums",
]
