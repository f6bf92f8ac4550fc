"""Commands with a result: what their modules may do, what a result is, and the end that they share."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from divacli.cli.commands import (
    aggregate,
    apply,
    augment,
    embed,
    evaluate,
    extend,
    prune,
    relabel,
    reweight,
    score,
    train,
    votes,
)
from divacli.curate.aggregate import AggregateResult
from divacli.curate.augment import AugmentResult
from divacli.curate.embed import EmbedResult
from divacli.curate.extend import ExtendResult
from divacli.curate.prune import Pruning
from divacli.curate.relabel import Relabelling
from divacli.curate.reweight import ReweightResult
from divacli.curate.score import Scoring
from divacli.curate.votes import Consensus
from divacli.evaluation.command import EvaluateResult
from divacli.results.result import Result, Target
from divacli.review.apply import ApplyResult
from divacli.training.train import TrainResult

RESULTS = {
    aggregate: AggregateResult,
    apply: ApplyResult,
    augment: AugmentResult,
    embed: EmbedResult,
    evaluate: EvaluateResult,
    extend: ExtendResult,
    prune: Pruning,
    relabel: Relabelling,
    reweight: ReweightResult,
    score: Scoring,
    train: TrainResult,
    votes: Consensus,
}
"""What each command returns."""

WORK = {"json", "matplotlib", "numpy", "pandas", "rich", "torch", "yaml"}
"""What computes, writes and draws."""

COMMANDS = pytest.mark.parametrize("module", RESULTS, ids=lambda module: module.__name__.split(".")[-1])


def tree_of(module) -> ast.Module:
    return ast.parse(Path(module.__file__).read_text())


def imported(module) -> Iterator[str]:
    """All that a module imports, also inside functions."""
    for node in ast.walk(tree_of(module)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def called(module) -> list[str]:
    """Names of the functions and methods that a module calls."""
    calls = [node.func for node in ast.walk(tree_of(module)) if isinstance(node, ast.Call)]
    return [call.attr if isinstance(call, ast.Attribute) else getattr(call, "id", "") for call in calls]


@COMMANDS
def test_a_command_computes_and_writes_nothing_by_itself(module):
    assert not WORK & {name.split(".")[0] for name in imported(module)}
    calls = called(module)
    assert calls.count("deliver") == 1
    assert not {"console", "done", "finish", "print", "records", "table", "write"} & set(calls)


@COMMANDS
def test_every_result_has_one_shape(module):
    kind = RESULTS[module]
    members = {name for name in vars(Result) if not name.startswith("_")}
    assert members == {"summary", "warnings", "write"}
    assert dataclasses.is_dataclass(kind)
    fields = {field.name for field in dataclasses.fields(kind)}
    assert all(name in fields or hasattr(kind, name) for name in members)
    assert list(inspect.signature(kind.write).parameters) == list(inspect.signature(Result.write).parameters)
    assert inspect.signature(kind.write).parameters["target"].annotation == Target.__name__


def test_what_was_written_is_said_in_one_place():
    folder = Path(inspect.getfile(score)).parents[1]
    saying = [path.name for path in folder.rglob("*.py") if '"wrote {files}' in path.read_text()]
    listing = [
        path.name for path in folder.rglob("*.py") if '", ".join(target.files.written)' in path.read_text()
    ]
    assert saying == listing == ["deliver.py"]
