"""What `--linearize` takes, and what is said where it does not fit the network."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from divacli.backbones.linearised.expression import Linearize, Part
from divacli.backbones.load import load_backbone
from divacli.errors import ModelError

HEAD = Part("head")


def block(*names: str, factor: float = 1.0) -> Part:
    return Part("block", factor, names)


@pytest.mark.parametrize(
    ("expression", "parts"),
    [
        ("head", (HEAD,)),
        ("full", (Part("full"),)),
        ("block:last", (block("last"),)),
        ("block:layer4", (block("layer4"),)),
        ("block:features.17,features.18", (block("features.17", "features.18"),)),
        ("head+block:last", (HEAD, block("last"))),
        (" head + 3 * block:layer4.1 ", (HEAD, block("layer4.1", factor=3))),
        ("block:a+head", (block("a"), HEAD)),
        ("0.5*block:a+2*block:b+head", (block("a", factor=0.5), block("b", factor=2), HEAD)),
        ("head+1e-3*block:a", (HEAD, block("a", factor=1e-3))),
        ("2*full", (Part("full", 2.0),)),
        ("block:head", (block("head"),)),
        ("block:full-conv_1", (block("full-conv_1"),)),
    ],
)
def test_a_sum_of_parts(expression: str, parts: tuple[Part, ...]) -> None:
    assert Linearize(expression).parts == parts
    again = "+".join(map(str, parts))
    assert Linearize(again).parts == parts


def test_plain_is_the_head_alone() -> None:
    assert Linearize().plain
    assert Linearize(" head ").plain
    assert not any(Linearize(one).plain for one in ("full", "block:head", "head+block:a"))


@pytest.mark.parametrize(
    "expression",
    [
        *("", "+", "head+", "+head", "heads", "Head", "block", "block:", "block:,", "block:a,", "block:a,,b"),
        *("block: a", "block:a, b", "layer4", "head*3", "3head", "*head", "head++block:a", "head-block:a"),
        *(
            "0*block:a",
            "-1*block:a",
            "nan*block:a",
            "inf*block:a",
            "1e400*block:a",
            "1.2.3*block:a",
            "1e*full",
        ),
        *("head+head", "full+head", "block:a+full", "full+full", "head+block:a+head"),
    ],
)
def test_anything_else_is_refused_with_the_form(expression: str) -> None:
    with pytest.raises(ModelError) as error:
        _ = Linearize(expression).parts
    assert error.value.got.startswith(f"--linearize {expression}: ")
    assert "block:NAME[,NAME...]" in error.value.expected


@pytest.mark.parametrize(
    ("projection", "near"), [(0, 1), (-4, 1), (3, 4), (5, 4), (4095, 4096), (5000, 4096)]
)
def test_a_projection_is_a_power_of_two(projection: int, near: int) -> None:
    with pytest.raises(ModelError) as error:
        _ = Linearize("full", projection).parts
    assert error.value.got == f"--projection {projection}"
    assert error.value.hint == f"the nearest one is {near}"


@pytest.mark.parametrize("projection", [1, 2, 1024, 1 << 20])
def test_powers_of_two(projection: int) -> None:
    assert Linearize("full", projection).parts == (Part("full"),)


def test_what_would_change_nothing_is_refused(net_file: Path) -> None:
    message = "^--projection 1024 with --linearize head, where no gradient is taken"
    with pytest.raises(ModelError, match=message):
        load_backbone(f"{net_file}:make", linearize=Linearize("head", 1024))


# What does not fit the network

BODY = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.hidden, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 6), nn.Linear(6, 4)
        self.unused = nn.Linear(6, 4)

    def forward(self, x):
        return self.fc(self.embed(self.hidden(self.conv(x).mean((2, 3)))))

"""


@pytest.fixture
def model(factory: Callable[[str], str]) -> str:
    return factory(
        BODY + "    def embed(self, x):\n        return x.tanh()\n\ndef make():\n    return Net()\n"
    )


@pytest.mark.parametrize(
    ("expression", "got", "hint"),
    [
        ("block:hiden", "the network has no layer 'hiden'", "near or last ones: hidden"),
        ("head+block:conv,layer4", "the network has no layer 'layer4'", "conv"),
        ("block:hidden.wieght", "the network has no layer 'hidden.wieght'", "hidden"),
        ("block:fc", "--linearize block:fc: the features depend on no parameters of fc", "block:last"),
        (
            "block:fc.weight",
            "--linearize block:fc.weight: the features depend on no parameters",
            "block:last",
        ),
        ("block:conv,fc", "--linearize block:conv,fc: the features depend on no parameters of fc", ""),
        ("block:unused", "--linearize block:unused: the features depend on no parameters of unused", ""),
        ("block:unused.bias", "the features depend on no parameters of unused.bias", "print the network"),
    ],
)
def test_blocks_that_are_not_there_or_hold_nothing(model: str, expression: str, got: str, hint: str) -> None:
    with pytest.raises(ModelError) as error:
        load_backbone(model, linearize=Linearize(expression))
    assert got in error.value.got
    assert hint in error.value.hint


def test_the_head_is_named_where_its_own_layer_is(model: str) -> None:
    with pytest.raises(ModelError, match="before 'fc', whose gradient is the part head"):
        load_backbone(model, linearize=Linearize("block:fc"))


@pytest.mark.parametrize(
    ("embed", "got"),
    [
        ("x.detach()", "the features of this network depend on no parameter"),
        (
            "torch.from_numpy(x.numpy())",
            "the network cannot be differentiated: RuntimeError: Can't call numpy",
        ),
        ("Old.apply(x)", "the gradient of the network fails: RuntimeError: "),
        ("x.tanh().mul_(2)", "the network cannot be differentiated: RuntimeError: one of the variables"),
    ],
)
def test_networks_that_cannot_be_differentiated(factory: Callable[[str], str], embed: str, got: str) -> None:
    old = """
class Old(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x * 2

    @staticmethod
    def backward(ctx, g):
        return g * 2
"""
    model = factory(
        f"{old}{BODY}    def embed(self, x):\n        return {embed}\n\ndef make():\n    return Net()\n"
    )
    assert load_backbone(model).n_features == 6
    with pytest.raises(ModelError) as error:
        load_backbone(model, linearize=Linearize("full"))
    assert error.value.got.startswith(got)
    assert "--linearize" in error.value.hint


def test_not_of_clip() -> None:
    with pytest.raises(ModelError, match=r"^--linearize block:last with clip:any: .* texts share"):
        load_backbone("clip:any", linearize=Linearize("block:last"))


@pytest.mark.parametrize("kind", ["torchscript", "export"])
def test_not_of_an_exported_network(kind: str, tiny: nn.Module, tmp_path: Path) -> None:
    path, images = tmp_path / "net.pt", torch.zeros(2, 3, 16, 16)
    if kind == "torchscript":
        torch.jit.trace(tiny, images).save(path)
    else:
        torch.export.save(torch.export.export(tiny, (images,)), path)
    with pytest.raises(ModelError) as error:
        load_backbone(None, path, linearize=Linearize("full"))
    assert error.value.got == f"--linearize full with {path}: it was exported to be run as it is"
    assert "--model" in error.value.hint
    assert not load_backbone(None, path).linearized


def test_a_wrong_expression_is_told_before_the_network_is_made(factory: Callable[[str], str]) -> None:
    with pytest.raises(ModelError, match=r"^--linearize ful: "):
        load_backbone(factory("def make():\n    1 / 0\n"), linearize=Linearize("ful"))
