"""HCP's `tokenizer_pt.train`: names and rates of words; they begin with the files in `emb_dir`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib_pivotal.importing.common import Origin, new_word, vectors_of
from lib_pivotal.importing.reading import leaves, number
from lib_pivotal.importing.sheet import Sheet


def take_words(sheet: Sheet, plain: Mapping[str, Any], origin: Origin, factor: float) -> None:
    """Words with their rates, multiplied by `factor`, and what they begin with."""
    tokenizer = plain.get("tokenizer_pt")
    written = tokenizer.get("train") if isinstance(tokenizer, dict) else None
    items = [item for item in written if isinstance(item, dict)] if isinstance(written, list) else []
    folder = origin.find(sheet.get("tokenizer_pt.emb_dir")) if items else None
    sheet.note("tokenizer_pt.emb_dir", "ignored" if folder is None else "taken", _folder_told(folder, items))
    if not items:
        sheet.honoured("tokenizer_pt.train", "no embeddings are trained")
        return
    rates = [number(item.get("lr")) or 0.0 for item in items]
    common = max(rates) * factor
    if sheet.put("words_common.lr", common):
        sheet.remark(f"The embedding LR {common:g} is out of range; it stays {sheet.read('words_common.lr'):g}.")
    negative = _negative_words(plain)
    words: list[dict[str, Any]] = []
    for place, (item, rate) in enumerate(zip(items, rates, strict=True)):
        index, key = len(words), f"tokenizer_pt.train.{place}"
        if str(item.get("name")) in negative:
            for inner in sheet.keys_under(key):
                sheet.refused(inner, "the negative embedding of DreamArtist has no use here")
            continue
        word, told = new_word(item.get("name", ""), [known["name"] for known in words])
        words.append(word)
        start = _start_of_word(word, str(item.get("name", "")), folder)
        word["lr_factor"] = rate / max(rates) if max(rates) else 1.0
        if told:
            sheet.remark(f"Captions must say {word['name']} where they said {item.get('name')}.")
        sheet.note(
            f"{key}.name",
            "translated" if told or start else "taken",
            "; ".join(filter(None, [told, start])),
            f"words.{index}.name = {word['name']}",
        )
        why = f"× {factor:g} by scale_lr_pt" if factor != 1 else ""
        share = f", words.{index}.lr_factor = {word['lr_factor']:g}" if word["lr_factor"] != 1 else ""
        sheet.note(f"{key}.lr", "translated" if why else "taken", why, f"words_common.lr = {common:g}{share}")
    sheet.put("words", words)


def _negative_words(plain: Mapping[str, Any]) -> set[str]:
    """The second of each pair in `word_names: {pt1: [word, negative word]}`."""
    names = (value for key, value in leaves(plain.get("data", {})) if ".word_names." in key)
    return {str(value[1]) for value in names if isinstance(value, list) and len(value) == 2 and value[1]}


def _folder_told(folder: Path | None, items: list[Any]) -> str:
    if not items:
        return "no embeddings are trained"
    return (
        f"embeddings are looked for in {folder.name}"
        if folder
        else ("this folder is not here; embeddings start from their init text")
    )


def _start_of_word(word: dict[str, Any], name: str, folder: Path | None) -> str:
    """Begin with the file that HCP would begin with, where it is here; returns what was done."""
    path = folder / f"{name}.pt" if folder and re.fullmatch(r"[\w. -]{1,80}", name) else None
    if path is None or not path.is_file():
        return f"its file is not here; set its init text and number of vectors ({word['vectors']} now)"
    count = vectors_of(path)
    if not count:
        return f"{path.name} cannot be read as an embedding; set its init text"
    word["init_file"], word["vectors"] = str(path), count
    return f"begins with {path.name}, {count} vectors"
