"""OneTrainer's concepts: a json list, or the `concepts` of a whole configuration.

https://github.com/Nerogar/OneTrainer/blob/23df383/modules/util/config/ConceptConfig.py; a picture's own file has
captions one a line, of which one is drawn.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_pivotal.data.captions import read_text
from lib_pivotal.data.folders import Folder
from lib_pivotal.data.sources.source import PictureSource, SourceReading
from lib_pivotal.errors import DataError
from lib_pivotal.importing.import_log import LOSS_WEIGHT, ImportLog, mapping, number, place

USUAL: Mapping[str, Any] = {
    "data.flip": False,
    "data.crop": "random",
    "data.crops": 1,
    "data.shuffle_tags": False,
    "data.keep_first": 1,
    "data.tag_dropout": 0.0,
    "data.tag_dropout_mode": "each",
    "data.tag_dropout_classes": (),
    LOSS_WEIGHT: 1.0,
}
"""What a concept has that says nothing where others do (ConceptConfig.py, `default_values`)."""
_TAKEN = frozenset(
    "path name enabled type include_subdirectories repeats balancing balancing_strategy seed validation_concept "
    "concept_stats __version".split()
)
_MODES = {"FULL": "all", "RANDOM": "each", "RANDOM WEIGHTED": "rising"}
_OF_DROPOUT = frozenset(
    "tag_dropout_enable tag_dropout_mode tag_dropout_probability tag_dropout_special_tags_mode "
    "tag_dropout_special_tags tag_dropout_special_tags_regex".split()
)


def is_onetrainer(plain: Any) -> bool:
    """Whether it is OneTrainer's list of concepts, or a configuration that holds one."""
    concepts = plain.get("concepts") if isinstance(plain, Mapping) else plain
    return (
        isinstance(concepts, list)
        and bool(concepts)
        and all(isinstance(one, Mapping) and isinstance(one.get("path"), str) for one in concepts)
        and any(key in concepts[0] for key in ("include_subdirectories", "text", "image", "enabled"))
    )


def read_onetrainer(plain: Any, path: Path) -> SourceReading:
    """The folders of its concepts, with what maps to a run's settings.

    Raises:
        DataError: none of its folders is there.
    """
    notes = ImportLog(path.name, USUAL)
    sources: list[PictureSource] = []
    prior: list[Path] = []
    for concept in plain["concepts"] if isinstance(plain, Mapping) else plain:
        kind = str(concept.get("type") or ("VALIDATION" if concept.get("validation_concept") else "STANDARD"))
        root = place(concept["path"], path.parent)
        if concept.get("enabled") is False:
            continue
        if root is None or not root.is_dir():
            notes.say("folder_missing", f"path {concept['path']!r} is no folder here; it is left out.")
        elif kind == "PRIOR_PREDICTION":
            prior.append(root)
        elif kind == "VALIDATION":
            notes.untaken(f"the validation concept {root.name}")
        else:
            notes.source()
            sources.append(_source(concept, root, path, notes))
            _wishes(concept, path.parent, notes)
    if not sources:
        raise DataError(f"{path}: none of its folders with pictures is here. Fix the paths of its concepts.")
    key = "type PRIOR_PREDICTION"
    notes.regular(prior, key, f"concepts of {key} (a run here has one such folder)")
    if len(prior) == 1:
        notes.whole("regularisation.target", "prior", key)
    return notes.reading("onetrainer", f"OneTrainer's concepts {path.name}", path.parent, sources)


def _source(concept: Mapping[str, Any], root: Path, path: Path, notes: ImportLog) -> PictureSource:
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
        repeats = round(repeats / max(1, len(Folder(root, below=below).pictures())), 3)
    name = concept.get("name")
    return PictureSource(
        root=root,
        tree="plain",
        concept=name.strip() if isinstance(name, str) and name.strip() else root.name,
        repeats=repeats,
        below=below,
        extensions=(".txt",),
        captions_from="stem" if chosen == "filename" else "files",
        lines="draw",
        texts=texts,
        missing="",
    )


def _wishes(concept: Mapping[str, Any], base: Path, notes: ImportLog) -> None:
    image, text = mapping(concept.get("image")), mapping(concept.get("text"))
    _image_keys(image, max(1, int(number(concept.get("image_variations")))), notes)
    _text_keys(text, notes)
    _dropout(text, base, notes)
    notes.wish(LOSS_WEIGHT, number(concept.get("loss_weight")), "loss_weight")
    for key in concept:
        if key in _TAKEN:
            notes.taken(key)
        elif key == "image_variations":
            notes.translated(key, "as many cuts of a picture, data.crops")
        elif key == "text_variations":
            notes.translated(key, "each sample has its own caption")
        elif key not in ("image", "text", "loss_weight"):
            notes.untaken(key)


def _image_keys(image: Mapping[str, Any], variations: int, notes: ImportLog) -> None:
    """Mirroring and cuts; what else changes pictures is not here."""
    jitter = image.get("enable_crop_jitter", True) is not False
    notes.wish("data.crop", "random" if jitter else "centre", "image.enable_crop_jitter")
    notes.wish("data.crops", variations if jitter else 1, "image_variations")
    notes.wish("data.flip", image.get("enable_random_flip") is True, "image.enable_random_flip")
    for key, value in image.items():
        if key in ("enable_crop_jitter", "enable_random_flip"):
            continue
        if key.startswith("enable_") and value is True:
            notes.untaken(f"image.{key}")
        else:
            notes.taken("image (what is off)")


def _text_keys(text: Mapping[str, Any], notes: ImportLog) -> None:
    shuffled, drops = text.get("enable_tag_shuffling") is True, text.get("tag_dropout_enable") is True
    notes.wish("data.shuffle_tags", shuffled, "text.enable_tag_shuffling")
    if shuffled or drops:
        notes.wish("data.keep_first", int(number(text.get("keep_tags_count"))), "text.keep_tags_count")
    for key, value in text.items():
        if key in ("enable_tag_shuffling", *_OF_DROPOUT) or (key == "keep_tags_count" and (shuffled or drops)):
            continue
        off = key.startswith("caps_randomize") and text.get("caps_randomize_enable") is not True
        if off or key in ("prompt_source", "prompt_path", "keep_tags_count") or value in (",", ", "):
            notes.taken(f"text.{key}")
        else:
            notes.untaken(f"text.{key}")


def _dropout(text: Mapping[str, Any], base: Path, notes: ImportLog) -> None:
    """OneTrainer's dropout of tags, of which some are special: kept for certain, or the only ones that drop."""
    chance = min(1.0, number(text.get("tag_dropout_probability"), 0.0))
    if text.get("tag_dropout_enable") is not True or chance == 0:
        notes.wish("data.tag_dropout", 0.0, "text.tag_dropout_enable")
        return
    key = "text.tag_dropout_probability"
    notes.wish("data.tag_dropout_mode", _MODES.get(str(text.get("tag_dropout_mode", "FULL")), "each"), key)
    kind = str(text.get("tag_dropout_special_tags_mode", "NONE"))
    special = _special_tags(text, base, notes) if kind in ("WHITELIST", "BLACKLIST") else ""
    white = kind == "WHITELIST"
    notes.wish("data.tag_dropout", chance if white or not special else 0.0, key)
    if special:
        notes.wish("data.tag_dropout_classes", (f"/{special}/ = {0 if white else chance:g}",), f"text.{_SPECIAL}")


_SPECIAL = "tag_dropout_special_tags"


def _special_tags(text: Mapping[str, Any], base: Path, notes: ImportLog) -> str:
    """A regular expression for them; "" where there is none."""
    written = str(text.get(_SPECIAL, ""))
    if written.endswith((".txt", ".csv")):
        path = place(written, base)
        if path is None or not path.is_file() or path.stat().st_size >= 2**20:
            notes.say("captions_unreadable", f"{_SPECIAL} {written!r} is not here.")
            return ""
        lines = read_text(path)[0].splitlines()
        tags = [line.split(",")[0].strip() if written.endswith(".csv") else line for line in lines]
    else:
        tags = [tag.strip() for tag in written.split(",")]
    plain = text.get("tag_dropout_special_tags_regex") is not True
    found = [re.escape(tag) if plain else tag for tag in tags if tag]
    try:
        joined = f"^\\(*(?:{'|'.join(found)})\\)*$" if found else ""
        re.compile(joined)
    except re.error as error:
        notes.say("setting_unreadable", f"{_SPECIAL} is no regular expression: {error}.")
        return ""
    return joined
