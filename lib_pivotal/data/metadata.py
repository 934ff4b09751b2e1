"""What metadata says of one picture: captions, the fields that they are made of, and its kind.

Read are the shapes that people's tools write: plain text or a list of texts (HCP-Diffusion's json), kohya's
`{"caption": ..., "tags": ...}`, waifuc's and kgrid's `{"tags": {"tag": score}, "characters": [...], "type": ...}`, and
the `text` of HuggingFace's tables. Fields are put into words as kgrid's pipeline does:
https://github.com/cyber-meow/anime_screenshot_pipeline/blob/c9e3fb8/anime2sd/captioning/captioning.py, `to_text_*`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from lib_pivotal.data.captions import with_commas

LONGEST_CAPTION = 20_000
"""Letters; what is longer is no caption."""
MOST_ALTERNATIVES = 100

_CAPTION_KEYS = ("caption", "text", "prompt", "description")
_TAG_KEYS = ("processed_tags", "tags", "tag_string")
_NOBODY = ("", "unknown", "anonymous", "none")
_UNSAFE = re.compile(r"(?<!\\)([()\[\]])")


@dataclass(frozen=True)
class Entry:
    """One picture's metadata; `captions` are alternatives, `fields` as in `records.Picture`."""

    captions: tuple[str, ...] = ()
    fields: tuple[tuple[str, str], ...] = ()
    image_type: str = ""

    def __bool__(self) -> bool:
        return bool(self.captions or self.fields or self.image_type)


NOTHING = Entry()


def entry_of(plain: Any) -> Entry:
    """What a value of metadata says; nothing where it is of no shape known. Raises nothing."""
    if isinstance(plain, str):
        return Entry(_captions([plain]))
    if isinstance(plain, list | tuple):
        return Entry(_captions(plain))
    if not isinstance(plain, Mapping):
        return NOTHING
    given: list[Any] = []
    for key in _CAPTION_KEYS:
        value = plain.get(key)
        given += value if isinstance(value, list | tuple) else [value]
    captions = _captions(given)
    tags = next((plain[key] for key in _TAG_KEYS if plain.get(key)), None)
    text = _tag_text(tags, spaces=plain.get("tag_string") is tags)
    if text and not captions:
        captions = (text,)
    elif text and isinstance(tags, str):  # kohya's: the sentence, and the tags behind it (train_util.py, 48d368f)
        captions = tuple(f"{caption}, {text}" for caption in captions)
    kind = plain.get("type")
    return Entry(captions, _fields(plain, text), kind.strip() if isinstance(kind, str) else "")


def _captions(items: Iterable[Any]) -> tuple[str, ...]:
    texts = (clean(item) for item in items if isinstance(item, str))
    return tuple(dict.fromkeys(text for text in texts if text))[:MOST_ALTERNATIVES]


def clean(text: str) -> str:
    """A caption in one line; empty if it is too long to be one."""
    if len(text) > LONGEST_CAPTION:
        return ""
    lines = (line.strip().strip(",").strip() for line in with_commas(text.replace("\0", "")).splitlines())
    return ", ".join(line for line in lines if line).encode("utf-8", "replace").decode("utf-8")


def _tag_text(tags: Any, *, spaces: bool = False) -> str:
    """Tags as a caption: text as it is, names of waifuc's and taggers' with blanks, and brackets that are letters."""
    if isinstance(tags, str):
        return clean(", ".join(map(_plain_tag, tags.split())) if spaces else tags)
    if isinstance(tags, Mapping):
        scores = {str(tag): score for tag, score in tags.items() if isinstance(score, int | float)}
        tags = sorted(scores, key=lambda tag: -scores[tag]) if len(scores) == len(tags) else list(tags)
    if not isinstance(tags, list | tuple):
        return ""
    return clean(", ".join(_plain_tag(tag) for tag in tags if isinstance(tag, str) and tag not in _NOBODY))


def _plain_tag(tag: str) -> str:
    spaced = tag if len(tag) <= 3 else tag.replace("_", " ")  # `^_^` is a face
    return _UNSAFE.sub(r"\\\1", spaced).strip()


def _fields(plain: Mapping[str, Any], tags: str) -> tuple[tuple[str, str], ...]:
    """kgrid's fields, in its order; none unless metadata keeps the characters apart from the tags."""
    if not any(key in plain for key in ("characters", "copyright", "artist", "n_people", "npeople")):
        return ()
    people = plain.get("npeople", plain.get("n_people"))
    copyrights, artists = _names(plain.get("copyright")), _names(plain.get("artist"))
    crop = plain.get("crop")
    texts = {
        "npeople": f"{people}{'person' if people == 1 else 'people'}" if type(people) is int else "",
        "characters": ", ".join(_character(name) for name in _names(plain.get("characters"))),
        "copyright": f"from {', '.join(copyrights)}" if copyrights else "",
        "type": plain["type"].strip() if isinstance(plain.get("type"), str) else "",
        "artist": f"by {', '.join(artists)}" if artists else "",
        "rating": "explicit" if plain.get("rating") in ("explicit", "e") else "",
        "crop": _crop(crop) if crop else "",
        "tags": tags,
    }
    return tuple((name, clean(text)) for name, text in texts.items() if text)


def _crop(crop: Any) -> str:
    kind = crop.get("type") if isinstance(crop, Mapping) else None
    return f"{kind} cropped" if isinstance(kind, str) else "cropped"


def _names(value: Any) -> list[str]:
    items = value if isinstance(value, list | tuple) else list(value) if isinstance(value, Mapping) else [value]
    return [item.strip() for item in items if isinstance(item, str) and item.strip().lower() not in _NOBODY]


def _character(text: str) -> str:
    """kgrid's `name|appearance|outfit+outfit|...` in words: `name appearance, outfit outfit`; `none` is left out."""
    name, *others = text.split("|")
    appearance, *rest = [part if part.lower() != "none" else "" for part in others] or [""]
    if appearance.startswith("_"):  # it belongs to the word's own name
        name = "_".join(f"{name}{appearance}".split())
    elif appearance:
        name = f"{name} {appearance}"
    return ", ".join(filter(None, [name, *(part.replace("+", " ") for part in rest)]))
