"""Which transform of images a text names: one of torchvision or one in a file, tried before it is used."""

from __future__ import annotations

import difflib
import inspect
import keyword
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np
from PIL import Image
from torchvision.transforms import v2

from divacli.backbones.checkpoint import first_line
from divacli.backbones.fingerprint import stable_text
from divacli.backbones.userfile import UserFile, is_user_file
from divacli.errors import ModelError
from divacli.features.augmentation import NamedTransform, seeded
from divacli.features.keys import digest_of
from divacli.images.decode import FailedCopy

_NAMED: dict[str, tuple[str, dict[str, Any]]] = {
    "hflip": ("RandomHorizontalFlip", {"p": 1}),
    "vflip": ("RandomVerticalFlip", {"p": 1}),
    "rotate": ("RandomRotation", {}),
    "colorjitter": ("ColorJitter", {}),
    "grayscale": ("RandomGrayscale", {"p": 1}),
    "blur": ("GaussianBlur", {}),
    "randomcrop": ("RandomCrop", {"pad_if_needed": True}),
    "resizedcrop": ("RandomResizedCrop", {"size": 224}),
    "perspective": ("RandomPerspective", {"p": 1}),
    "invert": ("RandomInvert", {"p": 1}),
    "solarize": ("RandomSolarize", {"threshold": 128, "p": 1}),
    "posterize": ("RandomPosterize", {"bits": 4, "p": 1}),
    "autocontrast": ("RandomAutocontrast", {"p": 1}),
    "equalize": ("RandomEqualize", {"p": 1}),
}
"""Class of each short name, and the arguments that it has unless its number is one of them. Where torchvision
tosses a coin (`p`) every image is transformed: how often it is worth it is what the copies are to tell."""


_CLASSES: dict[str, type[v2.Transform]] = {
    name: thing
    for name, thing in vars(v2).items()
    if isinstance(thing, type) and issubclass(thing, v2.Transform)
}


_FORM = "NAME, NAME:NUMBER (rotate:15), or FILE.py:NAME for everything else"


_FILE_FORM = (
    "FILE.py:NAME, a transform from an RGB PIL image to another, its class, or a function without arguments "
    "that returns it"
)


_TRIES = 32
"""Seeds that a transform is tried with before it is said to change nothing."""


_SEEN = 8
"""Copies that tell what a transform does."""


def parse_transform(text: str) -> NamedTransform:
    """The transform that a text names, tried on an image of noise.

    Args:
        text: One of `NAME`, `NAME:NUMBER` and `FILE.py:NAME`. `NAME` is a short one (`hflip`) or that of a
            class of `torchvision.transforms.v2`. `NUMBER` is its first argument: `rotate:15`. `FILE.py` is
            run; `NAME` is a transform there, its class, or a function without arguments that returns it.

    Raises:
        ModelError: No such transform, a number that it does not take, a file that cannot be imported by its
            name, or copies that cannot be used: no RGB images, others at each call, or the images unchanged.
    """
    text = text.strip()
    named = _from_file(text) if is_user_file(text) else _from_torchvision(text)
    copies = _try(named)
    if named.source is not None:
        # The file's digest says nothing of what it imports and reads.
        text = f"{named.text} with copies {copies}"
        return replace(named, text=text, effect=text)
    # Where nothing is drawn, copies say it all: `p=1` and `p=1.0` are the same.
    state = stable_text(named.transform) if named.random else type(named.transform).__name__
    return replace(named, effect=f"{state} with copies {copies}")


def _from_torchvision(text: str) -> NamedTransform:
    name, _, written = text.partition(":")
    if name not in _NAMED and name not in _CLASSES:
        known = [*_NAMED, *_CLASSES]
        lowered = {other.lower(): other for other in known}
        near = [lowered[match] for match in difflib.get_close_matches(name.lower(), lowered, n=3)]
        raise ModelError(
            f"no transform is called {name!r}",
            expected=f"{', '.join(_NAMED)}, a class of torchvision.transforms.v2, or FILE.py:NAME",
            hint=f"near ones: {', '.join(near)}" if near else f"write it as {_FORM}",
        )
    class_name, preset = _NAMED.get(name, (name, {}))
    maker = _CLASSES[class_name]
    signature = inspect.signature(maker)
    try:
        given = signature.bind_partial(*([_number(written)] if written else [])).arguments
        arguments = {**preset, **given}
        transform = maker(**arguments)
    except Exception as error:
        raise ModelError(
            f"transform {text}: {first_line(error)}",
            expected=f"a number for the first argument of v2.{class_name}({', '.join(signature.parameters)})",
            hint=f"write it as {_FORM}",
        ) from error
    ordered = ", ".join(f"{key}={arguments[key]!r}" for key in signature.parameters if key in arguments)
    code = f"v2.{class_name}({ordered})"
    # Some settings do not show in how it prints, and torchvision's defaults do not show in the expression.
    return NamedTransform(
        name=text,
        transform=transform,
        text=f"{code} = {stable_text(transform)}",
        code=code,
        imports="from torchvision.transforms import v2",
        random=_may_draw(transform),
    )


def _may_draw(transform: v2.Transform) -> bool:
    """Whether copies may change with the seed: where it draws parameters, or does not always apply."""
    draws_parameters = type(transform).make_params is not v2.Transform.make_params
    return draws_parameters or getattr(transform, "p", None) != 1


def _number(written: str) -> int | float:
    """Read a finite number.

    Raises:
        ValueError: The text is none.
    """
    try:
        value: int | float = int(written)
    except ValueError:
        value = float(written)
    if "_" in written or not math.isfinite(value):
        raise ValueError(f"{written!r} is no finite number")
    return value


class _FileTransform:
    """The transform of a user's file, pickled as its place: another process does not know the module.

    Args:
        source: Where it is.
        digest: SHA-256 of the file that is meant; None: whatever is there.

    Raises:
        ModelError: The file fails, holds no such thing, or is another one now.
    """

    def __init__(self, source: UserFile, digest: str | None = None) -> None:
        self.source = source
        self.digest = source.digest
        if digest not in (None, self.digest):
            raise ModelError(
                f"{source.path} changed while it was in use", expected="the same file", hint="start again"
            )
        # Seeded too: what it draws while it is made is to be the same in every run.
        with seeded(bytes.fromhex(self.digest)), source.running():
            found = source.load()
            self.is_called = isinstance(found, type) or _takes_nothing(found)
            made = found() if self.is_called else found
        if not callable(made):
            raise ModelError(f"{source} returned {type(made).__name__}", expected=_FILE_FORM)
        self._transform = made

    def __call__(self, image: Image.Image) -> Any:
        with self.source.surroundings():
            return self._transform(image)

    def __reduce__(self) -> tuple[Any, ...]:
        anywhere = replace(self.source, path=self.source.path.resolve())
        return _FileTransform, (anywhere, self.digest)


def _takes_nothing(thing: Callable[..., Any]) -> bool:
    """Whether it is a function that can be called without arguments."""
    if not isinstance(thing, FunctionType | MethodType):
        return False
    try:
        inspect.signature(thing).bind()
    except TypeError:
        return False
    return True


def require_different(transforms: Sequence[NamedTransform]) -> None:
    """Refuse a transform twice, for each would be found half as useful as it is, and two files of one name.

    Raises:
        ModelError: Which ones.
    """
    names: dict[str, str] = {}
    files: dict[str, Path] = {}
    for named in transforms:
        if named.effect in names:
            raise ModelError(
                f"{named.name}: the same as {names[named.effect]}", expected="different transforms"
            )
        names[named.effect] = named.name
        if named.source is not None:
            path = named.source.path
            other = files.setdefault(path.stem, path)
            if other.resolve() != path.resolve():
                raise ModelError(
                    f"{named.name}: {other} and {path} would both be imported as {path.stem}",
                    expected="files of different names",
                )


def transform_note(text: str) -> str | None:
    """What to say of a transform before it is parsed, for that runs its file; None where there is none.

    Args:
        text: As for `parse_transform`.

    Raises:
        ModelError: There is no such file.
    """
    return _file_of(text.strip()).note if is_user_file(text.strip()) else None


def _file_of(text: str) -> UserFile:
    return UserFile.given(text, "transform", _FILE_FORM)


def _from_file(text: str) -> NamedTransform:
    source = _file_of(text)
    stem = source.path.stem
    if not stem.isidentifier() or keyword.iskeyword(stem):
        raise ModelError(
            f"{source.path} cannot be imported by its name",
            expected=f"a name for `from NAME import {source.name}`, which stands in the snippet",
            hint="rename it: letters, digits and _ make a name of Python",
        )
    transform = _FileTransform(source)
    return NamedTransform(
        name=text,
        transform=transform,
        text=f"{source} of {transform.digest}",
        code=f"{source.name}()" if transform.is_called else source.name,
        imports=f"from {stem} import {source.name}",
        random=True,
        notes=(source.note,),
        source=source,
    )


def _try(named: NamedTransform) -> str:
    """Refuse a transform whose copies are of no use.

    Returns:
        A digest of some copies: those of the same transform are the same.

    Raises:
        ModelError: It fails on an image or gives no RGB one, gives others at each call, or changes nothing.
    """
    # All values but 0: an image of the whole range is what some transforms make of others.
    pixels = np.random.default_rng(0).integers(1, 256, (257, 263, 3), dtype=np.uint8)
    noise = Image.fromarray(pixels)
    # Draws are to follow from the seed alone, and not from how the transform was asked for.
    plain = replace(named, text="")
    try:
        copies = [plain.copy(noise.copy(), seed) for seed in range(_SEEN)]
        repeated = _same(copies[0], plain.copy(noise.copy(), 0))
        unchanged = all(_same(copy, noise) for copy in copies) and all(
            _same(plain.copy(noise.copy(), seed), noise) for seed in range(_SEEN, _TRIES)
        )
    except FailedCopy as error:
        raise ModelError(
            str(error),
            expected=f"a transform that takes any RGB image of PIL, such as one of {noise.width} x "
            f"{noise.height}, and gives one, or a tensor (3, h, w) of uint8 or of floats within [0, 1]",
            hint="change its number (Grayscale:3 gives three channels) or its code",
        ) from error
    if not repeated:
        raise ModelError(
            f"transform {named.name} makes another copy of the same image at each call",
            expected="draws from the global generators of torch, random or numpy, which are seeded",
            hint="seed a generator of your own at each call, by a number drawn from one of these",
        )
    if unchanged:
        # torchvision passes an image of PIL through what is for tensors or boxes only.
        raise ModelError(
            f"transform {named.name} leaves images as they are",
            expected="copies that differ from their originals",
            hint="give it a number that changes something; wrap one that is for tensors in a FILE.py:NAME",
        )
    parts = (part for copy in copies for part in (str(copy.size).encode(), copy.tobytes()))
    return digest_of(*parts)[:32]


def _same(one: Image.Image, other: Image.Image) -> bool:
    return one.size == other.size and one.tobytes() == other.tobytes()
