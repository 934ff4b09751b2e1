"""A scanned folder as HTML: a line, what to look at, and thumbnails with captions in which words are coloured."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from lib_pivotal.data.captions import WordFinder, split_tags
from lib_pivotal.data.records import Dataset, Picture
from lib_pivotal.data.tags import prune, same_tag
from lib_pivotal.runs.proposal import WordRow
from lib_pivotal.ui.charts import COLOURS
from lib_pivotal.ui.thumbs import thumbnail

PAGE = 24
THUMB_PX = 176
ALL = "all pictures"
SIGNS = {"error": "✕", "warning": "!", "info": "i"}

Finding = tuple[str, str, tuple[str, ...]]
"""Level, text, and the pictures that it is about."""


def summary(dataset: Dataset, words: int, findings: int) -> str:
    """One line: how much there is."""
    things = "nothing to look at" if not findings else f"{findings} thing{'s' if findings != 1 else ''} to look at"
    pictures = f"{len(dataset)} picture{'s' if len(dataset) != 1 else ''}"
    count = f"{words} word{'s' if words != 1 else ''}"
    return f'<div class="pivotal-summary"><b>{pictures}</b> · <b>{count}</b> · {things}</div>'


def problems_list(findings: Sequence[Finding]) -> str:
    """Each with what to do; where pictures are meant, a button that shows them."""
    if not findings:
        return ""
    items = []
    for number, (level, text, keys) in enumerate(findings):
        button = (
            f'<button type="button" class="pivotal-mini" data-show="{number}">show {len(keys)}</button>' if keys else ""
        )
        items.append(f'<li class="{level}"><i>{SIGNS[level]}</i><span>{escape(text)}</span>{button}</li>')
    return f'<ul class="pivotal-problems">{"".join(items)}</ul>'


def matching(dataset: Dataset, query: str, findings: Sequence[Finding]) -> list[Picture]:
    """Pictures of a filter: `problem 2`, or text that name or caption hold (several, by commas: all of them)."""
    query = query.strip()
    if query.startswith("problem "):
        number = query.removeprefix("problem ").strip()
        keys = set(findings[int(number) - 1][2]) if number.isdigit() and 0 < int(number) <= len(findings) else set()
        return [picture for picture in dataset.pictures if picture.key in keys]
    wanted = [part.strip().lower() for part in query.split(",") if part.strip()]
    return [p for p in dataset.pictures if all(part in p.caption.lower() or part in p.key.lower() for part in wanted)]


def gallery(pictures: Sequence[Picture], *, page: int, rows: Sequence[WordRow]) -> str:
    """One page of thumbnails; `rows` colour their words and strike out what they absorb."""
    if not pictures:
        return '<div class="pivotal-empty">No picture matches.</div>'
    shown = pictures[page * PAGE : (page + 1) * PAGE]
    cells = "".join(_cell(picture, rows) for picture in shown)
    last = (len(pictures) - 1) // PAGE
    return f'<div class="pivotal-gallery">{cells}</div>{_pager(page, last, len(pictures))}'


def _cell(picture: Picture, rows: Sequence[WordRow]) -> str:
    uri = thumbnail(picture.path, THUMB_PX)
    image = f'<img src="{uri}" alt="{escape(picture.key)}" data-zoom="1" loading="lazy">' if uri else "<i></i>"
    repeats = f" · ×{picture.repeats:g}" if picture.repeats != 1 else ""
    mask = " · mask" if picture.mask_path else ""
    size = f"{picture.width_px}×{picture.height_px}"
    key = escape(picture.key)
    tool = (
        f'<button type="button" class="pivotal-mini" data-caption="{key}">caption</button> '
        f'<button type="button" class="pivotal-mini" data-paint="{key}">mask</button>'
    )
    return (
        f"<figure>{image}<figcaption><b>{escape(picture.path.name)}</b><small>{size}{repeats}{mask} {tool}</small>"
        f"<p>{caption(picture.caption, rows)}</p></figcaption></figure>"
    )


def caption(text: str, rows: Sequence[WordRow]) -> str:
    """Words in their colours; tags that a word takes over struck out."""
    names = [row.word.name for row in rows]
    find = WordFinder(names)
    kept = {same_tag(tag) for tag in split_tags(pruned(text, rows))}
    parts = []
    for tag in split_tags(text):
        words = find(tag)
        if words:
            colour = COLOURS[names.index(words[0]) % len(COLOURS)]
            parts.append(f'<b class="pivotal-word" style="--word:{colour}">{escape(tag)}</b>')
        elif same_tag(tag) not in kept:
            parts.append(f'<s title="taken over by the word">{escape(tag)}</s>')
        else:
            parts.append(escape(tag))
    return ", ".join(parts) or "<em>no caption</em>"


def pruned(text: str, rows: Iterable[WordRow]) -> str:
    """The caption as it is trained: without what its words absorb."""
    for row in rows:
        if row.word.prune:
            text = prune([text], row.word.name, row.absorbed)[0]
    return text


def _pager(page: int, last: int, count: int) -> str:
    if last == 0:
        return f'<div class="pivotal-pager"><span>{count} shown</span></div>'
    first, end = page * PAGE + 1, min((page + 1) * PAGE, count)
    back = _page_button("‹ back", page - 1, disabled=page == 0)
    ahead = _page_button("next ›", page + 1, disabled=page == last)
    return f'<div class="pivotal-pager">{back}<span>{first}-{end} of {count}</span>{ahead}</div>'


def _page_button(label: str, page: int, *, disabled: bool) -> str:
    state = " disabled" if disabled else ""
    return f'<button type="button" class="pivotal-mini" data-page="{page}"{state}>{label}</button>'
