"""What `--log-file` writes: enough to act on, nothing secret, nothing forged."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from divacli.files.urls import without_secrets

RECORD = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (INFO|WARNING|ERROR) +\d+ divacli[.\w]*: .*", re.ASCII
)


def read_log(file: str = "diva.log") -> str:
    """The log, in which every line is a record or belongs to one, and nothing drives a terminal."""
    text = Path(file).read_bytes().decode()
    lines = text.removesuffix("\n").split("\n")
    assert RECORD.fullmatch(lines[0])
    for line in lines:
        assert RECORD.fullmatch(line) or line.startswith("    ")
        assert line.isprintable()
    return text


@pytest.fixture
def failing(monkeypatch):
    """Make the solve of `diva score` raise."""

    def install(error: BaseException) -> None:
        import divacli.curate.sample_scores as module

        def fail(*arguments):
            local = "value of ".upper() + "a local variable"
            raise error from (None if local else error)

        monkeypatch.setattr(module, "score", fail)

    return install


# What is in it


def test_a_log_says_what_was_done(images, model, done):
    done("score", images, *model, "--ridge", "0.5", "--log-file", "diva.log")
    text = read_log()
    for said in (
        "diva score\n",
        f"    data={images}\n",
        "    ridge=0.5\n",
        "versions: diva=",
        " torch=",
        "cores=",
        "limit of the process=",
        "device cpu",
        f"read {images}: a folder of 36 samples in 3 classes",
        "36 images, of which 0 are in the store, 36 are to be embedded",
        "embedding: begins, 36 to do",
        ", 36 of 36 done; peak memory",
        "net.py is run for its factory",
        "wrote diva-out/scores.csv: {'bytes': ",
        "samples {'read': 36, 'failed': 0, 'scores': 36}",
        "ended with status 0 after",
    ):
        assert said in text
    assert "ERROR" not in text


def test_a_log_is_appended_to_and_tells_what_the_store_held(images, model, done):
    done("score", images, *model, "--log-file", "diva.log")
    first = read_log()
    done("score", images, *model, "--quiet", "--log-file", "diva.log")
    both = read_log()
    assert both.startswith(first)
    assert "36 images, of which 36 are in the store, 0 are to be embedded" in both[len(first) :]


def test_nothing_is_logged_elsewhere(blobs, run, tmp_path, capfd):
    data = blobs().file
    plain = run("score", data, "--out", "out-a")
    logged = run("score", data, "--out", "out-b", "--log-file", "diva.log")
    assert logged.stdout == plain.stdout
    assert re.sub(r"[\d.]+ s", "", logged.stderr) == re.sub(r"[\d.]+ s", "", plain.stderr).replace(
        "out-a", "out-b"
    )
    assert capfd.readouterr() == ("", "")
    assert Path("out-a/scores.csv").read_bytes() == Path("out-b/scores.csv").read_bytes()


def test_the_log_is_closed_with_the_command(blobs, done):
    before = list(logging.getLogger("divacli").handlers), logging.getLogger("divacli").level
    done("score", blobs().file, "--log-file", "diva.log")
    assert (list(logging.getLogger("divacli").handlers), logging.getLogger("divacli").level) == before


def test_warnings_are_logged_though_quiet(blobs, done):
    data = blobs(colour=np.arange(150).astype("U")).file
    done("score", data, "--quiet", "--log-file", "diva.log")
    assert re.search(r"WARNING .*: .*columns kept but not used: colour", read_log())


# How a command ended


@pytest.mark.parametrize(
    ("error", "status"), [(RuntimeError("odd"), 1), (MemoryError(), 1), (KeyboardInterrupt(), 130)]
)
def test_a_failure_has_its_traceback_in_the_log_and_none_on_the_screen(error, status, failing, blobs, run):
    failing(error)
    result = run("score", blobs().file, "--log-file", "diva.log")
    text = read_log()
    assert result.exit_code == status
    assert "Traceback" not in result.stderr
    assert "    Traceback (most recent call last):" in text
    assert ", in fail" in text
    assert type(error).__name__ in text
    assert "VALUE OF" not in text
    assert f"ended with status {status} after" in text


def test_an_error_to_be_mended_is_in_the_log(run):
    result = run("score", "nowhere.csv", "--log-file", "diva.log")
    text = read_log()
    assert result.exit_code == 1
    assert "nowhere.csv does not exist" in text
    assert "Traceback" in text
    assert "ended with status 1" in text


def test_an_unforeseen_error_with_debug_is_in_the_log_too(failing, blobs, run):
    failing(ZeroDivisionError("here"))
    run("score", blobs().file, "--debug", "--log-file", "diva.log")
    assert "ZeroDivisionError: here" in read_log()
    assert "ended with status 1" in read_log()


def test_wrong_usage_that_a_command_finds_has_its_status(run):
    result = run("score", "x.csv", "--out", "-", "--report", "--log-file", "diva.log")
    assert result.exit_code == 2
    assert not Path("diva.log").exists()


# What is not in it


SIGNED = "memory://reader:hunter2@bucket/{name}?X-Amz-Signature=0f1e2d3c4b5a&sig=abcdefgh12%3D#fragment9"
SECRETS = ("hunter2", "0f1e2d3c4b5a", "abcdefgh12", "fragment9", "reader:")


def test_secrets_of_a_url_are_not_logged(run):
    data = SIGNED.format(name="none.npz")
    result = run("score", data, "--log-file", "diva.log")
    text = read_log()
    assert result.exit_code == 1
    assert "bucket/none.npz" in text
    assert not [secret for secret in SECRETS if secret in text]


def test_parts_of_a_url_are_not_logged_by_themselves(failing, blobs, run):
    data = blobs().file
    failing(RuntimeError("refused hunter2 with abcdefgh12= and 0f1e2d3c4b5a"))
    run("score", data, "--val", SIGNED.format(name="val.npz"), "--log-file", "diva.log")
    failing(RuntimeError("refused hunter2 with abcdefgh12= and 0f1e2d3c4b5a"))
    run("score", data, "--model", SIGNED.format(name="x"), "--out", "two", "--log-file", "diva.log")
    text = read_log()
    assert "refused *** with *** and ***" in text
    assert not [secret for secret in SECRETS if secret in text]


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("https://host/a.npz?X-Amz-Signature=1", "https://host/a.npz"),
        ("https://me:p@ss:word@host/a.npz", "https://host/a.npz"),
        ("simplecache::s3://key:secret@bucket/a#b and more", "simplecache::s3://bucket/a and more"),
        ("photos/a@b.png?", "photos/a@b.png?"),
    ],
)
def test_a_url_keeps_its_address_alone(text, left):
    assert without_secrets(text) == left


def test_no_variable_of_the_environment_is_logged(images, model, done, monkeypatch):
    names = ("AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "EDITOR", "DIVA_SOMETHING", "OMP_DISPLAY_ENV", "LC_MINE")
    for name in names:
        monkeypatch.setenv(name, f"value of {name}")
    done("score", images, *model, "--log-file", "diva.log")
    assert not [name for name in names if name in read_log()]


def test_bytes_in_a_message_are_left_out(failing, blobs, run):
    failing(ValueError(f"cannot parse {bytes(range(128, 192))!r} as {b'PNG'!r}"))
    run("score", blobs().file, "--log-file", "diva.log")
    assert "cannot parse b'...' as b'PNG'" in read_log()


def test_no_image_is_in_the_log(images, model, run, tmp_path):
    (tmp_path / "photos").symlink_to(images)
    (tmp_path / "bad").mkdir()
    pixels = np.full((8, 8, 3), 173, np.uint8)
    Image.fromarray(pixels).save(tmp_path / "bad" / "x.png")
    whole = (tmp_path / "bad" / "x.png").read_bytes()
    table = "path,label\n" + "".join(f"{file},{file.parent.name}\n" for file in images.rglob("*.png"))
    for number, content in enumerate((whole[:-20], b"secret-content" * 9, whole[:30])):
        (tmp_path / "bad" / f"{number}.png").write_bytes(content)
        table += f"bad/{number}.png,a\n"
    Path("labels.csv").write_text(table)
    result = run("score", "labels.csv", *model, "--log-file", "diva.log")
    assert result.exit_code == 0
    text = read_log()
    assert "images cannot be used and are left out" in text
    assert not [part for part in ("secret-content", "173", "\\x89PNG", "IHDR") if part in text]


# Text that means harm


FORGED = "x\n2026-01-01T00:00:00.000Z ERROR   1 divacli.cli: forged"


def test_a_label_cannot_forge_a_record_or_drive_a_terminal(failing, blobs, run):
    failing(ValueError(f"label {FORGED}\r\x1b[2J\x9b31m\u202e\u2028\x85\0 of a row"))
    run("score", blobs().file, "--log-file", "diva.log")
    text = read_log()
    assert "\n    2026-01-01T00:00:00.000Z ERROR" in text
    assert "\n2026-01-01" not in text
    assert "\\r\\x1b[2J\\x9b31m\\u202e\\u2028\\x85\\x00 of a row" in text


def test_a_hostile_name_of_the_data(run):
    run("score", f"{FORGED}\x1b]0;title\x07.csv", "--log-file", "diva.log")
    assert "\n2026-01-01" not in read_log()


def test_a_long_line_is_cut(failing, blobs, run):
    failing(ValueError("a" * 1_000_000 + "END"))
    run("score", blobs().file, "--log-file", "diva.log")
    text = read_log()
    assert max(map(len, text.split("\n"))) < 1100
    assert "END" not in text


# Where it is written


def test_a_log_that_cannot_be_written_is_said_before_any_work(images, model, factory, run):
    Path("file").write_text("mine")
    result = run("score", images, *model, "--log-file", "file/diva.log")
    assert result.exit_code == 1
    assert result.stderr.count("error:") == 1
    assert "--log-file file/diva.log cannot be written to" in result.stderr
    assert "to do:" in result.stderr
    assert not factory.with_suffix(".log").exists()
    assert not Path("diva-out").exists()


def test_a_folder_is_no_log(run, tmp_path):
    result = run("score", "x.npz", "--log-file", tmp_path)
    assert result.exit_code == 1
    assert "Is a directory" in result.stderr


def test_what_is_no_log_is_not_appended_to(blobs, run):
    Path("labels.csv").write_text("path,label\nx.png,a\n")
    result = run("score", blobs().file, "--log-file", "labels.csv")
    assert result.exit_code == 1
    assert "--log-file labels.csv holds something else than a log of diva" in result.stderr
    assert Path("labels.csv").read_text() == "path,label\nx.png,a\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_ends_the_log_and_not_the_command(blobs, done):
    result = done("score", blobs().file, "--log-file", "/dev/full")
    assert result.stderr.count("No space left on device; the command goes on without a log") == 1
    assert "Traceback" not in result.stderr
    assert Path("diva-out/scores.csv").exists()
