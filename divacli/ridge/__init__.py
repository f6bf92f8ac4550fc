"""The mathematics: weighted ridge, its leave-one-out loss and the derivative in every sample weight.

Tensors in, tensors out: no files, no logging, no choice of device. The notation is that of `docs/method.md`.

    task = RidgeTask(features, labels, n_classes, weights)
    spectrum = decompose(task)
    path = ridge_path(task, spectrum)
    fit = spectrum.fit(path.ridge)
    result = loo_derivative(task, fit, SquaredLoss())
"""

from divacli.ridge.dropping import Evidence, Kept, dropping_order, kept_fraction
from divacli.ridge.fit.dual import Span
from divacli.ridge.fit.eigen import in_eigenbasis
from divacli.ridge.fit.folds import split_in_folds
from divacli.ridge.fit.moments import Moments, decompose, moments
from divacli.ridge.fit.rows import LinearOutput, Rows
from divacli.ridge.fit.scaling import SCALINGS, Scaling, fit_scaling
from divacli.ridge.fit.spectrum import RidgeFit, Spectrum
from divacli.ridge.fit.task import RidgeTask
from divacli.ridge.forecast import (
    FOLDS,
    NOTHING,
    RANDOM,
    Change,
    Decide,
    Forecast,
    Rest,
    TrainingWeights,
    forecast,
)
from divacli.ridge.labels.class_probability import Calibration
from divacli.ridge.labels.diagnosis import Diagnosis, diagnose
from divacli.ridge.labels.disagreement import Disagreement, examine_disagreement
from divacli.ridge.labels.mistakes import Mistakes, Shape
from divacli.ridge.labels.noise import NoiseFit, fit_noise, noise_rows
from divacli.ridge.labels.noise_fit import Labelled, NoiseModel
from divacli.ridge.labels.votes import Votes, VotesFit, fit_votes, gain_of_a_vote, right_shares
from divacli.ridge.leave_out.calibration import RobustCrossEntropy, calibrate
from divacli.ridge.leave_out.derivative import (
    DatasetDerivative,
    ValidationResult,
    loo_derivative,
    loo_sums,
    validation_derivative,
    validation_sums,
)
from divacli.ridge.leave_out.functional import loo_loss
from divacli.ridge.leave_out.leave_one_out import LooResult, leave_one_out, loo_predictions, predictable
from divacli.ridge.leave_out.losses import CrossEntropyLoss, Loss, SquaredLoss, fit_inverse_temperature
from divacli.ridge.leave_out.oracle import Oracle
from divacli.ridge.leave_out.removal import Removal
from divacli.ridge.leave_out.ridge_path import RidgePath, ridge_grid, ridge_path
from divacli.ridge.leave_out.uncertainty import derivative_errors, significant
from divacli.ridge.pool.choice import RULES, PoolProblem, PoolWalk, batch_size, started
from divacli.ridge.pool.coreset import Coreset
from divacli.ridge.pool.extension import Candidates, Extension, State
from divacli.ridge.pool.forecast import POOL_FOLDS, TRUSTED, forecast_rules
from divacli.ridge.pool.reduction import Reduction, merged
from divacli.ridge.pool.trust import PoolTrust, fit_trust
from divacli.ridge.score_pass import Scores, scores
from divacli.ridge.similar.near_duplicates import NearDuplicates, near_duplicates
from divacli.ridge.weights.kfold import StepChoice, Trial
from divacli.ridge.weights.problem import Problem, differentiate
from divacli.ridge.weights.reweighting import SIZES, LeftOut, choose_steps, left_out, stepped
from divacli.ridge.weights.shares import ShareDerivative, choose_shares, differentiate_shares, share_weights

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
    "Labelled",
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
    "TrainingWeights",
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
