"""Steps against the derivative and their choice by K-fold, beside a brute force that removes folds for real.

The brute force cuts the fold's rows out of the tensors, fits by normal equations (leaving samples out by as
many refits), differentiates by autograd, and judges by its own sums. It shares with the package the draw of
the folds, the calibration and `loo_loss`, which have their own tests.
"""

from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn import functional

from divacli.errors import SolveError
from divacli.ridge import (
    Problem,
    RidgeTask,
    Span,
    SquaredLoss,
    calibrate,
    choose_steps,
    decompose,
    differentiate,
    left_out,
    loo_derivative,
    loo_loss,
    loo_predictions,
    moments,
    split_in_folds,
    stepped,
    validation_derivative,
)
from divacli.ridge.weights.problem import predictions

RIDGE = 2.0
SIZES = (0.1, 0.4)


def gaussians(n, d=4, k=3, *, flips=0.0, seed=0, distance=1.5):
    """Features (n, d) of k classes, and labels of which a share is replaced by random ones."""
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(k, d, generator=torch.Generator().manual_seed(99), dtype=torch.float64)
    labels = torch.randint(0, k, (n,), generator=generator)
    features = distance * centres[labels] + torch.randn(n, d, generator=generator, dtype=torch.float64)
    flipped = torch.rand(n, generator=generator) < flips
    return features, torch.where(flipped, torch.randint(0, k, (n,), generator=generator), labels)


def task_of(n, *, flips=0.3, seed=0, uneven=True, k=3, **options):
    """A task with weights and a mask that hold zeros, unless they are to be even."""
    features, labels = gaussians(n, k=k, flips=flips, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    weights, mask = (0.5 + torch.rand(n, generator=generator, dtype=torch.float64) for _ in range(2))
    weights[3::11], mask[5::7] = 0.0, 0.0
    if not uneven:
        weights, mask = torch.ones_like(weights), torch.ones_like(mask)
    settings = {"weights": weights, "validation_mask": mask, "dtype": torch.float64, "intercept": True}
    return RidgeTask(features, labels, k, **{**settings, **options})


def problem_of(task, **options):
    judged = options.get("validation") or task
    order = torch.randperm(len(judged), generator=torch.Generator().manual_seed(8))
    return Problem(task, RIDGE, order, **options)


def one_hot(task):
    return functional.one_hot(task.labels, task.n_classes).double()


def design(task):
    ones = torch.ones(len(task), int(task.intercept), dtype=torch.float64)
    return torch.cat([task.features, ones], dim=1)


def solved(task, weights):
    """Coefficients of the normal equations; the bias is not penalised. Differentiable in the weights."""
    rows = design(task)
    penalty = torch.zeros(rows.shape[1], dtype=torch.float64)
    penalty[: task.n_features] = RIDGE
    right = rows.T @ (weights[:, None] * one_hot(task))
    return torch.linalg.solve(rows.T @ (weights[:, None] * rows) + penalty.diag(), right)


def refitted_predictions(task, weights):
    """Each sample's prediction by a refit without it and its group."""
    groups = torch.arange(len(task)) if task.groups is None else task.groups
    return torch.stack(
        [
            design(task)[i] @ solved(task, torch.where(groups == groups[i], 0.0, weights))
            for i in range(len(task))
        ]
    )


def taken(task, keep):
    """The task of some rows; the others are gone."""
    parts = {name: getattr(task, name)[keep] for name in ("features", "labels", "weights", "validation_mask")}
    return replace(task, **parts, groups=None if task.groups is None else task.groups[keep])


def calibrated(problem, found, judged, bias=None):
    rows = judged.validation_mask > 0
    mask = judged.validation_mask[rows]
    return calibrate(found[rows], judged.labels[rows], mask, bias=problem.bias if bias is None else bias)


def brute_derivative(problem, task, weights, shared, validation=None):
    """Autograd through the loss of some rows, which is calibrated to refits at these weights."""
    variable = weights.clone().requires_grad_()
    loss = SquaredLoss()
    if validation is None:
        if problem.robust:
            loss = calibrated(problem, refitted_predictions(task, weights), task)
        value = loo_loss(
            task.features,
            one_hot(task),
            variable,
            RIDGE,
            validation_mask=task.validation_mask,
            groups=task.groups,
            loss=loss,
            intercept=task.intercept,
        )
    else:
        if problem.robust:
            loss = calibrated(problem, design(validation) @ solved(task, weights), validation)
        outputs = design(validation) @ solved(task, variable)
        value = validation.validation_mask @ loss.value(outputs, one_hot(validation))
    (gradient,) = torch.autograd.grad(value, variable)
    if shared is not None:
        gradient = torch.stack([gradient[shared == number].mean() for number in shared])
    return gradient


def brute_step(weights, derivative, size):
    moved = (weights - size * weights.mean() * derivative / derivative.abs().mean()).clamp_min(0)
    return moved * weights.sum() / moved.sum()


@dataclass
class Walk:
    """One fold's walk: the training samples, the judges of its steps, and the fold itself."""

    task: RidgeTask
    weights: torch.Tensor
    shared: torch.Tensor | None
    judges: RidgeTask | None
    fold: RidgeTask
    inside: torch.Tensor

    def moved(self, direction, size):
        return replace(self, weights=brute_step(self.weights, direction, size))


def brute_walks(problem, n_folds, seed, leak=False):
    judged = problem.validation or problem.task
    number = split_in_folds(judged.labels, problem.order, seed, n_folds, judged.groups)
    for fold in range(n_folds):
        inside = number == fold
        task, shared, judges = problem.task, problem.shared, None
        if problem.validation is not None:
            judges = taken(judged, ~inside)
        elif leak:
            task = replace(task, validation_mask=torch.where(inside, 0.0, task.validation_mask))
        else:
            task = taken(task, ~inside)
            shared = None if shared is None else shared[~inside]
        yield Walk(task, task.weights, shared, judges, taken(judged, inside), inside)


def brute_judgement(problem, walks):
    judged = problem.validation or problem.task
    left_out = torch.empty(len(judged), judged.n_classes, dtype=torch.float64)
    for walk in walks:
        left_out[walk.inside] = design(walk.fold) @ solved(walk.task, walk.weights)
    loss, counted = calibrated(problem, left_out, judged, bias=False), judged.validation_mask > 0
    losses = loss.value(left_out[counted], one_hot(judged)[counted])
    share = judged.validation_mask[counted] / judged.validation_mask.sum()
    wrong = (left_out[counted].argmax(dim=1) != judged.labels[counted]).double()
    return losses, share, float(share @ wrong)


def brute_choice(problem, *, most=2, sizes=SIZES, n_folds=3, seed=0, leak=False):
    """Trials (step, size, loss, gain, its error, error) and the sizes taken."""
    walks = list(brute_walks(problem, n_folds, seed, leak))
    now, share, _ = brute_judgement(problem, walks)
    trials, steps = [], []
    for step in range(1, most + 1):
        directions = [
            brute_derivative(problem, walk.task, walk.weights, walk.shared, walk.judges) for walk in walks
        ]
        tried = []
        for size in sizes:
            moved = [walk.moved(direction, size) for walk, direction in zip(walks, directions, strict=True)]
            losses, _, error = brute_judgement(problem, moved)
            gain = float(share @ (now - losses))
            gain_error = float((share.square() @ (now - losses - gain).square()).sqrt())
            trials.append((step, size, float(share @ losses), gain, gain_error, error))
            if gain > 2 * gain_error:
                tried.append((float(share @ losses), size, losses, moved))
        if not tried:
            break
        _, size, now, walks = min(tried, key=lambda one: one[0])
        steps.append(size)
    return trials, tuple(steps)


def numbers(trials):
    return torch.tensor(trials, dtype=torch.float64)


def found_numbers(choice):
    return numbers([(t.step, t.size, t.loss, t.gain, t.gain_error, t.error) for t in choice.trials])


VARIANTS = {
    "robust": {},
    "squared": {"robust": False},
    "no biases": {"bias": False},
    "no intercept": {"intercept": False},
    "groups": {"groups": True},
    "classes share": {"shared": True},
    "validation": {"validation": True},
    "validation, squared, classes share": {"validation": True, "robust": False, "shared": True},
    "validation of groups": {"validation": True, "groups": True},
}


@pytest.fixture(params=list(VARIANTS))
def problem(request):
    """The same 45 samples seen as each variant has it."""
    given = dict(VARIANTS[request.param])
    groups, options = given.pop("groups", False), {"intercept": given.pop("intercept", True)}
    task = task_of(45, **options)
    if given.pop("shared", False):
        given["shared"] = task.labels
    judged = task
    if given.pop("validation", False):
        given["validation"] = judged = task_of(36, seed=5, **options)
    if groups:
        judged = replace(judged, groups=torch.arange(len(judged)) // 2 * 5)
        given, task = (given | {"validation": judged}, task) if "validation" in given else (given, judged)
    return problem_of(task, **given)


def test_the_choice_is_that_of_the_brute_force(problem):
    choice = choose_steps(problem, most=2, sizes=SIZES, n_folds=3)
    trials, steps = brute_choice(problem)
    torch.testing.assert_close(found_numbers(choice), numbers(trials), rtol=1e-8, atol=1e-8)
    assert choice.sizes == steps
    losses, share, _ = brute_judgement(problem, brute_walks(problem, 3, 0))
    assert left_out(problem, n_folds=3).loss == pytest.approx(float(share @ losses), rel=1e-9)


def test_walks_go_on_where_they_ended_on_other_features(problem):
    """As a network under training gives them: no fold's samples have a say in where its walk is."""
    sizes, then = (0.1, 0.4), (0.2,)
    walks = list(brute_walks(problem, 3, 0))
    weights = problem.task.weights
    for size in sizes:
        walks = [brute_moved(problem, walk, size) for walk in walks]
        weights = stepped(weights, differentiate(problem, weights).derivative, size)
    first = left_out(problem, sizes, n_folds=3)
    losses, share, _ = brute_judgement(problem, walks)
    assert first.loss == pytest.approx(float(share @ losses), rel=1e-8)

    other = torch.linalg.qr(torch.randn(4, 4, generator=torch.Generator().manual_seed(2)).double()).Q * 1.5
    moved_on = replace(problem.task, features=problem.task.features @ other[:, :3], weights=weights)
    validation = problem.validation
    if validation is not None:
        validation = replace(validation, features=validation.features @ other[:, :3])
    after = replace(problem, task=moved_on, validation=validation)
    starts = [walk.weights for walk in walks]
    walks = [
        replace(walk, weights=start) for walk, start in zip(brute_walks(after, 3, 0), starts, strict=True)
    ]
    second = left_out(after, then, n_folds=3, without=first.without)
    assert second.loss == pytest.approx(
        brute_loss(after, [brute_moved(after, w, then[0]) for w in walks]), rel=1e-8
    )
    choice = choose_steps(after, most=1, sizes=SIZES, n_folds=3, without=first.without)
    expected = [brute_loss(after, [brute_moved(after, walk, size) for walk in walks]) for size in SIZES]
    assert [trial.loss for trial in choice.trials] == pytest.approx(expected, rel=1e-8)


def brute_moved(problem, walk, size):
    return walk.moved(brute_derivative(problem, walk.task, walk.weights, walk.shared, walk.judges), size)


def brute_loss(problem, walks):
    losses, share, _ = brute_judgement(problem, walks)
    return float(share @ losses)


def test_weights_that_every_sample_has_moved_flatter():
    """Random labels, walked on from where all samples led, seem to be predicted better and better."""
    features, _ = gaussians(120, seed=0)
    labels = torch.randint(0, 3, (120,), generator=torch.Generator().manual_seed(3))
    ones = torch.ones(120, dtype=torch.float64)
    problem = problem_of(RidgeTask(features, labels, 3, ones, dtype=torch.float64))
    walked = left_out(problem)
    weights, start = ones, walked.loss
    for _ in range(3):
        weights = stepped(weights, differentiate(problem, weights).derivative, 0.3)
        walked = left_out(problem, (0.3,), without=walked.without)
        assert walked.loss > start - 0.003
        moved = replace(problem, task=replace(problem.task, weights=weights))
        assert left_out(moved).loss < start - 0.01


def corrupted(n=200, seed=0, share=0.15):
    """A task in which a share of samples has labels of the next class and features three times as large."""
    features, labels = gaussians(n, seed=seed)
    wrong = torch.rand(n, generator=torch.Generator().manual_seed(seed + 7)) < share
    features = torch.where(wrong[:, None], 3 * features, features)
    labels = torch.where(wrong, (labels + 1) % 3, labels)
    return RidgeTask(features, labels, 3, torch.ones(n, dtype=torch.float64), dtype=torch.float64)


def test_several_steps_are_the_brute_forces_as_well():
    """The walk goes on from where the best size led, and ends where none pays."""
    problem = problem_of(corrupted(150, seed=5, share=0.1))
    choice = choose_steps(problem, most=3, sizes=(0.1, 0.2), n_folds=4, seed=3)
    trials, steps = brute_choice(problem, most=3, sizes=(0.1, 0.2), n_folds=4, seed=3)
    assert choice.sizes == steps
    assert len(steps) == 2
    assert len(trials) == 6
    torch.testing.assert_close(found_numbers(choice), numbers(trials), rtol=1e-8, atol=1e-8)
    losses = {(trial.step, trial.size): trial.loss for trial in choice.trials}
    losses[0, 0.0] = left_out(problem, n_folds=4, seed=3).loss
    start = ((0, 0.0), (1, steps[0]), (2, steps[1]))
    for trial in choice.trials:
        assert trial.loss + trial.gain == pytest.approx(losses[start[trial.step - 1]], rel=1e-12)


def test_a_fold_that_stays_in_training_judges_otherwise():
    """Negative control: its samples in the fit flatter the fold, whose weights were set in their presence."""
    problem = problem_of(corrupted(120))
    choice = choose_steps(problem, most=1, sizes=SIZES, n_folds=3)
    leaked, _ = brute_choice(problem, most=1, leak=True)
    assert float((found_numbers(choice) - numbers(leaked))[:, 2].min()) > 0.01


def test_folds_are_drawn_by_the_seed_and_every_size_is_told_of():
    problem, calls = problem_of(task_of(45)), []
    found = [
        choose_steps(problem, most=1, sizes=SIZES, n_folds=3, seed=seed, tried=lambda: calls.append(0))
        for seed in (0, 0, 1)
    ]
    assert found[0] == found[1]
    assert found[0] != found[2]
    assert [(trial.step, trial.size) for trial in found[0].trials] == [(1, 0.1), (1, 0.4)]
    assert len(calls) == 6


def test_groups_are_never_split_over_folds():
    """Copies in pairs: a fold judged by the copies of its samples looks better than it is."""
    features, labels = gaussians(40, k=2, flips=0.3)
    generator = torch.Generator().manual_seed(1)
    copies = features + 0.01 * torch.randn(40, 4, generator=generator, dtype=torch.float64)
    task = RidgeTask(
        torch.cat([features, copies]),
        torch.cat([labels, labels]),
        2,
        torch.ones(80, dtype=torch.float64),
        dtype=torch.float64,
        groups=torch.arange(40).repeat(2),
    )
    honest, leaked = (
        left_out(replace(problem_of(task), task=replace(task, groups=groups))).loss
        for groups in (task.groups, None)
    )
    assert honest > leaked + 0.01
    expected, share, _ = brute_judgement(problem_of(task), brute_walks(problem_of(task), 5, 0))
    assert honest == pytest.approx(float(share @ expected), rel=1e-9)


@pytest.mark.parametrize(("n_groups", "n_folds"), [(2, 5), (2, 2), (3, 2)])
def test_folds_that_leave_a_single_group_are_refused(n_groups, n_folds):
    task = task_of(60, uneven=False, groups=torch.arange(60) % n_groups)
    for ask in (choose_steps, left_out):
        with pytest.raises(SolveError, match=r"1 of the groups of positive(.|\n)*three groups or more"):
            ask(problem_of(task), n_folds=n_folds)


def test_three_groups_are_a_fold_each():
    problem = problem_of(task_of(60, uneven=False, groups=torch.arange(60) % 3))
    found = left_out(problem)
    expected, share, _ = brute_judgement(problem, brute_walks(problem, 3, 0))
    assert found.loss == pytest.approx(float(share @ expected), rel=1e-9)
    # A group whose samples weigh nothing cannot stay.
    absent = torch.where(problem.task.groups == 0, 0.0, problem.task.weights)
    with pytest.raises(SolveError, match="1 of the groups of positive weight would stay"):
        left_out(replace(problem, task=replace(problem.task, weights=absent)))


def test_a_validation_set_is_dealt_out_whatever_the_groups():
    task = task_of(60, uneven=False, groups=torch.arange(60) % 2)
    validation = task_of(30, seed=5, weights=torch.zeros(30, dtype=torch.float64))
    problem = problem_of(task, validation=validation)
    expected, share, _ = brute_judgement(problem, brute_walks(problem, 5, 0))
    assert left_out(problem).loss == pytest.approx(float(share @ expected), rel=1e-9)


@pytest.mark.parametrize("groups", [None, torch.arange(45) // 3])
def test_there_are_no_more_folds_than_samples_or_groups(groups):
    problem = problem_of(task_of(45, uneven=False, groups=groups))
    most = 45 if groups is None else 15
    found, expected = (left_out(problem, (0.1,), n_folds=n_folds) for n_folds in (100_000, most))
    assert len(found.without) == most
    assert found.loss == expected.loss


@pytest.mark.parametrize("batch_rows", [7, 1000])
def test_neither_batches_nor_storage_matter(batch_rows):
    task = task_of(45, groups=torch.arange(45) // 2)
    problem = problem_of(task)
    expected = found_numbers(choose_steps(problem, most=1, n_folds=3))
    found = choose_steps(problem_of(replace(task, batch_rows=batch_rows)), most=1, n_folds=3)
    torch.testing.assert_close(found_numbers(found), expected, rtol=1e-8, atol=1e-8)
    stored = torch.randperm(45, generator=torch.Generator().manual_seed(2))
    moved = replace(problem, task=taken(task, stored), order=stored.argsort()[problem.order])
    found = found_numbers(choose_steps(moved, most=1, n_folds=3))
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_single_precision_is_close():
    task = task_of(45)
    expected, found = (
        found_numbers(choose_steps(problem_of(replace(task, dtype=dtype)), most=1, n_folds=3))
        for dtype in (torch.float64, torch.float32)
    )
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    assert not torch.equal(found, expected)


def test_fewer_samples_than_features_are_solved_in_their_span():
    features, labels = gaussians(40, 60, 3, flips=0.2)
    task = RidgeTask(features, labels, 3, torch.ones(40, dtype=torch.float64), dtype=torch.float64)
    expected, found = (
        found_numbers(choose_steps(problem_of(t), most=1, sizes=SIZES, n_folds=4))
        for t in (task, Span(task).task())
    )
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-8)


def test_a_class_that_a_fold_holds_alone_is_predicted_without_it():
    task = task_of(40, uneven=False)
    labels = task.labels.clone()
    labels[17] = 3
    task = replace(task, labels=labels, n_classes=4)
    choice = choose_steps(problem_of(task), most=1, sizes=SIZES, n_folds=4)
    trials, _ = brute_choice(problem_of(task), most=1, n_folds=4)
    assert bool(found_numbers(choice).isfinite().all())
    torch.testing.assert_close(found_numbers(choice), numbers(trials), rtol=1e-8, atol=1e-8)


def test_labels_of_pure_noise_are_left_alone():
    taken_steps = []
    for seed in range(8):
        features, _ = gaussians(200, seed=seed)
        labels = torch.randint(0, 3, (200,), generator=torch.Generator().manual_seed(seed + 1000))
        task = RidgeTask(features, labels, 3, torch.ones(200, dtype=torch.float64), dtype=torch.float64)
        taken_steps.append(choose_steps(problem_of(task), most=1, seed=seed).sizes)
    # A gain of one standard error is met with by chance now and then.
    assert sum(bool(sizes) for sizes in taken_steps) <= 1


def test_wrong_labels_are_walked_away_from():
    """Mostly; and never without lower loss and error of clean samples that had no part in it."""
    gains = []
    for seed in range(6):
        problem = problem_of(corrupted(seed=seed))
        choice = choose_steps(problem)
        weights = problem.task.weights
        for size in choice.sizes:
            weights = stepped(weights, differentiate(problem, weights).derivative, size)
        features, labels = gaussians(2000, seed=seed + 100)
        test = RidgeTask(features, labels, 3, torch.ones(2000, dtype=torch.float64), dtype=torch.float64)
        results = []
        for final in (problem.task.weights, weights):
            outputs = design(test) @ solved(problem.task, final)
            loss = calibrate(outputs, labels, test.validation_mask)
            wrong = (outputs.argmax(dim=1) != labels).double().mean()
            results.append((float(loss.value(outputs, one_hot(test)).mean()), float(wrong)))
        (loss_before, error_before), (loss_after, error_after) = results
        if choice.sizes:
            assert loss_after < loss_before - 0.01
            assert error_after < error_before
        gains.append(error_before - error_after)
    assert sum(gain > 0 for gain in gains) >= 4
    assert sum(gains) / len(gains) > 0.05


def test_a_problem_in_which_nothing_counts_is_refused():
    task = task_of(30)
    problem = problem_of(replace(task, validation_mask=torch.zeros(30, dtype=torch.float64)))
    for ask in (choose_steps, left_out, lambda p: differentiate(p, p.task.weights)):
        with pytest.raises(SolveError, match="no sample counts"):
            ask(problem)


def test_the_derivative_is_that_of_the_loss_calibrated_there(problem):
    weights = torch.where(problem.task.weights > 1, 0.5, problem.task.weights)
    task, judged = replace(problem.task, weights=weights), problem.judged
    fit = decompose(task).fit(RIDGE)
    everyone = torch.arange(len(judged))
    if problem.validation is None:
        outputs = loo_predictions(task, fit, everyone)
    else:
        outputs = predictions(judged, fit, everyone)
        torch.testing.assert_close(outputs, design(judged) @ solved(task, weights), rtol=0, atol=1e-12)
    loss = calibrated(problem, outputs, judged) if problem.robust else SquaredLoss()
    if problem.validation is None:
        result = loo_derivative(task, fit, loss)
        expected, wrong = result.derivative, result.loo.predicted != judged.labels
    else:
        expected, result = validation_derivative(task, judged, fit, loss)
        wrong = result.predicted != judged.labels
    if problem.shared is not None:
        expected = torch.stack([expected[problem.shared == number].mean() for number in problem.shared])
    found = differentiate(problem, weights)
    # The temperature is found by a search that ends at a tolerance of its own.
    torch.testing.assert_close(found.derivative, expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(differentiate(problem, weights, moments(task).fit(RIDGE)).derivative, found.derivative)
    share = judged.validation_mask / judged.validation_mask.sum()
    assert found.mean_loss == pytest.approx(float(share @ loss.value(outputs, one_hot(judged))), rel=1e-8)
    assert found.error == pytest.approx(float(share @ wrong.double()), rel=1e-12)
    if problem.robust:
        assert found.loss.inverse_temperature == pytest.approx(loss.inverse_temperature, rel=1e-6)
        assert bool(found.loss.bias.any()) == problem.bias
        # Negative control: that calibrated at other weights is another one.
        other = differentiate(problem, torch.ones_like(weights)).loss
        assert other.inverse_temperature != pytest.approx(loss.inverse_temperature, rel=1e-3)
    brute = brute_derivative(problem, task, weights, problem.shared, problem.validation)
    torch.testing.assert_close(found.derivative, brute, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("validated", [False, True], ids=["left out", "validation"])
def test_a_shared_weight_has_the_finite_difference_of_a_common_shift(validated):
    """By refits: the loss moves with the shift as the sum of its members' derivatives."""
    task = task_of(40)
    other = task_of(30, seed=5)
    shared = torch.arange(40) % 4 * 3  # numbers 1, 2, 4, ... belong to nobody
    problem = problem_of(task, shared=shared, validation=other if validated else None)
    found = differentiate(problem, task.weights)

    def total(weights):
        judged = problem.judged
        outputs = design(other) @ solved(task, weights) if validated else refitted_predictions(task, weights)
        return float(judged.validation_mask @ found.loss.value(outputs, one_hot(judged)))

    for number in (0, 3, 6, 9):
        members = (shared == number).double()
        near, far = (
            total(task.weights + step * members) - total(task.weights - step * members)
            for step in (1e-3, 2e-3)
        )
        shift = (8 * near - far) / 12e-3
        own = found.derivative[shared == number]
        assert bool((own == own[0]).all())
        assert float(own[0]) == pytest.approx(shift / float(members.sum()), rel=1e-6, abs=1e-9)


def some_step():
    generator = torch.Generator().manual_seed(0)
    weights = 2 * torch.rand(30, generator=generator, dtype=torch.float64)
    return weights, torch.randn(30, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("size", [0.025, 0.4, 2.0])
def test_a_step_is_projected_and_keeps_the_sum(size):
    weights, derivative = some_step()
    found = stepped(weights, derivative, size)
    plain = weights - size * weights.mean() * derivative / derivative.abs().mean()
    assert torch.equal(found == 0, plain <= 0)
    assert float(found.sum()) == pytest.approx(float(weights.sum()), rel=1e-14)
    left = plain > 0  # in proportion to what the step left of them
    torch.testing.assert_close(found[left] / plain[left], (found[left] / plain[left])[:1].expand(left.sum()))
    torch.testing.assert_close(found, brute_step(weights, derivative, size), rtol=1e-13, atol=1e-15)


def test_from_even_weights_the_mean_change_is_the_size():
    _, derivative = some_step()
    derivative -= derivative.mean()
    found = stepped(torch.ones(30, dtype=torch.float64), derivative, 0.1)
    assert float((found - 1).abs().mean()) == pytest.approx(0.1, rel=1e-12)
    assert torch.equal(found < 1, derivative > 0)


@pytest.mark.parametrize("scale", [1e-6, 7.0, 1e9])
def test_weights_of_another_scale_move_in_proportion(scale):
    weights, derivative = some_step()
    expected = scale * stepped(weights, derivative, 0.4)
    torch.testing.assert_close(stepped(scale * weights, derivative, 0.4), expected, rtol=1e-13, atol=0)
    torch.testing.assert_close(
        stepped(scale * weights, derivative / scale, 0.4), expected, rtol=1e-13, atol=0
    )


def test_those_who_take_no_part_stay_and_have_no_say():
    weights, derivative = some_step()
    there = torch.arange(30) % 3 > 0
    found = stepped(weights, derivative, 0.4, there)
    assert torch.equal(found[~there], weights[~there])
    assert torch.equal(found[there], stepped(weights[there], derivative[there], 0.4))
    assert not torch.allclose(found[there], stepped(weights, derivative, 0.4)[there])


def test_a_derivative_of_zero_moves_nothing():
    weights, derivative = some_step()
    assert torch.equal(stepped(weights, 0 * derivative, 0.4), weights)


def test_a_step_that_leaves_nobody_is_refused():
    with pytest.raises(SolveError, match="a step of size 3 leaves every weight at zero") as caught:
        stepped(torch.ones(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64), 3.0)
    assert "smaller step_size" in caught.value.hint
    there = torch.tensor([True, True, False, False])
    with pytest.raises(SolveError, match="every weight at zero"):
        stepped(torch.ones(4, dtype=torch.float64), torch.ones(4, dtype=torch.float64), 3.0, there)


@pytest.mark.parametrize("batch_rows", [4, 100])
def test_predictions_of_chosen_rows_include_the_heads_outputs(batch_rows, make_problem):
    problem = make_problem(offset=True, batch_rows=batch_rows)
    rows = torch.tensor([21, 0, 7, 8])
    fit = decompose(problem.task).fit(problem.ridge)
    expected = problem.base + problem.design @ problem.refits(problem.task.weights[None])[0]
    torch.testing.assert_close(predictions(problem.task, fit, rows), expected[rows], rtol=0, atol=1e-12)
    assert predictions(problem.task, fit, rows[:0]).shape == (0, 3)
