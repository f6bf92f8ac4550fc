"""What a manifest has to beat: which sets, drawn from what, and what is said where there are none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from divacli.errors import DataError
from divacli.evaluation.rivals import Pool, rivals
from divacli.features import Samples, joined


@pytest.fixture
def made(tmp_path: Path, load: Callable[[Path], Samples]) -> Callable[..., Samples]:
    """Samples with the labels given, in a file of their own."""

    def make(labels: list[str], name: str = "made", **more: object) -> Samples:
        features = np.random.default_rng(len(name)).normal(size=(len(labels), 5))
        np.savez(tmp_path / f"{name}.npz", embedding=features, label=np.array(labels), **more)
        return load(tmp_path / f"{name}.npz")

    return make


@pytest.fixture
def data(made: Callable[..., Samples]) -> Samples:
    return made(list("abc") * 10)


@pytest.fixture
def pool(made: Callable[..., Samples]) -> Samples:
    return made(list("abcd") * 10, "pool", weight=np.arange(40) % 3 + 1.0)


def first(samples: Samples, n: int) -> Samples:
    return samples.select(np.arange(len(samples)) < n)


def names(sets) -> list[str]:
    return list(dict.fromkeys(part.name for part in sets))


def where(samples: Samples) -> list[tuple[str, str]]:
    table = samples.manifest.table
    return list(zip(table["feature_source"].map(lambda name: Path(name).name), table["path"], strict=True))


def test_the_rivals_of_two_manifests(data):
    right = np.arange(30) % 10 != 0
    manifests = {"kept.csv": first(data, 20), "few.csv": first(data, 9), "all.csv": data}
    sets = rivals(data, manifests, [3, 4], right)
    assert [(part.name, len(part.samples), part.seed) for part in sets] == [
        *(("everything", 30, None), ("kept.csv", 20, None), ("few.csv", 9, None), ("all.csv", 30, None)),
        *(("random 9", 9, 3), ("random 9", 9, 4), ("random 20", 20, 3), ("random 20", 20, 4)),
        ("oracle", 27, None),
    ]
    drawn = {(part.name, part.seed): set(part.samples.manifest.table["path"]) for part in sets}
    assert drawn["random 9", 3] < drawn["random 20", 3]
    assert drawn["random 9", 3] != drawn["random 9", 4]
    assert "oracle" not in [part.name for part in rivals(data, manifests, [3])]


def test_an_extended_manifest_is_compared_with_random_samples_of_the_same_pool(data, pool):
    extended = joined(data, pool.select(np.arange(12)))
    sets = rivals(data, {"extended.csv": extended}, [3, 4], pool=Pool.beside(data, pool, None))
    assert [(part.name, len(part.samples), part.seed) for part in sets] == [
        *(("everything", 30, None), ("extended.csv", 42, None)),
        *(("random pool 12", 42, 3), ("random pool 12", 42, 4), ("whole pool", 70, None)),
    ]
    assert sets[1].rivals == ("everything", "random pool 12", "whole pool")
    assert not any(part.rivals for part in sets if part.name != "extended.csv")
    weights = dict(zip(where(pool), pool.manifest.table["weight"], strict=True))
    for part in sets[2:]:
        found = where(part.samples)
        assert found[:30] == where(data)
        assert len(set(found)) == len(found), "no sample twice"
        assert part.samples.manifest.table["weight"].tolist()[30:] == [weights[one] for one in found[30:]]
    assert where(sets[2].samples) != where(sets[3].samples)


def test_a_draw_from_a_pool_does_not_depend_on_the_order_of_rows(data, pool):
    order = np.random.default_rng(0).permutation(40)
    drawn = []
    for rows in (pool, pool.select(order)):
        extended = joined(data, rows.select(np.arange(12)))
        sets = rivals(data, {"extended.csv": extended}, [3], pool=Pool.beside(data, rows, None))
        drawn.append(set(where(sets[2].samples)))
    assert drawn[0] == drawn[1]


def test_what_data_has_already_is_not_drawn(data, pool):
    both = joined(pool, data.select(np.arange(5)))
    beside = Pool.beside(data, both, np.arange(45) % 2 == 0)
    assert where(beside.samples) == where(pool)
    assert beside.right is not None
    assert beside.right.tolist() == (np.arange(40) % 2 == 0).tolist()
    keys = np.arange(70, dtype=np.uint8)[:, None]
    copies = Pool.beside(replace(data, keys=keys[:30]), replace(pool, keys=keys[20:60]), None)
    assert len(copies.samples) == 30, "those of equal content are left out"
    with pytest.raises(DataError, match=r"all 5 samples of .* are in"):
        Pool.beside(data, first(data, 5), None)


def test_no_random_choice_is_as_large_as_the_whole_pool(data, pool):
    sets = rivals(data, {"all": joined(data, pool)}, [3], pool=Pool.beside(data, pool, None))
    assert names(sets) == ["everything", "all", "whole pool"]
    assert sets[1].rivals == ("everything", "whole pool")


def test_manifests_of_all_kinds_beside_one_another(data, pool, made):
    stranger = made(list("abc"), "stranger")
    manifests = {
        "extended": joined(data, first(pool, 12)),
        "kept": first(data, 20),
        "same": data,
        "partial": joined(first(data, 25), first(pool, 12)),
        "strange": joined(joined(data, first(pool, 12)), stranger),
        "foreign": joined(data, stranger),
    }
    told: list[str] = []
    sets = rivals(data, manifests, [3], pool=Pool.beside(data, pool, None), warn=told.append)
    assert {part.name: part.rivals for part in sets if part.rivals} == {
        "extended": ("everything", "random pool 12", "whole pool"),
        "kept": ("everything", "random 20"),
        "same": ("everything",),
        "partial": ("everything", "whole pool"),
        "strange": ("everything", "whole pool"),
        "foreign": ("everything",),
    }
    assert names(sets)[7:] == ["random 20", "random pool 12", "whole pool"]
    assert len(told) == 3
    for message, parts in zip(
        told,
        (
            ("partial has 12 samples of", "lacks 5 of", "compared with no random choices"),
            ("3 of the 45 samples of strange are neither in", "compared with no random choices"),
            ("3 of the 33 samples of foreign are neither in", "compared with no random choices"),
        ),
        strict=True,
    ):
        assert all(part in message for part in parts), message


def test_a_pool_that_no_manifest_took_from_gives_no_rivals(data, pool):
    told: list[str] = []
    right = np.arange(30) % 4 > 0
    beside = Pool.beside(data, pool, None)
    sets = rivals(data, {"kept": first(data, 20)}, [3], right, beside, told.append)
    assert names(sets) == ["everything", "kept", "random 20", "oracle"]
    assert len(told) == 1
    assert "no manifest has samples that only" in told[0]


def test_the_oracle_has_the_right_labels_of_both_or_there_is_none(data, pool):
    extended = {"extended": joined(data, first(pool, 12))}
    right, right_in_pool = np.arange(30) % 4 > 0, np.arange(40) % 2 == 0
    oracle = rivals(data, extended, [3], right, Pool.beside(data, pool, right_in_pool))[-1]
    assert oracle.name == "oracle"
    expected = [one for one, is_right in zip(where(data), right, strict=True) if is_right]
    expected += [one for one, is_right in zip(where(pool), right_in_pool, strict=True) if is_right]
    assert where(oracle.samples) == expected
    told: list[str] = []
    sets = rivals(data, extended, [3], right, Pool.beside(data, pool, None), told.append)
    assert "oracle" not in names(sets)
    assert "no oracle: the true labels of" in told[0]


@pytest.mark.parametrize("name", ["everything", "oracle", "random 9"])
def test_names_that_would_be_taken_for_another_set(name, made):
    data = made(list("abc") * 10)
    with pytest.raises(DataError, match=f"two training sets are called {name}"):
        rivals(data, {name: first(data, 9)}, [0], np.ones(30, bool))


def test_an_oracle_of_one_class_is_refused(made):
    data = made(list("aabb"))
    with pytest.raises(DataError, match="2 labels are right, in 1 classes"):
        rivals(data, {"kept": data}, [0], np.array([True, True, False, False]))


@pytest.mark.parametrize("name", ["whole pool", "random pool 12"])
def test_names_of_sets_of_a_pool_are_taken(name, data, pool):
    extended = joined(data, first(pool, 12))
    with pytest.raises(DataError, match=f"two training sets are called {name}"):
        rivals(data, {name: extended}, [0], pool=Pool.beside(data, pool, None))
