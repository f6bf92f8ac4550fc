"""What a command runs in: a terminal of no size, streams that are closed or full, little memory, a signal."""

from __future__ import annotations

import errno
import gc
import multiprocessing.synchronize
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from divacli.cli.app import app
from divacli.cli.command import answering_errors
from divacli.cli.processes import Terminated

CONTEXT = typer.Context(typer.main.get_command(app), info_name="diva")

DIVA = f"{sys.executable} -m divacli"


def shell(line: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """What becomes of a line of a shell."""
    return subprocess.run(
        ["sh", "-c", line], capture_output=True, text=True, timeout=120, env={**os.environ, **variables}
    )


# The terminal


@pytest.mark.parametrize("columns", ["0", "1", "5", "-3", "\u00b2", "99999999999", "9" * 5000, "wide"])
def test_every_message_is_seen_whatever_the_width_is_said_to_be(columns, run, monkeypatch):
    monkeypatch.setenv("COLUMNS", columns)
    monkeypatch.setenv("LINES", "0")
    assert run("score", "nowhere").stderr.startswith("error: nowhere does not exist\n")
    wrong = run("score", "nowhere", "--bad")
    assert "│ No such option" in wrong.stderr
    assert max(map(len, wrong.stderr.splitlines())) == 80
    assert "│ prune " in run("--help").stdout


def test_sizes_that_are_no_numbers_are_not_believed(tmp_path):
    """In a process of its own: Typer reads one of them when it is imported."""
    found = shell(f"{DIVA} score nowhere --bad", TERMINAL_WIDTH="x", COLUMNS="\u00b2", LINES="none")
    assert found.returncode == 2
    assert "│ No such option" in found.stderr


def test_a_terminal_without_columns():
    pty = pytest.importorskip("pty", reason="no pseudo-terminals on this system")
    import fcntl
    import struct
    import termios

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 1, 1, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
    done = subprocess.run(
        [sys.executable, "-m", "divacli", "score", "nowhere", "--bad"],
        **{"stdin": its, "stdout": its, "stderr": its, "env": environment},
    )
    assert done.returncode == 2
    os.close(its)
    assert "No such option" in os.read(ours, 100_000).decode()
    os.close(ours)


# Streams


def test_standard_input_that_is_closed(tmp_path):
    found = shell(f"{DIVA} score - --out {tmp_path}/out <&-")
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.splitlines()[0] == "error: standard input is closed"
    assert not list(tmp_path.iterdir())


def test_standard_output_that_is_closed(tmp_path, blobs):
    found = shell(f"{DIVA} score {blobs().file} --out - >&-")
    assert found.returncode == 1
    assert found.stderr.splitlines()[0] == "error: standard output is closed"


def test_no_file_takes_the_place_of_a_stream_that_is_closed():
    """What libraries write to standard error would go into it."""
    code = "import sys, divacli.cli.app as app; sys.argv = ['diva', '--version']\n"
    code += "try:\n app.main()\nfinally:\n import os; os._exit(min(os.dup(0), 9))"
    assert shell(f'{sys.executable} -c "{code}" 2>&- >&- <&-').returncode >= 3


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full on this system")
@pytest.mark.parametrize("option", ["--help", "--version", "", "score --help"])
def test_standard_output_that_is_full(option):
    found = shell(f"{DIVA} {option} >/dev/full")
    assert found.returncode == 1
    assert found.stderr.splitlines()[0] == "error: No space left on device"
    assert "Traceback" not in found.stderr
    assert "Exception ignored" not in found.stderr


# Memory and files


@pytest.mark.skipif(sys.platform != "linux", reason="macOS limits no address space")
def test_a_limit_of_memory_is_named(blobs, tmp_path):
    found = shell(f"ulimit -v 600000; {DIVA} score {blobs().file} --out {tmp_path}/out")
    assert found.returncode == 1
    assert found.stderr.splitlines() == [
        "error: out of memory: the address space of a process is limited to 614 MB",
        "to do: raise it (ulimit -v unlimited), or use a smaller --batch-size and fewer --workers",
    ]


@pytest.mark.filterwarnings("error")  # for what is raised where nobody can catch it
def test_no_shared_memory(more_images, model, run, done, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(errno.EROFS, "Read-only file system")

    command = ("embed", more_images, *model, "--batch-size", "16", "--workers")
    with monkeypatch.context() as patched:
        patched.setattr(multiprocessing.synchronize.SemLock, "__init__", fail)
        result = run(*command, "2")
        gc.collect()
    assert result.exit_code == 1
    assert result.stderr.splitlines()[1:] == [
        "error: a process that decodes images failed: [Errno 30] Read-only file system",
        "expected: enough memory (and shared memory) for every worker",
        "to do: use fewer --workers or a smaller --batch-size; --workers 0 needs no shared memory. "
        "What was embedded is kept",
    ]
    done(*command, "0")


def answered(error: Exception, capsys: pytest.CaptureFixture[str]) -> list[str]:
    with pytest.raises(typer.Exit), answering_errors(CONTEXT, debug=False):
        raise error
    return capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        ImportError("libtorch_cpu.so: failed to map segment from shared object"),
        OSError(errno.ENOMEM, "Cannot allocate memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        RuntimeError("can't start new thread"),
    ],
    ids=repr,
)
def test_whatever_says_that_memory_does_not_suffice(error, capsys, monkeypatch):
    assert answered(error, capsys)[0] == "error: out of memory"
    monkeypatch.setattr(resource, "getrlimit", lambda what: (10**9, 10**9))
    assert "limited to 1,000 MB" in answered(error, capsys)[0]


def test_a_file_that_fails_is_named_and_no_mistake_in_diva(capsys):
    first, *others = answered(OSError(errno.EACCES, "Permission denied", "some\nfile"), capsys)
    assert first == "error: some\\nfile: Permission denied"
    assert [line.partition(":")[0] for line in others] == ["expected", "to do"]


def test_a_system_call_that_should_not_fail_is_a_mistake_in_diva(capsys):
    assert "may be a mistake in diva" in answered(OSError(errno.EBADF, "Bad file descriptor"), capsys)[1]


# The current folder, and what a launcher says


def test_a_folder_that_is_gone(blobs, tmp_path, monkeypatch):
    data = blobs().file
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    result = CliRunner().invoke(app, ["score", str(data)])
    monkeypatch.chdir(tmp_path)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: the current folder cannot be used: No such file or directory\n")


WORLD = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *((name, "x\nerror: forged") for name in ("RANK", "WORLD_SIZE", "MASTER_PORT", "LOCAL_WORLD_SIZE")),
        *(("WORLD_SIZE", "0"), ("LOCAL_WORLD_SIZE", "0"), ("RANK", "-1"), ("MASTER_PORT", "\u00b2")),
    ],
)
def test_a_world_that_is_none(name, value, blobs, run, monkeypatch):
    monkeypatch.setattr("divacli.cli.command.may_speak", lambda: True)  # which asks the others
    for known, usual in WORLD.items():
        monkeypatch.setenv(known, usual)
    monkeypatch.setenv(name, value)
    result = run("score", blobs().file)
    assert result.exit_code == 1
    shown = value.replace("\n", "\\n").replace("\u00b2", "²")
    assert result.stderr.splitlines()[0] == f"error: {name}={shown} in the environment"
    assert len(result.stderr.splitlines()) == 3
    assert not Path("diva-out").exists()


# The page of results


@pytest.mark.parametrize(
    ("error", "status", "word"), [(Terminated, 143, "terminated"), (KeyboardInterrupt, 130, "interrupted")]
)
def test_a_signal_while_the_page_is_made(error, status, word, blobs, run, done, monkeypatch):
    import divacli.cli.deliver as module

    def end(*arguments):
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(module, "report_on", end)
        result = run("score", blobs().file, "--out", "my results", "--report", overwrite=False)
    assert result.exit_code == status
    assert result.stderr.splitlines()[-1] == (
        f"{word}; the results are in my results: diva report 'my results' makes the page alone"
    )
    assert Path("my results/scores.csv").exists()
    refused = run("score", blobs().file, "--out", "my results", "--report", overwrite=False)
    assert refused.exit_code == 1
    assert "to do: diva report 'my results' makes the page of them; or replace them" in refused.stderr
    done("report", "my results", overwrite=False)
    assert Path("my results/report.html").exists()
    # Now nothing is missing, and so it is where no page is asked for.
    for more in (["--report"], []):
        again = run("score", blobs().file, "--out", "my results", *more, overwrite=False)
        assert "to do: replace them with --overwrite" in again.stderr


def test_results_of_another_command_are_no_reason_for_a_page(blobs, run, done):
    pool = blobs("pool.npz", n=30, seed=1).file
    done("extend", blobs().file, "--pool", pool, "--budget", "3", "--out", "there")
    refused = run("aggregate", blobs().file, "--pool", pool, "--out", "there", "--report", overwrite=False)
    assert refused.exit_code == 1
    assert "to do: choose another folder with --out" in refused.stderr
