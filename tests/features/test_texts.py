"""Texts meet their own labels and embeddings, are embedded once, and never mix with another model's."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from divacli.backbones.hub.clip import TextEncoder, load_text_encoder
from divacli.errors import DataError, ModelError, StoreError
from divacli.features import BackboneChoice, ExtractOptions, Samples, load_samples
from divacli.features.feature_identity import require_same_space
from divacli.features.texts import embed_texts, is_text_table, read_texts, text_samples
from divacli.manifest import write_table

TEXTS = [
    "a cat",
    "cat",
    "a dog, a cat",
    "z",
    "7 cats!",
    "no dog",
    *(f"photo {number}" for number in range(20)),
]


@pytest.fixture
def encoder(clip_folder: Path) -> TextEncoder:
    return load_text_encoder(f"clip:{clip_folder}")


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    """Write a file and return its path."""

    def file(content: str, name: str = "texts.csv") -> str:
        (tmp_path / name).write_text(content)
        return str(tmp_path / name)

    return file


@pytest.fixture
def table(write: Callable[..., str]) -> str:
    """Every text with one of two labels, and the first with both."""
    rows = [f'"{text}",{"ab"[number % 2]}' for number, text in enumerate(TEXTS)]
    return write("\n".join(["text,label", *rows, '"a cat",b']))


@pytest.fixture
def load(encoder: TextEncoder, options: ExtractOptions, cache: Path) -> Callable[..., Samples]:
    """Embed a table of texts with the tiny model and one cache, unless told otherwise."""
    return lambda data, **other: text_samples(
        read_texts(data), **{"encoder": encoder, "options": options, "cache": cache, **other}
    )


# Tables


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "parquet"])
def test_table_of_texts(tmp_path: Path, suffix: str) -> None:
    rows = pd.DataFrame(
        {"label": ["x", "y"], "text": ["a cat, grey", "a/b"], "weight": [2.0, 0.5], "own": ["p", "q"]}
    )
    file = tmp_path / f"texts.{suffix}"
    if suffix == "tsv":
        rows.to_csv(file, sep="\t", index=False)
    else:
        write_table(rows, file, suffix)  # type: ignore[arg-type]
    assert is_text_table(str(file))
    manifest = read_texts(str(file))
    assert manifest.table[["path", "text", "label", "weight", "own"]].to_numpy().tolist() == [
        ["a cat, grey", "a cat, grey", "x", 2.0, "p"],
        ["a/b", "a/b", "y", 0.5, "q"],
    ]
    assert manifest.name == str(file)


def test_weight_is_1_where_not_given(write: Callable[..., str]) -> None:
    assert read_texts(write("text,label\ncat,x\ndog,y\n")).table["weight"].tolist() == [1, 1]


def test_a_text_with_two_labels_has_two_names(write: Callable[..., str]) -> None:
    manifest = read_texts(write("text,label\nseal,animal\ncat,animal\nseal,stamp\n"))
    assert manifest.table["path"].tolist() == ["seal [animal]", "cat", "seal [stamp]"]
    assert manifest.table["text"].tolist() == ["seal", "cat", "seal"]


def test_one_label_is_enough(write: Callable[..., str]) -> None:
    assert read_texts(write("text,label\ncat,x\n")).classes == ["x"]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("text,path,label\ncat,c.png,x\n", r"no table of texts; its columns are: text, path, label"),
        ("words,label\ncat,x\n", r"no table of texts; its columns are: words, label"),
        ("text,other\ncat,x\n", "has no labels"),
        ("text,label\ncat,\n", "has no labels"),
        ("text,label\ncat,x\ndog,\n", "1 of 2 rows have no label"),
        ("text,label\ncat,x\n  ,y\n,z\n", "text is empty in data rows 2, 3"),
        ("text,label\ncat,x\ndog,x\ncat,x\n", r"more than once, again in data row 3: cat"),
        ("text,label,weight\ncat,x,-1\n", "weight is empty, negative"),
        ("text,text,label\ncat,dog,x\n", "more than one column named text"),
        ("text,label\n", "a header and no rows"),
        ("", "is empty"),
    ],
)
def test_tables_that_are_refused(write: Callable[..., str], content: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        read_texts(write(content))


def test_text_that_is_none(write: Callable[..., str]) -> None:
    file = write('{"text": "cat", "label": "x"}\n{"text": ["dog"], "label": "y"}\n', "texts.jsonl")
    with pytest.raises(DataError, match="text is empty in data row 2"):
        read_texts(file)


@pytest.mark.parametrize("name", ["gone.csv", "gone", "photos"])
def test_what_is_no_table(tmp_path: Path, name: str) -> None:
    (tmp_path / "photos").mkdir()
    assert not is_text_table(str(tmp_path / name))
    with pytest.raises(DataError, match=r"no table of texts|cannot be read"):
        read_texts(str(tmp_path / name))


@pytest.mark.parametrize(
    "content", ["path,label\nc.png,x\n", "text,path,label\ncat,c.png,x\n", "a,b\n1\n", "", "\n"]
)
def test_what_is_no_table_of_texts(write: Callable[..., str], content: str) -> None:
    assert not is_text_table(write(content))


@pytest.mark.parametrize("data", ["-", "", "x" * 5000 + ".csv"])
def test_what_is_no_file(data: str) -> None:
    assert not is_text_table(data)


# Embeddings


def test_embeddings_are_those_of_transformers_of_the_cut_texts(
    clip_folder: Path, encoder: TextEncoder
) -> None:
    transformers = pytest.importorskip("transformers")
    texts = [*TEXTS, "cat " * 9 + "dog", "cat " * 10, "cat " * 11, "dog " * 30]
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(clip_folder)
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=12, return_tensors="pt")
    with torch.no_grad():
        output = transformers.CLIPModel.from_pretrained(clip_folder).get_text_features(**inputs)
    expected = getattr(output, "pooler_output", output).numpy()  # a tensor before release 5
    found = embed_texts(texts, encoder)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert len(np.unique(found.round(3), axis=0)) == len({tuple(row) for row in inputs["input_ids"].tolist()})


def test_an_embedding_does_not_depend_on_the_others(encoder: TextEncoder) -> None:
    whole = embed_texts(TEXTS, encoder)
    rows = np.random.default_rng(0).permutation(len(TEXTS))[:11]
    assert (embed_texts([TEXTS[row] for row in rows], encoder) == whole[rows]).all()
    assert (embed_texts(TEXTS[3:4], encoder) == whole[3:4]).all()


def test_embeddings_that_are_no_numbers_are_refused(
    encoder: TextEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    features = TextEncoder.features

    def broken(self: TextEncoder, tokens: torch.Tensor) -> torch.Tensor:
        return features(self, tokens) * (torch.nan if tokens.shape[1] == 3 else 1)

    monkeypatch.setattr(TextEncoder, "features", broken)
    with pytest.raises(ModelError, match=r"NaN or infinite embeddings of cat, z\n"):
        embed_texts(["a cat", "cat", "z"], encoder)


# Samples


def test_every_text_meets_its_own_embedding(
    load: Callable[..., Samples], table: str, encoder: TextEncoder
) -> None:
    samples = load(table)
    assert samples.manifest.table["text"].tolist() == [*TEXTS, "a cat"]
    assert samples.manifest.table["path"].tolist() == ["a cat [a]", *TEXTS[1:], "a cat [b]"]
    assert (samples.features[:].numpy() == embed_texts([*TEXTS, "a cat"], encoder)).all()
    assert (samples.embedded, len(samples), len(samples.failed)) == (len(TEXTS), len(TEXTS) + 1, 0)
    assert samples.manifest.warnings == ()


def test_texts_are_embedded_once(
    load: Callable[..., Samples], table: str, write: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = load(table)
    monkeypatch.setattr(TextEncoder, "features", lambda *_: pytest.fail("the network ran"))
    second = load(table)
    assert second.embedded == 0
    assert torch.equal(second.features[:], first.features[:])
    assert second.fingerprint == first.fingerprint
    part = load(write("label,text\nother,no dog\nb,cat\n", "part.csv"))
    assert torch.equal(part.features[:], first.features[np.array([5, 1])])
    assert part.fingerprint != first.fingerprint


def test_new_texts_alone_are_embedded(
    load: Callable[..., Samples], table: str, write: Callable[..., str]
) -> None:
    load(table)
    assert load(write("text,label\ncat,a\ncow,b\nowl,b\n", "more.csv")).embedded == 2


def test_shards_of_a_few_texts_give_the_same(
    load: Callable[..., Samples], table: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = load(table).features[:]
    monkeypatch.setattr("divacli.features.texts._SHARD_TEXTS", 5)
    assert torch.equal(load(table, cache=tmp_path / "other").features[:], whole)


def test_cut_texts_are_told_each_time(load: Callable[..., Samples], write: Callable[..., str]) -> None:
    file = write(f"text,label\ncat,a\n{'cat ' * 11},b\n{'cat ' * 10},b\n")
    for _ in range(2):
        assert load(file).manifest.warnings == (f"{file}: 1 of 3 texts were cut after 12 tokens.",)


def test_progress_counts_every_text(load: Callable[..., Samples], table: str) -> None:
    told: list[Any] = []

    @contextmanager
    def progress(what: str, total: int) -> Any:
        told.append(total)
        yield told.append

    load(table, progress=progress)
    assert told[0] == sum(told[1:]) == len(TEXTS)


# One space


@pytest.fixture
def other_encoder(save_clip: Callable[..., Path], tmp_path: Path) -> TextEncoder:
    return load_text_encoder(f"clip:{save_clip(tmp_path / 'other-clip', seed=1)}")


def test_images_and_texts_of_one_model_share_a_space(
    load: Callable[..., Samples],
    table: str,
    photos: Path,
    clip_folder: Path,
    options: ExtractOptions,
    cache: Path,
    other_encoder: TextEncoder,
) -> None:
    texts = load(table)
    images = load_samples(str(photos), BackboneChoice(f"clip:{clip_folder}"), options, cache)
    assert images.features.shape[1] == texts.features.shape[1]
    require_same_space(images.identity, texts.identity, table)
    others = load(table, encoder=other_encoder)
    assert others.embedded == len(TEXTS)
    with pytest.raises(StoreError, match=r"texts\.csv holds embeddings of another model: space (\w{12}) and"):
        require_same_space(images.identity, others.identity, table)


@pytest.mark.parametrize(
    ("wanted", "found"),
    [
        ({"space": "s", "layer": "a"}, {"space": "s", "layer": "b"}),
        ({"model": "net"}, {"model": "net"}),
        ({"model": "net"}, {}),
        ({}, {"space": "s"}),
    ],
)
def test_one_space(wanted: dict[str, str], found: dict[str, str]) -> None:
    require_same_space(wanted, found, "pool")


@pytest.mark.parametrize(
    ("wanted", "found", "says"),
    [
        ({"space": "s"}, {"space": "t"}, "space t and not s"),
        ({"model": "net"}, {"space": "t"}, "space t and not none"),
        ({"space": "s"}, {"model": "net"}, "space none and not s"),
        ({"model": "net", "weights": "1"}, {"model": "net", "weights": "2"}, "weights '2' and not '1'"),
    ],
)
def test_two_spaces(wanted: dict[str, str], found: dict[str, str], says: str) -> None:
    with pytest.raises(StoreError, match=rf"^pool (.|\n)*{says}"):
        require_same_space(wanted, found, "pool")
