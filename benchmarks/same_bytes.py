"""Does every command still write the same bytes? A check for before and after code is moved around.

`python -m benchmarks.same_bytes write FILE.json` runs a fixed list of commands on small data. For each it
notes the exit status and a digest of everything that it wrote. With `--keep FOLDER`, data and outputs stay
there, so that two folders can be compared by eye.

`python -m benchmarks.same_bytes compare A.json B.json` names what differs between two such files. It ends
with status 1 if anything does.

What differs from run to run is taken out first: times, versions, the temporary folder, and digests of files
that hold these. Tables in Parquet are compared by content. The two files must come from the same machine with
the same packages, as other processors round differently. Needs the folder `shared` beside the repository.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tarfile
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.machine import SHARED, require_shared

REPOSITORY = Path(__file__).resolve().parents[1]
PLACEHOLDER = "<folder>"
AT_A_TIME = 2
TIME_LIMIT = 600
"""Seconds that a command may take."""

RUN_DEPENDENT = frozenset({"seconds", "versions", "check"})
"""Keys of JSON objects, and columns of tables, that are not compared. `check` is a digest of what the cache
notes of a run, the place of its features among others."""

NOT_IN_RECORDS = frozenset({"bytes", "sha256"})
"""Keys of `run.json` that describe other files, whose own digests are compared."""

NAMES = {
    "photos": "../shared/data/clothing/train",
    "test": "../shared/data/clothing/test",
    "network": "--model sample_configs/cifar_resnet20.py:resnet20 "
    "--checkpoint ../shared/weights/cifar_resnet20.th --workers 0",
    "few": "--workers 0 --image-size 64",
}
"""What stands for what in the arguments of a command, beside `{out}`, its own folder."""


@dataclass(frozen=True)
class Command:
    """One command line.

    Attributes:
        name: Of the folder with what it writes, below `out`.
        arguments: As in a shell, with the names of `NAMES`. `--out` is added where they have none.
        after: Names of commands whose outputs it reads.
        stdin: Name of a command whose standard output it is given, or of a file.
        only_status: Whether what it writes depends on the machine, so that only the exit status is compared.
    """

    name: str
    arguments: str
    after: tuple[str, ...] = ()
    stdin: str | None = None
    only_status: bool = False


# The slowest ones come first, as far as others do not wait for them.
COMMANDS = (
    Command("demo", "demo"),
    Command("score-folder", "score {photos} {network} --report --by class --by pair"),
    Command("augment-config", "augment --config sample_configs/augment.yaml {few}"),
    Command("train-config", "train --config sample_configs/train.yaml {few} --epochs 1"),
    Command("score-config", "score --config sample_configs/clothing.yaml {few}"),
    Command("prune-config", "prune --config sample_configs/evaluate.yaml {few}"),
    Command("extend-config", "extend --config sample_configs/extend.yaml {few} --report"),
    Command("votes-config", "votes --config sample_configs/votes.yaml {few}"),
    Command("relabel-config", "relabel --config sample_configs/clothing.yaml {few} --workers 1"),
    Command("reweight-config", "reweight --config sample_configs/reweight.yaml {few}"),
    Command("score-linearize", "score --config sample_configs/linearize.yaml {few} --projection 256"),
    Command("score-cifar", "score --config sample_configs/cifar10n.yaml --workers 0"),
    Command("score-embeddings", "score --config sample_configs/embeddings.yaml --verify 5"),
    Command(
        "evaluate-config",
        "evaluate --config sample_configs/evaluate.yaml {few} --manifest out/prune-config/kept.csv",
        after=("prune-config",),
    ),
    Command("score-val", "score {photos} --val {test} {network} --loss cross-entropy --format jsonl"),
    Command(
        "score-around-head",
        "score ../shared/data/cifar10n/labels.csv {network} --linearize full --projection 256 "
        "--around-head --scaling none",
    ),
    Command("score-groups", "score made/tiny.csv {network} --group patient --by annotator --cache-dir cache"),
    Command("score-copies", "score made/tiny {network} --group duplicates --report"),
    Command("score-shards", "score made/tiny.tar {network} --format parquet"),
    Command("score-stdin", "score - {network} --seed 3 --out -", stdin="made/from_main.csv"),
    Command("score-broken", "score made/broken {network}"),
    Command("score-no-data", "score made/nowhere {network}"),
    Command("score-wrong-usage", "score made/train.npz --format xml"),
    Command("score-stdout", "score made/train.npz --out - --dtype float64"),
    Command(
        "score-options",
        "score made/train.npz --ridge 0.1 --scaling standard --validation balanced --loss cross-entropy "
        "--quiet",
    ),
    Command(
        "prune-share",
        "prune out/score-folder/scores.csv --keep 0.9 --stratify --force --by balanced",
        after=("score-folder",),
    ),
    Command(
        "prune-auto",
        "prune out/score-cifar/scores.parquet --keep auto --format parquet",
        after=("score-cifar",),
    ),
    Command("prune-stdin", "prune - --keep 0.9 --out -", stdin="score-stdout"),
    Command("prune-npz", "prune made/train.npz --keep 0.8 --by coverage --force --report"),
    Command(
        "relabel-scores",
        "relabel out/score-folder/scores.csv --decide balanced --force",
        after=("score-folder",),
    ),
    Command("relabel-stdin", "relabel - --threshold 0.9 --budget 5 --out -", stdin="score-stdout"),
    Command("relabel-npz", "relabel made/finetuned.npz --format jsonl --report"),
    Command("votes-annotators", "votes made/votes.csv {network} --budget 10 --format jsonl"),
    Command("apply-copy", "apply {photos} made/decisions.csv --materialize copy"),
    Command("export-cleanlab", "export out/score-folder/scores.csv --to cleanlab", after=("score-folder",)),
    Command(
        "apply-issues",
        "apply out/score-folder/scores.csv out/export-cleanlab/cleanlab.csv --label-issues relabel --out -",
        after=("export-cleanlab", "score-folder"),
    ),
    Command(
        "export-label-studio",
        "export out/score-folder/scores.csv --to label-studio --limit 20",
        after=("score-folder",),
    ),
    Command("export-fiftyone", "export - --to fiftyone", stdin="score-stdin"),
    Command(
        "report",
        "report out/score-options --limit 10 --out {out}/page.html",
        after=("score-options",),
    ),
    Command("plot-all", "plot out/score-folder", after=("score-folder",)),
    Command(
        "plot-two",
        "plot out/score-cifar --kind histogram --kind classes --format pdf",
        after=("score-cifar",),
    ),
    Command("reweight-groups", "reweight made/train.npz --group group --per group --format parquet --report"),
    Command("extend-unlabelled", "extend made/train.npz --pool made/unlabelled.npz --budget 25%"),
    Command("aggregate", "aggregate made/images.npz --pool made/texts.npz --report"),
    Command(
        "evaluate-finetune",
        "evaluate made/tiny.csv --test made/tiny_test {network} --learner finetune "
        "--learner ridge --epochs 1 --seeds 1 --curve add --pool made/tiny_pool --fractions 0.5,1",
    ),
    # It finds the features that the other one has left.
    Command("embed", "embed made/tiny.csv {network} --cache-dir cache", after=("score-groups",)),
    Command("score-store", "score out/embed --quiet", after=("embed",)),
    Command("inspect", "inspect made/tiny.csv"),
    Command("doctor", "doctor --json", only_status=True),
)


def make_data(folder: Path) -> None:
    """Lay out small data as the sample configurations expect it, and further data that is made.

    Args:
        folder: For `shared`, with parts of the real data, and `main`, where the commands run.
    """
    main, data = folder / "main", SHARED / "data"
    shutil.copytree(REPOSITORY / "sample_configs", main / "sample_configs", ignore=no_caches)
    shutil.copytree(SHARED / "weights", folder / "shared" / "weights")
    for part, count in (("train", 12), ("test", 5)):
        for photo in first_of_each_class(data / "clothing" / part, count):
            copy(photo, folder / "shared" / photo.relative_to(SHARED))
    copy_cifar(data / "cifar10n", folder / "shared" / "data" / "cifar10n", 160)
    (main / "made").mkdir()
    make_embeddings(main / "made", folder / "shared" / "data" / "clip_caltech256")
    make_images(main / "made")
    photos = first_of_each_class(folder / "shared" / "data" / "clothing" / "train", 1)
    decisions = pd.DataFrame({"path": [os.path.relpath(photo, main / "made") for photo in photos[:4]]})
    decisions["decision"] = ["drop", "relabel", "keep", "drop"]
    decisions["label"] = ["", "shirt", "", ""]
    decisions.to_csv(main / "made" / "decisions.csv", index=False)


def no_caches(_: str, names: list[str]) -> list[str]:
    """What is not copied of a folder of code."""
    return [name for name in names if name == "__pycache__"]


def first_of_each_class(folder: Path, count: int) -> list[Path]:
    """The first images of every sub-folder, by name."""
    classes = sorted(one for one in folder.iterdir() if one.is_dir())
    return [photo for one in classes for photo in sorted(one.iterdir())[:count]]


def copy(source: Path, target: Path) -> None:
    """Copy the content of a file, not its permissions, into a folder that may have to be made."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def copy_cifar(source: Path, target: Path, count: int) -> None:
    """Copy the first images of CIFAR-10N, with their labels and votes."""
    labels = pd.read_csv(source / "labels.csv").head(count)
    for path in labels["path"]:
        copy(source / path, target / path)
    votes = pd.read_csv(source / "votes.csv")
    labels.to_csv(target / "labels.csv", index=False)
    votes[votes["path"].isin(labels["path"])].to_csv(target / "votes.csv", index=False)


def make_embeddings(made: Path, caltech: Path) -> None:
    """Write `.npz` files: parts of real embeddings, and some that are drawn.

    Args:
        made: For what is made.
        caltech: Where the sample configuration expects images of Caltech-256.
    """
    source = SHARED / "data" / "clip_caltech256"
    images, texts = np.load(source / "images.npz"), np.load(source / "texts.npz")
    known = texts["matched_caltech_label"][:12]
    rows = np.concatenate([np.flatnonzero(images["label"] == label)[:15] for label in known])
    caltech.mkdir(parents=True)
    parts = {"embedding": images["embedding"][rows], "label": images["label"][rows]}
    np.savez(caltech / "images.npz", **parts, class_name=images["class_name"])
    np.savez(made / "images.npz", embedding=parts["embedding"], label=parts["label"])
    named = texts["matched_imagenet_index"][:12]
    both = np.concatenate([texts["embedding_prompt_a"][named], texts["embedding_prompt_b"][named]])
    # The last label of each prompt is that of the first class, which is wrong.
    np.savez(made / "texts.npz", embedding=both, label=np.tile([*known[:-1], known[0]], 2))

    finetuned = np.load(SHARED / "data" / "finetuned" / "clothing-flipped20.npz")
    thin = slice(None, None, 15)
    columns = {name: finetuned[name][thin] for name in ("label", "true_label")}
    np.savez(made / "finetuned.npz", embedding=finetuned["embedding"][thin], **columns)

    generator = np.random.default_rng(0)
    centres = 2.0 * generator.normal(size=(4, 16))
    labels = generator.integers(4, size=200)
    embedding = (centres[labels] + generator.normal(size=(200, 16))).astype(np.float32)
    embedding[7] = np.nan
    given = np.where(generator.random(200) < 0.1, (labels + 1) % 4, labels)
    groups = np.arange(200) // 4
    np.savez(made / "train.npz", embedding=embedding, label=given, true_label=labels, group=groups)
    pool = (centres[labels] + generator.normal(size=(200, 16))).astype(np.float32)
    np.savez(made / "unlabelled.npz", embedding=pool)


def make_images(made: Path) -> None:
    """Draw noisy images in three colours, as folders, a table, votes and a shard; some are broken."""
    generator = np.random.default_rng(1)
    colours = {"blue": (60, 60, 190), "green": (60, 190, 60), "red": (190, 60, 60)}
    for folder, count in (("tiny", 12), ("tiny_test", 5), ("tiny_pool", 6), ("broken", 4)):
        for label, colour in colours.items():
            (made / folder / label).mkdir(parents=True)
            for number in range(count):
                noise = generator.normal(scale=150, size=(32, 32, 3))
                pixels = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(made / folder / label / f"{number:02}.png")
    shutil.copyfile(made / "tiny" / "red" / "03.png", made / "tiny" / "blue" / "copy.png")
    (made / "broken" / "red" / "00.png").write_text("not an image")

    files = sorted((made / "tiny").rglob("*.png"))
    table = pd.DataFrame({"path": [str(file.relative_to(made.parent)) for file in files]})
    table["true_label"] = [file.parent.name for file in files]
    table["label"] = ["red" if number % 9 == 0 else label for number, label in enumerate(table["true_label"])]
    table["patient"] = [f"p{number // 3}" for number in range(len(files))]
    table["annotator"] = [("ann", "bob", "cid")[number % 3] for number in range(len(files))]
    # Paths in a table on standard input start from where the command runs, those of a file from its folder.
    table.to_csv(made / "from_main.csv", index=False)
    table["path"] = [str(file.relative_to(made)) for file in files]
    table.to_csv(made / "tiny.csv", index=False)

    votes = pd.concat([table.assign(annotator=name) for name in ("ann", "bob", "cid")], ignore_index=True)
    wrong = generator.random(len(votes)) < 0.2
    votes["label"] = votes["true_label"].mask(wrong, "green")
    votes[["path", "label", "annotator"]].to_csv(made / "votes.csv", index=False)

    with tarfile.open(made / "tiny.tar", "w") as shard:
        for number, file in enumerate(files):
            class_file = made / "label.cls"
            class_file.write_text(str(sorted(colours).index(file.parent.name)))
            shard.add(file, f"{number:04}.png", filter=without_time)
            shard.add(class_file, f"{number:04}.cls", filter=without_time)
            class_file.unlink()


def without_time(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """A member of a shard as if it had been written long ago, whenever that was."""
    member.mtime = 0
    return member


def environment(home: Path) -> dict[str, str]:
    """What a command finds around it: one thread, no GPU, this home, and the code of this checkout."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DIVA_")}
    return kept | {
        "HOME": str(home),
        "XDG_CACHE_HOME": str(home / "cache"),
        "XDG_CONFIG_HOME": str(home / "config"),
        "MPLCONFIGDIR": str(home / "matplotlib"),
        "PYTHONPATH": str(REPOSITORY),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
        "COLUMNS": "100",
        "NO_COLOR": "1",
    }


def arguments_of(command: Command) -> list[str]:
    """The arguments as the program is given them."""
    out = f"out/{command.name}"
    arguments = shlex.split(command.arguments.format(out=out, **NAMES))
    if "--out" in arguments or command.only_status:
        return arguments
    return [*arguments, "--out", out]


def home_of(command: Command) -> str:
    """The name of a command's home: that of the command whose results it reads, so that it finds features."""
    names = {one.name: one for one in COMMANDS}
    for earlier in (*command.after, command.stdin):
        if earlier in names:
            return home_of(names[earlier])
    return command.name


def run(command: Command, folder: Path) -> dict[str, Any]:
    """Run a command, and note what came of it.

    Args:
        command: What to run.
        folder: That `make_data` filled.

    Returns:
        The arguments, the exit status, and a digest of each file and of what was said.
    """
    main = folder / "main"
    out, said, home = main / "out" / command.name, folder / "said", folder / "homes" / home_of(command)
    out.mkdir(parents=True)
    said.mkdir(exist_ok=True)
    home.mkdir(parents=True, exist_ok=True)
    arguments = arguments_of(command)
    stdin = Path(os.devnull)
    if command.stdin is not None:
        earlier = said / f"{command.stdin}.stdout"
        stdin = earlier if earlier.is_file() else main / command.stdin
    streams = [said / f"{command.name}.{name}" for name in ("stdout", "stderr")]
    start = time.monotonic()
    with stdin.open("rb") as given, streams[0].open("wb") as stdout, streams[1].open("wb") as stderr:
        done = subprocess.run(
            [sys.executable, "-m", "divacli", *arguments],
            cwd=main,
            env=environment(home),
            stdin=given,
            stdout=stdout,
            stderr=stderr,
            timeout=TIME_LIMIT,
        )
    print(f"{command.name}: status {done.returncode}, {time.monotonic() - start:.1f} s", flush=True)
    noted: dict[str, Any] = {"arguments": arguments, "status": done.returncode, "files": {}}
    if not command.only_status:
        noted["files"] = {name: digest_of(file, folder) for name, file in files_in(out).items()}
        for stream in streams:
            text = said_without_times(stream.read_bytes().decode(errors="replace"))
            noted[stream.suffix[1:]] = sha256(without_folder(text, folder).encode())
    return noted


def run_all(commands: tuple[Command, ...], folder: Path) -> dict[str, Any]:
    """Run commands, a few at a time, each after those that it reads the outputs of.

    Args:
        commands: Each of them stands after those that it needs.
        folder: That `make_data` filled.

    Returns:
        What `run` says of each, by its name.
    """
    started: dict[str, Future[dict[str, Any]]] = {}

    def when_ready(command: Command) -> dict[str, Any]:
        for name in (*command.after, command.stdin):
            if name in started:
                started[name].result()
        return run(command, folder)

    with ThreadPoolExecutor(AT_A_TIME) as pool:
        for command in commands:
            started[command.name] = pool.submit(when_ready, command)
        return {name: future.result() for name, future in started.items()}


def files_in(folder: Path) -> dict[str, Path]:
    """All files by their name from the folder, sorted, but for the lock."""
    files = [file for file in folder.rglob("*") if file.is_file() and file.name != ".diva.lock"]
    return {file.relative_to(folder).as_posix(): file for file in sorted(files)}


def sha256(content: bytes) -> str:
    """The digest of bytes, as text."""
    return hashlib.sha256(content).hexdigest()


def digest_of(file: Path, folder: Path) -> str:
    """The digest of a file without what differs from run to run.

    Args:
        file: Whose kind is told by its ending.
        folder: Whose place may differ.
    """
    if file.suffix == ".parquet":
        text = pd.read_parquet(file).drop(columns=list(RUN_DEPENDENT), errors="ignore").to_csv(index=False)
    elif file.name == "checkpoint.pt":
        text = json.dumps(without_keys(torch.load(file, weights_only=True), RUN_DEPENDENT))
    elif file.suffix in {".csv", ".jsonl", ".json", ".html", ".svg", ".yaml", ".xml", ".py"}:
        text = comparable(file.name, file.read_bytes().decode())
    else:
        return sha256(file.read_bytes())
    return sha256(without_folder(text, folder).encode())


def comparable(name: str, text: str) -> str:
    """The text of a file without times, versions and digests of other files.

    Args:
        name: Of the file.
        text: What it holds.
    """
    if name.endswith(".json"):
        left_out = RUN_DEPENDENT | (NOT_IN_RECORDS if name == "run.json" else frozenset())
        return json.dumps(without_keys(json.loads(text), left_out), indent=1)
    if name.endswith(".csv"):
        return without_columns(text)
    if name.endswith(".html"):
        # A page's decisions are remembered under a digest of, among others, where its scores lie.
        return re.sub(r'"key": ?"[0-9a-f]{64}"', '"key":""', said_without_times(text))
    return text


def without_keys(value: Any, left_out: frozenset[str]) -> Any:
    """A value as JSON has it, without these keys at any depth; a tensor becomes its digest."""
    if isinstance(value, dict):
        return {name: without_keys(one, left_out) for name, one in value.items() if name not in left_out}
    if isinstance(value, list | tuple):
        return [without_keys(one, left_out) for one in value]
    if isinstance(value, torch.Tensor):
        return [str(value.dtype), list(value.shape), sha256(value.contiguous().numpy().tobytes())]
    return value


def without_columns(text: str) -> str:
    """A CSV table without the columns that differ from run to run; as it is where it has none of them."""
    if not RUN_DEPENDENT & set(text.partition("\n")[0].strip().split(",")):
        return text
    table = pd.read_csv(StringIO(text), dtype=str, keep_default_na=False)
    return table.drop(columns=list(RUN_DEPENDENT), errors="ignore").to_csv(index=False)


def said_without_times(text: str) -> str:
    """What a command says, or a page, with `#` in place of each number of seconds."""
    return re.sub(r"\b\d+(\.\d+)?( s\b| seconds?\b)", r"#\2", text)


def without_folder(text: str, folder: Path) -> str:
    """The text with a placeholder for the place of the temporary folder and of this checkout."""
    return text.replace(str(folder), PLACEHOLDER).replace(str(REPOSITORY), "<repository>")


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What two notes of commands differ in, a line each.

    Args:
        before: What `run_all` returned.
        after: The same of another run.
    """
    lines = []
    for name in sorted(before.keys() | after.keys()):
        if name not in before or name not in after:
            lines.append(f"{name}: only in the {'second' if name in after else 'first'} file")
            continue
        one, other = before[name], after[name]
        if one["arguments"] != other["arguments"]:
            lines.append(f"{name}: other arguments")
        if one["status"] != other["status"]:
            lines.append(f"{name}: status {one['status']}, then {other['status']}")
        for stream in ("stdout", "stderr"):
            if one.get(stream) != other.get(stream):
                lines.append(f"{name}: {stream} differs")
        for file in sorted(one["files"].keys() | other["files"].keys()):
            if file not in other["files"]:
                lines.append(f"{name}: {file} is missing in the second file")
            elif file not in one["files"]:
                lines.append(f"{name}: {file} is new in the second file")
            elif one["files"][file] != other["files"][file]:
                lines.append(f"{name}: {file} differs")
    return lines


def write(target: Path, keep: Path | None) -> None:
    """Run all commands and write what is noted of them.

    Args:
        target: The JSON file.
        keep: An empty or new folder that data and outputs stay in; None for a temporary one.
    """
    require_shared()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        if any(keep.iterdir()):
            sys.exit(f"{keep} is not empty: name a new folder")
    start = time.monotonic()
    with TemporaryDirectory(prefix="same-bytes-") if keep is None else nullcontext(keep) as name:
        folder = Path(name).resolve()
        make_data(folder)
        noted = run_all(COMMANDS, folder)
    target.write_text(json.dumps(noted, indent=1) + "\n")
    n_files = sum(len(one["files"]) for one in noted.values())
    print(f"{len(noted)} commands, {n_files} files, {time.monotonic() - start:.0f} s: wrote {target}")


def compare(first: Path, second: Path) -> int:
    """Print what two files of `write` differ in.

    Args:
        first: Of before.
        second: Of after.

    Returns:
        The exit status: 1 if anything differs.
    """
    lines = differences(json.loads(first.read_text()), json.loads(second.read_text()))
    print("\n".join(lines) if lines else "no difference")
    return 1 if lines else 0


def main() -> int:
    """Write a file, or compare two."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    modes = parser.add_subparsers(dest="mode", required=True)
    writing = modes.add_parser("write", help="run all commands and note what they write")
    writing.add_argument("file", type=Path, help="the JSON file to write")
    writing.add_argument("--keep", type=Path, help="a new folder that data and outputs stay in")
    comparing = modes.add_parser("compare", help="name what differs between two files")
    comparing.add_argument("first", type=Path)
    comparing.add_argument("second", type=Path)
    options = parser.parse_args()
    if options.mode == "write":
        write(options.file, options.keep)
        return 0
    return compare(options.first, options.second)


if __name__ == "__main__":
    sys.exit(main())
