"""The options, each declared once, in groups that commands share.

A group is a dataclass whose fields carry Typer annotations; a command takes a group as one parameter and
`divacli.cli.command` spreads its fields out for Typer. So an option means the same on every command.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from divacli.backbones.linearised.expression import HEAD, PROJECTION
from divacli.cli.completion import torchvision_names
from divacli.cli.config import load_config
from divacli.cli.values import out_value, path_value, ridge_value
from divacli.files.cache import default_cache

Data = Annotated[
    str,
    typer.Argument(
        help="A folder with one sub-folder a class, or with Hugging Face's metadata.csv; a .csv, .tsv, "
        ".jsonl or .parquet with path,label; - for such a table on standard input; a .parquet with images in "
        "it, or a folder of such, as the Hugging Face Hub has them; a .txt list, a path and a label a line; "
        "a .json of COCO; WebDataset shards ('train-{000..009}.tar'); an .npz with embedding and label; or a "
        "feature store. Tables, .npz and stores also at a URL, such as s3://bucket/features.npz.",
        metavar="DATA",
        show_default=False,
    ),
]


ResultsFolder = Annotated[
    Path,
    typer.Argument(
        help="A folder that a command wrote its results into.",
        metavar="DIR",
        show_default="diva-out",
        parser=path_value,
    ),
]

TrueLabels = Annotated[
    str | None,
    typer.Option(
        help="A table with the true labels: wrong ones have a colour of their own in the figures. Default: "
        "the column true_label of the scores, where there is one.",
        metavar="DATA",
        show_default=False,
    ),
]


Overwrite = Annotated[
    bool,
    typer.Option(
        "--overwrite",
        help="Replace results of this command that are there already, which are refused otherwise.",
        rich_help_panel="Output",
    ),
]


class LossName(StrEnum):
    """Validation losses."""

    squared = "squared"
    cross_entropy = "cross-entropy"
    robust_cross_entropy = "robust-cross-entropy"


class ValidationName(StrEnum):
    """How validation samples are counted."""

    natural = "natural"
    balanced = "balanced"


class ScalingName(StrEnum):
    """Feature scalings."""

    unit = "unit"
    standard = "standard"
    none = "none"


class DtypeName(StrEnum):
    """Floating-point types of the solve."""

    float32 = "float32"
    float64 = "float64"


class FormatName(StrEnum):
    """Formats of written tables."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


_NETWORK, _LINEAR, _COMPUTE, _SOLVE, _OUTPUT = (
    "Network",
    "Linearisation",
    "Computing",
    "Problem",
    "Output",
)
_CHOICE, _WALK = "Choice", "Steps"


@dataclass(frozen=True)
class NetworkOptions:
    """Which network turns images into features."""

    model: Annotated[
        str | None,
        typer.Option(
            help="A torchvision name, timm:NAME, hf:NAME, clip:NAME, or FILE.py:FACTORY (which runs that "
            "file).",
            autocompletion=torchvision_names,
            rich_help_panel=_NETWORK,
        ),
    ] = None
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            help="Its weights: .pt, .pth, .th, .safetensors; or, without --model, a TorchScript or "
            "torch.export archive, an ONNX file, or the folder of a Hugging Face model.",
            metavar="FILE",
            parser=path_value,
            rich_help_panel=_NETWORK,
        ),
    ] = None
    weights: Annotated[
        str | None,
        typer.Option(
            help="Published weights to download instead, such as DEFAULT.", rich_help_panel=_NETWORK
        ),
    ] = None
    entry: Annotated[
        str | None,
        typer.Option(
            help="Which weights in the checkpoint, where it holds several that fit, such as state_dict_ema.",
            metavar="NAME",
            rich_help_panel=_NETWORK,
        ),
    ] = None
    layer: Annotated[
        str | None,
        typer.Option(
            help="Use what flows into this layer as features. Default: a classifier's last linear layer; "
            "without one, the output is the features.",
            rich_help_panel=_NETWORK,
        ),
    ] = None
    image_size: Annotated[
        int | None,
        typer.Option(
            help="Side of the crop in pixels, where not the network's own.",
            min=1,
            max=16_384,
            rich_help_panel=_NETWORK,
        ),
    ] = None
    linearize: Annotated[
        str,
        typer.Option(
            help="What features are gradients of: head (they are what flows into the last layer), "
            "block:NAME[,NAME...] (last is the last block), full, or a sum such as head+2*block:last.",
            metavar="head|block:NAME|full",
            rich_help_panel=_LINEAR,
        ),
    ] = HEAD
    projection: Annotated[
        int,
        typer.Option(
            help="Numbers a gradient is compressed to, a power of two.",
            min=1,
            max=1 << 20,
            rich_help_panel=_LINEAR,
        ),
    ] = PROJECTION


@dataclass(frozen=True)
class ComputeOptions:
    """How features are computed and where they are kept."""

    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.", rich_help_panel=_COMPUTE)] = "auto"
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Images at a time; on CUDA fewer if they do not fit. Default: 32 in training, else chosen.",
            min=1,
            max=1_000_000,
            rich_help_panel=_COMPUTE,
        ),
    ] = None
    workers: Annotated[
        int | None,
        typer.Option(
            help="Processes that decode images and, on the CPU, run the network. Default: one a core.",
            min=0,
            max=4096,
            rich_help_panel=_COMPUTE,
        ),
    ] = None
    amp: Annotated[
        bool, typer.Option(help="Mixed precision for the network on CUDA.", rich_help_panel=_COMPUTE)
    ] = True
    compile: Annotated[
        bool,
        typer.Option(
            help="Compile the network on CUDA: a minute first, then faster.", rich_help_panel=_COMPUTE
        ),
    ] = False
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where features are kept between commands. Default: ~/.cache/diva.",
            metavar="DIR",
            parser=path_value,
            envvar="DIVA_CACHE_DIR",
            show_envvar=True,
            rich_help_panel=_COMPUTE,
        ),
    ] = None
    strict: Annotated[
        bool,
        typer.Option(
            "--strict",
            help="Stop where an image cannot be decoded, or an embedding holds NaN.",
            rich_help_panel=_COMPUTE,
        ),
    ] = False

    @property
    def cache(self) -> Path:
        """Where features are kept, named or not."""
        return self.cache_dir or default_cache()


LINEARISATION = ("linearize", "projection")
"""Options of the network for who takes gradients as features; a training has no such."""

ONLY_CACHE = tuple(field.name for field in fields(ComputeOptions) if field.name != "cache_dir")
"""What to leave out of these options where a command computes no features, and only looks for them."""


@dataclass(frozen=True)
class ProblemOptions:
    """What is differentiated."""

    val: Annotated[
        str | None,
        typer.Option(
            help="Differentiate the loss of this DATA instead of the leave-one-out loss.",
            rich_help_panel=_SOLVE,
        ),
    ] = None
    ridge: Annotated[
        float | None,
        typer.Option(
            help="auto (the default), or the L2 penalty lambda on the features as scaled.",
            metavar="auto|NUMBER",
            parser=ridge_value,
            rich_help_panel=_SOLVE,
        ),
    ] = None
    loss: Annotated[
        LossName | None,
        typer.Option(
            help="Validation loss. score, prune and relabel have cross-entropy; reweight, augment (their "
            "default), extend and train robust-cross-entropy, in which a share of the labels may be wrong.",
            show_default=False,
            rich_help_panel=_SOLVE,
        ),
    ] = None
    validation: Annotated[
        ValidationName,
        typer.Option(
            help="Whether every sample or every class counts equally in the validation loss.",
            rich_help_panel=_SOLVE,
        ),
    ] = ValidationName.natural
    group: Annotated[
        str | None,
        typer.Option(
            help="Column of DATA whose equal values (a patient) are left out together; duplicates to search "
            "for copies of images; none for no groups. Default: group, where there is such a column.",
            metavar="COLUMN",
            show_default=False,
            rich_help_panel=_SOLVE,
        ),
    ] = None
    scaling: Annotated[ScalingName, typer.Option(help="Scaling of the features.", rich_help_panel=_SOLVE)] = (
        ScalingName.unit
    )
    around_head: Annotated[
        bool,
        typer.Option(
            "--around-head",
            help="Linearise around the network's own head, trained on these classes.",
            rich_help_panel=_SOLVE,
        ),
    ] = False
    dtype: Annotated[DtypeName, typer.Option(help="Precision of the solve.", rich_help_panel=_SOLVE)] = (
        DtypeName.float32
    )
    seed: Annotated[
        int, typer.Option(help="Of whatever is drawn at random.", min=0, rich_help_panel=_SOLVE)
    ] = 0


@dataclass(frozen=True)
class OutputOptions:
    """Where results go."""

    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            help="Folder for the results; - sends the main table to standard output.",
            metavar="DIR|-",
            parser=out_value,
            rich_help_panel=_OUTPUT,
        ),
    ] = "diva-out"
    format: Annotated[FormatName, typer.Option(help="Of the written tables.", rich_help_panel=_OUTPUT)] = (
        FormatName.csv
    )
    overwrite: Overwrite = False
    report: Annotated[
        bool,
        typer.Option(
            "--report",
            help="Also write report.html, a page of the images that matter, to look at and decide on.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False


@dataclass(frozen=True)
class FrameOptions:
    """How the command itself behaves."""

    config: Annotated[
        Path | None,
        typer.Option(
            help="A YAML file with options; flags win over it.",
            metavar="FILE",
            parser=path_value,
            callback=load_config,
            is_eager=True,
            rich_help_panel=_OUTPUT,
        ),
    ] = None
    confine: Annotated[
        bool,
        typer.Option(
            "--confine",
            help="Refuse DATA that names files outside of the folder it lies in.",
            rich_help_panel=_OUTPUT,
        ),
    ] = False
    log_file: Annotated[
        Path | None,
        typer.Option(
            help="Also append what is done to this file, for reports of bugs; it holds no secrets of URLs.",
            metavar="FILE",
            parser=path_value,
            rich_help_panel=_OUTPUT,
        ),
    ] = None
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="No progress and no summary.", rich_help_panel=_OUTPUT)
    ] = False
    debug: Annotated[
        bool, typer.Option("--debug", help="Show a traceback for errors.", rich_help_panel=_OUTPUT)
    ] = False


@dataclass(frozen=True)
class ChoiceOptions:
    """How many samples of a pool are chosen."""

    budget: Annotated[
        str | None,
        typer.Option(
            help="Samples to choose at the most, a number or a share of the pool such as 25%. Default: "
            "as many as help.",
            metavar="N|P%",
            rich_help_panel=_CHOICE,
        ),
    ] = None
    refit_every: Annotated[
        int | None,
        typer.Option(
            help="Samples chosen between exact refits. Default: a twentieth of the budget, at most 256.",
            min=1,
            max=4096,
            rich_help_panel=_CHOICE,
        ),
    ] = None
    min_trust: Annotated[
        float,
        typer.Option(
            help="Leave out samples whose label is right with less probability; 0 trusts all.",
            min=0,
            max=1,
            rich_help_panel=_CHOICE,
        ),
    ] = 0.5


@dataclass(frozen=True)
class WalkOptions:
    """How far weights move."""

    step_size: Annotated[
        str,
        typer.Option(
            help="auto, chosen by closed-form K-fold; or by how much a weight of 1 changes on average.",
            metavar="auto|NUMBER",
            rich_help_panel=_WALK,
        ),
    ] = "auto"
    steps: Annotated[
        int | None,
        typer.Option(
            help="Steps; with auto, at the most. Default: 1; with auto 3, or 10 where weights are shared.",
            min=1,
            max=10_000,
            rich_help_panel=_WALK,
        ),
    ] = None
    folds: Annotated[
        int, typer.Option(help="Folds that judge the steps of auto.", min=2, rich_help_panel=_WALK)
    ] = 5
