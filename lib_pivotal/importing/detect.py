"""Whose settings a file holds, and why nobody's where it is nobody's."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from lib_pivotal.errors import ConfigError
from lib_pivotal.importing import hcp, kgrid, kohya, kohya_dataset, kohya_easy, onetrainer
from lib_pivotal.importing.common import Origin
from lib_pivotal.importing.reading import refuse
from lib_pivotal.importing.sheet import Sheet

OUR_KEYS = {"words", "words_common", "network", "schedule", "data", "saving", "loss", "noise"}


@dataclass(frozen=True)
class Peer:
    """Another trainer: how its files are known, and what translates them."""

    name: str
    title: str
    fits: Callable[[Mapping[str, Any]], bool]
    translate: Callable[[Mapping[str, Any], Origin], Sheet]


def is_ours(plain: Any) -> bool:
    """Whether it is a run.json of our own."""
    return isinstance(plain, dict) and len(OUR_KEYS & plain.keys()) >= 2 and isinstance(plain.get("words", []), list)


def _hcp(plain: Mapping[str, Any]) -> bool:
    parts = {"tokenizer_pt", "lora_unet", "lora_text_encoder", "plugin_unet", "plugin_TE", "text_encoder", "unet"}
    about = {"train", "model", "data", "_base_", "logger", "exp_dir", "mixed_precision", "ckpt_type"}
    if {"training_method", "model_type"} & plain.keys() or {"prompt", "infer_args"} <= plain.keys():
        return False  # OneTrainer's, and HCP's own settings for making pictures
    if "_base_" in plain:
        return bool((parts | about) & plain.keys() - {"_base_"})
    return bool(parts & plain.keys() and about & plain.keys()) or {"train", "model"} <= plain.keys()


def _onetrainer(plain: Mapping[str, Any]) -> bool:
    marks = {"training_method", "model_type", "base_model_name", "output_model_format", "additional_embeddings"}
    marks |= {"layer_filter_preset", "concept_file_name", "learning_rate_scheduler", "masked_training"}
    return len(marks & plain.keys()) >= 2


_GUI_MARKS = {
    *("LoRA_type", "max_resolution", "model_list", "lr_warmup", "stop_text_encoder_training", "additional_parameters"),
    *("noise_offset_type", "sdxl_no_half_vae", "stop_text_encoder_training_pct", "num_cpu_threads_per_process"),
}
_SCRIPT_MARKS = {
    *("network_module", "network_dim", "network_alpha", "network_args", "optimizer_type", "train_batch_size"),
    *("max_train_steps", "max_train_epochs", "train_data_dir", "token_string", "unet_lr", "text_encoder_lr"),
    *("learning_rate", "lr_scheduler", "mixed_precision", "save_every_n_epochs", "pretrained_model_name_or_path"),
    *("resolution", "clip_skip", "output_name", "dataset_config"),
}


def _flat(plain: Mapping[str, Any]) -> set[str]:
    inner = [key for value in plain.values() if isinstance(value, dict) for key in value]
    return {*plain.keys(), *inner}


def _gui(plain: Mapping[str, Any]) -> bool:
    return len(_GUI_MARKS & _flat(plain)) >= 2 or ("LoRA_type" in plain and "train_batch_size" in plain)


def _script(plain: Mapping[str, Any]) -> bool:
    return len(_SCRIPT_MARKS & _flat(plain)) >= 3


PEERS: tuple[Peer, ...] = (
    Peer("kohya-easy", kohya_easy.TITLE, kohya_dataset.is_easy, kohya_easy.import_easy),
    Peer("kgrid", kgrid.TITLE, lambda plain: kgrid.is_kgrid(plain) and _hcp(plain), kgrid.import_kgrid),
    Peer("hcp", hcp.TITLE, _hcp, hcp.import_hcp),
    Peer("onetrainer", onetrainer.TITLE, _onetrainer, onetrainer.import_onetrainer),
    Peer("kohya-gui", kohya.GUI_TITLE, _gui, kohya.import_kohya_gui),
    Peer("kohya", kohya.TITLE, _script, kohya.import_kohya),
)
"""In the order in which they are asked."""


def detect(plain: Any, name: str) -> Peer:
    """Whose settings these are.

    Raises:
        ConfigError: nobody's that is known; says what the file seems to be.
    """
    if not isinstance(plain, dict):
        raise _nobodys(name, "it is no mapping of keys to values")
    for peer in PEERS:
        if peer.fits(plain):
            return peer
    raise _nobodys(name, _guess(plain))


def _nobodys(name: str, what: str) -> ConfigError:
    known = "HCP-Diffusion, kgrid's pipeline, kohya's scripts, bmaltais' GUI or OneTrainer"
    return refuse(name, f"holds the settings of no trainer that is known: {what}", f"Give a training file of {known}.")


def _guess(plain: Mapping[str, Any]) -> str:
    keys = _flat(plain)
    if {"datasets", "general"} & plain.keys() or {"subsets", "image_dir"} & keys:
        return "it looks like kohya's description of a dataset; give the file itself as data.folder (scan FILE)"
    if {"bs", "pretrained_model", "new_components", "infer_args", "merge"} & plain.keys():
        return "it looks like HCP's settings for making pictures"
    if "pipeline_type" in keys or "image_type" in keys:
        return "it looks like the settings of kgrid's picture pipeline, not of training"
    shown = ", ".join(str(key)[:30] for key in list(plain)[:6])
    return f"its keys are {shown}" if shown else "it is empty"
