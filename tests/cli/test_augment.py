"""`diva augment`: what is written, what a snippet does, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml
from PIL import Image, ImageOps
from torchvision.transforms import v2

FILES = ["augment.json", "augmentation.yaml", "failed.csv", "run.json"]

OWN = """
from PIL import ImageOps

def mirrored(image):
    return ImageOps.mirror(image)

def picky(image):
    if image.getpixel((0, 0))[0] > {limit}:
        raise ValueError("too red")
    return ImageOps.mirror(image)
"""


def text_of(result) -> str:
    return " ".join(result.stderr.replace("│", " ").split())


def document(out: str = "diva-out") -> dict:
    return yaml.safe_load((Path(out) / "augmentation.yaml").read_text())


def report(out: str = "diva-out") -> dict:
    return json.loads((Path(out) / "augment.json").read_text())


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A file of transforms, in a folder that Python imports from; the second fails above a limit."""

    def write(limit: int = 255) -> None:
        (tmp_path / "own_transforms.py").write_text(OWN.format(limit=limit))
        monkeypatch.syspath_prepend(str(tmp_path))

    return write


def test_the_files_and_what_they_say(more_images, model, done):
    result = done("augment", more_images, *model, "--transform", "invert", "--transform", "hflip")
    assert sorted(file.name for file in Path("diva-out").iterdir()) == FILES
    found = document()
    assert [entry["name"] for entry in found["transforms"]] == ["invert", "hflip"]
    invert, hflip = (entry["probability"] for entry in found["transforms"])
    assert found["untouched"] + invert + hflip == pytest.approx(1, abs=1e-12)
    # The colour is all there is of a class.
    assert invert < min(hflip, found["untouched"])
    summary = report()
    rows = {row["transform"]: row for row in summary["transforms"]}
    assert [*rows] == ["untouched", "invert", "hflip"]
    assert rows["invert"]["derivative"] > 0
    assert rows["hflip"]["probability"] == pytest.approx(hflip, abs=1e-4)
    assert (summary["loss"], summary["n_samples"], summary["step_size"]) == ("robust-cross-entropy", 70, None)
    assert {"ridge", "before", "after", "held_out", "trials", "fingerprint", "versions"} < summary.keys()
    assert len(pd.read_csv("diva-out/failed.csv")) == 0
    said = text_of(result)
    assert "invert" in said
    assert "positive is harmful" in said
    assert "the probabilities were fitted to these" in said
    assert [*summary["forecast"]["error"]] == ["nothing", "augmenting", "equal", "random"]
    assert summary["forecast"]["chosen"] == "augmenting"
    assert "the error on new images" in said
    assert "wrote failed.csv, augment.json, augmentation.yaml in diva-out" in said
    assert result.stdout == ""


def test_the_yaml_alone_goes_to_standard_output(images, model, done):
    arguments = ("augment", images, *model, "--transform", "hflip", "--quiet")
    result = done(*arguments, "--out", "-")
    done(*arguments, "--out", "there")
    assert result.stdout == (Path("there") / "augmentation.yaml").read_text()
    assert not Path("diva-out").exists()


def test_a_second_run_embeds_nothing_and_writes_the_same(images, model, done):
    arguments = ("augment", images, *model, "--transform", "rotate:15", "--transform", "hflip")
    for out, embedded in (("one", 3 * 36), ("two", 0)):
        done(*arguments, "--out", out)
        assert report(out)["n_embedded"] == embedded
    assert Path("one/augmentation.yaml").read_bytes() == Path("two/augmentation.yaml").read_bytes()
    # Another angle for each image; a flip is a flip.
    done(*arguments, "--seed", "3", "--out", "three")
    assert report("three")["n_embedded"] == 36


def test_the_snippet_runs(images, model, own, done):
    own()
    result = done(
        *("augment", images, *model, "--step-size", "0.01"),
        *("--transform", "rotate:15", "--transform", "own_transforms.py:mirrored"),
        *("--transform", "colorjitter:0.5"),
    )
    namespace: dict = {}
    exec(document()["snippet"], namespace)
    made = namespace["augmentation"]
    assert isinstance(made, v2.RandomChoice)
    kinds = [type(one).__name__ for one in made.transforms]
    assert kinds == ["Identity", "RandomRotation", "function", "ColorJitter"]
    written = [document()["untouched"], *(entry["probability"] for entry in document()["transforms"])]
    assert made.p == pytest.approx(written)
    assert len(set(written)) > 1
    assert report()["sizes"] == [0.01]
    assert report()["trials"] is None
    assert "left-out images" not in result.stderr


def test_the_snippet_of_two_files_with_one_name(tmp_path, monkeypatch, images, model, done):
    for name, does in (("left_right", "mirror"), ("parts/up_down", "flip")):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            f"from PIL import ImageOps\n\n\ndef change(image):\n    return ImageOps.{does}(image)\n"
        )
        monkeypatch.syspath_prepend(str(path.parent))
    transforms = ["left_right.py:change", "parts/up_down.py:change"]
    done("augment", images, *model, "--step-size", "0.01", *(f"--transform={one}" for one in transforms))
    code = document()["snippet"]
    assert code.splitlines()[:2] == [
        "# left_right.py must be importable: beside your script, or in a folder of PYTHONPATH",
        "# parts/up_down.py must be importable: beside your script, or in a folder of PYTHONPATH",
    ]
    namespace: dict = {}
    exec(code, namespace)
    image = Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    made = [one(image).tobytes() for one in namespace["augmentation"].transforms[1:]]
    assert made == [ImageOps.mirror(image).tobytes(), ImageOps.flip(image).tobytes()]
    assert [entry["code"] for entry in document()["transforms"]] == ["change", "change_2"]


def test_files_of_one_name_cannot_both_be_imported(tmp_path, images, model, own, run):
    own()
    (tmp_path / "more").mkdir()
    (tmp_path / "more/own_transforms.py").write_text(OWN.format(limit=200))
    transforms = ["own_transforms.py:mirrored", "more/own_transforms.py:picky"]
    result = run("augment", images, *model, *(f"--transform={one}" for one in transforms))
    assert result.exit_code == 2
    assert "would both be imported as own_transforms" in text_of(result)


@pytest.mark.parametrize("command", [("augment", "--transform", "talking.py:change"), ("score",)])
def test_what_files_print_is_not_in_the_output(tmp_path, images, factory, done, command):
    said = "print('hello from the file')\n"
    (tmp_path / "talking.py").write_text(
        f"from PIL import ImageOps\n{said}\n\ndef change(image):\n    {said}"
        "    return ImageOps.mirror(image)\n"
    )
    factory.write_text(factory.read_text().replace("def make():\n", f"{said}\ndef make():\n    {said}"))
    name, *more = command
    result = done(name, images, "--model", f"{factory}:make", *more, "--workers", "0", "-q", "-o", "-")
    assert "hello" not in result.stdout
    assert "hello from the file" in result.stderr
    assert result.stdout


def test_every_note_is_told_once(images, model, own, done):
    own()
    transforms = ["own_transforms.py:mirrored", "own_transforms.py:picky", "hflip"]
    said = text_of(done("augment", images, *model, *(f"--transform={one}" for one in transforms)))
    assert said.count("is run for its factory") == 1
    assert said.count("own_transforms.py is run for its transform") == 1
    quiet = done("augment", images, *model, *(f"--transform={one}" for one in transforms), "--quiet")
    assert "is run" not in quiet.stderr


def test_images_without_a_copy_are_listed(images, model, own, done):
    own(limit=120)
    result = done("augment", images, *model, "--transform", "own_transforms.py:picky", "--transform", "hflip")
    failed = pd.read_csv("diva-out/failed.csv")
    assert 0 < len(failed) < 36
    assert failed["reason"].unique().tolist() == [
        "transform own_transforms.py:picky fails: ValueError: too red"
    ]
    said = text_of(result)
    assert f"{len(failed)} images have no copy by own_transforms.py:picky and stay as they are" in said
    assert "left out, the first" not in said
    copies = {row["transform"]: row["copies"] for row in report()["transforms"]}
    assert copies == {"untouched": 36, "own_transforms.py:picky": 36 - len(failed), "hflip": 36}


def test_a_configuration_with_a_list(images, model, done):
    Path("c.yaml").write_text(
        f"data: {images}\nmodel: {model[1]}\naugment:\n  transform: [hflip, 'rotate:15']\n  step-size: 0.1\n"
    )
    done("augment", "--config", "c.yaml")
    assert [entry["name"] for entry in document()["transforms"]] == ["hflip", "rotate:15"]


def test_transforms_of_ones_own_lie_beside_the_configuration(images, model, own, done):
    own()
    Path("set").mkdir()
    Path("own_transforms.py").rename("set/own_transforms.py")
    Path("set/c.yaml").write_text(
        "augment:\n  transform: [hflip, own_transforms.py:picky]\n  step-size: 0.1\n"
    )
    done("augment", images, *model, "--config", "set/c.yaml")
    assert document()["transforms"][1]["name"].endswith("set/own_transforms.py:picky")


def test_a_validation_set_of_its_own(images, more_images, model, done):
    arguments = ("augment", images, *model, "--transform", "invert", "--step-size", "0.1")
    done(*arguments, "--out", "loo")
    done(*arguments, "--val", more_images, "--out", "val")
    values = [report(out)["transforms"][1]["derivative"] for out in ("loo", "val")]
    assert [report(out)["judged_by"] for out in ("loo", "val")] == [
        "untouched images, left out",
        "validation set",
    ]
    # Of a sum over 70 images in the place of 36.
    assert values[0] > 0
    assert values[1] > values[0]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((), "Missing option '--transform'"),
        (("--transform", "hflip", "--transform", "hflip"), "the same as hflip"),
        (("--transform", "rotate:15", "--transform", "rotate:15.0"), "the same as rotate:15"),
        (("--transform", "hflip", "--transform", "RandomHorizontalFlip:1.0"), "the same as hflip"),
        (("--transform", "hflip", "--step-size", "0"), "expected auto or a number above 0"),
    ],
)
def test_wrong_usage(images, model, run, arguments, said):
    result = run("augment", images, *model, *arguments)
    assert result.exit_code == 2
    assert said in text_of(result)
    assert not Path("diva-out").exists()


def test_a_transform_that_is_none(images, model, run):
    result = run("augment", images, *model, "--transform", "hflop")
    assert result.exit_code == 1
    assert "no transform is called 'hflop'" in text_of(result)
    assert "near ones: hflip" in text_of(result)
    assert not Path("diva-out").exists()


def test_a_transform_that_fails_on_every_image(images, model, own, run):
    own(limit=-1)
    # What is tried first is an image of noise, which it also fails on.
    result = run("augment", images, *model, "--transform", "own_transforms.py:picky")
    assert result.exit_code == 1
    assert "too red" in text_of(result)
    (Path("own_transforms.py")).write_text(
        "from PIL import ImageOps\n\ndef large(image):\n"
        "    if image.width < 100:\n        raise ValueError('too small')\n"
        "    return ImageOps.mirror(image)\n"
    )
    result = run("augment", images, *model, "--transform", "own_transforms.py:large")
    assert result.exit_code == 1
    assert "transform own_transforms.py:large fails on every image, the first: a/000.png" in text_of(result)
    assert "transform own_transforms.py:large fails: ValueError: too small" in text_of(result)
    assert "Pillow" not in text_of(result)
    assert not Path("diva-out").exists()


def test_features_have_no_images_to_transform(blobs, run):
    data = blobs("data.npz", n=30, d=4)
    result = run("augment", data.file, "--transform", "hflip")
    assert result.exit_code == 1
    assert "brings its features: there are no images" in text_of(result)


def test_equal_probabilities_where_nothing_can_be_told(tmp_path, images_table, model, done):
    table = images_table.assign(label=np.random.default_rng(0).permutation(images_table["label"]))
    table.to_csv("random.csv", index=False)
    result = done("augment", "random.csv", *model, "--transform", "hflip", "--transform", "vflip")
    rows = report()["transforms"]
    assert report()["sizes"] == []
    assert [row["probability"] for row in rows] == pytest.approx([1 / 3] * 3)
    assert "by more than two standard errors of that gain: they stay equal" in text_of(result)
