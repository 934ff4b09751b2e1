"""OneTrainer's keys that stand alone: what becomes of each."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from types import MappingProxyType
from typing import Any

from lib_pivotal.file_names import legal_file_name
from lib_pivotal.importing.common import set_precision
from lib_pivotal.importing.reading import flag, number, whole
from lib_pivotal.importing.sheet import Rule, Sheet, aside, missing, to

_SPEED = aside("speed or memory; the web UI's own settings hold here")
_LOG = aside("logs of the other trainer")
_FILES = aside("files have places and names of their own here")
_START = aside("how the other trainer is started or looks")
_MODEL = aside("the checkpoint is used as the web UI has loaded it")
_OTHER = aside("for other families of checkpoints or kinds of network")


def _name(sheet: Sheet, key: str, value: Any) -> None:
    name = legal_file_name(PurePosixPath(str(value).replace("\\", "/")).stem)
    if name:
        sheet.translated(key, "name", name, "the file's name; it goes to the LoRA folder")
    else:
        sheet.refused(key, "no file can be called so here; give it a name")


def _clip_skip(sheet: Sheet, key: str, value: Any) -> None:
    skip = whole(value) or 0
    if str(sheet.get("model_type", "")).startswith("STABLE_DIFFUSION_XL"):
        missing("SDXL's own layer is used")(sheet, key, value)
    else:
        sheet.translated(key, "clip_skip", skip + 1, "OneTrainer counts from 0, the web UI from 1")


def _caption_dropout(sheet: Sheet, key: str, value: Any) -> None:
    chance = number(value) or 0.0
    if chance:
        sheet.translated(key, "data.caption_dropout", chance, "chance that the full caption is left out")
    else:
        sheet.honoured(key)


def _continue(sheet: Sheet, key: str, value: Any) -> None:
    missing("states of other trainers cannot be gone on from")(sheet, key, value)


_PLAIN: dict[str, Rule] = {
    "output_model_destination": _name,
    "save_filename_prefix": missing("the files of steps are called after the run"),
    "output_dtype": lambda sheet, key, value: set_precision(sheet, key, value, "saving.dtype"),
    "train_dtype": set_precision,
    "aspect_ratio_bucketing": to("data.bucketing", flag),
    "offset_noise_weight": to("noise.offset", number),
    "generalized_offset_noise": missing("noise offset does not depend on the timestep here"),
    "perturbation_noise_weight": missing("OneTrainer adds it to the target too; see noise.perturbation for kohya's"),
    "rescale_noise_scheduler_to_zero_terminal_snr": to("noise.zero_terminal_snr", flag),
    "force_v_prediction": missing("what the checkpoint predicts is found out from it"),
    "force_epsilon_prediction": missing("what the checkpoint predicts is found out from it"),
    "timestep_distribution": missing("timesteps are sampled evenly", (None, "", "UNIFORM")),
    "noising_weight": missing("timesteps are sampled evenly"),
    "noising_bias": missing("timesteps are sampled evenly"),
    "timestep_shift": missing("timesteps are sampled evenly", (None, 1, 1.0)),
    "dynamic_timestep_shifting": missing("timesteps are sampled evenly"),
    "loss_scaler": missing("the loss is a mean over pictures; change the learning rates instead", (None, "", "NONE")),
    "masked_prior_preservation_weight": to("data.mask_prior", number),
    "custom_conditioning_image": missing("this is not here"),
    "text_encoder_layer_skip": _clip_skip,
    "text_encoder_2_layer_skip": missing("SDXL's own layer is used"),
    "text_encoder.dropout_probability": _caption_dropout,
    "text_encoder_2.dropout_probability": missing("captions are left out for both encoders at once"),
    "text_encoder.train_embedding": missing("an embedding is trained in all encoders", (None, True)),
    "text_encoder_2.train_embedding": missing("an embedding is trained in all encoders", (None, True)),
    "unet.stop_training_after": missing("the U-Net trains to the end"),
    "unet.stop_training_after_unit": missing("the U-Net trains to the end", (None, "", "NEVER")),
    "text_encoder_2.stop_training_after": missing("see schedule.te_stop"),
    "text_encoder_2.stop_training_after_unit": missing("see schedule.te_stop", (None, "", "NEVER")),
    "unet.learning_rate": missing("used in LORA runs only"),
    "lora_model_name": missing("a run starts with a new network; continue from a saved state instead"),
    "lora_decompose_norm_epsilon": aside("a guard against dividing by zero; here always on"),
    "lora_decompose_output_axis": missing("DoRA's norms are taken as in the web UI"),
    "bundle_additional_embeddings": missing("embeddings always go into the file", (None, True)),
    "continue_last_backup": _continue,
    "validation": missing("there is no validation set; the separation score measures instead"),
    "vb_loss_strength": aside("for checkpoints that predict a variance"),
    "custom_learning_rate_scheduler": missing("an LR scheduler built by class cannot be read; set schedule.rate"),
    "scheduler_params": missing("options of a scheduler are not read"),
    "only_cache": missing("training always follows"),
    "force_circular_padding": missing("pictures that tile are not trained apart"),
    "gradient_checkpointing": to(
        "memory.gradient_checkpointing", lambda value: value not in ("OFF", "off", False, None), "on"
    ),
}

_GROUPS: tuple[tuple[Rule, str], ...] = (
    (
        _SPEED,
        """
        latent_caching clear_cache_before_training dataloader_threads train_device temp_device fallback_train_dtype
        enable_autocast_cache attention_mechanism async_offloading compile multi_gpu device_indexes
        gradient_reduce_precision fused_gradient_reduce async_gradient_reduce async_gradient_reduce_buffer
        embedding_weight_dtype lora_weight_dtype weight_dtype layer_offload_fraction enable_activation_offloading
        enable_async_offloading align_prop dataloader_threads quantization
        """,
    ),
    (
        _LOG,
        """
        debug_mode debug_dir tensorboard tensorboard_expose tensorboard_always_on tensorboard_port
        samples_to_tensorboard validate_after validate_after_unit wandb
        """,
    ),
    (
        _FILES,
        """
        workspace_dir cache_dir output_model_format include_train_config prevent_overwrites rolling_backup
        rolling_backup_count backup_before_save save_skip_first save_after save_after_unit sample_skip_first
        sample_image_format sample_video_format sample_audio_format non_ema_sampling
        """,
    ),
    (_START, "__version huggingface_cache_dir offline_mode secrets cloud optimizer_defaults embedding.uuid"),
    (_MODEL, "base_model_name"),
    (_OTHER, "frames text_encoder_sequence_length text_encoder_2_sequence_length"),
)

RULES: Mapping[str, Rule] = MappingProxyType(
    {**{name: rule for rule, names in _GROUPS for name in names.split()}, **_PLAIN}
)


def _option(sheet: Sheet, key: str, value: Any) -> None:
    """An option of the optimiser, which keeps our default: told where it changes the steps."""
    name = key.rpartition(".")[2]
    usual = {"beta1": (0.9, None), "beta2": (0.999, None), "eps": (1e-8, None), "stochastic_rounding": (True, False)}
    if name in ("fused", "foreach", "capturable", "differentiable", "fused_back_pass", "fsdp_in_use", "compile"):
        sheet.ignored(key, "speed or memory; the web UI's own settings hold here")
    elif value in usual.get(name, (None, False, "", 0)) or value == {}:
        sheet.honoured(key, "the optimiser's own default")
    else:
        sheet.refused(key, "options of the optimiser keep their defaults")


PREFIXES: tuple[tuple[str, Rule], ...] = (
    ("optimizer_defaults", aside("settings of optimisers that are not chosen")),
    ("optimizer", _option),
    (
        "quantization",
        missing("the checkpoint is used as the web UI has loaded it", (None, "", "NONE", "full", False, 16)),
    ),
    ("unet", _MODEL),
    ("text_encoder", _MODEL),
    ("text_encoder_2", _MODEL),
    ("vae", _MODEL),
    *(
        (part, _OTHER)
        for part in (
            *("prior", "transformer", "unconditional_transformer", "text_encoder_3", "text_encoder_4", "decoder"),
            *("text_encoder_3_layer_skip", "text_encoder_4_layer_skip", "effnet_encoder", "decoder_text_encoder"),
            *("decoder_vqgan", "oft_block_size", "oft_block_share", "oft_scaled", "lokr_dim", "lokr_decompose_both"),
            *("lokr_decompose_factor", "lokr_use_tucker", "lokr_weight_decompose", "lokr_dora_on_output"),
            *("lokr_full_matrix", "lokr_vec_trick"),
        )
    ),
    ("cloud", aside("renting machines is not part of training")),
    ("secrets", aside("keys to other services are not part of training")),
)
"""What is left under these keys once everything that concerns training was taken."""
