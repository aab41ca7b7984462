"""ResNet-18 branches, one for each input map, joined in one fully connected layer.

Source: He et al. 2016 (arXiv:1512.03385), the network of 18 layers; joined as in Chu et al., sec. 3.1 and Figure 3. Own code.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

BLOCKS_PER_STAGE = 2
STAGES = 4
SMALLEST_MAP = 16
"""Pixels along a side: less, and the last stages see one pixel."""


def _convolution(inputs: int, outputs: int, size: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, size, stride=stride, padding=size // 2, bias=False)


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions, each with batch normalisation, and what came in added before the last rectifier.

    Parameters
    ----------
    inputs, outputs
        Channels.
    stride
        Of the first convolution; where it is not 1, or the channels differ, a 1 x 1 convolution fits what is added.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 1) -> None:
        super().__init__()
        self.first, self.first_norm = _convolution(inputs, outputs, 3, stride), nn.BatchNorm2d(outputs)
        self.second, self.second_norm = _convolution(outputs, outputs, 3, 1), nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(_convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    def forward(self, maps: Float[Tensor, "row inputs y x"]) -> Float[Tensor, "row outputs half_y half_x"]:
        """``relu(F(x) + x)``."""
        inner = torch.relu(self.first_norm(self.first(maps)))
        return torch.relu(self.second_norm(self.second(inner)) + self.shortcut(maps))


class ResNetBranch(nn.Module):
    """One convolution and eight residual blocks, averaged over what is left of the map.

    Parameters
    ----------
    width
        Channels of the first stage (64 in ResNet-18); every further stage has twice as many and half the pixels.

    Attributes
    ----------
    n_features
        Length of the feature vector, ``8 width``.
    """

    def __init__(self, *, width: int = 64) -> None:
        super().__init__()
        self.first, self.first_norm = _convolution(1, width, 7, 2), nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, stride=2, padding=1)
        blocks: list[nn.Module] = []
        channels = width
        for stage in range(STAGES):
            for number in range(BLOCKS_PER_STAGE):
                outputs = width * 2**stage
                blocks.append(ResidualBlock(channels, outputs, stride=2 if stage and not number else 1))
                channels = outputs
        self.blocks = nn.Sequential(*blocks)
        self.n_features = channels

    def forward(self, maps: Float[Tensor, "row y x"]) -> Float[Tensor, "row feature"]:
        """Feature vectors of square maps of any size from 16 pixels."""
        first = self.pool(torch.relu(self.first_norm(self.first(maps.unsqueeze(1)))))
        return self.blocks(first).mean((2, 3))


class MultiBranchResNet(nn.Module):
    """A branch for each input, whose feature vectors one fully connected layer turns into the targets.

    Parameters
    ----------
    inputs
        Names of the input maps, in the order of their branches. Maps of different inputs may differ in size.
    n_targets
        Numbers to predict.
    width
        As of :class:`ResNetBranch`.
    seed
        Of the weights: normal with variance 2 / (outputs x pixels of the kernel) for convolutions (He et al. 2015), uniform within
        1 / sqrt(features) for the last layer. The global random numbers are left alone.
    """

    def __init__(self, inputs: Sequence[str], n_targets: int, *, width: int = 64, seed: int = 1) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.branches = nn.ModuleDict({name: ResNetBranch(width=width) for name in inputs})
            self.n_features = sum(8 * width for _ in inputs)
            self.join = nn.Linear(self.n_features, n_targets)
        self._draw(torch.Generator().manual_seed(seed))

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                fan_out = module.out_channels * module.kernel_size[0] * module.kernel_size[1]
                module.weight.normal_(0.0, math.sqrt(2.0 / fan_out), generator=generator)
        bound = 1.0 / math.sqrt(self.n_features)
        self.join.weight.uniform_(-bound, bound, generator=generator)
        self.join.bias.zero_()

    def penultimate(self, maps: Mapping[str, Tensor]) -> Float[Tensor, "row feature"]:
        """The feature vectors of all branches, one behind the other. Each map has shape (row, y, x)."""
        return torch.cat([branch(maps[name]) for name, branch in self.branches.items()], dim=1)

    def forward(self, maps: Mapping[str, Tensor]) -> Float[Tensor, "row target"]:
        """The targets, standardised."""
        return self.join(self.penultimate(maps))
