"""Transformed copies of images: a named transform in front of a backbone's own.

A copy depends on nothing but the image's pixels, the transform and a seed: neither on the order of the
images nor on the process that makes it.
"""

from __future__ import annotations

import contextlib
import difflib
import inspect
import itertools
import keyword
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import FunctionType, MethodType
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms import v2

from divacli.backbones.backbone import Backbone
from divacli.backbones.checkpoint import first_line
from divacli.backbones.fingerprint import stable_text
from divacli.backbones.transform import Transform
from divacli.backbones.userfile import UserFile, is_user_file
from divacli.embed.images import FailedCopy
from divacli.embed.keys import digest_of
from divacli.errors import ModelError

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
_OVERSHOOT = 0.5
"""So far beyond [0, 1] floats are clipped, as resampling leaves them; further out they are no pixels."""

_TRIES = 32
"""Seeds that a transform is tried with before it is said to change nothing."""

_SEEN = 8
"""Copies that tell what a transform does."""


@dataclass(frozen=True)
class NamedTransform:
    """A transform of images, as it was asked for.

    Attributes:
        name: As typed.
        transform: As torchvision or the file gives it, from an RGB PIL image; can be pickled.
        text: What it does to an image, the same in every process; a part of the features' identity.
        code: The Python expression that makes it.
        imports: The statement that this expression needs.
        random: Whether its copies change with the seed; True where that is not known.
        notes: Sentences for the user.
        source: The file that it is taken from; None for one of torchvision's.
        effect: Equal for two that are known to be the same transform, however they were asked for.
    """

    name: str
    transform: Callable[[Image.Image], Any]
    text: str
    code: str
    imports: str
    random: bool
    notes: tuple[str, ...] = ()
    source: UserFile | None = None
    effect: str = ""

    def imported_as(self, alias: str) -> NamedTransform:
        """The same, under another name in the code of who uses it; for one of a file."""
        assert self.source is not None
        if alias == self.source.name:
            return self
        code = alias + self.code.removeprefix(self.source.name)
        return replace(self, code=code, imports=f"{self.imports} as {alias}")

    def copy(self, image: Image.Image, seed: int) -> Image.Image:
        """Make the transformed copy of an image: the same one always, whatever was drawn before.

        What the transform draws from the global generators of torch (CPU), Python and numpy follows from the
        image, `text` and the seed; outside they go on as if nothing had been drawn.

        Args:
            image: In mode RGB; the transform may change it in place.
            seed: Of the draws.

        Returns:
            In mode RGB, of any size.

        Raises:
            FailedCopy: The transform fails on the image, or gives something else than an RGB image.
        """
        parts = (self.text, str(seed), str(image.size))
        digest = bytes.fromhex(digest_of(*(part.encode() for part in parts), image.tobytes()))
        try:
            with _seeded(digest):
                made = self.transform(image)
        except (Exception, SystemExit) as error:
            raise FailedCopy(
                f"transform {self.name} fails: {type(error).__name__}: {first_line(error)}"
            ) from error
        return self._image(made)

    def _image(self, made: Any) -> Image.Image:
        if isinstance(made, Image.Image):
            if 0 in made.size:
                raise FailedCopy(f"transform {self.name} gives an image of {made.width} x {made.height}")
            if made.mode != "RGB":
                # Converting it would hide that a network cannot be trained on it.
                raise FailedCopy(f"transform {self.name} gives an image of mode {made.mode}, not RGB")
            return made
        if not isinstance(made, Tensor):
            raise FailedCopy(f"transform {self.name} gives {type(made).__name__}")
        number_type = made.is_floating_point() or made.dtype == torch.uint8
        if made.ndim != 3 or len(made) != 3 or not made.numel() or not number_type:
            raise FailedCopy(f"transform {self.name} gives a tensor {tuple(made.shape)} of {made.dtype}")
        pixels = made.detach().cpu()
        if pixels.is_floating_point():
            low, high = pixels.min().item(), pixels.max().item()
            if not -_OVERSHOOT <= low <= high <= 1 + _OVERSHOOT:
                raise FailedCopy(f"transform {self.name} gives a tensor with values from {low:g} to {high:g}")
            pixels = v2.functional.to_dtype(pixels.clamp(0, 1), torch.uint8, scale=True)
        return v2.functional.to_pil_image(pixels)


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


def named_apart(transforms: Sequence[NamedTransform]) -> list[NamedTransform]:
    """Transforms whose imports and code can stand in one file: the second `change` becomes `change_2`.

    Args:
        transforms: As from `parse_transform`.
    """
    taken = {"v2", "augmentation"}
    found = []
    for named in transforms:
        if named.source is not None:
            name = named.source.name
            numbered = (f"{name}_{number}" for number in itertools.count(2))
            alias = next(one for one in itertools.chain([name], numbered) if one not in taken)
            taken.add(alias)
            named = named.imported_as(alias)
        found.append(named)
    return found


def augmented(backbone: Backbone, named: NamedTransform, seed: int) -> Backbone:
    """The same network in front of which every image is replaced by its transformed copy.

    Args:
        backbone: The network; its weights are shared, so that moving one of the two to a device moves both.
        named: The transform.
        seed: Of what it draws; a part of the identity where it draws at all.
    """
    drawn = f", seed {seed}" if named.random else ""
    return replace(
        backbone,
        transform=_Augmented(named, seed, backbone.transform),
        identity={**backbone.identity, "augment": named.text + drawn},
        notes=(*backbone.notes, *named.notes),
    )


@dataclass(frozen=True)
class _Augmented:
    """From an RGB PIL image to the float tensor (3, h, w) of its copy."""

    named: NamedTransform
    seed: int
    then: Transform

    def __call__(self, image: Image.Image) -> Tensor:
        return self.then(self.named.copy(image, self.seed))


@contextlib.contextmanager
def _seeded(digest: bytes) -> Iterator[None]:
    """Seed the global generators by a digest, and put them back where they were."""
    states = torch.get_rng_state(), random.getstate(), np.random.get_state()
    try:
        # Not `torch.manual_seed`: it would seed the generators of CUDA too, which are not put back.
        torch.default_generator.manual_seed(int.from_bytes(digest[:8], "little"))
        random.seed(digest)
        np.random.seed(np.frombuffer(digest, "<u4"))
        yield
    finally:
        torch.set_rng_state(states[0])
        random.setstate(states[1])
        np.random.set_state(states[2])


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
        with _seeded(bytes.fromhex(self.digest)), source.running():
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
