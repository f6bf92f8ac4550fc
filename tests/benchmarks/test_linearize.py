"""Kinds of features and what is measured of them, on features that are made here."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import linearize, machine
from benchmarks.extend import flipped, relabelled
from benchmarks.linearize import SUM, Basis, Kind, measure, mixed, scored
from benchmarks.linearize_outputs import SIGNS, alike, compare_outputs, jacobians, shared
from benchmarks.linearize_table import Row, missed, paired, report, share
from divacli.backbones.linearised.expression import Linearize
from divacli.curate.prune_rules import choose_automatically
from divacli.curate.sample_scores import score
from divacli.evaluation.evaluate import evaluate
from divacli.evaluation.learners import RidgeLearner
from divacli.evaluation.rivals import rivals
from divacli.features import BackboneChoice, Samples, load_samples
from divacli.solve.ridge_problem import SolveOptions
from divacli.solve.solution import solve

N, M, WIDTHS = 90, 45, (20, 150)
CLASSES = ("a", "b", "c")


def blobs(folder: Path, n: int, d: int, seed: int) -> Samples:
    """Features of three classes that overlap a little."""
    generator = np.random.default_rng(seed)
    label = np.arange(n) % 3
    file = folder / f"{n}-{d}-{seed}.npz"
    embedding = (2.5 * np.eye(3, d)[label] + generator.normal(size=(n, d)) * 4 / d**0.5).astype(np.float32)
    np.savez(file, embedding=embedding, label=np.array(CLASSES)[label])
    samples = load_samples(str(file), None, None, folder)  # type: ignore[arg-type]  # no network
    weight = torch.from_numpy(np.random.default_rng(7).normal(size=(3, d)).astype(np.float32)) / d
    weight += 0.2 * torch.eye(3, d)  # a head that knows the classes
    return replace(samples, head=(weight, torch.tensor([0.1, 0.0, -0.1])))


def labels_of(samples: Samples) -> np.ndarray:
    return samples.manifest.table["label"].to_numpy(str)


def numbers(labels: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.searchsorted(CLASSES, labels))


@pytest.fixture(params=WIDTHS, ids=["n > d", "n < d"])
def posed(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Samples, Samples]:
    """Training and test samples."""
    return blobs(tmp_path, N, request.param, 0), blobs(tmp_path, M, request.param, 1)


def test_rows_are_mixed_by_their_norm() -> None:
    head, others = torch.randn(5, 3), 9 * torch.randn(5, 4)
    others[2] = 0
    assert torch.equal(mixed(head, others, 0), head)
    assert torch.equal(mixed(head, others, np.inf), others)
    both = mixed(head, others, 0.5)
    assert torch.equal(both[:, :3], head)
    expected = 0.5 * head.norm(dim=1)
    expected[2] = 0
    torch.testing.assert_close(both[:, 3:].norm(dim=1), expected)
    torch.testing.assert_close(mixed(head, 4 * others, 0.5), both)


def test_the_head_stays_that_of_its_columns(tmp_path: Path) -> None:
    samples = blobs(tmp_path, N, 20, 0)
    weight, bias = samples.head or pytest.fail("a head")
    weight[:, 8:] = 0
    expected = samples.features[:] @ weight.T + bias
    for factor in (None, 0, 3):
        found = Kind("some", Linearize(SUM), factor).of(samples, 8)
        assert found.head is not None
        torch.testing.assert_close(found.features[:] @ found.head[0].T + found.head[1], expected)
    alone = Kind("others", Linearize(SUM), np.inf).of(samples, 8)
    assert alone.head is None
    assert torch.equal(alone.features[:], samples.features[:][:, 8:])


@pytest.mark.parametrize("around_head", [False, True])
def test_labels_that_come_later_are_scored_as_by_the_command(
    posed: tuple[Samples, Samples], around_head: bool
) -> None:
    training, test = posed
    basis = Basis.of(training, test, around_head)
    given, _ = flipped(labels_of(training), 0.2, 0)
    noisy = relabelled(training, given)
    options = SolveOptions(around_head=around_head, scaling="none" if around_head else "unit")
    expected = score(noisy, options)
    table, _, fit = scored(basis, training, numbers(given))
    in_order = expected.table.set_index("path").loc[table["path"]]
    assert fit.ridge == pytest.approx(expected.summary["ridge"])
    assert table["loo_wrong"].mean() == expected.summary["loo_error"]
    assert (table["label"].to_numpy() == in_order["label"].to_numpy()).all()
    for column in ("loo_loss", "derivative", "mislabel_probability", "outlier_score"):
        np.testing.assert_allclose(table[column], in_order[column], rtol=1e-3, atol=1e-4, err_msg=column)
    validation_error = score(noisy, options, test).summary["validation_error"]
    assert basis.wrong(fit).mean() == validation_error
    # And not as labels that are there at the beginning.
    assert not np.allclose(table["derivative"], score(training, options).derivative, atol=1e-2)


def test_dropped_samples_are_absent(posed: tuple[Samples, Samples]) -> None:
    training, test = posed
    given, wrong = flipped(labels_of(training), 0.4, 3)
    basis = Basis.of(training, test, around_head=False)
    task, _ = basis.labelled(numbers(given))
    kept = relabelled(training, given).select(~wrong)
    predicted = RidgeLearner(SolveOptions())(kept, test, 0)
    assert (basis.without(task, wrong) == (predicted != labels_of(test))).all()


def test_figures_are_those_of_an_evaluation(posed: tuple[Samples, Samples]) -> None:
    training, test = posed
    truth = labels_of(training)
    given, wrong = flipped(truth, 0.3, 1)
    row = measure(Basis.of(training, test, around_head=False), training, given, truth)
    noisy = relabelled(training, given)
    table = score(noisy, SolveOptions()).table.set_index("path").loc[noisy.manifest.table["path"]]
    kept = choose_automatically(table.reset_index()).choice.kept
    sets = rivals(noisy, {"auto": noisy.select(kept)}, (0,), ~wrong)
    found = evaluate(sets, test, [RidgeLearner(SolveOptions())], (0,))
    by_set = found.summary.set_index("training_set")
    for name in ("everything", "auto", "oracle"):
        assert row[f"error_{name}"] == pytest.approx(by_set["test_error"][name])
        assert row[f"class_error_{name}"] == pytest.approx(by_set["class_error"][name])
    recovered = by_set["recovered"]["auto"]
    assert share(row, "auto") == ("-" if np.isnan(recovered) else f"{recovered:.0%}")
    assert row["noise"] == wrong.mean()
    assert row["auroc_mislabel_probability"] > 0.7
    assert missed(row).mean() == row["error_everything"]


def test_one_decomposition_is_that_of_the_samples(posed: tuple[Samples, Samples]) -> None:
    training, test = posed
    basis = Basis.of(training, test, around_head=False)
    features = basis.task.features[:].double()
    gram = features.T @ features
    off = gram - gram.diag().diag()
    assert off.abs().max() < 1e-4 * gram.diag().max()
    spectrum = solve(training, SolveOptions()).spectrum
    torch.testing.assert_close(basis.spectrum.eigenvalues, spectrum.eigenvalues)


def test_intervals_hold_the_mean_and_shrink() -> None:
    generator = np.random.default_rng(0)
    widths = []
    for n in (30, 3000):
        values = generator.normal(size=n)
        mean, low, high = paired(values)
        assert low < mean < high
        widths.append(high - low)
    assert widths[1] == pytest.approx(2 * 1.96 / 3000**0.5, rel=0.1)
    assert widths[1] < widths[0] / 5
    assert paired(np.full(9, 0.5)) == (0.5, 0.5, 0.5)


def test_rows_are_kept_and_replaced(
    posed: tuple[Samples, Samples], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    monkeypatch.setattr(linearize, "RESULTS", tmp_path)
    training, test = posed
    truth = labels_of(training)
    basis = Basis.of(training, test, around_head=False)
    for features in ("head", "full"):
        named: Row = {"setting": "made here", "features": features}
        cost = {"n_features": 20, "bytes": 80, "seconds_an_image": 0.5}
        linearize.write({**named, "part": "cost"}, cost)
        for seed in (0, 1):
            key = {**named, "part": "figures", "labels": "20% moved", "seed": seed}
            assert not linearize.is_known(key)
            linearize.write(key, measure(basis, training, flipped(truth, 0.2, seed)[0], truth))
            linearize.write(key, measure(basis, training, flipped(truth, 0.2, seed)[0], truth))
            assert linearize.is_known(key)
    rows = json.loads((tmp_path / "linearize.json").read_text())["rows"]
    assert [row["part"] for row in rows] == ["cost", "figures", "figures"] * 2
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in report(rows).splitlines()]
    cost, head = (row for row in cells if row[:1] == ["head"])
    _, full = (row for row in cells if row[:1] == ["full"])
    assert cost == ["head", "20", "80", "2.0"]
    assert head[1] == full[1] == "2"  # draws
    assert head[5] == "-"
    assert full[5] == "+0.00 [+0.00, +0.00]"


def kernel_of(n: int, k: int) -> torch.Tensor:
    rows = torch.randn(n, k, 4 * k, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return torch.einsum("icp,jdp->icjd", rows, rows)


def test_left_out_images_lose_all_their_outputs() -> None:
    n, k, ridge = 12, 3, 0.7
    theta = kernel_of(n + 4, k)[:, :, :n]
    targets = torch.randn(n, k, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    left_out, outputs = shared(theta, n, targets, ridge)
    for i in range(n):
        rest = torch.arange(n) != i
        without = theta[:n][rest][:, :, rest]
        system = without.reshape(k * (n - 1), k * (n - 1)) + ridge * torch.eye(k * (n - 1))
        coefficients = torch.linalg.solve(system, targets[rest].flatten())
        predicted = theta[i][:, rest].reshape(k, -1) @ coefficients
        torch.testing.assert_close(left_out[i], targets[i] - predicted)
    assert outputs.shape == (4, k)


def test_classes_that_share_nothing_have_one_kernel() -> None:
    n, k = 9, 3
    kernel = torch.einsum("icjc->ij", kernel_of(n + 5, k))[:, :n]
    theta = torch.einsum("ij,cd->icjd", kernel, torch.eye(k, dtype=torch.float64))
    targets = torch.randn(n, k, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for one, other in zip(shared(theta, n, targets, 0.3), alike(kernel, n, targets, 0.3), strict=True):
        torch.testing.assert_close(one, other)
    labels = torch.arange(n) % k
    rows = compare_outputs(theta, labels, torch.arange(5) % k)
    assert len(rows) == 2 + len(SIGNS)
    assert all(row["loo_loss"] == pytest.approx(rows[0]["loo_loss"]) for row in rows)
    assert all(row.get("from_mean", 0) == pytest.approx(0) for row in rows)
    text = report([{"setting": "made here", "part": "outputs", **row} for row in rows])
    assert "| shared weights " in text


NETWORK = """
import torch
from torch import nn

def make():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.Tanh(), nn.Linear(5, 3))
"""


def test_gradients_of_outputs_are_those_of_autograd(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(NETWORK)
    backbone = BackboneChoice(f"{tmp_path / 'net.py'}:make", image_size=2).backbone
    images = torch.randn(23, 3, 2, 2)
    found = jacobians(backbone, images, ["1", "3"])
    network = backbone.network
    for image, rows in zip(images[[0, 22]], found[[0, 22]], strict=True):
        outputs = network(image[None])[0]
        names = ("1.weight", "1.bias", "3.weight", "3.bias")
        parameters = [network.get_parameter(name) for name in names]
        exact = torch.stack(
            [
                torch.cat(
                    [part.flatten() for part in torch.autograd.grad(one, parameters, retain_graph=True)]
                )
                for one in outputs
            ]
        )
        exact /= exact.square().sum(dim=1).mean().sqrt()
        torch.testing.assert_close(rows, exact)  # short enough to stay as they are
