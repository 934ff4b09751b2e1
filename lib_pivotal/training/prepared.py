"""What a compiled run holds: flat, frozen, resolved for its pictures, and of no settings any more.

`assemble.compile_run` makes a `Prepared` of a `Run`; `build` makes a trainer of it on a host.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from lib_pivotal.bundle.metadata import TrainingFacts
from lib_pivotal.data.buckets import Buckets
from lib_pivotal.data.caption_chain import CaptionPipeline, Captions, CaptionsByPart, CaptionSettings
from lib_pivotal.data.latents import ViewSettings
from lib_pivotal.data.masks import MaskScale
from lib_pivotal.data.pictures import Transparency
from lib_pivotal.data.records import DatasetProblem, Picture
from lib_pivotal.data.tokens import TokenCounter
from lib_pivotal.embeddings.vectors import EmbeddingSettings
from lib_pivotal.networks.targets import LayerRule
from lib_pivotal.ports import Part, SessionRequest
from lib_pivotal.prompts import PromptReading
from lib_pivotal.training.embeddings_only import EmbeddingsOnly
from lib_pivotal.training.first_phase import FirstPhaseEnd
from lib_pivotal.training.loop import LoopSettings
from lib_pivotal.training.objective import Objective
from lib_pivotal.training.prepare import PreparedPictures
from lib_pivotal.training.rates import PhasePlan
from lib_pivotal.training.results import Results
from lib_pivotal.training.start_file import StartPlan
from lib_pivotal.training.validation import ValidationPlan

TokenIds = Callable[[str], list[int]]


@dataclass(frozen=True, eq=False)
class EmbeddingStart:
    """One embedding: where its vectors begin and how it is trained. `init_vectors`, as a file has them, win over
    `init_text`."""

    name: str
    vectors: int
    init_text: str
    init_vectors: tuple[torch.Tensor, ...] | None
    initial_std: float
    keep_commas: bool
    whole_tags: bool
    start: str
    settings: EmbeddingSettings


@dataclass(frozen=True)
class ControlPlan:
    """What keeps the norms of the embeddings, at which target; `texts`: captions and init texts without names, for
    targets that are measured on them."""

    name: str
    target: str
    kappa: float
    texts: tuple[str, ...]


@dataclass(frozen=True)
class TextWarmUpPlan:
    """Steps on the text encoder alone before the first one, and the tags that each embedding is to say by then."""

    steps: int
    lr: float
    texts: Mapping[str, str]


@dataclass(frozen=True)
class TermPlan:
    """Losses on the embeddings alone: the weight of the distance from the start; a rule that keeps them editable, with
    its weight, the class of each embedding, and the prompts that it keeps."""

    start_weight: float
    editability: str
    editability_weight: float
    classes: Mapping[str, str]
    contexts: tuple[str, ...]


@dataclass(frozen=True)
class NetworkPlan:
    """The network to make: no rules where embeddings are trained alone. `parts` are those that it is meant for."""

    algorithm: str
    rules: tuple[LayerRule, ...]
    parts: frozenset[Part]
    te2_targets: str
    max_norm: float
    l1: float = 0.0
    up_lr_factor: float = 1.0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Pace:
    """How a part moves: learning rate, decay added to the group's own, and the largest norm of a gradient (0: any)."""

    lr: float
    weight_decay: float
    clip_norm: float


@dataclass(frozen=True)
class OptimizerPlan:
    """The optimiser and the averages that are kept of what it moves (decay 0: none)."""

    name: str
    options: Mapping[str, Any]
    ema_decay: float


@dataclass(frozen=True)
class CaptionPlan:
    """What the caption of each draw goes through, by key where it differs; `max_tokens` 0: no limit.

    `embeddings`: which embedding `{word}` is in a concept; `vectors`: places that each embedding takes; they are
    protected. `classes`: what stands beside the bare name of an embedding.
    """

    common: CaptionSettings
    by_key: Mapping[str, CaptionSettings] = field(default_factory=dict)
    embeddings: Mapping[str, str] = field(default_factory=dict)
    vectors: Mapping[str, int] = field(default_factory=dict)
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    max_tokens: int = 0
    classes: Mapping[str, str] = field(default_factory=dict)

    def chain(self, token_ids: TokenIds | None = None) -> Captions:
        """The chain itself; `token_ids` counts where captions have a limit."""
        shorten = None
        if self.max_tokens and token_ids is not None:
            counter = TokenCounter(dict(self.vectors), PromptReading(token_ids))
            shorten = partial(counter.shorten, limit=self.max_tokens)

        def made(settings: CaptionSettings) -> CaptionPipeline:
            return CaptionPipeline(
                settings,
                embeddings=self.embeddings,
                protected=list(self.vectors),
                classes=self.classes,
                lists=self.lists,
                shorten=shorten,
            )

        common = made(self.common)
        chains = {settings: made(settings) for settings in self.by_key.values()}
        own = {key: chains[settings] for key, settings in self.by_key.items()}
        return CaptionsByPart(common, own) if own else common


@dataclass(frozen=True)
class LatentPlan:
    """Pictures, and how they become latents; `memory_bytes` None: all are kept in memory.

    `own`: by key, what is shown in a way of its own; `plain`: keys of those that are shown plainly, so that scores do
    not depend on how the others are varied. See `data.latents.LatentCache`.
    """

    pictures: tuple[Picture, ...]
    find_boxes: bool
    buckets: Buckets
    folder: Path | None
    memory_bytes: int | None
    flip: bool | frozenset[str]
    transparency: Transparency
    masks: MaskScale | None
    mask_normalise: bool
    mask_minimum: float
    mask_temperature: float
    seed: int
    crops: int = 1
    scale: bool = False
    plain: frozenset[str] = frozenset()
    own: Mapping[str, ViewSettings] = field(default_factory=dict)


@dataclass(frozen=True)
class BatchPlan:
    """What a set's batches are made of: see `data.batches.BatchSource`.

    `pictures` carry the captions, beside the latents, which know none; held-out ones are among them, at weight 0.
    """

    pictures: tuple[Picture, ...]
    captions: CaptionPlan
    batch_size: int
    accumulation: int
    embeddings: tuple[str, ...]
    seed: int
    random_latent: bool
    unmasked: float = 0.0
    sampling_weights: Mapping[str, float] | None = None
    loss_weights: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class OutputPlan:
    """What the run's files and samples are like; `sampled` are the embeddings that samples are made of."""

    dtype: torch.dtype
    embedding_files: bool
    keep_sampled: bool
    sampled: tuple[str, ...]
    prompts: tuple[str, ...]
    side_px: int


@dataclass(frozen=True)
class SidePlan:
    """Sets beside the run's own pictures: weights (0: none), whether class pictures train towards the checkpoint's own
    prediction, and what stands for each embedding there."""

    class_weight: float
    class_prior: bool
    preservation: float
    texts: Mapping[str, str]


@dataclass(frozen=True, eq=False)
class Prepared:
    """A run compiled: all of its settings that training needs, resolved for its pictures.

    `settings` are the run's as it is trained, as plain values: they are kept with states and files and compared, and
    nobody reads a setting out of them. `notices` is what is to be told before the first step.
    """

    name: str
    seed: int
    settings: Mapping[str, Any]
    pictures: PreparedPictures
    notices: tuple[DatasetProblem, ...]
    session: SessionRequest
    zero_terminal_snr: bool
    embeddings: tuple[EmbeddingStart, ...]
    control: ControlPlan
    text_warm_up: TextWarmUpPlan
    terms: TermPlan
    network: NetworkPlan
    start: StartPlan | None
    paces: Mapping[str, Pace]
    optimizer: OptimizerPlan
    objective: Objective
    phases: PhasePlan
    rate_factor: Callable[[int], float]
    embeddings_only: EmbeddingsOnly
    first_phase_end: FirstPhaseEnd
    latents: LatentPlan
    class_latents: LatentPlan | None
    validation_latents: LatentPlan | None
    validation: ValidationPlan
    batches: BatchPlan
    class_batches: BatchPlan | None
    sides: SidePlan
    loop: LoopSettings
    outputs: OutputPlan
    results: Results
    facts: TrainingFacts

    @property
    def word_names(self) -> tuple[str, ...]:
        """The run's embeddings, in its order."""
        return tuple(embedding.name for embedding in self.embeddings)
