"""divacli: closed-form dataset derivatives for people who train image classifiers.

`diva --help` is the command line. Every command is a function here, too, with its result in memory: `score`,
`prune`, `relabel`, `reweight`, `extend`, `aggregate`, `augment`, `train`, `evaluate`, `apply`, `embed` and
`votes`. `load` reads DATA. `Network`, `Compute`, `Problem` and `Training` are their groups of options.

`ManifestDataset` and `weighted_sampler` train on a table that a command wrote. `loo_loss` is the
leave-one-out loss as a function that autograd can differentiate in sample weights and features;
`divacli.ridge` holds the rest of the mathematics.
"""

import importlib
import logging
from typing import TYPE_CHECKING, Any

from divacli.version import __version__

if TYPE_CHECKING:
    from divacli.api.decide import apply, prune, relabel, score, votes
    from divacli.api.features import embed, load
    from divacli.api.improve import aggregate, augment, extend, reweight
    from divacli.api.train import evaluate, train
    from divacli.interchange.torch_dataset import ManifestDataset, weighted_sampler
    from divacli.ridge.leave_out.functional import loo_loss
    from divacli.solve.options import Compute, Network, Problem
    from divacli.training.run import Training

# Who uses the package says where its messages go; without that they go nowhere.
logging.getLogger(__name__).addHandler(logging.NullHandler())

_PLACES = {
    "divacli.api.decide": ("apply", "prune", "relabel", "score", "votes"),
    "divacli.api.features": ("embed", "load"),
    "divacli.api.improve": ("aggregate", "augment", "extend", "reweight"),
    "divacli.api.train": ("evaluate", "train"),
    "divacli.interchange.torch_dataset": ("ManifestDataset", "weighted_sampler"),
    "divacli.ridge.leave_out.functional": ("loo_loss",),
    "divacli.solve.options": ("Compute", "Network", "Problem"),
    "divacli.training.run": ("Training",),
}
_MODULES = {name: module for module, names in _PLACES.items() for name in names}

__all__ = ["__version__", *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    # The command line imports this package too, and must not wait for torch to say --help.
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
