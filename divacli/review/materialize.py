"""A folder with one sub-folder a class, made of the images of a table without touching them."""

from __future__ import annotations

import errno
import hashlib
import os
import posixpath
import re
import secrets
import shutil
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pandas as pd

from divacli.errors import DataError, DivaError, OutputError, listed
from divacli.files.containers import contained, reading_order
from divacli.files.path_or_url import read_bytes
from divacli.files.staging import sync_folder
from divacli.files.urls import is_url
from divacli.images.kinds import IMAGE_SUFFIXES
from divacli.manifest import Format, Manifest, write_table
from divacli.manifest.columns import FEATURE_SOURCE
from divacli.manifest.validate import leaving, require_files
from divacli.review.image_files import State, Way, bring_in, state_of

if TYPE_CHECKING:
    from divacli.progress import Progress

FOLDER = "images"
METADATA = "metadata"

# A name of a file or folder is at most 255 bytes long; some of them are left for what tells two apart.
_LONGEST = 240
_UNSAFE = re.compile(r"[\x00-\x1f\x7f-\x9f/\\%:]")
# Hidden for whoever lists folders: everybody skips the first kind, Hugging Face the second one too. And what
# is taken for the table that lies beside the folders of classes.
_SPECIAL = re.compile(rf"\.|__|{METADATA}\.(?:csv|jsonl|parquet)\Z", re.IGNORECASE)

# Words in names by which Hugging Face sorts files into splits; those without one are then left out.
_SPLIT = re.compile(
    r"(?:^|[-._ 0-9])(?:train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?:[-._ 0-9]|$)"
)
_TORCHVISION = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")


def safe_name(text: str) -> str:
    """A text as the name of a file or folder, itself wherever that is harmless.

    Separators, control characters, `:` and `%` are percent-encoded, and so is the first character of what
    would hide the name or is the name of a table of metadata. So different texts have different names, and
    `urllib.parse.unquote` gives the text back; the empty text is `%`. A name that would be too long is cut,
    and ends with a digest of the text.
    """
    encoded = _UNSAFE.sub(_percent, text)
    if _SPECIAL.match(encoded):
        encoded = _percent(encoded[0]) + encoded[1:]
    if len(encoded.encode()) <= _LONGEST:
        return encoded or "%"
    end = "~" + hashlib.sha256(text.encode()).hexdigest()[:16]
    if (suffix := posixpath.splitext(encoded)[1].lower()) in IMAGE_SUFFIXES:
        end += suffix
    start = encoded.encode()[: _LONGEST - len(end)].decode(errors="ignore")
    return re.sub(r"%[0-9A-F]?$", "", start) + end


def _percent(found: re.Match[str] | str) -> str:
    text = found if isinstance(found, str) else found[0]
    return "".join(f"%{byte:02X}" for byte in text.encode())


def laid_out(labels: Iterable[str], names: Iterable[str], files: Iterable[str]) -> list[str]:
    """Where each file goes in the folder, (n,) text `class/file`, all different.

    Of files with one name in a class the first by its place keeps it, the others are numbered from 2. Names
    that only case or the way accents are written tells apart count as one: some file systems see no
    difference.

    Args:
        labels: (n,) label of each file.
        names: (n,) name of each file, with a suffix.
        files: (n,) its place, all different.
    """
    wanted = [(safe_name(label), safe_name(name)) for label, name in zip(labels, names, strict=True)]
    taken = {_key(folder, name) for folder, name in wanted}
    used: set[tuple[str, str]] = set()
    places = [""] * len(wanted)
    for number in sorted(range(len(wanted)), key=list(files).__getitem__):
        folder, name = wanted[number]
        if _key(folder, name) in used:
            stem, suffix = posixpath.splitext(name)
            count = 2
            while _key(folder, f"{stem}-{count}{suffix}") in taken:
                count += 1
            name = f"{stem}-{count}{suffix}"
            taken.add(_key(folder, name))
        used.add(_key(folder, name))
        places[number] = f"{folder}/{name}"
    return places


def _key(folder: str, name: str) -> tuple[str, str]:
    return folder, unicodedata.normalize("NFC", name).casefold()


def require_apart(manifest: Manifest, folder: Path) -> None:
    """Refuse to make a folder of images where it would become part of DATA, or is there already.

    Args:
        manifest: The samples.
        folder: What would be made.

    Raises:
        OutputError: It lies in DATA's own folder, or there is something.
    """
    if manifest.kind in ("folder", "store") and folder.resolve().is_relative_to(manifest.folder):
        raise OutputError(
            f"{folder} would lie in {manifest.name}, which is DATA itself",
            expected="a place outside of it",
            hint="choose one with --out",
        )
    if os.path.lexists(folder):
        raise OutputError(
            f"{folder} is there already",
            expected="a folder that is not there yet: nothing is overwritten or mixed",
            hint="remove it, or choose another place with --out",
        )


def materialize(
    manifest: Manifest,
    folder: Path,
    way: Way,
    format: Format,
    progress: Progress,
    staged: Path | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Make a folder with the image of each sample under `class/file`, and a table of them for Hugging Face.

    It is made beside its place and then renamed: it appears whole or not at all. The originals are only read;
    but a hard link is the original under another name, and whoever writes to one changes both.

    Args:
        manifest: The samples, n of them.
        folder: What is made.
        way: How files come into it.
        format: Of the table `metadata`, which holds file_name, label and all other columns but those that
            Hugging Face would take for files.
        progress: Told how far it is.
        staged: Where it is made instead, to be moved to its place later.

    Returns:
        The manifest's table with paths of the new files, relative to the folder that `folder` lies in, and
        without `feature_source`, where other paths are known; and warnings.

    Raises:
        DataError: No samples, or some that are no files, or none that can be linked.
        OutputError: As `require_apart`; or it cannot be written there, or not linked from there.
    """
    require_apart(manifest, folder)
    files = manifest.files()
    states = _looked_at(manifest, files, way)
    outside = _from_outside(manifest, way)
    table = manifest.table
    names = {position: _image_name(files[position]) for position in reading_order(files)}
    places = laid_out(table["label"], map(names.__getitem__, range(len(files))), files)
    metadata = table.drop(columns=["path", "label"]).drop(
        columns=[name for name in table if name in (FEATURE_SOURCE, "image") or _names_files(name)]
    )
    metadata.insert(0, "file_name", places)
    metadata.insert(1, "label", table["label"])
    with _appearing(staged or folder) as made, progress(f"{way} of images", len(files)) as advance:
        _make_folders(made, folder, dict.fromkeys(posixpath.dirname(place) for place in places))
        bring_in(files, states, [made / place for place in places], way, advance)
        listing = made / f"{METADATA}.{format}"
        write_table(metadata, listing, format)
        misread = _misread(listing, table["label"]) if format == "csv" else []
    paths = [posixpath.join(folder.name, place) for place in places]
    moved = table.assign(path=paths).drop(columns=FEATURE_SOURCE, errors="ignore")
    return moved, [*outside, *_warnings(folder, places), *misread]


def _looked_at(manifest: Manifest, files: list[str], way: Way) -> list[State | None]:
    """Which file each sample is now, as of `state_of`.

    Raises:
        DataError: Some are no files, or are where nothing can be linked to.
    """
    if not files:
        raise DataError("no sample stays", expected="images for the folder")
    rows = manifest.names_only
    if rows.any():
        raise DataError(
            f"{manifest.name}: {rows.sum():,} samples are rows of an .npz file, not images",
            expected="samples that are files",
            hint="leave --materialize out: applied.csv names the rows",
        )
    apart = [file for file in files if is_url(file) or contained(file) is not None]
    if apart and way != "copy":
        raise DataError(
            f"{manifest.name}: {len(apart):,} of {len(files):,} images lie at URLs, or in tar or Parquet "
            f"files, where nothing can be linked to: {listed(apart)}",
            expected="files of their own in a file system of this machine",
            hint="use --materialize copy",
        )
    require_files(manifest, [file for file in files if not is_url(file)])
    return [state_of(file) for file in files]


def _make_folders(made: Path, folder: Path, names: Collection[str]) -> None:
    """Make the folders of the classes.

    Raises:
        OutputError: The file system takes two of the names for one.
    """
    for name in names:
        try:
            (made / name).mkdir()
        except FileExistsError as error:
            raise OutputError(
                f"{folder}: {listed(_same(name, names))} would be one folder there, and are several classes",
                expected="classes that differ by more than case or the way accents are written",
                hint="relabel one of them, or choose a place in another file system with --out",
            ) from error


def _same(name: str, names: Collection[str]) -> list[str]:
    """The names that some file systems take for this one."""
    return [other for other in names if _key("", other) == _key("", name)]


def _from_outside(manifest: Manifest, way: Way) -> list[str]:
    """What to say of images that links in DATA lead to; a table says it by its notes."""
    if way == "symlink" or manifest.notes:
        return []
    found = leaving(manifest, manifest.folder)
    if not found:
        return []
    done = "copied" if way == "copy" else "given another name"
    return [
        f"{len(found):,} of {len(manifest.table):,} images lie outside of {manifest.name} and are {done}, "
        f"the first: {found[0]} (--confine refuses that)"
    ]


def _image_name(file: str) -> str:
    """The name of a file; with a suffix, by its content, where it has none of an image."""
    name = posixpath.basename(urlsplit(file).path if is_url(file) else file)
    if posixpath.splitext(name)[1].lower() in IMAGE_SUFFIXES:
        return name
    from PIL import Image

    from divacli.images.decode import open_image

    try:
        with open_image(read_bytes(file)) as image:
            kind = image.format
    except (OSError, ValueError) as error:
        raise DataError(
            f"{file} has no suffix of an image, and cannot be read as one: {error}",
            expected="an image, or a name such as 1.jpg",
            hint="rename it, or decide to drop it",
        ) from error
    known = {**Image.registered_extensions(), ".heic": "HEIF", ".dcm": "DICOM"}
    suffixes = [suffix for suffix in IMAGE_SUFFIXES if known.get(suffix) == kind]
    if not suffixes:
        raise DataError(f"{file} is a {kind} file", expected=f"one of {', '.join(IMAGE_SUFFIXES)}")
    return name + suffixes[0]


def _names_files(column: object) -> bool:
    """Whether Hugging Face takes the cells of a column for names of files."""
    return re.search(r"(?:^|_)file_names?$", str(column)) is not None


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    """A fresh folder beside another's place, which gets that name when all went well."""
    made = folder.parent / f".diva-{folder.name}-{secrets.token_hex(8)}.tmp"
    try:
        made.mkdir(parents=True)
        try:
            yield made
            sync_folder(made)
            made.rename(folder)
            sync_folder(folder.parent)
        except BaseException:
            shutil.rmtree(made, ignore_errors=True)
            raise
    except DivaError:
        raise
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(
            f"{folder} cannot be made: {error.strerror}",
            expected="room for the images" if full else "a place that can be written to",
            hint="free some space, or use --materialize symlink" if full else "choose another one with --out",
        ) from error


def _misread(listing: Path, labels: pd.Series) -> list[str]:
    """What to say of labels that pandas, and so Hugging Face, reads from a CSV file as something else."""
    read = pd.read_csv(listing, usecols=["label"])["label"]
    wrong = sorted(set(labels[(read.astype(object).astype(str) != labels.reset_index(drop=True)).to_numpy()]))
    if not wrong:
        return []
    return [
        f"Hugging Face reads these labels from {listing.name} as something else: "
        f"{listed([repr(label) for label in wrong])}. With --format jsonl it reads them as they are"
    ]


def _warnings(folder: Path, places: list[str]) -> list[str]:
    said = []
    skipped = [place for place in places if posixpath.splitext(place)[1].lower() not in _TORCHVISION]
    if skipped:
        said.append(
            f"{len(skipped):,} images have suffixes that torchvision's ImageFolder skips: {listed(skipped)}"
        )
    worded = [place for place in places if any(map(_SPLIT.search, place.split("/")))]
    if worded:
        said.append(
            f"{len(worded):,} names hold a word that Hugging Face takes for a split, such as {worded[0]}: "
            f'to have all in one use load_dataset("imagefolder", data_files="{folder}/**")'
        )
    return said
