"""Near doubles: what is found, what is not, and that nothing is missed by looking at tops first."""

from __future__ import annotations

import io
import random
import time
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from examples.avatars.characters import CHARACTERS, character_avatar
from examples.avatars.world import ATTRIBUTES, LOOKS, render
from lib_pivotal.data.fingerprints import (
    CELLS,
    MOST_DIFFERENCE,
    MOST_IN_PLACE,
    MOST_PEAK,
    SIZE_BYTES,
    TOP_BYTES,
    fingerprint,
    maybe_near,
    near_groups,
    rows_of_top,
    top_fingerprint,
    top_of,
)


def drawing(seed: int, size: tuple[int, int] = (400, 300)) -> Image.Image:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)
    return Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)


def saved(picture: Image.Image, **options: object) -> Image.Image:
    file = io.BytesIO()
    picture.save(file, "JPEG", **options)
    return Image.open(file).convert("RGB")


def groups(*pictures: Image.Image) -> list[list[int]]:
    return near_groups([fingerprint(picture) for picture in pictures], [picture.size for picture in pictures])


def cells(whole: bytes) -> np.ndarray:
    return np.frombuffer(whole, dtype=np.uint8).reshape(CELLS, CELLS, 3).astype(np.float64)


def alike(a: bytes, b: bytes) -> bool:
    """The rule, written out."""
    apart = cells(a) - cells(b)
    spread = min(cells(a).std(), cells(b).std())
    most = max(1.0, min(MOST_DIFFERENCE, spread / 4))
    places = apart.reshape(CELLS // 2, 2, CELLS // 2, 2, 3).mean(axis=(1, 3))
    difference = np.sqrt((apart**2).mean())
    few = np.abs(apart).max() <= MOST_PEAK * max(difference, 1.25)
    return bool(difference <= most and np.abs(places).max() <= MOST_IN_PLACE and few)


def test_scaled_and_saved_anew_is_the_same_and_the_largest_leads() -> None:
    picture = drawing(1)
    small = picture.resize((200, 150), Image.Resampling.LANCZOS)
    assert groups(small, drawing(2), picture, saved(picture, quality=40), drawing(3)) == [[2, 0, 3]]


@pytest.mark.parametrize("seed", range(8))
def test_each_picture_is_known_again_after_jpeg_and_scaling(seed: int) -> None:
    picture = drawing(seed)
    assert groups(picture, saved(picture.resize((277, 208)), quality=60)) == [[0, 1]]


def test_other_pictures_are_not() -> None:
    assert groups(*(drawing(seed) for seed in range(60))) == []


def test_one_shape_in_two_colours_is_two_pictures() -> None:
    def face(hair: str) -> Image.Image:
        made = Image.new("RGB", (128, 128), "white")
        draw = ImageDraw.Draw(made)
        draw.ellipse((20, 10, 108, 90), fill=hair)
        draw.ellipse((36, 40, 92, 110), fill=(240, 200, 180))
        return made

    assert groups(face("red"), face("blue"), face("red")) == [[0, 2]]


def test_another_shape_is_another_picture() -> None:
    picture = drawing(4)
    assert groups(picture, picture.crop((0, 0, 400, 250)).resize((400, 300)), picture.resize((300, 300))) == []


def test_flat_pictures() -> None:
    grey, noisy = Image.new("RGB", (64, 64), (99, 99, 99)), Image.new("RGB", (64, 64), (100, 99, 99))
    assert groups(grey, noisy, Image.new("RGB", (64, 64), "white")) == [[0, 1]]


def test_dark_pictures_are_told_apart() -> None:
    """In numbers all are alike."""
    dark = [drawing(seed).point(lambda value: value // 16) for seed in (1, 2)]
    assert groups(*dark, dark[0].resize((200, 150))) == [[0, 2]]


@pytest.mark.parametrize(("size", "characters"), [(64, 16), (256, 2)])
def test_another_expression_is_another_picture(size: int, characters: int) -> None:
    """Of one character on a plain ground, as the avatars are; and each is known again when it is saved anew."""
    rng = random.Random(2)
    for name in list(CHARACTERS)[:characters]:
        avatar = replace(character_avatar(name, rng), accessory="none")
        look = rng.choice(LOOKS)
        drawn = [render(replace(avatar, expression=value), size, look) for value in ATTRIBUTES["expression"]]
        assert groups(*drawn) == [], name
        assert groups(drawn[0], saved(drawn[0], quality=75), drawn[0].resize((size * 2, size * 2))) == [[2, 0, 1]]


def test_a_hundredth_cut_off_each_side_is_the_same() -> None:
    picture = drawing(6, (600, 600))
    assert groups(picture, picture.crop((6, 6, 594, 594))) == [[0, 1]]


@pytest.mark.parametrize("height", [1, 2, 15, 16, 17, 31, 64, 333, 640, 641])
def test_a_top_is_that_of_the_whole(height: int) -> None:
    rng = np.random.default_rng(height)
    picture = Image.fromarray(rng.integers(0, 256, (height, 50, 3), dtype=np.uint8))
    rows = rows_of_top(height)
    assert rows <= height and (height < 64 or rows < 0.3 * height)
    made = top_fingerprint(picture.crop((0, 0, 50, rows)), height_px=height)
    whole = top_of(fingerprint(picture))
    assert len(made) == len(whole) == TOP_BYTES
    apart = np.frombuffer(made, dtype=np.uint8).astype(int) - np.frombuffer(whole, dtype=np.uint8)
    assert np.abs(apart).max() <= (1 if height >= 16 else 255)


def test_a_slow_pan_is_not_one_picture() -> None:
    """Each frame is near the next, the first is far from the last: everybody in a group looks like its first."""
    wide = drawing(5, (1200, 300))
    frames = [wide.crop((x, 0, x + 400, 300)) for x in range(0, 800, 4)]
    prints = [fingerprint(frame) for frame in frames]
    found = near_groups(prints, [(400, 300)] * len(frames))
    assert len(found) > 10
    for first, *others in found:
        for other in others:
            assert alike(prints[first], prints[other])


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.lists(st.floats(0, 25), min_size=2, max_size=30))
def test_nothing_is_missed(seed: int, distances: list[float]) -> None:
    """Against every pair compared one by one; all of it is near at the top, or the top tells."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, SIZE_BYTES)
    prints = []
    for distance in distances:
        step = rng.normal(0, 1, SIZE_BYTES) if rng.random() < 0.5 else np.full(SIZE_BYTES, rng.choice([-1, 1]))
        if rng.random() < 0.3:
            step[TOP_BYTES:] = 0
        prints.append(np.clip(base + step * distance, 0, 255).astype(np.uint8).tobytes())
    sizes = [(64, 64)] * len(prints)
    near = {(i, j) for i in range(len(prints)) for j in range(i + 1, len(prints)) if alike(prints[i], prints[j])}
    assert {index for pair in near for index in pair} <= set(maybe_near([top_of(whole) for whole in prints], sizes))
    grouped = near_groups(prints, sizes)
    members = [index for group in grouped for index in group]
    assert len(members) == len(set(members))
    for first, *others in grouped:
        assert all((min(first, other), max(first, other)) in near for other in others)
    firsts = [group[0] for group in grouped]
    alone = [index for index in range(len(prints)) if index not in members]
    for i, j in near:  # what is in no group is near to nobody who leads, nor to another one left
        assert not (i in alone and j in alone), (i, j)
        assert not (i in alone and j in firsts) and not (j in alone and i in firsts)


def test_tops_tell_most_pictures_apart() -> None:
    pictures = [drawing(seed) for seed in range(40)]
    pictures.append(pictures[7].resize((200, 150)))
    tops = [top_of(fingerprint(picture)) for picture in pictures]
    assert maybe_near(tops, [picture.size for picture in pictures]) == [7, 40]
    assert maybe_near(tops, [(300, 400), *(picture.size for picture in pictures[1:])]) == [7, 40]
    assert maybe_near(tops[:1], [(4, 3)]) == [] and maybe_near([], []) == []


def test_many_pictures_take_no_time() -> None:
    """5000 pictures, a fifth of them white but for one place, as drawings on plain grounds are."""
    rng = np.random.default_rng(0)
    table = rng.integers(0, 256, (5000, 8, 8, 3), dtype=np.uint8)
    table[:1000] = 255
    for index in range(1000):
        table[index, 4 + index % 4, index // 4 % 8] = rng.integers(0, 200, 3)
    prints = [whole.repeat(2, axis=0).repeat(2, axis=1).tobytes() for whole in table]
    start = time.process_time()
    assert len(maybe_near([top_of(whole) for whole in prints], [(512, 512)] * 5000)) == 1000
    assert time.process_time() - start < 2.0
    near_groups(prints, [(512, 512)] * 5000)
    assert time.process_time() - start < 5.0


def test_few_pictures() -> None:
    assert near_groups([], []) == [] and groups(drawing(1)) == []
