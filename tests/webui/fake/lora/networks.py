"""Lora's networks: listed, read, merged into the layers. Of the kinds of networks the fake knows LoRA."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import network
import network_lora
import torch
from modules import devices, errors, sd_hijack, sd_models, shared
from modules.textual_inversion import textual_inversion
from torch import nn

logger = logging.getLogger(__name__)

module_types = [network_lora.ModuleTypeLora()]
originals: Any = None
extra_network_lora: Any = None
available_networks: dict[str, network.NetworkOnDisk] = {}
available_network_aliases: dict[str, network.NetworkOnDisk] = {}
loaded_networks: list[network.Network] = []
networks_in_memory: dict[str, network.Network] = {}
available_network_hash_lookup: dict[str, network.NetworkOnDisk] = {}
forbidden_network_aliases: dict[str, int] = {}

re_x_proj = re.compile(r"(.*)_([qkv]_proj)$")
_RESNETS = {
    "conv1": "in_layers_2",
    "conv2": "out_layers_3",
    "norm1": "in_layers_0",
    "norm2": "out_layers_0",
    "time_emb_proj": "emb_layers_1",
    "conv_shortcut": "skip_connection",
}
_KINDS = {"attentions": 1, "resnets": 0}


def convert_diffusers_name_to_compvis(key: str, is_sd2: bool) -> str:
    """diffusers' names of SD1's blocks, three a level, as ldm's; other keys as they are."""
    if match := re.match(r"lora_unet_conv_in(.*)", key):
        return f"diffusion_model_input_blocks_0_0{match[1]}"
    if match := re.match(r"lora_unet_conv_out(.*)", key):
        return f"diffusion_model_out_2{match[1]}"
    if match := re.match(r"lora_unet_time_embedding_linear_(\d+)(.*)", key):
        return f"diffusion_model_time_embed_{int(match[1]) * 2 - 2}{match[2]}"
    if match := re.match(r"lora_unet_down_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", key):
        block = 1 + int(match[1]) * 3 + int(match[3])
        return f"diffusion_model_input_blocks_{block}_{_KINDS[match[2]]}_{_suffix(match[2], match[4])}"
    if match := re.match(r"lora_unet_mid_block_(attentions|resnets)_(\d+)_(.+)", key):
        place = 1 if match[1] == "attentions" else int(match[2]) * 2
        return f"diffusion_model_middle_block_{place}_{_suffix(match[1], match[3])}"
    if match := re.match(r"lora_unet_up_blocks_(\d+)_(attentions|resnets)_(\d+)_(.+)", key):
        block = int(match[1]) * 3 + int(match[3])
        return f"diffusion_model_output_blocks_{block}_{_KINDS[match[2]]}_{_suffix(match[2], match[4])}"
    if match := re.match(r"lora_unet_down_blocks_(\d+)_downsamplers_0_conv", key):
        return f"diffusion_model_input_blocks_{3 + int(match[1]) * 3}_0_op"
    if match := re.match(r"lora_unet_up_blocks_(\d+)_upsamplers_0_conv", key):
        return f"diffusion_model_output_blocks_{2 + int(match[1]) * 3}_{2 if int(match[1]) > 0 else 1}_conv"
    if match := re.match(r"lora_te(2?)_text_model_encoder_layers_(\d+)_(.+)", key):
        if not match[1] and not is_sd2:
            return f"transformer_text_model_encoder_layers_{match[2]}_{match[3]}"
        rest = match[3].replace("mlp_fc1", "mlp_c_fc").replace("mlp_fc2", "mlp_c_proj").replace("self_attn", "attn")
        return f"{'1_' if match[1] else ''}model_transformer_resblocks_{match[2]}_{rest}"
    return key


def _suffix(kind: str, rest: str) -> str:
    return _RESNETS.get(rest, rest) if kind == "resnets" else rest


def assign_network_names_to_compvis_modules(sd_model: Any) -> None:
    """For `on_model_loaded`: every module by its name with underscores."""
    mapping: dict[str, nn.Module] = {}
    model = shared.sd_model
    if model.is_sdxl:
        towers = [(f"{n}_", e.wrapped) for n, e in enumerate(model.conditioner.embedders) if hasattr(e, "wrapped")]
    else:
        towers = [("", getattr(model.cond_stage_model, "wrapped", model.cond_stage_model))]
    for prefix, root in [*towers, ("", model.model)]:
        for name, module in root.named_modules():
            module.network_layer_name = prefix + name.replace(".", "_")
            mapping[module.network_layer_name] = module
    sd_model.network_layer_mapping = mapping


class BundledTIHash(str):
    """The LoRA's name where an embedding's hash is asked for."""

    def __init__(self, hash_str: str) -> None:
        self.hash = hash_str

    def __str__(self) -> str:
        return self.hash if shared.opts.lora_bundled_ti_to_infotext else ""


def _layer(key: str, mapping: dict[str, nn.Module], is_sd2: bool) -> tuple[str, nn.Module | None]:
    found = convert_diffusers_name_to_compvis(key, is_sd2)
    layer = mapping.get(found)
    if layer is None and (match := re_x_proj.match(found)):
        layer = mapping.get(match[1])
    if layer is None and "lora_unet" in key:
        found = key.replace("lora_unet", "diffusion_model")
        layer = mapping.get(found)
    elif layer is None and "lora_te1_text_model" in key:
        found = key.replace("lora_te1_text_model", "0_transformer_text_model")
        layer = mapping.get(found)
    return found, layer


def load_network(name: str, network_on_disk: network.NetworkOnDisk) -> network.Network:
    """Network and words in one go: an odd word costs the whole file."""
    net = network.Network(name, network_on_disk)
    net.mtime = Path(network_on_disk.filename).stat().st_mtime
    tensors = sd_models.read_state_dict(network_on_disk.filename)
    if not hasattr(shared.sd_model, "network_layer_mapping"):
        assign_network_names_to_compvis_modules(shared.sd_model)
    mapping = shared.sd_model.network_layer_mapping
    matched: dict[str, network.NetworkWeights] = {}
    bundled: dict[str, dict[str, Any]] = {}
    for full, weight in tensors.items():
        key, _, part = full.partition(".")
        if key == "bundle_emb":
            word, vector = part.split(".", 1)
            data = bundled.setdefault(word, {})
            if vector.split(".")[0] == "string_to_param":
                data["string_to_param"] = {vector.split(".", 1)[1]: weight}
            else:
                data[vector] = weight
        found, layer = _layer(key, mapping, "model_transformer_resblocks" in mapping)
        if layer is not None:
            weights = matched.setdefault(found, network.NetworkWeights(full, found, {}, layer))
            weights.w[part] = weight
    for found, weights in matched.items():
        module = next((made for kind in module_types if (made := kind.create_module(net, weights)) is not None), None)
        if module is None:
            raise AssertionError(f"Could not find a module type that would accept those keys: {', '.join(weights.w)}")
        net.modules[found] = module
    for word, data in bundled.items():
        filename = f"{network_on_disk.filename}/{word}"
        embedding = textual_inversion.create_embedding_from_data(data, word, filename=filename)
        embedding.loaded = None
        embedding.shorthash = BundledTIHash(name)
        net.bundle_embeddings[word] = embedding
    return net


def purge_networks_from_memory() -> None:
    while len(networks_in_memory) > shared.opts.lora_in_memory_limit and networks_in_memory:
        networks_in_memory.pop(next(iter(networks_in_memory)))
    devices.torch_gc()


def _on_disk(name: str) -> network.NetworkOnDisk | None:
    listing = available_networks if name.lower() in forbidden_network_aliases else available_network_aliases
    return listing.get(name)


def load_networks(
    names: Sequence[str],
    te_multipliers: Sequence[float] | None = None,
    unet_multipliers: Sequence[float] | None = None,
    dyn_dims: Sequence[Any] | None = None,
) -> None:
    """Exactly these are loaded afterwards; files are read again only for a newer time stamp."""
    database = sd_hijack.model_hijack.embedding_db
    already = {net.name: net for net in loaded_networks if net.name in names}
    for net in loaded_networks:
        for word, embedding in net.bundle_embeddings.items():
            if embedding.loaded:
                database.register_embedding_by_name(None, shared.sd_model, word)
    loaded_networks.clear()
    unavailable = [name for name in names if _on_disk(name) is None]
    if unavailable:
        update_available_networks_by_names(unavailable)
    if any(_on_disk(name) is None for name in names):
        list_available_networks()
    missing = []
    for number, name in enumerate(names):
        entry, net = _on_disk(name), already.get(name)
        if entry is not None:
            net = net or networks_in_memory.get(name)
            if net is None or Path(entry.filename).stat().st_mtime > net.mtime:
                try:
                    net = load_network(name, entry)
                    networks_in_memory.pop(name, None)
                    networks_in_memory[name] = net
                except Exception as error:
                    errors.display(error, f"loading network {entry.filename}")
                    continue
            net.mentioned_name = name
            entry.read_hash()
        if net is None:
            missing.append(name)
            continue
        net.te_multiplier = te_multipliers[number] if te_multipliers else 1.0
        net.unet_multiplier = unet_multipliers[number] if unet_multipliers else 1.0
        net.dyn_dim = dyn_dims[number] if dyn_dims else 1.0
        loaded_networks.append(net)
        for word, embedding in net.bundle_embeddings.items():
            if embedding.loaded is None and word in database.word_embeddings:
                logger.warning("Skip bundle embedding: %r as it was already loaded from embeddings folder", word)
                continue
            embedding.loaded = False
            if database.expected_shape in (-1, embedding.shape):
                embedding.loaded = True
                database.register_embedding(embedding, shared.sd_model)
            else:
                database.skipped_embeddings[name] = embedding
    if missing:
        sd_hijack.model_hijack.comments.append(f"Lora not found: {', '.join(missing)}")
    purge_networks_from_memory()


def network_restore_weights_from_backup(self: Any) -> None:
    weights, bias = getattr(self, "network_weights_backup", None), getattr(self, "network_bias_backup", None)
    fused = isinstance(self, nn.MultiheadAttention)
    if weights is not None:
        if fused:
            self.in_proj_weight.copy_(weights[0])
            self.out_proj.weight.copy_(weights[1])
        else:
            self.weight.copy_(weights)
    if bias is not None:
        (self.out_proj if fused else self).bias.copy_(bias)


def network_apply_weights(self: Any) -> None:
    """Bring a layer's weights to what is loaded now: from its backup, which is made when first needed."""
    layer_name = getattr(self, "network_layer_name", None)
    if layer_name is None:
        return
    current = getattr(self, "network_current_names", ())
    wanted = tuple((net.name, net.te_multiplier, net.unet_multiplier, net.dyn_dim) for net in loaded_networks)
    fused = isinstance(self, nn.MultiheadAttention)
    if getattr(self, "network_weights_backup", None) is None and wanted:
        if current:
            raise RuntimeError(f"{layer_name} - no backup weights found and current weights are not unchanged")
        if fused:
            copies = (self.in_proj_weight.to("cpu", copy=True), self.out_proj.weight.to("cpu", copy=True))
            self.network_weights_backup = copies
        else:
            self.network_weights_backup = self.weight.to("cpu", copy=True)
        bias = (self.out_proj if fused else self).bias
        self.network_bias_backup = None if bias is None else bias.to("cpu", copy=True)
    if current == wanted:
        return
    network_restore_weights_from_backup(self)
    for net in loaded_networks:
        try:
            _add(self, net, layer_name)
        except RuntimeError as error:
            logger.debug("Network %s layer %s: %s", net.name, layer_name, error)
            extra_network_lora.errors[net.name] = extra_network_lora.errors.get(net.name, 0) + 1
    self.network_current_names = wanted


def _add(self: Any, net: network.Network, layer_name: str) -> None:
    module = net.modules.get(layer_name)
    with torch.no_grad():
        if module is not None and hasattr(self, "weight"):
            change, _ = module.calc_updown(self.weight)
            if self.weight.dim() == 4 and self.weight.shape[1] == 9:
                change = nn.functional.pad(change, (0, 0, 0, 0, 0, 5))
            self.weight.copy_((self.weight.to(dtype=change.dtype) + change).to(dtype=self.weight.dtype))
            return
        parts = [net.modules.get(f"{layer_name}_{name}_proj") for name in ("q", "k", "v", "out")]
        if isinstance(self, nn.MultiheadAttention) and all(parts):
            rows = self.in_proj_weight.chunk(3, 0)
            changes = [part.calc_updown(row)[0] for part, row in zip(parts[:3], rows, strict=True)]
            self.in_proj_weight += torch.vstack(changes)
            self.out_proj.weight += parts[3].calc_updown(self.out_proj.weight)[0]


def network_reset_cached_weight(self: Any) -> None:
    self.network_current_names = ()
    self.network_weights_backup = self.network_bias_backup = None


def process_network_files(names: Sequence[str] | None = None) -> None:
    folders = (shared.cmd_opts.lora_dir, shared.cmd_opts.lyco_dir_backcompat)
    for filename in (f for d in folders for f in shared.walk_files(d, [".pt", ".ckpt", ".safetensors"])):
        name = Path(filename).stem
        if Path(filename).is_dir() or (names and name not in names):
            continue
        try:
            entry = network.NetworkOnDisk(name, filename)
        except OSError:
            errors.report(f"Failed to load network {name} from {filename}", exc_info=True)
            continue
        available_networks[name] = entry
        if entry.alias in available_network_aliases:
            forbidden_network_aliases[entry.alias.lower()] = 1
        available_network_aliases[name] = available_network_aliases[entry.alias] = entry


def update_available_networks_by_names(names: Sequence[str]) -> None:
    process_network_files(names)


def list_available_networks() -> None:
    for table in (
        available_networks,
        available_network_aliases,
        forbidden_network_aliases,
        available_network_hash_lookup,
    ):
        table.clear()
    forbidden_network_aliases.update({"none": 1, "Addams": 1})
    Path(shared.cmd_opts.lora_dir).mkdir(parents=True, exist_ok=True)
    process_network_files()


list_available_networks()
