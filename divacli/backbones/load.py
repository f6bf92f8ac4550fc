"""Load the network that the user names: the one door to all kinds of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Literal

import torch
from torch import nn

from divacli.backbones.archive import (
    Archive,
    ExportExtractor,
    ScriptExtractor,
    read_exported,
    read_torchscript,
)
from divacli.backbones.backbone import Backbone, batch_features, tried_backbone
from divacli.backbones.checkpoint import archive_kind, read_checkpoint
from divacli.backbones.factory import factory_file, from_factory
from divacli.backbones.feature_layer import with_feature_layer
from divacli.backbones.fingerprint import tensors_digest, text_digest, weights_digest
from divacli.backbones.hub.clip import CLIP, from_clip
from divacli.backbones.hub.huggingface import HF, from_huggingface, huggingface_folder
from divacli.backbones.layer import Extractor, LayerExtractor
from divacli.backbones.linearised.expression import UNCHANGED, Linearize
from divacli.backbones.linearised.tangent import TangentExtractor
from divacli.backbones.module import from_module
from divacli.backbones.onnx_model import OnnxExtractor, OnnxNetwork, read_onnx
from divacli.backbones.recognise import recognised
from divacli.backbones.source import Source
from divacli.backbones.timm_zoo import TIMM, from_timm
from divacli.backbones.torchvision_zoo import DEFAULT_MODEL, DEFAULT_WEIGHTS, default_note, from_torchvision
from divacli.backbones.transform import Transform, imagenet_transform, noise_through, probe_images
from divacli.backbones.userfile import is_user_file
from divacli.errors import ModelError, listed

_EXAMPLES = (
    "--model resnet18 --weights DEFAULT, or --model net.py:make --checkpoint weights.pt, "
    "or --checkpoint model.pt or model.onnx for an exported network"
)


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
    entry: str | None = None,
) -> Backbone:
    """Load a network and find its feature layer.

    Args:
        model: A torchvision classification network, `timm:NAME`, `hf:NAME`, `clip:NAME`, or
            `FILE.py:FACTORY`; or a module, of which a copy is taken. None: the network is the one in
            `checkpoint`, an archive of TorchScript or `torch.export`, an ONNX file or the folder of a Hugging
            Face model, or the one that its weights are recognised as; without a checkpoint `DEFAULT_MODEL`.
        checkpoint: Weights in a file of torch or safetensors; told by content, not by suffix.
        weights: In place of a checkpoint, published weights to download, for a name only: "DEFAULT", a member
            of torchvision's weights enum, or a tag of timm.
        layer: The layer whose input is the features. None: as `with_feature_layer` finds it.
        image_size: Side of the square crop, where neither a factory's transform nor the archive fixes it.
        linearize: What features are gradients of; by default none: they are what goes into the layer.
        transform: Of a module, which has none of its own.
        key: What features of a module are known by whose code nobody can look up.
        entry: Which of several sets of weights in the checkpoint is meant; None: the one that fits.

    Returns:
        The backbone on the CPU, tried on a small batch of noise.

    Raises:
        ModelError: For whatever is wrong with the names, files, weights or the network.
    """
    _ = linearize.plain  # refuses what is wrong with it before anything is read or downloaded
    if isinstance(model, nn.Module):
        if weights is not None or image_size is not None:
            raise ModelError(
                "weights or image_size with a module",
                expected="a module with its weights, and a transform that says the size",
                hint="leave them out",
            )
        read = None if checkpoint is None else read_checkpoint(checkpoint, entry)
        return _from_source(from_module(model, transform, read, key), layer, linearize)
    if transform is not None:
        raise ModelError(
            f"a transform with {'an archive' if model is None else model}",
            expected="a transform with a torch.nn.Module only: other networks have their own",
            hint="leave the transform out",
        )
    notes: tuple[str, ...] = ()
    if model is None and checkpoint is not None and (folder := huggingface_folder(checkpoint)) is not None:
        notes = (f"{checkpoint} is a Hugging Face network: read as --model {HF}{folder}",)
        model, checkpoint = f"{HF}{folder}", None
    if model is not None and model.startswith((CLIP, HF)):
        others = {"checkpoint": checkpoint, "entry": entry, "weights": weights, "image-size": image_size}
        source = _of_hub(model, others, layer, linearize)
        return _from_source(replace(source, notes=(*notes, *source.notes)), layer, linearize)
    if model is None and checkpoint is None and weights is None:
        model, weights = DEFAULT_MODEL, DEFAULT_WEIGHTS
    _check_request(model, checkpoint, weights, entry)
    kind = None if model is not None or checkpoint is None else archive_kind(checkpoint)
    if kind is not None and checkpoint is not None:
        _check_archive(checkpoint, entry, linearize)
        return _from_archive(checkpoint, kind, layer, image_size)
    return _from_source(_of_weights(model, checkpoint, weights, image_size, entry), layer, linearize)


def _of_hub(model: str, others: Mapping[str, object], layer: str | None, linearize: Linearize) -> Source:
    """A network of transformers, which comes with its weights."""
    if model.startswith(CLIP):
        if not linearize.plain:
            raise _not_linearized(linearize, model, "its features are embeddings that texts share")
        _check_alone(model, {**others, "layer": layer})
        return from_clip(model)
    _check_alone(model, others)
    source = from_huggingface(model)
    if not linearize.plain and source.headless:
        raise _not_linearized(linearize, model, "it has no classifier")
    return source


def _of_weights(
    model: str | None,
    checkpoint: Path | None,
    weights: str | None,
    image_size: int | None,
    entry: str | None,
) -> Source:
    """A network whose code is at hand, with the weights of a file or published ones."""
    read = None if checkpoint is None else read_checkpoint(checkpoint, entry)
    if model is None:
        assert read is not None
        model = recognised(read)
    if is_user_file(model):
        return from_factory(model, read, image_size)
    if model.startswith(TIMM):
        return from_timm(model, read, weights, image_size)
    return from_torchvision(model, read, weights, image_size)


def note_before(model: str | nn.Module | None, checkpoint: Path | None, weights: str | None) -> str | None:
    """What to say of a network before it is loaded: what runs, is downloaded, or takes a while; or None.

    Args:
        model: As for `load_backbone`, and so are the others.
        checkpoint: A file.
        weights: Published weights.

    Raises:
        ModelError: There is no such file.
    """
    if isinstance(model, nn.Module):
        return None
    if model is not None:
        return factory_file(model).note if is_user_file(model) else None
    if checkpoint is None:
        return None if weights is not None else default_note()
    if huggingface_folder(checkpoint):
        return None
    kind = archive_kind(checkpoint)
    if kind is None:
        return f"{checkpoint}: no network was named: it is looked for among those of torchvision and timm"
    if kind == "onnx":  # data, not code
        return None
    return f"{checkpoint} is a whole network, which is run as code: use only files you trust"


def _check_archive(checkpoint: Path, entry: str | None, linearize: Linearize) -> None:
    if not linearize.plain:
        raise _not_linearized(linearize, str(checkpoint), "it was exported to be run as it is")
    if entry is not None:
        raise ModelError(
            f"--entry {entry} with {checkpoint}, which holds a whole network",
            expected="--entry with a file of weights",
            hint="leave --entry out",
        )


def _check_request(
    model: str | None, checkpoint: Path | None, weights: str | None, entry: str | None
) -> None:
    if entry is not None and checkpoint is None:
        raise ModelError(
            f"--entry {entry} without a file", expected="--checkpoint with it", hint="leave --entry out"
        )
    if model is None and checkpoint is None:
        raise ModelError(f"--weights {weights} without a network", expected="--model with it", hint=_EXAMPLES)
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
            expected="the name alone, which says the weights, the image size and what the features are",
            hint="leave the others out; for weights of your own give the model's folder: "
            f"--model {model.partition(':')[0]}:FOLDER",
        )


def _not_linearized(linearize: Linearize, name: str, reason: str) -> ModelError:
    return ModelError(
        f"--linearize {linearize.expression} with {name}: {reason}",
        expected="a network of torchvision or timm, or of a factory in a Python file",
        hint="leave --linearize out, or name the network with --model and give its state dict",
    )


def _from_source(source: Source, layer: str | None, linearize: Linearize) -> Backbone:
    # Before the probe: some networks change how they print, or their buffers, when they run.
    architecture, digest = text_digest(source.network), weights_digest(source.network.state_dict())
    probe = probe_images(source.transform, 2)
    identity = {**source.identity, "architecture": architecture, "weights": digest}
    notes = source.notes
    if layer is None and source.headless:
        layer = source.head
    network, layer = with_feature_layer(source.network.eval(), probe, layer, source.head)
    extractor: Extractor
    if linearize.plain:
        extractor = LayerExtractor(network, probe, layer)
    else:
        extractor = TangentExtractor(network, probe, layer, linearize)
        identity["linearize"] = extractor.text
        notes = (*notes, extractor.note)
    if not source.from_file:
        # Neither a module nor a transform prints its code: what they make of noise tells most changes of it.
        identity["behaviour"] = tensors_digest(
            noise_through(source.transform), batch_features(extractor, probe, None)
        )
    made = tried_backbone(
        extractor,
        probe,
        name=source.name,
        title=source.title,
        weights=source.weights,
        transform=source.transform,
        identity=identity,
        notes=notes,
    )
    return replace(made, head=None) if source.headless else made


def _from_archive(
    path: Path,
    kind: Literal["torchscript", "export", "onnx"],
    layer: str | None,
    image_size: int | None,
) -> Backbone:
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
    return tried_backbone(
        extractor,
        probe,
        name=name,
        title=name,
        weights="in the same file",
        transform=transform,
        batch_size=archive.batch_size,
        identity={"model": kind, **archive.identity},
        notes=notes,
    )
