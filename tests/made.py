"""What several rooms of tests are made of: a network, small images, and processes that start quickly."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from divacli.reading import Reading

WEIGHTS = Reading(weight="weight", role="test")
"""Reads a column of weights in a table that diva did not write, where there is one."""

FACTORY = """
from pathlib import Path
import torch
from torch import nn
from torchvision.transforms import v2

def note(event):
    with Path(__file__).with_suffix(".log").open("a") as log:
        log.write(event + "\\n")

class Net(nn.Module):
    def __init__(self, classes=3):
        super().__init__()
        torch.manual_seed(0)
        self.hidden = nn.Linear(48, 10)
        self.fc = nn.Linear(10, classes)

    def forward(self, x):
        note("forward")
        return self.fc(self.hidden(x.flatten(1)).relu())

TRANSFORM = v2.Compose([v2.Resize((4, 4)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])

def make():
    note("made")
    return Net(), TRANSFORM

def make_five():
    return Net(5), TRANSFORM
"""
"""A file with a small network for images of 4 x 4. What it does is logged beside it."""


def tinted(
    label: int, generator: np.random.Generator, side: int = 4, tint: int = 60, noise: int = 190
) -> Image.Image:
    """An image with a tint of its class, 0 to 2, and noise."""
    pixels = np.eye(3)[label] * tint + generator.integers(0, noise, (side, side, 3))
    return Image.fromarray(pixels.astype(np.uint8))


def write_images(folder: Path, labels: Iterable[int], seed: int, **look: int) -> None:
    """Write an image for each label, as `tinted` has it, into the class folders a, b and c."""
    generator = np.random.default_rng(seed)
    for number, label in enumerate(labels):
        target = folder / "abc"[label] / f"{number:03d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        tinted(label, generator, **look).save(target)


def in_turn(n: int) -> list[int]:
    """Labels (n,) of three classes, one after the other."""
    return [row % 3 for row in range(n)]


class Forks:
    """Runs `diva` in processes that are forked from one which has imported what takes seconds to import.

    They are processes like any other, with a session, signals and streams of their own. One runs at a time.
    """

    _SERVER = """
import gc, json, os, sys
import pandas, pyarrow, torchvision
import divacli.cli.output, divacli.cli.session, divacli.curate.score, divacli.report.terminal.score
from divacli.cli.app import main

gc.freeze()  # or every child would copy what its collections look at
for line in sys.stdin:
    job = json.loads(line)
    child = os.fork()
    if not child:
        os.setsid()
        os.chdir(job["folder"])
        os.environ.update(job["environment"])
        for stream, path in enumerate((os.devnull, os.devnull, job["stderr"])):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), stream)
        sys.argv = ["diva", *job["arguments"]]
        exec(job["before"])
        main()
        sys.exit(0)
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._SERVER],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._jobs, self._answers = self._process.stdin, self._process.stdout

    def start(
        self, *arguments: object, folder: Path, stderr: str | Path, before: str = "", **environment: str
    ) -> int:
        """Start a command in a folder and return the number of its process, which leads a group.

        Args:
            arguments: Of the command line.
            folder: Where it runs.
            stderr: The file, or the terminal, that its messages go to.
            before: Code that it runs first.
            environment: More variables.
        """
        job = {"arguments": [str(one) for one in arguments], "folder": str(folder), "stderr": str(stderr)}
        self._jobs.write(json.dumps({**job, "before": before, "environment": environment}) + "\n")
        self._jobs.flush()
        return int(self._answers.readline())

    def wait(self) -> int:
        """Wait for the end of the command and return its status, negative for the signal that ended it."""
        return int(self._answers.readline())

    def close(self) -> None:
        """End the server."""
        self._jobs.close()
        self._answers.close()
        self._process.wait(timeout=60)
