"""Settings into parts: the only place where config objects meet the classes that do the work."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import torch
from torch import nn

from lib_pivotal.bundle.embedding_files import read_embedding
from lib_pivotal.config import MemoryConfig, NetworkConfig, NoiseConfig, Run, ScheduleConfig, steps_of
from lib_pivotal.config_checks import number_lines
from lib_pivotal.data.batches import BatchSource
from lib_pivotal.data.buckets import Buckets
from lib_pivotal.data.caption_chain import CaptionPipeline, Captions, CaptionsByPart, CaptionSettings
from lib_pivotal.data.mixing import Mixture, Side, class_text, narugo_batch
from lib_pivotal.data.records import Picture
from lib_pivotal.data.tokens import TokenCounter
from lib_pivotal.data.word_lists import parse_lists, read_lists
from lib_pivotal.embeddings.control import NormControl, make_control
from lib_pivotal.embeddings.initial import initial_vectors, vectors_from_tensors
from lib_pivotal.embeddings.vectors import Words, WordSettings
from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.network import Network, build_network
from lib_pivotal.networks.targets import LayerRule, part_rules
from lib_pivotal.ports import PARTS, Denoiser, Host, Layer, Part, SessionRequest, TextEncoder
from lib_pivotal.prompts import PromptReading
from lib_pivotal.training.objective import NoiseSettings, Objective, build_objective
from lib_pivotal.training.picture_parts import PictureParts
from lib_pivotal.training.rates import PhasePlan, rate_factor
from lib_pivotal.training.schedule import NoiseSchedule
from lib_pivotal.training.seeds import derived_generator
from lib_pivotal.training.step import MicroStep
from lib_pivotal.training.trainable import Kind, TrainedGroup


def network_rules(settings: NetworkConfig, part: Part) -> list[LayerRule]:
    """The rules of one part, or none where the part is not trained."""
    unet = part == "unet"
    if not settings.trains(part):
        return []
    rank, alpha = (settings.unet_rank, settings.unet_alpha) if unet else (settings.te_rank, settings.te_alpha)
    groups = [
        LayerRule(
            pattern=group.pattern,
            rank=group.rank,
            alpha=group.alpha or float(group.rank),
            lr_factor=group.lr_factor,
            dropout=settings.dropout,
            rank_dropout=settings.rank_dropout,
            group=group.pattern,
        )
        for group in settings.groups
    ]
    return part_rules(
        part,
        settings.targets_of(part),
        rank=rank,
        alpha=alpha or float(rank),
        dropout=settings.dropout,
        rank_dropout=settings.rank_dropout,
        groups=groups,
    )


def make_network(run: Run, layers: Sequence[Layer], device: torch.device) -> Network | None:
    """The network of a run, new; None where only words are trained."""
    rules = [rule for part in PARTS for rule in network_rules(run.network, part)]
    if not rules:
        return None
    if not any(run.network.trains(part) for part in {layer.part for layer in layers}):
        raise NetworkError(
            f"network.te2_targets = {run.network.te2_targets!r}: this checkpoint has no second text encoder, and "
            "nothing else would get a network. Choose layers of the U-Net or the text encoder, or an SDXL checkpoint."
        )
    return build_network(layers, rules, algorithm=run.network.algorithm, seed=run.seed, device=device)


def make_words(run: Run, text: TextEncoder, device: torch.device) -> Words:
    """The words at their start: from an embedding file, from init text, or by chance; each from its own seed."""
    vectors, settings = {}, {}
    for index, word in enumerate(run.words):
        generator = derived_generator("word", run.seed, index)
        if word.init_file:
            tensors = read_embedding(word.init_file).vectors
            vectors[word.name] = vectors_from_tensors(tensors, word.vectors, encoder=text, generator=generator)
        else:
            vectors[word.name] = initial_vectors(
                word.init_text or "random",
                word.vectors,
                encoder=text,
                generator=generator,
                std=run.words_common.initial_std,
                keep_commas=run.words_common.keep_commas,
            )
        settings[word.name] = WordSettings(
            lr_factor=word.lr_factor,
            weight_decay=word.weight_decay,
            freeze_fraction=word.freeze_at,
            freeze_step=word.freeze_step,
            freeze_norm=word.freeze_norm,
        )
    return Words(vectors, settings, device=device)


def make_word_control(run: Run, text: TextEncoder) -> NormControl:
    """What keeps the vectors in range after each step."""
    return make_control(run.words_common.control, text.vocabulary_stats())


def trained_groups(run: Run, words: Words, network: Network | None) -> list[TrainedGroup]:
    """One group a word, and the network's groups by part."""
    groups = []
    for word in words.parameter_groups():
        groups.append(
            TrainedGroup(
                name=f"word {word.name}",
                kind="words",
                parameters=tuple(word.parameters),
                lr=run.words_common.lr,
                lr_factor=word.lr_factor,
                weight_decay=run.words_common.weight_decay + word.weight_decay,
                clip_norm=run.schedule.clip_words,
            )
        )
    for group in network.parameter_groups() if network is not None else []:
        kind: Kind = "unet" if group.part == "unet" else "te"
        groups.append(
            TrainedGroup(
                name=group.name,
                kind=kind,
                parameters=tuple(group.parameters),
                lr=run.network.lr_of(group.part),
                lr_factor=group.lr_factor,
                weight_decay=run.network.weight_decay,
                clip_norm=run.schedule.clip_network,
            )
        )
    return groups


def make_objective(run: Run) -> Objective:
    """How the run's samples are made noisy, and how their errors count."""
    loss, noise = run.loss, run.noise
    return build_objective(
        loss.kind,
        loss.weighting,
        gamma=loss.snr_gamma,
        huber_threshold=loss.huber_delta,
        huber_schedule=loss.huber_schedule,
        noise=NoiseSettings(
            offset=noise.offset,
            adaptive_offset=noise.adaptive_offset,
            random_offset=noise.random_offset,
            multires_iterations=noise.multires_iterations,
            multires_discount=noise.multires_discount,
            perturbation=noise.perturbation,
            random_perturbation=noise.random_perturbation,
            timestep_min=noise.timestep_min,
            timestep_max=noise.timestep_max,
            timestep_distribution=noise.timestep_distribution,
        ),
        mask_prior=run.data.mask_prior,
        scale_v_like_noise=loss.scale_v_like_noise,
    )


def make_noise_schedule(host: Host, settings: NoiseConfig) -> NoiseSchedule:
    """The checkpoint's schedule, rescaled if wanted."""
    return NoiseSchedule(
        host.alphas_cumprod,
        v_prediction=host.info.v_prediction,
        zero_terminal_snr=settings.zero_terminal_snr,
    )


def make_phase_plan(settings: ScheduleConfig) -> PhasePlan:
    """Who trains when."""
    return PhasePlan(
        settings.max_steps,
        kind=settings.phases,
        words_steps=settings.words_steps,
        continued_words_factor=settings.continued_words_factor,
        network_start=settings.network_start,
        te_stop=settings.te_stop,
    )


def make_rate_factor(settings: ScheduleConfig, plan: PhasePlan) -> Callable[[int], float]:
    """Factor of all rates by step; each phase of a two-phase run has its own curve."""

    def factor(step: int) -> float:
        position, steps = plan.rate_position(step)
        return rate_factor(
            settings.rate,
            position,
            max_steps=steps,
            warmup_steps=settings.warmup_of(steps),
            final_factor=settings.final_factor,
            cycles=settings.rate_cycles,
            power=settings.rate_power,
        )

    return factor


def autocast_dtype(settings: MemoryConfig, weights: nn.Module | None) -> torch.dtype | None:
    """Arithmetic of the frozen model: None = as its weights are, where these are fp32."""
    named = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}
    if settings.precision in named:
        return named[settings.precision]
    if weights is None:
        return None
    dtype = next((parameter.dtype for parameter in weights.parameters()), torch.float32)
    return dtype if dtype in (torch.float16, torch.bfloat16) else None


def session_request(run: Run) -> SessionRequest:
    """How the run wants the model."""
    return SessionRequest(
        gradient_checkpointing=run.memory.gradient_checkpointing,
        precision=run.memory.precision,  # type: ignore[arg-type]
        clip_skip=run.clip_skip,
        train_text_encoder=run.network.trains("te") or run.network.trains("te2"),
    )


def make_micro_step(
    run: Run, host: Host, network: Network | None, *, text: TextEncoder | None = None, denoiser: Denoiser | None = None
) -> MicroStep:
    """The forward half of a step, on the host's own text encoder and U-Net or on what stands for them."""
    return MicroStep(
        text or host.text,
        denoiser or host.denoiser,
        schedule=make_noise_schedule(host, run.noise),
        objective=make_objective(run),
        device=host.device,
        autocast_dtype=autocast_dtype(run.memory, host.layers()[0].module),
        network_off=nullcontext if network is None else lambda: network.with_multipliers(unet=0.0, te=0.0),
    )


def make_buckets(run: Run) -> Buckets:
    """Sizes that pictures are brought to."""
    data = run.data
    return Buckets(
        data.resolution_px,
        data.bucket_step_px,
        upscale=data.upscale,
        bucketing=data.bucketing,
        crop=data.crop,  # type: ignore[arg-type]
        most_cropped=data.most_cropped if data.bucketing else 1.0,
    )


def make_captions(
    run: Run,
    word_of_concept: dict[str, str],
    token_ids: Callable[[str], list[int]] | None = None,
    pictures: Sequence[Picture] = (),
) -> Captions:
    """The chain that each caption goes through at each draw, and those of `pictures` that have settings of their own;
    `token_ids` counts where captions have a limit."""
    common = _make_chain(run, word_of_concept, token_ids)
    differing = PictureParts(run.data).differing(pictures)
    chains = {id(data): _make_chain(replace(run, data=data), word_of_concept, token_ids) for data in differing.values()}
    return CaptionsByPart(common, {key: chains[id(data)] for key, data in differing.items()}) if chains else common


def _make_chain(
    run: Run, word_of_concept: dict[str, str], token_ids: Callable[[str], list[int]] | None
) -> CaptionPipeline:
    data, schedule = run.data, run.schedule
    settings = CaptionSettings(
        prefix=data.prefix,
        suffix=data.suffix,
        templates=data.templates,
        shuffle=data.shuffle_tags,
        keep_first=data.keep_first,
        keep_separator=data.keep_separator,
        tag_dropout=data.tag_dropout,
        tag_classes=number_lines(data.tag_dropout_classes),
        drop_mode=data.tag_dropout_mode,  # type: ignore[arg-type]
        caption_dropout=data.caption_dropout,
        dropout_epochs=data.caption_dropout_epochs,
        warmup_steps=steps_of(data.caption_warmup_steps, schedule.max_steps),
        warmup_tags=data.caption_warmup_tags,
        max_tags=data.max_tags,
        wildcards=data.wildcards,
        emphasis=data.emphasis,
        fields=number_lines(data.caption_fields),
    )
    shorten = None
    if data.max_tokens and token_ids is not None:
        counter = TokenCounter({word.name: word.vectors for word in run.words}, PromptReading(token_ids))
        shorten = partial(counter.shorten, limit=data.max_tokens)
    return CaptionPipeline(
        settings,
        words=word_of_concept,
        protected=[word.name for word in run.words],
        lists=_lists(run),
        shorten=shorten,
    )


def _lists(run: Run) -> dict[str, tuple[str, ...]]:
    """What wildcards and templates draw from."""
    data = run.data
    return {**(read_lists(data.wildcard_folder) if data.wildcard_folder else {}), **parse_lists(data.word_lists)}


def make_class_captions(run: Run) -> CaptionPipeline:
    """The same for the second folder: what speaks of the run's own pictures (templates, prefix) is left out."""
    data = run.data
    return CaptionPipeline(
        CaptionSettings(
            shuffle=data.shuffle_tags,
            keep_first=data.keep_first,
            keep_separator=data.keep_separator,
            tag_dropout=data.tag_dropout,
            tag_classes=number_lines(data.tag_dropout_classes),
            drop_mode=data.tag_dropout_mode,  # type: ignore[arg-type]
            caption_dropout=data.caption_dropout,
            wildcards=data.wildcards,
            emphasis=data.emphasis,
        ),
        lists=_lists(run),
    )


def class_batch_size(run: Run, *, processes: int = 1) -> int:
    """Pictures of the second folder in a micro-batch: as set or by narugo's rule, shared evenly by the processes."""
    schedule = run.schedule
    wanted = run.regularisation.batch_size or narugo_batch(schedule.batch_size, max_steps=schedule.max_steps)
    return -(-wanted // processes) * processes


def make_mixture(run: Run, own: BatchSource, class_source: BatchSource | None) -> Mixture:
    """All sets of a step."""
    settings = run.regularisation
    texts = {word.name: class_text(word.init_text, settings.class_text) for word in run.words}
    sides = []
    if class_source is not None:
        prior = settings.target == "prior"
        sides.append(Side("class pictures", class_source, settings.weight, texts if prior else {}, prior))
    if settings.preservation > 0:
        sides.append(Side("preservation", own, settings.preservation, texts, prior=True))
    return Mixture(own, sides)


def with_name(run: Run, fallback: str) -> Run:
    """The run with a file name: its own, else `fallback`."""
    return run if run.name else replace(run, name=fallback)
