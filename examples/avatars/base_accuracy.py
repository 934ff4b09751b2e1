"""Does the base obey? `python -m examples.avatars.base_accuracy`: what was asked for against what is seen.

Attributes, and the kinds of unusual traits: cat ears or a halo, whatever their colour.

The judge is a small network on the autoencoder's latents, trained on renders in ten minutes; it knows nothing of the
U-Net. Generated pictures are encoded again before it sees them. Beside its figure on generated pictures stands its
figure on renders that it has not seen: the most that can be reached.
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from examples.avatars import base_data, sample, world
from examples.avatars.base_autoencoder import as_floats
from examples.avatars.base_captions import KINDS, SIZES
from examples.avatars.base_captions import labels as labels_of
from lib_pivotal.standalone.model import StandaloneHost

NAMES = (*world.ATTRIBUTES, *KINDS)
STEPS, BATCH, NOISE = 6000, 128, 0.08


def judge() -> nn.Sequential:
    """A network from latents `(n, 4, 8, 8)` to the logits of all attributes' values."""
    return nn.Sequential(
        nn.Conv2d(4, 64, 3, padding=1),
        nn.SiLU(),
        nn.Conv2d(64, 64, 3, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(64 * 64, 256),
        nn.SiLU(),
        nn.Linear(256, sum(SIZES)),
    )


def labels(avatars: list[world.Avatar]) -> Tensor:
    """What is in each picture, `(n, len(SIZES))`."""
    return torch.tensor([labels_of(avatar) for avatar in avatars])


def train(latents: Tensor, wanted: Tensor) -> nn.Sequential:
    """The judge, taught on latents with a little noise."""
    torch.manual_seed(31)
    model = judge()
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=STEPS)
    for _ in range(STEPS):
        which = torch.randint(len(latents), (BATCH,))
        logits = model(latents[which] + NOISE * torch.randn(BATCH, 4, 8, 8))
        loss = sum(F.cross_entropy(part, w) for part, w in zip(logits.split(SIZES, 1), wanted[which].T, strict=True))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return model.eval()


@torch.no_grad()
def accuracy(model: nn.Sequential, latents: Tensor, wanted: Tensor) -> dict[str, float]:
    """Share of right answers for each attribute and each kind, and their `mean`."""
    parts = model(latents).split(SIZES, 1)
    found = [(part.argmax(1) == want).float().mean().item() for part, want in zip(parts, wanted.T, strict=True)]
    return {**dict(zip(NAMES, found, strict=True)), "mean": sum(found) / len(found)}


def encoded(host: StandaloneHost, pictures: np.ndarray) -> Tensor:
    """Pictures `(n, 64, 64, 3)` as the checkpoint's own autoencoder sees them, `(n, 4, 8, 8)`."""
    return torch.cat([host.codec.encode(as_floats(pictures[i : i + 50])).mean for i in range(0, len(pictures), 50)])


def main() -> None:
    """Print accuracies on renders and on generated pictures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", type=Path, default=sample.WEIGHTS / "avatars.safetensors")
    parser.add_argument("--style", choices=("plain", "retro"), default="plain")
    parser.add_argument("--renders", type=int, default=30_000)
    parser.add_argument("--pictures", type=int, default=128)
    parser.add_argument("--cfg", type=float, default=sample.CFG_SCALE)
    parser.add_argument("--cache", type=Path, default=base_data.CACHE)
    args = parser.parse_args()
    host = StandaloneHost.load(args.checkpoint)
    name = "base" if args.style == "plain" else "retro"
    avatars = base_data.avatars(name, args.cache)[: args.renders]
    latents = encoded(host, base_data.pictures(name, args.cache)[: args.renders])
    held_out = len(latents) // 20
    model = train(latents[held_out:], labels(avatars[held_out:]))
    rng = random.Random(77)
    asked = [world.random_base(rng) for _ in range(args.pictures)]
    made = sample.pictures(host, [world.caption(avatar) for avatar in asked], seed=5, cfg_scale=args.cfg)
    seen = encoded(host, np.stack([np.asarray(picture) for picture in made]))
    report = {
        "renders": accuracy(model, latents[:held_out], labels(avatars[:held_out])),
        "generated": accuracy(model, seen, labels(asked)),
    }
    print(json.dumps({k: {n: round(x, 3) for n, x in v.items()} for k, v in report.items()}, indent=1))


if __name__ == "__main__":
    main()
