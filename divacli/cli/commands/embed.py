"""`diva embed`."""

from __future__ import annotations

import typer

from divacli.cli.command import command
from divacli.cli.console import console, warn
from divacli.cli.options import ComputeOptions, Data, FrameOptions, NetworkOptions, OutputOptions
from divacli.cli.processes import leads
from divacli.files.present import require_present


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "embed", ("report",), shared=True)
    def embed(
        data: Data,
        network: NetworkOptions,
        compute: ComputeOptions,
        output: OutputOptions,
        frame: FrameOptions,
    ) -> None:
        """Compute the features of images and write them as a feature store, a kind of DATA.

        The other commands need no store: they keep features in the cache. A store can be moved to
        another machine and needs neither network nor images there.

        Example:
        `diva embed photos/ --model resnet50 --weights DEFAULT --out features/`
        """
        require_present(data)
        from divacli.cli.output import Output
        from divacli.cli.session import Session
        from divacli.embed import write_features
        from divacli.embed.samples import SAMPLES
        from divacli.errors import OutputError

        target = Output(output, f"{SAMPLES}.parquet", sources=(data,))
        if target.folder is None:
            raise OutputError(
                "--out -: a feature store is a folder",
                expected="--out DIR",
                hint="leave --out out for diva-out",
            )
        session = Session(network, compute, frame)
        samples = session.load(data)
        if leads():
            table = write_features(samples, target.folder, warn)
            target.table(SAMPLES, table, samples.manifest.folder, part=True, format="parquet")
        target.table("failed", samples.failed, samples.manifest.folder, part=True)
        target.done()
        if not frame.quiet:
            n, d = samples.features.shape
            console().print(
                f"{n:,} samples with {d:,} features each in {target.folder}; "
                f"{samples.embedded:,} embedded now ({samples.seconds:.1f} s)",
                markup=False,
            )
