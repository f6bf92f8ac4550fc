"""Take features from a whole network in one file: a TorchScript or a `torch.export` archive."""

from __future__ import annotations

import hashlib
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram
from torch.export.passes import move_to_device_pass

from divacli.backbones.checkpoint import check_finite, first_line
from divacli.backbones.fingerprint import weights_digest
from divacli.backbones.layer import Head, as_head, gives, pooled, run_network, tensors_in, unknown_layer
from divacli.backbones.rezip import copied, member_names, open_checkpoint
from divacli.backbones.untrusted import without_pickled_code
from divacli.errors import ModelError, listed

_PARTS: dict[Any, Callable[..., tuple[fx.Node, fx.Node, fx.Node | None]]] = {
    torch.ops.aten.linear.default: lambda x, weight, bias=None: (x, weight, bias),
    torch.ops.aten.addmm.default: lambda bias, x, weight: (x, weight, bias),
    torch.ops.aten.mm.default: lambda x, weight: (x, weight, None),
}
_LOGGERS = ("torch.export", "torch.export.pt2_archive._package", "torch._export.serde.serialize")
_TRANSPOSES = (torch.ops.aten.t.default, torch.ops.aten.permute.default, torch.ops.aten.transpose.int)


@dataclass(frozen=True)
class Archive:
    """A network read from a file, before its feature layer is chosen.

    Attributes:
        network: A `torch.jit.ScriptModule`, a `torch.export.ExportedProgram` or an `OnnxNetwork`.
        batch_size: The only batch size it takes, or None.
        image_size: The only (height, width) it takes, or None.
        identity: What its features depend on.
        notes: What was changed or assumed, in sentences for the user.
        channels: Of the images that it takes, 3 or 1.
    """

    network: Any
    batch_size: int | None
    image_size: tuple[int, int] | None
    identity: dict[str, str]
    notes: tuple[str, ...] = ()
    channels: int = 3


def read_torchscript(path: Path) -> Archive:
    """Read a file that `torch.jit.save` wrote.

    Raises:
        ModelError: torch cannot read it, or a weight is not finite.
    """
    content, digest = _copied(path)
    network = _read(lambda: torch.jit.load(content, map_location="cpu"), path)
    notes: tuple[str, ...] = ()
    if any(weight.dtype in (torch.float16, torch.bfloat16) for weight in network.parameters()):
        notes = ("half-precision weights converted to float32",)
    network = network.float().eval()
    check_finite(network.state_dict(), path)
    first = next((weight for weight in network.parameters() if weight.ndim == 4), None)
    channels = 1 if first is not None and first.shape[1] == 1 else 3
    return Archive(network, None, None, _identity(digest, network.state_dict()), notes, channels)


def read_exported(path: Path) -> Archive:
    """Read a file that `torch.export.save` wrote.

    Raises:
        ModelError: torch cannot read it, a weight is not finite, or its input is not one batch of images.
    """
    content, digest = _copied(path)
    program = _read(lambda: move_to_device_pass(torch.export.load(content), "cpu"), path)
    check_finite(program.state_dict, path)
    inputs = [
        node.meta["val"].shape
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in program.graph_signature.user_inputs
    ]
    if len(inputs) != 1 or len(inputs[0]) != 4:
        raise ModelError(
            f"{path} takes inputs of shape {listed([str(tuple(shape)) for shape in inputs])}",
            expected="one batch of images (batch, 3, height, width)",
            hint="export the network for a single batch of images",
        )
    batch, channels, height, width = (size if isinstance(size, int) else None for size in inputs[0])
    fixed = None if height is None or width is None else (height, width)
    identity = _identity(digest, program.state_dict)
    return Archive(program, batch, fixed, identity, channels=1 if channels == 1 else 3)


class ScriptExtractor:
    """Takes features from TorchScript, whose compiled code runs no hooks.

    The weight of the last linear layer becomes the identity and its bias zero: the network's output then is
    that layer's input.

    Args:
        network: In evaluation mode; changed in place.
        probe: (b, 3, h, w) images to try it on.
        layer: Name of the linear layer; None: the last one.

    Raises:
        ModelError: No such linear layer is left in the archive, or what it gives is not the network's output.
    """

    def __init__(self, network: torch.jit.ScriptModule, probe: Tensor, layer: str | None) -> None:
        linears = {name: m for name, m in network.named_modules() if m.original_name == "Linear"}
        if not linears:
            raise ModelError(
                "the TorchScript archive has no linear layer left in it",
                expected="an archive whose layers can be told apart",
                hint="save it without torch.jit.freeze or optimize_for_inference",
            )
        self.layer = list(linears)[-1] if layer is None else layer
        if self.layer not in linears:
            raise unknown_layer(self.layer, linears)
        self._network = network
        output = run_network(network, probe)
        linear = linears[self.layer]
        self.head: Head | None = as_head(linear.weight, linear.bias)
        d = linear.weight.shape[1]
        linear.weight = nn.Parameter(torch.eye(d), requires_grad=False)
        if linear.bias is not None:
            linear.bias = nn.Parameter(torch.zeros(d), requires_grad=False)
        if not self._reproduces(self.head, probe, output):
            raise ModelError(
                f"the output of the TorchScript archive is not what its layer {self.layer!r} gives",
                expected="a network that ends with a linear layer",
                hint="save it without what follows (softmax, say), or name another layer with --layer",
            )

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (b, d) float32 of images (b, 3, h, w)."""
        features = next(tensors_in(run_network(self._network, images)))
        return pooled(features, self.layer, into_linear=True)

    def to(self, device: torch.device) -> None:
        """Move the network to a device."""
        self._network.to(device)

    def _reproduces(self, head: Head, probe: Tensor, output: Any) -> bool:
        try:
            return gives(head, self(probe), output)
        except ModelError:  # a layer in the middle: what follows it no longer fits
            return False


class ExportExtractor:
    """Takes features from an exported program, by making the input of a linear layer its output.

    Args:
        program: The program, on the CPU.
        probe: (b, 3, h, w) images to try it on.
        layer: Name of the linear layer, as its parameters are named; None: the last one.

    Raises:
        ModelError: It has no such linear layer, or fails on the probe.
    """

    def __init__(self, program: ExportedProgram, probe: Tensor, layer: str | None) -> None:
        self._program = program
        output = run_network(program.module(), probe)
        linears = _linears(program.module().graph)
        if not linears:
            raise ModelError(
                "no linear layer with a weight of its own runs in the exported network",
                expected="a network that ends with a linear layer",
                hint="give its state dict with --model and --layer instead",
            )
        self.layer = list(linears)[-1] if layer is None else layer
        if self.layer not in linears:
            raise unknown_layer(self.layer, linears)
        self._network = self._cut()
        _, weight, bias = linears[self.layer]
        state = program.state_dict
        head = as_head(state[weight], None if bias is None else state[bias])
        self.head = head if gives(head, self(probe), output) else None

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (b, d) float32 of images (b, 3, h, w)."""
        features = next(tensors_in(run_network(self._network, images)))
        return pooled(features, self.layer, into_linear=True)

    def to(self, device: torch.device) -> None:
        """Move the network, and the devices written into its graph, to a device."""
        self._program = move_to_device_pass(self._program, str(device))
        self._network = self._cut()

    def _cut(self) -> fx.GraphModule:
        network = self._program.module()
        features, _, _ = _linears(network.graph)[self.layer]
        end = network.graph.output_node()
        # The output keeps its structure, each leaf of it now the features: any of them will do.
        end.args = (fx.map_arg(end.args[0], lambda _: features),)
        network.graph.eliminate_dead_code()
        network.recompile()
        return network


def _linears(graph: fx.Graph) -> dict[str, tuple[fx.Node, str, str | None]]:
    """Return input, weight name and bias name of each linear layer by its name, in the order they run."""
    linears: dict[str, tuple[fx.Node, str, str | None]] = {}
    for node in graph.nodes:
        if node.target not in _PARTS:
            continue
        x, weight, bias = _PARTS[node.target](*node.args)
        if weight.target in _TRANSPOSES:
            weight = weight.args[0]  # type: ignore[assignment]
        if weight.op == "get_attr" and str(weight.target).endswith("weight"):
            name = str(weight.target)
            linears.pop(name.rpartition(".")[0], None)
            linears[name.rpartition(".")[0]] = (x, name, None if bias is None else str(bias.target))
    return linears


@contextmanager
def _without_logs() -> Iterator[None]:
    """Hide what torch logs: the traceback of what it raises next."""
    loggers = [logging.getLogger(name) for name in _LOGGERS]
    before = [logger.disabled for logger in loggers]
    for logger in loggers:
        logger.disabled = True
    try:
        yield
    finally:
        for logger, disabled in zip(loggers, before, strict=True):
            logger.disabled = disabled


def _read(load: Callable[[], Any], path: Path) -> Any:
    try:
        # What code of an archive prints goes to standard error, for standard output may be a table.
        with (
            warnings.catch_warnings(),
            without_pickled_code(path),
            _without_logs(),
            redirect_stdout(sys.stderr),
        ):
            # torch announces the retirement of TorchScript; the user did not choose the file's format here.
            warnings.simplefilter("ignore")
            return load()
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"torch {torch.__version__} cannot read {path}: {type(error).__name__}: {first_line(error)}",
            expected="a complete archive of this or an earlier version of torch",
            hint="export the network again with this version",
        ) from error


def _copied(path: Path) -> tuple[io.BytesIO, str]:
    """The members of an archive in a new one, and the digest of the file that they are from."""
    with open_checkpoint(path) as stream:
        member_names(stream, path)
        content = copied(stream, path)
        stream.seek(0)
        return content, hashlib.file_digest(stream, "sha256").hexdigest()  # type: ignore[arg-type]  # it reads


def _identity(digest: str, weights: dict[str, Tensor]) -> dict[str, str]:
    return {"architecture": digest, "weights": weights_digest(weights)}
