"""divacli: closed-form dataset derivatives for people who train image classifiers.

`diva --help` is the command line. From Python, `loo_loss` is the leave-one-out loss as a function that
autograd can differentiate in sample weights and features; `divacli.ridge` holds the rest of the mathematics.
`ManifestDataset` and `weighted_sampler` train on a table that a command wrote. `score` and `prune` are those
commands, with results in memory.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from divacli.version import __version__

__all__ = ["ManifestDataset", "__version__", "loo_loss", "prune", "score", "weighted_sampler"]

if TYPE_CHECKING:
    from divacli.api import prune, score
    from divacli.interchange.torch_dataset import ManifestDataset, weighted_sampler
    from divacli.ridge.leave_out.functional import loo_loss

# Who uses the package says where its messages go; without that they go nowhere.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_MODULES = {
    "ManifestDataset": "divacli.interchange.torch_dataset",
    "loo_loss": "divacli.ridge.leave_out.functional",
    "prune": "divacli.api",
    "score": "divacli.api",
    "weighted_sampler": "divacli.interchange.torch_dataset",
}


def __getattr__(name: str) -> Any:
    # The command line imports this package too, and must not wait for torch to say --help.
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
