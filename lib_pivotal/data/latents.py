"""The latent cache: each picture goes through the autoencoder once; training then needs neither it nor the files.

On disk an entry is one safetensors file, named by everything that went into it, so it is never stale.
"""

from __future__ import annotations

import hashlib
import json
import logging
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from lib_pivotal.data.buckets import Buckets, CropMode, Placement
from lib_pivotal.data.crops import Crop, Crops
from lib_pivotal.data.masks import MaskScale
from lib_pivotal.data.pictures import Transparency
from lib_pivotal.data.preprocessing import ImagePreprocessor, PreparedImage
from lib_pivotal.data.records import DatasetProblem, Picture
from lib_pivotal.errors import DataError
from lib_pivotal.files import TEMPORARY_SUFFIX, replacing
from lib_pivotal.oom import is_out_of_memory, release_memory
from lib_pivotal.plain_json import parse_json
from lib_pivotal.ports import ImageCodec

_log = logging.getLogger(__name__)
_VERSION = 1
_LEFTOVER_AGE_S = 3600.0
_ENTRY = re.compile(r"[0-9a-f]{40}")


def entry_name(facts: Mapping[str, Any]) -> str:
    """The name of the entry that these facts (hashes, sizes, options) describe."""
    text = json.dumps({"version": _VERSION, **facts}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:40]


def remove_entries(folder: Path) -> None:
    """Delete the entries of a folder, and the folder if nothing else is in it; what is not ours stays."""
    try:
        for path in folder.glob("??/*.safetensors"):
            if _ENTRY.fullmatch(path.stem):
                path.unlink(missing_ok=True)
        for place in [*folder.glob("??"), folder]:
            if place.is_dir() and not any(place.iterdir()):
                place.rmdir()
    except OSError as error:
        _log.warning("latent cache: %s stays (%s)", folder, error)


class LatentFiles:
    """A folder of entries. Writes are atomic; a damaged entry reads as absent, so that it is made again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise DataError(
                f"{folder}: the latent cache's folder cannot be made ({error.strerror}). "
                "Choose another, or cache in memory."
            ) from error
        self._remove_leftovers()

    def path(self, name: str) -> Path:
        """Where an entry is or would be; spread over sub-folders, as some file systems are slow with many files."""
        return self._folder / name[:2] / f"{name}.safetensors"

    def read(self, name: str) -> dict[str, Tensor] | None:
        """An entry's tensors, or None if it is absent or damaged (length, header or checksum)."""
        path = self.path(name)
        try:
            data = path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            _log.warning("latent cache: %s cannot be read (%s); it is made again", path, error)
            return None
        try:
            start = 8 + int.from_bytes(data[:8], "little")
            metadata = parse_json(data[8:start]).get("__metadata__", {})
            if metadata.get("name") != name or metadata.get("sha256") != hashlib.sha256(data[start:]).hexdigest():
                raise ValueError("checksum differs")
            return load(data)
        except Exception as error:  # safetensors has its own error type, json and slicing others
            _log.warning("latent cache: %s is damaged (%s); it is made again", path, error)
            return None

    def write(self, name: str, tensors: Mapping[str, Tensor]) -> None:
        """Write an entry: to a file beside it, synced, then renamed over it."""
        plain = {key: tensor.contiguous() for key, tensor in tensors.items()}
        body = save(plain)
        start = 8 + int.from_bytes(body[:8], "little")
        checksum = hashlib.sha256(body[start:]).hexdigest()
        data = save(plain, metadata={"name": name, "sha256": checksum})
        path = self.path(name)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with replacing(path) as temporary:
                temporary.write_bytes(data)
        except OSError as error:
            raise DataError(
                f"{path}: cached latents cannot be written ({error.strerror}). "
                "Free some space, choose another folder, or cache in memory."
            ) from error

    def _remove_leftovers(self) -> None:
        oldest = time.time() - _LEFTOVER_AGE_S
        for path in self._folder.glob(f"*/.*{TEMPORARY_SUFFIX}"):
            try:
                if path.stat().st_mtime < oldest:
                    path.unlink(missing_ok=True)
            except OSError as error:
                _log.debug("latent cache: %s stays (%s)", path, error)


Progress = Callable[[int, int], None]
"""Called with entries done and entries in all (mirrored ones and further crops count)."""


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
class ViewSettings:
    """How some pictures are shown that are not shown as all: see `crops.Crops` and
    `preprocessing.ImagePreprocessor`."""

    crop: CropMode
    crops: int
    transparency: Transparency
    masks: MaskScale | None


@dataclass(frozen=True)
class _Job:
    """One view of a picture, mirrored or not, to encode; `name` is that of its file."""

    picture: Picture
    number: int
    placement: Placement
    flip: bool
    name: str

    @property
    def entry(self) -> _Entry:
        return (self.picture.key, self.number, self.flip)


_Entry = tuple[str, int, bool]
"""Key of a picture, number of the view, mirrored or not."""


class LatentCache:
    """Latents of pictures at their buckets' sizes, in memory and, with a `folder`, on disk too.

    `flip`: True mirrors every picture also, or the names of the concepts, or keys of the pictures, to mirror. `crops`
    and `scale`: see `crops.Crops`; pictures whose keys are in `plain` have one view, the plain one. `own`: by key, what
    is shown in a way of its own. `masks`: scale of the mask files, None ignores them (alpha weighs the loss with
    `transparency="mask"` whatever `masks` says).
    `in_memory=False` reads each entry from disk at each draw. `memory_bytes`: entries beyond it are on disk only, in
    `folder`, or where none is given in `spill`.
    `inpainting` also keeps what an inpainting checkpoint sees beside the noise: a picture's mask file is its hole;
    without one all of it is. Encodes in fixed groups, so that an interrupted and continued caching gives the same bits
    as an uninterrupted one.
    """

    def __init__(
        self,
        codec: ImageCodec,
        buckets: Buckets,
        *,
        folder: Path | None = None,
        spill: Path | None = None,
        in_memory: bool = True,
        memory_bytes: int | None = None,
        flip: bool | Collection[str] = False,
        crops: int = 1,
        scale: bool = False,
        plain: Collection[str] = (),
        own: Mapping[str, ViewSettings] | None = None,
        transparency: Transparency = "white",
        masks: MaskScale | None = None,
        mask_minimum: float = 0.0,
        mask_normalise: bool = True,
        mask_temperature: float = 1.0,
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
        self._codec, own = codec, own or {}
        cuts = {key: (one.crop, one.crops) for key, one in own.items()}
        self._views = Crops(buckets, crops=crops, scale=scale, plain=plain, own=cuts, seed=seed)
        self._framer = ImagePreprocessor(
            transparency=transparency,
            masks=masks,
            mask_minimum=mask_minimum,
            mask_normalise=mask_normalise,
            mask_temperature=mask_temperature,
            inpainting=inpainting,
            own={key: (one.transparency, one.masks) for key, one in own.items()},
            seed=seed,
        )
        self._files = LatentFiles(folder) if folder is not None else None
        self._spill, self._in_memory, self._memory_bytes, self._flip = spill, in_memory, memory_bytes, flip
        self._batch_size, self._device, self._dtype, self._workers = batch_size, device, dtype, workers
        self._entries: dict[_Entry, CachedLatents] = {}
        self._names: dict[_Entry, str] = {}
        self._views_of: dict[str, tuple[Crop, ...]] = {}
        self._pictures: list[Picture] = []
        self._by_key: dict[str, Picture] = {}
        self._widened = False
        self._unwritten: set[str] = set()
        self.encoded = 0
        """How many entries the last `build` had to encode; the others came from disk or memory."""
        self.size_bytes = 0
        """Memory held by the entries."""

    # -- what is there

    @property
    def pictures(self) -> tuple[Picture, ...]:
        """The pictures whose latents are ready, in the order given."""
        return tuple(self._pictures)

    def views(self, key: str) -> tuple[Crop, ...]:
        """The ways in which a picture is shown."""
        return self._views_of[key]

    def placement(self, key: str, view: int = 0) -> Placement:
        """How a picture lies in its bucket."""
        return self._views_of[key][view].placement

    def flips(self, key: str) -> bool:
        """Whether a picture is there mirrored, too."""
        return (key, 0, True) in self._names

    def sizes(self, key: str, *, view: int = 0, flip: bool = False) -> list[float]:
        """SDXL's six numbers of a picture, see `TrainingBatch.sizes`.

        As the paper and diffusers have it: the cut's place in the resized picture, taken after mirroring; 0 where
        nothing is cut off. kohya mirrors too, but counts from the bucket instead (library/train_util.py,
        `get_crop_ltrb`, 48d368f): a picture cut at its sides has a crop at the top there.
        """
        picture, place = self._by_key[key], self.placement(key, view)
        left_px = place.resized_px[0] - place.box_px[2] if flip else place.left_px
        numbers = (picture.height_px, picture.width_px, max(0, place.top_px), max(0, left_px))
        return [float(number) for number in (*numbers, place.bucket.height_px, place.bucket.width_px)]

    def get(self, key: str, *, view: int = 0, flip: bool = False) -> CachedLatents:
        """The latents of a picture."""
        found = self._entries.get((key, view, flip))
        if found is not None:
            return found
        name = self._names.get((key, view, flip))
        if name is None:
            raise DataError(f"{key}{' (mirrored)' if flip else ''}: not in the latent cache. Build the cache with it.")
        loaded = self._read(name)
        if loaded is None:
            raise DataError(f"{key}: its cached latents are gone or damaged since caching. Start the run again.")
        return loaded

    # -- making it

    def build(
        self,
        pictures: Sequence[Picture],
        *,
        progress: Progress | None = None,
        should_stop: Callable[[], bool] | None = None,
    ) -> list[DatasetProblem]:
        """Make everything ready for `pictures`; those that fail are named and left out, and it goes on.

        When `should_stop` says so it returns early with the pictures that are complete; with a folder, building again
        continues from there.
        Raises DataError when pictures were given and none is usable.
        """
        problems: list[DatasetProblem] = []
        failed: set[str] = set()
        self._entries, self._names, self.encoded, self.size_bytes = {}, {}, 0, 0
        self._widened = False
        self._by_key = {picture.key: picture for picture in pictures}
        self._views_of = {picture.key: self._views.of(picture) for picture in pictures}
        if self._files is None and self._spill is not None and self._too_large():
            self._files = LatentFiles(self._spill)
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
        complete = {key for key, _, _ in self._names} - failed
        complete -= {job.picture.key for job in jobs if job.entry not in self._names}
        self._pictures = [picture for picture in pictures if picture.key in complete]
        self._names = {entry: name for entry, name in self._names.items() if entry[0] in complete}
        self._entries = {entry: made for entry, made in self._entries.items() if entry[0] in complete}
        if pictures and len(failed) == len({picture.key for picture in pictures}):
            first = problems[0].message if problems else ""
            raise DataError(f"none of the {len(failed)} pictures could be encoded. The first: {first}")
        return [*problems, _WIDENED] if self._widened else problems

    def _too_large(self) -> bool:
        """Whether all entries together, masks not counted, are beyond the memory that they may have."""
        if self._memory_bytes is None:
            return False
        channels = 8 + (5 if self._framer.inpainting else 0)
        elements = sum(
            view.placement.bucket.width_px // 8 * (view.placement.bucket.height_px // 8) * self._turns(key)
            for key, views in self._views_of.items()
            for view in views
        )
        return elements * channels * self._dtype.itemsize > self._memory_bytes

    def _turns(self, key: str) -> int:
        """2 where a picture is mirrored, too, else 1."""
        picture = self._by_key[key]
        mirrored = self._flip if isinstance(self._flip, bool) else {picture.concept, key} & set(self._flip)
        return 2 if mirrored else 1

    def _jobs(self, pictures: Sequence[Picture], problems: list[DatasetProblem], failed: set[str]) -> Iterator[_Job]:
        """Every view, mirrored or not, bucket by bucket, with its entry's name."""
        ordered = sorted(pictures, key=lambda picture: self.placement(picture.key).bucket)  # stable within a bucket
        for picture in ordered:
            try:
                content = self._framer.content(picture) if self._files is not None else {}
            except (OSError, DataError) as error:
                _fail(picture.key, error, problems, failed)
                continue
            for number, view in enumerate(self.views(picture.key)):
                for flip in (False, True)[: self._turns(picture.key)]:
                    facts = {
                        **self._framer.facts(content, view.placement, flip=flip),
                        "codec": self._codec.fingerprint,
                        "dtype": str(self._dtype),
                    }
                    name = entry_name(facts) if self._files is not None else ""
                    yield _Job(picture, number, view.placement, flip, name)

    def _make_group(
        self, group: Sequence[_Job], pool: ThreadPoolExecutor, problems: list[DatasetProblem], failed: set[str]
    ) -> None:
        """Take a group's entries from disk, or encode the whole group if one is missing."""
        ready = {job: self._read(job.name) for job in group} if self._files is not None else {}
        if self._files is None or any(entry is None for entry in ready.values()):
            opened: list[tuple[_Job, PreparedImage]] = []
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
                    self._write(job, entry, problems)
        for job, made in ready.items():
            if made is not None:
                self._names[job.entry] = job.name
                self._keep(job, made)

    def _write(self, job: _Job, made: CachedLatents, problems: list[DatasetProblem]) -> None:
        """To the disk, where there is a folder; what it does not take stays in memory, told once."""
        if self._files is None:
            return
        try:
            self._files.write(job.name, _tensors(made))
        except DataError as error:
            if not self._unwritten:
                text = f"{error} Until then such latents stay in memory, whatever data.cache_folder and memory say."
                problems.append(DatasetProblem("warning", "latents-unwritten", text, (job.picture.key,)))
            self._unwritten.add(job.name)

    def _keep(self, job: _Job, made: CachedLatents) -> None:
        """In memory, as long as there is room or no other place."""
        size = sum(tensor.numel() * tensor.element_size() for tensor in _tensors(made).values())
        room = self._memory_bytes is None or self.size_bytes + size <= self._memory_bytes
        if self._files is None or (self._in_memory and room) or job.name in self._unwritten:
            self._entries[job.entry] = made
            self.size_bytes += size

    def _open(self, job: _Job) -> PreparedImage | Exception:
        """The picture as it is trained, or what went wrong."""
        try:
            return self._framer.frame(job.picture, job.placement, flip=job.flip)
        except (DataError, OSError) as error:
            return error

    def _encode(
        self, opened: Sequence[tuple[_Job, PreparedImage]], problems: list[DatasetProblem], failed: set[str]
    ) -> dict[_Job, CachedLatents]:
        means, stds = self._through_codec(torch.stack([frame.pixels for _, frame in opened]))
        holed: list[Tensor | None] = [None] * len(opened)
        if self._framer.inpainting:
            holed = list(self._through_codec(torch.stack([frame.holed() for _, frame in opened]))[0])
        result: dict[_Job, CachedLatents] = {}
        for (job, frame), mean, std, rest in zip(opened, means, stds, holed, strict=True):
            if bool(torch.isfinite(mean).all()) and bool(torch.isfinite(std).all()):
                inpaint = None if rest is None else frame.inpaint(rest)
                result[job] = CachedLatents(mean=mean.clone(), std=std.clone(), mask=frame.mask, inpaint=inpaint)
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
        latents = None
        try:
            with torch.no_grad():
                latents = self._codec.encode(pixels.to(self._device))
        except Exception as error:
            if len(pixels) == 1 or not is_out_of_memory(error):
                raise
        if latents is None:
            release_memory()
            singles = [self._through_codec(one) for one in pixels.split(1)]
            return torch.cat([mean for mean, _ in singles]), torch.cat([std for _, std in singles])
        self._widened |= latents.widened
        return (latents.mean.detach().to("cpu", self._dtype), latents.std.detach().to("cpu", self._dtype))

    def _read(self, name: str) -> CachedLatents | None:
        tensors = self._files.read(name) if self._files is not None else None
        if tensors is None or not {"mean", "std"} <= set(tensors):
            return None
        return CachedLatents(tensors["mean"], tensors["std"], tensors.get("mask"), tensors.get("inpaint"))


_WIDENED = DatasetProblem(
    "warning",
    "autoencoder",
    "The autoencoder gave numbers that are not finite in half precision (SDXL's is known for it); those pictures were "
    "encoded in fp32 instead. In the web UI, --no-half-vae keeps it so, for generated pictures, too.",
)


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


def _fail(key: str, error: Exception, problems: list[DatasetProblem], failed: set[str]) -> None:
    if key not in failed:
        text = str(error).rstrip(".") or type(error).__name__
        message = text if key.endswith(text.split(":")[0]) else f"{key}: {text}"
        problems.append(
            DatasetProblem(level="error", code="not_encoded", message=f"{message}. It is left out.", keys=(key,))
        )
        failed.add(key)
