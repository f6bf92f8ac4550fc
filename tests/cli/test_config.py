"""`--config FILE.yaml`."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

SAMPLES = sorted((Path(__file__).parents[2] / "sample_configs").glob("*.y*ml"))


@pytest.fixture
def config(tmp_path):
    """Write a configuration."""

    def write(text: str, name: str = "diva.yaml") -> Path:
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
        return file

    return write


def summary(out: str = "diva-out") -> dict:
    return json.loads((Path(out) / "summary.json").read_text())


def refused(result) -> str:
    """The message of wrong usage, on one line."""
    assert result.exit_code == 2
    assert "Traceback" not in result.stderr
    return " ".join(result.stderr.replace("│", " ").split())


def test_options_come_from_the_file(blobs, done, config):
    done(
        "score",
        blobs().file,
        "--config",
        config("ridge: 0.5\nloss: cross-entropy\ndtype: float64\nout: there\n"),
    )
    assert (summary("there")["ridge"], summary("there")["loss"]) == (0.5, "cross-entropy")
    assert summary("there")["dtype"] == "float64"


def test_flags_win(blobs, done, config):
    done("score", blobs().file, "--ridge", "2", "--config", config("ridge: 0.5\nscaling: none\n"))
    assert (summary()["ridge"], summary()["scaling"]) == (2.0, "none")


def test_data_may_be_in_the_file(blobs, done, config):
    blobs("x.npz")
    done("score", "--config", config("data: x.npz\n"))
    assert summary()["n_samples"] == 150


def test_relative_paths_start_from_the_file(images, factory, blobs, done, config, tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "photos").symlink_to(images)
    factory.rename(tmp_path / "set" / "net.py")
    file = config("data: photos\nmodel: net.py:make\ncache-dir: kept\n", "set/diva.yaml")
    done("score", "--config", file)
    assert summary()["n_samples"] == 36
    # An environment variable is as good as a flag.
    assert not (tmp_path / "set" / "kept").exists()


def test_a_relative_cache_starts_from_the_file(blobs, done, config, tmp_path, monkeypatch):
    monkeypatch.delenv("DIVA_CACHE_DIR")
    done("score", blobs().file, "--config", config("cache_dir: kept\n", "set/diva.yaml"))
    assert (tmp_path / "set" / "kept" / "runs").is_dir()


def test_a_validation_set_beside_the_file(blobs, done, config):
    blobs("set/val.npz", n=30, seed=4)
    done("score", blobs().file, "--config", config("val: val.npz\n", "set/diva.yaml"))
    assert summary()["n_validation"] == 30


def test_standard_input_in_the_file(images_table, model, done, config):
    file = config("data: '-'\n")
    done("score", "--config", file, *model, stdin=images_table.to_csv(index=False).encode())
    assert summary()["n_samples"] == 36


def test_a_section_is_for_its_command(blobs, done, config):
    data = blobs().file
    file = config("ridge: 1\nscore:\n  ridge: 0.25\nprune:\n  keep: 0.6\n  by: loo_loss\n")
    done("score", data, "--config", file)
    done("prune", data, "--config", file, "--out", "pruned")
    assert summary()["ridge"] == 0.25
    content = json.loads(Path("pruned/prune.json").read_text())
    assert (content["keep"], content["by"], content["forecast"]["chosen"]) == (0.6, "loo_loss", "loo_loss")
    done("prune", data, "--keep", 0.6, "--by", "loo_loss", "--ridge", 1, "--out", "again")
    assert json.loads(Path("again/prune.json").read_text()) == content


def test_options_of_other_commands_are_ignored(blobs, done, config):
    done("score", blobs().file, "--config", config("keep: 0.5\nstratify: true\nridge: 1\n"))
    assert summary()["ridge"] == 1.0


@pytest.mark.parametrize("name", ["around-head", "around_head"])
def test_names_may_have_dashes_or_underscores(name, blobs, run, config):
    result = run("score", blobs().file, "--config", config(f"{name}: true\n"))
    assert result.exit_code == 1
    assert "--around-head: these features feed no linear layer" in result.stderr


def test_switches(blobs, done, config):
    data = blobs().file
    assert done("score", data, "--config", config("quiet: true\n")).stderr == ""
    assert done("score", data, "--config", config("quiet: false\n")).stderr != ""


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "score:\n", "{}\n"])
def test_a_file_without_options(text, blobs, done, config):
    done("score", blobs().file, "--config", config(text))
    assert summary()["n_samples"] == 150


def test_a_config_in_a_config_is_nothing(blobs, done, config):
    done("score", blobs().file, "--config", config("config: other.yaml\nridge: 1\n"))
    assert summary()["ridge"] == 1.0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("rigde: 1\n", "'rigde' is no option; did you mean 'ridge'?"),
        ("score:\n  rigde: 1\n", "'rigde' is no option of diva score; did you mean 'ridge'?"),
        ("score:\n  keep: 0.5\n", "'keep' is no option of diva score"),
        ("scores:\n  ridge: 1\n", "'scores' is no section; did you mean 'score'?"),
        ("xyzzy: 1\n", "'xyzzy' is no option"),
        ("7: 1\n", "'7' is no option"),
        ("ridge: [1\n", "is not YAML"),
        ("a: b: c\n", "is not YAML"),
        ("- ridge\n", "holds a list; expected 'option: value' lines"),
        ("ridge\n", "holds a str"),
    ],
)
def test_a_file_that_is_wrong_says_how(text, message, blobs, run, config):
    file = config(text)
    assert message in refused(run("score", blobs().file, "--config", file))
    assert not Path("diva-out").exists()


@pytest.mark.parametrize(
    "text",
    [
        "ridge: much\n",
        "loss: hinge\n",
        "seed: soon\n",
        "seed: 1.5\n",
        "quiet: maybe\n",
        "checkpoint: 5\n",
        "format: [csv]\n",
    ],
)
def test_a_value_from_the_file_is_checked_as_a_flag_is(text, blobs, run, config):
    refused(run("score", blobs().file, "--config", config(text)))
    assert not Path("diva-out/scores.csv").exists()


@pytest.mark.parametrize("text", ["cache_dir: ''", "manifest: [a.csv, '']", "out: ''"])
def test_an_empty_path_is_refused(text, blobs, run, config):
    name = "evaluate" if "manifest" in text else "score"
    result = run(name, blobs().file, "--config", config(text))
    assert result.exit_code == 2, result.stderr
    assert "path" in result.stderr


def test_a_file_that_is_not_there(blobs, run):
    assert "none.yaml cannot be read: No such file" in refused(
        run("score", blobs().file, "--config", "none.yaml")
    )


def test_a_file_that_is_not_text(blobs, run, tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"ridge: \xff\xfe\n")
    assert "is not YAML" in refused(run("score", blobs().file, "--config", "x.yaml"))


@pytest.mark.parametrize(
    "text",
    [
        "out: !!python/object/apply:os.system ['touch executed']\n",
        "!!python/object/apply:os.system ['touch executed']\n",
        "seed: !!python/name:os.system\n",
    ],
)
def test_objects_in_the_file_are_refused_and_not_run(text, blobs, run, config):
    assert "is not YAML" in refused(run("score", blobs().file, "--config", config(text)))
    assert not Path("executed").exists()


def test_help_does_not_read_the_file(run):
    assert run("score", "--help", "--config", "none.yaml").exit_code == 0


def test_prune_from_the_file_alone(blobs, done, config):
    blobs("x.npz")
    done("prune", "--config", config("data: x.npz\nkeep: 0.5\nstratify: true\nforce: true\nformat: jsonl\n"))
    assert len(pd.read_json("diva-out/kept.jsonl", lines=True)) == 75


EVALUATED = "data: x.npz\ntest: x.npz\nseeds: 1\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("learner: [ridge, logistic]\n", ["ridge", "logistic"]),
        ("learner: [logistic]\n", ["logistic"]),
        ("learner: logistic\n", ["logistic"]),
        ("learner: []\n", ["ridge", "logistic"]),
        ("evaluate:\n  learner:\n    - logistic\n    - ridge\n", ["logistic", "ridge"]),
    ],
)
def test_an_option_that_is_repeated_may_be_a_list(text, expected, blobs, done, config):
    blobs("set/x.npz")
    done("evaluate", "--config", config(f"{EVALUATED}manifest: x.npz\n{text}", "set/diva.yaml"))
    assert json.loads(Path("diva-out/evaluation.json").read_text())["learners"] == expected


def test_flags_win_over_a_list(blobs, done, config):
    blobs("x.npz")
    file = config(f"{EVALUATED}manifest: x.npz\nlearner: [ridge, logistic]\n")
    done("evaluate", "--config", file, "--learner", "logistic")
    assert json.loads(Path("diva-out/evaluation.json").read_text())["learners"] == ["logistic"]


def test_files_in_a_list_lie_beside_the_configuration(blobs, done, config):
    for name in ("x.npz", "y.npz", "z.npz"):
        blobs(f"set/{name}")
    file = config(f"{EVALUATED}manifest: [y.npz, z.npz]\nlearner: ridge\n", "set/diva.yaml")
    done("evaluate", "--config", file)
    shared = json.loads(Path("diva-out/evaluation.json").read_text())["n_test_shared"]
    assert [Path(name).name for name in shared] == ["x.npz", "y.npz", "z.npz"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("manifest: [x.npz, 5]\n", "'manifest' is ['x.npz', 5]; expected a path, or a list of these"),
        ("manifest: {a: x.npz}\n", "'manifest' is no section"),
        ("learner: [ridge, [logistic]]\n", "expected one text, number or true/false, or a list of these"),
        ("learner: [ridge, forest]\n", "Invalid value for '--learner'"),
        ("test: [x.npz]\n", "'test' is ['x.npz']; expected a path"),
        ("seeds: [1, 2]\n", "'seeds' is [1, 2]; expected one text, number or true/false"),
    ],
)
def test_a_list_that_is_wrong_says_how(text, message, blobs, run, config):
    blobs("x.npz")
    file = config("data: x.npz\n" + ("" if "test" in text else "test: x.npz\n") + text)
    found = refused(run("evaluate", "--config", file))
    assert message in found
    assert "or a list" in message or "or a list" not in found


@pytest.mark.parametrize("file", SAMPLES, ids=lambda file: file.name)
def test_the_sample_configurations_name_options_only(file, run):
    # DATA that is not there is found out after the file was read.
    for command in ("score", "prune", "evaluate", "embed"):
        result = run(command, "nowhere", "--config", file, "--out", "out")
        assert "is no option" not in result.stderr
        assert "is no section" not in result.stderr
        assert "not YAML" not in result.stderr
