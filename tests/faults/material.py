"""What every trial trains: a tiny real checkpoint, a few pictures, and small runs with what each should give."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from lib_pivotal.bundle.reader import read_bundle, require
from lib_pivotal.config import Run, run_from_dict
from lib_pivotal.ports import SampleRequest
from tests.training.runs import plain_run

if TYPE_CHECKING:
    from lib_pivotal.standalone.model import StandaloneHost

NAME = "two"
CACHE_HOME = "home/cache"
STEPS = 6
STATE_EVERY = 2
SAMPLER_STEPS = 3
CAPTIONS = {
    "aoi_1": "aoi, red hair, smile",
    "aoi_2": "aoi, red hair, park",
    "aoi_3": "aoi, red hair, night",
    "hana_1": "hana, blue hair, smile",
    "hana_2": "hana, blue hair, sky",
}
CLASS_CAPTIONS = {"one": "1girl, tree", "two": "1girl, sea"}
VARIANTS = ("plain", "averaged", "cached", "class")
"""Runs that differ in what they write and keep: see `settings_of`."""

Tensors = dict[str, Tensor]


@dataclass
class Folders:
    """A trial's own place; everything that may appear is below it."""

    root: Path
    disk_bytes: int = field(default=4 * 2**20, kw_only=True)
    """The size of `disks` where they are file systems of their own."""

    def __post_init__(self) -> None:
        for name in ("pictures", "class", "loras", "log", "cache", "temporary", "home", "beside"):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    @property
    def pictures(self) -> Path:
        return self.root / "pictures"

    @property
    def loras(self) -> Path:
        return self.root / "loras"

    @property
    def log(self) -> Path:
        return self.root / "log"

    @property
    def cache(self) -> Path:
        return self.root / "cache"

    @property
    def temporary(self) -> Path:
        return self.root / "temporary"

    @property
    def states(self) -> Path:
        return self.log / f"{NAME}.state"

    @property
    def disks(self) -> tuple[Path, ...]:
        """What another program may fill."""
        return self.log, self.loras, self.cache

    @property
    def bundle(self) -> Path:
        return self.loras / f"{NAME}.safetensors"


@dataclass(frozen=True, eq=False)
class Expected:
    """What an undisturbed run of a variant gives, and how often it comes by each moment."""

    tensors: Tensors
    moments: Mapping[str, int] = field(default_factory=dict)


class Material:
    """A host whose checkpoint is a file, and what its weights and its picture of a seed are before any run."""

    def __init__(self, folder: Path) -> None:
        from lib_pivotal.standalone.model import StandaloneHost as Host  # here and below: a web UI, which has neither
        from tests.conftest import make_tiny_models  # diffusers nor pytest, reads this file, too

        self.folder = folder
        models = make_tiny_models()
        self.checkpoint = folder / "checkpoint" / "tiny.safetensors"
        self.checkpoint.parent.mkdir(parents=True)
        weights = {
            f"{part}.{name}": tensor.contiguous().clone()
            for part in ("unet", "vae", "text_model")
            for name, tensor in models[part].state_dict().items()
        }
        save_file(weights, self.checkpoint)
        self.host = Host(**models, scale_factor=1.0, name="tiny", file=self.checkpoint)
        self.sha256 = self.host.info.sha256
        assert self.sha256 and self.host.codec.fingerprint  # read once, here
        self.host.text.vocabulary_stats()
        self.weights = weights_hash(self.host)
        self.picture = picture_hash(self.host)

    def lay_out(self, folders: Folders) -> None:
        """See the function."""
        lay_out(folders)


def lay_out(folders: Folders) -> None:
    """A trial's pictures, and files of others that no run may touch."""
    from tests.conftest import write_pictures

    write_pictures(folders.pictures, CAPTIONS)
    write_pictures(folders.root / "class", CLASS_CAPTIONS)
    for place in (folders.loras, folders.log, folders.root / "home", folders.root / "beside"):
        (place / "another's.safetensors").write_bytes(b"not ours")


def settings_of(variant: str, folders: Folders) -> Run:
    """The run of a variant, its folders those of a trial."""
    plain: dict[str, Any] = plain_run(folders.pictures, max_steps=STEPS)
    plain["saving"].update(
        state_every_steps=STATE_EVERY,
        every_steps=3,
        preview_every_steps=4,
        preview_embeddings=["aoi"],
        keep_previewed=variant == "plain",
        embedding_files=variant == "averaged",
    )
    if variant == "averaged":
        plain["schedule"].update(ema_decay=0.9, accumulation=2, optimizer="lion")
    if variant == "cached":
        plain["data"].update(cache_folder=str(folders.cache), flip=True, random_latent=True)
    if variant == "class":
        plain["regularisation"] = {"folder": str(folders.root / "class"), "batch_size": 1}
        plain["network"]["te_targets"] = "none"
    return run_from_dict(plain)


def weights_hash(host: StandaloneHost) -> str:
    """Of every parameter and buffer of the checkpoint's models, and of what a run may leave behind on them."""
    digest = hashlib.blake2b()
    for model in host.models():
        for name, tensor in (*model.named_parameters(), *model.named_buffers()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)} {tensor.grad is None}".encode())
            digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        for name, module in model.named_modules():
            left = [key for key in vars(module) if key == "forward" or "pivotal" in key]
            digest.update(f"{name} {type(module).__name__} {left}".encode())
    return digest.hexdigest()


def picture_hash(host: StandaloneHost) -> str:
    """Of the picture that a seed gives."""
    request = SampleRequest("red hair, smile", width_px=64, height_px=64, steps=SAMPLER_STEPS, seed=7)
    return hashlib.sha256(host.sample([request], {})[0].tobytes()).hexdigest()


def shorten_pictures(host: StandaloneHost) -> None:
    """Previews with few steps: what is tried is not the sampler."""
    original = host.sample
    host.sample = lambda requests, embeddings: original(
        [replace(request, steps=SAMPLER_STEPS) for request in requests], embeddings
    )


def tensors_of(path: Path) -> Tensors:
    """Network and words of a bundle. Raises BundleError where a part of it is broken."""
    bundle = require(read_bundle(path))
    embeddings = {f"word {name} {i}": t for name, towers in bundle.embeddings.items() for i, t in enumerate(towers)}
    return {**bundle.network, **embeddings}


def equal(first: Tensors, second: Tensors) -> bool:
    """The same names with the same bits."""
    return first.keys() == second.keys() and all(torch.equal(first[key], second[key]) for key in first)


def write_note(path: Path, note: Any) -> None:
    """What a process has to say to the one that started it."""
    path.write_bytes(pickle.dumps(note))


def read_note(path: Path) -> Any:
    """The same, None where the process did not get so far."""
    return pickle.loads(path.read_bytes()) if path.exists() else None


def described(settings: Mapping[str, Any]) -> str:
    """Settings of a fault on one line."""
    return json.dumps(settings, sort_keys=True, default=str)


def same_size(path: Path) -> None:
    """Another picture of the same dimensions in a file of the same length."""
    length = path.stat().st_size
    with Image.open(path) as opened:
        picture = opened.convert("RGB")
    Image.new("RGB", picture.size, (200, 10, 60)).save(path)
    content = path.read_bytes()
    assert len(content) <= length
    path.write_bytes(content + bytes(length - len(content)))


def quiet_environment(folders: Folders) -> None:
    """In a trial's process: whatever looks for a place finds one inside the trial's."""
    os.environ["HOME"] = str(folders.root / "home")
    os.environ["TMPDIR"] = str(folders.temporary)
    os.environ["PIVOTAL_CACHE"] = str(folders.root / CACHE_HOME)
    os.chdir(folders.root / "beside")
