"""Several processes write what one writes, and say once what none can do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from divacli.features.store import FeatureStore
from tests.cli.test_logs import read_log
from tests.made import FACTORY, in_turn, write_images

N_IMAGES = 300

MORTAL = """
import os, signal, time

class Transform:
    '''Takes the whole process with it where the environment says so.'''
    def __init__(self):
        self.seen = 0

    def __call__(self, image):
        self.seen += 1
        time.sleep(float(os.environ.get("TEST_SECONDS_AN_IMAGE", 0)))
        fatal = os.environ.get("TEST_FATAL_IMAGE") == str(self.seen)
        if fatal and (os.environ["RANK"], os.environ["TORCHELASTIC_RESTART_COUNT"]) == ("1", "0"):
            os.kill(os.getpid(), signal.SIGKILL)
        return TRANSFORM(image)

def make_mortal():
    from divacli.features import extract
    extract.SHARD_ROWS = 32
    return Net(), Transform()
"""

LAUNCHER = """
import gc, json, math, os, sys, traceback

import sklearn.linear_model, torchvision
from torch.distributed import TCPStore

import divacli.backbones, divacli.cli.output, divacli.cli.session
import divacli.curate.extend, divacli.curate.harm, divacli.curate.prune_rules, divacli.curate.score_note
import divacli.curate.reweight, divacli.curate.sample_scores, divacli.curate.verify
import divacli.parallel, divacli.report.terminal.extend, divacli.report.terminal.reweight
import divacli.report.terminal.score
from divacli.cli.app import main
from divacli.ridge.fit import products, task
from divacli.ridge.labels.noise import fit_noise
from divacli.ridge.pool import coreset

task.BATCH_ROWS, products.RUN_ROWS, coreset._STATE_ROWS = 128, 32, 256
fit_noise.__kwdefaults__["strengths"] = (math.inf, 300.0)  # as in `tests/conftest.py`
gc.freeze()  # or every process would copy what its collections look at

def run(rank, size, arguments, messages, store):
    os.dup2(os.open(messages, os.O_WRONLY | os.O_CREAT | os.O_APPEND), 2)
    os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(size))
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(store.port))
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE="True", TORCHELASTIC_RESTART_COUNT="0")
    sys.argv = ["diva", *arguments]
    try:
        main()
    except SystemExit as error:
        return error.code or 0
    except BaseException:
        traceback.print_exc()
    return 99

for jobs in json.loads(sys.argv[1]):
    started = []
    for name, size, arguments in jobs:
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        for rank in range(size):
            child = os.fork()
            if not child:
                status = run(rank, size, arguments, f"{name}.messages", store)
                sys.stderr.flush()
                os._exit(status)
            started.append((name, child, store))
    for name, child, _ in started:
        print(name, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
"""As torchrun does, each job in a world of its own with a store beside it; but the processes are forked from
one that has imported everything: a job takes a second, not five. Jobs of one list run side by side. Batches
are small, so that five hundred samples are several."""

COMMANDS = {
    "score": "score set.npz --by class --dtype float64",
    "groups": "score core.npz --group patient --loss cross-entropy --val set.npz --scaling standard",
    "prune": "prune set.npz --keep auto",
    "reweight": "reweight set.npz --validation balanced",
    "extend": "extend core.npz --pool pool.npz --group patient --budget 30 --refit-every 10",
    "images": "score photos --model net.py:make --group duplicates --workers 0",
    "embed": "embed photos --model net.py:make_mortal --workers 0 --batch-size 64",
}
"""What is run in one process and in several. Embeddings are in several batches: see `LAUNCHER`."""

FAILURES = {
    "missing": ("score none.npz", 1, "none.npz does not exist"),
    "checkpoint": ("score photos --model net.py:make --checkpoint set.npz", 1, "set.npz"),
    "usage": ("score set.npz --ridge abc", 2, "'abc' is neither 'auto' nor a number >= 0"),
    "command": ("train photos --model net.py:make", 1, "diva train runs in one process"),
    "stdin": ("score -", 1, "diva score - in 2 processes"),
    "pool": ("extend set.npz --pool -", 1, "diva extend - in 2 processes"),
    "late": ("score set.npz --group colour", 1, "colour"),
}
"""Command lines that no process can run, their status, and what is said of it."""


def gaussians(n: int, seed: int, prefix: str) -> dict[str, np.ndarray]:
    generator = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(size=(3, 40)) / 2
    truth = np.arange(n) % 3
    return {
        "embedding": (centres[truth] + generator.normal(size=(n, 40))).astype(np.float32),
        "label": np.where(generator.random(n) < 0.1, (truth + 1) % 3, truth),
        "path": np.array([f"{prefix}{number}" for number in range(n)]),
    }


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with embeddings, images, some of them equal, and a network."""
    folder = tmp_path_factory.mktemp("processes")
    np.savez(folder / "set.npz", **gaussians(500, 1, "s"))
    np.savez(folder / "core.npz", **gaussians(510, 2, "c"), patient=np.arange(510) // 3)
    np.savez(folder / "pool.npz", **gaussians(490, 3, "p"), patient=np.arange(490) // 2 + 165)
    write_photos(folder)
    return folder


def write_photos(folder: Path) -> None:
    """Write the images, some of them equal and one that is none, and the network."""
    write_images(folder / "photos", in_turn(N_IMAGES), seed=0)
    (folder / "photos/a/copy.png").write_bytes((folder / "photos/a/003.png").read_bytes())
    (folder / "photos/b/broken.png").write_bytes(b"none")
    (folder / "net.py").write_text(FACTORY + MORTAL)


def environment() -> dict[str, str]:
    # As torchrun has it: sums over samples differ in the last of 16 digits with the number of threads.
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


@pytest.fixture(scope="module")
def statuses(place: Path) -> dict[str, list[int]]:
    """The statuses of the processes of each job, after all have been run."""

    def job(name: str, size: int, line: str, cache: str) -> tuple[str, int, list[str]]:
        return name, size, [*line.split(), "--out", f"{name}-out", "--cache-dir", cache]

    alone = [job(f"{name}-1", 1, line, "cache-1") for name, line in COMMANDS.items()]
    failing = [job(name, 2, line, "cache-2") for name, (line, _, _) in FAILURES.items()]
    shared = [job(f"{name}-2", 2, line, "cache-2") for name, line in COMMANDS.items()]
    shared.append(
        job("logged", 2, "score photos --model net.py:make --workers 0 --log-file diva.log", "cache-2")
    )
    jobs = [alone, failing, *([one] for one in shared), [job("score-4", 4, COMMANDS["score"], "cache-4")]]
    done = subprocess.run(
        [sys.executable, "-c", LAUNCHER, json.dumps(jobs)],
        cwd=place,
        env=environment(),
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, list[int]] = {}
    for name, status in (line.split() for line in done.stdout.splitlines()):
        found.setdefault(name, []).append(int(status))
    return found


def content(folder: Path) -> dict[str, Any]:
    """What a command has written, but for the times it took."""
    found: dict[str, Any] = {}
    for file in folder.rglob("*"):
        if file.name == "run.json":
            runs = json.loads(file.read_text())["runs"]
            # Of summaries, digests that the times are in.
            found["run.json"] = [run | {"outputs": list(run["outputs"])} for run in runs]
        elif file.suffix == ".json":
            found[str(file.relative_to(folder))] = {**json.loads(file.read_text()), "seconds": None}
        elif file.is_file():
            found[str(file.relative_to(folder))] = file.read_bytes()
    return found


@pytest.mark.parametrize(("name", "size"), [*((name, 2) for name in COMMANDS), ("score", 4)])
def test_several_processes_write_what_one_writes(name, size, place, statuses):
    messages = [(place / f"{name}-{number}.messages").read_text() for number in (1, size)]
    assert statuses[f"{name}-1"] == [0], messages[0]
    assert statuses[f"{name}-{size}"] == [0] * size, messages[1]
    expected = content(place / f"{name}-1-out")
    assert expected
    assert content(place / f"{name}-{size}-out") == expected
    # Said by one of them, in the same words.
    assert without_times(messages[1]).replace(f"{name}-{size}", f"{name}-1") == without_times(messages[0])


def without_times(messages: str) -> str:
    return re.sub(r"\d+\.\d s", "", messages)


def test_every_image_is_embedded_by_one_of_them(place, statuses):
    assert json.loads((place / "images-2-out/summary.json").read_text())["n_embedded"] == N_IMAGES
    stores = [FeatureStore(folder) for folder in place.glob("cache-2/features/*")]
    assert [len(store) for store in stores] == [N_IMAGES] * 2
    assert all(len(shards(place / f"cache-{size}")) >= 2 * size for size in (1, 2))


@pytest.mark.parametrize("name", FAILURES)
def test_what_no_process_can_do_is_said_once(name, place, statuses):
    _, status, message = FAILURES[name]
    said = " ".join((place / f"{name}.messages").read_text().split())
    assert statuses[name] == [status] * 2
    assert said.count(message) == 1
    assert said.lower().count("error: ") == 1
    assert "Traceback" not in said
    assert not content(place / f"{name}-out")


def test_each_process_of_a_launcher_has_its_own_log(place, statuses):
    assert statuses["logged"] == [0, 0]
    first, second = (read_log(str(place / name)) for name in ("diva.log", "diva.log.rank1"))
    assert ("wrote logged-out/scores.csv" in first, "wrote logged-out/scores.csv" in second) == (True, False)
    assert "ended with status 0" in second


def shards(cache: Path) -> list[Path]:
    return sorted(cache.glob("features/*/shard-*.safetensors"))
