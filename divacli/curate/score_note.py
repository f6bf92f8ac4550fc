"""Which features a table of scores came from, so that a later command needs neither network nor solve.

`diva score ... -o - | diva prune -` passes nothing but the table. Scoring therefore leaves a small note in
the cache under a digest of the scores. Pruning finds by it the features, the options, and how the labels come
about.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from divacli.curate.sample_scores import ScoreResult
from divacli.errors import StoreError
from divacli.features import BackboneChoice, ExtractOptions, Samples, is_store, samples_of
from divacli.features.keys import content_keys, digest_of, digest_of_all
from divacli.features.samples import SAMPLES_FILE, samples_in
from divacli.features.store import FeatureStore
from divacli.files.path_or_url import Place, place_of
from divacli.files.regular import DOCUMENT_BYTES, read_regular
from divacli.files.write import write_text
from divacli.manifest import Manifest
from divacli.manifest.columns import DERIVATIVE, FEATURE_SOURCE, LOO_LOSS
from divacli.progress import Progress, silent
from divacli.ridge import Calibration, CrossEntropyLoss, Loss, Mistakes, NoiseModel, Shape, SquaredLoss
from divacli.solve.ridge_problem import SolveOptions

FORMAT = 1

_MOST_NOTED = 256
"""Classes whose noise model a note holds, at the most: two matrices of so many rows and columns."""


@dataclass(frozen=True)
class ScoreRecord:
    """What a table of scores was made from.

    Attributes:
        store: Folder with the features of the images; None where they came from `.npz` files.
        ridge: lambda of the losses.
        loss: The validation loss, calibrated.
        options: How the problem was posed.
        noise: How the labels come about; None where the note does not say.
        validated: Whether derivatives are of the loss of a separate set, which only a fresh result has.
    """

    store: Place | None
    ridge: float
    loss: Loss
    options: SolveOptions
    noise: NoiseModel | None = field(default=None, compare=False)
    validated: bool = False


def save_record(result: ScoreResult, options: SolveOptions, cache: Path) -> None:
    """Note what a result was made from.

    Raises:
        OutputError: The cache cannot be written.
    """
    content = {
        "format": FORMAT,
        "store": None if result.samples.store is None else str(result.samples.store.resolve()),
        "ridge": result.solution.ridge,
        "inverse_temperature": getattr(result.solution.loss, "inverse_temperature", None),
        "loss": options.loss,
        "scaling": options.scaling,
        "around_head": options.around_head,
        "group": options.group,
        "balanced": options.balanced,
        "fixed_ridge": options.ridge is not None,
        "validated": result.solution.validation is not None,
        "noise": _described(result.noise),
    }
    content["check"] = _check(content)
    place = _place(result.table, _sources(result.samples.manifest, cache), cache)
    write_text(place, json.dumps(content, indent=2) + "\n")


def find_record(manifest: Manifest, cache: Path, options: SolveOptions) -> ScoreRecord | None:
    """The note for a table of scores, or None.

    Args:
        manifest: As written by `diva score` and read back, in its order.
        cache: Where notes are.
        options: Device and dtype to solve with; the rest is as it was.
    """
    try:
        content = json.loads(
            read_regular(_place(manifest.table, _sources(manifest, cache), cache), DOCUMENT_BYTES)
        )
        # The first notes had neither number nor check.
        if content.get("format", 1) != FORMAT or content.pop("check", _check(content)) != _check(content):
            return None
        temperature = content["inverse_temperature"]
        ridge = float(content["ridge"])
        posed = SolveOptions(
            ridge=ridge if content.get("fixed_ridge") else None,
            loss=content["loss"],
            scaling=content["scaling"],
            around_head=content["around_head"],
            group=content["group"],
            balanced=content["balanced"],
            dtype=options.dtype,
            device=options.device,
            seed=options.seed,
        )
        noise = _noise(content.get("noise"))
        store = None if content["store"] is None else place_of(content["store"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError):
        return None
    loss: Loss = SquaredLoss() if temperature is None else CrossEntropyLoss(temperature)
    return ScoreRecord(store, ridge, loss, posed, noise, bool(content.get("validated")))


def _described(model: NoiseModel) -> dict[str, Any] | None:
    """A noise model for JSON; None of very many classes, whose matrices would be most of the cache."""
    calibration, mistakes = model.calibration, model.mistakes
    if len(mistakes.rates) > _MOST_NOTED:
        return None
    return {
        "scale": calibration.scale,
        "sharpness": calibration.sharpness,
        "mixing": calibration.mixing.tolist(),
        "bias": calibration.bias.tolist(),
        "shape": asdict(mistakes.shape),
        "rates": mistakes.rates.tolist(),
        "pairs": mistakes.pairs.tolist(),
        "doubt": model.doubt,
        "rivalry": None if model.rivalry is None else model.rivalry.tolist(),
    }


def _noise(content: Mapping[str, Any] | None) -> NoiseModel | None:
    """The noise model of a note; the first notes had none, and later ones another model."""
    if content is None or "shape" not in content:
        return None
    mixing, bias, rates, pairs = (
        torch.tensor(content[name], dtype=torch.float64) for name in ("mixing", "bias", "rates", "pairs")
    )
    calibration = Calibration(content["scale"], content["sharpness"], mixing, bias)
    doubt = tuple((float(weight), float(move)) for weight, move in content["doubt"])
    mistakes = Mistakes(Shape(**content["shape"]), rates, pairs)
    rivalry = content.get("rivalry")
    return NoiseModel(
        calibration, mistakes, doubt, None if rivalry is None else torch.tensor(rivalry, dtype=torch.float64)
    )


def _check(content: dict[str, Any]) -> str:
    """Digest of a note: a flipped digit of its ridge would lead to another refit, and nobody would know."""
    return digest_of(json.dumps(content, sort_keys=True).encode())


def recorded_samples(record: ScoreRecord, manifest: Manifest, cache: Path, progress: Progress) -> Samples:
    """The features that scores were made from.

    Raises:
        DivaError: They are gone, or they or the images have changed.
    """
    if FEATURE_SOURCE in manifest.table:
        nothing = BackboneChoice()
        # A row less would not be those that were scored.
        return samples_of(manifest, nothing, ExtractOptions(torch.device("cpu")), cache, strict=True)
    if record.store is None:
        raise StoreError("these scores came from features that the table does not name")
    keys, unreadable = content_keys(manifest.files(), progress, cache)
    if unreadable:
        position, reason = next(iter(unreadable.items()))
        raise StoreError(f"{manifest.files()[position]} {reason}")
    return samples_in(FeatureStore(record.store), manifest, keys, {})


def _sources(manifest: Manifest, cache: Path) -> list[str]:
    """Digests of the `.npz` files and of the stores' sample tables that the rows name as their source."""
    if FEATURE_SOURCE not in manifest.table:
        return []
    named = [
        manifest.source(source) for source in manifest.table[FEATURE_SOURCE].fillna("").unique() if source
    ]
    files = [source / SAMPLES_FILE if is_store(source) else source for source in named]
    keys, _ = content_keys([str(file) for file in files], silent, cache)
    return sorted(key.tobytes().hex() for key in keys)


def _place(table: pd.DataFrame, sources: list[str], cache: Path) -> Path:
    """Where the note of a table lies: by its labels and scores in order, and the content of its sources."""
    parts = (
        f"{label}\0{derivative:.9g}\0{loss:.9g}".encode()
        for label, derivative, loss in zip(
            table["label"],
            table[DERIVATIVE].to_numpy(float),
            table[LOO_LOSS].to_numpy(float),
            strict=True,
        )
    )
    digest = digest_of_all(itertools.chain(parts, (source.encode() for source in sources)))
    return cache / "runs" / f"{digest[:32]}.json"
