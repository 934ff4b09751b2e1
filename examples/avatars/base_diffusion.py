"""Training the avatars' text model (first on captions alone) and U-Net (on latents computed once)."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import UNet2DConditionModel
from torch import Tensor, nn
from transformers import CLIPTextModel

from examples.avatars import base_data, base_models, world
from examples.avatars.base_autoencoder import moments
from examples.avatars.base_captions import END, SIZES, TAGS, UNSPECIFIED, Captioner
from examples.avatars.base_optim import Average, Clock, Optimizers, average_gradients, join_workers, save_state
from lib_pivotal.bundle.pickles import load_plain

TEXT_BATCH = 64
UNET_BATCH = 48
SNR_CAP = 5.0
"""Min-SNR weighting (Hang et al., 2023, https://arxiv.org/abs/2303.09556): min(SNR, 5) / SNR on the noise's error."""
TEXT_JOINS = 0.5
"""The text model learns with the U-Net for this share of the time, at `TEXT_RATE` of its rate; then it is frozen."""
CONTINUED_RATE = 0.3
"""Of the text model's full rate, where it goes on from a checkpoint."""
TEXT_RATE = 0.15


def train_text(cache: Path, minutes: float) -> None:
    """Teach the text model what captions say, before there is a U-Net.

    Two throw-away heads: every attribute from the end token's and a padding place's output; each tag from
    its last token.
    """
    torch.manual_seed(11)
    model = base_models.text_model()
    rate = 1.0
    if (start := start_of(cache)) is not None:
        model.load_state_dict(start["text"])
        rate = CONTINUED_RATE
    said, named = nn.Linear(base_models.WIDTH, sum(SIZES)), nn.Linear(base_models.WIDTH, len(TAGS))
    optimizers = Optimizers([(model, rate), (said, 1.0), (named, 1.0)], muon_lr=0.02, adam_lr=2e-3)
    captioner = Captioner(empty=0.0)
    rng, clock, step = random.Random(12), Clock(minutes), 0
    seen: list[float] = []
    while clock.share < 1:
        ids, values, places = captioner.batch([world.random_base(rng) for _ in range(TEXT_BATCH)], rng)
        out = model(ids).last_hidden_state
        rows = torch.arange(len(ids))
        first_end = (ids == END).int().argmax(1)
        padding = torch.tensor([rng.randint(int(end), ids.shape[1] - 1) for end in first_end])
        loss = torch.zeros(())
        for outputs in (out[rows, first_end], out[rows, padding]):
            for logits, value in zip(said(outputs).split(SIZES, 1), values.T, strict=True):
                loss = loss + F.cross_entropy(logits, value, ignore_index=UNSPECIFIED) / (2 * len(SIZES))
        flat = torch.tensor([(row, place, tag) for row, tags in enumerate(places) for place, tag in tags])
        tag_loss = F.cross_entropy(named(out[flat[:, 0], flat[:, 1]]), flat[:, 2])
        (loss + 0.5 * tag_loss).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizers.step(clock.rate(step))
        seen.append(loss.item())
        step += 1
        if step % 50 == 0:
            mean = sum(seen) / len(seen)
            print(f"text {step} {clock.used_s:.0f}s loss {mean:.4f} tags {tag_loss.item():.4f}", flush=True)
            seen.clear()
    save_state(cache / "text.pt", {"text": model.state_dict(), "step": step})


def start_of(cache: Path) -> dict[str, Any] | None:
    """What `base_export.unpack` kept of the checkpoint to go on from: weights of `text` and `unet`, `scale`."""
    path = cache / "start.pt"
    return load_plain(path) if path.exists() else None


def scale_factor(cache: Path) -> float:
    """What brings latents to unit spread, rounded as it stands in the yaml; what is continued keeps its own."""
    if (start := start_of(cache)) is not None:
        return float(start["scale"])
    return round(1 / moments("base", cache)[:, :4].std().item(), 4)


class Trainee(nn.Module):
    """U-Net and text model as one module."""

    def __init__(self) -> None:
        super().__init__()
        self.unet: UNet2DConditionModel = base_models.unet()
        self.text: CLIPTextModel = base_models.text_model()

    def losses(self, latents: Tensor, ids: Tensor, generator: torch.Generator, *, train_text: bool) -> Tensor:
        """Weighted squared error of the predicted noise, `(batch,)`; timesteps spread evenly over the batch."""
        noise = torch.randn(latents.shape, generator=generator)
        shift = torch.rand((), generator=generator)
        places = (torch.arange(len(latents)) + torch.rand(len(latents), generator=generator)) / len(latents)
        timesteps = (((places + shift) % 1) * 1000).long()
        alphas = base_models.alphas_cumprod()[timesteps][:, None, None, None]
        noisy = alphas.sqrt() * latents + (1 - alphas).sqrt() * noise
        with torch.set_grad_enabled(train_text):
            context = self.text(ids).last_hidden_state
        error = (self.unet(noisy, timesteps, context).sample - noise).square().mean((1, 2, 3))
        snr = (alphas / (1 - alphas)).flatten()
        return error * snr.clamp(max=SNR_CAP) / snr


def train_unet(cache: Path, minutes: float, *, style: str = "base") -> None:
    """Train the U-Net, and at first the text model, on a set, resuming; `retro` starts from the base's U-Net."""
    rank, processes = join_workers()
    torch.manual_seed(21)
    trainee = Trainee()
    start = start_of(cache)
    if style == "base":
        trainee.text.load_state_dict(load_plain(cache / "text.pt")["text"])
        if start is not None:
            trainee.unet.load_state_dict(start["unet"])
    else:
        trainee.load_state_dict(load_plain(cache / "unet.pt")["average"]["weights"], strict=False)
    rates = (0.02, 2e-3) if style == "base" and start is None else (0.01, 1e-3)
    text_joins = TEXT_JOINS if style == "base" else 0.0
    optimizers = Optimizers([(trainee.unet, 1.0), (trainee.text, TEXT_RATE)], muon_lr=rates[0], adam_lr=rates[1])
    average = Average(trainee, 0.997)
    path = cache / ("unet.pt" if style == "base" else f"{style}.pt")
    step, used_s = 0, 0.0
    if path.exists():
        state = load_plain(path)
        trainee.load_state_dict(state["trainee"])
        optimizers.load_state_dict(state["optimizers"])
        average.load_state_dict(state["average"])
        step, used_s = state["step"], state["used_s"]
    avatars, latents_of = base_data.avatars(style, cache), moments(style, cache)
    scale = scale_factor(cache)
    captioner = Captioner(empty=0.1)
    rng = random.Random(100 * step + rank)
    generator = torch.Generator().manual_seed(100 * step + rank)
    batch = UNET_BATCH // processes
    clock = Clock(minutes, used_s)
    seen: list[float] = []
    while clock.share < 1:
        which = torch.randint(len(avatars), (batch,), generator=generator)
        mean, logvar = latents_of[which].chunk(2, 1)
        latents = (mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=generator)) * scale
        ids, _, _ = captioner.batch([avatars[i] for i in which.tolist()], rng)
        loss = trainee.losses(latents, ids, generator, train_text=clock.share < text_joins).mean()
        loss.backward()
        average_gradients([trainee])
        nn.utils.clip_grad_norm_(trainee.parameters(), 1.0)
        optimizers.step(clock.rate(step, warm_up=60))
        average.update(trainee)
        seen.append(loss.item())
        step += 1
        if step % 50 == 0 and rank == 0:
            print(f"{style} {step} {clock.used_s:.0f}s loss {sum(seen) / len(seen):.4f}", flush=True)
            seen.clear()
        if rank == 0 and (step % 200 == 0 or clock.share >= 1):
            save_state(path, {"trainee": trainee.state_dict(), "optimizers": optimizers.state_dict(),
                              "average": average.state_dict(), "step": step, "used_s": clock.used_s})  # fmt: skip


def trained(cache: Path, style: str = "base") -> Trainee:
    """U-Net and text model of a checkpoint so far, averaged."""
    trainee = Trainee()
    state = load_plain(cache / ("unet.pt" if style == "base" else f"{style}.pt"))
    trainee.load_state_dict(state["average"]["weights"], strict=False)
    return trainee.eval().requires_grad_(False)
