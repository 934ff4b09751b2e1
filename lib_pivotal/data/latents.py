"""The latent cache: each picture goes through the autoencoder once; training then needs neither it nor the files."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lib_pivotal.data.buckets import Buckets, Placement
from lib_pivotal.data.latent_files import LatentFiles, entry_name
from lib_pivotal.data.masks import MaskScale, inpaint_hole, latent_mask, read_mask
from lib_pivotal.data.pictures import Transparency, background, file_sha256, flatten, open_rgba
from lib_pivotal.data.records import Picture, Problem
from lib_pivotal.errors import DataError
from lib_pivotal.ports import ImageCodec

Progress = Callable[[int, int], None]
"""Called with pictures done and pictures in all (mirrored ones count)."""


@dataclass(frozen=True, eq=False)
class CachedLatents:
    """What is kept of one picture: `mean` and `std` `(4, h/8, w/8)` scaled, `mask` `(1, h/8, w/8)` or None.

    `inpaint` `(5, h/8, w/8)`, for inpainting checkpoints: the hole, and the picture's latents with the hole in it.
    """

    mean: Tensor
    std: Tensor
    mask: Tensor | None = None
    inpaint: Tensor | None = None


@dataclass(frozen=True)
class _Job:
    """One picture (mirrored or not) to encode."""

    picture: Picture
    placement: Placement
    flip: bool
    name: str = ""


@dataclass(frozen=True, eq=False)
class _Opened:
    """A picture as it is trained: `pixels` `(3, h, w)` in [-1, 1], `mask` and `hole` `(1, h, w)` of 0 and 1."""

    pixels: Tensor
    mask: Tensor | None = None
    hole: Tensor | None = None

    def holed(self) -> Tensor:
        """The pixels with mid-grey in the hole."""
        assert self.hole is not None
        return self.pixels * (1.0 - self.hole)

    def inpaint(self, latents: Tensor) -> Tensor:
        """The hole at the latents' size (nearest, as the web UI has it), then `latents` of the holed picture."""
        assert self.hole is not None
        hole = torch.nn.functional.interpolate(self.hole[None], size=latents.shape[-2:])[0]
        return torch.cat([hole.to(latents), latents])


class LatentCache:
    """Latents of pictures at their buckets' sizes, in memory and, with a `folder`, on disk too.

    `flip`: True mirrors every picture also, or the names of the concepts to mirror. `masks`: scale of the mask files,
    None ignores them (alpha weighs the loss with `transparency="mask"` whatever `masks` says). `in_memory=False` reads
    each entry from disk at each draw. `inpainting` also keeps what an inpainting checkpoint sees beside the noise: a
    picture's mask file is its hole; without one all of it is. Encodes in fixed groups, so that an interrupted and
    continued caching gives the same bits as an uninterrupted one.
    """

    def __init__(
        self,
        codec: ImageCodec,
        buckets: Buckets,
        *,
        folder: Path | None = None,
        in_memory: bool = True,
        flip: bool | Collection[str] = False,
        transparency: Transparency = "white",
        masks: MaskScale | None = None,
        mask_minimum: float = 0.0,
        mask_normalise: bool = True,
        inpainting: bool = False,
        batch_size: int = 4,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        seed: int = 0,
        workers: int = 2,
    ) -> None:
        if folder is None and not in_memory:
            raise DataError("in_memory = False needs a folder for the latent cache. Set the folder.")
        if batch_size < 1:
            raise DataError(f"batch_size = {batch_size}: at least one picture is encoded at a time.")
        self._codec, self._buckets = codec, buckets
        self._files = LatentFiles(folder) if folder is not None else None
        self._in_memory, self._flip, self._transparency = in_memory, flip, transparency
        self._masks, self._mask_minimum, self._mask_normalise = masks, mask_minimum, mask_normalise
        self._inpainting = inpainting
        self._batch_size, self._device, self._dtype = batch_size, device, dtype
        self._seed, self._workers = seed, workers
        self._entries: dict[tuple[str, bool], CachedLatents] = {}
        self._names: dict[tuple[str, bool], str] = {}
        self._placements: dict[str, Placement] = {}
        self._pictures: list[Picture] = []
        self._by_key: dict[str, Picture] = {}
        self.encoded = 0
        """How many entries the last `build` had to encode; the others came from disk or memory."""

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures whose latents are ready, in the order given."""
        return tuple(self._pictures)

    @property
    def size_bytes(self) -> int:
        """Memory held by the entries."""
        tensors = (tensor for entry in self._entries.values() for tensor in _tensors(entry).values())
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def placement(self, key: str) -> Placement:
        """How a picture lies in its bucket."""
        return self._placements[key]

    def flips(self, key: str) -> bool:
        """Whether a picture is there mirrored, too."""
        return (key, True) in self._names

    def sizes(self, key: str, *, flip: bool = False) -> list[float]:
        """SDXL's six numbers of a picture, see `TrainingBatch.sizes`.

        As the paper and diffusers have it: the cut's place in the resized picture, taken after mirroring. kohya mirrors
        too, but counts from the bucket instead (library/train_util.py, `get_crop_ltrb`, 48d368f): a picture cut at its
        sides has a crop at the top there.
        """
        picture, place = self._by_key[key], self._placements[key]
        left_px = place.resized_px[0] - place.box_px[2] if flip else place.left_px
        numbers = (picture.height_px, picture.width_px, place.top_px, left_px)
        return [float(number) for number in (*numbers, place.bucket.height_px, place.bucket.width_px)]

    def get(self, key: str, *, flip: bool = False) -> CachedLatents:
        """The latents of a picture."""
        found = self._entries.get((key, flip))
        if found is not None:
            return found
        name = self._names.get((key, flip))
        if name is None:
            raise DataError(f"{key}{' (mirrored)' if flip else ''}: not in the latent cache. Build the cache with it.")
        loaded = self._read(name)
        if loaded is None:
            raise DataError(f"{key}: its cached latents are gone or damaged since caching. Start the run again.")
        return loaded

    def build(
        self,
        pictures: Sequence[Picture],
        *,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[Problem]:
        """Make everything ready for `pictures`; those that fail are named and left out, and it goes on.

        When `should_stop` says so it returns early with the pictures that are complete; with a folder, building again
        continues from there.
        Raises DataError when pictures were given and none is usable.
        """
        problems: list[Problem] = []
        failed: set[str] = set()
        self._entries, self._names, self.encoded = {}, {}, 0
        jobs = list(self._jobs(pictures, problems, failed))
        done = 0
        with ThreadPoolExecutor(max_workers=max(1, self._workers)) as pool:
            for group in _groups(jobs, self._batch_size):
                if should_stop is not None and should_stop():
                    break
                self._make_group(group, pool, problems, failed)
                done += len(group)
                if progress is not None:
                    progress(done, len(jobs))
        complete = {key for key, _ in self._names} - failed
        wanted = {(job.picture.key, job.flip) for job in jobs}
        complete -= {key for key, flip in wanted if (key, flip) not in self._names}
        self._pictures = [picture for picture in pictures if picture.key in complete]
        self._names = {pair: name for pair, name in self._names.items() if pair[0] in complete}
        self._entries = {pair: entry for pair, entry in self._entries.items() if pair[0] in complete}
        if pictures and len(failed) == len({picture.key for picture in pictures}):
            first = problems[0].message if problems else ""
            raise DataError(f"none of the {len(failed)} pictures could be encoded. The first: {first}")
        return problems

    def _jobs(self, pictures: Sequence[Picture], problems: list[Problem], failed: set[str]) -> Iterator[_Job]:
        """Every picture, mirrored or not, bucket by bucket, with its entry's name."""
        placed = [(picture, self._buckets.assign(picture.width_px, picture.height_px)) for picture in pictures]
        self._placements = {picture.key: placement for picture, placement in placed}
        self._by_key = {picture.key: picture for picture in pictures}
        placed.sort(key=lambda pair: pair[1].bucket)  # stable: the given order within a bucket
        for picture, placement in placed:
            try:
                jobs = [
                    self._named(_Job(picture=picture, placement=placement, flip=flip))
                    for flip in ((False, True) if self._mirrored(picture) else (False,))
                ]
            except (OSError, DataError) as error:
                _fail(picture.key, error, problems, failed)
                continue
            yield from jobs

    def _mirrored(self, picture: Picture) -> bool:
        return self._flip if isinstance(self._flip, bool) else picture.concept in self._flip

    def _named(self, job: _Job) -> _Job:
        """With the name of its file, which hashes the picture as it is now (not as it was when scanned)."""
        if self._files is None:
            return job
        picture, placement = job.picture, job.placement
        facts: dict[str, Any] = {
            "picture": file_sha256(picture.path),
            "codec": self._codec.fingerprint,
            "resized": placement.resized_px,
            "box": placement.box_px,
            "flip": job.flip,
            "dtype": str(self._dtype),
        }
        if picture.has_alpha:
            facts["background"] = self._background(picture.key)
            facts["alpha_mask"] = self._transparency == "mask"
        if self._masks is not None and picture.mask_path is not None:
            facts["mask"] = [file_sha256(picture.mask_path), self._masks]
        if "mask" in facts or facts.get("alpha_mask"):
            facts["mask_weights"] = [self._mask_minimum, self._mask_normalise]
        if self._inpainting:
            facts["hole"] = "" if picture.mask_path is None else file_sha256(picture.mask_path)
        return replace(job, name=entry_name(facts))

    def _background(self, key: str) -> tuple[int, int, int]:
        return background(self._transparency, random.Random(f"{self._seed}/background/{key}"))

    def _make_group(
        self, group: Sequence[_Job], pool: ThreadPoolExecutor, problems: list[Problem], failed: set[str]
    ) -> None:
        """Take a group's entries from disk, or encode the whole group if one is missing."""
        ready = {job: self._read(job.name) for job in group} if self._files is not None else {}
        if self._files is None or any(entry is None for entry in ready.values()):
            opened: list[tuple[_Job, _Opened]] = []
            for job, found in zip(group, pool.map(self._open, group), strict=True):
                if isinstance(found, Exception):
                    _fail(job.picture.key, found, problems, failed)
                else:
                    opened.append((job, found))
            encoded = self._encode(opened, problems, failed) if opened else {}
            for job, entry in encoded.items():
                if ready.get(job) is None:  # what was on disk stays as it is
                    ready[job] = entry
                    self.encoded += 1
                    if self._files is not None:
                        self._files.write(job.name, _tensors(entry))
        for job, made in ready.items():
            if made is not None:
                self._names[job.picture.key, job.flip] = job.name
                if self._in_memory:
                    self._entries[job.picture.key, job.flip] = made

    def _open(self, job: _Job) -> _Opened | Exception:
        """The picture as it is trained, or what went wrong."""
        picture, placement = job.picture, job.placement
        try:
            rgb, alpha = open_rgba(picture.path)
            if rgb.size != (picture.width_px, picture.height_px):
                raise DataError(
                    f"its size is now {rgb.size[0]}x{rgb.size[1]} px, not {picture.width_px}x"
                    f"{picture.height_px} px as scanned. Scan the folder again"
                )
            grey = None
            if (self._masks is not None or self._inpainting) and picture.mask_path is not None:
                grey = read_mask(picture.mask_path)
            mask = latent_mask(
                grey if self._masks is not None else None,
                alpha if self._transparency == "mask" else None,
                placement=placement,
                scale=self._masks or "linear",
                minimum=self._mask_minimum,
                normalise=self._mask_normalise,
                flip=job.flip,
            )
            flat = flatten(rgb, alpha, background=self._background(picture.key))
            cut = flat.resize(placement.resized_px, Image.Resampling.LANCZOS).crop(placement.box_px)
            pixels = torch.from_numpy(np.array(cut)).permute(2, 0, 1).float().div_(127.5).sub_(1.0)
            hole = None if not self._inpainting else inpaint_hole(grey, placement=placement)
            if job.flip:
                pixels, hole = pixels.flip(-1), None if hole is None else hole.flip(-1)
            return _Opened(pixels, mask, hole)
        except (DataError, OSError) as error:
            return error

    def _encode(
        self, opened: Sequence[tuple[_Job, _Opened]], problems: list[Problem], failed: set[str]
    ) -> dict[_Job, CachedLatents]:
        means, stds = self._through_codec(torch.stack([found.pixels for _, found in opened]))
        holed: list[Tensor | None] = [None] * len(opened)
        if self._inpainting:
            holed = list(self._through_codec(torch.stack([found.holed() for _, found in opened]))[0])
        result: dict[_Job, CachedLatents] = {}
        for (job, found), mean, std, rest in zip(opened, means, stds, holed, strict=True):
            if bool(torch.isfinite(mean).all()) and bool(torch.isfinite(std).all()):
                inpaint = None if rest is None else found.inpaint(rest)
                result[job] = CachedLatents(mean=mean.clone(), std=std.clone(), mask=found.mask, inpaint=inpaint)
            else:
                _fail(
                    job.picture.key,
                    DataError(
                        "the autoencoder gave numbers that are not finite. "
                        "Run it in full precision (in the web UI: --no-half-vae)"
                    ),
                    problems,
                    failed,
                )
        return result

    def _through_codec(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Encode a group at once, or one by one if the device's memory does not hold it."""
        try:
            with torch.no_grad():
                latents = self._codec.encode(pixels.to(self._device))
        except torch.cuda.OutOfMemoryError:
            if len(pixels) == 1:
                raise
            singles = [self._through_codec(one) for one in pixels.split(1)]
            return torch.cat([mean for mean, _ in singles]), torch.cat([std for _, std in singles])
        return (latents.mean.detach().to("cpu", self._dtype), latents.std.detach().to("cpu", self._dtype))

    def _read(self, name: str) -> CachedLatents | None:
        tensors = self._files.read(name) if self._files is not None else None
        if tensors is None or not {"mean", "std"} <= set(tensors):
            return None
        return CachedLatents(tensors["mean"], tensors["std"], tensors.get("mask"), tensors.get("inpaint"))


def _groups(jobs: Sequence[_Job], size: int) -> Iterator[list[_Job]]:
    """Up to `size` jobs of one bucket at a time."""
    group: list[_Job] = []
    for job in jobs:
        if group and (len(group) == size or group[0].placement.bucket != job.placement.bucket):
            yield group
            group = []
        group.append(job)
    if group:
        yield group


def _tensors(entry: CachedLatents) -> dict[str, Tensor]:
    tensors = {"mean": entry.mean, "std": entry.std, "mask": entry.mask, "inpaint": entry.inpaint}
    return {key: tensor for key, tensor in tensors.items() if tensor is not None}


def _fail(key: str, error: Exception, problems: list[Problem], failed: set[str]) -> None:
    if key not in failed:
        text = str(error).rstrip(".") or type(error).__name__
        message = text if key.endswith(text.split(":")[0]) else f"{key}: {text}"
        problems.append(Problem(level="error", code="not_encoded", message=f"{message}. It is left out.", keys=(key,)))
        failed.add(key)
