"""Training and checking the avatars' classifier; a few minutes on one core."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor

from examples.avatars.scores import SHAPE_VERSION, WORDS, RoundTrip, Scorer
from examples.avatars.scores_data import (
    Renders,
    Roughener,
    held_out,
    make_renders,
    to_floats,
    training_renders,
)
from examples.avatars.world import ATTRIBUTES, random_avatar

PICTURES = 10_000
STEPS = 4_000
BATCH = 64
LEARNING_RATE = 3e-3
ATTRIBUTE_WEIGHT = 0.3
"""Of the mean cross entropy over attributes beside the words' binary cross entropy."""
TRUE_AT_LEAST = 0.9
FALSE_AT_MOST = 0.1
LATENT_NOISE = 0.3
"""Of the pictures to train on: at most this many spreads of the latents."""
HELD_OUT_SEED = 90_210


def train(
    path: Path,
    roundtrip: RoundTrip,
    *,
    pictures: int = PICTURES,
    steps: int = STEPS,
    seed: int = 0,
    renders: Renders | None = None,
) -> Scorer:
    """Train on renders, half of them also as they come back from the autoencoder; store the weights in half precision.

    `renders`: those of `training_renders(pictures, seed=seed + 1)` where they are drawn already.
    """
    torch.manual_seed(seed)
    started = time.monotonic()
    renders = renders or training_renders(pictures, seed=seed + 1)
    pictures = len(renders.pictures)
    returned = renders.through(roundtrip, count=pictures // 2)
    print(f"{pictures} renders after {time.monotonic() - started:.0f} s", flush=True)
    scorer = Scorer().train()
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed + 2)
    roughen = Roughener(generator)
    for step in range(steps):
        chosen = torch.randint(pictures, (BATCH,), generator=generator)
        through = (torch.rand(BATCH, generator=generator) < 0.85) & (chosen < len(returned))
        batch = renders.pictures[chosen]
        batch[through] = returned[chosen[through]]
        loss = loss_of(scorer, roughen(to_floats(batch)), renders, chosen)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(scorer.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.4f} after {time.monotonic() - started:.0f} s", flush=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {key: value.half().contiguous() for key, value in scorer.state_dict().items()}
    save_file(half, path, metadata={"shape": SHAPE_VERSION, "words": ",".join(WORDS), "pictures": str(pictures)})
    return scorer.eval()


def loss_of(scorer: Scorer, batch: Tensor, renders: Renders, chosen: Tensor) -> Tensor:
    """Binary cross entropy summed over the words, and cross entropy of the attributes."""
    words, attributes = scorer(batch)
    loss = F.binary_cross_entropy_with_logits(words, renders.words[chosen], reduction="none").sum(1).mean()
    for number, name in enumerate(ATTRIBUTES):
        loss = loss + ATTRIBUTE_WEIGHT * F.cross_entropy(attributes[name], renders.attributes[chosen, number])
    return loss


@dataclass
class Report:
    """What the classifier says of held-out renders."""

    true: dict[str, dict[str, float]] = field(default_factory=dict)
    """Word -> "render" or "round trip" -> identity score of the word's own renders."""
    false: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same of its hard negatives."""
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)
    """"render" or "round trip" -> attribute -> accuracy on renders of the base world."""

    @property
    def passed(self) -> bool:
        """Whether every word keeps to both limits."""
        worst_true = min(min(row.values()) for row in self.true.values())
        worst_false = max(max(row.values()) for row in self.false.values())
        return worst_true >= TRUE_AT_LEAST and worst_false <= FALSE_AT_MOST

    def table(self) -> str:
        """The numbers for people."""
        lines = [f"{'word':12} {'true':>9} {'returned':>9} {'negative':>9} {'returned':>9}"]
        for word, row in self.true.items():
            numbers = [*row.values(), *self.false[word].values()]
            lines.append(f"{word:12} " + " ".join(f"{number:9.3f}" for number in numbers))
        lines += [
            f"attributes, {kind}: " + ", ".join(f"{name} {share:.3f}" for name, share in row.items())
            for kind, row in self.accuracy.items()
        ]
        lines.append("passed" if self.passed else f"NOT passed: at least {TRUE_AT_LEAST}, at most {FALSE_AT_MOST}")
        return "\n".join(lines)


def check(scorer: Scorer, roundtrip: RoundTrip, *, pictures: int = 24, seed: int = HELD_OUT_SEED) -> Report:
    """Identity scores on `pictures` held-out renders of each word and as many hard negatives; attribute accuracy."""
    report = Report()
    for word in WORDS:
        for rows, renders in zip((report.true, report.false), held_out(word, pictures, seed=seed), strict=True):
            rows[word] = {
                "render": scorer.identity(to_floats(renders.pictures), word),
                "round trip": scorer.identity(to_floats(renders.through(roundtrip)), word),
            }
    rng = random.Random(seed)
    avatars = [random_avatar(rng) for _ in range(8 * pictures)]
    renders = make_renders([(avatar, "plain") for avatar in avatars])
    report.accuracy["render"] = scorer.attribute_accuracy(to_floats(renders.pictures), avatars)
    report.accuracy["round trip"] = scorer.attribute_accuracy(to_floats(renders.through(roundtrip)), avatars)
    return report


def roundtrip_of(vae: Any, *, latent_noise: float = 0.0, seed: int = 0) -> RoundTrip:
    """Through a diffusers `AutoencoderKL`, with noise of up to `latent_noise` latent spreads, as sampling errors."""
    generator = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def roundtrip(pictures: Tensor) -> Tensor:
        latents = vae.encode(pictures).latent_dist.mean
        amounts = latent_noise * torch.rand((len(latents), 1, 1, 1), generator=generator)
        noise = torch.randn(latents.shape, generator=generator)
        return vae.decode(latents + amounts * latents.std() * noise).sample.clamp(-1, 1)

    return roundtrip


def load_roundtrip(checkpoint: Path, *, latent_noise: float = 0.0) -> RoundTrip:
    """The round trip through the avatars' autoencoder, out of their checkpoint (SD1's layout, safetensors)."""
    from examples.avatars import base_models
    from lib_pivotal.standalone.compvis import to_diffusers, vae_prefixes

    prefix = "first_stage_model."
    weights = {
        key.removeprefix(prefix): tensor for key, tensor in load_file(checkpoint).items() if key.startswith(prefix)
    }
    if not weights:
        raise ValueError(f"{checkpoint} holds no {prefix}*; name a checkpoint in SD1's layout")
    vae = base_models.autoencoder()
    vae.load_state_dict({key: tensor.float() for key, tensor in to_diffusers(weights, vae_prefixes(4, 1))[0].items()})
    return roundtrip_of(vae.eval().requires_grad_(False), latent_noise=latent_noise)
