"""How well each part explains pictures that no run has seen: the loss at fixed noise, without sampling or a score.

The separation score of the core, with another base: here it is the checkpoint with the describable traits as prompt,
the same base that the identity is compared with.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from statistics import mean

import numpy as np
import torch
from torch import Tensor

from examples import experiment
from examples.avatars import make
from examples.avatars.characters import describable_tags
from examples.avatars.world import SUBJECT_TAG, render
from examples.evidence_sheets import SIDE_PX
from lib_pivotal.config import Run
from lib_pivotal.evaluation.parts_grid import Row
from lib_pivotal.evaluation.separation import TIMESTEPS
from lib_pivotal.networks.network import Network
from lib_pivotal.ports import EmbeddingVectors, Host, TrainingBatch
from lib_pivotal.training.assemble import make_objective
from lib_pivotal.training.schedule import NoiseSchedule
from lib_pivotal.training.step import MicroStep

PICTURES = 8
SEED = 4711
"""Of the held-out pictures; the runs' own seeds are small numbers."""


@torch.no_grad()
def held_out_losses(
    host: Host, names: Sequence[str], embeddings: EmbeddingVectors, network: Network | None, rows: Sequence[Row]
) -> dict[str, float]:
    """Mean loss by row, and of the prompts without word: `base` (describable traits) and `nothing`."""
    run = Run()
    step = MicroStep(
        host.text,
        host.denoiser,
        schedule=NoiseSchedule(host.alphas_cumprod, v_prediction=host.info.v_prediction),
        objective=make_objective(run.loss, run.noise, mask_prior=run.data.mask_prior),
        device=host.device,
    )
    latents, captions = _pictures(host, names)
    found: dict[str, float] = {}
    found["base"] = _loss(step, latents, captions["traits"], {})
    found["nothing"] = _loss(step, latents, captions["nothing"], {})
    for row in rows:
        with ExitStack() as attached:
            if network is not None:
                attached.enter_context(network.attach())
                attached.enter_context(network.with_multipliers(unet=row.unet, te=row.te))
            found[row.label] = _loss(step, latents, captions["word"], embeddings)
    return found


def share(losses: Mapping[str, float], row: str) -> float:
    """(base - row) / (base - whole): how much of what the whole explains beyond the base's prompt is in the row."""
    return (losses["base"] - losses[row]) / (losses["base"] - losses["whole"])


def _pictures(host: Host, names: Sequence[str]) -> tuple[list[Tensor], dict[experiment.Asking, list[list[str]]]]:
    latents: list[Tensor] = []
    captions: dict[experiment.Asking, list[list[str]]] = {"word": [], "traits": [], "nothing": []}
    for name in names:
        planned = make.plan([name], [], pictures=PICTURES, seed=SEED, captions="pruned")
        pixels = np.stack([np.asarray(render(plan.avatar, SIDE_PX, plan.look)) for plan in planned])
        tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1
        latents.append(host.codec.encode(tensor).mean)
        varying = [plan.caption.removeprefix(f"{name}, ").removeprefix(f"{SUBJECT_TAG}, ") for plan in planned]
        captions["word"].append([f"{name}, {SUBJECT_TAG}, {tags}" for tags in varying])
        captions["traits"].append([f"{describable_tags(name)}, {tags}" for tags in varying])
        captions["nothing"].append([f"{SUBJECT_TAG}, {tags}" for tags in varying])
    return latents, captions


def _loss(
    step: MicroStep, latents: Sequence[Tensor], captions: Sequence[list[str]], embeddings: EmbeddingVectors
) -> float:
    losses = []
    for pictures, texts in zip(latents, captions, strict=True):
        batch = TrainingBatch(pictures, texts, None, torch.ones(len(texts)), [str(i) for i in range(len(texts))])
        for timestep in TIMESTEPS:
            fixed = torch.full((len(texts),), timestep)
            losses.append(float(step.losses(batch, embeddings, seeds=(SEED, 0), timesteps=fixed).mean()))
    return mean(losses)
