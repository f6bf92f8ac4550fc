"""The consensus from Python: its tables, its warnings, and what it does not depend on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from divacli.curate.ballots import collected
from divacli.curate.votes import ANNOTATOR_COLUMNS, Consensus, find_consensus
from divacli.features import BackboneChoice, ExtractOptions, samples_of
from divacli.manifest import manifest_of, read_manifest
from divacli.solve.ridge_problem import SolveOptions

N = 60


@pytest.fixture
def consensus(tmp_path: Path):
    """The consensus of votes for 60 samples of two classes, whose features tell them apart or not."""

    def find(*, separated: bool = True, more: str = "", annotator: str | None = None) -> Consensus:
        generator = np.random.default_rng(0)
        truth = np.arange(N) % 2
        features = generator.normal(size=(N, 3))
        features[:, 0] += 4 * separated * (2 * truth - 1)
        np.savez(tmp_path / "x.npz", embedding=features, label=truth, path=np.arange(N).astype(str))
        rows = []
        for sample in range(N):
            for who in range(3):
                wrong = generator.random() < 0.25
                rows.append((str(sample), "ab"[truth[sample] ^ wrong], f"p{who}", "x.npz"))
        table = pd.DataFrame(rows, columns=["path", "label", "annotator", "feature_source"])
        if more:
            table.loc[0, "label"] = more
        table.to_csv(tmp_path / "votes.csv", index=False)
        ballots = collected(read_manifest(str(tmp_path / "votes.csv"), repeated=True), annotator)
        choice = BackboneChoice("", None)
        samples = samples_of(ballots.images, choice, ExtractOptions(torch.device("cpu")), tmp_path)
        return find_consensus(samples, ballots, SolveOptions())

    return find


def test_tables_of_a_consensus(consensus, tmp_path):
    found = consensus()
    assert list(found.tables) == ["consensus", "again", "annotators"]
    assert list(found.tables["annotators"]) == list(ANNOTATOR_COLUMNS)
    assert len(found.tables["consensus"]) == N
    assert found.summary["n_annotators"] == 3
    assert not list(found.warnings())
    again = manifest_of(found.table, tmp_path)
    assert again.classes == ["a", "b"]
    assert list(consensus(annotator="none").tables) == ["consensus", "again"]


def test_features_help_and_are_not_trusted_where_they_say_nothing(consensus):
    truth = np.array(["a", "b"])[np.arange(N) % 2]
    helped = consensus().table
    alone = consensus(separated=False).table
    assert (helped["label"] == truth).mean() > 0.95
    assert (alone["label"] == truth).mean() < (helped["label"] == truth).mean()
    same = alone["agreement"] == 1
    assert (alone["label"] == alone["majority_label"])[same].all()
    assert alone["consensus_probability"].mean() < helped["consensus_probability"].mean()


def test_a_label_that_nobody_gets_is_named(consensus):
    found = consensus(more="typo")
    assert list(found.warnings()) == ["there are votes for labels that no image gets: typo"]
    assert found.fit.matrices.shape == (3, 3, 3)
