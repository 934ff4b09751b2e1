"""Checkpoints: their files, the one in memory, and changing it."""

from __future__ import annotations

import contextlib
import json
import threading
from pathlib import Path
from typing import Any

import fake_launch
import safetensors.torch
import torch
from modules import cache, devices, errors, hashes, lowvram, paths, script_callbacks, sd_hijack, sd_unet, shared

model_path = Path(paths.models_path) / "Stable-diffusion"
checkpoints_list: dict[str, CheckpointInfo] = {}
checkpoint_aliases: dict[str, CheckpointInfo] = {}


class CheckpointInfo:
    """`name` below the models' folder; `hash` is the old short one, `sha256` is unknown until somebody asks."""

    def __init__(self, filename: str) -> None:
        self.filename = filename
        self.name = str(Path(filename).relative_to(model_path))
        self.name_for_extra = Path(filename).stem
        self.model_name = self.name.replace("/", "_").removesuffix(Path(filename).suffix)
        self.metadata = cache.cached_data_for_file(
            "safetensors-metadata",
            f"checkpoint/{self.name}",
            filename,
            lambda: read_metadata_from_safetensors(filename),
        )
        self.hash = model_hash(filename)
        self.sha256 = hashes.sha256_from_cache(filename, f"checkpoint/{self.name}")
        self.shorthash = self.sha256[:10] if self.sha256 else None
        self.title = self.name if self.shorthash is None else f"{self.name} [{self.shorthash}]"
        self.ids = [self.hash, self.model_name, self.title, self.name, self.name_for_extra]

    def register(self) -> None:
        checkpoints_list[self.title] = self
        checkpoint_aliases.update(dict.fromkeys(self.ids, self))

    def calculate_shorthash(self) -> str | None:
        self.sha256 = hashes.sha256(self.filename, f"checkpoint/{self.name}")
        if self.sha256 is None:
            return None
        if self.shorthash != self.sha256[:10]:
            self.shorthash = self.sha256[:10]
            checkpoints_list.pop(self.title, None)
            self.title = f"{self.name} [{self.shorthash}]"
            self.ids += [self.shorthash, self.sha256, self.title]
            self.register()
        return self.shorthash


def model_hash(filename: str) -> str:
    import hashlib

    with Path(filename).open("rb") as file:
        file.seek(0x100000)
        return hashlib.sha256(file.read(0x10000)).hexdigest()[:8]


def list_models() -> None:
    checkpoints_list.clear()
    checkpoint_aliases.clear()
    for filename in shared.walk_files(str(model_path), allowed_extensions=[".safetensors"]):
        CheckpointInfo(filename).register()


def get_closet_checkpoint_match(search_string: str | None) -> CheckpointInfo | None:
    if not search_string:
        return None
    known = checkpoint_aliases.get(search_string)
    if known is not None:
        return known
    for text in (search_string, search_string.split(" [")[0]):
        found = sorted((i for i in checkpoints_list.values() if text in i.title), key=lambda info: len(info.title))
        if found:
            return found[0]
    return None


def select_checkpoint() -> CheckpointInfo:
    known = checkpoint_aliases.get(shared.opts.sd_model_checkpoint)
    if known is None and not checkpoints_list:
        raise FileNotFoundError("No checkpoints found.")
    return known or next(iter(checkpoints_list.values()))


def read_metadata_from_safetensors(filename: str) -> dict[str, Any]:
    """Values that look like JSON are read as JSON."""
    with Path(filename).open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        start = file.read(2)
        assert length > 2 and start in (b'{"', b"{'"), f"{filename} is not a safetensors file"
        found: dict[str, Any] = {}
        try:
            for key, value in json.loads(start + file.read(length - 2)).get("__metadata__", {}).items():
                found[key] = value
                if isinstance(value, str) and value[:1] == "{":
                    with contextlib.suppress(ValueError):
                        found[key] = json.loads(value)
        except Exception:
            errors.report(f"Error reading metadata from file: {filename}", exc_info=True)
    return found


def read_state_dict(checkpoint_file: str, print_global_state: bool = False, map_location: Any = None) -> dict[str, Any]:
    if Path(checkpoint_file).suffix.lower() == ".safetensors":
        device = map_location or shared.weight_load_location or devices.get_optimal_device_name()
        found = safetensors.torch.load_file(checkpoint_file, device=device)
    else:
        found = torch.load(checkpoint_file, map_location=map_location or shared.weight_load_location)
    found = found.pop("state_dict", found)
    found.pop("state_dict", None)
    return found


class SdModelData:
    def __init__(self) -> None:
        self.sd_model: Any = None
        self.loaded_sd_models: list[Any] = []
        self.was_loaded_at_least_once = False
        self.lock = threading.Lock()

    def get_sd_model(self) -> Any:
        if not self.was_loaded_at_least_once and self.sd_model is None:
            with self.lock:
                try:
                    load_model()
                except Exception as error:
                    errors.display(error, "loading stable diffusion model", full_traceback=True)
                    self.sd_model = None
        return self.sd_model

    def set_sd_model(self, v: Any, already_loaded: bool = False) -> None:
        self.sd_model = v
        self.loaded_sd_models = [v] if v is not None else []


model_data = SdModelData()


def load_model(checkpoint_info: CheckpointInfo | None = None, already_loaded_state_dict: Any = None) -> None:
    info = checkpoint_info or select_checkpoint()
    model_data.sd_model = None
    tensors = already_loaded_state_dict or read_state_dict(info.filename)
    model = fake_launch.build_checkpoint(info.name_for_extra)
    model.used_config = fake_launch.config_of(info.name_for_extra)
    load_model_weights(model, info, tensors)
    lowvram.apply(model)
    sd_hijack.model_hijack.hijack(model)
    model.eval()
    model_data.set_sd_model(model)
    model_data.was_loaded_at_least_once = True
    sd_hijack.model_hijack.embedding_db.load_textual_inversion_embeddings(force_reload=True)
    script_callbacks.model_loaded_callback(model)


def load_model_weights(model: Any, checkpoint_info: CheckpointInfo, state_dict: dict[str, Any]) -> None:
    checkpoint_info.calculate_shorthash()
    model.load_state_dict(state_dict, strict=False)
    model.sd_model_hash = checkpoint_info.shorthash
    model.sd_model_checkpoint = checkpoint_info.filename
    model.sd_checkpoint_info = checkpoint_info
    shared.opts.data["sd_checkpoint_hash"] = checkpoint_info.sha256


def reload_model_weights(sd_model: Any = None, info: CheckpointInfo | None = None, forced_reload: bool = False) -> Any:
    """The chosen checkpoint: nothing to do where it is loaded, into the same model where that fits, else into a new."""
    checkpoint_info = info or select_checkpoint()
    model = sd_model or model_data.sd_model
    if model is not None and model.sd_model_checkpoint == checkpoint_info.filename and not forced_reload:
        return model
    before = model.sd_checkpoint_info if model is not None else None
    if model is not None:
        sd_unet.apply_unet("None")
        sd_hijack.model_hijack.undo_hijack(model)
    tensors = read_state_dict(checkpoint_info.filename)
    if model is None or model.used_config != fake_launch.config_of(checkpoint_info.name_for_extra):
        load_model(checkpoint_info, already_loaded_state_dict=tensors)
        return model_data.sd_model
    try:
        load_model_weights(model, checkpoint_info, tensors)
    except Exception:
        load_model_weights(model, before, read_state_dict(before.filename))
        raise
    finally:
        sd_hijack.model_hijack.hijack(model)
        script_callbacks.model_loaded_callback(model)
    model_data.set_sd_model(model)
    return model


def apply_token_merging(sd_model: Any, token_merging_ratio: float) -> None:
    """What it does to the model is not in the fake: only that it is noted."""
    if getattr(sd_model, "applied_token_merged_ratio", 0) != token_merging_ratio:
        sd_model.applied_token_merged_ratio = token_merging_ratio
