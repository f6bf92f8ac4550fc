"""`diva extend`: what is chosen from a pool, what is written, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

FILES = [
    "extend.json",
    "extended.csv",
    "failed.csv",
    "history.csv",
    "remaining.csv",
    "run.json",
    "selected.csv",
]


def read(name: str, out: str = "diva-out") -> pd.DataFrame:
    text = {"path": str, "label": str, "reason": str, "predicted_label": str}
    return pd.read_csv(Path(out) / f"{name}.csv", dtype=text, keep_default_na=False)


def report(out: str = "diva-out") -> dict:
    return json.loads((Path(out) / "extend.json").read_text())


def text_of(result) -> str:
    return " ".join(result.stderr.replace("│", " ").split())


def refused(result, code: int = 1) -> str:
    assert result.exit_code == code, result.stderr
    assert "Traceback" not in result.stderr
    return text_of(result)


@pytest.fixture
def arrays(tmp_path):
    """Write Gaussian classes as an `.npz`, some labels wrong; every file has the same class means."""

    def write(name, n, seed, *, flips=0.0, classes=3, d=8, labelled=True, **more):
        generator = np.random.default_rng(seed)
        truth = np.arange(n) % classes
        centres = np.random.default_rng(99).normal(size=(5, d)) * 0.8
        features = (centres[truth] + generator.normal(size=(n, d))).astype(np.float32)
        wrong = generator.permutation(n) < round(flips * n)
        labels = np.where(wrong, (truth + generator.integers(1, classes, n)) % classes, truth)
        content = {"embedding": features, "path": np.array([f"{Path(name).stem}{i:03d}" for i in range(n)])}
        if labelled:
            content["label"] = labels
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        np.savez(file, **{**content, **more})
        return wrong

    return write


@pytest.fixture
def both(arrays, run):
    """A core of 30, and a pool of 80 in another folder with a third of its labels wrong: which are."""
    arrays("core/core.npz", 30, 1)
    return arrays("pool/pool.npz", 80, 2, flips=1 / 3)


EXTEND = ("extend", "core/core.npz", "--pool", "pool/pool.npz")


@pytest.fixture
def photos(images, tmp_path):
    """The core's and the pool's images in class folders, in two different parents."""
    for file in sorted(images.rglob("*.png")):
        folder = "core/photos" if int(file.stem) < 15 else "pool/more"
        target = tmp_path / folder / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, target)
    return tmp_path


def test_every_pool_sample_is_in_exactly_one_table(both, done):
    result = done(*EXTEND, "--budget", "25", "--refit-every", "4", "--by", "derivative")
    assert sorted(file.name for file in Path("diva-out").iterdir()) == FILES
    selected, remaining, extended = read("selected"), read("remaining"), read("extended")
    assert sorted([*selected["path"], *remaining["path"]]) == [f"pool{i:03d}" for i in range(80)]
    assert remaining["path"].is_monotonic_increasing
    assert selected.columns[:7].tolist() == [
        *("batch", "path", "label", "weight", "pool_derivative", "label_probability", "predicted_label")
    ]
    assert selected["batch"].tolist() == [1 + i // 4 for i in range(25)]
    assert (selected["pool_derivative"] < 0).all()
    assert (selected["label_probability"] >= 0.5).all()
    assert extended["path"].tolist() == [*(f"core{i:03d}" for i in range(30)), *selected["path"]]
    assert extended["origin"].tolist() == ["core"] * 30 + ["pool"] * 25
    history = read("history")
    assert history["batch"].tolist() == list(range(8))
    assert history["n_selected"].tolist() == [0, 4, 8, 12, 16, 20, 24, 25]
    content = report()
    assert (content["n_core"], content["n_pool"], content["n_selected"], content["n_failed"]) == (
        30,
        80,
        25,
        0,
    )
    assert content["stopped"] == "the budget was spent"
    assert content["loss"]["after"] == pytest.approx(history["loss"].iloc[-1])
    assert content["loss"]["after"] < content["loss"]["before"]
    assert "25 of 80 pool samples are chosen" in text_of(result)
    assert result.stdout == ""


def test_the_rule_is_told_and_can_be_named(both, done, run):
    result = done(*EXTEND, "--budget", "25", "--out", "auto")
    content = report("auto")
    assert content["rule"] in ("coreset", "balanced", "random")
    assert set(content["forecast"]["error"]) == {
        "nothing",
        "coreset",
        "balanced",
        "random, trusted",
        "random",
    }
    assert f"chosen by {content['rule']}: {content['why']}" in text_of(result)
    assert len(read("selected", "auto")) == 25
    for rule in ("coreset", "balanced", "random"):
        done(*EXTEND, "--budget", "25", "--by", rule, "--out", rule)
        assert (report(rule)["rule"], report(rule)["why"]) == (rule, "it was asked for")
    assert read("selected", content["rule"])["path"].tolist() == read("selected", "auto")["path"].tolist()
    assert "'--by'" in refused(run(*EXTEND, "--by", "best"), 2)


def test_the_first_is_the_most_useful_of_those_that_are_trusted(both, done):
    done(*EXTEND, "--budget", "1", "--by", "derivative")
    first, rest = read("selected").iloc[0], read("remaining")
    trusted = rest["label_probability"] >= 0.5
    assert not trusted.all()
    # Seen after the first was added, which moves derivatives a little and their order hardly.
    assert first["pool_derivative"] < rest["pool_derivative"][trusted].min() * 0.9


@pytest.mark.parametrize("form", ["csv", "jsonl", "parquet"])
def test_extended_is_data_also_from_another_folder(form, both, done, tmp_path, monkeypatch):
    done(*EXTEND, "--budget", "10", "--out", "deep/er/out", "--format", form)
    monkeypatch.chdir(tmp_path / "pool")
    table = f"../deep/er/out/extended.{form}"
    done("score", table, "--out", "scored")
    assert json.loads(Path("scored/summary.json").read_text())["n_samples"] == 40
    done("prune", table, "--keep", "0.5", "--out", "pruned")
    assert len(read("kept", "pruned")) == 20
    done(
        *("evaluate", "../core/core.npz", "--manifest", table, "--test", "pool.npz", "--learner", "ridge"),
        *("--seeds", "1", "--out", "judged"),
    )
    sizes = pd.read_csv("judged/evaluation.csv").set_index("training_set")["n_train"]
    assert sizes[table] == 40
    for name in ("selected", "remaining"):
        done("score", f"../deep/er/out/{name}.{form}", "--out", "again")


@pytest.mark.parametrize("kind", ["folders", "stores", "table and folder"])
def test_images_and_stores(kind, photos, done, model, monkeypatch):
    core, pool, network = "core/photos", "pool/more", model
    if kind == "stores":
        done("embed", core, *model, "--out", "core/store")
        done("embed", pool, *model, "--out", "pool/store")
        core, pool, network = "core/store", "pool/store", ()
    if kind == "table and folder":
        files = sorted(Path(core).rglob("*.png"))
        table = pd.DataFrame({"path": [str(f.relative_to("core")) for f in files]})
        table.assign(label=[f.parent.name for f in files]).to_csv("core/table.csv", index=False)
        core = "core/table.csv"
    done("extend", core, "--pool", pool, *network, "--budget", "6", "--min-trust", "0", "--out", "a/out")
    selected = read("selected", "a/out")
    assert 0 < len(selected) <= 6
    assert len(selected) + len(read("remaining", "a/out")) == 21
    monkeypatch.chdir(photos / "a")
    result = done("score", "out/extended.csv", *network)
    assert f"{15 + len(selected)} samples" in text_of(result)
    assert "0 embedded now" in text_of(result)
    found = [Path("diva-out", path).resolve() for path in read("scores")["path"]]
    assert len(set(found)) == len(found)
    assert all(file.exists() for file in found)


def test_what_cannot_be_decoded_is_in_failed(photos, done, model):
    (photos / "pool/more/a/broken.png").write_bytes(b"no image")
    (photos / "core/photos/b/broken.png").write_bytes(b"none either")
    done("extend", "core/photos", "--pool", "pool/more", *model, "--budget", "3", "--min-trust", "0")
    names = {"../core/photos/b/broken.png", "../pool/more/a/broken.png"}
    assert set(read("failed")["path"]) == names
    assert len(read("selected")) + len(read("remaining")) == 21
    assert report()["n_failed"] == 2


def test_a_budget_is_a_number_a_share_or_none(both, done):
    done(*EXTEND, "--budget", "7", "--out", "number")
    done(*EXTEND, "--budget", "10%", "--out", "share")
    done(*EXTEND, "--by", "derivative", "--out", "none")
    assert len(read("selected", "number")) == 7
    assert len(read("selected", "share")) == 8
    left = read("remaining", "none")
    assert 8 < len(read("selected", "none")) < 80
    assert set(left["reason"]) <= {"its label is not trusted", "it would raise the loss"}
    raising = left["reason"] == "it would raise the loss"
    assert (left["pool_derivative"][raising] >= 0).all()
    assert (left["label_probability"][~raising] < 0.5).all()
    assert report("none")["stopped"] == "no other one lowers the loss"
    assert "the budget was spent" in set(read("remaining", "number")["reason"])


@pytest.mark.parametrize("budget", ["0", "-3", "101%", "0%", "many", "2.5", "nan%", "inf"])
def test_a_budget_that_is_none(budget, both, run):
    assert f"--budget {budget}: expected a number" in refused(run(*EXTEND, f"--budget={budget}"), 2)


def test_no_trust_takes_wrong_labels_too(both, done):
    done(*EXTEND, "--budget", "80", "--out", "trusted")
    done(*EXTEND, "--budget", "80", "--min-trust", "0", "--out", "all")
    assert set(read("remaining", "all")["reason"]) <= {"it would raise the loss"}
    assert (read("selected", "all")["label_probability"] < 0.5).any()
    assert not (read("selected", "trusted")["label_probability"] < 0.5).any()


@pytest.mark.parametrize("kind", ["npz", "csv", "folder"])
def test_a_pool_without_labels(kind, both, arrays, photos, done, model):
    core, network = "core/core.npz", ()
    if kind == "npz":
        arrays("bare.npz", 80, 2, labelled=False)
        pool = "bare.npz"
    else:
        core, network, pool = "core/photos", model, "flat"
        Path("flat").mkdir()
        for file in Path("pool/more").rglob("*.png"):
            shutil.copy(file, "flat")
        if kind == "csv":
            pool = "flat/list.csv"
            names = sorted(file.name for file in Path("flat").iterdir())
            pd.DataFrame({"path": names}).to_csv(pool, index=False)
    result = done("extend", core, "--pool", pool, *network, "--budget", "9")
    selected, extended = read("selected"), read("extended")
    assert "pool_derivative" not in selected
    assert (selected["expected_derivative"] < 0).all()
    assert (selected["label"] == selected["predicted_label"]).all()
    assert (selected["label_source"] == "predicted").all()
    assert extended["label_source"].tolist() == [""] * (len(extended) - 9) + ["predicted"] * 9
    assert (read("remaining")["label"] == "").all()
    assert "the labels of the 9 chosen samples are predictions" in text_of(result)
    assert "the pool has no labels" in text_of(result)
    assert (report()["labelled"], report()["pool_noise"]) == (False, None)
    done("score", "diva-out/extended.csv", *network, "--out", "scored")


def test_no_label_of_a_pool_is_looked_at_where_none_is_wanted(arrays, run, done):
    arrays("core.npz", 30, 1)
    arrays("bare.npz", 60, 2, labelled=False)
    arrays("given.npz", 60, 2, flips=0.5, path=np.load("bare.npz")["path"])
    done("extend", "core.npz", "--pool", "bare.npz", "--budget", "12", "--out", "bare")
    arguments = ("extend", "core.npz", "--pool", "given.npz", "--budget", "12")
    done(*arguments, "--pool-labels", "none", "--out", "none")
    for name in ("selected", "remaining"):
        columns = ["path", "label", "expected_derivative", "predicted_label"]
        pd.testing.assert_frame_equal(read(name, "bare")[columns], read(name, "none")[columns])
    done(*arguments, "--out", "given")
    assert set(read("selected", "given")["path"]) != set(read("selected", "none")["path"])


def test_labels_that_the_core_lacks(arrays, run, done):
    arrays("core.npz", 30, 1)
    arrays("pool.npz", 60, 2, classes=4)
    done("extend", "core.npz", "--pool", "pool.npz", "--budget", "60", "--out", "core")
    left = read("remaining", "core").set_index("label")
    assert len(left.loc["3"]) == 15
    assert set(left.loc["3", "reason"]) == {"no sample that the choice is judged by has its label"}
    assert (left.loc["3", "pool_derivative"] == "").all()
    arrays("val.npz", 40, 3, classes=4)
    done("extend", "core.npz", "--pool", "pool.npz", "--val", "val.npz", "--budget", "60", "--out", "val")
    assert "3" in set(read("selected", "val")["label"])
    assert report("val")["judged_by"] == "validation set"
    assert read("history", "val")["error"].iloc[-1] < read("history", "val")["error"].iloc[0]
    arrays("odd.npz", 40, 3, classes=5)
    message = refused(run("extend", "core.npz", "--pool", "pool.npz", "--val", "odd.npz"))
    assert "odd.npz has labels that the training samples lack: 4" in message


def test_only_new_classes_are_refused(arrays, run):
    arrays("core.npz", 30, 1)
    arrays("pool.npz", 10, 2, label=np.array(["new"] * 10))
    message = refused(run("extend", "core.npz", "--pool", "pool.npz"))
    assert "none of 10 samples can be chosen: 10 because no sample that the choice is judged by" in message
    assert "--val" in message
    assert not Path("diva-out").exists()


def test_a_set_judges_no_sample_of_itself(arrays, run, done):
    arrays("core.npz", 30, 1)
    arrays("pool.npz", 60, 2)
    table = pd.DataFrame({"path": np.load("pool.npz")["path"], "label": np.load("pool.npz")["label"]})
    table.assign(feature_source="pool.npz").iloc[:20].to_csv("val.csv", index=False)
    done("extend", "core.npz", "--pool", "pool.npz", "--val", "val.csv")
    left = read("remaining").set_index("path")["reason"]
    assert set(left[table["path"][:20]]) == {"it is in the validation set already"}


def test_the_same_image_is_chosen_once(photos, done, model):
    original = Path("pool/more/a/018.png")
    for number in range(3):
        shutil.copy(original, f"pool/more/a/9{number}.png")
    shutil.copy("core/photos/b/001.png", "pool/more/b/001-again.png")
    arguments = ("--min-trust", "0", "--refit-every", "1")
    done("extend", "core/photos", "--pool", "pool/more", *model, *arguments)
    left = read("remaining").set_index("path")["reason"]
    assert left["../pool/more/b/001-again.png"] == "the same image is in the core"
    copies = [f"../pool/more/a/9{number}.png" for number in range(3)]
    assert set(left[copies]) == {"the same image stands above it in the pool"}


def test_samples_of_the_core_in_the_pool(arrays, run, done):
    arrays("all.npz", 60, 1)
    archive = np.load("all.npz")
    table = pd.DataFrame({"path": archive["path"], "label": archive["label"]})
    table.assign(feature_source="all.npz").iloc[:24].to_csv("core.csv", index=False)
    done("extend", "core.csv", "--pool", "all.npz")
    left = read("remaining").set_index("path")["reason"]
    assert set(left[table["path"][:24]]) == {"it is in the core already"}
    assert not set(read("selected")["path"]) & set(table["path"][:24])
    assert "60 because it is in the core already" in refused(run("extend", "all.npz", "--pool", "all.npz"))


def test_kin_of_the_core_is_not_chosen(arrays, run, done):
    arrays("core.npz", 30, 1, group=np.array([f"p{i // 2}" for i in range(30)]))
    groups = np.array([f"p{i}" if i < 20 else "" if i < 30 else f"q{i}" for i in range(60)])
    arrays("pool.npz", 60, 2, group=groups)
    done("extend", "core.npz", "--pool", "pool.npz")
    left = read("remaining").set_index("path")["reason"]
    kin = left == "its group is in the core, which would be judged by its own kin"
    assert set(left.index[kin]) == {f"pool{i:03d}" for i in range(15)}
    done("extend", "core.npz", "--pool", "pool.npz", "--group", "none", "--out", "none")
    assert {f"pool{i:03d}" for i in range(15)} & set(read("selected", "none")["path"])


def test_weights_of_the_pool(arrays, run, done):
    arrays("core.npz", 30, 1)
    weight = np.where(np.arange(60) % 2, 0.0, 2.5)
    arrays("pool.npz", 60, 2, weight=weight)
    done("extend", "core.npz", "--pool", "pool.npz", "--budget", "20")
    selected = read("selected")
    assert set(selected["weight"]) == {2.5}
    left = read("remaining")
    assert (left["reason"] == "its weight is 0").sum() == 30
    assert (left["weight"][left["reason"] == "its weight is 0"] == 0).all()
    assert set(read("extended")["weight"]) == {1, 2.5}


def test_a_pool_of_one_class(arrays, run, done):
    arrays("core.npz", 30, 1)
    arrays(
        "pool.npz", 20, 2, label=np.array([2] * 20), embedding=np.load("core.npz")["embedding"][2:22] + 0.3
    )
    done("extend", "core.npz", "--pool", "pool.npz", "--min-trust", "0")
    assert set(read("selected")["label"]) <= {"2"}
    assert len(read("selected")) + len(read("remaining")) == 20


def test_images_beside_embeddings_are_refused_before_any_work(both, photos, run, model, factory):
    message = refused(run("extend", "core/photos", "--pool", "pool/pool.npz", *model))
    assert "pool/pool.npz brings its features and core/photos does not" in message
    assert "diva embed" in message
    message = refused(run("extend", "core/core.npz", "--pool", "pool/more", *model))
    assert "core/core.npz brings its features and pool/more does not" in message
    assert not factory.with_suffix(".log").exists()


def test_features_that_do_not_fit_are_refused(both, arrays, photos, done, run, factory):
    arrays("wide.npz", 20, 3, d=9)
    assert "wide.npz has 9 features a sample" in refused(run("extend", "core/core.npz", "--pool", "wide.npz"))
    done("embed", "core/photos", "--model", f"{factory}:make", "--out", "a")
    done("embed", "pool/more", "--model", f"{factory}:make", "--layer", "hidden", "--out", "b")
    assert "b " in refused(run("extend", "a", "--pool", "b"))
    assert "does not exist" in refused(run("extend", "core/core.npz", "--pool", "nowhere"))
    assert "only one of DATA" in refused(run("extend", "-", "--pool", "-"), 2)
    message = refused(
        run(
            "extend",
            "core/photos",
            "--pool",
            "pool/more",
            "--around-head",
            *("--model", f"{factory}:make_five"),
        )
    )
    assert "--around-head" in message


@pytest.mark.parametrize(
    "options",
    [
        ("--loss", "robust-cross-entropy"),
        ("--ridge", "3"),
        ("--validation", "balanced"),
        ("--scaling", "none"),
    ],
)
def test_options_of_the_problem(options, both, done):
    archive = np.load("core/core.npz")
    uneven = (archive["label"] > 0) | (np.arange(30) < 9)
    np.savez("core/core.npz", **{name: array[uneven] for name, array in archive.items()})
    arguments = (*EXTEND, "--budget", "20", "--by", "derivative")
    done(*arguments, "--out", "plain")
    done(*arguments, "--out", "other", *options)
    plain, other = read("selected", "plain"), read("selected", "other")
    assert len(plain) == len(other) == 20
    assert plain["pool_derivative"].tolist() != other["pool_derivative"].tolist()
    if options[0] == "--ridge":
        assert set(read("history", "other")["ridge"]) == {3}
    if options[1] == "balanced":
        # The rare class counts for more.
        assert (other["label"] == "0").sum() > (plain["label"] == "0").sum()


def test_of_a_pool_with_half_of_its_labels_wrong_the_right_ones_are_chosen(arrays, run, done):
    arrays("core.npz", 30, 1)
    wrong = arrays("pool.npz", 300, 2, flips=0.5)
    arrays("test.npz", 600, 3)
    done("extend", "core.npz", "--pool", "pool.npz", "--budget", "100")
    rows = read("selected")["path"].str.removeprefix("pool").astype(int).to_numpy()
    assert wrong[rows].mean() < 0.25
    archive = np.load("pool.npz")
    everything = read("extended").iloc[:30][["path", "label"]].assign(feature_source="core.npz")
    pool = pd.DataFrame({"path": archive["path"], "label": archive["label"], "feature_source": "pool.npz"})
    pd.concat([everything, pool]).to_csv("everything.csv", index=False)
    size = 30 + len(rows)
    done(
        *("evaluate", "everything.csv", "--manifest", "diva-out/extended.csv", "--test", "test.npz"),
        *("--learner", "ridge", "--seeds", "3", "--out", "judged"),
    )
    errors = pd.read_csv("judged/evaluation.csv").groupby("training_set")["test_error"].mean()
    assert errors["diva-out/extended.csv"] < errors[f"random {size}"]
    assert errors["diva-out/extended.csv"] < errors["everything"]


def test_order_and_batch_size_change_nothing(both, done, photos, model):
    done(*EXTEND, "--budget", "20", "--out", "plain")
    generator = np.random.default_rng(5)
    for name in ("core/core", "pool/pool"):
        archive = np.load(f"{name}.npz")
        order = generator.permutation(len(archive["label"]))
        np.savez(f"{name}2.npz", **{key: value[order] for key, value in archive.items()})
    done("extend", "core/core2.npz", "--pool", "pool/pool2.npz", "--budget", "20", "--out", "moved")
    pd.testing.assert_frame_equal(
        read("selected", "plain").drop(columns="feature_source"),
        read("selected", "moved").drop(columns="feature_source"),
        rtol=1e-4,
    )
    arguments = ("extend", "core/photos", "--pool", "pool/more", *model, "--min-trust", "0")
    for size in (1, 7):
        done(*arguments, "--batch-size", str(size), "--cache-dir", f"cache{size}", "--out", f"by{size}")
    for name in set(FILES) - {"extend.json", "run.json"}:
        assert (Path("by1") / name).read_bytes() == (Path("by7") / name).read_bytes()


def test_the_main_table_alone_goes_to_standard_output(both, done):
    result = done(*EXTEND, "--budget", "5", "--out", "-")
    assert len(result.stdout.splitlines()) == 36
    assert not Path("diva-out").exists()
    again = done("score", "-", "--out", "-", stdin=result.stdout)
    assert len(again.stdout.splitlines()) == 36
    core = done("extend", "-", "--pool", "pool/pool.npz", "--budget", "5", "--out", "-", stdin=result.stdout)
    assert len(core.stdout.splitlines()) == 41


def test_quiet(both, done):
    result = done(*EXTEND, "--quiet", "--budget", "5")
    assert (result.stdout, result.stderr) == ("", "")


def test_interrupted(both, run, monkeypatch):
    import divacli.curate.extend as module

    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "extend", interrupt)
    result = run(*EXTEND)
    assert result.exit_code == 130
    assert "Traceback" not in result.stderr
    assert not Path("diva-out").exists()


def test_the_pool_may_be_named_in_a_file(both, done):
    Path("conf").mkdir()
    Path("conf/diva.yaml").write_text(
        "data: ../core/core.npz\nextend:\n  pool: ../pool/pool.npz\n  budget: 10%\n  refit-every: 3\n"
    )
    done("extend", "--config", "conf/diva.yaml")
    assert (report()["n_selected"], report()["refit_every"]) == (8, 3)
    done("extend", "--config", "conf/diva.yaml", "--budget", "4", "--out", "flag")
    assert report("flag")["n_selected"] == 4


def test_the_sample_configuration_names_options_only(run):
    sample = Path(__file__).parents[2] / "sample_configs" / "extend.yaml"
    assert "nowhere does not exist" in refused(run("extend", "nowhere", "--config", sample))


def test_an_extended_set_is_extended_again(both, done):
    """Columns of the first run are neither kept as if they were the user's, nor in the way."""
    done(*EXTEND, "--budget", "10", "--out", "one")
    done("extend", "one/extended.csv", "--pool", "one/remaining.csv", "--budget", "10", "--out", "two")
    assert len(read("extended", "two")) == 50
    assert read("extended", "two")["path"].is_unique
    assert read("remaining", "two").columns.tolist() == read("remaining", "one").columns.tolist()


@pytest.mark.parametrize("chosen", ["extra", "all"])
def test_a_pool_that_is_a_split_of_data(chosen, arrays, done):
    split = np.where(np.arange(160) < 60, "train", "extra")
    arrays("all.npz", 160, 1, split=split)
    done("extend", "all.npz", "--split", "train", "--pool", "all.npz", "--pool-split", chosen, "--budget", 5)
    pool = {"extra": 100, "all": 160}[chosen]
    assert report()["n_core"] == 60
    assert len(read("selected")) + len(read("remaining")) == report()["n_pool"] == pool
