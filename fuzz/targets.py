"""What is fuzzed: for each kind of file, the readers that meet its bytes first, and what must hold of them.

A target takes bytes and returns nothing. It may find nothing wrong, or refuse them by an exception that the
reader documents (a `DivaError`, for a YAML file Typer's). Anything else it raises is a finding: another
exception, or an `AssertionError` where a table is not the same after being written and read again.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd

from divacli.errors import DivaError
from divacli.files.formats import TABLE_FORMATS, WRITTEN_FORMATS
from divacli.manifest import Manifest, manifest_of, read_manifest, write_table
from divacli.manifest.tabular import parse, recognise

Target = Callable[[bytes], None]

SEPARATOR = b"\n--8<--\n"
"""Between the files of a target that reads several."""

FOLDER = Path("/nowhere")


def table(format: str) -> Target:
    """A table in one format."""

    def read(data: bytes) -> None:
        assert recognise(data) in TABLE_FORMATS
        require_same_again(manifest_of(parse(data, format, "table"), FOLDER, labels="optional"))

    return refusing(read)


def npz(data: bytes) -> None:
    """An `.npz` file as it is; or, for checksums keep random bytes out, its arrays, packed here."""
    names = ("embedding.npy", "label.npy", "path.npy", "class_name.npy", "own.npy")
    if SEPARATOR in data:
        packed = io.BytesIO()
        parts = data.split(SEPARATOR, len(names))
        with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED if len(parts[0]) % 2 else 0) as archive:
            for name, part in zip(names, parts[1:], strict=False):
                archive.writestr(name, part)
        data = packed.getvalue()
    with scratch() as folder:
        (folder / "x.npz").write_bytes(data)
        read = refusing(_read_npz)
        read(str(folder / "x.npz").encode())


def _read_npz(name: bytes) -> None:
    manifest = read_manifest(name.decode(), labels="optional")
    assert manifest.embeddings is not None
    rows = manifest.embeddings[:]
    assert rows.ndim == 2
    assert len(rows) == len(manifest.table)
    require_same_again(manifest)


def store(data: bytes) -> None:
    """A feature store: `store.json`, one shard (its header as JSON, then its content), the sample table."""
    from divacli.features.samples import read_store

    parts = [*data.split(SEPARATOR, 3), b"", b"", b""][:4]
    with scratch() as folder:
        (folder / "store.json").write_bytes(parts[0])
        shard = len(parts[1]).to_bytes(8, "little") + parts[1] + parts[2]
        (folder / f"shard-{hashlib.sha256(shard).hexdigest()[:32]}.safetensors").write_bytes(shard)
        (folder / "samples.parquet").write_bytes(parts[3])

        @refusing
        def read(data: bytes) -> None:
            samples = read_store(folder, "store")
            assert samples.features[0:4].shape == (min(4, len(samples)), samples.features.shape[1])

        read(data)


def tar(data: bytes) -> None:
    """A tar shard, the checksums of its headers set right: random bytes would never get past them."""
    from divacli.files.tar import members, read_member

    content = bytearray(data)
    for start in range(0, len(content) - 511, 512):
        if content[start + 257 : start + 262] == b"ustar":
            content[start + 148 : start + 156] = b" " * 8
            total = sum(content[start : start + 512])
            content[start + 148 : start + 156] = b"%06o\0 " % total
    with scratch() as folder:
        place = folder / "shard.tar"
        place.write_bytes(content)

        @refusing
        def read(data: bytes) -> None:
            for name in members(str(place)):
                read_member(str(place), name)
            require_same_again(read_manifest(str(place), labels="optional"))

        read(data)


def images(data: bytes) -> None:
    """A Parquet file with images in it, and every row of it."""
    with scratch() as folder:
        place = folder / "x.parquet"
        place.write_bytes(data)

        @refusing
        def read(data: bytes) -> None:
            from divacli.files.path_or_url import read_bytes

            row = refusing(lambda name: read_bytes(name.decode()) and None)
            manifest = read_manifest(str(place), labels="optional")
            for file in manifest.files()[:20] if manifest.kind == "parquet" else []:
                row(file.encode())
            require_same_again(manifest)

        read(data)


def list_file(data: bytes) -> None:
    """A list of paths and labels."""
    from divacli.manifest.list_file import parse_list

    @refusing
    def read(data: bytes) -> None:
        raw = parse_list(data, "list", labels_required=False)
        require_same_again(manifest_of(raw, FOLDER, labels="optional"))

    read(data)


def coco(data: bytes) -> None:
    """JSON: of COCO, or an array."""
    from divacli.manifest.coco import parse_json

    @refusing
    def read(data: bytes) -> None:
        for required in (False, True):
            raw, _ = parse_json(data, "coco", labels_required=required)
            require_same_again(manifest_of(raw, FOLDER, labels="optional"))

    read(data)


@cache
def _samples() -> Manifest:
    paths = ["a/1.png", "a/2.png", "b/1.png", "b/2.png", "é\n=1.png"]
    return manifest_of(pd.DataFrame({"path": paths, "label": list("aabb\u0130")}), FOLDER)


def decisions(data: bytes) -> None:
    """Decisions of every kind, on standard input: a table, cleanlab's issues, Label Studio's JSON."""
    from divacli.interchange.cleanlab import LabelIssues
    from divacli.interchange.read import read_decisions
    from divacli.review.decisions import matched_rows, verdicts_of

    @refusing
    def read(data: bytes) -> None:
        kinds: tuple[LabelIssues, ...] = ("drop", "relabel")
        for label_issues in kinds:
            found = read_decisions(
                "-",
                _samples().classes,
                label_issues=label_issues,
                stdin=io.BytesIO(data),
            )
            assert len(matched_rows(found, _samples())) == len(found.table)
            verdicts = verdicts_of(found, _samples())
            assert len(verdicts.actions) == len(verdicts.labels) == len(_samples().table)

    read(data)


def digests(data: bytes) -> None:
    """The remembered digests of files, under a checksum that is right: damaged ones are no digests."""
    from divacli.features.digests import KnownDigests

    with scratch() as folder:
        files = [str(folder / "a.png"), str(folder / "b.png")]
        for file in files:
            Path(file).touch()
        place = folder / f"{hashlib.sha256(str(folder).encode()).hexdigest()[:32]}.bin"
        place.write_bytes(hashlib.sha256(data).digest() + data)
        known = KnownDigests(files, folder)
        assert known.digests.shape == (2, 32)
        assert not known.digests[~known.found].any()


def record(data: bytes) -> None:
    """The note of a scoring in the cache: one that is no such note counts as none."""
    import torch

    from divacli.curate.score_note import find_record
    from divacli.solve.ridge_problem import SolveOptions

    scored = manifest_of(_samples().table.assign(derivative=0.5, loo_loss=0.25), FOLDER)
    with scratch() as folder:
        (folder / "runs").mkdir()
        (folder / "runs" / f"{_record_name()}.json").write_bytes(data)
        found = find_record(scored, folder, SolveOptions(dtype=torch.float64))
        assert found is None or found.ridge >= 0


@cache
def _record_name() -> str:
    from divacli.curate import score_note as module

    scored = _samples().table.assign(derivative=0.5, loo_loss=0.25)
    return module._place(scored, [], Path()).stem


def results(data: bytes) -> None:
    """A folder of results as `diva report` reads it: a table of scores, a summary, a history."""
    from divacli.results.read import read_results

    parts = [*data.split(SEPARATOR, 2), b"", b""][:3]
    with scratch() as folder:
        for name, part in zip(("scores.csv", "summary.json", "history.jsonl"), parts, strict=True):
            (folder / name).write_bytes(part)
        refusing(lambda _: read_results(folder) and None)(data)


def config(data: bytes) -> None:
    """A file for `--config`, as far as the command line is parsed."""
    import typer
    from typer.main import get_command

    from divacli.cli.app import app

    with scratch() as folder:
        (folder / "x.yaml").write_bytes(data)
        group: Any = get_command(app)
        above = group.make_context("diva", ["score"], resilient_parsing=True)
        refusal = typer.BadParameter.__mro__[2]  # of all wrong usage; Typer has no name for it
        arguments = ["x.npz", "--config", str(folder / "x.yaml")]
        with contextlib.suppress(DivaError, typer.Exit, refusal):
            group.commands["score"].make_context("score", arguments, parent=above)


def checkpoint(data: bytes) -> None:
    """A pickle of weights, by itself and in an archive. It may name anything; nothing is imported for it."""
    from divacli.backbones.checkpoint import read_checkpoint

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("w/data.pkl", data)
        for key in range(3):
            archive.writestr(f"w/data/{key}", bytes(24))
    before = set(sys.modules)
    for content in (data, packed.getvalue()):
        with scratch() as folder:
            (folder / "w.pt").write_bytes(content)
            with contextlib.suppress(DivaError):
                weights = read_checkpoint(folder / "w.pt").weights
                assert all(weight.clone().numel() >= 0 for weight in weights.values())
    new = {name for name in set(sys.modules) - before if not name.startswith(("encodings.", "torch."))}
    assert not new, new


def refusing(read: Callable[[bytes], object]) -> Target:
    """A reader that may refuse what it is given."""

    def target(data: bytes) -> None:
        with contextlib.suppress(DivaError):
            read(data)

    return target


def require_same_again(manifest: Manifest) -> None:
    """A table is the same after being written and read back, and then written the same.

    In one format, which varies from table to table: all of them take three times as long.
    """
    format = WRITTEN_FORMATS[sum(map(len, manifest.table["path"])) % len(WRITTEN_FORMATS)]
    first = written(manifest.table, format)
    again = manifest_of(parse(first, format, "written"), FOLDER, labels="optional")
    for column in ("path", "label", "weight"):
        wanted = manifest.table[column]
        if column == "weight" and format != "parquet":
            wanted = wanted.map(lambda weight: float(f"{weight:.9g}"))
        assert again.table[column].tolist() == wanted.tolist(), (format, column)
    assert written(again.table, format) == first, format


def written(table: pd.DataFrame, format: str) -> bytes:
    """The bytes of a written table."""
    stream = io.BytesIO()
    write_table(table, None, format, stdout=stream)  # type: ignore[arg-type]
    return stream.getvalue()


class scratch:
    """An empty folder in memory, gone afterwards."""

    def __enter__(self) -> Path:
        memory = Path("/dev/shm")
        self.folder = Path(tempfile.mkdtemp(prefix="diva-fuzz-", dir=memory if memory.is_dir() else None))
        return self.folder

    def __exit__(self, *error: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)


TARGETS: dict[str, Target] = {
    **{format: table(format) for format in TABLE_FORMATS},
    "npz": npz,
    "store": store,
    "tar": tar,
    "images": images,
    "list": list_file,
    "coco": coco,
    "decisions": decisions,
    "digests": digests,
    "record": record,
    "results": results,
    "config": config,
    "checkpoint": checkpoint,
}
