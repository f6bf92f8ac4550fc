"""What Python people hold as DATA: tables, arrays, data sets, modules."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import ConcatDataset, Dataset, Subset

import divacli
from divacli import Compute, Network
from divacli.errors import DataError, DivaError, ModelError
from divacli.manifest import read_manifest

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

NET = Network("net.py:make")
HERE = Compute(workers=0)


class Pixels(Dataset):
    """Images in memory."""

    classes = ("a", "b")

    def __init__(self, files: list[Path], transform=None) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int):
        image = Image.open(self.files[row]).convert("RGB")
        return (image if self.transform is None else self.transform(image)), "ab".index(
            self.files[row].parent.name
        )


class Scaled:
    """A transform that prints nothing of what it does."""

    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, image: Image.Image) -> torch.Tensor:
        pixels = np.asarray(image.resize((6, 6)), np.float32) / 255 * self.factor
        return torch.from_numpy(pixels).permute(2, 0, 1)

    def __repr__(self) -> str:
        return "Scaled()"


class RandomCrop(Scaled):
    """A transform for training."""

    def __init__(self) -> None:
        super().__init__(1)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return super().__call__(image) + torch.rand(1)


class Flip(Scaled):
    """A transform for training that changes few images."""

    def __init__(self) -> None:
        super().__init__(1)

    def __call__(self, image: Image.Image) -> torch.Tensor:
        return super().__call__(image).flip(2) if torch.rand(()) < 1e-9 else super().__call__(image)


def module() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(108, 8), nn.ReLU(), nn.Linear(8, 2))


@pytest.fixture
def files(images) -> list[Path]:
    return sorted(images.rglob("*.png"))


def derivatives(report) -> list[float]:
    return report.table["derivative"].tolist()


def test_tables_in_memory_and_manifests(images, files):
    table = pd.DataFrame({"path": list(map(str, files)), "label": [file.parent.name for file in files]})
    wanted = derivatives(divacli.score(images, NET, compute=HERE))
    for given in (table, table.set_index("label", drop=False), read_manifest("photos")):
        assert derivatives(divacli.score(given, NET, compute=HERE)) == wanted
    assert list(table.columns) == ["path", "label"], "the user's own table is left alone"


def test_arrays_of_numpy_and_torch(data):
    arrays = dict(np.load(data))
    wanted = derivatives(divacli.score(data))
    pair = (arrays["embedding"], arrays["label"])
    for given in (
        arrays,
        pair,
        tuple(map(torch.from_numpy, pair)),
        {"embedding": pair[0], "label": pd.Series(pair[1])},
    ):
        assert derivatives(divacli.score(given)) == wanted


def test_tables_of_arrays_can_be_read_again(data):
    arrays = dict(np.load(data))
    report = divacli.prune(arrays, keep=0.5, force=True)
    assert len(divacli.load(report).features) == 60
    report.save("elsewhere/deep")
    assert len(divacli.load("elsewhere/deep/kept.csv").features) == 60
    with pytest.raises(DataError, match="embedding"):
        divacli.score({"features": arrays["embedding"], "label": arrays["label"]})


def test_an_image_folder_of_torchvision(images, files):
    datasets = pytest.importorskip("torchvision.datasets")
    wanted = divacli.score(images, NET, compute=HERE)
    folder = datasets.ImageFolder("photos")
    report = divacli.score(folder, NET, compute=HERE)
    assert derivatives(report) == derivatives(wanted)
    named = [Path(folder.samples[int(row)][0]) for row in report.table["id"]]
    assert named == [*map(Path, report.table["path"])]
    some = Subset(Subset(folder, range(0, 30, 2)), [0, 3, 8, 9, 12, 14])
    half = divacli.load(some)
    assert [*map(Path, half.table["path"])] == [files[row] for row in (0, 6, 16, 18, 24, 28)]
    with pytest.warns(UserWarning, match="transform of the ImageFolder is not used"):
        divacli.load(datasets.ImageFolder("photos", transform=Scaled(1)))


def test_a_data_set_of_images_in_memory(images, files):
    report = divacli.score(Pixels(files), NET, compute=HERE)
    wanted = divacli.score(images, NET, compute=HERE)
    assert sorted(derivatives(report)) == pytest.approx(sorted(derivatives(wanted)))
    assert set(report.table["label"]) == {"a", "b"}
    again = divacli.score(Subset(Pixels(files), range(30)), NET, compute=HERE)
    assert again.table["path"].tolist() == report.table["path"].tolist(), "the same images lie there once"
    report.save("scored")
    assert len(divacli.load("scored/scores.csv").table) == 30


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        (lambda files: Pixels(files, Scaled(1)), r"sample 0 of the Pixels is \(Tensor, int\)"),
        (lambda files: torch.utils.data.TensorDataset(torch.zeros(3, 4)), "sample 0 of the TensorDataset"),
        (lambda files: 3, "data is a int"),
        (lambda files: np.zeros((3, 4)), "data is a ndarray"),
        (lambda files: None, "data is a NoneType"),
    ],
)
def test_what_is_no_data_is_refused(dataset, said, files):
    with pytest.raises(DivaError, match=said) as caught:
        divacli.score(dataset(files), NET, compute=HERE)
    assert caught.value.expected
    left = [path for path in Path("cache").rglob("*") if path.is_file()] if Path("cache").exists() else []
    assert not left


def test_a_data_set_that_fails_leaves_nothing_behind(files, own_cache):
    class Broken(Pixels):
        def __getitem__(self, row):
            if row == 20:
                raise RuntimeError("disk")
            return super().__getitem__(row)

    with pytest.raises(RuntimeError, match="disk"):
        divacli.score(Broken(files), NET, compute=HERE)
    assert not list((own_cache / "datasets").iterdir())


def test_a_module_with_its_transform(images):
    network = module()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network.train()
    report = divacli.score(images, Network(network, transform=Scaled(1)), compute=HERE)
    assert report.summary["n_features"] == 8
    loaded = divacli.load(images, Network(network, transform=Scaled(1)), compute=HERE)
    with torch.no_grad():
        inputs = torch.stack([Scaled(1)(Image.open(path)) for path in loaded.table["path"]])
        wanted = network[:3](inputs).numpy()
    np.testing.assert_allclose(loaded.features, wanted, rtol=1e-5, atol=1e-6)
    trained = divacli.train(
        images,
        Network(network, transform=Scaled(1)),
        training=divacli.Training("all", epochs=1),
        compute=HERE,
    )
    assert set(trained.result.state_dict) == set(before)
    assert network.training
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())


def test_features_of_another_transform_or_code_are_not_taken_from_the_cache(images):
    class Squared(nn.Linear):
        power = 1

        def forward(self, x):
            return super().forward(x) ** self.power

    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), Squared(108, 8), nn.Linear(8, 2))
    found = [divacli.load(images, Network(network, transform=Scaled(1)), compute=HERE).features]
    found.append(divacli.load(images, Network(network, transform=Scaled(2)), compute=HERE).features)
    Squared.power = 2
    found.append(divacli.load(images, Network(network, transform=Scaled(1)), compute=HERE).features)
    assert not np.allclose(found[0], found[1])
    np.testing.assert_allclose(found[2], found[0] ** 2, rtol=1e-4)


@pytest.mark.parametrize(
    ("network", "said"),
    [
        (lambda: Network(module()), "without its transform"),
        (lambda: Network(module(), weights="DEFAULT", transform=Scaled(1)), "with a module"),
        (lambda: Network("resnet18", weights="DEFAULT", transform=Scaled(1)), "a transform with resnet18"),
        (lambda: Network(module(), transform=RandomCrop()), "draws at random"),
        (lambda: Network(module(), transform=Flip()), "draws at random"),
        (
            lambda: Network(nn.Sequential(nn.Flatten(), nn.LazyLinear(2)), transform=Scaled(1)),
            "without values",
        ),
        (lambda: Network(module().to("meta"), transform=Scaled(1)), "without values"),
        (module, "network is a Sequential"),
    ],
)
def test_a_module_that_is_not_usable_is_refused(network, said, images):
    with pytest.raises(DivaError, match=said) as caught:
        divacli.score(images, network(), compute=HERE)
    assert caught.value.expected
    assert isinstance(caught.value, ModelError) or "Network(module, transform=...)" in str(caught.value)


def test_data_as_pandas_and_numpy(images, data):
    loaded = divacli.load(data)
    np.testing.assert_array_equal(loaded.features, np.load(data)["embedding"])
    assert loaded.classes == ["0", "1", "2"]
    pictures = divacli.load(images)
    assert pictures.features is None
    assert all(Path(path).is_file() for path in pictures.table["path"]), "they open from where one stands"
    assert repr(pictures) == "<30 samples in 2 classes, no features>"
    assert divacli.load(images, NET, compute=HERE).features.shape == (30, 8)
    assert len(divacli.load(pictures.table.drop(columns="label"), labels="optional").table) == 30


def test_texts_are_a_pool(data, clip_folder, tmp_path, images):
    texts = pd.DataFrame({"text": ["a red one", "a blue one"], "label": ["a", "b"]})
    report = divacli.aggregate(images, {"words": texts}, Network(f"clip:{clip_folder}"), compute=HERE)
    assert set(report.extended["label"]) == {"a", "b"}
    assert report.summary["modalities"]["words"]["n_pool"] == 2
    assert len(divacli.load(report).features) == len(report.table), (
        "its features are there before it is saved"
    )


def test_code_that_was_edited_is_run_again(images):
    def score(transform):
        network = Network(module(), transform=transform)
        return divacli.load(images, network, compute=HERE).features

    bright = score(lambda image: Scaled(1)(image))
    np.testing.assert_array_equal(score(Scaled(1)), bright)
    # As the one before on the image of noise that tells transforms apart, and another one on small images.
    small = score(lambda image: Scaled(1 if image.width > 100 else 3)(image))
    assert not np.allclose(small, bright)


def test_features_of_a_library_s_transform_are_kept(images):
    v2 = pytest.importorskip("torchvision.transforms.v2")
    transform = v2.Compose([v2.Resize((6, 6)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    found = [
        divacli.score(images, Network(module(), transform=transform), compute=HERE).summary["n_embedded"]
        for _ in range(2)
    ]
    assert found == [30, 0]


def test_missing_texts_are_no_class(data):
    arrays = dict(np.load(data))
    labels = np.array(list("abc") * 40, dtype=object)
    assert set(divacli.load((arrays["embedding"], labels)).table["label"]) == set("abc")
    labels[3] = None
    with pytest.raises(DataError, match="label is empty in data row 4"):
        divacli.score((arrays["embedding"], labels))
    with_none = np.array([None] * 110 + ["x"] * 10, dtype=object)
    loaded = divacli.load({**arrays, "group": with_none})
    assert set(loaded.table["group"].fillna("")) == {"", "x"}


def test_arrays_of_any_name_and_type(data):
    arrays = dict(np.load(data))
    n = len(arrays["label"])
    loaded = divacli.load({**arrays, "file": np.arange(n), "allow_pickle": np.arange(n)})
    assert {"file", "allow_pickle"} <= set(loaded.table)
    half = torch.from_numpy(arrays["embedding"]).to(torch.bfloat16).requires_grad_()
    assert divacli.load((half, arrays["label"])).features.dtype == np.float32
    for wrong in (half.to_sparse(), np.ma.masked_array(arrays["embedding"], mask=True), [half, half]):
        with pytest.raises(DataError, match="embedding"):
            divacli.score((wrong, arrays["label"]))


def test_messages_name_arrays_by_their_argument(data):
    arrays = dict(np.load(data))
    with pytest.raises(DataError, match="pool"):
        divacli.extend("data.npz", (arrays["embedding"][:, :3], arrays["label"]))


def test_labels_of_a_data_set_are_those_that_it_means(images, files):
    datasets = pytest.importorskip("torchvision.datasets")
    with pytest.raises(DataError, match="target_transform"):
        divacli.load(datasets.ImageFolder("photos", target_transform=lambda number: number // 2))

    class Other(datasets.ImageFolder):
        def __getitem__(self, row):
            image, number = super().__getitem__(row)
            return image.rotate(90), 1 - number

    turned = divacli.load(Other("photos"))
    assert (turned.table["label"] == "b").sum() == 15
    assert "photos" not in turned.table["path"].iloc[0]
    assert turned.table["label"].iloc[0] == "b"

    class Named(Pixels):
        def __getitem__(self, row):
            return super().__getitem__(row)[0], ("cat", "dog")[row % 2]

    assert divacli.load(Named(files)).classes == ["cat", "dog"]

    class Halves(Pixels):
        def __getitem__(self, row):
            return super().__getitem__(row)[0], row / 2

    with pytest.raises(DataError, match=r"label of sample 0 of the Halves is 0\.0"):
        divacli.load(Halves(files))
    with pytest.raises(DataError, match="no samples"):
        divacli.load(Pixels([]))
    both = ConcatDataset([datasets.ImageFolder("photos"), datasets.ImageFolder("photos")])
    with pytest.raises(DataError, match="more than once"):
        divacli.load(both)


def test_a_report_is_data_from_anywhere(images, tmp_path, monkeypatch):
    network = Network(module(), transform=Scaled(1))
    report = divacli.score(images, network, compute=HERE)
    (tmp_path / "other").mkdir()
    monkeypatch.chdir(tmp_path / "other")
    loaded = divacli.load(report)
    assert all(Path(path).is_file() for path in loaded.table["path"])
    assert divacli.reweight(report, step_size=0.1, compute=HERE).network == network, (
        "which needs no name again"
    )


def test_modes_of_the_caller_change_nothing(data):
    wanted = derivatives(divacli.score(data))
    state = torch.get_rng_state()
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        assert derivatives(divacli.score(data)) == wanted
    assert torch.equal(state, torch.get_rng_state())
