"""How features are computed; nothing here imports torchvision, which features that are there do not need."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch

CPU_BLOCK = 4
"""Images in one pass of a network that is being trained on the CPU, by all cores together: larger blocks do
not stay in the cache."""


@dataclass(frozen=True)
class ExtractOptions:
    """How features are computed.

    Attributes:
        device: Where the network runs.
        batch_size: Images in memory at a time, and on CUDA at most in one forward pass: less where they do
            not fit. On the CPU rounded up to whole blocks. None: as many as are fast.
        workers: Processes that decode, and on the CPU run the network, each on one core; None: one a core; 0:
            everything in this process.
        amp: Mixed precision (float16 autocast); on CUDA only.
        compile: Let `torch.compile` make the network faster, which takes a minute first; on CUDA only.
        tell: Told, in one sentence, of a batch size that turned out too large, or of what was damaged in the
            cache and is made again.
    """

    device: torch.device
    batch_size: int | None = None
    workers: int | None = None
    amp: bool = True
    compile: bool = False
    tell: Callable[[str], None] = field(default=lambda sentence: None, compare=False, repr=False)

    @property
    def precision(self) -> str:
        """What the features' last digits depend on; a part of their identity."""
        return "float16 autocast" if self.mixed else "float32"

    @property
    def compiled(self) -> bool:
        """Whether the network is compiled."""
        return self.compile and self.device.type == "cuda"

    @property
    def mixed(self) -> bool:
        """Whether precision is mixed."""
        return self.amp and self.device.type == "cuda"

    @contextlib.contextmanager
    def arithmetic(self) -> Iterator[None]:
        """The arithmetic that `precision` names."""
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, dtype=torch.float16, enabled=self.mixed),
            # Its default is to switch cuDNN off.
            torch.backends.cudnn.flags(enabled=True, allow_tf32=self.mixed, benchmark=self.mixed),
        ):
            yield
