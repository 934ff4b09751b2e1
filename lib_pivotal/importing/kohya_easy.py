"""Settings of LoRA_Easy_Training_Scripts: kohya's flags in tables of their own, and the pictures in the same file."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from lib_pivotal.importing.common import Origin
from lib_pivotal.importing.kohya import import_flags
from lib_pivotal.importing.kohya_dataset import easy_arguments
from lib_pivotal.importing.sheet import Sheet

TITLE = "LoRA_Easy_Training_Scripts settings"
NAMES: Mapping[str, str] = MappingProxyType({"batch_size": "train_batch_size", "warmup_ratio": "lr_warmup_steps"})
"""Easy's names -> the scripts'; all others are called alike."""
OF_DATASET = frozenset({"resolution", "batch_size"})
"""What its dataset file holds and the scripts know as flags, too."""
SHARED = ("enable_bucket", "bucket_no_upscale", "bucket_reso_steps", "min_bucket_reso", "max_bucket_reso")


def import_easy(plain: Mapping[str, Any], origin: Origin) -> Sheet:
    """As kohya's flags; its `[[subsets]]` are read by a scan of the same file."""
    flags = easy_arguments(plain, "args")
    described = easy_arguments(plain, "dataset_args")
    flags |= {key: value for key, value in described.items() if key in OF_DATASET or key in SHARED}
    found = {NAMES.get(key, key): value for key, value in flags.items() if key not in NAMES or value}
    if plain.get("subsets"):
        found["dataset_config"] = origin.name
    sheet = import_flags(found, origin)
    table = plain.get("train_mode")
    mode = str(table.get("train_mode", "lora") if isinstance(table, dict) else table or "lora")
    if mode.lower() not in ("lora", "textual_inversion"):
        sheet.remark(f"train_mode = {mode}: a network is trained here; what fits it was taken.")
    return sheet
