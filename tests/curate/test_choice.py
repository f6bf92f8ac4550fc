"""Why a pool sample cannot be chosen, and tables that say what became of each."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from divacli.curate.extend import extend
from divacli.curate.pool_rule import ExtendOptions
from divacli.curate.pool_tables import barred_samples
from divacli.errors import DataError
from divacli.solve.ridge_problem import SolveOptions

OPTIONS = SolveOptions()


@pytest.fixture
def samples(tmp_path, load):
    """Six or so samples in a file of their own, with the columns that are given."""

    def make(name, labels, **more):
        generator = np.random.default_rng(len(labels))
        target = tmp_path / name / "e.npz"
        target.parent.mkdir()
        np.savez(
            target,
            embedding=generator.normal(size=(len(labels), 4)),
            label=np.array(list(labels)),
            **{column: np.array(values) for column, values in more.items()},
        )
        return load(target)

    return make


def keyed(samples, numbers):
    """The samples as if they were images of these contents."""
    return replace(samples, keys=np.repeat(np.array(numbers, np.uint8)[:, None], 32, axis=1))


def with_columns(samples, **columns):
    return replace(
        samples, manifest=replace(samples.manifest, table=samples.manifest.table.assign(**columns))
    )


def test_the_first_reason_counts(samples):
    core = keyed(samples("core", "aabb"), [1, 2, 3, 4])
    pool = keyed(samples("pool", "abcabc", weight=[1, 0, 1, 1, 1, 0]), [4, 5, 6, 7, 7, 8])
    assert barred_samples(core, pool, core, OPTIONS).tolist() == [
        "the same image is in the core",
        "its weight is 0",
        "no sample that the choice is judged by has its label",
        "",
        "the same image stands above it in the pool",
        "its weight is 0",
    ]


def test_a_validation_set_bars_its_own_samples_and_kin(samples):
    core = with_columns(keyed(samples("core", "aabb"), [1, 2, 3, 4]), group=["p", "q", "r", "s"])
    judged = with_columns(keyed(samples("val", "abc"), [5, 6, 7]), group=["t", "u", ""])
    pool = with_columns(keyed(samples("pool", "abcab"), [1, 7, 9, 10, 11]), group=["x", "y", "t", "p", ""])
    assert barred_samples(core, pool, judged, OPTIONS).tolist() == [
        "the same image is in the core",
        "the same image is in the validation set",
        "its group is in the validation set, which would be judged by its own kin",
        "",
        "",
    ]


def test_rows_of_one_name_in_two_files_are_not_the_same(samples):
    core, pool = samples("core", "aabb"), samples("pool", "abab")
    assert core.manifest.table["path"].tolist() == pool.manifest.table["path"].tolist()
    assert barred_samples(core, pool, core, OPTIONS).tolist() == [""] * 4
    part = core.select(np.array([0, 2]))
    assert (barred_samples(part, core, part, OPTIONS) != "").tolist() == [True, False, True, False]


def test_groups_that_are_not_asked_for(samples):
    core = with_columns(samples("core", "aabb"), group=["p", "q", "r", "s"], site=["1", "1", "2", "3"])
    pool = with_columns(samples("pool", "abab"), group=["p", "p", "x", "y"], site=["1", "4", "5", "6"])
    assert (barred_samples(core, pool, core, OPTIONS) != "").tolist() == [True, True, False, False]
    assert (barred_samples(core, pool, core, replace(OPTIONS, group=None)) == "").all()
    by_site = barred_samples(core, pool, core, replace(OPTIONS, group="site"))
    assert (by_site != "").tolist() == [True, False, False, False]
    assert "its site is in the core" in by_site[0]


def test_a_pool_of_which_nothing_can_be_chosen(samples):
    core = samples("core", "aabb")
    pool = samples("pool", "ccca", weight=[1, 1, 1, 0])
    with pytest.raises(DataError) as raised:
        barred_samples(core, pool, core, OPTIONS)
    message = str(raised.value)
    assert "none of 4 samples can be chosen" in message
    assert "3 because no sample that the choice is judged by has its label" in message
    assert "1 because its weight is 0" in message


def test_columns_of_the_pool_are_carried_along_and_old_ones_written_anew(samples):
    core = with_columns(samples("core", "ab" * 8), colour=["red"] * 16)
    pool = with_columns(samples("pool", "ab" * 6), shape=["round"] * 12, batch=7, reason="old")
    result = extend(core, pool, OPTIONS, ExtendOptions(min_trust=0.0))
    assert result.selected["batch"].tolist() == list(range(1, len(result.selected) + 1))
    assert result.selected.columns.tolist().count("batch") == 1
    assert (result.selected["shape"] == "round").all()
    assert (result.remaining["reason"] != "old").all()
    extended = result.extended
    assert "batch" not in extended
    assert extended["colour"].tolist() == ["red"] * 16 + [""] * len(result.selected)
    assert extended["shape"].tolist() == [""] * 16 + ["round"] * len(result.selected)
