"""What a file of weights holds, before any image is embedded with it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pandas as pd

from divacli.backbones.look import FoundWeights, Look, look_at
from divacli.curate.inspect import INSPECTION
from divacli.results.result import Target

ENTRIES = "entries"
"""The table of sets of weights."""

FILES = (ENTRIES, f"{INSPECTION}.json")
"""What is always written."""

_SHOWN = (
    *("arch", "architecture", "model", "model_name", "backbone", "epoch", "step", "global_step"),
    *("image_size", "img_size", "imgsz", "input_size", "crop_size", "crop_pct", "resize_size"),
    *("mean", "std", "interpolation", "num_classes", "nc", "classes", "class_names", "names", "version"),
    *("model_type", "hidden_size", "num_labels", "id2label"),
)
"""Settings of a training that say what the network is and how its images were prepared."""


@dataclass(frozen=True)
class CheckpointInspection:
    """What a file of weights holds.

    Attributes:
        look: What was found in it.
    """

    look: Look

    @property
    def summary(self) -> dict[str, Any]:
        """What `inspect.json` holds."""
        look = self.look
        return {
            "checkpoint": str(look.path),
            "kind": look.kind,
            "entries": [asdict(one) for one in look.weights],
            "network": look.network or None,
            "unknown": look.unknown,
            "settings": {name: look.settings[name] for name in _SHOWN if name in look.settings},
            "command": self.command,
        }

    @property
    def command(self) -> str:
        """The command that uses the file."""
        return f"diva score DATA {self.look.options}"

    @property
    def table(self) -> pd.DataFrame:
        """The sets of weights: entry, n_tensors, n_numbers, dtypes, prefix, averaged, last."""
        columns = [field.name for field in fields(FoundWeights)]
        return pd.DataFrame([asdict(one) for one in self.look.weights], columns=columns)

    @property
    def entries(self) -> pd.DataFrame:
        """The same table, by its name."""
        return self.table

    def warnings(self) -> Iterator[str]:
        """Nothing: what is odd is a part of the result."""
        yield from ()

    def write(self, target: Target) -> None:
        """Write the inspection, which is what goes to standard output, and the table of entries."""
        content = json.dumps(self.summary, indent=2, ensure_ascii=False, default=str) + "\n"
        target.text(f"{INSPECTION}.json", content)
        target.records(ENTRIES, self.table)


def inspect_checkpoint(path: Path) -> CheckpointInspection:
    """Find out what a file of weights, an archive or the folder of a Hugging Face model holds.

    Args:
        path: The file or folder.

    Raises:
        ModelError: There is no such file, or it holds no weights.
    """
    return CheckpointInspection(look_at(path))
