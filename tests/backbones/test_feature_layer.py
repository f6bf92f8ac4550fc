"""Which layer of a network the features are taken from, and where they are its output."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from divacli.backbones.backbone import Backbone
from divacli.backbones.feature_layer import with_feature_layer
from divacli.backbones.layer import LayerExtractor
from divacli.backbones.load import load_backbone


class Net(nn.Module):
    """A convolution in patches, two residual blocks, and what a test makes of the tokens (b, 16, 8).

    Args:
        last: From the tokens and the network to the output.
        parts: More modules, by name.
    """

    def __init__(self, last: Callable[[Tensor, Net], object], **parts: nn.Module) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, stride=4)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm = nn.LayerNorm(8)
        self.last = last
        for name, part in parts.items():
            self.add_module(name, part)

    def tokens(self, x: Tensor) -> Tensor:
        """The class token and 16 others (b, 17, 8)."""
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], dim=1)
        for block in self.blocks:
            x = block(x)
        return self.norm(x)

    def forward(self, x: Tensor) -> object:
        return self.last(self.tokens(x), self)


class Block(nn.Module):
    """A block of a transformer: attention, and a perceptron; both are added to what comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 20), nn.Linear(20, 8)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        x = x + self.proj(functional.scaled_dot_product_attention(q, k, v))
        return x + self.down(self.up(x).relu())


class Pool(nn.Module):
    """Attention pooling as SigLIP has it: a query looks at the tokens, a perceptron is added."""

    def __init__(self) -> None:
        super().__init__()
        self.probe = nn.Parameter(torch.randn(1, 1, 8))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.up, self.down = nn.Linear(8, 20), nn.Linear(20, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(self.probe.expand(len(x), -1, -1), x, x)[0][:, 0]
        return x + self.down(self.up(x).relu())


@pytest.fixture
def taken(images: Tensor) -> Callable[..., tuple[str, Tensor]]:
    """The feature layer of a network, and the features of the images."""

    def take(network: nn.Module, layer: str | None = None) -> tuple[str, Tensor]:
        made, layer = with_feature_layer(network.eval(), images, layer)
        return layer, LayerExtractor(made, images, layer)(images)

    return take


def made(last: Callable[[Tensor, Net], object], **parts: nn.Module) -> Net:
    torch.manual_seed(0)
    return Net(last, **parts)


def fc() -> nn.Linear:
    return nn.Linear(8, 4)


@pytest.mark.parametrize(
    "last",
    [
        lambda x, net: net.fc(x[:, 0]),
        lambda x, net: net.fc(x[:, 0]).softmax(1),
        lambda x, net: net.fc(x[:, 0]).log_softmax(1),
        lambda x, net: net.fc(x[:, 0]).sigmoid(),
        lambda x, net: 30 * net.fc(x[:, 0]) + 1,
        lambda x, net: functional.normalize(net.fc(x[:, 0]), dim=1),
        lambda x, net: {"logits": net.fc(x[:, 0]), "tokens": x},
        lambda x, net: (x.mean((1, 2)), net.fc(x[:, 0])),
        lambda x, net: [None, net.fc(x[:, 0])],
        lambda x, net: (net.fc(x[:, 0]), net.fc(x[:, 0]).argmax(1)),
    ],
)
def test_what_follows_a_classifiers_last_layer_does_not_count(taken, images, last):
    network = made(last, fc=fc())
    layer, features = taken(network)
    assert layer == "fc"
    assert torch.equal(features, network.tokens(images)[:, 0])


@pytest.mark.parametrize(
    "pool",
    [lambda x, net: x[:, 0], lambda x, net: x[:, 1:].mean(1), lambda x, net: functional.normalize(x[:, 0])],
)
def test_a_transformer_without_head_gives_its_output(taken, images, pool):
    """The last linear layer is in a perceptron that is added to what comes in: DINOv2 of timm is such."""
    network = made(pool)
    layer, features = taken(network)
    assert layer == "output"
    assert torch.equal(features, network(images))


@pytest.mark.parametrize("with_head", [False, True])
def test_attention_pooling(taken, images, with_head):
    network = made(lambda x, net: net.fc(net.pool(x)), pool=Pool(), fc=fc() if with_head else nn.Identity())
    layer, features = taken(network)
    assert layer == ("fc" if with_head else "output")
    assert torch.equal(features, network.pool(network.tokens(images)))


class Squeeze(nn.Module):
    """Convolutions whose channels are weighed by linear layers, the last that run."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(3, 8, 3), nn.Linear(8, 2), nn.Linear(2, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x).relu()
        return x * self.up(self.down(x.mean((2, 3))).relu()).sigmoid()[:, :, None, None]


def test_squeeze_and_excitation_is_no_head(taken, images):
    torch.manual_seed(0)
    network = Squeeze()
    layer, features = taken(network)
    assert layer == "output"
    torch.testing.assert_close(features, network(images).mean((2, 3)))


def test_two_heads_that_are_averaged_give_what_enters_the_last(taken, images):
    network = made(lambda x, net: (net.head(x[:, 0]) + net.distilled(x[:, 1])) / 2, head=fc(), distilled=fc())
    layer, features = taken(network)
    assert layer == "distilled"
    assert torch.equal(features, network.tokens(images)[:, 1])


def test_two_tasks_give_what_enters_the_last(taken):
    network = made(
        lambda x, net: (net.colour(x[:, 0]), net.shape(x[:, 0])), colour=fc(), shape=nn.Linear(8, 2)
    )
    assert taken(network)[0] == "shape"


def test_a_perceptron_as_head_gives_what_enters_its_last_layer(taken, images):
    head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
    network = made(lambda x, net: net.fc(x[:, 0]), fc=head)
    layer, features = taken(network)
    assert layer == "fc.4"
    assert torch.equal(features, head[:4](network.tokens(images)[:, 0]))


def test_convolutions_alone_give_their_output(taken, images):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 5, 1))
    layer, features = taken(network)
    assert layer == "output"
    torch.testing.assert_close(features, network(images).mean((2, 3)))


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (lambda x: x, lambda x: x.mean(1)),
        (lambda x: x.transpose(1, 2).unflatten(2, (1, 17)), lambda x: x.mean(1)),
        (lambda x: {"ids": x.argmax(-1), "map": x}, lambda x: x.mean(1)),
        (lambda x: {"map": x, "pooled": x[:, 0]}, lambda x: x[:, 0]),
        (lambda x: (x, (x[:, 3],)), lambda x: x[:, 3]),
    ],
)
def test_outputs_are_pooled_like_layers(taken, images, output, expected):
    network = made(lambda x, net: output(x))
    layer, features = taken(network)
    assert layer == "output"
    torch.testing.assert_close(features, expected(network.tokens(images)))


def test_the_output_can_be_asked_for(taken, images):
    network = made(lambda x, net: net.fc(x[:, 0]), fc=fc())
    layer, features = taken(network, "output")
    assert layer == "output"
    assert torch.equal(features, network(images))


def test_a_layer_that_is_called_output_is_one(taken, images):
    network = made(lambda x, net: net.output(x[:, 0]), output=fc())
    assert taken(network)[0] == taken(network, "output")[0] == "output"
    assert torch.equal(taken(network, "output")[1], network.tokens(images)[:, 0])


def test_a_head_of_zeros_is_one(taken, images):
    """As some networks begin with."""
    network = made(lambda x, net: net.fc(x[:, 0]), fc=fc())
    nn.init.zeros_(network.fc.weight)
    layer, features = taken(network)
    assert layer == "fc"
    assert torch.equal(features, network.tokens(images)[:, 0])


def test_blocks_that_begin_with_zeros_have_no_head(taken):
    """Of networks whose blocks add nothing yet, the output depends on the first layer only."""
    network = made(lambda x, net: x[:, 1:].mean(1))
    for block in network.blocks:
        nn.init.zeros_(block.down.weight)
        nn.init.zeros_(block.proj.weight)
    assert taken(network)[0] == "output"


def test_a_network_in_training_is_looked_at_in_evaluation(images):
    network = made(lambda x, net: net.fc(net.drop(x[:, 0])), fc=fc(), drop=nn.Dropout(0.9)).train()
    backbone = load_backbone(network, transform=lambda image: torch.zeros(3, 16, 16))
    assert backbone.layer == "fc"
    assert torch.equal(backbone.features(images), network.tokens(images)[:, 0])
    assert network.training


@pytest.mark.parametrize(
    ("head", "said"),
    [
        (True, "features: 8 numbers that enter fc of the module Net; weights: its own"),
        (False, "features: the 8 numbers that the module Net gives; weights: its own"),
    ],
)
def test_it_is_said_what_the_features_are(head, said):
    network = made(lambda x, net: net.fc(x[:, 0]), fc=fc() if head else nn.Identity())
    backbone: Backbone = load_backbone(network, transform=lambda image: torch.zeros(3, 16, 16))
    assert backbone.sentence == said
    assert (backbone.head is not None) == head
