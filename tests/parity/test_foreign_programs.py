"""Files as other programs save them, by their own savers where those can be installed, and what becomes of them here.

Savers followed where the program is no test dependency: the permalinks stand at each test.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from lib_pivotal.bundle.edits import convert, join, rename_embeddings, strip
from lib_pivotal.bundle.hashes import data_hash
from lib_pivotal.bundle.layer_names import SDXL_SHAPE, UnetShape, compvis_path, kohya_name
from lib_pivotal.bundle.listing import list_bundle
from lib_pivotal.bundle.network_layouts import group_layers, lora_scale
from lib_pivotal.bundle.reader import read_bundle
from lib_pivotal.bundle.verify import verify
from lib_pivotal.bundle.writer import write_bundle

diffusers = pytest.importorskip("diffusers")
peft = pytest.importorskip("peft")

SHAPE = UnetShape(1, (True, True))


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    torch.manual_seed(0)
    return diffusers.UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        layers_per_block=1,
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=16,
        attention_head_dim=4,
        norm_num_groups=4,
    ).eval()


def run(unet: nn.Module) -> Tensor:
    g = torch.Generator().manual_seed(3)
    x, context = torch.randn(2, 4, 8, 8, generator=g), torch.randn(2, 7, 16, generator=g)
    with torch.no_grad():
        return unet(x, torch.tensor([10, 700]), context).sample


def merged(unet: nn.Module, network: dict[str, Tensor]) -> nn.Module:
    """The web UI's arithmetic by hand: W + alpha / rank · up · down; with dora_scale a row, brought to that norm."""
    model, layers = copy.deepcopy(unet), group_layers(network)
    used = set()
    for path, module in model.named_modules():
        name = kohya_name(path, "unet")
        layer = layers.get(name)
        if layer is None:
            continue
        used.add(name)
        up, down = layer["lora_up.weight"].flatten(1), layer["lora_down.weight"].flatten(1)
        weight = module.weight.data + (lora_scale(layer) * up @ down).reshape(module.weight.shape)
        if "dora_scale" in layer:
            norm = weight.flatten(1).norm(dim=1).reshape(-1, *[1] * (weight.dim() - 1))
            weight = weight / norm * layer["dora_scale"].reshape(-1, *[1] * (weight.dim() - 1))
        module.weight.data = weight
    assert used == set(layers), "a layer of the file has no module"
    return model


def adapted(unet: nn.Module, *, dora: bool = False, rank: int = 4, alpha: float = 2.0, **more: object) -> nn.Module:
    """peft's own adapter on linear layers and on convolutions, with weights that have an effect."""
    config = peft.LoraConfig(
        r=rank,
        lora_alpha=alpha,
        target_modules=["to_q", "to_v", "to_out.0", "proj_in", "conv1", "conv_shortcut", "conv"],
        use_dora=dora,
        **more,
    )
    torch.manual_seed(1)
    model = peft.get_peft_model(copy.deepcopy(unet), config)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
        elif "lora_magnitude" in name:
            parameter.data *= 1.3
    return model.eval()


@pytest.mark.parametrize("dora", [False, True])
def test_pefts_own_folder_has_the_same_effect(unet: nn.Module, dora: bool, tmp_path: Path) -> None:
    """peft keeps alpha in adapter_config.json, a layer's own in alpha_pattern, and magnitudes of convolutions 4-D."""
    patterns = {"alpha_pattern": {"to_v": 6.0}, "rank_pattern": {"to_q": 2}}
    model = adapted(unet, dora=dora, **patterns)
    expected = run(model.base_model.model)
    model.save_pretrained(str(tmp_path / "peft"))
    out = convert(tmp_path / "peft" / "adapter_model.safetensors", tmp_path / "k.safetensors", layout="kohya")
    assert torch.allclose(run(merged(unet, read_bundle(out).network)), expected, atol=1e-4)
    assert not torch.allclose(run(unet), expected, atol=1e-2)


def test_rank_stabilised_lora_has_the_same_effect(unet: nn.Module, tmp_path: Path) -> None:
    model = adapted(unet, use_rslora=True)
    model.save_pretrained(str(tmp_path / "peft"))
    out = convert(tmp_path / "peft" / "adapter_model.safetensors", tmp_path / "k.safetensors", layout="kohya")
    assert torch.allclose(run(merged(unet, read_bundle(out).network)), run(model.base_model.model), atol=1e-4)


@pytest.mark.parametrize("dora", [False, True])
@pytest.mark.parametrize("layout", ["peft", "diffusers"])
def test_peft_loads_what_we_write_for_it(unet: nn.Module, layout: str, dora: bool, tmp_path: Path) -> None:
    """DoRA by row on convolutions too: peft refuses a magnitude that is not [1, out, 1, 1]."""
    adapted(unet, dora=dora).save_pretrained(str(tmp_path / "first"))
    kohya = convert(tmp_path / "first" / "adapter_model.safetensors", tmp_path / "k.safetensors", layout="kohya")
    expected = run(merged(unet, read_bundle(kohya).network))
    if layout == "peft":
        folder = convert(kohya, tmp_path / "again", layout="peft", shape=SHAPE) / "unet"
        again = peft.PeftModel.from_pretrained(copy.deepcopy(unet), str(folder))
        assert torch.allclose(run(again.base_model.model), expected, atol=1e-4)
    else:
        file = convert(kohya, tmp_path / "d.safetensors", layout="diffusers", shape=SHAPE)
        loaded = {k.removeprefix("unet."): v for k, v in safetensors.torch.load_file(file).items()}
        model = adapted(unet, dora=dora, alpha=4.0)
        found = peft.set_peft_model_state_dict(model, {f"base_model.model.{k}": v for k, v in loaded.items()})
        assert not found.unexpected_keys
        assert torch.allclose(run(model.base_model.model), expected, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
@pytest.mark.parametrize("alpha", ["as wide", "wider", "none"])
def test_our_peft_comes_back_bit_for_bit(dtype: torch.dtype, alpha: str, tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    network: dict[str, Tensor] = {}
    paths = {
        "lora_unet_mid_block_attentions_0_proj_in": (32, 32, 1, 1),
        "lora_te1_text_model_encoder_layers_0_self_attn_q_proj": (768, 768),
        "lora_te2_text_model_encoder_layers_0_self_attn_q_proj": (1280, 1280),
        "lora_te2_text_model_encoder_layers_0_mlp_fc1": (1280, 1280),
    }
    for index, (name, (out, into, *kernel)) in enumerate(paths.items()):
        rank = 3 + index
        network[f"{name}.lora_down.weight"] = torch.randn(rank, into, *kernel, generator=g).to(dtype)
        network[f"{name}.lora_up.weight"] = torch.randn(out, rank, *kernel, generator=g).to(dtype)
        if alpha != "none":
            network[f"{name}.alpha"] = torch.tensor(1.5, dtype=dtype if alpha == "as wide" else torch.float64)
    meta = {"ss_base_model_version": "sdxl_base_v1-0"}
    file = write_bundle(tmp_path / "b.safetensors", network=network, embeddings={}, metadata=meta, dtype=None)
    folder = convert(file, tmp_path / "peft", layout="peft")
    back: dict[str, Tensor] = {}
    for model in ("unet", "text_encoder", "text_encoder_2"):
        there = folder / model / "adapter_model.safetensors"
        moved = (
            tmp_path / f"moved-{model}" / "adapter_model.safetensors"
        )  # the folder's name is no longer there to help
        moved.parent.mkdir()
        for name in ("adapter_model.safetensors", "adapter_config.json"):
            moved.with_name(name).write_bytes(there.with_name(name).read_bytes())
        back |= read_bundle(convert(moved, tmp_path / f"{model}.safetensors", layout="kohya")).network
    named = {
        key.replace("lora_unet_mid_block_attentions_0_proj_in", "lora_unet_middle_block_1_proj_in"): tensor
        for key, tensor in network.items()
    }
    assert set(back) == set(named)
    assert all(back[key].dtype == named[key].dtype and torch.equal(back[key], named[key]) for key in named)


def diffusers_file(model: nn.Module, path: Path) -> Path:
    """huggingface/diffusers 58eb52c, loaders/lora_base.py:1025-1109 and training_utils.py:357-362.

    `save_lora_weights(..., unet_lora_adapter_metadata=peft_config.to_dict())`: the version tested against here has no
    such argument yet, so the metadata is packed as the newer one does; the tensors are this version's own.
    """
    tensors = peft.get_peft_model_state_dict(model)
    plain = {f"unet.{key.removeprefix('base_model.model.')}": value.contiguous() for key, value in tensors.items()}
    config = model.peft_config["default"].to_dict()
    told = {f"unet.{key}": list(value) if isinstance(value, set) else value for key, value in config.items()}
    metadata = {"format": "pt", "lora_adapter_metadata": json.dumps(told, indent=2, sort_keys=True)}
    safetensors.torch.save_file(plain, path, metadata)
    return path


@pytest.mark.parametrize("dora", [False, True])
def test_alpha_in_diffusers_metadata_is_not_lost(unet: nn.Module, dora: bool, tmp_path: Path) -> None:
    model = adapted(unet, dora=dora, rank=8, alpha=2.0)
    file = diffusers_file(model, tmp_path / "pytorch_lora_weights.safetensors")
    expected = run(model.base_model.model)
    out = convert(file, tmp_path / "k.safetensors", layout="kohya")
    assert torch.allclose(run(merged(unet, read_bundle(out).network)), expected, atol=1e-4)
    assert "lora_adapter_metadata" not in read_bundle(out).metadata
    again = convert(file, tmp_path / "d.safetensors", layout="diffusers")
    assert "lora_adapter_metadata" not in read_bundle(again).metadata, "its alphas are in the tensors now"
    back = convert(again, tmp_path / "kk.safetensors", layout="kohya")
    assert torch.allclose(run(merged(unet, read_bundle(back).network)), expected, atol=1e-4)


def test_diffusers_metadata_goes_with_what_it_is_about(unet: nn.Module, tmp_path: Path) -> None:
    file = diffusers_file(adapted(unet), tmp_path / "d.safetensors")
    text = {
        f"text_encoder.text_model.encoder.layers.0.self_attn.q_proj.lora_{x}.weight": torch.ones(2, 2) for x in "AB"
    }
    bundle = read_bundle(file)
    told = json.loads(bundle.metadata["lora_adapter_metadata"]) | {"text_encoder.r": 2, "text_encoder.lora_alpha": 1}
    safetensors.torch.save_file({**bundle.network, **text}, file, {"lora_adapter_metadata": json.dumps(told)})
    stripped = read_bundle(strip(file, ["te"], out=tmp_path / "s.safetensors"))
    left = json.loads(stripped.metadata["lora_adapter_metadata"])
    assert left["unet.lora_alpha"] == 2.0 and not any(key.startswith("text_encoder") for key in left)
    assert not any(key.startswith("text_encoder") for key in stripped.network)
    out = read_bundle(convert(file, tmp_path / "k.safetensors", layout="kohya")).network
    assert float(out["lora_te_text_model_encoder_layers_0_self_attn_q_proj.alpha"]) == 1.0


def lora(names: dict[str, tuple[int, ...]], *, tails: tuple[str, str], seed: int = 0) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(seed)
    tensors: dict[str, Tensor] = {}
    for name, (out, into, *kernel) in names.items():
        tensors[f"{name}.{tails[0]}"] = torch.randn(4, into, *kernel, generator=g).half()
        tensors[f"{name}.{tails[1]}"] = torch.randn(out, 4, *[1] * len(kernel), generator=g).half()
    return tensors


PEFT_TAILS, KOHYA_TAILS = ("lora_A.weight", "lora_B.weight"), ("lora_down.weight", "lora_up.weight")
SDXL_LAYERS: dict[str, tuple[int, ...]] = {
    "up_blocks.0.upsamplers.0.conv": (1280, 1280, 3, 3),
    "down_blocks.1.downsamplers.0.conv": (640, 640, 3, 3),
    "down_blocks.2.attentions.1.transformer_blocks.9.attn2.to_k": (1280, 2048),
    "mid_block.attentions.0.proj_in": (1280, 1280),
    "add_embedding.linear_1": (1280, 2816),
    "conv_out": (4, 320, 3, 3),
}


def test_an_sdxl_file_of_diffusers_gets_the_names_of_kohyas_sdxl(tmp_path: Path) -> None:
    """Stock v1.10.1 does not find lora_unet_up_blocks_0_upsamplers_0_conv: kohya names SDXL's layers by compvis."""
    layers = lora({f"unet.{path}": shape for path, shape in SDXL_LAYERS.items()}, tails=PEFT_TAILS)
    safetensors.torch.save_file(layers, tmp_path / "d.safetensors")
    out = read_bundle(convert(tmp_path / "d.safetensors", tmp_path / "k.safetensors", layout="kohya")).network
    assert set(group_layers(out)) == {kohya_name(compvis_path(path, SDXL_SHAPE), "unet") for path in SDXL_LAYERS}
    assert "lora_unet_output_blocks_2_2_conv" in group_layers(out)
    # OneTrainer's LEGACY format of SDXL, convert_lora_util.py:98-121: kohya's layout with diffusers' names
    named = {kohya_name(path, "unet"): shape for path, shape in SDXL_LAYERS.items()}
    safetensors.torch.save_file(lora(named, tails=KOHYA_TAILS), tmp_path / "legacy.safetensors")
    legacy = convert(tmp_path / "legacy.safetensors", tmp_path / "l.safetensors", layout="kohya")
    assert set(group_layers(read_bundle(legacy).network)) == set(group_layers(out))


COMFY: dict[str, tuple[int, ...]] = {
    "diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k": (640, 768),
    "diffusion_model.output_blocks.2.1.conv": (1280, 1280, 3, 3),
    "diffusion_model.time_embed.0": (1280, 320),
    "text_encoders.clip_l.transformer.text_model.encoder.layers.3.mlp.fc1": (3072, 768),
}


@pytest.mark.parametrize("tails", [KOHYA_TAILS, PEFT_TAILS])
def test_comfyuis_layout(tails: tuple[str, str], tmp_path: Path) -> None:
    """ComfyUI 443393b, comfy_extras/nodes_lora_extract.py (LoraSave); OneTrainer 23df383, LoRASaverMixin.py."""
    path = tmp_path / "c.safetensors"
    tensors = lora(COMFY, tails=tails)
    alpha = {f"{name}.alpha": torch.tensor(2.0).half() for name in COMFY} if tails == PEFT_TAILS else {}
    norm = {"diffusion_model.input_blocks.1.0.in_layers.0.diff": torch.ones(320).half()}
    safetensors.torch.save_file({**tensors, **alpha, **norm}, path)
    assert list_bundle(path).parts == ("unet", "te") and list_bundle(path).family == "sd1"
    (problem,) = [problem for problem in verify(path) if "layout" in problem.what]
    assert "ComfyUI's" in problem.what and problem.remedy == "Convert it to kohya's."
    without = read_bundle(strip(path, ["te"], out=tmp_path / "s.safetensors")).network
    assert without and not any("text_encoders" in key for key in without)
    out = read_bundle(convert(path, tmp_path / "k.safetensors", layout="kohya")).network
    layers = group_layers(out)
    assert set(layers) == {
        "lora_unet_down_blocks_1_attentions_0_transformer_blocks_0_attn2_to_k",
        "lora_unet_up_blocks_0_upsamplers_0_conv",
        "lora_unet_time_embedding_linear_1",
        "lora_te_text_model_encoder_layers_3_mlp_fc1",
        "lora_unet_down_blocks_0_resnets_0_norm1",
    }
    name = "text_encoders.clip_l.transformer.text_model.encoder.layers.3.mlp.fc1"
    layer = layers["lora_te_text_model_encoder_layers_3_mlp_fc1"]
    assert torch.equal(layer["lora_up.weight"], tensors[f"{name}.{tails[1]}"])
    assert float(layer["alpha"]) == (2.0 if alpha else 4.0)


def test_onetrainers_backup(tmp_path: Path) -> None:
    """OneTrainer 23df383, LoRASaverMixin.py, _save_internal: dotted names, kohya's endings; LoHa and OFT too."""
    stem = "unet.down_blocks.1.attentions.0.transformer_blocks.0.attn1"
    tensors = lora({f"{stem}.to_q": (640, 640)}, tails=KOHYA_TAILS)
    tensors |= {f"{stem}.to_q.alpha": torch.tensor(1.0).half(), f"{stem}.to_k.oft_R.weight": torch.ones(2, 3).half()}
    tensors |= {f"{stem}.to_q.dora_scale": torch.ones(1, 640).half()}
    safetensors.torch.save_file(tensors, tmp_path / "lora.safetensors")
    assert "oft" in list_bundle(tmp_path / "lora.safetensors").algorithms
    out = read_bundle(convert(tmp_path / "lora.safetensors", tmp_path / "k.safetensors", layout="kohya")).network
    flat = {key.replace("unet.", "lora_unet_", 1): tensor for key, tensor in tensors.items()}
    expected = {}
    for key, tensor in flat.items():
        name, _, suffix = key.partition(".attn1.")
        layer, _, suffix = suffix.partition(".")
        expected[f"{name.replace('.', '_')}_attn1_{layer}.{suffix}"] = tensor
    assert set(out) == set(expected) and all(torch.equal(out[key], expected[key]) for key in out)


@pytest.mark.parametrize("kind", ["oft", "diffusers", "comfyui", "loha"])
def test_embeddings_are_joined_to_a_network_of_any_kind(kind: str, tmp_path: Path) -> None:
    name = "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q"
    kohya = f"lora_unet_{name.replace('.', '_')}"
    tensors = {
        "oft": {f"oft_{kohya[5:]}.oft_blocks": torch.ones(2, 2, 2), f"oft_{kohya[5:]}.alpha": torch.tensor(1.0)},
        "diffusers": lora({f"unet.{name}": (640, 640)}, tails=PEFT_TAILS),
        "comfyui": lora({"diffusion_model.middle_block.1.proj_in": (1280, 1280)}, tails=KOHYA_TAILS),
        "loha": {f"{kohya}.hada_w{i}_{x}": torch.ones(2, 2) for i in (1, 2) for x in "ab"},
    }[kind]
    safetensors.torch.save_file(tensors, tmp_path / "network.safetensors")
    embeddings = {"kira": (torch.ones(2, 768),)}
    write_bundle(tmp_path / "words.safetensors", network={}, embeddings=embeddings, metadata={})
    for order in (("network", "words"), ("words", "network")):
        files = [tmp_path / f"{name}.safetensors" for name in order]
        joined = read_bundle(join(files, tmp_path / "j.safetensors", overwrite=True))
        assert set(joined.embeddings) == {"kira"} and joined.network
        assert not [problem for problem in verify(tmp_path / "j.safetensors") if "layout" in problem.what]


def test_a_stale_hash_of_modelspec_is_set_right(tmp_path: Path) -> None:
    embeddings = {"kira": (torch.ones(2, 768),)}
    stale = {"modelspec.hash_sha256": "0x" + "0" * 64, "ss_v2": "False"}
    path = write_bundle(tmp_path / "b.safetensors", network={}, embeddings=embeddings, metadata=stale)
    for file in (path, rename_embeddings(path, {"kira": "mira"}, out=tmp_path / "r.safetensors")):
        assert read_bundle(file).metadata["modelspec.hash_sha256"] == f"0x{data_hash(file)}"


def lycoris_file(unet: nn.Module, path: Path, algo: str) -> Path:
    """By LyCORIS' own network and saver, as kohya's scripts call them (lycoris/kohya.py, create_network)."""
    kohya = pytest.importorskip("lycoris.kohya", reason="lycoris-lora is not installed")
    torch.manual_seed(0)
    sizes = {"conv_dim": 4, "conv_alpha": 1, "preset": "attn-mlp"}
    network = kohya.create_network(1.0, 4, 2.0, None, [], copy.deepcopy(unet), algo=algo, **sizes)
    network.apply_to([], copy.deepcopy(unet), False, True)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    network.save_weights(str(path), torch.float16, {"ss_network_module": "lycoris.kohya"})
    return path


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("algo", ["lora", "loha", "lokr", "full", "diag-oft", "boft", "glora", "ia3"])
def test_lycoris_files_are_sound_and_stay_as_they_are(unet: nn.Module, algo: str, tmp_path: Path) -> None:
    path = lycoris_file(unet, tmp_path / f"{algo}.safetensors", algo)
    problems = verify(path)
    assert not [problem for problem in problems if problem.severity == "error"], list(map(str, problems))
    assert not any("damaged" in problem.what for problem in problems)
    before = read_bundle(path)
    assert before.metadata["sshs_model_hash"].startswith("0x") and before.network
    after = read_bundle(convert(path, tmp_path / "k.safetensors", layout="kohya"))
    assert all(torch.equal(after.network[key], tensor) for key, tensor in before.network.items())
    assert verify(tmp_path / "k.safetensors") == []
