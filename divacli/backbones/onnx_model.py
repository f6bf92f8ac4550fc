"""Take features from an ONNX network, which onnxruntime runs."""

from __future__ import annotations

import math
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from divacli.backbones.archive import Archive
from divacli.backbones.checkpoint import first_line
from divacli.backbones.layer import Head, as_head, gives, pooled, unknown_layer
from divacli.backbones.onnx_file import onnx_library, read_model
from divacli.backbones.onnx_graph import Linear, constants, cut, into_linear, last_linear, layers
from divacli.errors import ModelError, listed

if TYPE_CHECKING:
    from onnx import ModelProto, ValueInfoProto

_FLOATS: dict[int, type[np.floating[Any]]] = {1: np.float32, 10: np.float16, 11: np.float64}
"""NumPy's types by ONNX's numbers for them."""

_CHANNELS = (1, 3)

_MOST_VALUES = 1 << 28
"""Numbers in one batch, 1 GiB: a file may state any size, and noise of that size is made to try it on."""


@dataclass(frozen=True)
class OnnxNetwork:
    """A network as its file has it.

    Attributes:
        model: With all its weights.
        path: The file, for messages.
        input: Name of its images.
        dtype: Their type.
        channels_last: Whether they are (b, h, w, c).
    """

    model: ModelProto
    path: Path
    input: str
    dtype: type[np.floating[Any]]
    channels_last: bool


def read_onnx(path: Path) -> Archive:
    """Read an ONNX file.

    Args:
        path: A file that `is_onnx`.

    Raises:
        ModelError: onnx cannot read it, or its input is not one batch of images of 1 or 3 channels.
    """
    model, digest = read_model(path)
    given = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in given]
    shape = _shape(inputs[0]) if len(inputs) == 1 else []
    dtype = _FLOATS.get(inputs[0].type.tensor_type.elem_type) if inputs else None
    if len(shape) != 4 or dtype is None:
        raise _no_images(path, inputs)
    last = shape[1] not in _CHANNELS and shape[3] in _CHANNELS
    height, width, channels = (shape[1], shape[2], shape[3]) if last else (shape[2], shape[3], shape[1])
    values = math.prod(size for size in shape if size is not None)
    if channels not in (None, *_CHANNELS) or values > _MOST_VALUES:
        raise _no_images(path, inputs)
    size = None if height is None and width is None else (height or width or 0, width or height or 0)
    notes = [
        "an ONNX file does not say how images are prepared: ImageNet's resize, crop and normalisation are "
        + ("used, at the size of its input" if size else "used, at 224 or at --image-size")
    ]
    if last:
        notes.append("its images have the channels last, as TensorFlow exports them: they are given to it so")
    return Archive(
        OnnxNetwork(model, path, inputs[0].name, dtype, last),
        shape[0],
        size,
        {"weights": digest},
        tuple(notes),
        channels or 3,
    )


class OnnxExtractor:
    """Takes features from an ONNX network, by making a tensor inside of it its output.

    Args:
        network: As read.
        probe: (b, c, h, w) images to try it on.
        layer: A tensor, or a node, of which the first input is taken. None: what flows into the linear layer
            that gives an output; without such a layer the first output of floating-point numbers.

    Attributes:
        layer: Name of the tensor that the features are.
        head: Of the linear layer that takes it, where that gives the network's output.
        notes: What the features are, where no linear layer takes them.

    Raises:
        ModelError: onnxruntime is not installed or refuses the network, or there is no such tensor.
    """

    def __init__(self, network: OnnxNetwork, probe: Tensor, layer: str | None) -> None:
        graph = network.model.graph
        # Run as it is before its graph is looked at: onnxruntime checks that.
        outputs = _Runner(network, network.model.SerializeToString(), optimised=False)(probe)
        fixed = constants(graph)
        linear = last_linear(graph, fixed)
        self.notes: tuple[str, ...] = ()
        if layer is not None:
            known = layers(graph, fixed)
            if layer not in known:
                raise unknown_layer(layer, known)
            self.layer = known[layer]
        elif linear is not None:
            self.layer = linear.input
        else:
            self.layer = _first_output(network, outputs)
            self.notes = (
                f"no linear layer gives its output: features are the output {self.layer!r} itself, unless "
                "--layer names another tensor",
            )
        ends = {output.name for output in graph.output} if network.channels_last else set()
        self._channels_last = into_linear(graph, self.layer) or self.layer in ends
        self._network = _Runner(network, cut(network.model, [self.layer]))
        self.head: Head | None = None
        if linear is not None and linear.input == self.layer:
            head = _head(network, linear)
            self.head = head if head is not None and gives(head, self(probe), outputs) else None

    def __call__(self, images: Tensor) -> Tensor:
        """Return the features (b, d) float32 of images (b, c, h, w)."""
        found = self._network(images).get(self.layer)
        if found is None or not found.ndim or len(found) != len(images):
            shape = "no floating-point numbers" if found is None else f"the shape {tuple(found.shape)}"
            raise ModelError(
                f"the tensor {self.layer!r} has {shape} for {len(images)} images",
                expected="floating-point numbers, a row for each image",
                hint="name another tensor with --layer",
            )
        return pooled(found, self.layer, into_linear=self._channels_last)

    def to(self, device: torch.device) -> None:
        """Run on a device from now on.

        Raises:
            ModelError: onnxruntime does not run on it.
        """
        self._network.device = device
        self._network.session()


class _Runner:
    """A network as bytes, and the sessions that run it.

    A session cannot be pickled, and its threads are gone after a fork: each process makes its own.

    Args:
        network: What its images are like.
        content: The network that is run.
        optimised: Whether onnxruntime may rewrite it to run faster.
    """

    def __init__(self, network: OnnxNetwork, content: bytes, *, optimised: bool = True) -> None:
        self.device = torch.device("cpu")
        self._path, self._content, self._optimised = network.path, content, optimised
        self._input, self._dtype, self._channels_last = network.input, network.dtype, network.channels_last
        # Those of the process that this one was forked from stay: to end one waits for its threads.
        self._sessions: dict[tuple[int, int, torch.device], Any] = {}

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """Return the outputs of floating-point numbers by name, on the device of the images (b, c, h, w)."""
        moved = images.permute(0, 2, 3, 1) if self._channels_last else images
        batch = np.ascontiguousarray(moved.cpu().numpy(), dtype=self._dtype)
        session = self.session()
        names = [output.name for output in session.get_outputs()]
        try:
            outputs = session.run(names, {self._input: batch})
        except Exception as error:
            line = _told(error)
            if re.search("out of memory|allocate memory", line, re.IGNORECASE):
                raise torch.OutOfMemoryError(line) from error
            raise ModelError(
                f"{self._path} fails on images of shape {batch.shape}: {line}",
                expected="a network for batches of images of this size",
                hint="where the size is wrong, set it with --image-size; else export it for a fixed batch",
            ) from error
        return {
            name: torch.from_numpy(output).to(images.device)
            for name, output in zip(names, outputs, strict=True)
            if isinstance(output, np.ndarray) and output.dtype.kind == "f"
        }

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_sessions": {}}

    def session(self) -> Any:
        """The session of this process, on its device and with as many threads as torch has.

        Raises:
            ModelError: onnxruntime refuses the network or the device.
        """
        threads = torch.get_num_threads()
        key = os.getpid(), threads, self.device
        if key not in self._sessions:
            self._sessions[key] = _start(self._content, self._path, self.device, threads, self._optimised)
        return self._sessions[key]


def _start(content: bytes, path: Path, device: torch.device, threads: int, optimised: bool) -> Any:
    runtime = onnx_library("onnxruntime", path)
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.use_deterministic_compute = True
    options.log_severity_level = 4
    # Threads that wait are not to take the cores of those that decode images.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if not optimised:
        options.graph_optimization_level = runtime.GraphOptimizationLevel.ORT_DISABLE_ALL
    provider, settings = "CPUExecutionProvider", {}
    if device.type == "cuda":
        # float32 as everywhere else, and the same algorithms in every run.
        settings = {"device_id": device.index or 0, "use_tf32": 0, "cudnn_conv_algo_search": "HEURISTIC"}
        provider = "CUDAExecutionProvider"
    # Without a provider that it was asked for onnxruntime goes on with the CPU, and only prints so.
    session = None
    try:
        if provider in runtime.get_available_providers():
            session = runtime.InferenceSession(content, options, [provider], [settings])
    except Exception as error:
        raise ModelError(
            f"onnxruntime {runtime.__version__} does not run {path}: {_told(error)}",
            expected="a network of ONNX's own operators, for this version",
            hint="export it again, for an older opset, or bring onnxruntime up to date",
        ) from error
    if session is None or provider not in session.get_providers():
        raise ModelError(
            f"onnxruntime {runtime.__version__} does not run on {device} here",
            expected="onnxruntime-gpu, and the CUDA libraries that it was built for",
            hint="--device cpu; or pip uninstall onnxruntime, then pip install onnxruntime-gpu",
        )
    return session


def _told(error: Exception) -> str:
    """What onnxruntime says, without its numbers and the places in its source."""
    line = re.sub(r"^\[ONNXRuntimeError\] : \d+ : \w+ : ", "", first_line(error))
    return re.sub(r"\S+\.(cc|h):\d+ ([\w:~]+\(.*?\)( const)? (?=[A-Z])|\w+ )", "", line)


def _head(network: OnnxNetwork, linear: Linear) -> Head | None:
    """Weight (K, d) and bias (K,) of a linear layer in float32; None where they are of other shapes."""
    names = [linear.weight] if linear.bias is None else [linear.weight, linear.bias]
    session = _start(cut(network.model, names), network.path, torch.device("cpu"), 1, False)
    weight, *rest = (torch.from_numpy(array).float() for array in session.run(names, {}))
    if weight.ndim != 2:
        return None
    weight = linear.scales[0] * (weight if linear.transposed else weight.T)
    if not rest:
        return as_head(weight, None)
    bias = linear.scales[1] * rest[0].flatten()
    return as_head(weight, bias.expand(len(weight))) if len(bias) in (1, len(weight)) else None


def _first_output(network: OnnxNetwork, outputs: dict[str, Tensor]) -> str:
    if not outputs:
        raise ModelError(
            f"{network.path} gives no floating-point numbers",
            expected="logits, probabilities or features",
            hint="name a tensor inside of it with --layer",
        )
    return next(iter(outputs))


def _shape(value: ValueInfoProto) -> list[int | None]:
    """The shape of an input, None for what is open."""
    return [size.dim_value if size.dim_value > 0 else None for size in value.type.tensor_type.shape.dim]


def _no_images(path: Path, inputs: list[ValueInfoProto]) -> ModelError:
    told = [
        f"{value.name} {tuple(size or '?' for size in _shape(value))}".replace("'", "") for value in inputs
    ]
    return ModelError(
        f"{path} takes {listed(told) if told else 'nothing'}",
        expected="one input, a batch of images of floating-point numbers (batch, 3 or 1, height, width) or "
        "(batch, height, width, 3 or 1)",
        hint="export the network for a single batch of images",
    )
