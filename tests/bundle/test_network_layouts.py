"""kohya's network in diffusers and peft: the same output as weights merged by hand."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from lib_pivotal.bundle.edits import convert
from lib_pivotal.bundle.layer_names import UnetShape, compvis_path, kohya_name
from lib_pivotal.bundle.network_layouts import (
    for_webui,
    from_webui,
    group_layers,
    is_kohya,
    lora_scale,
    to_diffusers,
    to_kohya,
    with_whole_attention,
)
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import NetworkError

diffusers = pytest.importorskip("diffusers")
pytest.importorskip("peft")
transformers = pytest.importorskip("transformers")
USE_PEFT_BACKEND = pytest.importorskip("diffusers.utils").USE_PEFT_BACKEND

SHAPE = UnetShape(2, (True, True))


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=2,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    ).eval()


@pytest.fixture(scope="module")
def text_encoder() -> nn.Module:
    torch.manual_seed(1)
    config = transformers.CLIPTextConfig(
        vocab_size=60, hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        bos_token_id=58, eos_token_id=59,
    )  # fmt: skip
    return transformers.CLIPTextModel(config).eval()


def make_lora(model: nn.Module, part: str, *, every: int = 1) -> dict[str, Tensor]:
    """Ranks 2 and 3, alphas that are no power of two apart; linear, 1x1 and 3x3 convolutions alike."""
    g = torch.Generator().manual_seed(2)
    network: dict[str, Tensor] = {}
    layers = [(p, m) for p, m in model.named_modules() if isinstance(m, nn.Linear | nn.Conv2d)]
    for index, (path, module) in enumerate(layers[::every]):
        rank = 2 + index % 2
        name = kohya_name(path, part)  # type: ignore[arg-type]
        kernel = module.weight.shape[2:]
        network[f"{name}.lora_down.weight"] = torch.randn(rank, module.weight.shape[1], *kernel, generator=g) * 0.3
        network[f"{name}.lora_up.weight"] = (
            torch.randn(module.weight.shape[0], rank, *[1] * len(kernel), generator=g) * 0.3
        )
        network[f"{name}.alpha"] = torch.tensor(1.0 + 0.7 * (index % 3))
    return network


def merge_by_hand(model: nn.Module, network: dict[str, Tensor], part: str) -> nn.Module:
    merged = copy.deepcopy(model)
    layers = group_layers(network)
    for path, module in merged.named_modules():
        layer = layers.get(kohya_name(path, part))  # type: ignore[arg-type]
        if layer is not None:
            up, down = layer["lora_up.weight"].flatten(1), layer["lora_down.weight"].flatten(1)
            delta = float(layer["alpha"]) / down.shape[0] * (up @ down)
            module.weight.data += delta.reshape(module.weight.shape)
    return merged


def run_unet(unet: nn.Module) -> Tensor:
    g = torch.Generator().manual_seed(3)
    x, context = torch.randn(2, 4, 8, 8, generator=g), torch.randn(2, 7, 16, generator=g)
    with torch.no_grad():
        return unet(x, torch.tensor([10, 700]), context).sample


def run_text(text_encoder: nn.Module) -> Tensor:
    with torch.no_grad():
        return text_encoder(torch.tensor([[58, 3, 4, 5, 59]])).last_hidden_state


def pipeline(unet: nn.Module, text_encoder: nn.Module) -> object:
    """The loading half of a pipeline: unet and text encoder, and diffusers' own loader on them."""
    from diffusers.loaders import StableDiffusionLoraLoaderMixin

    class Loader(StableDiffusionLoraLoaderMixin):
        def __init__(self) -> None:
            self.unet, self.text_encoder = copy.deepcopy(unet), copy.deepcopy(text_encoder)
            self.components = {"unet": self.unet, "text_encoder": self.text_encoder}
            self._merged_adapter_names: set[str] = set()
            self.hf_device_map = None

    return Loader()


@pytest.fixture
def diffusers_file(tmp_path: Path, unet: nn.Module, text_encoder: nn.Module) -> tuple[Path, dict[str, Tensor]]:
    """A bundle converted to diffusers' layout, and the network that it was made from."""
    network = make_lora(unet, "unet") | make_lora(text_encoder, "te")
    embeddings = {"kira": (torch.randn(2, 16),)}
    bundle = write_bundle(
        tmp_path / "b.safetensors", network=network, embeddings=embeddings, metadata={}, dtype=torch.float32
    )
    return convert(bundle, tmp_path / "d.safetensors", layout="diffusers"), network


def test_diffusers_loads_the_unet_with_the_merged_output(
    diffusers_file: tuple[Path, dict[str, Tensor]], unet: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its peft path is switched on by hand: it waits for a newer transformers, of which the U-Net needs nothing."""
    import diffusers.loaders.unet as loaders

    monkeypatch.setattr(loaders, "USE_PEFT_BACKEND", True)
    file, network = diffusers_file
    tensors = safetensors.torch.load_file(file)
    adapted = copy.deepcopy(unet)
    adapted.load_attn_procs(tensors, low_cpu_mem_usage=False)
    expected = run_unet(merge_by_hand(unet, network, "unet"))
    assert torch.allclose(run_unet(adapted), expected, atol=1e-5)
    assert not torch.allclose(run_unet(unet), expected, atol=1e-2)


@pytest.mark.skipif(not USE_PEFT_BACKEND, reason="diffusers' load_lora_weights needs transformers 4.34 or newer")
def test_load_lora_weights_gives_the_merged_output(
    diffusers_file: tuple[Path, dict[str, Tensor]], unet: nn.Module, text_encoder: nn.Module
) -> None:
    file, network = diffusers_file
    loader = pipeline(unet, text_encoder)
    loader.load_lora_weights(str(file.parent), weight_name=file.name)  # type: ignore[attr-defined]
    expected = run_unet(merge_by_hand(unet, network, "unet"))
    assert torch.allclose(run_unet(loader.unet), expected, atol=1e-5)  # type: ignore[attr-defined]
    expected = run_text(merge_by_hand(text_encoder, network, "te"))
    assert torch.allclose(run_text(loader.text_encoder), expected, atol=1e-5)  # type: ignore[attr-defined]


def test_peft_gives_the_merged_output(tmp_path: Path, unet: nn.Module, text_encoder: nn.Module) -> None:
    from peft import PeftModel

    network = make_lora(unet, "unet", every=3) | make_lora(text_encoder, "te")
    bundle = write_bundle(tmp_path / "b.safetensors", network=network, embeddings={}, metadata={}, dtype=torch.float32)
    folder = convert(bundle, tmp_path / "peft", layout="peft")
    for part, model, run in (("unet", unet, run_unet), ("te", text_encoder, run_text)):
        where = folder / {"unet": "unet", "te": "text_encoder"}[part]
        adapted = PeftModel.from_pretrained(copy.deepcopy(model), str(where)).base_model.model
        expected = run(merge_by_hand(model, network, part))
        assert torch.allclose(run(adapted), expected, atol=1e-5)
        assert not torch.allclose(run(model), expected, atol=1e-2)


def test_there_and_back_has_the_same_effect(unet: nn.Module) -> None:
    network = make_lora(unet, "unet", every=5)
    back = to_kohya(to_diffusers(network))
    assert is_kohya(back) and set(back) == set(network)
    for name, layer in group_layers(network).items():
        other = {suffix: back[f"{name}.{suffix}"] for suffix in layer}
        effects = [
            lora_scale(each) * each["lora_up.weight"].flatten(1) @ each["lora_down.weight"].flatten(1)
            for each in (layer, other)
        ]
        assert torch.allclose(*effects, atol=1e-6)


def test_layers_numbered_as_in_compvis(unet: nn.Module) -> None:
    path = "up_blocks.0.upsamplers.0.conv"
    name = kohya_name(compvis_path(path, SHAPE), "unet")
    network = {f"{name}.lora_down.weight": torch.ones(1, 4, 3, 3), f"{name}.lora_up.weight": torch.ones(4, 1, 1, 1)}
    assert set(to_diffusers(network, shape=SHAPE)) == {f"unet.{path}.lora_A.weight", f"unet.{path}.lora_B.weight"}
    with pytest.raises(NetworkError, match="give its shape"):
        to_diffusers(network)


def test_half_precision_is_kept_where_it_is_exact() -> None:
    layer = {"lora_unet_conv_in.lora_down.weight": torch.ones(4, 2).half()}
    up = torch.randn(3, 4).half()
    for alpha, dtype in ((2.0, torch.float16), (1.1, torch.float32)):
        tensors = {**layer, "lora_unet_conv_in.lora_up.weight": up, "lora_unet_conv_in.alpha": torch.tensor(alpha)}
        found = to_diffusers(tensors)["unet.conv_in.lora_B.weight"]
        assert found.dtype == dtype
        assert torch.allclose(found.double(), up.double() * torch.tensor(alpha).double() / 4, atol=1e-7)


def test_all_layers_that_have_no_counterpart_are_named() -> None:
    lora = {"lora_down.weight": torch.ones(1, 2), "lora_up.weight": torch.ones(3, 1)}
    network = {
        "lora_unet_a.hada_w1_a": torch.ones(1),
        "lora_unet_b.lora_down.weight": torch.ones(1, 2),
        "strange": torch.ones(1),
        **{f"lora_unet_c.{key}": value for key, value in lora.items()},
        "lora_unet_c.dora_scale": torch.ones(1, 2),
    }
    with pytest.raises(NetworkError) as caught:
        to_diffusers(network)
    assert all(name in str(caught.value) for name in ("lora_unet_a", "lora_unet_b", "strange", "DoRA a column"))


@pytest.mark.parametrize("kernel", [(), (1, 1), (3, 3)])
def test_dora_a_row_has_a_counterpart(kernel: tuple[int, ...]) -> None:
    """peft has a convolution's magnitudes as [1, out, 1, 1], a linear layer's as [out] (tuners/lora/dora.py)."""
    ones = [1] * len(kernel)
    network = {
        "lora_unet_conv_in.lora_down.weight": torch.ones(1, 2, *kernel),
        "lora_unet_conv_in.lora_up.weight": torch.ones(3, 1, *ones),
        "lora_unet_conv_in.dora_scale": torch.arange(3.0).reshape(3, 1, *ones),
    }
    found = to_diffusers(network)
    expected = torch.arange(3.0).reshape((1, 3, *ones) if kernel else (3,))
    assert torch.equal(found["unet.conv_in.lora_magnitude_vector"], expected)
    back = to_kohya(found)["lora_unet_conv_in.dora_scale"]
    assert torch.equal(back, network["lora_unet_conv_in.dora_scale"])


@pytest.mark.parametrize(
    ("key", "name"),
    [
        ("unet.a.attn1.to_q.lora_A.weight", "lora_unet_a_attn1_to_q.lora_down.weight"),
        ("unet.a.attn1.to_q.lora.down.weight", "lora_unet_a_attn1_to_q.lora_down.weight"),
        ("unet.a.attn1.processor.to_q_lora.down.weight", "lora_unet_a_attn1_to_q.lora_down.weight"),
        ("unet.a.attn1.processor.to_out_lora.up.weight", "lora_unet_a_attn1_to_out_0.lora_up.weight"),
        ("text_encoder.b.lora_linear_layer.up.weight", "lora_te_b.lora_up.weight"),
        ("base_model.model.unet.a.lora_B.default.weight", "lora_unet_a.lora_up.weight"),
        ("base_model.model.down_blocks.0.x.lora_B.weight", "lora_unet_down_blocks_0_x.lora_up.weight"),
    ],
)
def test_older_spellings_of_diffusers(key: str, name: str) -> None:
    assert set(to_kohya({key: torch.ones(2, 2)})) == {name}


def test_two_text_encoders_get_sdxls_names() -> None:
    found = to_kohya({f"{part}.a.lora_A.weight": torch.ones(2, 2) for part in ("text_encoder", "text_encoder_2")})
    assert set(found) == {"lora_te1_a.lora_down.weight", "lora_te2_a.lora_down.weight"}


def test_what_is_no_lora() -> None:
    with pytest.raises(NetworkError, match="no LoRA in diffusers' layout: x"):
        to_kohya({"x": torch.ones(1)})


@pytest.mark.parametrize("blocks", [1, 2])
def test_names_for_the_web_ui_and_back(unet: nn.Module, blocks: int) -> None:
    model = (
        unet
        if blocks == 2
        else diffusers.UNet2DConditionModel(
            sample_size=8,
            block_out_channels=(8, 16),
            layers_per_block=1,
            down_block_types=("CrossAttnDownBlock2D",) * 2,
            up_block_types=("CrossAttnUpBlock2D",) * 2,
            cross_attention_dim=16,
            attention_head_dim=4,
            norm_num_groups=4,
        )
    )
    network = make_lora(model, "unet") | {"lora_te_x.alpha": torch.ones(1), "strange": torch.ones(1)}
    shape = UnetShape.from_kohya_names(key.partition(".")[0] for key in network)
    assert shape == UnetShape(blocks, (True, True))
    out = for_webui(network, shape)
    assert len(out) == len(network)
    changed = {key for key in network if key not in out}
    assert all("upsamplers" in key for key in changed) if blocks == 2 else len(changed) > len(network) // 3
    assert for_webui(out, shape).keys() == out.keys()
    back = from_webui(out, shape)
    assert back.keys() == network.keys() and all(back[key] is network[key] for key in network)


@pytest.mark.parametrize(("family", "prefix"), [("sd2", "lora_te_"), ("sdxl", "lora_te2_")])
def test_openclip_attention_is_whole_in_the_file(family: str, prefix: str) -> None:
    """The stock web UI applies q, k, v and out only together."""
    stem = f"{prefix}text_model_encoder_layers_0_self_attn"
    network = {
        f"{stem}_{name}_proj.{suffix}": tensor
        for name in ("q", "v")
        for suffix, tensor in (
            ("alpha", torch.tensor(2.0)),
            ("lora_down.weight", torch.ones(2, 8)),
            ("lora_up.weight", torch.ones(8, 2)),
        )
    }
    clip = {key.replace(prefix, "lora_te1_"): tensor for key, tensor in network.items()}
    whole = with_whole_attention({**network, **clip}, family)
    assert {**network, **clip}.items() <= whole.items()
    added = {key: tensor for key, tensor in whole.items() if key not in network and key not in clip}
    assert {key.split(".")[0] for key in added} == {f"{stem}_k_proj", f"{stem}_out_proj"}
    for layer in group_layers(added).values():
        change = layer["lora_up.weight"] @ layer["lora_down.weight"]
        assert change.shape == (8, 8) and not change.any()
    assert with_whole_attention(whole, family).keys() == whole.keys()
    assert with_whole_attention(network, "sd1") == network
