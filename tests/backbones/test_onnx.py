"""Networks in ONNX files: features are those of the network of torch that was exported."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from typer.testing import CliRunner

import divacli
from divacli.backbones.backbone import Backbone
from divacli.backbones.checkpoint import archive_kind, read_checkpoint
from divacli.backbones.linearised.expression import Linearize
from divacli.backbones.load import load_backbone, note_before
from divacli.cli.app import app
from divacli.errors import ModelError
from tests.made import in_turn, write_images

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
onnxruntime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")

node = onnx.helper.make_node
FLOAT, HALF, INT, BYTE = (getattr(onnx.TensorProto, name) for name in ("FLOAT", "FLOAT16", "INT64", "UINT8"))
SIZE = 16
HEAD = [node("Gemm", ["e", "fc.weight", "fc.bias"], ["y"], name="fc", transB=1)]
MATMUL = [node("MatMul", ["e", "fc.weight.T"], ["m"]), node("Add", ["fc.bias", "m"], ["y"], name="fc")]


def saved(
    tiny: nn.Module,
    path: Path,
    head: list[Any] = HEAD,
    outputs: list[str] | None = None,
    shape: tuple[Any, ...] = ("n", 3, SIZE, SIZE),
    dtype: int = FLOAT,
    last: bool = False,
    change: Callable[[Any], object] = lambda model: None,
) -> Path:
    """Write `Tiny` as exporters do, with another end, type or order of channels."""
    weights = {name: tensor.detach().numpy() for name, tensor in tiny.state_dict().items()}
    weights["fc.weight.T"] = np.ascontiguousarray(weights["fc.weight"].T)
    half = dtype == HALF
    initialisers = [
        onnx.numpy_helper.from_array(value.astype(np.float16) if half else value, name)
        for name, value in weights.items()
        if value.dtype == np.float32
    ]
    norm = [f"bn.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    nodes = [
        node("Transpose", ["x"], ["x0"], perm=[0, 3, 1, 2]) if last else node("Identity", ["x"], ["x0"]),
        node("Conv", ["x0", "conv.weight", "conv.bias"], ["c"], name="conv"),
        node("BatchNormalization", ["c", *norm], ["b"], name="bn"),
        node("GlobalAveragePool", ["b"], ["p"]),
        node("Flatten", ["p"], ["f"]),
        node("Gemm", ["f", "hidden.weight", "hidden.bias"], ["h"], name="hidden", transB=1),
        node("Relu", ["h"], ["e"], name="relu"),
        *head,
    ]
    images = onnx.helper.make_tensor_value_info("x", dtype, shape)
    given = [onnx.ValueInfoProto(name=name) for name in outputs or [head[-1].output[0]]]
    graph = onnx.helper.make_graph(nodes, "tiny", [images], given, initialisers)
    model = onnx.helper.make_model(graph, ir_version=8, opset_imports=[onnx.helper.make_opsetid("", 13)])
    change(model)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.fixture
def file(tiny: nn.Module, tmp_path: Path) -> Path:
    return saved(tiny, tmp_path / "model.onnx")


def check(backbone: Backbone, tiny: nn.Module, images: Tensor, tolerance: float = 1e-5) -> None:
    """Features and head agree with the network that was exported."""
    features = backbone.features(images)
    assert features.dtype == torch.float32
    torch.testing.assert_close(features, tiny.embed(images).detach(), rtol=tolerance, atol=tolerance)
    weight, bias = backbone.head
    logits = features @ weight.T + bias
    torch.testing.assert_close(logits, tiny(images).detach(), rtol=tolerance, atol=tolerance)


def test_onnx_file(tiny: nn.Module, images: Tensor, file: Path) -> None:
    path = file.rename(file.with_suffix(".bin"))
    assert archive_kind(path) == "onnx"
    assert note_before(None, path, None) is None
    backbone = load_backbone(None, path)
    check(backbone, tiny, images)
    assert (backbone.name, backbone.layer, backbone.batch_size) == ("model.bin (ONNX)", "e", None)
    assert backbone.image_shape == (3, SIZE, SIZE)
    assert backbone.notes == (
        "an ONNX file does not say how images are prepared: ImageNet's resize, crop and normalisation are "
        "used, at the size of its input",
    )
    assert backbone.for_inference() is backbone
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert {"model": "onnx", "weights": digest, "layer": "e"}.items() <= backbone.identity.items()


ENDS = {
    "matmul and add": (MATMUL, None),
    "softmax": ([*HEAD, node("Softmax", ["y"], ["q"], axis=1)], ["q", "y"]),
    "scaled": ([node("Gemm", ["e", "double", "fc.bias"], ["y"], alpha=0.5, beta=3.0)], None),
    "constant": (
        [
            node("Transpose", ["fc.weight"], ["w"], perm=[1, 0]),
            node("Identity", ["w"], ["w2"]),
            node("Gemm", ["e", "w2", "fc.bias"], ["y"]),
        ],
        None,
    ),
    "labels first": ([*HEAD, node("ArgMax", ["y"], ["label"], axis=1, keepdims=0)], ["label", "y"]),
    "cast and named": ([*HEAD, node("Cast", ["y"], ["out"], to=FLOAT)], None),
}


@pytest.mark.parametrize("end", ENDS)
def test_the_last_linear_layer(end: str, tiny: nn.Module, images: Tensor, tmp_path: Path) -> None:
    head, outputs = ENDS[end]
    double = onnx.numpy_helper.from_array(2 * tiny.fc.weight.detach().T.numpy().copy(), "double")
    path = saved(
        tiny, tmp_path / "m.onnx", head, outputs, change=lambda m: m.graph.initializer.append(double)
    )
    if end == "scaled":
        tiny.fc.bias.data *= 3
    check(load_backbone(None, path), tiny, images)


def test_a_head_behind_softmax_alone_is_none(tiny: nn.Module, images: Tensor, tmp_path: Path) -> None:
    path = saved(tiny, tmp_path / "m.onnx", [*HEAD, node("Softmax", ["y"], ["q"], axis=1)])
    backbone = load_backbone(None, path)
    assert (backbone.layer, backbone.head) == ("e", None)
    torch.testing.assert_close(backbone.features(images), tiny.embed(images).detach())


@pytest.mark.parametrize(
    ("layer", "tensor"),
    [("hidden", "f"), ("f", "f"), ("b", "b"), ("bn", "c"), ("fc", "e"), ("y", "y"), ("conv", "x0")],
)
def test_layers(layer: str, tensor: str, tiny: nn.Module, images: Tensor, file: Path) -> None:
    backbone = load_backbone(None, file, layer=layer)
    conv = tiny.conv(images)
    expected = {
        "f": tiny.bn(conv).mean((2, 3)),
        "b": tiny.bn(conv).mean((2, 3)),
        "c": conv.mean((2, 3)),
        "e": tiny.embed(images),
        "y": tiny(images),
        "x0": images.mean((2, 3)),
    }
    torch.testing.assert_close(backbone.features(images), expected[tensor].detach())
    assert backbone.layer == tensor
    assert (backbone.head is None) == (layer != "fc")


@pytest.mark.parametrize(
    ("layer", "says"),
    [
        ("hiden", r"no layer 'hiden'(.|\n)*one of its \d+ layers(.|\n)*hidden"),
        ("fc.weight", "no layer 'fc.weight'"),
        ("size", r"'size' has no floating-point numbers"),
        ("flat", r"'flat' has the shape \(8,\) for 2 images"),
    ],
)
def test_layers_that_do_not_do(layer: str, says: str, tiny: nn.Module, tmp_path: Path) -> None:
    minus = onnx.numpy_helper.from_array(np.array([-1]), "minus")
    path = saved(
        tiny,
        tmp_path / "m.onnx",
        [*HEAD, node("Shape", ["y"], ["size"]), node("Reshape", ["y", "minus"], ["flat"])],
        ["y", "flat"],
        change=lambda model: model.graph.initializer.append(minus),
    )
    with pytest.raises(ModelError, match=says):
        load_backbone(None, path, layer=layer)


def test_without_a_linear_layer_the_output_is_taken(tiny: nn.Module, images: Tensor, tmp_path: Path) -> None:
    path = saved(
        tiny, tmp_path / "m.onnx", [node("Relu", ["b"], ["map"]), node("Shape", ["map"], ["s"])], ["s", "map"]
    )
    backbone = load_backbone(None, path)
    expected = tiny.bn(tiny.conv(images)).relu().mean((2, 3)).detach()
    torch.testing.assert_close(backbone.features(images), expected)
    assert backbone.head is None
    assert backbone.notes[1].startswith(
        "no linear layer gives its output: features are the output 'map' itself"
    )


def test_tokens_are_averaged(tiny: nn.Module, images: Tensor, tmp_path: Path) -> None:
    shape = onnx.numpy_helper.from_array(np.array([0, 8, -1]), "shape")
    tokens = [
        node("Reshape", ["b", "shape"], ["r"]),
        node("Transpose", ["r"], ["t"], perm=[0, 2, 1], name="tokens"),
    ]
    path = saved(tiny, tmp_path / "m.onnx", tokens, change=lambda m: m.graph.initializer.append(shape))
    expected = tiny.bn(tiny.conv(images)).mean((2, 3)).detach()
    torch.testing.assert_close(load_backbone(None, path).features(images), expected)


def test_a_fixed_batch_takes_smaller_ones(tiny: nn.Module, images: Tensor, tmp_path: Path) -> None:
    backbone = load_backbone(None, saved(tiny, tmp_path / "m.onnx", shape=(4, 3, SIZE, SIZE)))
    assert backbone.batch_size == 4
    check(backbone, tiny, images[:3])
    with pytest.raises(ModelError, match="5 images for a network exported for batches of 4"):
        backbone.features(images)


def test_sizes(tiny: nn.Module, file: Path, tmp_path: Path) -> None:
    assert load_backbone(None, file, image_size=SIZE).n_features == 6
    with pytest.raises(ModelError, match=r"--image-size 32 (.|\n)*exported for \(16, 16\)"):
        load_backbone(None, file, image_size=32)
    path = saved(tiny, tmp_path / "open.onnx", shape=(None, 3, "h", -1))
    assert load_backbone(None, path).image_shape == (3, 224, 224)
    backbone = load_backbone(None, path, image_size=24)
    assert backbone.image_shape == (3, 24, 24)
    assert "at 224 or at --image-size" in backbone.notes[0]


def test_channels_last(tiny: nn.Module, images: Tensor, tmp_path: Path) -> None:
    backbone = load_backbone(None, saved(tiny, tmp_path / "m.onnx", shape=("n", SIZE, SIZE, 3), last=True))
    check(backbone, tiny, images)
    assert backbone.image_shape == (3, SIZE, SIZE)
    assert "channels last" in backbone.notes[1]


def test_grey_images(tiny: nn.Module, images: Tensor, tmp_path: Path) -> None:
    tiny.conv = nn.Conv2d(1, 8, 3)
    backbone = load_backbone(None, saved(tiny, tmp_path / "m.onnx", shape=("n", 1, SIZE, SIZE)))
    check(backbone, tiny, images[:, :1])
    assert backbone.image_shape == (1, SIZE, SIZE)


def test_half_precision(tiny: nn.Module, images: Tensor, tmp_path: Path) -> None:
    backbone = load_backbone(None, saved(tiny, tmp_path / "m.onnx", dtype=HALF))
    check(backbone, tiny, images, tolerance=5e-3)


def test_weights_among_the_inputs(tiny: nn.Module, images: Tensor, tmp_path: Path) -> None:
    def older(model: Any) -> None:
        model.ir_version = 3
        for tensor in model.graph.initializer:
            info = onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
            model.graph.input.insert(0, info)

    check(load_backbone(None, saved(tiny, tmp_path / "m.onnx", change=older)), tiny, images)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"shape": ("n", 4, SIZE, SIZE)}, r"takes x \(\?, 4, 16, 16\)"),
        ({"shape": (2**40, 3, 4, 4)}, r"takes x \(1099511627776, 3, 4, 4\)"),
        ({"shape": ("n", 48)}, r"takes x \(\?, 48\)"),
        ({"dtype": BYTE}, r"takes x \(\?, 3, 16, 16\)"),
        (
            {"change": lambda m: m.graph.input.append(onnx.helper.make_tensor_value_info("z", FLOAT, [1]))},
            r"takes x \(\?, 3, 16, 16\), z \(1,\)",
        ),
        ({"change": lambda m: m.graph.ClearField("input")}, "takes nothing"),
        ({"head": [node("Mine", ["e"], ["y"], domain="my.own")]}, r"does not run .*Mine"),
        ({"head": [node("Gemm", ["e"], ["y"])]}, "does not run"),
        ({"change": lambda m: m.ClearField("opset_import")}, r"m\.onnx: Missing opset in the model"),
        ({"head": [node("Relu", ["y"], ["y"])]}, "does not run"),
        ({"shape": ("n", 3, None, 2)}, r"fails on images of shape \(2, 3, 2, 2\)"),
        ({"head": [node("Shape", ["e"], ["y"])]}, "gives no floating-point numbers"),
    ],
)
def test_what_does_not_do(options: dict[str, Any], says: str, tiny: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=says) as error:
        load_backbone(None, saved(tiny, tmp_path / "m.onnx", **options))
    assert "ONNXRuntimeError" not in str(error.value)


def test_what_is_no_onnx_file_is_named(tiny: nn.Module, file: Path, tmp_path: Path) -> None:
    whole = file.read_bytes()
    for content, says in {
        b"version https://git-lfs.github.com/spec/v1\n": "Git LFS pointer",
        b"<!doctype html>": "web page",
        b"": "an empty file",
        b"\x18\0\0\0ORTM": "onnxruntime's own format",
        whole[: len(whole) // 2]: "damaged ONNX file, or is cut short",
        whole.replace(b"conv.weight", b"conv.\xff\xfeight"): "damaged ONNX file",
        b"\x08\x08" * 5000: "bytes that begin",
    }.items():
        file.write_bytes(content)
        with pytest.raises(ModelError, match=says):
            load_backbone(None, file)
    torch.save(tiny.state_dict(), file)
    with pytest.raises(ModelError, match="holds weights without a network"):
        load_backbone(None, file)


def test_a_network_is_no_checkpoint_for_another(file: Path) -> None:
    with pytest.raises(ModelError, match=r"whole exported network(.|\n)*leave --model out"):
        read_checkpoint(file)


def test_it_is_neither_trained_nor_linearised(file: Path) -> None:
    with pytest.raises(ModelError, match="was exported to be run, not trained"):
        _ = load_backbone(None, file).network
    with pytest.raises(ModelError, match="it was exported to be run as it is"):
        load_backbone(None, file, linearize=Linearize("full"))


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime"])
def test_without_the_extra(missing: str, file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ModelError, match=rf"needs {missing}(.|\n)*pip install 'divacli\[onnx\]'"):
        load_backbone(None, file)


def test_a_pickled_network_runs_elsewhere(tiny: nn.Module, images: Tensor, file: Path) -> None:
    backbone = load_backbone(None, file)
    file.unlink()
    check(pickle.loads(pickle.dumps(backbone)), tiny, images)


def test_cuda_that_onnxruntime_has_not_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(ModelError, match=r"does not run on cuda:0 here(.|\n)*onnxruntime-gpu"):
        load_backbone(None, file).to("cuda:0")


# Weights in other files


def outside(location: str, **more: object) -> Callable[[Any], None]:
    """Move the first weight of a network into another file."""

    def change(model: Any) -> None:
        tensor = model.graph.initializer[0]
        tensor.ClearField("raw_data")
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for key, value in {"location": location, **more}.items():
            tensor.external_data.add(key=key, value=str(value))

    return change


def beside(tiny: nn.Module, folder: Path, location: str = "data/w.bin", **more: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "data").mkdir(exist_ok=True)
    content = tiny.conv.weight.detach().numpy().tobytes()
    (folder / "data" / "w.bin").write_bytes(b"head" + content + b"tail")
    options = {"offset": 4, "length": len(content), **more}
    return saved(tiny, folder / "m.onnx", change=outside(location, **options))


def test_weights_beside_it(tiny: nn.Module, images: Tensor, tmp_path: Path) -> None:
    path = beside(tiny, tmp_path / "net")
    backbone = load_backbone(None, path)
    check(backbone, tiny, images)
    (path.parent / "data" / "w.bin").write_bytes(bytes(4000))
    assert load_backbone(None, path).identity["weights"] != backbone.identity["weights"]


@pytest.mark.parametrize(
    ("location", "more", "says"),
    [
        ("../w.bin", {}, r"'\.\./w\.bin', which lies outside"),
        ("data/../../w.bin", {}, "lies outside"),
        ("data/../data/w.bin", {}, "lies outside"),
        ("{folder}/w.bin", {}, "lies outside"),
        ("{folder}/net/data/w.bin", {}, "lies outside"),
        ("link.bin", {}, r"lies outside of its folder or links there(.|\n)*cp -L"),
        ("folder/w.bin", {}, "lies outside"),
        ("", {}, "lies outside"),
        ("w\0.bin", {}, "lies outside"),
        ("*/_ORT_MEM_ADDR_/*", {"offset": 4096}, r"cannot be read"),
        ("other.bin", {}, "No such file"),
        ("data", {}, "Is a directory"),
        ("pipe", {}, "no regular file"),
        ("data/w.bin", {"offset": -4}, r"872 bytes, and 864 from -4 on"),
        ("data/w.bin", {"length": 900}, r"872 bytes, and 900 from 4 on"),
        ("data/w.bin", {"length": "many"}, r"cannot be read"),
        ("data/w.bin", {"length": 8}, r"does not run"),
    ],
)
def test_weights_elsewhere_are_refused(
    location: str, more: dict[str, Any], says: str, tiny: nn.Module, tmp_path: Path
) -> None:
    (tmp_path / "w.bin").write_bytes(bytes(4000))
    path = beside(tiny, tmp_path / "net", location.format(folder=tmp_path), **more)
    (path.parent / "link.bin").symlink_to(tmp_path / "w.bin")
    (path.parent / "folder").symlink_to(tmp_path)
    os.mkfifo(path.parent / "pipe")
    with pytest.raises(ModelError, match=says):
        load_backbone(None, path)


def test_weights_of_constants_inside_of_nodes_are_looked_at_too(tiny: nn.Module, tmp_path: Path) -> None:
    value = onnx.TensorProto(data_type=FLOAT, dims=[1], data_location=onnx.TensorProto.EXTERNAL)
    value.external_data.add(key="location", value="/etc/hostname")
    inner = onnx.helper.make_graph([node("Constant", [], ["k"], value=value)], "inner", [], [])
    add = node("If", ["yes"], ["y"], then_branch=inner, else_branch=inner)
    with pytest.raises(ModelError, match="'/etc/hostname', which lies outside"):
        load_backbone(None, saved(tiny, tmp_path / "m.onnx", [add]))


def test_more_weights_than_protobuf_holds_are_refused(
    tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = beside(tiny, tmp_path / "net")
    for room in (path.stat().st_size + 100, 100):
        monkeypatch.setattr("divacli.backbones.onnx_file.ONNX_BYTES", room)
        with pytest.raises(ModelError, match=f"and its weights have more than {room:,} bytes"):
            load_backbone(None, path)


# From the images to the end


def exported(path: Path) -> nn.Module:
    """A network as `torch.onnx.export` writes it."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 6, 3, 2), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten())
    network.extend([nn.Linear(24, 10), nn.GELU(), nn.Linear(10, 3)]).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (torch.zeros(2, 3, SIZE, SIZE),),
            path,
            dynamo=True,
            verbose=False,
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        )
    return network


def test_an_export_of_torch(images: Tensor, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="onnxscript, which torch exports with, is not installed")
    network = exported(tmp_path / "m.onnx")
    backbone = load_backbone(None, tmp_path / "m.onnx")
    torch.testing.assert_close(backbone.features(images), network[:-1](images).detach())
    torch.testing.assert_close(backbone.head[0], network[-1].weight.detach())


def test_from_the_command_line_and_from_python(
    tiny: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "photos", in_turn(24), seed=0, side=20)
    path = saved(tiny, tmp_path / "m.onnx")
    command = "score photos --checkpoint m.onnx --device cpu --out scores"
    result = CliRunner().invoke(app, [*command.split(), "--workers", "2", "--batch-size", "5"])
    assert result.exit_code == 0, result.output
    assert "ImageNet's resize, crop and normalisation are used" in " ".join(result.output.split())
    assert "run as code" not in result.output

    network = divacli.Network(checkpoint="m.onnx")
    here = divacli.Compute(device="cpu", workers=0, cache_dir="other-cache")
    divacli.score("photos", network, compute=here).save("again")
    assert Path("again/scores.csv").read_bytes() == Path("scores/scores.csv").read_bytes()
    loaded = divacli.load("photos", network, compute=here)
    transform = load_backbone(None, path).transform
    batch = torch.stack([transform(Image.open(file)) for file in loaded.table["path"]])
    expected = tiny.embed(batch).detach().numpy()
    np.testing.assert_allclose(loaded.features, expected, rtol=1e-5, atol=1e-5)
