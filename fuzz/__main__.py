"""Fuzz the readers, one process for each target, and say how many inputs they met and what was found.

    python -m fuzz                          # all targets
    python -m fuzz csv npz --runs 200000    # some, longer

libFuzzer changes inputs so that they reach new lines of `divacli` (its modules are instrumented by atheris).
What a target finds is kept as a file under `--findings`, one for each place in the code that it comes from;
`tests/fuzz/cases/TARGET/` is where it becomes an ordinary test. With the same seed and versions the same
inputs are tried. Needs Linux on x86-64: `pip install '.[fuzz]'`.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import importlib
import re
import resource
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

RUNS = {
    "csv": 20_000,
    "tsv": 5_000,
    "jsonl": 20_000,
    "parquet": 5_000,
    "npz": 20_000,
    "store": 20_000,
    "tar": 5_000,
    "images": 5_000,
    "list": 5_000,
    "coco": 5_000,
    "decisions": 5_000,
    "digests": 5_000,
    "record": 5_000,
    "results": 5_000,
    "config": 5_000,
    "checkpoint": 20_000,
}
"""The targets, and how many inputs each gets where `--runs` says nothing."""

SLOW_SECONDS = 60
"""An input that takes longer is a finding, and ends the process that met it."""

MEMORY_MB = 2048
"""What an input may ask for beside what the process holds before the first; more is a finding."""


def main() -> int:
    """Run each target in a process of its own; status 1 where anything was found."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.partition("\n")[0])
    parser.add_argument("targets", nargs="*", choices=[*RUNS, []], metavar="TARGET", help=", ".join(RUNS))
    parser.add_argument("--runs", type=int, help="inputs for each target")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), metavar="DIR")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.here:
        fuzz(options.targets[0], options.runs, options.seed, options.findings)
    found = 0
    print(f"{'target':<12}{'inputs':>10}{'seconds':>9}{'a second':>10}{'findings':>10}")
    for name in options.targets or RUNS:
        found += watched(name, options.runs or RUNS[name], options.seed, options.findings)
    return int(found > 0)


def watched(name: str, runs: int, seed: int, findings: Path) -> int:
    """Fuzz one target in another process; the number of findings."""
    findings.mkdir(parents=True, exist_ok=True)
    before = set(findings.iterdir())
    start = time.monotonic()
    command = [sys.executable, "-m", "fuzz", name, "--here", "--runs", f"{runs}"]
    command += ["--seed", f"{seed}", "--findings", str(findings)]
    with tempfile.TemporaryFile() as log:
        status = subprocess.run(command, stdout=log, stderr=log, check=False).returncode
        log.seek(0)
        text = log.read().decode(errors="replace")
    new = sorted(file for file in {*findings.iterdir()} - before if file.suffix != ".txt")
    done = re.search(r"Done (\d+) runs in (\d+) second", text)
    count, seconds = (int(done[1]), int(done[2])) if done else (0, time.monotonic() - start)
    print(f"{name:<12}{count:>10,}{seconds:>9.0f}{count / max(seconds, 1):>10.0f}{len(new):>10}", flush=True)
    if status or not done:
        print(f"  the process ended with status {status}:")
        print("\n".join(f"  {line}" for line in text.splitlines()[-12:]))
    for file in new:
        print(f"  {file}")
    return len(new) + (not done)


def fuzz(name: str, runs: int, seed: int, findings: Path) -> None:
    """Fuzz one target in this process, which ends then."""
    import atheris

    # Before anything imports them otherwise: only what is imported here tells which lines ran.
    with atheris.instrument_imports(include=["divacli"]):
        for module in _MODULES:
            importlib.import_module(module)
    from fuzz.seeds import seeds
    from fuzz.targets import TARGETS

    target = TARGETS[name]
    places: set[str] = set()
    limited = False

    def one(data: bytes) -> None:
        nonlocal limited
        if not limited:  # only now is all that libFuzzer itself needs mapped
            limited = True
            limit_memory()
        try:
            target(data)
        except (KeyboardInterrupt, SystemExit):
            raise
        except BaseException as error:  # noqa: BLE001  # a Rust panic is no Exception
            place = place_of(error)
            if place not in places:
                places.add(place)
                keep(findings / f"{name}-{hashlib.sha256(data).hexdigest()[:12]}", data, error)

    with tempfile.TemporaryDirectory() as corpus:
        for number, seed_bytes in enumerate(seeds(name)):
            (Path(corpus) / f"{number}").write_bytes(seed_bytes)
        limits = [
            f"-runs={runs}",
            f"-seed={seed}",
            f"-timeout={SLOW_SECONDS}",
            "-max_len=16384",
            "-len_control=0",
        ]
        limits += [
            "-rss_limit_mb=0",
            f"-report_slow_units={SLOW_SECONDS}",
            f"-artifact_prefix={findings}/{name}-",
        ]
        atheris.Setup([name, *limits, "-print_final_stats=1", corpus], one)
        atheris.Fuzz()


_MODULES = (
    "divacli.manifest",
    "divacli.interchange.read",
    "divacli.curate.score_note",
    "divacli.features.samples",
    "divacli.features.digests",
    "divacli.results.read",
    "divacli.cli.app",
    "divacli.backbones.checkpoint",
)


def limit_memory() -> None:
    """Let this process have `MEMORY_MB` beside what it has."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (MEMORY_MB << 20),) * 2)


def place_of(error: BaseException) -> str:
    """What findings are told apart by: the kind of error and the last line of the project that it passed."""
    root = str(Path(__file__).resolve().parents[1])
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if frame.filename.startswith(root)]
    last = frames[-1]
    return f"{type(error).__name__} {last.filename}:{last.lineno}"


def keep(file: Path, data: bytes, error: BaseException) -> None:
    """Write an input that found something, and beside it what."""
    with contextlib.suppress(OSError):
        file.write_bytes(data)
        file.with_suffix(".txt").write_text("".join(traceback.format_exception(error)), errors="replace")


if __name__ == "__main__":
    sys.exit(main())
