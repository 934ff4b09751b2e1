"""kohya's flags that stand alone: what becomes of each."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from lib_pivotal.importing.common import set_precision
from lib_pivotal.importing.reading import flag, number, whole
from lib_pivotal.importing.sheet import Rule, Sheet, aside, missing, to

_SPEED = aside("speed or memory; the web UI's own settings hold here")
_MODEL = aside("the checkpoint is used as the web UI has loaded it")
_LOG = aside("logs of the other trainer")
_UPLOAD = aside("uploading is not part of training")
_START = aside("how the other trainer's processes are started")
_OTHER = aside("for other families of checkpoints, or pages of the GUI that are not about this run")
_CARD = aside("what a file tells of itself is edited on the page of bundles")
_CHECKPOINT = aside("what the checkpoint predicts is found out from it")
_FILES = aside("files have places and names of their own here")


def _int(value: object) -> int | None:
    return 0 if value in ("", None, False) else whole(value)


def _number(value: object) -> float:
    return number(value) or 0.0


def _text(value: object) -> str:
    return str(value or "")


def _timestep(path: str, default: int) -> Rule:
    def rule(sheet: Sheet, key: str, value: object) -> None:
        found = _int(value)
        if not found:
            sheet.honoured(key, "not limited")
        else:
            sheet.taken(key, path, found)

    return rule


def _separator(sheet: Sheet, key: str, value: object) -> None:
    if value in (",", "", None):
        sheet.honoured(key, "tags are separated by commas, as here")
    else:
        sheet.refused(key, "tags are separated by commas here")


def _extension(sheet: Sheet, key: str, value: object) -> None:
    if value in (".txt", ".caption", "", None):
        sheet.honoured(key, "captions in .txt and .caption files are found")
    else:
        sheet.refused(key, "captions are found in .txt, .caption and .json files; rename them")


def _crop(which: str) -> Rule:
    def rule(sheet: Sheet, key: str, value: object) -> None:
        if value in (None, "", False):
            sheet.honoured(key)
        else:
            sheet.translated(key, "data.crop", which, "which part stays; for several cuts a picture see data.crops")

    return rule


def _seed(sheet: Sheet, key: str, value: object) -> None:
    found = whole(value)
    if found is None or found < 0:
        sheet.honoured(key, "by chance there; here it is a number")
    else:
        sheet.taken(key, "seed", found)


def _family(sheet: Sheet, key: str, value: object) -> None:
    if flag(value):
        sheet.refused(key, "only SD1, SD2 and SDXL train here; what fits them was taken")
    else:
        sheet.honoured(key)


def _dataset(sheet: Sheet, key: str, value: object) -> None:
    if value in (None, "", [], {}):
        sheet.honoured(key, "none")
    else:
        sheet.refused(key, "this description of datasets is not here; give its file or its folder as data.folder")


_PLAIN: dict[str, Rule] = {
    "seed": _seed,
    "mixed_precision": set_precision,
    "gradient_checkpointing": to("memory.gradient_checkpointing", flag),
    "keep_tokens": to("data.keep_first", _int),
    "caption_dropout_rate": to("data.caption_dropout", _number),
    "caption_tag_dropout_rate": to("data.tag_dropout", _number, "embeddings are never dropped here"),
    "caption_dropout_every_n_epochs": to("data.caption_dropout_epochs", _int),
    "caption_prefix": to("data.prefix", _text),
    "caption_suffix": to("data.suffix", _text),
    "token_warmup_step": to("data.caption_warmup_steps", _number),
    "token_warmup_min": to("data.caption_warmup_tags", whole),
    "ip_noise_gamma": to("noise.perturbation", _number),
    "zero_terminal_snr": to("noise.zero_terminal_snr", flag),
    "min_timestep": _timestep("noise.timestep_min", 0),
    "max_timestep": _timestep("noise.timestep_max", 1000),
    "prior_loss_weight": to("regularisation.weight", number),
    "bucket_reso_steps": to("data.bucket_step_px", whole),
    "random_crop": _crop("random"),
    "face_crop_aug_range": _crop("face"),
    "caption_separator": _separator,
    "caption_extension": _extension,
    "caption_extention": _extension,
    "dataset_config": _dataset,
    "in_json": _dataset,
    "dataset_class": missing("a dataset of your own code cannot be read"),
    "max_bucket_reso": aside("as far as the pictures' shapes go"),
    "min_bucket_reso": aside("as far as the pictures' shapes go"),
    "vae": missing("the VAE is the one that the web UI has loaded"),
    "noise_offset_random_strength": missing("noise offset has one strength here"),
    "ip_noise_gamma_random_strength": missing("input perturbation has one strength here"),
    "adaptive_noise_scale": missing("noise offset does not depend on the picture here"),
    "scale_v_pred_loss_like_noise_pred": missing("choose a weighting; predictions of v are not scaled apart from it"),
    "v_pred_like_loss": missing("there is no such addition to the loss"),
    "color_aug": missing("colours are not changed"),
    "secondary_separator": missing("tags are separated by commas alone"),
    "full_fp16": missing("embeddings and network are fp32, the checkpoint as it is"),
    "full_bf16": missing("embeddings and network are fp32, the checkpoint as it is"),
    "fp8_base": missing("a checkpoint in fp8 cannot be trained on"),
    "fp8_base_unet": missing("a checkpoint in fp8 cannot be trained on"),
    "fused_backward_pass": _SPEED,
    "network_weights": missing("a run starts with a new network; continue from a saved state instead"),
    "dim_from_weights": missing("a run begins with a new network"),
    "base_weights": missing("merge it into the checkpoint first"),
    "base_weights_multiplier": missing("merge it into the checkpoint first"),
    "resume": missing("states of other trainers cannot be gone on from"),
    "initial_epoch": missing("a run begins at its start"),
    "initial_step": missing("a run begins at its start"),
    "skip_until_initial_step": missing("a run begins at its start"),
    "lr_scheduler_type": missing("an LR scheduler built by class cannot be read; set schedule.rate"),
    "lr_scheduler_args": missing("options of a scheduler are not read"),
    "lr_decay_steps": missing("the LR scheduler has no separate phase at the end"),
    "lr_scheduler_timescale": missing("this option of the scheduler is not supported"),
    "lr_scheduler_min_lr_ratio": missing("this scheduler ends at 0"),
    "stop_text_encoder_training": missing("kohya's LoRA script ignores it; see schedule.te_stop"),
    "stop_text_encoder_training_pct": missing("kohya's LoRA script ignores it; see schedule.te_stop"),
    "validation_split": missing("there is no validation set; the separation score measures instead"),
    "additional_parameters": missing("its flags are lines of their own", (None, "")),
    "use_8bit_adam": missing("the optimiser that is named was taken"),
    "use_lion_optimizer": missing("the optimiser that is named was taken"),
    "no_token_padding": missing("text is padded as the web UI does it"),
    "network_module": missing("there is no network in these settings"),
    "save_every_n_epochs": missing("set saving.every_steps"),
    "huber_scale": missing("the threshold has no further scale", (None, "", 1)),
    "train_text_encoder": missing("see network.te_targets"),
    "resize_interpolation": aside("pictures are resized by Lanczos"),
    "dataset_repeats": missing("repeats stand in the folders' names", (None, "", "1", 1)),
    "image_folder": lambda sheet, key, value: _image_folder(sheet, key, value),
    "train_inpainting": missing("masks of an inpainting checkpoint are the pictures' mask files"),
    "lr_scheduler": missing("the LR scheduler is constant", (None, "", "constant")),
    "train_data_dir": missing("give the folder as data.folder"),
    "conditioning_data_dir": missing("put masks into `mask/` beside the pictures"),
    "init_word": missing("used where an embedding is trained"),
    "weights": missing("used where an embedding is trained"),
    "num_vectors_per_token": missing("used where an embedding is trained", (None, "", 1, "1")),
    "use_object_template": missing("write templates into data.templates"),
    "use_style_template": missing("write templates into data.templates"),
    "sd3_checkbox": _family,
    "flux1_checkbox": _family,
    **{
        name: missing("this kind of network has no blocks here", (None, "", 0, "0"))
        for name in (
            *("block_dims", "block_alphas", "conv_block_dims", "conv_block_alphas", "conv_dims", "conv_alphas"),
            *("block_lr_zero_threshold", "down_lr_weight", "mid_lr_weight", "up_lr_weight", "block_lr"),
        )
    },
    "split_mode": missing("this option of the network is not here"),
    "network_alpha": missing("kohya's own default: 1"),
    "optimizer_args": missing("options of the optimiser keep their defaults"),
    "network_args": missing("these options of the network are not here", (None, "", [])),
}


def _image_folder(sheet: Sheet, key: str, value: object) -> None:
    if value and not sheet.read("data.folder"):
        sheet.taken(key, "data.folder", str(value))
    else:
        sheet.honoured(key, "none")


_GROUPS: tuple[tuple[Rule, str], ...] = (
    (
        _SPEED,
        """
        xformers sdpa mem_eff_attn torch_compile dynamo_backend dynamo_mode dynamo_use_dynamic
        dynamo_use_fullgraph lowram highvram lowvram no_half_vae cache_latents cache_latents_to_disk
        vae_batch_size skip_cache_check cache_info cache_text_encoder_outputs cache_text_encoder_outputs_to_disk
        sdxl_cache_text_encoder_outputs text_encoder_batch_size disable_mmap_load_safetensors
        max_data_loader_n_workers persistent_data_loader_workers cpu_offload_checkpointing deepspeed zero_stage
        offload_optimizer_device offload_optimizer_nvme_path offload_param_device offload_param_nvme_path
        zero3_init_flag zero3_save_16bit_model fp16_master_weights_and_gradients ddp_gradient_as_bucket_view
        ddp_static_graph ddp_timeout mem_eff_save fused_optimizer_groups blockwise_fused_optimizers
        blocks_to_swap use_safetensors split_attn
        """,
    ),
    (
        _MODEL,
        """
        pretrained_model_name_or_path tokenizer_cache_dir model_list revision console_log_level console_log_file
        console_log_simple debug_dataset
        """,
    ),
    (
        _CHECKPOINT,
        """
        v2 v_parameterization sdxl sdxl_checkbox
        """,
    ),
    (
        _LOG,
        """
        logging_dir log_with log_prefix log_tracker_name log_tracker_config wandb_run_name wandb_api_key
        log_config use_wandb validation_seed validate_every_n_steps validate_every_n_epochs max_validation_steps
        """,
    ),
    (
        _UPLOAD,
        """
        huggingface_repo_id huggingface_repo_type huggingface_path_in_repo huggingface_token
        huggingface_repo_visibility save_state_to_huggingface resume_from_huggingface async_upload
        """,
    ),
    (
        _START,
        """
        num_machines num_cpu_threads_per_process multi_gpu gpu_ids main_process_port
        extra_accelerate_launch_args config_file output_config num_processes headless print_only
        """,
    ),
    (
        _FILES,
        """
        output_dir save_model_as save_as_bool save_last_n_epochs save_last_n_epochs_state save_last_n_steps
        save_last_n_steps_state save_n_epoch_ratio no_metadata sample_at_first sample_sampler
        """,
    ),
    (
        _CARD,
        """
        training_comment metadata_author metadata_description metadata_license metadata_tags metadata_title
        metadata_reference metadata_url metadata_merged_from
        """,
    ),
    (
        _OTHER,
        """
        ae apply_t5_attn_mask clip_g clip_l discrete_flow_shift double_blocks_to_swap single_blocks_to_swap
        flux1_cache_text_encoder_outputs flux1_cache_text_encoder_outputs_to_disk flux1_clip_l flux1_t5xxl
        flux_fused_backward_pass guidance_scale logit_mean logit_std mode_scale weighting_scheme
        model_prediction_type sd3_cache_text_encoder_outputs sd3_cache_text_encoder_outputs_to_disk
        sd3_fused_backward_pass sd3_text_encoder_batch_size sd3_clip_l sd3_clip_l_dropout_rate
        sd3_clip_g_dropout_rate sd3_t5_dropout_rate t5xxl t5xxl_device t5xxl_dtype t5xxl_lr
        t5xxl_max_token_length timestep_sampling save_clip save_t5xxl train_blocks unit img_attn_dim img_mlp_dim
        img_mod_dim in_dims single_dim single_mod_dim txt_attn_dim txt_mlp_dim txt_mod_dim
        train_double_block_indices train_single_block_indices batch_size clip_g_dropout_rate clip_l_dropout_rate
        t5_dropout_rate t5_max_token_length model_type pos_emb_random_crop_rate train_lora_ggpo
        show_timesteps show_timesteps_resolution enable_all_linear split_qkv train_t5xxl
        sigmoid_scale create_caption create_buckets generate_caption_database generate_image_buckets
        caption_metadata_filename latent_metadata_filename full_path train_dir use_latent_files block_lr
        learning_rate_te learning_rate_te1 learning_rate_te2
        """,
    ),
)

RULES: Mapping[str, Rule] = MappingProxyType(
    {**{name: rule for rule, names in _GROUPS for name in names.split()}, **_PLAIN}
)

PREFIXES: tuple[tuple[str, Rule], ...] = (
    ("lr_scheduler_args.", missing("options of a scheduler are not read")),
    ("metadata_", _CARD),
    *((name, _OTHER) for name in ("anima_", "hunyuan_", "lumina_", "flux1_", "flux_", "sd3_", "chroma_", "qwen_")),
)
"""Rules for all keys that begin so and have none of their own."""
