"""Images of a manifest in batches, in any order, on the device that a network is on."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from divacli.backbones.backbone import Backbone
from divacli.features.image_loader import load_batches
from divacli.features.keys import content_keys, digest_of
from divacli.features.read import require_images
from divacli.features.samples import failures_of, undecodable
from divacli.features.set_range import range_of
from divacli.manifest import Manifest
from divacli.progress import Progress


class ImageBatches:
    """The images of a manifest as a network takes them.

    Args:
        manifest: The samples.
        backbone: Whose transform prepares them.
        device: Where they go.
        batch_size: Images at a time.
        workers: Processes that decode; None: one a core.
        progress: Told of every file that was read.

    Attributes:
        manifest: The samples.
        keys: (n, 32) uint8 digest of each file.
        failed: The reason for each row that is known to be of no use.

    Raises:
        DataError: The samples bring their features.
    """

    def __init__(
        self,
        manifest: Manifest,
        backbone: Backbone,
        device: torch.device,
        batch_size: int,
        workers: int | None,
        progress: Progress,
    ) -> None:
        require_images(manifest)
        self.manifest = manifest
        self._files = np.array(manifest.files(), dtype=object)
        self._pixels = range_of(manifest)
        self.keys, self.failed = content_keys(self._files.tolist(), progress)
        self._backbone, self._device = backbone, device
        self._batch_size, self._workers = batch_size, workers

    @property
    def usable(self) -> np.ndarray:
        """Numbers of the rows that have not failed, (m,) int64."""
        return np.flatnonzero([row not in self.failed for row in range(len(self._files))])

    @property
    def fingerprint(self) -> str:
        """Digest of the images, their labels and weights, and the range of their pixels."""
        table = self.manifest.table
        texts = [*table["path"], *table["label"], *(f"{weight!r}" for weight in table["weight"])]
        pixels = [self._pixels.text.encode()] if self._pixels.text else []
        return digest_of(self.keys.tobytes(), *(text.encode() for text in texts), *pixels)

    def batches(self, rows: np.ndarray, *, lenient: bool = False) -> Iterator[tuple[Tensor, Tensor]]:
        """The images of some rows, in their order.

        Args:
            rows: (m,) row numbers.
            lenient: Leave images that cannot be used out and add them to `failed`.

        Yields:
            Row numbers (b,) int64 and images (b, 3, h, w) on the device; b is at most the batch size.

        Raises:
            DataError: An image cannot be used.
            ModelError: The transform or a process that decodes fails.
        """
        cuda = self._device.type == "cuda"
        loaded = load_batches(
            self._files[rows].tolist(),
            self.keys[rows],
            self._backbone.transform,
            self._backbone.image_shape,
            batch_size=self._batch_size,
            workers=self._workers,
            pinned=cuda,
            pixels=self._pixels,
        )
        for batch in loaded:
            here, images = torch.from_numpy(rows[batch.positions]), batch.images
            if batch.reasons:
                reasons = {int(rows[position]): reason for position, reason in batch.reasons.items()}
                if not lenient:
                    raise undecodable(failures_of(self.manifest, reasons), self.manifest.name)
                self.failed |= reasons
                good = torch.tensor([int(row) not in reasons for row in here])
                here, images = here[good], images[good]
            if len(here):
                layout = torch.channels_last if cuda else torch.preserve_format
                yield here, images.to(self._device, non_blocking=True, memory_format=layout)
