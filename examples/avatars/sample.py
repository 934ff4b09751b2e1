"""Sheets of captions and their pictures: `python -m examples.avatars.sample [CHECKPOINT] --out SHEET.png`."""

from __future__ import annotations

import argparse
import random
import textwrap
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

from examples.avatars import world
from lib_pivotal.ports import SampleRequest
from lib_pivotal.standalone.model import StandaloneHost

WEIGHTS = Path(__file__).parent / "weights"
STEPS, CFG_SCALE = 20, 4.0


def pictures(
    host: StandaloneHost, prompts: Sequence[str], *, seed: int = 0, steps: int = STEPS, cfg_scale: float = CFG_SCALE
) -> list[Image.Image]:
    """One 64-pixel picture a prompt, seeds counting up from `seed`."""
    requests = [
        SampleRequest(prompt, width_px=64, height_px=64, steps=steps, cfg_scale=cfg_scale, seed=seed + i)
        for i, prompt in enumerate(prompts)
    ]
    return host.sample(requests, {})


def sheet(images: Sequence[Image.Image], captions: Sequence[str], *, columns: int = 8, enlarge: int = 2) -> Image.Image:
    """Pictures over their captions, `columns` a row."""
    side, text_px = 64 * enlarge, 44
    rows = -(-len(images) // columns)
    out = Image.new("RGB", (columns * (side + 6), rows * (side + text_px)), "white")
    pen, font = ImageDraw.Draw(out), ImageFont.load_default()
    for index, (image, caption) in enumerate(zip(images, captions, strict=True)):
        x, y = index % columns * (side + 6), index // columns * (side + text_px)
        out.paste(image.resize((side, side), Image.Resampling.BICUBIC), (x, y))
        short = caption.removeprefix("1girl, ").replace(" background", " bg")
        for line, embeddings in enumerate(textwrap.wrap(short, width=side // 6)[: text_px // 11]):
            pen.text((x, y + side + line * 10), embeddings, fill="black", font=font)
    return out


def random_prompts(count: int, seed: int) -> tuple[list[world.Avatar], list[str]]:
    """Avatars of the base world and their captions."""
    rng = random.Random(seed)
    avatars = [world.random_base(rng) for _ in range(count)]
    return avatars, [world.caption(avatar) for avatar in avatars]


def main() -> None:
    """Draw a sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkpoint", type=Path, nargs="?", default=WEIGHTS / "avatars.safetensors")
    parser.add_argument("--out", type=Path, default=Path("base_sheet.png"))
    parser.add_argument("--count", type=int, default=64)
    parser.add_argument("--seed", type=int, default=1000)
    parser.add_argument("--cfg", type=float, default=CFG_SCALE)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--prompt", action="append", help="instead of random captions; may be given often")
    args = parser.parse_args()
    prompts = args.prompt or random_prompts(args.count, args.seed)[1]
    host = StandaloneHost.load(args.checkpoint)
    with torch.no_grad():
        images = pictures(host, prompts, seed=args.seed, steps=args.steps, cfg_scale=args.cfg)
    sheet(images, prompts, columns=min(8, len(prompts))).save(args.out)


if __name__ == "__main__":
    main()
