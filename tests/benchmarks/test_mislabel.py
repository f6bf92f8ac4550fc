"""The rivals of `benchmarks.mislabel` that are written here, and its page."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold

from benchmarks import mislabel_table, simifeat, subspaces
from benchmarks.mislabel import quality
from benchmarks.mislabel_cells import Posed
from benchmarks.peers import load, ours


def blobs(k: int = 4, n: int = 1200, rate: float = 0.2, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Features of length 1 in well separated classes, given labels, and true labels."""
    generator = np.random.default_rng(seed)
    truth = generator.integers(0, k, n)
    rows = 4 * np.eye(k, 12)[truth] + 0.5 * generator.normal(size=(n, 12))
    moved = generator.random(n) < rate
    given = np.where(moved, (truth + generator.integers(1, k, n)) % k, truth)
    return rows / np.linalg.norm(rows, axis=1, keepdims=True), given, truth


def test_the_nearest_samples_are_those_of_a_full_search() -> None:
    features, _, _ = blobs(n=1100)
    places, similarities = simifeat.nearest(features, 3)
    full = features @ features.T
    np.fill_diagonal(full, -np.inf)
    assert similarities == pytest.approx(np.sort(full, axis=1)[:, :-4:-1], abs=1e-6)
    assert not (places == np.arange(1100)[:, None]).any()


def test_the_distance_of_frequencies_is_that_of_full_arrays() -> None:
    import torch

    generator = np.random.default_rng(0)
    transitions, prior = generator.dirichlet(np.ones(3), 3), generator.dirichlet(np.ones(3))
    triples = generator.integers(0, 3, (50, 3))
    expected = 0.0
    for order, spec in enumerate(("i,ia->a", "i,ia,ib->ab", "i,ia,ib,ic->abc"), start=1):
        counted = np.zeros((3,) * order)
        np.add.at(counted, tuple(triples[:, :order].T), 1 / 50)
        expected += np.linalg.norm((counted - np.einsum(spec, prior, *[transitions] * order)).ravel())
    observed = [simifeat.frequencies(triples[:, :order]) for order in (1, 2, 3)]
    found = simifeat.distance(torch.from_numpy(transitions), torch.from_numpy(prior), observed)
    assert float(found) == pytest.approx(expected)


def test_hoc_finds_the_noise_of_classes_that_lie_apart() -> None:
    features, given, truth = blobs(n=4000, rate=0.3)
    noise = simifeat.hoc(features, given)
    assert noise.rate == pytest.approx((given != truth).mean(), abs=0.03)
    by_label = [(truth[given == label] != label).mean() for label in range(4)]
    assert noise.wrong_by_label() == pytest.approx(by_label, abs=0.08)
    clean = simifeat.hoc(features, truth)
    assert clean.rate < 0.02


def test_vote_and_rank_find_moved_labels() -> None:
    features, given, truth = blobs()
    wrong = given != truth
    counts = simifeat.votes(features, given)
    assert f1_score(wrong, simifeat.winners(counts, 0) != given) > 0.95
    score = simifeat.agreement(counts, given)
    assert roc_auc_score(wrong, -score) > 0.97
    ranked = simifeat.lowest_by_label(score, given, simifeat.hoc(features, given).wrong_by_label())
    assert f1_score(wrong, ranked) > 0.9


def test_equal_votes_are_drawn() -> None:
    winners = simifeat.winners(np.tile([1.0, 1.0, 0.0], (100, 1)), seed=0)
    assert set(winners) == {0, 1}


def test_the_reconstruction_error_ratio_finds_moved_labels() -> None:
    features, given, truth = blobs()
    folds = StratifiedKFold(5, shuffle=True, random_state=0).split(features, given)
    ratio = subspaces.error_ratio(features, given, folds)
    assert f1_score(given != truth, ratio > 1) > 0.95


@pytest.mark.parametrize("n", [8, 40])
def test_reconstruction_errors_are_those_of_singular_vectors(n: int) -> None:
    generator = np.random.default_rng(0)
    rows, others = generator.normal(size=(n, 12)), generator.normal(size=(5, 12))
    center = rows.mean(axis=0)
    _, values, vectors = np.linalg.svd(rows - center, full_matrices=False)
    reached = np.cumsum(values**2) / (values**2).sum()
    for share, errors in zip(subspaces.SHARES, subspaces.reconstruction_errors(rows, others), strict=True):
        basis = vectors[: int((reached < share).sum()) + 1]
        residual = (others - center) - (others - center) @ basis.T @ basis
        assert errors == pytest.approx((residual**2).sum(axis=1))


def test_a_single_sample_of_a_class_is_its_own_subspace() -> None:
    rows = np.arange(3.0)
    errors = subspaces.reconstruction_errors(rows[None], np.stack([rows, rows + 1]))
    assert errors == pytest.approx(np.tile([0.0, 3.0], (len(subspaces.SHARES), 1)))


@pytest.mark.parametrize(("interval", "held"), [((0.2, 0.3), True), ((0.0, 0.2), False)])
def test_a_row_says_whether_the_interval_holds_the_truth(interval: tuple[float, float], held: bool) -> None:
    wrong = np.array([True, False, False, False])
    labels = np.array(["a", "a", "b", "b"])
    result = {"score": np.arange(4.0), "noise_rate": np.array(0.25), "noise_interval": np.array(interval)}
    row = quality(Posed(np.eye(4), labels, labels, wrong), result)
    assert (row["noise_low"], row["noise_high"], row["noise_held"]) == (*interval, held)


def test_a_row_says_of_each_decision_what_is_true_and_what_was_expected() -> None:
    wrong = np.array([True, True, False, False])
    labels = np.array(["a", "a", "b", "b"])
    result = {
        "score": np.arange(4.0),
        "flagged": np.array([True, False, False, False]),
        "expected_precision": np.array(0.9),
        "expected_recall": np.array(0.6),
        "flagged_balanced": np.array([True, True, True, False]),
        "expected_precision_balanced": np.array(np.nan),
        "expected_recall_balanced": np.array(0.8),
    }
    row = quality(Posed(np.eye(4), labels, labels, wrong), result)
    assert (row["flagged"], row["precision"], row["recall"]) == (0.25, 1, 0.5)
    assert row["f1"] == pytest.approx(2 / 3)
    assert (row["expected_precision"], row["expected_recall"]) == (0.9, 0.6)
    assert (row["flagged_balanced"], row["recall_balanced"]) == (0.75, 1)
    assert (row["precision_balanced"], row["f1_balanced"]) == (pytest.approx(2 / 3), pytest.approx(0.8))
    assert row["expected_recall_balanced"] == 0.8
    # What nobody expected is no figure.
    assert "expected_precision_balanced" not in row
    clean = quality(Posed(np.eye(4), labels, labels, np.zeros(4, bool)), result)
    assert clean["flagged_balanced"] == 0.75
    assert not {"f1_balanced", "precision", "recall_balanced"} & set(clean)


def test_our_tool_returns_both_decisions(tmp_path: Path) -> None:
    features, given, truth = blobs(k=3, n=300)
    np.savez(tmp_path / "samples.npz", embedding=features.astype(np.float32), label=given)
    result = ours(load(str(tmp_path / "samples.npz")))
    flagged, balanced = result["flagged"], result["flagged_balanced"]
    assert (flagged == (result["probability"] > 0.5)).all()
    assert (balanced >= flagged).all()
    for suffix, called in (("", flagged), ("_balanced", balanced)):
        assert result[f"expected_precision{suffix}"] == pytest.approx(result["probability"][called].mean())
        found = result["probability"][called].sum() / result["probability"].sum()
        assert result[f"expected_recall{suffix}"] == pytest.approx(found)
        assert f1_score(given != truth, called) > 0.9


def measured(tool: str, **figures: float) -> dict[str, Any]:
    return {
        "cell": "clothing/pair-20",
        "seed": 0,
        "tool": tool,
        "version": "1",
        "threads": 1,
        "noise": 0.2,
    } | {
        "peak": 1e6,
        "seconds": 1.0,
        "cpu_seconds": 1.0,
        **figures,
    }


def test_the_page_says_where_a_rival_is_better() -> None:
    ours, rival = (
        measured("ours", f1=0.8, auroc=0.9, ap=0.7),
        measured("simifeat_vote", f1=0.9, auroc=0.8, ap=0.7),
    )
    ahead = mislabel_table.rivals_ahead(pd.DataFrame([ours, rival]))
    assert ahead.splitlines()[2:] == [
        "| clothing/pair-20 | F1 of the decision | SimiFeat, vote | 0.9000 | 0.8000 | 1 of 1 seeds |"
    ]
    assert mislabel_table.rivals_ahead(pd.DataFrame([ours, rival | {"f1": 0.7}])) == "Nowhere."
    assert "## Where a rival is better" in mislabel_table.report([ours, rival])


def test_a_seed_that_only_one_was_measured_with_does_not_count() -> None:
    ours, rival = measured("ours", f1=0.8), measured("simifeat_vote", f1=0.7)
    other = measured("simifeat_vote", f1=1.0) | {"seed": 1}
    assert mislabel_table.rivals_ahead(pd.DataFrame([ours, rival, other])) == "Nowhere."


def test_the_page_compares_what_decisions_expect_with_the_truth() -> None:
    figures = {
        "flagged": 0.2,
        "expected_precision": 0.9,
        "precision": 0.8,
        "expected_recall": 0.7,
        "recall": 0.6,
        "f1": 0.69,
    }
    balanced = {f"{name}_balanced": value + 0.1 for name, value in figures.items()}
    rows = [measured("ours", **figures, **balanced), measured("simifeat_vote", flagged=0.3)]
    rows.append(rows[0] | {"seed": 1, "precision": 0.9})
    # Without a wrong label nothing is true of it, and nothing may be expected.
    clean = {"flagged": 0.0, "expected_recall": 0.0, "flagged_balanced": 0.1, "expected_recall_balanced": 1.0}
    rows.append(measured("ours", **clean) | {"cell": "clothing/clean", "noise": 0.0})
    page = mislabel_table.report(rows)
    title = "## Decisions: expected and true precision and recall"
    assert page[page.index(title) :].splitlines()[2:] == [
        "| cell | decision | seeds | wrong | called wrong | precision expected | true | recall expected "
        "| true | F1 |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| clothing/pair-20 | likely | 2 | 0.200 | 0.200 | 0.900 | 0.850 | 0.700 | 0.600 | 0.690 |",
        "| clothing/pair-20 | balanced | 2 | 0.200 | 0.300 | 1.000 | 0.900 | 0.800 | 0.700 | 0.790 |",
        "| clothing/clean | likely | 1 | 0.000 | 0.000 |  |  | 0.000 |  |  |",
        "| clothing/clean | balanced | 1 | 0.000 | 0.100 |  |  | 1.000 |  |  |",
    ]
    assert title not in mislabel_table.report([measured("ours", **figures)])
