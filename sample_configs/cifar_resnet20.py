"""The CIFAR ResNet-20, as an example of a network that the command line does not know by name.

    diva score data/ --model sample_configs/cifar_resnet20.py:resnet20 --checkpoint resnet20.th

A factory is a function without arguments. It returns a `torch.nn.Module`, or the module and a transform from
an RGB PIL image to a float tensor (3, height, width). `--checkpoint` is loaded into the module, so the names
of its parts must be those in the file: here `conv1`, `bn1`, `layer1` to `layer3` and `linear`. The features
are what flows into the last linear layer: here 64 numbers an image.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import Image
from torch import Tensor, nn
from torch.nn import functional
from torchvision import transforms


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut without parameters.

    Where the block halves the image, the shortcut takes every second pixel and fills the new channels with
    zeros (option A of He et al. 2016, section 4.2), half of them before and half after.
    """

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.stride = stride
        self.new_channels = channels - in_channels

    def forward(self, x: Tensor) -> Tensor:
        """Map (b, in_channels, h, w) to (b, channels, h / stride, w / stride)."""
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        before = self.new_channels // 2
        shortcut = x[:, :, :: self.stride, :: self.stride]
        shortcut = functional.pad(shortcut, (0, 0, 0, 0, before, self.new_channels - before))
        return functional.relu(out + shortcut)


class CifarResNet(nn.Module):
    """Three stages of blocks with 16, 32 and 64 channels, average pooling and a linear head."""

    def __init__(self, blocks_per_stage: int, n_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = self._stage(16, 16, blocks_per_stage, stride=1)
        self.layer2 = self._stage(16, 32, blocks_per_stage, stride=2)
        self.layer3 = self._stage(32, 64, blocks_per_stage, stride=2)
        self.linear = nn.Linear(64, n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map images (b, 3, 32, 32) to logits (b, n_classes)."""
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean((2, 3)))

    @staticmethod
    def _stage(in_channels: int, channels: int, n_blocks: int, stride: int) -> nn.Sequential:
        first = BasicBlock(in_channels, channels, stride)
        return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(n_blocks - 1)))


def resnet20() -> tuple[nn.Module, Callable[[Image.Image], Tensor]]:
    """Return the network and the transform it was trained with; larger images are resized to 32 x 32."""
    transform = transforms.Compose(
        [
            transforms.Resize((32, 32)),
            transforms.ToTensor(),
            transforms.Normalize(mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225)),
        ]
    )
    return CifarResNet(blocks_per_stage=3), transform
