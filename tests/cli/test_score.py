"""`diva score`: tables, summary, and the derivative against the oracle."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import roc_auc_score

from divacli.manifest import read_manifest
from divacli.ridge import CrossEntropyLoss, Oracle, RidgeTask, SquaredLoss, fit_scaling

AT_ONE = ("--ridge", "1")
CONTRACT = [
    *("rank", "path", "label", "weight", "derivative", "loo_loss", "predicted_label"),
    *("mislabel_probability", "suggested_label", "suggested_probability", "outlier_score"),
    *("derivative_se", "significant"),
]


def write(table: pd.DataFrame, file: Path) -> Path:
    if file.suffix == ".jsonl":
        table.to_json(file, orient="records", lines=True)
    elif file.suffix == ".parquet":
        table.to_parquet(file)
    else:
        table.to_csv(file, sep="\t" if file.suffix == ".tsv" else ",", index=False)
    return file


def summary_of(folder: str | Path) -> dict:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    return json.loads((Path(folder) / "summary.json").read_text(), parse_constant=refuse)


def by_name(table: pd.DataFrame) -> pd.Series:
    """Derivatives by file name, whatever folder the path starts from."""
    return table.set_index(table["path"].map(lambda path: Path(path).name))["derivative"].sort_index()


def task_of(
    arrays: dict[str, np.ndarray], weights: np.ndarray | None = None, scaling: str = "unit"
) -> RidgeTask:
    """The problem as the contract states it, posed without `divacli.curate`."""
    features = torch.from_numpy(arrays["embedding"])
    n = len(features)
    return RidgeTask(
        features,
        torch.from_numpy(arrays["label"]).long(),
        int(arrays["label"].max()) + 1,
        torch.ones(n, dtype=torch.float64) if weights is None else torch.from_numpy(weights),
        scaling=fit_scaling(scaling, [features]),
        dtype=torch.float64,
    )


def oracle_derivatives(task: RidgeTask, ridge: float, loss=None) -> np.ndarray:
    oracle = Oracle(task, ridge)
    return np.array([oracle.loo_derivative(loss or SquaredLoss(), row) for row in range(len(task))])


def assert_close(found: pd.Series | np.ndarray, expected: pd.Series | np.ndarray, tolerance: float) -> None:
    """Largest difference relative to the largest value."""
    found, expected = np.asarray(found, float), np.asarray(expected, float)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= tolerance * np.abs(expected).max()


def assert_is_scores(table: pd.DataFrame, n: int) -> None:
    assert list(table.columns[: len(CONTRACT)]) == CONTRACT
    assert table["rank"].tolist() == list(range(1, n + 1))
    assert (np.diff(table["derivative"]) <= 0).all()
    assert table["derivative"].iloc[0] > 0 > table["derivative"].iloc[-1]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_table_of_any_format_gives_the_scores_of_the_folder(
    suffix, images, images_table, model, scores, tmp_path
):
    from_folder = scores(images, *model, *AT_ONE, out="folder")
    from_table = scores(write(images_table, tmp_path / f"labels{suffix}"), *model, *AT_ONE, out="table")
    assert_is_scores(from_table, 36)
    assert list(from_table) == CONTRACT
    assert_close(by_name(from_table), by_name(from_folder), 1e-5)


def test_standard_input_gives_the_scores_of_the_folder(images, images_table, model, scores):
    from_stdin = scores("-", *model, *AT_ONE, out="stdin", stdin=images_table.to_csv(index=False).encode())
    assert_is_scores(from_stdin, 36)
    assert_close(by_name(from_stdin), by_name(scores(images, *model, *AT_ONE)), 1e-5)


def test_a_store_gives_the_scores_of_the_folder_without_a_network(images, model, scores, done):
    done("embed", images, *model, "--out", "store")
    from_store = scores("store", out="stored")
    assert list(from_store) == [*CONTRACT, "feature_source"]
    assert_is_scores(from_store, 36)
    assert_close(by_name(from_store), by_name(scores(images, *model)), 1e-5)


def test_the_derivative_of_an_npz_is_that_of_true_refits(blobs, scores):
    data = blobs()
    found = scores(data.file)
    assert list(found) == [*CONTRACT, "feature_source"]
    assert_is_scores(found, 150)
    expected = oracle_derivatives(task_of(data.arrays), summary_of("scored")["ridge"])
    assert_close(by_name(found), expected, 1e-5)


def test_loo_loss_and_prediction_are_those_of_refits_without_the_sample(blobs, scores):
    data = blobs(n=60)
    found = scores(data.file).sort_values("path")
    task = task_of(data.arrays)
    oracle = Oracle(task, summary_of("scored")["ridge"])
    predictions = torch.stack([oracle.loo_prediction(row) for row in range(60)]).numpy()
    losses = ((predictions - np.eye(3)[data.arrays["label"]]) ** 2).sum(axis=1)
    assert_close(found["loo_loss"], losses, 1e-5)
    assert found["predicted_label"].astype(int).tolist() == predictions.argmax(axis=1).tolist()


def test_planted_flips_are_harmful(blobs, scores):
    data = blobs(n=300)
    found = scores(data.file).sort_values("path")
    assert roc_auc_score(data.flipped, found["derivative"]) > 0.95
    assert roc_auc_score(data.flipped, found["loo_loss"]) > 0.95
    assert (found["derivative"].to_numpy()[data.flipped] > 0).mean() > 0.8
    assert (found["derivative"].to_numpy()[~data.flipped] > 0).mean() < 0.2


def test_removing_a_sample_changes_the_summed_loss_by_about_minus_its_derivative(blobs, scores):
    data = blobs(n=90)
    derivative = by_name(scores(data.file, "--ridge", "3")).to_numpy()
    oracle = Oracle(task_of(data.arrays), 3.0)
    now = oracle.loo_losses(SquaredLoss())
    change = np.array([float((oracle.loo_losses(SquaredLoss(), row, -1.0) - now).sum()) for row in range(90)])
    assert np.corrcoef(change, -derivative)[0, 1] > 0.95
    large = np.abs(derivative) > np.quantile(np.abs(derivative), 0.7)
    assert (np.sign(change) == -np.sign(derivative))[large].all()
    np.testing.assert_allclose(np.abs(change[large]).sum(), np.abs(derivative[large]).sum(), rtol=0.3)


def test_equal_derivatives_are_ranked_by_path(blobs, scores, monkeypatch):
    import divacli.curate.sample_scores as module

    data = blobs(n=12, path=np.array([f"{number * 7 % 12:02d}" for number in range(12)]))
    true = module.scores

    def coarse(*arguments):
        result = true(*arguments)
        result.derivative[:] = (torch.arange(12) % 2).double()
        return result

    monkeypatch.setattr(module, "scores", coarse)
    found = scores(data.file)
    for value in (0, 1):
        paths = found["path"][found["derivative"] == value].tolist()
        assert len(paths) == 6
        assert paths == sorted(paths)


def test_weights_change_the_derivative_as_the_oracle_says(blobs, scores):
    weights = np.random.default_rng(5).uniform(0, 2, 150)
    weights[7] = 0
    weighted = blobs("weighted.npz", weight=weights)
    found = scores(weighted.file, out="weighted")
    expected = oracle_derivatives(task_of(weighted.arrays, weights), summary_of("weighted")["ridge"])
    assert_close(by_name(found), expected, 1e-5)
    np.testing.assert_allclose(found.sort_values("path")["weight"], weights, rtol=1e-8)
    plain = scores(blobs().file, out="plain")
    assert np.abs(by_name(found) - by_name(plain)).max() > 0.05 * by_name(plain).abs().max()


def test_weight_zero_is_absent_from_the_fit_but_still_scored(images, images_table, model, scores, tmp_path):
    weights = np.ones(36)
    weights[3] = 0
    found = scores(
        write(images_table.assign(weight=weights), tmp_path / "w.csv"),
        *model,
        *("--ridge", "1", "--weight", "weight"),
    )
    assert len(found) == 36
    assert found.loc[found["weight"] == 0, "path"].map(lambda path: Path(path).name).tolist() == [
        Path(images_table["path"][3]).name
    ]


def test_weight_two_is_the_same_as_the_row_twice(blobs, scores):
    single = blobs("single.npz", n=30)
    doubled = {**single.arrays, "weight": np.r_[2.0, np.ones(29)]}
    np.savez("heavy.npz", **doubled)
    twice = {key: np.concatenate([value, value[:1]]) for key, value in single.arrays.items()}
    twice["path"] = np.array([*single.arrays["path"], "again"])
    np.savez("twice.npz", **twice)
    # Of a validation set's loss: the leave-one-out loss of the repeated row is another one.
    options = ("--ridge", "0.5", "--val", blobs("val.npz", n=30, seed=8).file)
    heavy = scores("heavy.npz", *options, out="heavy")
    repeated = scores("twice.npz", *options, out="twice")
    assert_close(by_name(heavy), by_name(repeated).drop("again"), 1e-5)


def test_the_users_columns_are_carried_along_behind_the_contract(images, images_table, model, done, tmp_path):
    table = images_table.assign(
        camera=[f"cam{row}" for row in range(36)], id=range(36), group="g", rank=7, reason="x"
    )
    done("score", write(table, tmp_path / "labels.csv"), *model, "--out", "scored")
    found = pd.read_csv("scored/scores.csv")
    assert list(found.columns[: len(CONTRACT)]) == CONTRACT
    assert sorted(found.columns[len(CONTRACT) :]) == ["camera", "group", "id", "reason"]
    merged = found.assign(name=found["path"].map(lambda path: Path(path).name)).set_index("name")
    for row, path in enumerate(images_table["path"]):
        assert merged.loc[Path(path).name, "camera"] == f"cam{row}"


def test_scores_that_are_scored_again_replace_the_old_ones(blobs, scores):
    first = scores(blobs().file, "--ridge", "1", out="first")
    again = scores("first/scores.csv", "--ridge", "1", out="again")
    assert list(again) == list(first)
    assert_close(by_name(again), by_name(first), 1e-5)


def test_summary_holds_the_keys_of_the_contract(images, model, scores):
    table = scores(images, *model)
    summary = summary_of("scored")
    keys = {"n_samples", "n_classes", "n_features", "ridge", "loo_loss", "loo_error", "noise_rate", "seconds"}
    assert keys | {"device", "versions", "fingerprint"} <= set(summary)
    assert (summary["n_samples"], summary["n_classes"], summary["n_features"]) == (36, 3, 10)
    assert set(summary["seconds"]) == {"embed", "solve", "total"}
    assert summary["loo_loss"] == pytest.approx(table["loo_loss"].mean(), rel=1e-6)
    assert summary["loo_error"] == pytest.approx((table["label"] != table["predicted_label"]).mean())
    assert summary["n_harmful"] == (table["derivative"] > 0).sum()
    assert summary["n_significant"] == ((table["derivative"] > 0) & table["significant"]).sum()
    assert summary["noise_rate"] == pytest.approx(table["mislabel_probability"].mean(), rel=1e-6)
    low, high = summary["noise_interval"]
    assert 0 <= low <= summary["noise_rate"] <= high <= 1
    assert summary["n_embedded"] == 36
    assert summary["device"] in ("cpu", "cuda")
    assert {"divacli", "torch", "python"} <= set(summary["versions"])


def test_the_fingerprint_depends_on_what_the_scores_depend_on_and_on_nothing_else(
    images_table, model, scores, tmp_path
):
    def fingerprint(table: pd.DataFrame, *options: str) -> str:
        scores(write(table, tmp_path / "labels.csv"), *model, *options)
        return summary_of("scored")["fingerprint"]

    first = fingerprint(images_table)
    assert fingerprint(images_table.assign(camera="x"), "--batch-size", "3") == first
    different = [
        fingerprint(images_table, "--ridge", "1"),
        fingerprint(images_table, "--loss", "cross-entropy"),
        fingerprint(images_table, "--val", "labels.csv"),
        fingerprint(images_table.assign(label=images_table["label"].to_numpy()[::-1])),
        fingerprint(images_table.assign(weight=2), "--weight", "weight"),
        fingerprint(images_table[1:]),
    ]
    assert len({first, *different}) == 7


def test_an_image_that_cannot_be_decoded_is_listed_with_its_reason(
    images, images_table, model, scores, tmp_path
):
    (tmp_path / "broken.png").write_bytes(b"\x89PNG nothing")
    table = pd.concat([images_table, pd.DataFrame({"path": ["broken.png"], "label": ["a"]})])
    found = scores(write(table, tmp_path / "labels.csv"), *model)
    assert len(found) == 36
    failed = pd.read_csv("scored/failed.csv")
    assert list(failed) == ["path", "label", "reason"]
    assert failed["path"].tolist() == ["../broken.png"]
    assert failed["label"].tolist() == ["a"]
    assert len(failed["reason"].iloc[0]) > 5
    assert summary_of("scored")["n_failed"] == 1


def test_failed_is_written_also_when_nothing_failed(blobs, done):
    done("score", blobs().file, "--out", "scored")
    assert Path("scored/failed.csv").read_text() == "path,label,reason\n"


def test_the_default_folder_is_diva_out(blobs, done):
    done("score", blobs().file)
    assert sorted(file.name for file in Path("diva-out").iterdir()) == [
        "duplicates.csv",
        "failed.csv",
        "run.json",
        "scores.csv",
        "summary.json",
    ]


@pytest.mark.parametrize("format", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("kind", ["images", "npz", "store"])
def test_written_scores_are_data_again_from_anywhere(
    format, kind, images, model, blobs, done, tmp_path, monkeypatch
):
    options = list(model)
    if kind == "store":
        done("embed", images, *model, "--out", "sets/store")
    data = {"images": images, "npz": blobs("sets/blobs.npz").file, "store": "sets/store"}[kind]
    done("score", data, *options, "--ridge", "1", "--out", "deep/er/scored", "--format", format)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    file = f"../deep/er/scored/scores.{format}"
    read = read_manifest(file).table
    if kind == "images":
        assert all(Path(path).is_file() for path in read_manifest(file).files())
    done("score", file, *options, "--ridge", "1", "--out", "again", "--format", format)
    again = read_manifest(f"again/scores.{format}").table
    assert_close(by_name(again), by_name(read), 1e-5)
    assert set(by_name(again).index) == set(by_name(read).index)


def test_a_relative_path_starts_from_the_table_and_not_from_the_current_folder(
    images, model, run, done, tmp_path
):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "photos").symlink_to(images)
    files = sorted(file.relative_to(images) for file in images.rglob("*.png"))
    table = pd.DataFrame(
        {"path": [f"photos/{file}" for file in files], "label": [file.parent.name for file in files]}
    )
    done("score", write(table, tmp_path / "set" / "labels.csv"), *model, "--out", "ok")
    assert run("score", write(table, tmp_path / "labels.csv"), *model, "--out", "no").exit_code == 1


def test_a_second_command_embeds_nothing(images, model, factory, scores, done):
    scores(images, *model, out="first")
    calls = factory.with_suffix(".log").read_text().count("forward")
    scores(images, *model, "--loss", "cross-entropy", out="second")
    done("prune", images, *model, "--keep", "0.9", "--out", "pruned")
    assert summary_of("second")["n_embedded"] == 0
    # Loading finds the layer by running the network once; an embedding would add to that.
    log = factory.with_suffix(".log").read_text()
    per_load = (log.count("forward") - calls) / 2
    assert log.count("made") == 3
    assert per_load < calls


# Equivalences


@pytest.mark.parametrize(
    "option", [("--batch-size", "1"), ("--batch-size", "7"), ("--workers", "0"), ("--workers", "2")]
)
def test_batch_size_and_workers_change_nothing(option, more_images, model, done, tmp_path):
    done("score", more_images, *model, "--workers", "1", "--cache-dir", tmp_path / "one", "--out", "one")
    done("score", more_images, *model, *option, "--cache-dir", tmp_path / "two", "--out", "two")
    assert summary_of("two")["n_embedded"] == 70
    assert Path("one/scores.csv").read_bytes() == Path("two/scores.csv").read_bytes()


@pytest.mark.parametrize("ridge", ["1", "auto"])
def test_the_order_of_rows_changes_no_derivative(blobs, scores, ridge):
    data = blobs(n=90)
    order = np.random.default_rng(1).permutation(90)
    np.savez("shuffled.npz", **{key: value[order] for key, value in data.arrays.items()})
    options = ("--ridge", ridge, "--dtype", "float64")
    assert_close(
        by_name(scores("shuffled.npz", *options, out="b")), by_name(scores(data.file, *options)), 1e-8
    )


def test_the_order_of_rows_does_not_change_the_chosen_ridge(blobs, scores):
    data = blobs(n=90)
    np.savez("reversed.npz", **{key: value[::-1] for key, value in data.arrays.items()})
    scores(data.file, out="one")
    scores("reversed.npz", out="two")
    assert summary_of("one")["ridge"] == pytest.approx(summary_of("two")["ridge"], rel=1e-6)


def test_float32_and_float64_agree_to_five_digits(blobs, scores):
    data = blobs(n=300)
    single = scores(data.file, "--dtype", "float32", out="single")
    double = scores(data.file, "--dtype", "float64", out="double")
    assert summary_of("single")["dtype"] == "float32"
    assert summary_of("double")["dtype"] == "float64"
    assert_close(by_name(single), by_name(double), 1e-5)


def test_a_given_ridge_is_that_of_losses_and_derivatives(blobs, scores):
    data = blobs(n=60)
    found = scores(data.file, "--ridge", "0.37", "--dtype", "float64")
    summary = summary_of("scored")
    assert summary["ridge"] == 0.37
    task = task_of(data.arrays)
    assert_close(by_name(found), oracle_derivatives(task, 0.37), 1e-8)
    losses = Oracle(task, 0.37).loo_losses(SquaredLoss())
    assert_close(found.sort_values("path")["loo_loss"], losses.numpy(), 1e-8)


def test_the_automatic_ridge_beats_others_in_leave_one_out_loss(blobs, scores):
    data = blobs()
    scores(data.file)
    best = summary_of("scored")
    for factor in (0.1, 10):
        scores(data.file, "--ridge", best["ridge"] * factor)
        assert summary_of("scored")["loo_loss"] > best["loo_loss"]


def test_cross_entropy_is_the_oracles_at_the_calibrated_temperature(blobs, scores):
    data = blobs(n=60)
    found = scores(data.file, "--loss", "cross-entropy", "--ridge", "1", "--dtype", "float64")
    summary = summary_of("scored")
    assert summary["loss"] == "cross-entropy"
    loss = CrossEntropyLoss(summary["inverse_temperature"])
    assert_close(by_name(found), oracle_derivatives(task_of(data.arrays), 1.0, loss), 1e-7)


@pytest.mark.parametrize("scaling", ["unit", "standard", "none"])
def test_each_scaling_is_the_oracles(scaling, blobs, scores):
    data = blobs(n=60)
    found = scores(data.file, "--scaling", scaling, "--ridge", "2", "--dtype", "float64")
    assert summary_of("scored")["scaling"] == scaling
    assert_close(by_name(found), oracle_derivatives(task_of(data.arrays, scaling=scaling), 2.0), 1e-7)


def test_fewer_samples_than_features_go_through_the_dual_form(blobs, scores, monkeypatch):
    import divacli.solve.solution as module

    spans = []
    true = module.Span
    monkeypatch.setattr(module, "Span", lambda task: spans.append(task) or true(task))
    data = blobs(n=24, d=40)
    found = scores(data.file, "--ridge", "0.2", "--dtype", "float64")
    assert len(spans) == 1
    assert_close(by_name(found), oracle_derivatives(task_of(data.arrays), 0.2), 1e-7)


# A separate validation set


@pytest.mark.parametrize("d", [8, 60])
def test_val_differentiates_the_loss_of_another_set(d, blobs, scores):
    data, other = blobs(n=45, d=d), blobs("other.npz", n=30, d=d, seed=3)
    found = scores(data.file, "--val", other.file, "--ridge", "0.5", "--dtype", "float64")
    task, validation = task_of(data.arrays), task_of(other.arrays)
    oracle = Oracle(task, 0.5)
    expected = [oracle.validation_derivative(validation, SquaredLoss(), row) for row in range(45)]
    assert_close(by_name(found), np.array(expected), 1e-7)
    summary = summary_of("scored")
    assert summary["n_validation"] == 30
    assert summary["validation_loss"] > 0


def test_val_weights_count(blobs, scores):
    data = blobs(n=45)
    weights = np.r_[0.0, np.full(29, 2.0)]
    weighted = blobs("weighted.npz", n=30, seed=3, weight=weights)
    found = scores(data.file, "--val", weighted.file, "--ridge", "0.5", "--dtype", "float64")
    fewer = {key: value[1:] for key, value in weighted.arrays.items() if key != "weight"}
    np.savez("fewer.npz", **fewer)
    expected = scores(data.file, "--val", "fewer.npz", "--ridge", "0.5", "--dtype", "float64", out="fewer")
    assert_close(by_name(found), 2 * by_name(expected), 1e-7)


def test_val_with_an_automatic_ridge_finds_the_flips(blobs, done, scores):
    data = blobs(n=150)
    other = blobs("other.npz", n=60, seed=3)
    found = scores(data.file, "--val", other.file).sort_values("path")
    assert roc_auc_score(data.flipped, found["derivative"]) > 0.9
    assert "validation loss" in done("score", data.file, "--val", other.file).stderr


def test_val_with_a_label_of_its_own_is_an_error(blobs, run):
    other = blobs("other.npz", n=30, label=np.arange(30) % 4)
    result = run("score", blobs().file, "--val", other.file)
    assert result.exit_code == 1
    assert "labels that the training samples lack: 3" in result.stderr
    assert "to do:" in result.stderr


def test_val_of_another_width_is_an_error(blobs, run):
    result = run("score", blobs().file, "--val", blobs("other.npz", d=5).file)
    assert result.exit_code == 1
    assert "5 features a sample" in result.stderr
    assert "expected: 8" in result.stderr


# Around the network's own head


def test_around_head_improves_on_a_network_that_was_trained_for_it(
    images, model, trained_head, scores, tmp_path
):
    few = [*sorted(images.glob("a/*"))[:5], *sorted(images.glob("b/*"))[:5], *sorted(images.glob("c/*"))[:5]]
    table = pd.DataFrame({"path": list(map(str, few)), "label": [file.parent.name for file in few]})
    file = write(table, tmp_path / "few.csv")
    scores(file, *model, "--checkpoint", trained_head, out="fresh")
    scores(file, *model, "--checkpoint", trained_head, "--around-head", out="around")
    assert summary_of("around")["loo_loss"] < 0.9 * summary_of("fresh")["loo_loss"]


def test_around_head_verifies_against_refits(images, model, trained_head, done):
    result = done(
        *(
            "score",
            images,
            *model,
            "--checkpoint",
            trained_head,
            "--around-head",
            "--dtype",
            "float64",
            "--verify",
            "5",
        )
    )
    assert max(differences(result.stderr)) < 1e-9


def test_around_a_head_with_other_classes_is_an_error(images, factory, run):
    result = run("score", images, "--model", f"{factory}:make_five", "--around-head")
    assert result.exit_code == 1
    assert "head has 5 classes, the data 3" in result.stderr
    assert not Path("diva-out/scores.csv").exists()


def test_around_head_of_embeddings_is_an_error(blobs, run):
    result = run("score", blobs().file, "--around-head")
    assert result.exit_code == 1
    assert "feed no linear layer" in result.stderr


def test_around_head_works_from_a_store(images, model, trained_head, scores, done):
    network = (*model, "--checkpoint", trained_head)
    done("embed", images, *network, "--out", "store")
    stored = scores("store", "--around-head", out="stored")
    assert_close(by_name(stored), by_name(scores(images, *network, "--around-head")), 1e-5)


# --verify


def differences(stderr: str) -> list[float]:
    """The two relative differences that --verify prints."""
    import re

    text = " ".join(stderr.split())
    assert "verified on" in text
    return [float(number) for number in re.findall(r"\d\.\de[-+]\d+", text.split("verified on")[1])]


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("float64", 1e-9)])
@pytest.mark.parametrize("shape", [{"n": 400, "d": 16}, {"n": 30, "d": 50}])
def test_verify_prints_small_differences(dtype, tolerance, shape, blobs, done):
    result = done("score", blobs(**shape).file, "--dtype", dtype, "--verify", "20")
    found = differences(result.stderr)
    assert "verified on 20 samples" in " ".join(result.stderr.split())
    assert len(found) == 2
    assert max(found) < tolerance


def test_verify_of_a_validation_loss(blobs, done):
    other = blobs("other.npz", n=40, seed=2)
    result = done("score", blobs().file, "--val", other.file, "--dtype", "float64", "--verify", "10")
    assert max(differences(result.stderr)) < 1e-9


def test_verify_shows_a_corrupted_derivative(blobs, done, monkeypatch):
    import divacli.curate.sample_scores as module

    true = module.scores

    def wrong(*arguments):
        result = true(*arguments)
        result.derivative.mul_(-1)
        return result

    monkeypatch.setattr(module, "scores", wrong)
    prediction, derivative = differences(done("score", blobs().file, "--verify", "10").stderr)
    assert prediction < 1e-5
    assert derivative > 1.5


def test_verify_shows_a_corrupted_prediction(blobs, done, monkeypatch):
    import divacli.curate.verify as module

    true = module.loo_predictions
    monkeypatch.setattr(module, "loo_predictions", lambda *arguments: true(*arguments) * 1.01)
    prediction, derivative = differences(done("score", blobs().file, "--verify", "10").stderr)
    assert prediction > 1e-3
    assert derivative < 1e-5


def test_verify_more_samples_than_there_are(blobs, done):
    assert "verified on 30 samples" in " ".join(
        done("score", blobs(n=30).file, "--verify", "99").stderr.split()
    )


def test_a_note_on_the_network_is_made_once(images, more_images, model, done):
    result = done("score", images, "--val", more_images, *model)
    assert result.stderr.count("use only files you trust") == 1
