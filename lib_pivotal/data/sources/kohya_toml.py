"""kohya's dataset file: `[general]`, `[[datasets]]`, `[[datasets.subsets]]`.

Keys and what they mean: https://github.com/kohya-ss/sd-scripts/blob/48d368f/library/config_util.py (an inner table wins
over an outer one) and library/train_util.py, `DreamBoothDataset`: folders are read without their sub-folders, of a
caption file only the first line unless wildcards are on, and `class_tokens` is the caption of what has none.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_pivotal.data.sources.plain_files import Notes, labels, mapping, number, place
from lib_pivotal.data.sources.source import Reading, Source
from lib_pivotal.errors import DataError

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
_OF_SOURCE = frozenset(
    "image_dir num_repeats caption_extension class_tokens caption_prefix caption_suffix is_reg metadata_file "
    "subsets cache_info".split()
)


def is_kohya(plain: Any) -> bool:
    """Whether it is kohya's dataset file."""
    return isinstance(plain, Mapping) and isinstance(plain.get("datasets"), list)


def read_kohya(plain: Any, path: Path) -> Reading:
    """The folders of the file, with what maps to a run's settings.

    Raises:
        DataError: none of its folders is there.
    """
    notes = Notes(path.name)
    sources: list[Source] = []
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
            else:
                sources.append(_source(merged, root, path, notes))
                _wishes(merged, notes)
    if not sources:
        raise DataError(f"{path}: none of its folders with pictures is here. Mend the paths in `image_dir`.")
    if len(regular) == 1:
        notes.wish("regularisation.folder", str(regular[0]))
    elif regular:
        notes.untaken(f"{len(regular)} folders with is_reg (a run here has one)")
    settings = notes.settings(len(sources))
    named = labels([source.root for source in sources])
    return Reading(
        "kohya_toml",
        f"kohya's dataset file {path.name}",
        path.parent,
        tuple(replace(source, label=label) for source, label in zip(sources, named, strict=True)),
        settings,
        notes.problems(),
    )


def _source(merged: Mapping[str, Any], root: Path, path: Path, notes: Notes) -> Source:
    extension, tokens = merged.get("caption_extension"), merged.get("class_tokens")
    table = merged.get("metadata_file")
    found = place(table, path.parent)
    if table and found is None:
        notes.say("captions_unreadable", f"metadata_file {table!r} is not here.")
    prefix, suffix = merged.get("caption_prefix"), merged.get("caption_suffix")
    return Source(
        root=root,
        tree="auto" if not isinstance(tokens, str) else "plain",
        concept=tokens.strip() if isinstance(tokens, str) else "",
        repeats=int(number(merged.get("num_repeats"))),
        below=False,
        extensions=(extension.lower(),) if isinstance(extension, str) and extension.startswith(".") else None,
        captions_from="metadata" if found else None,
        lines="draw" if merged.get("enable_wildcard") is True else "first",
        table=found,
        missing=tokens.strip() if isinstance(tokens, str) else None,
        prefix=f"{prefix} " if isinstance(prefix, str) and prefix else "",
        suffix=f" {suffix}" if isinstance(suffix, str) and suffix else "",
    )


def _wishes(merged: Mapping[str, Any], notes: Notes) -> None:
    for key, value in merged.items():
        if key in _OF_SOURCE:
            continue
        if key in _BOOLEANS and isinstance(value, bool):
            notes.wish(_BOOLEANS[key], value)
        elif key in _NUMBERS and number(value, -1.0) >= 0:
            setting, kind = _NUMBERS[key]
            notes.wish(setting, kind(number(value)))
        elif key == "keep_tokens_separator" and isinstance(value, str) and value:
            notes.wish("data.keep_separator", value)
        elif key == "bucket_no_upscale" and isinstance(value, bool):
            notes.wish("data.upscale", not value)
        elif key == "random_crop" and isinstance(value, bool):
            notes.wish("data.crop", "random" if value else "centre")
        elif key == "alpha_mask" and isinstance(value, bool):
            notes.wish("data.transparency", "mask" if value else "white")
        elif key == "resolution" and (size := _size(value)):
            notes.wish("data.resolution_px", size)
        else:
            notes.untaken(key)


def _size(value: Any) -> int:
    """One side, or width and height: buckets have about this area here too."""
    sides = value if isinstance(value, list) else [value]
    if len(sides) not in (1, 2) or any(number(side, 0.0) < 64 for side in sides):
        return 0
    return round(math.sqrt(number(sides[0]) * number(sides[-1])))
