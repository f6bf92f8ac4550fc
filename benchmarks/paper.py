"""The experiments of the DIVA paper on a data set of yours, with the paper's figures beside ours.

    python -m benchmarks.paper Flowers102 --root ~/datasets
    python -m benchmarks.paper CUB200 --data cub/train --test cub/test
    python -m benchmarks.paper clip --images images.npz --texts texts.npz

The first lets torchvision download the data set into the folder, where it is not there yet. The paper's
figures are those of the data set that is named, whatever the data. Errors are of ridge regression on the
features of a network, in the paper and by default a ResNet-34 with ImageNet weights.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import numpy as np
import pandas as pd
import typer
from sklearn.metrics import f1_score, roc_auc_score

from benchmarks import aggregate
from benchmarks.augment import FLIPS, compare
from benchmarks.datasets import SETS, manifests
from benchmarks.extend import curve, flipped, relabelled, test_errors
from benchmarks.machine import save
from benchmarks.reweight import weighted
from divacli.cli.command import command
from divacli.cli.options import ComputeOptions, FrameOptions, NetworkOptions
from divacli.cli.session import loader_of
from divacli.curate.pool_rule import ExtendOptions
from divacli.curate.reweight import ReweightOptions, reweight
from divacli.curate.sample_scores import score
from divacli.features import Samples, read_data
from divacli.features.transform_names import parse_transform
from divacli.manifest import Manifest
from divacli.solve.loader import Loader
from divacli.solve.ridge_problem import SolveOptions

MODEL, WEIGHTS = "resnet34", "DEFAULT"
RATE = 0.2
RULES = (("derivative", 0.0), ("mislabel_probability", 0.5))
"""Columns of a table of scores, and above what a label is taken to be wrong."""
STEP, STEPS = 0.1, (1, 2, 3)
BUDGETS = tuple(tenths / 10 for tenths in range(1, 11))
PER_CLASS = (20, 5)
"""Images a class that texts are added to; the paper takes 20."""


@dataclass(frozen=True)
class Figures:
    """What the paper says of a data set.

    Attributes:
        f1: Of the rule `derivative > 0` for `RATE` flipped labels.
        auc: Of the derivative for them.
        before: Test error in %.
        after: The same after 1 to 3 steps of reweighting.
        transforms: What became of a transform.
    """

    f1: float | None = None
    auc: float | None = None
    before: float | None = None
    after: float | None = None
    transforms: dict[str, str] = field(default_factory=dict)


PAPER = {
    "CUB200": Figures(0.87, 0.98, 39.30, 36.93),
    "FGVCAircraft": Figures(0.68, 0.90, 57.58, 54.64),
    "MIT67": Figures(0.86, 0.98, 32.54, 31.27),
    "StanfordCars": Figures(0.75, 0.93, 58.91, 56.31),
    "Caltech256": Figures(0.92, 0.99, 23.98, 21.29),
    "Flowers102": Figures(
        0.83, 0.97, 20.23, 19.16, dict.fromkeys(("untouched", *FLIPS), "as often as the others")
    ),
    "OxfordIIITPet": Figures(transforms={"vflip": "penalised"}),
    "SVHN": Figures(transforms=dict.fromkeys(FLIPS, "penalised")),
}


@dataclass(frozen=True)
class Part:
    """The outcome of one experiment.

    Attributes:
        title: In few words.
        note: What was done.
        table: As it is shown.
        rows: The single measurements, for JSON.
    """

    title: str
    note: str
    table: list[dict[str, str]]
    rows: list[dict[str, Any]]


def main(
    name: Annotated[str, typer.Argument(help="Of the data set, and so of the results.", metavar="NAME")],
    network: NetworkOptions,
    compute: ComputeOptions,
    frame: FrameOptions,
    root: Annotated[
        Path | None,
        typer.Option(help="Folder where torchvision's data set of that name is, or is downloaded to."),
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="Training samples instead: a folder, a table, features.")
    ] = None,
    test: Annotated[str | None, typer.Option(help="Test samples beside --data.")] = None,
    images: Annotated[Path | None, typer.Option(help="Embeddings of images, for modalities.")] = None,
    texts: Annotated[Path | None, typer.Option(help="Embeddings of texts, for modalities.")] = None,
    parts: Annotated[
        str | None,
        typer.Option(
            help="Some of detect,reweight,extend,augment,modalities. Default: all that the data allow.",
            metavar="PART,PART",
            show_default=False,
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Draws of flips, of cores and of images.", min=1)] = 3,
    limit: Annotated[
        int, typer.Option(help="About how many training images augment takes; it embeds copies.", min=1)
    ] = 2000,
) -> None:
    """Repeat the DIVA paper's experiments on a data set, and print its figures beside ours.

    Writes benchmarks/results/paper-NAME.md and .json. The network is resnet34 with --weights DEFAULT, as in
    the paper, unless --model or --checkpoint names another. Data sets for --root: Caltech256, FGVCAircraft,
    Flowers102, OxfordIIITPet, StanfordCars, SVHN. The paper also has figures of CUB200 and MIT67, for --data.
    """
    name = next((known for known in {**PAPER, **SETS} if known.lower() == name.lower()), name)
    if root is not None:
        if name not in SETS or data is not None:
            raise typer.BadParameter(f"--root goes with one of {', '.join(SETS)}, and without --data")
        data, test = (str(table) for table in manifests(name, root).values())
    opened = None if data is None or test is None else read_data(data)
    has_images = isinstance(opened, Manifest) and "feature_source" not in opened.table
    allowed = [] if opened is None else ["detect", "reweight", "extend"]
    if has_images:
        allowed += ["augment"]
    if images is not None and texts is not None:
        allowed += ["modalities"]
    wanted = allowed if parts is None else [part.strip() for part in parts.split(",")]
    if not wanted or not set(wanted) <= set(allowed):
        raise typer.BadParameter(
            f"the data allow these parts: {', '.join(allowed) or 'none'}. Give --root, or --data and --test "
            "(for augment images), and for modalities --images and --texts"
        )
    if has_images and network.model is None and network.checkpoint is None:
        network = replace(network, model=MODEL, weights=network.weights or WEIGHTS)
    loader, paper, draws = loader_of(network, compute, frame), PAPER.get(name, Figures()), range(seeds)
    options = SolveOptions(device=loader.device)
    page, rows = [f"# The DIVA paper's experiments: {name}"], []
    experiments: dict[str, Callable[[], Part]] = {}
    if opened is not None and wanted != ["modalities"]:
        training, held_out = loader.load_both(opened, test)
        assert held_out is not None
        page.append(described(training, held_out, network))
        rows.append({"part": "data", "description": page[-1]})
        experiments = {
            "detect": lambda: detect(training, draws, options, paper),
            "reweight": lambda: reweighting(training, held_out, options, paper),
            "extend": lambda: extension(training, held_out, draws, options),
            "augment": lambda: augmentation(training, held_out, loader, limit, paper),
        }
    if images is not None and texts is not None:
        experiments["modalities"] = lambda: modalities(images, texts, draws)
    print("\n\n".join(page), flush=True)
    for part in wanted:
        found = experiments[part]()
        page.append(f"## {found.title}\n\n{found.note}\n\n{markdown(found.table)}")
        rows += [{"part": part, **row} for row in found.rows]
        print(f"\n{page[-1]}", flush=True)
    save(f"paper-{name}", rows, "\n\n".join(page) + "\n")


def detect(training: Samples, seeds: Sequence[int], options: SolveOptions, paper: Figures) -> Part:
    """Find flipped labels."""
    truth = training.manifest.table["label"].to_numpy(str)
    rows = []
    for seed in seeds:
        labels, wrong = flipped(truth, RATE, seed)
        result = score(relabelled(training, labels), replace(options, seed=seed))
        for column, threshold in RULES:
            if column in result.table:
                value, answer = result.table[column], wrong[result.order]
                f1, auc = f1_score(answer, value > threshold), roc_auc_score(answer, value)
                rows.append({"seed": seed, "rule": column, "f1": float(f1), "auc": float(auc)})
    means = pd.DataFrame(rows).groupby("rule").mean()
    table = []
    for column, threshold in RULES:
        if column in means.index:
            f1, auc = means.loc[column, ["f1", "auc"]]
            theirs = paper if column == "derivative" else Figures()
            table.append(
                {
                    "rule": f"{column} > {threshold:g}",
                    **{"F1": f"{f1:.3f}", "F1, paper": shown(theirs.f1)},
                    **{"AUC": f"{auc:.3f}", "AUC, paper": shown(theirs.auc)},
                }
            )
    note = f"{RATE:.0%} of the training labels moved to a random other class; means over {len(seeds)} draws."
    return Part("Wrong labels", note, table, rows)


def reweighting(training: Samples, test: Samples, options: SolveOptions, paper: Figures) -> Part:
    """Reweight the set as it is."""
    ways: list[tuple[str, str, ReweightOptions | None, float | None]] = [
        ("constant", "", None, paper.before),
        ("automatic steps, cross-entropy", "robust-cross-entropy", ReweightOptions(), None),
    ]
    for n in STEPS:
        fixed = ReweightOptions(size=STEP, steps=n)
        ways.append((f"{n} x {STEP:g}, squared loss", "squared", fixed, paper.after))
    table, rows = [], []
    for way, loss, how, theirs in ways:
        sizes: list[float] = []
        samples = training
        if how is not None:
            result = reweight(training, replace(options, loss=loss), how)
            samples, sizes = weighted(training, result.table["weight"].to_numpy()), result.summary["sizes"]
        error, over_classes = test_errors(samples, test, options)
        rows.append({"weights": way, "sizes": sizes, "error": error, "class_error": over_classes})
        table.append(
            {
                "weights": way,
                "steps": ", ".join(f"{size:g}" for size in sizes) or "none",
                **{"error": percent(error), "error, paper": shown(theirs)},
                "over classes": percent(over_classes),
            }
        )
    note = (
        "The training set as it is; test errors in %, over samples and averaged over classes. Steps are in "
        "units of the mean absolute derivative. The paper has one figure for 1 to 3 steps of about 0.1."
    )
    return Part("Reweighting", note, table, rows)


def extension(training: Samples, test: Samples, seeds: Sequence[int], options: SolveOptions) -> Part:
    """Extend one half of the training set from the other."""
    rows = []
    for seed in seeds:
        core, seeded = share_of_classes(training, 0.5, seed), replace(options, seed=seed)
        generator = np.random.default_rng(seed)
        row, _ = curve(training, core, test, seeded, ExtendOptions(), BUDGETS, 1, generator)
        rows.append({"seed": seed, **row})
    mean = pd.DataFrame(rows).mean()
    chosen = mean["n_selected"] / mean["n_pool"]
    table = [{"share of the pool": "none", "chosen": percent(mean["core"]), "random": percent(mean["core"])}]
    for budget in BUDGETS:
        errors = {rule: percent(mean[f"{rule}_{budget:.0%}"]) for rule in ("chosen", "random")}
        table.append({"share of the pool": f"{budget:.0%}", **errors})
    table = [{**row, "paper": "-"} for row in table]
    note = (
        f"A random half of every class is the core, the other half the pool; test errors in %, means over "
        f"{len(seeds)} draws. The choice ends by itself at {chosen:.0%} of the pool on average, and larger "
        "shares show all of it. The paper has curves: a choice reaches the whole pool's error with far fewer "
        "samples than a random one, and the best choice beats the whole pool."
    )
    return Part("Extension", note, table, rows)


def augmentation(training: Samples, test: Samples, loader: Loader, limit: int, paper: Figures) -> Part:
    """Find how often to flip."""
    images = training
    if limit < len(training):
        images = training.select(share_of_classes(training, limit / len(training), 0))
    transforms = [parse_transform(flip) for flip in FLIPS]
    copies = [(named, loader.copies(images, named, 0)) for named in transforms]
    row = compare(images, copies, test, 0, logistic=False)
    probabilities = zip(row["transforms"], row["probability"], row["probability_each"], strict=True)
    table = [
        {
            "transform": transform,
            "probability": f"{ours:.2f}",
            "one weight a copy": f"{each:.2f}",
            "paper": paper.transforms.get(transform, "-"),
        }
        for transform, ours, each in probabilities
    ]
    errors = {way: percent(row[f"ridge_{way}"]) for way in ("untouched", "equal", "found", "each")}
    note = (
        f"{len(images):,} training images and their flips. The paper gives every copy a weight of its own "
        f"and adds up by transform. Test errors in %: no flips {errors['untouched']}, equal probabilities "
        f"{errors['equal']}, the probabilities found {errors['found']}, one weight a copy {errors['each']}."
    )
    return Part("Augmentation", note, table, [row])


def modalities(images: Path, texts: Path, seeds: Sequence[int]) -> Part:
    """Add the classes' names to some images of each."""
    ways = {"images": "images alone", "all": "all texts"}
    ways |= {"chosen, weight 1": "chosen texts", "chosen": "chosen and weighed"}
    n_classes = len(np.load(texts)["matched_caltech_label"])
    rows, table = [], []
    for per_class in PER_CLASS:
        measured = []
        for seed in seeds:
            with TemporaryDirectory() as folder:
                measured.append(aggregate.measure(per_class, seed, Path(folder), images, texts, n_wrong=0))
        mean = pd.DataFrame(measured).mean()
        errors = {title: percent(mean[way]) for way, title in ways.items()}
        theirs = "some texts help, all of them hurt" if per_class == PER_CLASS[0] else "-"
        table.append({"images a class": str(per_class), **errors, "paper": theirs})
        rows += measured
    note = (
        f"CLIP embeddings of some images of each of {n_classes} classes, and of texts that name the classes, "
        f"moved to the images' mean; errors in % on the other images, means over {len(seeds)} draws. The "
        f"paper adds names to {PER_CLASS[0]} images a class of Caltech-256."
    )
    return Part("Modalities", note, table, rows)


def share_of_classes(samples: Samples, share: float, seed: int) -> np.ndarray:
    """Rows (m,) of a random share of every class, one at the least, in ascending order."""
    labels = samples.manifest.table["label"].to_numpy(str)
    drawn = pd.Series(np.random.default_rng(seed).permutation(len(labels)))
    classes = drawn.groupby(labels[drawn])
    return np.sort(drawn[classes.cumcount() < share * classes.transform("size")])


def described(training: Samples, test: Samples, network: NetworkOptions) -> str:
    """The data in one sentence."""
    n, d = training.features.shape
    name = network.model or network.checkpoint or "given"
    return (
        f"{n:,} training and {len(test):,} test samples in {len(training.manifest.classes)} classes; "
        f"{d:,} features ({name})."
    )


def markdown(table: Sequence[dict[str, str]]) -> str:
    """A table as Markdown, with columns of one width."""
    frame = pd.DataFrame(table)
    rows = [list(frame), *frame.to_numpy().tolist()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    rows.insert(1, ["-" * width for width in widths])
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in rows
    )


def percent(error: float) -> str:
    """An error with the paper's decimals."""
    return f"{100 * error:.2f}"


def shown(figure: float | None) -> str:
    """A figure of the paper, "-" where it has none."""
    return "-" if figure is None else f"{figure:.2f}"


app = typer.Typer(add_completion=False)
command(app, "paper", without=("config", "strict", "layer"))(main)

if __name__ == "__main__":
    app(prog_name="python -m benchmarks.paper")
