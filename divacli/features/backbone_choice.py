"""Which network the user means."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from divacli.backbones.linearised.expression import UNCHANGED, Linearize

if TYPE_CHECKING:
    from torch import nn

    from divacli.backbones.backbone import Backbone


class BackboneChoice:
    """The network that a user names, loaded at most once and only when images need it.

    Args:
        model: As for `load_backbone`, and so are the others.
        checkpoint: A file.
        weights: Published weights in its place.
        layer: The layer whose input the features are.
        image_size: Side of the crop.
        linearize: What features are gradients of.
        transform: Of a module.
        key: Of code that nobody can look up.
        entry: Which weights in the checkpoint.
    """

    def __init__(
        self,
        model: str | nn.Module | None = None,
        checkpoint: Path | None = None,
        weights: str | None = None,
        layer: str | None = None,
        image_size: int | None = None,
        linearize: Linearize = UNCHANGED,
        transform: Callable[[Any], Any] | None = None,
        key: str = "",
        entry: str | None = None,
    ) -> None:
        self._arguments = (model, checkpoint, weights, layer, image_size)
        self._entry = entry
        self._transform = transform
        self._key = key
        self.linearize = linearize
        self._tell: Callable[[str], None] = lambda note: None

    def telling(self, tell: Callable[[str], None]) -> BackboneChoice:
        """The same choice, which says of code that it will be run, and of a large file that it is downloaded.

        Args:
            tell: Told so, before it is loaded.
        """
        choice = BackboneChoice(*self._arguments, self.linearize, self._transform, self._key, self._entry)
        choice._tell = tell
        return choice

    @property
    def model(self) -> str | nn.Module | None:
        """The model that was named."""
        return self._arguments[0]

    @property
    def named(self) -> bool:
        """Whether a network was named, in any way."""
        return self.linearize != UNCHANGED or any(argument is not None for argument in self._arguments)

    @cached_property
    def backbone(self) -> Backbone:
        """The network.

        Raises:
            ModelError: It cannot be loaded, or none was named.
        """
        # Features that exist already need no torchvision, which is slow to import and large.
        from divacli.backbones.load import load_backbone, note_before

        model, checkpoint, weights, layer, image_size = self._arguments
        if (note := note_before(model, checkpoint, weights)) is not None:
            self._tell(note)
        return load_backbone(
            model,
            checkpoint,
            weights=weights,
            layer=layer,
            image_size=image_size,
            linearize=self.linearize,
            transform=self._transform,
            key=self._key,
            entry=self._entry,
        )
