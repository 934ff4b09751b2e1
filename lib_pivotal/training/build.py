"""A compiled run on a host: latents, batches, embeddings, network, step, and the trainer over them.

Everything here takes parts of a `Prepared` and a host whose session is open; settings are asked nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from lib_pivotal.bundle.format import EmbeddingTensors
from lib_pivotal.data.batches import BatchSource
from lib_pivotal.data.crops import with_focus
from lib_pivotal.data.latents import LatentCache
from lib_pivotal.data.mixing import MixedBatchSource, PriorSet
from lib_pivotal.data.records import Picture
from lib_pivotal.embeddings.control import NormControl, make_control, make_step
from lib_pivotal.embeddings.editability import Editability
from lib_pivotal.embeddings.initial import initial_vectors, vectors_from_tensors
from lib_pivotal.embeddings.norm_targets import norm_targets
from lib_pivotal.embeddings.terms import EmbeddingTerm, EmbeddingTerms, StartDistance
from lib_pivotal.embeddings.text_warm_up import warm_up
from lib_pivotal.embeddings.vectors import TrainedEmbeddings
from lib_pivotal.errors import NetworkError
from lib_pivotal.networks.network import Network, build_network
from lib_pivotal.parameter_groups import ParameterGroup
from lib_pivotal.ports import Denoiser, Host, Layer, TextEncoder, TrainingBatch
from lib_pivotal.training.distributed import ProcessGroup
from lib_pivotal.training.events import Commands, Listener, Notice, Preparing
from lib_pivotal.training.loop import Trainer
from lib_pivotal.training.model_yield import ModelYield
from lib_pivotal.training.objective import NoiseSettings, Objective
from lib_pivotal.training.outputs import Evaluation, MeasuredPictures, RunOutputs
from lib_pivotal.training.prepared import (
    BatchPlan,
    EmbeddingStart,
    LatentPlan,
    NetworkPlan,
    Pace,
    Prepared,
    SidePlan,
    TermPlan,
    TextWarmUpPlan,
    TokenIds,
)
from lib_pivotal.training.progress import Progress
from lib_pivotal.training.pruned_captions import held_out_group
from lib_pivotal.training.schedule import NoiseSchedule
from lib_pivotal.training.seeds import derived_generator
from lib_pivotal.training.start_file import FrozenParts, read_start
from lib_pivotal.training.step import MicroStep
from lib_pivotal.training.trainable import Trainable


@dataclass(frozen=True, eq=False)
class TrainedParts:
    """What a run trains and what it keeps as it is; `remarks` on the file that it begins from."""

    embeddings: TrainedEmbeddings
    network: Network | None
    frozen: FrozenParts = field(default_factory=FrozenParts)
    remarks: tuple[str, ...] = ()
    taken: frozenset[str] = frozenset()
    """Embeddings whose vectors come from that file: they have learnt their tags."""


def build_trainer(
    prepared: Prepared,
    host: Host,
    parts: TrainedParts,
    *,
    output_folder: Path,
    log_folder: Path,
    state_folder: Path,
    basis: Mapping[str, Any],
    listener: Listener,
    commands: Commands,
    overwrite: bool,
    world: ProcessGroup,
    model_yield: ModelYield | None,
    evaluation: Evaluation | None,
    continued: bool = False,
) -> tuple[Trainer, Network | None]:
    """Everything that a trainer needs, on a host whose session is open; a `continued` run's embeddings have begun."""
    with host.codec.placed():
        sources = _sources(prepared, host, log_folder, listener, commands=commands, world=world)
        cache, source = sources.own, sources.batches
    embeddings, network, moves = parts.embeddings, parts.network, parts.frozen.network is None
    control = prepared.control
    targets = norm_targets(control.target, host.text, control.texts)
    micro_step = make_micro_step(prepared, host, network)
    optimizer = prepared.optimizer
    norm_control = make_control(control.name, targets)
    embedding_step = make_step(control.name, targets, kappa=control.kappa)
    if not continued:
        with _autocast(prepared, host):
            warm_up_on_text(
                _of_new(prepared.text_warm_up, parts),
                embeddings,
                host.text,
                control=norm_control,
                step=embedding_step,
                world=world,
            )
    trainable = Trainable(
        embeddings,
        network,
        trained_groups(prepared.paces, embeddings, network if moves else None),
        optimizer=optimizer.name,
        optimizer_options=optimizer.options,
        control=norm_control,
        embedding_step=embedding_step,
        max_norm=prepared.network.max_norm if moves else 0.0,
        l1=prepared.network.l1 if moves else 0.0,
        ema_decay=optimizer.ema_decay,
        loss_scaling=autocast_dtype(prepared.session.precision, host.layers()[0].module) is torch.float16,
        world=world,
    )
    progress = Progress()
    outputs = RunOutputs(
        prepared,
        host,
        folder=output_folder,
        log_folder=log_folder,
        trainable=trainable,
        micro_step=micro_step,
        initial_embeddings=embeddings.starts,
        frozen=parts.frozen,
        progress=progress,
        overwrite=overwrite,
        measured=_measured_pictures(prepared, host, network, cache, sources.validation),
        evaluation=evaluation,
    )
    trainer = Trainer(
        replace(prepared.loop, accumulation=source.micro_batches, state_folder=state_folder, basis=basis),
        trainable=trainable,
        micro_step=micro_step,
        source=source,
        plan=prepared.phases,
        rate_factor=prepared.rate_factor,
        embeddings_only=prepared.embeddings_only,
        first_phase_end=prepared.first_phase_end,
        validation=prepared.validation,
        outputs=outputs,
        progress=progress,
        listener=listener,
        commands=commands,
        world=world,
        model_yield=model_yield,
        terms=make_terms(prepared.terms, embeddings, host.text, frozen=micro_step.frozen_text),
        rebind=lambda: None if network is None else network.rebind(host.layers()),
    )
    return trainer, network


# ---- what is trained ----


def make_parts(prepared: Prepared, host: Host) -> TrainedParts:
    """Embeddings and network at their start, new or from the run's file, which is compared with them.

    Raises:
        BundleError, EmbeddingNameError, NetworkError: the file does not fit the run, or nothing would be trained.
    """
    start = None
    if prepared.start is not None:
        start = read_start(prepared.start, host, {one.name: one.vectors for one in prepared.embeddings})
    given = {} if start is None else start.embeddings
    with _autocast(prepared, host):
        embeddings = make_embeddings(prepared.embeddings, host.text, host.device, seed=prepared.seed, given=given)
    network, plan = None if start is None else start.frozen_network(host), prepared.network
    if network is None and start is not None:
        network = start.stored_network(host, plan.rules, up_lr_factor=plan.up_lr_factor)
    if network is None:
        network = make_network(prepared.network, host.layers(), host.device, seed=prepared.seed)
    if start is None:
        return TrainedParts(embeddings, network)
    remarks = (*start.remarks, *start.load_into(network))
    start.freeze(embeddings)
    if (network is None or start.frozen.network is not None) and set(embeddings.names()) <= embeddings.frozen:
        raise NetworkError(f"{start.plan.file}: all of it is frozen, so nothing would be trained")
    return TrainedParts(embeddings, network, start.frozen, remarks, frozenset(given))


def make_embeddings(
    starts: Sequence[EmbeddingStart],
    text: TextEncoder,
    device: torch.device,
    *,
    seed: int,
    given: Mapping[str, EmbeddingTensors] | None = None,
) -> TrainedEmbeddings:
    """The embeddings at their start: those `given`, else from a file, from init text, or by chance, by its own seed."""
    vectors = {}
    for index, embedding in enumerate(starts):
        generator = derived_generator("word", seed, index)
        if given and embedding.name in given:
            vectors[embedding.name] = tuple(tower.float() for tower in given[embedding.name])
        elif embedding.init_vectors is not None:
            vectors[embedding.name] = vectors_from_tensors(
                embedding.init_vectors, embedding.vectors, encoder=text, generator=generator
            )
        else:
            vectors[embedding.name] = initial_vectors(
                embedding.init_text,
                embedding.vectors,
                encoder=text,
                generator=generator,
                std=embedding.initial_std,
                keep_commas=embedding.keep_commas,
                whole_tags=embedding.whole_tags,
                start=embedding.start,
            )
    return TrainedEmbeddings(vectors, {embedding.name: embedding.settings for embedding in starts}, device=device)


def _of_new(plan: TextWarmUpPlan, parts: TrainedParts) -> TextWarmUpPlan:
    return replace(plan, texts={name: text for name, text in plan.texts.items() if name not in parts.taken})


def warm_up_on_text(
    plan: TextWarmUpPlan,
    embeddings: TrainedEmbeddings,
    text: TextEncoder,
    *,
    control: NormControl,
    step: NormControl | None,
    world: ProcessGroup,
) -> None:
    """Steps on the text encoder alone, by Adam or by the run's own step of embeddings, with the run's control."""
    if not plan.steps:
        return
    optimizer = torch.optim.Adam(embeddings.parameters(), lr=plan.lr)

    def move(names: Sequence[str], factor: float) -> None:
        rates = dict.fromkeys(names, plan.lr * factor)
        optimizer.param_groups[0]["lr"] = plan.lr * factor
        if step is not None:
            step(embeddings, names, rates)
        optimizer.step()
        control(embeddings, names, rates)

    warm_up(embeddings, plan.texts, encoder=text, steps=plan.steps, move=move)
    world.share([leaf.data for leaf in embeddings.parameters()])
    embeddings.begin_here()


def make_terms(
    plan: TermPlan,
    embeddings: TrainedEmbeddings,
    text: TextEncoder,
    *,
    frozen: Callable[[], AbstractContextManager[object]],
) -> EmbeddingTerms:
    """The losses on the embeddings alone; none unless a run asks for them."""
    terms: dict[str, tuple[float, EmbeddingTerm]] = {}
    if plan.start_weight > 0:
        terms["start distance"] = plan.start_weight, StartDistance(embeddings.starts)
    if plan.editability != "none" and plan.editability_weight > 0:
        vectors = {name: towers[0].shape[0] for name, towers in embeddings.as_mapping().items()}
        rule = Editability(plan.editability, text, classes=plan.classes, vectors=vectors, contexts=plan.contexts)
        terms["editability"] = plan.editability_weight, rule
    return EmbeddingTerms(terms, frozen=frozen)


def make_network(plan: NetworkPlan, layers: Sequence[Layer], device: torch.device, *, seed: int) -> Network | None:
    """The network of a run, new; None where only embeddings are trained."""
    if not plan.rules:
        return None
    if not plan.parts & {layer.part for layer in layers}:
        raise NetworkError(
            f"network.te2_targets = {plan.te2_targets!r}: this checkpoint has no second text encoder, and "
            "nothing else would get a network. Choose layers of the U-Net or the text encoder, or an SDXL checkpoint."
        )
    return build_network(
        layers,
        plan.rules,
        algorithm=plan.algorithm,
        options=plan.options,
        up_lr_factor=plan.up_lr_factor,
        seed=seed,
        device=device,
    )


def trained_groups(
    paces: Mapping[str, Pace], embeddings: TrainedEmbeddings, network: Network | None
) -> list[ParameterGroup]:
    """One group an embedding, and the network's groups by part, each with the pace of its part."""
    groups = [*embeddings.parameter_groups(), *(network.parameter_groups() if network is not None else ())]
    return [_paced(group, paces[group.part]) for group in groups]


def _paced(group: ParameterGroup, pace: Pace) -> ParameterGroup:
    decay = pace.weight_decay + group.weight_decay
    return replace(group, parameters=tuple(group.parameters), lr=pace.lr, weight_decay=decay, clip_norm=pace.clip_norm)


# ---- the step ----


def _autocast(prepared: Prepared, host: Host) -> AbstractContextManager[object]:
    """The arithmetic of the frozen model, for what is encoded before there is a step."""
    dtype = autocast_dtype(prepared.session.precision, host.layers()[0].module)
    return nullcontext() if dtype is None else torch.autocast(host.device.type, dtype=dtype)


def autocast_dtype(precision: str, weights: nn.Module | None) -> torch.dtype | None:
    """Arithmetic of the frozen model: None = as its weights are, where these are fp32."""
    named = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": None}
    if precision in named:
        return named[precision]
    if weights is None:
        return None
    dtype = next((parameter.dtype for parameter in weights.parameters()), torch.float32)
    return dtype if dtype in (torch.float16, torch.bfloat16) else None


def make_micro_step(
    prepared: Prepared,
    host: Host,
    network: Network | None,
    *,
    text: TextEncoder | None = None,
    denoiser: Denoiser | None = None,
) -> MicroStep:
    """The forward half of a step, on the host's own text encoder and U-Net or on what stands for them."""
    return MicroStep(
        text or host.text,
        denoiser or host.denoiser,
        schedule=NoiseSchedule(
            host.alphas_cumprod,
            v_prediction=host.info.v_prediction,
            zero_terminal_snr=prepared.zero_terminal_snr,
        ),
        objective=prepared.objective,
        device=host.device,
        autocast_dtype=autocast_dtype(prepared.session.precision, host.layers()[0].module),
        network_off=nullcontext if network is None else lambda: network.with_multipliers(unet=0.0, te=0.0),
    )


# ---- batches ----


def spill_folder(log_folder: Path, name: str) -> Path:
    """Where latents go that memory may not hold; kept while the run can be gone on with."""
    return log_folder / f"{name}.latents"


def make_latents(
    plan: LatentPlan,
    host: Host,
    *,
    spill: Path | None = None,
    used_bytes: int = 0,
    progress: Callable[[int, int], None] | None = None,
    should_stop: Callable[[], bool] | None = None,
) -> tuple[LatentCache, list[str]]:
    """Encode pictures once through the host's autoencoder; returns the cache and what went wrong, in words.

    What is beyond the memory that latents may have, less `used_bytes`, goes to `spill`, if the run has no folder for
    latents.
    """
    cache = LatentCache(
        host.codec,
        plan.buckets,
        folder=plan.folder,
        spill=spill,
        memory_bytes=None if plan.memory_bytes is None else max(0, plan.memory_bytes - used_bytes),
        flip=plan.flip,
        crops=plan.crops,
        scale=plan.scale,
        plain=plan.plain,
        own=plan.own,
        transparency=plan.transparency,
        masks=plan.masks,
        mask_normalise=plan.mask_normalise,
        mask_minimum=plan.mask_minimum,
        mask_temperature=plan.mask_temperature,
        inpainting=host.info.inpainting,
        device=host.device,
        seed=plan.seed,
    )
    found = with_focus(plan.pictures) if plan.find_boxes else list(plan.pictures)
    problems = cache.build(found, progress=progress, should_stop=should_stop)
    return cache, [problem.message for problem in problems]


def batch_source(plan: BatchPlan, cache: LatentCache, world: ProcessGroup, token_ids: TokenIds) -> BatchSource:
    """Batches of a set's pictures."""
    return BatchSource(
        cache,
        plan.pictures,
        plan.captions.chain(token_ids),
        batch_size=plan.batch_size,
        accumulation=plan.accumulation,
        embeddings=plan.embeddings,
        seed=plan.seed,
        rank=world.rank,
        world_size=world.size,
        latents="draw" if plan.random_latent else "mean",
        unmasked=plan.unmasked,
        sampling_weights=plan.sampling_weights,
        loss_weights=plan.loss_weights,
    )


@dataclass(frozen=True, eq=False)
class _Sources:
    """Latents of the run's own pictures and of the validation folder, if it has one, and the batches of all sets."""

    own: LatentCache
    validation: LatentCache | None
    batches: MixedBatchSource


def _sources(
    prepared: Prepared, host: Host, log_folder: Path, listener: Listener, *, commands: Commands, world: ProcessGroup
) -> _Sources:
    def encoded(plan: LatentPlan, activity: str, used_bytes: int = 0) -> LatentCache:
        cache, problems = make_latents(
            plan,
            host,
            spill=spill_folder(log_folder, prepared.name),
            used_bytes=used_bytes,
            progress=lambda done, total: listener(Preparing(activity, done, total)),
            should_stop=lambda: commands.stopping,
        )
        told.extend(problems)
        return cache

    told: list[str] = []
    cache = encoded(prepared.latents, "encoding pictures")
    class_source = None
    if prepared.class_latents is not None and prepared.class_batches is not None:
        class_cache = encoded(prepared.class_latents, "encoding class pictures", cache.size_bytes)
        size = -(-prepared.class_batches.batch_size // world.size) * world.size  # shared evenly by the processes
        plan = replace(prepared.class_batches, batch_size=size)
        class_source = batch_source(plan, class_cache, world, host.text.token_ids)
    validation = None
    if prepared.validation_latents is not None:
        validation = encoded(prepared.validation_latents, "encoding validation pictures", cache.size_bytes)
    for problem in told:
        listener(Notice("warning", 0, problem))
    own = batch_source(prepared.batches, cache, world, host.text.token_ids)
    return _Sources(cache, validation, make_mixture(prepared.sides, own, class_source))


def make_mixture(plan: SidePlan, own: BatchSource, class_source: BatchSource | None) -> MixedBatchSource:
    """All sets of a step."""
    sides = []
    if class_source is not None:
        texts = plan.texts if plan.class_prior else {}
        sides.append(PriorSet("class pictures", class_source, plan.class_weight, texts, plan.class_prior))
    if plan.preservation > 0:
        sides.append(PriorSet("preservation", own, plan.preservation, plan.texts, prior=True))
    return MixedBatchSource(own, sides)


def _measured_pictures(
    prepared: Prepared, host: Host, network: Network | None, own: LatentCache, validation: LatentCache | None
) -> MeasuredPictures:
    """What is measured on: held-out pictures by embedding, and as many trained ones, evenly spread."""
    found, objective = prepared.pictures, prepared.objective
    held_out = _single_batches(prepared, own, found.held_out)
    if validation is not None:
        held_out = _single_batches(prepared, validation, found.validation)
    trained: dict[str, list[TrainingBatch]] = {}
    if prepared.validation.every_steps:
        groups = _by_embedding(prepared, own, found.pictures)
        for name, batches in held_out.items():
            mine = groups.get(name, [])
            count = min(len(batches), len(mine))
            chosen = [mine[place * len(mine) // count] for place in range(count)]
            trained |= _single_batches(prepared, own, chosen)
    noise = objective.noise
    plain = Objective(noise=NoiseSettings())
    return MeasuredPictures(
        held_out,
        trained,
        make_micro_step(replace(prepared, objective=plain), host, network),
        (noise.timestep_min, noise.timestep_max),
    )


def _by_embedding(prepared: Prepared, cache: LatentCache, pictures: Sequence[Picture]) -> dict[str, list[Picture]]:
    """Pictures whose latents are ready, by the embedding that they are measured by."""
    find, ready = prepared.pictures.find, {picture.key for picture in cache.pictures}
    groups: dict[str, list[Picture]] = {}
    for picture in pictures:
        name = held_out_group(find(picture.caption), prepared.embeddings)
        if name is not None and picture.key in ready:
            groups.setdefault(name, []).append(picture)
    return groups


def _single_batches(
    prepared: Prepared, cache: LatentCache, pictures: Sequence[Picture]
) -> dict[str, list[TrainingBatch]]:
    """Pictures by embedding, one a batch, with their captions as they are (no shuffling, no dropout)."""
    find = prepared.pictures.find

    def single(picture: Picture) -> TrainingBatch:
        entry, caption = cache.get(picture.key), picture.cut.plain(picture.caption)
        return TrainingBatch(
            latents=entry.mean[None],
            captions=[caption],
            mask=None,
            weights=torch.ones(1),
            keys=[picture.key],
            embeddings=[find(caption)],
            sizes=torch.tensor([cache.sizes(picture.key)]),
            inpaint=None if entry.inpaint is None else entry.inpaint[None],
        )

    groups = _by_embedding(prepared, cache, pictures)
    return {name: [single(picture) for picture in mine] for name, mine in groups.items()}
