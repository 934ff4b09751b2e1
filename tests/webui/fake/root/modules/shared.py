"""Command line, settings, state; `sd_model` is loaded when first asked for."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import fake_launch
from modules import interrogate, options, shared_state, styles
from modules.paths_internal import data_path, models_path

OptionInfo = options.OptionInfo

cmd_opts = Namespace(
    **{
        "api": True,
        "api_auth": None,
        "ckpt_dir": None,
        "embeddings_dir": f"{data_path}/embeddings",
        "lora_dir": f"{models_path}/Lora",
        "lyco_dir_backcompat": f"{models_path}/LyCORIS",
        "lowvram": False,
        "medvram": False,
        "medvram_sdxl": False,
        "no_half": True,
        "no_hashing": False,
        "nowebui": False,
        "disable_safe_unpickle": False,
        **fake_launch.flags,
    }
)

parallel_processing_allowed = True
weight_load_location: str | None = None
loaded_hypernetworks: list[Any] = []
state = shared_state.State()
prompt_styles = styles.StyleDatabase()
interrogator = interrogate.InterrogateModels()
sd_model: Any

_DEFAULTS: dict[str, Any] = {
    "sd_model_checkpoint": None,
    "CLIP_stop_at_last_layers": 1,
    "emphasis": "Original",
    "comma_padding_backtrack": 20,
    "use_old_emphasis_implementation": False,
    "use_old_scheduling": False,
    "sdxl_crop_top": 0,
    "sdxl_crop_left": 0,
    "sdxl_clip_l_skip": False,
    "fp8_storage": "Disable",
    "cache_fp16_weight": False,
    "persistent_cond_cache": True,
    "tiling": False,
    "token_merging_ratio": 0.0,
    "sd_noise_schedule": "Default",
    "hires_fix_use_firstpass_conds": False,
    "upcast_attn": False,
    "textual_inversion_add_hashes_to_infotext": True,
    "textual_inversion_print_at_load": False,
    "include_styles_into_token_counters": True,
    "extra_networks_default_multiplier": 1.0,
    "samples_save": True,
    "samples_format": "png",
    "grid_save": True,
    "grid_format": "png",
    "return_grid": True,
    "grid_only_if_multiple": True,
    "grid_prevent_empty_spots": False,
    "n_rows": -1,
    "grid_background_color": "#ffffff",
    "grid_text_active_color": "#000000",
    "grid_text_inactive_color": "#999999",
    "dataset_filename_word_regex": "",
    "dataset_filename_join_string": " ",
    "interrogate_keep_models_in_memory": False,
    "interrogate_deepbooru_score_threshold": 0.5,
    "interrogate_return_ranks": False,
    "deepbooru_use_spaces": True,
    "deepbooru_escape": True,
    "deepbooru_sort_alpha": True,
    "deepbooru_filter_tags": "",
    "sd_lora": "None",
    "lora_preferred_name": "Alias from file",
    "lora_add_hashes_to_infotext": True,
    "lora_bundled_ti_to_infotext": True,
    "lora_show_all": False,
    "lora_hide_unknown_for_versions": [],
    "lora_in_memory_limit": 0,
    "lora_functional": False,
}
"""Those that are read here or by the extension; each default is the web UI's own."""

opts = options.Options({key: OptionInfo(value, key) for key, value in _DEFAULTS.items()})


def walk_files(path: str, allowed_extensions: Sequence[str] | None = None) -> Iterator[str]:
    """Every file below a folder, in natural order."""
    if not Path(path).exists():
        return
    for root, _, files in sorted(os.walk(path, followlinks=True)):
        for name in sorted(files):
            if allowed_extensions is None or Path(name).suffix.lower() in allowed_extensions:
                yield str(Path(root) / name)


class Shared(type(sys)):
    """`shared.sd_model` as a property, as modules/shared_items.py makes it."""

    @property
    def sd_model(self) -> Any:
        from modules import sd_models

        return sd_models.model_data.get_sd_model()

    @sd_model.setter
    def sd_model(self, value: Any) -> None:
        from modules import sd_models

        sd_models.model_data.set_sd_model(value)


sys.modules[__name__].__class__ = Shared
