"""Joined networks are the exact sum of both."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lib_pivotal.bundle.joining import join_conflicts, join_networks, weighted

Layer = dict[str, Tensor]


def layer(
    rank: int, alpha: float | None, *, kernel: tuple[int, ...] = (), dtype: torch.dtype = torch.float32, seed: int = 0
) -> Layer:
    g = torch.Generator().manual_seed(seed)
    found = {
        "x.lora_down.weight": torch.randn(rank, 6, *kernel, generator=g).to(dtype),
        "x.lora_up.weight": torch.randn(5, rank, *[1] * len(kernel), generator=g).to(dtype),
    }
    if alpha is not None:
        found["x.alpha"] = torch.tensor(alpha, dtype=dtype)
    return {f"lora_unet_{key}": tensor for key, tensor in found.items()}


def delta(network: Layer) -> Tensor:
    up, down = (network[f"lora_unet_x.lora_{k}.weight"].double() for k in ("up", "down"))
    alpha = network.get("lora_unet_x.alpha")
    scale = 1.0 if alpha is None else float(alpha) / down.shape[0]
    return scale * torch.einsum("or,ri...->oi...", up.flatten(1), down)


@pytest.mark.parametrize("alphas", [(2.0, 2.0), (2.0, 3.0), (None, 1.0), (0.0, 1.0), (1.0, 0.0)])
@pytest.mark.parametrize("kernel", [(), (1, 1), (3, 3)])
def test_the_sum(alphas: tuple[float | None, float | None], kernel: tuple[int, ...]) -> None:
    one, two = layer(2, alphas[0], kernel=kernel), layer(3, alphas[1], kernel=kernel, seed=1)
    assert join_conflicts(one, two) == []
    joined = join_networks(one, two)
    assert joined["lora_unet_x.lora_down.weight"].shape[0] == 5
    assert torch.allclose(delta(joined), delta(one) + delta(two), atol=1e-5)


def test_equal_scales_change_no_bit_even_in_half_precision() -> None:
    one, two = layer(2, 1.0, dtype=torch.float16), layer(4, 2.0, dtype=torch.float16, seed=1)
    joined = join_networks(one, two)
    assert all(tensor.dtype == torch.float16 for tensor in joined.values())
    assert torch.equal(joined["lora_unet_x.lora_up.weight"][:, 2:], two["lora_unet_x.lora_up.weight"])
    assert torch.equal(delta(joined), delta(one) + delta(two))


def test_unequal_scales_in_half_precision_go_to_single() -> None:
    one, two = layer(2, 1.0, dtype=torch.float16), layer(4, 1.1, dtype=torch.float16, seed=1)
    assert torch.allclose(delta(join_networks(one, two)), delta(one) + delta(two), atol=1e-5)


def test_layers_of_one_side_are_kept_as_they_are() -> None:
    one, two = layer(2, 1.0), {key.replace("_x.", "_y."): tensor for key, tensor in layer(3, 1.0).items()}
    joined = join_networks(one, two)
    assert all(torch.equal(joined[key], tensor) for key, tensor in {**one, **two}.items())


def test_one_by_one_convolutions_kept_as_matrices() -> None:
    one, two = layer(2, 1.0), layer(3, 1.0, kernel=(1, 1), seed=1)
    assert join_conflicts(one, two) == []
    assert torch.allclose(delta(join_networks(one, two)).squeeze(), delta(one) + delta(two).squeeze(), atol=1e-5)


def test_tucker_cores() -> None:
    def tucker(rank: int, seed: int) -> Layer:
        g = torch.Generator().manual_seed(seed)
        core = torch.randn(rank, rank, 3, 3, generator=g)
        return {**layer(rank, float(rank), kernel=(1, 1), seed=seed), "lora_unet_x.lora_mid.weight": core}

    def effect(network: Layer) -> Tensor:
        up, down, mid = (network[f"lora_unet_x.lora_{k}.weight"].double() for k in ("up", "down", "mid"))
        scale = float(network["lora_unet_x.alpha"]) / down.shape[0]
        return scale * torch.einsum("om,mnkl,ni->oikl", up.flatten(1), mid, down.flatten(1))

    one, two = tucker(2, 0), tucker(3, 1)
    assert torch.allclose(effect(join_networks(one, two)), effect(one) + effect(two), atol=1e-5)


def test_weights_scale_through_alpha() -> None:
    half, stuck = weighted(layer(2, 3.0), 0.3)
    assert not stuck and torch.allclose(delta(half), 0.3 * delta(layer(2, 3.0)), atol=1e-6)
    assert weighted({"lora_unet_x.hada_w1_a": torch.ones(1)}, 0.5)[1]
    assert weighted({"lora_unet_x.hada_w1_a": torch.ones(1)}, 1.0)[1] == []


def test_conflicts_are_all_told() -> None:
    dora = {**layer(2, 1.0), "lora_unet_x.dora_scale": torch.ones(1, 6)}
    assert "dora_scale" in join_conflicts(dora, layer(2, 1.0))[0]
    assert "no complete LoRA" in join_conflicts({"lora_unet_x.lora_up.weight": torch.ones(5, 2)}, layer(2, 1.0))[0]
    assert (
        "lora_mid" in join_conflicts({**layer(2, 1.0), "lora_unet_x.lora_mid.weight": torch.ones(1)}, layer(2, 1.0))[0]
    )
    assert "different kernels" in join_conflicts(layer(2, 1.0, kernel=(3, 3)), layer(2, 1.0, kernel=(1, 1)))[0]
    other = {key: tensor.T.contiguous() for key, tensor in layer(2, None).items()}
    assert "different models" in join_conflicts(layer(2, None), other)[0]
    assert "convert it first" in join_conflicts({"unet.x.lora_A.weight": torch.ones(1)}, layer(2, 1.0))[0]


def test_equal_layers_of_other_kinds_are_no_conflict() -> None:
    same = {"lora_unet_x.hada_w1_a": torch.ones(1)}
    assert join_conflicts(same, dict(same)) == []
    assert set(join_networks(same, dict(same))) == set(same)
    assert join_conflicts(same, {"lora_unet_x.hada_w1_a": torch.zeros(1)})


def test_a_network_joined_with_itself_has_twice_the_effect_whatever_its_kind() -> None:
    """A LoRA's ranks are put side by side; of other kinds one factor is doubled, exactly."""
    g = torch.Generator().manual_seed(0)
    loha = {f"lora_unet_x.hada_w{i}_{x}": torch.randn(4, 4, generator=g).half() for i in (1, 2) for x in "ab"}
    lokr = {f"lora_unet_x.lokr_{w}": torch.randn(3, 3, generator=g) for w in ("w1", "w2")}
    full = {"lora_unet_x.diff": torch.randn(5, 6, generator=g), "lora_unet_x.diff_b": torch.randn(5, generator=g)}

    def loha_effect(n: Layer) -> Tensor:
        one, two = (n[f"lora_unet_x.hada_w{i}_a"].double() @ n[f"lora_unet_x.hada_w{i}_b"].double() for i in (1, 2))
        return one * two

    effects = (
        (layer(2, 1.0), delta),
        (loha, loha_effect),
        (lokr, lambda n: torch.kron(n["lora_unet_x.lokr_w1"], n["lora_unet_x.lokr_w2"])),
        (full, lambda n: torch.cat([n["lora_unet_x.diff"].flatten(), n["lora_unet_x.diff_b"]])),
    )
    for network, effect in effects:
        assert join_conflicts(network, dict(network)) == []
        joined = join_networks(network, dict(network))
        assert torch.allclose(effect(joined), 2 * effect(network), rtol=1e-6)
        assert {key: tensor.dtype for key, tensor in joined.items()} == {k: t.dtype for k, t in network.items()}


@pytest.mark.parametrize("suffix", ["oft_blocks", "oft_R.weight", "a1.weight", "weight"])
def test_what_has_no_sum_is_refused_also_with_itself(suffix: str) -> None:
    network = {f"lora_unet_x.{suffix}": torch.ones(2, 2)}
    (conflict,) = join_conflicts(network, dict(network))
    assert "lora_unet_x" in conflict and suffix in conflict
    other = {f"lora_unet_y.{suffix}": torch.ones(2, 2)}
    assert set(join_networks(network, other)) == {*network, *other}
