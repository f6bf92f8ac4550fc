"""Training sets and their errors: counted by hand, paired, and drawn as they should be."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest

from divacli.errors import DataError
from divacli.evaluation.evaluate import (
    COLUMNS,
    TrainingSet,
    evaluate,
    measure,
    present,
    random_values,
    require_known_labels,
    summarise,
    with_recovered,
)
from divacli.evaluation.learners import LEARNERS
from divacli.evaluation.rivals import rivals
from divacli.features import Samples, joined
from divacli.features.samples import require_same_features
from divacli.solve.overlap import shared_samples
from divacli.solve.ridge_problem import SolveOptions
from divacli.training.held_out import mean_over_groups


@pytest.fixture
def made(tmp_path: Path, load: Callable[[Path], Samples]) -> Callable[..., Samples]:
    """Samples with the labels given; features say which class a sample is of, with noise."""

    def make(labels: list[str], name: str = "made", **more: object) -> Samples:
        generator = np.random.default_rng(len(labels))
        centres = np.random.default_rng(3).normal(size=(26, 5)) * 2
        features = centres[[ord(label[0]) - ord("a") for label in labels]]
        np.savez(
            tmp_path / f"{name}.npz",
            embedding=features + generator.normal(size=features.shape),
            label=np.array(labels),
            **more,
        )
        return load(tmp_path / f"{name}.npz")

    return make


@dataclass
class Constant:
    """Predicts what it was told for a training set of that many samples; by seed where it is random."""

    answers: dict[object, list[str]]
    calls: list[tuple[int, int]] = field(default_factory=list)
    random: bool = False
    name: ClassVar[str] = "constant"

    def __call__(self, training: Samples, test: Samples, seed: int) -> np.ndarray:
        self.calls.append((len(training), seed))
        key = (len(training), seed) if self.random else len(training)
        return np.array(self.answers[key], dtype=object)


def first(samples: Samples, n: int) -> Samples:
    return samples.select(np.arange(len(samples)) < n)


def test_errors_and_paired_differences_are_those_counted_by_hand(made):
    data, test = made(list("abcabc")), made(list("aaabbc"), "test")
    learner = Constant({6: list("aabbbc"), 5: list("abbbbb")})
    sets = [TrainingSet("everything", data), TrainingSet("five", first(data, 5))]
    table = measure(sets, test, [learner], [0])
    assert tuple(table) == COLUMNS
    assert table["seed"].isna().all()
    assert table["n_train"].tolist() == [6, 5]
    everything, five = table.to_dict("records")
    assert everything["test_error"] == pytest.approx(1 / 6)
    assert everything["test_error_se"] == pytest.approx(np.sqrt(1 / 6 * 5 / 6 / 6))
    assert everything["class_error"] == pytest.approx((1 / 3 + 0 + 0) / 3)
    assert (everything["difference"], everything["difference_se"]) == (0, 0)
    # Wrong: aabbbc at the third, abbbbb at the second, third and last.
    assert five["test_error"] == pytest.approx(3 / 6)
    assert five["class_error"] == pytest.approx((2 / 3 + 0 + 1) / 3)
    paired = np.array([0, 1, 0, 0, 0, 1])
    assert five["difference"] == pytest.approx(paired.mean())
    assert five["difference_se"] == pytest.approx(paired.std() / np.sqrt(6))
    assert five["class_difference"] == pytest.approx((1 / 3 + 0 + 1) / 3)
    assert five["class_difference_se"] == pytest.approx(np.std([0, 1, 0]) / np.sqrt(3) / 3)


def test_a_test_sample_of_weight_two_is_two_samples_to_the_error(made):
    data = made(list("abcabc"))
    learner = Constant({6: list("aabbc")})
    sets = [TrainingSet("everything", data)]
    weighted = measure(sets, made(list("aabbb"), "w", weight=[1, 1, 1, 1, 2.0]), [learner], [0])
    learner = Constant({6: list("aabbcc")})
    repeated = measure(sets, made(list("aabbbb"), "r"), [learner], [0])
    for name in ("test_error", "class_error"):
        assert weighted[name].tolist() == pytest.approx(repeated[name].tolist())


def test_a_standard_error_is_the_spread_over_test_sets():
    generator = np.random.default_rng(0)
    groups = np.repeat([0, 1, 2], [10, 40, 150])
    chance = np.array([0.5, 0.2, 0.1])[groups]
    draws = [(generator.random(200) < chance).astype(float) for _ in range(3000)]
    found = np.array([mean_over_groups(draw, np.ones(200), groups) for draw in draws])
    assert found[:, 0].mean() == pytest.approx(np.mean([0.5, 0.2, 0.1]), abs=0.005)
    assert np.sqrt((found[:, 1] ** 2).mean()) == pytest.approx(found[:, 0].std(), rel=0.08)


def test_a_learner_without_randomness_is_trained_once_on_a_set(made):
    data, test = made(list("abcabc")), made(list("abc"), "test")
    learner = Constant({6: list("abc"), 4: list("abb")})
    sets = [
        TrainingSet("everything", data),
        TrainingSet("random 4", first(data, 4), 7),
        TrainingSet("random 4", first(data, 4), 8),
    ]
    table = measure(sets, test, [learner], [7, 8])
    assert [n for n, _ in learner.calls] == [6, 4, 4]
    assert table["seed"].tolist() == [pd.NA, 7, 8]


def test_a_random_learner_is_compared_seed_by_seed(made):
    data, test = made(list("abcabc")), made(list("abc"), "test")
    learner = Constant(
        {(6, 7): list("abc"), (6, 8): list("aac"), (4, 7): list("bac"), (4, 8): list("aac")}, random=True
    )
    table = measure(
        [TrainingSet("everything", data), TrainingSet("four", first(data, 4))], test, [learner], [7, 8]
    )
    assert learner.calls == [(6, 7), (6, 8), (4, 7), (4, 8)]
    assert table["seed"].tolist() == [7, 8, 7, 8]
    assert table["difference"].tolist() == pytest.approx([0, 0, 2 / 3, 0])


def test_a_draw_of_one_class_always_says_that_class(made):
    data, test = made(list("aabb")), made(list("abb"), "test")
    sets = [TrainingSet("everything", data), TrainingSet("random 2", first(data, 2), 0)]
    table = measure(sets, test, [LEARNERS["ridge"](SolveOptions())], [0])
    assert table["test_error"].iloc[1] == pytest.approx(2 / 3)


def test_a_random_choice_is_uniform_and_does_not_depend_on_the_order_of_rows(made):
    data = made(list("abc") * 10)
    order = np.random.default_rng(0).permutation(30)
    shuffled = replace(data, manifest=data.manifest.select(order), features=data.features.select(order))
    assert random_values(shuffled, 5).tolist() == random_values(data, 5)[order].tolist()
    counts = np.bincount(np.concatenate([np.argsort(random_values(data, s))[:10] for s in range(900)]))
    assert counts.min() > 240
    assert counts.max() < 360


def test_a_random_choice_tells_rows_of_one_name_by_their_files(made):
    data = joined(made(list("abc") * 5), made(list("abc") * 5, "other"))
    assert data.manifest.table["path"].duplicated().any()
    order = np.random.default_rng(0).permutation(30)
    assert random_values(data.select(order), 5).tolist() == random_values(data, 5)[order].tolist()


def test_the_mistakes_of_a_random_learner_are_paired_seed_by_seed(made):
    data, test = made(list("abcabc")), made(list("abc"), "test")
    answers = {(6, 7): "abc", (6, 8): "aac", (4, 7): "bac", (4, 8): "aac", (3, 7): "bbc", (3, 8): "aab"}
    learner = Constant({key: list(value) for key, value in answers.items()}, random=True)
    sets = [
        TrainingSet("everything", data),
        TrainingSet("four", first(data, 4), rivals=("everything", "random 3")),
        TrainingSet("random 3", first(data, 3), 7),
        TrainingSet("random 3", first(data, 3), 8),
    ]
    everything, random = evaluate(sets, test, [learner], [7, 8]).verdicts
    assert (everything.rival, random.rival) == ("everything", "random 3")
    # Wrong of three: 2 and 1; everything 0 and 1; random 1 and 2.
    assert everything.difference == pytest.approx((2 / 3 + 0) / 2)
    assert random.difference == pytest.approx((1 / 3 - 1 / 3) / 2)
    assert random.low == pytest.approx(-random.high)
    [verdict] = evaluate([*sets[:1], replace(sets[1], rivals=("everything",))], test, [learner], [7]).verdicts
    assert verdict.low is None


def test_a_subset_keeps_rows_with_their_features(made):
    data = made(list("abcd"))
    part = data.select(np.array([False, True, False, True]))
    assert part.manifest.table["label"].tolist() == ["b", "d"]
    assert (part.features[:] == data.features[:][[1, 3]]).all()


def test_the_mean_and_spread_over_seeds():
    table = pd.DataFrame(
        {
            **dict.fromkeys(COLUMNS, 0.0),
            "learner": "ridge",
            "training_set": ["everything", "random 4", "random 4"],
            "n_train": [6, 4, 4],
            "test_error": [0.2, 0.3, 0.5],
            "class_error": [0.3, 0.4, 0.4],
        }
    )
    summary = summarise(table).set_index("training_set")
    assert summary["runs"].tolist() == [1, 2]
    assert summary["test_error"].tolist() == pytest.approx([0.2, 0.4])
    assert summary["test_error_sd"].tolist() == pytest.approx([np.nan, 0.1 * np.sqrt(2)], nan_ok=True)
    assert summary["class_error_sd"].tolist() == pytest.approx([np.nan, 0], nan_ok=True)


@pytest.mark.parametrize(
    ("oracle", "expected"),
    [(0.10, [0, 0.75, -0.5, 1]), (0.20, [np.nan] * 4), (0.25, [np.nan] * 4), (None, [np.nan] * 3)],
)
def test_the_share_of_the_gap(oracle, expected):
    errors = {"everything": 0.2, "kept": 0.125, "random": 0.25, "oracle": oracle}
    rows = [(name, error) for name, error in errors.items() if error is not None]
    summary = pd.DataFrame(rows, columns=["training_set", "test_error"]).assign(learner="ridge")
    assert with_recovered(summary)["recovered"].tolist() == pytest.approx(expected, nan_ok=True)


def test_a_sample_of_weight_0_is_absent(made):
    weights = np.where(np.arange(12) % 4, 1.0, 0.0)
    data = present(made(list("abc") * 4, weight=weights))
    assert len(data) == 9
    one_class = np.where(np.array(list("abc") * 4) == "a", 1.0, 0.0)
    with pytest.raises(DataError, match=r"weights above 0 in 1 classes\nexpected: in 2 or more"):
        present(made(list("abc") * 4, "one", weight=one_class))
    pool = made(list("abc") * 4, "pool", weight=one_class)
    assert len(present(replace(pool, manifest=replace(pool.manifest, labels_required=False)))) == 4


def test_labels_that_no_training_set_has(made):
    test = made(list("abz"), "test").manifest
    with pytest.raises(DataError, match="labels that no training set has: z"):
        require_known_labels(test, [made(list("ab")).manifest, made(list("bc"), "more").manifest])
    require_known_labels(test, [made(list("ab")).manifest, made(list("bz"), "more").manifest])


def test_features_of_another_width(made, gaussian):
    with pytest.raises(DataError, match=r"has 6 features a sample\nexpected: 5"):
        require_same_features(made(list("ab")), gaussian())


def test_samples_shared_by_name_in_a_source_or_by_content(made):
    data = made(list("abcabc"))
    assert shared_samples(data, first(data, 2)) == 2
    # The same names in another file are others.
    other = made(list("abcabc"), "other")
    assert shared_samples(data, other) == 0
    keys = np.arange(12, dtype=np.uint8).reshape(6, 2)
    assert shared_samples(replace(data, keys=keys), replace(other, keys=keys[::-1].copy())) == 6
    assert shared_samples(replace(data, keys=keys), replace(other, keys=keys + 1)) == 0


def test_without_the_wrong_labels_the_error_is_smaller_and_the_gap_closed(made):
    generator = np.random.default_rng(0)
    truth = np.array(list("abc") * 60)
    wrong = generator.random(180) < 0.45
    data = made(truth.tolist())
    labels = np.where(wrong, np.roll(truth, 1), truth)
    data = replace(data, manifest=replace(data.manifest, table=data.manifest.table.assign(label=labels)))
    manifests = {"right": data.select(~wrong), "wrong": data.select(wrong)}
    learners = [make(SolveOptions()) for make in LEARNERS.values()]
    sets = rivals(data, manifests, range(3), ~wrong)
    result = evaluate(sets, made(list("abc") * 30, "test"), learners, range(3))
    assert result.n_test == 90
    for _, rows in result.summary.groupby("learner"):
        by_name = rows.set_index("training_set")
        assert by_name.at["right", "difference"] < -0.05
        assert by_name.at["right", "recovered"] == by_name.at["oracle", "recovered"] == 1
        assert by_name.at["wrong", "test_error"] > 0.5
        assert by_name.at["wrong", "recovered"] < 0
        assert by_name.at[f"random {len(manifests['right'])}", "runs"] == 3
    verdicts = {(one.learner, one.training_set, one.rival): one for one in result.verdicts}
    assert len(verdicts) == 2 * 2 * 2
    for learner in LEARNERS:
        for name, side in (("right", -1), ("wrong", 1)):
            for rival in ("everything", f"random {len(manifests[name])}"):
                verdict = verdicts[learner, name, rival]
                rows = result.summary.query("learner == @learner").set_index("training_set")["test_error"]
                assert verdict.difference == pytest.approx(rows[name] - rows[rival])
                assert verdict.low < verdict.difference < verdict.high
                assert verdict.confidence == pytest.approx(0.975)
            assert verdicts[learner, name, "everything"].difference * side > 0
        assert verdicts[learner, "right", "everything"].more_than_chance
