"""What becomes of an embedding's tags: the table, moving a tag, captions before and after."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.errors import DataError, PivotalError
from lib_pivotal.plain_json import parse_json
from lib_pivotal.ui.caption_html import CaptionHtml
from lib_pivotal.ui.changes_panel import CHANGES_PARTS, Changes, changes_shown, with_change
from lib_pivotal.ui.embeddings_table import embeddings_json
from lib_pivotal.ui.page import Page, Shown, answer, error_html, quiet
from lib_pivotal.ui.thumbs import stamp

if TYPE_CHECKING:
    from lib_pivotal.config import Run
    from lib_pivotal.data.pruning import Decision, EmbeddingTags, TagDecision
    from lib_pivotal.ui.dataset_analysis import DatasetAnalysis

ROWS = 16
"""Tags that are shown at first."""
EXAMPLES = 6
FATES: tuple[tuple[Decision, str, str], ...] = (
    ("kept", "kept", "Stays in the captions: the embedding need not learn it."),
    ("absorbed", "pruned", "Pruned from this embedding's captions: the embedding learns it."),
    ("init", "init text", "Pruned, and part of the init text."),
)


def embedding_chips(names: Sequence[str], chosen: str, writer: CaptionHtml) -> str:
    """One button an embedding."""
    chips = "".join(
        f'<button type="button" class="pivotal-chip{" chosen" if name == chosen else ""}" data-tags="{escape(name)}" '
        f'title="The tags of {escape(name)}"><i style="background:{writer.colour(name)}"></i>{escape(name)}</button>'
        for name in names
    )
    return f'<div class="pivotal-chips pivotal-pick">{chips}</div>'


def tag_table(embedding: EmbeddingTags, *, everything: bool) -> str:
    """Tags with frequency, share and lift, and what happens to each; the most frequent first."""
    name = escape(embedding.use.name)
    if not embedding.keys:
        return f'<div class="pivotal-empty">No picture has {name}.</div>'
    tags = embedding.tags if everything else _first(embedding.tags)
    heads = (
        ("Tag", ""),
        ("Pictures", "How many of the embedding's pictures have it."),
        ("Share", "P(tag | embedding): share of its captions that have it."),
        ("Lift", "P(tag | embedding) / P(tag): how much more frequent it is with this embedding than in all captions."),
        ("Kept or pruned", "Click to change it."),
    )
    head = "".join(f'<th title="{title}">{label}</th>' for label, title in heads)
    body = "".join(_tag_row(tag, prune=embedding.use.prune) for tag in tags)
    rest = len(embedding.tags) - len(tags)
    more = _more(rest, everything=everything) if rest or (everything and len(embedding.tags) > ROWS) else ""
    return (
        f'{_state(embedding)}<table class="pivotal-tagtable" data-word-name="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>{more}"
    )


def _first(tags: Sequence[TagDecision]) -> Sequence[TagDecision]:
    """The most frequent, and all of which something was decided."""
    rest = [tag for tag in tags[ROWS:] if tag.by_hand or tag.belongs]
    return [*tags[:ROWS], *rest]


def _more(rest: int, *, everything: bool) -> str:
    text = f"show {rest} rarer ones" if not everything else "show fewer"
    return f'<button type="button" class="pivotal-mini" data-tags-all="{int(not everything)}">{text}</button>'


def _state(embedding: EmbeddingTags) -> str:
    """Whether the embedding absorbs at all."""
    if embedding.style:
        text = "A style: it appears beside other embeddings, so the rule prunes none of its tags."
    elif not embedding.use.prune:
        text = "Nothing is pruned now (Prune tags is off); marked is what would be. A click on pruned turns it on."
    else:
        return ""
    return f'<div class="pivotal-note info">{text}</div>'


def _tag_row(tag: TagDecision, *, prune: bool) -> str:
    now: Decision = tag.fate if prune else ("absorbed" if tag.belongs else "kept")
    buttons = "".join(_fate_button(fate, label, title, now=now) for fate, label, title in FATES)
    hand = (
        '<button type="button" class="pivotal-mini pivotal-hand" data-fate="rule" '
        'title="Moved by hand. Click: back to the rule">↺</button>'
        if tag.by_hand
        else ""
    )
    telling = " telling" if tag.lift >= 2 else ""
    return (
        f'<tr data-tag="{escape(tag.tag)}" class="{now}{"" if prune else " idle"}"><td>{escape(tag.tag)}</td>'
        f'<td class="n">{tag.count}</td>'
        f'<td class="share"><i><b style="width:{tag.share:.0%}"></b></i><span>{tag.share:.0%}</span></td>'
        f'<td class="n{telling}">×{tag.lift:.1f}</td>'
        f'<td class="fate"><span class="pivotal-switch">{buttons}</span>{hand}</td></tr>'
    )


def _fate_button(fate: Decision, label: str, title: str, *, now: Decision) -> str:
    state = ' class="on" aria-pressed="true"' if fate == now else ""
    return f'<button type="button" data-fate="{fate}" title="{title}"{state}>{label}</button>'


def examples(analysis: DatasetAnalysis, embedding: EmbeddingTags, writer: CaptionHtml, *, page: int) -> str:
    """Captions of the embedding's pictures, as they are and as they are trained, side by side."""
    if not embedding.keys:
        return ""
    last = (len(embedding.keys) - 1) // EXAMPLES
    page = min(max(page, 0), last)
    keys = embedding.keys[page * EXAMPLES : (page + 1) * EXAMPLES]
    rows = "".join(_example(analysis, key, writer) for key in keys)
    first, end = page * EXAMPLES + 1, page * EXAMPLES + len(keys)
    tools = _turn("‹", page - 1, disabled=page == 0) + _turn("›", page + 1, disabled=page == last)
    return (
        f'<div class="pivotal-examples"><div class="head"><span></span><span>as written</span><span>as trained</span>'
        f'</div>{rows}<div class="pivotal-pager">{tools}<span>{first}-{end} of {len(embedding.keys)}</span></div></div>'
    )


def _turn(label: str, page: int, *, disabled: bool) -> str:
    state = " disabled" if disabled else ""
    title = "The next captions" if label == "›" else "The captions before"
    return f'<button type="button" class="pivotal-mini" data-tags-page="{page}" title="{title}"{state}>{label}</button>'


def _example(analysis: DatasetAnalysis, key: str, writer: CaptionHtml) -> str:
    named, trained = analysis.pair(key)
    before = writer.before(
        named, trained, analysis.fates(analysis.wording.embeddings_of[key]), written=analysis.dataset[key].caption
    )
    name = escape(key)
    image = (
        f'<img data-thumb="{name}" data-stamp="{stamp(named.path)}" data-caption="{name}" alt="{name}" '
        'title="Open it and its caption">'
    )
    return f"<div>{image}<p>{before}</p><p>{writer.after(trained)}</p></div>"


TAGS_PARTS = ("tags_box", "tags")
AFTER_MOVE_JS = """() => {
    for (const name of ["check", "gallery_show"]) window.pivotalPage?.redraw(name);
    window.pivotalPage?.again("tags_show");
}"""


def build_tags_panel(page: Page) -> None:
    """Hidden until a folder with embeddings is scanned."""
    with gr.Column(elem_classes=["pivotal-section"], visible=False, elem_id="pivotal_tags_box") as box:
        gr.HTML("<h3>Tags: kept or pruned</h3>", elem_classes=["pivotal-html"])
        page.html("tags")
    page.parts["tags_box"] = box
    page.hidden_text("tags_view", "{}")
    page.hidden_button("tags_show")
    page.hidden_text("tags_move", "{}")
    page.hidden_button("tags_move_now")


def bind_tags_panel(page: Page) -> None:
    """Another embedding, more rows, other captions; a tag moved."""
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
            form["embeddings"]: embeddings_json(run.embeddings),
            **page.shown(words_table=page.embeddings_table(run), tags_move_answered=answer()),
            **changes_shown(page, with_change(changes, move_label(wanted), before, run)),
            **tags_shown(page, run, view),
        }

    outputs = [
        form["embeddings"],
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
    """The run with a tag of an embedding moved; `asked` holds `word`, `tag` and `to` (a fate, or `rule`)."""
    from lib_pivotal.runs import tag_moves  # here: the page is built at start-up, tags are moved later

    analysis = page.controller.analysis(run)
    name, to = str(asked.get("word")), str(asked.get("to"))
    if analysis is None or name not in analysis.wording.embeddings:
        raise DataError(f"{name}: no such embedding in the scanned folder. Scan it again")
    tag = next((one for one in analysis.wording.embeddings[name].tags if one.tag == asked.get("tag")), None)
    if tag is None or to not in ("kept", "absorbed", "init", "rule"):
        raise DataError(f"{asked.get('tag')}: no such tag beside {name} any more. Choose the embedding again")
    fate: Any = to
    embeddings = tuple(
        embedding
        if embedding.name != name
        else tag_moves.as_the_rule_says(embedding, tag)
        if to == "rule"
        else tag_moves.moved(embedding, tag, fate, count=page.controller.tokens)
        for embedding in run.embeddings
    )
    return replace(run, embeddings=embeddings)


def tags_shown(page: Page, run: Run, view: str = "{}") -> Shown:
    """The box, and what is in it: `view` is JSON with `word`, `all`, `page`."""
    analysis = page.controller.analysis(run)
    names = [embedding.name for embedding in run.embeddings]
    if analysis is None or not names:
        return page.shown(tags_box=gr.update(visible=False), tags="")
    try:
        wanted = parse_json(view or "{}")
    except ValueError:
        wanted = {}
    chosen = wanted.get("word") if wanted.get("word") in names else _first_that_takes(analysis.rows, names)
    embedding, writer = analysis.wording.embeddings[chosen], CaptionHtml(names)
    number = wanted.get("page", 0)
    table = tag_table(embedding, everything=bool(wanted.get("all")))
    beside = examples(analysis, embedding, writer, page=number if isinstance(number, int) else 0)
    body = f'<div class="pivotal-tags"><div>{table}</div><div>{beside}</div></div>'
    chips = embedding_chips(names, chosen, writer)
    return page.shown(tags_box=gr.update(visible=True), tags=chips + body)


def _first_that_takes(rows: Any, names: list[str]) -> str:
    """The embedding to begin with: one that has tags to speak of."""
    return next((row.embedding.name for row in rows if row.absorbed), names[0])
