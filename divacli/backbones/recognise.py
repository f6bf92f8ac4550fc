"""Recognise the network that weights are of, by the names and shapes of their tensors."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec

from torch import nn

from divacli.backbones.checkpoint import Checkpoint
from divacli.backbones.fitting import fits
from divacli.backbones.identify import IMAGENET_CLASSES
from divacli.backbones.shapes import (
    build_torchvision,
    skeleton_state,
    torchvision_family,
    torchvision_names,
)
from divacli.backbones.timm_zoo import TIMM
from divacli.errors import ModelError, listed

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
    if name in torchvision_names() and _fits(checkpoint, lambda: build_torchvision(name)):
        return name
    if not name or find_spec("timm") is None:
        return None
    import timm

    known = timm.is_model(name.partition(".")[0])
    return f"{TIMM}{name}" if known and _fits(checkpoint, lambda: timm.create_model(name)) else None


def _of_torchvision(checkpoint: Checkpoint) -> Iterator[str]:
    families: dict[str, list[str]] = {}
    for name in torchvision_names():
        families.setdefault(torchvision_family(name), []).append(name)
    for names in families.values():
        if _may_be(checkpoint, lambda name=names[0]: build_torchvision(name)):  # type: ignore[misc]
            for name in names:
                if _fits(checkpoint, lambda name=name: build_torchvision(name)):  # type: ignore[misc]
                    yield name


def _of_timm(checkpoint: Checkpoint) -> Iterator[str]:
    """Networks of timm that the weights fit, at most `_ENOUGH`."""
    if find_spec("timm") is None:
        return
    import timm

    n_found = 0
    for module in timm.list_modules():
        names = timm.list_models(module=module)
        if not names or not _may_be(checkpoint, lambda name=names[0]: timm.create_model(name)):  # type: ignore[misc]
            continue
        for name in names:
            if _fits(checkpoint, lambda name=name: timm.create_model(name)):  # type: ignore[misc]
                yield f"{TIMM}{name}"
                n_found += 1
                if n_found == _ENOUGH:
                    return


def _may_be(checkpoint: Checkpoint, build: Callable[[], nn.Module]) -> bool:
    """Whether a file has the first tensor of a network's family: building all members takes seconds."""
    try:
        first = next(iter(skeleton_state(build)), "")
    except (RuntimeError, OSError):  # it cannot be built without values
        return False
    return any(
        key == first or key.endswith(f".{first}") for entry in checkpoint.entries for key in entry.weights
    )


def _fits(checkpoint: Checkpoint, build: Callable[[], nn.Module]) -> bool:
    """Whether the weights are those of a network, its head left aside."""
    try:
        state = skeleton_state(build)
    except (RuntimeError, OSError):
        return False
    heads = [key for key, one in state.items() if one.ndim and one.shape[0] == IMAGENET_CLASSES]
    return fits(checkpoint, state, heads)
