"""Parquet files with images as the package `datasets` writes them, made without it."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def png(number: int, side: int = 16) -> bytes:
    """The bytes of an image that no other number has."""
    stream = io.BytesIO()
    pixels = np.random.default_rng(number).integers(0, 255, (side, side, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


def images(contents: Sequence[bytes | None], paths: Sequence[str | None] | None = None) -> pa.Array:
    """A column of images as the Hub holds them."""
    rows = zip(contents, paths or [None] * len(contents), strict=True)
    return pa.array([{"bytes": content, "path": path} for content, path in rows], IMAGE)


def write_hub(
    file: Path,
    columns: Mapping[str, Any],
    names: Mapping[str, Sequence[str]] | None = None,
    *,
    rows: int = 100,
    kinds: Mapping[str, str] | None = None,
) -> Path:
    """Write a file as `Dataset.to_parquet` does.

    Args:
        file: Where.
        columns: Arrays or lists by name.
        names: Names of the classes, by column of labels.
        rows: In a group.
        kinds: What the Hub calls a column, by its name; columns of structs are images by default.
    """
    table = pa.table(
        {name: pa.array(values) if isinstance(values, list) else values for name, values in columns.items()}
    )
    features: dict[str, Any] = {}
    for field in table.schema:
        if names and field.name in names:
            features[field.name] = {"names": list(names[field.name]), "_type": "ClassLabel"}
        elif (kinds or {}).get(field.name) or field.type == IMAGE:
            features[field.name] = {"_type": (kinds or {}).get(field.name, "Image")}
        else:
            features[field.name] = {"dtype": str(field.type), "_type": "Value"}
    about = {b"huggingface": json.dumps({"info": {"features": features}}).encode()}
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata(about), file, row_group_size=rows)
    return file
