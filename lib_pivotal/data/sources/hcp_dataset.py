"""HCP-Diffusion's dataset yaml: `data: dataset: source: img_root, caption_file, prompt_template, repeat, word_names`.

https://github.com/IrisRainbowNeko/HCP-Diffusion/blob/404f0e8/hcpdiff/data/source/text2img.py and caption_loader.py:
folders are read without their sub-folders; `caption_file` is a json or yaml of captions by name, or a folder that holds
one or caption files. `_base_` files are not followed here: what a whole run says is for importing a run.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from lib_pivotal.data.captions import read_text
from lib_pivotal.data.masks import MASK_FOLDERS
from lib_pivotal.data.sources.plain_files import Notes, labels, mapping, number, place
from lib_pivotal.data.sources.source import Reading, Source
from lib_pivotal.errors import DataError

MOST_TEMPLATES = 200
_REFERENCE = re.compile(r"\$\{([A-Za-z0-9_.]+)\}")
_AREA = re.compile(r"(\d{2,5})\s*\*\s*(\d{2,5})")
_REGULAR = re.compile(r"class|reg", re.IGNORECASE)
_TAKEN = frozenset(
    "_target_ _partial_ img_root repeat caption_file prompt_template att_mask word_names text_transforms "
    "bg_color".split()
)


def is_hcp(plain: Any) -> bool:
    """Whether it says where HCP's pictures are."""
    data = plain.get("data") if isinstance(plain, Mapping) else None
    return isinstance(data, Mapping) and any(mapping(one).get("source") for one in data.values())


def read_hcp(plain: Any, path: Path) -> Reading:
    """The sources of all its datasets, with what maps to a run's settings.

    Raises:
        DataError: none of its folders is there.
    """
    notes = Notes(path.name)
    whole = mapping(plain)
    sources: list[Source] = []
    for name, dataset in mapping(whole.get("data")).items():
        for source in mapping(mapping(dataset).get("source")).values():
            merged = {key: _filled(value, whole) for key, value in mapping(source).items()}
            root = place(merged.get("img_root"), path.parent)
            if root is None or not root.is_dir():
                notes.say("folder_missing", f"img_root {merged.get('img_root')!r} is no folder here; it is left out.")
            elif _REGULAR.search(name) and sources:
                notes.wish("regularisation.folder", str(root))
            else:
                sources.append(_source(merged, root, path, notes))
                _wishes(merged, mapping(dataset), path, notes)
    if not sources:
        raise DataError(f"{path}: none of its folders with pictures is here. Mend the paths in `img_root`.")
    settings = notes.settings(len(sources))
    named = labels([source.root for source in sources])
    return Reading(
        "hcp",
        f"HCP-Diffusion's dataset file {path.name}",
        path.parent,
        tuple(replace(source, label=label) for source, label in zip(sources, named, strict=True)),
        settings,
        notes.problems(),
    )


def _filled(value: Any, whole: Mapping[str, Any]) -> Any:
    """With `${name}` of the same file put in, three deep."""
    for _ in range(3):
        if not isinstance(value, str):
            return {key: _filled(item, whole) for key, item in value.items()} if isinstance(value, dict) else value
        value = _REFERENCE.sub(lambda match: _value(match, whole), value)[:4096]
    return value


def _value(match: re.Match[str], whole: Mapping[str, Any]) -> str:
    found: Any = whole
    for part in match.group(1).split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return str(found) if isinstance(found, str | int | float) else match.group()


def _source(merged: Mapping[str, Any], root: Path, path: Path, notes: Notes) -> Source:
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
    return Source(
        root=root,
        tree="concepts",
        repeats=int(number(merged.get("repeat"))),
        below=False,
        captions_from="metadata" if table is not None else None,
        table=table,
        captions_folder=elsewhere,
    )


def _wishes(merged: Mapping[str, Any], dataset: Mapping[str, Any], path: Path, notes: Notes) -> None:
    if merged.get("prompt_template"):
        template = place(merged["prompt_template"], path.parent)
        if template is not None and template.is_file() and template.stat().st_size < 2**20:
            lines = [line.strip() for line in read_text(template)[0].splitlines() if line.strip()]
            notes.wish("data.templates", tuple(dict.fromkeys(lines))[:MOST_TEMPLATES])
        else:
            notes.say("template_missing", f"prompt_template {merged['prompt_template']!r} is not here.")
    names = mapping(merged.get("word_names"))
    if lists := tuple(f"{key} = {value}" for key, value in names.items() if isinstance(value, str)):
        notes.wish("data.word_lists", lists)
    if merged.get("att_mask"):
        masks = place(merged["att_mask"], path.parent)
        if masks is not None and masks.name.lower() in MASK_FOLDERS:
            notes.wish("data.masks", "hcp_exact")
        else:
            notes.untaken("att_mask (masks are looked for in `mask` or `att_mask` beside the pictures)")
    for step in mapping(merged.get("text_transforms")).get("transforms") or []:
        target = str(mapping(step).get("_target_", ""))
        if target.endswith("TagShuffle"):
            notes.wish("data.shuffle_tags", True)
        elif target.endswith("TagDropout"):
            notes.wish("data.tag_dropout", min(1.0, number(mapping(step).get("p"), 0.1)))
        elif not target.endswith("TemplateFill"):
            notes.untaken(target.rpartition(".")[2] or "text_transforms")
    for key in merged:
        if key not in _TAKEN:
            notes.untaken(f"source.{key}")
    if area := _AREA.search(str(mapping(dataset.get("bucket")).get("target_area", ""))):
        notes.wish("data.resolution_px", round(math.sqrt(int(area[1]) * int(area[2]))))
    if number(dataset.get("batch_size"), 0.0) >= 1:
        notes.wish("schedule.batch_size", int(number(dataset["batch_size"])))
    if number(dataset.get("loss_weight")) != 1.0:
        notes.untaken("loss_weight")
