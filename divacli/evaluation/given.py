"""What an evaluation is given: read, refused before any work where it does not fit, then embedded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from divacli.embed import Samples, read_data
from divacli.embed.open import require_images
from divacli.embed.samples import require_same_features
from divacli.errors import DataError, listed
from divacli.evaluation.curve import require_labels
from divacli.evaluation.evaluate import present, require_known_labels
from divacli.evaluation.rivals import Pool
from divacli.manifest import Manifest, read_manifest
from divacli.manifest.identity import npz_sources
from divacli.manifest.truth import right_labels
from divacli.solve.groups import group_numbers
from divacli.solve.loader import Loader
from divacli.solve.overlap import shared_samples


@dataclass(frozen=True)
class Names:
    """What is read, as on the command line.

    Attributes:
        data: Everything.
        test: What the error is measured on.
        manifests: What is judged.
        truth: True labels, or None for those of a column.
        pool: What can be added to everything, or None.
        validation: What the scores of a curve are for, or None.
    """

    data: str
    test: str
    manifests: Sequence[str] = ()
    truth: str | None = None
    pool: str | None = None
    validation: str | None = None


@dataclass(frozen=True)
class Given:
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


def load_given(loader: Loader, names: Names, warn: Callable[[str], None], *, images_required: bool) -> Given:
    """Read everything, refuse what does not fit before any work, and find the features.

    Args:
        loader: Finds features.
        names: What is read.
        warn: Told what the user should know.
        images_required: Whether there must be images and a network that can be trained.

    Raises:
        DataError: Something does not fit.
    """
    opened = {name: read_data(name) for name in (names.data, names.test, *names.manifests)}
    if names.pool is not None:
        opened.setdefault(names.pool, read_data(names.pool, labels="optional"))
    read = {name: part.manifest if isinstance(part, Samples) else part for name, part in opened.items()}
    if images_required:
        for manifest in read.values():
            require_images(manifest)
        # Asked for before any work, too.
        _ = loader.choice.backbone.network
    trained_on = list(dict.fromkeys([names.data, *names.manifests]))
    if names.pool is not None:
        require_labels(read[names.pool])
        trained_on.append(names.pool)
    require_known_labels(read[names.test], [read[name] for name in trained_on])
    for name in trained_on:
        loader.check_groups(read[name])
    column = None if loader.searches_copies(read[names.data]) else loader.group_column
    _warn_of_other_groups([read[name] for name in trained_on], column, warn)
    for name in names.manifests:
        if "origin" in read[name].table:
            loader.use(read[name], ["origin"])
    if names.pool is None:
        _warn_of_pools([read[name] for name in names.manifests], warn)
    truth = None if names.truth is None else read_manifest(names.truth, labels="optional")
    if truth is not None:
        loader.warned_of_alike(read[names.data], truth)
    right_labels(read[names.data], truth)

    others = [name for name in opened if name != names.data]
    whole, loaded, validation = loader.load_all(
        opened[names.data], [opened[name] for name in others], names.validation
    )
    for other in loaded:
        require_same_features(whole, other)
    found = {
        names.data: present(whole),
        **{name: present(part) for name, part in zip(others, loaded, strict=True)},
    }
    pool = None if names.pool is None else found[names.pool]
    return Given(
        found[names.data],
        {name: found[name] for name in names.manifests},
        found[names.test],
        pool,
        right_labels(found[names.data].manifest, truth),
        None if pool is None else _right_in_pool(found[names.data].manifest, pool.manifest, truth),
        validation,
        _shared(loader, {name: found[name] for name in trained_on}, found[names.test], warn),
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
        loader.warned_of_kin(samples.manifest, test.manifest)
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
