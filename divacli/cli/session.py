"""From parsed options to the objects that do the work, and from results to files."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from divacli.cli.command import RichProgress, say, warn
from divacli.cli.options import (
    ComputeOptions,
    DtypeName,
    FrameOptions,
    NetworkOptions,
    OutputOptions,
    ProblemOptions,
    ridge_value,
)
from divacli.errors import OutputError

if TYPE_CHECKING:
    import pandas as pd

    from divacli.curate.record import Scores
    from divacli.curate.solution import SolveOptions
    from divacli.embed import BackboneChoice, ExtractOptions, Samples
    from divacli.manifest import Manifest


class Session:
    """One run of a command that works on features.

    Args:
        network: Options, and so are the others.
        compute: How features are computed.
        frame: Progress and quiet.

    Raises:
        DivaError: There is no such device.
    """

    def __init__(self, network: NetworkOptions, compute: ComputeOptions, frame: FrameOptions) -> None:
        from divacli.embed import BackboneChoice, ExtractOptions
        from divacli.embed.device import resolve_device

        self.quiet = frame.quiet
        self.progress = RichProgress(frame)
        self.cache = compute.cache_dir or default_cache()
        self.device = resolve_device(compute.device)
        self.choice: BackboneChoice = BackboneChoice(
            network.model, network.checkpoint, network.weights, network.layer, network.image_size
        )
        self._extract: ExtractOptions = ExtractOptions(
            self.device, compute.batch_size, compute.workers, compute.amp
        )
        self._network_named = network != NetworkOptions()
        self._strict = compute.strict

    def load(self, data: str) -> Samples:
        """Samples of DATA with their features; warnings go to standard error."""
        from divacli.embed import read_data

        return self._embedded(read_data(data))

    def load_both(self, opened: Manifest | Samples, validation: str | None) -> tuple[Samples, Samples | None]:
        """Samples with their features, and those of a validation set, which is checked before any work."""
        from divacli.curate.solution import class_numbers
        from divacli.embed import Samples, read_data

        if validation is None:
            return self._embedded(opened), None
        opened_validation = read_data(validation)
        training, held_out = (
            part.manifest if isinstance(part, Samples) else part for part in (opened, opened_validation)
        )
        class_numbers(held_out, training.classes)
        return self._embedded(opened), self._embedded(opened_validation)

    def scored(self, data: str, problem: ProblemOptions) -> Scores:
        """Scores of DATA: those that it holds, or else computed now."""
        from divacli.curate.record import Scores
        from divacli.curate.score import score
        from divacli.embed import Samples, is_store, read_data
        from divacli.manifest import read_manifest

        options = self.solve_options(problem)
        opened = read_data(data) if is_store(data) else read_manifest(data)
        if not isinstance(opened, Samples) and "derivative" in opened.table:
            self._warned(opened)
            if replace(problem, dtype=DtypeName.float32, seed=0) != ProblemOptions():
                warn(
                    f"{opened.name} holds scores, which are used as they are: options of the problem "
                    "(--ridge, --loss, --val ...) change nothing. Give the images to score them anew"
                )
            return Scores.recorded(opened, self.cache, options, self.progress)
        samples, validation = self.load_both(opened, problem.val)
        return Scores.fresh(score(samples, options, validation), options)

    def solve_options(self, problem: ProblemOptions) -> SolveOptions:
        """How the problem is solved."""
        import torch

        from divacli.curate.solution import SolveOptions

        return SolveOptions(
            ridge=ridge_value(problem.ridge),
            loss=problem.loss.value,
            scaling=problem.scaling.value,
            around_head=problem.around_head,
            dtype=getattr(torch, problem.dtype.value),
            device=self.device,
            seed=problem.seed,
        )

    def _embedded(self, opened: Manifest | Samples) -> Samples:
        from divacli.embed import Samples, samples_of

        if isinstance(opened, Samples):
            return self._told(opened)
        found = samples_of(
            opened, self.choice, self._extract, self.cache, strict=self._strict, progress=self.progress
        )
        return self._told(found)

    def _told(self, samples: Samples) -> Samples:
        self._warned(samples.manifest)
        if self._network_named and "feature_source" in samples.manifest.table:
            warn(
                f"{samples.manifest.name} brings its features: the network that was named is not used for it"
            )
        if not self.quiet:
            for note in samples.notes:
                say(f"note: {note}")
        if len(samples.failed):
            warn(
                f"{len(samples.failed):,} images cannot be used and are left out, the first: "
                f"{samples.failed['path'].iloc[0]} ({samples.failed['reason'].iloc[0]})"
            )
        return samples

    def _warned(self, manifest: Manifest) -> None:
        for message in manifest.warnings:
            warn(message)


class Output:
    """Where a command's tables go: files in a folder, or its main table to standard output.

    Args:
        options: `--out` and `--format`.

    Raises:
        OutputError: `--out` is a file, or a folder that cannot be written to.
    """

    def __init__(self, options: OutputOptions) -> None:
        self.folder = None if options.out == "-" else Path(options.out)
        self._format = options.format.value
        self.written: list[str] = []
        if self.folder is not None:
            _prepare(self.folder)

    @property
    def base(self) -> Path:
        """The folder that relative paths in written tables start from."""
        return Path.cwd() if self.folder is None else self.folder

    def table(self, name: str, table: pd.DataFrame, origin: Path, *, main: bool = False) -> None:
        """Write a table, its paths rewritten so that it can be read back from where it lies.

        Args:
            name: Of the file, without suffix.
            table: With a column path.
            origin: Absolute folder that its relative paths start from.
            main: The one table that goes to standard output with `--out -`.
        """
        from divacli.manifest import relocate, write_table

        if self.folder is None and not main:
            return
        moved = relocate(table, origin, self.base)
        target = None if self.folder is None else self.folder / f"{name}.{self._format}"
        write_table(moved, target, self._format)  # type: ignore[arg-type]
        if target is not None:
            self.written.append(target.name)

    def json(self, name: str, content: dict[str, object]) -> None:
        """Write a JSON file, in a folder only."""
        import json

        from divacli.manifest import write_text

        if self.folder is not None:
            write_text(self.folder / name, json.dumps(content, indent=2, allow_nan=False) + "\n")
            self.written.append(name)


def default_cache() -> Path:
    """The user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "diva"


def _prepare(folder: Path) -> None:
    """Make the folder now: an hour of embedding is a bad time to learn that it cannot be written to."""
    if folder.suffix.lower() in (".csv", ".tsv", ".jsonl", ".parquet"):
        raise OutputError(
            f"--out {folder}",
            expected="a folder: results are several files",
            hint=f"use --out DIR, or --out - > {folder}",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"--out {folder} cannot be made: {error.strerror}",
            expected="a folder that can be written to",
            hint="choose another one with --out",
        ) from error
    if not os.access(folder, os.W_OK | os.X_OK):
        raise OutputError(
            f"--out {folder} cannot be written to",
            expected="a folder that can be written to",
            hint="choose another one with --out",
        )
