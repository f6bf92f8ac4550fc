"""Label errors found by our tool and by others, each in a process of its own.

`benchmarks.mislabel` calls `run` here in a child process for every tool, so that neither the threads nor the
memory of one tool touch another. Every tool gets the same file: an `.npz` with `embedding` (rows of length
1) and `label`.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import simifeat, subspaces

FOLDS = 5
SELF = "benchmarks"
"""In place of a package: the tool is written here, after a paper."""
ALPHAS = np.logspace(-3, 3, 20)
"""Ridges that `RidgeCV` chooses from."""
PENALTIES = (0.1, 1.0, 10.0, 100.0)
"""Inverse strengths of regularisation that `cleanlab_chosen` chooses from."""

Result = dict[str, Any]
"""Of n samples, `score` (n,): the higher, the likelier mislabelled; `flagged` (n,) bool where the tool has a
decision of its own; and of some tools `probability` (n,), `suggested` (n,) labels, `outlier` (n,): the
higher, the more foreign, `outlying` (n,) bool, the number `noise_rate` and `noise_interval` (2,). Of ours
also the numbers `expected_precision` and `expected_recall` of the decision, NaN where there is none, and all
three of the balanced decision: `flagged_balanced`, `expected_precision_balanced`,
`expected_recall_balanced`."""


@dataclass(frozen=True)
class Data:
    """What a tool is given.

    Attributes:
        file: The `.npz` file.
        features: (n, d) float32, rows of length 1.
        labels: (n,) int64 given labels as class numbers.
        classes: (k,) label of each class number, sorted.
        seed: Of whatever the tool draws.
    """

    file: Path
    features: np.ndarray
    labels: np.ndarray
    classes: np.ndarray
    seed: int

    def folds(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows of the larger and of the smaller part, for each stratified fold."""
        from sklearn.model_selection import StratifiedKFold

        splitter = StratifiedKFold(FOLDS, shuffle=True, random_state=self.seed)
        yield from splitter.split(self.features, self.labels)


@dataclass(frozen=True)
class Tool:
    """A way to find label errors.

    Attributes:
        title: How tables call it.
        package: Distribution that it comes in, or `SELF`.
        modules: What it imports, which its seconds do not include.
        find: What it does.
        finds_outliers: Whether its result has `outlier`.
    """

    title: str
    package: str
    modules: tuple[str, ...]
    find: Callable[[Data], Result]
    finds_outliers: bool = False


def load(file: str, seed: int = 0) -> Data:
    """Read the file that every tool gets."""
    with np.load(file) as arrays:
        classes, labels = np.unique(arrays["label"], return_inverse=True)
        return Data(Path(file), arrays["embedding"], labels.astype(np.int64), classes, seed)


def run(name: str, file: str, target: str, seed: int) -> None:
    """Run one tool and write its result, with its `seconds` and `cpu_seconds`, as an `.npz` file."""
    data, tool = load(file, seed), TOOLS[name]
    for module in tool.modules:
        importlib.import_module(module)
    start, cpu_start = time.perf_counter(), time.process_time()
    result = tool.find(data)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    np.savez(target, seconds=seconds, cpu_seconds=cpu_seconds, **result)


def scored(data: Data) -> tuple[Any, Any]:
    """Our tool's table of scores in the order of the file, and its summary."""
    from divacli.curate.sample_scores import score
    from divacli.features import BackboneChoice, ExtractOptions, load_samples
    from divacli.solve.ridge_problem import SolveOptions

    options = SolveOptions(seed=data.seed)
    extract = ExtractOptions(options.device)
    samples = load_samples(str(data.file), BackboneChoice("none"), extract, data.file.parent)
    result = score(samples, options)
    return result.table.iloc[np.argsort(result.order)], result.summary


def ours(data: Data) -> Result:
    """`mislabel_probability`, and what the product calls wrong by default and by `--decide balanced`."""
    from divacli.curate.wrong_labels import Expectation, balanced_threshold, mislabelled

    table, summary = scored(data)
    probability = table["mislabel_probability"].to_numpy(float)
    decisions: Result = {}
    for suffix, flagged in (
        ("", mislabelled(table)),
        ("_balanced", mislabelled(table, balanced_threshold(probability))),
    ):
        expected = Expectation.of(probability, flagged)
        decisions |= {
            f"flagged{suffix}": flagged,
            f"expected_precision{suffix}": np.nan if expected.precision is None else expected.precision,
            f"expected_recall{suffix}": np.nan if expected.recall is None else expected.recall,
        }
    return {
        **decisions,
        "score": probability,
        "probability": probability,
        "suggested": table["suggested_label"].to_numpy(str),
        "outlier": table["outlier_score"].to_numpy(float),
        "noise_rate": summary["noise_rate"],
        "noise_interval": np.array(summary["noise_interval"]),
    }


def derivative(data: Data) -> Result:
    """The derivative of the leave-one-out loss, and its sign."""
    table, _ = scored(data)
    values = table["derivative"].to_numpy(float)
    return {"score": values, "flagged": values > 0}


def held_out_probabilities(data: Data, penalty: float = 1.0) -> np.ndarray:
    """Class probabilities (n, k) of a logistic regression that has not seen the sample."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import cross_val_predict

    return np.asarray(
        cross_val_predict(
            LogisticRegression(C=penalty, max_iter=1000),
            data.features,
            data.labels,
            cv=list(data.folds()),
            method="predict_proba",
        )
    )


def chosen_probabilities(data: Data) -> np.ndarray:
    """Class probabilities (n, k) with the regularisation of least held-out log loss."""
    from sklearn.metrics import log_loss

    tried = [held_out_probabilities(data, penalty) for penalty in PENALTIES]
    return min(tried, key=lambda probabilities: float(log_loss(data.labels, probabilities)))


def confident(data: Data, probabilities: np.ndarray) -> Result:
    """Confident learning's default filter, and self-confidence."""
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    return {
        "score": -get_label_quality_scores(data.labels, probabilities),
        "flagged": find_label_issues(data.labels, probabilities),
    }


def cleanlab(data: Data) -> Result:
    """Confident learning on cross-validated logistic regression as scikit-learn regularises it."""
    return confident(data, held_out_probabilities(data))


def cleanlab_chosen(data: Data) -> Result:
    """Confident learning on cross-validated logistic regression, its regularisation chosen."""
    return confident(data, chosen_probabilities(data))


def datalab(data: Data) -> Result:
    """Nearest neighbours in the features, as Datalab audits a set without any model."""
    return audited(data)


def datalab_chosen(data: Data) -> Result:
    """Datalab's audit by features and by the class probabilities of `cleanlab_chosen`."""
    return audited(data, pred_probs=chosen_probabilities(data))


def audited(data: Data, **given: np.ndarray) -> Result:
    """Label issues and outliers of Datalab's default audit."""
    from cleanlab import Datalab

    lab = Datalab({"label": data.labels}, label_name="label", verbosity=0)
    lab.find_issues(features=data.features, **given)
    issues = lab.get_issues()
    return {
        "score": -issues["label_score"].to_numpy(float),
        "flagged": issues["is_label_issue"].to_numpy(bool),
        "outlier": -issues["outlier_score"].to_numpy(float),
        "outlying": issues["is_outlier_issue"].to_numpy(bool),
    }


def simifeat_vote(data: Data) -> Result:
    """A label that its neighbours vote down, ranked by their agreement."""
    counts = simifeat.votes(data.features, data.labels)
    return {
        "score": -simifeat.agreement(counts, data.labels),
        "flagged": simifeat.winners(counts, data.seed) != data.labels,
    }


def simifeat_rank(data: Data) -> Result:
    """Labels that neighbours agree with least, as many of each class as HOC holds for wrong."""
    counts = simifeat.votes(data.features, data.labels)
    noise = simifeat.hoc(data.features, data.labels, data.seed)
    score = simifeat.agreement(counts, data.labels)
    return {
        "score": -score,
        "flagged": simifeat.lowest_by_label(score, data.labels, noise.wrong_by_label()),
        "noise_rate": noise.rate,
    }


def reconstruction(data: Data) -> Result:
    """Error under the given class's subspace by the least one under another, and above 1."""
    ratio = subspaces.error_ratio(data.features, data.labels, data.folds())
    return {"score": ratio, "flagged": ratio > 1}


def knn_shapley(data: Data) -> Result:
    """Shapley values for a vote of neighbours, the mean over the four folds that a sample is valued by."""
    from pydvl.valuation import Dataset, KNNShapleyValuation
    from sklearn.neighbors import KNeighborsClassifier

    values = np.zeros(len(data.labels))
    for rest, fold in data.folds():
        training, test = (Dataset(data.features[rows], data.labels[rows]) for rows in (rest, fold))
        valuation = KNNShapleyValuation(KNeighborsClassifier(), test, progress=False).fit(training)
        values[rest] += valuation.result.values / (FOLDS - 1)
    return {"score": -values, "flagged": values < 0}


def ridge(data: Data) -> Result:
    """Norm of the leave-one-out residual, and another class predicted."""
    from sklearn.linear_model import RidgeCV

    targets = np.eye(len(data.classes))[data.labels]
    # With a scoring, `cv_results_` are the leave-one-out predictions; without, their squared errors.
    model = RidgeCV(ALPHAS, scoring="neg_mean_squared_error", store_cv_results=True)
    model.fit(data.features.astype(float), targets)
    predicted = model.cv_results_[..., np.flatnonzero(model.alpha_ == ALPHAS)[0]]
    return {
        "score": np.linalg.norm(targets - predicted, axis=1),
        "flagged": predicted.argmax(axis=1) != data.labels,
    }


def logistic(data: Data) -> Any:
    """A converged logistic regression on all samples."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=1000).fit(data.features, data.labels)


def gradient_norm(data: Data) -> Result:
    """Squared norm of the gradient of a sample's own cross-entropy by the weights of a logistic head."""
    difference = logistic(data).predict_proba(data.features) - np.eye(len(data.classes))[data.labels]
    squared = (data.features.astype(float) ** 2).sum(axis=1) + 1
    return {"score": squared * (difference**2).sum(axis=1)}


def tracin(data: Data) -> Result:
    """Self-influence at one checkpoint, the logistic head, under the random projection that dattri makes."""
    import torch
    from dattri.algorithm.tracin import TracInAttributor
    from dattri.task import AttributionTask
    from torch.utils.data import DataLoader, TensorDataset

    head = logistic(data)
    weights = {
        "weight": torch.from_numpy(head.coef_).float(),
        "bias": torch.from_numpy(head.intercept_).float(),
    }
    model = torch.nn.Linear(data.features.shape[1], len(data.classes))

    def loss(parameters: dict[str, torch.Tensor], batch: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        features, labels = batch
        outputs = torch.func.functional_call(model, parameters, (features.unsqueeze(0),))
        return torch.nn.functional.cross_entropy(outputs, labels.unsqueeze(0))

    task = AttributionTask(loss_func=loss, model=model, checkpoints=weights)
    attributor = TracInAttributor(task, weight_list=torch.ones(1), normalized_grad=False)
    samples = TensorDataset(torch.from_numpy(data.features), torch.from_numpy(data.labels))
    return {"score": attributor.self_attribute(DataLoader(samples, batch_size=256)).numpy()}


LOGISTIC = ("sklearn.linear_model", "sklearn.metrics", "sklearn.model_selection")

TOOLS = {
    "ours": Tool("divacli", "divacli", ("divacli.curate.sample_scores",), ours, True),
    "derivative": Tool("divacli, derivative > 0", "divacli", ("divacli.curate.sample_scores",), derivative),
    "cleanlab": Tool(
        "cleanlab, 5-fold logistic regression", "cleanlab", ("cleanlab.filter", *LOGISTIC), cleanlab
    ),
    "cleanlab_chosen": Tool(
        "cleanlab, 5-fold logistic regression, C chosen",
        "cleanlab",
        ("cleanlab.filter", *LOGISTIC),
        cleanlab_chosen,
    ),
    "datalab": Tool("cleanlab Datalab, features only", "cleanlab", ("cleanlab", "datasets"), datalab, True),
    "datalab_chosen": Tool(
        "cleanlab Datalab, features and probabilities, C chosen",
        "cleanlab",
        ("cleanlab", "datasets", *LOGISTIC),
        datalab_chosen,
        True,
    ),
    "simifeat_vote": Tool("SimiFeat, vote", SELF, (), simifeat_vote),
    "simifeat_rank": Tool("SimiFeat, rank by HOC", SELF, (), simifeat_rank),
    "reconstruction": Tool("reconstruction-error ratio of class subspaces", SELF, (), reconstruction),
    "knn_shapley": Tool("pyDVL KNN-Shapley", "pyDVL", ("pydvl.valuation", "sklearn.neighbors"), knn_shapley),
    "ridge": Tool("scikit-learn RidgeCV, LOO residual", "scikit-learn", ("sklearn.linear_model",), ridge),
    "gradient_norm": Tool(
        "gradient norm of a logistic head", "scikit-learn", ("sklearn.linear_model",), gradient_norm
    ),
    "tracin": Tool(
        "dattri TracIn, self-influence", "dattri", ("dattri.algorithm.tracin", "sklearn.linear_model"), tracin
    ),
}
