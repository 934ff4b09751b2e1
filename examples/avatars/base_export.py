"""The trained parts as checkpoint files."""

from __future__ import annotations

from pathlib import Path

from examples.avatars import base_autoencoder, base_diffusion
from examples.avatars.checkpoint_file import save_checkpoint
from lib_pivotal.standalone.single_file import Checkpoint
from lib_pivotal.standalone.tokenizer import clip_tokenizer

WEIGHTS = Path(__file__).parent / "weights"
TEXT_VERSION = "models/Stable-diffusion/avatars-text"
"""Where the web UI finds the text model's config and tokenizer, seen from its folder (`install.write_text_folder`)."""
NAMES = {"base": "avatars", "retro": "avatars-retro"}


def assemble(cache: Path, style: str) -> Checkpoint:
    """The checkpoint `style` ("base" or "retro") as far as it is trained, fp32."""
    trainee = base_diffusion.trained(cache, style)
    vae = base_autoencoder.trained(cache)
    scale = base_diffusion.scale_factor(cache)
    vae.register_to_config(scaling_factor=scale)
    return Checkpoint(trainee.text, trainee.unet, vae, clip_tokenizer(), scale_factor=scale, name=NAMES[style])


def export(cache: Path, out: Path = WEIGHTS) -> list[Path]:
    """Write every checkpoint there is a U-Net for (fp16, with its yaml) into `out`."""
    paths = []
    for style, state in (("base", "unet.pt"), ("retro", "retro.pt")):
        if (cache / state).exists():
            paths.append(out / f"{NAMES[style]}.safetensors")
            save_checkpoint(paths[-1], assemble(cache, style), text_version=TEXT_VERSION)
            print(f"{paths[-1]}: {paths[-1].stat().st_size / 1e6:.1f} MB", flush=True)
    return paths
