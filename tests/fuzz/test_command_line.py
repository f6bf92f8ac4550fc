"""Random options for every command: a result that accounts for every sample, or one message and no file."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from divacli.cli.app import app
from divacli.manifest import read_manifest

# Option: values that work on the data below, and values that need not.
COMMON: dict[str, tuple[list[str | None], list[str]]] = {
    "--ridge": (["auto", "0.5", "1e-6"], ["0", "1e300", "nan", "-1", "x"]),
    "--loss": (["squared", "cross-entropy", "robust-cross-entropy"], ["hinge"]),
    "--validation": (["natural", "balanced"], [""]),
    "--group": (["none", "group"], ["path", "label", "nothing", "duplicates", ""]),
    "--scaling": (["unit", "standard", "none"], []),
    "--around-head": ([], ["--quiet"]),
    "--dtype": (["float32", "float64"], []),
    "--seed": (["0", "7"], ["-1", "99999999999999999999"]),
    "--val": (["val.npz"], ["x.npz", "plain.csv", "one.npz", "none.npz", ""]),
    "--device": (["cpu", "auto"], ["cuda:9", "tpu", ""]),
    "--batch-size": (["1", "100000"], ["0"]),
    "--workers": (["0", "2"], ["-1"]),
    "--strict": ([None], []),
    "--no-amp": ([None], []),
    "--format": (["csv", "jsonl", "parquet"], ["tsv"]),
    "--out": (["out", "-", "out/deep"], ["x.csv", "x.npz", "val.npz/out", "scored", "", "s3://b/x"]),
    "--quiet": ([None], []),
    "--overwrite": ([None], []),
    "--confine": ([None], []),
    "--config": (["options.yaml"], ["x.npz", "none.yaml"]),
    "--model": ([], ["resnet18", "nothing", "x.npz:make", ""]),
    "--checkpoint": ([], ["x.npz", "plain.csv"]),
    "--image-size": ([], ["1", "0", "99999999999"]),
}
OWN: dict[str, dict[str, tuple[list[str | None], list[str]]]] = {
    "score": {
        "--verify": (["0", "2", "1000"], ["-1"]),
        "--by": (["class", "pair", "group"], ["nothing", ""]),
    },
    "prune": {
        "--keep": (["0.9", "auto", "1", "1e-9"], ["0", "1.5", "-0", "x", "nan", "5"]),
        "--threshold": ([], ["0", "1e300", "-inf", "nan", "0.5"]),
        "--budget": ([], ["0", "1", "3", "1000", "-1", "10%"]),
        "--by": (["derivative"], ["loo_loss", "rank"]),
        "--stratify": ([None], []),
    },
    "relabel": {
        "--decide": (["likely", "balanced"], ["f1", ""]),
        "--threshold": (["0.5", "0.9"], ["0", "1", "2", "nan"]),
        "--budget": (["1", "1000"], ["0", "-1"]),
    },
    "votes": {
        "--annotator": (["who", "none"], ["nobody", ""]),
        "--budget": (["0", "3"], ["-1"]),
    },
    "reweight": {
        "--step-size": (["auto", "0.1"], ["1e300", "0", "x"]),
        "--steps": (["1", "3"], ["0"]),
        "--folds": (["2", "5"], ["1000", "1"]),
        "--per": (["sample", "class", "group"], ["nothing"]),
    },
    "extend": {
        "--pool": (["pool.npz", "unlabelled.npz"], ["x.npz", "one.npz", "plain.csv", "-"]),
        "--budget": (["1", "5", "25%", "100000"], ["0", "0%", "-1", "1e3", "x%"]),
        "--refit-every": (["1", "4096"], ["0"]),
        "--min-trust": (["0", "1", "0.5"], ["nan"]),
    },
    "aggregate": {
        "--pool": (["pool.npz", "one.npz"], ["unlabelled.npz", "none.npz"]),
        "--budget": (["1", "100%"], ["0"]),
        "--min-trust": (["0", "1"], []),
    },
    "evaluate": {
        "--test": (["val.npz"], ["x.npz", "one.npz", "none.npz"]),
        "--manifest": (["kept.csv"], ["x.npz", "plain.csv"]),
        "--seeds": (["1"], ["0"]),
        "--curve": ([], ["remove", "add", "x"]),
        "--fractions": ([], ["0.5", "0", "x"]),
    },
    "apply": {
        "--materialize": ([], ["symlink", "copy", "x"]),
        "--label-issues": (["drop", "relabel"], ["x"]),
    },
    "export": {
        "--to": (["cleanlab"], ["label-studio", "fiftyone", "x"]),
        "--limit": ([], ["0", "3", "-1"]),
        "--image-root": ([], [".", "/nowhere"]),
    },
    "report": {"--limit": (["2", "100"], ["0", "-1"]), "--truth": (["x.npz"], ["none.csv"])},
    "plot": {"--kind": (["histogram"], ["x"]), "--truth": (["x.npz"], ["none.csv"])},
    "embed": {},
    "augment": {"--transform": ([], ["hflip", "x"])},
    "train": {"--epochs": ([], ["1", "0"])},
}
"""The commands with the options that only they have, but for those that serve or bring data of their own."""

NEEDED = {
    "prune": ("--keep",),
    "extend": ("--pool",),
    "aggregate": ("--pool",),
    "evaluate": ("--test", "--manifest", "--seeds"),
    "export": ("--to",),
}

DATA = (
    ["x.npz", "scored/scores.csv", "-"],
    ["plain.csv", "one.npz", "none.npz", "kept.csv", "options.yaml", ""],
)
VOTES = (["votes.csv", "x.npz"], ["plain.csv", "none.npz", "-", ""])
FOLDERS = (["scored"], [".", "none", "x.npz"])
DECISIONS = (["decisions.csv"], ["plain.csv", "x.npz", "none.csv"])
TABLES = (["scored/scores.csv"], ["x.npz", "plain.csv", "none.csv"])


@st.composite
def command_lines(draw: st.DrawFn, name: str) -> list[str]:
    """A command with some of its options: two times in three all with values that work."""
    tame = draw(st.integers(0, 2)) > 0

    def one_of(values: tuple[list, list]) -> str | None:
        return draw(st.sampled_from(values[0] if tame and values[0] else [*values[0], *values[1]]))

    inputs = {"report": FOLDERS, "plot": FOLDERS, "export": TABLES, "votes": VOTES}
    arguments = [name, one_of(inputs.get(name, DATA))]
    if name == "apply":
        arguments.append(one_of(DECISIONS))
    frame = ("--quiet", "--overwrite", "--confine", "--config")
    fitting = frame if name in ("report", "plot") else (*frame, "--out", "--format")
    fitting = fitting if name in ("apply", "export", "report", "plot") else tuple(COMMON)
    known = {**{option: COMMON[option] for option in (fitting if tame else COMMON)}, **OWN[name]}
    usable = [option for option in known if known[option][0] or not tame]
    chosen = draw(st.lists(st.sampled_from(usable), max_size=5, unique=True))
    for option in dict.fromkeys([*NEEDED.get(name, ()), *chosen]):
        value = one_of(known[option])
        arguments += [option] if value is None else [option, value]
    return arguments


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with embeddings, tables, and results to go on from."""
    folder = tmp_path_factory.mktemp("place")
    generator = np.random.default_rng(0)
    for name, n in (("x", 24), ("val", 9), ("pool", 12), ("unlabelled", 12), ("one", 6)):
        labels = np.array(["a", "b", "c"])[np.arange(n) % 3] if name != "one" else np.array(["a"] * n)
        centres = {"a": [2, 0, 0], "b": [0, 2, 0], "c": [0, 0, 2]}
        arrays = {
            "embedding": np.array([centres[label] for label in labels]) + generator.normal(size=(n, 3)),
            "label": np.roll(labels, 1) if name == "pool" else labels,
            "path": np.array([f"{name} {row}.png" for row in range(n)]),
            "group": np.array([f"{name} {row // 2}" for row in range(n)]),
        }
        if name == "unlabelled":
            del arrays["label"]
        np.savez(folder / f"{name}.npz", **arrays)
    (folder / "plain.csv").write_text("path,label\n1.png,a\n2.png,b\n")
    (folder / "options.yaml").write_text("ridge: 0.5\nseed: 3\n")
    names = "".join(f"x {row}.png,{'abc'[row % 3]},x.npz\n" for row in range(20))
    (folder / "kept.csv").write_text(f"path,label,feature_source\n{names}")
    cast = "".join(f"x {row % 24}.png,{'abc'[row % 5 % 3]},x.npz,{'pqr'[row % 3]}\n" for row in range(50))
    (folder / "votes.csv").write_text(f"path,label,feature_source,who\n{cast}")
    (folder / "decisions.csv").write_text("path,decision,label\nx 1.png,drop,\nx 2.png,relabel,b\n")
    result = CliRunner().invoke(app, ["score", str(folder / "x.npz"), "--out", str(folder / "scored")])
    assert result.exit_code == 0, result.output
    return folder


@pytest.mark.parametrize("name", OWN)
@settings(
    derandomize=True,
    max_examples=6,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(data=st.data())
def test_random_options(
    name: str,
    data: st.DataObject,
    place: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    arguments = data.draw(command_lines(name))
    folder = tmp_path_factory.mktemp("run")
    shutil.copytree(place, folder, dirs_exist_ok=True)
    monkeypatch.chdir(folder)
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    stdin = (folder / "scored/scores.csv").read_bytes()
    result = CliRunner().invoke(app, arguments, input=stdin)
    said = f"diva {' '.join(map(repr, arguments))}\n{result.stderr}"
    assert result.exit_code in (0, 1, 2), said
    assert "Traceback" not in result.output, said
    assert "mistake in diva" not in result.output, said
    after = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    written = {file.relative_to(folder).as_posix() for file in after if before.get(file) != after[file]}
    assert set(before) <= set(after), said
    assert not any(".tmp" in file or "diva-tmp" in file for file in written), said
    if result.exit_code == 0:
        _require_accounted(name, arguments, folder, written, said)
        return
    if result.exit_code == 1:
        assert result.stderr.count("error:") == 1, said
        assert "expected:" in result.stderr or "to do:" in result.stderr, said
    assert result.stdout == "", said
    assert not written, said


PARTS = {
    "prune": ("kept", "dropped"),
    "score": ("scores",),
    "relabel": ("relabelled",),
    "reweight": ("reweighted",),
    "apply": ("applied", "removed"),
    "extend": ("selected", "remaining"),
}


def _require_accounted(name: str, arguments: list[str], folder: Path, written: set[str], said: str) -> None:
    """Every sample of the input, or of the pool, is in exactly one of the written tables."""
    if name not in PARTS or "-" in arguments[2:]:
        return
    tables = [
        table["path"]
        for part in (*PARTS[name], "failed")
        for file in written
        if Path(file).stem == part and (table := _table(folder / file)) is not None
    ]
    given = arguments[arguments.index("--pool") + 1] if name == "extend" else arguments[1]
    source = folder / ("scored/scores.csv" if given == "-" else given)
    wanted = Counter(map(_last, read_manifest(str(source), labels="optional").table["path"]))
    assert Counter(map(_last, pd.concat(tables))) == wanted, said


def _table(file: Path) -> pd.DataFrame | None:
    readers = {
        ".csv": pd.read_csv,
        ".jsonl": lambda file: pd.read_json(file, lines=True),
        ".parquet": pd.read_parquet,
    }
    table = readers[file.suffix](file)
    return table if len(table) else None


def _last(path: str) -> str:
    return path.rpartition("/")[2]
