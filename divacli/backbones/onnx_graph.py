"""The graph of an ONNX network: its last linear layer, its constants, and a part of it as a network.

Nodes must stand in the order in which they run, as onnxruntime demands of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from onnx import GraphProto, ModelProto, NodeProto

_AFTER_LOGITS = frozenset(
    {
        *("ArgMax", "Cast", "DequantizeLinear", "Dropout", "Flatten", "Identity", "LogSoftmax"),
        *("QuantizeLinear", "Reshape", "Sigmoid", "Softmax", "Squeeze", "TopK", "Unsqueeze"),
    }
)
"""Operators that may follow the last linear layer of a classifier; each works on its first input."""

_WEIGHTS_IN_INPUTS = 3
"""The last version of ONNX that lists weights among a graph's inputs."""


@dataclass(frozen=True)
class Linear:
    """A linear layer, by the names of its tensors.

    Attributes:
        input: What it is applied to.
        weight: (K, d) if `transposed`, else (d, K).
        bias: (K,), or of a shape that is repeated to it; None where there is none.
        transposed: Whether the weight is as torch has it.
        scales: What the weight and the bias are multiplied with.
    """

    input: str
    weight: str
    bias: str | None
    transposed: bool = False
    scales: tuple[float, float] = (1.0, 1.0)


def constants(graph: GraphProto) -> set[str]:
    """Name the tensors that do not depend on the images."""
    known = {tensor.name for tensor in graph.initializer}
    known |= {tensor.values.name for tensor in graph.sparse_initializer}
    for node in graph.node:
        if known.issuperset(filter(None, _uses(node))):
            known.update(filter(None, node.output))
    return known


def last_linear(graph: GraphProto, fixed: set[str]) -> Linear | None:
    """Find the linear layer that gives an output, by itself or before a softmax and the like.

    Args:
        graph: Of a network.
        fixed: Its `constants`.
    """
    makers = {name: node for node in graph.node for name in node.output if name}
    for output in graph.output:
        node = makers.get(output.name)
        while node is not None and node.op_type in _AFTER_LOGITS:
            node = makers.get(node.input[0])
        found = None if node is None else _as_linear(node, makers, fixed)
        if found is not None:
            return found
    return None


def layers(graph: GraphProto, fixed: set[str]) -> dict[str, str]:
    """Name the tensor that features are where a node or a tensor is named.

    Args:
        graph: Of a network.
        fixed: Its `constants`.

    Returns:
        For each node the first of its inputs that depends on the images; for each tensor itself. A name of
        both is the tensor's, and a name of several nodes is none.
    """
    nodes = Counter(node.name for node in graph.node if node.name)
    found = {}
    for node in graph.node:
        moving = [name for name in node.input if name and name not in fixed]
        if nodes[node.name] == 1 and moving:
            found[node.name] = moving[0]
    tensors = [name for node in graph.node for name in node.output if name and name not in fixed]
    return found | {name: name for name in tensors}


def into_linear(graph: GraphProto, tensor: str) -> bool:
    """Tell whether a linear layer takes a tensor."""
    return any(node.op_type in ("Gemm", "MatMul") and node.input[0] == tensor for node in graph.node)


def cut(model: ModelProto, outputs: Sequence[str]) -> bytes:
    """Make a network of what some tensors need.

    Args:
        model: The whole network.
        outputs: Names of the tensors that the new network gives.

    Returns:
        The new network, with the images for its only input, or without any where it needs none.
    """
    graph = model.graph
    needed = set(outputs)
    nodes = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            needed.update(_uses(node))
            nodes.append(node)
    made = type(model)(opset_import=model.opset_import, functions=model.functions)
    made.ir_version = max(model.ir_version, _WEIGHTS_IN_INPUTS + 1)
    made.graph.name = "features"
    made.graph.node.extend(reversed(nodes))
    weights = [tensor for tensor in graph.initializer if tensor.name in needed]
    sparse = [tensor for tensor in graph.sparse_initializer if tensor.values.name in needed]
    made.graph.initializer.extend(weights)
    made.graph.sparse_initializer.extend(sparse)
    given = {tensor.name for tensor in weights} | {tensor.values.name for tensor in sparse}
    made.graph.input.extend(value for value in graph.input if value.name in needed - given)
    for name in outputs:
        made.graph.output.add().name = name
    return made.SerializeToString()


def _uses(node: NodeProto) -> Iterator[str]:
    """The tensors that a node takes, those that graphs inside of it take too."""
    yield from node.input
    for attribute in node.attribute:
        for inner in [attribute.g, *attribute.graphs]:
            for part in inner.node:
                yield from _uses(part)
            yield from (output.name for output in inner.output)


def _as_linear(node: NodeProto, makers: dict[str, NodeProto], fixed: set[str]) -> Linear | None:
    """A node as a linear layer with constant weights, where it is one."""
    if node.op_type == "Gemm":
        return _as_gemm(node, fixed)
    bias = None
    if node.op_type == "Add":
        moving = [name for name in node.input if name not in fixed]
        if len(moving) != 1:
            return None
        bias = next(name for name in node.input if name in fixed)
        node = makers.get(moving[0], node)
    if node.op_type == "MatMul" and node.input[0] not in fixed and node.input[1] in fixed:
        return Linear(node.input[0], node.input[1], bias)
    return None


def _as_gemm(node: NodeProto, fixed: set[str]) -> Linear | None:
    options = {attribute.name: attribute for attribute in node.attribute}
    images, weight, *bias = node.input
    constant = weight in fixed and all(name in fixed for name in bias if name)
    if images in fixed or not constant or ("transA" in options and options["transA"].i):
        return None
    return Linear(
        images,
        weight,
        next(filter(None, bias), None),
        "transB" in options and bool(options["transB"].i),
        (
            options["alpha"].f if "alpha" in options else 1.0,
            options["beta"].f if "beta" in options else 1.0,
        ),
    )
