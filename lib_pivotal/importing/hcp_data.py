"""HCP's `data` section: folders, repeats, captions, masks and buckets of the pictures, and the set beside them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_pivotal.data.sources.source import Reading
from lib_pivotal.errors import ConfigError
from lib_pivotal.importing.common import Origin, common_folder, place_of
from lib_pivotal.importing.datasets import take_described
from lib_pivotal.importing.reading import number, read_bytes, whole
from lib_pivotal.importing.report import shown
from lib_pivotal.importing.sheet import Sheet

MOST_TEMPLATES = 100
BACKGROUNDS = {(255, 255, 255): "white", (127, 127, 127): "grey", (128, 128, 128): "grey"}
_HOW_MADE = "how an object is made"


def take_data(sheet: Sheet, plain: Mapping[str, Any], origin: Origin, described: Reading | None = None) -> None:
    """The first dataset is the run's; one that is called after class or regularisation is the set beside. `described`:
    the file as a scan reads it, where its folders are here; then every source of every set is read."""
    data = plain.get("data")
    sets = {name: one for name, one in data.items() if isinstance(one, dict)} if isinstance(data, dict) else {}
    beside = next((name for name in sets if re.search(r"class|reg", name, re.IGNORECASE)), "")
    own = next((name for name in sets if name != beside), "")
    if beside:
        _beside(sheet, f"data.{beside}", sets[beside], origin)
    if described is not None and origin.folder is not None:
        path = origin.folder / origin.name
        take_described(sheet, described, path, "data")
        for name in sets:
            if name != beside:
                _lines_as_read(sheet, f"data.{name}", described, path)
        return
    if own:
        _own(sheet, f"data.{own}", sets[own], origin)
    for name in sets:
        if name not in (own, beside):
            for key in sheet.keys_under(f"data.{name}"):
                sheet.refused(key, "a run has one set of pictures and one beside it; put the folders into one")


def _lines_as_read(sheet: Sheet, key: str, described: Reading, path: Path) -> None:
    """A line for each key of a set that a scan reads itself: what it does not take is not supported."""
    _plumbing(sheet, key)
    for inner in sheet.keys_under(key):
        name = re.sub(r"^source\.[^.]+\.", "source.", inner.removeprefix(f"{key}."))
        kind = str(sheet.get(inner)).rpartition(".")[2]
        if any(one.partition(" (")[0] in (name, kind) for one in described.untaken):
            sheet.refused(inner, "a scan has no such setting")
        elif not sheet.claimed(inner):
            became = f"data.folder = {path}" if inner.endswith(".img_root") else ""
            sheet.note(inner, "taken", "a scan reads HCP's file itself, source by source", became)


def _own(sheet: Sheet, key: str, dataset: Mapping[str, Any], origin: Origin) -> None:
    _take_number(sheet, f"{key}.batch_size", "schedule.batch_size", default=1)
    weight = number(dataset.get("loss_weight"))
    if weight in (None, 1.0):
        sheet.honoured(f"{key}.loss_weight", "the run's own pictures count once, as here")
    else:
        sheet.refused(f"{key}.loss_weight", "the run's own pictures always count once; scale the other set's weight")
    _plumbing(sheet, key)
    _bucket(sheet, f"{key}.bucket", dataset.get("bucket"))
    sources = dataset.get("source")
    named = {name: one for name, one in sources.items() if isinstance(one, dict)} if isinstance(sources, dict) else {}
    _folders(sheet, key, named, origin)
    for index, (name, source) in enumerate(named.items()):
        _source(sheet, f"{key}.source.{name}", source, origin, first=index == 0)


def _beside(sheet: Sheet, key: str, dataset: Mapping[str, Any], origin: Origin) -> None:
    """A set with its own weight in the same step: our regularisation set."""
    _take_number(sheet, f"{key}.batch_size", "regularisation.batch_size", default=1)
    _take_number(sheet, f"{key}.loss_weight", "regularisation.weight", default=1.0)
    sources = dataset.get("source")
    named = {name: one for name, one in sources.items() if isinstance(one, dict)} if isinstance(sources, dict) else {}
    folders = [str(one.get("img_root", "")) for one in named.values()]
    folder = common_folder([one for one in folders if one]) if folders else ""
    folder = place_of(origin, folder) if folder else ""
    for name in named:
        root = f"{key}.source.{name}.img_root"
        if folder:
            sheet.taken(root, "regularisation.folder", folder)
        else:
            sheet.refused(root, "these folders have none in common; put them into one")
    for inner in sheet.keys_under(key):
        if not sheet.claimed(inner):
            if inner.startswith(f"{key}.bucket"):
                sheet.honoured(inner, "brought to the same sizes as the run's own pictures")
            elif inner.endswith((".prompt_template", ".caption_file", ".path")) or ".word_names" in inner:
                sheet.note(inner, "translated", "their captions lie beside the pictures, without the embeddings")
    _plumbing(sheet, key)
    for inner in sheet.keys_under(key):
        if not sheet.claimed(inner):
            sheet.honoured(inner, "as for the run's own pictures")


def _take_number(sheet: Sheet, key: str, path: str, *, default: float) -> None:
    value = number(sheet.get(key))
    if value is None:
        sheet.put(path, default)
        sheet.honoured(key, "HCP's default")
    else:
        sheet.taken(key, path, int(value) if path.endswith("batch_size") and value.is_integer() else value)


def _plumbing(sheet: Sheet, key: str) -> None:
    """Keys of a dataset that say how it is built or cached."""
    told = {
        "cache_latents": "latents are always kept, in memory up to memory.latents_mb",
        "cache_path": "set data.cache_folder to keep latents on disk; they are renewed when pictures change",
        "att_mask_encode": "a mask counts for its pixels alone",
        "encoder_attention_mask": "text is padded as the web UI does it",
        "return_path": _HOW_MADE,
    }
    for inner in sheet.keys_under(key):
        name = inner.rpartition(".")[2]
        if sheet.claimed(inner):
            continue
        if name == "att_mask_encode" and sheet.flag(inner):
            sheet.refused(inner, told[name])
        elif name in told:
            sheet.honoured(inner, told[name])
        elif name in ("_partial_", "_convert_") or (name == "_target_" and inner == f"{key}._target_"):
            sheet.honoured(inner, _HOW_MADE)


def _bucket(sheet: Sheet, key: str, bucket: Any) -> None:
    """Buckets of about an area, or pictures of one fixed size."""
    if not isinstance(bucket, dict):
        return
    kind = str(bucket.get("_target_", ""))
    area = number(bucket.get("target_area"))
    if "FixedBucket" in kind:
        _fixed_size(sheet, key, bucket.get("target_size", 512))
    elif area and area > 0:
        side = round(math.sqrt(area))
        sheet.translated(f"{key}.target_area", "data.resolution_px", side, "the side of a square of this area")
        sheet.put("data.bucketing", True)
        step = whole(bucket.get("step_size")) or 8
        if sheet.has(f"{key}.step_size"):
            sheet.taken(f"{key}.step_size", "data.bucket_step_px", step)
        else:
            sheet.default(f"{key}.step_size", "data.bucket_step_px", step, "HCP's own default")
        sheet.honoured(f"{key}._target_", "aspect-ratio buckets", "data.bucketing = true")
    elif "SizeBucket" in kind:
        sheet.refused(f"{key}._target_", "pictures are brought to data.resolution_px; set it to their size")
    told = {
        "num_bucket": "as many buckets as the pictures' shapes need",
        "ratio_max": "as far as the pictures' shapes go",
        "pre_build_bucket": "buckets are found again for each run",
    }
    for inner in sheet.keys_under(key):
        if not sheet.claimed(inner):
            name = inner.removeprefix(f"{key}.")
            if name in told:
                sheet.note(inner, "ignored" if name == "pre_build_bucket" else "translated", told[name])
            elif name in ("_target_", "_partial_"):
                sheet.honoured(inner, _HOW_MADE)


def _fixed_size(sheet: Sheet, key: str, size: Any) -> None:
    sides = [whole(one) or 0 for one in (size if isinstance(size, list) else [size, size])][:2]
    if len(sides) < 2 or min(sides) < 1:
        sheet.refused(f"{key}.target_size", f"{shown(size)} is no size")
    elif sides[0] == sides[1]:
        sheet.put("data.bucketing", False)
        sheet.translated(f"{key}.target_size", "data.resolution_px", sides[0], "square pictures: buckets are off")
    else:
        side = round(math.sqrt(sides[0] * sides[1]))
        sheet.refused(f"{key}.target_size", f"one size that is no square: buckets of {side} px were taken instead")
        sheet.put("data.resolution_px", side)
    sheet.honoured(f"{key}._target_", "one size for all pictures")


# ---- sources ----


def _folders(sheet: Sheet, key: str, sources: Mapping[str, Mapping[str, Any]], origin: Origin) -> None:
    """All folders under one: our scan reads repeats from `multiply.txt` or folder names."""
    roots = {name: str(one.get("img_root", "")) for name, one in sources.items()}
    folder = common_folder([root for root in roots.values() if root]) if any(roots.values()) else ""
    folder = place_of(origin, folder) if folder else ""
    for name, root in roots.items():
        root_key, repeat_key = f"{key}.source.{name}.img_root", f"{key}.source.{name}.repeat"
        if folder and root:
            many = len(roots) > 1
            why = "the folder around all sources" if many else ""
            if many:
                sheet.translated(root_key, "data.folder", folder, why)
            else:
                sheet.taken(root_key, "data.folder", folder)
        else:
            sheet.refused(root_key, "the sources' folders have none in common; put them into one")
        _repeat(sheet, repeat_key, root)


def _repeat(sheet: Sheet, key: str, root: str) -> None:
    repeat = whole(sheet.get(key))
    if repeat in (None, 1):
        sheet.honoured(key, "once an epoch, as here")
    elif _file_says(Path(root) / "multiply.txt", repeat):
        sheet.honoured(key, "the folder's multiply.txt says the same, and is read here")
    else:
        sheet.refused(
            key, f"repeats stand in the folder: write {repeat} into multiply.txt there, or balance by embeddings"
        )


def _file_says(path: Path, repeat: int | None) -> bool:
    try:
        text = path.read_text(encoding="utf-8")[:40] if path.is_file() else ""
    except (OSError, ValueError):
        return False
    found = number(text.split("\n")[0].strip())
    return found is not None and round(found) == repeat


def _source(sheet: Sheet, key: str, source: Mapping[str, Any], origin: Origin, *, first: bool) -> None:
    """Captions, masks and background of one source; the run has one set of these, the first source's."""
    if first:
        _transforms(sheet, key, source.get("text_transforms", source.get("tag_transforms")))
        _template(sheet, key, source, origin)
        _mask(sheet, key, source)
    for inner in sheet.keys_under(key):
        if sheet.claimed(inner):
            continue
        name = inner.removeprefix(f"{key}.")
        if name == "bg_color":
            _background(sheet, inner)
        elif name.startswith("caption_file"):
            why = "captions are found beside the pictures: .txt, .caption, .json, or one .json for the folder"
            sheet.note(inner, "translated", why)
        elif name.startswith("word_names"):
            sheet.note(inner, "translated", "names stand in the captions, or in templates as {word}")
        elif name in ("_target_",) or name.endswith(("._target_", "._partial_")):
            sheet.honoured(inner, _HOW_MADE)
        elif not first and name.startswith(("text_transforms", "tag_transforms", "prompt_template", "att_mask")):
            sheet.honoured(inner, "the first source's hold for all")
        elif name.startswith("image_transforms"):
            sheet.refused(inner, "changes of the picture are not read; see data.flip and data.crop")


def _transforms(sheet: Sheet, key: str, transforms: Any) -> None:
    listed = transforms.get("transforms") if isinstance(transforms, dict) else None
    base = next((one for one in ("text_transforms", "tag_transforms") if sheet.keys_under(f"{key}.{one}")), "")
    steps = [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []
    names = [str(one.get("_target_", "")).rpartition(".")[2] for one in steps]
    sheet.default(f"{key}: TagShuffle", "data.shuffle_tags", "TagShuffle" in names, "tags keep their order without it")
    for index, (step, name) in enumerate(zip(steps, names, strict=True)):
        inner = f"{key}.{base}.transforms.{index}"
        chance = number(step.get("p"))
        chance = 0.1 if chance is None else chance
        if name == "TagShuffle":
            sheet.translated(f"{inner}._target_", "data.shuffle_tags", True, "tags are shuffled")
        elif name in ("TagDropout", "TagErase"):
            path = "data.tag_dropout" if name == "TagDropout" else "data.caption_dropout"
            fault = sheet.put(path, chance)
            fate = f"{path} = {chance:g}"
            sheet.note(f"{inner}._target_", "translated", fault or "embeddings are never dropped here", fate)
            sheet.note(f"{inner}.p", "not supported" if fault else "taken", fault, fate)
        elif name == "TemplateFill":
            sheet.honoured(f"{inner}._target_", "templates are filled")
        else:
            for one in sheet.keys_under(inner):
                sheet.refused(one, f"{name or 'this step'} is not here")
        for one in sheet.keys_under(f"{inner}.word_names"):
            sheet.note(one, "translated", "names stand in the captions, or in templates as {word}")


def _template(sheet: Sheet, key: str, source: Mapping[str, Any], origin: Origin) -> None:
    """The lines of the template file, with HCP's names for words as ours."""
    written = source.get("prompt_template")
    inner = f"{key}.prompt_template"
    if written is None:
        return
    path = origin.find(written)
    if path is None or path.suffix.lower() != ".txt":
        sheet.refused(inner, "this file is not here; write its lines into data.templates, the embedding as {word}")
        return
    try:
        lines = read_bytes(path).decode("utf-8").splitlines()
    except (ConfigError, UnicodeDecodeError):
        sheet.refused(inner, "this file cannot be read; write its lines into data.templates")
        return
    names = source.get("word_names")
    names = names if isinstance(names, dict) else {}
    found = [_our_template(line, names) for line in lines if line.strip()][:MOST_TEMPLATES]
    templates = list(dict.fromkeys(line for line in found if line))
    if templates in ([], ["{caption}"]):
        sheet.note(inner, "translated", "the caption alone, as without templates")
    else:
        sheet.translated(inner, "data.templates", templates, "its lines, with {word} for the trained embedding")


def _our_template(line: str, names: Mapping[str, Any]) -> str:
    """`a photo of a {pt1} {class}, {caption}` -> `a photo of a {word} dog, {caption}`."""

    def one(match: re.Match[str]) -> str:
        name = match.group(1)
        if name == "caption":
            return "{caption}"
        value = names.get(name)
        if re.fullmatch(r"pt\d*", name):
            return "{word}" if value or name not in names else ""
        return str(value) if isinstance(value, str) else ""

    return " ".join(re.sub(r"\{(\w*)\}", one, line).split()).replace(" ,", ",")


def _mask(sheet: Sheet, key: str, source: Mapping[str, Any]) -> None:
    inner = f"{key}.att_mask"
    if source.get("att_mask"):
        sheet.translated(
            inner,
            "data.masks",
            "hcp_exact",
            "HCP's grey scale, never scaled; put the files into `mask/` beside the pictures",
        )
    else:
        sheet.honoured(inner, "no masks")


def _background(sheet: Sheet, key: str) -> None:
    value = sheet.get(key)
    colour = tuple(whole(one) or 0 for one in value[:3]) if isinstance(value, list) else ()
    ours = BACKGROUNDS.get(colour)  # type: ignore[arg-type]
    if ours:
        sheet.translated(key, "data.transparency", ours, "what stands behind transparent pixels")
    else:
        sheet.refused(key, "behind transparent pixels there is white, grey or a random colour")
