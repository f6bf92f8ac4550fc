"""DATA of any kind -> samples with features: the one door that every command goes through."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
import torch

from divacli.backbones.linearised.expression import UNCHANGED, Linearize
from divacli.embed.keys import KEY_BYTES, content_keys
from divacli.embed.options import ExtractOptions
from divacli.embed.reference import Reference
from divacli.embed.samples import Samples, failures_of, is_store, read_store, samples_in, undecodable
from divacli.embed.sources import finite_samples, of_arrays, of_sources
from divacli.embed.store import FeatureStore
from divacli.errors import DataError, ModelError
from divacli.files.place import place_of
from divacli.manifest import Labels, Manifest, check_files, read_manifest
from divacli.parallel import world
from divacli.progress import Progress, silent

if TYPE_CHECKING:
    import pandas as pd

    from divacli.backbones import Backbone
    from divacli.embed.augmentation import NamedTransform

_LOGGER = logging.getLogger(__name__)


class BackboneChoice:
    """The network that a command line names, loaded at most once and only when images need it.

    Args:
        model: As for `load_backbone`, and so are the others.
        checkpoint: A file.
        weights: Published weights in its place.
        layer: The layer whose input the features are.
        image_size: Side of the crop.
        linearize: What features are gradients of.
        reference: DATA that gradients are preconditioned on; None: the first that is embedded.
    """

    def __init__(
        self,
        model: str | None = None,
        checkpoint: Path | None = None,
        weights: str | None = None,
        layer: str | None = None,
        image_size: int | None = None,
        linearize: Linearize = UNCHANGED,
        reference: str | None = None,
    ) -> None:
        self._arguments = (model, checkpoint, weights, layer, image_size)
        self.linearize = linearize
        self._reference_data = reference
        self._tell: Callable[[str], None] = lambda note: None
        self._reference: Reference | None = None

    def telling(self, tell: Callable[[str], None]) -> BackboneChoice:
        """The same choice, which says of a network that is code that it will be run.

        Args:
            tell: Told so, before it is loaded.
        """
        choice = BackboneChoice(*self._arguments, self.linearize, self._reference_data)
        choice._tell = tell
        return choice

    @property
    def model(self) -> str | None:
        """The model that was named."""
        return self._arguments[0]

    @property
    def named(self) -> bool:
        """Whether a network was named, in any way."""
        given = (*self._arguments, self._reference_data)
        return self.linearize != UNCHANGED or any(argument is not None for argument in given)

    @cached_property
    def backbone(self) -> Backbone:
        """The network.

        Raises:
            ModelError: It cannot be loaded, or none was named.
        """
        # Features that exist already need no torchvision, which is slow to import and large.
        from divacli.backbones import code_note, load_backbone

        model, checkpoint, weights, layer, image_size = self._arguments
        if self._reference_data is not None and self.linearize.precondition == "none":
            raise ModelError(
                f"--reference {self._reference_data} without --precondition: no matrix is estimated",
                expected="--precondition diagonal or kronecker with it",
                hint="leave --reference out, or add --precondition",
            )
        if (note := code_note(model, checkpoint)) is not None:
            self._tell(note)
        return load_backbone(
            model,
            checkpoint,
            weights=weights,
            layer=layer,
            image_size=image_size,
            linearize=self.linearize,
        )

    def reference(
        self, files: list[str], keys: np.ndarray, failed: Collection[int], progress: Progress, cache: Path
    ) -> Reference:
        """What gradients are preconditioned on: the same images however often this is asked.

        Args:
            files: Images that are about to be embedded, which it is taken from unless other DATA was named.
            keys: (n, 32) uint8 their keys.
            failed: Positions of those that cannot be read.
            progress: Told how far it is with reading other DATA.
            cache: Folder that remembers the digests of its files.

        Raises:
            DataError: That DATA holds no images.
        """
        if self._reference is None:
            if self._reference_data is not None:
                opened = read_data(self._reference_data, labels="optional")
                manifest = opened.manifest if isinstance(opened, Samples) else opened
                if _sources(manifest) is not None:
                    raise DataError(
                        f"--reference {manifest.name} brings its features: there are no images to look at",
                        expected="a folder or a table of images",
                        hint="give the images that the features were computed from",
                    )
                files = manifest.files()
                keys, failed = _keys(files, progress, cache)
            readable = np.array([position not in failed for position in range(len(files))], bool)
            self._reference = Reference.of(files, keys, readable)
        return self._reference

    def fit(self, reference: Reference, options: ExtractOptions, progress: Progress) -> None:
        """Estimate what gradients are preconditioned by, where that was not done yet."""
        if self.backbone.wants_reference:
            reference.fit(self.backbone.to(options.device), options, progress)

    def augmented(self, named: NamedTransform, seed: int) -> BackboneChoice:
        """The same network, loaded once for both, for transformed copies of the images.

        Args:
            named: The transform.
            seed: Of what it draws.
        """
        return _AugmentedChoice(self, named, seed)


class _AugmentedChoice(BackboneChoice):
    def __init__(self, plain: BackboneChoice, named: NamedTransform, seed: int) -> None:
        self._plain = plain
        self._named = named
        self._seed = seed

    @cached_property
    def backbone(self) -> Backbone:
        from divacli.embed.augmentation import augmented

        return augmented(self._plain.backbone, self._named, self._seed)

    def reference(
        self, files: list[str], keys: np.ndarray, failed: Collection[int], progress: Progress, cache: Path
    ) -> Reference:
        return self._plain.reference(files, keys, failed, progress, cache)

    def fit(self, reference: Reference, options: ExtractOptions, progress: Progress) -> None:
        # On the images as they are; the network is one for both.
        self._plain.fit(reference, options, progress)


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


def read_data(data: str, *, stdin: BinaryIO | None = None, labels: Labels = "required") -> Manifest | Samples:
    """Read and check DATA, without computing anything.

    Args:
        data: A folder, a table, `-`, an `.npz` file or a feature store.
        stdin: Where `-` reads from.
        labels: As for `read_manifest`.

    Returns:
        The samples of a feature store, which has their features; else the manifest, whose files exist.

    Raises:
        DivaError: DATA is not usable.
    """
    if is_store(data):
        return read_store(place_of(data), data, labels=labels)
    manifest = read_manifest(data, stdin=stdin, labels=labels)
    check_images(manifest)
    return manifest


def check_images(manifest: Manifest) -> None:
    """Check that the files are there of samples that bring no features.

    Raises:
        DataError: Some are not.
    """
    if _sources(manifest) is None:
        check_files(manifest)


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
    sources = _sources(manifest)
    if manifest.embeddings is not None:
        found = finite_samples(of_arrays(manifest, manifest.embeddings), strict=strict)
    elif sources is not None:
        found = finite_samples(of_sources(manifest, sources), strict=strict)
    else:
        found = _of_images(manifest, choice, options, cache, strict, progress)
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
    if _sources(manifest) is not None:
        raise DataError(
            f"{manifest.name} brings its features: there are no images to transform",
            expected="a folder or a table of images",
            hint="give the images that the features were computed from",
        )
    found = _of_images(manifest, choice.augmented(named, seed), options, cache, strict, progress, named)
    return replace(found, seconds=time.monotonic() - start)


def _sources(manifest: Manifest) -> pd.Series | None:
    """The column that names where embeddings lie, "" for none; None where no row names one."""
    if "feature_source" not in manifest.table:
        return None
    sources = manifest.table["feature_source"].fillna("")
    return sources if (sources != "").any() else None


def _keys(files: list[str], progress: Progress, cache: Path) -> tuple[np.ndarray, dict[int, str]]:
    """As `content_keys`, every process reading its share of the files."""
    here = world()
    own = here.share_of(len(files))
    keys = np.zeros((len(files), KEY_BYTES), np.uint8)
    keys[own.start : own.stop], unreadable = content_keys(files[own.start : own.stop], progress, cache)
    failed: dict[int, str] = {}
    for others in here.gathered({own.start + position: reason for position, reason in unreadable.items()}):
        failed |= others
    here.merged(torch.from_numpy(keys))
    return keys, failed


def _of_images(
    manifest: Manifest,
    choice: BackboneChoice,
    options: ExtractOptions,
    cache: Path,
    strict: bool,
    progress: Progress,
    named: NamedTransform | None = None,
) -> Samples:
    from divacli.embed.extract import feature_identity

    with progress("loading the network", 0):
        backbone = choice.backbone
    files = manifest.files()
    keys, failed = _keys(files, progress, cache)
    reference = None
    if backbone.preconditioned:
        reference = choice.reference(files, keys, failed, progress, cache)
    identity = feature_identity(backbone, options)
    if reference is not None:
        identity["reference"] = reference.digest
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
            from divacli.embed.extract import extract

            chosen = [files[position] for position in own]
            if reference is not None:
                choice.fit(reference, options, progress)
            moved = backbone.to(options.device)
            unusable = extract(moved, chosen, keys[own], store, options, progress, strict=strict)
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
    return replace(found, head=backbone.head, embedded=len(todo) - len(reasons), notes=backbone.notes)


def _without_copy(named: NamedTransform, failures: pd.DataFrame, n_images: int) -> DataError:
    which = "every image" if len(failures) == n_images else f"{len(failures):,} of the images tried so far"
    first = failures.iloc[0]
    return DataError(
        f"transform {named.name} fails on {which}, the first: {first['path']} ({first['reason']})",
        expected="a transform that takes any RGB image",
        hint="change its arguments or its code, or leave it out",
    )
