"""Transforms by name or from a file, and copies that hang on the image, the transform and the seed alone."""

import pickle
import random
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from divacli.errors import ModelError
from divacli.features.augmentation import named_apart
from divacli.features.transform_names import parse_transform
from divacli.images.decode import FailedCopy

# As typed, and the expression that a user is to get for it.
NAMED = {
    "hflip": "v2.RandomHorizontalFlip(p=1)",
    "vflip": "v2.RandomVerticalFlip(p=1)",
    "rotate:15": "v2.RandomRotation(degrees=15)",
    "rotate:7.5": "v2.RandomRotation(degrees=7.5)",
    "colorjitter:0.4": "v2.ColorJitter(brightness=0.4)",
    "grayscale": "v2.RandomGrayscale(p=1)",
    "blur:3": "v2.GaussianBlur(kernel_size=3)",
    "randomcrop:4": "v2.RandomCrop(size=4, pad_if_needed=True)",
    "resizedcrop": "v2.RandomResizedCrop(size=224)",
    "resizedcrop:32": "v2.RandomResizedCrop(size=32)",
    "perspective:0.3": "v2.RandomPerspective(distortion_scale=0.3, p=1)",
    "RandomAffine:30": "v2.RandomAffine(degrees=30)",
    "invert": "v2.RandomInvert(p=1)",
    "solarize": "v2.RandomSolarize(threshold=128, p=1)",
    "solarize:250": "v2.RandomSolarize(threshold=250, p=1)",
    "posterize:2": "v2.RandomPosterize(bits=2, p=1)",
    "autocontrast": "v2.RandomAutocontrast(p=1)",
    "equalize": "v2.RandomEqualize(p=1)",
    "RandomAdjustSharpness:2": "v2.RandomAdjustSharpness(sharpness_factor=2)",
    "TrivialAugmentWide": "v2.TrivialAugmentWide()",
}

USER_FILE = """
import random
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image, ImageOps
from torchvision.transforms import functional, v2


@dataclass
class Flip:
    method: Image.Transpose = Image.Transpose.FLIP_LEFT_RIGHT

    def __call__(self, image):
        return image.transpose(self.method)


flip = Flip()
module = v2.RandomHorizontalFlip(p=1)


def plain(image):
    return ImageOps.mirror(image)


def make():
    return Flip()


def to_uint8(image):
    return functional.pil_to_tensor(ImageOps.mirror(image))


def to_float(image):
    return functional.to_tensor(ImageOps.mirror(image))


def overshooting(image):
    return to_float(image).where(to_float(image) < 1, 1.2)


def gray(image):
    return image.convert("L")


def noisy(image):
    darker = Image.fromarray(np.asarray(image) // 2 + np.uint8(np.random.randint(100)))
    return darker.rotate(random.uniform(0, 90)).resize((20 + int(torch.randint(9, ())), 30))


class DrawsWhenMade:
    def __init__(self):
        self.angle = random.uniform(10, 80) + torch.rand(()).item() + np.random.rand()

    def __call__(self, image):
        return image.rotate(self.angle)


def on_large(image):
    if image.width < 40:
        raise ZeroDivisionError("too narrow\\nby far")
    return ImageOps.mirror(image)


def in_place(image):
    image.paste((0, 0, 0), (0, 0, 5, 5))
    return image


own = np.random.default_rng(0)

three = lambda: 3
nothing = lambda image: None
pair = lambda image: (image, image)
identity = lambda image: image
failing = lambda image: 1 / 0
leaving = lambda image: exit(3)
empty = lambda image: image.crop((0, 0, 0, 5))
flat = lambda image: torch.zeros(1, 8, 8)
whole_numbers = lambda image: torch.zeros(3, 8, 8, dtype=torch.int64)
no_pixels = lambda image: torch.zeros(3, 0, 8)
normalised = lambda image: functional.normalize(functional.to_tensor(image), [0.5] * 3, [0.2] * 3)
not_numbers = lambda image: functional.to_tensor(image) * float("nan")
unseeded = lambda image: image.rotate(np.random.default_rng().uniform(1, 90))
stateful = lambda image: image.rotate(own.uniform(1, 90))
"""


@pytest.fixture
def user_file(tmp_path: Path) -> Path:
    (tmp_path / "aug.py").write_text(USER_FILE)
    return tmp_path / "aug.py"


@pytest.fixture(autouse=True)
def nothing_imported() -> Iterator[None]:
    """Each test has a file aug.py of its own, and what that imports."""
    yield
    for name in ("aug", "other"):
        sys.modules.pop(name, None)


def noise(width: int = 64, height: int = 64, seed: int = 0) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def content(image: Image.Image) -> tuple[tuple[int, int], str, bytes]:
    return image.size, image.mode, image.tobytes()


# By name


@pytest.mark.parametrize("text", NAMED)
def test_code_makes_the_same_transform(text: str) -> None:
    named = parse_transform(text)
    assert (named.name, named.code, named.notes) == (text, NAMED[text], ())
    scope: dict = {}
    exec(named.imports, scope)
    assert repr(eval(named.code, scope)) == repr(named.transform)


@pytest.mark.parametrize("text", NAMED)
@pytest.mark.parametrize("size", [(5, 3), (3, 5), (64, 64)])
def test_copies_are_those_of_torchvision(text: str, size: tuple[int, int]) -> None:
    named = parse_transform(text)
    copies = [content(named.copy(noise(*size), seed)) for seed in range(40)]
    assert {mode for _, mode, _ in copies} == {"RGB"}
    assert named.random or len(set(copies)) == 1
    fixed = text in ("hflip", "vflip", "grayscale", "invert", "equalize", "autocontrast", "posterize:2")
    if fixed or text.startswith("solarize"):
        expected = eval(NAMED[text], {"v2": v2})(noise(*size))
        assert set(copies) == {content(expected)}
    elif size == (64, 64):
        assert len(set(copies)) > (1 if text.startswith("RandomAdjustSharpness") else 5)


def test_what_draws_nothing_has_one_cache_for_all_seeds() -> None:
    texts = ["hflip", "vflip", "invert", "solarize", "posterize", "autocontrast", "equalize"]
    assert not any(parse_transform(text).random for text in texts)
    assert parse_transform("hflip:0.5").random


@pytest.mark.parametrize("text", [" hflip ", "hflip:", "hflip:1", "RandomHorizontalFlip:1"])
def test_one_transform_typed_otherwise_is_the_same(text: str) -> None:
    assert parse_transform(text).text == parse_transform("hflip").text


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("hflip", "RandomHorizontalFlip:1.0", True),
        ("rotate:15", "RandomRotation:15.0", True),
        ("colorjitter:0.4", "ColorJitter:4e-1", True),
        ("hflip", "vflip", False),
        ("hflip", "hflip:0.99", False),
        ("hflip:0.5", "hflip:0.51", False),
        ("rotate:15", "rotate:15.5", False),
    ],
)
def test_effect_is_equal_for_one_transform_under_two_spellings(one: str, other: str, same: bool) -> None:
    assert (parse_transform(one).effect == parse_transform(other).effect) is same


@pytest.mark.parametrize(
    ("text", "got", "says"),
    [
        ("hfilp", "no transform is called 'hfilp'", "near ones: hflip"),
        ("GausianBlur:3", "no transform is called 'GausianBlur'", "near ones: GaussianBlur$"),
        ("randomrotation:5", "no transform is called 'randomrotation'", "near ones: RandomRotation"),
        ("xyzzy", "no transform is called 'xyzzy'", "write it as NAME, NAME:NUMBER"),
        ("", "no transform is called ''", "^hflip, vflip, rotate, "),
        ("Compose.x", "no transform is called 'Compose.x'", "^hflip, "),
        (
            "rotate",
            "transform rotate: .*missing 1 required positional argument: 'degrees'",
            r"RandomRotation\(degrees, ",
        ),
        ("rotate:-5", "degrees", r"v2\.RandomRotation\(degrees, "),
        ("rotate:degrees=5", "could not convert string to float: 'degrees=5'", "FILE.py:NAME for everything"),
        ("rotate:(-5,5)", r"could not convert string to float: '\(-5,5\)'", "FILE.py:NAME for everything"),
        ("hflip:1,2", "could not convert string to float: '1,2'", r"v2\.RandomHorizontalFlip\(p\)"),
        ("rotate:15deg", "could not convert string to float: '15deg'", ""),
        ("rotate:1_5", "'1_5' is no finite number", ""),
        ("rotate:nan", "'nan' is no finite number", ""),
        ("rotate:-inf", "'-inf' is no finite number", ""),
        ("rotate:" + "9" * 400, "transform rotate", ""),
        ("rotate:" + "9" * 5000, "transform rotate", ""),
        ("invert:2", "p.* should be a floating point value in the interval", r"v2\.RandomInvert\(p\)"),
        ("TrivialAugmentWide:x", "could not convert", ""),
        ("ToImage:3", "too many positional arguments", ""),
        ("blur:4", "transform blur:4: .*odd", r"v2\.GaussianBlur\(kernel_size, sigma\)"),
        ("RandomCrop:300", "transform RandomCrop:300 fails: ValueError: .*larger than input", "263 x 257"),
        ("FiveCrop:8", "transform FiveCrop:8 gives tuple", "and gives one, or a tensor"),
        ("ClampKeyPoints", "transform ClampKeyPoints leaves images as they are", "copies that differ"),
        ("colorjitter", "transform colorjitter leaves images as they are", "a number that changes something"),
        ("Grayscale", "Grayscale gives an image of mode L, not RGB", "Grayscale:3 gives three channels"),
        ("hflip:0", "transform hflip:0 leaves images as they are", ""),
    ],
)
def test_what_cannot_be_understood_is_told(text: str, got: str, says: str) -> None:
    with pytest.raises(ModelError) as error:
        parse_transform(text)
    assert re.search(got, error.value.got)
    assert "\n" not in error.value.got
    assert any(re.search(says, part) for part in (error.value.expected, error.value.hint))


# From a file


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("Flip", "Flip()"),
        ("flip", "flip"),
        ("module", "module"),
        ("plain", "plain"),
        ("make", "make()"),
        ("to_uint8", "to_uint8"),
        ("to_float", "to_float"),
    ],
)
def test_transforms_of_a_file(user_file: Path, name: str, code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    named = parse_transform(f"{user_file}:{name}")
    assert content(named.copy(noise(31, 20), 0)) == content(ImageOps.mirror(noise(31, 20)))
    assert (named.name, named.random) == (f"{user_file}:{name}", True)
    assert "only files you trust" in named.notes[0]
    assert (named.code, named.imports) == (code, f"from aug import {name}")
    monkeypatch.syspath_prepend(user_file.parent)
    scope: dict = {}
    exec(named.imports, scope)
    pasted = eval(named.code, scope)(noise(31, 20))
    assert not isinstance(pasted, Image.Image) or content(pasted) == content(ImageOps.mirror(noise(31, 20)))


def test_copies_beyond_white_and_in_place(user_file: Path) -> None:
    assert 255 in np.asarray(noise(31, 20))
    clipped = parse_transform(f"{user_file}:overshooting").copy(noise(31, 20), 0)
    assert content(clipped) == content(ImageOps.mirror(noise(31, 20)))
    parse_transform(f"{user_file}:in_place")


def test_content_of_the_file_is_its_identity(user_file: Path, tmp_path: Path) -> None:
    before = parse_transform(f"{user_file}:plain").text
    assert parse_transform(f"{user_file}:flip").text != before
    (tmp_path / "moved").mkdir()
    moved = user_file.rename(tmp_path / "moved/aug.py")
    assert parse_transform(f"{moved}:plain").text == before
    moved.write_text(USER_FILE + "\n")
    assert parse_transform(f"{moved}:plain").text != before


def imported_apart(path: Path, body: str) -> str:
    """The text of a transform whose file imports `turned` from a file beside it, as in a new process."""
    (path.parent / "other.py").write_text(f"from PIL import ImageOps\n\n\ndef turned(image):\n    {body}\n")
    sys.modules.pop("other", None)
    return parse_transform(f"{path}:change").text


def test_what_the_file_imports_is_a_part_of_its_identity(tmp_path: Path) -> None:
    path = tmp_path / "aug.py"
    path.write_text("import other\n\n\ndef change(image):\n    return other.turned(image)\n")
    before = imported_apart(path, "return ImageOps.mirror(image)")
    assert imported_apart(path, "return ImageOps.flip(image)") != before
    # Written otherwise, it does the same.
    assert imported_apart(path, "return ImageOps.mirror(image.copy())") == before


def test_an_import_within_the_transform_finds_what_lies_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "aug.py"
    path.write_text("def change(image):\n    import other\n\n    return other.turned(image)\n")
    searched = list(sys.path)
    imported_apart(path, "return ImageOps.mirror(image)")
    named = parse_transform(f"{path}:change")
    del sys.modules["other"]
    assert content(named.copy(noise(), 0)) == content(ImageOps.mirror(noise()))
    assert sys.path == searched


def test_what_a_file_prints_is_no_output(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "aug.py"
    path.write_text(
        "from PIL import ImageOps\n\nprint('loaded')\n\n\n"
        "def change(image):\n    print('called')\n    return ImageOps.mirror(image)\n"
    )
    parse_transform(f"{path}:change").copy(noise(), 0)
    said = capsys.readouterr()
    assert said.out == ""
    assert "loaded\ncalled\n" in said.err


@pytest.mark.parametrize("name", ["my-aug.py", "2nd.py", "class.py", "a b.py"])
def test_file_that_no_snippet_can_import(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text(USER_FILE)
    with pytest.raises(
        ModelError, match=rf"{name} cannot be imported by its name\n(.|\n)*`from NAME import flip`"
    ):
        parse_transform(f"{tmp_path / name}:flip")


def test_names_that_several_files_have_are_told_apart(tmp_path: Path) -> None:
    body = "from PIL import ImageOps\n\nchange = change_2 = v2 = lambda image: ImageOps.{}(image)\n\n\n"
    body += "class Turn:\n    def __call__(self, image):\n        return change(image)\n"
    for name, does in (("one", "mirror"), ("two", "flip")):
        (tmp_path / f"{name}.py").write_text(body.format(does))
    texts = ["one.py:change", "two.py:change", "two.py:change_2", "one.py:v2", "one.py:Turn", "two.py:Turn"]
    found = named_apart(
        [parse_transform("hflip"), *(parse_transform(f"{tmp_path}/{text}") for text in texts)]
    )
    assert [(named.code, named.imports) for named in found] == [
        ("v2.RandomHorizontalFlip(p=1)", "from torchvision.transforms import v2"),
        ("change", "from one import change"),
        ("change_2", "from two import change as change_2"),
        ("change_2_2", "from two import change_2 as change_2_2"),
        ("v2_2", "from one import v2 as v2_2"),
        ("Turn()", "from one import Turn"),
        ("Turn_2()", "from two import Turn as Turn_2"),
    ]


@pytest.mark.parametrize(
    ("name", "got"),
    [
        ("three", r"aug\.py:three returned int"),
        ("nothing", r"transform .*aug\.py:nothing gives NoneType"),
        ("pair", r"aug\.py:pair gives tuple"),
        ("failing", r"aug\.py:failing fails: ZeroDivisionError: division by zero"),
        ("empty", r"aug\.py:empty gives an image of 0 x 5"),
        ("gray", r"aug\.py:gray gives an image of mode L, not RGB"),
        ("leaving", r"aug\.py:leaving fails: SystemExit: 3"),
        ("flat", r"aug\.py:flat gives a tensor \(1, 8, 8\) of torch.float32"),
        ("whole_numbers", r"gives a tensor \(3, 8, 8\) of torch.int64"),
        ("no_pixels", r"gives a tensor \(3, 0, 8\)"),
        ("normalised", r"gives a tensor with values from -2\.\d+ to 2\.5"),
        ("not_numbers", r"gives a tensor with values from nan to nan"),
        ("identity", r"aug\.py:identity leaves images as they are"),
        ("unseeded", r"aug\.py:unseeded makes another copy of the same image at each call"),
        ("stateful", r"aug\.py:stateful makes another copy of the same image at each call"),
        ("absent", r"aug\.py defines no callable 'absent'"),
        ("", r"aug\.py names a file without a transform"),
    ],
)
def test_what_is_of_no_use_is_told(user_file: Path, name: str, got: str) -> None:
    with pytest.raises(ModelError, match=got):
        parse_transform(f"{user_file}:{name}")


def test_file_that_is_absent_or_fails(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"^no file .*gone\.py\nexpected: FILE\.py:NAME, a transform"):
        parse_transform(f"{tmp_path / 'gone.py'}:flip")
    (tmp_path / "bad.py").write_text("class Flip:\n    def __init__(self, p): ...\n\n\nraise OSError('no')\n")
    with pytest.raises(ModelError, match=r"bad\.py:5: OSError: no\n(.|\n)*FILE\.py:NAME"):
        parse_transform(f"{tmp_path / 'bad.py'}:Flip")
    (tmp_path / "bad.py").write_text("class Flip:\n    def __init__(self, p): ...\n")
    with pytest.raises(ModelError, match=r"missing 1 required positional argument: 'p'"):
        parse_transform(f"{tmp_path / 'bad.py'}:Flip")


def test_image_that_a_transform_fails_on_is_told_apart(user_file: Path) -> None:
    named = parse_transform(f"{user_file}:on_large")
    with pytest.raises(FailedCopy, match=r"^transform .*on_large fails: ZeroDivisionError: too narrow$"):
        named.copy(noise(39, 50), 0)


# What is drawn


def seed_all(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def draws() -> tuple:
    return torch.rand(3).tolist(), random.random(), np.random.rand(3).tolist()


DRAWING = ["rotate:90", "RandAugment", "hflip:0.5", "aug.py:noisy"]


@pytest.mark.parametrize("text", DRAWING)
def test_draws_hang_on_image_transform_and_seed_alone(
    user_file: Path, text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(user_file.parent)
    named = parse_transform(text)
    images = [noise(40, 40, seed) for seed in range(12)]

    def copies(seed: int = 0) -> list:
        return [content(named.copy(image.copy(), seed)) for image in images]

    seed_all(3)
    expected = copies()
    seed_all(4)
    assert copies() == expected
    images.reverse()
    assert copies() == expected[::-1]
    assert copies(seed=1) != expected[::-1]


@pytest.mark.parametrize("text", [*DRAWING, "hflip", "aug.py:DrawsWhenMade"])
def test_outside_nothing_is_drawn(user_file: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(user_file.parent)
    seed_all(3)
    expected = draws()
    seed_all(3)
    parse_transform(text).copy(noise(), 0)
    assert draws() == expected


def test_images_are_not_all_turned_alike() -> None:
    named = parse_transform("rotate:90")
    turned = []
    for seed in range(30):
        # A bright right half: how far right the bright part lies tells the angle.
        image = Image.new("RGB", (33, 33), (seed, seed, seed))
        image.paste((255, 255, 255), (17, 0, 33, 33))
        pixels = np.asarray(named.copy(image, 0), dtype=float).mean(axis=2)
        turned.append(pixels[:, 17:].mean() - pixels[:, :16].mean())
    assert np.std(turned) > 20


IN_ANOTHER_PROCESS = """
import pickle
from pathlib import Path

from PIL import Image

image = Image.open("image.png")
for number, named in enumerate(pickle.loads(Path("named.pickle").read_bytes())):
    named.copy(image.copy(), 5).save(f"copy-{number}.png")
"""


def test_another_process_makes_the_same_copies(
    user_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(user_file.parent)
    texts = ["rotate:90", "aug.py:noisy", "aug.py:flip", "aug.py:plain", "aug.py:DrawsWhenMade"]
    transforms = [parse_transform(text) for text in texts]
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    noise().save(elsewhere / "image.png")
    (elsewhere / "named.pickle").write_bytes(pickle.dumps(transforms))
    subprocess.run([sys.executable, "-c", IN_ANOTHER_PROCESS], check=True, cwd=elsewhere)
    for number, named in enumerate(transforms):
        assert content(Image.open(elsewhere / f"copy-{number}.png")) == content(named.copy(noise(), 5))


def test_file_that_changed_is_not_taken_for_the_one_that_was_read(user_file: Path) -> None:
    pickled = pickle.dumps(parse_transform(f"{user_file}:flip"))
    user_file.write_text(USER_FILE + "\n")
    with pytest.raises(ModelError, match=r"aug\.py changed while it was in use"):
        pickle.loads(pickled)
