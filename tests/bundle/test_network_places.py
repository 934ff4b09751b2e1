"""Layouts are recognised by what they have: no key is taken for kohya's because it is nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lib_pivotal.bundle.network_layouts import is_kohya, to_kohya
from lib_pivotal.bundle.network_places import place_of, recognise
from lib_pivotal.errors import NetworkError

T = "down_blocks.1.attentions.0.transformer_blocks.0"
U = f"lora_unet_{T.replace('.', '_')}"
C = "input_blocks.4.1.transformer_blocks.0"
E = "text_model.encoder.layers.0"
TE = "lora_te_text_model_encoder_layers_0"

KEYS = {
    # kohya-ss/sd-scripts 48d368f, networks/lora.py
    f"{U}_attn1_to_q.lora_down.weight": ("kohya", f"{U}_attn1_to_q.lora_down.weight"),
    f"{TE}_mlp_fc1.alpha": ("kohya", f"{TE}_mlp_fc1.alpha"),
    # kohya-ss/sd-scripts 48d368f, networks/oft.py
    "oft_unet_mid_block_attentions_0_proj_in.oft_blocks": (
        "kohya",
        "oft_unet_mid_block_attentions_0_proj_in.oft_blocks",
    ),
    # KohakuBlueleaf/LyCORIS f49d30d, lycoris/modules/*.py, `weight_list`
    f"{U}_attn1_to_q.hada_w1_a": ("kohya", f"{U}_attn1_to_q.hada_w1_a"),
    f"{U}_attn1_to_q.lokr_w2_b": ("kohya", f"{U}_attn1_to_q.lokr_w2_b"),
    f"{U}_attn1_to_q.bm.weight": ("kohya", f"{U}_attn1_to_q.bm.weight"),
    f"{U}_norm1.w_norm": ("kohya", f"{U}_norm1.w_norm"),
    f"{U}_attn1_to_k.on_input": ("kohya", f"{U}_attn1_to_k.on_input"),
    f"lycoris_{T.replace('.', '_')}_attn1_to_q.lokr_w1": ("lycoris", f"{U}_attn1_to_q.lokr_w1"),
    # Nerogar/OneTrainer 23df383, modules/util/convert_lora_util.py:19-50 (kohya), LoRASaverMixin.py (internal, comfy)
    f"{U}_attn1_to_q.oft_R.weight": ("kohya", f"{U}_attn1_to_q.oft_R.weight"),
    f"{U}_attn1_to_q.oft_R.scaled_oft": ("kohya", f"{U}_attn1_to_q.oft_R.scaled_oft"),
    f"unet.{T}.attn1.to_q.oft_R.weight": ("onetrainer", f"{U}_attn1_to_q.oft_R.weight"),
    f"unet.{T}.attn1.to_q.hada_w2_a": ("onetrainer", f"{U}_attn1_to_q.hada_w2_a"),
    f"unet.{T}.attn1.to_q.lora_up.weight": ("diffusers", f"{U}_attn1_to_q.lora_up.weight"),
    f"unet.{T}.attn1.to_q.dora_scale": ("onetrainer", f"{U}_attn1_to_q.dora_scale"),
    f"diffusion_model.{C}.attn1.to_q.lora_A.weight": (
        "comfyui",
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
    ),
    f"text_encoders.clip_l.transformer.{E}.mlp.fc1.lora_B.weight": ("comfyui", f"{TE}_mlp_fc1.lora_up.weight"),
    f"text_encoders.clip_h.transformer.{E}.mlp.fc1.alpha": ("comfyui", f"{TE}_mlp_fc1.alpha"),
    f"{C}.attn1.to_q.lora_A.weight": (
        "bare",
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q.lora_down.weight",
    ),
    # comfyanonymous/ComfyUI 443393b, comfy_extras/nodes_lora_extract.py
    "diffusion_model.out.2.lora_up.weight": ("comfyui", "lora_unet_out_2.lora_up.weight"),
    "diffusion_model.input_blocks.1.0.in_layers.0.diff": ("comfyui", "lora_unet_input_blocks_1_0_in_layers_0.diff"),
    # huggingface/diffusers: 0.11 save_attn_procs, 0.15-0.17 both, 0.18-0.22, since 0.23 (peft)
    f"{T}.attn1.processor.to_q_lora.down.weight": ("bare", f"{U}_attn1_to_q.lora_down.weight"),
    f"{T}.attn1.processor.to_out_lora.up.weight": ("bare", f"{U}_attn1_to_out_0.lora_up.weight"),
    f"unet.{T}.attn1.processor.to_q_lora.up.weight": ("diffusers", f"{U}_attn1_to_q.lora_up.weight"),
    f"text_encoder.{E}.self_attn.to_out_lora.up.weight": ("diffusers", f"{TE}_self_attn_out_proj.lora_up.weight"),
    f"text_encoder.{E}.self_attn.q_proj.lora_linear_layer.down.weight": (
        "diffusers",
        f"{TE}_self_attn_q_proj.lora_down.weight",
    ),
    f"unet.{T}.attn1.to_q.lora_A.weight": ("diffusers", f"{U}_attn1_to_q.lora_down.weight"),
    # huggingface/peft 0.13, utils/save_and_load.py
    f"base_model.model.{T}.attn1.to_q.lora_A.weight": ("peft", f"{U}_attn1_to_q.lora_down.weight"),
    f"base_model.model.{T}.attn1.to_q.lora_B.default.weight": ("peft", f"{U}_attn1_to_q.lora_up.weight"),
    f"base_model.model.{E}.self_attn.q_proj.lora_A.weight": ("peft", f"{TE}_self_attn_q_proj.lora_down.weight"),
    # scripts that rename half of a key
    f"{U}_attn1_to_q.lora_A.weight": ("mixed", f"{U}_attn1_to_q.lora_down.weight"),
    f"{U}.attn1.to_out.0.lora_B.weight": ("mixed", f"{U}_attn1_to_out_0.lora_up.weight"),
}


@pytest.mark.parametrize("key", KEYS)
def test_every_layout_has_its_place(key: str) -> None:
    layout, expected = KEYS[key]
    place = place_of(key)
    assert place is not None and place.layout == layout
    assert set(to_kohya({key: torch.ones(2, 2)})) == {expected}
    assert is_kohya({key: torch.ones(1)}) == (layout == "kohya")


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "cloneofsimo": ({"unet:0:up": (4, 2), "unet:0:down": (2, 4)}, "layout of cloneofsimo/lora"),
    "numbered": ({"0.attn1.to_q.lora_down.weight": (2, 4)}, "layers are numbered, not named"),
    "an embedding": ({"emb_params": (2, 768)}, "single embedding"),
    "an embedding of SDXL": ({"clip_l": (2, 768), "clip_g": (2, 1280)}, "single embedding"),
    "an embedding with output": ({"emp_params": (2, 768), "emp_params_out": (2, 768)}, "single embedding"),
    "a diffusers concept": ({"<cat-toy>": (768,)}, "single embedding"),
    "a checkpoint": ({"model.diffusion_model.input_blocks.0.0.weight": (4, 4, 3, 3)}, "checkpoint"),
    "a checkpoint's encoder": ({"cond_stage_model.transformer.text_model.final_layer_norm.bias": (4,)}, "checkpoint"),
    "a whole U-Net": ({"down_blocks.0.resnets.0.conv1.weight": (4, 4, 3, 3)}, "full weights"),
    "Flux": ({"transformer.transformer_blocks.0.attn.to_q.lora_A.weight": (2, 4)}, "another kind of model"),
    "SD3": ({"diffusion_model.joint_blocks.0.x_block.attn.qkv.lora_A.weight": (2, 4)}, "another kind of model"),
    "an ending that nobody has": ({"lora_unet_mid_block_attentions_0_proj_in.new_kind": (2,)}, "no LoRA in diffusers'"),
    "a beginning that nobody has": ({"vae.decoder.x.lora_A.weight": (2, 4)}, "no LoRA in diffusers'"),
    "lora_ alone": ({"lora_stuff.alpha": ()}, "lora_stuff.alpha"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_has_no_place_is_refused_by_name(name: str) -> None:
    shapes, told = REFUSED[name]
    network: dict[str, Tensor] = {key: torch.ones(shape) for key, shape in shapes.items()}
    assert told in recognise(network).refusal
    assert not is_kohya(network)
    with pytest.raises(NetworkError, match=next(iter(network)).replace("<", ".")[:20]):
        to_kohya(network)


def test_the_same_layer_twice_is_refused() -> None:
    keys = (f"unet.{T}.attn1.to_q.lora_A.weight", f"{U}_attn1_to_q.lora_down.weight")
    with pytest.raises(NetworkError, match="twice"):
        to_kohya({key: torch.ones(2, 2) for key in keys})


def test_one_foreign_key_does_not_change_the_others() -> None:
    kohya = {f"{U}_attn1_to_k.{suffix}": torch.ones(2, 2) for suffix in ("lora_down.weight", "lora_up.weight")}
    found = to_kohya({**kohya, f"unet.{T}.attn1.to_q.lora_A.weight": torch.ones(2, 2)})
    assert all(found[key] is tensor for key, tensor in kohya.items()) and len(found) == 3
