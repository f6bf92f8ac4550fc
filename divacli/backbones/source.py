"""What every source of networks hands on: the network, its transform and where they are from."""

from __future__ import annotations

from dataclasses import dataclass, replace

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from divacli.backbones.checkpoint import Checkpoint
from divacli.backbones.feature_layer import head_layer
from divacli.backbones.fitting import load_weights
from divacli.backbones.transform import Transform, probe_images
from divacli.errors import ModelError, listed


@dataclass(frozen=True)
class Source:
    """A network with its weights, before its feature layer is chosen.

    Attributes:
        name: Short, for people.
        title: Of which library the network is, too: "torchvision resnet18".
        network: The module, on the CPU.
        transform: From an RGB PIL image to a float tensor (3, h, w).
        identity: What the network depends on besides its printed form and its weights.
        weights: Where its weights are from, for people: "published weights DEFAULT", "best.pth, entry ema".
        notes: Sentences for the user.
        head: Name of its last layer, where the source knows it.
        headless: Whether that layer has no weights: features are what enters it, and it gives nothing.
        from_file: Whether `identity` says which code makes the network and its transform.
    """

    name: str
    title: str
    network: nn.Module
    transform: Transform
    identity: dict[str, str]
    weights: str
    notes: tuple[str, ...] = ()
    head: str | None = None
    headless: bool = False
    from_file: bool = True

    def __post_init__(self) -> None:
        """Refuse a network with values that are no tensors, or not there yet.

        Raises:
            ModelError: Names the first of them.
        """
        state: dict[str, object] = dict(self.network.state_dict())
        odd = [key for key, one in state.items() if not isinstance(one, Tensor) or is_lazy(one)]
        if odd:
            raise ModelError(
                f"{self.name} has values that are no tensors, or not there yet: {listed(odd)}",
                expected="a network whose state dict holds tensors alone",
                hint="give the network from before it was quantised, with all layers of known size",
            )

    def with_weights(self, checkpoint: Checkpoint) -> Source:
        """The same network, its tensors changed to those of a file.

        Args:
            checkpoint: The weights; a head that does not fit is put aside.

        Raises:
            ModelError: They do not fit.
        """
        network = self.network.eval()
        found, head = load_weights(
            network,
            checkpoint,
            self.name,
            lambda: head_layer(network, probe_images(self.transform, 2)),
        )
        return replace(
            self,
            weights=found.place(checkpoint),
            notes=(*self.notes, *found.notes),
            head=head,
            headless=head is not None,
        )
