"""Build the network that a user's own Python file makes: `FILE.py:FACTORY`."""

from __future__ import annotations

from torch import nn
from torch.nn.parameter import is_lazy

from divacli.backbones.checkpoint import Checkpoint
from divacli.backbones.layer import run_network
from divacli.backbones.source import Source
from divacli.backbones.transform import imagenet_transform, noise_through, probe_images
from divacli.backbones.userfile import UserFile
from divacli.errors import ModelError

_FORM = "FILE.py:FACTORY, a function without arguments that returns a module or (module, transform)"


def factory_file(model: str) -> UserFile:
    """The file of `FILE.py:FACTORY`, not run yet.

    Raises:
        ModelError: There is no such file.
    """
    return UserFile.given(model, "factory", _FORM)


def from_factory(model: str, checkpoint: Checkpoint | None, image_size: int | None) -> Source:
    """Import a file and call one of its functions.

    Args:
        model: `FILE.py:FACTORY`.
        checkpoint: Weights to load into the module; None: it keeps those the factory gave it.
        image_size: Side of the images, where the factory gives no transform of its own.

    Raises:
        ModelError: The file is absent or fails, has no such factory, or that returns something else; or the
            checkpoint does not fit.
    """
    given = factory_file(model)
    name = str(given)
    with given.running():
        made = given.load()()
    network, transform = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(network, nn.Module) or not (transform is None or callable(transform)):
        kinds = ", ".join(type(part).__name__ for part in (made if isinstance(made, tuple) else (made,)))
        raise ModelError(f"{name} returned {kinds}", expected="a torch.nn.Module, or (module, transform)")
    network = getattr(network, "_orig_mod", network).float()  # diva compiles by --compile, in one precision
    if transform is not None and image_size is not None:
        raise ModelError(
            f"--image-size {image_size} with {name}, which gives its own transform",
            expected="one of the two",
            hint="leave --image-size out, or change the size in the file",
        )
    if transform is None:
        transform = imagenet_transform(image_size or 224, grey=_takes_grey(network))
    else:
        probe_images(transform, 1)
        noise_through(transform)  # which refuses one that draws at random
    if checkpoint is not None and any(is_lazy(tensor) for tensor in network.parameters()):
        with given.running():
            run_network(network.eval(), probe_images(transform, 2))  # which gives them their shapes
    source = Source(
        name=name,
        title=name,
        network=network,
        transform=transform,
        identity={"model": name, "factory": given.digest},
        weights="those that the factory gives",
        notes=(given.note,),
    )
    if checkpoint is None:
        return source
    with given.running():  # a module may take its weights by code of its own
        return source.with_weights(checkpoint)


def _takes_grey(network: nn.Module) -> bool:
    """Whether the first convolution of a network takes images of one channel."""
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    return first is not None and first.in_channels == 1
