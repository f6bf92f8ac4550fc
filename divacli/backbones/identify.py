"""Say in words what a file, or a set of weights, looks like."""

from __future__ import annotations

import re
from collections.abc import Mapping

from divacli.backbones.shapes import (
    Shapes,
    build_torchvision,
    skeleton,
    torchvision_family,
    torchvision_names,
    torchvision_state,
)
from divacli.errors import listed

IMAGENET_CLASSES = 1000

_SIGNATURES = (
    (
        rb"version https://git-lfs",
        "a Git LFS pointer: the text that stands for a file not fetched (git lfs pull)",
    ),
    (rb"\s*<\?xml[^>]*>\s*<net\b", "a network of OpenVINO"),
    (rb"\s*<(!doctype|html|\?xml)", "a web page or XML: the download gave a page in place of the file"),
    (rb"\xff\xd8\xff", "a JPEG image"),
    (rb"\x89PNG", "a PNG image"),
    (rb"\x89HDF", "an HDF5 file, as Keras writes"),
    (rb"\x93NUMPY", "a NumPy array"),
    (rb".{4}TFL3", "a network of TensorFlow Lite"),
    (rb"(ftrt|ptrt)", "an engine of TensorRT, which runs on one kind of GPU"),
    (rb"GGUF", "a GGUF file, as language models are kept in"),
    (rb"[\x81-\x8f]\xa6params", "weights of Flax"),
    (rb"\s*\{", "JSON: the folder of a Hugging Face model is given as a whole, --checkpoint FOLDER"),
    (rb".{4}ORTM", "onnxruntime's own format (.ort): give the .onnx file that it was made from"),
    (rb".{257}ustar", "a tar archive: unpack it first"),
    (rb"PK\x03\x04", "a zip archive cut short, as an interrupted download leaves it"),
)

_FAMILIES = (
    (
        r"(^|[._])lora_",
        "a network with low-rank updates, or these alone: merge_and_unload() of peft adds them to it",
    ),
    (
        r"\.parametrizations\.|_orig$",
        "a network with normalised weights, kept in parts: "
        "torch.nn.utils.parametrize.remove_parametrizations, or remove_spectral_norm, joins them",
    ),
    (
        r"(^|\.)embeddings\.(cls_token|patch_embeddings)|\.attention\.attention\.query",
        "a Hugging Face vision model",
    ),
    (r"^(text_model|vision_model|visual)\.", "a CLIP model"),
    (r"^(backbone\.body|rpn|roi_heads)\.", "a torchvision detection model"),
    (r"^model\.\d+\.(conv|cv1|m)\.|^\d+\.(conv|cv1)\.", "a YOLO detection model"),
    (r"^encoder\.layers\.encoder_layer_", "a torchvision Vision Transformer of another size"),
    (r"^blocks\.\d+\.attn\.qkv\.", "a timm Vision Transformer (--model timm:NAME)"),
    (r"^(stages|conv_stem|stem)\b", "a timm convolutional network (--model timm:NAME)"),
    (r"^backbone\.", "a network wrapped as 'backbone', as for detection or segmentation"),
)


def describe_file(start: bytes, names: list[str]) -> str:
    """Say what a file that is no checkpoint looks like.

    Args:
        start: Its first bytes.
        names: Of its members, if it is a zip archive.
    """
    if not start:
        return "an empty file"
    if any(name.endswith("model.weights.h5") for name in names):
        return "a network of Keras"
    if any(name.endswith(".npy") for name in names):
        return "an .npz of NumPy, as JAX keeps weights in: embeddings in one are DATA"
    if names:
        return f"a zip archive of other things ({listed(names, limit=3)})"
    for pattern, description in _SIGNATURES:
        if re.match(pattern, start, re.IGNORECASE | re.DOTALL):
            return description
    if all(byte in b"\t\n\r" or byte >= 32 for byte in start):
        return f"text that begins {start[:40].decode(errors='replace')!r}"
    return f"bytes that begin {start[:8].hex(' ')}"


def describe_entries(entries: Mapping[object, object]) -> str:
    """Say what a dictionary without weights looks like."""
    if {"state", "param_groups"} <= set(entries):
        return "an optimizer's state"
    return f"a dictionary with the entries {listed([str(name) for name in entries])}"


def describe_weights(shapes: Shapes) -> str:
    """Say which network a set of weights looks like.

    Every torchvision classification network of a family that has the first tensor's name is compared in full,
    apart from the number of classes; else the family is guessed from the names.

    Args:
        shapes: Name and shape of each tensor.

    Returns:
        A noun phrase, such as "torchvision resnet34 with 10 classes (all 218 tensors match)".
    """
    match = _torchvision_match(shapes)
    if match:
        name, n_classes = match
        classes = "" if n_classes == IMAGENET_CLASSES else f" with {n_classes} classes"
        return f"torchvision {name}{classes} (all {len(shapes)} tensors match): --model {name}"
    for pattern, description in _FAMILIES:
        if any(re.search(pattern, name) for name in shapes):
            return description
    return f"an unknown network whose first tensors are {listed(list(shapes), limit=3)}"


def _torchvision_match(shapes: Shapes) -> tuple[str, int] | None:
    families: dict[str, list[str]] = {}
    for name in torchvision_names():
        families.setdefault(torchvision_family(name), []).append(name)
    first = next(iter(shapes))
    for names in families.values():
        # Building all 80 takes seconds; one of each family tells whether the others are worth building.
        if first not in torchvision_state(names[0]):
            continue
        for name in names:
            n_classes = _classes_if_same(
                shapes,
                skeleton(lambda name=name: build_torchvision(name, tensors=shapes)),  # type: ignore[misc]
            )
            if n_classes:
                return name, n_classes
    return None


def _classes_if_same(shapes: Shapes, reference: Shapes) -> int | None:
    """Return the number of classes in `shapes` if all else equals `reference`, else None."""
    if _without_counters(shapes) != _without_counters(reference):
        return None
    n_classes = IMAGENET_CLASSES
    for name in _without_counters(shapes):
        got, expected = shapes[name], reference[name]
        if got == expected:
            continue
        if not expected or expected[0] != IMAGENET_CLASSES or got[1:] != expected[1:]:
            return None
        n_classes = got[0]
    return n_classes


def _without_counters(shapes: Shapes) -> set[str]:
    return {name for name in shapes if not name.endswith("num_batches_tracked")}
