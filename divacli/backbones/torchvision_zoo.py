"""Build the networks that torchvision names."""

from __future__ import annotations

from functools import partial

from torchvision import models

from divacli.backbones.checkpoint import Checkpoint
from divacli.backbones.identify import IMAGENET_CLASSES
from divacli.backbones.made_to_fit import (
    Blueprint,
    Built,
    Expected,
    downloaded,
    module_of,
    release,
    require_side,
    unknown_network,
    wrong_weights,
)
from divacli.backbones.shapes import build_torchvision, head_tensors, torchvision_names, torchvision_state
from divacli.backbones.source import Source
from divacli.backbones.transform import preset_transform

DEFAULT_MODEL, DEFAULT_WEIGHTS = "resnet50", "IMAGENET1K_V1"
"""The network where none is named: see `docs/decisions.md`."""

VIT = "vit_"
"""How torchvision's names of Vision Transformers begin, which end with the side of a patch."""


def default_note() -> str:
    """Say which network is taken where none is named, and how large its weights are."""
    size = models.get_model_weights(DEFAULT_MODEL)[DEFAULT_WEIGHTS].meta["_file_size"]
    return (
        f"no network was named: torchvision's {DEFAULT_MODEL} with its weights {DEFAULT_WEIGHTS} is taken "
        f"({size:.0f} MB, downloaded once). One trained on images like these is better: --checkpoint FILE"
    )


def from_torchvision(
    name: str, checkpoint: Checkpoint | None, weights: str | None, image_size: int | None
) -> Source:
    """Build a torchvision classification network.

    Args:
        name: Such as "resnet18".
        checkpoint: Its weights. The head gets as many classes as these have, the first convolution as many
            channels, and a Vision Transformer is built for the image size of their position embeddings.
        weights: In place of a checkpoint, the published weights to download: "DEFAULT" or a member of the
            network's weights enum.
        image_size: Side of the crop; None: that of the weights' own transform.

    Raises:
        ModelError: No such network or weights, the download fails, or the checkpoint does not fit.
    """
    if name not in torchvision_names():
        raise unknown_network(name, torchvision_names(), "torchvision classification network")
    published = models.get_model_weights(name)
    made = partial(Source, name=name, title=f"torchvision {name}")
    identity = {"model": name, "torchvision": release("torchvision")}
    if checkpoint is None:
        members = list(dict.fromkeys(["DEFAULT", *published.__members__]))
        if weights not in members:
            raise wrong_weights(name, weights, members)
        member = published[weights]
        network = downloaded(lambda: models.get_model(name, weights=member), name, member.url)
        return made(
            network=network,
            transform=preset_transform(member.transforms(), image_size),
            identity=identity,
            weights=f"published, {member.name}",
            head=module_of(head_tensors(partial(build_torchvision, name), IMAGENET_CLASSES)),
        )
    plan = torchvision_blueprint(name, checkpoint)
    require_side(name, checkpoint, plan.side, image_size)
    built = Built.fitting(plan.build, checkpoint, name)
    return made(
        network=built.network,
        transform=preset_transform(
            published.DEFAULT.transforms(), image_size or plan.side, grey=plan.channels == 1
        ),
        identity=identity,
        weights=built.weights,
        notes=built.notes,
        head=built.head,
        headless=built.headless,
    )


def torchvision_blueprint(name: str, checkpoint: Checkpoint) -> Blueprint:
    """Say how a torchvision network is built for the weights of a checkpoint.

    Args:
        name: Of the network.
        checkpoint: Its weights.

    Raises:
        ModelError: The weights are for images of another number of channels than 1 or 3.
    """
    names = [key for entry in checkpoint.entries for key in entry.weights]
    expected = Expected.of(checkpoint, torchvision_state(name))
    side = None
    if name.startswith(VIT):
        side = expected.side("pos_embedding", patch=int(name.rpartition("_")[2]), n_prefix=1)
    build = partial(build_torchvision, name, tensors=names, image_size=side, channels=expected.channels)
    return Blueprint(build, side, expected.channels)
