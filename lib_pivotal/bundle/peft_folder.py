"""A network as peft keeps it: a folder a model, with `adapter_model.safetensors` and `adapter_config.json`.

The tensors are the same, bit for bit; ranks and alphas go into the config, layer by layer where they differ. What the
config has no place for (which text encoder, the dtype of the alphas) is noted in the metadata, so that the way back
gives the same file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from lib_pivotal.bundle.adapter_config import CONFIG_FILE, config_for
from lib_pivotal.bundle.foreign import alpha_dtype
from lib_pivotal.bundle.format import META_ALPHA_DTYPE, META_PART
from lib_pivotal.bundle.layer_names import UnetShape
from lib_pivotal.bundle.network_layouts import DIFFUSERS_PREFIXES, to_peft
from lib_pivotal.bundle.writer import write_bundle
from lib_pivotal.errors import BundleError
from lib_pivotal.files import replacing

MODEL_FILE = "adapter_model.safetensors"


def write_peft(
    folder: Path, network: Mapping[str, Tensor], *, shape: UnetShape | None, metadata: Mapping[str, str]
) -> Path:
    """Write a kohya network below `folder`: `unet/`, `text_encoder/`, `text_encoder_2/`, those that it has."""
    noted, models = alpha_dtype(network), to_peft(network, shape=shape)
    if not models:
        raise BundleError(f"{folder}: the file holds no network, so there is nothing to convert")
    for part, model in models.items():
        target = folder / DIFFUSERS_PREFIXES[part]
        tensors = {f"base_model.model.{key}": tensor for key, tensor in model.tensors.items()}
        told = {**metadata, META_PART: part, **({META_ALPHA_DTYPE: noted} if noted else {})}
        dora = any(key.endswith("lora_magnitude_vector") for key in tensors)
        config = json.dumps(config_for(model.ranks, model.alphas, dora=dora), indent=2)
        try:
            target.mkdir(parents=True, exist_ok=True)
            write_bundle(target / MODEL_FILE, network=tensors, words={}, metadata=told, dtype=None)
            with replacing(target / CONFIG_FILE) as temporary:
                temporary.write_text(config + "\n", encoding="utf-8")
        except OSError as error:
            raise BundleError(f"{target}: cannot be written: {error.strerror or error}") from error
    return folder
