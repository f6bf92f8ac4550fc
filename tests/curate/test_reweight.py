"""Sample weights: the steps against refits, what balancing and sharing mean, and what must change nothing."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from divacli.curate.label_trust import label_trust
from divacli.curate.reweight import ReweightOptions, reweight
from divacli.curate.reweight_forecast import REWEIGHTING, _dealt, _dealt_among
from divacli.errors import DataError, SolveError
from divacli.report.terminal.reweight import reweight_verdict
from divacli.ridge import NOTHING, RANDOM, Oracle, SquaredLoss
from divacli.solve.ridge_problem import SolveOptions, balanced
from divacli.solve.weight_problem import pose_problem

SQUARED = SolveOptions(ridge=0.5, loss="squared", dtype=torch.float64)
ROBUST = replace(SQUARED, loss="robust-cross-entropy")
ONE_STEP = ReweightOptions(size=0.3)
QUICK = ReweightOptions(steps=1, n_folds=3)


def weights_of(result) -> np.ndarray:
    return result.table["weight"].to_numpy()


@pytest.fixture
def uneven(tmp_path, load):
    """60 samples of three classes of 36, 18 and 6, some labels wrong, in groups of two where wanted."""

    def make(order=None, d: int = 6, **more):
        generator = np.random.default_rng(0)
        truth = np.repeat([0, 1, 2], [36, 18, 6])
        features = (generator.normal(size=(3, 6)) * 1.5)[truth] + generator.normal(size=(60, 6))
        if d > 6:
            # The same samples in a space with more dimensions than there are samples.
            features = features @ np.linalg.qr(np.random.default_rng(1).normal(size=(d, 6)))[0].T
        label = np.where(generator.random(60) < 0.2, (truth + 1) % 3, truth)
        path = np.array([f"s{number:03d}" for number in range(60)])
        order = np.arange(60) if order is None else order
        arrays = {"embedding": features, "label": label, "path": path, **more}
        file = tmp_path / "uneven.npz"
        np.savez(file, **{name: array[order] for name, array in arrays.items()})
        return load(file)

    return make


def refitted_derivative(samples, options: SolveOptions) -> torch.Tensor:
    """By central differences of refits, posed as the command poses it."""
    task = pose_problem(samples, options).task
    oracle = Oracle(task, options.ridge)
    return torch.tensor(
        [oracle.loo_derivative(SquaredLoss(), row) for row in range(len(task))], dtype=torch.float64
    )


@pytest.mark.parametrize("is_balanced", [False, True])
@pytest.mark.parametrize("per", ["sample", "class", "group"])
def test_a_step_goes_against_the_derivative_of_refits(per, is_balanced, uneven):
    samples = uneven(group=np.arange(60) // 2)
    options = replace(SQUARED, balanced=is_balanced)
    found = reweight(samples, options, replace(ONE_STEP, per=per))
    start = pose_problem(samples, options).task.weights
    derivative = refitted_derivative(samples, options)
    if per != "sample":
        shared = samples.manifest.table["label" if per == "class" else "group"]
        means = {name: derivative[torch.tensor(shared.eq(name).tolist())].mean() for name in shared.unique()}
        derivative = torch.stack([means[name] for name in shared])
    moved = start - start.mean() * 0.3 * derivative / derivative.abs().mean()
    expected = moved.clamp_min(0) * (start.sum() / moved.clamp_min(0).sum())
    np.testing.assert_allclose(weights_of(found), expected, rtol=1e-6, atol=1e-8)
    uphill = start + start.mean() * 0.3 * derivative / derivative.abs().mean()
    assert np.abs(weights_of(found) - uphill.numpy()).max() > 0.1


@pytest.mark.parametrize("options", [SQUARED, ROBUST], ids=["squared", "robust"])
def test_the_sum_is_kept_and_no_weight_is_negative(options, uneven):
    weights = np.random.default_rng(1).uniform(0, 3, 60)
    found = reweight(uneven(weight=weights), options, ReweightOptions(size=2, steps=3))
    assert weights_of(found).sum() == pytest.approx(weights.sum())
    assert weights_of(found).min() == 0
    assert found.summary["n_zero"] == (weights_of(found) == 0).sum() > 0
    assert found.history["step"].tolist() == [0, 1, 2, 3]
    assert found.history["size"].tolist() == [0, 2, 2, 2]


def test_weights_of_another_scale_move_in_proportion(uneven):
    """A ridge that grows with the weights poses the same problem."""
    one = reweight(uneven(), SQUARED, ONE_STEP)
    ten = reweight(uneven(weight=np.full(60, 10.0)), replace(SQUARED, ridge=5.0), ONE_STEP)
    np.testing.assert_allclose(weights_of(ten), 10 * weights_of(one), rtol=1e-6)


def test_small_steps_lower_the_loss_that_is_differentiated(uneven):
    found = reweight(uneven(), SQUARED, ReweightOptions(size=0.02, steps=3))
    assert (np.diff(found.history["loss"]) < 0).all()


@pytest.mark.parametrize("options", [SQUARED, ROBUST, replace(ROBUST, balanced=True, ridge=None)])
def test_more_features_than_samples_change_nothing(options, uneven):
    narrow = reweight(uneven(), options, QUICK)
    wide = reweight(uneven(d=80), options, QUICK)
    np.testing.assert_allclose(weights_of(wide), weights_of(narrow), rtol=1e-5, atol=1e-7)
    for one, other in zip(narrow.choice.trials, wide.choice.trials, strict=True):
        assert other.gain == pytest.approx(one.gain, abs=1e-6)


def test_the_order_of_rows_changes_nothing(uneven):
    order = np.random.default_rng(2).permutation(60)
    groups = np.arange(60) // 2
    given = reweight(uneven(group=groups), ROBUST, QUICK)
    shuffled = reweight(uneven(order, group=groups), ROBUST, QUICK)
    assert shuffled.table["path"].tolist() == given.table["path"].iloc[order].tolist()
    np.testing.assert_allclose(weights_of(shuffled), weights_of(given)[order], rtol=1e-6)
    assert [t.loss for t in shuffled.choice.trials] == pytest.approx(
        [t.loss for t in given.choice.trials], rel=1e-6
    )


def test_the_seed_draws_the_folds(uneven):
    losses = [
        [t.loss for t in reweight(uneven(), replace(ROBUST, seed=seed), QUICK).choice.trials]
        for seed in (0, 0, 1)
    ]
    assert losses[0] == losses[1] != losses[2]


def test_given_sizes_ask_no_folds_and_the_table_says_what_was_done(uneven):
    result = reweight(uneven(), ROBUST, ReweightOptions(size=0.1))
    assert result.choice is None
    assert result.summary["sizes"] == [0.1]
    assert result.summary["trials"] is None
    chosen = reweight(uneven(), ROBUST, QUICK)
    assert chosen.summary["sizes"] == list(chosen.choice.sizes)
    assert len(chosen.summary["trials"]) == 5
    assert chosen.summary["history"] == chosen.history.to_dict(orient="records")


def test_the_last_state_of_the_history_is_that_of_the_weights(uneven):
    first = reweight(uneven(), ROBUST, ReweightOptions(size=0.1))
    again = reweight(uneven(weight=weights_of(first)), ROBUST, ReweightOptions(size=0.1))
    assert again.history["loss"][0] == pytest.approx(first.history["loss"][1], rel=1e-9)
    two = reweight(uneven(), ROBUST, ReweightOptions(size=0.1, steps=2))
    np.testing.assert_allclose(weights_of(again), weights_of(two), rtol=1e-8)


def test_balancing_counts_classes_equally_and_starts_at_inverse_frequencies(uneven):
    samples = uneven()
    labels = samples.manifest.table["label"].to_numpy()
    sizes = {label: (labels == label).sum() for label in "012"}
    task = pose_problem(samples, replace(ROBUST, balanced=True)).task
    for vector in (task.validation_mask.numpy(), task.weights.numpy()):
        assert {label: vector[labels == label].sum() for label in "012"} == pytest.approx(
            dict.fromkeys("012", 20.0)
        )
        for label in "012":
            assert vector[labels == label] == pytest.approx(20 / sizes[label])
    assert pose_problem(samples, ROBUST).task.validation_mask.unique().tolist() == [1]


def test_the_loss_of_balanced_validation_is_the_mean_over_classes(uneven):
    samples = uneven()
    options = replace(SQUARED, balanced=True)
    task = pose_problem(samples, options).task
    losses = Oracle(task, options.ridge).loo_losses(SquaredLoss())
    means = [float(losses[task.labels == number].mean()) for number in range(3)]
    found = reweight(samples, options, ONE_STEP).history["loss"][0]
    assert found == pytest.approx(np.mean(means), rel=1e-6)
    assert abs(found - float(losses.mean())) > 0.01


def test_balanced_weights_of_a_class_without_weight_stay_zero():
    weights = balanced(
        torch.tensor([0.0, 0.0, 1.0, 3.0, 2.0], dtype=torch.float64), torch.tensor([0, 0, 1, 1, 2])
    )
    assert weights.tolist() == pytest.approx([0, 0, 0.75, 2.25, 3])


def test_a_validation_set_is_balanced_as_well(uneven, gaussian):
    samples, validation = gaussian(n=60), uneven()
    mask = pose_problem(samples, replace(ROBUST, balanced=True), validation).judged.validation_mask
    labels = validation.manifest.table["label"].to_numpy()
    assert [float(mask[labels == label].sum()) for label in "012"] == pytest.approx([20, 20, 20])


@pytest.mark.parametrize("per", ["class", "group"])
def test_who_shares_a_weight_has_the_same(per, uneven):
    samples = uneven(group=np.arange(60) // 5)
    found = reweight(samples, ROBUST, replace(ONE_STEP, per=per)).table
    groups = found.groupby("label" if per == "class" else "group")["weight"]
    assert groups.nunique().eq(1).all()
    assert found["weight"].nunique() == len(groups)


def test_a_group_to_share_a_weight_must_be_there(uneven):
    for samples, options in ((uneven(), ROBUST), (uneven(group=np.arange(60)), ROBUST)):
        with pytest.raises(DataError, match="no groups that could share a weight") as caught:
            reweight(samples, options, replace(ONE_STEP, per="group"))
        assert "--group" in caught.value.hint


def test_samples_without_a_group_have_weights_of_their_own(uneven):
    group = np.array([""] * 20 + ["one"] * 20 + ["two"] * 20)
    found = reweight(uneven(group=group), ROBUST, ReweightOptions(size=0.01, per="group")).table
    assert found["weight"][:20].nunique() == 20
    assert found["weight"][20:40].nunique() == found["weight"][40:].nunique() == 1


def test_a_validation_set_is_what_the_loss_is_of(gaussian, uneven):
    samples, validation = gaussian(n=60), uneven()
    problem = pose_problem(samples, SQUARED, validation)
    oracle = Oracle(problem.task, SQUARED.ridge)
    derivative = torch.tensor(
        [oracle.validation_derivative(problem.judged, SquaredLoss(), row) for row in range(60)],
        dtype=torch.float64,
    )
    moved = (1 - 0.3 * derivative / derivative.abs().mean()).clamp_min(0)
    found = reweight(samples, SQUARED, ONE_STEP, validation)
    np.testing.assert_allclose(weights_of(found), moved * 60 / moved.sum(), rtol=1e-6)


def test_scores_of_an_earlier_run_are_left_out_and_columns_of_the_user_stay(uneven):
    samples = uneven()
    table = samples.manifest.table.assign(derivative=0.0, rank=1, predicted_label="0", camera="x")
    scored = replace(samples, manifest=replace(samples.manifest, table=table))
    found = reweight(scored, ROBUST, ONE_STEP).table
    assert list(found) == ["path", "label", "weight", "feature_source", "camera"]


def test_a_class_of_one_sample_is_missing_from_the_rest_of_its_fold(tmp_path, load):
    generator = np.random.default_rng(0)
    label = np.array([0] * 20 + [1] * 20 + [2])
    np.savez(tmp_path / "x.npz", embedding=generator.normal(size=(41, 4)) + 2 * label[:, None], label=label)
    result = reweight(load(tmp_path / "x.npz"), ROBUST, QUICK)
    assert np.isfinite([trial.loss for trial in result.choice.trials]).all()
    assert weights_of(result).sum() == pytest.approx(41)


def test_one_sample_a_class_finds_no_step(tmp_path, load):
    np.savez(tmp_path / "x.npz", embedding=np.random.default_rng(0).normal(size=(4, 6)), label=np.arange(4))
    result = reweight(load(tmp_path / "x.npz"), replace(ROBUST, ridge=None), ReweightOptions())
    assert result.choice.sizes == ()
    assert weights_of(result).tolist() == [1, 1, 1, 1]


def test_two_samples_at_a_ridge_of_ones_own(tmp_path, load):
    np.savez(tmp_path / "x.npz", embedding=np.eye(2), label=np.arange(2))
    samples = load(tmp_path / "x.npz")
    result = reweight(samples, ROBUST, ReweightOptions(size=0.1))
    # Neither is worth more than the other.
    assert weights_of(result) == pytest.approx([1, 1])
    with pytest.raises(SolveError, match="K-fold needs three samples or more") as caught:
        reweight(samples, SolveOptions(loss="robust-cross-entropy"), ReweightOptions())
    assert "step_size NUMBER" in caught.value.hint


def test_a_validation_label_of_no_training_sample_is_named(tmp_path, gaussian, load):
    np.savez(tmp_path / "v.npz", embedding=np.eye(6)[:4], label=[0, 1, 2, 7])
    with pytest.raises(DataError, match="lack: 7"):
        reweight(gaussian(), ROBUST, ONE_STEP, load(tmp_path / "v.npz"))


def test_wrong_labels_lose_weight(gaussian):
    samples = gaussian(n=300)
    truth, generator = np.arange(300) % 3, np.random.default_rng(4)
    labels = np.where(generator.random(300) < 0.3, (truth + generator.integers(1, 3, 300)) % 3, truth)
    table = samples.manifest.table.assign(label=labels.astype(str))
    noisy = replace(samples, manifest=replace(samples.manifest, table=table))
    weights = weights_of(reweight(noisy, replace(ROBUST, ridge=None), ReweightOptions(size=0.2)))
    assert weights[labels != truth].mean() < 0.95 < 1 < weights[labels == truth].mean()


def test_folds_ask_for_steps_where_a_class_was_given_too_little_weight(gaussian):
    weights = np.where(np.arange(90) % 3 == 1, 0.02, 1.0)
    samples = gaussian(n=90, weights=weights)
    result = reweight(samples, replace(ROBUST, ridge=None), QUICK)
    first, *_, largest = result.choice.trials
    assert result.choice.sizes in [(0.2,), (0.4,)]
    assert largest.gain > first.gain > first.gain_error
    assert weights_of(result)[1::3].mean() > 0.1


# What it does to the error on new images


def errors(result) -> dict[str, float]:
    assert result.unknown == ""
    assert result.summary["forecast"] == result.outlook.as_dict()
    return result.summary["forecast"]["error"]


@pytest.fixture
def starved(gaussian):
    """90 samples, and one class of three with next to no weight: reweighting pays."""
    return gaussian(n=90, weights=np.where(np.arange(90) % 3 == 1, 0.02, 1.0))


def test_weights_that_pay_are_promised_to_and_written(starved):
    result = reweight(starved, ROBUST, QUICK)
    found = errors(result)
    assert list(found) == [NOTHING, REWEIGHTING, RANDOM]
    assert found[REWEIGHTING] < found[NOTHING]
    assert result.outlook.chosen == REWEIGHTING
    verdict = reweight_verdict(result)
    assert verdict.startswith(
        f"Reweighting should lower the error on new images from {100 * found[NOTHING]:.1f} to "
        f"{100 * found[REWEIGHTING]:.1f} % (between "
    )
    assert "; the same weights dealt out at random would " in verdict
    assert verdict.endswith("The new weights were written.")


def test_steps_given_by_hand_are_judged_as_well(uneven):
    result = reweight(uneven(), ROBUST, ReweightOptions(size=1.5, steps=3))
    assert list(errors(result)) == [NOTHING, REWEIGHTING, RANDOM]
    worse = replace(result.outlook.forecast, wrong={**result.outlook.forecast.wrong})
    worse.wrong[REWEIGHTING] = torch.ones(60, dtype=torch.float64)
    refused = replace(result, outlook=replace(result.outlook, forecast=worse))
    verdict = reweight_verdict(refused)
    assert verdict.startswith("Reweighting should raise the error on new images from ")
    assert verdict.endswith("The new weights were written all the same: the steps were given by hand.")


def test_no_step_is_no_forecast_and_the_weights_stay(tmp_path, load):
    np.savez(tmp_path / "x.npz", embedding=np.random.default_rng(0).normal(size=(4, 6)), label=np.arange(4))
    result = reweight(load(tmp_path / "x.npz"), replace(ROBUST, ridge=None), ReweightOptions())
    assert (result.outlook, result.unknown, result.summary["forecast"]) == (None, "", None)
    assert reweight_verdict(result) == "Nothing to gain by reweighting: the weights stay."


def test_too_few_samples_for_folds_are_reweighted_without_a_forecast(tmp_path, load):
    np.savez(tmp_path / "x.npz", embedding=np.eye(2), label=np.arange(2))
    result = reweight(load(tmp_path / "x.npz"), ROBUST, ReweightOptions(size=0.1))
    assert result.outlook is None
    assert "would stay when a fold leaves" in result.unknown
    assert reweight_verdict(result) == ""


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("per", ["sample", "class"])
def test_random_labels_promise_nothing(per, seed, gaussian):
    samples = gaussian(n=90)
    drawn = np.random.default_rng(seed).integers(0, 3, 90).astype(str)
    manifest = replace(samples.manifest, table=samples.manifest.table.assign(label=drawn))
    result = reweight(replace(samples, manifest=manifest), ROBUST, ReweightOptions(size=0.4, per=per))
    assert result.outlook is None or result.outlook.change.high > 0
    assert (result.outlook is None) is ("hardly tell the labels apart" in result.unknown)
    assert "should lower" not in reweight_verdict(result)


@pytest.mark.parametrize("per", ["sample", "class", "group"])
def test_the_forecast_is_the_same_again_and_in_any_order_of_rows(per, uneven):
    groups, how = np.arange(60) // 2, replace(ONE_STEP, per=per)
    given = errors(reweight(uneven(group=groups), ROBUST, how))
    assert errors(reweight(uneven(group=groups), ROBUST, how)) == given
    order = np.random.default_rng(2).permutation(60)
    shuffled = errors(reweight(uneven(order, group=groups), ROBUST, how))
    assert shuffled == pytest.approx(given, abs=1e-6)


def test_a_validation_set_is_who_judges(gaussian, uneven):
    result = reweight(gaussian(n=90), ROBUST, ONE_STEP, uneven())
    assert len(result.outlook.forecast.share) == 60
    assert result.outlook.forecast.share.unique().numpy() == pytest.approx(1 / 60)


def test_balancing_is_judged_beside_the_given_weights(uneven):
    samples = uneven()
    options = replace(ROBUST, balanced=True)
    result = reweight(samples, options, replace(ONE_STEP, size=1e-9))
    labels = pose_problem(samples, options).task.labels
    # Every class counts the same, but for labels that are little trusted.
    sums = torch.zeros(3, dtype=torch.float64).index_add_(0, labels, result.outlook.forecast.share)
    assert float(sums.max()) < 1.5 * float(sums.min())
    # The given weights favour the largest class; balanced ones predict it less often.
    assert (
        result.outlook.forecast.wrong[NOTHING].tolist() != result.outlook.forecast.wrong[REWEIGHTING].tolist()
    )
    assert reweight_verdict(result).startswith(
        "Balancing the classes and reweighting should change the error on "
    )
    assert "averaged over classes" in reweight_verdict(result)


def test_weights_are_dealt_out_among_those_who_are_there():
    weights = torch.arange(9, dtype=torch.float64)
    rows, labels = torch.tensor([8, 1, 2, 3, 7, 5, 6]), torch.arange(9) % 2
    for classes in (None, labels):
        dealt = _dealt(weights, rows, classes, torch.Generator().manual_seed(1))
        assert dealt[[0, 4]].tolist() == [0, 4]
        assert sorted(dealt.tolist()) == weights.tolist()
        assert dealt.tolist() != weights.tolist()
    assert torch.equal(dealt.long() % 2, labels)


def test_those_who_share_a_weight_get_that_of_others():
    weights = torch.tensor([1.0, 1, 1, 1, 5, 5, 0], dtype=torch.float64)
    shared, rows = torch.tensor([0, 0, 0, 0, 1, 1, 2]), torch.arange(6)
    found = {
        tuple(_dealt_among(weights, rows, shared, torch.Generator().manual_seed(seed)).tolist())
        for seed in range(9)
    }
    swapped = torch.tensor([5.0, 5, 5, 5, 1, 1, 0], dtype=torch.float64) * 14 / 22
    assert found == {tuple(weights.tolist()), tuple(swapped.tolist())}


def test_labels_of_very_many_classes_are_all_trusted(gaussian, monkeypatch):
    problem = pose_problem(gaussian(n=90), ROBUST)
    trust = label_trust(problem.task, problem.ridge, problem.order, 0)
    assert 0 <= float(trust.min()) < 0.9 < float(trust.max()) <= 1
    monkeypatch.setattr("divacli.curate.label_trust._MOST_JUDGED", 2)
    assert label_trust(problem.task, problem.ridge, problem.order, 0).tolist() == [1] * 90
