"""HCP-Diffusion's dataset yaml: `data: dataset: source: img_root, caption_file, prompt_template, repeat, word_names`.

https://github.com/IrisRainbowNeko/HCP-Diffusion/blob/404f0e8/hcpdiff/data/source/text2img.py, folder_class.py and
caption_loader.py: folders are read without their sub-folders; `caption_file` is a json or yaml of captions by name, or
a folder that holds one or caption files; without it pictures have no caption but their template. `_base_` and `${...}`
are followed as for a whole run, so a file of a run that rests on a dataset file is read, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_pivotal.data.sources.hcp_keys import USUAL, dataset_keys, source_keys, trained_word, word_names
from lib_pivotal.data.sources.notes import Notes
from lib_pivotal.data.sources.plain_files import labels, mapping, number, place
from lib_pivotal.data.sources.source import Reading, Source
from lib_pivotal.errors import ConfigError, DataError
from lib_pivotal.importing.hcp_yaml import resolve

REGULAR = re.compile(r"class|reg", re.IGNORECASE)
"""A dataset of such a name is the set beside the run's own."""
_OF_RUNS = frozenset(
    "train model lora_unet lora_text_encoder tokenizer_pt plugin_unet plugin_TE unet text_encoder logger exp_dir seed "
    "mixed_precision previewer vis_info infer ckpt_type allow_tf32".split()
)


def is_hcp(plain: Any) -> bool:
    """Whether it says where HCP's pictures are, or rests on a file that may."""
    if not isinstance(plain, Mapping):
        return False
    return "_base_" in plain or any(mapping(one).get("source") for one in mapping(plain.get("data")).values())


def read_hcp(plain: Any, path: Path) -> Reading:
    """The sources of all its datasets, with what maps to a run's settings.

    Raises:
        DataError: none of its folders is there, or its bases cannot be read.
    """
    notes = Notes(path.name, USUAL)
    whole = _with_bases(plain, path, notes)
    sources: list[Source] = []
    regular: list[Path] = []
    for name, dataset in mapping(whole.get("data")).items():
        for source in mapping(mapping(dataset).get("source")).values():
            merged = mapping(source)
            root = place(merged.get("img_root"), path.parent)
            if root is None or not root.is_dir():
                notes.say("folder_missing", f"img_root {merged.get('img_root')!r} is no folder here; it is left out.")
            elif REGULAR.search(name) and any(not REGULAR.search(other) for other in mapping(whole.get("data"))):
                regular.append(root)
            else:
                for one in _sources(merged, root, path, notes):
                    notes.source()
                    sources.append(one)
                    dataset_keys(mapping(dataset), notes)
                    source_keys(merged, path.parent, notes)
    if not sources:
        raise DataError(f"{path}: none of its folders with pictures is here. Fix the paths in `img_root`.")
    if len(regular) == 1:
        notes.whole("regularisation.folder", str(regular[0]), "img_root of the class pictures")
    elif regular:
        notes.untaken(f"{len(regular)} folders of class pictures (a run here has one)")
    if others := sorted(_OF_RUNS & whole.keys()):
        notes.translated(", ".join(others), "settings of a run: load this file on the Train page, or `import` it")
    named = labels([source.root for source in sources])
    settings = notes.settings(named)
    return Reading(
        "hcp",
        f"HCP-Diffusion's dataset file {path.name}",
        path.parent,
        tuple(replace(source, label=label) for source, label in zip(sources, named, strict=True)),
        settings,
        notes.problems(),
        notes.nothing_came_of,
    )


def _with_bases(plain: Any, path: Path, notes: Notes) -> Mapping[str, Any]:
    """The file over the files that it rests on, references filled in."""
    try:
        merged = resolve(mapping(plain), path.absolute().parent, {}, only_below=True)
    except ConfigError as error:
        raise DataError(f"{path}: {error.faults[0].field} {error.faults[0].problem}.") from error
    for name in merged.missing:
        notes.say("base_missing", f"_base_ {name!r} is not here: what stands in it is missing.")
    for remark in merged.remarks:
        notes.say("base_missing", remark)
    return mapping(merged.plain)


def _sources(merged: Mapping[str, Any], root: Path, path: Path, notes: Notes) -> list[Source]:
    """One folder, or with T2IFolderClassSource each of its sub-folders with its own repeats."""
    if not str(merged.get("_target_", "")).endswith("T2IFolderClassSource"):
        return [_source(merged, root, path, number(merged.get("repeat")), notes)]
    notes.translated("_target_", "a folder for each class, with its own repeats")
    repeats, captions = merged.get("repeat"), place(merged.get("caption_file"), path.parent)
    found = []
    for folder in sorted(one for one in root.iterdir() if one.is_dir()):
        count = mapping(repeats).get(folder.name) if isinstance(repeats, Mapping) else repeats
        texts = str(captions / folder.name) if captions is not None and captions.is_dir() else None
        found.append(_source({**merged, "caption_file": texts}, folder, path, number(count), notes))
    return found


def _source(merged: Mapping[str, Any], root: Path, path: Path, repeats: float, notes: Notes) -> Source:
    written = merged.get("caption_file")
    loader = mapping(written)
    found = place(loader.get("path") if loader else written, path.parent)
    table: Path | None = None
    elsewhere: Path | None = None
    if found is not None and found.is_dir():
        tables = [*sorted(found.glob("*.json")), *sorted(found.glob("*.yaml")), *sorted(found.glob("*.yml"))]
        table = tables[0] if tables and "TXT" not in str(loader.get("_target_", "")) else None
        elsewhere = found if table is None and found != root else None
    elif found is not None:
        table = found
    elif written:
        notes.say("captions_unreadable", f"caption_file {str(written)[:80]!r} is not here.")
    masks = place(merged.get("att_mask"), path.parent)
    if merged.get("att_mask") and (masks is None or not masks.is_dir()):
        notes.say("masks_missing", f"att_mask {str(merged['att_mask'])[:80]!r} is no folder here.")
    return Source(
        root=root,
        concept=trained_word(word_names(merged)),
        tree="plain" if str(merged.get("_target_", "")).endswith("T2IFolderClassSource") else "concepts",
        repeats=int(repeats),
        below=False,
        extensions=(".txt",),
        captions_from="metadata" if table is not None else "files" if found is not None else "none",
        lines="join",
        table=table,
        captions_folder=elsewhere,
        masks_folder=masks if masks is not None and masks.is_dir() else None,
        missing="",
    )
