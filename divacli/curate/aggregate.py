"""Bring several modalities of one embedding space together: texts for images, sketches for photos.

Embeddings of texts and of images lie in two separate cones of their common space. Each pool is shifted so
that its mean is the core's: what is left of a text then says which class it names, and the core stays as it
is, so that images to predict need no treatment. Among the shifted samples those are chosen that lower the
core's loss, and all that were chosen of a modality get one common weight.
"""

from __future__ import annotations

import io
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from divacli.curate.extend import TABLES, ExtendResult, extend
from divacli.curate.pool_rule import ExtendOptions
from divacli.errors import DataError
from divacli.features import Samples
from divacli.features.feature_rows import whole
from divacli.features.samples import order_by_path
from divacli.manifest import relocate
from divacli.manifest.column_types import stacked
from divacli.manifest.columns import MODALITY
from divacli.progress import Progress, silent
from divacli.results.accounting import account
from divacli.results.names import AGGREGATE
from divacli.results.result import Target
from divacli.ridge import Problem, RidgeTask, Scaling, differentiate, merged
from divacli.solve.loader import Given, Loader
from divacli.solve.pool import check_pool, pose_pool, shared_classes
from divacli.solve.ridge_problem import SolveOptions, pose, pose_validation
from divacli.solve.weight_problem import leave_one_out_ridge

FEATURES = "features.npz"
"""The file that holds the features of an aggregated set."""

FILES = (*TABLES, FEATURES, f"{AGGREGATE}.json")
"""What is always written."""

POOLS_IN, POOLS_OUT = "pools in, harmful members dropped", "pools out"
"""Where the choice starts."""

WEIGHTS = (0.5, 1.0, 2.0, 4.0, 8.0)
"""Common weights tried for the chosen samples of a modality."""

_BATCH = 4096


@dataclass(frozen=True)
class AggregateResult:
    """A core and what was chosen from other modalities.

    Attributes:
        choice: As of `extend`, over all pools; its `extended` carries the modalities' weights.
        features: (n, d) float32, one row for each of `choice.extended`: the core's as they are, the others
            shifted.
        remaining: (r, d) float32, one row for each of `choice.remaining`, shifted.
        weights: The common weight of every modality.
        summary: For JSON.
    """

    choice: ExtendResult
    features: np.ndarray
    remaining: np.ndarray
    weights: dict[str, float]
    summary: dict[str, Any]

    def warnings(self) -> Iterator[str]:
        """What the user should know, one sentence each."""
        n_lonely = len(self.summary["classes_of_one"])
        if n_lonely:
            judged = "starts with all in and drops what harms"
            if self.summary["start"] != POOLS_IN:
                judged = "is judged by --val"
            yield (
                f"{n_lonely:,} classes have a single sample, of which nothing is known when it is left out: "
                f"the choice {judged}"
            )

    def write(self, target: Target) -> None:
        """Write the features, all tables and the summary."""
        target.bytes(FEATURES, features_file(self))
        self.choice.write_choice(target, f"{AGGREGATE}.json", self.summary, target.base)


def named_modalities(pools: Sequence[str]) -> dict[str, str]:
    """DATA of every modality by the name of its file, each once; numbered where two files have one name."""
    found: dict[str, str] = {}
    for pool in dict.fromkeys(pools):
        name = Path(pool).stem or pool
        found[name if name not in found else f"{name}-{len(found) + 1}"] = pool
    return found


def aggregate_data(
    loader: Loader,
    data: Given,
    pools: Mapping[str, Given],
    options: SolveOptions,
    how: ExtendOptions,
    validation: Given | None = None,
) -> AggregateResult:
    """Embed a core and other modalities, and choose from these as `aggregate` does.

    Args:
        loader: Of this run.
        data: DATA of the core.
        pools: DATA of every other modality by its name, or tables of texts.
        options: As for `aggregate`.
        how: As for `aggregate`.
        validation: DATA of the core's modality whose loss the choice lowers.

    Raises:
        DivaError: The samples cannot be used, or the problem has no answer.
    """
    core, members, judged = loader.load_modalities(data, pools, validation)
    return aggregate(core, members, options, how, judged, loader.progress)


def aggregate(
    core: Samples,
    pools: Sequence[tuple[str, Samples]],
    options: SolveOptions,
    how: ExtendOptions,
    validation: Samples | None = None,
    progress: Progress = silent,
) -> AggregateResult:
    """Choose the members of other modalities that lower the core's loss, and weigh them.

    Where a class of the core has a single sample its leave-one-out prediction never saw the class, and
    neither ridge nor derivative at weight zero means anything. Then the choice starts with all pools in, and
    drops what has a positive derivative there.

    Args:
        core: Samples of the modality that is to be predicted.
        pools: Name and samples of every other modality, labelled.
        options: How the problem is posed.
        how: As for `extend`.
        validation: A separate validation set of the core's modality.
        progress: Told of every sample that is chosen.

    Raises:
        DataError: A pool without labels, of other features or another embedding space; nothing to choose.
        SolveError: The core's problem has no answer.
    """
    start = time.monotonic()
    core = _named_apart(core)
    pool, features = _aligned(core, pools, options)
    counts = core.manifest.table.loc[core.manifest.table["weight"] > 0, "label"].value_counts()
    lonely = sorted(counts.index[counts == 1])
    degenerate = bool(lonely) and validation is None
    how = replace(how, by="derivative", trust_core=True, start_full=degenerate)
    choice = extend(core, pool, options, how, validation, progress)
    # Before the rows are called by names among the features.
    account([core.manifest, pool.manifest], [choice.extended, choice.remaining], core.manifest.folder)
    rows = pd.Index(pool.manifest.table["path"])
    chosen, left = (rows.get_indexer(table["path"]) for table in (choice.selected, choice.remaining))
    with progress("weighing the modalities", 0):
        weights, tried, ridge = _modality_weights(core, pool, chosen, options, validation)
    factors = choice.selected[MODALITY].map(weights).to_numpy(float)
    selected = choice.selected.assign(weight=choice.selected["weight"] * factors)
    # From now on each path is a name among the features.
    extended = choice.extended.assign(feature_source=FEATURES)
    extended.loc[extended["origin"] == "pool", "weight"] *= factors
    both = np.concatenate([core.features[:].float().numpy(), features[chosen]])
    summary = {
        **choice.summary,
        "modalities": {
            name: {
                "n_pool": len(samples),
                "n_selected": int((selected[MODALITY] == name).sum()),
                "weight": weights[name],
                "tried": tried[name],
            }
            for name, samples in pools
        },
        "ridge": ridge,
        "classes_of_one": lonely,
        "start": POOLS_IN if degenerate else POOLS_OUT,
    }
    summary["seconds"] = {**choice.summary["seconds"], "solve": round(time.monotonic() - start, 3)}
    choice = replace(choice, selected=selected, extended=extended)
    return AggregateResult(choice, both, features[left], weights, summary)


def feature_arrays(result: AggregateResult) -> dict[str, np.ndarray]:
    """The features as arrays of an `.npz` file, whose rows the tables name by their paths.

    It holds those of `choice.remaining` too, at weight 0.
    """
    left = result.choice.remaining.assign(weight=0.0)
    table = pd.concat([result.choice.extended, left], ignore_index=True)
    return {
        "embedding": np.concatenate([result.features, result.remaining]),
        "label": table["label"].to_numpy(str),
        "path": table["path"].to_numpy(str),
        "weight": table["weight"].to_numpy(float),
    }


def features_file(result: AggregateResult) -> bytes:
    """The bytes of an `.npz` file of `feature_arrays`."""
    content = io.BytesIO()
    np.savez(content, **feature_arrays(result))  # type: ignore[arg-type]
    return content.getvalue()


def _modality_weights(
    core: Samples, pool: Samples, chosen: np.ndarray, options: SolveOptions, validation: Samples | None
) -> tuple[dict[str, float], dict[str, dict[str, float]], float]:
    """The common weight of each modality's chosen members, one modality after the other.

    It is the one of `WEIGHTS` with the smallest calibrated cross-entropy of the core, left out in turn, or of
    the validation set; the ridge follows.

    Returns:
        The weights, the mean loss in nats of every weight that was tried, and the ridge with the smallest
        leave-one-out loss of the core at these weights.
    """
    classes = shared_classes(core, pool)
    task = pose(core, options, classes)
    posed = pose_pool(task, pool, classes)
    held_out = None if validation is None else pose_validation(task, core, validation, options, classes)
    order = order_by_path(core if validation is None else validation)
    modality = pool.manifest.table[MODALITY].to_numpy(str)
    base = torch.zeros_like(posed.weights)
    base[torch.from_numpy(chosen)] = posed.weights[torch.from_numpy(chosen)]
    weights = dict.fromkeys(modality.tolist(), 1.0)
    tried: dict[str, dict[str, float]] = {name: {} for name in weights}

    def weighed(now: dict[str, float]) -> tuple[RidgeTask, float]:
        factors = torch.from_numpy(np.array([now[one] for one in modality]))
        both = merged(task, posed, base * factors)
        return both, leave_one_out_ridge(both, options)

    for name in weights:
        if not bool((base > 0).numpy()[modality == name].any()):
            continue  # nothing of it was chosen
        for factor in WEIGHTS:
            both, ridge = weighed({**weights, name: factor})
            problem = Problem(both, ridge, order, robust=True, bias=False, validation=held_out)
            tried[name][f"{factor:g}"] = differentiate(problem, both.weights).mean_loss
        weights[name] = float(min(tried[name], key=lambda text: tried[name][text]))
    return weights, tried, weighed(weights)[1]


def aligned(pool: Samples, core: Samples, scaling: str) -> np.ndarray:
    """A pool's features (m, d) float32, shifted so that their mean is the core's.

    Args:
        pool: Samples of another modality.
        core: The modality that stays.
        scaling: Where rows are scaled to unit length, they are before the shift and after it.
    """
    shift = _mean(core, scaling) - _mean(pool, scaling)
    moved = _scaled(pool.features[:], scaling) + shift
    return _scaled(moved, scaling).float().numpy()


def _aligned(
    core: Samples, pools: Sequence[tuple[str, Samples]], options: SolveOptions
) -> tuple[Samples, np.ndarray]:
    """All pools as one, aligned; every row is named by its modality, as no row of the core is."""
    tables, parts, failures = [], [], []
    for name, samples in pools:
        if not samples.manifest.labelled:
            raise DataError(
                f"{samples.manifest.name} has no labels",
                expected="the class that each member of the pool speaks for",
                hint="add the column label, or rank unlabelled samples with diva extend",
            )
        check_pool(core, samples, options)
        table = samples.manifest.table
        tables.append(table.assign(path=name + "/" + table["path"], modality=name, feature_source=FEATURES))
        parts.append(aligned(samples, core, options.scaling))
        failures.append(relocate(samples.failed, samples.manifest.folder, core.manifest.folder))
    features = np.concatenate(parts)
    first = pools[0][1]
    table = stacked(tables)
    table = table.assign(path=_apart([*core.manifest.table["path"], *table["path"]])[len(core) :])
    manifest = replace(
        first.manifest, name="the pools", table=table, embeddings=None, folder=core.manifest.folder
    )
    failed = pd.concat(failures, ignore_index=True)
    fingerprint = "+".join(samples.fingerprint for _, samples in pools)
    seconds = sum(samples.seconds for _, samples in pools)
    pool = Samples(manifest, whole(features), failed, fingerprint, seconds=seconds)
    return pool, features


def _named_apart(samples: Samples) -> Samples:
    """The samples, each with a path of its own: two files of embeddings may hold rows of one name."""
    table = samples.manifest.table
    return replace(
        samples, manifest=replace(samples.manifest, table=table.assign(path=_apart([*table["path"]])))
    )


def _apart(names: Sequence[str]) -> list[str]:
    """The names, with a number after each that stands there already."""
    found: dict[str, None] = {}
    for name in names:
        number, unique = 1, name
        while unique in found:
            number += 1
            unique = f"{name} ({number})"
        found[unique] = None
    return [*found]


def _mean(samples: Samples, scaling: str) -> torch.Tensor:
    total = torch.zeros(samples.features.shape[1], dtype=torch.float64)
    for begin in range(0, len(samples), _BATCH):
        total += _scaled(samples.features[begin : begin + _BATCH], scaling).sum(dim=0)
    return total / len(samples)


def _scaled(features: torch.Tensor, scaling: str) -> torch.Tensor:
    wide = features.double()
    return Scaling("unit")(wide) if scaling == "unit" else wide
