"""A scanned folder as HTML: a line, filters with counts, and thumbnails with their captions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from lib_pivotal.ui.caption_html import CaptionHtml
from lib_pivotal.ui.findings_html import SIGNS
from lib_pivotal.ui.picture_filter import NO_WORD, Facets, Part
from lib_pivotal.ui.thumbs import stamp

if TYPE_CHECKING:
    from lib_pivotal.data.findings import FindingGroup
    from lib_pivotal.data.records import Dataset, Level, Picture
    from lib_pivotal.ui.survey import Survey

PAGE = 48
THUMB_PX = 208
HINT = "Click: only these. Once more: all again. With Alt or Ctrl: all but these."


def summary(dataset: Dataset, words: int, findings: int) -> str:
    """One line: how much there is."""
    things = "no warnings" if not findings else f"{findings} warning{'s' if findings != 1 else ''}"
    pictures = f"{len(dataset):,} picture{'s' if len(dataset) != 1 else ''}".replace(",", " ")
    count = f"{words} embedding{'s' if words != 1 else ''}"
    parts = [(len(dataset.concepts), "concept"), (len({p.image_type for p in dataset.pictures} - {""}), "image type")]
    counts = ", ".join(f"{number} {name}{'s' if number != 1 else ''}" for number, name in parts if number > 1)
    layout = f" · read as {escape(dataset.title)}" if dataset.title else ""
    layout += f": {counts}" if layout and counts else ""
    told = f"<b>{pictures}</b> · <b>{count}</b> · {things}{layout}"
    # another scan has another mark: `pivotal_findings.js` draws anew what hangs on it
    return f'<div class="pivotal-summary" data-scan="{dataset.mark}">{told}</div>'


def filters(facets: Facets, parts: Sequence[Part], groups: Sequence[FindingGroup], *, shown: int, total: int) -> str:
    """Rows of buttons: what the filter holds now, and what it can be narrowed by, each with its number of pictures."""
    chosen = {str(part.__class__(part.kind, part.value)): part for part in parts}
    words = {f"word:{name}": (name, count) for name, count in facets.words.items() if name != NO_WORD}
    if facets.words.get(NO_WORD) or f"word:{NO_WORD}" in chosen:
        words[f"word:{NO_WORD}"] = ("no embedding", facets.words.get(NO_WORD, 0))
    tags = {f"tag:{tag.lower()}": (tag, count) for tag, count in facets.tags.items()}
    here = {f"tag:{part.value}": (part.value, shown) for part in parts if part.kind == "tag"}
    problems = {
        f"problem:{name}": (f"{SIGNS[severity]} {_short(text)}", facets.problems[name])
        for name, severity, text in _named(groups)
        if name in facets.problems and (f"problem:{name}" in chosen or (facets.problems[name] and not name.isdigit()))
    }
    rows = [("embeddings", words), ("tags", {**here, **tags}), ("warnings", problems)]
    body = "".join(_filter_row(title, items, chosen) for title, items in rows if items)
    everything = (
        '<button type="button" class="pivotal-mini" data-filter="" title="Show all pictures">show all</button>'
        if parts
        else ""
    )
    count = f"<b>{shown}</b> of {total} pictures" if parts else f"<b>{total}</b> pictures"
    return f'<div class="pivotal-filters">{body}<div><span></span><div>{count} {everything}</div></div></div>'


def _filter_row(title: str, items: Mapping[str, tuple[str, int]], chosen: Mapping[str, Part]) -> str:
    chips = []
    for text, (label, count) in items.items():
        part = chosen.get(text)
        state = "" if part is None else " without" if part.without else " chosen"
        chips.append(
            f'<button type="button" class="pivotal-chip{state}" data-part="{escape(text)}" title="{HINT}">'
            f"{escape(label)} <small>{count}</small></button>"
        )
    return f'<div><span>{title}</span><div class="pivotal-chips">{"".join(chips)}</div></div>'


def _named(groups: Sequence[FindingGroup]) -> Iterator[tuple[str, Level, str]]:
    """Every group, and behind it each of its findings by number: name in a filter, severity, text."""
    for group in groups:
        yield group.name, group.severity, group.text
        for number, finding in group.findings:
            yield str(number), group.severity, finding.text


def _short(text: str, most: int = 42) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def gallery(survey: Survey, places: Sequence[int], *, page: int) -> str:
    """One page of thumbnails; `places` are the pictures of the filter. The images themselves come by `data-thumb`."""
    if not places:
        return '<div class="pivotal-empty">No picture matches.</div>'
    pictures = survey.dataset.pictures
    writer = CaptionHtml([word.name for word in survey.run.words])
    shown = [pictures[place] for place in places[page * PAGE : (page + 1) * PAGE]]
    cells = "".join(_cell(picture, survey, writer) for picture in shown)
    last = (len(places) - 1) // PAGE
    return f'<div class="pivotal-gallery">{cells}</div>{_pager(page, last, len(places))}'


def _cell(picture: Picture, survey: Survey, writer: CaptionHtml) -> str:
    key, name = escape(picture.key), escape(picture.path.name)
    image = (
        f'<img data-thumb="{key}" data-stamp="{stamp(picture.path)}" data-caption="{key}" alt="{key}" tabindex="0" '
        f'role="button" title="Open {name} and its caption">'
    )
    facts = [f"{picture.width_px}×{picture.height_px}"]
    facts += [f"×{picture.repeats:g}"] if picture.repeats != 1 else []
    facts += ["mask"] if picture.mask_path else []
    tool = f'<button type="button" class="pivotal-mini" data-paint="{key}" title="Paint a mask">mask</button>'
    return (
        f'<figure data-key="{key}">{image}<figcaption><b title="{key}">{name}</b>'
        f"<small><span>{' · '.join(facts)}</span>{tool}</small>"
        f"<p>{caption_of(survey, picture, writer)}</p></figcaption></figure>"
    )


def caption_of(survey: Survey, picture: Picture, writer: CaptionHtml) -> str:
    """A picture's caption with words in colour; what is not trained struck out."""
    named, trained = survey.pair(picture.key)
    return writer.before(named, trained, survey.fates(survey.wording.words_of[picture.key]), written=picture.caption)


def _pager(page: int, last: int, count: int) -> str:
    if last == 0:
        return ""
    first, end = page * PAGE + 1, min((page + 1) * PAGE, count)
    back = _page_button("‹ back", page - 1, disabled=page == 0)
    ahead = _page_button("next ›", page + 1, disabled=page == last)
    numbers = sorted({0, last, *range(max(0, page - 2), min(last, page + 2) + 1)})
    parts, before = [], -1
    for number in numbers:
        if number != before + 1:
            parts.append("<span>…</span>")
        chosen = " chosen" if number == page else ""
        parts.append(_page_button(str(number + 1), number, disabled=False, kind=chosen))
        before = number
    return f'<div class="pivotal-pager">{back}{"".join(parts)}{ahead}<span>{first}-{end} of {count}</span></div>'


def _page_button(label: str, page: int, *, disabled: bool, kind: str = "") -> str:
    state = " disabled" if disabled else ""
    return f'<button type="button" class="pivotal-mini{kind}" data-page="{page}"{state}>{label}</button>'
