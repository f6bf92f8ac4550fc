"""What an evaluation is given: read, refused before any work where it does not fit, then embedded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from divacli.errors import DataError, listed
from divacli.evaluation.curve import require_labels
from divacli.evaluation.evaluate import present, require_known_labels
from divacli.evaluation.rivals import Pool
from divacli.features import Samples
from divacli.features.read import require_images
from divacli.features.samples import require_same_features
from divacli.manifest import Manifest, read_manifest
from divacli.manifest.columns import TRUE_LABEL
from divacli.manifest.identity import npz_sources
from divacli.manifest.truth import right_labels
from divacli.reading import EVERY, NamedData
from divacli.solve.groups import group_numbers
from divacli.solve.loader import Given, Loader, manifest_in, opened
from divacli.solve.overlap import shared_samples


@dataclass(frozen=True)
class Names:
    """What is read, as on the command line, or was read already.

    Attributes:
        data: Everything.
        test: What the error is measured on.
        manifests: What is judged.
        truth: True labels, or None for those of a column.
        pool: What can be added to everything, or None.
        validation: What the scores of a curve are for, or None.
    """

    data: Given
    test: Given
    manifests: Sequence[Given] = ()
    truth: str | NamedData | Manifest | None = None
    pool: Given | None = None
    validation: Given | None = None


@dataclass(frozen=True)
class Loaded:
    """The samples of one command, each with a positive weight.

    Attributes:
        data: Everything.
        manifests: What is judged, by name.
        test: What the error is measured on.
        pool: What can be added to everything, or None.
        right: (n,) bool, which of `data` have their true label; None where it is not known.
        right_in_pool: The same of `pool`; None where it is not known of all.
        validation: What the scores of a curve are for; None for the leave-one-out loss.
        shared: How many test samples are also in each training set.
    """

    data: Samples
    manifests: dict[str, Samples]
    test: Samples
    pool: Samples | None
    right: np.ndarray | None
    right_in_pool: np.ndarray | None
    validation: Samples | None
    shared: dict[str, int]

    def addable(self) -> Pool | None:
        """The part of the pool that everything lacks.

        Raises:
            DataError: There is a pool, and everything has all of it.
        """
        return None if self.pool is None else Pool.beside(self.data, self.pool, self.right_in_pool)


def load_given(loader: Loader, names: Names, warn: Callable[[str], None], *, images_required: bool) -> Loaded:
    """Read everything, refuse what does not fit before any work, and find the features.

    Args:
        loader: Finds features.
        names: What is read.
        warn: Told what the user should know.
        images_required: Whether there must be images and a network that can be trained.

    Raises:
        DataError: Something does not fit.
    """
    data, test, *judged = (_name(part) for part in (names.data, names.test, *names.manifests))
    pool = None if names.pool is None else _name(names.pool)
    parts = {_name(part): part for part in (names.data, names.test, *names.manifests)}
    found = {name: opened(part) for name, part in parts.items()}
    if names.pool is not None and pool is not None:
        found.setdefault(pool, opened(names.pool, labels="optional"))
    read = {name: manifest_in(part) for name, part in found.items()}
    if images_required:
        for manifest in read.values():
            require_images(manifest)
        # Asked for before any work, too.
        _ = loader.choice.backbone.network
    trained_on = list(dict.fromkeys([data, *judged]))
    if pool is not None:
        require_labels(read[pool])
        trained_on.append(pool)
    require_known_labels(read[test], [read[name] for name in trained_on])
    for name in trained_on:
        loader.groups.check(read[name])
    column = None if loader.groups.searches_copies(read[data]) else loader.groups.column
    _warn_of_other_groups([read[name] for name in trained_on], column, warn)
    for name in judged:
        if "origin" in read[name].table:
            loader.use(["origin"])
    if pool is None:
        _warn_of_pools([read[name] for name in judged], warn)
    truth = _truth(names.truth)
    if truth is not None:
        loader.warned_of_alike(read[data], truth)
    _require_truth(truth, right_labels(read[data], truth), read[data])

    others = [name for name in found if name != data]
    whole, loaded, validation = loader.load_all(
        found[data], [found[name] for name in others], names.validation
    )
    for other in loaded:
        require_same_features(whole, other)
    samples = {data: whole, **dict(zip(others, loaded, strict=True))}
    samples = {name: present(part) for name, part in samples.items()}
    addable = None if pool is None else samples[pool]
    return Loaded(
        samples[data],
        {name: samples[name] for name in judged},
        samples[test],
        addable,
        right_labels(samples[data].manifest, truth),
        None if addable is None else _right_in_pool(samples[data].manifest, addable.manifest, truth),
        validation,
        _shared(loader, {name: samples[name] for name in trained_on}, samples[test], warn),
    )


def _name(part: Given) -> str:
    """What tells one of the sets apart from the others."""
    if isinstance(part, NamedData):
        return part.label
    return part if isinstance(part, str) else manifest_in(part).name


def _truth(given: str | NamedData | Manifest | None) -> Manifest | None:
    if isinstance(given, str):
        given = NamedData(given, EVERY)
    if isinstance(given, NamedData):
        return read_manifest(given.name, labels="optional", reading=given.reading)
    return given


def _require_truth(truth: Manifest | None, right: np.ndarray | None, data: Manifest) -> None:
    """Refuse a table that was given for the truth and only repeats the given labels: all would be right.

    Raises:
        DataError: It has no column of true labels, and its labels are those of DATA.
    """
    if truth is None or right is None or TRUE_LABEL in truth.table or not right.all():
        return
    raise DataError(
        f"{truth.name} has no column {TRUE_LABEL}, and its labels are those of {data.name}: "
        "none would be wrong",
        expected=f"the true labels, in a column {TRUE_LABEL}, or as the labels of corrected DATA",
        hint=f"name the column of true labels {TRUE_LABEL}, or leave --truth out",
    )


def _shared(
    loader: Loader, training: dict[str, Samples], test: Samples, warn: Callable[[str], None]
) -> dict[str, int]:
    """How many test samples are also in each training set, which is told."""
    shared = {}
    for name, samples in training.items():
        shared[name] = shared_samples(samples, test)
        if shared[name]:
            warn(
                f"{shared[name]:,} of the {len(test):,} test samples are also in {name}: "
                "the test flatters what is trained on them"
            )
        loader.groups.warn_of_kin(samples.manifest, test.manifest)
    return shared


def _right_in_pool(data: Manifest, pool: Manifest, truth: Manifest | None) -> np.ndarray | None:
    """Which samples of a pool have their true label, (p,) bool; None where it is not known of all."""
    if truth is not None:
        # Rows of .npz files are found by name: one that both have may be two samples.
        names = [
            {path for path, source in zip(part.table["path"], npz_sources(part), strict=True) if source}
            for part in (data, pool)
        ]
        if names[0] & names[1]:
            return None
    try:
        return right_labels(pool, truth)
    except DataError:
        return None


def _warn_of_pools(manifests: Sequence[Manifest], warn: Callable[[str], None]) -> None:
    """Say which manifests were made from a pool: without it their rivals lack random choices."""
    for manifest in manifests:
        if "origin" in manifest.table:
            added = int((manifest.table["origin"] == "pool").sum())
            if added:
                warn(
                    f"{added:,} samples of {manifest.name} come from a pool (column origin): "
                    "with --pool POOL its rivals include random choices from it"
                )


def _warn_of_other_groups(
    training: Sequence[Manifest], column: str | None, warn: Callable[[str], None]
) -> None:
    """Say which training sets lack the groups of others: learners are tuned otherwise there."""
    grouped = [part.name for part in training if group_numbers(part, column) is not None]
    lacking = [part.name for part in training if column not in part.table]
    if grouped and lacking:
        warn(
            f"no column {column} in {listed(lacking)}, but in {listed(grouped)}: learners are tuned with "
            "groups on some sets and without on others. Add it, or use --group none"
        )
