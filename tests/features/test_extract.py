"""Features are those of a plain loop, bit for bit the same however the images are batched and decoded."""

import dataclasses
import gc
import multiprocessing
import shutil
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from divacli.backbones.backbone import Backbone
from divacli.backbones.load import load_backbone
from divacli.errors import ModelError
from divacli.features import ExtractOptions
from divacli.features import extract as extract_module
from divacli.features import image_loader as loading
from divacli.features.extract import extract
from divacli.features.keys import content_keys
from divacli.features.store import FeatureStore
from divacli.progress import silent

CPU = torch.device("cpu")

BY_COLOUR = """

def is_red(image):
    return image.getpixel((0, 0)) == (255, 0, 0)


def in_worker():
    return torch.utils.data.get_worker_info() is not None
"""


@pytest.fixture(scope="module", autouse=True)
def impatient_loader() -> Iterator[None]:
    """Loaders of failed tests are collected during later ones and then wait for each of their workers."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.3)
        yield
        gc.collect()


@pytest.fixture
def embed(tmp_path: Path) -> Callable[..., tuple[np.ndarray, dict]]:
    """Features (m, 12) of some files by way of a fresh store, NaN for those that failed, and the reasons."""
    folders = (tmp_path / f"store-{number}" for number in range(100))

    def run(backbone: Backbone, files: list[str], **options: object) -> tuple[np.ndarray, dict]:
        store = FeatureStore.create(next(folders), {}, backbone.n_features)
        keys = content_keys(files, silent)[0]
        failed = extract(
            backbone, files, keys, store, ExtractOptions(CPU, **{"workers": 0, **options}), silent
        )
        features = np.full((len(files), backbone.n_features), np.nan, np.float32)
        good = [position for position in range(len(files)) if position not in failed]
        features[good] = store.rows(keys[good])[:].numpy()
        assert len(store) == len(good)
        return features, failed

    return run


@pytest.fixture
def few(photos: Path) -> list[str]:
    return sorted(str(file) for file in photos.rglob("*.*"))


def test_features_are_those_of_a_plain_loop(
    embed: Callable, backbone: Backbone, model: str, few: list[str], by_plain_loop: Callable
) -> None:
    features, failed = embed(backbone, few)
    assert not failed
    np.testing.assert_allclose(features, by_plain_loop(model, few).numpy(), rtol=0, atol=1e-6)
    assert features.std(axis=0).min() > 1e-3  # else all would be alike and any order right


@pytest.mark.parametrize("batch_size", [1, 3, 32])
@pytest.mark.parametrize("workers", [0, 2])
def test_batch_size_and_workers_change_no_bit(
    embed: Callable, backbone: Backbone, many: list[str], batch_size: int, workers: int
) -> None:
    expected, _ = embed(backbone, many)
    features, failed = embed(backbone, many, batch_size=batch_size, workers=workers)
    assert not failed
    assert features.tobytes() == expected.tobytes()


def test_the_other_images_of_a_batch_change_no_bit(
    embed: Callable, backbone: Backbone, few: list[str]
) -> None:
    expected, _ = embed(backbone, few)
    order = np.random.default_rng(0).permutation(len(few))[:-3]
    features, _ = embed(backbone, [few[position] for position in order])
    assert features.tobytes() == expected[order].tobytes()


def test_undecodable_images_are_reported_and_their_neighbours_as_ever(
    embed: Callable, backbone: Backbone, few: list[str], tmp_path: Path
) -> None:
    expected, _ = embed(backbone, few)
    Path(few[3]).write_bytes(b"")
    Path(few[11]).write_bytes(Path(few[11]).read_bytes()[:-80])
    Path(few[12]).write_text("hello")
    Path(few[29]).unlink()
    features, failed = embed(backbone, few, batch_size=4)
    assert failed == {
        3: "empty file (0 bytes)",
        11: "truncated file",
        12: "not an image, or of an unknown format",
        29: "cannot be read: No such file or directory",
    }
    others = [position for position in range(30) if position not in failed]
    assert features[others].tobytes() == expected[others].tobytes()


def test_nothing_but_undecodable_images(embed: Callable, backbone: Backbone, tmp_path: Path) -> None:
    (tmp_path / "empty.png").touch()
    _, failed = embed(backbone, [str(tmp_path / "empty.png")] * 2)
    assert failed == {0: "empty file (0 bytes)", 1: "empty file (0 bytes)"}


# Divides by how much an image varies: NaN for one colour only, which zeros are too.
NORMALISED = """

class Normalised(Net):
    def forward(self, x):
        x = x - x.mean((1, 2, 3), keepdim=True)
        return self.fc(self.hidden((x / x.std((1, 2, 3), keepdim=True)).mean(3).mean(2).repeat(1, 6)[:, :16]))


def make():
    return Normalised(), lambda image: to_tensor(image.convert("L").convert("RGB"))
"""


def test_images_without_finite_features_are_reported(
    embed: Callable, write_network: Callable[[str], str], few: list[str], save_red: Callable
) -> None:
    backbone = load_backbone(write_network(NORMALISED))
    expected, failed = embed(backbone, few)
    assert not failed
    save_red(Path(few[5]))
    Path(few[6]).write_bytes(b"")
    features, failed = embed(backbone, few)
    assert failed == {5: "the network gives NaN or infinite features for it", 6: "empty file (0 bytes)"}
    others = [position for position in range(30) if position not in failed]
    assert features[others].tobytes() == expected[others].tobytes()


FAILING = (
    BY_COLOUR
    + """

def picky(image):
    if is_red(image):
        raise ZeroDivisionError("red is too much")
    return to_tensor(image)


def make():
    return Net(), picky
"""
)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("fails", "reason"),
    [
        ('raise ZeroDivisionError("red is too much\\nby far")', "fails: ZeroDivisionError: red is too much"),
        ("return None", "gives a NoneType"),
        ("return to_tensor(image)[0]", "gives a tensor (16, 16)"),
    ],
)
def test_an_image_that_the_transform_fails_on_is_left_out(
    embed: Callable,
    write_network: Callable[[str], str],
    many: list[str],
    save_red: Callable,
    workers: int,
    fails: str,
    reason: str,
) -> None:
    backbone = load_backbone(
        write_network(FAILING.replace('raise ZeroDivisionError("red is too much")', fails))
    )
    save_red(Path(many[70]))
    assert embed(backbone, many, workers=workers)[1] == {70: f"the transform {reason}"}


SIZES = (
    BY_COLOUR
    + """

def make():
    return Net(), lambda image: functional.to_tensor(image.resize((16, 20 if is_red(image) else 16)))
"""
)


@pytest.mark.parametrize("workers", [0, 2])
def test_transform_that_gives_different_sizes(
    embed: Callable,
    write_network: Callable[[str], str],
    many: list[str],
    save_red: Callable,
    workers: int,
) -> None:
    backbone = load_backbone(write_network(SIZES))
    save_red(Path(many[70]))
    with pytest.raises(ModelError) as error:
        embed(backbone, many, workers=workers)
    assert error.value.got == "the transform gives images of different sizes: [(3, 16, 16), (3, 20, 16)]"
    assert error.value.expected == "one size for all images"


def test_workers_are_gone_when_the_failure_is_told(
    embed: Callable, write_network: Callable[[str], str], many: list[str], save_red: Callable
) -> None:
    backbone = load_backbone(write_network(SIZES))
    save_red(Path(many[70]))
    with pytest.raises(ModelError, match="images of different sizes"):
        embed(backbone, many, workers=2)
    assert not multiprocessing.active_children()


DYING = (
    BY_COLOUR
    + """

def deadly(image):
    if in_worker() and is_red(image):
        os._exit(1)
    return to_tensor(image)


def make():
    return Net(), deadly
"""
)


@pytest.mark.parametrize("seconds_a_forward", ["0", "0.2"])  # it dies while the network waits, or runs
def test_worker_that_dies_is_explained_and_what_was_embedded_is_kept(
    write_network: Callable[[str], str],
    many: list[str],
    save_red: Callable,
    store: FeatureStore,
    by_plain_loop: Callable,
    monkeypatch: pytest.MonkeyPatch,
    seconds_a_forward: str,
) -> None:
    model = write_network(DYING)
    backbone = load_backbone(model)
    save_red(Path(many[72]))
    monkeypatch.setattr(extract_module, "BLOCK_PIXELS", 8 * 16 * 16)
    monkeypatch.setenv("TEST_SECONDS_A_FORWARD", seconds_a_forward)
    keys = content_keys(many, silent)[0]
    with pytest.raises(ModelError) as error:
        extract(backbone, many, keys, store, ExtractOptions(CPU, batch_size=8, workers=2), silent)
    assert error.value.got.startswith("a process that decodes images failed: ")
    assert "fewer --workers" in error.value.hint
    monkeypatch.setenv("TEST_SECONDS_A_FORWARD", "0")
    kept = np.flatnonzero(FeatureStore(store.folder).positions(keys) >= 0)
    assert kept.tolist() == list(range(len(kept)))
    assert len(kept) in range(8, 73, 8)
    expected = by_plain_loop(model, [many[position] for position in kept])
    assert torch.allclose(store.rows(keys[kept])[:], expected, rtol=0, atol=1e-6)


def test_signals_are_left_as_they_were(embed: Callable, backbone: Backbone, many: list[str]) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT)]
    embed(backbone, many, workers=2)
    assert [signal.getsignal(number) for number in (signal.SIGCHLD, signal.SIGINT)] == before


def test_failure_of_the_network_is_not_taken_for_a_dead_worker(
    store: FeatureStore, backbone: Backbone, few: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(backbone: Backbone, images: Tensor) -> Tensor:
        raise RuntimeError("no kernel image")

    monkeypatch.setattr(Backbone, "features", broken)
    with pytest.raises(RuntimeError, match=r"^no kernel image$"):
        extract(backbone, few, content_keys(few, silent)[0], store, ExtractOptions(CPU, workers=0), silent)


def test_failure_of_the_loader_is_not_taken_for_a_dead_worker(
    store: FeatureStore, backbone: Backbone, few: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(data: bytes, least_side: int | None, pixels: object) -> None:
        raise RuntimeError("out of file descriptors")

    monkeypatch.setattr(loading, "decode_image", broken)
    with pytest.raises(RuntimeError, match=r"^out of file descriptors$"):
        extract(backbone, few, content_keys(few, silent)[0], store, ExtractOptions(CPU, workers=0), silent)


@pytest.mark.parametrize("workers", [0, 1])
def test_memory_that_decoding_lacks_is_explained(
    store: FeatureStore, backbone: Backbone, many: list[str], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def greedy(data: bytes, least_side: int | None, pixels: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(loading, "decode_image", greedy)
    keys = content_keys(many, silent)[0]
    with pytest.raises(ModelError) as error:
        extract(backbone, many, keys, store, ExtractOptions(CPU, workers=workers), silent)
    assert error.value.got == (
        "out of memory, with 64 images at a time in each of 1 processes: can't allocate memory"
    )
    assert "fewer --workers" in error.value.hint


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "failure",
    [
        lambda: torch.empty(10**15),  # more than any machine has
        lambda: np.empty(10**15),
        lambda: (_ for _ in ()).throw(MemoryError),
    ],
)
@pytest.mark.parametrize("where", ["network", "transform"])
def test_out_of_memory_in_a_batch_is_one_message_and_the_batches_before_are_kept(
    store: FeatureStore,
    model: str,
    many: list[str],
    save_red: Callable,
    by_plain_loop: Callable,
    monkeypatch: pytest.MonkeyPatch,
    workers: int,
    failure: Callable[[], object],
    where: str,
) -> None:
    backbone = load_backbone(model)
    save_red(Path(many[70]))
    monkeypatch.setattr(extract_module, "BLOCK_PIXELS", 8 * 16 * 16)
    features, transform = Backbone.features, backbone.transform

    def greedy_network(network: Backbone, images: Tensor) -> Tensor:
        if (images[:, 0] == 1).all(dim=(1, 2)).any():  # all red
            failure()
        return features(network, images)

    def greedy_transform(image: Image.Image) -> Tensor:
        if image.getpixel((0, 0)) == (255, 0, 0):
            failure()
        return transform(image)

    if where == "network":
        monkeypatch.setattr(Backbone, "features", greedy_network)
    else:
        backbone = dataclasses.replace(backbone, transform=greedy_transform)
    keys = content_keys(many, silent)[0]
    with pytest.raises(ModelError) as error:
        extract(backbone, many, keys, store, ExtractOptions(CPU, batch_size=8, workers=workers), silent)
    assert error.value.got.startswith("out of memory, with 8 images at a time in each of ")
    assert "\n" not in error.value.got
    assert "--batch-size" in error.value.hint
    kept = np.flatnonzero(FeatureStore(store.folder).positions(keys) >= 0)
    assert kept.tolist() == list(range(64))
    expected = by_plain_loop(model, [many[position] for position in kept])
    assert torch.allclose(store.rows(keys[kept])[:], expected, rtol=0, atol=1e-6)


def test_interrupt_keeps_the_finished_batches(
    store: FeatureStore,
    backbone: Backbone,
    model: str,
    few: list[str],
    by_plain_loop: Callable,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(extract_module, "BLOCK_PIXELS", 4 * 16 * 16)
    done: list[int] = []

    @contextmanager
    def interrupted(what: str, total: int) -> Iterator[Callable[[int], None]]:
        def advance(count: int) -> None:
            done.append(count)
            if sum(done) == 12:
                raise KeyboardInterrupt

        assert (what, total) == ("embedding", 30)
        yield advance

    keys = content_keys(few, silent)[0]
    with pytest.raises(KeyboardInterrupt):
        extract(backbone, few, keys, store, ExtractOptions(CPU, batch_size=4, workers=0), interrupted)
    assert done == [4, 4, 4]
    kept = FeatureStore(store.folder)
    assert (kept.positions(keys) >= 0).tolist() == [True] * 12 + [False] * 18
    assert torch.allclose(kept.rows(keys[:12])[:], by_plain_loop(model, few[:12]), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("rows", "seconds", "shards"), [(10, 1e9, 3), (10**9, 0.0, 8), (10**9, 1e9, 1)])
def test_a_shard_is_written_after_so_many_rows_or_seconds(
    store: FeatureStore,
    backbone: Backbone,
    few: list[str],
    monkeypatch: pytest.MonkeyPatch,
    rows: int,
    seconds: float,
    shards: int,
) -> None:
    monkeypatch.setattr(extract_module, "BLOCK_PIXELS", 4 * 16 * 16)
    monkeypatch.setattr(extract_module, "SHARD_ROWS", rows)
    monkeypatch.setattr(extract_module, "SHARD_SECONDS", seconds)
    extract(
        backbone,
        few,
        content_keys(few, silent)[0],
        store,
        ExtractOptions(CPU, batch_size=4, workers=0),
        silent,
    )
    assert len(list(store.folder.glob("shard-*"))) == shards
    assert len(store) == 30


def test_exported_archive_of_fixed_batch_size(embed: Callable, few: list[str], tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.hidden, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 5), nn.Linear(5, 2)

        def embed(self, x: Tensor) -> Tensor:
            return self.hidden(self.conv(x).tanh().mean((2, 3))).tanh()

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.embed(x))

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = Net().eval()
    program = torch.export.export(network, (torch.zeros(7, 3, 16, 16),))
    torch.export.save(program, tmp_path / "net.pt2")
    backbone = load_backbone(None, tmp_path / "net.pt2")
    assert backbone.batch_size == 7
    features, failed = embed(backbone, few)
    assert not failed
    assert embed(backbone, few, batch_size=3)[0].tobytes() == features.tobytes()
    images = torch.stack([backbone.transform(Image.open(file).convert("RGB")) for file in few])
    with torch.no_grad():
        expected = network.embed(images).numpy()
    np.testing.assert_allclose(features, expected, rtol=0, atol=1e-6)
    assert features.std(axis=0).min() > 1e-4


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_mixed_precision_is_for_cuda_only_and_part_of_the_identity(device: str) -> None:
    mixed, plain = (ExtractOptions(torch.device(device), amp=amp).precision for amp in (True, False))
    assert plain == "float32"
    assert mixed == ("float16 autocast" if device == "cuda" else "float32")


def test_read_only_store_folder_is_an_output_error_in_the_end(
    store: FeatureStore, backbone: Backbone, few: list[str]
) -> None:
    from divacli.errors import OutputError

    shutil.rmtree(store.folder)
    store.folder.write_text("a file lies where the folder was")
    with pytest.raises(OutputError, match=r"shard-\w+\.safetensors cannot be written"):
        extract(backbone, few, content_keys(few, silent)[0], store, ExtractOptions(CPU, workers=0), silent)


def test_an_image_that_changes_after_its_key_was_taken_is_not_used(
    store: FeatureStore, backbone: Backbone, few: list[str]
) -> None:
    keys, _ = content_keys(few, silent)
    shutil.copy(few[1], few[0])
    failed = extract(backbone, few, keys, store, ExtractOptions(CPU, workers=0), silent)
    assert failed == {0: "it changed while it was being read"}
    assert len(store) == len(few) - 1
