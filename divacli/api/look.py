"""`inspect` from Python."""

from __future__ import annotations

from divacli.api.call import Call, arguments
from divacli.api.inputs import Data
from divacli.api.report import Report, Saving
from divacli.curate import inspect as _inspect
from divacli.report.terminal.inspect import inspect_summary
from divacli.run_record import running
from divacli.solve.options import Compute, Problem


def inspect(data: Data, *, look_at: int = 500, compute: Compute = Compute()) -> Report:
    """Find out what DATA is taken for, before anything is computed.

    Args:
        data: Of any kind.
        look_at: Images to open, evenly spread.
        compute: Whether progress is shown, and where data of memory is kept.

    Returns:
        The table `classes`; `summary` has layout, splits, columns, images, what is left out, what looks odd,
        and what other commands refuse.

    Raises:
        DivaError: It is no DATA.
    """
    call = Call("inspect", arguments(inspect, locals()), None, Problem(), compute)
    with running(call.run):
        result = _inspect.inspect_data(call.inputs.named_or_read(data), call.inputs.progress, look_at)
    return call.report(result, inspect_summary, Saving(_inspect.FILES))
