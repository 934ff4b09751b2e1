"""Renders for training the base checkpoint, kept on disk so that no training step waits for the renderer."""

from __future__ import annotations

import json
import random
import tempfile
from dataclasses import asdict
from pathlib import Path

import numpy as np

from examples.avatars import world

SIZE_PX = 64
CACHE = Path(tempfile.gettempdir()) / "avatars_base"
"""Where renders and training states lie unless `--cache` says otherwise."""

SETS: dict[str, tuple[int, int, dict[str, float]]] = {
    # name: (seed, pictures, weights of the looks)
    "generic": (1, 16_000, {"plain": 0.55, "retro": 0.20, "watercolour": 0.15, "outlined": 0.10}),
    "base": (2, 30_000, {"plain": 1.0}),
    "retro": (3, 6_000, {"retro": 1.0}),
    "held_out": (4, 512, {"plain": 1.0}),
}
"""`generic` (all looks) is for the autoencoder alone; the others see `base` (then `retro`)."""


def render_set(name: str, cache: Path = CACHE) -> None:
    """Render one of `SETS` into `<cache>/<name>.npy`, uint8 `(pictures, 64, 64, 3)`, attributes in `<name>.json`."""
    seed, count, looks = SETS[name]
    cache.mkdir(parents=True, exist_ok=True)
    if (cache / f"{name}.json").exists():
        return
    rng = random.Random(seed)
    pictures = np.empty((count, SIZE_PX, SIZE_PX, 3), np.uint8)
    avatars = []
    for index in range(count):
        avatar = world.random_generic(rng) if name == "generic" else world.random_base(rng)
        look = rng.choices(list(looks), list(looks.values()))[0]
        pictures[index] = np.asarray(world.render(avatar, size_px=SIZE_PX, style=look))
        avatars.append(asdict(avatar) | {"look": look})
        if index % 1000 == 0:
            print(f"{name}: {index}/{count}", flush=True)
    np.save(cache / f"{name}.npy", pictures)
    (cache / f"{name}.json").write_text(json.dumps(avatars), encoding="utf-8")


def pictures(name: str, cache: Path = CACHE) -> np.ndarray:
    """The renders of a set, memory-mapped, `(pictures, 64, 64, 3)` uint8."""
    render_set(name, cache)
    return np.load(cache / f"{name}.npy", mmap_mode="r")


def avatars(name: str, cache: Path = CACHE) -> list[world.Avatar]:
    """Who is in the pictures of a set."""
    render_set(name, cache)
    rows = json.loads((cache / f"{name}.json").read_text(encoding="utf-8"))
    names = world.ATTRIBUTES
    return [world.Avatar(**{key: row[key] for key in names}, traits=world.Traits(**row["traits"])) for row in rows]
