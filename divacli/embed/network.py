"""Which network the user means."""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from divacli.backbones.linearised.expression import UNCHANGED, Linearize
from divacli.embed.open import read_data, stored_keys, stored_sources
from divacli.embed.options import ExtractOptions
from divacli.embed.reference import Reference
from divacli.embed.samples import Samples
from divacli.errors import DataError, ModelError
from divacli.progress import Progress

if TYPE_CHECKING:
    from divacli.backbones.backbone import Backbone
    from divacli.embed.augmentation import NamedTransform


class BackboneChoice:
    """The network that a command line names, loaded at most once and only when images need it.

    Args:
        model: As for `load_backbone`, and so are the others.
        checkpoint: A file.
        weights: Published weights in its place.
        layer: The layer whose input the features are.
        image_size: Side of the crop.
        linearize: What features are gradients of.
        reference: DATA that gradients are preconditioned on; None: the first that is embedded.
    """

    def __init__(
        self,
        model: str | None = None,
        checkpoint: Path | None = None,
        weights: str | None = None,
        layer: str | None = None,
        image_size: int | None = None,
        linearize: Linearize = UNCHANGED,
        reference: str | None = None,
    ) -> None:
        self._arguments = (model, checkpoint, weights, layer, image_size)
        self.linearize = linearize
        self._reference_data = reference
        self._tell: Callable[[str], None] = lambda note: None
        self._reference: Reference | None = None

    def telling(self, tell: Callable[[str], None]) -> BackboneChoice:
        """The same choice, which says of a network that is code that it will be run.

        Args:
            tell: Told so, before it is loaded.
        """
        choice = BackboneChoice(*self._arguments, self.linearize, self._reference_data)
        choice._tell = tell
        return choice

    @property
    def model(self) -> str | None:
        """The model that was named."""
        return self._arguments[0]

    @property
    def named(self) -> bool:
        """Whether a network was named, in any way."""
        given = (*self._arguments, self._reference_data)
        return self.linearize != UNCHANGED or any(argument is not None for argument in given)

    @cached_property
    def backbone(self) -> Backbone:
        """The network.

        Raises:
            ModelError: It cannot be loaded, or none was named.
        """
        # Features that exist already need no torchvision, which is slow to import and large.
        from divacli.backbones.backbone import code_note, load_backbone

        model, checkpoint, weights, layer, image_size = self._arguments
        if self._reference_data is not None and self.linearize.precondition == "none":
            raise ModelError(
                f"--reference {self._reference_data} without --precondition: no matrix is estimated",
                expected="--precondition diagonal or kronecker with it",
                hint="leave --reference out, or add --precondition",
            )
        if (note := code_note(model, checkpoint)) is not None:
            self._tell(note)
        return load_backbone(
            model,
            checkpoint,
            weights=weights,
            layer=layer,
            image_size=image_size,
            linearize=self.linearize,
        )

    def reference(
        self, files: list[str], keys: np.ndarray, failed: Collection[int], progress: Progress, cache: Path
    ) -> Reference:
        """What gradients are preconditioned on: the same images however often this is asked.

        Args:
            files: Images that are about to be embedded, which it is taken from unless other DATA was named.
            keys: (n, 32) uint8 their keys.
            failed: Positions of those that cannot be read.
            progress: Told how far it is with reading other DATA.
            cache: Folder that remembers the digests of its files.

        Raises:
            DataError: That DATA holds no images.
        """
        if self._reference is None:
            if self._reference_data is not None:
                opened = read_data(self._reference_data, labels="optional")
                manifest = opened.manifest if isinstance(opened, Samples) else opened
                if stored_sources(manifest) is not None:
                    raise DataError(
                        f"--reference {manifest.name} brings its features: there are no images to look at",
                        expected="a folder or a table of images",
                        hint="give the images that the features were computed from",
                    )
                files = manifest.files()
                keys, failed = stored_keys(files, progress, cache)
            readable = np.array([position not in failed for position in range(len(files))], bool)
            self._reference = Reference.of(files, keys, readable)
        return self._reference

    def fit(self, reference: Reference, options: ExtractOptions, progress: Progress) -> None:
        """Estimate what gradients are preconditioned by, where that was not done yet."""
        if self.backbone.wants_reference:
            reference.fit(self.backbone.to(options.device), options, progress)

    def augmented(self, named: NamedTransform, seed: int) -> BackboneChoice:
        """The same network, loaded once for both, for transformed copies of the images.

        Args:
            named: The transform.
            seed: Of what it draws.
        """
        return _AugmentedChoice(self, named, seed)


class _AugmentedChoice(BackboneChoice):
    def __init__(self, plain: BackboneChoice, named: NamedTransform, seed: int) -> None:
        self._plain = plain
        self._named = named
        self._seed = seed

    @cached_property
    def backbone(self) -> Backbone:
        from divacli.embed.augmentation import augmented

        return augmented(self._plain.backbone, self._named, self._seed)

    def reference(
        self, files: list[str], keys: np.ndarray, failed: Collection[int], progress: Progress, cache: Path
    ) -> Reference:
        return self._plain.reference(files, keys, failed, progress, cache)

    def fit(self, reference: Reference, options: ExtractOptions, progress: Progress) -> None:
        # On the images as they are; the network is one for both.
        self._plain.fit(reference, options, progress)
