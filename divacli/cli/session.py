"""From parsed options to the objects that do the work."""

from __future__ import annotations

import logging
from dataclasses import fields, replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import typer

from divacli.cli.console import RichProgress, note, warn
from divacli.cli.options import ComputeOptions, FrameOptions, NetworkOptions, ProblemOptions
from divacli.cli.processes import launched
from divacli.reading import NamedData
from divacli.solve.options import SQUARED, Compute, Loss, LossError, Network, Problem, open_loader

if TYPE_CHECKING:
    from divacli.solve.loader import Loader
    from divacli.solve.ridge_problem import SolveOptions

_LOGGER = logging.getLogger(__name__)


def loader_of(
    network: NetworkOptions, compute: ComputeOptions, frame: FrameOptions, group: str | None = None
) -> Loader:
    """What reads and embeds DATA in this run.

    Args:
        network: Options, and so are the others.
        compute: How features are computed.
        frame: Progress and quiet.
        group: `--group`.

    Raises:
        DivaError: There is no such device.
    """
    from divacli.machine.device import resolve_device
    from divacli.parallel import join

    device = resolve_device(compute.device)
    _LOGGER.info("device %s", device)
    if launched():
        join(device)
    return open_loader(
        Network(**_values(network)),
        compute_of(compute),
        device,
        group,
        progress=RichProgress(frame),
        warn=warn,
        note=lambda message: note(message, frame),
    )


def compute_of(compute: ComputeOptions) -> Compute:
    """The options of computing as Python has them, too."""
    return Compute(**_values(compute))


def problem_of(problem: ProblemOptions, *, val: NamedData | None = None, robust: bool = False) -> Problem:
    """The options of the problem as Python has them, too.

    Args:
        problem: The options.
        val: The validation set.
        robust: As of `Problem.solve_options`.

    Raises:
        typer.BadParameter: The loss is not one of this command.
    """
    made = replace(Problem(**_values(problem)), val=val)
    try:
        made.require_loss(robust=robust)
    except LossError as error:
        raise typer.BadParameter(f"{error.got}; expected {error.expected}", param_hint="'--loss'") from error
    return made


def solve_options(
    problem: ProblemOptions, loader: Loader, default_loss: Loss = SQUARED, *, robust: bool = False
) -> SolveOptions:
    """How the problem is solved.

    Args:
        problem: The options.
        loader: Of this run.
        default_loss: As of `Problem.solve_options`.
        robust: As of `Problem.solve_options`.

    Raises:
        typer.BadParameter: The loss is not one of this command.
    """
    return problem_of(problem, robust=robust).solve_options(loader, default_loss, robust=robust)


def _values(options: NetworkOptions | ComputeOptions | ProblemOptions) -> dict[str, Any]:
    """The value of every option of a group by its name; members of enumerations are their text."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    return {name: value.value if isinstance(value, StrEnum) else value for name, value in values.items()}
