"""What all models of Hugging Face share: their folder, their weights, and how errors in them are told."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from divacli.backbones.checkpoint import clean, first_line, precision_notes, read_checkpoint
from divacli.errors import ModelError, listed
from divacli.files.path_or_url import is_special
from divacli.files.regular import DOCUMENT_BYTES, NO_REGULAR_FILE, read_regular

EMBEDDING = "embedding"
"""The module whose input the features are, where a network ends in an embedding."""

WITH_MODEL = "those that come with it"
"""Where the weights of a model are from whose name says all."""

CONFIG = "config.json"

_FILES = ("*.json", "merges.txt")
_SAFE_WEIGHTS = ("model.safetensors", "model-*.safetensors")
_PICKLED_WEIGHTS = ("pytorch_model.bin", "pytorch_model-*.bin")


@dataclass(frozen=True)
class Loaded:
    """A network of transformers with the weights of a folder.

    Attributes:
        network: In evaluation mode and float32, on the CPU.
        missing: Names of parameters that the folder's files lack. Their values are random.
        unused: Names of tensors in the files that the network has no place for.
        notes: What was changed in the weights, in sentences for the user.
    """

    network: Any
    missing: tuple[str, ...]
    unused: tuple[str, ...]
    notes: tuple[str, ...]


def require_transformers(model: str) -> None:
    """Raise a ModelError where transformers is not installed.

    Args:
        model: What needs it, as it was named.
    """
    try:
        import transformers  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f"{model} needs transformers, which is not installed", hint="pip install 'divacli[transformers]'"
        ) from error


def fetched(model: str, expected: str) -> tuple[Path, dict[str, Any]]:
    """Return the folder of a model's files and what its config.json holds.

    Args:
        model: A prefix that ends in ":", and a folder or the name of a model on huggingface.co. A name is
            downloaded to the user's Hugging Face cache where need be.
        expected: What the model is to be, for messages.

    Raises:
        ModelError: There is no such model, it has no readable config.json, or one of its files is a pipe.
    """
    with explained(model, expected):
        folder = _folder(model.partition(":")[2])
        if special := sorted(file.name for file in folder.iterdir() if is_special(str(file))):
            raise ValueError(f"{listed(special)}: {NO_REGULAR_FILE}")
        config = json.loads(read_regular(folder / CONFIG, DOCUMENT_BYTES))
        if not isinstance(config, dict):
            raise ValueError(f"{CONFIG} holds no object")
    return folder, config


def weight_files(folder: Path) -> list[Path]:
    """List the files whose weights are read: one or several of safetensors, else of `torch.save`."""
    for pattern in (*_SAFE_WEIGHTS, *_PICKLED_WEIGHTS):
        if files := sorted(folder.glob(pattern)):
            return files
    return []


def load_network(kind: Any, config: Any, folder: Path, model: str, expected: str) -> Loaded:
    """Build a network of transformers and put the weights of a folder into it.

    Args:
        kind: The class of the network.
        config: Its configuration.
        folder: Where the files of weights lie.
        model: The model as it was named, for messages.
        expected: What it is to be, for messages.

    Raises:
        ModelError: There are no weights, a file is unreadable, or tensors have other shapes.
    """
    weights, notes = _weights(folder, model)
    # A configuration may name kernels on the hub here, which are code. Its parts get the same value.
    config._attn_implementation = None
    with explained(model, expected), quietly():
        # No file is named: transformers reads none, and no code of theirs.
        network, report = kind.from_pretrained(
            None,
            config=config,
            state_dict=weights,
            dtype=torch.float32,
            output_loading_info=True,
            ignore_mismatched_sizes=True,
        )
    # Names, with their shapes in releases from 5 on.
    if unlike := sorted(key if isinstance(key, str) else key[0] for key in report["mismatched_keys"]):
        raise ModelError(
            f"{model}: {len(unlike)} of its weights have other shapes than its {CONFIG} says: "
            f"{listed(unlike, limit=3)}",
            expected="weights and a configuration of one network",
            hint="save both with save_pretrained",
        )
    missing = sorted(name for name in report["missing_keys"] if not name.endswith("num_batches_tracked"))
    return Loaded(network.eval(), tuple(missing), tuple(sorted(report["unexpected_keys"])), notes)


def lacking(model: str, missing: tuple[str, ...], expected: str) -> ModelError:
    """Return the error for weights that a model's files lack."""
    return ModelError(
        f"{model} lacks {len(missing)} of its weights: {listed(list(missing))}",
        expected=expected,
        hint="fetch or save the model again",
    )


@contextmanager
def explained(model: str, expected: str) -> Iterator[None]:
    """Turn whatever transformers raises into one message.

    Args:
        model: As it was named, with its prefix.
        expected: What it is to be.
    """
    try:
        yield
    except ModelError:
        raise
    except Exception as error:
        raise ModelError(
            f"{model} cannot be loaded: {type(error).__name__}: {first_line(error)}",
            expected=expected,
            hint="check the name and the connection, or fetch the model elsewhere and give "
            f"{model.partition(':')[0]}:FOLDER",
        ) from error


@contextmanager
def quietly() -> Iterator[None]:
    """Keep the messages and bars of transformers back; what is wrong is said in an exception."""
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def _folder(name: str) -> Path:
    if Path(name).is_dir():
        return Path(name)
    from huggingface_hub import snapshot_download

    # All files at once: transformers would ask for each by itself and, without a connection, again and again
    # for half a minute.
    folder = Path(snapshot_download(name, allow_patterns=[*_FILES, *_SAFE_WEIGHTS]))
    if not any(folder.glob("*.safetensors")):
        snapshot_download(name, allow_patterns=[*_PICKLED_WEIGHTS])
    return folder


def _weights(folder: Path, model: str) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    files = weight_files(folder)
    if not files:
        raise ModelError(
            f"{model} has no weights",
            expected=f"one of {', '.join((*_SAFE_WEIGHTS, *_PICKLED_WEIGHTS))} in {folder}",
            hint="save the network there with save_pretrained, or fetch all files of the model",
        )
    weights: dict[str, Tensor] = {}
    notes: dict[str, None] = {}
    for file in files:
        read = read_checkpoint(file).main.weights
        if twice := sorted(weights.keys() & read.keys()):
            raise ModelError(
                f"{folder} has {listed(twice, limit=3)} in two files",
                expected="the files of one network, which share no weights",
                hint="keep those that belong to the network in a folder of their own",
            )
        weights |= clean(read, file)
        notes |= dict.fromkeys(precision_notes(read.values()))
    return weights, tuple(notes)
