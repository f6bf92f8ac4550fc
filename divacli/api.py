"""`diva score` and `diva prune` from Python: the same numbers, as tables and plots in memory."""

from __future__ import annotations

import html
import inspect
import math
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pandas as pd
import torch
from rich.console import Console

from divacli.backbones.linearised.expression import HEAD, PROJECTION, Linearize
from divacli.curate.prune import FILES as PRUNE_FILES
from divacli.curate.prune import Pruning, prune_automatically, prune_by
from divacli.curate.score import FILES as SCORE_FILES
from divacli.curate.score import Scoring, remember, score_data
from divacli.curate.score_table import Scores
from divacli.embed import BackboneChoice, ExtractOptions, Samples, read_data
from divacli.embed.open import check_images
from divacli.errors import DataError, DivaError
from divacli.errors import shown as on_one_line
from divacli.files.cache import default_cache
from divacli.machine.device import resolve_device
from divacli.manifest import Format, Manifest, manifest_of, read_manifest
from divacli.manifest.truth import known_wrong
from divacli.progress import silent
from divacli.report.figures.plots import plots_of
from divacli.report.terminal.progress import shown
from divacli.report.terminal.prune import pruning_verdict
from divacli.report.terminal.tables import SHOWN
from divacli.report.words import score_sentences
from divacli.results.read import Results
from divacli.results.runfile import RUN_FILE
from divacli.results.write import ResultFiles
from divacli.run import Run, current, running
from divacli.solve.loader import Loader
from divacli.solve.pose import SolveOptions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Data = str | os.PathLike[str] | pd.DataFrame | Manifest
"""What the command line takes as DATA; or a table in memory, whose relative paths start from the current
folder."""

_SHOWN_COLUMNS = [
    "rank",
    "derivative",
    "loo_loss",
    "label",
    "suggested_label",
    "mislabel_probability",
    "path",
]


@dataclass(frozen=True)
class ScoreReport:
    """What `diva score` finds, in memory.

    Attributes:
        table: One row a sample, most harmful first; the columns of `scores.csv`.
        summary: What `summary.json` holds.
        duplicates: The columns of `duplicates.csv`.
        harm: The columns of `harm.csv`; None without `by`.
    """

    table: pd.DataFrame
    summary: dict[str, Any]
    duplicates: pd.DataFrame
    harm: pd.DataFrame | None
    _scoring: Scoring = field(repr=False)
    _loader: Loader = field(repr=False)
    _run: Run = field(repr=False)

    def plot(self, kind: str = "histogram", *, by: str | None = None, truth: Data | None = None) -> Figure:
        """Draw the scores.

        Args:
            kind: "histogram", "loss", "classes", "groups", "confusions" or "ridge", as of `diva plot`.
            by: Of "groups", which column; by default the first one.
            truth: True labels, as `--truth`; by default the column true_label, where there is one.

        Raises:
            DataError: There is no such kind, or it needs what was not computed.
        """
        scored = replace(self._scoring.result.samples.manifest, table=self.table, embeddings=None)
        records = {}
        if self.harm is not None:
            records["harm"] = self.harm if by is None else self.harm[self.harm["by"] == by]
        results = Results(scored.folder, {"scores": scored}, records, {"summary": self.summary})
        true_labels = None if truth is None else _true_labels(truth)
        return plots_of(results, kind, known_wrong(scored, true_labels))[0][1]

    def save(
        self, folder: str | os.PathLike[str], format: Format = "csv", *, overwrite: bool = False
    ) -> list[str]:
        """Write the files of `diva score` into a folder, and say which.

        Args:
            folder: Made where it does not exist.
            format: Of the tables: "csv", "jsonl" or "parquet".
            overwrite: Replace such files where they are there already.

        Raises:
            OutputError: It cannot be written, or holds such files.
        """
        with (
            running(self._run),
            ResultFiles(Path(folder), format, SCORE_FILES, overwrite=overwrite) as target,
        ):
            self._scoring.write(target)
            target.finish(read=[self._run.inputs[0].manifest])
        forgotten = remember(self._scoring, self._loader)
        if forgotten is not None:
            _warn(forgotten)
        return [*target.written, RUN_FILE]

    def _repr_html_(self) -> str:
        sentences = " ".join(
            f"<b>{html.escape(sentence.lead)}</b>{html.escape(sentence.rest)}."
            for sentence in score_sentences(self.summary)
        )
        return f"<p>{sentences}</p><p>Most harmful:</p>{_html(self.table[_SHOWN_COLUMNS])}"


@dataclass(frozen=True)
class PruneReport:
    """What `diva prune` decides, in memory.

    Attributes:
        kept: The samples that stay, in the order of DATA, without scores.
        dropped: Those that go, worst first, with their scores.
        summary: What `prune.json` holds.
    """

    kept: pd.DataFrame
    dropped: pd.DataFrame
    summary: dict[str, Any]
    _pruning: Pruning = field(repr=False)
    _run: Run = field(repr=False)

    def save(
        self, folder: str | os.PathLike[str], format: Format = "csv", *, overwrite: bool = False
    ) -> list[str]:
        """Write the files of `diva prune` into a folder, and say which; as `ScoreReport.save`."""
        with (
            running(self._run),
            ResultFiles(Path(folder), format, PRUNE_FILES, overwrite=overwrite) as target,
        ):
            self._pruning.write(target)
            target.finish(read=[self._run.inputs[0].manifest])
        return [*target.written, RUN_FILE]

    def _repr_html_(self) -> str:
        n, gone = len(self.kept) + len(self.dropped), len(self.dropped)
        said = f"<p><b>{len(self.kept):,} of {n:,} samples kept, {gone:,} dropped</b></p>"
        return said + _html(self.dropped[_SHOWN_COLUMNS]) if gone else said


def score(
    data: Data,
    *,
    model: str | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    weights: str | None = None,
    layer: str | None = None,
    image_size: int | None = None,
    linearize: str = HEAD,
    projection: int = PROJECTION,
    device: str = "auto",
    batch_size: int | None = None,
    workers: int | None = None,
    amp: bool = True,
    compile: bool = False,
    cache_dir: str | os.PathLike[str] | None = None,
    strict: bool = False,
    val: Data | None = None,
    ridge: float | Literal["auto"] = "auto",
    loss: Literal["squared", "cross-entropy"] = "squared",
    validation: Literal["natural", "balanced"] = "natural",
    group: str | None = None,
    scaling: Literal["unit", "standard", "none"] = "unit",
    around_head: bool = False,
    dtype: Literal["float32", "float64"] = "float32",
    seed: int = 0,
    by: str | Sequence[str] = (),
    progress: bool = False,
) -> ScoreReport:
    """Rank every sample by what it does to the validation loss, most harmful first, as `diva score` does.

    Everything but `data` and `progress` is an option of the command and means the same. Warnings are those
    of Python.

    Args:
        data: A folder of images with a sub-folder a class, a table, an `.npz` file, a feature store; or a
            table in memory.
        model: A torchvision name, `timm:NAME`, `clip:NAME` or `FILE.py:FACTORY`.
        checkpoint: Its weights, or an archive.
        weights: Published weights instead.
        layer: The layer whose input the features are.
        image_size: Side of the crop in pixels.
        linearize: What features are gradients of: "head", "block:NAME", "full", or a sum.
        projection: Numbers that a gradient is compressed to, a power of two.
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Images at a time.
        workers: Processes that decode images; 0 for none.
        amp: Mixed precision on CUDA.
        compile: Compile the network on CUDA.
        cache_dir: Where features are kept.
        strict: Raise where a sample has no features of use, instead of leaving it out.
        val: Differentiate the loss of this data instead of the leave-one-out loss.
        ridge: The L2 penalty on the features as scaled.
        loss: The validation loss.
        validation: Whether every sample or every class counts equally in it.
        group: Column whose equal values are left out together.
        scaling: Of the features.
        around_head: Linearise around the network's own head.
        dtype: Of the solve.
        seed: Of whatever is drawn at random.
        by: What derivatives are summed over: "class", "pair", or columns.
        progress: Show how far it is.

    Raises:
        DivaError: What the user can mend; its text says how.
    """
    given = _given(score, locals())
    choices = {
        "loss": (loss, ("squared", "cross-entropy")),
        "validation": (validation, ("natural", "balanced")),
        "scaling": (scaling, ("unit", "standard", "none")),
        "dtype": (dtype, ("float32", "float64")),
    }
    for name, (value, possible) in choices.items():
        if value not in possible:
            raise DivaError(f"{name}={value!r}", expected=f"one of {', '.join(possible)}")
    if ridge != "auto" and not (isinstance(ridge, (int, float)) and 0 <= ridge < math.inf):
        raise DivaError(f"ridge={ridge!r}", expected="'auto' or a number >= 0")
    run = Run("score", given)
    with running(run):
        opened = _opened(data)
        judged = None if val is None else _opened(val)
    loader = Loader(
        BackboneChoice(
            model,
            None if checkpoint is None else Path(checkpoint),
            weights,
            layer,
            image_size,
            Linearize(linearize, projection),
        ),
        ExtractOptions(resolve_device(device), batch_size, workers, amp, compile, tell=_warn),
        default_cache() if cache_dir is None else Path(cache_dir),
        group,
        strict=strict,
        progress=_shown if progress else silent,
        warn=_warn,
        note=lambda note: None,
    )
    options = SolveOptions(
        ridge=None if ridge == "auto" else ridge,
        loss=loss,
        scaling=scaling,
        around_head=around_head,
        group=loader.group_column,
        balanced=validation == "balanced",
        dtype=getattr(torch, dtype),
        device=loader.device,
        seed=seed,
    )
    with running(run):
        scoring = score_data(loader, opened, options, judged, [by] if isinstance(by, str) else by)
    for warning in scoring.warnings():
        _warn(warning)
    harm = None if scoring.harm is None else scoring.harm.table
    return ScoreReport(
        scoring.result.table, scoring.summary, scoring.copies.table, harm, scoring, loader, run
    )


def prune(
    result: ScoreReport,
    *,
    keep: float | Literal["auto"] | None = None,
    threshold: float | None = None,
    budget: int | None = None,
    by: Literal["auto", "balanced", "coverage", "easy", "random", "derivative", "loo_loss"] = "auto",
    stratify: bool = False,
    force: bool = False,
) -> PruneReport:
    """Drop samples that are least missed, wrong labels first, and forecast the error on new images.

    As `diva prune` on what `diva score` has written; warnings are Python's.

    Args:
        result: The scores.
        keep: Fraction of the samples to keep, in (0, 1]; "auto": drop labels that are more likely wrong than
            right, and outliers.
        threshold: Drop samples whose value is at least this; with "auto", labels that are wrong with more
            than this probability.
        budget: With "auto", drop so many at the most.
        by: The rule; "auto": the one with the best forecast.
        stratify: Keep the fraction of every class.
        force: Drop also where the forecast is worse than that of keeping everything.

    Raises:
        DivaError: The options do not go together.
    """
    given = _given(prune, locals())
    automatic = keep == "auto"
    if automatic and (by != "auto" or stratify):
        raise DivaError("keep='auto' with by or stratify", expected="these with a fraction to keep")
    if not automatic and (keep is None) == (threshold is None):
        raise DivaError(
            "keep and threshold", expected="one of keep=FRACTION, keep='auto' and threshold=VALUE"
        )
    if not automatic and budget is not None:
        raise DivaError(f"budget={budget}", expected="a budget with keep='auto'")
    if threshold is not None and not automatic and by not in ("auto", "derivative", "loo_loss"):
        raise DivaError(f"by={by!r} with threshold", expected="by='derivative' or 'loo_loss'")
    if isinstance(keep, (int, float)) and not 0 < keep <= 1:
        raise DivaError(f"keep={keep}", expected="'auto', or a fraction in (0, 1], such as 0.9")
    scores = Scores.fresh(result._scoring.result, result._scoring.options)
    progress = result._loader.progress
    if keep == "auto":
        pruning = prune_automatically(scores, threshold, budget, force=force, progress=progress)
    else:
        pruning = prune_by(
            scores, keep=keep, threshold=threshold, by=by, stratify=stratify, force=force, progress=progress
        )
    for warning in pruning.warnings():
        _warn(warning)
    if not pruning.written:
        _warn(pruning_verdict(pruning))
    run = Run("prune", {**result._run.options, **given}, inputs=result._run.inputs)
    return PruneReport(*pruning.tables, pruning.summary, pruning, run)


def _given(function: Callable[..., Any], values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a call that are not as they are by default and can be written down."""
    return {
        name: os.fspath(values[name]) if isinstance(values[name], os.PathLike) else values[name]
        for name, parameter in inspect.signature(function).parameters.items()
        if isinstance(values[name], str | os.PathLike | int | float | list | tuple)
        and values[name] != parameter.default
    }


def _opened(data: Data) -> Manifest | Samples:
    if isinstance(data, (str, os.PathLike)):
        return read_data(os.fspath(data))
    if isinstance(data, pd.DataFrame):
        data = manifest_of(data, Path.cwd())
    if isinstance(data, Manifest):
        current().read(data.name, data)
    else:
        raise DataError(
            f"data is a {type(data).__name__}",
            expected="a path, a pandas table with the columns path and label, or a Manifest",
        )
    check_images(data)
    return data


def _true_labels(data: Data) -> Manifest:
    """A table of true labels, which may have them in a column true_label alone."""
    if isinstance(data, pd.DataFrame):
        return manifest_of(data, Path.cwd(), labels="optional")
    return data if isinstance(data, Manifest) else read_manifest(os.fspath(data), labels="optional")


def _shown(what: str, total: int) -> Any:
    return shown(Console(stderr=True), what, total)


def _warn(message: str) -> None:
    """Warn at the line that called this package."""
    depth, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals["__name__"].startswith("divacli."):
        depth, frame = depth + 1, frame.f_back
    warnings.warn(on_one_line(message), stacklevel=depth)


def _html(table: pd.DataFrame) -> str:
    rows = table.head(SHOWN)
    return rows.to_html(escape=True, index=False, border=0, float_format=lambda value: f"{value:.4g}")
