"""What several trainers write alike: optimisers, LR schedulers, precisions, embeddings, folders of pictures, epochs."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib_pivotal.bundle.embedding_files import read_embedding
from lib_pivotal.config import EmbeddingConfig
from lib_pivotal.config_schema import asked, to_plain
from lib_pivotal.data.captions import legal_name
from lib_pivotal.data.folders import Folder
from lib_pivotal.data.sources.layout import read_layout
from lib_pivotal.data.sources.source import SourceReading
from lib_pivotal.errors import DataError, PivotalError
from lib_pivotal.file_names import legal_file_name
from lib_pivotal.importing.datasets import DATASET_FILES
from lib_pivotal.importing.reading import Origin, flag, number, whole
from lib_pivotal.importing.report import shown
from lib_pivotal.importing.translation import ConfigTranslation, choices
from lib_pivotal.networks.registry import KindOption, all_options, checked_options

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".avif", ".jxl", ".gif")
MOST_FILES = 200_000
MOST_SHARE = 0.9999
"""Of a run that only warms up."""

_NEAREST = "the nearest that is here"
_BITS = "the same steps, with its state in fp32 instead of 8 bit"
OPTIMIZERS: tuple[tuple[str, str, str], ...] = (
    (r"adamw$", "adamw", ""),
    (r"pagedadamw(8bit|32bit)?$|adamw_?8bit$", "adamw", _BITS),
    (r"lion$", "lion", ""),
    (r"pagedlion8bit$|lion_?8bit$", "lion", _BITS),
    (r"prodigy$", "prodigy", ""),
    (r"adamwschedulefree$|schedule_free_adamw$", "schedule_free", ""),
    (r"adafactor$", "adafactor", ""),
    (r"adam(_?8bit)?$", "adamw", "Adam with decay beside the gradient; the same where weight decay is 0"),
    (r"dadapt\w*$|adamw\w*$|prodigy\w*$|\w*adam\w*$|came\w*$|adopt\w*$|muon\w*$", "adamw", _NEAREST),
)
"""(pattern on the last part of its name in lower case, ours, what differs)."""
WEIGHT_DECAY = {"adamw": 0.01, "schedule_free": 0.0, "lion": 0.0, "prodigy": 0.0, "adafactor": 0.0}
"""Our optimisers' own defaults, which are those of the packages that the trainers use."""

RATES: dict[str, tuple[str, str]] = {
    **{name: (name, "") for name in ("constant", "linear", "cosine", "polynomial", "one_cycle")},
    "constant_with_warmup": ("constant", ""),
    "cosine_with_restarts": ("cosine_restarts", ""),
    "cosine_with_hard_restarts": ("cosine_restarts", ""),
    "cosine_with_min_lr": ("cosine", ""),
    "warmup_stable_decay": ("linear", f"{_NEAREST}: it falls from the end of the warm-up on"),
    "inverse_sqrt": ("polynomial", _NEAREST),
    "piecewise_constant": ("constant", f"{_NEAREST}: it does not step down"),
    "rex": ("cosine", _NEAREST),
    "adafactor": ("constant", _NEAREST),
    "constant_with_restart": ("constant", "no trainer knows this name; constant is meant"),
}
"""A trainer's name of an LR scheduler in lower case -> (ours, what differs)."""

PRECISIONS = {
    **dict.fromkeys(("no", "float", "fp32", "float_32", "tfloat_32"), "fp32"),
    **dict.fromkeys(("fp16", "float_16"), "fp16"),
    **dict.fromkeys(("bf16", "bfloat_16"), "bf16"),
    "amp": "model",
}


# ---- choices by name ----


def set_optimizer(sheet: ConfigTranslation, key: str, value: Any) -> str:
    """The optimiser by the last part of its name; returns ours."""
    name = re.sub(r"\W+$", "", str(value)).rpartition(".")[2].lower()
    for pattern, ours, why in OPTIMIZERS:
        if re.match(pattern, name):
            if why == _NEAREST and name in choices("schedule.optimizer"):
                break
            sheet.translated(key, "schedule.optimizer", ours, why or f"{value} is called {ours} here")
            if ours == "adamw" and re.match("dadapt|prodigy", name):
                sheet.remark(
                    f"{value} finds its own step size, AdamW does not: learning rates of about 1 must be "
                    "lowered (embeddings 5e-3, U-Net 2e-4, text encoder 2e-5), or choose prodigy."
                )
            return ours
    if name in choices("schedule.optimizer"):
        sheet.renamed(key, "schedule.optimizer", name, value)
        return name
    sheet.put("schedule.optimizer", "adamw")
    sheet.refused(key, "there is no such optimiser here; AdamW instead", "schedule.optimizer = adamw")
    return "adamw"


def set_rate(sheet: ConfigTranslation, key: str, value: Any) -> str:
    """The LR scheduler by its name; returns ours."""
    name = str(value).partition(":")[0].strip().lower()
    ours, why = RATES.get(name, ("constant", "there is no such LR scheduler here; constant instead"))
    if why and name in choices("schedule.lr_scheduler"):
        ours, why = name, ""
    if why:
        sheet.put("schedule.lr_scheduler", ours)
        sheet.refused(key, why, f"schedule.lr_scheduler = {ours}")
    else:
        sheet.renamed(key, "schedule.lr_scheduler", ours, name)
    return ours


def precision(path: str) -> Callable[[ConfigTranslation, str, Any], None]:
    """A rule: arithmetic or file type by its name."""

    def rule(sheet: ConfigTranslation, key: str, value: Any) -> None:
        ours = PRECISIONS.get(str(value).lower())
        if ours is None or ours not in choices(path):
            sheet.refused(key, f"{path} stays {sheet.read(path)}")
        else:
            sheet.renamed(key, path, ours, value)

    return rule


ALIKE = {name: name for name in ("lora", "loha", "lokr", "oft")}
"""Kinds of network that are called so everywhere, here or not."""


def kind_of(known: Mapping[str, str], written: str) -> str:
    """Our name of a kind of network that another trainer writes so; one that is called alike needs no entry."""
    name = written.lower()
    alike = name if name in choices("network.algorithm") and name != "none" else ""
    return known.get(written, "") or known.get(name, "") or alike


def set_kind(sheet: ConfigTranslation, key: str, ours: str, why: str, refusal: str) -> None:
    """The kind of network, where it is here; else a LoRA of the same rank."""
    if ours in choices("network.algorithm"):
        sheet.put("network.algorithm", ours)
        sheet.translated(key, "network.algorithm", ours, why)
    else:
        sheet.refused(key, f"{refusal} is not here; a LoRA of the same rank instead", "network.algorithm = lora")


def kind_option(name: str) -> Callable[[ConfigTranslation, str, Any], None]:
    """A rule: a setting that only some kinds of network have, where the chosen kind has it; else the key stays open."""

    def rule(sheet: ConfigTranslation, key: str, value: Any) -> None:
        kind, option = str(sheet.read("network.algorithm")), all_options()[name]
        if kind not in option.kinds:
            return
        own = _option_value(option, value)
        kept, faults = checked_options([kind], {**sheet.read("network.options"), name: own})
        if faults:
            sheet.refused(key, f"network.options.{name} {faults[0].problem}")
            return
        sheet.put("network.options", kept)
        sheet.note(key, "taken" if own == value else "translated", "", f"network.options.{name} = {shown(own)}")

    return rule


def _option_value(option: KindOption, value: Any) -> Any:
    """Another trainer's value as ours; lists of arguments are text, and (IA)³'s side is a flag there."""
    if option.hint is bool:
        return flag(value)
    if option.hint is str:
        return option.setting.choices[1] if flag(value) else option.setting.choices[-1]
    return whole(value) if option.hint is int else number(value)


def group(pattern: str, rank: int, alpha: float, lr_factor: float = 1.0, algorithm: str = "") -> dict[str, Any]:
    """A group of layers, as `network.groups` has it."""
    return {"pattern": pattern, "rank": rank, "alpha": alpha, "lr_factor": lr_factor, "algorithm": algorithm}


def put_groups(sheet: ConfigTranslation, groups: Sequence[dict[str, Any]]) -> None:
    """Groups of layers, or a remark why there are none."""
    if groups and (fault := sheet.put("network.groups", list(groups))):
        sheet.remark(f"The groups of layers could not be taken over: network.groups {fault}.")


def take_decay(sheet: ConfigTranslation, key: str, path: str, optimizer: str) -> None:
    """Weight decay, or the optimiser's own where none is written."""
    decay = sheet.number(key)
    if decay is not None:
        sheet.taken(key, path, decay)
    else:
        sheet.default(key, path, WEIGHT_DECAY.get(optimizer, 0.01), "the optimiser's own default")


def take_option(sheet: ConfigTranslation, key: str, name: str, value: Any) -> bool:
    """An option of the optimiser, where the one that was chosen has it; whether it has."""
    if value is None or name not in asked("training.optimizers:option_names", sheet.read("schedule.optimizer")):
        return False
    line = f"{name} = {json.dumps(value)}"
    others = [one for one in sheet.read("schedule.optimizer_options") if one.partition(" ")[0] != name]
    if sheet.put("schedule.optimizer_options", [*others, line]):
        return False
    sheet.note(key, "taken", "", f"schedule.optimizer_options: {line}")
    return True


# ---- names and embeddings ----


def take_name(sheet: ConfigTranslation, key: str, written: Any) -> None:
    """The run's name out of a name or path of a file."""
    name = legal_file_name(str(written))
    if not name:
        sheet.refused(key, "no file can be called so here; give it a name")
    elif name == written:
        sheet.taken(key, "name", name)
    else:
        sheet.translated(key, "name", name, f"{shown(written)} cannot be called by a prompt or be a file here")


def new_embedding(written: Any, others: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Any], str]:
    """An embedding of the run beside these others, and what was done to its name ("" if nothing)."""
    text = str(written)
    name = base = legal_name(text[:64])
    taken, ending = {other["name"] for other in others}, iter("bcdefghijklmnopqrstuvwxyz")
    while name in taken:
        name = f"{base}-{next(ending, 'z' * (len(taken) + 1))}"
    told = "" if name == text else f"{text!r} is no name that every program reads; it is called {name} here"
    return to_plain(EmbeddingConfig(name=name)), told


def take_embedding(
    sheet: ConfigTranslation, embeddings: Sequence[dict[str, Any]], keys: Sequence[str], text: str
) -> tuple[dict[str, Any], str]:
    """One more embedding of the run, with lines for the `keys` of its name, number of vectors, init text and the file
    that it begins with; `text` is the init text where none is written. As `new_embedding`."""
    named, counted, initial, file = keys
    embedding, told = new_embedding(sheet.get(named, "<embedding>"), embeddings)
    place, found = f"embeddings.{len(embeddings)}", sheet.origin.find(sheet.get(file))
    count = whole(sheet.get(counted) or 1)
    embedding["vectors"] = min(max(count or 1, 1), 75)
    embedding["init_text"] = str(sheet.get(initial, text) or "")[:400]
    sheet.note(named, "translated" if told else "taken", told, f"{place}.name = {embedding['name']}")
    for key, name in ((counted, "vectors"), (initial, "init_text")):
        why = "as the text has" if key == counted and not sheet.given(key) else ""
        sheet.note(key, "taken", why, f"{place}.{name} = {embedding[name]}")
    if found is not None and found.is_file():
        embedding["init_file"] = str(found)
        sheet.note(file, "taken", "begins with this file", f"{place}.init_file")
    elif sheet.get(file):
        sheet.refused(file, f"this file is not here; set {place}.init_file")
    else:
        sheet.honoured(file, "none")
    return embedding, told


def begin_from(sheet: ConfigTranslation, key: str, value: Any) -> None:
    """A rule: the network file that a run begins from, by its path; empty: none."""
    found = sheet.origin.find(value)
    if value in (None, "") or sheet.read("network.algorithm") == "none":
        sheet.honoured(key, "none" if value in (None, "") else "no network is trained")
    elif found is None or not found.is_file():
        sheet.refused(key, "this file is not here; set start.init_file")
    else:
        sheet.put("start.init_file", str(found))
        sheet.put("start.embeddings", "none")
        sheet.note(key, "taken", "begins with this network", "start.init_file")


def vectors_of(path: Path) -> int:
    """How many vectors an embedding file holds; 0 if it cannot be read."""
    try:
        return min(int(tensor.shape[0]) if tensor.ndim > 1 else 1 for tensor in read_embedding(path).vectors)
    except (PivotalError, OSError, ValueError):
        return 0


# ---- pictures ----


def place_of(origin: Origin, written: Any) -> str:
    """A folder as the run should name it: where it is on this computer, else as written."""
    found = origin.find(written)
    return str(written) if found is None else str(found)


def common_folder(origin: Origin, folders: Iterable[str]) -> str:
    """The folder around all of these, as the run should name it; "" if there is none besides the root."""
    given = [folder for folder in folders if folder]
    try:
        found = given[0] if len(given) == 1 else os.path.commonpath(given)
    except ValueError:
        return ""
    return "" if found in ("", "/", "\\") and len(given) != 1 else place_of(origin, found)


def resolution_of(value: Any) -> tuple[int | None, str]:
    """(side in px, what was done) of `512`, `512,768` or a list: the side of a square of that area."""
    sides = [int(text) for text in re.findall(r"\d{2,5}", str(value))][:2]
    if not sides:
        return None, ""
    if len(sides) == 1 or sides[0] == sides[1]:
        return sides[0], ""
    return round((sides[0] * sides[1]) ** 0.5), "the side of a square of the same area; buckets give the shapes"


def read_described(path: Path, layout: str, origin: Origin) -> SourceReading | None:
    """What a dataset file describes; None where its folders are not on this computer, or may not be looked at."""
    try:
        reading = read_layout(path, layout, files=DATASET_FILES)
    except DataError:
        return None
    return reading if all(origin.allows(place) for source in reading.sources for place in source.places()) else None


def take_described(sheet: ConfigTranslation, reading: SourceReading, path: Path, key: str) -> None:
    """The run's pictures are those of this file, with the settings that its folders ask for; remarks for the rest.

    `key` is what led to the file.
    """
    sheet.put("data.folder", str(path))
    for setting, value in reading.settings.items():
        sheet.default(f"{key}: {setting.partition('.')[2]}", setting, to_plain(value), f"{path.name} says so")
    for problem in reading.problems:
        if problem.level != "info" or problem.code in ("setting_translated", "setting_not_taken"):
            sheet.remark(problem.message)


# ---- epochs ----


def draws_an_epoch(reading: SourceReading | None) -> int:
    """Pictures × repeats of all its folders, each rounded down, as the trainers count; 0 where nothing is read."""
    sources = () if reading is None else reading.sources
    return sum(math.floor(len(Folder(one.root, below=one.below).pictures()) * one.repeats + 1e-2) for one in sources)


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


def pictures_a_step(sheet: ConfigTranslation) -> int:
    """Batch × accumulation, as gathered so far."""
    return int(sheet.read("schedule.batch_size")) * int(sheet.read("schedule.accumulation"))


def take_epochs(sheet: ConfigTranslation, key: str, epochs: int, draws: int) -> None:
    """Epochs as steps where the pictures are here, else as epochs that a scan turns into steps. Batch and accumulation
    must be in the sheet already."""
    sheet.epochs = epochs
    if not draws:
        why = "computed at Scan: pictures × repeats ÷ (batch × accumulation), rounded up, × epochs"
        sheet.translated(key, "schedule.epochs", epochs, why)
        return
    pictures = pictures_a_step(sheet)
    sheet.epoch_steps = math.ceil(draws / pictures)
    why = f"{draws} pictures an epoch with repeats ÷ {pictures} a step = {sheet.epoch_steps} steps an epoch"
    sheet.translated(key, "schedule.max_steps", sheet.epoch_steps * epochs, why)


def take_interval(sheet: ConfigTranslation, key: str, epochs: int, path: str) -> None:
    """An interval in epochs, which stays one until the pictures are known; `path` is that in steps (`..._steps`)."""
    if sheet.epoch_steps:
        why = f"{sheet.epoch_steps} steps an epoch with the pictures here"
        sheet.translated(key, path, epochs * sheet.epoch_steps, why)
    else:
        why = "becomes steps at Scan or at the start, with the pictures that are there then"
        sheet.translated(key, f"{path.removesuffix('_steps')}_epochs", epochs, why)


def share_of_epochs(sheet: ConfigTranslation, epochs: int) -> float | None:
    """What share of the run so many epochs are; None where its length in epochs is not given."""
    return min(1.0, epochs / sheet.epochs) if sheet.epochs else None


def take_warmup(sheet: ConfigTranslation, key: str, share: float, why: str) -> None:
    """A warm-up as a share of the run: steps where the file gives the run's length in steps, else it stays a share."""
    share = min(share, MOST_SHARE)
    value = share if sheet.epochs else int(share * int(sheet.read("schedule.max_steps")) + 1e-9)
    told = f"{why}; it stays one until the length is known" if sheet.epochs else why
    sheet.translated(key, "schedule.warmup_steps", value, told)
