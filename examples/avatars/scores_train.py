"""Training and checking the avatars' classifier: about ten minutes on one core for each of its three networks.

A part that is trained alone goes on from the stored weights.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from examples.avatars.scores import EMBEDDINGS, SHAPE_VERSION, VALUES, Network, RoundTrip, Scorer, load_scorer
from examples.avatars.scores_data import (
    ATTRIBUTE_KINDS,
    KINDS,
    NO_ATTRIBUTE,
    TRAIT_KINDS,
    Renders,
    Roughener,
    blotches,
    held_out,
    make_renders,
    to_floats,
    training_renders,
)
from examples.avatars.world import random_avatar

Span: TypeAlias = tuple[float, float]
PARTS = ("identity", "attributes", "traits")
PICTURES = {"identity": 7_000, "attributes": 10_000, "traits": 20_000}
STEPS = {"identity": 2500, "attributes": 3000, "traits": 6000}
BATCH = 64
LEARNING_RATE = 3e-3
ATTRIBUTE_WEIGHT = 0.3
"""Of each attribute's cross entropy beside the words' binary cross entropy, in the words' network."""
TRUE_AT_LEAST = 0.9
FALSE_AT_MOST = 0.1
RETURNED_SHARE = 0.7
"""How many of the pictures to train on are also shown as they come back from the autoencoder."""
RUINED_SHARE = 0.12
"""Pictures of nobody for the words' network, as a share of the others."""
RUIN: dict[str, Span] = {"latent_noise": (1.2, 2.8), "gain": (0.0, 0.9)}
"""The latents of such a picture; see `roundtrip_of`. Vectors that have grown too far make the same bright blotches."""
LATENT_NOISE = (0.0, 0.3)
"""Of the pictures to train on: at most this many spreads of the latents."""
HELD_OUT_SEED = 90_210


def train(
    path: Path,
    roundtrip: RoundTrip,
    *,
    parts: Sequence[str] = PARTS,
    pictures: int | None = None,
    steps: int | None = None,
    seed: int = 0,
    ruin: RoundTrip = blotches,
) -> Scorer:
    """Train the networks of `parts` and store the scorer in half precision; the other part stays as it is stored.

    `ruin` spoils pictures beyond recognition: the words' network learns that these show nobody.
    """
    torch.manual_seed(seed)
    scorer = Scorer() if set(parts) == set(PARTS) else load_scorer(path)
    for number, part in enumerate(parts):
        shares = {"identity": KINDS, "attributes": ATTRIBUTE_KINDS, "traits": TRAIT_KINDS}[part]
        renders = training_renders(pictures or PICTURES[part], seed=seed + 10 * number + 1, shares=shares)
        returned = renders.through(roundtrip, count=round(len(renders.pictures) * RETURNED_SHARE))
        network = scorer.trait_network if part == "traits" else scorer.attribute_network
        if part == "identity":
            network = scorer.identity_network
            nobody = renders.ruined(ruin, count=max(1, round(len(renders.pictures) * RUINED_SHARE)))
            renders = renders.followed_by(nobody)
        train_network(network, renders, returned, steps=steps or STEPS[part], seed=seed)
    path.parent.mkdir(parents=True, exist_ok=True)
    half = {key: value.half().contiguous() for key, value in scorer.state_dict().items()}
    save_file(half, path, metadata={"shape": SHAPE_VERSION, "words": ",".join(EMBEDDINGS)})
    return scorer.eval().requires_grad_(False)


def train_network(network: Network, renders: Renders, returned: Tensor, *, steps: int, seed: int) -> None:
    """Train one network on renders; `returned` are the first of them as they come back from the autoencoder."""
    started = time.monotonic()
    count = len(renders.pictures)
    network.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=steps, pct_start=0.1)
    generator = torch.Generator().manual_seed(seed + 2)
    roughen = Roughener(generator)
    for step in range(steps):
        chosen = torch.randint(count, (BATCH,), generator=generator)
        through = (torch.rand(BATCH, generator=generator) < 0.85) & (chosen < len(returned))
        batch = renders.pictures[chosen]
        batch[through] = returned[chosen[through]]
        loss = loss_of(network(roughen(to_floats(batch))), renders, chosen)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.4f} after {time.monotonic() - started:.0f} s", flush=True)


def loss_of(logits: dict[str, Tensor], renders: Renders, chosen: Tensor) -> Tensor:
    """Binary cross entropy summed over the words, where there are words, and cross entropy of attributes shown."""
    loss = torch.zeros(())
    for number, name in enumerate(VALUES):
        if name not in logits:
            continue
        values = renders.attributes[chosen, number]
        shown = int((values != NO_ATTRIBUTE).sum())
        loss = loss + F.cross_entropy(logits[name], values, ignore_index=NO_ATTRIBUTE, reduction="sum") / max(shown, 1)
    if "words" not in logits:
        return loss
    embeddings = F.binary_cross_entropy_with_logits(logits["words"], renders.embeddings[chosen], reduction="none")
    return embeddings.sum(1).mean() + ATTRIBUTE_WEIGHT * loss


@dataclass
class Report:
    """What the classifier says of held-out renders."""

    true: dict[str, dict[str, float]] = field(default_factory=dict)
    """Word -> "render" or "round trip" -> identity score of the word's own renders."""
    false: dict[str, dict[str, float]] = field(default_factory=dict)
    """The same of its hard negatives."""
    ruined: dict[str, float] = field(default_factory=dict)
    """Word -> identity score of its own renders spoiled beyond recognition."""
    accuracy: dict[str, dict[str, float]] = field(default_factory=dict)
    """"render" or "round trip" -> attribute -> accuracy on renders of the base world."""

    @property
    def passed(self) -> bool:
        """Whether every word keeps to both limits."""
        worst_true = min(min(row.values()) for row in self.true.values())
        worst_false = max(max(row.values()) for row in self.false.values())
        return worst_true >= TRUE_AT_LEAST and max(worst_false, *self.ruined.values()) <= FALSE_AT_MOST

    def table(self) -> str:
        """The numbers for people."""
        lines = [f"{'word':12} {'true':>9} {'returned':>9} {'negative':>9} {'returned':>9} {'ruined':>9}"]
        for embedding, row in self.true.items():
            numbers = [*row.values(), *self.false[embedding].values(), self.ruined[embedding]]
            lines.append(f"{embedding:12} " + " ".join(f"{number:9.3f}" for number in numbers))
        lines += [
            f"attributes, {kind}: " + ", ".join(f"{name} {share:.3f}" for name, share in row.items())
            for kind, row in self.accuracy.items()
        ]
        lines.append("passed" if self.passed else f"NOT passed: at least {TRUE_AT_LEAST}, at most {FALSE_AT_MOST}")
        return "\n".join(lines)


def check(
    scorer: Scorer,
    roundtrip: RoundTrip,
    *,
    ruin: RoundTrip = blotches,
    pictures: int = 24,
    seed: int = HELD_OUT_SEED,
) -> Report:
    """Identity scores on `pictures` held-out renders of each word and as many hard negatives; attribute accuracy."""
    report = Report()
    for embedding in EMBEDDINGS:
        true, false = held_out(embedding, pictures, seed=seed)
        report.ruined[embedding] = scorer.identity(to_floats(true.through(ruin)), embedding)
        for rows, renders in ((report.true, true), (report.false, false)):
            rows[embedding] = {
                "render": scorer.identity(to_floats(renders.pictures), embedding),
                "round trip": scorer.identity(to_floats(renders.through(roundtrip)), embedding),
            }
    rng = random.Random(seed)
    avatars = [random_avatar(rng) for _ in range(8 * pictures)]
    renders = make_renders([(avatar, "plain") for avatar in avatars])
    report.accuracy["render"] = scorer.attribute_accuracy(to_floats(renders.pictures), avatars)
    report.accuracy["round trip"] = scorer.attribute_accuracy(to_floats(renders.through(roundtrip)), avatars)
    return report


def roundtrip_of(vae: Any, *, latent_noise: Span = (0.0, 0.0), gain: Span = (1.0, 1.0), seed: int = 0) -> RoundTrip:
    """Through a diffusers `AutoencoderKL`, with latents as sampling may leave them.

    Each picture's latents are multiplied by a number from `gain`, and get noise of so many latent spreads as a number
    from `latent_noise` says.
    """
    generator = torch.Generator().manual_seed(seed)

    def each(count: int, span: Span) -> Tensor:
        return span[0] + (span[1] - span[0]) * torch.rand((count, 1, 1, 1), generator=generator)

    @torch.no_grad()
    def roundtrip(pictures: Tensor) -> Tensor:
        latents = vae.encode(pictures).latent_dist.mean
        noise = torch.randn(latents.shape, generator=generator) * latents.std()
        latents = latents * each(len(latents), gain) + noise * each(len(latents), latent_noise)
        return vae.decode(latents).sample.clamp(-1, 1)

    return roundtrip


def load_roundtrip(checkpoint: Path, *, latent_noise: Span = (0.0, 0.0), gain: Span = (1.0, 1.0)) -> RoundTrip:
    """The round trip through the avatars' autoencoder, out of their checkpoint (SD1's layout, safetensors)."""
    from lib_pivotal.standalone.single_file import load_checkpoint

    return roundtrip_of(load_checkpoint(checkpoint).vae, latent_noise=latent_noise, gain=gain)
