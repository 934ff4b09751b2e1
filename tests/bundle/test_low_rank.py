"""Singular values: how many are kept by each rule, and that the factors are the nearest product."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_pivotal.bundle.low_rank import RankCut, factored, refactored
from lib_pivotal.errors import BundleError


def kohya_rank(singular: Tensor, rule: str, value: float, limit: int) -> int:
    """networks/resize_lora.py of kohya's sd-scripts, in its own steps."""
    if rule == "sv_ratio":
        index = int(torch.sum(singular > singular[0] / value).item()) - 1
    else:
        squares = singular.pow(2)
        index = int(torch.searchsorted(torch.cumsum(squares, 0) / float(squares.sum()), value**2))
    index = max(0, min(index, len(singular) - 1))
    return min(index + 1, limit)


def custom_diffusion_rank(singular: Tensor, value: float) -> int:
    """src/compress.py of Custom Diffusion: the loop as it stands there."""
    explained, number = 0.0, 0
    for number, one in enumerate(singular):  # noqa: B007
        explained += float(one / singular.sum())
        if explained > value:
            break
    return number


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("rule", "value"), [("sv_ratio", 2.0), ("sv_ratio", 20.0), ("sv_fro", 0.5), ("sv_fro", 0.95)])
@pytest.mark.parametrize("limit", [3, 100])
def test_kohyas_rules(seed: int, rule: str, value: float, limit: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    singular = torch.rand(24, generator=generator).double().pow(3).sort(descending=True).values
    assert RankCut(limit, rule, value).kept(singular) == kohya_rank(singular, rule, value, limit)


@pytest.mark.parametrize("value", [0.2, 0.6, 0.9, 0.99])
def test_the_share_is_custom_diffusions(value: float) -> None:
    singular = torch.rand(24, generator=torch.Generator().manual_seed(1)).double().sort(descending=True).values
    assert RankCut(rule="share", value=value).kept(singular) == custom_diffusion_rank(singular, value) > 1


def test_the_whole_share_keeps_everything_and_at_least_one_is_kept() -> None:
    singular = torch.tensor([1.0, 0.5, 0.25])
    assert RankCut(rule="share", value=1.0).kept(singular) == 3
    assert RankCut(rule="share", value=0.01).kept(singular) == 1
    assert RankCut(8).kept(torch.zeros(3)) == 1
    assert RankCut(2, conv_rank=1).kept(singular) == 2 and RankCut(2, conv_rank=1).kept(singular, kernel=3) == 1


@pytest.mark.parametrize("shape", [(6, 10), (40, 8), (8, 40), (6, 10, 1, 1), (6, 4, 3, 3)])
@pytest.mark.parametrize("rank", [1, 3, 100])
def test_the_nearest_product_of_its_rank(shape: tuple[int, ...], rank: int) -> None:
    delta = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = factored(delta, RankCut(rank))
    product = (found.up.flatten(1) @ found.down.flatten(1)).reshape(shape)
    rest = torch.linalg.svdvals(delta.flatten(1))[rank:]
    assert torch.allclose((delta - product).norm(), rest.norm(), atol=1e-9)  # Eckart-Young
    assert found.down.shape[1:] == delta.shape[1:] and found.up.shape[2:] == (1,) * (len(shape) - 2)
    assert torch.allclose(found.up.flatten(1).norm(dim=0), found.down.flatten(1).norm(dim=1))  # both carry the root


@pytest.mark.parametrize("kernel", [(), (3, 3)])
def test_a_product_is_cut_without_being_made(kernel: tuple[int, ...]) -> None:
    up, down = torch.randn(20, 6, *[1] * len(kernel)).double(), torch.randn(6, 9, *kernel).double()
    whole = (up.flatten(1) @ down.flatten(1)).reshape(20, 9, *kernel)
    one, two = refactored(up, down, RankCut(4)), factored(whole, RankCut(4))
    products = [(f.up.flatten(1) @ f.down.flatten(1)) for f in (one, two)]
    assert torch.allclose(*products, atol=1e-9) and one.rank == two.rank == 4
    assert one.up.shape == two.up.shape and one.down.shape == two.down.shape


@pytest.mark.parametrize(
    ("cut", "told"),
    [
        (RankCut(), "give a rank, or one of the rules share, sv_ratio, sv_fro"),
        (RankCut(-1), "rank = -1"),
        (RankCut(4, conv_rank=-2), "conv_rank = -2"),
        (RankCut(4, "sv_cumulative", 0.9), "there is no rule 'sv_cumulative'; choose from rank, share"),
        (RankCut(4, "share"), "share = 0: must be above 0 and at most 1"),
        (RankCut(4, "sv_fro", 1.5), "sv_fro = 1.5"),
        (RankCut(4, "sv_ratio", 1.0), "sv_ratio = 1: must be above 1"),
        (RankCut(4, "sv_fro", float("nan")), "sv_fro = nan"),
    ],
)
def test_what_cannot_be_meant_is_refused(cut: RankCut, told: str) -> None:
    with pytest.raises(BundleError) as caught:
        cut.check()
    assert told in str(caught.value)


def test_a_cut_in_words() -> None:
    assert str(RankCut(8)) == "rank 8"
    assert str(RankCut(8, conv_rank=4)) == "rank 8, convolutions 4"
    assert str(RankCut(8, "sv_fro", 0.9)) == "sv_fro 0.9, at most rank 8"
    assert str(RankCut(rule="share", value=0.6)) == "share 0.6"
