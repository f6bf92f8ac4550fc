"""divacli: closed-form dataset derivatives for people who train image classifiers.

`diva --help` is the command line. From Python, `loo_loss` is the leave-one-out loss as a function that
autograd can differentiate in sample weights and features; `divacli.ridge` holds the rest of the mathematics.
"""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "loo_loss"]

if TYPE_CHECKING:
    from divacli.ridge.functional import loo_loss


def __getattr__(name: str) -> Any:
    # The command line imports this package too, and must not wait for torch to say --help.
    if name == "loo_loss":
        from divacli.ridge.functional import loo_loss

        return loo_loss
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
