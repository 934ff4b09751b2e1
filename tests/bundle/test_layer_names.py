"""Layer names against real models: diffusers' U-Nets, its own reading of compvis files, transformers' CLIP."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from lib_pivotal.bundle.layer_names import (
    SD1_SHAPE,
    SDXL_SHAPE,
    UnetShape,
    canonical_name,
    checkpoint_shape,
    compvis_path,
    diffusers_path,
    dotted,
    kohya_name,
    name_for_webui,
    part_of,
    split_kohya_name,
)
from lib_pivotal.bundle.network_layouts import for_webui, group_layers
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError, NetworkError
from lib_pivotal.standalone.cli import main
from tests.standalone.openclip_names import OpenClipLayer, to_openclip, to_transformers

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
    embeddings = name.removeprefix("lora_unet_").split("_")
    places = {
        "conv1": "in_layers_2",
        "conv2": "out_layers_3",
        "time_emb_proj": "emb_layers_1",
        "conv_shortcut": "skip_connection",
    }
    text = "_".join(embeddings)
    if embeddings[0] in ("down", "up") and embeddings[1] == "blocks" and embeddings[3] in ("attentions", "resnets"):
        number, inner, rest = int(embeddings[2]), int(embeddings[4]), "_".join(embeddings[5:])
        side, block = ("input", 1 + number * 3 + inner) if embeddings[0] == "down" else ("output", number * 3 + inner)
        place = 1 if embeddings[3] == "attentions" else 0
        return f"diffusion_model_{side}_blocks_{block}_{place}_{places.get(rest, rest) if place == 0 else rest}"
    if embeddings[:2] == ["mid", "block"]:
        rest = "_".join(embeddings[4:])
        place = 1 if embeddings[2] == "attentions" else int(embeddings[3]) * 2
        return f"diffusion_model_middle_block_{place}_{places.get(rest, rest) if place != 1 else rest}"
    if "downsamplers" in embeddings:
        return f"diffusion_model_input_blocks_{3 + int(embeddings[2]) * 3}_0_op"
    if "upsamplers" in embeddings:
        return f"diffusion_model_output_blocks_{2 + int(embeddings[2]) * 3}_{2 if int(embeddings[2]) else 1}_conv"
    if text.startswith("time_embedding_linear_"):
        return f"diffusion_model_time_embed_{int(embeddings[3]) * 2 - 2}"
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


HEAD = "text_model.encoder.layers.7."


@pytest.mark.parametrize(
    ("path", "layer"),
    [
        ("self_attn.q_proj", OpenClipLayer("transformer.resblocks.7.attn", 0)),
        ("self_attn.k_proj", OpenClipLayer("transformer.resblocks.7.attn", 1)),
        ("self_attn.v_proj", OpenClipLayer("transformer.resblocks.7.attn", 2)),
        ("self_attn.out_proj", OpenClipLayer("transformer.resblocks.7.attn.out_proj")),
        ("mlp.fc1", OpenClipLayer("transformer.resblocks.7.mlp.c_fc")),
        ("mlp.fc2", OpenClipLayer("transformer.resblocks.7.mlp.c_proj")),
        ("layer_norm1", OpenClipLayer("transformer.resblocks.7.ln_1")),
    ],
)
def test_both_ways(path: str, layer: OpenClipLayer) -> None:
    assert to_openclip(HEAD + path) == layer
    assert to_transformers(layer) == HEAD + path


def test_unknown_layers() -> None:
    with pytest.raises(NetworkError, match="no OpenCLIP counterpart"):
        to_openclip("text_projection")
    with pytest.raises(NetworkError, match="no transformers counterpart"):
        to_transformers(OpenClipLayer("transformer.resblocks.7.mlp.gelu"))


SHAPE = UnetShape(1, (True, True))


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    )


def layers_of(unet: nn.Module) -> dict[str, nn.Module]:
    return {path: module for path, module in unet.named_modules() if isinstance(module, nn.Linear | nn.Conv2d)}


@pytest.fixture
def bundle(unet: nn.Module, tmp_path: Path) -> Path:
    """As a run writes it: under the names by which the stock web UI finds this U-Net's layers."""
    network: dict[str, Tensor] = {}
    for path, module in layers_of(unet).items():
        out, into, *kernel = module.weight.shape  # type: ignore[union-attr, misc]
        network[f"{kohya_name(path, 'unet')}.lora_down.weight"] = torch.ones(2, into, *kernel)
        network[f"{kohya_name(path, 'unet')}.lora_up.weight"] = torch.ones(out, 2, *[1] * len(kernel))
    embeddings = {"aoi": (torch.ones(1, 16),)}
    metadata = {"ss_base_model_version": "sd_v1", "ss_v2": "False"}
    return write_bundle(
        tmp_path / "b.safetensors", network=for_webui(network, SHAPE), embeddings=embeddings, metadata=metadata
    )


@pytest.fixture(params=["checkpoint", "U-Net", "folder"])
def told(request: pytest.FixtureRequest, unet: nn.Module, tmp_path: Path) -> Path:
    weights = {key: tensor.contiguous() for key, tensor in unet.state_dict().items()}
    if request.param == "folder":
        unet.save_pretrained(tmp_path / "model" / "unet")  # type: ignore[operator]
        return tmp_path / "model"
    if request.param == "checkpoint":
        weights = {f"model.diffusion_model.{compvis_path(key, SHAPE)}": tensor for key, tensor in weights.items()}
    safetensors.torch.save_file(weights, tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_shape_is_read_from_names_alone(told: Path) -> None:
    assert checkpoint_shape(told) == SHAPE != SD1_SHAPE


@pytest.mark.parametrize("layout", ["diffusers", "peft"])
def test_every_layer_goes_where_the_checkpoint_has_it(
    layout: str, told: Path, bundle: Path, unet: nn.Module, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / ("out" if layout == "peft" else "out.safetensors")
    command = ["bundle", "convert", str(bundle), "--layout", layout, "--out", str(out)]
    assert main(command) == 2
    assert "--checkpoint FILE" in capsys.readouterr().err and not out.exists()
    assert main([*command, "--checkpoint", str(told)]) == 0
    file = out if layout == "diffusers" else out / "unet" / "adapter_model.safetensors"
    found = {key.rpartition(".lora_")[0] for key in read_bundle(file).network}
    prefix = "unet." if layout == "diffusers" else "base_model.model."
    assert found == {prefix + path for path in layers_of(unet)}


def test_to_kohya_and_back_with_the_checkpoint(told: Path, bundle: Path, tmp_path: Path) -> None:
    names = set(group_layers(read_bundle(bundle).network))
    for layout, file in (("diffusers", "d.safetensors"), ("kohya", "k.safetensors")):
        source = bundle if layout == "diffusers" else tmp_path / "d.safetensors"
        arguments = ["--layout", layout, "--out", str(tmp_path / file), "--checkpoint", str(told)]
        assert main(["bundle", "convert", str(source), *arguments]) == 0
    assert set(group_layers(read_bundle(tmp_path / "k.safetensors").network)) == names


def test_what_is_no_checkpoint(bundle: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "config.json").write_text(json.dumps({"layers_per_block": [1, 2]}))
    for path, reason in (
        (bundle, "no U-Net"),
        (tmp_path / "none.safetensors", "cannot be opened"),
        (tmp_path / "empty", r"no unet/config\.json"),
        (tmp_path / "bad", "only one number for all levels"),
    ):
        with pytest.raises(BundleError, match=reason):
            checkpoint_shape(path)
