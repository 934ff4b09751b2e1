"""Pictures on the Data page: filters with counts, pages of thumbnails with captions, and thumbnails as needed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.plain_json import parse_json
from lib_pivotal.ui import picture_filter
from lib_pivotal.ui.caption_html import CaptionHtml
from lib_pivotal.ui.page import Page, Shown, answer, payload, quiet
from lib_pivotal.ui.picture_filter import NO_EMBEDDING, Facets, FilterPart
from lib_pivotal.ui.plan_panel import SIGNS
from lib_pivotal.ui.thumbs import stamp

if TYPE_CHECKING:
    from lib_pivotal.config import Run
    from lib_pivotal.data.lint_warnings import WarningGroup
    from lib_pivotal.data.records import Level, Picture
    from lib_pivotal.ui.dataset_analysis import DatasetAnalysis

PAGE = 48
HINT = "Click: only these. Once more: all again. With Alt or Ctrl: all but these."


def filters(
    facets: Facets, parts: Sequence[FilterPart], groups: Sequence[WarningGroup], *, shown: int, total: int
) -> str:
    """Rows of buttons: what the filter holds now, and what it can be narrowed by, each with its number of pictures."""
    chosen = {str(part.__class__(part.kind, part.value)): part for part in parts}
    embeddings = {f"word:{name}": (name, count) for name, count in facets.embeddings.items() if name != NO_EMBEDDING}
    if facets.embeddings.get(NO_EMBEDDING) or f"word:{NO_EMBEDDING}" in chosen:
        embeddings[f"word:{NO_EMBEDDING}"] = ("no embedding", facets.embeddings.get(NO_EMBEDDING, 0))
    tags = {f"tag:{tag.lower()}": (tag, count) for tag, count in facets.tags.items()}
    here = {f"tag:{part.value}": (part.value, shown) for part in parts if part.kind == "tag"}
    problems = {
        f"problem:{name}": (f"{SIGNS[severity]} {_short(text)}", facets.problems[name])
        for name, severity, text in _named(groups)
        if name in facets.problems and (f"problem:{name}" in chosen or (facets.problems[name] and not name.isdigit()))
    }
    rows = [("embeddings", embeddings), ("tags", {**here, **tags}), ("warnings", problems)]
    body = "".join(_filter_row(title, items, chosen) for title, items in rows if items)
    everything = (
        '<button type="button" class="pivotal-mini" data-filter="" title="Show all pictures">show all</button>'
        if parts
        else ""
    )
    count = f"<b>{shown}</b> of {total} pictures" if parts else f"<b>{total}</b> pictures"
    return f'<div class="pivotal-filters">{body}<div><span></span><div>{count} {everything}</div></div></div>'


def _filter_row(title: str, items: Mapping[str, tuple[str, int]], chosen: Mapping[str, FilterPart]) -> str:
    chips = []
    for text, (label, count) in items.items():
        part = chosen.get(text)
        state = "" if part is None else " without" if part.without else " chosen"
        chips.append(
            f'<button type="button" class="pivotal-chip{state}" data-part="{escape(text)}" title="{HINT}">'
            f"{escape(label)} <small>{count}</small></button>"
        )
    return f'<div><span>{title}</span><div class="pivotal-chips">{"".join(chips)}</div></div>'


def _named(groups: Sequence[WarningGroup]) -> Iterator[tuple[str, Level, str]]:
    """Every group, and behind it each of its warnings by number: name in a filter, severity, text."""
    for group in groups:
        yield group.name, group.severity, group.text
        for number, warning in group.warnings:
            yield str(number), group.severity, warning.text


def _short(text: str, most: int = 42) -> str:
    return text if len(text) <= most else text[: most - 1].rstrip() + "…"


def gallery(analysis: DatasetAnalysis, places: Sequence[int], *, page: int) -> str:
    """One page of thumbnails; `places` are the pictures of the filter. The images themselves come by `data-thumb`."""
    if not places:
        return '<div class="pivotal-empty">No picture matches.</div>'
    pictures = analysis.dataset.pictures
    writer = CaptionHtml([embedding.name for embedding in analysis.run.embeddings])
    shown = [pictures[place] for place in places[page * PAGE : (page + 1) * PAGE]]
    cells = "".join(_cell(picture, analysis, writer) for picture in shown)
    last = (len(places) - 1) // PAGE
    return f'<div class="pivotal-gallery">{cells}</div>{_pager(page, last, len(places))}'


def _cell(picture: Picture, analysis: DatasetAnalysis, writer: CaptionHtml) -> str:
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
        f"<p>{caption_of(analysis, picture, writer)}</p></figcaption></figure>"
    )


def caption_of(analysis: DatasetAnalysis, picture: Picture, writer: CaptionHtml) -> str:
    """A picture's caption with embeddings in colour; what is not trained struck out."""
    named, trained = analysis.pair(picture.key)
    return writer.before(
        named, trained, analysis.fates(analysis.wording.embeddings_of[picture.key]), written=picture.caption
    )


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


GALLERY_PARTS = ("filters", "gallery")
MOST_THUMBS = 24
"""So many are sent at once: a page fills from its top."""


def build_gallery_panel(page: Page) -> None:
    """Hidden until a folder is scanned."""
    with gr.Column(elem_classes=["pivotal-section"], visible=False, elem_id="pivotal_pictures") as pictures:
        gr.HTML("<h3>Pictures</h3>", elem_classes=["pivotal-html"])
        page.parts["filter"] = gr.Textbox(
            placeholder="Filter: text, word:NAME, tag:TAG, problem:KIND; separate with commas; a minus in front "
            "excludes",
            show_label=False,
            container=False,
            label="Filter of pictures",
            elem_id="pivotal_gallery_filter",
            max_lines=1,
        )
        page.html("filters")
        page.html("gallery")
    page.parts["pictures"] = pictures
    page.hidden_text("gallery_page", "0")
    page.hidden_button("gallery_show")
    page.hidden_text("thumbs_wanted", "[]")
    page.hidden_button("thumbs_get")
    page.html("thumbs_given", classes=["pivotal-hidden"])


def bind_gallery_panel(page: Page) -> None:
    """Filter, turn pages, send thumbnails."""
    parts, form = page.parts, page.form

    def show(query: str, number: str, *values: Any) -> Shown:
        shown = gallery_shown(page, page.read(values)[0], query, number)
        return {**shown, **page.shown(gallery_show_answered=answer())}

    inputs = [parts["filter"], parts["gallery_page"], *form.components]
    outputs = [*page.named(*GALLERY_PARTS), page.answered("gallery_show")]
    quiet(parts["gallery_show"].click, show, inputs, outputs)

    def thumbs(wanted: str, folder: str) -> str:
        dataset = page.controller.dataset(folder or "")
        try:
            keys = [key for key in parse_json(wanted or "[]") if isinstance(key, str)][:MOST_THUMBS]
        except ValueError:
            keys = []
        if dataset is None:
            return payload({key: "" for key in keys})
        known = [key for key in keys if key in dataset]
        made = page.thumbs.of([dataset[key].path for key in known])
        return payload({**{key: "" for key in keys}, **dict(zip(known, made, strict=True))})

    quiet(parts["thumbs_get"].click, thumbs, [parts["thumbs_wanted"], form["data.folder"]], parts["thumbs_given"])


def gallery_shown(page: Page, run: Run, query: str = "", number: str = "0") -> Shown:
    """Filters and a page of thumbnails; the page after it is made ready."""
    analysis = page.controller.analysis(run)
    if analysis is None:
        return page.shown(filters="", gallery="")
    groups = groups_of(page, run)
    problems = keys_by_name(groups)
    parts, places = places_of(analysis, query, problems)
    size = PAGE
    wanted = int(number) if (number or "").isdigit() else 0
    shown = min(wanted, max(0, (len(places) - 1) // size))
    page.thumbs.ahead(
        [analysis.dataset.pictures[place].path for place in places[(shown + 1) * size : (shown + 2) * size]]
    )
    facets = analysis.index.facets(places, problems)
    return page.shown(
        filters=filters(facets, parts, groups, shown=len(places), total=len(analysis.dataset)),
        gallery=gallery(analysis, places, page=shown),
    )


def groups_of(page: Page, run: Run) -> tuple[WarningGroup, ...]:
    """The warnings of a run, those of a kind together."""
    from lib_pivotal.data.lint_warnings import grouped  # here: the page is built at start-up

    return grouped(page.controller.warnings(run))


def keys_by_name(groups: Sequence[WarningGroup]) -> dict[str, tuple[str, ...]]:
    """What `problem:NAME` stands for: a kind's pictures, or by number those of one warning."""
    found = {group.name: group.keys for group in groups}
    found.update({str(number): warning.keys for group in groups for number, warning in group.warnings})
    return found


def places_of(analysis: DatasetAnalysis, query: str, problems: Mapping[str, Sequence[str]]) -> tuple[Any, list[int]]:
    """The parts of a filter, and the places of its pictures."""
    parts = picture_filter.parse(query or "")
    return parts, analysis.index.matching(parts, problems)
