"""Layer names against real models: diffusers' U-Nets, its own reading of compvis files, transformers' CLIP."""

from __future__ import annotations

import pytest
import torch

from lib_pivotal.bundle.layer_names import (
    SD1_SHAPE,
    SDXL_SHAPE,
    UnetShape,
    canonical_name,
    compvis_path,
    diffusers_path,
    dotted,
    kohya_name,
    name_for_webui,
    part_of,
    split_kohya_name,
)
from lib_pivotal.errors import NetworkError

diffusers = pytest.importorskip("diffusers")

SHAPES = {
    "tiny": UnetShape(2, (True, True)),
    "sd1": SD1_SHAPE,
    "sdxl": SDXL_SHAPE,
    "one-block": UnetShape(1, (True, False)),
    "three-blocks": UnetShape(3, (False, True, False)),
    "one-level": UnetShape(2, (True,)),
}


def make_unet(shape: UnetShape, *, sdxl: bool = False) -> torch.nn.Module:
    kinds = ["CrossAttnDownBlock2D" if level else "DownBlock2D" for level in shape.attention]
    ups = ["CrossAttnUpBlock2D" if level else "UpBlock2D" for level in reversed(shape.attention)]
    more = {
        "addition_embed_type": "text_time",
        "addition_time_embed_dim": 8,
        "projection_class_embeddings_input_dim": 64,
    }
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=tuple(8 * (1 + i) for i in range(shape.levels)),
        layers_per_block=shape.blocks_per_level,
        down_block_types=kinds,
        up_block_types=ups,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
        **(more if sdxl else {}),
    )


@pytest.fixture(scope="module", params=list(SHAPES))
def case(request: pytest.FixtureRequest) -> tuple[UnetShape, torch.nn.Module]:
    return SHAPES[request.param], make_unet(SHAPES[request.param], sdxl=request.param == "sdxl")


def test_every_parameter_goes_to_compvis_and_back(case: tuple[UnetShape, torch.nn.Module]) -> None:
    shape, unet = case
    names = list(unet.state_dict())
    mapped = [compvis_path(name, shape) for name in names]
    assert len(set(mapped)) == len(names)
    assert [diffusers_path(name, shape) for name in mapped] == names


def test_shape_is_read_from_configs_and_names(case: tuple[UnetShape, torch.nn.Module]) -> None:
    shape, unet = case
    names = list(unet.state_dict())
    assert UnetShape.from_diffusers_config(unet.config) == shape
    assert UnetShape.from_diffusers_paths(names) == shape
    assert UnetShape.from_compvis_paths(compvis_path(name, shape) for name in names) == shape
    yaml = {
        "num_res_blocks": shape.blocks_per_level,
        "channel_mult": [1] * shape.levels,
        "attention_resolutions": [2**i for i, attentive in enumerate(shape.attention) if attentive],
    }
    assert UnetShape.from_compvis_config(yaml) == shape


def test_compvis_names_are_those_that_diffusers_reads(case: tuple[UnetShape, torch.nn.Module]) -> None:
    """Our compvis file, read by diffusers' own converter, is the model again."""
    single_file = pytest.importorskip("diffusers.loaders.single_file_utils")
    shape, unet = case
    state = unet.state_dict()
    file = {f"model.diffusion_model.{compvis_path(name, shape)}": tensor for name, tensor in state.items()}
    config = {"layers_per_block": shape.blocks_per_level, "class_embed_type": None, **unet.config}
    back = single_file.convert_ldm_unet_checkpoint(file, config=config)
    assert set(back) == set(state)
    assert all(torch.equal(back[name], tensor) for name, tensor in state.items())


def test_kohya_names_of_every_layer_go_back_to_their_path(case: tuple[UnetShape, torch.nn.Module]) -> None:
    shape, unet = case
    for path, module in unet.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            assert split_kohya_name(kohya_name(path, "unet")) == ("unet", path)
            flat = kohya_name(compvis_path(path, shape), "unet")
            assert split_kohya_name(flat) == ("unet", compvis_path(path, shape))
            assert canonical_name(flat, shape) == kohya_name(path, "unet")
            assert canonical_name(kohya_name(path, "unet")) == kohya_name(path, "unet")


def stock_lookup(name: str) -> str:
    """What v1.10.1 makes of a U-Net name, from its description: blocks of three, SD1's places, else the name itself."""
    words = name.removeprefix("lora_unet_").split("_")
    places = {
        "conv1": "in_layers_2",
        "conv2": "out_layers_3",
        "time_emb_proj": "emb_layers_1",
        "conv_shortcut": "skip_connection",
    }
    text = "_".join(words)
    if words[0] in ("down", "up") and words[1] == "blocks" and words[3] in ("attentions", "resnets"):
        number, inner, rest = int(words[2]), int(words[4]), "_".join(words[5:])
        side, block = ("input", 1 + number * 3 + inner) if words[0] == "down" else ("output", number * 3 + inner)
        place = 1 if words[3] == "attentions" else 0
        return f"diffusion_model_{side}_blocks_{block}_{place}_{places.get(rest, rest) if place == 0 else rest}"
    if words[:2] == ["mid", "block"]:
        rest = "_".join(words[4:])
        place = 1 if words[2] == "attentions" else int(words[3]) * 2
        return f"diffusion_model_middle_block_{place}_{places.get(rest, rest) if place != 1 else rest}"
    if "downsamplers" in words:
        return f"diffusion_model_input_blocks_{3 + int(words[2]) * 3}_0_op"
    if "upsamplers" in words:
        return f"diffusion_model_output_blocks_{2 + int(words[2]) * 3}_{2 if int(words[2]) else 1}_conv"
    if text.startswith("time_embedding_linear_"):
        return f"diffusion_model_time_embed_{int(words[3]) * 2 - 2}"
    return "diffusion_model_" + {"conv_in": "input_blocks_0_0", "conv_out": "out_2"}.get(text, text)


def test_the_stock_web_ui_finds_every_layer_under_the_name_for_it(case: tuple[UnetShape, torch.nn.Module]) -> None:
    shape, unet = case
    for path, module in unet.named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            expected = "diffusion_model_" + compvis_path(path, shape).replace(".", "_")
            assert stock_lookup(name_for_webui(path, shape)) == expected


def test_sd1_needs_no_other_names_than_kohyas() -> None:
    for path, module in make_unet(SD1_SHAPE).named_modules():
        if isinstance(module, torch.nn.Linear | torch.nn.Conv2d):
            assert name_for_webui(path, SD1_SHAPE) == kohya_name(path, "unet")


def test_the_tiny_models_upsampler_needs_another_name() -> None:
    assert name_for_webui("up_blocks.0.upsamplers.0.conv", SHAPES["tiny"]) == "lora_unet_output_blocks_2_2_conv"


def test_text_encoder_names() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.CLIPTextConfig(
        vocab_size=50, hidden_size=8, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2
    )
    for path, module in transformers.CLIPTextModel(config).named_modules():
        if isinstance(module, torch.nn.Linear):
            for part, towers in (("te", 1), ("te", 2), ("te2", 2)):
                name = kohya_name(path, part, towers=towers)  # type: ignore[arg-type]
                assert split_kohya_name(name) == (part, path)
    assert kohya_name("text_model.encoder.layers.0.mlp.fc1", "te") == "lora_te_text_model_encoder_layers_0_mlp_fc1"


@pytest.mark.parametrize(
    ("key", "part"),
    [
        ("lora_unet_x.alpha", "unet"),
        ("oft_unet_x.oft_blocks", "unet"),
        ("unet.x.lora_A.weight", "unet"),
        ("base_model.model.unet.x", "unet"),
        ("lora_te_x.alpha", "te"),
        ("lora_te1_x.alpha", "te"),
        ("text_encoder.x", "te"),
        ("lora_te2_x.alpha", "te2"),
        ("text_encoder_2.x", "te2"),
        ("text_encoder:0:up", "te"),
        ("something", None),
    ],
)
def test_parts(key: str, part: str | None) -> None:
    assert part_of(key) == part


def test_dots() -> None:
    assert dotted("up_blocks_1_attentions_2_transformer_blocks_0_ff_net_0_proj") == (
        "up_blocks.1.attentions.2.transformer_blocks.0.ff.net.0.proj"
    )


def test_errors_name_the_layer() -> None:
    with pytest.raises(NetworkError, match="'x'"):
        split_kohya_name("x")
    with pytest.raises(NetworkError, match="no compvis counterpart"):
        compvis_path("nothing.here", SD1_SHAPE)
    with pytest.raises(NetworkError, match="has 2 levels"):
        compvis_path("down_blocks.2.resnets.0.conv1", SHAPES["tiny"])
    with pytest.raises(NetworkError, match="no diffusers counterpart"):
        diffusers_path("nothing.here", SD1_SHAPE)
    with pytest.raises(NetworkError, match="give its shape"):
        canonical_name("lora_unet_input_blocks_1_1_proj_in")
    with pytest.raises(NetworkError, match="layers_per_block"):
        UnetShape.from_diffusers_config({"layers_per_block": [1, 2], "down_block_types": []})
    with pytest.raises(NetworkError, match="no diffusers U-Net"):
        UnetShape.from_diffusers_paths(["x"])
    with pytest.raises(NetworkError, match="no compvis U-Net"):
        UnetShape.from_compvis_paths(["x"])


def test_sdxl_has_compvis_names_throughout_as_kohya_writes_them() -> None:
    path = "down_blocks.1.attentions.0.transformer_blocks.1.attn2.to_k"
    assert name_for_webui(path, SDXL_SHAPE) == "lora_unet_input_blocks_4_1_transformer_blocks_1_attn2_to_k"
    assert name_for_webui(path, SD1_SHAPE) == kohya_name(path, "unet")
