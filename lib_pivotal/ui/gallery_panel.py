"""Pictures on the Data page: filters with counts, pages of thumbnails, and the thumbnails as they are needed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.data import findings
from lib_pivotal.plain_json import parse_json
from lib_pivotal.ui import dataset_html, picture_filter
from lib_pivotal.ui.page import Page, Shown, answer, payload, quiet

if TYPE_CHECKING:
    from lib_pivotal.config import Run
    from lib_pivotal.data.findings import FindingGroup
    from lib_pivotal.ui.survey import Survey

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
        dataset = page.desk.dataset(folder or "")
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
    survey = page.desk.survey(run)
    if survey is None:
        return page.shown(filters="", gallery="")
    groups = findings.grouped(page.desk.findings(run))
    problems = keys_by_name(groups)
    parts, places = places_of(survey, query, problems)
    size = dataset_html.PAGE
    wanted = int(number) if (number or "").isdigit() else 0
    shown = min(wanted, max(0, (len(places) - 1) // size))
    page.thumbs.ahead(
        [survey.dataset.pictures[place].path for place in places[(shown + 1) * size : (shown + 2) * size]]
    )
    facets = survey.index.facets(places, problems)
    return page.shown(
        filters=dataset_html.filters(facets, parts, groups, shown=len(places), total=len(survey.dataset)),
        gallery=dataset_html.gallery(survey, places, page=shown),
    )


def keys_by_name(groups: Sequence[FindingGroup]) -> dict[str, tuple[str, ...]]:
    """What `problem:NAME` stands for: a kind's pictures, or by number those of one finding."""
    found = {group.name: group.keys for group in groups}
    found.update({str(number): finding.keys for group in groups for number, finding in group.findings})
    return found


def places_of(survey: Survey, query: str, problems: Mapping[str, Sequence[str]]) -> tuple[Any, list[int]]:
    """The parts of a filter, and the places of its pictures."""
    parts = picture_filter.parse(query or "")
    return parts, survey.index.matching(parts, problems)
