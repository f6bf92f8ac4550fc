"""The choices that the command line and Python share: network, computing and problem.

Both make a `Loader` and `SolveOptions` of them here. Importing this module imports no torch.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from divacli.backbones.linearised.expression import HEAD, PROJECTION, Linearize
from divacli.errors import DivaError
from divacli.files.cache import default_cache
from divacli.progress import Progress, silent

if TYPE_CHECKING:
    import torch
    from torch import nn

    from divacli.solve.loader import Loader
    from divacli.solve.ridge_problem import SolveOptions

Loss = Literal["squared", "cross-entropy", "robust-cross-entropy"]

SQUARED: Loss = "squared"
CROSS_ENTROPY: Loss = "cross-entropy"
ROBUST_CROSS_ENTROPY: Loss = "robust-cross-entropy"
"""Validation losses. In the robust one a share of the labels may be wrong."""


@dataclass(frozen=True)
class Network:
    """The network that turns images into features.

    Attributes:
        model: A torchvision name, `timm:NAME`, `hf:NAME`, `clip:NAME` or `FILE.py:FACTORY`; from Python also
            a `torch.nn.Module`, which is copied and never changed.
        checkpoint: A file with its weights; without `model`, an archive of a whole network, or weights of a
            network that is recognised. With neither, torchvision's resnet50 is downloaded.
        weights: Published weights instead, such as "DEFAULT".
        entry: Which of several sets of weights in the checkpoint is meant. None: the one that fits.
        layer: The layer whose input the features are. None: the last linear layer of a classifier; of a
            network without one its output is the features.
        image_size: Side of the crop in pixels. None: the network's own.
        linearize: What features are gradients of: "head" (they are what flows into the last layer),
            "block:NAME", "full", or a sum such as "head+2*block:last".
        projection: Numbers that a gradient is compressed to, a power of two.
        transform: Of a module: from an RGB PIL image to a float tensor (3, h, w).
        key: Another one for each object. Features of code that nobody can look up are kept under it.
    """

    model: str | nn.Module | None = None
    checkpoint: str | os.PathLike[str] | None = None
    weights: str | None = None
    entry: str | None = field(default=None, kw_only=True)
    layer: str | None = None
    image_size: int | None = None
    linearize: str = HEAD
    projection: int = PROJECTION
    transform: Callable[[Any], Any] | None = field(default=None, kw_only=True)
    key: str = field(default_factory=lambda: uuid.uuid4().hex, init=False, repr=False, compare=False)

    def __repr__(self) -> str:
        """What was given; of a module its class."""
        given = {one.name: getattr(self, one.name) for one in fields(self) if one.init}
        shown = {
            name: f"<{type(value).__name__}>"
            if name == "model" and not isinstance(value, str)
            else repr(value)
            for name, value in given.items()
            if value != getattr(Network, name)
        }
        return f"Network({', '.join(f'{name}={value}' for name, value in shown.items())})"


@dataclass(frozen=True)
class Compute:
    """How features are computed, and where they are kept.

    Attributes:
        device: "auto", "cpu", "cuda" or "cuda:N".
        batch_size: Images at a time. None: 32 in training, else as many as are fast.
        workers: Processes that decode images and, on the CPU, run the network. None: one a core; 0: none.
        amp: Mixed precision for the network on CUDA.
        compile: Compile the network on CUDA.
        cache_dir: Folder for features. None: `DIVA_CACHE_DIR`, or `~/.cache/diva`.
        strict: Raise where an image cannot be decoded or an embedding is not finite, instead of leaving the
            sample out.
        progress: Show on standard error how far the work is. The command line has `--quiet` instead.
    """

    device: str = "auto"
    batch_size: int | None = None
    workers: int | None = None
    amp: bool = True
    compile: bool = False
    cache_dir: str | os.PathLike[str] | None = None
    strict: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        """Refuse numbers out of their range.

        Raises:
            DivaError: One is.
        """
        for name, least in (("batch_size", 1), ("workers", 0)):
            require_count(name, getattr(self, name), least)

    @property
    def cache(self) -> Path:
        """Where features are kept, named or not."""
        return default_cache() if self.cache_dir is None else Path(self.cache_dir)


def require_count(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number, or too small a one; None is right.

    Raises:
        DivaError: It is such.
    """
    right = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= least
    if value is not None and not right:
        raise DivaError(f"{name}={value!r}", expected=f"a whole number from {least} up")


def is_number(value: object) -> bool:
    """Whether it is a finite number, of Python or numpy, and no truth value."""
    return isinstance(value, Real) and not isinstance(value, bool) and abs(float(value)) < float("inf")


_CHOICES = {
    "loss": (None, SQUARED, CROSS_ENTROPY, ROBUST_CROSS_ENTROPY),
    "validation": ("natural", "balanced"),
    "scaling": ("unit", "standard", "none"),
    "dtype": ("float32", "float64"),
}


@dataclass(frozen=True)
class Problem:
    """The loss that is differentiated, and the fit.

    Attributes:
        val: DATA whose loss is differentiated. None: the leave-one-out loss.
        ridge: The L2 penalty lambda on the features as scaled. None or "auto": chosen.
        loss: Validation loss. None: the command's own default.
        validation: Whether every sample ("natural") or every class ("balanced") counts equally in it.
        group: Column whose equal values are left out together; "duplicates" to search for copies; "none".
            None: the column group, where there is one.
        scaling: Of the features: "unit", "standard" or "none".
        around_head: Linearise around the network's own head, trained on these classes.
        dtype: Of the solve: "float32" or "float64".
        seed: Of whatever is drawn at random.

    Raises:
        DivaError: A value is none of these.
    """

    val: Any = None
    ridge: float | Literal["auto"] | None = None
    loss: Loss | None = None
    validation: Literal["natural", "balanced"] = "natural"
    group: str | None = None
    scaling: Literal["unit", "standard", "none"] = "unit"
    around_head: bool = False
    dtype: Literal["float32", "float64"] = "float32"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse what is no choice."""
        for name, possible in _CHOICES.items():
            if (value := getattr(self, name)) not in possible:
                raise DivaError(f"{name}={value!r}", expected=f"one of {', '.join(filter(None, possible))}")
        chosen = self.ridge is None or self.ridge == "auto"
        if not chosen and not (is_number(self.ridge) and float(self.ridge) >= 0):  # type: ignore[arg-type]
            raise DivaError(f"ridge={self.ridge!r}", expected="'auto' or a number >= 0")
        if self.seed is None:
            raise DivaError("seed=None", expected="a whole number from 0 up")
        require_count("seed", self.seed, 0)

    @property
    def changes_scores(self) -> bool:
        """Whether scores would be others than by default; precision and seed are left aside."""
        return self.val is not None or replace(self, dtype="float32", seed=0) != Problem()

    def require_loss(self, *, robust: bool = False) -> None:
        """Refuse a loss that a command does not have.

        Args:
            robust: As for `solve_options`.

        Raises:
            LossError: It is such.
        """
        entropy = ROBUST_CROSS_ENTROPY if robust else CROSS_ENTROPY
        if self.loss not in (None, SQUARED, entropy):
            raise LossError(
                f"{self.loss} is no loss of this command",
                expected=f"{SQUARED} or {entropy}",
                hint="leave the loss out for the command's own",
            )

    def solve_options(
        self, loader: Loader, default_loss: Loss = SQUARED, *, robust: bool = False
    ) -> SolveOptions:
        """How the problem is solved.

        Args:
            loader: Of the same run: its device and its groups.
            default_loss: Where none is given.
            robust: Whether the command takes the robust cross-entropy in the place of the plain one.

        Raises:
            LossError: The loss is not one of this command.
        """
        import torch

        from divacli.solve.ridge_problem import SolveOptions

        self.require_loss(robust=robust)
        return SolveOptions(
            ridge=None if self.ridge is None or self.ridge == "auto" else float(self.ridge),
            loss=self.loss or default_loss,
            scaling=self.scaling,
            around_head=self.around_head,
            group=loader.groups.column,
            balanced=self.validation == "balanced",
            dtype=getattr(torch, self.dtype),
            device=loader.device,
            seed=int(self.seed),
        )


class LossError(DivaError):
    """A loss that the command does not have."""


def open_loader(
    network: Network,
    compute: Compute,
    device: torch.device,
    group: str | None,
    *,
    progress: Progress = silent,
    warn: Callable[[str], None],
    note: Callable[[str], None],
) -> Loader:
    """What reads and embeds DATA.

    Args:
        network: For images.
        compute: How it runs.
        device: That `compute.device` stands for.
        group: As of `Problem`.
        progress: Told how far the work is.
        warn: Told what the user should know, one sentence at a time.
        note: Told what is no warning.
    """
    from divacli.features import BackboneChoice, ExtractOptions
    from divacli.solve.loader import Loader

    return Loader(
        BackboneChoice(
            network.model,
            None if network.checkpoint is None else Path(network.checkpoint),
            network.weights,
            network.layer,
            network.image_size,
            Linearize(network.linearize, network.projection),
            network.transform,
            network.key,
            network.entry,
        ),
        ExtractOptions(device, compute.batch_size, compute.workers, compute.amp, compute.compile, tell=warn),
        compute.cache,
        group,
        strict=compute.strict,
        progress=progress,
        warn=warn,
        note=note,
    )
