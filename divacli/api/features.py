"""`embed` from Python, and DATA as pandas and numpy."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
from rich.console import RenderableType

from divacli.api.call import Call, NetworkLike, arguments
from divacli.api.inputs import Data
from divacli.api.report import Report, Saving
from divacli.curate import embed as _embed
from divacli.features.read import stored_sources
from divacli.features.samples import no_failures
from divacli.manifest import Labels, Manifest, relocate
from divacli.solve.loader import manifest_in
from divacli.solve.options import Compute, Problem


def embed(data: Data, network: NetworkLike = None, *, compute: Compute = Compute()) -> Report:
    """Compute the features of images; `save` writes them as a feature store, a kind of DATA.

    Args:
        data: The images.
        network: For them.
        compute: How features are computed.

    Returns:
        Tables `samples` and `failed`; `load` gives the features as an array.

    Raises:
        DivaError: As `score`.
    """
    call = Call("embed", arguments(embed, locals()), network, Problem(), compute)
    with call.loading() as loader:
        opened = call.inputs.open(data, "data")
        result = _embed.embed_data(loader, opened)
    return call.report(result, _embedded, Saving(_embed.FILES, [manifest_in(opened)]))


@dataclasses.dataclass(frozen=True)
class Loaded:
    """The samples of DATA in memory.

    Attributes:
        table: path, label and weight, then all other columns, n rows; paths open from the folder that was the
            current one.
        features: (n, d) float32, row i of sample i; None of images without a network.
        failed: path, label and reason of samples that could not be used.
        classes: The labels, in the order of their numbers.
        warnings: Sentences that the user should know.
    """

    table: pd.DataFrame
    features: np.ndarray | None
    failed: pd.DataFrame
    classes: list[str]
    warnings: tuple[str, ...]

    def __repr__(self) -> str:
        """One line: the samples, classes and features."""
        width = "no features" if self.features is None else f"{self.features.shape[1]:,} features each"
        return f"<{len(self.table):,} samples in {len(self.classes):,} classes, {width}>"


def load(
    data: Data, network: NetworkLike = None, *, labels: Labels = "required", compute: Compute = Compute()
) -> Loaded:
    """Read DATA as every command does, with its features.

    Args:
        data: Samples of any kind.
        network: For images; without one they have no features.
        labels: "optional": samples may lack labels, or be of one class.
        compute: How features are computed.

    Raises:
        DivaError: As `score`.
    """
    call = Call("load", {}, network, Problem(), compute)
    with call.loading() as loader:
        opened = call.inputs.open(data, "data", labels=labels)
        if isinstance(opened, Manifest) and _are_images(opened) and not loader.choice.named:
            manifest, features, failed = opened, None, no_failures()
            loader.warned(manifest)
        else:
            samples = loader.load(opened)
            manifest, features, failed = samples.manifest, samples.features[:].float().numpy(), samples.failed
    table, failed = (relocate(part, manifest.folder, Path.cwd()) for part in (manifest.table, failed))
    return Loaded(table, features, failed, manifest.classes, tuple(call.warned))


def _are_images(manifest: Manifest) -> bool:
    return manifest.embeddings is None and stored_sources(manifest) is None


def _embedded(result: _embed.EmbedResult) -> Iterator[RenderableType]:
    summary = result.summary
    yield f"{summary['n_samples']:,} samples with {summary['n_features']:,} features each"
