"""Recognise the network that weights are of, by the names and shapes of their tensors."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.util import find_spec

from torch import Tensor

from divacli.backbones.checkpoint import Checkpoint
from divacli.backbones.entries import is_named
from divacli.backbones.fitting import fits
from divacli.backbones.identify import IMAGENET_CLASSES
from divacli.backbones.made_to_fit import Blueprint
from divacli.backbones.shapes import skeleton_state, torchvision_family, torchvision_names, torchvision_state
from divacli.backbones.timm_zoo import TIMM, timm_blueprint
from divacli.backbones.torchvision_zoo import torchvision_blueprint
from divacli.errors import ModelError, listed

_TIMM_STEM = re.compile(
    r"(?i)(^|\.)(cls_token|pos_embed|patch_embed|embeds|stem|conv_?stem|conv_?[01]|conv2d_1a|features|body|"
    r"layer0|base_layer|encoder)"
)
"""How the first tensors of timm's networks are called: of a file without any, none is tried."""

_ENOUGH = 4
"""Networks of timm that weights may be of, before the search for more ends."""


def recognised(checkpoint: Checkpoint) -> str:
    """Name the network that the weights of a file are of, as `--model` takes it.

    A name in the file counts where its weights fit that network. Else torchvision's networks are tried, and
    timm's where it is installed.

    Args:
        checkpoint: The file.

    Raises:
        ModelError: It is not known, or several networks with the same tensors may be meant.
    """
    found = _stated(checkpoint) or next(_of_torchvision(checkpoint), None)
    if found is not None:
        return found
    several = list(_of_timm(checkpoint))
    if len(several) == 1:
        return several[0]
    if several:
        raise ModelError(
            f"{checkpoint.path} holds weights that fit several networks: {listed(several)}",
            expected="the name of the one that was trained: they compute different features",
            hint=f"--model {several[0]} --checkpoint {checkpoint.path}",
        )
    raise ModelError(
        f"{checkpoint.path} holds weights without a network; it looks like {checkpoint.describe()}",
        expected="--model with it, or an archive of TorchScript, torch.export or ONNX",
        hint=f"--model NAME --checkpoint {checkpoint.path}",
    )


def _stated(checkpoint: Checkpoint) -> str | None:
    name = checkpoint.network.removeprefix(TIMM)
    if name in torchvision_names() and _fits_torchvision(checkpoint, name):
        return name
    if not name or find_spec("timm") is None:
        return None
    import timm

    model = f"{TIMM}{name}"
    known = timm.is_model(name.partition(".")[0])
    return model if known and _fits_built(checkpoint, lambda: timm_blueprint(model, checkpoint)) else None


def _of_torchvision(checkpoint: Checkpoint) -> Iterator[str]:
    families: dict[str, list[str]] = {}
    for name in torchvision_names():
        families.setdefault(torchvision_family(name), []).append(name)
    for names in families.values():
        if _may_be(checkpoint, torchvision_state(names[0])):
            yield from (name for name in names if _fits_torchvision(checkpoint, name))


def _of_timm(checkpoint: Checkpoint) -> Iterator[str]:
    """Networks of timm that the weights fit, at most `_ENOUGH`."""
    names_of = (key for entry in checkpoint.entries for key in entry.weights)
    if find_spec("timm") is None or not any(map(_TIMM_STEM.search, names_of)):
        return
    import timm

    n_found = 0
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        if not names or not _may_be(checkpoint, skeleton_state(partial(timm.create_model, names[0]))):
            continue
        for name in names:
            if _fits(checkpoint, skeleton_state(partial(timm.create_model, name))):
                yield f"{TIMM}{name}"
                n_found += 1
                if n_found == _ENOUGH:
                    return


def _may_be(checkpoint: Checkpoint, state: Mapping[str, Tensor]) -> bool:
    """Whether a file has the first tensor of a network's family: building all members takes seconds."""
    first = next(iter(state), "")
    return any(is_named(key, first) for entry in checkpoint.entries for key in entry.weights)


def _fits_torchvision(checkpoint: Checkpoint, name: str) -> bool:
    """Whether the weights are those of a torchvision network, as it usually is or built for them."""
    usual = torchvision_state(name)
    if _fits(checkpoint, usual):
        return True
    named = _fits(checkpoint, usual, by_name=True)
    return named and _fits_built(checkpoint, lambda: torchvision_blueprint(name, checkpoint))


def _fits_built(checkpoint: Checkpoint, blueprint: Callable[[], Blueprint]) -> bool:
    """Whether the weights are those of a network that is built for them."""
    try:
        plan = blueprint()
    except ModelError:  # no network takes such images
        return False
    return _fits(checkpoint, skeleton_state(lambda: plan.build(IMAGENET_CLASSES)))


def _fits(checkpoint: Checkpoint, state: Mapping[str, Tensor], *, by_name: bool = False) -> bool:
    """Whether the weights, or their names alone, are those of a network, its head left aside."""
    heads = [key for key, one in state.items() if one.ndim and one.shape[0] == IMAGENET_CLASSES]
    return fits(checkpoint, state, heads, by_name=by_name)
