"""The trained parts as checkpoint files."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import save_file

from examples.avatars import base_autoencoder, base_diffusion
from examples.avatars.base_optim import save_state
from examples.avatars.checkpoint_file import save_checkpoint, unet_to_ldm
from examples.avatars.checkpoints import BASE, RETRO, RETRO_UNET, WEIGHTS
from lib_pivotal.standalone.single_file import Checkpoint, load_checkpoint
from lib_pivotal.standalone.tokenizer import clip_tokenizer

TEXT_VERSION = "models/Stable-diffusion/avatars-text"
"""Where the web UI finds the text model's config and tokenizer, seen from its folder (`install.write_text_folder`)."""
NAMES = {"base": BASE, "retro": RETRO}


def assemble(cache: Path, style: str) -> Checkpoint:
    """The checkpoint `style` ("base" or "retro") as far as it is trained, fp32."""
    trainee = base_diffusion.trained(cache, style)
    vae = base_autoencoder.trained(cache)
    scale = base_diffusion.scale_factor(cache)
    vae.register_to_config(scaling_factor=scale)
    return Checkpoint(trainee.text, trainee.unet, vae, clip_tokenizer(), scale_factor=scale, name=NAMES[style])


def unpack(checkpoint: Path, cache: Path) -> None:
    """Keep the parts of a checkpoint in `cache` so that training goes on from them; its autoencoder stays as it is."""
    parts = load_checkpoint(checkpoint)
    save_state(cache / "decoder.pt", {"average": {"weights": parts.vae.float().state_dict()}})
    weights = {"text": parts.text_model.float().state_dict(), "unet": parts.unet.float().state_dict()}
    save_state(cache / "start.pt", weights | {"scale": parts.scale_factor})


def export(cache: Path, out: Path = WEIGHTS) -> list[Path]:
    """Write the base checkpoint with its yaml into `out`, and the U-Net of the second one where there is one; fp16."""
    paths = [out / f"{BASE}.safetensors"]
    save_checkpoint(paths[0], assemble(cache, "base"), text_version=TEXT_VERSION)
    if (cache / "retro.pt").exists():
        paths.append(out / RETRO_UNET)
        tensors = unet_to_ldm(base_diffusion.trained(cache, "retro").unet)
        save_file({name: tensor.half().contiguous() for name, tensor in tensors.items()}, paths[1])
    for path in paths:
        print(f"{path}: {path.stat().st_size / 1e6:.1f} MB", flush=True)
    return paths
