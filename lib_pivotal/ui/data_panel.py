"""The Data page: folder, words, tags, what to look at, and the pictures."""

from __future__ import annotations

from dataclasses import replace
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.config import Run, WordConfig
from lib_pivotal.errors import PivotalError
from lib_pivotal.later import later
from lib_pivotal.runs.presets import preset
from lib_pivotal.ui.page import NO_WORDS, Page, error_html, note, quiet, unchanged

if TYPE_CHECKING:
    from lib_pivotal.runs import proposal
    from lib_pivotal.ui import dataset_html, words_html
else:
    proposal = later("lib_pivotal.runs.proposal")
    dataset_html = later("lib_pivotal.ui.dataset_html")
    words_html = later("lib_pivotal.ui.words_html")

EMPTY = (
    '<div class="pivotal-empty">Give a folder of pictures. A caption is a text file of the same name; '
    "sub-folders and kohya's <code>10_name</code> folders are read as well.</div>"
)


def build_data_panel(page: Page) -> None:
    """Make the elements; `bind_data_panel` makes them act."""
    with gr.Row(elem_id="pivotal_data_top", elem_classes=["pivotal-top"]):
        page.form.add(
            "data.folder",
            scale=8,
            placeholder="Folder on the computer where the web UI runs",
            show_label=False,
            container=False,
        )
        page.parts["scan"] = gr.Button("Scan", variant="primary", scale=1, min_width=120, elem_id="pivotal_scan")
    page.html("summary", EMPTY)
    page.html("findings")
    with gr.Column(elem_classes=["pivotal-section", "pivotal-group"]):
        gr.HTML("<h3>Words</h3>", elem_classes=["pivotal-html"])
        page.html("words_table", NO_WORDS)
        with gr.Row(elem_classes=["pivotal-tools"]):
            page.parts["add_word"] = gr.Button(
                "Add a word", size="sm", elem_id="pivotal_add_word", min_width=120, scale=0
            )
            gr.HTML('<div class="pivotal-help"></div>', elem_classes=["pivotal-html"])
        page.form.add("words", elem_classes=["pivotal-hidden"], show_label=False)
    with gr.Accordion("Tags: what each word takes over", open=False, elem_id="pivotal_tags", visible=False) as tags:
        page.html("cards")
    page.parts["tags"] = tags
    with gr.Column(elem_classes=["pivotal-section"], visible=False) as pictures:
        gr.HTML("<h3>Pictures</h3>", elem_classes=["pivotal-html"])
        with gr.Row(elem_classes=["pivotal-tools"]):
            page.parts["filter"] = gr.Textbox(
                placeholder="Filter by word, tag or file name; several by commas",
                show_label=False,
                container=False,
                label="Filter of pictures",
                elem_id="pivotal_gallery_filter",
                scale=3,
                max_lines=1,
            )
            page.html("filters")
        page.html("gallery")
    page.parts["pictures"] = pictures
    page.hidden_text("gallery_page", "0")
    page.hidden_button("gallery_show")


def bind_data_panel(page: Page) -> None:
    """Scan, add a word, filter and turn pages."""
    parts, form = page.parts, page.form
    names = ("summary", "findings", "words_table", "tags", "cards", "pictures", "filters", "gallery")
    outputs = [*form.components, parts["preset"], parts["preset_help"], *(parts[name] for name in names)]

    def scan(*values: Any) -> list[Any]:
        return _scanned(page, page.read(values)[0])

    for event in (parts["scan"].click, form["data.folder"].submit):
        event(
            fn=scan, inputs=form.components, outputs=outputs, show_progress="minimal", queue=False, api_name=False
        ).then(fn=None, _js="() => { document.querySelector('#pivotal_check')?.click(); }", queue=False)

    def add_word(*values: Any) -> list[Any]:
        run = page.read(values)[0]
        run = replace(run, words=(*run.words, WordConfig(name=_free_name(run))))
        rows = page.desk.rows(run)
        return [words_html.words_json(run.words), words_html.words_table(rows, proposal.draws_of(run, rows))]

    quiet(parts["add_word"].click, add_word, form.components, [form["words"], parts["words_table"]])

    def show(query: str, number: str, *values: Any) -> str:
        return gallery_of(page, page.read(values)[0], query, number)

    inputs = [parts["filter"], parts["gallery_page"], *form.components]
    quiet(parts["gallery_show"].click, show, inputs, parts["gallery"])
    quiet(
        parts["filter"].change,
        lambda query, *values: show(query, "0", *values),
        [parts["filter"], *form.components],
        parts["gallery"],
    )


def _scanned(page: Page, run: Run) -> list[Any]:
    """Values of all outputs after a scan; where it fails, only the reason changes."""
    count = len(page.form.components)
    try:
        run, key, remarks = page.desk.propose(run)
    except PivotalError as error:
        return [unchanged() for _ in range(count + 2)] + [error_html(error), ""] + [unchanged() for _ in range(6)]
    chosen = preset(key)
    remark = note("info", chosen.help)
    return [*page.form.write(run), gr.update(value=chosen.label), remark, *data_outputs(page, run, remarks)]


def data_outputs(page: Page, run: Run, remarks: tuple[str, ...] = ()) -> list[Any]:
    """What stands below the folder for a run whose folder was scanned (or was not)."""
    dataset = page.desk.dataset(run.data.folder)
    rows = page.desk.rows(run)
    table = words_html.words_table(rows, proposal.draws_of(run, rows))
    if dataset is None:
        shown = gr.update(visible=False)
        return [EMPTY, "", table, shown, "", shown, "", ""]
    findings = page.desk.findings(run, rows, remarks)
    cards = words_html.tag_cards(rows)
    return [
        dataset_html.summary(dataset, len(rows), len(findings)),
        dataset_html.problems_list(findings),
        table,
        gr.update(visible=bool(cards)),
        cards,
        gr.update(visible=True),
        _filters([row.word.name for row in rows]),
        dataset_html.gallery(dataset.pictures, page=0, rows=rows),
    ]


def gallery_of(page: Page, run: Run, query: str, number: str) -> str:
    """The page of thumbnails that a filter and a page's number ask for."""
    dataset = page.desk.dataset(run.data.folder)
    if dataset is None:
        return ""
    rows = page.desk.rows(run)
    pictures = dataset_html.matching(dataset, query or "", page.desk.findings(run, rows))
    last = max(0, (len(pictures) - 1) // dataset_html.PAGE)
    wanted = int(number) if (number or "").isdigit() else 0
    return dataset_html.gallery(pictures, page=min(wanted, last), rows=rows)


def _filters(names: list[str]) -> str:
    chips = "".join(
        f'<button type="button" class="pivotal-chip" data-filter="{escape(name)}">{escape(name)}</button>'
        for name in names
    )
    everything = '<button type="button" class="pivotal-chip" data-filter="">all</button>'
    return f'<div class="pivotal-chips">{everything}{chips}</div>'


def _free_name(run: Run) -> str:
    base = Path(run.data.folder).name.lower() if run.data.folder else ""
    taken = {word.name for word in run.words}
    letters = "".join(character for character in base if character.isalpha() and character.isascii()) or "myword"
    names = (letters + suffix for suffix in ("", "-b", "-c", "-d", "-e", "-f", "-g", "-h"))
    return next((name for name in names if name not in taken), "")
