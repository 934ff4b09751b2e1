"""What becomes of a word's tags: the table, moving a tag, captions before and after."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.errors import DataError, PivotalError
from lib_pivotal.plain_json import parse_json
from lib_pivotal.ui import caption_html, tags_html
from lib_pivotal.ui.changes_panel import CHANGES_PARTS, Changes, changes_shown, with_change
from lib_pivotal.ui.page import Page, Shown, answer, error_html, quiet
from lib_pivotal.ui.words_html import words_json

if TYPE_CHECKING:
    from lib_pivotal.config import Run

TAGS_PARTS = ("tags_box", "tags")
AFTER_MOVE_JS = """() => {
    for (const name of ["check", "gallery_show"]) window.pivotalPage?.redraw(name);
    window.pivotalPage?.again("tags_show");
}"""


def build_tags_panel(page: Page) -> None:
    """Hidden until a folder with words is scanned."""
    with gr.Column(elem_classes=["pivotal-section"], visible=False, elem_id="pivotal_tags_box") as box:
        gr.HTML("<h3>Tags: kept or pruned</h3>", elem_classes=["pivotal-html"])
        page.html("tags")
    page.parts["tags_box"] = box
    page.hidden_text("tags_view", "{}")
    page.hidden_button("tags_show")
    page.hidden_text("tags_move", "{}")
    page.hidden_button("tags_move_now")


def bind_tags_panel(page: Page) -> None:
    """Another word, more rows, other captions; a tag moved."""
    parts, form = page.parts, page.form

    def show(view: str, *values: Any) -> Shown:
        return {**tags_shown(page, page.read(values)[0], view), **page.shown(tags_show_answered=answer())}

    inputs = [parts["tags_view"], *form.components]
    outputs = [*page.named(*TAGS_PARTS), page.answered("tags_show")]
    quiet(parts["tags_show"].click, show, inputs, outputs)

    def move(asked: str, changes: Changes, view: str, *values: Any) -> Shown:
        before = page.read(values)[0]
        try:
            wanted = parse_json(asked or "{}")
            run = moved(page, before, wanted)
        except PivotalError as error:
            return page.shown(tags=error_html(error), tags_move_answered=answer())
        return {
            form["words"]: words_json(run.words),
            **page.shown(words_table=page.words_table(run), tags_move_answered=answer()),
            **changes_shown(page, with_change(changes, move_label(wanted), before, run)),
            **tags_shown(page, run, view),
        }

    outputs = [
        form["words"],
        *page.named("words_table", *CHANGES_PARTS, *TAGS_PARTS),
        page.answered("tags_move"),
    ]
    event = quiet(parts["tags_move_now"].click, move, [parts["tags_move"], parts["changes"], *inputs], outputs)
    event.then(fn=None, _js=AFTER_MOVE_JS, queue=False)


def move_label(asked: dict[str, Any]) -> str:
    """What a move is called where it can be taken back."""
    what = {"kept": "kept", "absorbed": "pruned", "init": "init text", "rule": "as the rule says"}
    return f"{asked.get('word')}: {asked.get('tag')} {what.get(str(asked.get('to')), '')}".strip()


def moved(page: Page, run: Run, asked: dict[str, Any]) -> Run:
    """The run with a tag of a word moved; `asked` holds `word`, `tag` and `to` (a fate, or `rule`)."""
    from lib_pivotal.runs import tag_moves  # here: the page is built at start-up, tags are moved later

    survey = page.desk.survey(run)
    name, to = str(asked.get("word")), str(asked.get("to"))
    if survey is None or name not in survey.wording.words:
        raise DataError(f"{name}: no such embedding in the scanned folder. Scan it again")
    tag = next((one for one in survey.wording.words[name].tags if one.tag == asked.get("tag")), None)
    if tag is None or to not in ("kept", "absorbed", "init", "rule"):
        raise DataError(f"{asked.get('tag')}: no such tag beside {name} any more. Choose the embedding again")
    fate: Any = to
    words = tuple(
        word
        if word.name != name
        else tag_moves.as_the_rule_says(word, tag)
        if to == "rule"
        else tag_moves.moved(word, tag, fate, count=page.desk.tokens)
        for word in run.words
    )
    return replace(run, words=words)


def tags_shown(page: Page, run: Run, view: str = "{}") -> Shown:
    """The box, and what is in it: `view` is JSON with `word`, `all`, `page`."""
    survey = page.desk.survey(run)
    names = [word.name for word in run.words]
    if survey is None or not names:
        return page.shown(tags_box=gr.update(visible=False), tags="")
    try:
        wanted = parse_json(view or "{}")
    except ValueError:
        wanted = {}
    chosen = wanted.get("word") if wanted.get("word") in names else _first_that_takes(survey.rows, names)
    word, writer = survey.wording.words[chosen], caption_html.CaptionHtml(names)
    number = wanted.get("page", 0)
    table = tags_html.tag_table(word, everything=bool(wanted.get("all")))
    beside = tags_html.examples(survey, word, writer, page=number if isinstance(number, int) else 0)
    body = f'<div class="pivotal-tags"><div>{table}</div><div>{beside}</div></div>'
    chips = tags_html.word_chips(names, chosen, writer)
    return page.shown(tags_box=gr.update(visible=True), tags=chips + body)


def _first_that_takes(rows: Any, names: list[str]) -> str:
    """The word to begin with: one that has tags to speak of."""
    return next((row.word.name for row in rows if row.absorbed), names[0])
