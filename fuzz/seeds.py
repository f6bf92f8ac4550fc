"""Where fuzzing begins: small whole files of each kind, made here."""

from __future__ import annotations

import io
import json
import os
import pickle
import tarfile
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from divacli.files.formats import TABLE_FORMATS
from fuzz.targets import SEPARATOR, written

_TABLE = pd.DataFrame(
    {
        "path": ["a/1.png", "a,2.png", "=b\n1.png", "./-é.png"],
        "label": ["a", "a", "'=b", "\u0130\ufeff"],
        "weight": [1.0, 0.5, 0.0, 1e-300],
        "rank": pd.array([1, None, 3, 4], "Int64"),
        "derivative": [0.1, np.nan, -1e30, 2.0],
        "loo_loss": 0.5,
        "group": ["g", "", "g", "h"],
        "feature_source": ["", "x.npz", "s3://bucket/x.npz", ""],
        "own": [True, None, 1, "x"],
    }
)


@cache
def seeds(target: str) -> list[bytes]:
    """Whole files, and damaged ones that take other ways through the reader; the same at every call."""
    if target in TABLE_FORMATS:
        return _tables(target)
    made = {
        "npz": _npz,
        "store": _store,
        "tar": _tar,
        "images": _images,
        "list": _lists,
        "coco": _coco,
        "decisions": _decisions,
        "digests": _digests,
        "record": _record,
        "results": _results,
        "config": _config,
        "checkpoint": _checkpoints,
    }
    return made[target]()


def _tables(format: str) -> list[bytes]:
    table = _TABLE.astype({"own": "str"}) if format == "parquet" else _TABLE
    plain = table[["path", "label"]]
    if format == "tsv":
        rows = ["path\tlabel\tweight", "a\tb\t1", '"c\td"\t"e""f"\t1e5', "", "g\u2028\ti\t0"]
        return ["\n".join(rows).encode(), b"\xef\xbb\xbf" + "\r\n".join(rows).encode()]
    made = [written(table, format), written(plain, format), written(table.iloc[:0], format)]
    if format == "parquet":
        nested = pd.DataFrame({"path": ["a", "b"], "label": [1, 2], "own": [[1], [2, 3]]})
        when = pd.DataFrame(
            {"path": ["a", "b"], "label": [1.5, None], "own": pd.to_datetime(["2020", "NaT"])}
        )
        kinds = pd.DataFrame({"path": pd.Categorical(["a", "b"]), "label": [b"x", b"y"]})
        return [*made, *(written(frame, format) for frame in (nested, when, kinds))]
    return [*made, b"\xef\xbb\xbf" + made[0], made[0].replace(b"\n", b"\r\n")]


def _images() -> list[bytes]:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": b"\x89PNG\r\n1", "path": "1.png"}, {"bytes": b"2", "path": None}, None]
    table = pa.table({"image": pa.array(rows, kind), "label": [0, 1, -1], "own": ["a", None, "é"]})
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["a", "b"]}}
    about = {"huggingface": json.dumps({"info": {"features": features}})}
    bare = pa.table({"x": [b"\xff\xd8\xff1", b"2"], "label": ["a", "b"]})
    made = []
    for one in (table, table.replace_schema_metadata(about), bare):
        stream = io.BytesIO()
        pq.write_table(one, stream, row_group_size=2, write_page_checksum=True)
        made.append(stream.getvalue())
    return made


def _lists() -> list[bytes]:
    return [
        b"path label\na b.jpg 0\nc.jpg 1\n",
        "\ufeff# x\r\né.JPEG\tgolden retriever\r\nb.png\tx".encode(),
        b"a.jpg,cat\nb, c.jpg,dog",
        b"i1 -1\ni2 1",
        b"a.jpg\nb.jpg",
        b"a.jpg 1 2",
    ]


def _coco() -> list[bytes]:
    images = [{"id": 1, "file_name": "a.jpg", "width": 3, "x": [1]}, {"id": "2", "file_name": "b.jpg"}]
    labels = [{"image_id": 1, "category_id": 7}, {"image_id": 2, "category_id": 8.0}]
    names = [{"id": 7, "name": "cat"}, {"id": 8, "name": "dog"}]
    made = [
        {"images": images, "annotations": labels, "categories": names},
        {"images": images, "annotations": labels[:1], "categories": names},
        {"images": images},
        [{"path": "a.jpg", "label": "cat", "n": 1}, {"path": "b.jpg", "label": None}],
        {"a": 1},
    ]
    return [json.dumps(one).encode() for one in made]


def _npy(array: np.ndarray, version: tuple[int, int] | None = None) -> bytes:
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, version=version)
    return stream.getvalue()


def _npz() -> list[bytes]:
    rows = np.arange(8, dtype=np.float32).reshape(4, 2)
    sets: list[dict[str, np.ndarray]] = [
        {"embedding": rows, "label": np.array([0, 0, 1, 1])},
        {"embedding": np.asfortranarray(rows), "label": np.array(["a", "b", "é", "a"]), "own": np.ones(4)},
        {
            "embedding": rows.astype(">f8"),
            "label": np.array([0, 1, 1, 0], np.uint8),
            "path": np.array([b"p", b"q", b"r", b"s"]),
            "class_name": np.array(["cat", "dog"]),
            "weight": np.ones(4, np.float16),
        },
    ]
    made = []
    for arrays in sets:
        for save in (np.savez, np.savez_compressed):
            stream = io.BytesIO()
            save(stream, **arrays)  # type: ignore[arg-type]  # of which none is called allow_pickle
            made.append(stream.getvalue())
        order = ("embedding", "label", "path", "class_name")
        ordered = [_npy(arrays[name]) for name in order if name in arrays]
        made += [SEPARATOR.join([start, *ordered]) for start in (b"", b"x")]
    made.append(SEPARATOR.join([b"", _npy(rows, (2, 0)), _npy(np.array(["a", "b", "a", "b"]), (3, 0))]))
    return made


def _store() -> list[bytes]:
    from divacli.features.store import FeatureStore

    keys = np.arange(96, dtype=np.uint8).reshape(3, 32)
    table = pd.DataFrame({"path": ["1.png", "2.png", "3.png"], "label": ["a", "b", "b"]})
    table["image_sha256"] = [key.tobytes().hex() for key in keys]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        opened = FeatureStore.create(folder, {"network": "net"}, 2)
        opened.append(keys, np.arange(6, dtype=np.float32).reshape(3, 2))
        about = (folder / "store.json").read_bytes()
        shard = next(folder.glob("shard-*")).read_bytes()
    start = 8 + int.from_bytes(shard[:8], "little")
    samples = written(table, "parquet")
    other = json.dumps({"format": 2, "n_features": 2, "identity": {}}).encode()
    return [
        SEPARATOR.join([about, shard[8:start], shard[start:], samples]),
        SEPARATOR.join([other, shard[8:start], shard[start:], samples]),
        SEPARATOR.join([about, shard[8:start], shard[start:]]),
    ]


def _tar() -> list[bytes]:
    made = []
    for format in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        stream = io.BytesIO()
        with tarfile.open(fileobj=stream, mode="w", format=format) as archive:
            for name, content in (
                ("1.png", b"x"),
                ("1.cls", b"3"),
                ("d/é.2.jpg", b"y"),
                ("d/é.json", b'{"label": "cat"}'),
                ("long/" * 24 + "3.png", b""),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
            link = tarfile.TarInfo("link")
            link.type, link.linkname = tarfile.SYMTYPE, "1.png"
            archive.addfile(link)
        made.append(stream.getvalue()[:9728])
    return [*made, made[0][:-600], b"\x1f\x8b" + made[0]]


def _decisions() -> list[bytes]:
    task = {
        "id": 1,
        "data": {"path": "/nowhere/a/1.png", "given_label": "a"},
        "annotations": [
            {
                "was_cancelled": False,
                "result": [{"from_name": "label", "type": "choices", "value": {"choices": ["b"]}}],
            }
        ],
    }
    return [
        b"path,decision,label,given_label\na/1.png,relabel,b,a\na/2.png,Drop,,\nb/1.png,keep,b,b\nb/2.png,,,\n",
        b"path;decision\r\na/1.png;keep\r\n",
        b"path,is_label_issue,given_label,predicted_label\na/1.png,True,a,b\na/2.png,0,a,\n",
        b'{"path": "a/1.png", "decision": "drop"}\n{"path": "b/1.png", "decision": "keep", "label": 1}\n',
        json.dumps([task, {**task, "annotations": []}]).encode(),
        b"path\tis_label_issue\nb/2.png\t1.0\n",
    ]


def _digests() -> list[bytes]:
    return [b"", bytes(range(80)), bytes(160)]


def _record() -> list[bytes]:
    content = {"store": None, "ridge": 0.5, "inverse_temperature": 1.5, "loss": "cross-entropy"}
    content |= {"scaling": "unit", "around_head": False, "group": None, "balanced": False}
    return [json.dumps(content).encode(), json.dumps({**content, "inverse_temperature": None}).encode()]


def _results() -> list[bytes]:
    scores = written(_TABLE, "csv")
    summary = b'{"n_samples": 4, "ridge": 0.5, "ridge_path": {"ridge": [1]}, "seconds": {"total": 1}}'
    return [
        SEPARATOR.join([scores, summary, b'{"batch": 0, "loss": 0.5}\n']),
        SEPARATOR.join([scores, b"{}"]),
        SEPARATOR.join([b"", summary]),
    ]


def _config() -> list[bytes]:
    return [
        b"model: net.py:make\nbatch-size: 32\nridge: auto\nscore:\n  verify: 3\n  by: [class, pair]\n",
        b"quiet: true\nseed: 1e3\nloss: squared\nout: '-'\nformat: jsonl\n",
        b"data: &a x.npz\nval: *a\n? [1, 2]\n: {a: !!python/object:os.system x}\n",
        b"prune:\n  keep: 0.9\nembed:\n",
    ]


class _Named:
    """Is pickled with all that an object can have: keywords, state, elements and entries."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.getcwd, (), {"a": 1}, iter([1, 2]), iter([("b", 2), ("c", 3)])


def _checkpoints() -> list[bytes]:
    import torch
    from torch import nn

    base = torch.arange(6.0)
    weights = {"w": base.reshape(2, 3), "b": base[1:3], "h": torch.ones(3).half(), "n": np.ones(2, "f4")}
    network = nn.Sequential(nn.Linear(2, 1), nn.BatchNorm1d(1))
    others = {
        "x": {1, 1.5, None},
        "y": (1 << 70, b"a", "\u20ac", frozenset([1])),
        "z": np.float64(1),
        "o": _Named(),
    }
    contents: list[Any] = [weights, {"state_dict": weights, **others}, network, {"ema": network, "epoch": 3}]
    made = [pickle.dumps(content, protocol) for content in contents for protocol in (0, 2, 4, 5)]
    for content in contents:
        for zipped in (False, True):
            stream = io.BytesIO()
            torch.save(content, stream, _use_new_zipfile_serialization=zipped)
            made.append(stream.getvalue())
            if zipped:
                with zipfile.ZipFile(stream) as archive:
                    made.append(archive.read("archive/data.pkl"))
    return [*made, b"\x80\x02(K\x01ios\ngetcwd\n.", b"\x80\x02\x82\x05)R.", b"\x80\x02}q\x00h\x00h\x00s."]
