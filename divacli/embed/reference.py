"""The images that a network's preconditioner is estimated on: the same ones for all data of a command."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from torch import Tensor

from divacli.backbones.linearised.fisher import REFERENCE_IMAGES
from divacli.embed.extract import suited
from divacli.embed.image_loader import load_batches
from divacli.embed.keys import digest_of
from divacli.embed.options import ExtractOptions
from divacli.errors import DataError
from divacli.progress import Progress

if TYPE_CHECKING:
    from divacli.backbones.backbone import Backbone

_BATCH = 16


@dataclass(frozen=True)
class Reference:
    """Some images of a data set, chosen by their content alone.

    Attributes:
        files: Paths (m).
        keys: (m, 32) uint8 their keys, in ascending order.
    """

    files: list[str]
    keys: np.ndarray

    @classmethod
    def of(cls, files: list[str], keys: np.ndarray, readable: np.ndarray) -> Reference:
        """As many images as are needed, each content once: those with the smallest keys.

        A digest is as good as a random number, and the choice does not change with the order of a table.

        Args:
            files: Paths (n).
            keys: (n, 32) uint8.
            readable: (n,) bool, which of them can be read.
        """
        rows = np.flatnonzero(readable)
        _, first = np.unique(keys[rows], axis=0, return_index=True)
        chosen = rows[first[:REFERENCE_IMAGES]]
        return cls([files[row] for row in chosen], keys[chosen])

    @property
    def digest(self) -> str:
        """Of the images' content."""
        return digest_of(self.keys.tobytes())

    def fit(self, backbone: Backbone, options: ExtractOptions, progress: Progress) -> None:
        """Estimate what the gradients of a network are preconditioned by.

        Args:
            backbone: On `options.device`.
            options: How images are loaded.
            progress: Told of every image.

        Raises:
            DataError: None of the images can be decoded.
            ModelError: The network or its transform fails.
        """
        used = 0

        def batches() -> Iterator[Tensor]:
            nonlocal used
            with progress("estimating the Fisher matrix", len(self.files)) as advance:
                for batch in load_batches(
                    self.files,
                    self.keys,
                    backbone.transform,
                    backbone.image_shape,
                    batch_size=_BATCH,
                    workers=options.workers,
                    pinned=False,
                ):
                    good = [i for i, position in enumerate(batch.positions) if position not in batch.reasons]
                    if good:
                        used += len(good)
                        yield batch.images[good].to(options.device)
                    advance(len(batch.positions))
            if not used:
                raise DataError(
                    "none of the images that the preconditioner is to be estimated on can be decoded",
                    expected="images that Pillow can read",
                    hint="name other ones with --reference",
                )

        with suited(options, backbone).arithmetic():
            backbone.fit(batches())
