"""Datasets of avatars as people have them.

`python -m examples.avatars.make --layout plain --words 5 --pictures 12 --out DIR`

- *plain*: one folder; every caption begins with the words in its picture.
- *kohya*: a folder `N_word` for each word, N the repeats that even out the numbers of pictures.
- *kgrid*: the layout of the anime screenshot pipeline (methods: cyber-meow/anime_screenshot_pipeline):
  `training/{image type}/{n}_character(s)/{character}/` with `multiply.txt`, and `emb_init.json`, `core_tag.json`,
  `wildcard.txt` beside the image types. With `--pairs`, two characters side by side are in `2_characters/{a}+{b}/`.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from examples.avatars.characters import CHARACTERS, STYLES, character_avatar, character_tags
from examples.avatars.world import SUBJECT_TAG, Avatar, caption, random_base, render

LAYOUTS = ("plain", "kohya", "kgrid")
CAPTIONS = ("full", "pruned")
MAX_EMBEDDINGS = len(CHARACTERS) + len(STYLES)
PAIR_TAG = "2girls"
STYLED_SHARE = 0.25
"""How many of a character's pictures are in one of the styles, where there is a style."""


@dataclass(frozen=True)
class Picture:
    """One picture of a dataset before it is drawn."""

    avatar: Avatar
    caption: str
    character: str | None
    style: str | None
    beside: Avatar | None = None
    """Who stands on the right of a picture of two."""
    companion: str | None = None

    @property
    def concept(self) -> str:
        """The word whose folder it belongs to: the character's, or the style's where there is no character."""
        if self.character and self.companion:
            return f"{self.character}+{self.companion}"
        return self.character or self.style or "others"

    def draw(self, size_px: int) -> Image.Image:
        """The picture, square; of two people each has a half of it."""
        left = render(self.avatar, size_px, self.look)
        if self.beside is not None:
            right = render(self.beside, size_px, self.look)
            quarter, half = size_px // 4, size_px // 2
            middle = right.crop((quarter, 0, quarter + half, size_px))
            left.paste(left.crop((quarter, 0, quarter + half, size_px)), (0, 0))
            left.paste(middle, (half, 0))
        return left

    @property
    def look(self) -> str:
        """The look to draw it in."""
        return STYLES[self.style] if self.style else "plain"


def choose_embeddings(count: int, *, styles: int | None = None) -> tuple[list[str], list[str]]:
    """Characters and styles, `count` together.

    There is no style below 5 words, one from 5, two from 10, unless `styles` says.
    """
    if not 1 <= count <= MAX_EMBEDDINGS:
        raise ValueError(
            f"words is {count}; there are from 1 to {MAX_EMBEDDINGS} "
            f"({len(CHARACTERS)} characters, {len(STYLES)} styles)"
        )
    wanted = (count >= 5) + (count >= 10) if styles is None else styles
    n_styles = max(wanted, count - len(CHARACTERS))
    if not 0 <= n_styles <= min(len(STYLES), count):
        raise ValueError(
            f"styles is {n_styles}; of {count} words there can be from 0 to {min(len(STYLES), count)} styles"
        )
    return list(CHARACTERS)[: count - n_styles], list(STYLES)[:n_styles]


def plan(
    characters: Sequence[str],
    styles: Sequence[str],
    *,
    pictures: int,
    seed: int = 0,
    captions: str = "full",
    uneven: bool = False,
    pairs: int = 0,
) -> list[Picture]:
    """The pictures of a dataset, `pictures` of each word; with `uneven` from that number down to a quarter of it.

    `pairs` pictures more for each character show it beside the next one. Where there are styles, a quarter of each
    character's pictures is in one of them; a style's other pictures show avatars of the base world. `captions`: "full"
    as a tagger would write them, or "pruned" of the traits that the character's word is to absorb.
    """
    if pictures < 1:
        raise ValueError(f"pictures is {pictures}; it must be at least 1")
    if captions not in CAPTIONS:
        raise ValueError(f"captions is {captions!r}; it must be one of {', '.join(CAPTIONS)}")
    rng = random.Random(seed)
    counts = _counts([*characters, *styles], pictures, rng, uneven=uneven)
    planned = []
    in_style = dict.fromkeys(styles, 0)
    for number, name in enumerate(characters):
        styled = max(1, round(counts[name] * STYLED_SHARE)) if styles and counts[name] > 1 else 0
        for i in range(counts[name]):
            style = styles[(i + number) % len(styles)] if i >= counts[name] - styled else None
            if style:
                in_style[style] += 1
            planned.append(_picture(character_avatar(name, rng), name, style, captions, rng))
    for style in styles:
        alone = max(counts[style] - in_style[style], counts[style] // 2, 1)
        planned += [_picture(random_base(rng), None, style, captions, rng) for _ in range(alone)]
    if pairs and len(characters) > 1:
        for name, companion in zip(characters, [*characters[1:], characters[0]], strict=True):
            planned += [_pair(name, companion, captions, rng) for _ in range(pairs)]
    return planned


def _counts(embeddings: Sequence[str], pictures: int, rng: random.Random, *, uneven: bool) -> dict[str, int]:
    if not uneven:
        return dict.fromkeys(embeddings, pictures)
    ranks = list(range(len(embeddings)))
    rng.shuffle(ranks)
    last = max(1, len(embeddings) - 1)
    return {
        embedding: max(1, round(pictures * 4 ** (-rank / last)))
        for embedding, rank in zip(embeddings, ranks, strict=True)
    }


def _picture(avatar: Avatar, character: str | None, style: str | None, captions: str, rng: random.Random) -> Picture:
    tags = caption(avatar, rng).split(", ")
    if character and captions == "pruned":
        absorbed = core_tags(avatar)
        tags = [tag for tag in tags if tag not in absorbed]
    embeddings = [embedding for embedding in (character, style) if embedding]
    return Picture(avatar, ", ".join([*embeddings, *tags]), character, style)


def _pair(name: str, companion: str, captions: str, rng: random.Random) -> Picture:
    """Two characters in front of one background, small enough to be seen whole."""
    left = replace(character_avatar(name, rng), position="centre", scale="far")
    right = replace(character_avatar(companion, rng), position="centre", scale="far", background=left.background)
    tags = dict.fromkeys(tag for avatar in (left, right) for tag in caption(avatar, rng).split(", ")[1:])
    if captions == "pruned":
        absorbed = {*core_tags(left), *core_tags(right)}
        tags = dict.fromkeys(tag for tag in tags if tag not in absorbed)
    text = ", ".join([name, companion, PAIR_TAG, *tags])
    return Picture(left, text, name, None, beside=right, companion=companion)


def core_tags(avatar: Avatar | str) -> list[str]:
    """The tags of the traits that a character keeps, of an avatar or of a character by name."""
    return character_tags(CHARACTERS[avatar] if isinstance(avatar, str) else avatar)


def write(pictures: Sequence[Picture], out: Path, *, layout: str = "plain", size_px: int = 64) -> list[Path]:
    """Draw the pictures into `out`, each with its caption as .txt; the files in the pictures' order."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout is {layout!r}; it must be one of {', '.join(LAYOUTS)}")
    if out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty; name an empty folder, or remove what is in it")
    folders = [_folder(picture, pictures, layout) for picture in pictures]
    files = []
    numbers: dict[str, int] = {}
    for picture, folder in zip(pictures, folders, strict=True):
        numbers[picture.concept] = numbers.get(picture.concept, 0) + 1
        file = out / folder / f"{picture.concept}_{numbers[picture.concept]:03d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        picture.draw(size_px).save(file)
        file.with_suffix(".txt").write_text(picture.caption + "\n", encoding="utf-8")
        files.append(file)
    if layout == "kgrid":
        _write_kgrid_files(pictures, folders, out)
    return files


def _folder(picture: Picture, pictures: Sequence[Picture], layout: str) -> str:
    if layout == "kohya":
        counts = _tally([other.concept for other in pictures])
        return f"{max(1, round(max(counts.values()) / counts[picture.concept]))}_{picture.concept}"
    if layout == "kgrid":
        people = f"1_character/{picture.character}" if picture.character else "0_characters"
        people = f"2_characters/{picture.concept}" if picture.companion else people
        return f"training/{picture.style or 'plain'}/{people}"
    return ""


def _tally(names: Sequence[str]) -> dict[str, int]:
    return {name: names.count(name) for name in dict.fromkeys(names)}


def _write_kgrid_files(pictures: Sequence[Picture], folders: Sequence[str], out: Path) -> None:
    """`multiply.txt` of each folder and the three files of the pipeline, in the forms its own scripts write."""
    training = out / "training"
    for folder, multiply in _multiplies(_tally(folders)).items():
        (out / folder / "multiply.txt").write_text(str(multiply), encoding="utf-8")
    characters = list(dict.fromkeys(picture.character for picture in pictures if picture.character))
    styles = list(dict.fromkeys(picture.style for picture in pictures if picture.style))
    initial = {name: core_tags(name) for name in characters} | {style: [""] for style in styles}
    core = {name: {"kept": [], "dropped": core_tags(name), "emb_init": core_tags(name)} for name in characters}
    lines = [f"{SUBJECT_TAG}, {name}" for name in characters]
    for name, content in (("emb_init.json", initial), ("core_tag.json", core)):
        (training / name).write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
    (training / "wildcard.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _multiplies(counts: dict[str, int]) -> dict[str, float]:
    """Folder -> how often each of its pictures counts, so that at every fork of the tree all ways are equally likely.

    As `balancing.py` of the pipeline with equal weights: probability by pictures, the least scaled to 1, at most 100.
    """
    weights = {}
    for folder, count in counts.items():
        parts = folder.split("/")
        share = 1.0
        for depth in range(1, len(parts)):
            parent = "/".join(parts[:depth]) + "/"
            share /= len({other[len(parent) :].split("/")[0] for other in counts if other.startswith(parent)})
        weights[folder] = share / count
    least = min(weights.values())
    return {folder: min(round(weight / least, 2), 100.0) for folder, weight in weights.items()}


def make_dataset(
    out: Path,
    *,
    layout: str = "plain",
    embeddings: int = 5,
    pictures: int = 12,
    size_px: int = 64,
    seed: int = 0,
    captions: str = "full",
    uneven: bool = False,
    styles: int | None = None,
    pairs: int = 0,
) -> list[Picture]:
    """Choose, plan and write a dataset; its pictures."""
    characters, chosen = choose_embeddings(embeddings, styles=styles)
    planned = plan(characters, chosen, pictures=pictures, seed=seed, captions=captions, uneven=uneven, pairs=pairs)
    write(planned, out, layout=layout, size_px=size_px)
    return planned


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m examples.avatars.make", description="Write a dataset of avatars.")
    parser.add_argument("--layout", choices=LAYOUTS, default="plain")
    most = f"characters and styles together, 1 to {MAX_EMBEDDINGS}"
    parser.add_argument("--embeddings", "--words", type=int, default=5, help=most)
    parser.add_argument(
        "--styles", type=int, help="how many of the words are styles; default 0, 1 from 5, 2 from 10 words"
    )
    parser.add_argument("--pictures", type=int, default=12, help="pictures of each word")
    parser.add_argument("--out", type=Path, required=True, help="a new or empty folder")
    parser.add_argument("--size", type=int, default=64, help="side of a picture in pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--captions", choices=CAPTIONS, default="full", help="full: as a tagger would write them")
    parser.add_argument("--pairs", type=int, default=0, help="pictures of each character beside another one")
    parser.add_argument("--uneven", action="store_true", help="unequal numbers of pictures, down to a quarter")
    options = parser.parse_args(arguments)
    try:
        planned = make_dataset(
            options.out,
            layout=options.layout,
            embeddings=options.embeddings,
            pictures=options.pictures,
            size_px=options.size,
            seed=options.seed,
            captions=options.captions,
            uneven=options.uneven,
            styles=options.styles,
            pairs=options.pairs,
        )
    except (ValueError, FileExistsError) as fault:
        parser.error(str(fault))
    names = _tally([picture.concept for picture in planned])
    print(f"{len(planned)} pictures in {options.out}: {', '.join(f'{name} {count}' for name, count in names.items())}")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
