"""`diva embed`."""

from __future__ import annotations

import typer

from divacli.cli.command import command
from divacli.cli.options import ComputeOptions, Data, FrameOptions, NetworkOptions, OutputOptions
from divacli.cli.reading_options import WITHOUT_OTHERS, ReadingOptions
from divacli.files.existing import require_present


def register(app: typer.Typer) -> None:
    """Add the command."""

    @command(app, "embed", ("report", *WITHOUT_OTHERS), shared=True)
    def embed(
        data: Data,
        reading: ReadingOptions,
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
        from divacli.cli.deliver import deliver
        from divacli.cli.output import Output
        from divacli.cli.session import loader_of
        from divacli.curate.embed import FILES, embed_data

        target = Output(output, *FILES, sources=(data,))
        target.required_folder("a feature store is a folder")
        result = embed_data(loader_of(network, compute, frame), reading.data(data))
        summary = result.summary
        made = (
            f"{summary['n_samples']:,} samples with {summary['n_features']:,} features each in {{folder}}; "
            f"{summary['n_embedded']:,} embedded now ({result.samples.seconds:.1f} s)"
        )
        deliver(result, target, lambda result: (), frame, wrote=made)
