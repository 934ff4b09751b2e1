"""What a layer of a file adds to its weight. All kinds are compared with the web UI in tests/parity."""

from __future__ import annotations

import pytest
import torch

from lib_pivotal.bundle.deltas import kind_of, layer_delta, needs_weight, with_kernel
from lib_pivotal.errors import NetworkError

LORA = {"lora_down.weight": torch.randn(2, 6), "lora_up.weight": torch.randn(5, 2), "alpha": torch.tensor(1.0)}


def test_a_lora_by_hand() -> None:
    up, down = LORA["lora_up.weight"].double(), LORA["lora_down.weight"].double()
    by_hand = sum(torch.outer(up[:, r], down[r]) for r in range(2)) * 0.5
    assert torch.allclose(layer_delta(LORA, dtype=torch.float64).weight, by_hand)
    assert layer_delta(LORA).weight.dtype == torch.float32


def test_lokr_entry_by_entry() -> None:
    """Eq. 6 of LyCORIS (arXiv 2309.14859): block (i, j) of the delta is w1[i, j] · w2."""
    one, two = torch.randn(2, 3), torch.randn(4, 5)
    found = layer_delta({"lokr_w1": one, "lokr_w2": two}).weight
    for i in range(2):
        for j in range(3):
            assert torch.equal(found[4 * i : 4 * i + 4, 5 * j : 5 * j + 5], one[i, j] * two)


def test_dora_has_the_columns_norms() -> None:
    weight, magnitude = torch.randn(5, 6), torch.rand(1, 6) + 0.5
    merged = weight + layer_delta({**LORA, "dora_scale": magnitude}, weight=weight).weight
    assert torch.allclose(merged.norm(dim=0), magnitude[0], atol=1e-5)
    by_output = torch.rand(5, 1) + 0.5
    merged = weight + layer_delta({**LORA, "dora_scale": by_output}, weight=weight).weight
    assert torch.allclose(merged.norm(dim=1), by_output[:, 0], atol=1e-5)


def test_an_oft_turns_groups_of_outputs() -> None:
    weight = torch.randn(8, 6)
    merged = weight + layer_delta({"oft_blocks": torch.randn(2, 4, 4)}, weight=weight).weight
    for group in (slice(0, 4), slice(4, 8)):
        assert torch.allclose(merged[group].T @ merged[group], weight[group].T @ weight[group], atol=1e-4)


def test_what_needs_the_weight_says_so() -> None:
    ia3 = {"weight": torch.ones(5), "on_input": torch.tensor(0)}
    assert kind_of(ia3) == "(IA)^3" and needs_weight(ia3) and not needs_weight(LORA)
    with pytest.raises(NetworkError, match=r"\(IA\)\^3 .*the checkpoint is needed"):
        layer_delta(ia3)
    with pytest.raises(NetworkError, match="DoRA .*the checkpoint is needed"):
        layer_delta({**LORA, "dora_scale": torch.ones(1, 6)})


def test_what_cannot_be_read_is_told() -> None:
    with pytest.raises(NetworkError, match="lora_up.weight, which is no complete layer"):
        kind_of({"lora_up.weight": torch.ones(5, 2)})
    with pytest.raises(NetworkError, match="bias_size, which has no place in a LoRA layer"):
        kind_of({**LORA, "bias_size": torch.ones(1)})
    with pytest.raises(NetworkError, match=r"do not fit together: .*\[5, 2\].* for a weight \[7, 7\]"):
        layer_delta(LORA, weight=torch.ones(7, 7))
    with pytest.raises(NetworkError, match=r"dora_scale \[4\] does not belong"):
        layer_delta({**LORA, "dora_scale": torch.ones(4)}, weight=torch.ones(5, 6))


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("lora_unet_down_blocks_0_resnets_0_conv1", (4, 2, 3, 3)),
        ("lora_unet_down_blocks_1_downsamplers_0_conv", (4, 2, 3, 3)),
        ("lora_unet_input_blocks_3_0_op", (4, 2, 3, 3)),
        ("lora_unet_output_blocks_2_2_conv", (4, 2, 3, 3)),
        ("lora_unet_input_blocks_1_0_in_layers_2", (4, 2, 3, 3)),
        ("lora_unet_conv_in", (4, 2, 3, 3)),
        ("lora_unet_down_blocks_0_attentions_0_proj_in", (4, 18)),
        ("lora_unet_down_blocks_0_resnets_0_conv_shortcut", (4, 18)),
        ("lora_te_text_model_encoder_layers_0_mlp_fc1", (4, 18)),
    ],
)
def test_a_flat_convolution_gets_its_kernel_back(name: str, shape: tuple[int, ...]) -> None:
    delta = torch.randn(4, 18)
    found = with_kernel(delta, name)
    assert found.shape == shape and torch.equal(found.flatten(1), delta)
