"""Digests of what the features depend on: the same on every machine and in every process."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

import torch
from torch import Tensor


def text_digest(thing: object) -> str:
    """Return the SHA-256 of how a thing prints, as `stable_text` gives it."""
    return hashlib.sha256(stable_text(thing).encode()).hexdigest()


def stable_text(thing: object) -> str:
    """Return how a thing prints, without the memory addresses that differ from run to run."""
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(thing))


def weights_digest(weights: Mapping[str, Tensor]) -> str:
    """Return the SHA-256 over the names, types, shapes and bytes of tensors, in the order of their names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(weights.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tensors_digest(*tensors: Tensor) -> str:
    """Return the SHA-256 over the shapes of floating tensors and their entries to three digits."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tuple(tensor.shape)}\n".encode())
        # The last digits depend on the processor and on the number of threads.
        digest.update(tensor.detach().cpu().bfloat16().contiguous().view(torch.int16).numpy().data)
    return digest.hexdigest()
