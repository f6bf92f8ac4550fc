"""Which device each spelling of `--device` stands for."""

import pytest
import torch

from divacli.errors import DivaError
from divacli.machine.device import resolve_device


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> int:
    """Pretend that torch sees so many CUDA devices."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: request.param > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: request.param)
    return request.param


@pytest.mark.parametrize(
    ("devices", "name", "expected"),
    [
        (0, "auto", "cpu"),
        (0, "cpu", "cpu"),
        (2, "auto", "cuda"),
        (2, "cpu", "cpu"),
        (2, "cuda", "cuda"),
        (2, "cuda:0", "cuda:0"),
        (2, "cuda:1", "cuda:1"),
    ],
    indirect=["devices"],
)
def test_device_by_name(devices: int, name: str, expected: str) -> None:
    assert resolve_device(name) == torch.device(expected)


@pytest.mark.parametrize(
    ("devices", "name", "found"),
    [(0, "cuda", "0 CUDA devices"), (0, "cuda:0", "0 CUDA devices"), (1, "cuda:1", "1 CUDA device,")],
    indirect=["devices"],
)
def test_device_that_is_not_there(devices: int, name: str, found: str) -> None:
    with pytest.raises(DivaError) as error:
        resolve_device(name)
    assert found in f"{error.value.got},"
    assert "nvidia-smi" in error.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "",
        "gpu",
        "CUDA",
        "cuda:",
        "cuda:x",
        "cuda:-1",
        "cuda:1.0",
        "cuda: 0",
        "cuda:0\n",
        "cpu:0",
        "cpu:",
        "mps",
    ],
)
@pytest.mark.parametrize("devices", [0, 2], indirect=True)
def test_garbage_is_refused(devices: int, name: str) -> None:
    with pytest.raises(DivaError) as error:
        resolve_device(name)
    assert error.value.expected == "auto, cpu, cuda or cuda:N"
