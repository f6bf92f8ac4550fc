"""The feature extractor that everything downstream uses, and the one door to it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from divacli.backbones.archive import (
    Archive,
    ExportExtractor,
    ScriptExtractor,
    read_exported,
    read_torchscript,
)
from divacli.backbones.checkpoint import archive_kind, read_checkpoint
from divacli.backbones.clip import CLIP, EMBEDDING, from_clip
from divacli.backbones.factory import factory_file, from_factory
from divacli.backbones.fingerprint import stable_text, tensors_digest, text_digest, weights_digest
from divacli.backbones.inference import CompiledExtractor, folded
from divacli.backbones.layer import Extractor, LayerExtractor, same
from divacli.backbones.linearised.expression import UNCHANGED, Linearize
from divacli.backbones.linearised.tangent import TangentExtractor
from divacli.backbones.module import from_module
from divacli.backbones.onnx_model import OnnxExtractor, OnnxNetwork, read_onnx
from divacli.backbones.source import Source
from divacli.backbones.transform import Transform, imagenet_transform, noise_through, probe_images
from divacli.backbones.userfile import is_user_file
from divacli.backbones.zoo import TIMM, from_timm, from_torchvision
from divacli.errors import ModelError, listed

_EXAMPLES = (
    "--model resnet18 --weights DEFAULT, or --model net.py:make --checkpoint weights.pt, "
    "or --checkpoint model.pt or model.onnx for an exported network"
)


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
    notes: tuple[str, ...]
    n_features: int
    image_shape: tuple[int, ...]
    _extractor: Extractor = field(repr=False)

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
        return _features(self._extractor, images, self.batch_size)

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


def load_backbone(
    model: str | nn.Module | None,
    checkpoint: Path | None = None,
    *,
    weights: str | None = None,
    layer: str | None = None,
    image_size: int | None = None,
    linearize: Linearize = UNCHANGED,
    transform: Transform | None = None,
    key: str = "",
) -> Backbone:
    """Load a network and find its feature layer.

    Args:
        model: A torchvision classification network, `timm:NAME`, `clip:NAME`, or `FILE.py:FACTORY`; or a
            module, of which a copy is taken. None: `checkpoint` is a TorchScript or `torch.export` archive
            or an ONNX file, which holds the network itself.
        checkpoint: Weights in a file of torch or safetensors; told by content, not by suffix.
        weights: In place of a checkpoint, published weights to download, for a name only: "DEFAULT", a member
            of torchvision's weights enum, or a tag of timm.
        layer: The layer whose input is the features. None: the last `nn.Linear` that runs.
        image_size: Side of the square crop, where neither a factory's transform nor the archive fixes it.
        linearize: What features are gradients of; by default none: they are what goes into the layer.
        transform: Of a module, which has none of its own.
        key: What features of a module are known by whose code nobody can look up.

    Returns:
        The backbone on the CPU, tried on a small batch of noise.

    Raises:
        ModelError: For whatever is wrong with the names, files, weights or the network.
    """
    plain = linearize.plain  # refuses what is wrong with it before anything is read or downloaded
    if isinstance(model, nn.Module):
        if weights is not None or image_size is not None:
            raise ModelError(
                "weights or image_size with a module",
                expected="a module with its weights, and a transform that says the size",
                hint="leave them out",
            )
        read = None if checkpoint is None else read_checkpoint(checkpoint)
        source = from_module(model, transform, read, key)
        return _from_source(source, layer, () if read is None else read.notes, linearize)
    if transform is not None:
        raise ModelError(
            f"a transform with {'an archive' if model is None else model}",
            expected="a transform with a torch.nn.Module only: other networks have their own",
            hint="leave the transform out",
        )
    if model is not None and model.startswith(CLIP):
        if not plain:
            raise _not_linearized(linearize, model, "its features are embeddings that texts share")
        others = {"checkpoint": checkpoint, "weights": weights, "layer": layer, "image-size": image_size}
        _check_alone(model, others)
        return _from_source(from_clip(model), EMBEDDING, (), linearize)
    _check_request(model, checkpoint, weights)
    if model is None:
        assert checkpoint is not None
        if not plain:
            raise _not_linearized(linearize, str(checkpoint), "it was exported to be run as it is")
        return _from_archive(checkpoint, layer, image_size)
    read = None if checkpoint is None else read_checkpoint(checkpoint)
    if is_user_file(model):
        source = from_factory(model, read, image_size)
    elif model.startswith(TIMM):
        source = from_timm(model, read, weights, image_size)
    else:
        source = from_torchvision(model, read, weights, image_size)
    return _from_source(source, layer, () if read is None else read.notes, linearize)


def code_note(model: str | nn.Module | None, checkpoint: Path | None) -> str | None:
    """What to say of a network before it is loaded, where that runs code of others; None where it does not.

    Args:
        model: As for `load_backbone`, and so is the other.
        checkpoint: A file.

    Raises:
        ModelError: There is no such file.
    """
    if isinstance(model, nn.Module):
        return None
    if model is not None:
        return factory_file(model).note if is_user_file(model) else None
    if checkpoint is None or archive_kind(checkpoint) in (None, "onnx"):  # ONNX is data, not code
        return None
    return f"{checkpoint} is a whole network, which is run as code: use only files you trust"


def _check_request(model: str | None, checkpoint: Path | None, weights: str | None) -> None:
    if model is None and checkpoint is None:
        raise ModelError(
            "no network to compute features with", expected="--model, --checkpoint", hint=_EXAMPLES
        )
    if checkpoint is not None and weights is not None:
        raise ModelError(
            f"both --checkpoint {checkpoint} and --weights {weights}",
            expected="one of the two",
            hint="leave --weights out to use the file",
        )
    if model is None:
        return
    if is_user_file(model):
        if weights is not None:
            raise ModelError(
                f"--weights {weights} with {model}",
                expected="--weights with a name of torchvision or timm only",
                hint="load the weights in the factory, or give a file with --checkpoint",
            )
    elif checkpoint is None and weights is None:
        raise ModelError(
            f"{model} without weights: random ones give meaningless features",
            expected="--checkpoint FILE or --weights DEFAULT",
            hint=f"--model {model} --weights DEFAULT downloads the published ones",
        )


def _check_alone(model: str, others: Mapping[str, object]) -> None:
    given = [f"--{option} {value}" for option, value in others.items() if value is not None]
    if given:
        raise ModelError(
            f"{listed(given)} with {model}",
            expected="the name alone, which says the weights and the image size; features are the embeddings",
            hint="leave the others out; for weights of your own give the model's folder: --model clip:FOLDER",
        )


def _not_linearized(linearize: Linearize, name: str, reason: str) -> ModelError:
    return ModelError(
        f"--linearize {linearize.expression} with {name}: {reason}",
        expected="a network of torchvision or timm, or of a factory in a Python file",
        hint="leave --linearize out, or name the network with --model and give its state dict",
    )


def _from_source(source: Source, layer: str | None, notes: tuple[str, ...], linearize: Linearize) -> Backbone:
    # Before the probe: some networks change how they print, or their buffers, when they run.
    architecture, digest = text_digest(source.network), weights_digest(source.network.state_dict())
    probe = probe_images(source.transform, 2)
    identity = {**source.identity, "architecture": architecture, "weights": digest}
    notes = (*notes, *source.notes)
    extractor: Extractor
    if linearize.plain:
        extractor = LayerExtractor(source.network, probe, layer)
    else:
        extractor = TangentExtractor(source.network, probe, layer, linearize)
        identity["linearize"] = extractor.text
        notes = (*notes, extractor.note)
    if not source.from_file:
        # Neither a module nor a transform prints its code: what they make of noise tells most changes of it.
        identity["behaviour"] = tensors_digest(
            noise_through(source.transform), _features(extractor, probe, None)
        )
    return _backbone(source.name, source.transform, extractor, probe, None, identity, notes)


def _from_archive(path: Path, layer: str | None, image_size: int | None) -> Backbone:
    kind = archive_kind(path)
    if kind is None:
        raise ModelError(
            f"{path} holds weights without a network; it looks like {read_checkpoint(path).describe()}",
            expected="--model with it, or an archive of TorchScript or torch.export, or an ONNX file",
            hint=f"--model NAME --checkpoint {path}",
        )
    read = {"torchscript": read_torchscript, "export": read_exported, "onnx": read_onnx}[kind]
    archive: Archive = read(path)
    if image_size is not None and archive.image_size not in (None, (image_size, image_size)):
        raise ModelError(
            f"--image-size {image_size} with {path}, which was exported for {archive.image_size}",
            expected="the archive's own size",
            hint="leave --image-size out, or export with a dynamic size",
        )
    transform = imagenet_transform(archive.image_size or image_size or 224, grey=archive.channels == 1)
    probe = probe_images(transform, archive.batch_size or 2)
    notes = archive.notes
    extractor: Extractor
    if isinstance(archive.network, OnnxNetwork):
        extractor = OnnxExtractor(archive.network, probe, layer)
        notes = (*notes, *extractor.notes)
        name = f"{path.name} (ONNX)"
    elif isinstance(archive.network, torch.jit.ScriptModule):
        extractor = ScriptExtractor(archive.network, probe, layer)
        name = f"{path.name} (TorchScript)"
    else:
        extractor = ExportExtractor(archive.network, probe, layer)
        name = f"{path.name} (torch.export)"
    return _backbone(
        name,
        transform,
        extractor,
        probe,
        archive.batch_size,
        {"model": kind, **archive.identity},
        notes,
    )


def _backbone(
    name: str,
    transform: Transform,
    extractor: Extractor,
    probe: Tensor,
    batch_size: int | None,
    identity: dict[str, str],
    notes: tuple[str, ...],
) -> Backbone:
    features = _features(extractor, probe, batch_size)
    if not torch.isfinite(features).all():
        raise ModelError(
            f"{name}: the features of noise are not finite",
            expected="numbers",
            hint="use weights from before the training diverged, or name another layer with --layer",
        )
    if not same(_features(extractor, probe[:1], batch_size), features[:1]):
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
        notes=notes,
        n_features=features.shape[1],
        image_shape=tuple(probe.shape[1:]),
        _extractor=extractor,
    )


def _features(extractor: Extractor, images: Tensor, batch_size: int | None) -> Tensor:
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
