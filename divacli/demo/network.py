"""The demonstration's network: an example of the factory files that `--model FILE.py:FACTORY` takes.

A factory is a function without arguments that returns a network, or a network and the transform from an RGB
PIL image to what the network takes. Its weights come from `--checkpoint`.
"""

import torch
from torch import nn
from torchvision.transforms import v2


def digit_net() -> tuple[nn.Module, v2.Transform]:
    """A small convolutional network for 8 x 8 pixel digits, and its transform."""
    network = nn.Sequential(
        nn.Conv2d(3, 32, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.Conv2d(32, 64, kernel_size=3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(64 * 4 * 4, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    )
    transform = v2.Compose([v2.Resize((8, 8)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])
    return network, transform
