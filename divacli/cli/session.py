"""From parsed options to the objects that do the work."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import typer

from divacli.backbones.linearised.expression import UNCHANGED, Linearize
from divacli.cli.console import RichProgress, note, warn
from divacli.cli.options import (
    ComputeOptions,
    DtypeName,
    FrameOptions,
    LossName,
    NetworkOptions,
    ProblemOptions,
    ValidationName,
)
from divacli.cli.processes import launched
from divacli.solve.loader import Loader

if TYPE_CHECKING:
    from divacli.curate.score_table import Scores
    from divacli.solve.pose import SolveOptions

_LOGGER = logging.getLogger(__name__)


class Session(Loader):
    """One run of a command that works on features.

    Args:
        network: Options, and so are the others.
        compute: How features are computed.
        frame: Progress and quiet.
        group: `--group`.

    Raises:
        DivaError: There is no such device.
    """

    def __init__(
        self,
        network: NetworkOptions,
        compute: ComputeOptions,
        frame: FrameOptions,
        group: str | None = None,
    ) -> None:
        from divacli.embed import BackboneChoice, ExtractOptions
        from divacli.machine.device import resolve_device
        from divacli.parallel import join

        device = resolve_device(compute.device)
        _LOGGER.info("device %s", device)
        if launched():
            join(device)
        super().__init__(
            BackboneChoice(
                network.model,
                network.checkpoint,
                network.weights,
                network.layer,
                network.image_size,
                Linearize(network.linearize, network.projection),
            ),
            ExtractOptions(
                device, compute.batch_size, compute.workers, compute.amp, compute.compile, tell=warn
            ),
            compute.cache,
            group,
            strict=compute.strict,
            progress=RichProgress(frame),
            warn=warn,
            note=lambda message: note(message, frame),
        )

    def scored(self, data: str, problem: ProblemOptions, *, features: bool = True) -> Scores:
        """Scores of DATA: those that it holds, or else computed now.

        Args:
            data: As on the command line.
            problem: How they are computed.
            features: Whether the features that scores in DATA were made from are looked for.
        """
        from divacli.curate.sample_scores import score
        from divacli.curate.score import of_known_labels
        from divacli.curate.score_table import Scores
        from divacli.embed import Samples, is_store, read_data
        from divacli.embed.open import check_images
        from divacli.manifest import read_manifest

        options = self.solve_options(problem)
        opened = read_data(data) if is_store(data) else read_manifest(data)
        if not isinstance(opened, Samples) and "derivative" in opened.table:
            self.warned(opened)
            if replace(problem, dtype=DtypeName.float32, seed=0) != ProblemOptions():
                warn(
                    f"{opened.name} holds scores, which are used as they are: options of the problem "
                    "(--ridge, --loss, --val ...) change nothing. Give the images to score them anew"
                )
            if self.choice.linearize != UNCHANGED:
                warn(
                    f"{opened.name} holds scores, which are used as they are: --linearize and what goes with "
                    "it change nothing. Give the images to score them anew"
                )
            return Scores.recorded(opened, self.cache, options, self.progress, features=features)
        if not isinstance(opened, Samples):
            check_images(opened)
        samples, validation = self.load_both(opened, problem.val)
        result = score(samples, options, validation, self.progress)
        for warning in of_known_labels(result.summary):
            warn(warning)
        return Scores.fresh(result, options)

    def solve_options(
        self, problem: ProblemOptions, default_loss: LossName = LossName.squared, *, robust: bool = False
    ) -> SolveOptions:
        """How the problem is solved.

        Args:
            problem: The options.
            default_loss: Where none is given.
            robust: Whether the command takes the robust cross-entropy in the place of the plain one.

        Raises:
            typer.BadParameter: The loss is not one of this command.
        """
        import torch

        from divacli.solve.pose import SolveOptions

        loss = problem.loss or default_loss
        entropy = LossName.robust_cross_entropy if robust else LossName.cross_entropy
        if loss not in (LossName.squared, entropy):
            raise typer.BadParameter(
                f"{loss.value} is no loss of this command; expected squared or {entropy.value}",
                param_hint="'--loss'",
            )
        return SolveOptions(
            ridge=problem.ridge,
            loss=loss.value,
            scaling=problem.scaling.value,
            around_head=problem.around_head,
            group=self.group_column,
            balanced=problem.validation is ValidationName.balanced,
            dtype=getattr(torch, problem.dtype.value),
            device=self.device,
            seed=problem.seed,
        )
