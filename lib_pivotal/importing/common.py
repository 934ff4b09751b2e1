"""What several trainers write alike: optimisers, courses of the rate, precisions, words, folders of pictures."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib_pivotal.bundle.embedding_files import read_embedding
from lib_pivotal.config import WordConfig
from lib_pivotal.config_schema import to_plain
from lib_pivotal.data.captions import legal_name
from lib_pivotal.errors import PivotalError
from lib_pivotal.file_names import legal_file_name
from lib_pivotal.importing.report import shown
from lib_pivotal.importing.sheet import Sheet, choices

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif", ".jxl", ".gif")
MOST_FILES = 200_000

OPTIMIZERS: tuple[tuple[str, str, str], ...] = (
    (r"adamw$", "adamw", ""),
    (r"pagedadamw(8bit|32bit)?$|adamw_?8bit$", "adamw", "the same steps, with its state in fp32 instead of 8 bit"),
    (r"lion$", "lion", ""),
    (r"pagedlion8bit$|lion_?8bit$", "lion", "the same steps, with its state in fp32 instead of 8 bit"),
    (r"prodigy$", "prodigy", ""),
    (r"adamwschedulefree$|schedule_free_adamw$", "schedule_free", ""),
    (r"adafactor$", "adafactor", ""),
    (r"adam(_?8bit)?$", "adamw", "Adam with decay beside the gradient; the same where weight decay is 0"),
    (r"dadapt\w*$|adamw\w*$|prodigy\w*$|\w*adam\w*$|came\w*$|adopt\w*$|muon\w*$", "adamw", "the nearest that is here"),
)
"""(pattern on the last part of its name in lower case, ours, what differs)."""

ADAPTIVE = re.compile(r"dadapt|prodigy")

RATES: dict[str, tuple[str, str]] = {
    "constant": ("constant", ""),
    "constant_with_warmup": ("constant", ""),
    "linear": ("linear", ""),
    "cosine": ("cosine", ""),
    "cosine_with_restarts": ("cosine_restarts", ""),
    "cosine_with_hard_restarts": ("cosine_restarts", ""),
    "cosine_with_min_lr": ("cosine", ""),
    "polynomial": ("polynomial", ""),
    "one_cycle": ("one_cycle", ""),
    "warmup_stable_decay": ("linear", "the nearest that is here: it falls from the end of the warm-up on"),
    "inverse_sqrt": ("polynomial", "the nearest that is here"),
    "piecewise_constant": ("constant", "the nearest that is here: it does not step down"),
    "rex": ("cosine", "the nearest that is here"),
    "adafactor": ("constant", "the nearest that is here"),
    "constant_with_restart": ("constant", "no trainer knows this name; constant is meant"),
}
"""A trainer's name of a course in lower case -> (ours, what differs)."""

PRECISIONS = {
    "no": "fp32",
    "float": "fp32",
    "fp32": "fp32",
    "float_32": "fp32",
    "tfloat_32": "fp32",
    "amp": "model",
    "fp16": "fp16",
    "float_16": "fp16",
    "bf16": "bf16",
    "bfloat_16": "bf16",
}


def _anything(path: Path) -> bool:
    return True


@dataclass(frozen=True)
class Origin:
    """Where a settings file comes from: `folder` is None for text that came without a place on this computer.

    The bases of an `uploaded` file are looked for in its folder and below. `may_read` says which of the files and
    folders that it names may be looked at.
    """

    name: str
    folder: Path | None = None
    uploaded: bool = False
    may_read: Callable[[Path], bool] = _anything

    def find(self, written: Any) -> Path | None:
        """A file or folder that the settings name, where it is here: as written, or from a folder above the file."""
        text = str(written or "").strip()
        if not text or "\0" in text or len(text) > 1000:
            return None
        path = Path(text)
        if self.folder is None and not path.is_absolute():
            return None
        places = [path] if path.is_absolute() or self.folder is None else [
            folder / path for folder in (self.folder, *self.folder.parents)
        ]  # fmt: skip
        try:
            return next((place for place in places if self.may_read(place) and place.exists()), None)
        except (OSError, ValueError):
            return None


def place_of(origin: Origin, written: Any) -> str:
    """A folder as the run should name it: where it is on this computer, else as written."""
    found = origin.find(written)
    return str(written) if found is None else str(found)


def set_optimizer(sheet: Sheet, key: str, value: Any) -> str:
    """The optimiser by the last part of its name; returns ours."""
    name = re.sub(r"\W+$", "", str(value)).rpartition(".")[2].lower()
    for pattern, ours, why in OPTIMIZERS:
        if re.match(pattern, name):
            sheet.translated(key, "schedule.optimizer", ours, why or f"{value} is called {ours} here")
            if ours == "adamw" and ADAPTIVE.match(name):
                sheet.remark(
                    f"{value} finds its own step size, AdamW does not: learning rates of about 1 must be "
                    "lowered (embeddings 5e-3, U-Net 2e-4, text encoder 2e-5), or choose prodigy."
                )
            return ours
    sheet.put("schedule.optimizer", "adamw")
    sheet.refused(key, "there is no such optimiser here; AdamW instead", "schedule.optimizer = adamw")
    return "adamw"


def set_rate(sheet: Sheet, key: str, value: Any) -> str:
    """The course of the learning rates by its name; returns ours."""
    name = str(value).partition(":")[0].strip().lower()
    ours, why = RATES.get(name, ("constant", "there is no such LR scheduler here; constant instead"))
    if why:
        sheet.put("schedule.rate", ours)
        sheet.refused(key, why, f"schedule.rate = {ours}")
    elif ours == name:
        sheet.taken(key, "schedule.rate", ours)
    else:
        sheet.translated(key, "schedule.rate", ours, f"{name} is called {ours} here")
    return ours


def set_precision(sheet: Sheet, key: str, value: Any, path: str = "memory.precision") -> None:
    """Arithmetic or file type by its name."""
    ours = PRECISIONS.get(str(value).lower())
    if ours is None or ours not in choices(path):
        sheet.refused(key, f"{path} stays {sheet.read(path)}")
    elif ours == value:
        sheet.taken(key, path, ours)
    else:
        sheet.translated(key, path, ours, f"{value} is called {ours} here")


def take_name(sheet: Sheet, key: str, written: str) -> None:
    """The run's name out of a name or path of a file."""
    name = legal_file_name(written)
    if not name:
        sheet.refused(key, "no file can be called so here; give it a name")
    elif name == written:
        sheet.taken(key, "name", name)
    else:
        sheet.translated(key, "name", name, f"{shown(written)} cannot be called by a prompt or be a file here")


def new_word(written: Any, taken_names: Iterable[str], **values: Any) -> tuple[dict[str, Any], str]:
    """A word of the run, and what was done to its name ("" if nothing)."""
    text = str(written)
    name = base = legal_name(text[:64])
    taken, ending = set(taken_names), iter("bcdefghijklmnopqrstuvwxyz")
    while name in taken:
        name = f"{base}-{next(ending, 'z' * (len(taken) + 1))}"
    word = to_plain(WordConfig(name=name, **values))
    return word, "" if name == text else f"{text!r} is no name that every program reads; it is called {name} here"


def vectors_of(path: Path) -> int:
    """How many vectors an embedding file holds; 0 if it cannot be read."""
    try:
        return min(int(tensor.shape[0]) if tensor.ndim > 1 else 1 for tensor in read_embedding(path).vectors)
    except (PivotalError, OSError, ValueError):
        return 0


def count_draws(folder: Path) -> int:
    """Pictures an epoch in kohya's layout: each folder `N_name` counts N times, others once."""
    total = looked_at = 0
    for place, folders, files in os.walk(folder):
        folders.sort()
        looked_at += len(files)
        if looked_at > MOST_FILES:
            break
        repeats = re.match(r"(\d{1,4})_", Path(place).name)
        count = sum(name.lower().endswith(PICTURE_SUFFIXES) for name in files)
        total += count * (int(repeats.group(1)) if repeats else 1)
    return total


def common_folder(folders: list[str]) -> str:
    """The folder around all of these; "" if there is none besides the root."""
    if len(folders) == 1:
        return folders[0]
    try:
        found = os.path.commonpath(folders)
    except ValueError:
        return ""
    return "" if found in ("", "/", "\\") else found


def resolution_of(value: Any) -> tuple[int | None, str]:
    """(side in px, what was done) of `512`, `512,768` or a list: the side of a square of that area."""
    sides = [int(text) for text in re.findall(r"\d{2,5}", str(value))][:2]
    if not sides:
        return None, ""
    if len(sides) == 1 or sides[0] == sides[1]:
        return sides[0], ""
    return round((sides[0] * sides[1]) ** 0.5), "the side of a square of the same area; buckets give the shapes"
