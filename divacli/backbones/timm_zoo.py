"""Build the networks that timm names: `timm:NAME`."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torchvision.transforms import Compose, Grayscale

from divacli.backbones.checkpoint import Checkpoint
from divacli.backbones.layer import OUTPUT
from divacli.backbones.made_to_fit import (
    TOKENS,
    Blueprint,
    Built,
    Expected,
    downloaded,
    release,
    require_side,
    unknown_network,
    wrong_weights,
)
from divacli.backbones.shapes import RGB, skeleton_network
from divacli.backbones.source import Source
from divacli.errors import ModelError

TIMM = "timm:"


def from_timm(
    model: str, checkpoint: Checkpoint | None, weights: str | None, image_size: int | None
) -> Source:
    """Build a network of timm.

    Args:
        model: Such as "timm:vit_tiny_patch16_224".
        checkpoint: Its weights, of which the same follows as for `from_torchvision`.
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
        raise unknown_network(name, timm.list_models(), "timm network")
    if checkpoint is None:
        built, side, channels = _published(model, weights, image_size), image_size, RGB
    else:
        plan = timm_blueprint(model, checkpoint, image_size)
        built, side, channels = Built.fitting(plan.build, checkpoint, model), plan.side, plan.channels
    config = resolve_data_config({}, model=built.network)
    if side is not None:
        config["input_size"] = (channels, side, side)
    grey = channels == 1
    if grey:
        config["mean"], config["std"] = ((sum(config[key]) / len(config[key]),) for key in ("mean", "std"))
    transform = create_transform(**config, is_training=False)
    return Source(
        name=model,
        title=model,
        network=built.network,
        transform=Compose([Grayscale(), *transform.transforms]) if grey else transform,
        identity={"model": model, "timm": release("timm")},
        weights=built.weights,
        notes=built.notes,
        head=built.head,
        headless=built.headless,
    )


def _published(model: str, weights: str | None, image_size: int | None) -> Built:
    """A network with the weights that timm downloads."""
    import timm

    name = model.removeprefix(TIMM)
    tagged = name if weights == "DEFAULT" else f"{name}.{weights}"
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{name.partition('.')[0]}.*")]
    if weights != "DEFAULT" and weights not in tags:
        raise wrong_weights(model, weights, tags)
    address = f"https://huggingface.co/timm/{tagged}"
    options = _sized(name, image_size)
    network = downloaded(lambda: timm.create_model(tagged, pretrained=True, **options), model, address)
    config: Any = network.pretrained_cfg
    last = _classifier_of(network)
    return Built(network, last or OUTPUT, last is None, f"published, {config.get('tag') or weights}", ())


def timm_blueprint(model: str, checkpoint: Checkpoint, image_size: int | None = None) -> Blueprint:
    """Say how a network of timm is built for the weights of a checkpoint.

    Args:
        model: Such as "timm:vit_tiny_patch16_224".
        checkpoint: Its weights.
        image_size: Side of the crop, as the user wants it; None: nothing is said.

    Raises:
        ModelError: The weights are for images of another size or number of channels.
    """
    import timm

    name = model.removeprefix(TIMM)
    usual = skeleton_network(lambda: timm.create_model(name))
    expected = Expected.of(checkpoint, dict(usual.state_dict()))
    side = image_size
    if (found := _side_of(usual, expected)) is not None:
        require_side(model, checkpoint, found, image_size)
        side = None if found == _usual_side(usual) else found
    options = _sized(name, side)
    if expected.channels != RGB:
        options["in_chans"] = expected.channels

    def build(n_classes: int) -> nn.Module:
        return timm.create_model(name, num_classes=n_classes, **options)

    return Blueprint(build, side, expected.channels)


def _side_of(usual: nn.Module, expected: Expected) -> int | None:
    """The image size that a Vision Transformer's position embeddings in a file are for; None for others."""
    patches: Any = getattr(usual, "patch_embed", None)
    embeddings = getattr(usual, "pos_embed", None)
    if not isinstance(embeddings, Tensor) or not getattr(patches, "grid_size", None):
        return None
    n_prefix = embeddings.shape[1] - patches.num_patches if embeddings.ndim == TOKENS else 0
    return expected.side("pos_embed", patch=patches.img_size[0] // patches.grid_size[0], n_prefix=n_prefix)


def _usual_side(network: nn.Module) -> int:
    patches: Any = network.patch_embed
    return patches.img_size[0]


def _sized(name: str, side: int | None) -> dict[str, Any]:
    """The option that builds a network for an image size, where its kind has such an option."""
    import timm

    if side is None:
        return {}
    options: dict[str, Any] = {"img_size": side}
    try:
        skeleton_network(lambda: timm.create_model(name, **options))
    except TypeError:
        return {}
    return options


def _classifier_of(network: nn.Module) -> str | None:
    """Name of the layer that timm calls the classifier; None for a network without one."""
    config: Any = network.pretrained_cfg
    names = config.get("classifier")
    last = names if isinstance(names, str) or not names else names[-1]
    return last if last and getattr(network, "num_classes", 0) else None
