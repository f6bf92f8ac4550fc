"""The command line in process, a small network, and commands that are taken out of messages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import divacli
from divacli.errors import DivaError
from tests.cli.conftest import done, factory, model, run, scores
from tests.doors.kinds import Size, advised, size_of

__all__ = ["done", "factory", "model", "run", "scores"]


@pytest.fixture(autouse=True)
def no_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Do not fit which labels are wrong, half of the time of a small command: these tests are on reading."""
    from divacli.ridge import fit_noise

    def unfitted(predictions: Any, labels: Any, **_: object) -> Any:
        return fit_noise(predictions[:0], labels[:0])

    monkeypatch.setattr("divacli.curate.sample_scores.fit_noise", unfitted)


@pytest.fixture
def scored(run: Callable[..., Any], model: tuple[str, str]) -> Callable[..., Size]:
    """Score DATA, with the small network unless it brings features; give samples and classes."""

    def invoke(*arguments: object) -> Size:
        result = run("score", *arguments, *model, "--workers", "0", "--out", "scored")
        assert result.exit_code == 0, f"{result.stderr}\n{result.exception!r}"
        return size_of("scored")

    return invoke


@pytest.fixture
def refused(run: Callable[..., Any], model: tuple[str, str]) -> Callable[..., str]:
    """Score DATA, which must be refused; give the message."""

    def invoke(*arguments: object, stdin: bytes | None = None) -> str:
        result = run("score", *arguments, *model, "--workers", "0", "--out", "scored", stdin=stdin)
        assert result.exit_code == 1, result.output
        return str(result.stderr)

    return invoke


@pytest.fixture
def followed(refused: Callable[..., str], run: Callable[..., Any]) -> Callable[..., Size]:
    """Score DATA, which must be refused, and type the command of the message; give samples and classes."""

    def invoke(*arguments: object, has: str = "") -> Size:
        message = refused(*arguments)
        command = advised(message)
        assert has in " ".join(command), message
        result = run(*command, overwrite=False)  # as it stands
        assert result.exit_code == 0, f"{command}\n{result.stderr}\n{result.exception!r}"
        return size_of("scored")

    return invoke


@pytest.fixture
def looked(done: Callable[..., Any]) -> Callable[..., dict[str, Any]]:
    """Run `diva inspect` and give inspect.json, with what the terminal showed as `shown`."""

    def invoke(*arguments: object) -> dict[str, Any]:
        result = done("inspect", *arguments, "--out", "looked", "--overwrite")
        found: dict[str, Any] = json.loads(Path("looked/inspect.json").read_text())
        return {**found, "shown": " ".join(result.stderr.split())}

    return invoke


@pytest.fixture
def from_python(factory: Path) -> Callable[[Any], Size]:
    """Score DATA from Python, which must be refused, and use the source of the message instead."""

    def invoke(data: Any) -> Size:
        network = divacli.Network(f"{factory}:make")
        here = divacli.Compute(workers=0, progress=False)
        with pytest.raises(DivaError) as caught:
            divacli.score(data, network=network, compute=here)
        source = eval(str(caught.value).partition("to do: ")[2], {"divacli": divacli, "data": data})
        assert isinstance(source, divacli.Source)
        summary = divacli.score(source, network=network, compute=here).summary
        return summary["n_samples"], summary["n_classes"]

    return invoke
