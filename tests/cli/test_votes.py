"""`diva votes`: what is written, what is said, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from divacli.manifest import read_manifest

N = 150
PEOPLE = {"ann": 0.05, "bob": 0.3, "eve": 0.67}
"""How often each says another class; of three classes eve says anything."""


def text_of(result) -> str:
    return " ".join((result.stdout + result.stderr).split())


@pytest.fixture
def votes(blobs) -> pd.DataFrame:
    """One to three votes for each of 150 samples, whose features lie in `blobs.npz`; `truth` is the class."""
    data = blobs(n=N)
    truth = np.arange(N) % 3
    generator = np.random.default_rng(1)
    rows = []
    for sample, right in enumerate(truth):
        for who in generator.permutation(list(PEOPLE))[: 1 + sample % 3]:
            wrong = generator.random() < PEOPLE[who]
            label = (right + wrong * generator.integers(1, 3)) % 3
            rows.append(
                (f"s{sample:04d}", "abc"[label], who, "blobs.npz", f"site {sample % 4}", "abc"[right])
            )
    names = ["path", "label", "annotator", "feature_source", "site", "truth"]
    table = pd.DataFrame(rows, columns=names)
    table.to_csv(data.file.with_name("votes.csv"), index=False)
    return table


def test_one_label_for_each_image(done, votes):
    result = done("votes", "votes.csv")
    table = pd.read_csv("diva-out/consensus.csv", keep_default_na=False)
    assert table["path"].tolist() == votes["path"].drop_duplicates().tolist()
    columns = ["path", "label", "weight", "consensus_probability", "second_label", "second_probability"]
    columns += [
        "majority_label",
        "tied_labels",
        "n_votes",
        "agreement",
        "gain",
        "feature_source",
        "site",
        "truth",
    ]
    assert list(table) == columns
    counts = votes.groupby("path").size()
    assert table["n_votes"].tolist() == counts[table["path"]].tolist()
    wrong = (table["label"] != table["truth"]).sum()
    assert wrong < (table["majority_label"] != table["truth"]).sum() / 2
    assert (table["consensus_probability"] >= table["second_probability"]).all()
    agrees = votes.merge(table[["path", "label"]], on="path")
    share = (agrees["label_x"] == agrees["label_y"]).groupby(agrees["path"]).mean()
    assert table["agreement"].to_numpy() == pytest.approx(share[table["path"]].to_numpy())
    two = votes[votes["path"] == "s0001"]["label"]
    tied = table[table["path"] == "s0001"]["tied_labels"].item()
    assert tied == (" / ".join(sorted(two)) if two.nunique() == 2 else "")
    content = json.loads(Path("diva-out/votes.json").read_text())
    assert content["n_images"] == N
    assert content["n_votes"] == len(votes)
    assert content["n_ties"] == (table["tied_labels"] != "").sum() > 0
    assert content["expected_wrong"] == pytest.approx((1 - table["consensus_probability"]).sum(), rel=1e-6)
    assert content["expected_wrong"] < content["expected_wrong_majority"]
    run = json.loads(Path("diva-out/run.json").read_text())["runs"][0]
    assert run["samples"] == {"read": N, "failed": 0, "consensus": N}
    said = text_of(result)
    assert f"{len(votes)} votes for 150 images by 3 annotators" in said
    assert "least accurate annotators" in said
    assert "wrote failed.csv, annotators.csv, again.csv, votes.json, consensus.csv in diva-out" in said


def test_annotators_are_told_apart(done, votes):
    done("votes", "votes.csv")
    table = pd.read_csv("diva-out/annotators.csv")
    assert table["annotator"].tolist() == ["eve", "bob", "ann"]
    right = (votes["label"] == votes["truth"]).groupby(votes["annotator"]).mean()
    for row in table.itertuples():
        assert row.accuracy_low <= right[row.annotator] <= row.accuracy_high
        assert row.n_votes == (votes["annotator"] == row.annotator).sum()
    assert (table["confused_label"] != table["confused_vote"]).all()


def test_what_to_look_at_once_more(done, votes):
    done("votes", "votes.csv", "--budget", 7)
    again = pd.read_csv("diva-out/again.csv")
    table = pd.read_csv("diva-out/consensus.csv").sort_values(["gain", "path"], ascending=[False, True])
    promising = table[table["gain"] > 0].head(7)
    assert again["path"].tolist() == promising["path"].tolist()
    n = len(promising)
    assert (again["gain"] > 0).all()
    content = json.loads(Path("diva-out/votes.json").read_text())
    assert content["n_again"] == n > 3
    assert content["expected_gain"] == pytest.approx(again["gain"].sum(), rel=1e-6)
    done("votes", "votes.csv", "--budget", 0, "--out", "none")
    assert pd.read_csv("none/again.csv").empty


def test_the_order_of_votes_changes_nothing(done, votes):
    done("votes", "votes.csv")
    votes.sample(frac=1, random_state=3).to_csv("shuffled.csv", index=False)
    done("votes", "shuffled.csv", "--out", "other")
    one, other = (pd.read_csv(f"{out}/consensus.csv").set_index("path") for out in ("diva-out", "other"))
    other = other.loc[one.index]
    assert one["label"].equals(other["label"])
    assert one["consensus_probability"].to_numpy() == pytest.approx(other["consensus_probability"], abs=1e-5)


def test_without_annotators_and_as_a_pipe(done, votes):
    text = votes.drop(columns=["annotator", "truth"]).to_csv(index=False)
    result = done("votes", "-", "--out", "-", stdin=text)
    assert result.stdout.splitlines()[0].startswith("path,label,weight,consensus_probability")
    assert len(result.stdout.splitlines()) == N + 1
    done("votes", "votes.csv", "--annotator", "none", "--out", "none")
    assert not Path("none/annotators.csv").exists()
    assert json.loads(Path("none/votes.json").read_text())["n_annotators"] is None
    done("score", "-", stdin=result.stdout, overwrite=False)
    assert len(read_manifest("diva-out/scores.csv").table) == N


def test_images_are_embedded_once_and_failures_told(done, images, model):
    files = sorted(images.rglob("*.png"))[:30]
    Path("broken.png").write_bytes(b"no image")
    rows = [(str(file), file.parent.name) for file in files for _ in range(2)]
    rows += [("broken.png", "a"), ("broken.png", "b"), (str(files[0]), "c")]
    pd.DataFrame(rows, columns=["path", "label"]).to_csv("votes.csv", index=False)
    result = done("votes", "votes.csv", *model)
    log = Path(model[1].partition(":")[0]).with_suffix(".log")
    assert json.loads(Path("diva-out/votes.json").read_text())["n_embedded"] == 30, log.read_text()
    table = pd.read_csv("diva-out/consensus.csv")
    assert len(table) == 30
    assert table["n_votes"].sum() == 61
    assert pd.read_csv("diva-out/failed.csv")["path"].str.endswith("broken.png").tolist() == [True]
    assert "1 images cannot be used" in text_of(result)


def test_single_votes_and_features_that_say_nothing(done, votes):
    one = votes.drop_duplicates("path")
    one.to_csv("single.csv", index=False)
    done("votes", "single.csv", "--out", "single")
    table = pd.read_csv("single/consensus.csv")
    assert (table["label"] != table["truth"]).sum() < (one["label"] != one["truth"]).sum()
    noise = np.random.default_rng(0).normal(size=(N, 4))
    np.savez(
        "noise.npz", embedding=noise, label=np.arange(N) % 3, path=np.array([f"s{n:04d}" for n in range(N)])
    )
    votes.assign(feature_source="noise.npz").to_csv("noise.csv", index=False)
    done("votes", "noise.csv", "--out", "noise")
    table = pd.read_csv("noise/consensus.csv")
    same = (table["n_votes"] == 3) & (table["agreement"] == 1)
    assert same.any()
    assert (table["label"] == table["majority_label"])[same].all()


def test_groups_are_left_out_together(done, votes):
    votes.assign(group=votes["path"].str[-2:]).to_csv("grouped.csv", index=False)
    done("votes", "grouped.csv")
    content = json.loads(Path("diva-out/votes.json").read_text())
    assert (content["group"], content["n_groups"]) == ("group", 100)


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (("blobs.npz",), 1, "is a npz, in which a sample has one label"),
        (("votes.csv", "--annotator", "staff"), 1, "no column staff for --annotator"),
        (("votes.csv", "--budget", "-1"), 2, "--budget"),
        (("none.csv",), 1, "none.csv"),
        (("votes.csv", "--report"), 2, "--report"),
    ],
)
def test_refusals(run, votes, arguments, status, said):
    result = run("votes", *arguments)
    assert result.exit_code == status
    assert said in text_of(result)
    assert not Path("diva-out/consensus.csv").exists()
