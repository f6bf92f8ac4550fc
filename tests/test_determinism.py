"""The same input gives the same bytes, whatever the language, the settings, or how the work is shared.

Runs in processes of their own, for an environment counts from the start of one. What may differ is how long
things took, and where the results were asked for: `seconds` in the summaries, and `run.json`.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.made import FACTORY, tinted

AS_THE_USER_WRITES = """
import locale

# As Qt, readline and others do: from here on C code writes and reads numbers as the user's language has them.
try:
    locale.setlocale(locale.LC_ALL, "")
except locale.Error:
    pass
"""

# In one process, for each start of Python and torch takes seconds.
COMMANDS = """
import math, os, sys
from typer.testing import CliRunner
from divacli.cli.app import app
from divacli.ridge.labels.noise import fit_noise
fit_noise.__kwdefaults__["strengths"] = (math.inf, 300.0)  # as in `tests/conftest.py`
data, pool, out = sys.argv[1:4]
more = ["--model", sys.argv[4], *sys.argv[5:]]
for name, *options in (
    ("score", "--by", "class"),
    ("prune", "--keep", "auto"),
    ("relabel",),
    ("reweight",),
    ("extend", "--pool", pool, "--budget", "5"),
):
    if name not in os.environ.get("TEST_COMMANDS", name).split():
        continue
    result = CliRunner().invoke(app, [name, data, *options, *more, "--out", f"{out}/{name}"])
    if result.exit_code:
        raise SystemExit(f"{name}: {result.exit_code}\\n{result.output}")
"""

NAMES = [
    "KIZIL.TIFF",
    "INDIGO.GIF",
    "\u0130stanbul.PNG",
    "\u0131\u015f\u0131k.png",
    "Stra\u00dfe.BMP",
    "\U0001f600.JPG",
]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images in folders, with names in several languages and suffixes in capital letters."""
    folder = tmp_path_factory.mktemp("place")
    generator = np.random.default_rng(0)
    for top, count in (("photos", 72), ("pool", 18)):
        for number in range(count):
            label = number % 3
            name = NAMES[number] if number < len(NAMES) and top == "photos" else f"{number:03d}.png"
            target = folder / top / ("I\u0131", "i\u0130", "\u00e7")[label] / name
            target.parent.mkdir(parents=True, exist_ok=True)
            tinted(label, generator).save(target)
    (folder / "net.py").write_text(AS_THE_USER_WRITES + FACTORY)
    (folder / "commands.py").write_text(COMMANDS)
    return folder


@pytest.fixture(scope="module")
def languages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for LOCPATH with the languages of the tests, made from the sources that the system has."""
    if shutil.which("localedef") is None:
        pytest.skip("localedef is not installed")
    folder = tmp_path_factory.mktemp("languages")
    for name in ("tr_TR", "de_DE"):
        made = subprocess.run(
            ["localedef", "-i", name, "-f", "UTF-8", str(folder / f"{name}.UTF-8")],
            capture_output=True,
            check=False,
        )
        if not (folder / f"{name}.UTF-8").is_dir():
            pytest.skip(f"localedef made no {name}: {made.stderr.decode(errors='replace').strip()[:80]}")
    return folder


def run(
    place: Path, out: Path, *options: str, umask: int = 0o022, cwd: Path | None = None, **environment: str
) -> dict[str, Any]:
    """What all commands write, by file."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("LC_", "LANG", "PYTHON"))
    }
    environment = {
        **kept,
        "OMP_NUM_THREADS": "1",
        "DIVA_CACHE_DIR": str(out.with_name(f"{out.name}-cache")),
        "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
        **environment,
    }
    before = os.umask(umask)
    try:
        done = subprocess.run(
            [
                sys.executable,
                str(place / "commands.py"),
                *(str(place / name) for name in ("photos", "pool")),
                str(out),
                f"{place / 'net.py'}:make",
                *options,
            ],
            cwd=cwd or place,
            env=environment,
            capture_output=True,
            check=False,
        )
    finally:
        os.umask(before)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return contents(out)


def contents(folder: Path) -> dict[str, Any]:
    """The bytes of tables, and what summaries hold but for the time that things took."""
    found: dict[str, Any] = {}
    for file in sorted(folder.rglob("*")):
        if file.is_dir() or file.name == "run.json":
            continue
        name = str(file.relative_to(folder))
        found[name] = file.read_bytes()
        if file.suffix == ".json":
            found[name] = {key: value for key, value in json.loads(found[name]).items() if key != "seconds"}
    return found


def part(found: dict[str, Any], *commands: str) -> dict[str, Any]:
    """What these commands have written."""
    return {name: content for name, content in found.items() if name.partition("/")[0] in commands}


@pytest.fixture(scope="module")
def usual(place: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The results in an ordinary environment."""
    found = run(
        place,
        tmp_path_factory.mktemp("out") / "usual",
        "--workers",
        "0",
        LC_ALL="C.UTF-8",
        PYTHONHASHSEED="0",
    )
    assert len(found) > 20
    table = found["score/scores.csv"].decode()
    assert table.count("\n") == 73
    assert all(name in table for name in NAMES)
    return found


def test_language_of_commas_and_a_dotless_i(
    place: Path, tmp_path: Path, usual: dict[str, Any], languages: Path
) -> None:
    """Turkish, whose small I is no i, with commas in numbers."""
    found = run(
        place,
        tmp_path / "tr",
        "--workers",
        "2",
        LOCPATH=str(languages),
        LC_ALL="tr_TR.UTF-8",
        PYTHONHASHSEED="1",
        TZ="Asia/Kathmandu",
    )
    assert found == usual


def test_numbers_with_commas_and_one_image_at_a_time(
    place: Path, tmp_path: Path, usual: dict[str, Any], languages: Path
) -> None:
    found = run(
        place,
        tmp_path / "de",
        "--batch-size",
        "1",
        "--workers",
        "1",
        LOCPATH=str(languages),
        LC_ALL="de_DE.UTF-8",
        TEST_COMMANDS="score extend",
    )
    assert found == part(usual, "score", "extend")


def test_no_language_at_all(place: Path, tmp_path: Path, usual: dict[str, Any]) -> None:
    """As in a bare container or a cron job; in another folder, with private files."""
    found = run(
        place,
        tmp_path / "c",
        "--workers",
        "0",
        "--batch-size",
        "7",
        umask=0o077,
        cwd=tmp_path,
        LC_ALL="C",
        PYTHONHASHSEED="random",
        TEST_COMMANDS="score prune",
    )
    assert found == part(usual, "score", "prune")
    assert (tmp_path / "c/score/scores.csv").stat().st_mode & 0o777 == 0o600


def test_names_that_python_is_told_to_take_for_ascii(place: Path, tmp_path: Path) -> None:
    """Refused, with the way out; not read as other names."""
    with pytest.raises(AssertionError, match=r"75 names are not UTF-8[^$]*set PYTHONUTF8=1"):
        run(place, tmp_path / "a", LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0")
    assert not list(tmp_path.glob("a/*/*"))


def test_the_locales_are_real(languages: Path) -> None:
    """Else the tests above would say nothing."""
    script = "import locale; locale.setlocale(locale.LC_ALL, ''); print(locale.localeconv()['decimal_point'])"
    for name in ("tr_TR", "de_DE"):
        told = subprocess.run(
            [sys.executable, "-c", script],
            env={**os.environ, "LOCPATH": str(languages), "LC_ALL": f"{name}.UTF-8"},
            capture_output=True,
            check=True,
        )
        assert told.stdout.strip() == b","


def test_the_order_of_a_folder_does_not_matter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: Path
) -> None:
    from divacli.manifest import read_manifest

    usual = read_manifest(str(place / "photos")).table
    true = os.scandir

    class Backwards:
        def __init__(self, folder: Any = ".") -> None:
            with true(folder) as entries:
                self._entries = sorted(entries, key=lambda entry: entry.name, reverse=True)

        def __enter__(self) -> Any:
            return iter(self._entries)

        def __exit__(self, *error: object) -> None: ...

        def __iter__(self) -> Any:
            return iter(self._entries)

        def close(self) -> None: ...

    monkeypatch.setattr(os, "scandir", Backwards)
    assert read_manifest(str(place / "photos")).table.equals(usual)
