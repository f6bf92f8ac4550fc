"""List the samples of tar shards in the layout of WebDataset as a sample table.

The members of a sample have one name up to the first dot of its last part, which is the sample's key, and are
told apart by what follows that dot: `000017.jpg` with `000017.cls` (github.com/webdataset/webdataset).
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from divacli.errors import DataError, listed
from divacli.files.tar import compressed, members, others, read_member
from divacli.images.kinds import IMAGE_SUFFIXES
from divacli.manifest.listing import check_names

_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
_LABELS = "a label in a .cls member, in a .json member under the key label or cls, or in a .txt member"
_KEYS = ("label", "cls")

# WebDataset's own notes in an archive are no samples.
_NOTE = re.compile(r"__[^/]*__($|/)")


def is_shard(name: str) -> bool:
    """Whether a file, or a pattern of several, is called as tar files are, compressed ones among them."""
    return name.lower().endswith((".tar", *_COMPRESSED))


def shards_in(folder: Path) -> list[str]:
    """Names of the tar files in a folder, compressed ones among them, sorted."""
    return sorted(path.name for path in folder.iterdir() if is_shard(path.name) and path.is_file())


def read_shards(
    folder: Path, shards: Sequence[str], name: str, *, labels_required: bool = True
) -> tuple[pd.DataFrame, list[str]]:
    """List the images of some shards with their labels.

    Args:
        folder: Absolute.
        shards: Paths of the tar files, relative to `folder`.
        name: How messages call them together.
        labels_required: Whether every sample must have a label; else those without have "".

    Returns:
        The table (path relative to `folder`, through the tar file as through a folder, such as
        `shard-000.tar/000017.jpg`, and label), in the order of the shards and of the samples in them, and the
        warnings.

    Raises:
        OSError: A shard cannot be read.
        DataError: A shard is compressed, damaged or cut off, a sample has two images or a label that cannot
            be read, labels are missing, or there are no images.
    """
    paths: list[str] = []
    labels: list[object] = []
    unlabelled: list[str] = []
    unused: Counter[str] = Counter()
    for shard in shards:
        tar = str(folder / shard)
        if tar.lower().endswith(_COMPRESSED):
            raise compressed(tar)
        samples, without_suffix = _samples(members(tar), tar)
        unused["(no suffix)"] += without_suffix
        unused.update(f"({kind})" for member, kind in others(tar) if not _NOTE.match(member))
        for parts in samples.values():
            image = _image(parts, tar)
            of_label, label = _label(parts, tar)
            used = () if image is None else (image, of_label)
            unused.update(f".{suffix}" for suffix in parts if suffix not in used)
            if image is not None:
                paths.append(f"{shard}/{parts[image]}")
                labels.append(label)
                if label is None:
                    unlabelled.append(paths[-1])
    if not paths:
        raise DataError(
            f"{name} has no images ({sum(unused.values()):,} other members in {len(shards):,} shards)",
            expected=f"samples such as 000017.jpg, with {_LABELS}",
        )
    check_names(paths, name)
    if unlabelled and labels_required:
        raise DataError(
            f"{name}: {len(unlabelled):,} of {len(paths):,} samples have no label: {listed(unlabelled)}",
            expected=_LABELS,
            hint="add the labels, or give a table with the columns path (as named here) and label",
        )
    table = pd.DataFrame({"path": pd.Series(paths, dtype="str"), "label": pd.Series(labels, dtype=object)})
    warnings = []
    if left := [f"{suffix} ({count:,})" for suffix, count in sorted(unused.items()) if count]:
        total = f"{unused.total():,} members that are neither images nor labels"
        warnings.append(f"{name}: not used, {total}: {listed(left)}.")
    return table, warnings


def _samples(names: Iterable[str], tar: str) -> tuple[dict[str, dict[str, str]], int]:
    """By key the members of each sample, by what follows the first dot; and how many members have no such."""
    samples: dict[str, dict[str, str]] = {}
    without_suffix = 0
    for name in names:
        if _NOTE.match(name):
            continue
        folder, slash, last = name.rpartition("/")
        key, _, suffix = last.partition(".")
        if not key or not suffix:
            without_suffix += 1
            continue
        parts = samples.setdefault(folder + slash + key, {})
        again = parts.setdefault(suffix.lower(), name)
        if again != name:
            raise DataError(
                f"{tar}: two members of one sample differ only by case: {again} and {name}",
                expected="one member for each suffix",
                hint="write the shard again with different keys",
            )
    return samples, without_suffix


def _image(parts: Mapping[str, str], tar: str) -> str | None:
    """The suffix of a sample's image: one without a dot in it, such as .jpg beside .mask.png, goes first."""
    images = [suffix for suffix in parts if f".{suffix}".endswith(IMAGE_SUFFIXES)]
    images = [suffix for suffix in images if "." not in suffix] or images
    if len(images) > 1:
        raise DataError(
            f"{tar}: one sample has {len(images)} images: {listed([parts[suffix] for suffix in images])}",
            expected="one image in a sample; members with the same name up to the first dot are one sample",
            hint="write the shard again with different keys, without dots in them",
        )
    return images[0] if images else None


def _label(parts: Mapping[str, str], tar: str) -> tuple[str | None, object]:
    """The suffix of the member that holds a sample's label, and the label; None where there is none."""
    if "cls" in parts:
        return "cls", _text(tar, parts["cls"]).strip() or None
    if "json" in parts:
        try:
            record = json.loads(_text(tar, parts["json"]))
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"{tar}/{parts['json']} is not valid JSON: {error}", expected='such as {"label": "cat"}'
            ) from error
        for key in _KEYS:
            if isinstance(record, dict) and record.get(key) not in (None, ""):
                return "json", record[key]
    if "txt" in parts:
        return "txt", _text(tar, parts["txt"]).strip() or None
    return None, None


def _text(tar: str, member: str) -> str:
    try:
        return read_member(tar, member).decode()
    except UnicodeDecodeError as error:
        raise DataError(f"{tar}/{member} is not UTF-8 text", expected=_LABELS) from error
