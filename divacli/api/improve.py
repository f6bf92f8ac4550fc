"""`reweight`, `extend`, `aggregate` and `augment` from Python."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from divacli.api.call import Call, NetworkLike, arguments
from divacli.api.checks import choice_of, require, step_size_of
from divacli.api.inputs import Data, kept_arrays
from divacli.api.report import Report, Saving
from divacli.curate import aggregate as _aggregate
from divacli.curate import augment as _augment
from divacli.curate import extend as _extend
from divacli.curate import reweight as _reweight
from divacli.features.transform_names import parse_transform, require_different
from divacli.manifest.columns import FEATURE_SOURCE
from divacli.report.terminal.augment import augment_summary
from divacli.report.terminal.extend import aggregate_summary, extend_summary
from divacli.report.terminal.reweight import reweight_summary
from divacli.results.collect import Collected
from divacli.results.names import EXTENDED, REMAINING, SELECTED
from divacli.solve.loader import manifest_in
from divacli.solve.options import ROBUST_CROSS_ENTROPY, Compute, Problem


def reweight(
    data: Data,
    network: NetworkLike = None,
    *,
    per: Literal["sample", "class", "group"] = "sample",
    step_size: float | Literal["auto"] = "auto",
    steps: int | None = None,
    folds: int = 5,
    problem: Problem = Problem(),
    compute: Compute = Compute(),
) -> Report:
    """Give every sample the weight that lowers the validation loss, and forecast the error on new images.

    Args:
        data: The samples.
        network: For images.
        per: Which samples share one weight.
        step_size: "auto", chosen by closed-form K-fold; or by how much a weight of 1 changes on average.
        steps: Steps; with "auto", at the most. None: 1; with "auto" 3, or 10 where weights are shared.
        folds: Folds that judge the steps.
        problem: The loss and the fit; the loss is "robust-cross-entropy" by default.
        compute: How features are computed.

    Returns:
        Tables `reweighted` and `failed`.

    Raises:
        DivaError: As `score`.
    """
    require("per", per, per in ("sample", "class", "group"), "sample, class or group")
    size = step_size_of(step_size, steps, folds)
    call = Call("reweight", arguments(reweight, locals()), network, problem, compute)
    with call.loading() as loader:
        opened = call.inputs.open(data, "data")
        options = problem.solve_options(loader, ROBUST_CROSS_ENTROPY, robust=True)
        how = _reweight.ReweightOptions(size, steps, per, folds)
        result = _reweight.reweight_data(loader, opened, options, how, call.validation())
    return call.report(result, reweight_summary, Saving(_reweight.FILES, [manifest_in(opened)]))


def extend(
    data: Data,
    pool: Data,
    network: NetworkLike = None,
    *,
    budget: int | str | None = None,
    by: Literal["auto", "coreset", "balanced", "derivative", "random"] = "auto",
    pool_labels: Literal["given", "none"] = "given",
    refit_every: int | None = None,
    min_trust: float = 0.5,
    problem: Problem = Problem(),
    compute: Compute = Compute(),
) -> Report:
    """Choose from a pool the samples that DATA lacks.

    Args:
        data: The samples to extend.
        pool: Candidates, with labels or without.
        network: For images.
        budget: Samples to choose at the most, or a share of the pool such as "25%". None: as many as help.
        by: The rule; "auto": what wins in folds.
        pool_labels: "none": ignore the pool's labels or folders.
        refit_every: Samples chosen between exact refits. None: a twentieth of the budget, at most 256.
        min_trust: Leave out samples whose label is right with less probability.
        problem: The loss and the fit.
        compute: How features are computed.

    Returns:
        Tables `extended`, `selected`, `remaining`, `history` and `failed`.

    Raises:
        DivaError: As `score`.
    """
    require("pool_labels", pool_labels, pool_labels in ("given", "none"), "given or none")
    how = dataclasses.replace(choice_of(budget, refit_every, min_trust), by=None if by == "auto" else by)
    call = Call("extend", arguments(extend, locals()), network, problem, compute)
    with call.loading() as loader:
        core = call.inputs.open(data, "data")
        candidates = call.inputs.open(pool, "pool", labels="optional")
        options = problem.solve_options(loader, robust=True)
        given = pool_labels == "given"
        result = _extend.extend_data(
            loader, core, candidates, options, how, call.validation(), labels_given=given
        )
    saving = Saving(_extend.FILES, [manifest_in(core), manifest_in(candidates)])
    return call.report(result, extend_summary, saving)


def aggregate(
    data: Data,
    pools: Data | Mapping[str, Data],
    network: NetworkLike = None,
    *,
    budget: int | str | None = None,
    refit_every: int | None = None,
    min_trust: float = 0.5,
    problem: Problem = Problem(),
    compute: Compute = Compute(),
) -> Report:
    """Choose from texts, or another modality, what helps to tell the images apart.

    Args:
        data: The images.
        pools: Other modalities in the same embedding space by name, each a table with text and label or
            labelled DATA; or a single one.
        network: For images and texts, such as "clip:NAME".
        budget: As for `extend`, and so are the others.
        refit_every: Samples chosen between exact refits.
        min_trust: Leave out samples whose label is right with less probability.
        problem: The loss and the fit.
        compute: How features are computed.

    Returns:
        Tables `extended`, `selected`, `remaining`, `history` and `failed`. Their features lie in a file of
        the cache; `save` writes them beside the tables.

    Raises:
        DivaError: As `score`.
    """
    how = choice_of(budget, refit_every, min_trust)
    call = Call("aggregate", arguments(aggregate, locals()), network, problem, compute)
    arrays = isinstance(pools, Mapping) and "embedding" in pools
    several = pools if isinstance(pools, Mapping) and not arrays else None
    with call.loading() as loader:
        core = call.inputs.open(data, "data")
        if several is None:
            opened = call.inputs.pool(pools, "pool")
            name = next(iter(_aggregate.named_modalities([opened]))) if isinstance(opened, str) else "pool"
            others = {name: opened}
        else:
            others = {name: call.inputs.pool(pool, name) for name, pool in several.items()}
        options = problem.solve_options(loader)
        result = _aggregate.aggregate_data(loader, core, others, options, how, call.validation())

    def named(collected: Collected) -> None:
        _with_features(collected, result, compute.cache)

    return call.report(result, aggregate_summary, Saving(_aggregate.FILES), named)


def augment(
    data: Data,
    transforms: str | Sequence[str],
    network: NetworkLike = None,
    *,
    step_size: float | Literal["auto"] = "auto",
    steps: int | None = None,
    folds: int = 5,
    problem: Problem = Problem(),
    compute: Compute = Compute(),
) -> Report:
    """Say how often each transform of the images is worth it.

    Args:
        data: The images.
        transforms: "hflip", "rotate:15", any class of `torchvision.transforms.v2`, or "FILE.py:NAME".
        network: For the images.
        step_size: As for `reweight`, and so are the others.
        steps: Steps.
        folds: Folds that judge the steps.
        problem: The loss and the fit.
        compute: How features are computed.

    Returns:
        `table`: probability and derivative of every transform; `save` also writes augmentation.yaml.

    Raises:
        DivaError: As `score`, or two transforms are the same.
    """
    size = step_size_of(step_size, steps, folds)
    names = [transforms] if isinstance(transforms, str) else list(transforms)
    right = bool(names) and all(isinstance(name, str) for name in names)
    require("transforms", transforms, right, "names such as 'hflip', 'rotate:15' or 'FILE.py:NAME'")
    call = Call("augment", arguments(augment, locals()), network, problem, compute)
    with call.loading() as loader:
        named = [parse_transform(text) for text in names]
        require_different(named)
        opened = call.inputs.open(data, "data")
        options = problem.solve_options(loader, ROBUST_CROSS_ENTROPY, robust=True)
        how = _augment.AugmentOptions(size, steps, folds)
        result = _augment.augment_data(loader, opened, named, options, how, call.validation())
    return call.report(result, augment_summary, Saving(_augment.FILES))


def _with_features(collected: Collected, result: _aggregate.AggregateResult, cache: Path) -> None:
    """Let tables name a file of features that is there before they are saved."""
    place = str(kept_arrays(_aggregate.feature_arrays(result), cache))
    for name in (EXTENDED, SELECTED, REMAINING):
        if FEATURE_SOURCE in collected.tables[name]:
            collected.tables[name][FEATURE_SOURCE] = place
