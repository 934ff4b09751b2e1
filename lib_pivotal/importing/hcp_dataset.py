"""HCP-Diffusion's dataset yaml: `data: dataset: source: img_root, caption_file, prompt_template, repeat, word_names`.

https://github.com/IrisRainbowNeko/HCP-Diffusion/blob/404f0e8/hcpdiff/data/source/text2img.py, folder_class.py and
caption_loader.py: folders are read without their sub-folders; `caption_file` is a json or yaml of captions by name, or
a folder that holds one or caption files; without it pictures have no caption but their template. `_base_` and `${...}`
are followed as for a whole run, so a file of a run that rests on a dataset file is read, too. Changes of captions:
hcpdiff/utils/caption_tools.py (tags are those between commas, of the caption where `TemplateFill` comes behind).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_pivotal.data.captions import read_text
from lib_pivotal.data.sources.source import PictureSource, SourceReading
from lib_pivotal.errors import ConfigError, DataError
from lib_pivotal.importing.hcp_yaml import resolve
from lib_pivotal.importing.import_log import LOSS_WEIGHT, ImportLog, mapping, number, place

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


def read_hcp(plain: Any, path: Path) -> SourceReading:
    """The sources of all its datasets, with what maps to a run's settings.

    Raises:
        DataError: none of its folders is there, or its bases cannot be read.
    """
    notes = ImportLog(path.name, USUAL)
    whole = _with_bases(plain, path, notes)
    sources: list[PictureSource] = []
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
    notes.regular(regular, "img_root of the class pictures", "folders of class pictures (a run here has one)")
    if others := sorted(_OF_RUNS & whole.keys()):
        notes.translated(", ".join(others), "settings of a run: load this file on the Train page, or `import` it")
    return notes.reading("hcp", f"HCP-Diffusion's dataset file {path.name}", path.parent, sources)


def _with_bases(plain: Any, path: Path, notes: ImportLog) -> Mapping[str, Any]:
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


def _sources(merged: Mapping[str, Any], root: Path, path: Path, notes: ImportLog) -> list[PictureSource]:
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


def _source(merged: Mapping[str, Any], root: Path, path: Path, repeats: float, notes: ImportLog) -> PictureSource:
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
    return PictureSource(
        root=root,
        concept=trained_embedding(word_names(merged)),
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


# ---- what datasets and sources ask of a run, key by key ----

MOST_TEMPLATES = 200
USUAL: Mapping[str, Any] = {
    "data.shuffle_tags": False,
    "data.tag_dropout": 0.0,
    "data.caption_dropout": 0.0,
    "data.masks": "none",
    "data.templates": (),
    LOSS_WEIGHT: 1.0,
    "schedule.batch_size": 1,
}
"""What a source has that does not say it where others do."""
BACKGROUNDS: Mapping[tuple[int, ...], str] = {
    (255, 255, 255): "white",
    (127, 127, 127): "grey",
    (128, 128, 128): "grey",
}
_AREA = re.compile(r"(\d{2,5})\s*\*\s*(\d{2,5})")
_TRAINED = re.compile(r"pt\d*")
_HELD = {
    "img_root": "",
    "repeat": "",
    "caption_file": "",
    "_target_": "",
    "_partial_": "",
    "source": "",
    "bucket": "",
    "cache_latents": "latents are kept anyway",
    "cache_path": "set data.cache_folder",
    "encoder_attention_mask": "text is padded as the web UI does it",
    "return_path": "",
}


def dataset_keys(dataset: Mapping[str, Any], notes: ImportLog) -> None:
    """Batch, weight and sizes of a dataset, for one of its sources."""
    for key, value in dataset.items():
        if key == "batch_size" and number(value, 0.0) >= 1:
            notes.wish("schedule.batch_size", int(number(value)), key)
        elif key == "loss_weight":
            notes.wish(LOSS_WEIGHT, number(value), key)
        elif key in _HELD or value in (None, False):
            notes.taken(key)
        else:
            notes.untaken(key)
    _bucket(mapping(dataset.get("bucket")), notes)


def _bucket(bucket: Mapping[str, Any], notes: ImportLog) -> None:
    for key, value in bucket.items():
        name = f"bucket.{key}"
        if key == "target_area" and (side := _side(value)):
            notes.wish("data.resolution_px", side, name)
        elif key == "target_size" and (size := _square(value)):
            notes.wish("data.resolution_px", size, name)
            notes.wish("data.bucketing", False, name)
        elif key == "step_size" and number(value, 0.0) >= 8:
            notes.wish("data.bucket_step_px", int(number(value)), name)
        elif key in ("num_bucket", "ratio_max"):
            notes.translated(name, "as many sizes as the pictures' shapes need")
        elif key in ("_target_", "_partial_") and "SizeBucket" not in str(value) and "LongEdge" not in str(value):
            notes.taken(name)
        else:
            notes.untaken(name)


def _side(area: Any) -> int:
    """The side of a square of this area, also written as a product."""
    if product := _AREA.search(str(area)):
        return round(math.sqrt(int(product[1]) * int(product[2])))
    return round(math.sqrt(number(area, 0.0)))


def _square(size: Any) -> int:
    sides = size if isinstance(size, list) else [size, size]
    same = len(sides) == 2 and sides[0] == sides[1]
    return int(number(sides[0], 0.0)) if same else 0


def source_keys(merged: Mapping[str, Any], base: Path, notes: ImportLog) -> None:
    """Templates, masks, background and changes of the caption of one source."""
    names = word_names(merged)
    templates = _templates(merged.get("prompt_template"), names, base, notes)
    if templates:
        notes.wish("data.templates", templates, "prompt_template")
    if merged.get("att_mask"):
        notes.wish("data.masks", "hcp_exact", "att_mask")
    _transforms(_steps(merged), notes)
    for key, value in merged.items():
        if key == "bg_color":
            _background(value, notes)
        elif key == "word_names" and names:
            notes.translated("source.word_names", "filled into the templates; one of them is the concept's name")
        elif key in _HELD or value in (None, {}) or (key == "prompt_template" and not templates):
            notes.taken(f"source.{key}")
        elif key not in ("prompt_template", "text_transforms", "tag_transforms", "att_mask"):
            notes.untaken(f"source.{key}")


def _steps(merged: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The changes of a caption, in order."""
    listed = mapping(merged.get("text_transforms", merged.get("tag_transforms"))).get("transforms")
    return [mapping(step) for step in listed] if isinstance(listed, list) else []


def word_names(merged: Mapping[str, Any]) -> dict[str, str]:
    """What stands for the names in templates, as `TemplateFill` has it, to which a source's own list is only handed on;
    of DreamArtist's pairs the positive word."""
    steps = _steps(merged)
    fills = [step.get("word_names") for step in steps if "TemplateFill" in str(step.get("_target_"))]
    pairs = mapping(next((fill for fill in fills if isinstance(fill, Mapping)), merged.get("word_names"))).items()
    firsts = ((key, value[0] if isinstance(value, list) and value else value) for key, value in pairs)
    return {key: value for key, value in firsts if isinstance(value, str)}


def trained_embedding(names: Mapping[str, str]) -> str:
    """The trained word of a source, where its names have one alone: `pt`, `pt1`, ..."""
    found = {value for key, value in names.items() if _TRAINED.fullmatch(key) and value}
    return found.pop() if len(found) == 1 else ""


def _templates(written: Any, names: Mapping[str, str], base: Path, notes: ImportLog) -> tuple[str, ...]:
    """The lines of a file of templates, names of words filled in; none where a line is the caption alone."""
    if not written:
        return ()
    path = place(written, base)
    if path is None or not path.is_file() or path.stat().st_size >= 2**20:
        notes.say("template_missing", f"prompt_template {written!r} is not here.")
        return ()
    lines = (line.strip() for line in read_text(path)[0].strip().split("\n"))
    found = tuple(dict.fromkeys(filled(line, names) for line in lines))[:MOST_TEMPLATES]
    return () if found == ("{caption}",) else found


def filled(line: str, names: Mapping[str, str]) -> str:
    """A template with the names of words in it, `{word}` for the trained one; a name that nobody gave is empty."""
    embedding = trained_embedding(names)

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        if name == "caption" and not names.get(name):
            return "{caption}"
        return "{word}" if embedding and _TRAINED.fullmatch(name) and names.get(name) else names.get(name, "")

    return re.sub(r"\{(\w*)\}", one, line)


def _transforms(steps: list[Mapping[str, Any]], notes: ImportLog) -> None:
    names = [str(step.get("_target_", "")).rpartition(".")[2] for step in steps]
    behind = names.index("TemplateFill") if "TemplateFill" in names else len(names)
    notes.wish("data.shuffle_tags", "TagShuffle" in names, "TagShuffle")
    for index, (step, name) in enumerate(zip(steps, names, strict=True)):
        chance = min(1.0, number(step.get("p"), 0.1))
        if name == "TagDropout":
            notes.wish("data.tag_dropout", chance, name)
        elif name == "TagErase":
            notes.wish("data.caption_dropout", chance, name)
        elif name not in ("TagShuffle", "TemplateFill"):
            notes.untaken(name or "text_transforms")
        if name in ("TagShuffle", "TagDropout") and index > behind:
            notes.translated(name, "there on the filled template, here on the caption before it")


def _background(value: Any, notes: ImportLog) -> None:
    colour = tuple(int(number(one, 0.0)) for one in value[:3]) if isinstance(value, list) else ()
    if colour in BACKGROUNDS:
        notes.wish("data.transparency", BACKGROUNDS[colour], "bg_color")
    else:
        notes.untaken("bg_color (there is white, grey or a random colour)")
