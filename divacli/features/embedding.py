"""Find or compute the features of DATA."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch

from divacli.errors import DataError
from divacli.features.backbone_choice import BackboneChoice
from divacli.features.options import ExtractOptions
from divacli.features.read import read_data, stored_keys, stored_sources
from divacli.features.samples import Samples, failures_of, samples_in, undecodable
from divacli.features.set_range import range_of, with_range
from divacli.features.sources import finite_samples, of_arrays, of_sources
from divacli.features.store import FeatureStore
from divacli.manifest import Labels, Manifest
from divacli.parallel import world
from divacli.progress import Progress, silent

if TYPE_CHECKING:
    import pandas as pd

    from divacli.backbones.backbone import Backbone
    from divacli.features.augmentation import NamedTransform

_LOGGER = logging.getLogger(__name__)


def load_samples(
    data: str,
    choice: BackboneChoice,
    options: ExtractOptions,
    cache: Path,
    *,
    strict: bool = False,
    stdin: BinaryIO | None = None,
    labels: Labels = "required",
    progress: Progress = silent,
) -> Samples:
    """Read DATA and find or compute its features.

    Args:
        data: A folder, a table, `-`, an `.npz` file or a feature store.
        choice: The network for images.
        options: How it runs.
        cache: Folder for features of images, shared by all commands.
        strict: Raise where a sample has no features of use, instead of leaving it out.
        stdin: Where `-` reads from.
        labels: As for `read_manifest`.
        progress: Told how far it is.

    Raises:
        DivaError: DATA, the network or the store are not usable.
    """
    opened = read_data(data, stdin=stdin, labels=labels)
    if isinstance(opened, Samples):
        return finite_samples(opened, strict=strict)
    return samples_of(opened, choice, options, cache, strict=strict, progress=progress)


def samples_of(
    manifest: Manifest,
    choice: BackboneChoice,
    options: ExtractOptions,
    cache: Path,
    *,
    strict: bool = False,
    progress: Progress = silent,
) -> Samples:
    """As `load_samples`, of a manifest whose images are there."""
    start = time.monotonic()
    sources = stored_sources(manifest)
    if manifest.embeddings is not None:
        found = finite_samples(of_arrays(manifest, manifest.embeddings), strict=strict)
    elif sources is not None:
        found = finite_samples(of_sources(manifest, sources), strict=strict)
    else:
        manifest = with_range(manifest)
        found = _of_images(manifest, lambda: choice.backbone, options, cache, strict, progress)
    return replace(found, seconds=time.monotonic() - start)


def copies_of(
    manifest: Manifest,
    choice: BackboneChoice,
    named: NamedTransform,
    options: ExtractOptions,
    cache: Path,
    *,
    seed: int,
    strict: bool = False,
    progress: Progress = silent,
) -> Samples:
    """The samples of a manifest with the features of their transformed copies.

    Rows, labels and keys are those of `samples_of`, but for images of which the transform makes no copy: they
    are among `failed` too. The features lie apart from those of the images and of other copies.

    Args:
        manifest: Samples that are images.
        choice: The network, and so are the others of `samples_of`.
        named: The transform.
        options: How the network runs.
        cache: Folder for features, shared by all commands.
        seed: Of what the transform draws.
        strict: Raise where there is no copy, instead of leaving the sample out.
        progress: Told how far it is.

    Raises:
        DataError: The samples bring their features, or none has a copy.
        DivaError: As `samples_of`.
    """
    start = time.monotonic()
    if stored_sources(manifest) is not None:
        raise DataError(
            f"{manifest.name} brings its features: there are no images to transform",
            expected="a folder or a table of images",
            hint="give the images that the features were computed from",
        )
    from divacli.features.augmentation import augmented

    manifest = with_range(manifest)
    found = _of_images(
        manifest,
        lambda: augmented(choice.backbone, named, seed),
        options,
        cache,
        strict,
        progress,
        named,
    )
    return replace(found, seconds=time.monotonic() - start)


def _of_images(
    manifest: Manifest,
    network: Callable[[], Backbone],
    options: ExtractOptions,
    cache: Path,
    strict: bool,
    progress: Progress,
    named: NamedTransform | None = None,
) -> Samples:
    from divacli.features.extract import feature_identity

    with progress("loading the network", 0):
        backbone = network()
    files = manifest.files()
    keys, failed = stored_keys(files, progress, cache)
    pixels = range_of(manifest)
    identity = feature_identity(backbone, options, pixels)
    store = FeatureStore.in_cache(cache, identity, backbone.n_features)
    store.save_head(backbone.head)
    store.mend(keys)
    store.told(options.tell, (name for names in world().gathered(store.damaged) for name in names))
    wanted = np.array([position not in failed for position in range(len(files))])
    # Missing for any of the processes: they may not see all files of a shared folder at the same moment.
    missing = torch.from_numpy((store.positions(keys) < 0).astype(np.int64))
    wanted &= world().merged(missing).numpy() > 0
    todo = np.flatnonzero(wanted)
    # Files of the same content need one pass.
    _, first = np.unique(keys[todo], axis=0, return_index=True)
    todo = todo[np.sort(first)]
    _LOGGER.info(
        "features %s: %d images, of which %d are in the store, %d are to be embedded (each content once), "
        "%d cannot be read",
        *(store.folder, len(files), len(files) - int(wanted.sum()) - len(failed), len(todo), len(failed)),
    )
    reasons: dict[int, str] = {}
    if len(todo):
        here = world()
        share = here.share_of(len(todo))
        own = todo[share.start : share.stop]
        if len(own):
            from divacli.features.extract import extract

            chosen = [files[position] for position in own]
            moved = backbone.to(options.device)
            unusable = extract(
                moved, chosen, keys[own], store, options, progress, pixels=pixels, strict=strict
            )
            reasons = {share[position]: reason for position, reason in unusable.items()}
        for others in here.gathered((reasons, store.written)):
            reasons = reasons | others[0]
            store.include(others[1])
        by_key = {keys[todo[position]].tobytes(): reason for position, reason in reasons.items()}
        failed |= {
            position: by_key[key.tobytes()] for position, key in enumerate(keys) if key.tobytes() in by_key
        }
    if named is not None and failed and (strict or len(failed) == len(files)):
        raise _without_copy(named, failures_of(manifest, failed), len(files))
    if strict and failed:
        failures = failures_of(manifest, failed)
        raise undecodable(failures, f"{manifest.name}: {len(failures):,} of the images read so far")
    found = samples_in(store, manifest, keys, failed)
    return replace(
        found,
        head=backbone.head,
        embedded=len(todo) - len(reasons),
        network=backbone.sentence,
        notes=backbone.said,
    )


def _without_copy(named: NamedTransform, failures: pd.DataFrame, n_images: int) -> DataError:
    which = "every image" if len(failures) == n_images else f"{len(failures):,} of the images tried so far"
    first = failures.iloc[0]
    return DataError(
        f"transform {named.name} fails on {which}, the first: {first['path']} ({first['reason']})",
        expected="a transform that takes any RGB image",
        hint="change its arguments or its code, or leave it out",
    )
