"""The network: ResNet-18's own counts, a block by hand, branches that see their own map alone, seeds."""

from __future__ import annotations

import pytest
import torch

from supermage.models.resnet import MultiBranchResNet, ResidualBlock, ResNetBranch


def count(module: torch.nn.Module) -> int:
    return sum(item.numel() for item in module.parameters())


def test_the_branch_is_resnet_18() -> None:
    """11 689 512 parameters are ResNet-18's for 3 colours and 1000 classes (He et al.'s network as it is commonly counted)."""
    with torch.device("meta"):
        branch = ResNetBranch(width=64)
    two_more_colours, classes = 64 * 2 * 49, 512 * 1000 + 1000
    assert count(branch) + two_more_colours + classes == 11_689_512
    convolutions = [item for item in branch.modules() if isinstance(item, torch.nn.Conv2d) and item.kernel_size != (1, 1)]
    blocks = [item for item in branch.modules() if isinstance(item, ResidualBlock)]
    assert (len(convolutions), len(blocks)) == (17, 8)
    assert branch.n_features == 512


@pytest.mark.parametrize(("pixels", "width"), [(300, 2), (96, 4), (60, 2), (48, 4), (16, 2)])
def test_every_size_of_map_gives_a_feature_vector(pixels: int, width: int) -> None:
    branch = ResNetBranch(width=width).eval()
    assert branch(torch.ones(2, pixels, pixels)).shape == (2, 8 * width)


def test_a_block_with_weights_of_zero_is_the_rectifier() -> None:
    """H(x) = F(x) + x with F = 0."""
    block = ResidualBlock(3, 3)
    torch.nn.init.zeros_(block.second.weight)
    maps = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1))
    assert torch.equal(block(maps), torch.relu(maps))


def test_a_block_by_hand() -> None:
    block = ResidualBlock(2, 4, stride=2).double().eval()
    generator = torch.Generator().manual_seed(2)
    for module in block.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(generator=generator)
            module.running_var.uniform_(0.5, 2.0, generator=generator)
    maps = torch.randn(1, 2, 6, 6, generator=generator, dtype=torch.float64)

    def convolved(image: torch.Tensor, weight: torch.Tensor, stride: int) -> torch.Tensor:
        reach = weight.shape[-1] // 2
        padded = torch.nn.functional.pad(image, [reach] * 4)
        rows = range(0, image.shape[-1], stride)
        cut = [[padded[..., y : y + 2 * reach + 1, x : x + 2 * reach + 1] for x in rows] for y in rows]
        return torch.stack([torch.stack([torch.einsum("ncij,ocij->no", item, weight) for item in line], -1) for line in cut], -2)

    def normalised(image: torch.Tensor, norm: torch.nn.Module) -> torch.Tensor:
        mean, variance = norm.running_mean[:, None, None], norm.running_var[:, None, None]
        return (image - mean) / torch.sqrt(variance + 1e-5)

    inner = normalised(convolved(maps, block.first.weight, 2), block.first_norm).clamp(min=0)
    inner = normalised(convolved(inner, block.second.weight, 1), block.second_norm)
    beside = normalised(convolved(maps, block.shortcut[0].weight, 2), block.shortcut[1])
    assert torch.allclose(block(maps), (inner + beside).clamp(min=0), rtol=1e-10, atol=1e-10)


def test_branches_see_their_own_map_and_the_last_layer_sees_all() -> None:
    network = MultiBranchResNet(("r_light", "dispersion"), 2, width=2, seed=3).eval()
    generator = torch.Generator().manual_seed(4)
    maps = {"r_light": torch.rand(3, 32, 32, generator=generator), "dispersion": torch.rand(3, 24, 24, generator=generator)}
    features = network.penultimate(maps)
    assert features.shape == (3, 32)
    changed = network.penultimate({**maps, "dispersion": torch.zeros(3, 24, 24)})
    assert torch.equal(features[:, :16], changed[:, :16])
    assert not torch.equal(features[:, 16:], changed[:, 16:])
    assert torch.equal(network(maps), features @ network.join.weight.T + network.join.bias)


def test_rows_do_not_see_each_other_once_trained() -> None:
    network = MultiBranchResNet(("r_light",), 1, width=2, seed=3).double().eval()
    maps = torch.rand(4, 32, 32, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    together = network({"r_light": maps})
    alone = torch.cat([network({"r_light": item[None]}) for item in maps])
    assert torch.allclose(together, alone, rtol=1e-12)


def test_weights_are_the_seeds_and_the_global_numbers_stay() -> None:
    torch.manual_seed(7)
    expected = torch.rand(1)
    torch.manual_seed(7)
    networks = [MultiBranchResNet(("r_light",), 1, width=2, seed=seed) for seed in (1, 1, 2)]
    assert torch.equal(torch.rand(1), expected)
    first, same, other = (torch.cat([item.flatten() for item in network.parameters()]) for network in networks)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_the_variance_of_the_first_weights() -> None:
    """2 / fan-out within five standard errors (a false alarm in two million)."""
    weight = MultiBranchResNet(("r_light",), 1, width=32, seed=5).branches["r_light"].blocks[7].second.weight.detach().double()
    expected = 2.0 / (256 * 9)
    assert abs(float(weight.var()) / expected - 1.0) < 5.0 * (2.0 / weight.numel()) ** 0.5
