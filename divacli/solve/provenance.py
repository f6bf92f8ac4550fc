"""What a result was made from, and on what: the part that every summary shares."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping
from dataclasses import astuple, replace
from typing import Any

import numpy as np
import torch

from divacli.features import Samples
from divacli.features.keys import digest_of_all
from divacli.manifest import Manifest
from divacli.solve.groups import group_count, group_names
from divacli.solve.ridge_problem import SolveOptions
from divacli.version import __version__


def provenance(samples: Samples, options: SolveOptions, *others: Samples | None) -> dict[str, Any]:
    """Features, groups, device, dtype, versions, and a digest of the data and of how the problem was posed.

    Args:
        samples: The training samples.
        options: How the problem is posed.
        others: Further sets of samples that the result depends on.
    """
    return {
        "features": samples.network or None,
        **grouping(samples.manifest, options),
        "device": str(options.device),
        "dtype": str(options.dtype).removeprefix("torch."),
        "versions": {
            "divacli": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "numpy": np.__version__,
        },
        "fingerprint": _fingerprint(samples, options, *others),
    }


def grouping(manifest: Manifest, options: SolveOptions) -> dict[str, Any]:
    """The column whose equal values were left out together, and how many groups that makes; None without.

    Args:
        manifest: The training samples.
        options: How the problem is posed.
    """
    count = group_count(manifest, options.group)
    return {"group": None if count is None else options.group, "n_groups": count}


def left_out(about: Mapping[str, Any]) -> str:
    """What a loss is called after what is left out: "leave-one-out" or "leave-group-out".

    Args:
        about: A summary, or what `grouping` says.
    """
    return "leave-one-out" if about["group"] is None else "leave-group-out"


def _fingerprint(samples: Samples, options: SolveOptions, *others: Samples | None) -> str:
    def parts() -> Iterator[str]:
        yield repr(astuple(replace(options, device=torch.device("cpu"))))
        for part in (samples, *others):
            if part is not None:
                table = part.manifest.table
                yield part.fingerprint
                yield from table["label"]
                yield from (f"{weight!r}" for weight in table["weight"])
                if options.group is not None and options.group in table:
                    yield from group_names(table[options.group])

    return digest_of_all(part.encode() for part in parts())
