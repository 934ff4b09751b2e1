"""One experiment on the avatars: a dataset, a run, and identity scores with parts switched off.

Used by the demo and by the evidence. `pivotal=False` is the same set-up without words: a LoRA on U-Net and text
encoder whose captions hold a plain trigger word for each character.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeAlias

from PIL import Image

from examples.avatars import make
from examples.avatars.characters import CHARACTERS, STYLES, describable_tags
from examples.avatars.checkpoints import BASE, WEIGHTS
from examples.avatars.scores import Scorer
from examples.avatars.world import SUBJECT_TAG, Avatar, caption, random_avatar
from lib_pivotal.config import Run, check_run
from lib_pivotal.errors import ConfigError
from lib_pivotal.evaluation.parts_grid import ROWS, Row
from lib_pivotal.networks.network import Network
from lib_pivotal.ports import EmbeddingVectors, Host, SampleRequest

CHECKPOINT = WEIGHTS / f"{BASE}.safetensors"
ROW_KEYS = {"whole": "whole", "U-Net only": "unet", "text encoder only": "te", "words only": "words"}
NEGATIVE_PROMPT = ""


@dataclass(frozen=True)
class Setup:
    """What is trained and how; rates and sizes are those found to work on the avatars."""

    characters: tuple[str, ...]
    styles: tuple[str, ...] = ()
    pivotal: bool = True
    pictures: int = 32
    steps: int = 2400
    batch_size: int = 8
    seed: int = 0
    vectors: int = 16
    init: str = "text"
    embeddings_lr: float = 3e-3
    unet_lr: float = 2e-3
    te_lr: float = 2e-4
    unet_targets: str = "all"
    unet_rank: int = 16
    te_rank: int = 4
    control: str = "none"
    embeddings_only_share: float = 0.5
    """In this share of the micro-batches the network is off; `steps` are those of the network, the run is longer."""
    network_start: float = 0.0
    embeddings_first: float = 0.0
    """Two phases: in this share of the steps the words alone are trained, and then stay as they are; 0 = joint."""
    rank_dropout: float = 0.0
    preview_every: int = 0
    separation_every: int = 0

    @property
    def names(self) -> tuple[str, ...]:
        """Characters, then styles."""
        return self.characters + self.styles


def write_dataset(setup: Setup, folder: Path) -> Path:
    """Pictures and captions as a person would have them after pruning; made anew."""
    if folder.exists():
        shutil.rmtree(folder)
    planned = make.plan(setup.characters, setup.styles, pictures=setup.pictures, seed=setup.seed, captions="pruned")
    make.write(planned, folder, layout="plain")
    return folder


def init_text(setup: Setup, name: str) -> str:
    """Where a word begins: its describable traits, its kind, or chance."""
    if setup.init == "random":
        return "random"
    if name in CHARACTERS:
        return describable_tags(name).removeprefix("1girl, ")
    return "1girl, smile"


def make_run(setup: Setup, dataset: Path, name: str, *, more: Mapping[str, Any] | None = None) -> Run:
    """The settings of the run; `more` are further ones by dotted path ("schedule.embeddings_only_share").

    Raises:
        ConfigError: the set-up makes no sound run.
    """
    embeddings = [
        {"name": embedding, "init_text": init_text(setup, embedding), "vectors": setup.vectors}
        for embedding in setup.names
    ]
    settings: dict[str, Any] = {
        "name": name,
        "seed": setup.seed,
        "words": embeddings if setup.pivotal else [],
        "embeddings_common": {"lr": setup.embeddings_lr, "control": setup.control},
        "network": {
            "unet_targets": setup.unet_targets,
            "unet_rank": setup.unet_rank,
            "unet_alpha": float(setup.unet_rank),
            "unet_lr": setup.unet_lr,
            "te_targets": "attention+mlp" if setup.te_rank else "none",
            "te_rank": max(setup.te_rank, 1),
            "te_alpha": float(max(setup.te_rank, 1)),
            "te_lr": setup.te_lr,
            "rank_dropout": setup.rank_dropout,
        },
        "data": {"folder": str(dataset), "resolution_px": 64, "bucketing": False, "keep_first": 2},
        "schedule": {
            "max_steps": setup.steps,
            "batch_size": setup.batch_size,
            "network_start": setup.network_start,
            "phases": "two_phase" if setup.embeddings_first else "joint",
            "embeddings_steps": round(setup.embeddings_first * setup.steps),
            "embeddings_only_share": setup.embeddings_only_share,
            "warmup_steps": min(50, setup.steps // 10),
        },
        "saving": {
            "state_every_steps": 0,
            "preview_every_steps": setup.preview_every,
            "separation_every_steps": setup.separation_every,
        },
    }
    for path, value in (more or {}).items():
        section, key = path.split(".")
        settings.setdefault(section, {})[key] = value
    run, faults = check_run(settings)
    if faults:
        raise ConfigError(faults)
    return run


# ---- prompts ----


Asking: TypeAlias = Literal["word", "traits", "nothing"]
"""How a prompt asks for somebody: by word, by describable traits, or not at all (only what varies)."""


def identity_prompts(name: str, count: int, *, seed: int, by: Asking) -> list[str]:
    """Prompts of pictures of `name`, who is asked for `by` word, describable traits or not at all."""
    if name in STYLES:
        rng = random.Random(f"{name}/{seed}")
        tags = [caption(random_avatar(rng), rng) for _ in range(count)]
        return [f"{name}, {each}" if by == "word" else each for each in tags]
    prompts = []
    for planned in _planned(name, count, seed):
        varying = planned.caption.removeprefix(f"{name}, ")
        who = {"word": f"{name}, 1girl", "traits": describable_tags(name), "nothing": SUBJECT_TAG}[by]
        prompts.append(f"{who}, {varying.removeprefix('1girl, ')}")
    return prompts


def wanted_avatars(name: str, count: int, *, seed: int) -> list[Avatar]:
    """What the pictures of `identity_prompts` of a character should show."""
    return [planned.avatar for planned in _planned(name, count, seed)]


def _planned(name: str, count: int, seed: int) -> list[make.Picture]:
    rng = random.Random(f"{name}/{seed}")
    seeds = [rng.randrange(2**31) for _ in range(count)]
    return [make.plan([name], [], pictures=1, seed=each, captions="pruned")[0] for each in seeds]


def requests(prompts: Sequence[str], *, steps: int = 16, cfg_scale: float = 4.0) -> list[SampleRequest]:
    """One small picture a prompt; seeds count up."""
    return [
        SampleRequest(
            prompt, NEGATIVE_PROMPT, width_px=64, height_px=64, steps=steps, cfg_scale=cfg_scale, seed=1000 + number
        )
        for number, prompt in enumerate(prompts)
    ]


# ---- scores ----


@dataclass(frozen=True, eq=False)
class Result:
    """Mean identity by row, identity by row and word, and the pictures by row, word by word."""

    identity: dict[str, float]
    by_embedding: dict[str, dict[str, float]]
    pictures: dict[str, list[Image.Image]]


def score(
    host: Host,
    scorer: Scorer,
    names: Sequence[str],
    *,
    embeddings: EmbeddingVectors,
    network: Network | None,
    rows: Sequence[Row] = ROWS,
    pictures_per_embedding: int = 8,
    seed: int = 0,
    labels: Mapping[str, str] = ROW_KEYS,
) -> Result:
    """Identity with parts on and off, for prompts that hold each name."""
    prompts = [p for name in names for p in identity_prompts(name, pictures_per_embedding, seed=seed, by="word")]
    asked = requests(prompts)
    pictures: dict[str, list[Image.Image]] = {}
    for row in rows:
        if network is None:
            pictures[labels[row.label]] = host.sample(asked, embeddings)
            continue
        with network.attach(), network.with_multipliers(unet=row.unet, te=row.te):
            pictures[labels[row.label]] = host.sample(asked, embeddings)
    return _result(scorer, names, pictures, pictures_per_embedding)


def score_base(
    host: Host, scorer: Scorer, names: Sequence[str], *, pictures_per_embedding: int = 8, seed: int = 0
) -> Result:
    """What the checkpoint gives for the describable traits alone: no word, no network."""
    prompts = [p for name in names for p in identity_prompts(name, pictures_per_embedding, seed=seed, by="traits")]
    return _result(scorer, names, {"base": host.sample(requests(prompts), {})}, pictures_per_embedding)


def _result(
    scorer: Scorer, names: Sequence[str], pictures: Mapping[str, list[Image.Image]], pictures_per_embedding: int
) -> Result:
    by_embedding: dict[str, dict[str, float]] = {}
    for row, made in pictures.items():
        by_embedding[row] = {
            name: scorer.identity(made[number * pictures_per_embedding : (number + 1) * pictures_per_embedding], name)
            for number, name in enumerate(names)
        }
    identity = {row: sum(scores.values()) / len(scores) for row, scores in by_embedding.items()}
    return Result(identity, by_embedding, dict(pictures))


def columns(
    result: Result, row: str, names: Sequence[str], *, each: int, pictures_per_embedding: int
) -> list[Image.Image]:
    """The first `each` pictures of every word in a row, for a grid."""
    made = result.pictures[row]
    return [made[number * pictures_per_embedding + i] for number in range(len(names)) for i in range(each)]


def without_embeddings(setup: Setup) -> Setup:
    """The plain LoRA to compare with: words off, rates as people use them for a LoRA alone."""
    return replace(
        setup, pivotal=False, te_lr=setup.unet_lr, embeddings_first=0.0, network_start=0.0, embeddings_only_share=0.0
    )
