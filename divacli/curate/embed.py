"""What `diva embed` makes of DATA: a feature store that holds just its samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from divacli.features import Samples, write_features
from divacli.features.samples import SAMPLES
from divacli.features.write_store import samples_table
from divacli.images.failures import failed_counts
from divacli.results.names import FAILED
from divacli.results.result import Target
from divacli.solve.loader import Given, Loader

FILES = (f"{SAMPLES}.parquet",)
"""What is always written, beside the features."""


@dataclass(frozen=True)
class EmbedResult:
    """Samples with their features.

    Attributes:
        samples: The samples.
        tell: Told of features in the folder that are damaged, and made anew.
    """

    samples: Samples
    tell: Callable[[str], None]

    @property
    def summary(self) -> dict[str, Any]:
        """How many samples and features there are, and what was done for them now."""
        n, d = self.samples.features.shape
        return {
            "n_samples": n,
            "n_features": d,
            "features": self.samples.network or None,
            "n_failed": len(self.samples.failed),
            **failed_counts(self.samples.failed),
            "n_embedded": self.samples.embedded,
            "seconds": {"embed": round(self.samples.seconds, 3)},
        }

    def warnings(self) -> Iterator[str]:
        """Nothing: what there is to know of the samples was said when they were embedded."""
        yield from ()

    def write(self, target: Target) -> None:
        """Write the store and the table of failed samples; of several processes one writes features."""
        samples, origin = self.samples, self.samples.manifest.folder
        table = samples_table(samples)
        if target.folder is not None and target.writes:
            write_features(samples, target.folder, self.tell)
        target.table(SAMPLES, table, origin, main=True, part=True, format="parquet")
        target.table(FAILED, samples.failed, origin, part=True)


def embed_data(loader: Loader, data: Given) -> EmbedResult:
    """Find or compute the features of DATA.

    Args:
        loader: Of this run.
        data: Images.

    Raises:
        DivaError: DATA or the network cannot be used.
    """
    return EmbedResult(loader.load(data), loader.warn)
