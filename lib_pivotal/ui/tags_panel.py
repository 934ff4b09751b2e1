"""What becomes of a word's tags: the table, moving a tag, captions before and after."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.config import Run
from lib_pivotal.errors import DataError, PivotalError
from lib_pivotal.later import later
from lib_pivotal.plain_json import parse_json
from lib_pivotal.ui.changes_panel import CHANGES_PARTS, Changes, changes_outputs, with_change
from lib_pivotal.ui.page import Page, answer, error_html, quiet, unchanged

if TYPE_CHECKING:
    from lib_pivotal.runs import proposal, tag_moves
    from lib_pivotal.ui import caption_html, tags_html, words_html
else:
    caption_html = later("lib_pivotal.ui.caption_html")
    proposal = later("lib_pivotal.runs.proposal")
    tag_moves = later("lib_pivotal.runs.tag_moves")
    tags_html = later("lib_pivotal.ui.tags_html")
    words_html = later("lib_pivotal.ui.words_html")

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

    def show(view: str, *values: Any) -> list[Any]:
        return [*tags_outputs(page, page.read(values)[0], view), answer()]

    inputs = [parts["tags_view"], *form.components]
    outputs = [*(parts[name] for name in TAGS_PARTS), page.answered("tags_show")]
    quiet(parts["tags_show"].click, show, inputs, outputs)

    def move(asked: str, changes: Changes, view: str, *values: Any) -> list[Any]:
        before = page.read(values)[0]
        try:
            wanted = parse_json(asked or "{}")
            run = moved(page, before, wanted)
        except PivotalError as error:
            return [*(unchanged() for _ in outputs[:-2]), error_html(error), answer()]
        kept = with_change(changes, move_label(wanted), before, run)
        table = words_html.words_table(page.desk.rows(run), page.desk.draws(run))
        words = [words_html.words_json(run.words), table]
        return [*words, *changes_outputs(kept), *tags_outputs(page, run, view), answer()]

    names = ("words_table", *CHANGES_PARTS, *TAGS_PARTS)
    outputs = [form["words"], *(parts[name] for name in names), page.answered("tags_move")]
    event = quiet(parts["tags_move_now"].click, move, [parts["tags_move"], parts["changes"], *inputs], outputs)
    event.then(fn=None, _js=AFTER_MOVE_JS, queue=False)


def move_label(asked: dict[str, Any]) -> str:
    """What a move is called where it can be taken back."""
    what = {"kept": "kept", "absorbed": "pruned", "init": "init text", "rule": "as the rule says"}
    return f"{asked.get('word')}: {asked.get('tag')} {what.get(str(asked.get('to')), '')}".strip()


def moved(page: Page, run: Run, asked: dict[str, Any]) -> Run:
    """The run with a tag of a word moved; `asked` holds `word`, `tag` and `to` (a fate, or `rule`)."""
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


def tags_outputs(page: Page, run: Run, view: str = "{}") -> list[Any]:
    """The box, and what is in it: `view` is JSON with `word`, `all`, `page`."""
    survey = page.desk.survey(run)
    names = [word.name for word in run.words]
    if survey is None or not names:
        return [gr.update(visible=False), ""]
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
    return [gr.update(visible=True), tags_html.word_chips(names, chosen, writer) + body]


def _first_that_takes(rows: Any, names: list[str]) -> str:
    """The word to begin with: one that has tags to speak of."""
    return next((row.word.name for row in rows if row.absorbed), names[0])
