"""`diva train`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

from divacli.cli.command import command
from divacli.cli.console import note, say
from divacli.cli.options import (
    LINEARISATION,
    ComputeOptions,
    Data,
    FrameOptions,
    NetworkOptions,
    OutputOptions,
    ProblemOptions,
)
from divacli.cli.reading_options import ReadingOptions
from divacli.cli.values import require_one_stdin, step_size_value
from divacli.files.existing import require_present

_TRAINING, _STEPS = "Training", "Steps of the weights"


class OptimizerName(StrEnum):
    """What moves the network."""

    sgd = "sgd"
    adamw = "adamw"


def register(app: typer.Typer) -> None:
    """Add the command."""

    # The point is to need no validation set, and features change while the network's head does.
    @command(app, "train", without=("val", "around_head", "val_split", "pool_split", *LINEARISATION))
    def train(
        data: Data,
        reading: ReadingOptions,
        network: NetworkOptions,
        problem: ProblemOptions,
        compute: ComputeOptions,
        output: OutputOptions,
        frame: FrameOptions,
        trainable: Annotated[
            str,
            typer.Option(
                help="last (the last block), all, or the name of a part; the head always.",
                metavar="last|all|NAME",
                rich_help_panel=_TRAINING,
            ),
        ] = "last",
        epochs: Annotated[
            int, typer.Option(help="Passes over the samples.", min=1, rich_help_panel=_TRAINING)
        ] = 5,
        optimizer: Annotated[
            OptimizerName,
            typer.Option(help="sgd (momentum 0.9) or adamw.", rich_help_panel=_TRAINING),
        ] = OptimizerName.sgd,
        lr: Annotated[
            float | None,
            typer.Option(
                help="The largest learning rate; it falls along a cosine. Default: 0.005; adamw 0.0001.",
                show_default=False,
                rich_help_panel=_TRAINING,
            ),
        ] = None,
        weight_decay: Annotated[
            float, typer.Option(help="Of the trained parameters.", min=0, rich_help_panel=_TRAINING)
        ] = 1e-4,
        clip_norm: Annotated[
            float, typer.Option(help="Longer gradients are shortened to this.", rich_help_panel=_TRAINING)
        ] = 10.0,
        test: Annotated[
            str | None,
            typer.Option(
                help="Held-out DATA whose error is reported after each epoch, and never used.",
                metavar="DATA",
                rich_help_panel=_TRAINING,
            ),
        ] = None,
        restart: Annotated[
            bool,
            typer.Option(
                "--restart", help="Begin anew where --out holds a checkpoint.", rich_help_panel=_TRAINING
            ),
        ] = False,
        reweight_every: Annotated[
            int | None,
            typer.Option(
                help="Optimiser steps between steps of the weights. Default: once an epoch.",
                min=1,
                show_default=False,
                rich_help_panel=_STEPS,
            ),
        ] = None,
        step_size: Annotated[
            str,
            typer.Option(
                help="auto, chosen by closed-form K-fold; by how much a weight of 1 changes on average; or 0 "
                "for constant weights.",
                metavar="auto|NUMBER|0",
                rich_help_panel=_STEPS,
            ),
        ] = "auto",
        patience: Annotated[
            int,
            typer.Option(
                help="Stop when the K-fold loss has not fallen for so many of them.",
                min=1,
                rich_help_panel=_STEPS,
            ),
        ] = 3,
    ) -> None:
        """Fine-tune the network and weigh its samples together, without a validation split.

        Writes model.pt (a state dict for --checkpoint and for torch.load), model.json (its classes),
        reweighted.csv, history.csv, train.json and failed.csv. Interrupted, the same command goes on from
        checkpoint.pt.

        Examples:
        `diva train photos/ --model resnet50 --weights DEFAULT --test held_out/`

        `diva train photos/ --model mobilenet_v2 --checkpoint best.pth --trainable all --epochs 10`
        """
        size = 0.0 if _is_zero(step_size) else step_size_value(step_size)
        for name, value in (("--lr", lr), ("--clip-norm", clip_norm)):
            if value is not None and not 0 < value < float("inf"):
                raise typer.BadParameter(f"{name} {value}: expected a number above 0")
        require_one_stdin("DATA and --test", data, test)
        require_present(data, test)
        from divacli.cli.deliver import deliver
        from divacli.cli.output import Output, require_no_input
        from divacli.cli.session import compute_of, loader_of, solve_options
        from divacli.report.terminal.train import train_summary
        from divacli.training.command import Training, train_data
        from divacli.training.train import CHECKPOINT, FILES

        require_no_input(output.out, [CHECKPOINT])
        target = Output(output, *FILES, sources=(data,))
        hint = "leave --out out for diva-out; its reweighted.csv is DATA for other commands"
        checkpoint = target.required_folder("the trained network is a file", hint) / CHECKPOINT
        loader = loader_of(network, compute, frame, problem.group)
        training = Training(
            trainable,
            epochs,
            optimizer.value,
            lr,
            weight_decay,
            clip_norm,
            reweight_every,
            "auto" if size is None else size,
            patience,
        )
        try:
            result = train_data(
                loader,
                reading.data(data, test, problem.val),
                training.options(compute_of(compute)),
                solve_options(problem, loader, robust=True),
                test=reading.test(test, data),
                weights=network.checkpoint,
                checkpoint=checkpoint,
                restart=restart,
                replaced=output.overwrite,
                strict=compute.strict,
                told=lambda sentence: note(sentence, frame),
            )
        except KeyboardInterrupt as error:
            if checkpoint.exists():
                same = "the same command without --restart" if restart else "the same command"
                say(f"interrupted; {checkpoint} keeps the progress, and {same} goes on from there")
            else:
                say("interrupted before there was any progress to keep")
            raise typer.Exit(130) from error
        deliver(result, target, train_summary, frame, cache=compute.cache)


def _is_zero(text: str) -> bool:
    try:
        return float(text) == 0
    except ValueError:
        return False
