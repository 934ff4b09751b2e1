"""kohya's dataset file: `[general]`, `[[datasets]]`, `[[datasets.subsets]]`.

Keys and what they mean: https://github.com/kohya-ss/sd-scripts/blob/48d368f/library/config_util.py (an inner table wins
over an outer one) and library/train_util.py, `DreamBoothDataset`: folders are read without their sub-folders, of a
caption file only the first line unless wildcards are on, and `class_tokens` is the caption of what has none, which is
empty without them. A number in front of a folder's name counts in kohya's folders alone, not here.

LoRA_Easy_Training_Scripts has the same keys in `[X.dataset_args]` and folders in `[[subsets]]`, beside its settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lib_pivotal.data.folders import concept_of
from lib_pivotal.data.sources.source import PictureSource, SourceReading
from lib_pivotal.errors import DataError
from lib_pivotal.importing.import_log import ImportLog, mapping, number, place

_BOOLEANS = {"shuffle_caption": "data.shuffle_tags", "flip_aug": "data.flip", "enable_wildcard": "data.wildcards",
             "enable_bucket": "data.bucketing"}  # fmt: skip
_NUMBERS: Mapping[str, tuple[str, Callable[[float], Any]]] = {
    "keep_tokens": ("data.keep_first", int),
    "caption_dropout_rate": ("data.caption_dropout", float),
    "caption_dropout_every_n_epochs": ("data.caption_dropout_epochs", int),
    "caption_tag_dropout_rate": ("data.tag_dropout", float),
    "token_warmup_min": ("data.caption_warmup_tags", int),
    "token_warmup_step": ("data.caption_warmup_steps", float),
    "bucket_reso_steps": ("data.bucket_step_px", int),
    "batch_size": ("schedule.batch_size", int),
}
USUAL: Mapping[str, Any] = {
    "data.shuffle_tags": False,
    "data.flip": False,
    "data.wildcards": False,
    "data.bucketing": False,
    "data.keep_first": 0,
    "data.keep_separator": "",
    "data.caption_dropout": 0.0,
    "data.caption_dropout_epochs": 0,
    "data.tag_dropout": 0.0,
    "data.caption_warmup_tags": 1,
    "data.caption_warmup_steps": 0.0,
    "data.bucket_step_px": 64,
    "data.upscale": True,
    "data.crop": "centre",
    "data.crops": 1,
    "data.transparency": "white",
    "data.resolution_px": 512,
    "schedule.batch_size": 1,
}
"""kohya's own defaults: what a subset has that says nothing where another one says something."""
RANDOM_CROPS = 8
"""Cuts that are kept of a picture where kohya makes a new one at each draw."""
_OF_SOURCE = frozenset(
    "name image_dir num_repeats caption_extension class_tokens caption_prefix caption_suffix is_reg "
    "metadata_file".split()
)
_OFF: Mapping[str, tuple[Any, ...]] = {
    "caption_separator": (",",),
    "network_multiplier": (1, 1.0),
    "validation_split": (0, 0.0),
    "cache_info": (True,),
}
"""What changes nothing here, beside what is empty or off."""


def is_kohya(plain: Any) -> bool:
    """Whether it is kohya's dataset file, or a file of settings with such folders in it."""
    if not isinstance(plain, Mapping):
        return False
    return isinstance(plain.get("datasets"), list) or _is_subsets(plain.get("subsets"))


def _is_subsets(plain: Any) -> bool:
    return isinstance(plain, list) and any(isinstance(one, Mapping) and "image_dir" in one for one in plain)


def read_kohya(plain: Any, path: Path) -> SourceReading:
    """The folders of the file, with what maps to a run's settings.

    Raises:
        DataError: none of its folders is there.
    """
    if not isinstance(plain.get("datasets"), list):
        plain = easy_as_dataset(plain)
    notes = ImportLog(path.name, USUAL)
    sources: list[PictureSource] = []
    regular: list[Path] = []
    for dataset in plain["datasets"]:
        outer = {**mapping(plain.get("general")), **mapping(dataset)}
        for subset in outer.get("subsets") or []:
            merged = {**outer, **mapping(subset)}
            root = place(merged.get("image_dir"), path.parent)
            if root is None or not root.is_dir():
                notes.say("folder_missing", f"image_dir {merged.get('image_dir')!r} is no folder here; it is left out.")
            elif merged.get("is_reg") is True:
                regular.append(root)
                if isinstance(tokens := merged.get("class_tokens"), str) and tokens.strip():
                    notes.whole("regularisation.class_text", tokens.strip(), "class_tokens of is_reg")
            else:
                notes.source()
                sources.append(_source(merged, root, path, notes))
                _wishes(merged, notes)
    if not sources:
        raise DataError(f"{path}: none of its folders with pictures is here. Fix the paths in `image_dir`.")
    notes.regular(regular, "is_reg", "folders with is_reg (a run here has one)")
    return notes.reading("kohya_toml", f"kohya's dataset file {path.name}", path.parent, sources)


def _source(merged: Mapping[str, Any], root: Path, path: Path, notes: ImportLog) -> PictureSource:
    extension, tokens = merged.get("caption_extension"), merged.get("class_tokens")
    table = merged.get("metadata_file")
    found = place(table, path.parent)
    if table and found is None:
        notes.say("captions_unreadable", f"metadata_file {table!r} is not here.")
    prefix, suffix = merged.get("caption_prefix"), merged.get("caption_suffix")
    return PictureSource(
        root=root,
        tree="plain",
        concept=tokens.strip() if isinstance(tokens, str) else concept_of([root.name], root_name="")[0],
        repeats=int(number(merged.get("num_repeats"))),
        below=False,
        extensions=(extension.lower(),) if isinstance(extension, str) and extension.startswith(".") else None,
        captions_from="metadata" if found else None,
        lines="draw" if merged.get("enable_wildcard") is True else "first",
        table=found,
        missing=tokens.strip() if isinstance(tokens, str) else "",
        prefix=f"{prefix} " if isinstance(prefix, str) and prefix else "",
        suffix=f" {suffix}" if isinstance(suffix, str) and suffix else "",
    )


def _wishes(merged: Mapping[str, Any], notes: ImportLog) -> None:
    for key, value in merged.items():
        if key == "subsets":
            continue
        for setting, wanted in (found := _settings_of(key, value)).items():
            notes.wish(setting, wanted, key)
        if not found and (key in _OF_SOURCE or value in (None, False, "", [], *_OFF.get(key, ()))):
            notes.taken(key)
        elif not found:
            notes.untaken(key)
    if "caption_extension" not in merged and "metadata_file" not in merged:
        notes.translated("caption_extension", "not written: there .caption alone is read, here .txt too")


def _settings_of(key: str, value: Any) -> dict[str, Any]:
    """The settings that a key asks for; none where there is no such thing, or its value is none."""
    if isinstance(value, bool):
        flags: dict[str, dict[str, Any]] = {
            "bucket_no_upscale": {"data.upscale": not value},
            "random_crop": {"data.crop": "random" if value else "centre", "data.crops": RANDOM_CROPS if value else 1},
            "alpha_mask": {"data.transparency": "mask" if value else "white"},
        }
        return flags.get(key, {_BOOLEANS[key]: value} if key in _BOOLEANS else {})
    if key in _NUMBERS and number(value, -1.0) >= 0:
        setting, kind = _NUMBERS[key]
        return {setting: kind(number(value))}
    if key == "keep_tokens_separator" and isinstance(value, str):
        return {"data.keep_separator": value}
    return {"data.resolution_px": size} if key == "resolution" and (size := _size(value)) else {}


def _size(value: Any) -> int:
    """One side, or width and height: buckets have about this area here too."""
    sides = value if isinstance(value, list) else [value]
    if len(sides) not in (1, 2) or any(number(side, 0.0) < 64 for side in sides):
        return 0
    return round(math.sqrt(number(sides[0]) * number(sides[-1])))


# ---- LoRA_Easy_Training_Scripts ----

EASY_PARTS = ("args", "dataset_args")


def is_easy(plain: Any) -> bool:
    """Whether it is such a file: its own table of the mode, or two of its tables of arguments."""
    if not isinstance(plain, Mapping):
        return False
    tables = sum(
        str(key).endswith("_args") and isinstance(value, Mapping) and any(part in value for part in EASY_PARTS)
        for key, value in plain.items()
    )
    return tables >= 2 or (tables >= 1 and ("train_mode" in plain or "subsets" in plain))


def easy_arguments(plain: Mapping[str, Any], part: str) -> dict[str, Any]:
    """All that its tables give the scripts as flags (`args`), or write into the dataset file (`dataset_args`)."""
    found: dict[str, Any] = {}
    for key, value in plain.items():
        if str(key).endswith("_args"):
            found |= mapping(mapping(value).get(part))
    return found


def easy_as_dataset(plain: Mapping[str, Any]) -> dict[str, Any]:
    """Its subsets as kohya's dataset file has them."""
    return {"general": easy_arguments(plain, "dataset_args"), "datasets": [{"subsets": plain.get("subsets") or []}]}
