"""A factory file runs code by nature: that is said before, and nothing but the command line names one."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from divacli.errors import ModelError

TRANSFORM = """
from pathlib import Path
from PIL import ImageOps

Path(__file__).with_suffix(".ran").touch()

def change(image):
    return ImageOps.mirror(image)
"""


def ran(file: Path) -> bool:
    """Whether the code in a file was run since the last question."""
    mark = file.with_suffix(".ran")
    found = mark.exists()
    mark.unlink(missing_ok=True)
    return found


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was said when a file of code was about to be imported."""
    import divacli.cli.console as module
    from divacli.backbones.userfile import UserFile

    said: list[str] = []
    before: list[str] = []
    say, load = module.say, UserFile.load

    def saying(*lines: str, **options: object) -> None:
        said.extend(lines)
        say(*lines, **options)

    def loading(self: UserFile) -> object:
        before.append("\n".join(said))
        return load(self)

    monkeypatch.setattr(module, "say", saying)
    monkeypatch.setattr(UserFile, "load", loading)
    return before


@pytest.fixture
def archive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was loaded as a whole network; nothing is."""
    import divacli.backbones.load as module

    loaded: list[Path] = []

    def load(path: Path) -> None:
        loaded.append(path)
        raise ModelError("not loaded")

    monkeypatch.setattr(module, "read_torchscript", load)
    with zipfile.ZipFile(tmp_path / "m.pt", "w") as file:
        file.writestr("m/constants.pkl", b"")
        file.writestr("m/data.pkl", b"")
    return loaded


def test_it_is_said_before_a_factory_is_run(
    photos: Path, network: Path, run: Callable, watched: list[str]
) -> None:
    result = run("score", photos, "--model", f"{network}:make")
    assert result.exit_code == 0, result.stderr
    assert f"note: {network} is run for its factory: use only files you trust" in watched[0]
    assert result.stderr.count("is run for its factory") == 1
    assert ran(network)


def test_it_is_said_before_a_transform_is_run(
    photos: Path, network: Path, run: Callable, watched: list[str]
) -> None:
    file = photos.parent / "own.py"
    file.write_text(TRANSFORM)
    result = run("augment", photos, "--model", f"{network}:make", "--transform", f"{file}:change")
    assert result.exit_code == 0, result.stderr
    assert f"note: {file} is run for its transform: use only files you trust" in watched[0]
    assert result.stderr.count("is run for its transform") == 1
    assert ran(file)


def test_a_configuration_that_was_typed_may_name_one(
    photos: Path, network: Path, run: Callable, watched: list[str]
) -> None:
    Path("c.yaml").write_text("model: net.py:make\n")
    assert run("score", photos, "--config", "c.yaml").exit_code == 0
    assert "net.py is run for its factory" in watched[0]
    assert ran(network)


def test_an_archive_is_code_like_a_factory(
    photos: Path, network: Path, run: Callable, archive: list[Path]
) -> None:
    """It is said before it is loaded, and a configuration names one only if it was typed itself."""
    Path("c.yaml").write_text("checkpoint: m.pt\n")
    for options in (("--checkpoint", "m.pt"), ("--config", "c.yaml")):
        said = run("score", photos, *options).stderr
        told = "m.pt is a whole network, which is run as code: use only files you trust"
        assert said.index(told) < said.index("not loaded")
        assert archive.pop().name == "m.pt"
    for model in ("resnet18", "net.py:make"):
        said = run("score", photos, "--model", model, "--checkpoint", "m.pt").stderr
        assert "holds a whole exported network" in said
    assert not archive


@pytest.mark.parametrize("names", ["model: net.py:make", "checkpoint: m.pt"])
def test_a_configuration_that_was_not_typed_is_not_read(
    names: str,
    photos: Path,
    network: Path,
    archive: list[Path],
    run: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    Path("c.yaml").write_text(f"{names}\n")
    places = [
        "diva.yaml",
        ".diva.yaml",
        "config.yaml",
        "pyproject.toml",
        "setup.cfg",
        ".divarc",
        "photos/diva.yaml",
    ]
    for place in places:
        toml = '[tool.diva]\nmodel = "net.py:make"\ncheckpoint = "m.pt"\n'
        Path(place).write_text(toml if place.endswith((".toml", ".cfg")) else f"{names}\n")
    home = photos.parent / "home"
    for place in (".diva.yaml", ".config/diva/config.yaml", ".config/diva.yaml"):
        (home / place).parent.mkdir(parents=True, exist_ok=True)
        (home / place).write_text(f"model: {network}:make\ncheckpoint: {Path('m.pt').resolve()}\n")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    for prefix in ("DIVA", "DIVA_SCORE", "DIVACLI", "TYPER", "CLICK"):
        monkeypatch.setenv(f"{prefix}_MODEL", f"{network}:make")
        monkeypatch.setenv(f"{prefix}_CHECKPOINT", "m.pt")
        monkeypatch.setenv(f"{prefix}_CONFIG", "c.yaml")
        monkeypatch.setenv(f"{prefix}_TRANSFORM", f"{network}:make")
    result = run("score", photos)
    assert result.exit_code == 1
    assert "no network was named" in result.stderr
    assert not ran(network)
    assert not archive


def test_a_configuration_cannot_name_another(photos: Path, network: Path, run: Callable) -> None:
    Path("c.yaml").write_text("config: d.yaml\n")
    Path("d.yaml").write_text("model: net.py:make\n")
    result = run("score", photos, "--config", "c.yaml")
    assert result.exit_code == 1
    assert "no network was named" in result.stderr
    assert not ran(network)


def test_only_one_variable_of_the_environment_is_an_option() -> None:
    import typer

    from divacli.cli.app import app

    group = typer.main.get_command(app)
    found = {
        parameter.envvar
        for command in group.commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        if getattr(parameter, "envvar", None)
    }
    assert found == {"DIVA_CACHE_DIR"}
    assert "auto_envvar_prefix" not in app.info.context_settings


def test_what_data_says_of_a_network_is_never_run(
    photos: Path, network: Path, archive: list[Path], run: Callable
) -> None:
    """Columns of tables, a store, a record of a run, and what lies beside a checkpoint."""
    factory = f"{network}:make"
    assert run("score", photos, "--model", factory).exit_code == 0
    assert run("embed", photos, "--model", factory, "--out", "store").exit_code == 0
    assert ran(network)
    table = pd.read_csv("diva-out/scores.csv").assign(
        model=factory, transform=factory, config="c.yaml", checkpoint="m.pt"
    )
    table.to_csv("diva-out/scores.csv", index=False)
    Path("c.yaml").write_text("model: net.py:make\n")
    for name in ("store/store.json", "diva-out/run.json", "diva-out/summary.json"):
        content = json.loads(Path(name).read_text())
        content["model"] = content["factory"] = factory
        content["checkpoint"] = "m.pt"
        if name == "store/store.json":
            content["identity"]["model"] = factory
        Path(name).write_text(json.dumps(content))
    commands = [
        ("prune", "diva-out/scores.csv", "--threshold", 0, "--out", "p"),
        ("relabel", "diva-out/scores.csv", "--out", "r"),
        ("score", "store", "--out", "s"),
        ("report", "diva-out"),
        ("score", "diva-out/scores.csv", "--out", "t"),
        ("evaluate", photos, "--manifest", "diva-out/scores.csv", "--test", photos, "--out", "e"),
    ]
    for command in commands:
        result = run(*command)
        assert "Traceback" not in result.stderr
        assert not ran(network), command
        assert not archive, command
