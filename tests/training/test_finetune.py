"""What is trained, the head that ridge regression gives at once, and one weighted step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torchvision import models

from divacli.backbones.load import load_backbone
from divacli.backbones.parts import active_names, last_block
from divacli.errors import ModelError
from divacli.ridge import RidgeTask, decompose, loo_predictions, ridge_path
from divacli.training.trainable import head_of, trained_names
from divacli.training.trainee import StepOptions, Trainee, closed_form_head, set_outputs

CPU = torch.device("cpu")


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.second = nn.Sequential(nn.Linear(8, 8), nn.ReLU())
        self.norm = nn.LayerNorm(8)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.norm(self.second(self.first(x).relu()))


class Net(nn.Module):
    """Blocks in two containers, a norm after them, a buffer, and a part that does not run."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4)
        self.stages = nn.ModuleList([nn.Sequential(Block(), Block()), nn.Sequential(Block())])
        self.auxiliary = Block()
        self.auxiliary_head = nn.Linear(8, 5)
        self.norm = nn.BatchNorm1d(8)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).mean((2, 3))
        for stage in self.stages:
            x = stage(x)
        return self.head(self.norm(x))


@pytest.fixture
def network() -> Net:
    torch.manual_seed(0)
    return Net().eval()


def parts(names: list[str]) -> set[str]:
    return {name.rpartition(".")[0] for name in names}


ACTIVE = ["stem", "stages.0.0", "stages.0.1", "stages.1.0", "norm", "head"]


def active(network: nn.Module) -> list[str]:
    return [name for name, _ in network.named_parameters() if "auxiliary" not in name]


def test_the_last_block_of_nested_containers(network):
    block = "stages.1.0"
    assert last_block(network, "head", active(network)) == [
        f"{block}.first",
        f"{block}.second.0",
        f"{block}.norm",
        "norm",
        "head",
    ]


def test_without_repeated_blocks_the_last_layer_stands_for_one():
    plain = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    names = [name for name, _ in plain.named_parameters()]
    assert last_block(plain, "4", names) == ["2", "4"]
    assert last_block(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), "1", ["1.weight", "1.bias"]) == ["1"]


def test_a_norm_alone_is_no_last_layer():
    plain = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    names = [name for name, _ in plain.named_parameters()]
    assert last_block(plain, "3", names) == ["0", "1", "3"]
    only_norms = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    assert last_block(only_norms, "1", [name for name, _ in only_norms.named_parameters()]) == ["0", "1"]


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("mobilenet_v2", "features.17"),
        ("resnet18", "layer4.1"),
        ("vit_b_16", "encoder.layers.encoder_layer_11"),
        ("convnext_tiny", "features.7.2"),
        ("efficientnet_b0", "features.7.0"),
        ("vgg11", "classifier.3"),
    ],
)
def test_the_last_block_of_known_networks(name, first):
    with torch.device("meta"):
        network = getattr(models, name)()
    names = [parameter for parameter, _ in network.named_parameters()]
    head = [layer for layer, module in network.named_modules() if isinstance(module, nn.Linear)][-1]
    found = last_block(network, head, names)
    assert found[0].startswith(first)
    assert found[-1] == head


@pytest.fixture
def backbone(tmp_path: Path) -> Callable[[str], object]:
    """Load a network that a line of code makes, with images of 8 pixels."""

    def load(line: str) -> object:
        file = tmp_path / "net.py"
        file.write_text(
            "import sys\nimport torch\n"
            "from torchvision import models\nfrom torchvision.transforms import v2\n"
            f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "from test_finetune import Net\n"
            "TRANSFORM = v2.Compose([v2.Resize((SIDE, SIDE)), v2.PILToTensor(), "
            "v2.ToDtype(torch.float32, scale=True)])\n".replace("SIDE", "64" if "models" in line else "8")
            + f"def make():\n    torch.manual_seed(0)\n    return {line}, TRANSFORM\n"
        )
        return load_backbone(f"{file}:make")

    return load


def test_what_has_no_part_in_the_output_is_not_trained(backbone):
    network = backbone("Net()")
    names = active_names(network.network, network.layer, torch.rand(2, 3, 8, 8))
    assert names == active(network.network)
    assert all(parameter.grad is None for parameter in network.network.parameters())
    assert trained_names(network, "all", names) == names
    assert parts(trained_names(network, "last", names)) == {
        "stages.1.0.first",
        "stages.1.0.second.0",
        "stages.1.0.norm",
        "norm",
        "head",
    }
    assert parts(trained_names(network, "stem", names)) == {"stem", "head"}
    assert trained_names(network, "norm.weight", names) == ["norm.weight", "head.weight", "head.bias"]
    assert trained_names(network, "head", names) == ["head.weight", "head.bias"]
    for nothing in ("auxiliary", "stages.0.0.second.1"):
        with pytest.raises(ModelError, match="no parameters there that its output depends on"):
            trained_names(network, nothing, names)
    with pytest.raises(ModelError, match="no layer 'stag'"):
        trained_names(network, "stag", names)
    # A name is not the beginning of another one.
    with pytest.raises(ModelError, match=r"no layer 'stages\.1\.0\.fir'"):
        trained_names(network, "stages.1.0.fir", names)


def test_auxiliary_heads_follow_suit(backbone):
    found = backbone("models.googlenet(init_weights=False, num_classes=6)")
    names = active_names(found.network, found.layer, torch.rand(2, 3, 64, 64))
    assert not [name for name in names if name.startswith("aux")]
    set_outputs(found, 4, names)
    assert head_of(found).out_features == 4
    models.googlenet(init_weights=False, num_classes=4).load_state_dict(found.network.state_dict())


# The head


def gaussian(n: int, d: int, k: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % k
    centres = torch.randn(k, d, generator=generator) * 0.6
    return centres[labels] + torch.randn(n, d, generator=generator) + 3, labels


@pytest.mark.parametrize(("n", "d"), [(60, 5), (20, 30)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_closed_form_head_is_the_ridge_solution_as_logits(n, d, bias):
    features, labels = gaussian(n, d)
    weights = torch.rand(n, generator=torch.Generator().manual_seed(1), dtype=torch.float64) * 2
    task = RidgeTask(features, labels, 3, weights, dtype=torch.float64)
    weight, offset = closed_form_head(task, torch.arange(n), bias=bias)
    # The ridge from the package's own path; the rest by hand.
    posed = RidgeTask(
        features, labels, 3, weights, validation_mask=weights, dtype=torch.float64, intercept=bias
    )
    spectrum = decompose(posed)
    path = ridge_path(posed, spectrum)
    ridge = float(path.ridges[path.best])
    z, y = features.double(), functional.one_hot(labels).double()
    if bias:
        mean, target = (weights @ part / weights.sum() for part in (z, y))
    else:
        mean, target = torch.zeros(d, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
    gram = (z - mean).T @ (weights[:, None] * (z - mean)) + ridge * torch.eye(d, dtype=torch.float64)
    coef = torch.linalg.solve(gram, (z - mean).T @ (weights[:, None] * (y - target)))
    scale = float((weight.T * coef).sum() / coef.square().sum())
    assert scale > 1
    torch.testing.assert_close(weight.T, scale * coef, rtol=1e-6, atol=1e-8)
    biases = offset - scale * (target - mean @ coef)
    if not bias:
        torch.testing.assert_close(biases, torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-8)
    # Calibrated: no other scale or bias makes the left-out labels and the prior's one sample more likely.
    left_out = loo_predictions(posed, spectrum.fit(ridge), torch.arange(n))

    def loss(scale: float, biases: Tensor) -> float:
        logs = torch.log_softmax(scale * left_out + biases, dim=1)
        share = weights / weights.sum()
        prior = share @ logs.mean(dim=1) - biases.square().sum() / 2
        return -float(share @ logs[torch.arange(n), labels] + prior / n)

    best = loss(scale, biases)
    for factor in (0.8, 1.25):
        assert loss(factor * scale, biases) > best
    if bias:
        for shift in torch.eye(3, dtype=torch.float64) * 0.3:
            assert min(loss(scale, biases + shift), loss(scale, biases - shift)) > best


# A step


def learner(network: nn.Module, member: int = 4, **options: object) -> Trainee:
    names = active(network)
    return Trainee(network, "head", names, torch.ones(member, dtype=torch.bool), StepOptions(**options), CPU)


def images(n: int = 4) -> tuple[Tensor, Tensor]:
    return torch.rand(n, 3, 8, 8, generator=torch.Generator().manual_seed(2)), torch.arange(n) % 5


def assert_same_parameters(first: Trainee, second: Trainee, **close: float) -> None:
    for name, value in first.parameters().items():
        torch.testing.assert_close(value, second.parameters()[name], **close)


def test_features_and_logits_are_the_networks_own(network):
    batch, _ = images(6)
    one = learner(network)
    features = one.features(batch)
    torch.testing.assert_close(one.logits(features), network(batch))
    assert features.requires_grad


def test_a_step_follows_the_gradient_of_the_weighted_loss(network):
    batch, labels = images()
    weights = torch.tensor([0.5, 2.0, 0.0, 1.5])
    one = learner(network, lr=0.1, weight_decay=0.0, clip_norm=1e9)
    before = one.parameters()
    logits = network(batch)
    loss = (functional.cross_entropy(logits, labels, reduction="none") * weights).sum() / 4
    wanted = torch.autograd.grad(loss, [dict(network.named_parameters())[name] for name in before])
    value = one.step(batch, labels, weights, 0.5, 4)
    assert value == pytest.approx(loss.item())
    for (name, old), gradient in zip(before.items(), wanted, strict=True):
        torch.testing.assert_close(one.parameters()[name], old - 0.05 * gradient, rtol=1e-4, atol=1e-7)


def test_weight_two_is_the_sample_twice_and_weight_zero_none_at_all():
    batch, labels = images()
    networks = []
    for rows, weights in (
        ([0, 1, 2, 3], [2.0, 1.0, 0.0, 1.0]),
        ([0, 0, 1, 3], [1.0, 1.0, 1.0, 1.0]),
        ([0, 1, 2, 3], [1.0, 1.0, 1.0, 1.0]),
    ):
        torch.manual_seed(0)
        networks.append(learner(Net().eval(), lr=0.1))
        networks[-1].step(batch[rows], labels[rows], torch.tensor(weights), 1.0, 4)
    weighted, repeated, plain = networks
    assert_same_parameters(weighted, repeated, rtol=1e-4, atol=1e-6)
    with pytest.raises(AssertionError):
        assert_same_parameters(weighted, plain, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_what_is_frozen_stays(optimizer, network):
    batch, labels = images()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    names = [name for name in active(network) if name.startswith(("norm", "head"))]
    one = Trainee(network, "head", names, torch.ones(4, dtype=torch.bool), StepOptions(optimizer, 0.1), CPU)
    for _ in range(3):
        one.step(batch, labels, torch.ones(4), 1.0, 4)
    changed = {name for name, tensor in network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert changed == set(names)  # neither what is frozen nor running statistics


def test_long_gradients_are_shortened(network):
    batch, labels = images()
    one = learner(network, lr=1.0, weight_decay=0.0, clip_norm=1e-3)
    before = one.parameters()
    one.step(batch, labels, torch.ones(4), 1.0, 4)
    moved = sum(float((one.parameters()[name] - value).square().sum()) for name, value in before.items())
    assert moved**0.5 == pytest.approx(1e-3, rel=1e-2)


def test_a_twin_shares_what_is_frozen_and_learns_alone(network):
    batch, labels = images()
    names = ["head.weight", "head.bias"]
    one = Trainee(network, "head", names, torch.ones(4, dtype=torch.bool), StepOptions(lr=0.1), CPU)
    twin = one.twin(torch.tensor([True, False, True, False]))
    assert twin.member.tolist() == [True, False, True, False]
    before = one.parameters()
    twin.step(batch, labels, torch.ones(4), 1.0, 4)
    assert_same_parameters(one, one, rtol=0, atol=0)
    for name, value in before.items():
        assert torch.equal(one.parameters()[name], value)
        assert not torch.equal(twin.parameters()[name], value)
    assert twin._network.stem.weight is network.stem.weight
    assert twin._network.norm.running_mean is network.norm.running_mean
    with torch.no_grad():
        assert torch.equal(twin.features(batch), one.features(batch))


def test_a_state_continues_to_the_last_bit():
    batch, labels = images()
    runs = []
    for stop in (False, True):
        torch.manual_seed(0)
        one = learner(Net().eval(), lr=0.1)
        one.step(batch, labels, torch.ones(4), 1.0, 4)
        if stop:
            state = one.state()
            one.step(batch, labels, torch.ones(4), 1.0, 4)  # which the state must not notice
            torch.manual_seed(5)
            one = learner(Net().eval(), lr=0.1)
            one.load_state(state)
        one.step(batch, labels, torch.ones(4), 0.5, 4)
        runs.append(one)
    assert_same_parameters(*runs, rtol=0, atol=0)
