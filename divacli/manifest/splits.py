"""Which parts of a data set are read, where it has several."""

from __future__ import annotations

from collections.abc import Mapping

from divacli.errors import Advice, DataError, listed
from divacli.manifest.reading import ALL, NONE, Reading


def require_split(name: str, splits: Mapping[str, int], reading: Reading, example: str) -> tuple[str, ...]:
    """Choose the splits that are read.

    Args:
        name: How messages call the data set.
        splits: Samples of each split, by its name.
        reading: What the user has chosen.
        example: The split that advice names.

    Returns:
        Their names, in the order of `splits`; of one alone nothing need be chosen.

    Raises:
        DataError: There are several and none is chosen, or a chosen one is not there.
    """
    counted = listed([f"{split} ({splits[split]:,})" for split in sorted(splits)], limit=12)
    got = f"{name} has {len(splits):,} splits: {counted}"
    advice = Advice(f"choose one with {{split}} {example}")
    if not reading.split and len(splits) > 1:
        raise DataError(got, expected="one of them, or all", hint=advice)
    if not reading.split or reading.split in ((ALL,), (NONE,)):
        return tuple(splits)
    if missing := [split for split in reading.split if split not in splits]:
        raise DataError(f"{got}, and none is called {listed(missing)}", expected="one of them", hint=advice)
    return tuple(split for split in splits if split in reading.split)
