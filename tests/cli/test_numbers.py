"""Bad numbers: left out by name, answered as refits from scratch answer them, or refused in one message."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from divacli.manifest.table import LOOKS

Arrays = dict[str, np.ndarray]

COMMANDS = {
    "score": ("score", "DATA"),
    "prune": ("prune", "DATA", "--keep", "auto"),
    "relabel": ("relabel", "DATA"),
    "reweight": ("reweight", "DATA", "--step-size", "0.1"),
    "extend": ("extend", "DATA", "--pool", "OTHER"),
    "extend-pool": ("extend", "OTHER", "--pool", "DATA"),
    "aggregate": ("aggregate", "DATA", "--pool", "OTHER"),
    "evaluate": ("evaluate", "DATA", "--manifest", "DATA", "--test", "OTHER"),
}

OUTPUTS = {
    "score": ["scores"],
    "prune": ["kept", "dropped"],
    "relabel": ["relabelled"],
    "reweight": ["reweighted"],
    "extend": ["extended"],
    "extend-pool": ["selected", "remaining"],
    "aggregate": ["extended"],
}
"""Tables that together hold every sample of DATA that is not among those that failed."""


def text_of(result: Any) -> str:
    return " ".join(result.stderr.split())


def gaussian(n: int = 30, d: int = 4, k: int = 3, seed: int = 0, prefix: str = "s") -> Arrays:
    """Classes that overlap, float64."""
    random = np.random.default_rng(seed)
    labels = np.arange(n) % k
    centres = np.random.default_rng(99).normal(size=(k, d)) * 1.5
    return {
        "embedding": centres[labels] + random.normal(size=(n, d)),
        "label": labels.astype(str),
        "path": np.array([f"{prefix}{row:03d}" for row in range(n)]),
    }


@pytest.fixture
def outcome(run: Callable[..., Any]) -> Callable[..., Any]:
    """Run one of `COMMANDS` on DATA; no library may warn of its numbers."""

    def of(command: str, data: Arrays, *options: object, other: Arrays | None = None) -> Any:
        np.savez("data.npz", **data)  # type: ignore[arg-type]
        d = data["embedding"].shape[1]
        np.savez("other.npz", **(other or gaussian(24, d, min(3, len(set(data["label"]))), 5, "o")))  # type: ignore[arg-type]
        files = {"DATA": "data.npz", "OTHER": "other.npz"}
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            result = run(*(files.get(part, part) for part in COMMANDS[command]), *options, "--out", "out")
        assert not [str(warning.message) for warning in heard if issubclass(warning.category, RuntimeWarning)]
        return result

    return of


def numbers_of(folder: Path) -> pd.DataFrame:
    """The main table of scores, by path."""
    return (
        pd.read_csv(folder / "scores.csv", dtype={"path": str, "label": str}).set_index("path").sort_index()
    )


@pytest.mark.parametrize("command", list(OUTPUTS))
def test_rows_that_are_not_finite_are_left_out_by_name(command, outcome):
    data = gaussian()
    data["embedding"][[4, 11]] = np.nan
    data["embedding"][17, 2] = -np.inf
    result = outcome(command, data)
    assert result.exit_code == 0, result.stderr
    assert (
        "3 samples cannot be used and are left out: 2 (its embedding holds NaN), 1 (its embedding holds "
        "infinite values); the first: s004" in text_of(result)
    )
    failed = pd.read_csv("out/failed.csv", dtype=str)
    assert failed["path"].tolist() == ["s004", "s011", "s017"]
    assert failed["label"].tolist() == data["label"][[4, 11, 17]].tolist()
    assert failed["reason"].tolist() == ["its embedding holds NaN"] * 2 + [
        "its embedding holds infinite values"
    ]
    tables = [pd.read_csv(f"out/{name}.csv", dtype=str) for name in OUTPUTS[command]]
    paths = [Path(path).name for table in (*tables, failed) for path in table["path"]]
    assert sorted(path for path in paths if path.startswith("s")) == data["path"].tolist()


@pytest.mark.parametrize("command", list(COMMANDS))
def test_strict_refuses_rows_that_are_not_finite(command, outcome):
    data = gaussian()
    data["embedding"][[4, 11], 1] = [np.nan, np.inf]
    result = outcome(command, data, "--strict")
    assert result.exit_code == 1
    assert "2 of 30 embeddings hold NaN or infinite values, at the paths s004, s011" in text_of(result)
    assert not list(Path().glob("out/*.csv"))


def test_what_is_left_is_scored_as_if_the_others_had_never_been_there(outcome):
    data = gaussian()
    left = np.delete(np.arange(30), [4, 11])
    outcome("score", {name: array[left] for name, array in data.items()}, "--out", "whole")
    expected = Path("out/scores.csv").read_text()
    Path("out").rename("clean")
    data["embedding"][[4, 11]] = np.nan
    outcome("score", data)
    assert Path("out/scores.csv").read_text() == expected


@pytest.mark.parametrize("option", ["--val", "--pool"])
def test_other_sets_are_left_with_what_is_finite_too(option, run, outcome):
    data, other = gaussian(), gaussian(24, seed=5, prefix="o")
    other["embedding"][3] = np.inf
    command = "score" if option == "--val" else "extend"
    more = ("--val", "other.npz") if option == "--val" else ()
    result = outcome(command, data, *more, other=other)
    assert result.exit_code == 0, result.stderr
    assert "1 samples cannot be used and are left out: 1 (its embedding" in text_of(result)


def test_a_table_that_names_its_source_is_left_with_what_is_finite(done):
    data = gaussian()
    data["embedding"][6] = np.nan
    np.savez("data.npz", **data)
    pd.DataFrame({"path": data["path"], "label": data["label"], "feature_source": "data.npz"}).to_csv("t.csv")
    done("score", "t.csv", "--out", "out")
    assert pd.read_csv("out/failed.csv")["path"].tolist() == ["s006"]
    assert len(numbers_of(Path("out"))) == 29


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        (
            np.arange(30) % 3 > 0,
            "fewer than two classes are left, for 20 embeddings hold NaN or infinite values",
        ),
        (np.arange(30) >= 0, "no sample is left, for 30 embeddings hold NaN or infinite values"),
    ],
    ids=["one class", "nothing"],
)
def test_too_few_finite_rows_are_refused(broken, message, outcome):
    data = gaussian()
    data["embedding"][broken] = np.nan
    result = outcome("score", data)
    assert result.exit_code == 1
    assert message in text_of(result)


@pytest.mark.parametrize(
    ("dtype", "factor"),
    [("f4", 2.0**100), ("f4", 2.0**-100), ("f8", 2.0**100), ("f8", 2.0**900), ("f8", 2.0**-900)],
    ids=str,
)
def test_embeddings_of_any_size_have_the_same_scores(dtype, factor, outcome):
    """Unit length takes every size away, and a power of two changes no digit."""
    data = gaussian()
    data["embedding"] = data["embedding"].astype(dtype)
    assert outcome("score", data).exit_code == 0
    expected = Path("out/scores.csv").read_text()
    Path("out").rename("plain")
    data["embedding"] = (data["embedding"].astype(float) * factor).astype(dtype)
    assert outcome("score", data).exit_code == 0
    assert Path("out/scores.csv").read_text() == expected


@pytest.mark.parametrize("factor", [1e30, 1e-30])
def test_sizes_that_single_precision_cannot_square_are_refused_as_they_are(factor, outcome):
    data = gaussian()
    data["embedding"] *= factor
    result = outcome("score", data, "--scaling", "none")
    assert result.exit_code == 1
    assert "whose powers float32 cannot hold" in text_of(result)
    assert "use --scaling unit, or --dtype float64" in text_of(result)
    assert outcome("score", data, "--scaling", "none", "--dtype", "float64").exit_code == 0
    found = numbers_of(Path("out"))
    Path("out").rename("large")
    data["embedding"] /= factor
    outcome("score", data, "--scaling", "none", "--dtype", "float64")
    np.testing.assert_allclose(found["loo_loss"], numbers_of(Path("out"))["loo_loss"], rtol=1e-9)
    np.testing.assert_allclose(
        found["derivative"], numbers_of(Path("out"))["derivative"], rtol=1e-6, atol=1e-9
    )


def degenerate() -> dict[str, Arrays]:
    """Problems at the edge of having an answer, by name."""
    found = {}

    def add(name: str, n: int = 30, d: int = 4, k: int = 3, **more: Any) -> np.ndarray:
        found[name] = gaussian(n, d, k) | more
        return found[name]["embedding"]

    add("constant column")[:, 2] = 7
    column = add("equal columns")
    column[:, 3] = column[:, 1]
    rows = add("equal rows of other labels")
    rows[15:] = rows[:15]
    add("zero rows")[::4] = 0
    add("two samples", 2, 4, 2)
    add("one feature", d=1)
    add("fewer samples than features", 8, 40)
    add("each its own class", 6, 4, 6)
    labels = found["zero rows"]["label"].copy()
    labels[7] = "rare"
    add("one of a class", label=labels)
    add("some weights zero", weight=np.where(np.arange(30) % 4, 1.0, 0.0))
    add("weights far apart", weight=10.0 ** (np.arange(30) % 5 - 2))
    add("groups of whole classes", group=found["zero rows"]["label"])
    return found


def refits(data: Arrays, ridge: float) -> np.ndarray:
    """Squared leave-one-out (leave-group-out) losses by fits from scratch, features as they are."""
    z, weights = data["embedding"], data.get("weight", np.ones(len(data["label"])))
    y = (data["label"][:, None] == sorted(set(data["label"]))).astype(float)
    groups = data.get("group", data["path"])
    found = []
    for row in range(len(z)):
        w = np.where(groups == groups[row], 0.0, weights)
        mean, target = w @ z / w.sum(), w @ y / w.sum()
        around = z - mean
        normal = around.T @ (w[:, None] * around) + ridge * np.eye(z.shape[1])
        coef = np.linalg.solve(normal, around.T @ (w[:, None] * (y - target)))
        found.append(((y[row] - target - (z[row] - mean) @ coef) ** 2).sum())
    return np.array(found)


@pytest.mark.parametrize("name", list(degenerate()))
@pytest.mark.parametrize("ridge", [1e-6, 0.5])
def test_degenerate_problems_are_answered_as_refits_answer_them(name, ridge, outcome):
    data = degenerate()[name]
    result = outcome("score", data, "--ridge", ridge, "--scaling", "none", "--dtype", "float64")
    assert result.exit_code == 0, result.stderr
    found = numbers_of(Path("out"))["loo_loss"].to_numpy()
    np.testing.assert_allclose(found, refits(data, ridge), rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("name", ["constant column", "equal columns", "fewer samples than features"])
def test_ridge_zero_is_refused_where_it_has_no_answer(name, outcome):
    result = outcome("score", degenerate()[name], "--ridge", "0", "--scaling", "none")
    assert result.exit_code == 1
    assert "ridge 0 leaves the features' Gram matrix singular" in text_of(
        result
    ) or "leverage of one" in text_of(result)
    assert "to do: use" in text_of(result)


@pytest.mark.parametrize("name", list(degenerate()))
@pytest.mark.parametrize("command", list(COMMANDS))
def test_degenerate_problems_end_in_numbers_or_in_one_message(name, command, outcome):
    result = outcome(command, degenerate()[name])
    if result.exit_code:
        assert result.exit_code == 1
        assert "to do:" in text_of(result)
        assert "may be a mistake in diva" not in text_of(result)
        assert not list(Path().glob("out/*.csv"))
        return
    for file in Path("out").glob("*.csv"):
        table = pd.read_csv(file, dtype=str, keep_default_na=False)
        for column in {"derivative", "loo_loss", "weight", "mislabel_probability", "outlier_score"} & set(
            table
        ):
            cells = pd.to_numeric(table[column])
            assert np.isfinite(cells).all(), f"{file.name}: {column}"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embedding": np.ones((30, 4))}, "all samples with a positive weight have the same features"),
        ({"embedding": np.zeros((30, 4))}, "all samples with a positive weight have the same features"),
        ({"embedding": np.full((30, 4), 1 / 3)}, "all samples with a positive weight have the same features"),
        ({"embedding": np.arange(1.0, 31)[:, None]}, "use --scaling standard"),
        ({"label": np.full(30, "x")}, "has one class only: x"),
        ({"weight": np.zeros(30)}, "every weight is 0"),
        (
            {"weight": np.where(np.arange(30), 1.0, -1e-9)},
            "weight is empty, negative or not finite in data row 1",
        ),
        (
            {"weight": np.where(np.arange(30), 1.0, np.nan)},
            "weight is empty, negative or not finite in data row 1",
        ),
        ({"weight": np.full(30, 1e30)}, "the largest weight is 1e+30"),
        ({"weight": np.full(30, 1e-30)}, "the largest weight is 1e-30"),
        ({"weight": np.where(np.arange(30), 1.0, 1e300)}, "the largest weight is 1e+300"),
        (
            {"weight": np.where(np.arange(30), 0.0, 1.0)},
            "all samples with a positive weight have the same features",
        ),
    ],
    ids=lambda value: "" if isinstance(value, dict) else value,
)
@pytest.mark.parametrize("command", ["score", "prune", "reweight"])
def test_what_has_no_answer_is_refused(changes, message, command, outcome):
    result = outcome(command, gaussian() | changes)
    assert result.exit_code == 1
    assert message in text_of(result)
    assert not list(Path().glob("out/*.csv"))


def test_one_group_of_all_samples_is_refused(outcome):
    data = gaussian() | {"site": np.full(30, "here")}
    result = outcome("score", data, "--group", "site")
    assert result.exit_code == 1
    assert "column site has the same value in every row" in text_of(result)


def test_one_validation_sample_tells_no_classes_apart(outcome):
    other = {name: array[:1] for name, array in gaussian(24, seed=5, prefix="o").items()}
    result = outcome("score", gaussian(), "--val", "other.npz", other=other)
    assert result.exit_code == 1
    assert "other.npz has one class only: 0" in text_of(result)


def test_one_validation_sample_of_each_class_is_enough(outcome):
    other = {name: array[:3] for name, array in gaussian(24, seed=5, prefix="o").items()}
    result = outcome("score", gaussian(), "--val", "other.npz", other=other)
    assert result.exit_code == 0, result.stderr
    assert np.isfinite(numbers_of(Path("out"))[["derivative", "loo_loss", "derivative_se"]]).all(axis=None)


def test_two_samples_have_no_standard_error(outcome):
    """An empty cell says that one sample but for oneself tells nothing of spread."""
    assert outcome("score", degenerate()["two samples"]).exit_code == 0
    found = numbers_of(Path("out"))
    assert found["derivative_se"].isna().all()
    assert not found["significant"].any()
    assert np.isfinite(found[["derivative", "loo_loss", "mislabel_probability"]]).all(axis=None)


def test_a_fraction_that_would_leave_one_class_keeps_the_last_of_the_others(run):
    data = gaussian(n=40, k=2)
    data["label"] = np.where(np.arange(40) < 38, "a", "b")
    np.savez("data.npz", **data)
    result = run("prune", "data.npz", "--keep", "0.03", "--out", "out")
    assert result.exit_code == 0, result.stderr
    kept, dropped = (pd.read_csv(f"out/{name}.csv")["label"] for name in ("kept", "dropped"))
    assert set(kept) == {"a", "b"}
    assert len(kept) + len(dropped) == 40


CAT = np.array(["cat", "dog", "eel"])[np.arange(30) % 3]
CAPITAL = np.array(["Cat", "dog ", "eel"])[np.arange(24) % 3]


@pytest.mark.parametrize("command", ["extend", "aggregate", "evaluate-manifest"])
def test_labels_of_two_sets_that_differ_by_case_or_spaces_are_a_warning(command, run, outcome):
    data, other = gaussian() | {"label": CAT}, gaussian(24, seed=5, prefix="o") | {"label": CAPITAL}
    if command == "evaluate-manifest":
        np.savez("data.npz", **data)
        np.savez("other.npz", **other)
        result = run("evaluate", "data.npz", "--manifest", "other.npz", "--test", "data.npz", "--out", "out")
    else:
        result = outcome(command, data, other=other)
    assert result.exit_code == 0, result.stderr
    message = f"labels of other.npz and data.npz that differ only by {LOOKS} "
    message += "count as different: 'Cat' / 'cat'"
    assert message in text_of(result)


@pytest.mark.parametrize("command", ["score", "reweight"])
def test_validation_labels_that_differ_by_case_or_spaces_are_named(command, outcome):
    data, other = gaussian() | {"label": CAT}, gaussian(24, seed=5, prefix="o") | {"label": CAPITAL}
    result = outcome(command, data, "--val", "other.npz", other=other)
    assert result.exit_code == 1
    assert "has labels that the training samples lack: Cat, dog" in text_of(result)
    assert f"these differ only by {LOOKS}: 'Cat' / 'cat', 'dog' / 'dog '" in text_of(result)


@pytest.mark.parametrize(
    "command", ["score", "prune", "relabel", "reweight", "extend", "aggregate", "evaluate"]
)
def test_labels_of_one_set_that_differ_by_case_are_a_warning_of_every_command(command, outcome):
    labels = np.array(["Cat", "cat", "dog"])[np.arange(30) % 3]
    result = outcome(
        command,
        gaussian() | {"label": labels},
        other=gaussian(24, seed=5, prefix="o") | {"label": labels[:24]},
    )
    assert f"data.npz: labels that differ only by {LOOKS} count as different: 'Cat' / 'cat'." in text_of(
        result
    )
