"""Find which tensors of a checkpoint are a network's weights, by the names and shapes that it needs."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from divacli.backbones import HEAD_ASIDE
from divacli.backbones.checkpoint import Checkpoint, clean, precision_notes
from divacli.backbones.entries import USUAL, WRAPPERS, common_prefix, is_averaged
from divacli.backbones.numbered import renamed
from divacli.backbones.trial import Trial, Wanted
from divacli.errors import Advice, ModelError, listed


@dataclass(frozen=True)
class Fit:
    """Weights of a network in a checkpoint.

    Attributes:
        weights: Tensor by the network's own name, on the CPU, floating ones in float32.
        entry: Where in the file they lie, as `--entry` calls it; "" for the file itself.
        aside: Tensors in the place of the network's head that do not fit it, or follow it, with their shapes.
        others: Names of other entries whose weights would fit.
        foreign: Tensors beside the weights that are no part of the network, such as those of a loss.
        n_classes: Rows of the head; None where it has none in the file, or one of another form.
        precision: Sentences on the precisions that the weights were converted from.
        numbered: Whether the file has numbers for names, and the order of the modules counts.
    """

    weights: dict[str, Tensor] = field(repr=False)
    entry: str
    aside: tuple[str, ...]
    others: tuple[str, ...]
    foreign: tuple[str, ...]
    n_classes: int | None
    precision: tuple[str, ...]
    numbered: bool = False

    def place(self, checkpoint: Checkpoint) -> str:
        """Where the weights are from, for people, with what else might be meant."""
        where = checkpoint.path.name + (f", entry {self.entry}" if self.entry else "")
        if not self.others:
            return where
        names = listed([one or "the file itself" for one in self.others])
        return f"{where} ({names} {'are' if len(self.others) > 1 else 'is'} there too: --entry)"

    @property
    def notes(self) -> tuple[str, ...]:
        """What was put aside, in sentences for the user."""
        notes = list(self.precision)
        if self.numbered:
            notes.append("the file has numbers for the names of the network's parts: taken in their order")
        if self.n_classes is None:
            what = f"{listed(list(self.aside), limit=3)} put aside" if self.aside else "the file has none"
            notes.append(f"{HEAD_ASIDE}{what}; features do not need one")
        if self.foreign:
            n, parts = len(self.foreign), list(dict.fromkeys(map(_outermost, self.foreign)))
            what = (
                "1 tensor that is no part of the network was"
                if n == 1
                else f"{n} tensors that are no part of the network were"
            )
            notes.append(f"{what} left aside: {listed(parts, limit=3)}")
        return tuple(notes)


def fit(
    checkpoint: Checkpoint,
    state: Mapping[str, Tensor],
    heads: Collection[str],
    name: str,
    *,
    resizable: bool = True,
) -> Fit:
    """Find a network's weights in a file, wherever they lie and whatever stands before their names.

    All tensors before the head must be there, in their shapes. `num_batches_tracked` of batch normalisation
    may be missing: old checkpoints lack it, and inference ignores it.

    Args:
        checkpoint: The file.
        state: The network's state dict; shapes and types count.
        heads: Names of the tensors of its head in it.
        name: What to call the network in a message.
        resizable: Whether the network can be built with as many classes as the file has. If not, a head of
            another size is put aside.

    Raises:
        ModelError: Nothing in the file fits, or several things do.
    """
    wanted = Wanted(dict(state), frozenset(heads), resizable=resizable)
    everywhere = _trials(checkpoint, wanted)
    tried = _asked(everywhere, checkpoint.asked)
    if not tried:
        raise _no_entry(checkpoint, everywhere)
    fitting = [trial for trial in tried if not trial.problems]
    if not fitting:
        raise _misfit(checkpoint, wanted, tried, name)
    # Names that are the network's own to the full go before those that are so without their common beginning.
    fitting = [trial for trial in fitting if trial.prefix.endswith(wanted.common)] or fitting
    chosen, others = _chosen(fitting, checkpoint, name)
    read = {own: chosen.weights[key] for own, key in chosen.keys.items()}
    return Fit(
        weights=clean(read, checkpoint.path),
        entry=chosen.name,
        aside=tuple(f"{key} {tuple(chosen.weights[key].shape)}" for key in chosen.aside),
        others=others,
        foreign=tuple(key.removeprefix(chosen.prefix) for key in chosen.foreign),
        n_classes=chosen.n_classes,
        precision=precision_notes(read.values()),
        numbered=chosen.numbered,
    )


def fits(
    checkpoint: Checkpoint, state: Mapping[str, Tensor], heads: Collection[str], *, by_name: bool = False
) -> bool:
    """Tell whether a file holds the weights of a network.

    Args:
        checkpoint: As for `fit`, and so are the next two.
        state: The network's state dict.
        heads: Names of the tensors of its head in it.
        by_name: Look at the names of tensors alone.
    """
    tried = _trials(checkpoint, Wanted(dict(state), frozenset(heads)))
    told = [trial.problems.keys() for trial in _asked(tried, checkpoint.asked)]
    return any(not (kinds & {"missing", "unexpected"} if by_name else kinds) for kinds in told)


def replaced_part(
    checkpoint: Checkpoint, state: Mapping[str, Tensor], heads: Collection[str]
) -> tuple[str, list[str]] | None:
    """Find the part around a network's head that a file has another one for.

    Scripts replace the whole `classifier` of a network, and with it layers before the last one. What enters
    that part is all the same.

    Args:
        checkpoint: As for `fit`, and so are the others.
        state: The network's state dict.
        heads: Names of the tensors of its head in it.

    Returns:
        The name of the part and those of its tensors. None where the head alone is enough, or the file does
        not fit before that part either.
    """
    if not heads or fits(checkpoint, state, heads):
        return None
    common = common_prefix(list(state))
    part = common + list(heads)[-1].removeprefix(common).partition(".")[0]
    tensors = [key for key in state if key.startswith(f"{part}.")]
    wider = len(heads) < len(tensors) < len(state)
    return (part, tensors) if wider and fits(checkpoint, state, tensors) else None


def _trials(checkpoint: Checkpoint, wanted: Wanted) -> list[Trial]:
    """All places of a file where a network's weights may be, compared with it."""
    return [
        Trial(wanted, one, prefix)
        for entry in checkpoint.entries
        for one in filter(None, (entry, renamed(entry, wanted.state)))
        for prefix in wanted.prefixes(one)
    ]


def _asked(tried: list[Trial], asked: str | None) -> list[Trial]:
    """The places that the user names, in full or by the last part of the name; all of them for None."""
    return tried if asked is None else [trial for trial in tried if trial.is_called(asked)]


def _chosen(fitting: list[Trial], checkpoint: Checkpoint, name: str) -> tuple[Trial, tuple[str, ...]]:
    """The weights that are meant, and the names of others that are different ones.

    Averages over a training stand back behind the weights that they are averages of.

    Raises:
        ModelError: Several may be meant.
    """
    several = _different(fitting)
    plain = [trial for trial in several if not is_averaged(trial.name)] or several
    if len(plain) > 1:
        names = [trial.name or "the file itself" for trial in several]
        entry = next(trial.name for trial in plain if trial.name)
        raise ModelError(
            f"{checkpoint.path} holds the weights of {name} {len(several)} times: {listed(names)}",
            expected="the name of the one that is meant",
            hint=Advice(f"name it: {{entry}} {entry}"),
        )
    return plain[0], tuple(trial.name for trial in several if trial is not plain[0])


def _different(fitting: list[Trial]) -> list[Trial]:
    kept: list[Trial] = []
    for trial in sorted(fitting, key=lambda one: one.name not in USUAL):
        if not any(trial.same_as(other) for other in kept):
            kept.append(trial)
    return kept


def _no_entry(checkpoint: Checkpoint, everywhere: list[Trial]) -> ModelError:
    fitting = [trial for trial in everywhere if not trial.problems]
    names = dict.fromkeys(trial.name or "the file itself" for trial in fitting or everywhere)
    return ModelError(
        f"{checkpoint.path} has no entry {checkpoint.asked!r} with weights",
        expected=f"one of {listed(list(names))}",
        hint="leave --entry out, or name one of these",
    )


def _misfit(checkpoint: Checkpoint, wanted: Wanted, tried: list[Trial], name: str) -> ModelError:
    best = min(tried, key=lambda trial: sum(map(len, trial.problems.values())))
    problems = {**best.problems, "unexpected": [*best.problems.get("unexpected", []), *best.foreign]}
    told = "; ".join(
        f"{len(keys)} {kind}: {listed(keys, limit=3)}" for kind, keys in problems.items() if keys
    )
    return ModelError(
        f"{checkpoint.path} does not fit {name}: {told}",
        expected=f"the {len(wanted.state)} tensors of {name}",
        hint=f"name the network that the file was saved from; it looks like {checkpoint.describe()}",
    )


def put_into(module: nn.Module, found: Fit, heads: Collection[str]) -> None:
    """Copy weights into the network that they fit.

    Args:
        module: Changed in place.
        found: The weights.
        heads: Names of its head's tensors; they become zero where the file has no such head.
    """
    # Its own state dict brings the versions that some layers insist on, and counters that may be missing.
    state = module.state_dict()
    state.update(found.weights)
    if found.n_classes is None:
        state.update({key: torch.zeros_like(state[key]) for key in heads})
    module.load_state_dict(state)


def _outermost(key: str) -> str:
    """The outermost module of a tensor that is no wrapper."""
    parts = key.split(".")
    return next((part for part in parts if part not in WRAPPERS), parts[-1])


def load_weights(
    module: nn.Module, checkpoint: Checkpoint, name: str, head: Callable[[], str | None]
) -> tuple[Fit, str | None]:
    """Copy the weights of a file into a network, whose head they need not have.

    Args:
        module: Changed in place.
        checkpoint: The file.
        name: What to call the network in a message.
        head: Finds the name of its last layer; asked only where the file does not fit all of it.

    Returns:
        What was found, and the name of the last layer where the file has none for it.

    Raises:
        ModelError: Tensors before the head are missing, left over or of other shapes; names the first few.
    """
    state = module.state_dict()
    heads: list[str] = []
    layer = None
    if not fits(checkpoint, state, heads):
        layer = head()
        heads = [key for key in state if layer is not None and key.startswith(f"{layer}.")]
        if (replaced := replaced_part(checkpoint, state, heads)) is not None:
            layer, heads = replaced
    found = fit(checkpoint, state, heads, name, resizable=False)
    put_into(module, found, heads)
    return found, layer if found.n_classes is None else None
