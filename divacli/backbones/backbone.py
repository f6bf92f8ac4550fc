"""The feature extractor that everything downstream uses."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from divacli.backbones.fingerprint import stable_text
from divacli.backbones.hub.model_folder import EMBEDDING
from divacli.backbones.inference import CompiledExtractor, folded
from divacli.backbones.layer import OUTPUT, Extractor, LayerExtractor, same
from divacli.backbones.linearised.tangent import TangentExtractor
from divacli.backbones.transform import Transform
from divacli.errors import ModelError


@dataclass
class Backbone:
    """A network that turns images into features.

    Attributes:
        name: Short, for people: "mobilenet_v2", "net.py:make", "model.pt (TorchScript)".
        transform: From an RGB PIL image to a float tensor (3, h, w). Those of torchvision and timm can be
            pickled.
        head: (K, d) weight and (K,) bias of the layer that takes the features, where that layer's output is
            the network's own (checked on numbers), else None.
        layer: Name of the layer whose input the features are.
        batch_size: The largest batch `features` takes, where an exported archive fixes one, else None.
        identity: Everything that the features depend on, as text; equal on every machine.
        title: The network with its library, for people.
        weights: Where its weights are from, for people.
        notes: Sentences for the user about what was changed or assumed.
        n_features: Length d of a feature vector.
        image_shape: (3, h, w) of what `transform` gives.
    """

    name: str
    transform: Transform
    head: tuple[Tensor, Tensor] | None = field(repr=False)
    layer: str
    batch_size: int | None
    identity: dict[str, str]
    title: str
    weights: str
    notes: tuple[str, ...]
    n_features: int
    image_shape: tuple[int, ...]
    _extractor: Extractor = field(repr=False)

    @property
    def sentence(self) -> str:
        """Say what the features are."""
        count = f"{self.n_features:,} numbers that"
        if self.linearized:
            what = f"{self.n_features:,} numbers, gradients of {self.title} among them"
        elif self.layer == OUTPUT:
            what = f"the {count} {self.title} gives"
        elif self.layer == EMBEDDING:
            what = f"the {count} {self.title} embeds an image in"
        elif self.identity.get("model") == "onnx":
            what = f"the {self.n_features:,} numbers of the tensor {self.layer} in {self.title}"
        else:
            what = f"{count} enter {self.layer} of {self.title}"
        return f"features: {what}; weights: {self.weights}"

    @property
    def said(self) -> tuple[str, ...]:
        """All that the user should know: what the features are, and the notes."""
        return self.sentence, *self.notes

    def features(self, images: Tensor) -> Tensor:
        """Return the features of a batch of images, in evaluation mode and without gradients.

        A layer's input (b, d) is taken as it is, (b, tokens, d) averaged over the tokens, and (b, d, h, w)
        over space; a linear layer's (b, h, w, d) likewise.

        Args:
            images: (b, 3, h, w) float on the backbone's device, from `transform`, in any memory format.

        Returns:
            (b, d) float32, under autocast too.

        Raises:
            ModelError: More images than the fixed batch size, or the network fails on them.
        """
        return batch_features(self._extractor, images, self.batch_size)

    @property
    def network(self) -> nn.Module:
        """The network itself, for training: `features` follows its parameters, `head` and `identity` do not.

        Raises:
            ModelError: It is an exported archive.
        """
        if isinstance(self._extractor, LayerExtractor):
            return self._extractor.network
        if self.linearized:
            raise ModelError(
                f"{self.name} is linearised: its features are gradients, which are not trained",
                expected="the network by itself",
                hint="leave --linearize out",
            )
        raise ModelError(
            f"{self.name} was exported to be run, not trained",
            expected="a network of torchvision or timm, or of a factory in a Python file",
            hint="name the network with --model and give its state dict with --checkpoint",
        )

    @property
    def linearized(self) -> bool:
        """Whether features are gradients of the network."""
        return isinstance(self._extractor, TangentExtractor)

    def for_inference(self, *, compiled: bool = False) -> Backbone:
        """The same backbone made fast, for images in channels-last memory.

        Batch norms are folded into convolutions, which changes the features' last digits only. An exported
        archive stays as it is.

        Args:
            compiled: By `torch.compile` too, at the first batch of each size.
        """
        if not isinstance(self._extractor, LayerExtractor):
            return self
        parameter = next(self._extractor.network.parameters(), torch.empty(0))
        images = torch.randn((2, *self.image_shape), generator=torch.Generator().manual_seed(1))
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):  # features are compared
            extractor = folded(self._extractor, images.to(parameter.device))
        return replace(self, _extractor=CompiledExtractor(extractor) if compiled else extractor)

    def to(self, device: torch.device | str) -> Backbone:
        """Move the network and its head to a device; returns itself."""
        device = torch.device(device)
        self._extractor.to(device)
        if self.head is not None:
            self.head = (self.head[0].to(device), self.head[1].to(device))
        return self


def tried_backbone(
    extractor: Extractor,
    probe: Tensor,
    *,
    name: str,
    title: str,
    weights: str,
    transform: Transform,
    batch_size: int | None = None,
    identity: dict[str, str],
    notes: tuple[str, ...],
) -> Backbone:
    """Return the backbone of an extractor, tried on noise.

    Args:
        extractor: On the CPU.
        probe: (b, c, h, w) images of noise, as `transform` gives them.
        name: As the attributes of `Backbone`, and so are the others.
        title: The network with its library.
        weights: Where its weights are from.
        transform: Of the images.
        batch_size: The only one it takes; None: any.
        identity: Without layer and transform, which are added.
        notes: Sentences for the user.

    Raises:
        ModelError: Features are not finite, or depend on the other images of the batch.
    """
    features = batch_features(extractor, probe, batch_size)
    if not torch.isfinite(features).all():
        raise ModelError(
            f"{name}: the features of noise are not finite",
            expected="numbers",
            hint="use weights from before the training diverged, or name another layer with --layer",
        )
    if not same(batch_features(extractor, probe[:1], batch_size), features[:1]):
        raise ModelError(
            f"{name}: the features of an image change with the others in its batch, or from run to run",
            expected="a network in evaluation mode",
            hint="call model.eval() before exporting; in a factory, use no batch statistics and no dropout",
        )
    return Backbone(
        name=name,
        transform=transform,
        head=extractor.head,
        layer=extractor.layer,
        batch_size=batch_size,
        identity={**identity, "layer": extractor.layer, "transform": stable_text(transform)},
        title=title,
        weights=weights,
        notes=notes,
        n_features=features.shape[1],
        image_shape=tuple(probe.shape[1:]),
        _extractor=extractor,
    )


def batch_features(extractor: Extractor, images: Tensor, batch_size: int | None) -> Tensor:
    """Return the features (b, d) of images (b, c, h, w) by an extractor that may take one batch size only."""
    n = len(images)
    if batch_size is not None:
        if n > batch_size:
            raise ModelError(
                f"{n} images for a network exported for batches of {batch_size}",
                expected=f"at most {batch_size}",
                hint=f"--batch-size {batch_size}, or export with a dynamic batch size",
            )
        # The rows that fill the batch up are dropped again: rows do not depend on each other.
        images = torch.cat([images, images.new_zeros((batch_size - n, *images.shape[1:]))])
    return extractor(images)[:n]
