"""Metadata of a bundle: `ss_*` and `modelspec.*` as kohya's scripts write them, and our own under `pivotal.*`.

kohya writes `str(value)` of everything, so an unset value reads "None" and a flag "True"; tables are JSON. Readers
(the web UI's cards, model managers, kohya's own tools) rely on that.
Follows kohya-ss/sd-scripts 48d368f, train_network.py:1003-1223 and library/sai_model_spec.py.
"""

from __future__ import annotations

import datetime
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from lib_pivotal import __version__
from lib_pivotal.bundle.format import (
    FORMAT_VERSION,
    META_EMBEDDINGS,
    META_FORMAT,
    META_RECOMMENDED,
    META_RUN,
    META_SOFTWARE,
    Family,
)
from lib_pivotal.errors import BundleError
from lib_pivotal.plain_json import parse_json

_BASE_VERSIONS: dict[tuple[Family, bool], str] = {
    ("sd1", False): "sd_v1",
    ("sd1", True): "sd_v1_v",
    ("sd2", False): "sd_v2",
    ("sd2", True): "sd_v2_v",
    ("sdxl", False): "sdxl_base_v1-0",
    ("sdxl", True): "sdxl_base_v1-0",
}
_ARCHITECTURES: dict[tuple[Family, bool], str] = {
    ("sd1", False): "stable-diffusion-v1",
    ("sd1", True): "stable-diffusion-v1",
    ("sd2", False): "stable-diffusion-v2-512",
    ("sd2", True): "stable-diffusion-v2-768-v",
    ("sdxl", False): "stable-diffusion-xl-v1-base",
    ("sdxl", True): "stable-diffusion-xl-v1-base",
}


@dataclass(frozen=True)
class EmbeddingFacts:
    """What is worth knowing of an embedding: kept as JSON in `pivotal.words`.

    `separation` is the embedding's share in what was learnt, as last measured; None: not measured.
    """

    init_text: str = ""
    vectors: int = 0
    images_seen: int = 0
    pruned_tags: tuple[str, ...] = ()
    separation: float | None = None


@dataclass(frozen=True)
class BucketFacts:
    """One aspect bucket: its size and how many pictures (repeats counted) it holds."""

    width_px: int
    height_px: int
    count: int


@dataclass(frozen=True)
class FolderFacts:
    """One folder of pictures under the name that kohya's tables use, `N_name` or plain."""

    repeats: int = 1
    images: int = 0
    tags: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class TrainingFacts:
    """All that goes into a bundle's metadata. None means: not used in this run (kohya writes "None").

    Times are Unix seconds. `extra` holds further `ss_*` values, `run` the settings of the run as plain values,
    `recommended` the weights to begin with, e.g. `{"unet": 1.0, "te": 1.0}`.
    """

    output_name: str
    family: Family = "sd1"
    v_prediction: bool = False
    network_module: str = "networks.lora"
    network_dim: int | None = None
    network_alpha: float | None = None
    network_dropout: float | None = None
    network_args: Mapping[str, Any] | None = None
    model_name: str = ""
    model_hash: str = ""
    model_sha256: str = ""
    vae_name: str = ""
    resolution: tuple[int, int] = (512, 512)
    folders: Mapping[str, FolderFacts] = field(default_factory=dict)
    buckets: tuple[BucketFacts, ...] = ()
    mean_aspect_error: float = 0.0
    bucketing: bool = True
    bucket_no_upscale: bool = False
    min_bucket_px: int | None = None
    max_bucket_px: int | None = None
    num_train_images: int = 0
    num_reg_images: int = 0
    prior_loss_weight: float = 1.0
    random_crop: bool = False
    batches_per_epoch: int = 0
    epochs: int = 0
    epoch: int | None = None
    max_steps: int = 0
    steps: int | None = None
    batch_size: int = 1
    total_batch_size: int | None = None
    accumulation: int = 1
    gradient_checkpointing: bool = False
    lr: float | None = None
    unet_lr: float | None = None
    text_encoder_lr: float | tuple[float, ...] | None = None
    lr_scheduler: str = "constant"
    warmup_steps: int = 0
    optimizer: str = "AdamW"
    max_grad_norm: float | None = None
    mixed_precision: str = "no"
    clip_skip: int | None = None
    max_token_length: int | None = None
    seed: int = 0
    noise_offset: float | None = None
    multires_iterations: int | None = None
    multires_discount: float | None = None
    ip_noise_gamma: float | None = None
    zero_terminal_snr: bool = False
    min_snr_gamma: float | None = None
    debiased: bool = False
    loss_type: str = "l2"
    huber_c: float | None = None
    timestep_range: tuple[int, int] | None = None
    caption_dropout: float = 0.0
    tag_dropout: float = 0.0
    shuffle_tags: bool = False
    keep_first: int = 0
    flip: bool = False
    cache_latents: bool = True
    scale_weight_norms: float | None = None
    started_at: float = 0.0
    finished_at: float | None = None
    session_id: int = 0
    comment: str = ""
    author: str = ""
    description: str = ""
    embeddings: Mapping[str, EmbeddingFacts] = field(default_factory=dict)
    run: Mapping[str, Any] = field(default_factory=dict)
    recommended: Mapping[str, float] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)


def build_metadata(facts: TrainingFacts) -> dict[str, str]:
    """The metadata of a bundle, all values text. `sshs_*` hashes are added by the writer."""
    return {**_kohya(facts), **_model_spec(facts), **_pivotal(facts)}


def lora_metadata(family: Family, *, v_prediction: bool = False) -> dict[str, str]:
    """What readers of a LoRA need to tell its family: kohya's minimum, and ModelSpec's architecture."""
    sdxl = family == "sdxl"
    return {
        "ss_v2": str(family == "sd2"),
        "ss_base_model_version": _BASE_VERSIONS.get((family, v_prediction), "unknown"),
        "ss_network_module": "networks.lora",
        "modelspec.sai_model_spec": "1.0.1",
        "modelspec.architecture": f"{_ARCHITECTURES.get((family, v_prediction), 'unknown')}/lora",
        "modelspec.implementation": "https://github.com/Stability-AI/generative-models" if sdxl else "diffusers",
        "modelspec.implementation_version": f"sd-webui-pivotal/{__version__}",
        META_SOFTWARE: f"sd-webui-pivotal/{__version__}",
    }


def embedding_facts(metadata: Mapping[str, str]) -> dict[str, dict[str, Any]]:
    """What `pivotal.words` says, by name; empty where there is none or it cannot be read."""
    found = read_json(metadata, META_EMBEDDINGS)
    return {name: facts for name, facts in found.items() if isinstance(facts, dict)}


def separation_shares(metadata: Mapping[str, str]) -> dict[str, float]:
    """Each embedding's share in what was learnt, of those for which `pivotal.words` says it."""
    shares = {name: finite_number(facts.get("separation")) for name, facts in embedding_facts(metadata).items()}
    return {name: share for name, share in shares.items() if share is not None}


def read_json(metadata: Mapping[str, str], key: str) -> dict[str, Any]:
    """A JSON table out of metadata; empty where it is missing or broken."""
    try:
        found = parse_json(metadata.get(key, "{}"))
    except (ValueError, RecursionError):  # also a number of thousands of digits
        return {}
    return found if isinstance(found, dict) else {}


def recommended_weights(metadata: Mapping[str, str]) -> dict[str, float]:
    """The weights that a bundle recommends for itself, `te` and `unet`; empty where it does not."""
    found = read_json(metadata, META_RECOMMENDED)
    weights = {key: finite_number(found.get(key)) for key in ("te", "unet")}
    return {key: weight for key, weight in weights.items() if weight is not None}


def finite_number(value: Any) -> float | None:
    """A number out of somebody's JSON, which may also hold Infinity and a thousand digits; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def with_embedding_facts(metadata: Mapping[str, str], facts: Mapping[str, Mapping[str, Any]]) -> dict[str, str]:
    """The metadata with `pivotal.words` (and the trigger phrase, if there was one) made to fit these embeddings."""
    changed = dict(metadata)
    if facts or META_EMBEDDINGS in changed:
        changed[META_EMBEDDINGS] = _json(facts)
    if changed.pop("modelspec.trigger_phrase", "") and facts:
        changed["modelspec.trigger_phrase"] = ", ".join(facts)
    return changed


def _kohya(facts: TrainingFacts) -> dict[str, str]:
    flags = _kohya_training(facts) | _kohya_data(facts)
    if facts.network_args:
        flags["ss_network_args"] = _json(facts.network_args)
    if facts.model_name:
        flags |= {"ss_sd_model_name": facts.model_name}
    if facts.model_hash:
        flags |= {"ss_sd_model_hash": facts.model_hash}
    if facts.model_sha256:
        flags |= {"ss_new_sd_model_hash": facts.model_sha256}
    if facts.vae_name:
        flags |= {"ss_vae_name": facts.vae_name}
    for key, value in facts.extra.items():
        if not key.startswith("ss_"):
            raise BundleError(f"extra metadata {key!r}: such a key begins with ss_; use pivotal.run for facts of ours")
        flags[key] = value
    return {key: str(value) for key, value in flags.items()}


def _kohya_training(facts: TrainingFacts) -> dict[str, Any]:
    finished = {} if facts.finished_at is None else {"ss_training_finished_at": facts.finished_at}
    return finished | {
        "ss_session_id": facts.session_id,
        "ss_training_started_at": facts.started_at,
        "ss_output_name": facts.output_name,
        "ss_learning_rate": facts.lr,
        "ss_text_encoder_lr": list(rates) if isinstance(rates := facts.text_encoder_lr, tuple) else rates,
        "ss_unet_lr": facts.unet_lr,
        "ss_num_epochs": facts.epochs,
        "ss_epoch": facts.epochs if facts.epoch is None else facts.epoch,
        "ss_steps": facts.max_steps if facts.steps is None else facts.steps,
        "ss_max_train_steps": facts.max_steps,
        "ss_gradient_checkpointing": facts.gradient_checkpointing,
        "ss_gradient_accumulation_steps": facts.accumulation,
        "ss_lr_warmup_steps": facts.warmup_steps,
        "ss_lr_scheduler": facts.lr_scheduler,
        "ss_network_module": facts.network_module,
        "ss_network_dim": facts.network_dim,
        "ss_network_alpha": facts.network_alpha,
        "ss_network_dropout": facts.network_dropout,
        "ss_mixed_precision": facts.mixed_precision,
        "ss_full_fp16": False,
        "ss_v2": facts.family == "sd2",
        "ss_base_model_version": _BASE_VERSIONS.get((facts.family, facts.v_prediction), "unknown"),
        "ss_clip_skip": facts.clip_skip,
        "ss_max_token_length": facts.max_token_length,
        "ss_cache_latents": facts.cache_latents,
        "ss_seed": facts.seed,
        "ss_lowram": False,
        "ss_noise_offset": facts.noise_offset,
        "ss_multires_noise_iterations": facts.multires_iterations,
        "ss_multires_noise_discount": facts.multires_discount,
        "ss_adaptive_noise_scale": None,
        "ss_zero_terminal_snr": facts.zero_terminal_snr,
        "ss_training_comment": facts.comment or None,
        "ss_sd_scripts_commit_hash": None,
        "ss_optimizer": facts.optimizer,
        "ss_max_grad_norm": facts.max_grad_norm,
        "ss_min_snr_gamma": facts.min_snr_gamma,
        "ss_scale_weight_norms": facts.scale_weight_norms,
        "ss_ip_noise_gamma": facts.ip_noise_gamma,
        "ss_debiased_estimation": facts.debiased,
        "ss_loss_type": facts.loss_type,
        "ss_huber_c": facts.huber_c,
    }


def _kohya_data(facts: TrainingFacts) -> dict[str, Any]:
    dirs = {name: {"n_repeats": folder.repeats, "img_count": folder.images} for name, folder in facts.folders.items()}
    buckets = {
        str(index): {"resolution": [bucket.width_px, bucket.height_px], "count": bucket.count}
        for index, bucket in enumerate(facts.buckets)
    }
    info = {"buckets": buckets, "mean_img_ar_error": facts.mean_aspect_error} if buckets else None
    tags = {name: dict(folder.tags) for name, folder in facts.folders.items()}
    return {
        "ss_num_train_images": facts.num_train_images,
        "ss_num_reg_images": facts.num_reg_images,
        "ss_num_batches_per_epoch": facts.batches_per_epoch,
        "ss_batch_size_per_device": facts.batch_size,
        "ss_total_batch_size": facts.batch_size if facts.total_batch_size is None else facts.total_batch_size,
        "ss_resolution": facts.resolution,
        "ss_color_aug": False,
        "ss_flip_aug": facts.flip,
        "ss_random_crop": facts.random_crop,
        "ss_shuffle_caption": facts.shuffle_tags,
        "ss_enable_bucket": facts.bucketing,
        "ss_bucket_no_upscale": facts.bucket_no_upscale,
        "ss_min_bucket_reso": facts.min_bucket_px,
        "ss_max_bucket_reso": facts.max_bucket_px,
        "ss_keep_tokens": facts.keep_first,
        "ss_caption_dropout_rate": facts.caption_dropout,
        "ss_caption_dropout_every_n_epochs": 0,
        "ss_caption_tag_dropout_rate": facts.tag_dropout,
        "ss_face_crop_aug_range": None,
        "ss_prior_loss_weight": facts.prior_loss_weight,
        "ss_dataset_dirs": _json(dirs),
        "ss_reg_dataset_dirs": _json({}),
        "ss_tag_frequency": _json(tags),
        "ss_bucket_info": _json(info),
    }


def _model_spec(facts: TrainingFacts) -> dict[str, str]:
    """ModelSpec 1.0.1, https://github.com/Stability-AI/ModelSpec."""
    when = facts.started_at if facts.finished_at is None else facts.finished_at
    architecture = _ARCHITECTURES.get((facts.family, facts.v_prediction), "unknown")
    sdxl = facts.family == "sdxl"
    spec = {
        "sai_model_spec": "1.0.1",
        "architecture": f"{architecture}/lora",
        "implementation": "https://github.com/Stability-AI/generative-models" if sdxl else "diffusers",
        "title": facts.output_name,
        "resolution": f"{facts.resolution[0]}x{facts.resolution[1]}",
        "description": facts.description,
        "author": facts.author,
        "date": datetime.datetime.fromtimestamp(int(when)).isoformat(),
        "implementation_version": f"sd-webui-pivotal/{__version__}",
        "trigger_phrase": ", ".join(facts.embeddings),
        "prediction_type": "v" if facts.v_prediction else "epsilon",
        "timestep_range": "" if facts.timestep_range is None else "{},{}".format(*facts.timestep_range),
        "encoder_layer": "" if facts.clip_skip is None else str(facts.clip_skip),
    }
    return {f"modelspec.{key}": value for key, value in spec.items() if value}


def _pivotal(facts: TrainingFacts) -> dict[str, str]:
    embeddings = {
        name: {
            "init_text": embedding.init_text,
            "vectors": embedding.vectors,
            "images_seen": embedding.images_seen,
            "pruned_tags": list(embedding.pruned_tags),
            **({} if embedding.separation is None else {"separation": embedding.separation}),
        }
        for name, embedding in facts.embeddings.items()
    }
    return {
        META_FORMAT: FORMAT_VERSION,
        META_SOFTWARE: f"sd-webui-pivotal/{__version__}",
        META_EMBEDDINGS: _json(embeddings),
        META_RUN: _json(facts.run),
        META_RECOMMENDED: _json(facts.recommended),
    }


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, default=str)
