"""Per-sample gradients are those of plain automatic differentiation, one output and one image at a time."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torchvision import models

from divacli.backbones.linearised.gradients import SampleGradients

EXACT = {"rtol": 1e-9, "atol": 1e-12}


class Smooth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.fc = nn.Conv2d(3, 5, 3), nn.Linear(5, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(self.conv(x).tanh().mean((2, 3))).tanh())


class Normed(nn.Module):
    """Batch norms, ReLUs in place, a depthwise convolution and a residual connection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(inplace=True))
        self.depthwise = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.act = nn.BatchNorm2d(6), nn.ReLU6(inplace=True)
        self.fc = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.fc(functional.relu(x + self.act(self.norm(self.depthwise(x)))).mean((2, 3)))


class Transformer(nn.Module):
    """Patches, a class token, positions, attention, and a scale that has no dimension."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token, self.positions = nn.Parameter(torch.randn(1, 1, 8)), nn.Parameter(torch.randn(1, 5, 8))
        self.norm, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.mlp = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 12), nn.GELU(), nn.Linear(12, 8))
        self.scale = nn.Parameter(torch.tensor(0.7))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1) + self.positions
        normed = self.norm(x)
        x = x + self.attention(normed, normed, normed, need_weights=False)[0]
        return self.head((x + self.scale * self.mlp(x))[:, 0])


class Tied(nn.Module):
    """One weight in two layers, and one layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 3)
        self.one, self.other, self.fc = nn.Linear(5, 5), nn.Linear(5, 5), nn.Linear(5, 3)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.conv(x).tanh().mean((2, 3))).tanh()
        return self.fc(self.one(self.other(x).tanh()).tanh())


# Attention on the CPU is run image by image by vmap, and said to be slow.
pytestmark = pytest.mark.filterwarnings("ignore:There is a performance drop")

NETWORKS = (Smooth, Normed, Transformer, Tied)


def made(kind: type[nn.Module]) -> nn.Module:
    """A network in evaluation mode, float64, with random statistics in its batch norms."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = kind()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.3)
                module.running_var.uniform_(0.5, 2)
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return network.eval().double()


def noise(n: int, side: int = 8) -> Tensor:
    return torch.randn((n, 3, side, side), generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def body(network: nn.Module) -> tuple[str, list[str], nn.Linear]:
    """The name of the head, those of all other parameters, and the head."""
    head = "head" if hasattr(network, "head") else "fc"
    names = [name for name, _ in network.named_parameters() if not name.startswith(f"{head}.")]
    return head, names, network.get_submodule(head)


def gradients_of(network: nn.Module, direction: Tensor) -> SampleGradients:
    head, names, _ = body(network)
    return SampleGradients(network, head, direction, names)


def jacobian(network: nn.Module, image: Tensor) -> dict[str, Tensor]:
    """The derivative (K, *shape) of the logits of one image with respect to each parameter of the body."""
    _, names, _ = body(network)
    values = tuple(network.get_parameter(name).detach() for name in names)

    def logits(*values: Tensor) -> Tensor:
        return functional_call(network, dict(zip(names, values, strict=True)), (image[None],))[0]

    return dict(zip(names, torch.autograd.functional.jacobian(logits, values), strict=True))


@pytest.mark.parametrize("kind", NETWORKS)
def test_exact_for_every_output_and_image(kind: type[nn.Module]) -> None:
    network, images = made(kind), noise(3)
    head = body(network)[2]
    expected = [jacobian(network, image) for image in images]
    for output, row in enumerate(head.weight.detach().float()):
        features, found = gradients_of(network, row)(images)
        torch.testing.assert_close(head(features.double()), network(images), rtol=1e-6, atol=1e-6)
        assert list(found) == body(network)[1]
        for name, gradient in found.items():
            of_images = torch.stack([one[name][output] for one in expected])
            assert gradient.shape == of_images.shape
            torch.testing.assert_close(gradient, of_images, **EXACT)


@pytest.mark.parametrize("kind", NETWORKS)
def test_a_combination_of_outputs_is_the_jacobian_contracted(kind: type[nn.Module]) -> None:
    network, images = made(kind), noise(2)
    signs = torch.tensor([1.0, -1.0, 1.0], dtype=torch.float64) / 3**0.5
    _, found = gradients_of(network, (body(network)[2].weight.detach().T @ signs).float())(images)
    for i, image in enumerate(images):
        for name, of_outputs in jacobian(network, image).items():
            expected = torch.tensordot(signs, of_outputs, dims=1)
            torch.testing.assert_close(found[name][i], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", NETWORKS)
def test_one_by_one_and_side_by_side_are_the_same(kind: type[nn.Module]) -> None:
    network, images = made(kind), noise(4)
    gradients = gradients_of(network, body(network)[2].weight[0].detach().float())
    features, together = gradients(images)
    for i in range(4):
        phi, alone = gradients(images[i : i + 1])
        torch.testing.assert_close(phi[0], features[i], rtol=1e-6, atol=1e-6)
        for name, gradient in alone.items():
            torch.testing.assert_close(gradient[0], together[name][i], **EXACT)


def test_statistics_of_batch_norms_are_neither_used_up_nor_changed() -> None:
    network, images = made(Normed), noise(4)
    gradients = gradients_of(network, body(network)[2].weight[0].detach().float())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    _, alone = gradients(images[:1])
    _, among = gradients(torch.cat([images[:1], 100 * images[1:]]))
    for name, gradient in alone.items():
        torch.testing.assert_close(among[name][0], gradient[0], **EXACT)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert not network.training


def test_some_parameters_only_and_no_gradient_is_left_behind() -> None:
    network, images = made(Smooth), noise(2)
    direction = network.fc.weight[1].detach().float()
    _, everything = gradients_of(network, direction)(images)
    _, some = SampleGradients(network, "fc", direction, ["hidden.weight"])(images)
    assert list(some) == ["hidden.weight"]
    torch.testing.assert_close(some["hidden.weight"], everything["hidden.weight"], **EXACT)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_features_averaged_over_tokens_are_what_is_differentiated() -> None:
    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 6, 4, stride=4), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.patches(x).flatten(2).mT.tanh()).mean(1)

    network, images = made(Tokens), noise(2)
    _, found = gradients_of(network, network.head.weight[2].detach().float())(images)
    for i, image in enumerate(images):
        for name, of_outputs in jacobian(network, image).items():
            torch.testing.assert_close(found[name][i], of_outputs[2], rtol=1e-5, atol=1e-7)


def test_resnet18() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = models.resnet18(num_classes=3).eval()
    image = noise(1, 32).float()
    features, found = gradients_of(network, network.fc.weight[1].detach())(image)
    torch.testing.assert_close(network.fc(features), network(image))
    network(image)[0, 1].backward()
    for name in body(network)[1]:
        expected = network.get_parameter(name).grad
        scale = float(expected.abs().max())
        torch.testing.assert_close(found[name][0], expected, rtol=1e-4, atol=1e-5 * scale)
