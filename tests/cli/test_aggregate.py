"""`diva aggregate`: other modalities beside images, what is written, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FILES = [
    *("aggregate.json", "extended.csv", "failed.csv", "features.npz", "history.csv"),
    *("remaining.csv", "run.json", "selected.csv"),
]


def read(name: str, out: str = "diva-out") -> pd.DataFrame:
    text = {"path": str, "label": str, "reason": str, "predicted_label": str}
    return pd.read_csv(Path(out) / f"{name}.csv", dtype=text, keep_default_na=False)


def report(out: str = "diva-out") -> dict:
    return json.loads((Path(out) / "aggregate.json").read_text())


def text_of(result) -> str:
    return " ".join(result.stderr.replace("│", " ").split())


def refused(result, code: int = 1) -> str:
    assert result.exit_code == code, result.stderr
    assert "Traceback" not in result.stderr
    return text_of(result)


@pytest.fixture
def arrays(tmp_path):
    """Write a modality: Gaussian classes with common means, in a cone of its own; the first labels wrong."""

    def write(name, n, seed, *, cone=0, wrong=0, classes=4, d=8, noise=0.6, labelled=True):
        generator = np.random.default_rng(seed)
        truth = np.arange(n) % classes
        away = np.random.default_rng(98 - cone).normal(size=d) * 3
        features = np.random.default_rng(99).normal(size=(6, d))[truth] + away
        features = (features + noise * generator.normal(size=(n, d))).astype(np.float32)
        labels = np.where(np.arange(n) < wrong, (truth + 1) % classes, truth)
        content = {"embedding": features} | ({"label": labels} if labelled else {})
        file = tmp_path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        np.savez(file, **content)

    return write


@pytest.fixture
def modalities(arrays, run):
    """Images, and texts and sketches in another folder."""
    arrays("images/images.npz", 24, 1)
    arrays("pools/texts.npz", 20, 2, cone=1, wrong=5)
    arrays("pools/sketches.npz", 20, 3, cone=2)


AGGREGATE = ("aggregate", "images/images.npz", "--pool", "pools/texts.npz")


def test_every_member_is_in_exactly_one_table(modalities, done):
    result = done(*AGGREGATE, "--pool", "pools/sketches.npz")
    assert sorted(file.name for file in Path("diva-out").iterdir()) == FILES
    selected, remaining, extended = read("selected"), read("remaining"), read("extended")
    members = [f"{name}/{row}" for name in ("texts", "sketches") for row in range(20)]
    assert sorted([*selected["path"], *remaining["path"]]) == sorted(members)
    assert extended["path"].tolist() == [*map(str, range(24)), *selected["path"]]
    assert extended["modality"].tolist() == [""] * 24 + selected["modality"].tolist()
    content = report()
    assert sum(part["n_selected"] for part in content["modalities"].values()) == len(selected)
    for name, part in content["modalities"].items():
        assert set(selected["weight"][selected["modality"] == name]) == {part["weight"]}
    assert (content["classes_of_one"], content["start"]) == ([], "pools out")
    assert "40 pool samples are chosen for 24 core samples" in text_of(result)
    assert "chosen of weight modality" in text_of(result)
    assert result.stdout == ""


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_tables_are_data_also_from_another_folder(form, modalities, done, tmp_path, monkeypatch):
    done(*AGGREGATE, "--format", form, "--out", "deep/out")
    monkeypatch.chdir(tmp_path / "pools")
    sizes = {"extended": 24 + report("../deep/out")["n_selected"]}
    sizes |= {"selected": sizes["extended"] - 24, "remaining": 44 - sizes["extended"]}
    for name, size in sizes.items():
        done("score", f"../deep/out/{name}.{form}", "--out", name)
        assert json.loads(Path(name, "summary.json").read_text())["n_samples"] == size
    # By itself the file of features is the extended set: what was left behind has weight 0.
    done("prune", "../deep/out/features.npz", "--keep", "1.0", "--out", "kept")
    assert (pd.read_csv("kept/kept.csv")["weight"] > 0).sum() == sizes["extended"]


def test_new_images_are_predicted_as_they_are(modalities, arrays, done):
    arrays("test.npz", 400, 9)
    done(*AGGREGATE)
    done(
        *("evaluate", "images/images.npz", "--manifest", "diva-out/extended.csv", "--test", "test.npz"),
        *("--learner", "ridge", "--seeds", "1", "--out", "judged"),
    )
    errors = pd.read_csv("judged/evaluation.csv").set_index("training_set")["test_error"]
    assert errors["diva-out/extended.csv"] < errors["everything"]


def test_the_recipe_of_the_documentation(modalities, arrays, done):
    """It predicts new images as the package's own fit of the written set does."""
    import torch

    from divacli.evaluation.learners import RidgeLearner
    from divacli.features import BackboneChoice, ExtractOptions, load_samples
    from divacli.solve.ridge_problem import SolveOptions

    arrays("new.npz", 400, 9, noise=1.5)
    done(*AGGREGATE, "--pool", "pools/sketches.npz")
    page = (Path(__file__).parents[2] / "docs" / "aggregate.md").read_text()
    names: dict = {}
    exec(page.split("```python\n")[1].split("```")[0], names)

    def load(data):
        return load_samples(data, BackboneChoice(), ExtractOptions(torch.device("cpu")), Path("cache"))

    learner = RidgeLearner(SolveOptions(ridge=report()["ridge"], dtype=torch.float64))
    expected = learner(load("diva-out/extended.csv"), load("new.npz"), 0)
    assert len(set(expected)) == 4
    assert (names["predicted"] == expected).mean() > 0.99


def test_the_sample_configuration_names_options_only(run):
    sample = Path(__file__).parents[2] / "sample_configs" / "aggregate.yaml"
    assert "nowhere does not exist" in refused(run("aggregate", "nowhere", "--config", sample))


def test_one_image_of_a_class(arrays, done):
    arrays("one.npz", 4, 1)
    arrays("texts.npz", 24, 2, cone=1)
    arrays("val.npz", 40, 3)
    result = done("aggregate", "one.npz", "--pool", "texts.npz")
    assert "4 classes have a single sample" in text_of(result)
    assert "starts with all" in text_of(result)
    assert report()["start"] == "pools in, harmful members dropped"
    assert report()["classes_of_one"] == list("0123")
    assert read("history")["n_selected"].tolist() == [24, len(read("selected"))]
    result = done("aggregate", "one.npz", "--pool", "texts.npz", "--val", "val.npz", "--out", "val")
    assert "is judged by --val" in text_of(result)
    assert report("val")["judged_by"] == "validation set"


def test_budgets(modalities, done, run):
    done(*AGGREGATE, "--budget", "4", "--refit-every", "3")
    assert read("selected")["batch"].tolist() == [1, 1, 1, 2]
    done(*AGGREGATE, "--pool", "pools/sketches.npz", "--budget", "25%", "--min-trust", "0", "--out", "share")
    assert report("share")["budget"] == 10
    assert "--budget none" in refused(run(*AGGREGATE, "--budget", "none"), 2)


def test_two_pools_of_one_name(modalities, arrays, done):
    arrays("other/texts.npz", 20, 7, cone=1)
    done(*AGGREGATE, "--pool", "other/texts.npz", "--pool", "pools/texts.npz")
    assert list(report()["modalities"]) == ["texts", "texts-2"]
    assert {part["n_pool"] for part in report()["modalities"].values()} == {20}
    assert read("selected")["path"].is_unique


def test_a_label_that_no_image_has(modalities, arrays, run, done):
    arrays("new.npz", 25, 2, cone=1, classes=5)
    done("aggregate", "images/images.npz", "--pool", "new.npz")
    left = read("remaining").set_index("label")["reason"]
    assert set(left["4"]) == {"no sample that the choice is judged by has its label"}
    arrays("odd.npz", 24, 3, classes=6)
    message = refused(run("aggregate", "images/images.npz", "--pool", "new.npz", "--val", "odd.npz"))
    assert "odd.npz has labels that the training samples lack: 5" in message


def test_what_is_refused(modalities, arrays, run):
    arrays("bare.npz", 20, 2, labelled=False)
    assert "bare.npz has no labels" in refused(run("aggregate", "images/images.npz", "--pool", "bare.npz"))
    arrays("wide.npz", 20, 2, d=9)
    assert "has 9 features a sample" in refused(run("aggregate", "images/images.npz", "--pool", "wide.npz"))
    assert "needs a folder" in refused(run(*AGGREGATE, "--out", "-"))
    assert "only one of DATA" in refused(run("aggregate", "-", "--pool", "-"), 2)
    assert "Missing option" in refused(run("aggregate", "images/images.npz"), 2)


def test_quiet_and_configuration(modalities, done):
    Path("conf").mkdir()
    Path("conf/diva.yaml").write_text(
        "data: ../images/images.npz\naggregate:\n  pool: [../pools/texts.npz, ../pools/sketches.npz]\n"
    )
    result = done("aggregate", "--config", "conf/diva.yaml", "--quiet")
    assert (result.stdout, result.stderr) == ("", "")
    assert list(report()["modalities"]) == ["texts", "sketches"]


def test_interrupted(modalities, run, monkeypatch):
    import divacli.curate.aggregate as module

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "aggregate", interrupt)
    result = run(*AGGREGATE)
    assert result.exit_code == 130
    assert not Path("diva-out").exists()


def test_pool_images_that_cannot_be_decoded_are_named(images, tmp_path, done, model):
    shutil.copytree(images, tmp_path / "there" / "photos")
    (tmp_path / "there/photos/a/broken.png").write_bytes(b"")
    done("aggregate", images, "--pool", "there/photos", *model)
    (failed,) = read("failed")["path"]
    assert Path("diva-out", failed).resolve() == (tmp_path / "there/photos/a/broken.png").resolve()
    assert len(read("selected")) + len(read("remaining")) == 36


@pytest.fixture
def texts(tmp_path):
    """A table of texts, two for each of the image folder's classes."""
    rows = [f"{word} {label},{label}" for label in "abc" for word in ("a cat", "one photo", "no dog")]
    (tmp_path / "texts.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    return "texts.csv"


def test_texts_by_clip(texts, images, clip_folder, done, own_cache):
    clip = ("--model", f"clip:{clip_folder}")
    done("aggregate", images, "--pool", texts, *clip, "--min-trust", "0")
    assert len(read("selected")) + len(read("remaining")) == 9
    kept = {file: file.stat().st_mtime_ns for file in own_cache.rglob("shard*")}
    assert len(kept) == 2
    done("aggregate", images, "--pool", texts, *clip, "--min-trust", "0", "--out", "again")
    assert {file: file.stat().st_mtime_ns for file in own_cache.rglob("shard*")} == kept
    for name in ("extended.csv", "remaining.csv", "features.npz"):
        assert Path("diva-out", name).read_bytes() == Path("again", name).read_bytes()
    table = pd.concat([read("selected"), read("remaining")])
    assert set(table["path"]) == {f"texts/{text}" for text in table["text"]}
    done("score", "diva-out/extended.csv", "--out", "scored")
    # A store of the images serves as well as the images.
    done("embed", images, *clip, "--out", "store")
    done("aggregate", "store", "--pool", texts, *clip, "--min-trust", "0", "--out", "stored")
    assert read("selected", "stored")["label"].tolist() == read("selected")["label"].tolist()


def test_texts_of_another_model_are_refused(texts, images, clip_folder, save_clip, tmp_path, done, run):
    other = save_clip(tmp_path / "other", seed=1)
    done("embed", images, "--model", f"clip:{other}", "--out", "store")
    message = refused(run("aggregate", "store", "--pool", texts, "--model", f"clip:{clip_folder}"))
    assert "texts.csv holds embeddings of another model" in message


def test_texts_need_a_network_that_embeds_them(texts, modalities, images, run, model, factory):
    message = refused(run("aggregate", "images/images.npz", "--pool", texts))
    assert "no network to embed texts with" in message
    assert "--model clip:NAME" in message
    assert "embeds images only" in refused(run("aggregate", images, "--pool", texts, *model))
    # Said before an image was embedded.
    assert not factory.with_suffix(".log").exists()
