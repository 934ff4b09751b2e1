"""The facts that a run's file tells, the `ss_*` metadata and ours: from its settings, and from what it has become."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lib_pivotal.bundle.metadata import BucketFacts, EmbeddingFacts, FolderFacts, TrainingFacts
from lib_pivotal.config import NetworkConfig, Run, run_to_dict
from lib_pivotal.data.buckets import Bucket, Buckets
from lib_pivotal.data.tags import tag_counts
from lib_pivotal.networks.registry import ALGORITHMS, kohya_module
from lib_pivotal.ports import ModelInfo, Part
from lib_pivotal.training.objective import MinSNR

if TYPE_CHECKING:
    from lib_pivotal.training.prepare import PreparedPictures
    from lib_pivotal.training.prepared import Prepared


def settings_facts(run: Run, prepared: PreparedPictures, buckets: Buckets) -> TrainingFacts:
    """What the settings and the pictures say of a run, whichever checkpoint it is on and however far it is."""
    data, schedule, noise, network = run.data, run.schedule, run.noise, run.network
    trains_unet = network.trains("unet")
    pictures = prepared.pictures
    samples = round(sum(picture.repeats for picture in pictures))
    per_step = schedule.batch_size * schedule.accumulation
    return TrainingFacts(
        output_name=run.name,
        **_network_facts(network, trains_unet=trains_unet),
        resolution=(data.resolution_px, data.resolution_px),
        folders=_folders(prepared, Path(data.folder)),
        buckets=_buckets(buckets, prepared),
        num_reg_images=len(prepared.regularisation),
        prior_loss_weight=run.regularisation.weight if prepared.regularisation else 1.0,
        random_crop=data.crop == "random",
        bucketing=data.bucketing,
        bucket_no_upscale=not data.upscale,
        num_train_images=samples,
        batches_per_epoch=-(-samples // schedule.batch_size),
        epochs=-(-schedule.total_steps * per_step // max(samples, 1)),
        max_steps=schedule.total_steps,
        batch_size=schedule.batch_size,
        accumulation=schedule.accumulation,
        gradient_checkpointing=run.memory.gradient_checkpointing,
        lr=run.embeddings_common.lr,
        unet_lr=network.unet_lr if trains_unet else None,
        lr_scheduler=schedule.lr_scheduler,
        warmup_steps=schedule.warmup_of(schedule.total_steps),
        optimizer=schedule.optimizer,
        max_grad_norm=schedule.clip_network or None,
        mixed_precision=run.memory.precision if run.memory.precision in ("fp16", "bf16") else "no",
        clip_skip=run.clip_skip,
        seed=run.seed,
        noise_offset=noise.offset or None,
        multires_iterations=noise.multires_iterations or None,
        multires_discount=noise.multires_discount if noise.multires_iterations else None,
        ip_noise_gamma=noise.perturbation or None,
        zero_terminal_snr=noise.zero_terminal_snr,
        min_snr_gamma=(run.loss.snr_gamma or MinSNR().gamma) if run.loss.weighting == "min_snr" else None,
        debiased=run.loss.weighting == "debiased",
        loss_type={"mse": "l2"}.get(run.loss.kind, run.loss.kind),
        huber_c=run.loss.huber_delta if run.loss.kind in ("huber", "smooth_l1") else None,
        caption_dropout=data.caption_dropout,
        tag_dropout=data.tag_dropout,
        shuffle_tags=data.shuffle_tags,
        keep_first=data.keep_first,
        flip=data.flip,
        embeddings={
            embedding.name: EmbeddingFacts(
                init_text=embedding.init_text,
                vectors=embedding.vectors,
                pruned_tags=prepared.pruned_tags.get(embedding.name, ()),
            )
            for embedding in run.embeddings
        },
        run=run_to_dict(run),
    )


def _network_facts(network: NetworkConfig, *, trains_unet: bool) -> dict[str, Any]:
    """Module, arguments, rank, alpha and dropout as kohya writes them; None what the kind does not have."""
    if network.algorithm == "none":
        return {}
    module, arguments = kohya_module(network.algorithm, network.options)
    algorithm = ALGORITHMS[network.algorithm]
    common, times = algorithm.common, algorithm.ranks(algorithm.options_from(network.options))
    rank, alpha = (network.unet_rank, network.unet_alpha) if trains_unet else (network.te_rank, network.te_alpha)
    return {
        "network_module": module,
        "network_args": arguments or None,
        "network_dim": rank * times if "rank" in common else None,
        "network_alpha": alpha * times if "alpha" in common else None,
        "network_dropout": (network.dropout or None) if "dropout" in common else None,
    }


def training_facts(
    prepared: Prepared,
    info: ModelInfo,
    *,
    step: int,
    images_seen: Mapping[str, int],
    shares: Mapping[str, float],
    started_at: float,
) -> TrainingFacts:
    """The facts of a run on a checkpoint after `step` steps; `images_seen` and separation `shares` by embedding."""
    facts, te_lr = prepared.facts, _text_encoder_lr(prepared, info)
    trained = facts.unet_lr is not None or te_lr is not None
    embeddings = {
        name: replace(embedding, images_seen=images_seen.get(name, 0), separation=shares.get(name))
        for name, embedding in facts.embeddings.items()
    }
    return replace(
        facts,
        family=info.family,
        v_prediction=info.v_prediction,
        network_dim=facts.network_dim if trained else None,
        network_alpha=facts.network_alpha if trained else None,
        model_name=info.name,
        model_hash=info.legacy_hash,
        model_sha256=info.sha256,
        text_encoder_lr=te_lr,
        steps=step,
        started_at=started_at,
        finished_at=time.time(),
        embeddings=embeddings,
    )


def _text_encoder_lr(prepared: Prepared, info: ModelInfo) -> float | tuple[float, ...] | None:
    """One rate for all text encoders of the checkpoint, or one each, 0 where one is not trained; None: none is."""
    parts: tuple[Part, ...] = ("te", "te2") if info.family == "sdxl" else ("te",)
    rates = tuple(prepared.paces[part].lr if part in prepared.network.parts else 0.0 for part in parts)
    if not any(rates):
        return None
    return rates[0] if len(set(rates)) == 1 else rates


def _buckets(buckets: Buckets, prepared: PreparedPictures) -> tuple[BucketFacts, ...]:
    """kohya's table of sizes: pictures, repeats counted, by bucket."""
    counts: defaultdict[Bucket, float] = defaultdict(float)
    for picture in prepared.pictures:
        counts[buckets.bucket(picture.width_px, picture.height_px)] += picture.repeats
    return tuple(BucketFacts(size.width_px, size.height_px, round(counts[size])) for size in sorted(counts))


def _folders(prepared: PreparedPictures, root: Path) -> dict[str, FolderFacts]:
    """kohya's tables by folder: repeats, pictures, and how often each tag occurs in the captions as trained."""
    by_concept: dict[str, list[str]] = {}
    repeats: dict[str, int] = {}
    for picture in prepared.pictures:
        by_concept.setdefault(picture.concept, []).append(picture.flat)
        repeats[picture.concept] = max(1, round(picture.repeats))
    return {
        f"{repeats[concept]}_{concept}": FolderFacts(
            repeats=repeats[concept], images=len(captions), tags=dict(tag_counts(captions))
        )
        for concept, captions in by_concept.items()
    } or {root.name: FolderFacts()}
