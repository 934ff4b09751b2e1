"""A run is compiled once: its settings become flat parts, resolved for its pictures, whichever host they will meet.

`compile_run` gives a `Prepared`, after which nobody asks `Run` again; `build` makes what works on a host of it. This is
the only place where the sections of a run are read for training.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from lib_pivotal.bundle.embedding_files import read_embedding
from lib_pivotal.bundle.writer import DTYPES
from lib_pivotal.config import (
    DataConfig,
    EmbeddingConfig,
    EmbeddingsConfig,
    LossConfig,
    NetworkConfig,
    NoiseConfig,
    RegularisationConfig,
    Run,
    ScheduleConfig,
    StartConfig,
    run_to_dict,
    steps_of,
)
from lib_pivotal.config_checks import number_lines, option_lines
from lib_pivotal.data import lint
from lib_pivotal.data.buckets import Buckets
from lib_pivotal.data.caption_chain import Captions, CaptionSettings, parse_lists, read_lists
from lib_pivotal.data.captions import EmbeddingFinder, single_tags, split_tags
from lib_pivotal.data.latents import ViewSettings
from lib_pivotal.data.mixing import class_text, narugo_batch
from lib_pivotal.data.records import DatasetProblem, Picture
from lib_pivotal.data.tags import same_tag
from lib_pivotal.embeddings.vectors import EmbeddingSettings
from lib_pivotal.files import typed_path
from lib_pivotal.networks.targets import LayerRule, part_rules
from lib_pivotal.ports import PARTS, Part, SessionRequest
from lib_pivotal.training.embeddings_only import EmbeddingsOnly
from lib_pivotal.training.epochs import settled
from lib_pivotal.training.first_phase import FirstPhaseEnd
from lib_pivotal.training.loop import LoopSettings
from lib_pivotal.training.objective import NoiseSettings, Objective, build_objective
from lib_pivotal.training.prepare import PreparedPictures
from lib_pivotal.training.prepared import (
    BatchPlan,
    CaptionPlan,
    ControlPlan,
    EmbeddingStart,
    LatentPlan,
    NetworkPlan,
    OptimizerPlan,
    OutputPlan,
    Pace,
    Prepared,
    SidePlan,
    TermPlan,
    TextWarmUpPlan,
    TokenIds,
)
from lib_pivotal.training.pruned_captions import embedding_of_concepts, samples_by_repeats
from lib_pivotal.training.rates import PhasePlan, rate_factor
from lib_pivotal.training.results import NAMELESS, Results
from lib_pivotal.training.scanning import PictureParts
from lib_pivotal.training.seeds import derive_seed
from lib_pivotal.training.start_file import StartPlan
from lib_pivotal.training.training_metadata import settings_facts
from lib_pivotal.training.validation import ValidationPlan


def compile_run(run: Run, found: PreparedPictures) -> Prepared:
    """Resolve a run for its pictures, as `prepare_pictures` found them.

    Raises:
        ConfigError: a length in epochs is too short for what is to fit in.
        DataError, BundleError: a list of words, or the file of an embedding, cannot be read.
    """
    run = settled(replace(with_name(run, NAMELESS), embeddings=found.embeddings), found.dataset.pictures)
    data, schedule, saving = run.data, run.schedule, run.saving
    names = tuple(embedding.name for embedding in run.embeddings)
    parts, buckets, phases = PictureParts(data), make_buckets(data), make_phase_plan(schedule, run.network)
    classes, nouns = found.regularisation, class_texts(run.embeddings, run.regularisation)
    return Prepared(
        name=run.name,
        seed=run.seed,
        settings=run_to_dict(run),
        pictures=found,
        notices=(*found.dataset.problems, *picture_remarks(run, found, parts, buckets), *found.remarks),
        session=session_request(run),
        zero_terminal_snr=run.noise.zero_terminal_snr,
        embeddings=embedding_starts(run.embeddings, run.embeddings_common),
        control=control_plan(run.embeddings, run.embeddings_common, found),
        text_warm_up=text_warm_up_plan(run.embeddings, run.embeddings_common, found),
        terms=term_plan(run.embeddings_common, nouns),
        network=network_plan(run.network),
        start=start_plan(run.start),
        paces=paces(run.embeddings_common, run.network, schedule),
        optimizer=OptimizerPlan(schedule.optimizer, option_lines(schedule.optimizer_options), schedule.ema_decay),
        objective=make_objective(run.loss, run.noise, mask_prior=data.mask_prior),
        phases=phases,
        rate_factor=make_rate_factor(schedule, phases),
        embeddings_only=EmbeddingsOnly(
            schedule.embeddings_only_share, schedule.embedding_gradient_factor, run.seed, schedule.accumulation
        ),
        first_phase_end=first_phase_end(schedule),
        latents=latent_plan(run, found, buckets, parts),
        class_latents=class_latent_plan(run, classes, buckets) if classes else None,
        validation_latents=validation_latent_plan(run, found.validation, buckets) if found.validation else None,
        validation=validation_plan(run),
        batches=batch_plan(run, found, parts),
        class_batches=class_batch_plan(run, classes) if classes else None,
        sides=SidePlan(
            run.regularisation.weight,
            run.regularisation.target == "prior",
            run.regularisation.preservation,
            nouns,
        ),
        loop=LoopSettings(
            name=run.name,
            seed=run.seed,
            max_steps=schedule.total_steps,
            network_timesteps=(run.network.timestep_min, run.network.timestep_max),
            module_dropout=run.network.module_dropout,
            save_every_steps=saving.every_steps,
            state_every_steps=saving.state_every_steps,
            keep_states=saving.keep_states,
            sample_every_steps=saving.sample_every_steps,
            separation_every_steps=saving.separation_every_steps,
        ),
        outputs=OutputPlan(
            dtype=DTYPES[saving.dtype],
            embedding_files=saving.embedding_files,
            keep_sampled=saving.keep_sampled,
            sampled=tuple(name for name in names if name in saving.sample_embeddings) or names,
            prompts=saving.sample_prompts or ("{word}",),
            side_px=data.resolution_px,
        ),
        results=Results.of(run),
        facts=settings_facts(run, found, buckets),
    )


def embedding_starts(embeddings: Sequence[EmbeddingConfig], common: EmbeddingsConfig) -> tuple[EmbeddingStart, ...]:
    """The run's embeddings, in its order; files that they begin with are read here, before anything is encoded.

    Raises:
        BundleError: a file cannot be read, or is no embedding.
    """
    return tuple(
        EmbeddingStart(
            embedding.name,
            embedding.vectors,
            embedding.init_text or "random",
            read_embedding(embedding.init_file).vectors if embedding.init_file else None,
            common.initial_std,
            common.keep_commas,
            common.whole_tags,
            common.start,
            EmbeddingSettings(
                lr_factor=embedding.lr_factor,
                weight_decay=embedding.weight_decay,
                freeze_fraction=embedding.freeze_at,
                freeze_step=embedding.freeze_step,
                freeze_norm=embedding.freeze_norm,
                continued_lr_factor=embedding.continued_lr_factor,
            ),
        )
        for embedding in embeddings
    )


def control_plan(
    embeddings: Sequence[EmbeddingConfig], common: EmbeddingsConfig, found: PreparedPictures
) -> ControlPlan:
    """What keeps the norms of the run's embeddings."""
    texts = tuple(known_texts(embeddings, found))
    return ControlPlan(common.control, common.norm_target, common.direction_kappa, texts)


def text_warm_up_plan(
    embeddings: Sequence[EmbeddingConfig], common: EmbeddingsConfig, found: PreparedPictures
) -> TextWarmUpPlan:
    """What each embedding is to say before it has seen a picture: its init text, and tags pruned for its sake."""
    texts = {}
    for embedding in embeddings:
        begins = split_tags(class_text(embedding.init_text))
        tags = dict.fromkeys(same_tag(tag) for tag in (*begins, *found.pruned_tags.get(embedding.name, ())))
        texts[embedding.name] = ", ".join(tags)
    return TextWarmUpPlan(common.text_steps, common.lr, texts)


def term_plan(common: EmbeddingsConfig, classes: Mapping[str, str]) -> TermPlan:
    """The run's losses on the embeddings alone; `classes`: see `class_texts`."""
    return TermPlan(
        common.start_weight,
        common.editability,
        common.editability_weight,
        classes,
        common.editability_prompts,
    )


def known_texts(embeddings: Sequence[EmbeddingConfig], found: PreparedPictures) -> list[str]:
    """Tags of captions and init texts, each once, without the names of embeddings: words that the model is to know."""
    texts = [class_text(embedding.init_text) for embedding in embeddings]
    texts += [text for picture in found.pictures for text in (picture.caption, *picture.alternatives)]
    nameless = dict.fromkeys((embedding.name for embedding in embeddings), "")
    tags = (tag for text in texts for tag in single_tags(found.find.replace(text, nameless)))
    return list(dict.fromkeys(tags))


def network_plan(network: NetworkConfig) -> NetworkPlan:
    """The run's network, of all its parts."""
    return NetworkPlan(
        network.algorithm,
        tuple(rule for part in PARTS for rule in network_rules(network, part)),
        frozenset(part for part in PARTS if network.trains(part)),
        network.te2_targets,
        network.max_norm,
        network.l1,
        network.up_lr_factor,
        network.options,
    )


def start_plan(start: StartConfig) -> StartPlan | None:
    """The file that the run begins from; None: nothing is taken from a file."""
    if not start.init_file:
        return None
    return StartPlan(typed_path(start.init_file), start.network, start.embeddings)  # type: ignore[arg-type]


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
            algorithm=group.algorithm,
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


def paces(common: EmbeddingsConfig, network: NetworkConfig, schedule: ScheduleConfig) -> dict[str, Pace]:
    """How embeddings (`embeddings`) and each part of the network move."""
    found = {"embeddings": Pace(common.lr, common.weight_decay, schedule.clip_embeddings)}
    for part in PARTS:
        found[part] = Pace(network.lr_of(part), network.weight_decay, schedule.clip_network)
    return found


def make_objective(loss: LossConfig, noise: NoiseConfig, *, mask_prior: float) -> Objective:
    """How the run's samples are made noisy, and how their errors count."""
    return build_objective(
        loss.kind,
        loss.weighting,
        gamma=loss.snr_gamma or None,
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
        mask_prior=mask_prior,
        scale_v_like_noise=loss.scale_v_like_noise,
        dco_beta=loss.dco_beta,
    )


# ---- when and how fast ----


def make_phase_plan(settings: ScheduleConfig, network: NetworkConfig) -> PhasePlan:
    """Who trains when."""
    return PhasePlan(
        settings.total_steps,
        kind=settings.phases,
        embeddings_steps=settings.embeddings_steps,
        continued_embedding_lr_factor=settings.continued_embedding_lr_factor,
        network_start=settings.network_start,
        te_stop=settings.te_stop,
        network_ramp=network.lr_ramp,
        network_ramp_start=network.lr_ramp_start,
    )


def first_phase_end(settings: ScheduleConfig) -> FirstPhaseEnd:
    """When the first phase of a two-phase run ends by itself."""
    if not settings.first_phase_ends_itself:
        return FirstPhaseEnd()
    return FirstPhaseEnd(
        settings.embeddings_patience,
        settings.embeddings_look_steps,
        settings.embeddings_least_steps,
        settings.embeddings_steps,
    )


def make_rate_factor(settings: ScheduleConfig, plan: PhasePlan) -> Callable[[int], float]:
    """Factor of all rates by step; each phase of a two-phase run has its own curve."""
    lengths = {plan.rate_position(step)[1] for step in (0, plan.max_steps - 1)}
    warmups = {steps: settings.warmup_of(steps) for steps in lengths}
    curve = partial(
        rate_factor,
        settings.lr_scheduler,
        final_factor=settings.final_factor,
        cycles=settings.lr_scheduler_cycles,
        power=settings.lr_scheduler_power,
    )

    def factor(step: int) -> float:
        position, steps = plan.rate_position(step)
        return curve(position, max_steps=steps, warmup_steps=warmups[steps])

    return factor


# ---- the model ----


def session_request(run: Run) -> SessionRequest:
    """How the run wants the model."""
    return SessionRequest(
        gradient_checkpointing=run.memory.gradient_checkpointing,
        precision=run.memory.precision,  # type: ignore[arg-type]
        clip_skip=run.clip_skip,
        train_text_encoder=run.network.trains("te") or run.network.trains("te2"),
    )


def caption_plan(run: Run, embedding_of_concept: Mapping[str, str], differing: Mapping[str, DataConfig]) -> CaptionPlan:
    """Captions of the run, and of the pictures that have settings of their own, by key."""
    data, schedule = run.data, run.schedule

    def of(data: DataConfig) -> CaptionSettings:
        return replace(
            _any_captions(data),
            prefix=data.prefix,
            suffix=data.suffix,
            templates=data.templates,
            dropout_epochs=data.caption_dropout_epochs,
            bare=data.bare_caption,
            warmup_steps=steps_of(data.caption_warmup_steps, schedule.total_steps),
            warmup_tags=data.caption_warmup_tags,
            max_tags=data.max_tags,
            fields=number_lines(data.caption_fields),
        )

    settings = {id(own): of(own) for own in differing.values()}
    return CaptionPlan(
        of(data),
        {key: settings[id(own)] for key, own in differing.items()},
        embedding_of_concept,
        {embedding.name: embedding.vectors for embedding in run.embeddings},
        _lists(run),
        data.max_tokens,
        class_nouns(run.embeddings, run.regularisation) if data.bare_caption_class else {},
    )


def class_nouns(embeddings: Sequence[EmbeddingConfig], kept: RegularisationConfig) -> dict[str, str]:
    """What each embedding is one of, where that is said: its own class, else the run's."""
    nouns = {one.name: one.class_text.strip() or kept.class_text.strip() for one in embeddings}
    return {name: noun for name, noun in nouns.items() if noun}


def make_captions(
    run: Run,
    embedding_of_concept: Mapping[str, str],
    token_ids: TokenIds | None = None,
    pictures: Sequence[Picture] = (),
) -> Captions:
    """`caption_plan`'s chain, for whoever looks at captions without training."""
    return caption_plan(run, embedding_of_concept, PictureParts(run.data).differing(pictures)).chain(token_ids)


def class_caption_plan(run: Run) -> CaptionPlan:
    """The same for the second folder: what speaks of the run's own pictures (templates, prefix) is left out."""
    return CaptionPlan(_any_captions(run.data), lists=_lists(run))


def _any_captions(data: DataConfig) -> CaptionSettings:
    """What holds for captions of the run's pictures and of the second folder's alike."""
    return CaptionSettings(
        shuffle=data.shuffle_tags,
        keep_first=data.keep_first,
        keep_separator=data.keep_separator,
        tag_dropout=data.tag_dropout,
        tag_classes=number_lines(data.tag_dropout_classes),
        drop_mode=data.tag_dropout_mode,  # type: ignore[arg-type]
        caption_dropout=data.caption_dropout,
        wildcards=data.wildcards,
        emphasis=data.emphasis,
    )


def _lists(run: Run) -> dict[str, tuple[str, ...]]:
    """What wildcards and templates draw from."""
    data = run.data
    return {**(read_lists(data.wildcard_folder) if data.wildcard_folder else {}), **parse_lists(data.word_lists)}


def picture_remarks(
    run: Run, prepared: PreparedPictures, parts: PictureParts, buckets: Buckets
) -> list[DatasetProblem]:
    """What is to be known of how the pictures are trained: see `dataset_remarks`."""
    keys = {picture.key for picture in (*prepared.pictures, *prepared.held_out)}
    originals = [picture for picture in prepared.dataset.pictures if picture.key in keys]
    return dataset_remarks(originals, run.embeddings, parts, buckets)


def dataset_remarks(
    pictures: Sequence[Picture], embeddings: Sequence[EmbeddingConfig], parts: PictureParts, buckets: Buckets
) -> list[DatasetProblem]:
    """What is cut off of pictures, and which should not be mirrored, by their captions as they are on disk: what an
    embedding absorbs may belong to one side."""
    names, keys = [embedding.name for embedding in embeddings], mirrored(parts, embeddings, pictures)
    return lint.cut_remarks(pictures, buckets) + lint.mirror_remarks(pictures, embeddings=names, keys=keys)


def mirrored(parts: PictureParts, embeddings: Sequence[EmbeddingConfig], pictures: Sequence[Picture]) -> frozenset[str]:
    """Keys of the pictures that are mirrored half of the time: those of no embedding that is against it."""
    against = [embedding.name for embedding in embeddings if not embedding.flip]
    find = EmbeddingFinder(against)
    return frozenset(p.key for p in pictures if parts.settings_of(p).flip and not (against and find(p.caption)))


def showings(own: Mapping[str, DataConfig]) -> dict[str, ViewSettings]:
    """How pictures with settings of their own are shown, by key."""
    return {
        key: ViewSettings(
            crop=data.crop,  # type: ignore[arg-type]
            crops=data.crops,
            transparency=data.transparency,  # type: ignore[arg-type]
            masks=None if data.masks == "none" else data.masks,  # type: ignore[arg-type]
        )
        for key, data in own.items()
    }


def latent_plan(run: Run, found: PreparedPictures, buckets: Buckets, parts: PictureParts) -> LatentPlan:
    """How the run's own pictures become latents, those of a part in their own way."""
    data, shown = run.data, (*found.pictures, *found.held_out)
    return _latents(
        run,
        shown,
        buckets,
        flip=mirrored(parts, run.embeddings, found.pictures),
        find_boxes="face" in (data.crop, *(part.crop for part in data.parts)),
        crops=data.crops,
        scale=data.scale_augmentation,
        plain=frozenset(picture.key for picture in found.held_out),
        own=showings(parts.differing(shown)),
    )


def class_latent_plan(run: Run, pictures: tuple[Picture, ...], buckets: Buckets) -> LatentPlan:
    """The same for the second folder: one cut a picture."""
    return _latents(run, pictures, buckets, flip=run.data.flip, find_boxes=run.data.crop == "face")


def validation_latent_plan(run: Run, pictures: tuple[Picture, ...], buckets: Buckets) -> LatentPlan:
    """The same for the validation folder: one cut a picture, never mirrored."""
    return _latents(run, pictures, buckets, flip=False, find_boxes=run.data.crop == "face")


def validation_plan(run: Run) -> ValidationPlan:
    """When held-out pictures are measured, and what follows."""
    settings = run.validation
    return ValidationPlan(
        settings.every_steps,
        settings.patience,
        settings.keep_best,
        settings.noise_levels,
        run.schedule.batch_size,
    )


def _latents(
    run: Run,
    pictures: tuple[Picture, ...],
    buckets: Buckets,
    *,
    flip: bool | frozenset[str],
    find_boxes: bool,
    **varied: Any,
) -> LatentPlan:
    data = run.data
    return LatentPlan(
        pictures,
        find_boxes,
        buckets,
        folder=Path(data.cache_folder) if data.cache_folder else None,
        memory_bytes=run.memory.latents_mb * 2**20 or None,
        flip=flip,
        transparency=data.transparency,  # type: ignore[arg-type]
        masks=None if data.masks == "none" else data.masks,  # type: ignore[arg-type]
        mask_normalise=data.mask_normalise,
        mask_minimum=data.mask_minimum,
        mask_temperature=data.mask_temperature,
        seed=run.seed,
        **varied,
    )


def batch_plan(run: Run, found: PreparedPictures, parts: PictureParts) -> BatchPlan:
    """Batches of the run's own pictures: captions, weights and rates by its settings."""
    data, schedule, pictures = run.data, run.schedule, (*found.pictures, *found.held_out)
    return BatchPlan(
        pictures,
        caption_plan(run, embedding_of_concepts(run.embeddings, found.dataset), parts.differing(pictures)),
        schedule.batch_size,
        schedule.accumulation,
        tuple(embedding.name for embedding in run.embeddings),
        run.seed,
        data.random_latent,
        unmasked=data.mask_off,
        sampling_weights=sampling_weights(run, found),
        loss_weights=parts.loss_weights(found.pictures),
    )


def class_batch_plan(run: Run, pictures: tuple[Picture, ...]) -> BatchPlan:
    """Batches of the second folder."""
    return BatchPlan(
        pictures,
        class_caption_plan(run),
        class_batch_size(run),
        run.schedule.accumulation,
        tuple(embedding.name for embedding in run.embeddings),
        derive_seed("class pictures", run.seed),
        run.data.random_latent,
    )


def sampling_weights(run: Run, prepared: PreparedPictures) -> dict[str, float] | None:
    """How often each trained picture comes, where repeats do not say it all."""
    if samples_by_repeats(run) and not prepared.held_out:
        return None
    rates = prepared.sampling_rates
    return {picture.key: rates.get(picture.key, float(picture.repeats)) for picture in prepared.pictures}


def make_buckets(data: DataConfig) -> Buckets:
    """Sizes that pictures are brought to."""
    return Buckets(
        data.resolution_px,
        data.bucket_step_px,
        upscale=data.upscale,
        bucketing=data.bucketing,
        crop=data.crop,  # type: ignore[arg-type]
        most_cropped=data.most_cropped if data.bucketing else 1.0,
    )


def class_batch_size(run: Run) -> int:
    """Pictures of the second folder in a micro-batch: as set or by narugo's rule."""
    schedule = run.schedule
    return run.regularisation.batch_size or narugo_batch(schedule.batch_size, max_steps=schedule.max_steps)


def class_texts(embeddings: Sequence[EmbeddingConfig], kept: RegularisationConfig) -> dict[str, str]:
    """What each embedding is in words that the model knows: its class, else the tags that it begins with."""
    nouns = class_nouns(embeddings, kept)
    return {one.name: class_text(one.init_text, nouns.get(one.name, "")) for one in embeddings}


def with_name(run: Run, fallback: str) -> Run:
    """The run with a file name: its own, else `fallback`."""
    return run if run.name else replace(run, name=fallback)
