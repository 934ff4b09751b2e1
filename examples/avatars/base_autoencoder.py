"""Training the avatars' autoencoder: first whole, then, with the encoder frozen, its decoder alone."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from PIL import Image
from torch import Tensor

from examples.avatars import base_data, base_models
from examples.avatars.base_optim import Average, Clock, Optimizers, average_gradients, join_workers, save_state
from lib_pivotal.bundle.pickles import load_plain

BATCH = 8
"""Pictures a step and process."""
KL_WEIGHT = 0.002
"""On the mean KL of a latent value: its noise settles near 0.05 of its spread; the decoder grows forgiving."""


def as_floats(pictures: np.ndarray) -> Tensor:
    """uint8 `(n, h, w, 3)` to -1..1 `(n, 3, h, w)`."""
    return torch.from_numpy(np.array(pictures)).permute(0, 3, 1, 2).float() / 127.5 - 1


def picture_loss(made: Tensor, true: Tensor) -> Tensor:
    """L1 + MSE + L1 between neighbouring pixels' differences (edges); one number a batch."""
    error = made - true
    edges = error.diff(dim=-1).abs().mean() + error.diff(dim=-2).abs().mean()
    return error.abs().mean() + error.square().mean() + edges


def train(phase: str, cache: Path, minutes: float) -> None:
    """Train `phase` ("ae": everything; "decoder": the decoder, on latents computed once) for `minutes`, resuming."""
    rank, processes = join_workers()
    torch.manual_seed(7)
    vae = base_models.autoencoder()
    with torch.no_grad():
        vae.quant_conv.bias[4:] -= 4.0  # little noise at first
    state_path = cache / f"{phase}.pt"
    if phase == "decoder":
        whole = load_plain(cache / "ae.pt")
        vae.load_state_dict(whole["average"]["weights"])
        vae.encoder.requires_grad_(False)
        vae.quant_conv.requires_grad_(False)
    muon_lr, adam_lr = (0.02, 2e-3) if phase == "ae" else (0.01, 1e-3)
    optimizers = Optimizers([(vae, 1.0)], muon_lr=muon_lr, adam_lr=adam_lr)
    average = Average(vae, 0.995)
    step, used_s = 0, 0.0
    if state_path.exists():
        state = load_plain(state_path)
        vae.load_state_dict(state["vae"])
        optimizers.load_state_dict(state["optimizers"])
        average.load_state_dict(state["average"])
        step, used_s = state["step"], state["used_s"]
    sets = [base_data.pictures("generic", cache), base_data.pictures("base", cache)]
    generator = torch.Generator().manual_seed(1000 * step + rank)
    latents_of = [moments(name, cache) for name in ("generic", "base")] if phase == "decoder" else []
    clock = Clock(minutes, used_s)
    seen: list[Tensor] = []
    while clock.share < 1:
        which = [torch.randint(len(s), (BATCH // 2,), generator=generator) for s in sets]
        true = as_floats(np.concatenate([s[np.sort(w.numpy())] for s, w in zip(sets, which, strict=True)]))
        if phase == "ae":
            posterior = vae.encode(true).latent_dist
            mean, logvar = posterior.mean, posterior.logvar
        else:
            both = torch.cat([m[w.sort().values] for m, w in zip(latents_of, which, strict=True)])
            mean, logvar = both.chunk(2, 1)
        noise = torch.randn(mean.shape, generator=generator)
        latents = mean + torch.exp(0.5 * logvar) * noise
        made = vae.decode(latents).sample
        rec = picture_loss(made, true)
        kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
        loss = rec + KL_WEIGHT * min(1.0, step / 200) * kl if phase == "ae" else rec
        loss.backward()
        average_gradients([vae])
        torch.nn.utils.clip_grad_norm_(vae.parameters(), 1.0)
        optimizers.step(clock.rate(step))
        average.update(vae)
        l1, noise_spread = F.l1_loss(made.detach(), true), logvar.detach().exp().mean().sqrt()
        seen.append(torch.stack([rec.detach(), l1, kl.detach(), noise_spread]))
        step += 1
        if step % 25 == 0 and rank == 0:
            numbers = torch.stack(seen).mean(0).tolist()
            print(f"{phase} {step} {clock.used_s:.0f}s loss {numbers[0]:.4f} l1 {numbers[1]:.4f} kl {numbers[2]:.3f} "
                  f"noise {numbers[3]:.3f} spread {mean.detach().std():.3f}", flush=True)  # fmt: skip
            seen.clear()
        if rank == 0 and (step % 200 == 0 or clock.share >= 1):
            save_state(state_path, {"vae": vae.state_dict(), "optimizers": optimizers.state_dict(),
                                    "average": average.state_dict(), "step": step, "used_s": clock.used_s})  # fmt: skip
            sheet(cache, phase)


@torch.no_grad()
def moments(name: str, cache: Path) -> Tensor:
    """Mean and log variance of the latents of a set's pictures, `(n, 8, 8, 8)`, computed once and kept."""
    path = cache / f"{name}_moments.pt"
    if not path.exists():
        vae, pictures = trained(cache), base_data.pictures(name, cache)
        rows = [vae.encode(as_floats(pictures[i : i + 50])).latent_dist.parameters for i in range(0, len(pictures), 50)]
        torch.save(torch.cat(rows), path)
    return load_plain(path)


def trained(cache: Path) -> AutoencoderKL:
    """The best autoencoder so far: the averaged weights of the decoder's phase, else of the first."""
    vae = base_models.autoencoder()
    path = cache / "decoder.pt"
    state = load_plain(path if path.exists() else cache / "ae.pt")
    vae.load_state_dict(state["average"]["weights"])
    return vae.eval().requires_grad_(False)


@torch.no_grad()
def sheet(cache: Path, phase: str) -> None:
    """Two dozen pictures above their reconstructions, enlarged, as `<cache>/<phase>.png`."""
    vae = trained(cache)
    generic, base = base_data.pictures("generic", cache), base_data.pictures("held_out", cache)
    true = np.concatenate([generic[:12], base[:12]])
    made = vae.decode(vae.encode(as_floats(true)).latent_dist.mean).sample
    out = ((made.clamp(-1, 1) + 1) * 127.5).round().byte().permute(0, 2, 3, 1).numpy()
    rows = [true[:12], out[:12], true[12:], out[12:]]
    grid = np.concatenate([np.concatenate(list(row), 1) for row in rows], 0)
    size = (grid.shape[1] * 2, grid.shape[0] * 2)
    Image.fromarray(grid).resize(size, Image.Resampling.NEAREST).save(cache / f"{phase}.png")
