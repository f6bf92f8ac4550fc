"""Do texts that are chosen help images more than all texts do?

`python -m benchmarks.aggregate` takes some images a class of the 76 classes of Caltech-256 whose names are
known, as CLIP embeddings, and as the pool both prompts' texts of these classes plus 60 texts of other things
under a wrong label. It prints the error on all other images of ridge regression on the images alone, with all
texts, with the rightly labelled ones and with those that `aggregate` chooses and weighs, and the AUC of the
derivative for the wrong texts. Every ridge is the one with the smallest leave-one-out loss of the images.
Needs the folder `shared` beside the repository.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pandas as pd
import torch
from sklearn.metrics import roc_auc_score

from benchmarks.machine import SHARED, require_shared, save
from divacli.curate.aggregate import aggregate, aligned
from divacli.curate.pool_rule import ExtendOptions
from divacli.evaluation.learners import RidgeLearner
from divacli.features import Samples, joined, read_data, samples_of
from divacli.features.feature_rows import whole
from divacli.solve.ridge_problem import SolveOptions, pose
from divacli.solve.weight_problem import leave_one_out_ridge

CASES = ((5, 0), (5, 1), (5, 2), (5, 3), (5, 4), (1, 0), (1, 1))
N_WRONG = 60
IMAGES, TEXTS = (SHARED / "data" / "clip_caltech256" / name for name in ("images.npz", "texts.npz"))


def samples(file: Path, embedding: np.ndarray, label: np.ndarray) -> Samples:
    """Embeddings as samples, by way of a file as a user has it."""
    np.savez(file, embedding=embedding.astype(np.float32), label=label.astype(str))
    manifest = read_data(str(file), labels="optional")
    assert not isinstance(manifest, Samples)
    return samples_of(manifest, None, None, file.parent)  # type: ignore[arg-type]  # no image, no network


def measure(
    per_class: int,
    seed: int,
    folder: Path,
    image_file: Path = IMAGES,
    text_file: Path = TEXTS,
    n_wrong: int = N_WRONG,
) -> dict[str, object]:
    """Errors with one draw of images and of wrong texts.

    Args:
        per_class: Images of a class that are trained on; all others are tested on.
        seed: Of the draw.
        folder: For files in between.
        image_file: `embedding` and `label` of images.
        text_file: Embeddings of texts for each of many names by two prompts, `embedding_prompt_a` and `_b`,
            and for the classes with a name among them `matched_caltech_label` and `matched_imagenet_index`.
        n_wrong: Texts of other names among the pool, under the label of some class.
    """
    images, texts = np.load(image_file), np.load(text_file)
    generator = np.random.default_rng(seed)
    known = np.isin(images["label"], texts["matched_caltech_label"])
    labels, embeddings = images["label"][known], images["embedding"][known]
    drawn = pd.Series(generator.permutation(len(labels)))
    core_rows = drawn.groupby(labels[drawn]).head(per_class).to_numpy()
    rest = np.setdiff1d(np.arange(len(labels)), core_rows)
    named = texts["matched_imagenet_index"]
    prompts = [texts["embedding_prompt_a"], texts["embedding_prompt_b"]]
    others = generator.choice(np.setdiff1d(np.arange(len(prompts[0])), named), n_wrong, False)
    half = n_wrong // 2
    embedded = np.concatenate(
        [prompts[0][named], prompts[1][named], prompts[0][others[:half]], prompts[1][others[half:]]]
    )
    answers = texts["matched_caltech_label"]
    said = np.concatenate([answers, answers, generator.choice(answers, n_wrong)])
    wrong = np.arange(len(said)) >= 2 * len(answers)
    core = samples(folder / "images.npz", embeddings[core_rows], labels[core_rows])
    test = samples(folder / "test.npz", embeddings[rest], labels[rest])
    pool = samples(folder / "texts.npz", embedded, said)
    options = SolveOptions(seed=seed)
    result = aggregate(core, [("texts", pool)], options, ExtendOptions())

    def error(training: Samples, ridge: float | None = None) -> float:
        """At the ridge with the smallest leave-one-out loss of the images among the training samples."""
        if ridge is None:
            classes = training.manifest.classes
            task = pose(training, options, classes)
            mask = (torch.arange(len(task)) < len(core)).double()
            ridge = leave_one_out_ridge(replace(task, validation_mask=mask), options)
        learner = RidgeLearner(replace(options, ridge=ridge))
        return float((learner(training, test, seed) != test.manifest.table["label"].to_numpy(str)).mean())

    shifted = replace(pool, features=whole(aligned(pool, core, options.scaling)))
    chosen = result.choice.selected
    rows = chosen["path"].str.removeprefix("texts/").astype(int).to_numpy()
    manifest = replace(core.manifest, kind="table", table=result.choice.extended, embeddings=None)
    weighted = replace(core, manifest=manifest, features=whole(result.features))
    return {
        "per_class": per_class,
        "seed": seed,
        "images": error(core),
        "all": error(joined(core, shifted)),
        "right": error(joined(core, shifted.select(~wrong))),
        "chosen, weight 1": error(joined(core, shifted.select(rows))),
        "chosen": error(weighted, result.summary["ridge"]),
        "n_chosen": len(rows),
        "right_among_chosen": float((~wrong[rows]).mean()),
        "weight": result.weights["texts"],
        "auc": float(roc_auc_score(wrong, result.choice.first.derivative)) if n_wrong else None,
    }


def main() -> None:
    """Measure and print."""
    require_shared()
    rows = []
    for per_class, seed in CASES:
        with TemporaryDirectory() as folder:
            row = measure(per_class, seed, Path(folder))
        rows.append(row)
        errors = ", ".join(
            f"{name} {row[name]:.2%}" for name in ("images", "all", "right", "chosen, weight 1", "chosen")
        )
        print(
            f"{per_class} a class, seed {seed}: {errors}; {row['n_chosen']} chosen "
            f"({row['right_among_chosen']:.0%} right) at weight {row['weight']:g}; AUC {row['auc']:.3f}",
            flush=True,
        )
    table = pd.DataFrame(rows).groupby("per_class").mean(numeric_only=True)
    print(table.drop(columns="seed").to_string(float_format=lambda value: f"{value:.4f}"))
    save("aggregate", rows)


if __name__ == "__main__":
    main()
