"""The latent cache with a tiny real codec."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lib_pivotal.data.buckets import Buckets
from lib_pivotal.data.dataset import Dataset, scan
from lib_pivotal.data.latents import LatentCache, LatentFiles, entry_name, remove_entries
from lib_pivotal.data.pictures import open_picture
from lib_pivotal.errors import DataError
from lib_pivotal.ports import LatentDistribution

BUCKETS = Buckets(64, 16)


@pytest.fixture
def dataset(tmp_path: Path, add: Callable[..., Path]) -> Dataset:
    """Seven pictures of two shapes and two concepts."""
    for number in range(4):
        add(f"set/a/{number}.png", (64, 64), caption="a")
    for number in range(3):
        add(f"set/b/{number}.png", (96, 48), caption="b")
    return scan(tmp_path / "set")


def _same(first: LatentCache, second: LatentCache) -> bool:
    return [p.key for p in first.pictures] == [p.key for p in second.pictures] and all(
        torch.equal(first.get(p.key, flip=flip).mean, second.get(p.key, flip=flip).mean)
        and torch.equal(first.get(p.key, flip=flip).std, second.get(p.key, flip=flip).std)
        for p in first.pictures
        for flip in ([False, True] if first.flips(p.key) else [False])
    )


def test_latents_are_the_codecs(dataset: Dataset, codec) -> None:
    cache = LatentCache(codec, BUCKETS, batch_size=3)
    steps: list[tuple[int, int]] = []
    assert cache.build(dataset.pictures, progress=lambda done, total: steps.append((done, total))) == []
    assert steps[-1] == (7, 7) and steps == sorted(steps)
    assert cache.pictures == dataset.pictures and cache.encoded == 7
    assert all(len(set(call[2:])) <= 2 and call[0] <= 3 for call in codec.calls)
    pixels = torch.from_numpy(np.array(open_picture(dataset["a/1.png"].path))).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = codec.encode(pixels)
    assert torch.allclose(cache.get("a/1.png").mean, expected.mean[0], atol=1e-5)
    assert torch.allclose(cache.get("a/1.png").std, expected.std[0], atol=1e-5)
    assert cache.size_bytes > 0


def test_buckets_decide_the_size(dataset: Dataset, codec) -> None:
    cache = LatentCache(codec, BUCKETS)
    cache.build(dataset.pictures)
    for picture in cache.pictures:
        bucket = cache.placement(picture.key).bucket
        assert cache.get(picture.key).mean.shape == (4, bucket.height_px // 8, bucket.width_px // 8)
    assert cache.placement("b/0.png").bucket.width_px > cache.placement("b/0.png").bucket.height_px


def test_mirrored(dataset: Dataset, codec) -> None:
    cache = LatentCache(codec, Buckets(64, bucketing=False), flip={"a"})
    cache.build(dataset.pictures)
    assert cache.flips("a/0.png") and not cache.flips("b/0.png") and cache.encoded == 11
    pixels = torch.from_numpy(np.array(open_picture(dataset["a/0.png"].path))).permute(2, 0, 1)[None] / 127.5 - 1
    with torch.no_grad():
        expected = codec.encode(pixels.flip(-1)).mean[0]
    assert torch.allclose(cache.get("a/0.png", flip=True).mean, expected, atol=1e-5)
    with pytest.raises(DataError, match=r"b/0\.png \(mirrored\): not in the latent cache"):
        cache.get("b/0.png", flip=True)


def test_disk_equals_memory_and_is_not_encoded_again(dataset: Dataset, codec, tmp_path: Path) -> None:
    memory = LatentCache(codec, BUCKETS, flip=True)
    memory.build(dataset.pictures)
    for in_memory in (True, False):
        disk = LatentCache(codec, BUCKETS, flip=True, folder=tmp_path / "cache", in_memory=in_memory)
        disk.build(dataset.pictures)
        assert disk.encoded == (14 if in_memory else 0)  # the first one filled the folder
        assert _same(memory, disk)
        assert (disk.size_bytes > 0) == in_memory


@pytest.mark.parametrize("stop_at", range(5))
def test_interrupted_caching_goes_on_bit_for_bit(dataset: Dataset, codec, tmp_path: Path, stop_at: int) -> None:
    whole = LatentCache(codec, BUCKETS, batch_size=2)
    whole.build(dataset.pictures)
    asked = iter(range(100))
    first = LatentCache(codec, BUCKETS, batch_size=2, folder=tmp_path / "cache")
    first.build(dataset.pictures, should_stop=lambda: next(asked) >= stop_at)
    assert len(first.pictures) <= 2 * stop_at
    second = LatentCache(codec, BUCKETS, batch_size=2, folder=tmp_path / "cache")
    second.build(dataset.pictures)
    assert second.encoded == 7 - first.encoded
    assert _same(whole, second)


@pytest.mark.parametrize("victim", range(7))
def test_killed_at_any_file(dataset: Dataset, codec, tmp_path: Path, monkeypatch, victim: int) -> None:
    """The process ends while file number `victim` is written: before its rename, its temporary file left behind."""
    whole = LatentCache(codec, BUCKETS, batch_size=3)
    whole.build(dataset.pictures)
    count = iter(range(100))
    rename = Path.replace

    def die(self: Path, target: Path) -> Path:
        if next(count) == victim:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        LatentCache(codec, BUCKETS, batch_size=3, folder=tmp_path / "cache").build(dataset.pictures)
    monkeypatch.undo()
    again = LatentCache(codec, BUCKETS, batch_size=3, folder=tmp_path / "cache")
    assert again.build(dataset.pictures) == []
    assert again.encoded == 7 - victim and _same(whole, again)


def test_a_damaged_entry_is_made_again(dataset: Dataset, codec, tmp_path: Path) -> None:
    whole = LatentCache(codec, BUCKETS, folder=tmp_path / "cache")
    whole.build(dataset.pictures)
    entries = sorted((tmp_path / "cache").rglob("*.safetensors"))
    entries[0].write_bytes(entries[0].read_bytes()[:100])
    entries[1].unlink()
    again = LatentCache(codec, BUCKETS, folder=tmp_path / "cache")
    assert again.build(dataset.pictures) == []
    assert again.encoded == 2 and _same(whole, again)


def test_never_stale(dataset: Dataset, codec, make_codec, tmp_path: Path, add) -> None:
    folder = tmp_path / "cache"

    def encoded(used=codec, buckets: Buckets = BUCKETS, **options: object) -> int:
        cache = LatentCache(used, buckets, folder=folder, **options)  # type: ignore[arg-type]
        cache.build(dataset.pictures)
        return cache.encoded

    assert encoded() == 7
    assert encoded() == 0
    assert encoded(make_codec(1)) == 7  # another autoencoder
    assert encoded(buckets=Buckets(80, 16)) == 7  # another size
    assert encoded(dtype=torch.float16) == 7
    assert encoded(flip=True) == 7  # only the mirrored ones are new
    assert encoded(masks="linear", transparency="grey") == 0  # no masks, no alpha: nothing changes
    add("set/a/0.png", (64, 64), seed=99)  # other pixels, same name and size, same Picture object
    assert encoded() == 1
    assert encoded() == 0


def test_background_and_alpha_mask(tmp_path: Path, codec) -> None:
    image = Image.new("RGBA", (64, 64), (255, 0, 0, 255))
    image.paste((0, 0, 0, 0), (32, 0, 64, 64))
    (tmp_path / "set").mkdir()
    image.save(tmp_path / "set/clear.png")
    pictures = scan(tmp_path / "set").pictures
    assert pictures[0].has_alpha
    results = {}
    for name, options in {
        "white": {}, "grey": {"transparency": "grey"}, "random": {"transparency": "random"},
        "other": {"transparency": "random", "seed": 1}, "mask": {"transparency": "mask"},
    }.items():  # fmt: skip
        cache = LatentCache(codec, BUCKETS, folder=tmp_path / "cache", **options)
        cache.build(pictures)
        assert cache.encoded == 1
        results[name] = cache.get("clear.png")
    assert len({float(entry.mean.sum()) for name, entry in results.items() if name != "mask"}) == 4
    assert torch.equal(results["mask"].mean, results["white"].mean) and results["white"].mask is None
    mask = results["mask"].mask
    assert mask is not None and mask[0, :, :4].min() == 2.0 and mask[0, :, 4:].max() == 0.0
    stored = LatentCache(codec, BUCKETS, folder=tmp_path / "cache", transparency="mask")
    stored.build(pictures)
    back = stored.get("clear.png").mask
    assert stored.encoded == 0 and back is not None and torch.equal(back, mask)


def test_mask_files(tmp_path: Path, codec, add) -> None:
    add("set/a.png", caption="x")
    (tmp_path / "set/mask").mkdir()
    Image.new("L", (64, 64), 64).save(tmp_path / "set/mask/a.png")
    pictures = scan(tmp_path / "set").pictures

    def mask(**options: object) -> float | None:
        cache = LatentCache(codec, BUCKETS, folder=tmp_path / "cache", **options)  # type: ignore[arg-type]
        cache.build(pictures)
        found = cache.get("a.png").mask
        return None if found is None else float(found.mean())

    assert mask() is None
    assert mask(masks="linear") == pytest.approx(1.0)
    assert mask(masks="hcp", mask_normalise=False) == pytest.approx(0.504, abs=1e-3)
    assert mask(masks="linear", mask_normalise=False, mask_minimum=0.5) == pytest.approx(0.5)
    Image.new("L", (64, 64), 127).save(tmp_path / "set/mask/a.png")
    assert mask(masks="hcp", mask_normalise=False) == pytest.approx(1.0)  # a repainted mask is no stale one


def test_inpainting(tmp_path: Path, codec, add) -> None:
    """By hand, after the web UI's `inpainting_image_conditioning`: a mask's white part is the hole, mid-grey in it."""
    add("set/a.png", caption="x")
    add("set/b.png", caption="x")
    (tmp_path / "set/mask").mkdir()
    mask = Image.new("L", (64, 64), 0)
    mask.paste(200, (0, 0, 20, 64))
    mask.save(tmp_path / "set/mask/a.png")
    pictures = scan(tmp_path / "set").pictures
    cache = LatentCache(codec, BUCKETS, inpainting=True, flip=True, folder=tmp_path / "cache")
    assert cache.build(pictures) == [] and cache.get("a.png").mask is None
    pixels = torch.from_numpy(np.array(open_picture(pictures[0].path))).permute(2, 0, 1)[None] / 127.5 - 1
    pixels[..., :20] = 0.0
    for flip in (False, True):
        found = cache.get("a.png", flip=flip).inpaint
        with torch.no_grad():
            expected = codec.encode(pixels.flip(-1) if flip else pixels).mean[0]
        assert found is not None and torch.allclose(found[1:], expected, atol=1e-5)
    hole = cache.get("a.png").inpaint
    assert hole is not None and hole[0, 0].tolist() == [1, 1, 1, 0, 0, 0, 0, 0]  # pixels 0, 8, 16 of 20 are white
    whole = cache.get("b.png").inpaint
    with torch.no_grad():
        grey = codec.encode(torch.zeros(1, 3, 64, 64)).mean[0]
    assert whole is not None and bool((whole[0] == 1).all()) and torch.allclose(whole[1:], grey, atol=1e-5)
    plain = LatentCache(codec, BUCKETS, flip=True, folder=tmp_path / "cache")
    plain.build(pictures)
    assert plain.encoded == 4 and plain.get("a.png").inpaint is None
    again = LatentCache(codec, BUCKETS, inpainting=True, flip=True, folder=tmp_path / "cache")
    again.build(pictures)
    back = again.get("a.png").inpaint
    assert again.encoded == 0 and back is not None and torch.equal(back, hole)


def test_several_views_of_a_picture(tmp_path: Path, codec, add) -> None:
    add("set/a.png", (128, 64), caption="x", seed=5)
    pictures = scan(tmp_path / "set").pictures
    cache = LatentCache(codec, Buckets(64, bucketing=False, crop="random"), crops=3, flip=True, folder=tmp_path / "c")
    cache.build(pictures)
    assert cache.encoded == 6 and len(cache.views("a.png")) == 3
    picture = open_picture(pictures[0].path)
    for number, view in enumerate(cache.views("a.png")):
        pixels = np.array(picture.crop(view.placement.box_px))  # the picture has the bucket's height already
        expected = codec.encode(torch.from_numpy(pixels).permute(2, 0, 1)[None] / 127.5 - 1).mean[0].detach()
        assert torch.allclose(cache.get("a.png", view=number).mean, expected, atol=1e-5)
        assert cache.sizes("a.png", view=number) == [64, 128, 0, view.placement.left_px, 64, 64]
    more = LatentCache(codec, Buckets(64, bucketing=False, crop="random"), crops=4, flip=True, folder=tmp_path / "c")
    more.build(pictures)
    assert more.encoded == 2  # the other three are there already


def test_far_views_lie_in_grey_and_count_only_there(tmp_path: Path, codec, add) -> None:
    add("set/a.png", (64, 64), caption="x", seed=5)
    pictures = scan(tmp_path / "set").pictures
    cache = LatentCache(codec, Buckets(64), crops=12, scale=True)
    cache.build(pictures)
    grey = codec.encode(torch.zeros(1, 3, 64, 64)).mean[0].detach()
    seen = set()
    for number, view in enumerate(cache.views("a.png")):
        entry, (left, top, right, bottom) = cache.get("a.png", view=number), view.placement.shown_px
        seen.add(view.distance)
        assert (entry.mask is None) == (view.distance != "far")
        beside = torch.ones(8, 8, dtype=torch.bool)
        beside[top // 8 : -(-bottom // 8), left // 8 : -(-right // 8)] = False
        assert torch.allclose(entry.mean[:, beside], grey[:, beside], atol=1e-6)
        if entry.mask is not None:
            assert float(entry.mask[0][beside].sum()) == 0.0 and float(entry.mask.mean()) == pytest.approx(1.0)
            assert cache.sizes("a.png", view=number) == [64, 64, 0, 0, 64, 64]
    assert seen == {"", "far", "near"}


def test_beyond_the_memory_it_goes_to_disk(dataset: Dataset, codec, tmp_path: Path) -> None:
    whole = LatentCache(codec, BUCKETS)
    whole.build(dataset.pictures)
    spill = tmp_path / "spill"
    roomy = LatentCache(codec, BUCKETS, memory_bytes=whole.size_bytes, spill=spill)
    roomy.build(dataset.pictures)
    assert not spill.exists() and roomy.size_bytes == whole.size_bytes
    small = LatentCache(codec, BUCKETS, memory_bytes=whole.size_bytes // 2, spill=spill)
    assert small.build(dataset.pictures) == []
    assert 0 < small.size_bytes <= whole.size_bytes // 2 and len(list(spill.rglob("*.safetensors"))) == 7
    assert _same(whole, small)
    again = LatentCache(codec, BUCKETS, memory_bytes=0, spill=spill)
    again.build(dataset.pictures)
    assert again.encoded == 0 and again.size_bytes == 0 and _same(whole, again)
    own = LatentCache(codec, BUCKETS, memory_bytes=0, folder=tmp_path / "own", spill=tmp_path / "unused")
    own.build(dataset.pictures)
    assert _same(whole, own) and not (tmp_path / "unused").exists()
    nowhere = LatentCache(codec, BUCKETS, memory_bytes=0)
    nowhere.build(dataset.pictures)
    assert _same(whole, nowhere)


def test_failures_are_named_and_left_out(dataset: Dataset, codec, tmp_path: Path, add) -> None:
    add("set/a/0.png", (80, 64))  # another size than scanned
    (tmp_path / "set/a/1.png").unlink()
    path = tmp_path / "set/a/2.png"
    path.write_bytes(path.read_bytes()[:2000])
    for folder in (None, tmp_path / "cache"):
        cache = LatentCache(codec, BUCKETS, folder=folder)
        problems = cache.build(dataset.pictures)
        assert {problem.keys[0] for problem in problems} == {"a/0.png", "a/1.png", "a/2.png"}
        assert any("80x64" in problem.message and "Scan" in problem.message for problem in problems)
        assert [picture.key for picture in cache.pictures] == ["a/3.png", "b/0.png", "b/1.png", "b/2.png"]
        with pytest.raises(DataError, match="not in the latent cache"):
            cache.get("a/0.png")


def test_black_masks_are_named(tmp_path: Path, codec, add) -> None:
    add("set/a.png", caption="x")
    add("set/b.png", caption="x")
    (tmp_path / "set/mask").mkdir()
    Image.new("L", (64, 64), 0).save(tmp_path / "set/mask/a.png")
    cache = LatentCache(codec, BUCKETS, masks="linear")
    problems = cache.build(scan(tmp_path / "set").pictures)
    assert [problem.keys for problem in problems] == [("a.png",)] and "black" in problems[0].message
    assert [picture.key for picture in cache.pictures] == ["b.png"]


def test_not_finite_latents(dataset: Dataset, codec) -> None:
    class Overflowing:
        fingerprint = "x"

        def encode(self, pixels: torch.Tensor) -> LatentDistribution:
            latents = codec.encode(pixels)
            return LatentDistribution(mean=latents.mean * float("inf"), std=latents.std)

    cache = LatentCache(Overflowing(), BUCKETS)  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"none of the 7 pictures.*no-half-vae"):
        cache.build(dataset.pictures)


def test_too_little_memory_encodes_one_by_one(dataset: Dataset, codec) -> None:
    class Small:
        fingerprint = "x"

        def encode(self, pixels: torch.Tensor) -> LatentDistribution:
            if len(pixels) > 1:
                raise torch.cuda.OutOfMemoryError("out of memory")
            return codec.encode(pixels)

    cache, plain = LatentCache(Small(), BUCKETS), LatentCache(codec, BUCKETS, batch_size=1)  # type: ignore[arg-type]
    cache.build(dataset.pictures)
    plain.build(dataset.pictures)
    assert _same(cache, plain)


def test_a_real_autoencoder(dataset: Dataset) -> None:
    """diffusers' own class with random weights, behind the port."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    vae = diffusers.AutoencoderKL(
        block_out_channels=(8, 8, 8, 8), down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4, latent_channels=4, norm_num_groups=4, layers_per_block=1,
    ).eval()  # fmt: skip

    class Codec:
        fingerprint = "tiny-vae"

        def encode(self, pixels: torch.Tensor) -> LatentDistribution:
            found = vae.encode(pixels).latent_dist
            return LatentDistribution(mean=found.mean * 0.18215, std=found.std * 0.18215)

        def decode(self, latents: torch.Tensor) -> torch.Tensor:
            return vae.decode(latents / 0.18215).sample.clamp(-1, 1)

    cache = LatentCache(Codec(), BUCKETS)
    assert cache.build(dataset.pictures[:2]) == []
    assert cache.get("a/0.png").mean.shape == (4, 8, 8) and float(cache.get("a/0.png").std.min()) > 0


def test_an_autoencoder_that_was_run_in_fp32_is_said_once(dataset: Dataset, codec) -> None:
    class Overflowing:
        fingerprint = "overflowing"

        def encode(self, pixels: torch.Tensor) -> LatentDistribution:
            return replace(codec.encode(pixels), widened=True)

    cache = LatentCache(Overflowing(), BUCKETS)
    problems = [problem for problem in cache.build(dataset.pictures) if problem.code == "autoencoder"]
    assert len(problems) == 1 and "fp32" in problems[0].message and "--no-half-vae" in problems[0].message
    assert len(cache.pictures) == len(dataset.pictures), "nothing is left out for it"


def test_wrong_settings_and_missing_files(dataset: Dataset, codec, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in_memory"):
        LatentCache(codec, BUCKETS, in_memory=False)
    with pytest.raises(DataError, match="batch_size = 0"):
        LatentCache(codec, BUCKETS, batch_size=0)
    cache = LatentCache(codec, BUCKETS, folder=tmp_path / "cache", in_memory=False)
    cache.build(dataset.pictures)
    for path in (tmp_path / "cache").rglob("*.safetensors"):
        path.unlink()
    with pytest.raises(DataError, match="gone or damaged"):
        cache.get("a/0.png")
    assert LatentCache(codec, BUCKETS).build([]) == []
    lost = replace(dataset.pictures[0], path=tmp_path / "lost.png")
    with pytest.raises(DataError, match="none of the 1 pictures"):
        cache.build([lost])


TENSORS = {"mean": torch.arange(16.0).reshape(1, 4, 4), "std": torch.rand(1, 4, 4)}
NAME = entry_name({"picture": "abc", "box": (0, 0, 8, 8)})


def test_names_depend_on_every_fact() -> None:
    assert entry_name({"a": 1, "b": (1, 2)}) == entry_name({"b": [1, 2], "a": 1})
    assert len({entry_name({"a": 1}), entry_name({"a": 2}), entry_name({"b": 1}), entry_name({})}) == 4


def test_round_trip_is_exact(tmp_path: Path) -> None:
    files = LatentFiles(tmp_path / "new" / "cache")
    assert files.read(NAME) is None
    files.write(NAME, TENSORS)
    back = files.read(NAME)
    assert back is not None and all(torch.equal(back[key], TENSORS[key]) for key in TENSORS)
    assert set(load_file(files.path(NAME))) == {"mean", "std"}  # a plain safetensors file
    assert [path.name for path in files.path(NAME).parent.iterdir()] == [f"{NAME}.safetensors"]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "text", "length"])
def test_damage_reads_as_absent(tmp_path: Path, damage: str) -> None:
    files = LatentFiles(tmp_path)
    files.write(NAME, TENSORS)
    path = files.path(NAME)
    data = bytearray(path.read_bytes())
    if damage == "cut":
        data = data[:-5]
    elif damage == "flip":
        data[-3] ^= 1
    elif damage == "length":
        data[:8] = b"\xff" * 8
    else:
        data = bytearray(b"" if damage == "empty" else b"not a safetensors file")
    path.write_bytes(data)
    assert files.read(NAME) is None
    files.write(NAME, TENSORS)
    assert files.read(NAME) is not None


def test_an_entry_under_another_name_is_refused(tmp_path: Path) -> None:
    files = LatentFiles(tmp_path)
    files.write(NAME, TENSORS)
    other = entry_name({"picture": "other"})
    files.path(other).parent.mkdir(exist_ok=True)
    files.path(NAME).rename(files.path(other))
    assert files.read(other) is None


def test_a_failed_write_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = LatentFiles(tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match="No space left"):
        files.write(NAME, TENSORS)
    assert list(files.path(NAME).parent.iterdir()) == []


def test_old_leftovers_are_swept(tmp_path: Path) -> None:
    LatentFiles(tmp_path).write(NAME, TENSORS)
    old, new = tmp_path / NAME[:2] / ".x.1.tmp", tmp_path / NAME[:2] / ".y.2.tmp"
    for path in (old, new):
        path.write_bytes(b"half")
    os.utime(old, (0, 0))
    LatentFiles(tmp_path)
    assert not old.exists() and new.exists()  # a young one may be another process's


def test_a_folder_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="cannot be made"):
        LatentFiles(tmp_path / "file" / "cache")


def test_only_entries_are_removed(tmp_path: Path) -> None:
    files = LatentFiles(tmp_path / "mine")
    for number in range(3):
        files.write(entry_name({"number": number}), {"mean": torch.zeros(2)})
    remove_entries(tmp_path / "mine")
    assert not (tmp_path / "mine").exists()
    remove_entries(tmp_path / "mine")  # nothing there: nothing to do
    files = LatentFiles(tmp_path / "shared")
    files.write(entry_name({"number": 1}), {"mean": torch.zeros(2)})
    (tmp_path / "shared" / "ab").mkdir(exist_ok=True)
    kept = [tmp_path / "shared" / "notes.txt", tmp_path / "shared" / "ab" / "my-lora.safetensors"]
    for path in kept:
        path.write_text("x")
    remove_entries(tmp_path / "shared")
    assert sorted(path for path in (tmp_path / "shared").rglob("*") if path.is_file()) == sorted(kept)
