"""Makes the avatars checkpoint: `python -m examples.avatars.train_base ae|decoder|text|unet|retro|export`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import torch

from examples.avatars import base_autoencoder, base_data, base_diffusion, base_export

MINUTES = {"ae": 26.0, "decoder": 40.0, "text": 4.0, "unet": 65.0, "retro": 9.0}
"""The shipped checkpoint's budgets; `ae` ran on two cores, all others on one."""


def main() -> None:
    """Run one phase; started again after an interruption, it goes on where it was."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("phase", choices=[*MINUTES, "export"])
    parser.add_argument("--minutes", type=float, help="time of the phase in all, over all of its starts")
    parser.add_argument("--cache", type=Path, default=base_data.CACHE, help="folder of renders and training states")
    parser.add_argument("--out", type=Path, default=base_export.WEIGHTS, help="where `export` writes")
    args = parser.parse_args()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
    minutes = args.minutes or MINUTES.get(args.phase, 0)
    if args.phase in ("ae", "decoder"):
        base_autoencoder.train(args.phase, args.cache, minutes)
    elif args.phase == "text":
        base_diffusion.train_text(args.cache, minutes)
    elif args.phase in ("unet", "retro"):
        base_diffusion.train_unet(args.cache, minutes, style="base" if args.phase == "unet" else "retro")
    else:
        base_export.export(args.cache, args.out)


if __name__ == "__main__":
    main()
