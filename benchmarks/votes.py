"""One label from several votes: `diva votes` beside the majority and cleanlab's CROWDLAB, on equal features.

`python -m benchmarks.votes` takes the three votes of people for each of 10,000 images of CIFAR-10N, and draws
votes of annotators of known quality for the photos of `clothing`: five good ones, one who says anything, and
one who takes one class for another. It needs the folder `shared` beside the repository, and cleanlab (extra
`bench`); MobileNetV2 embeds the images where the cache has none of their features.

cleanlab gets class probabilities by logistic regression in five folds, fitted to the labels of the majority,
as its guide says, with the C by which these labels are most likely when they are left out.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from itertools import chain
from typing import Any

import numpy as np
import pandas as pd
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_predict

from benchmarks.machine import SHARED, require_shared, save
from divacli.curate.ballots import NO_ANNOTATOR, Ballots, collected, numbered, read_ballots
from divacli.curate.votes import Consensus, find_consensus
from divacli.features import BackboneChoice, ExtractOptions, Samples, samples_of
from divacli.files.cache import default_cache
from divacli.manifest import Manifest, read_manifest
from divacli.solve.ridge_problem import SolveOptions

DRAWS = 3
ACCURACIES = (0.95, 0.9, 0.8, 0.7, 0.6)
"""Of the five annotators whose mistakes are any other class."""

CONFUSED, CONFUSES = 0.6, 0.95
"""Share of one class that an annotator takes for another one, and his accuracy elsewhere."""

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0)
"""Inverse strengths of regularisation that cleanlab's logistic regression is chosen from."""

_BINS = (0.0, 0.6, 0.8, 0.9, 0.95, 0.99, 1.0)


def embedded(manifest: Manifest) -> Samples:
    """Images under MobileNetV2."""
    choice = BackboneChoice("mobilenet_v2", SHARED / "weights" / "mobilenet_v2_imagenet_fp16.pth")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return samples_of(manifest, choice, ExtractOptions(device), default_cache())


def majority_wrong(counts: np.ndarray, truth: np.ndarray) -> float:
    """Expected number of wrong labels where the majority decides, and chance among equals.

    Args:
        counts: (m, k) votes.
        truth: (m,) class numbers.
    """
    most = counts == counts.max(axis=1, keepdims=True)
    right = most[np.arange(len(truth)), truth] / most.sum(axis=1)
    return float((1 - right).sum())


def left_out_probabilities(samples: Samples, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Class probabilities (m, k) by the other folds, and the C that was chosen by the likelihood of labels.

    Args:
        samples: Images.
        labels: (m,) class numbers, each of which occurs.
    """
    features = torch.nn.functional.normalize(samples.features[:].double()).numpy()
    found = {
        penalty: cross_val_predict(
            LogisticRegression(C=penalty, max_iter=200), features, labels, cv=5, method="predict_proba"
        )
        for penalty in PENALTIES
    }
    rows = np.arange(len(labels))
    best = max(found, key=lambda penalty: float(np.log(found[penalty][rows, labels].clip(1e-12)).mean()))
    return found[best], best


def crowdlab(samples: Samples, ballots: Ballots, truth: np.ndarray) -> dict[str, Any]:
    """Wrong labels by cleanlab, and of its majority, whose ties the features break."""
    from cleanlab.multiannotator import get_label_quality_multiannotator

    counts = ballots.counts()
    if counts.sum(axis=1).max() == 1:  # cleanlab refuses these
        return {"crowdlab": None, "cleanlab_majority": None, "quality": {}}
    names = sorted(set(ballots.annotators))
    # Where nobody is named, the first vote of each image counts as that of one annotator, and so on.
    nobody = pd.Series(ballots.image).groupby(ballots.image).cumcount().to_numpy()
    column = nobody if ballots.column is None else numbered(ballots.annotators, names)
    votes = np.full((len(counts), column.max() + 1), math.nan)
    votes[ballots.image, column] = numbered(ballots.labels, ballots.classes)
    probabilities, penalty = left_out_probabilities(samples, counts.argmax(axis=1))
    found: dict[str, Any] = {"C": penalty}
    for name, method in (("crowdlab", "best_quality"), ("cleanlab_majority", "majority_vote")):
        result = get_label_quality_multiannotator(
            votes, probabilities, consensus_method=method, verbose=False
        )
        wrong = result["label_quality"]["consensus_label"].to_numpy() != truth
        found[name] = int(wrong.sum())
        if method == "best_quality":
            quality = result["annotator_stats"]["annotator_quality"]
            found["quality"] = {names[row]: float(value) for row, value in quality.items() if ballots.column}
    return found


def reliability(consensus: Consensus, wrong: np.ndarray) -> list[dict[str, Any]]:
    """How many consensus labels are right among those of about one probability."""
    sure = consensus.table["consensus_probability"].to_numpy()
    place = np.digitize(sure, _BINS[1:-1])
    return [
        {"n": int(here.sum()), "said": float(sure[here].mean()), "right": float(1 - wrong[here].mean())}
        for number in range(len(_BINS) - 1)
        if (here := place == number).any()
    ]


def compared(name: str, samples: Samples, ballots: Ballots, truth: pd.Series) -> dict[str, Any]:
    """Wrong labels by each way, of the images that have features.

    Args:
        name: Of the data.
        samples: The images.
        ballots: Votes for them.
        truth: The true label of each image, in their order.
    """
    consensus = find_consensus(samples, ballots, SolveOptions())
    numbers = numbered(truth.to_numpy(), ballots.classes)
    wrong = consensus.table["label"].to_numpy() != truth.to_numpy()
    order = np.argsort(consensus.table["consensus_probability"].to_numpy(), kind="stable")
    again = consensus.again.index.size
    return {
        "data": name,
        "images": len(truth),
        "votes": len(ballots.image),
        "votes_wrong": int((ballots.labels != truth.to_numpy()[ballots.image]).sum()),
        "majority": majority_wrong(ballots.counts(), numbers),
        **crowdlab(samples, ballots, numbers),
        "diva": int(wrong.sum()),
        "diva_expected": consensus.summary["expected_wrong"],
        "majority_expected": consensus.summary["expected_wrong_majority"],
        "feature_exponent": consensus.fit.exponent,
        "vote_exponent": consensus.fit.vote_exponent,
        "again": again,
        "wrong_in_least_sure_tenth": int(wrong[order[: len(order) // 10]].sum()),
        "calibration": reliability(consensus, wrong),
        "annotators": consensus.annotators.to_dict("records") if ballots.column else [],
    }


def drawn(manifest: Manifest, seed: int, most: int) -> pd.DataFrame:
    """Votes of annotators of known quality.

    Args:
        manifest: Images with their true labels.
        seed: Of the draw.
        most: Votes an image at the most; each number from 1 on is as likely.

    Returns:
        path (absolute), label and annotator.
    """
    generator = np.random.default_rng(seed)
    classes = manifest.classes
    k = len(classes)
    truth = manifest.class_numbers(classes)
    # The two largest classes, of which one is often taken for the other.
    first, second = np.argsort(-np.bincount(truth), kind="stable")[:2]
    rows = []
    for file, label in zip(manifest.files(), truth, strict=True):
        for who in generator.permutation(len(ACCURACIES) + 2)[: generator.integers(1, most + 1)]:
            vote = int((label + generator.integers(1, k)) % k)
            if who == len(ACCURACIES):
                vote, name = int(generator.integers(k)), "anything"
            elif who == len(ACCURACIES) + 1:
                name = "confuses"
                if label == first and generator.random() < CONFUSED:
                    vote = int(second)
                elif generator.random() < CONFUSES:
                    vote = int(label)
            else:
                name = f"{ACCURACIES[who]:.0%} right"
                vote = int(label) if generator.random() < ACCURACIES[who] else vote
            rows.append((file, classes[vote], name))
    return pd.DataFrame(rows, columns=["path", "label", "annotator"])


def with_quality(row: dict[str, Any], ballots: Ballots, truth: pd.Series) -> dict[str, Any]:
    """A comparison with the true share of right votes of each annotator beside the estimate."""
    right = ballots.labels == truth.to_numpy()[ballots.image]
    shares = pd.Series(right).groupby(ballots.annotators).mean()
    quality = row.pop("quality")
    for one in row["annotators"]:
        one["right"] = float(shares[one["annotator"]])
        one["crowdlab"] = quality.get(one["annotator"])
    return row


def simulated() -> Iterator[dict[str, Any]]:
    """Comparisons on votes that are drawn."""
    photos = read_manifest(str(SHARED / "data" / "clothing" / "train"))
    for most in (3, 1):
        for seed in range(DRAWS):
            votes = Manifest("votes", "table", drawn(photos, seed, most).assign(weight=1.0), photos.folder)
            ballots = collected(votes)
            truth = pd.Series(photos.table["label"].to_numpy(), index=photos.files())
            right = truth[ballots.images.table["path"]]
            name = (
                f"clothing, 1 to {most} votes, draw {seed}" if most > 1 else f"clothing, 1 vote, draw {seed}"
            )
            samples = embedded(ballots.images)
            row = with_quality(compared(name, samples, ballots, right), ballots, right)
            unnamed = find_consensus(samples, collected(votes, NO_ANNOTATOR), SolveOptions()).table["label"]
            yield {**row, "diva_unnamed": int((unnamed.to_numpy() != right.to_numpy()).sum())}


def real() -> dict[str, Any]:
    """The comparison on the votes of people."""
    folder = SHARED / "data" / "cifar10n"
    ballots = read_ballots(str(folder / "votes.csv"))
    truth = pd.read_csv(folder / "truth.csv").set_index("path")["true_label"]
    row = compared("cifar10n", embedded(ballots.images), ballots, truth[ballots.images.table["path"]])
    row.pop("quality")
    return row


def main() -> None:
    """Measure and print."""
    require_shared()
    if find_spec("cleanlab") is None:
        sys.exit("skipped: cleanlab is not installed (extra bench)")
    rows = []
    for row in chain((real(),), simulated()):
        print({name: value for name, value in row.items() if name not in ("annotators", "calibration")})
        rows.append(row)
    save("votes", rows)


if __name__ == "__main__":
    main()
