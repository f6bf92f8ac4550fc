"""YAML and JSON that would run code, or grow out of a few lines to gigabytes: one message."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

LAUGHS = "a0: &a0 [x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 40)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("seed: !!python/object/apply:os.mkdir ['TARGET']\n", "could not determine a constructor"),
        ("seed: !!python/object/new:os.mkdir ['TARGET']\n", "could not determine a constructor"),
        ("!!python/object/apply:os.system ['mkdir TARGET']\n", "could not determine a constructor"),
        ("seed: !!python/name:os.mkdir\n", "could not determine a constructor"),
        (LAUGHS, "'a0' is no option"),
        (LAUGHS + "seed: *a39\n", "'a0' is no option"),
        ("seed: &x [*x]\n", "expected one text, number or true/false"),
        ("seed: " + "[" * 20_000, "is not YAML"),
        ("seed: " + "{a: " * 10_000, "is not YAML"),
        ("seed: " + "9" * 10_000, "is not YAML: Exceeds the limit"),
        ("seed: 2024-99-99\n", "is not YAML: month must be"),
        ("# " + "x" * 70_000, "more than 65,536 bytes"),
        ("seed: [" + "x, " * 10_000 + "]", "expected one text, number or true/false"),
        ("\0", "is not YAML"),
        ("? {a: b}\n: c\n", "is not YAML"),
    ],
)
def test_a_configuration(text: str, says: str, created: Path, refused: Callable) -> None:
    Path("c.yaml").write_text(text.replace("TARGET", str(created)))
    said = " ".join(refused("score", "x.csv", "--config", "c.yaml", status=2).replace("│", " ").split())
    assert says in said
    assert len(said) < 2_000
    assert not created.exists()


def test_a_configuration_without_an_end(refused: Callable) -> None:
    Path("c.yaml").symlink_to("/dev/zero")
    refused("score", "x.csv", "--config", "c.yaml", status=2)


DEEP = "[" * 200_000
LONG = '{"path": ' + "9" * 10_000 + "}"


@pytest.mark.parametrize("evil", [DEEP, '{"a":' * 100_000, LONG, '{"path": "a", "label": ' + DEEP])
def test_a_row_of_a_table(evil: str, refused: Callable) -> None:
    Path("t.jsonl").write_text('{"path": "a.png", "label": "a"}\n' + evil + "\n")
    assert "t.jsonl: line 2 is not valid JSON" in refused("score", "t.jsonl")


@pytest.mark.parametrize("evil", [DEEP, '[{"data":' * 100_000])
def test_decisions(evil: str, photos: Path, refused: Callable) -> None:
    Path("d.json").write_text(evil)
    assert "d.json is not valid JSON" in refused("apply", photos, "d.json")


@pytest.mark.parametrize("name", ["summary.json", "run.json"])
def test_results(name: str, photos: Path, network: Path, run: Callable) -> None:
    assert run("score", photos, "--model", f"{network}:make").exit_code == 0
    (Path("diva-out") / name).write_text(DEEP)
    for command in (("report", "diva-out"), ("score", photos, "--model", f"{network}:make", "--overwrite")):
        result = run(*command)
        assert "may be a mistake in diva" not in result.stderr, result.stderr
        assert "Traceback" not in result.stderr


def test_the_description_of_a_store(photos: Path, network: Path, run: Callable) -> None:
    assert run("embed", photos, "--model", f"{network}:make", "--out", "store").exit_code == 0
    about = Path("store/store.json")
    whole = json.loads(about.read_text())
    for evil in (
        DEEP,
        "[]",
        '"x"',
        json.dumps({**whole, "n_features": 1 << 60}),
        json.dumps({**whole, "format": [9]}),
    ):
        about.write_text(evil)
        result = run("score", "store", "--out", "scored")
        assert result.exit_code == 1
        assert "may be a mistake in diva" not in result.stderr, result.stderr
        assert len(result.stderr) < 5_000
