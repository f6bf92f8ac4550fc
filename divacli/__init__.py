"""divacli: closed-form dataset derivatives for people who train image classifiers.

`diva --help` is the command line. Every command is a function here, too, with its result in memory:
`inspect`, `score`, `prune`, `relabel`, `reweight`, `extend`, `aggregate`, `augment`, `train`, `evaluate`,
`apply`, `embed` and `votes`. `load` reads DATA, and `Source` says what it is to be taken for. `Network`,
`Compute`, `Problem` and `Training` are groups of options.

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
    from divacli.api.look import inspect
    from divacli.api.train import evaluate, train
    from divacli.interchange.torch_dataset import ManifestDataset, weighted_sampler
    from divacli.reading import Source
    from divacli.ridge.leave_out.functional import loo_loss
    from divacli.solve.options import Compute, Network, Problem
    from divacli.training.command import Training

# Who uses the package says where its messages go; without that they go nowhere.
logging.getLogger(__name__).addHandler(logging.NullHandler())

COMMANDS: dict[str, str | None] = {
    "inspect": "look",
    "score": "decide",
    "prune": "decide",
    "relabel": "decide",
    "votes": "decide",
    "apply": "decide",
    "export": None,
    "report": None,
    "review": None,
    "reweight": "improve",
    "extend": "improve",
    "augment": "improve",
    "aggregate": "improve",
    "train": "train",
    "evaluate": "train",
    "plot": None,
    "embed": "features",
    "demo": None,
    "doctor": None,
}
"""The commands in the order of the help: name -> module of `divacli.api` with its function. None: there is no
result to return."""

_MODULES = {
    **{name: f"divacli.api.{module}" for name, module in COMMANDS.items() if module is not None},
    "Compute": "divacli.solve.options",
    "ManifestDataset": "divacli.interchange.torch_dataset",
    "Network": "divacli.solve.options",
    "Problem": "divacli.solve.options",
    "Source": "divacli.reading",
    "Training": "divacli.training.command",
    "load": "divacli.api.features",
    "loo_loss": "divacli.ridge.leave_out.functional",
    "weighted_sampler": "divacli.interchange.torch_dataset",
}

__all__ = ["__version__", *sorted(_MODULES)]


def __getattr__(name: str) -> Any:
    # The command line imports this package too, and must not wait for torch to say --help.
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
