"""OneTrainer's concepts: a json list, or the `concepts` of a whole configuration.

https://github.com/Nerogar/OneTrainer/blob/23df383/modules/util/config/ConceptConfig.py; a picture's own file has
captions one a line, of which one is drawn.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_pivotal.data.captions import read_text
from lib_pivotal.data.pictures import EXTENSIONS
from lib_pivotal.data.sources.plain_files import Notes, labels, mapping, number, place
from lib_pivotal.data.sources.source import Reading, Source
from lib_pivotal.errors import DataError

_TAKEN = frozenset(
    "path name enabled type include_subdirectories text image repeats balancing balancing_strategy seed "
    "validation_concept concept_stats image_variations text_variations __version".split()
)
_IMAGE_TAKEN = ("enable_random_flip", "enable_crop_jitter")


def is_onetrainer(plain: Any) -> bool:
    """Whether it is OneTrainer's list of concepts, or a configuration that holds one."""
    concepts = plain.get("concepts") if isinstance(plain, Mapping) else plain
    return (
        isinstance(concepts, list)
        and bool(concepts)
        and all(isinstance(one, Mapping) and isinstance(one.get("path"), str) for one in concepts)
        and any(key in concepts[0] for key in ("include_subdirectories", "text", "image", "enabled"))
    )


def read_onetrainer(plain: Any, path: Path) -> Reading:
    """The folders of its concepts, with what maps to a run's settings.

    Raises:
        DataError: none of its folders is there.
    """
    notes = Notes(path.name)
    sources: list[Source] = []
    for concept in plain["concepts"] if isinstance(plain, Mapping) else plain:
        kind = str(concept.get("type") or ("VALIDATION" if concept.get("validation_concept") else "STANDARD"))
        root = place(concept["path"], path.parent)
        if concept.get("enabled") is False:
            continue
        if root is None or not root.is_dir():
            notes.say("folder_missing", f"path {concept['path']!r} is no folder here; it is left out.")
        elif kind == "PRIOR_PREDICTION":
            notes.wish("regularisation.folder", str(root))
            notes.wish("regularisation.target", "prior")
        elif kind == "VALIDATION":
            notes.untaken(f"the validation concept {root.name}")
        else:
            sources.append(_source(concept, root, path, notes))
            _wishes(concept, notes)
    if not sources:
        raise DataError(f"{path}: none of its folders with pictures is here. Mend the paths of its concepts.")
    settings = notes.settings(len(sources))
    named = labels([source.root for source in sources])
    return Reading(
        "onetrainer",
        f"OneTrainer's concepts {path.name}",
        path.parent,
        tuple(replace(source, label=label) for source, label in zip(sources, named, strict=True)),
        settings,
        notes.problems(),
    )


def _source(concept: Mapping[str, Any], root: Path, path: Path, notes: Notes) -> Source:
    text = mapping(concept.get("text"))
    chosen = text.get("prompt_source", "sample")
    texts: tuple[str, ...] = ()
    if chosen == "concept":
        found = place(text.get("prompt_path"), path.parent)
        if found is not None and found.is_file() and found.stat().st_size < 2**20:
            texts = tuple(dict.fromkeys(line.strip() for line in read_text(found)[0].splitlines() if line.strip()))
        else:
            notes.say("captions_unreadable", f"prompt_path {text.get('prompt_path')!r} is not here.")
    below = concept.get("include_subdirectories") is True
    repeats = number(concept.get("balancing", concept.get("repeats")))
    if concept.get("balancing_strategy") == "SAMPLES":
        repeats = round(repeats / max(1, _count(root, below)), 3)
    name = concept.get("name")
    return Source(
        root=root,
        tree="plain",
        concept=name.strip() if isinstance(name, str) and name.strip() else root.name,
        repeats=repeats,
        below=below,
        captions_from="name" if chosen == "filename" else None,
        lines="draw",
        texts=texts,
    )


def _count(root: Path, below: bool) -> int:
    """Pictures in a folder."""
    count = 0
    for _, folders, files in os.walk(root):
        count += sum(Path(name).suffix.lower() in EXTENSIONS for name in files)
        if not below:
            folders.clear()
    return count


def _wishes(concept: Mapping[str, Any], notes: Notes) -> None:
    image, text = mapping(concept.get("image")), mapping(concept.get("text"))
    if isinstance(image.get("enable_random_flip"), bool):
        notes.wish("data.flip", image["enable_random_flip"])
    if text.get("enable_tag_shuffling") is True:
        notes.wish("data.shuffle_tags", True)
        notes.wish("data.keep_first", int(number(text.get("keep_tags_count"))))
    elif "enable_tag_shuffling" in text:
        notes.wish("data.shuffle_tags", False)
    if text.get("tag_dropout_enable") is True:
        whole = text.get("tag_dropout_mode", "FULL") == "FULL"
        notes.wish(
            "data.caption_dropout" if whole else "data.tag_dropout", number(text.get("tag_dropout_probability"), 0.0)
        )
    for key, value in image.items():
        if key.startswith("enable_") and value is True and key not in _IMAGE_TAKEN:
            notes.untaken(f"image.{key}")
    if text.get("caps_randomize_enable") is True:
        notes.untaken("text.caps_randomize_enable")
    for key in ("image_variations", "text_variations"):
        if number(concept.get(key)) != 1.0:
            notes.untaken(key)
    if number(concept.get("loss_weight")) != 1.0:
        notes.untaken("loss_weight")
    for key in concept:
        if key not in _TAKEN and key != "loss_weight":
            notes.untaken(key)
