"""The files beside a LoRA that the web UI shows on its card: `NAME.preview.png` and `NAME.json`.

What the web UI v1.10.1 reads (modules/ui_extra_networks.py:647, extensions-builtin/Lora/ui_extra_networks_lora.py:20,
ui_edit_user_metadata.py:48): a preview as NAME.EXT or NAME.preview.EXT, and from NAME.json "description", "activation
text", "preferred weight", "notes". What a user wrote there stays; what we wrote and nobody changed may be renewed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from lib_pivotal.bundle.card import ResultCard, tag_of
from lib_pivotal.errors import BundleError
from lib_pivotal.files import replacing, sentence_of
from lib_pivotal.plain_json import parse_json

PREVIEW_EXTENSIONS = ("png", "jpg", "jpeg", "webp", "gif")
OURS = "pivotal card"
"""Of NAME.json: what we wrote, by key; and the key of our mark in a preview's PNG."""


def preview_of(file: Path) -> Path | None:
    """The preview that the web UI would show; None where there is none."""
    stem = file.with_suffix("")
    names = [f"{stem.name}{middle}.{end}" for end in PREVIEW_EXTENSIONS for middle in ("", ".preview")]
    return next((path for name in names if (path := stem.with_name(name)).is_file()), None)


def write_preview(file: Path, picture: Image.Image) -> Path | None:
    """Write `NAME.preview.png`; None where there is a preview already that is not ours.

    Raises:
        BundleError: it cannot be written.
    """
    target = file.with_name(f"{file.stem}.preview.png")
    there = preview_of(file)
    if there is not None and not (there == target and _is_ours(there)):
        return None
    mark = PngInfo()
    mark.add_text(OURS, file.name)
    try:
        with replacing(target) as temporary:
            picture.save(temporary, format="PNG", pnginfo=mark, optimize=True)
    except OSError as error:
        raise BundleError(sentence_of(error, target)) from error
    return target


def write_user_metadata(file: Path, card: ResultCard) -> Path | None:
    """Write what the web UI's card and dialog show into `NAME.json`; None where nothing is to be changed, or where
    what is there cannot be understood.

    Raises:
        BundleError: it cannot be written.
    """
    target = file.with_suffix(".json")
    try:
        there = _read(target)
    except ValueError:
        return None
    noted = there.get(OURS)
    before = noted if isinstance(noted, dict) else {}
    changed, ours = dict(there), {}
    for key, value in user_values(file, card).items():
        now = there.get(key)
        if now in (None, "", 0, 0.0) or (key in before and before[key] == now):
            changed[key] = ours[key] = value
    if changed | {OURS: ours} == there:
        return None
    try:
        with replacing(target) as temporary:
            text = json.dumps({**changed, OURS: ours}, indent=4, ensure_ascii=False)
            temporary.write_text(text, encoding="utf-8")
    except OSError as error:
        raise BundleError(sentence_of(error, target)) from error
    return target


def user_values(file: Path, card: ResultCard) -> dict[str, Any]:
    """The web UI's keys of a card. One embedding is the activation text; of several the user chooses, so they stand in
    the notes. A preferred weight is only one number: it is written where U-Net and text encoder agree."""
    values: dict[str, Any] = {"description": card.description or _described(card), "notes": _notes(file, card)}
    if len(card.embeddings) == 1:
        values["activation text"] = card.embeddings[0].name
    weights = set(card.weights.values())
    if len(weights) == 1:
        values["preferred weight"] = weights.pop()
    return {key: value for key, value in values.items() if value}


def _described(card: ResultCard) -> str:
    return ", ".join(f"{one.name}: {one.init_text}" if one.init_text else one.name for one in card.embeddings)


def _notes(file: Path, card: ResultCard) -> str:
    lines = []
    if len(card.embeddings) > 1:
        lines.append(f"Embeddings: {', '.join(one.name for one in card.embeddings)}")
    lines += [f"{one.name} was pruned of: {', '.join(one.pruned_tags)}" for one in card.embeddings if one.pruned_tags]
    if card.weights or card.cfg is not None:
        cfg = "" if card.cfg is None else f", CFG {card.cfg:g}"
        lines.append(f"Recommended: {tag_of(file.stem, card.weights)}{cfg}")
    lines += [f"Sampled: {card.prompt_of(one.prompt, file.stem)}" for one in card.prompts[:4]]
    if card.licence:
        lines.append(f"Licence: {card.licence}")
    return "\n".join(lines)


def _read(path: Path) -> dict[str, Any]:
    """Empty where there is none. Raises ValueError where it is no table."""
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, RecursionError) as error:
        raise ValueError(str(error)) from error
    if not isinstance(found, Mapping):
        raise ValueError("no table")
    return dict(found)


def _is_ours(path: Path) -> bool:
    try:
        with Image.open(path) as picture:
            return OURS in picture.info
    except (OSError, ValueError):
        return False
