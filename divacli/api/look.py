"""`inspect` from Python."""

from __future__ import annotations

import os
from pathlib import Path

from divacli.api.call import Call, arguments
from divacli.api.inputs import Data
from divacli.api.report import Report, Saving
from divacli.curate import inspect as _inspect
from divacli.errors import DivaError
from divacli.report.terminal.inspect import inspect_summary
from divacli.run_record import running
from divacli.solve.options import Compute, Problem


def inspect(
    data: Data | None = None,
    *,
    checkpoint: str | os.PathLike[str] | None = None,
    look_at: int = 500,
    compute: Compute = Compute(),
) -> Report:
    """Find out what DATA or a checkpoint is taken for, before anything is computed.

    Args:
        data: Of any kind.
        checkpoint: In its place a file of weights, an archive, or the folder of a Hugging Face model.
        look_at: Images to open, evenly spread.
        compute: Whether progress is shown, and where data of memory is kept.

    Returns:
        The table `classes`; `summary` has layout, splits, columns, images, what is left out, what looks odd,
        and what other commands refuse. Of a checkpoint the table `entries`; `summary` has the weights in it,
        their network, what it states of its training, and the command that uses it.

    Raises:
        DivaError: It is no DATA or no checkpoint, or both or neither were given.
    """
    if (data is None) == (checkpoint is None):
        raise DivaError("inspect() with both or neither", expected="data, or checkpoint=FILE")
    call = Call("inspect", arguments(inspect, locals()), None, Problem(), compute)
    if checkpoint is not None:
        from divacli.curate import inspect_checkpoint as of_checkpoint
        from divacli.report.terminal.inspect_checkpoint import checkpoint_summary

        with running(call.run):
            look = of_checkpoint.inspect_checkpoint(Path(checkpoint))
        return call.report(look, checkpoint_summary, Saving(of_checkpoint.FILES))
    assert data is not None
    with running(call.run):
        result = _inspect.inspect_data(call.inputs.named_or_read(data), call.inputs.progress, look_at)
    return call.report(result, inspect_summary, Saving(_inspect.FILES))
