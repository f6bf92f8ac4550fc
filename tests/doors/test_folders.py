"""Folders as people have them: splits and domains, tables beside images, droppings, masks, odd suffixes."""

from __future__ import annotations

import warnings

import pytest
from PIL import Image

from divacli.errors import DataError
from divacli.manifest import read_manifest
from divacli.reading import Reading
from tests.doors.kinds import KINDS, advised, classes_in, ids, put, write_table

SPLITS = [
    (("train", "val", "test"), "train"),
    (("Training", "Testing"), "Training"),
    (("TRAIN", "TEST"), "TRAIN"),
    (("seg_train", "seg_test"), "seg_train"),
    (("train2017", "val2017"), "train2017"),
    (("training_set", "test_set"), "training_set"),
    (("train-images", "valid-images"), "train-images"),
    (("amazon/images", "dslr/images", "webcam/images"), "amazon"),
    (("fold1", "fold2", "fold3"), "fold1"),
    (("2021", "2022"), "2021"),
]


@pytest.mark.parametrize(("names", "first"), SPLITS)
def test_splits_and_domains_are_no_classes(names, first, tmp_path, followed):  # D1
    put(tmp_path / "data", classes_in(*names))
    assert followed("data", has=f"--split {first}") == (12, 3)


@pytest.mark.parametrize("data", ["data", "./data", "data/", "../here/data"])
def test_the_folder_stays_as_it_was_typed(data, tmp_path, monkeypatch, followed):
    put(tmp_path / "here" / "data", classes_in("train", "test"))
    monkeypatch.chdir(tmp_path / "here")
    assert followed(data, has=f"score {data} ") == (12, 3)


def test_names_that_a_shell_takes_apart(tmp_path, followed):
    put(tmp_path / "my 'best' data $1", classes_in("train set", "test set"))
    assert followed("my 'best' data $1", has="--split train set") == (12, 3)


@pytest.mark.parametrize(
    ("chosen", "size"),
    [
        (("train",), (12, 3)),
        (("TRAIN",), (12, 3)),
        (("val", "test"), (24, 3)),
        (("all",), (36, 3)),
        (("train", "train"), (12, 3)),
    ],
)
def test_splits_are_chosen(chosen, size, tmp_path, scored):
    put(tmp_path / "data", classes_in("train", "val", "test"))
    assert scored("data", *(word for name in chosen for word in ("--split", name))) == size


def test_a_split_that_is_not_there_is_named_with_those_that_are(tmp_path, refused):
    put(tmp_path / "data", classes_in("train", "val"))
    message = refused("data", "--split", "valid")
    assert "data has no split valid\n" in message
    assert "train (12), val (12)" in message


def test_splits_inside_of_classes(tmp_path, followed):
    put(
        tmp_path / "data", {f"{k}/{s}/{n}.png": k for k in KINDS for s in ("train", "test") for n in range(4)}
    )
    assert followed("data", has="--split train") == (12, 3)


def test_splits_inside_of_classes_beside_other_folders(tmp_path, followed):
    folders = ("train", "test", "extra")
    put(tmp_path / "data", {f"{k}/{s}/{n}.png": k for k in KINDS for s in folders for n in range(4)})
    assert followed("data", has="--split train") == (12, 3)


def test_validation_samples_that_are_trained_on_are_told_of(tmp_path, run, model):
    put(tmp_path / "data", classes_in("train", "val"))
    for split, told in {"train": True, "val": False}.items():
        options = ("--split", "train", "--val-split", split, "--workers", "0", "--out", "scored")
        result = run("score", "data", *options, *model)
        assert result.exit_code == 0, result.stderr
        assert ("12 of the 12 validation samples are also in data" in " ".join(result.stderr.split())) == told


def test_a_pool_is_no_test_set(tmp_path, refused, run, model):
    put(tmp_path / "data", classes_in("train", "val", "test"))
    options = ("--split", "train", "--pool", "data", "--workers", "0", "--out", "more")
    result = run("extend", "data", *options, *model)
    assert result.exit_code == 1
    assert "--pool-split val" in " ".join(result.stderr.split())


def test_splits_of_unlike_classes(tmp_path, followed):
    train = classes_in("train", kinds=[f"k{n}" for n in range(10)], n=2)
    put(tmp_path / "data", train | classes_in("test", kinds=[f"k{n}" for n in range(9)], n=1))
    assert followed("data", has="--split train") == (20, 10)


def test_classes_that_merely_share_folders(tmp_path, refused, scored):
    put(tmp_path / "data", {f"{k}/{s}/{n}.png": k for k in KINDS for s in ("day", "night") for n in range(4)})
    message = refused("data")
    assert "or --split none, where they are classes with the same folders in each" in message
    assert scored("data", "--split", "none") == (24, 3)


def test_a_folder_around_all_others(tmp_path, followed):
    put(tmp_path / "data", classes_in("inner"))
    assert followed("data", has="score data/inner ") == (12, 3)


@pytest.mark.parametrize("around", ["archive", "archive/archive"])
def test_a_folder_around_splits(around, tmp_path, followed):
    put(tmp_path / "data", classes_in(f"{around}/Training", f"{around}/Testing"))
    assert followed("data", has=f"score data/{around} ") == (12, 3)


def test_one_split_alone(tmp_path, followed):
    put(tmp_path / "data", classes_in("train"))
    assert followed("data", has="--split train") == (12, 3)


def test_splits_of_imagefolder(tmp_path, followed, from_python):
    for split, n in {"train": 12, "test": 6}.items():
        labels = {f"{name}.png": kind for name, kind in ids(n).items()}
        put(tmp_path / "data" / split, labels)
        write_table(tmp_path / "data" / split / "metadata.csv", ("file_name", "label"), labels.items())
    assert followed("data", has="--split train") == (12, 3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # the images of the other split are not missing in the table
        assert from_python("data") == (12, 3)


def test_folders_without_splits_have_none_to_choose(tmp_path, refused):
    put(tmp_path / "data", classes_in(""))
    message = refused("data", "--split", "train")
    assert "data has no splits: its folders are cat, dog, owl" in message
    assert "leave --split out" in message


@pytest.fixture
def release(tmp_path):
    """Two folders of images and a table that names them."""
    rows = []
    for number, (name, kind) in enumerate(ids(24).items()):
        put(tmp_path / "ham", {f"part_{1 + number % 2}/{name}.png": kind}, seed=number)
        rows.append((f"lesion{number // 2:02d}", name, kind, 30 + number))
    return write_table(tmp_path / "ham" / "metadata.csv", ("lesion_id", "image_id", "dx", "age"), rows)


def test_a_table_beside_folders_tells_the_classes(release, refused, followed):  # D3
    message = refused("ham")
    assert "column image_id of metadata.csv names 24 of 24 images" in message
    assert followed("ham", has="--path-column image_id --label-column dx --root ham --group lesion_id") == (
        24,
        3,
    )


def test_the_folders_beside_a_table_may_be_meant(release, scored):
    assert scored("ham", "--exclude", "metadata.csv") == (24, 2)


def test_a_table_that_agrees_with_the_folders_is_no_question(tmp_path, scored):
    labels = classes_in("")
    put(tmp_path / "data", labels)
    write_table(tmp_path / "data" / "labels.csv", ("image", "class"), labels.items())
    assert scored("data") == (12, 3)


def test_a_table_with_the_usual_columns_that_contradicts_the_folders(tmp_path, followed, scored):
    labels = classes_in("")
    put(tmp_path / "data", labels)
    rows = [(path, kind if n % 2 else "dog") for n, (path, kind) in enumerate(labels.items())]
    write_table(tmp_path / "data" / "labels.csv", ("path", "label"), rows)
    assert followed("data", has="data/labels.csv") == (12, 3)
    write_table(tmp_path / "data" / "labels.csv", ("path", "label"), labels.items())
    assert scored("data") == (12, 3)


def test_a_table_about_something_else_is_no_question(tmp_path, scored):
    put(tmp_path / "data", classes_in(""))
    write_table(tmp_path / "data" / "prices.csv", ("thing", "price"), [("tea", 3), ("milk", 1)])
    assert scored("data") == (12, 3)


def test_equal_labels_are_told_of(tmp_path):  # D5
    rows = [
        (f"{n}.png", label)
        for n, label in enumerate(["1", "01", "Cat", "cat", "dog", "dog ", "é", "e\u0301"])
    ]
    file = write_table(tmp_path / "table.csv", ("path", "label"), rows)
    [said] = [one for one in read_manifest(str(file)).warnings if "count as different" in one]
    for pair in ("'01' / '1'", "'Cat' / 'cat'", "'dog' / 'dog '", "'e\\u0301' / "):
        assert pair in said


def test_droppings_are_passed_over(tmp_path, looked):  # D7
    droppings = {f"{kind}/@eaDir/{kind}.jpg/thumb{n}.jpg": kind for kind in KINDS for n in range(3)}
    put(
        tmp_path / "data",
        classes_in("") | droppings | {"__MACOSX/cat/1.png": "cat", "#recycle/dog/2.png": "dog"},
    )
    found = looked("data")
    assert found["n_samples"] == 12
    assert "5 folders that systems leave behind" in found["shown"]


def test_masks_are_told_of_and_excluded(tmp_path, looked, scored):  # D8
    put(
        tmp_path / "data",
        {f"{k}/{s}/{n}.png": k for k in KINDS for s in ("images", "masks") for n in range(4)},
    )
    found = looked("data")
    assert found["n_samples"] == 24
    assert "images (12), masks (12). --exclude '*/masks/*' leaves one of them out" in found["shown"]
    assert scored("data", "--exclude", "*/masks/*") == (12, 3)
    assert scored("data", "--exclude", "masks") == (12, 3)
    assert scored("data", "--exclude", "*/masks") == (12, 3)


@pytest.mark.parametrize(("pattern", "n"), [("*.jpg", 12), ("cat", 12), ("dog/*-0.png", 17), ("./cat/", 12)])
def test_patterns_exclude_by_name_and_by_path(pattern, n, tmp_path):
    more = {f"{kind}/{n}.jpg": kind for kind in KINDS for n in range(2)}
    put(tmp_path / "data", classes_in("") | more)
    found = read_manifest(str(tmp_path / "data"), labels="optional", reading=Reading(exclude=(pattern,)))
    assert len(found.table) == n
    assert any("are excluded" in note for note in found.notes)


def test_a_pattern_that_excludes_nothing_is_told(tmp_path):
    put(tmp_path / "data", classes_in(""))
    write_table(
        tmp_path / "table.csv", ("path", "label"), [(f"data/{p}", k) for p, k in classes_in("").items()]
    )
    for data in ("data", "table.csv"):
        found = read_manifest(str(tmp_path / data), reading=Reading(exclude=("*/nothing/*", "maskz")))
        assert any(
            "nothing is excluded by */nothing/*, maskz" in said for said in (*found.notes, *found.warnings)
        )


def test_metadata_that_leave_images_out(tmp_path, run, model, scored):  # D9
    labels = {f"{name}.png": kind for name, kind in ids(24).items()}
    put(tmp_path / "data", labels)
    write_table(tmp_path / "data" / "metadata.csv", ("file_name", "label"), list(labels.items())[:12])
    result = run("score", "data", *model, "--workers", "0", "--out", "scored", "--strict")
    assert result.exit_code == 1
    assert "does not list 12 images of its folder" in " ".join(result.stderr.split())
    assert scored("data") == (12, 3)


def test_content_decides_and_not_the_suffix(tmp_path, scored):  # D10
    put(
        tmp_path / "data",
        {
            f"{kind}/{n}{suffix}": kind
            for kind, suffix in zip(KINDS, ("", ".png", ".img"), strict=True)
            for n in range(4)
        },
    )
    assert scored("data") == (12, 3)


def test_formats_that_are_not_read_are_named(tmp_path, looked):
    put(tmp_path / "data", classes_in(""))
    for number in range(3):
        (tmp_path / "data" / "cat" / f"{number}.psd").write_bytes(b"8BPS\0\1" + bytes(60))
    found = looked("data")
    assert "Photoshop" in found["shown"] or "PSD" in found["shown"]


def test_heic_is_read_with_its_extra(tmp_path, scored):
    heif = pytest.importorskip("pillow_heif", reason="the extra heic is not installed")
    put(tmp_path / "data", classes_in("", kinds=("cat", "dog")))
    for number in range(4):
        file = tmp_path / "data" / "owl" / f"IMG_{number}.HEIC"
        file.parent.mkdir(exist_ok=True)
        heif.from_pillow(Image.new("RGB", (64, 64), (200, 30 * number, 0))).save(file)
    assert scored("data") == (12, 3)


def test_several_labels_of_a_path_are_refused(tmp_path):  # D11
    rows = [("a.png", "cat"), ("a.png", "dog"), ("b.png", "cat")]
    file = write_table(tmp_path / "votes.csv", ("path", "label"), rows)
    with pytest.raises(DataError, match="the same path more than once") as caught:
        read_manifest(str(file))
    assert "diva votes" in caught.value.hint


@pytest.mark.parametrize(
    "name", ["{kind}.{n}.png", "{kind}_{n}.png", "{kind}-{n:03d}.png", "{kind}{n}.png", "{n:04d}-{kind}.png"]
)
def test_labels_in_the_names_of_files(name, tmp_path, followed):  # T8
    put(tmp_path / "flat", {name.format(kind=kind, n=n): kind for kind in KINDS for n in range(4)})
    assert followed("flat", has="--label-from") == (12, 3)


def flat(*splits: str) -> dict[str, str]:
    return {f"{split}/{kind}.{n}.png": kind for split in splits for kind in KINDS for n in range(4)}


def test_splits_without_class_folders(tmp_path, followed, refused, scored):  # D1 and T8
    put(tmp_path / "root", flat("train", "val") | {f"test1/{n}.png": "cat" for n in range(5)})
    assert followed("root", has="--split train") == (12, 3)
    assert followed("root", "--split", "val", has="--split val") == (12, 3)
    pattern = ("--label-from", r"^([a-z]+)\.")
    assert scored("root", *pattern, "--split", "train", "--split", "val") == (24, 3)
    assert "has 3 splits: test1 (5), train (12), val (12)" in refused("root", *pattern)
    assert "has no splits" in refused("root/train", *pattern, "--split", "train")
    assert scored("root", "--split", "none") == (29, 3)


def test_splits_with_nothing_that_tells_classes(tmp_path, refused, looked):
    put(tmp_path / "root", {f"images/{split}/{n}.png": "cat" for split in ("train", "val") for n in range(5)})
    for data in ("root", "root/images"):
        message = refused(data)
        assert "splits" in message
        assert "to do: diva" not in message
    found = looked("root/images")
    assert (found["n_samples"], found["n_classes"], found["splits"]) == (10, 0, {"train": 5, "val": 5})


def test_a_folder_whose_name_begins_as_an_option(tmp_path, run, model):
    put(tmp_path / "-data", classes_in("train", "test"))
    refused = run("score", *model, "--workers", "0", "--out", "scored", "--", "-data", overwrite=False)
    assert refused.exit_code == 1
    assert advised(refused.stderr)[-2:] == ["--", "-data"]
    assert run(*advised(refused.stderr), overwrite=False).exit_code == 0


def test_labels_by_a_pattern_of_ones_own(tmp_path, scored, refused):
    names = {f"{n}/x_{kind}_y{n}.png": kind for kind in KINDS for n in range(4)}
    put(tmp_path / "flat", names)
    assert scored("flat", "--label-from", "x_([a-z]+)_") == (12, 3)
    assert scored("flat", "--label-from", "^[^/]+/") == (12, 4)
    assert "finds no label in 12 of 12 paths" in refused("flat", "--label-from", "z(.)z")
    assert "is no regular expression" in refused("flat", "--label-from", "(")
