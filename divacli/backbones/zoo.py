"""Build networks by name: torchvision's classification models and timm's."""

from __future__ import annotations

import difflib
import http.client
from collections.abc import Callable
from importlib.metadata import version

from torch import nn
from torchvision import models

from divacli.backbones.checkpoint import Checkpoint, first_line, load_weights
from divacli.backbones.identify import IMAGENET_CLASSES
from divacli.backbones.shapes import build_torchvision, head_tensors, torchvision_names
from divacli.backbones.source import Source
from divacli.backbones.transform import preset_transform
from divacli.errors import ModelError, listed

TIMM = "timm:"


def from_torchvision(
    name: str, checkpoint: Checkpoint | None, weights: str | None, image_size: int | None
) -> Source:
    """Build a torchvision classification network.

    Args:
        name: Such as "resnet18".
        checkpoint: Its weights; the head gets as many classes as these have.
        weights: In place of a checkpoint, the published weights to download: "DEFAULT" or a member of the
            network's weights enum.
        image_size: Side of the crop; None: that of the weights' own transform.

    Raises:
        ModelError: No such network or weights, the download fails, or the checkpoint does not fit.
    """
    if name not in torchvision_names():
        raise _unknown(name, torchvision_names(), "torchvision classification network")
    published = models.get_model_weights(name)
    if checkpoint is not None:
        network, notes = _fitted(
            lambda n_classes: build_torchvision(name, n_classes, checkpoint.weights), checkpoint, name
        )
        member = published.DEFAULT
    else:
        members = list(dict.fromkeys(["DEFAULT", *published.__members__]))
        if weights not in members:
            raise _wrong_weights(name, weights, members)
        member = published[weights]
        network, notes = _downloaded(lambda: models.get_model(name, weights=member), name, member.url), ()
    return Source(
        name=name,
        network=network,
        transform=preset_transform(member.transforms(), image_size),
        identity={"model": name, "torchvision": _release("torchvision")},
        notes=notes,
    )


def from_timm(
    model: str, checkpoint: Checkpoint | None, weights: str | None, image_size: int | None
) -> Source:
    """Build a network of timm.

    Args:
        model: Such as "timm:vit_tiny_patch16_224".
        checkpoint: Its weights; the head gets as many classes as these have.
        weights: In place of a checkpoint, the published weights to download: "DEFAULT" or a tag of timm.
        image_size: Side of the crop; None: that of the network's own transform.

    Raises:
        ModelError: timm is not installed, has no such network or weights, the download fails, or the
            checkpoint does not fit.
    """
    try:
        import timm
        from timm.data import create_transform, resolve_data_config
    except ImportError as error:
        raise ModelError(
            f"{model} needs timm, which is not installed", hint="pip install 'divacli[timm]'"
        ) from error
    name = model.removeprefix(TIMM)
    if not timm.is_model(name):
        raise _unknown(name, timm.list_models(), "timm network")
    if checkpoint is not None:
        network, notes = _fitted(
            lambda n_classes: timm.create_model(name, num_classes=n_classes), checkpoint, model
        )
    else:
        tagged = name if weights == "DEFAULT" else f"{name}.{weights}"
        tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name.partition('.')[0]}.*")]
        if weights != "DEFAULT" and weights not in tags:
            raise _wrong_weights(model, weights, tags)
        address = f"https://huggingface.co/timm/{tagged}"
        network, notes = _downloaded(lambda: timm.create_model(tagged, pretrained=True), model, address), ()
    config = resolve_data_config({}, model=network)
    if image_size is not None:
        config["input_size"] = (3, image_size, image_size)
    return Source(
        name=model,
        network=network,
        transform=create_transform(**config, is_training=False),
        identity={"model": model, "timm": _release("timm")},
        notes=notes,
    )


def _fitted(
    build: Callable[[int], nn.Module], checkpoint: Checkpoint, name: str
) -> tuple[nn.Module, tuple[str, ...]]:
    """Build a network with as many classes as a checkpoint has, and load it."""
    heads = [head for head in head_tensors(build, IMAGENET_CLASSES) if head in checkpoint.weights]
    n_classes = len(checkpoint.weights[heads[-1]]) if heads else IMAGENET_CLASSES
    network = build(n_classes)
    load_weights(network, checkpoint, name)
    if n_classes == IMAGENET_CLASSES:
        return network, ()
    return network, (f"checkpoint has {n_classes} classes: built {name} with a head of {n_classes}",)


def _downloaded(build: Callable[[], nn.Module], name: str, address: str) -> nn.Module:
    try:
        return build()
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        raise ModelError(
            f"the weights of {name} cannot be downloaded: {type(error).__name__}: {first_line(error)}",
            expected=f"a connection to {address}",
            hint="download that file elsewhere and give it with --checkpoint FILE in place of --weights",
        ) from error


def _unknown(name: str, known: list[str], kind: str) -> ModelError:
    near = difflib.get_close_matches(name, known, n=4)
    return ModelError(
        f"no {kind} is called {name!r}",
        expected=f"one of {len(known)} names, timm:NAME, or FILE.py:FACTORY",
        hint=f"near ones: {', '.join(near)}" if near else f"the first ones: {listed(known)}",
    )


def _wrong_weights(name: str, weights: str | None, known: list[str]) -> ModelError:
    return ModelError(
        f"{name} has no published weights {weights!r}",
        expected=f"one of {', '.join(known)}" if known else "a network that has published weights",
        hint="" if known else "give its weights with --checkpoint FILE",
    )


def _release(package: str) -> str:
    """Return a package's version without the build ("+cpu"): the features do not hang on that."""
    return version(package).partition("+")[0]
