"""A batch grows while memory lasts and shrinks where it does not; its size changes no feature."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from divacli.errors import ModelError
from divacli.features.batchsize import BatchSize, in_blocks

CPU = torch.device("cpu")
IMAGES = torch.arange(23 * 12, dtype=torch.float32).view(23, 3, 2, 2)


class Network:
    """Sums of images, for as many at a time as there is room for."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.sizes: list[int] = []

    def __call__(self, images: Tensor) -> Tensor:
        if len(images) > self.room:
            raise torch.OutOfMemoryError("out of memory")
        self.sizes.append(len(images))
        return images.sum((2, 3))


@pytest.mark.parametrize(("room", "sizes"), [(100, [16, 16]), (9, [8, 8, 8]), (4, [4] * 6), (1, [1] * 23)])
def test_halved_until_it_fits(room: int, sizes: list[int]) -> None:
    network, told = Network(room), []
    size = BatchSize(16, CPU, told.append)
    assert torch.equal(size.run(network, IMAGES), IMAGES.sum((2, 3)))
    assert network.sizes == sizes
    assert told == (
        [] if room > 16 else ["--batch-size 16 does not fit on cpu: going on with smaller batches"]
    )


def test_what_fitted_once_is_kept_for_the_next_images() -> None:
    network = Network(5)
    size = BatchSize(16, CPU)
    size.run(network, IMAGES)
    network.sizes.clear()
    size.run(network, IMAGES)
    assert network.sizes == [4] * 6


def test_one_image_that_does_not_fit_is_an_error() -> None:
    with pytest.raises(ModelError, match="out of memory on cpu with one image at a time"):
        BatchSize(16, CPU).run(Network(0), IMAGES)


def test_doubled_while_there_is_room() -> None:
    images = IMAGES.repeat(50, 1, 1, 1)
    network = Network(10_000)
    size = BatchSize(256, CPU, used=lambda: network.sizes[-1] / 400)
    assert torch.equal(size.run(network, images), images.sum((2, 3)))
    assert network.sizes[:4] == [32, 64, 128, 256]
    assert size.size == 256
    wary = BatchSize(256, CPU, used=lambda: network.sizes[-1] / 100)
    wary.run(network, images)
    assert wary.size == 64


def test_grows_no_further_than_it_once_failed() -> None:
    network = Network(100)
    size = BatchSize(256, CPU, used=lambda: 0.0)
    size.run(network, IMAGES.repeat(50, 1, 1, 1))
    assert max(network.sizes) == size.size == 64


def test_blocks_are_all_of_one_size() -> None:
    network = Network(100)
    assert torch.equal(in_blocks(network, IMAGES, 8), IMAGES.sum((2, 3)))
    assert network.sizes == [8, 8, 8]


def test_other_failures_are_not_taken_for_a_lack_of_memory() -> None:
    def broken(images: Tensor) -> Tensor:
        raise RuntimeError("no kernel image")

    with pytest.raises(RuntimeError, match="no kernel image"):
        BatchSize(16, CPU).run(broken, IMAGES)
