"""A folder of class folders becomes a table of images."""

import os
from pathlib import Path

import pytest

from divacli.errors import DataError
from divacli.manifest import check_files, read_manifest


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")


def test_images_at_any_depth_in_a_fixed_order(tmp_path: Path) -> None:
    touch(tmp_path, "dog/2.JPG", "dog/1.png", "cat/deep/er/b.webp", "cat/a.tiff")
    manifest = read_manifest(str(tmp_path))
    assert manifest.kind == "folder"
    assert manifest.name == str(tmp_path)
    assert manifest.table["path"].tolist() == ["cat/a.tiff", "cat/deep/er/b.webp", "dog/1.png", "dog/2.JPG"]
    assert manifest.table["label"].tolist() == ["cat", "cat", "dog", "dog"]
    assert manifest.table["weight"].tolist() == [1.0] * 4
    assert manifest.classes == ["cat", "dog"]
    assert manifest.warnings == ()
    assert manifest.files()[0] == f"{tmp_path}/cat/a.tiff"
    check_files(manifest)


def test_relative_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    touch(tmp_path, "data/cat/1.png", "data/dog/1.png")
    monkeypatch.chdir(tmp_path)
    manifest = read_manifest("data/")
    assert (manifest.name, manifest.folder) == ("data/", tmp_path / "data")
    check_files(manifest)


def test_what_is_left_out_is_counted_and_hidden_files_are_not(tmp_path: Path) -> None:
    touch(
        tmp_path, "cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png", ".hidden/1.png", "cat/.1.png", "cat/._x"
    )
    touch(tmp_path, "README.md", "cat/notes.txt", "loose.jpg", "empty/.keep")
    loose, others, empty = read_manifest(str(tmp_path)).warnings
    assert "not used, 1 images outside any class folder: loose.jpg." in loose
    assert "not used, 1 sub-folders without images: empty." in empty
    assert "not used, 2 files that are not images: README.md, cat/notes.txt." in others


RUN = '{"command": "plot", "outputs": {"loss.png": {}}, "versions": {"diva": "0.1.0"}}'
RECORD = f'{{"format": 1, "runs": [{RUN}]}}'


def test_results_inside_data_are_no_data(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")
    for folder in ("diva-out", "cat/plots/again"):
        touch(tmp_path, f"{folder}/loss.png", f"{folder}/deeper/images/cat/3.png")
        (tmp_path / folder / "run.json").write_text(RECORD)
    manifest = read_manifest(str(tmp_path))
    assert manifest.classes == ["cat", "dog"]
    assert len(manifest.table) == 4
    [warning] = manifest.warnings
    assert "not used, 2 folders of results of diva: cat/plots/again, diva-out." in warning


@pytest.mark.parametrize(
    "content",
    [
        *("{}", "[]", "", '{"runs": []}', '{"runs": 3}', '{"runs": [{"command": 1}]}', "pipe"),
        '{"runs": [{"command": "python train.py", "outputs": ["m.ckpt"], "versions": {"torch": "2"}}]}',
        '{"runs": [{"command": "python train.py", "outputs": {"m.ckpt": 1}}]}',
    ],
)
def test_a_run_json_of_another_program_hides_nothing(tmp_path: Path, content: str) -> None:
    touch(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")
    if content == "pipe":
        os.mkfifo(tmp_path / "cat/run.json")
    else:
        (tmp_path / "cat/run.json").write_text(content)
    manifest = read_manifest(str(tmp_path))
    assert len(manifest.table) == 4
    assert "1 files that are not images: cat/run.json" in manifest.warnings[0]


def test_data_of_nothing_but_results_says_so(tmp_path: Path) -> None:
    touch(tmp_path, "out/images/cat/1.png", "out/images/dog/2.png")
    (tmp_path / "out/run.json").write_text(RECORD)
    with pytest.raises(
        DataError, match=r"no images \(1 sub-folders, of them folders of results of diva: out\)"
    ):
        read_manifest(str(tmp_path))


def test_data_that_results_were_written_into_is_still_data(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png", "scores.csv")
    (tmp_path / "run.json").write_text(RECORD)
    assert len(read_manifest(str(tmp_path)).table) == 4


def test_links_are_followed_and_loops_end(tmp_path: Path) -> None:
    touch(tmp_path, "elsewhere/1.png", "data/dog/1.png", "data/dog/2.png", "original.png")
    (tmp_path / "data/cat").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/again").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "data/dog/up").symlink_to(tmp_path / "data")
    (tmp_path / "data/dog/self").symlink_to(".")
    (tmp_path / "data/dog/3.png").symlink_to(tmp_path / "original.png")
    manifest = read_manifest(str(tmp_path / "data"))
    expected = ["again/1.png", "cat/1.png", "dog/1.png", "dog/2.png", "dog/3.png"]
    assert manifest.table["path"].tolist() == expected
    check_files(manifest)


def test_broken_link_is_reported_as_a_missing_file(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "dog/2.png").symlink_to("nowhere")
    with pytest.raises(DataError, match=r"1 of 3 files are not there: .*dog/2\.png"):
        check_files(read_manifest(str(tmp_path)))


def test_no_class_folders(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no images(.|\n)*one sub-folder a class"):
        read_manifest(str(tmp_path))
    touch(tmp_path, "1.png", "2.png", "empty/x.txt")
    with pytest.raises(DataError, match=r"2 images without a class folder \(1 sub-folders\)"):
        read_manifest(str(tmp_path))


def test_split_folders(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.png", "train/dog/1.png")
    with pytest.raises(DataError, match=r"folder of splits with one in it: train(.|\n)*split='train'"):
        read_manifest(str(tmp_path))
    touch(tmp_path, "test/cat/1.png", "test/dog/1.png")
    with pytest.raises(DataError, match=r"2 splits: test \(2\), train \(2\)(.|\n)*split='train'"):
        read_manifest(f"{tmp_path}/")


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png")
    try:
        Path(os.fsdecode(os.fsencode(tmp_path) + b"/dog/caf\xe9.png")).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes only UTF-8 names")
    with pytest.raises(DataError, match=r"1 names are not UTF-8: 'dog/caf\\udce9\.png'"):
        read_manifest(str(tmp_path))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list everything")
def test_folder_that_cannot_be_listed(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "dog/1.png")
    (tmp_path / "dog").chmod(0)
    with pytest.raises(DataError, match="dog cannot be listed: Permission denied"):
        read_manifest(str(tmp_path))
    (tmp_path / "dog").chmod(0o700)
