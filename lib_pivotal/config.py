"""The settings of a run: one frozen dataclass a section, run.json in and out.

Config objects stay outside the inner classes: builders (`training/assemble.py`) turn them into flat parameters.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib_pivotal.config_checks import check_consistency as check_consistency
from lib_pivotal.config_pictures import DataConfig as DataConfig
from lib_pivotal.config_pictures import PartConfig as PartConfig
from lib_pivotal.config_pictures import RegularisationConfig as RegularisationConfig
from lib_pivotal.config_schema import listed_at, parse, setting, to_plain
from lib_pivotal.config_versions import VERSION as VERSION
from lib_pivotal.config_versions import upgraded as upgraded
from lib_pivotal.config_versions import with_old_defaults
from lib_pivotal.errors import ConfigError, Fault
from lib_pivotal.files import replacing
from lib_pivotal.plain_json import parse_json


@dataclass(frozen=True)
class EmbeddingConfig:
    """One embedding to train."""

    name: str = setting(
        "",
        "Name of the embedding, as it is written in prompts. Lower case; begins and ends "
        "with a letter; a-z 0-9 _ -.",
    )
    init_text: str = setting(
        "", "Where the vectors start: tags, `*[std,n]` for n random rows, `random`, `zero`, or empty for `random`."
    )
    init_file: str = setting("", "An embedding file to start from instead of init text.", unit="path")
    vectors: int = setting(4, "Number of token vectors.", unit="vectors", minimum=1, maximum=75, good_range="2-8")
    lr_factor: float = setting(1.0, "Multiplies the embedding LR for this embedding.", minimum=0.0, maximum=100.0)
    weight_decay: float = setting(0.0, "Weight decay of this embedding.", minimum=0.0, maximum=1.0)
    freeze_at: float = setting(
        1.0, "Fraction of the run after which this embedding is frozen; 1 = never.", minimum=0.0, maximum=1.0
    )
    freeze_step: int = setting(0, "Step after which this embedding is frozen; 0 = never.", unit="steps", minimum=0)
    freeze_norm: float = setting(
        0.0, "Mean norm at which this embedding is frozen for good (Mix-of-Show uses 0.55); 0 = never.", minimum=0.0
    )
    continued_lr_factor: float = setting(
        1.0,
        "Two-phase: multiplies schedule.continued_embedding_lr_factor for this embedding; 0 = frozen after the first "
        "phase.",
        minimum=0.0,
        maximum=100.0,
    )
    prune: bool = setting(False, "Prune from its captions the tags that the embedding should learn.")
    flip: bool = setting(
        True, "Its pictures may be mirrored, where mirroring is on; off for a character whose sides differ."
    )
    prune_tags: tuple[str, ...] = setting((), "Tags that are pruned though the rule keeps them in the captions.")
    keep_tags: tuple[str, ...] = setting((), "Tags that stay in the captions though the rule prunes them.")
    applies_to: tuple[str, ...] = setting(
        (),
        "Pictures that belong to this embedding though their captions do not name it: `concept:NAME`, "
        "`type:IMAGE TYPE`, or a "
        "pattern of paths such as `fanart/*`. The name is put in front of their captions.",
    )
    class_text: str = setting(
        "", "What it is one of, in the model's own words, e.g. `1girl`; empty = the run's class, `regularisation`."
    )
    form_of: str = setting(
        "", "The embedding of which this one is a form or an outfit: only tags that the other lacks are pruned."
    )
    sampling_weight: float = setting(
        1.0,
        "Multiplies how often this embedding's pictures are sampled.",
        minimum=0.0,
        maximum=100.0,
        above_minimum=True,
    )


@dataclass(frozen=True)
class EmbeddingsConfig:
    """What holds for all embeddings."""

    lr: float = setting(
        5e-3, "Learning rate of the embeddings.", minimum=0.0, maximum=1.0, good_range="1e-3 to 1e-2 with AdamW"
    )
    weight_decay: float = setting(0.0, "Added to each embedding's own weight decay.", minimum=0.0, maximum=1.0)
    control: str = setting(
        "clip_ti_decay",
        "Keeps the vectors in the range of CLIP's own token embeddings: decays the norm, the std, or fixes the norm. "
        "direction: only directions are learnt (DTI), in steps as long as the learning rate, good from 0.01 to 0.04.",
        choices="embeddings.control:control_names",
    )
    norm_target: str = setting(
        "captions",
        "The norm that a control keeps: that of the tokens in captions and init texts, which the checkpoint knows; "
        "each vector's own at the start (DCO); the median or the mean of the whole vocabulary, most of which it may "
        "never have been trained on.",
        choices="embeddings.norm_targets:norm_target_names",
    )
    direction_kappa: float = setting(
        1e-4, "direction: how strongly vectors are pulled back to where they started.", minimum=0.0, maximum=1.0
    )
    initial_std: float = setting(
        0.0, "Std of random vectors; 0 = as the checkpoint's own token embeddings.", minimum=0.0, maximum=1.0
    )
    keep_commas: bool = setting(False, "The commas of an init text take a vector each, as they do in HCP.")
    start: str = setting(
        "tokens",
        "What an init text begins with: its tokens' vectors, or what the text encoder makes of them (CrossInit), which "
        "is much longer: with a control of norms, keep those of the start.",
        choices="embeddings.initial:start_names",
    )
    start_weight: float = setting(
        0.0,
        "Weight of a loss that holds vectors near to where they started: their distance from it (CrossInit: 1e-5).",
        minimum=0.0,
        maximum=100.0,
    )
    text_steps: int = setting(
        0,
        "Steps before the first one, on the text encoder alone, in which an embedding learns to say what its init text "
        "and its pruned tags say.",
        unit="steps",
        minimum=0,
        maximum=10_000,
        good_range="50-200",
    )
    editability: str = setting(
        "none",
        "Keeps what stands beside an embedding in prompts as it was: class_diffusion: the end of `NAME class` is near "
        "that of `class`; core: the other tokens of a prompt are what they are with the class in the name's place.",
        choices="embeddings.editability:editability_names",
    )
    editability_weight: float = setting(
        0.1, "Weight of that loss, a distance from 0 to 2.", minimum=0.0, maximum=100.0, good_range="0.01-1"
    )
    editability_prompts: tuple[str, ...] = setting(
        (), "core: prompts with `{word}` in them, in which the other tokens are kept; empty = a list of its own."
    )
    whole_tags: bool = setting(
        False,
        "An init text is never cut inside a tag: tags that do not fit are left out, and random vectors fill the rest. "
        "An embedding that prunes tags and has no init text gets the vectors that these take, up to the most.",
    )


@dataclass(frozen=True)
class LayerGroup:
    """A group of layers with its own rank and rate, chosen by a regular expression on the kohya name."""

    pattern: str = setting("", "Regular expression searched in the kohya layer name; the first match wins.")
    rank: int = setting(0, "Rank of this group; 0 = leave these layers alone.", minimum=0, maximum=1024)
    alpha: float = setting(0.0, "Alpha of this group; 0 = same as rank.", minimum=0.0)
    lr_factor: float = setting(1.0, "Multiplies the part's learning rate.", minimum=0.0, maximum=100.0)
    algorithm: str = setting(
        "", "Kind of network on these layers; empty = the network's.", choices="networks.registry:group_algorithm_names"
    )


@dataclass(frozen=True)
class NetworkConfig:
    """The network that is trained beside the embeddings.

    Settings that only some kinds have (the factor of a LoKr) stand with the kinds (`networks/kinds/`); `options` holds
    those that are not as usual, by name.
    """

    algorithm: str = setting("lora", "Kind of network.", choices="networks.registry:algorithm_names")
    options: Mapping[str, Any] = setting(dict, "Settings that only the chosen kinds of network have, by name.")
    unet_targets: str = setting(
        "attention+ff",
        "Layers of the U-Net that get an adapter.",
        choices="networks.targets:unet_target_names",
    )
    unet_rank: int = setting(16, "Rank in the U-Net.", minimum=1, maximum=1024, good_range="4-32")
    unet_alpha: float = setting(8.0, "Alpha in the U-Net; the change is scaled by alpha / rank.", minimum=0.0)
    unet_lr: float = setting(2e-4, "Learning rate of the U-Net's network.", minimum=0.0, maximum=1.0)
    te_targets: str = setting(
        "none", "Layers of the text encoder that get an adapter.", choices="networks.targets:te_target_names"
    )
    te_rank: int = setting(8, "Rank in the text encoder.", minimum=1, maximum=1024)
    te_alpha: float = setting(4.0, "Alpha in the text encoder.", minimum=0.0)
    te_lr: float = setting(2e-5, "Learning rate of the text encoder's network; 0 = off.", minimum=0.0, maximum=1.0)
    te2_targets: str = setting(
        "same",
        "SDXL: layers of the second text encoder (OpenCLIP-G, `te2`) that get an adapter; same = as the first (CLIP-L, "
        "`te1`). With none in one of them the other is trained alone.",
        choices="networks.targets:te2_target_names",
    )
    te2_lr: float = setting(
        0.0, "SDXL: learning rate of the second text encoder's network; 0 = as the first's.", minimum=0.0, maximum=1.0
    )
    dropout: float = setting(0.0, "Dropout inside the adapter.", minimum=0.0, maximum=0.99)
    rank_dropout: float = setting(0.0, "Dropout of whole ranks.", minimum=0.0, maximum=0.99)
    module_dropout: float = setting(
        0.0,
        "Chance of each layer's change to be left out of a micro-batch (kohya's module dropout).",
        minimum=0.0,
        maximum=0.95,
        good_range="0.1-0.3",
    )
    up_lr_factor: float = setting(
        1.0,
        "LoRA+: the up factor of each layer learns at this times the network's learning rate.",
        minimum=0.0,
        above_minimum=True,
        maximum=256.0,
        good_range="4-16",
    )
    lr_ramp: str = setting(
        "none",
        "How the network's learning rate rises from a part of itself over its steps, so that the embeddings are first; "
        "the LR scheduler comes on top.",
        choices="training.rates:ramp_names",
    )
    lr_ramp_start: float = setting(
        0.1,
        "With a ramp: the part of its LR that the network begins with.",
        minimum=0.0,
        above_minimum=True,
        maximum=1.0,
    )
    l1: float = setting(
        0.0,
        "L1 penalty: this times the mean size of the network's numbers is added to the loss; 0 = off.",
        minimum=0.0,
        maximum=100.0,
        good_range="0.03, as eden",
    )
    timestep_min: int = setting(
        0, "Lowest timestep at which the network is trained; at others only embeddings are.", minimum=0, maximum=999
    )
    timestep_max: int = setting(
        1000,
        "The network is trained below this timestep: at noisier ones it is off, and only embeddings learn. "
        "cloneofsimo's pti leaves the last fifth to them.",
        minimum=1,
        maximum=1000,
        good_range="800",
    )
    max_norm: float = setting(0.0, "Scale a layer's change down to this norm (kohya's max-norm); 0 = off.", minimum=0.0)
    weight_decay: float = setting(0.01, "Weight decay of the network.", minimum=0.0, maximum=1.0)
    groups: tuple[LayerGroup, ...] = setting(
        (), "Groups of layers with their own rank and LR factor, one per line: `pattern | rank | alpha | LR factor`."
    )

    @property
    def algorithms(self) -> tuple[str, ...]:
        """The kinds of network in it: its own, and those that groups of layers have instead."""
        return (self.algorithm, *(group.algorithm for group in self.groups if group.algorithm))

    def targets_of(self, part: str) -> str:
        """The name of the set of layers of `unet`, `te` or `te2`, of which the last may follow `te`."""
        if part == "te2" and self.te2_targets != "same":
            return self.te2_targets
        return self.unet_targets if part == "unet" else self.te_targets

    def lr_of(self, part: str) -> float:
        """The learning rate of the network on `unet`, `te` or `te2`."""
        if part == "te2" and self.te2_lr > 0:
            return self.te2_lr
        return self.unet_lr if part == "unet" else self.te_lr

    def trains(self, part: str) -> bool:
        """Whether a checkpoint that has this part gets a network there."""
        return self.algorithm != "none" and self.targets_of(part) != "none" and self.lr_of(part) > 0


@dataclass(frozen=True)
class NoiseConfig:
    """Noise and timesteps."""

    offset: float = setting(0.0, "Noise offset: lets brightness move.", minimum=0.0, maximum=1.0, good_range="0-0.1")
    adaptive_offset: float = setting(
        0.0,
        "Adaptive noise scale (kohya): this times the mean of a picture's latents is added to the noise offset.",
        minimum=-1.0,
        maximum=1.0,
    )
    random_offset: bool = setting(False, "Noise offset of a random strength up to the one given, for each sample.")
    multires_iterations: int = setting(0, "Multi-resolution noise: number of scales; 0 = off.", minimum=0, maximum=10)
    multires_discount: float = setting(0.3, "How much weaker each coarser scale is.", minimum=0.0, maximum=1.0)
    perturbation: float = setting(0.0, "Input perturbation gamma.", minimum=0.0, maximum=1.0, good_range="0-0.1")
    random_perturbation: bool = setting(
        False, "Input perturbation of a random strength up to the one given, for each sample."
    )
    timestep_min: int = setting(0, "Lowest timestep sampled.", minimum=0, maximum=999)
    timestep_max: int = setting(1000, "Timesteps are sampled below this.", minimum=1, maximum=1000)
    timestep_distribution: str = setting(
        "uniform",
        "How timesteps are sampled: evenly, mostly in the middle (logit_normal), or mostly late (noisy) or early ones.",
        choices="training.schedule:distribution_names",
    )
    zero_terminal_snr: bool = setting(False, "Rescale the schedule to end in pure noise (needs v-prediction).")


@dataclass(frozen=True)
class LossConfig:
    """The loss."""

    kind: str = setting("mse", "Distance of prediction and target.", choices="training.objective:loss_names")
    huber_delta: float = setting(0.1, "Where Huber turns from square to straight.", minimum=0.0, above_minimum=True)
    huber_schedule: str = setting(
        "snr",
        "How Huber's delta falls over the timesteps, from 1 at clean ones: by snr, exponentially, or not at all.",
        choices="training.objective:huber_schedule_names",
    )
    weighting: str = setting("none", "Weight of each timestep.", choices="training.objective:weighting_names")
    snr_gamma: float = setting(
        0.0,
        "Gamma of the weighting; 0 = the usual: 5 for min_snr and soft_min_snr, 2 for soft_min_snr_cubed, 1 for p2.",
        minimum=0.0,
        maximum=100.0,
    )
    dco_beta: float = setting(
        0.0,
        "Beta of DCO's loss, which asks the network to be better than the checkpoint with the same embeddings, and no "
        "more: it drifts less, and a step takes a forward more. Gradients are up to beta times larger; 0 = off.",
        minimum=0.0,
        maximum=100_000.0,
        good_range="1000",
    )
    scale_v_like_noise: bool = setting(
        False, "v-prediction: the loss is weighed as that of the noise would be (kohya's scale_v_pred_loss)."
    )


def steps_of(wanted: float, steps: int) -> int:
    """A number of steps as it is set: below 1 it is a fraction of `steps`, as in kohya."""
    return int(wanted * steps + 1e-9) if wanted < 1 else int(wanted)


@dataclass(frozen=True)
class ScheduleConfig:
    """Length, optimiser and who trains when."""

    max_steps: int = setting(
        1500,
        "Optimiser steps of the run. With an embeddings-only share: the steps' worth of pictures that the network "
        "sees; the run is longer.",
        unit="steps",
        minimum=1,
        maximum=10_000_000,
    )
    epochs: int = setting(
        0,
        "Length in epochs, as other trainers give it: at Scan or at the start it becomes max_steps, pictures x repeats "
        "/ (batch x accumulation), rounded up, x epochs; 0 = max_steps counts.",
        unit="epochs",
        minimum=0,
        maximum=100_000,
    )
    batch_size: int = setting(4, "Pictures in a micro-batch.", minimum=1, maximum=1024)
    accumulation: int = setting(1, "Micro-batches a step.", minimum=1, maximum=1024)
    optimizer: str = setting(
        "adamw",
        "Optimiser; those that need a package say so.",
        choices="training.optimizers:optimizer_names",
    )
    optimizer_options: tuple[str, ...] = setting(
        (), "Further options of the optimiser, one per line: `betas = [0.9, 0.99]`, `d_coef = 2`. By its own names."
    )
    lr_scheduler: str = setting(
        "cosine",
        "LR scheduler: how the learning rates change over the run.",
        choices="training.rates:rate_names",
    )
    lr_scheduler_cycles: int = setting(
        1, "cosine_restarts: how often it begins at the full LR.", minimum=1, maximum=1000
    )
    lr_scheduler_power: float = setting(
        1.0, "polynomial: its power; 1 is a straight line.", minimum=0.0, above_minimum=True, maximum=10.0
    )
    warmup_steps: float = setting(
        0.0, "Steps of linear warm-up; below 1 a fraction of the run, whatever its length becomes.", minimum=0.0
    )
    final_factor: float = setting(0.0, "Learning rate at the end, as a fraction.", minimum=0.0, maximum=1.0)
    clip_embeddings: float = setting(0.0, "Largest gradient norm of the embeddings; 0 = no limit.", minimum=0.0)
    clip_network: float = setting(1.0, "Largest gradient norm of the network; 0 = no limit.", minimum=0.0)
    phases: str = setting(
        "joint", "joint, or the embeddings first and the network after.", choices="training.rates:phase_plan_names"
    )
    embeddings_steps: int = setting(
        0, "Two-phase: steps of the embeddings only; with patience, at most.", unit="steps", minimum=0
    )
    embeddings_patience: int = setting(
        0,
        "Two-phase: the first phase ends by itself when the embeddings' gain on held-out pictures has not risen for "
        "this many looks, and the run is that much shorter; 0 = it lasts all of its steps.",
        unit="looks",
        minimum=0,
        maximum=1000,
        good_range="2-4",
    )
    embeddings_look_steps: int = setting(
        50, "Two-phase with patience: steps from look to look.", unit="steps", minimum=1, maximum=1_000_000
    )
    embeddings_least_steps: int = setting(
        0, "Two-phase with patience: the first phase does not end before.", unit="steps", minimum=0
    )
    continued_embedding_lr_factor: float = setting(
        0.0, "Two-phase: factor of the embedding LR in the second phase; 0 = frozen.", minimum=0.0, maximum=10.0
    )
    embeddings_only_share: float = setting(
        0.0,
        "In this share of the micro-batches the network is off, so that the embeddings learn to show their subject "
        "without it; 0 = off. Steps are added, steps / (1 - share) in all, so that the network sees as many pictures "
        "as without it: 1000 steps at 0.5 become 2000.",
        minimum=0.0,
        maximum=0.9,
        good_range="0.25-0.5",
    )
    embedding_gradient_factor: float = setting(
        1.0,
        "With an embeddings-only share: in the micro-batches with the network, the embeddings' gradient is multiplied "
        "by this; 0 = only the others train them.",
        minimum=0.0,
        maximum=1.0,
    )
    network_start: float = setting(
        0.0, "Joint: fraction of the run at which the network starts.", minimum=0.0, maximum=1.0
    )
    te_stop: float = setting(1.0, "Fraction after which the text encoder's network stops.", minimum=0.0, maximum=1.0)
    ema_decay: float = setting(0.0, "EMA of embeddings and network, e.g. 0.999; 0 = off.", minimum=0.0, maximum=0.99999)

    @property
    def first_phase_ends_itself(self) -> bool:
        """Whether held-out pictures tell when the first phase ends."""
        return self.phases == "two_phase" and self.embeddings_patience > 0

    @property
    def total_steps(self) -> int:
        """Optimiser steps of the run: `max_steps`, those with the network divided by 1 - `embeddings_only_share`."""
        alone = self.embeddings_steps if self.phases == "two_phase" else 0
        return alone + math.ceil((self.max_steps - alone) / (1 - self.embeddings_only_share) - 1e-9)

    def warmup_of(self, steps: int) -> int:
        """Steps of warm-up in a course of the rates that is `steps` long: fewer than it has."""
        return min(steps_of(self.warmup_steps, steps), steps - 1)


@dataclass(frozen=True)
class MemoryConfig:
    """Precision and memory."""

    precision: str = setting("model", "Arithmetic of the frozen model.", choices="ports:Precision")
    gradient_checkpointing: bool = setting(False, "Less memory, about 1.3 to 1.5 times the time.")
    latents_mb: int = setting(
        4096,
        "Latents kept in memory at most; the rest is read from disk whenever it is sampled. 0 = all in memory.",
        unit="MB",
        minimum=0,
        maximum=1_000_000,
    )


def _in_epochs(name: str) -> Any:
    """An interval as other trainers give it, beside the one in steps that it becomes."""
    text = f"The interval in epochs: at Scan or at the start it becomes {name}; 0 = {name} counts."
    return setting(0, text, unit="epochs", minimum=0, maximum=100_000)


@dataclass(frozen=True)
class SavingConfig:
    """Files and samples."""

    folder: str = setting("", "Where files go.", unit="path")
    every_steps: int = setting(0, "Save a bundle every N steps; 0 = only at the end.", unit="steps", minimum=0)
    every_epochs: int = _in_epochs("every_steps")
    state_every_steps: int = setting(500, "Save the resumable state every N steps; 0 = off.", minimum=0)
    state_every_epochs: int = _in_epochs("state_every_steps")
    keep_states: int = setting(2, "How many states are kept.", minimum=1, maximum=1000)
    dtype: str = setting("fp16", "Precision of the file.", choices="bundle.writer:dtype_names")
    embedding_files: bool = setting(False, "Also write each embedding as its own file (Forge, ComfyUI, Invoke).")
    sample_every_steps: int = setting(0, "Generate samples (the parts grid) every N steps; 0 = off.", minimum=0)
    sample_every_epochs: int = _in_epochs("sample_every_steps")
    sample_prompts: tuple[str, ...] = setting((), "Prompts of the samples; `{word}` stands for each embedding.")
    sample_embeddings: tuple[str, ...] = setting(
        (), "Embeddings that are sampled, each with four pictures per prompt; empty = all."
    )
    keep_sampled: bool = setting(
        True, "Keep the file behind each set of samples in the run's folder, so that its step can be chosen later."
    )
    separation_every_steps: int = setting(0, "Measure the separation score every N steps; 0 = off.", minimum=0)
    card: bool = setting(
        False, "At the end, write the result card into the file, with a preview and the web UI's card text beside it."
    )
    licence: str = setting("", "Licence of the file: a name or a link. It stands on the result card.")


@dataclass(frozen=True)
class ValidationConfig:
    """Pictures that are held out of training, and the loss that is measured on them."""

    every_steps: int = setting(
        0,
        "Measure the loss on held-out pictures, and on as many trained ones, every N steps and at the end; 0 = off.",
        unit="steps",
        minimum=0,
        good_range="50-200",
    )
    share: float = setting(
        0.1,
        "Share of each embedding's pictures that is held out, where it has more than four: for validation, separation "
        "and a first phase that ends by itself alike. Only held out where one of them asks for it.",
        minimum=0.0,
        maximum=0.5,
    )
    most: int = setting(4, "Pictures of an embedding that are held out, at most.", minimum=1, maximum=10_000)
    folder: str = setting(
        "",
        "A folder of pictures that are never trained, with captions as the others have; none of the run's own is held "
        "out then.",
        unit="path",
    )
    noise_levels: int = setting(
        4, "Noise levels at which each picture is measured, spread over the timesteps.", minimum=1, maximum=100
    )
    patience: int = setting(
        0,
        "End the run after this many validations in a row without a lower loss; 0 = train all steps.",
        unit="validations",
        minimum=0,
        maximum=1000,
        good_range="3-5",
    )
    keep_best: bool = setting(
        True, "Keep the file of the step with the lowest validation loss in the run's folder, as NAME-best."
    )


@dataclass(frozen=True)
class StartConfig:
    """A LoRA or bundle that the run begins from."""

    init_file: str = setting(
        "",
        "A LoRA or bundle to begin from: a path, or a name in the LoRA folder. Empty = nothing is taken from a file.",
        unit="path",
    )
    network: str = setting(
        "train",
        "Its network: train it further in this run's kind, layers and ranks, which must be the file's; as-stored = in "
        "the kinds, layers, ranks and alphas that the file has, whatever the settings say; freeze it (what is trained "
        "is trained under it); or leave it out.",
        choices="training.start_file:network_uses",
    )
    embeddings: str = setting(
        "train",
        "Its embeddings that the run has by name: train them further, freeze them, or leave them out.",
        choices="training.start_file:start_uses",
    )

    def freezes_network(self) -> bool:
        """Whether the run has the file's network in place of one that it trains."""
        return bool(self.init_file) and self.network == "freeze"


@dataclass(frozen=True)
class Run:
    """Everything that defines a run."""

    name: str = setting("", "Name of the bundle file, without ending.")
    seed: int = setting(0, "Seed of everything random in the run.", minimum=0, maximum=2**31 - 1)
    clip_skip: int = setting(1, "As the web UI's Clip skip.", minimum=1, maximum=12)
    embeddings: tuple[EmbeddingConfig, ...] = setting((), "The embeddings to train.")
    embeddings_common: EmbeddingsConfig = setting(EmbeddingsConfig, "What holds for all embeddings.")
    network: NetworkConfig = setting(NetworkConfig, "The network.")
    start: StartConfig = setting(StartConfig, "A file that the run begins from.")
    data: DataConfig = setting(DataConfig, "Pictures and captions.")
    regularisation: RegularisationConfig = setting(RegularisationConfig, "Pictures that keep the model as it was.")
    noise: NoiseConfig = setting(NoiseConfig, "Noise and timesteps.")
    loss: LossConfig = setting(LossConfig, "The loss.")
    schedule: ScheduleConfig = setting(ScheduleConfig, "Length, optimiser, phases.")
    memory: MemoryConfig = setting(MemoryConfig, "Precision and memory.")
    saving: SavingConfig = setting(SavingConfig, "Files and samples.")
    validation: ValidationConfig = setting(ValidationConfig, "Held-out pictures and the loss on them.")

    @property
    def holds_out(self) -> bool:
        """Whether something is measured on held-out pictures."""
        measured = self.validation.every_steps or self.saving.separation_every_steps
        return bool(measured) or self.schedule.first_phase_ends_itself


def run_to_dict(run: Run) -> dict[str, Any]:
    """The run as plain JSON values, with its version."""
    plain = to_plain(run)
    return {"version": VERSION, **plain}


def run_from_dict(plain: Any) -> Run:
    """Check and build a run.

    Raises:
        ConfigError: with every fault, by field.
    """
    run, faults = check_run(plain)
    if faults:
        raise ConfigError(faults)
    return run


def check_run(plain: Any) -> tuple[Run, list[Fault]]:
    """The run as far as it can be understood, and every fault: unknown settings, types, limits, contradictions."""
    if not isinstance(plain, dict):
        return Run(), [Fault("run", plain, "must be a JSON object")]
    plain = dict(plain)
    stated = "version" in plain
    version = plain.pop("version", 1)  # a body without a version may use old names
    if not isinstance(version, int) or not 1 <= version <= VERSION:
        return Run(), [Fault("version", version, f"must be 1 to {VERSION}", "Update this extension.")]
    plain = upgraded(plain, version)
    run, faults = parse(Run, with_old_defaults(plain, version) if stated else plain)
    if run.network.options:
        check_options = listed_at("networks.registry:checked_options")
        options, found = check_options(run.network.algorithms, run.network.options)
        run, faults = replace(run, network=replace(run.network, options=options)), faults + found
    return run, faults + check_consistency(run)


def read_run(path: Path) -> Run:
    """Read run.json.

    Raises:
        ConfigError: the file is no JSON, or its settings have faults.
    """
    try:
        plain = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ConfigError([Fault(str(path), "", f"cannot be read as JSON: {error}")]) from error
    return run_from_dict(plain)


def write_run(path: Path, run: Run) -> None:
    """Write run.json, readable by people, in one step: a crash leaves the old content or the new."""
    write_settings(path, run_to_dict(run))


def write_settings(path: Path, plain: Mapping[str, Any]) -> None:
    """`write_run` of settings that are plain values already."""
    text = json.dumps(plain, indent=2, ensure_ascii=False) + "\n"
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
