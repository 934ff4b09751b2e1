"""Near doubles: what is found, what is not, and that nothing is missed by the index."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from lib_pivotal.data.fingerprints import MOST_BITS, SIZE_BYTES, fingerprint, near_groups


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


def test_a_slow_pan_is_not_one_picture() -> None:
    """Each frame is near the next, the first is far from the last: everybody in a group looks like its first."""
    wide = drawing(5, (1200, 300))
    frames = [wide.crop((x, 0, x + 400, 300)) for x in range(0, 800, 4)]
    prints = [fingerprint(frame) for frame in frames]
    found = near_groups(prints, [(400, 300)] * len(frames))
    assert len(found) > 10
    for first, *others in found:
        for other in others:
            assert _bits_between(prints[first], prints[other]) <= MOST_BITS


def _bits_between(a: bytes, b: bytes) -> int:
    return sum((x ^ y).bit_count() for x, y in zip(a[:16], b[:16], strict=True))


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(0, 20), min_size=2, max_size=30))
def test_the_index_misses_nothing(seed: int, flips: list[int]) -> None:
    """Against every pair compared one by one."""
    rng = np.random.default_rng(seed)
    base = rng.integers(0, 256, 16, dtype=np.uint8)
    prints = []
    for count in flips:
        bits = np.unpackbits(base)
        bits[rng.permutation(128)[:count]] ^= 1
        prints.append(np.packbits(bits).tobytes() + bytes(SIZE_BYTES - 16))
    near = {
        (i, j)
        for i in range(len(prints))
        for j in range(i + 1, len(prints))
        if _bits_between(prints[i], prints[j]) <= MOST_BITS
    }
    grouped = near_groups(prints, [(64, 64)] * len(prints))
    members = [index for group in grouped for index in group]
    assert len(members) == len(set(members))
    for first, *others in grouped:
        assert all((min(first, other), max(first, other)) in near for other in others)
    firsts = [group[0] for group in grouped]
    alone = [index for index in range(len(prints)) if index not in members]
    for i, j in near:  # what is in no group is near to nobody who leads, nor to another one left
        assert not (i in alone and j in alone), (i, j)
        assert not (i in alone and j in firsts) and not (j in alone and i in firsts)


def test_many_pictures_take_no_time() -> None:
    """5000 fingerprints, a fifth of them with most bits alike, as flat drawings have."""
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (5000, 128), dtype=np.uint8)
    bits[:1000, 20:] = 0
    colours = rng.integers(0, 256, (5000, SIZE_BYTES - 16), dtype=np.uint8)
    prints = [np.packbits(row).tobytes() + colour.tobytes() for row, colour in zip(bits, colours, strict=True)]
    start = time.process_time()
    assert near_groups(prints, [(512, 512)] * 5000) == []
    assert time.process_time() - start < 5.0


def test_few_pictures() -> None:
    assert near_groups([], []) == [] and groups(drawing(1)) == []
