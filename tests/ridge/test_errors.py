"""What cannot be answered is refused, with the value that was the matter in the message."""

import pickle
import re
from dataclasses import replace

import pytest
import torch

from divacli.errors import Advice, DivaError, SolveError
from divacli.ridge import (
    Oracle,
    RidgeTask,
    Span,
    decompose,
    in_eigenbasis,
    leave_one_out,
    loo_derivative,
    loo_loss,
    loo_predictions,
    ridge_path,
)


@pytest.fixture
def task(make_problem):
    return make_problem().task


@pytest.mark.parametrize("ridge", [-1.0, -1e9, -1e-3, float("nan"), float("inf"), float("-inf")])
def test_a_ridge_that_is_no_number_from_zero_up_is_refused(ridge, task):
    with pytest.raises(SolveError) as caught:
        decompose(task).fit(ridge)
    assert f"ridge {ridge:g} " in str(caught.value)
    assert caught.value.expected.startswith("a finite ridge well above ")
    assert not re.search("nan|inf |above -", caught.value.expected)


def test_a_path_names_its_ridge_that_is_refused(task):
    ridges = torch.tensor([0.5, -0.25, 1.0], dtype=torch.float64)
    with pytest.raises(SolveError, match=r"ridge -0\.25 "):
        decompose(task).damped(ridges)


@pytest.mark.parametrize("n", [30, 3000])
@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("intercept", [True, False])
def test_ridge_zero_is_refused_for_dependent_features(n, seed, intercept, make_problem):
    """Rounding leaves the zero eigenvalue a little off zero, more so the more samples are summed."""
    task = make_problem(n, 3, seed=seed, intercept=intercept).task
    features = task.features.clone()
    features[:, 2] = features[:, 0] + features[:, 1] / 3
    spectrum = decompose(replace(task, features=features))
    with pytest.raises(SolveError, match="ridge 0 leaves the features' Gram matrix singular"):
        spectrum.fit(0.0)
    assert spectrum.fit(1e-6 * float(spectrum.eigenvalues[-1])).ridge > 0


def test_ridge_zero_works_for_independent_features(make_problem, relative_error):
    problem = make_problem(ridge=0.0)
    fit = decompose(problem.task).fit(0.0)
    found = loo_predictions(problem.task, fit, torch.arange(24))
    assert relative_error(found, problem.loo_predictions()) < 1e-11


def test_weights_that_are_all_zero_are_refused(task):
    with pytest.raises(SolveError, match="every sample weight is zero"):
        decompose(replace(task, weights=torch.zeros(24, dtype=torch.float64)))


@pytest.mark.parametrize("name", ["weights", "validation_mask"])
@pytest.mark.parametrize("value", [-1e-9, float("nan"), float("inf")])
def test_negative_or_non_finite_weights_and_masks_are_refused(name, value, task):
    vector = torch.ones(24, dtype=torch.float64)
    vector[5] = value
    with pytest.raises(SolveError, match=f"{name} holds negative or non-finite values"):
        replace(task, **{name: vector})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("weight", [1.0, 0.0], ids=["present", "absent"])
def test_features_that_are_not_finite_are_refused(value, weight, task):
    features, weights = task.features.clone(), task.weights.clone()
    features[3, 2], weights[3] = value, weight
    broken = replace(task, features=features, weights=weights)
    with pytest.raises(SolveError, match="NaN or infinite"):
        decompose(broken)
    with pytest.raises(SolveError, match="NaN or infinite"):
        Span(broken)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("power", [-0.3, 0.3])
def test_features_whose_powers_leave_the_range_are_refused(dtype, power, task):
    size = torch.finfo(dtype).max ** power
    far = replace(task, features=(task.features + 3) * size, dtype=dtype)
    with pytest.raises(SolveError, match=rf"whose powers {str(dtype)[6:]} cannot hold"):
        decompose(far)
    assert len(decompose(replace(far, features=far.features / size)).eigenvalues) == 5


def test_equal_features_do_not_vary_by_rounding(task):
    """A third is no binary number: its mean over samples differs from it in the last bit."""
    features = torch.full_like(task.features, 1 / 3)
    weights = torch.rand(24, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    spectrum, same, _ = in_eigenbasis(
        still := replace(task, features=features, weights=weights), decompose(still)
    )
    assert spectrum.eigenvalues.tolist() == [0.0] * 5
    with pytest.raises(SolveError, match="have the same features"):
        ridge_path(same, spectrum)


def test_a_sample_far_beyond_the_others_is_no_silent_nan(task, losses):
    """Absent from the fit, it is predicted by it: its squared loss is more than float32 holds."""
    features, weights = task.features.float(), task.weights.clone()
    features[3], weights[3] = 1e30, 0.0
    far = replace(task, features=features, weights=weights, dtype=torch.float32)
    with pytest.raises(SolveError, match="leave the range of floating-point numbers"):
        leave_one_out(far, decompose(far).fit(1.0), losses["squared"])


def test_features_that_are_all_zero_have_a_derivative_of_zero(task, losses):
    nothing = replace(task, features=torch.zeros_like(task.features), intercept=False)
    assert not loo_derivative(nothing, decompose(nothing).fit(1.0), losses["squared"]).derivative.any()
    assert Oracle(nothing, 1.0).loo_derivative(losses["squared"], 4) == 0.0
    span = Span(nothing).task()
    assert span.n_features == 0
    assert not loo_derivative(span, decompose(span).fit(1.0), losses["squared"]).derivative.any()


def test_outputs_of_a_head_that_are_not_finite_are_refused(task):
    offset = torch.zeros(24, 3, dtype=torch.float64)
    offset[7, 1] = float("nan")
    with pytest.raises(SolveError, match="the head's outputs"):
        decompose(replace(task, offset=offset))


@pytest.mark.parametrize("name", ["labels", "weights", "validation_mask"])
@pytest.mark.parametrize("shape", [(23,), (24, 1)])
def test_vectors_of_the_wrong_shape_are_refused(name, shape, task):
    wrong = torch.zeros(shape, dtype=torch.int64 if name == "labels" else torch.float64)
    with pytest.raises(ValueError, match=f"{name} has shape .*23|24, 1.*: expected \\(24,\\)"):
        replace(task, **{name: wrong})


def test_an_offset_of_the_wrong_shape_is_refused(task):
    with pytest.raises(ValueError, match=r"offset has shape \(24, 2\): expected \(24, 3\)"):
        replace(task, offset=torch.zeros(24, 2))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.int64])
def test_other_dtypes_are_refused(dtype, task):
    with pytest.raises(ValueError, match=f"dtype {dtype}: expected torch.float32 or torch.float64"):
        replace(task, dtype=dtype)


@pytest.mark.parametrize(
    ("label", "message"), [(3, "labels run from 0 to 3"), (-1, "labels run from -1 to 2")]
)
def test_labels_out_of_range_are_refused(label, message, task):
    labels = task.labels.clone()
    labels[9] = label
    with pytest.raises(ValueError, match=f"{message}: expected 0 to 2"):
        replace(task, labels=labels)


def test_a_mask_that_is_not_given_counts_every_sample(task):
    bare = RidgeTask(task.features, task.labels, 3, task.weights)
    assert torch.equal(bare.validation_mask, torch.ones(24, dtype=torch.float64))


@pytest.mark.parametrize("solve", [leave_one_out, loo_derivative])
@pytest.mark.parametrize("batch_rows", [5, 100])
def test_a_leverage_of_one_names_the_sample_and_the_ridge(solve, batch_rows, task, losses):
    """A feature that only one sample has: without a ridge, nothing else determines its coefficient."""
    features = task.features.clone()
    features[:, 4] = 0.0
    features[12, 4] = 1.0
    alone = replace(task, features=features, batch_rows=batch_rows)
    assert alone.weights[12] > 0
    fit = decompose(alone).fit(0.0)
    with pytest.raises(SolveError, match="sample 12 has a leverage of one at ridge 0:"):
        solve(alone, fit, losses["squared"])
    assert len(leave_one_out(alone, decompose(alone).fit(0.1), losses["squared"]).loss) == 24


def test_one_present_sample_has_a_leverage_of_one_by_the_intercept(task, losses):
    weights = torch.zeros(24, dtype=torch.float64)
    weights[6] = 1.0
    alone = replace(task, weights=weights)
    with pytest.raises(SolveError, match="sample 6 has a leverage of one at ridge 2:"):
        leave_one_out(alone, decompose(alone).fit(2.0), losses["squared"])


def test_the_oracle_names_the_sample_it_cannot_do_without(task):
    features = task.features.clone()
    features[:, 4] = 0.0
    features[12, 4] = 1.0
    integers = features.round()
    oracle = Oracle(replace(task, features=integers, weights=torch.ones(24, dtype=torch.float64)), 0.0)
    with pytest.raises(SolveError, match="without sample 12 the normal equations are singular"):
        oracle.loo_prediction(12)
    assert bool(torch.isfinite(oracle.loo_prediction(11)).all())


def test_every_refusal_is_one_a_user_can_mend(task):
    with pytest.raises(DivaError) as caught:
        decompose(task).fit(-1.0)
    lines = str(caught.value).splitlines()
    assert [line.split(":")[0] for line in lines[1:]] == ["expected", "to do"]


@pytest.mark.parametrize(
    ("features", "targets"), [((4,), (4, 2)), ((4, 3), (4,)), ((4, 3), (5, 2)), ((4, 3, 1), (4, 2))], ids=str
)
def test_the_functional_form_refuses_shapes_that_do_not_fit(features, targets):
    with pytest.raises(ValueError, match=r"expected \(n, d\) and \(n, k\)") as caught:
        loo_loss(torch.ones(features), torch.ones(targets))
    assert str(features) in str(caught.value)
    assert str(targets) in str(caught.value)


@pytest.mark.parametrize("name", ["weights", "validation_mask"])
def test_the_functional_form_names_the_vector_that_does_not_fit(name):
    with pytest.raises(ValueError, match=rf"{name} has shape \(3,\): expected \(4,\)"):
        loo_loss(torch.ones(4, 3), torch.ones(4, 2), **{name: torch.ones(3)})


def test_the_functional_form_names_the_loss_it_does_not_know():
    with pytest.raises(ValueError, match="loss 'hinge': expected one of squared, cross-entropy"):
        loo_loss(torch.ones(4, 3), torch.ones(4, 2), loss="hinge")


@pytest.mark.parametrize(("n", "d"), [(6, 3), (4, 6)], ids=["primal", "dual"])
def test_the_functional_form_needs_a_unique_solution(n, d):
    with pytest.raises(torch.linalg.LinAlgError):
        loo_loss(torch.zeros(n, d), torch.ones(n, 2), ridge=0.0)


def test_functional_loss_refuses_weights_that_are_all_zero():
    with pytest.raises(ValueError, match="the weights sum to 0"):
        loo_loss(torch.eye(3), torch.eye(3), torch.zeros(3))


def test_advice_names_options_for_python_and_as_they_are_typed():
    advice = pickle.loads(pickle.dumps(Advice("give {step_size} NUMBER, or {val} DATA")))
    assert advice == "give step_size NUMBER, or val DATA"
    error = SolveError("K-fold", expected="more", hint=advice)
    assert error.parts[-1] == "to do: give step_size NUMBER, or val DATA"
    assert error.typed_parts == ["K-fold", "expected: more", "to do: give --step-size NUMBER, or --val DATA"]
    assert SolveError("K-fold").typed_parts == ["K-fold"]
