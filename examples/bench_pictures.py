"""Pictures for `bench_page`: JPEG and PNG as datasets of drawings have them, with captions, and some near doubles."""

from __future__ import annotations

import os
import random
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image, ImageChops, ImageDraw, ImageFilter

EMBEDDINGS = tuple("aoiko hanako kazeko umiko yukiko sorako rinko meiko taroko jiroko sumiko noriko".split())
COLOURS = ("blue", "green", "red", "brown", "black", "blonde", "white", "pink", "purple", "orange", "silver", "grey")
TAGS = (
    "smile,frown,hat,park,sky,city,sea,night,school uniform,dress,looking at viewer,open mouth,standing,sitting,"
    "upper body,close-up,from side,glasses,scarf,rain,tree,cloud,blush,closed eyes,book,cup,flower,window"
).split(",")
SIZES = ((512, 768), (768, 512), (640, 640), (576, 704), (704, 576), (512, 640), (768, 768), (512, 512))
PLAIN_SHARE = 0.2
"""So many stand on a plain white ground; their tops are alike."""
DOUBLE_EVERY = 250
_GRAIN_PX = 800


def write_pictures(folder: Path, count: int) -> None:
    """`count` pictures, every second one PNG, each with a caption of a dozen tags; what is there already stays."""
    workers = os.cpu_count() or 1
    with ProcessPoolExecutor(max_workers=workers) as pool:
        list(pool.map(partial(_write_some, folder, count, workers), range(workers)))


def _write_some(folder: Path, count: int, step: int, start: int) -> None:
    grains = [Image.effect_noise((_GRAIN_PX, _GRAIN_PX), sigma) for sigma in (1.0, 2.0, 4.0, 6.0)]
    for number in range(start, count, step):
        rng = random.Random(number)
        place = min(len(EMBEDDINGS) - 1, int(rng.random() ** 1.7 * len(EMBEDDINGS)))
        file = folder / EMBEDDINGS[place] / f"{number:05d}.{'png' if number % 2 else 'jpg'}"
        if file.exists():
            continue
        file.parent.mkdir(parents=True, exist_ok=True)
        file.with_suffix(".txt").write_text(_caption(rng, place), encoding="utf-8")
        picture = drawing(rng, grains[rng.randrange(len(grains))])
        half_done = file.with_suffix(".part")
        picture.save(half_done, "PNG" if number % 2 else "JPEG", quality=90, compress_level=4)
        half_done.replace(file)
        if number % DOUBLE_EVERY == 0:
            double = file.with_name(f"{number:05d}b.png")
            double.with_suffix(".txt").write_text(_caption(rng, place), encoding="utf-8")
            picture.resize((picture.width // 2, picture.height // 2)).save(double)


def drawing(rng: random.Random, grain: Image.Image) -> Image.Image:
    """Shapes with outlines on a graded ground (or a plain one), a little grain over all."""
    width, height = rng.choice(SIZES)
    plain = rng.random() < PLAIN_SHARE
    picture = Image.new("RGB", (width, height), "white") if plain else _graded(rng, width, height)
    draw = ImageDraw.Draw(picture)
    for _ in range(rng.randrange(8, 24)):
        x, y = rng.randrange(width), rng.randrange(height * 4 // 10 if plain else 0, height)
        across, down = rng.randrange(20, 220), rng.randrange(20, 110 if plain else 220)
        kind, fill = rng.randrange(3), _colour(rng)
        if kind == 0:
            draw.ellipse((x - across, y - down, x + across, y + down), fill=fill, outline=(20, 20, 30), width=3)
            continue
        corners = [(x + rng.randint(-across, across), y + rng.randint(-down, down)) for _ in range(6)]
        if kind == 1:
            draw.polygon(corners, fill=fill, outline=(20, 20, 30))
        else:
            draw.line(corners, fill=fill, width=rng.randrange(2, 9), joint="curve")
    picture = picture.filter(ImageFilter.GaussianBlur(0.8))
    if plain and rng.random() < 0.5:
        return picture
    left, top = rng.randrange(_GRAIN_PX - width + 1), rng.randrange(_GRAIN_PX - height + 1)
    light = grain.crop((left, top, left + width, top + height))
    blue = grain.transpose(Image.Transpose.TRANSPOSE).crop((left, top, left + width, top + height))
    return ImageChops.add(picture, Image.merge("RGB", (light, light, blue)), 1.0, -128)


def _graded(rng: random.Random, width: int, height: int) -> Image.Image:
    slope = Image.linear_gradient("L").resize((width, height))
    return Image.composite(
        Image.new("RGB", slope.size, _colour(rng)), Image.new("RGB", slope.size, _colour(rng)), slope
    )


def _colour(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


def _caption(rng: random.Random, place: int) -> str:
    tags = [EMBEDDINGS[place], "1girl", f"{COLOURS[place]} hair", f"{COLOURS[(place * 5 + 3) % 12]} eyes", "long hair"]
    tags = tags[:2] + [tag for tag in tags[2:] if rng.random() < 0.95] + rng.sample(TAGS, 8)
    return ", ".join(tags + [f"thing {rng.randrange(600)}" for _ in range(3)])
