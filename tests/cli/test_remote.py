"""Features and tables at a URL, from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest

URL = "memory://bucket/features"


def test_an_npz_gives_the_scores_of_the_local_file(scores, blobs, bucket):
    file = blobs().file
    bucket.put(str(file), "/bucket/features/blobs.npz")
    local = scores(file, out="local")
    remote = scores(f"{URL}/blobs.npz", out="remote")
    pd.testing.assert_frame_equal(remote.drop(columns="feature_source"), local.drop(columns="feature_source"))
    assert set(remote["feature_source"]) == {f"{URL}/blobs.npz"}
    told = [json.loads(Path(out, "summary.json").read_text()) for out in ("local", "remote")]
    assert told[0]["fingerprint"] == told[1]["fingerprint"]


def test_scores_of_an_npz_are_pruned_without_computing_twice(done, scores, blobs, bucket, refuse_to_compute):
    bucket.put(str(blobs().file), "/bucket/features/blobs.npz")
    scores(f"{URL}/blobs.npz")
    refuse_to_compute()
    done("prune", "scored/scores.csv", "--keep", "auto", "--out", "pruned/deep")
    assert json.loads(Path("pruned/deep/prune.json").read_text())["forecast"] is not None
    kept = pd.read_csv("pruned/deep/kept.csv")
    assert set(kept["feature_source"]) == {f"{URL}/blobs.npz"}


def test_another_file_under_the_same_url_is_noticed(done, run, scores, blobs, bucket):
    bucket.put(str(blobs().file), "/bucket/features/blobs.npz")
    scores(f"{URL}/blobs.npz")
    bucket.put(str(blobs("other.npz", seed=5).file), "/bucket/features/blobs.npz")
    result = done("prune", "scored/scores.csv", "--keep", "0.9")
    assert "the cache knows nothing of these scores" in " ".join(result.stderr.split())


def test_a_store_needs_neither_images_nor_network(done, scores, images, model, bucket):
    done("embed", images, *model, "--out", "store")
    bucket.put("store", "/bucket/features/store", recursive=True)
    local = scores("store", out="local")
    remote = scores(f"{URL}/store", out="remote")
    columns = [name for name in local if name not in ("path", "feature_source")]
    pd.testing.assert_frame_equal(remote[columns], local[columns])
    again = scores("remote/scores.csv", out="again")
    pd.testing.assert_frame_equal(
        again[columns], remote[columns], rtol=1e-3, atol=1e-6
    )  # rows in another order


def test_a_pool_and_a_validation_set_at_urls(done, blobs, bucket):
    core, pool, judged = (
        blobs(f"{name}.npz", seed=seed).file for seed, name in enumerate(("core", "pool", "val"))
    )
    for file in (pool, judged):
        bucket.put(str(file), f"/bucket/features/{file.name}")
    tables = []
    for place in (str(core.parent), URL):
        options = ("--pool", f"{place}/pool.npz", "--val", f"{place}/val.npz", "--budget", "20")
        done("extend", core, *options, "--out", "extended")
        tables.append(pd.read_csv("extended/extended.csv", dtype={"path": str}))
    columns = [name for name in tables[0] if name != "feature_source"]
    pd.testing.assert_frame_equal(tables[0][columns], tables[1][columns])
    assert set(tables[1]["feature_source"]) == {"../core.npz", f"{URL}/pool.npz"}


def test_a_url_in_a_configuration_file(done, blobs, bucket):
    bucket.put(str(blobs().file), "/bucket/features/blobs.npz")
    Path("here").mkdir()
    Path("here/diva.yaml").write_text(f"data: {URL}/blobs.npz\n")
    done("score", "--config", "here/diva.yaml")
    assert set(pd.read_csv("diva-out/scores.csv")["feature_source"]) == {f"{URL}/blobs.npz"}


def test_results_are_not_written_to_a_url(run, blobs):
    result = run("score", blobs().file, "--out", "s3://bucket/results")
    assert result.exit_code == 1
    assert "--out s3://bucket/results" in result.stderr
    assert "to do: write the results there" in result.stderr.replace("\n", " ").replace("  ", " ")
    assert not Path("s3:").exists()


@pytest.mark.parametrize(
    ("data", "messages"),
    [
        (f"{URL}/none.npz", (f"{URL}/none.npz does not exist", "expected:")),
        (f"{URL}/photos", ("no kind of DATA that is read from a URL", "diva embed")),
        ("nobody://x/a.npz", ("nobody is nothing that URLs are read by", "to do:")),
    ],
)
def test_what_cannot_be_read_is_said_in_one_message(run, bucket, data, messages):
    result = run("score", data)
    text = " ".join(result.stderr.split())
    assert result.exit_code == 1
    assert text.count("error:") == 1
    assert "Traceback" not in text
    for message in messages:
        assert message in text
