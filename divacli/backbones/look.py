"""Say what a file of weights, or of a whole network, holds."""

from __future__ import annotations

import json
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from divacli.backbones.checkpoint import Checkpoint, archive_kind, read_checkpoint
from divacli.backbones.entries import Entry, is_averaged, shared_prefix
from divacli.backbones.hub.huggingface import HF, huggingface_folder
from divacli.backbones.hub.model_folder import CONFIG
from divacli.backbones.recognise import recognised
from divacli.errors import DivaError, ModelError
from divacli.files.regular import DOCUMENT_BYTES, read_regular

_ARCHIVES = {
    "torchscript": "a whole network as TorchScript, which is run as code",
    "export": "a whole network of torch.export, which is run as code",
    "onnx": "a whole network in ONNX",
}

_MATRIX = 2  # dimensions


@dataclass(frozen=True)
class FoundWeights:
    """One set of named tensors in a file.

    Attributes:
        entry: The keys that lead to it; "" for the file itself.
        n_tensors: How many tensors it has.
        n_numbers: How many numbers these hold.
        dtypes: Of the tensors, without repetition.
        prefix: What wrappers put before all names.
        averaged: Whether its name says that it is an average over the training.
        last: Name and shape of the last matrix, which is mostly that of the head; "" for none.
    """

    entry: str
    n_tensors: int
    n_numbers: int
    dtypes: str
    prefix: str
    averaged: bool
    last: str

    @classmethod
    def of(cls, entry: Entry) -> FoundWeights:
        """Count what an entry of a file holds."""
        tensors = entry.weights.values()
        matrices = [name for name, tensor in entry.weights.items() if tensor.ndim == _MATRIX]
        return cls(
            entry=entry.name,
            n_tensors=len(tensors),
            n_numbers=sum(tensor.numel() for tensor in tensors),
            dtypes=", ".join(sorted({str(tensor.dtype).removeprefix("torch.") for tensor in tensors})),
            prefix=shared_prefix(list(entry.weights)),
            averaged=is_averaged(entry.name),
            last=f"{matrices[-1]} {tuple(entry.weights[matrices[-1]].shape)}" if matrices else "",
        )


@dataclass(frozen=True)
class Look:
    """What a file holds.

    Attributes:
        path: The file, or the folder of a Hugging Face model.
        kind: Of the file, in words.
        weights: The sets of tensors in a file of weights.
        settings: Of the training, by name, as the file states them; those that say what the network is and
            how its images were prepared.
        network: As `--model` takes it; "" where it is not known.
        unknown: Why the network is not known; "" where it is, or where none is needed.
        options: Of the command that uses the file.
    """

    path: Path
    kind: str
    weights: tuple[FoundWeights, ...]
    settings: dict[str, Any]
    network: str
    unknown: str
    options: str


def look_at(path: Path) -> Look:
    """Find out what a file of weights or a whole network holds, and how it is used.

    Args:
        path: The file, or the folder of a Hugging Face model.

    Raises:
        ModelError: There is no such file, or it holds no weights.
    """
    quoted = shlex.quote(str(path))
    if (folder := huggingface_folder(path)) is not None:
        return _of_folder(folder)
    kind = archive_kind(path)
    if kind is not None:
        return Look(path, _ARCHIVES[kind], (), {}, "", "", f"--checkpoint {quoted}")
    checkpoint = read_checkpoint(path)
    weights = tuple(FoundWeights.of(entry) for entry in checkpoint.entries)
    network, unknown = _network_of(checkpoint)
    options = f"--model {network or 'NAME'} --checkpoint {quoted}"
    kind_of_weights = "weights without a network"
    return Look(path, kind_of_weights, weights, checkpoint.settings, network, unknown, options)


def _of_folder(folder: Path) -> Look:
    try:
        config = json.loads(read_regular(folder / CONFIG, DOCUMENT_BYTES))
    except (OSError, ValueError) as error:
        raise ModelError(f"{folder / CONFIG} cannot be read: {error}", expected="a JSON file") from error
    names = config.get("architectures") or [config.get("model_type", "")]
    shown = ("model_type", "image_size", "hidden_size", "num_labels", "id2label")
    settings = {name: config[name] for name in shown if name in config}
    kind = f"a Hugging Face network: {', '.join(map(str, names))}"
    network = f"{HF}{folder}"
    return Look(folder, kind, (), settings, network, "", f"--model {shlex.quote(network)}")


def _network_of(checkpoint: Checkpoint) -> tuple[str, str]:
    try:
        return recognised(checkpoint), ""
    except DivaError as error:
        return "", error.got
