"""What is in the wheel and in the sdist, and that the oldest releases that are tested are those allowed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

BUILD = """
import sys
from setuptools import build_meta
print(getattr(build_meta, sys.argv[1])(sys.argv[2]))
"""


def bounds(requirements: list[str]) -> dict[str, Version]:
    """The lower bound of each requirement, or the only release that it allows."""
    found = {}
    for requirement in map(Requirement, requirements):
        [bound] = [one.version for one in requirement.specifier if one.operator in (">=", "==")]
        found[requirement.name] = Version(bound)
    return found


def test_the_oldest_releases_that_are_tested_are_those_that_are_allowed():
    extras = PROJECT["optional-dependencies"]
    names = ("timm", "transformers", "huggingface", "heif", "dicom", "onnx")
    allowed = bounds([*PROJECT["dependencies"], *(one for name in names for one in extras[name])])
    lines = (ROOT / "constraints-oldest.txt").read_text().splitlines()
    assert bounds([line for line in lines if line and not line.startswith("#")]) == allowed


def setuptools_version() -> Version:
    try:
        return Version(version("setuptools"))
    except PackageNotFoundError:
        return Version("0")


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of what is or will be under version control, and its names."""
    if setuptools_version() < Version("77"):
        pytest.skip("setuptools 77 is not installed")
    if not (ROOT / ".git").exists() or not shutil.which("git"):
        pytest.skip("not a checkout of git")
    found = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, check=True, capture_output=True
    )
    names = sorted(name for name in found.stdout.decode().split("\0") if name and (ROOT / name).is_file())
    copy = tmp_path_factory.mktemp("tree") / "divacli"
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, copy / name)
    # What lies about in a tree that is worked in.
    (copy / "tests" / "__pycache__").mkdir()
    (copy / "tests" / "__pycache__" / "junk.pyc").write_bytes(b"")
    return copy, names


def build(kind: str, tree: Path, target: Path) -> Path:
    target.mkdir()
    found = subprocess.run(
        [sys.executable, "-c", BUILD, f"build_{kind}", str(target)],
        cwd=tree,
        env={**os.environ, "SOURCE_DATE_EPOCH": "1700000000"},
        check=True,
        capture_output=True,
        text=True,
    )
    return target / found.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def sdist(tree, tmp_path_factory):
    return build("sdist", tree[0], tmp_path_factory.mktemp("sdist") / "out")


@pytest.fixture(scope="module")
def wheel(tree, tmp_path_factory):
    return build("wheel", tree[0], tmp_path_factory.mktemp("wheel") / "out")


def test_the_wheel_holds_the_package_and_nothing_else(tree, wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = {name for name in archive.namelist() if ".dist-info/" not in name}
        about = {name.partition(".dist-info/")[2] for name in archive.namelist() if ".dist-info/" in name}
    assert names == {name for name in tree[1] if name.startswith("divacli/")}
    assert names >= {f"divacli/report/page/report.{suffix}" for suffix in ("html", "css", "js")}
    assert "divacli/py.typed" in names
    assert about >= {"METADATA", "entry_points.txt", "licenses/LICENSE"}


def test_the_sdist_holds_what_builds_tests_and_documents_the_package(tree, sdist):
    with tarfile.open(sdist) as archive:
        names = {member.name.partition("/")[2] for member in archive if member.isfile()}
    ours = {name for name in tree[1] if not name.startswith(".")}
    assert ours - names == set()
    assert {"SECURITY.md", "LICENSE", "CHANGELOG.md", "constraints-oldest.txt", "Makefile"} <= names
    made = {name for name in names - ours if not name.startswith("divacli.egg-info/")}
    assert made == {"PKG-INFO", "setup.cfg"}


def test_the_wheel_made_from_the_sdist_is_the_same_to_the_byte(sdist, wheel, tmp_path):
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    [unpacked] = [path for path in tmp_path.iterdir() if path.is_dir()]
    assert build("wheel", unpacked, tmp_path / "out").read_bytes() == wheel.read_bytes()
