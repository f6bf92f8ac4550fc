"""Features that are gradients: their kernel, their linear model, and what they cost in memory."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.profiler import ProfilerActivity, profile
from torchvision import models

from divacli.backbones.feature_layer import head_layer
from divacli.backbones.linearised.expression import PROJECTION, Linearize
from divacli.backbones.linearised.gradients import SampleGradients
from divacli.backbones.linearised.sketch import Sketch
from divacli.backbones.linearised.tangent import TangentExtractor
from divacli.backbones.load import load_backbone
from divacli.errors import ModelError

EXACT = 1 << 16
"""A projection that no gradient of these networks is longer than."""

CLOSE = {"rtol": 1e-4, "atol": 1e-5}


class Smooth(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.fc = nn.Conv2d(3, 5, 3), nn.Linear(5, 6), nn.Linear(6, 3)
        self.unused = nn.Linear(6, 7)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.hidden(self.conv(x).tanh().mean((2, 3))).tanh())


class Normed(nn.Module):
    """A batch norm, ReLUs in place and as a function, and a scale without dimensions."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.relu = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(inplace=True)
        self.deep, self.scale, self.fc = nn.Conv2d(6, 6, 3), nn.Parameter(torch.tensor(0.8)), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.norm(self.conv(x)))
        return self.fc(functional.relu(x[:, :, 1:-1, 1:-1] + self.scale * self.deep(x)).mean((2, 3)))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 8, 4, stride=4), nn.Parameter(torch.randn(1, 1, 8))
        self.blocks = nn.Sequential(
            *(nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, norm_first=True) for _ in range(2))
        )
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        return self.head(self.blocks(torch.cat([self.token.expand(len(x), -1, -1), x], dim=1))[:, 0])


class Branching(Smooth):
    """Looks at numbers to choose its way, which cannot be done for many images side by side."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(2 * x if x.sum() > 0 else x)


class Deep(nn.Module):
    """180,000 parameters, 8 features: a gradient is much larger than whatever else is computed."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.wide, self.deep = nn.Conv2d(3, 8, 3), nn.Linear(8, 420), nn.Linear(420, 420)
        self.narrow, self.fc = nn.Linear(420, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.narrow(self.deep(self.wide(self.conv(x).mean((2, 3))).tanh()).tanh()).tanh())


NETWORKS = (Smooth, Normed, Transformer)


def made(kind: Callable[[], nn.Module]) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = kind().eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, std=0.3)
    return network


def noise(n: int, side: int = 8, seed: int = 1) -> Tensor:
    return torch.randn((n, 3, side, side), generator=torch.Generator().manual_seed(seed))


def extractor(
    network: nn.Module, expression: str, projection: int = EXACT, **settings: object
) -> TangentExtractor:
    layer = head_layer(network, noise(2)) or ""
    return TangentExtractor(network, noise(2), layer, Linearize(expression, projection, **settings))


def jacobian(network: nn.Module, images: Tensor, names: Iterable[str]) -> Tensor:
    """The derivative (n, K, p) of the outputs with respect to parameters."""
    names = list(names)
    values = tuple(network.get_parameter(name).detach() for name in names)

    def outputs(*values: Tensor) -> Tensor:
        return functional_call(network, dict(zip(names, values, strict=True)), (images,))

    found = torch.autograd.functional.jacobian(outputs, values)
    return torch.cat([one.reshape(len(images), one.shape[1], -1) for one in found], dim=2)


def names_of(network: nn.Module, *prefixes: str) -> list[str]:
    return [name for name, _ in network.named_parameters() if name.startswith(prefixes or "")]


def body(network: nn.Module) -> list[str]:
    return [name for name in names_of(network) if not name.startswith(("fc.", "head.", "unused."))]


def kernel(rows: Tensor) -> Tensor:
    return rows @ rows.T


def mean_kernel(jacobians: Tensor) -> Tensor:
    """1/K sum_c <J_c(x), J_c(x')> of Jacobians (n, K, p)."""
    return torch.einsum("ncp,mcp->nm", jacobians, jacobians) / jacobians.shape[1]


# The kernel


@pytest.mark.parametrize("kind", NETWORKS)
@pytest.mark.parametrize("expression", ["block", "full"])
def test_over_all_signs_the_kernel_is_the_mean_tangent_kernel_of_the_outputs(
    kind: type[nn.Module], expression: str
) -> None:
    network, images = made(kind), noise(4)
    jacobians = jacobian(network, images, body(network))
    expression = "full" if expression == "full" else f"block:{','.join(body(network))}"
    by_signs: dict[tuple[float, ...], Tensor] = {}
    for seed in range(60):
        found = extractor(network, expression, seed=seed)(images)
        phi, gradients = found[:, : -jacobians.shape[2]], found[:, -jacobians.shape[2] :]
        # Which signs were drawn follows from the gradients themselves.
        signs = torch.linalg.lstsq(jacobians.mT.flatten(0, 1), gradients.flatten()[:, None]).solution[:, 0]
        signs = (signs * 3**0.5).round()
        assert signs.abs().tolist() == [1, 1, 1]
        expected = torch.einsum("c,ncp->np", signs, jacobians) / 3**0.5
        torch.testing.assert_close(gradients, expected, **CLOSE)
        by_signs[tuple(signs.tolist())] = kernel(found)
        if expression == "full":
            plain = extractor(network, f"head+block:{body(network)[0]}", PROJECTION)
            torch.testing.assert_close(phi, plain(images)[:, : phi.shape[1]], **CLOSE)
        if len(by_signs) == 8:
            break
    assert set(by_signs) == set(itertools.product((-1.0, 1.0), repeat=3))
    found = torch.stack(list(by_signs.values())).mean(0)
    expected = mean_kernel(jacobians)
    if expression == "full":
        # The bias of the head gives 1, which the ridge regression's own column does.
        expected = (
            mean_kernel(jacobian(network, images, set(names_of(network)) - set(names_of(network, "unused"))))
            - 1
        )
    torch.testing.assert_close(found, expected, **CLOSE)
    single = next(iter(by_signs.values()))
    assert not torch.allclose(single, expected, **CLOSE)  # one draw is not the mean: the test can tell


def test_parameters_are_those_that_features_depend_on() -> None:
    network = made(Smooth)
    of_body = sum(network.get_parameter(name).numel() for name in body(network))
    assert extractor(network, "full").n_parameters == of_body
    assert extractor(network, "full")(noise(1)).shape == (1, 6 + of_body)
    assert extractor(network, "block:hidden")(noise(1)).shape == (1, 5 * 6 + 6)
    assert extractor(network, "block:hidden.weight")(noise(1)).shape == (1, 5 * 6)


@pytest.mark.parametrize(
    ("kind", "named"),
    [(Smooth, "hidden"), (Normed, "deep"), (Transformer, "blocks.1")],
    ids=lambda one: str(one),
)
def test_the_last_block(kind: type[nn.Module], named: str) -> None:
    network = made(kind)
    found, expected = (extractor(network, f"block:{name}")(noise(2)) for name in ("last", named))
    assert torch.equal(found, expected)


def test_a_block_that_is_called_last() -> None:
    network = made(Smooth)
    network.add_module("last", network.conv)
    del network.conv
    network.conv = lambda x: network.last(x)
    assert extractor(network, "block:last").n_parameters == 5 * 27 + 5


@pytest.mark.parametrize("kind", [*NETWORKS, lambda: models.resnet18(num_classes=4)])
def test_the_projected_kernel_is_within_the_bound_of_the_exact_one(kind: Callable[[], nn.Module]) -> None:
    network, images, q = made(kind), noise(6, 32), 64
    block = "block:layer1.0" if isinstance(network, models.ResNet) else f"block:{','.join(body(network))}"
    rows = extractor(network, block, 1 << 20)(images).double()
    assert rows.shape[1] > 2 * q
    sizes = rows.norm(dim=1)
    bound = ((sizes.outer(sizes).square() + kernel(rows).square()) / q).sqrt()

    def error(short: Tensor) -> Tensor:
        return (kernel(short.double()) - kernel(rows)) / bound

    # Of one draw the errors of all pairs are one number, nearly, where gradients are alike.
    draws = [error(Sketch(rows.shape[1], q, seed)(rows.float())) for seed in range(200)]
    assert torch.stack(draws).square().mean(0).max() < 1.4
    short = extractor(network, block, q)(images)
    assert short.shape == (6, q)
    assert error(short).abs().max() < 4
    assert error(short).abs().max() > 0.01  # it is a projection, and not the rows themselves
    assert error(short * 2).abs().max() > 4


def test_projection_is_of_each_part() -> None:
    network = made(Smooth)
    both = extractor(network, "block:conv+block:hidden", 16)(noise(3))
    assert both.shape == (3, 32)
    alone = extractor(network, "block:hidden", 64)(noise(3))
    assert alone.shape == (3, 36)  # it is shorter than that
    torch.testing.assert_close(both[:, :16].norm(dim=1), both[:, 16:].norm(dim=1))


def test_every_seed_and_part_has_a_projection_of_its_own() -> None:
    network, images = made(Smooth), noise(2)
    network.fc = nn.Linear(6, 1)  # of one output the sign alone is drawn, which a kernel does not show
    kernels = [kernel(extractor(network, "block:hidden", 16, seed=seed)(images)) for seed in range(5)]
    for one, other in itertools.combinations(kernels, 2):
        assert not torch.allclose(one, other, rtol=1e-3)
    one, other = extractor(network, "block:hidden+block:hidden", 16)(images).split(16, dim=1)
    assert not torch.allclose(one.abs(), other.abs(), rtol=1e-3)


def test_parts_are_scaled_to_the_first_one_and_the_head_stays_as_it_is() -> None:
    network, images = made(Smooth), noise(3)
    phi = extractor(network, "full")(images)[:, :6]
    alone = {name: extractor(network, f"block:{name}")(images) for name in ("conv", "hidden")}
    size = phi.norm(dim=1, keepdim=True)
    expected = torch.cat(
        [
            phi,
            *(
                f * size * functional.normalize(alone[name], dim=1)
                for name, f in (("hidden", 1), ("conv", 3))
            ),
        ],
        1,
    )
    for expression in (
        "head+block:hidden+3*block:conv",
        "block:hidden+3*block:conv+head",
        "2*head+2*block:hidden+6*block:conv",
    ):
        torch.testing.assert_close(extractor(network, expression)(images), expected, **CLOSE)


# Around the trained point


@pytest.mark.parametrize("kind", [*NETWORKS, lambda: models.mobilenet_v2(num_classes=4)])
@pytest.mark.parametrize("expression", ["head+2*block:last", "3*block:last+head", "full"])
def test_the_head_gives_the_outputs_of_the_network(kind: Callable[[], nn.Module], expression: str) -> None:
    network, images = made(kind), noise(3, 32)
    found = extractor(network, expression, 64)
    weight, bias = found.head
    features = found(images)
    torch.testing.assert_close(features @ weight.T + bias, network(images), **CLOSE)
    assert features[:, -64:].abs().sum() > 0


def test_gradients_alone_have_no_head() -> None:
    assert extractor(made(Smooth), "block:last").head is None


@pytest.mark.parametrize("block", ["hidden", "conv", ""])
def test_a_small_step_of_fine_tuning_is_predicted_to_the_second_order(block: str) -> None:
    network = made(Smooth).double()
    images, others = noise(6).double(), noise(5, seed=2).double()
    targets = torch.eye(3, dtype=torch.float64).repeat(2, 1)
    names = [name for name in body(network) if name.startswith(block)]
    parameters = [network.get_parameter(name) for name in names]
    loss = (network(images) - targets).square().sum()
    descent = dict(zip(names, torch.autograd.grad(loss, parameters), strict=True))
    rows = [SampleGradients(network, "fc", row, names) for row in network.fc.weight.detach().float()]
    of_outputs = [row(others)[1] for row in rows]

    def error(step: float) -> float:
        changes = {name: -step * gradient for name, gradient in descent.items()}
        moved = {name: network.get_parameter(name).detach() + changes[name] for name in names}
        with torch.no_grad():
            true = functional_call(network, moved, (others,))
            slopes = [
                sum((found[name] * changes[name]).flatten(1).sum(1) for name in names) for found in of_outputs
            ]
            return float((true - network(others) - torch.stack(slopes, dim=1)).norm())

    with torch.no_grad():
        moved = {name: network.get_parameter(name) - 0.02 * descent[name] for name in names}
        change = float((functional_call(network, moved, (others,)) - network(others)).norm())
    assert error(0.02) < 0.2 * change
    assert 3.6 < error(0.02) / error(0.01) < 4.4
    assert 3.8 < error(0.01) / error(0.005) < 4.2


def test_a_step_of_the_linear_model_is_one_of_the_network() -> None:
    """K(x, X) (y - f(X)) is what a gradient step changes the combined output by, to the first order."""
    network, images, others = made(Smooth), noise(6), noise(5, seed=2)
    gradients = extractor(network, "block:hidden")
    weight = jacobian(network, images, names_of(network, "hidden"))
    signs = torch.linalg.lstsq(
        weight.mT.flatten(0, 1), gradients(images).flatten()[:, None]
    ).solution.double()
    exact = copy.deepcopy(network).double()
    y = torch.tensor([1.0, -1, 1, -1, 1, -1], dtype=torch.float64)

    def combined(network: nn.Module, images: Tensor) -> Tensor:
        return (network(images.double()) @ signs)[:, 0]

    missing = (y - combined(exact, images)).detach()
    change = (gradients(others) @ gradients(images).T).double() @ missing

    def error(step: float) -> float:
        trained = copy.deepcopy(exact)
        loss = (y - combined(trained, images)).square().sum() / 2
        gradient = torch.autograd.grad(loss, list(trained.hidden.parameters()))
        with torch.no_grad():
            for parameter, slope in zip(trained.hidden.parameters(), gradient, strict=True):
                parameter -= step * slope
            true = combined(trained, others) - combined(exact, others)
        return float((true - step * change).norm() / (step * change).norm())

    assert error(0.1) < 0.3
    assert 1.8 < error(0.1) / error(0.05) < 2.2


# Where and how it runs


@pytest.mark.parametrize("kind", NETWORKS)
def test_inference_mode_and_autocast_change_no_bit(kind: type[nn.Module]) -> None:
    gradients = extractor(made(kind), "head+block:last", 32)
    with torch.inference_mode(), torch.autocast("cpu", dtype=torch.bfloat16):
        found = gradients(noise(3))
    assert (found.dtype, found.requires_grad) == (torch.float32, False)
    assert torch.equal(found, gradients(noise(3)))
    assert torch.isfinite(found).all()


@pytest.mark.parametrize("kind", [*NETWORKS, lambda: models.resnet18(num_classes=4)])
def test_a_row_is_of_its_image_alone_and_the_network_stays(kind: Callable[[], nn.Module]) -> None:
    network, images = made(kind), noise(5, 32)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    outputs = network(images)
    gradients = extractor(network, "full", 64)
    found = gradients(images)
    assert torch.equal(gradients(torch.cat([100 * images[3:], images[:2]]))[2:], found[:2])
    assert torch.equal(network(images), outputs)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.filterwarnings("ignore:There is a performance drop")
@pytest.mark.parametrize("kind", NETWORKS)
def test_side_by_side_is_as_one_by_one(kind: type[nn.Module]) -> None:
    gradients = extractor(made(kind), "head+block:last", 32)
    images = noise(7)
    expected = gradients(images)
    gradients._together = 3
    torch.testing.assert_close(gradients(images), expected, **CLOSE)


def test_what_cannot_run_side_by_side_runs_one_by_one() -> None:
    gradients, images = extractor(made(Branching), "full"), noise(7)
    assert 0 < (images.sum((1, 2, 3)) > 0).sum() < 7
    expected = gradients(images)
    gradients._together = 3
    assert torch.equal(gradients(images), expected)
    assert gradients._together == 1
    plain = extractor(made(Smooth), "full")
    for image, row in zip(images, expected, strict=True):
        seen = 2 * image if image.sum() > 0 else image
        torch.testing.assert_close(plain(seen[None])[0], row, **CLOSE)


def test_lack_of_memory_is_not_taken_for_such_code(monkeypatch: pytest.MonkeyPatch) -> None:
    gradients = extractor(made(Smooth), "full")
    gradients._together = 3

    def greedy(images: Tensor) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gradients, "_gradients", greedy)
    with pytest.raises(torch.OutOfMemoryError):
        gradients(noise(3))
    assert gradients._together == 3


def peak(gradients: TangentExtractor, n: int) -> int:
    """Bytes of tensors alive at a time, at most, while features of n images are computed."""
    images = noise(n)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as found:
        gradients(images)
    events = [event for event in found.profiler.kineto_results.events() if event.name() == "[memory]"]
    alive = list(
        itertools.accumulate(event.nbytes() for event in sorted(events, key=lambda one: one.start_ns()))
    )
    assert alive[-1] == 0  # every tensor that was made has been seen to go
    return max(alive)


@pytest.mark.parametrize("expression", ["full", "head+block:deep"])
def test_memory_grows_by_the_features_of_an_image_and_not_by_its_gradient(expression: str) -> None:
    gradients = extractor(made(Deep), expression, 256)
    gradient = 4 * gradients.n_parameters
    an_image = 4 * (
        3 * 8 * 8 + 2 * (8 + 256)
    )  # itself; its features, and once more where all are put together
    gradients(noise(2))  # what is made once
    assert gradient > 100 * an_image
    one, few, many = (peak(gradients, n) for n in (1, 4, 24))
    assert one < 10 * gradient
    assert few - one <= 3 * an_image
    assert many - one <= 23 * an_image
    gradients._together = 24  # as if all gradients were computed first, which this is to notice
    assert peak(gradients, 24) - one > 20 * gradient


# Dead units


def test_units_that_are_off_give_zeros() -> None:
    network, images = made(Normed), 3 + noise(4)
    nn.init.zeros_(
        network.scale
    )  # nothing depends on the convolution before it, nor is its own gradient zero
    with torch.no_grad():
        network.deep.bias.fill_(-1e3)
    features = extractor(network, "head+block:deep")(images)
    assert torch.isfinite(features).all()
    assert (features[:, :6] != 0).any()
    assert (features[:, 6:] == 0).all()
    assert torch.isfinite(extractor(network, "full")(images)).all()


# By way of the backbone


def test_identity_names_every_setting_and_only_that_of_gradients(net_file: Path) -> None:
    model = f"{net_file}:make"
    plain = load_backbone(model)
    settings = [
        Linearize("full"),
        Linearize("block:last"),
        Linearize("head+block:last"),
        Linearize("head+2*block:last"),
        Linearize("full", 1024),
        Linearize("full", seed=1),
    ]
    identities = [load_backbone(model, linearize=one).identity for one in settings]
    assert len({identity.pop("linearize") for identity in identities}) == len(settings)
    assert all(identity == plain.identity for identity in identities)
    assert load_backbone(model, linearize=Linearize("head")).identity == plain.identity
    assert "linearize" not in plain.identity


def test_backbone(net_file: Path, images: Tensor) -> None:
    model = f"{net_file}:make"
    plain = load_backbone(model)
    backbone = load_backbone(model, linearize=Linearize("head+block:hidden", 32))
    assert (backbone.linearized, plain.linearized) == (True, False)
    found = backbone.for_inference(compiled=True).features(images)
    assert found.shape == (5, backbone.n_features) == (5, 6 + 32)
    torch.testing.assert_close(found[:, :6], plain.features(images), **CLOSE)
    weight, bias = backbone.head
    torch.testing.assert_close(found @ weight.T + bias, plain.network(images), **CLOSE)
    assert (
        backbone.notes[-1] == "features are gradients with respect to 54 parameters, compressed to 32 numbers"
    )
    assert "as they are" in load_backbone(model, linearize=Linearize("block:hidden")).notes[-1]
    with pytest.raises(ModelError, match="leave --linearize out"):
        _ = backbone.network


def test_features_without_a_head_combine_the_features_themselves(net_file: Path, images: Tensor) -> None:
    """Of a layer in the middle there are no outputs: its inputs stand for them."""
    model = f"{net_file}:make"
    network = load_backbone(model).network
    backbone = load_backbone(model, layer="bn", linearize=Linearize("block:conv"))
    assert backbone.head is None
    rows = backbone.features(images)
    with torch.no_grad():
        expected = [
            SampleGradients(network, "bn", row, ["conv.weight", "conv.bias"])(images)[1]
            for row in torch.eye(8)
        ]
    of_features = torch.stack(
        [torch.cat([one.flatten(1) for one in each.values()], 1) for each in expected], 2
    )
    signs = torch.linalg.lstsq(of_features.flatten(0, 1), rows.flatten()[:, None]).solution[:, 0]
    torch.testing.assert_close(signs.abs(), torch.full((8,), 8**-0.5), **CLOSE)
    torch.testing.assert_close(of_features @ signs, rows, **CLOSE)
