"""Samples that show the same thing: equal files, and features too close to be neighbours by chance."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np
import pandas as pd
import torch

from divacli.features import Samples, joined
from divacli.features.samples import order_by_path, require_same_features
from divacli.manifest import Manifest
from divacli.manifest.columns import FEATURE_SOURCE
from divacli.manifest.identity import sample_names
from divacli.parallel import world
from divacli.progress import Progress, silent
from divacli.ridge import near_duplicates
from divacli.solve.groups import DUPLICATES_GROUP

DUPLICATE_COLUMNS = ("set", "path", "label", "kind", "similarity", "conflict")
"""Columns of the table of copies, in order; `feature_source` follows where the samples have one."""

NEAR_SAMPLES = 50_000
"""Samples beyond which almost equal ones are looked for only where that is asked for: it takes minutes."""

_DIGEST = 16
"""Bytes of a digest: enough that two samples never share one by chance."""

_ROWS = 2048


@dataclass(frozen=True)
class Duplicates:
    """Which of n samples are copies of each other, in s sets.

    Copies of copies are in one set. Sets are numbered from 1, those with conflicting labels first, then by
    the first path in them.

    Attributes:
        samples: The samples.
        numbers: (n,) int64 set of each, 0 where it has no copy.
        similarity: (n,) cosine to the closest member of its set, 1 for equal features; NaN without a copy.
        exact: (s,) bool, whether all members are equal: their files, or without files their features.
        conflicts: (s,) bool, whether members have different labels.
    """

    samples: Samples
    numbers: np.ndarray
    similarity: np.ndarray
    exact: np.ndarray
    conflicts: np.ndarray

    @property
    def counts(self) -> dict[str, int]:
        """For a summary: samples that have a copy, sets, and sets with conflicting labels."""
        return {
            "n_duplicates": int((self.numbers > 0).sum()),
            "n_duplicate_sets": len(self.exact),
            "n_conflicting_sets": int(self.conflicts.sum()),
        }

    @property
    def table(self) -> pd.DataFrame:
        """A row for every sample that has a copy, set by set, in a set by path."""
        given = self.samples.manifest.table
        order = np.lexsort((given["path"].to_numpy(str), self.numbers))
        rows = order[self.numbers[order] > 0]
        numbers = self.numbers[rows]
        table = given.iloc[rows].reset_index(drop=True)
        table = table.assign(
            set=numbers,
            kind=pd.Series(np.where(self.exact[numbers - 1], "exact", "near"), dtype="str"),
            similarity=self.similarity[rows],
            conflict=self.conflicts[numbers - 1],
        )
        return table[[*DUPLICATE_COLUMNS, *(name for name in (FEATURE_SOURCE,) if name in given)]]

    def warning(self, groups: torch.Tensor | None) -> str | None:
        """What to tell whoever had copies in training when their losses were computed.

        Args:
            groups: (n,) equal for samples that were left out together; None where each was left out alone.

        Returns:
            None where all members of each set were left out together.
        """
        own = np.arange(len(self.numbers)) if groups is None else groups.numpy()
        table = self.samples.manifest.table[["path", "label"]].assign(set=self.numbers, group=own)
        members = table[table["set"] > 0].sort_values(["set", "path"])
        members = members[members.groupby("set")["group"].transform("nunique") > 1]
        if members.empty:
            return None
        conflicting = members["set"].isin(np.flatnonzero(self.conflicts) + 1)
        n_sets, n_conflicting = (part["set"].nunique() for part in (members, members[conflicting]))
        # Sets with conflicts come first, and of such a set one sample of each label tells what is wrong.
        first = members[members["set"] == members["set"].iloc[0]]
        shown = first.drop_duplicates("label") if n_conflicting else first
        named = " and ".join(
            f"{path} ({label})" for path, label in zip(shown["path"][:2], shown["label"][:2], strict=True)
        )
        return (
            f"{len(members):,} samples are copies of others, in {n_sets:,} sets (labels conflict in "
            f"{n_conflicting:,}), the first: {named}. Leave-one-out losses are optimistic about copies, "
            f"which predict each other: --group {DUPLICATES_GROUP} leaves copies out together"
        )


def find_duplicates(
    samples: Samples, device: torch.device | None = None, progress: Progress = silent, *, near: bool = True
) -> Duplicates:
    """Find the samples that are copies of each other.

    They have equal features (of equal files, for one), or features closer than different samples come by
    chance: see `divacli.ridge.similar.near_duplicates`.

    Args:
        samples: n samples. One that is there twice, in two sets that were joined, is no copy of itself.
        device: Where distances are computed.
        progress: Told how far it is.
        near: Whether to look for almost equal features too, which takes time with the square of n.
    """
    features = _feature_numbers(samples)
    content = features if samples.keys is None else _numbered(samples.keys)
    order = order_by_path(samples).numpy()
    # One of each that are equal, the first by path: a thousand copies of one frame cost no more than it.
    _, first = np.unique(features[order], return_index=True)
    kept = np.sort(order[first])
    in_order = np.searchsorted(kept, order[np.sort(first)])
    joint, distance = np.arange(len(kept)), np.full(len(kept), np.inf)
    if near:
        with progress("comparing samples", len(kept)) as advance:
            found = near_duplicates(
                samples.features.select(kept), torch.from_numpy(in_order), device, done=advance
            )
        joint, distance = found.numbers.numpy(), found.distance.numpy()
    place = np.searchsorted(kept, order[first])[features]
    joint, cosine = joint[place], 1 - distance[place] ** 2 / 2
    similarity = np.where(np.bincount(features)[features] > 1, 1.0, cosine)

    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    several = np.flatnonzero(np.bincount(joint)[joint] > 1)
    copies = samples.select(several)
    labels = copies.manifest.table["label"].replace("", None)  # of an unlabelled pool
    table = pd.DataFrame(
        {
            "rank": rank[several],
            "name": sample_names(copies.manifest),
            "label": labels,
            "content": content[several],
            "joint": joint[several],
        }
    )
    sets = table.groupby("joint")
    about = sets[["name", "label", "content"]].nunique().assign(first=sets["rank"].min())
    about = about[about["name"] > 1].assign(conflict=lambda found: found["label"] > 1)
    about = about.sort_values(["conflict", "first"], ascending=[False, True])
    numbers = 1 + pd.Index(about.index).get_indexer(pd.Index(joint))
    return Duplicates(
        samples,
        numbers.astype(np.int64),
        np.where(numbers > 0, similarity, np.nan),
        (about["content"] == 1).to_numpy(),
        about["conflict"].to_numpy(bool),
    )


def all_together(sets: list[Samples]) -> Samples:
    """Several sets of samples as one, to be searched for copies.

    Raises:
        DivaError: Features of different networks or widths.
    """
    for other in sets[1:]:
        require_same_features(sets[0], other)
    whole = reduce(joined, sets)
    table = whole.manifest.table
    if FEATURE_SOURCE in table:  # of some of the sets, it may be
        table = table.fillna({FEATURE_SOURCE: ""})
    return replace(whole, manifest=replace(whole.manifest, table=table))


def with_sets(sets: list[Samples], found: Duplicates) -> list[Samples]:
    """The same sets of samples with a column that names the copies among all of them, for groups.

    Args:
        sets: Of samples.
        found: The duplicates in all of them together.

    Returns:
        The samples with the column `DUPLICATES_GROUP`: the number of the set as text, "" without a copy.
        Where there are no copies at all, without such a column.
    """
    cells = np.array([str(number) if number else "" for number in found.numbers.tolist()], dtype=object)
    ends = np.cumsum([len(samples) for samples in sets])
    grouped = []
    for samples, own in zip(sets, np.split(cells, ends[:-1]), strict=True):
        table = samples.manifest.table.drop(columns=DUPLICATES_GROUP, errors="ignore")
        if len(found.exact):
            table[DUPLICATES_GROUP] = pd.Series(own, dtype="str")
        grouped.append(replace(samples, manifest=replace(samples.manifest, table=table)))
    return grouped


def with_known_sets(manifest: Manifest, usable: Manifest) -> Manifest:
    """All samples, with the sets of copies that those with features were found to be in.

    Args:
        manifest: All of them.
        usable: Those with features, as of `with_sets`.
    """
    if DUPLICATES_GROUP not in usable.table:
        return manifest
    sets = manifest.table["path"].map(usable.table.set_index("path")[DUPLICATES_GROUP]).fillna("")
    return replace(manifest, table=manifest.table.assign(**{DUPLICATES_GROUP: sets.astype("str")}))


def _feature_numbers(samples: Samples) -> np.ndarray:
    """(n,) equal for equal feature rows."""
    here = world()
    digests = np.zeros((len(samples), _DIGEST), np.uint8)
    for number in here.share_of(-(-len(samples) // _ROWS)):
        part = slice(number * _ROWS, (number + 1) * _ROWS)
        found = (hashlib.blake2b(row, digest_size=_DIGEST).digest() for row in samples.features[part].numpy())
        digests[part] = np.frombuffer(b"".join(found), np.uint8).reshape(-1, _DIGEST)
    here.merged(torch.from_numpy(digests))
    return _numbered(digests)


def _numbered(digests: np.ndarray) -> np.ndarray:
    """(n,) int64 equal for equal digests (n, bytes) uint8, by the order of their first ones."""
    parts = np.ascontiguousarray(digests[:, :_DIGEST]).view([("high", "u8"), ("low", "u8")])[:, 0]
    return pd.factorize(np.unique(parts, return_inverse=True)[1])[0].astype(np.int64)
