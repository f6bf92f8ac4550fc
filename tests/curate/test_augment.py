"""Probabilities of transforms: their derivative against refits, what they follow, what must not matter."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torchvision.transforms import v2

from divacli.curate.augment import AugmentOptions, AugmentResult, augment, walk
from divacli.curate.augment_forecast import AUGMENTING, EQUAL
from divacli.curate.augmentation_file import UNTOUCHED, snippet
from divacli.features import Samples
from divacli.features.augmentation import NamedTransform
from divacli.features.feature_rows import whole
from divacli.features.transform_names import parse_transform
from divacli.report.terminal.augment import augment_verdict
from divacli.ridge import NOTHING, RANDOM, decompose, ridge_path, share_weights
from divacli.ridge.weights.shares import walk_shares
from divacli.solve.ridge_problem import SolveOptions, pose
from divacli.solve.transformed_copies import merge, pose_merged

OPTIONS = SolveOptions(loss="robust-cross-entropy", dtype=torch.float64)
SQUARED = replace(OPTIONS, loss="squared", ridge=0.7)
CENTRES = np.random.default_rng(99).normal(size=(3, 6)) * 1.2
HFLIP, VFLIP, BLUR = (parse_transform(name) for name in ("hflip", "vflip", "blur:3"))

Draw = Callable[..., Samples]


@pytest.fixture
def draw(tmp_path: Path, load: Callable[[str | Path], Samples]) -> Draw:
    """Samples s000, s001, ... of three Gaussian classes in turn; `shift` moves each to another's centre."""

    def make(
        seed: int, n: int = 90, shift: int = 0, noise: float = 1.0, widen: int = 0, **more: np.ndarray
    ) -> Samples:
        truth = np.arange(n) % 3
        drawn = np.random.default_rng(seed).normal(size=(n, CENTRES.shape[1]))
        features = np.pad(CENTRES[(truth + shift) % 3] + noise * drawn, ((0, 0), (0, widen)))
        file = tmp_path / f"drawn-{len(list(tmp_path.glob('*.npz')))}.npz"
        np.savez(file, embedding=features, label=truth, path=[f"s{row:03d}" for row in range(n)], **more)
        return load(file)

    return make


def found(result: AugmentResult) -> np.ndarray:
    return result.table["probability"].to_numpy()


def refitted_loss(
    parts: list[np.ndarray], labels: np.ndarray, groups: np.ndarray, shared: np.ndarray, ridge: float
) -> float:
    """Summed squared loss of the images, each predicted by a refit without its group and their copies."""
    z = np.concatenate([part / np.linalg.norm(part, axis=1, keepdims=True) for part in parts])
    design = np.column_stack([z, np.ones(len(z))])
    y = np.tile(np.eye(3)[labels], (len(parts), 1))
    weights = np.repeat(shared, len(labels))
    penalty = ridge * np.diag([1.0] * z.shape[1] + [0.0])
    loss = 0.0
    for row, group in enumerate(groups):
        w = weights * np.tile(groups != group, len(parts))
        coef = np.linalg.solve(design.T @ (w[:, None] * design) + penalty, design.T @ (w[:, None] * y))
        loss += ((y[row] - design[row] @ coef) ** 2).sum()
    return float(loss)


@pytest.mark.parametrize("column", [None, "group"])
def test_derivative_is_that_of_refits_without_an_image_and_its_copies(draw: Draw, column: str | None) -> None:
    n = 24
    images = draw(0, n, group=np.array([f"p{row // 2}" for row in range(n)]))
    copies = [(HFLIP, draw(1, n)), (VFLIP, draw(2, n, shift=1))]
    options = replace(SQUARED, group=column)
    table = augment(images, copies, options, AugmentOptions(size=0.1)).table
    parts = [part.features[:].numpy() for part in (images, *(part for _, part in copies))]
    groups = np.arange(n) if column is None else np.arange(n) // 2

    def difference(groups: np.ndarray, kind: int) -> float:
        step = 1e-4 * np.eye(3)[kind]
        ends = [refitted_loss(parts, np.arange(n) % 3, groups, 1 + sign * step, 0.7) for sign in (1, -1)]
        return (ends[0] - ends[1]) / 2e-4

    expected = [difference(groups, kind) for kind in range(3)]
    np.testing.assert_allclose(table["derivative"], expected, rtol=1e-6)
    # Without the groups it is another number: the agreement says something.
    other = np.arange(n) // 2 if column is None else np.arange(n)
    assert abs(difference(other, 2) - table["derivative"][2]) > 0.01 * abs(table["derivative"][2])
    assert table["derivative"][1] < 0 < table["derivative"][2]


def test_harmful_copies_become_rare_in_whatever_order_they_come(draw: Draw) -> None:
    images, good, bad = draw(0), draw(1), draw(2, shift=1)
    result = augment(images, [(HFLIP, good), (VFLIP, bad)], OPTIONS, AugmentOptions())
    assert result.table["transform"].tolist() == [UNTOUCHED, "hflip", "vflip"]
    assert result.table["copies"].tolist() == [90, 90, 90]
    assert found(result).sum() == pytest.approx(1)
    assert found(result)[2] < 0.2 < found(result)[1]
    assert result.table["derivative"][2] > 0 > result.table["derivative"][1]
    assert result.summary["after"]["loss"] < result.summary["before"]["loss"]
    assert result.held_out is not None
    assert result.held_out.stepped < min(result.held_out.equal, result.held_out.untouched)
    swapped = augment(images, [(VFLIP, bad), (HFLIP, good)], OPTIONS, AugmentOptions())
    np.testing.assert_allclose(found(swapped), found(result)[[0, 2, 1]], atol=1e-9)


def test_order_of_the_images_does_not_matter(draw: Draw) -> None:
    images, good, bad = draw(0), draw(1), draw(2, shift=1)
    expected = augment(images, [(HFLIP, good), (VFLIP, bad)], OPTIONS, AugmentOptions())
    order = np.random.default_rng(5).permutation(90)
    # The copies stay as they were: they are found by path.
    result = augment(images.select(order), [(HFLIP, good), (VFLIP, bad)], OPTIONS, AugmentOptions())
    assert result.summary["sizes"] == expected.summary["sizes"]
    np.testing.assert_allclose(found(result), found(expected), atol=1e-6)


def test_no_transform_pays_where_all_copies_mislead(draw: Draw) -> None:
    copies = [(HFLIP, draw(1, shift=1, noise=0.5)), (VFLIP, draw(2, shift=2, noise=0.5))]
    result = augment(draw(0, noise=0.5), copies, OPTIONS, AugmentOptions())
    assert found(result).tolist() == [1, 0, 0]
    assert result.held_out is not None
    assert result.held_out.untouched < result.held_out.stepped < result.held_out.equal
    assert result.document["snippet"].count("v2.") == 2
    assert result.summary["after"]["loss"] < result.summary["before"]["loss"]


def test_copies_that_equal_their_images_stay_equally_likely(draw: Draw) -> None:
    images = draw(0)
    result = augment(images, [(HFLIP, images), (VFLIP, images)], OPTIONS, AugmentOptions())
    assert result.choice is not None
    assert result.choice.sizes == ()
    np.testing.assert_allclose(found(result), [1 / 3] * 3)


def test_copies_do_not_pull_the_ridge_down(draw: Draw) -> None:
    images = draw(0)
    alone = pose(images, OPTIONS)
    path = ridge_path(alone, decompose(alone))
    assert 0 < path.best < len(path.ridges) - 1
    # Two more of each are a threefold weight, as long as all three leave together and one is judged.
    problem = pose_merged(images, merge(images, [images, images]), OPTIONS)
    assert problem.ridge == pytest.approx(3 * float(path.ridges[path.best]))
    leaking = replace(problem.task, groups=None)
    leaked = ridge_path(leaking, decompose(leaking))
    assert leaked.best < path.best


def test_steps_of_a_given_size(draw: Draw) -> None:
    images, copies = draw(0), [(HFLIP, draw(1)), (VFLIP, draw(2, shift=1))]
    result = augment(images, copies, SQUARED, AugmentOptions(size=0.3))
    derivative = result.table["derivative"].to_numpy()
    expected = 1 - 0.3 * derivative / np.abs(derivative).mean()
    np.testing.assert_allclose(found(result), expected / expected.sum(), rtol=1e-6)
    assert result.choice is None
    assert result.held_out is None
    twice = augment(images, copies, SQUARED, AugmentOptions(size=0.3, steps=2))
    assert twice.summary["sizes"] == [0.3, 0.3]
    assert found(twice)[2] < found(result)[2]
    assert twice.summary["after"]["loss"] < result.summary["after"]["loss"]


def test_validation_set_decides_in_place_of_the_images(draw: Draw) -> None:
    images, copies = draw(0), [(HFLIP, draw(1)), (VFLIP, draw(2, shift=1))]
    # A world in which every class looks as the next one does among the images.
    shifted = draw(3, shift=1)
    by_images = augment(images, copies, OPTIONS, AugmentOptions())
    by_shifted = augment(images, copies, OPTIONS, AugmentOptions(), shifted)
    assert by_images.table["derivative"][2] > 0 > by_shifted.table["derivative"][2]
    assert found(by_shifted)[2] > 0.5 > found(by_shifted)[1]
    assert by_images.summary["fingerprint"] != by_shifted.summary["fingerprint"]


def test_fewer_samples_than_features_are_the_same_problem(draw: Draw) -> None:
    parts, wide = (
        [draw(seed, 30, shift, widen=widen) for seed, shift in ((0, 0), (1, 0), (2, 1))] for widen in (0, 90)
    )
    results = [
        augment(images, [(HFLIP, good), (VFLIP, bad)], OPTIONS, AugmentOptions())
        for images, good, bad in (parts, wide)
    ]
    np.testing.assert_allclose(found(results[1]), found(results[0]), atol=1e-6)
    np.testing.assert_allclose(
        results[1].table["derivative"], results[0].table["derivative"], rtol=1e-4, atol=1e-6
    )


def test_balanced_validation_counts_classes_equally(draw: Draw) -> None:
    images = draw(0).select(np.r_[0:90:3, 1:30:3, 2:60:3])
    problem = pose_merged(images, merge(images, [images]), replace(OPTIONS, balanced=True))
    mask, n = problem.task.validation_mask, len(images)
    assert not mask[n:].any()
    sums = torch.bincount(problem.task.labels, mask)
    assert torch.allclose(sums, sums.mean().expand(3))
    weights = torch.bincount(problem.task.labels, problem.task.weights)
    assert torch.allclose(weights, weights.mean().expand(3))
    assert not problem.bias


def test_copies_are_matched_by_path(draw: Draw) -> None:
    images, copies = draw(0, 6), draw(1, 6).select(np.array([4, 0, 5]))
    merged = merge(images, [copies, images])
    assert merged.image.tolist() == [0, 1, 2, 3, 4, 5, 4, 0, 5, 0, 1, 2, 3, 4, 5]
    assert merged.kind.tolist() == [0] * 6 + [1] * 3 + [2] * 6
    assert torch.equal(merged.samples.features[6:9], copies.features[:])
    labels = merged.samples.manifest.table["label"].tolist()
    assert labels[6:9] == images.manifest.table["label"].iloc[[4, 0, 5]].tolist()


def test_images_without_a_copy_make_a_transform_no_rarer(draw: Draw) -> None:
    images = draw(0)
    few = draw(1).select(np.arange(30))
    result = augment(images, [(HFLIP, few)], SQUARED, AugmentOptions(size=1e-6))
    np.testing.assert_allclose(found(result), 0.5, atol=1e-5)


def test_weights_of_images_stay_in_proportion(draw: Draw) -> None:
    weight = np.resize([0.0, 1, 1, 2], 90)
    images, good, bad = (draw(seed, shift=shift, weight=weight) for seed, shift in ((0, 0), (1, 0), (2, 1)))
    merged = merge(images, [good, bad])
    problem = pose_merged(images, merged, OPTIONS)
    shares, derivative, history = walk(problem, (0.1, 0.1))
    assert shares.sum() == pytest.approx(3)
    assert shares[2] < 1 < shares[1]
    weights = share_weights(problem, shares)
    assert torch.equal(weights, shares[merged.kind] * torch.from_numpy(np.tile(weight, 3)))
    assert history["loss"].is_monotonic_decreasing
    # Absent images, and so their copies, are no part of the training set: any features would do.
    absent = weight == 0
    others = good.features[:].numpy()
    others[absent] = 7
    changed = replace(good, features=whole(others))
    other = pose_merged(images, merge(images, [changed, bad]), OPTIONS)
    np.testing.assert_allclose(walk(other, (0.1, 0.1))[1], derivative, rtol=1e-9)
    # Nor do the folds bring them back.
    results = [
        augment(images, [(HFLIP, one), (VFLIP, bad)], OPTIONS, AugmentOptions()) for one in (good, changed)
    ]
    assert results[0].choice is not None
    assert results[0].choice.sizes
    assert results[1].summary["held_out"] == pytest.approx(results[0].summary["held_out"], rel=1e-6)


def test_images_without_a_copy_are_left_to_the_others(draw: Draw) -> None:
    images, good, bad = draw(0), draw(1), draw(2, shift=1)
    failed = pd.DataFrame({"path": ["s000"], "label": ["0"], "reason": ["too small"]})
    few = replace(bad.select(np.arange(1, 60)), failed=failed)
    result = augment(images, [(HFLIP, good), (VFLIP, few)], OPTIONS, AugmentOptions())
    assert result.table["copies"].tolist() == [90, 90, 59]
    assert found(result)[2] < 0.2
    assert result.failed["reason"].tolist() == ["too small"]


def test_snippet_draws_each_transform_as_often_as_it_says() -> None:
    code = snippet([HFLIP, VFLIP, BLUR], [0.25, 0.75, 0.0, 0.0])
    assert code.splitlines()[0] == "from torchvision.transforms import v2"
    namespace: dict[str, v2.RandomChoice] = {}
    exec(code, namespace)
    made = namespace["augmentation"]
    assert [type(one) for one in made.transforms] == [v2.Identity, v2.RandomHorizontalFlip]
    assert made.p == [0.25, 0.75]
    image = torch.arange(12.0).reshape(3, 2, 2)
    torch.manual_seed(0)
    flipped = sum(bool((made(image) == image.flip(-1)).all()) for _ in range(400))
    assert 270 < flipped < 330


def test_snippet_imports_what_it_uses() -> None:
    own = NamedTransform("aug.py:change", lambda image: image, "", "change", "from aug import change", True)
    assert "from aug import change\n" in snippet([HFLIP, own], [0.5, 0.0, 0.5])
    assert "change" not in snippet([HFLIP, own], [0.5, 0.5, 0.0])


# What it does to the error on new images


def errors(result: AugmentResult) -> dict[str, float]:
    assert result.outlook is not None
    assert result.summary["forecast"] == result.outlook.as_dict()
    return result.summary["forecast"]["error"]


def test_misleading_copies_are_forecast_to_harm_as_often_as_they_are_drawn(draw: Draw) -> None:
    images, good, bad = draw(0), draw(1), draw(2, shift=1)
    result = augment(images, [(HFLIP, good), (VFLIP, bad)], OPTIONS, AugmentOptions())
    found_errors = errors(result)
    assert [*found_errors] == [NOTHING, AUGMENTING, EQUAL, RANDOM]
    assert found_errors[AUGMENTING] < found_errors[EQUAL]
    verdict = augment_verdict(result)
    assert verdict.startswith("Transforming images with these probabilities should ")
    assert f"; equal probabilities: {100 * found_errors[EQUAL]:.1f}; random probabilities would " in verdict


def test_nothing_is_the_head_of_untouched_images(draw: Draw) -> None:
    images, copies = draw(0), [(HFLIP, draw(1)), (VFLIP, draw(2, shift=1))]
    # A ridge of its own follows the copies, and how far labels are trusted follows the ridge.
    options = replace(OPTIONS, ridge=0.7)
    by_both = augment(images, copies, options, AugmentOptions(size=0.1))
    by_other = augment(images, [(HFLIP, draw(7, shift=2)), copies[1]], options, AugmentOptions(size=0.1))
    assert errors(by_both)[NOTHING] == errors(by_other)[NOTHING]
    assert errors(by_both)[EQUAL] < errors(by_other)[EQUAL]


def test_where_no_transform_pays_the_verdict_says_what_others_cost(draw: Draw) -> None:
    copies = [(HFLIP, draw(1, shift=1, noise=0.5)), (VFLIP, draw(2, shift=2, noise=0.5))]
    result = augment(draw(0, noise=0.5), copies, OPTIONS, AugmentOptions())
    found_errors = errors(result)
    assert found_errors[AUGMENTING] == found_errors[NOTHING] < found_errors[EQUAL]
    assert augment_verdict(result) == (
        "Nothing to gain by these transforms: images stay as they are. Without any the error on new images "
        f"should be {100 * found_errors[NOTHING]:.1f} %; with equal probabilities "
        f"{100 * found_errors[EQUAL]:.1f}, with random ones {100 * found_errors[RANDOM]:.1f}."
    )


def test_equal_probabilities_are_no_rival_of_themselves(draw: Draw) -> None:
    images = draw(0)
    result = augment(images, [(HFLIP, images), (VFLIP, images)], OPTIONS, AugmentOptions())
    assert errors(result)[AUGMENTING] == errors(result)[EQUAL]
    assert augment_verdict(result).startswith("Transforming images with equal probabilities should leave ")
    assert "equal probabilities:" not in augment_verdict(result)


def test_a_forecast_that_does_not_pay_says_that_the_choice_was_written(draw: Draw) -> None:
    result = augment(
        draw(0), [(HFLIP, draw(1)), (VFLIP, draw(2, shift=1))], OPTIONS, AugmentOptions(size=0.1)
    )
    assert result.outlook is not None
    wrong = {**result.outlook.forecast.wrong, AUGMENTING: torch.ones(90, dtype=torch.float64)}
    outlook = replace(result.outlook, forecast=replace(result.outlook.forecast, wrong=wrong))
    verdict = augment_verdict(replace(result, outlook=outlook))
    assert "should raise the error on new images from" in verdict
    assert verdict.endswith("They were written all the same; images as they are do no worse.")


def test_the_forecast_is_the_same_again_and_in_any_order_of_the_images(draw: Draw) -> None:
    images, copies = draw(0), [(HFLIP, draw(1)), (VFLIP, draw(2, shift=1))]
    how = AugmentOptions(size=0.2)
    given = errors(augment(images, copies, OPTIONS, how))
    assert errors(augment(images, copies, OPTIONS, how)) == given
    order = np.random.default_rng(5).permutation(90)
    assert errors(augment(images.select(order), copies, OPTIONS, how)) == pytest.approx(given, abs=1e-6)
    seeded = augment(images, copies, replace(OPTIONS, seed=1), how)
    assert errors(seeded) != given


@pytest.mark.parametrize("seed", range(3))
def test_random_labels_promise_nothing(draw: Draw, seed: int) -> None:
    labels = np.random.default_rng(seed).integers(0, 3, 90).astype(str)

    def relabelled(part: Samples) -> Samples:
        return replace(part, manifest=replace(part.manifest, table=part.manifest.table.assign(label=labels)))

    copies = [(HFLIP, relabelled(draw(1))), (VFLIP, relabelled(draw(2, shift=1)))]
    result = augment(relabelled(draw(0)), copies, OPTIONS, AugmentOptions(size=0.3))
    assert result.outlook is None or result.outlook.change.high > 0
    assert (result.outlook is None) is ("hardly tell the labels apart" in result.unknown)
    assert "should lower" not in augment_verdict(result)


def test_a_validation_set_is_who_judges(draw: Draw) -> None:
    copies = [(HFLIP, draw(1)), (VFLIP, draw(2, shift=1))]
    result = augment(draw(0), copies, OPTIONS, AugmentOptions(size=0.3), draw(3, 60))
    assert result.outlook is not None
    assert len(result.outlook.forecast.share) == 60
    assert errors(result)[AUGMENTING] <= errors(result)[EQUAL]


def test_the_walk_of_a_fold_is_that_of_all_where_the_fold_is_empty(draw: Draw) -> None:
    images = draw(0)
    problem = pose_merged(images, merge(images, [draw(1), draw(2, shift=1)]), OPTIONS)
    for sizes in ((), (0.1, 0.3)):
        shares = walk(problem, sizes)[0]
        np.testing.assert_allclose(walk_shares(problem, sizes), shares, rtol=1e-9)


def test_too_few_images_for_folds_are_no_error(draw: Draw) -> None:
    images = draw(0, 2)
    result = augment(images, [(HFLIP, draw(1, 2))], SQUARED, AugmentOptions(size=0.1))
    assert result.outlook is None
    assert "would stay when a fold leaves" in result.unknown
    assert augment_verdict(result) == ""
