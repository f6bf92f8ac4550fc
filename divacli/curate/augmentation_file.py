"""The file of `diva augment`: the probability of each transform, and the same as code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import yaml

from divacli.features.augmentation import NamedTransform, named_apart

UNTOUCHED = "untouched"
"""What the images without a transform are called among the transforms."""

_DIGITS = 4
"""Decimals of written probabilities."""

_HEAD = """\
# How often each transform of the training images is worth it, as `diva augment` found.
# untouched: probability that an image stays as it is. snippet: the same as code.
"""


def document_of(transforms: Sequence[NamedTransform], probabilities: np.ndarray) -> dict[str, Any]:
    """What the file holds: `untouched`, `transforms` and `snippet`, in plain types.

    Args:
        transforms: (T,).
        probabilities: (T + 1,) theirs, that of no transform first.
    """
    chances = _rounded(probabilities)
    named = named_apart(transforms)
    return {
        UNTOUCHED: chances[0],
        "transforms": [
            {"name": one.name, "probability": chance, "code": one.code, "imports": one.imports}
            for one, chance in zip(named, chances[1:], strict=True)
        ],
        "snippet": snippet(named, chances),
    }


def as_yaml(document: dict[str, Any]) -> str:
    """The text of the file."""
    return _HEAD + yaml.dump(document, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)


def snippet(transforms: Sequence[NamedTransform], chances: Sequence[float]) -> str:
    """Python code of a `torchvision.transforms.v2` transform that draws one of the transforms.

    Args:
        transforms: (T,), named apart.
        chances: (T + 1,) their probabilities, that of no transform first. Those of 0 are left out.
    """
    named_used = [
        (named, chance) for named, chance in zip(transforms, chances[1:], strict=True) if chance > 0
    ]
    used = [("v2.Identity()", chances[0])] if chances[0] > 0 else []
    used += [(named.code, chance) for named, chance in named_used]
    files = dict.fromkeys(named.source.path for named, _ in named_used if named.source is not None)
    imports = [named.imports for named, _ in named_used]
    return "\n".join(
        [
            *(
                f"# {file} must be importable: beside your script, or in a folder of PYTHONPATH"
                for file in files
            ),
            *dict.fromkeys(["from torchvision.transforms import v2", *imports]),
            "",
            "augmentation = v2.RandomChoice(",
            "    [",
            *(f"        {code}," for code, _ in used),
            "    ],",
            f"    p=[{', '.join(f'{chance:g}' for _, chance in used)}],",
            ")",
            "",
        ]
    )


def _rounded(values: np.ndarray) -> list[float]:
    """Probabilities with few decimals that still add up to 1."""
    rounded = values.round(_DIGITS)
    rounded[rounded.argmax()] += 1 - rounded.sum()
    return [float(value) for value in rounded.round(_DIGITS)]


class _Dumper(yaml.SafeDumper):
    """Writes text of several lines as such."""


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


_Dumper.add_representer(str, _text)
