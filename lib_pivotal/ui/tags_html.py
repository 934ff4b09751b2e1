"""A word's tags as a table in which one click moves a tag, and its captions before and after."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING

from lib_pivotal.ui.thumbs import stamp

if TYPE_CHECKING:
    from lib_pivotal.data.pruning import Fate, TagFate, WordTags
    from lib_pivotal.ui.caption_html import CaptionHtml
    from lib_pivotal.ui.survey import Survey

ROWS = 16
"""Tags that are shown at first."""
EXAMPLES = 6
FATES: tuple[tuple[Fate, str, str], ...] = (
    ("kept", "kept", "Stays in the captions: the embedding need not learn it."),
    ("absorbed", "pruned", "Pruned from this embedding's captions: the embedding learns it."),
    ("init", "init text", "Pruned, and part of the init text."),
)


def word_chips(names: Sequence[str], chosen: str, writer: CaptionHtml) -> str:
    """One button a word."""
    chips = "".join(
        f'<button type="button" class="pivotal-chip{" chosen" if name == chosen else ""}" data-tags="{escape(name)}" '
        f'title="The tags of {escape(name)}"><i style="background:{writer.colour(name)}"></i>{escape(name)}</button>'
        for name in names
    )
    return f'<div class="pivotal-chips pivotal-pick">{chips}</div>'


def tag_table(word: WordTags, *, everything: bool) -> str:
    """Tags with frequency, share and lift, and what happens to each; the most frequent first."""
    name = escape(word.use.name)
    if not word.keys:
        return f'<div class="pivotal-empty">No picture has {name}.</div>'
    tags = word.tags if everything else _first(word.tags)
    heads = (
        ("Tag", ""),
        ("Pictures", "How many of the embedding's pictures have it."),
        ("Share", "P(tag | embedding): share of its captions that have it."),
        ("Lift", "P(tag | embedding) / P(tag): how much more frequent it is with this embedding than in all captions."),
        ("Kept or pruned", "Click to change it."),
    )
    head = "".join(f'<th title="{title}">{label}</th>' for label, title in heads)
    body = "".join(_tag_row(tag, prune=word.use.prune) for tag in tags)
    rest = len(word.tags) - len(tags)
    more = _more(rest, everything=everything) if rest or (everything and len(word.tags) > ROWS) else ""
    return (
        f'{_state(word)}<table class="pivotal-tagtable" data-word-name="{name}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>{more}"
    )


def _first(tags: Sequence[TagFate]) -> Sequence[TagFate]:
    """The most frequent, and all of which something was decided."""
    rest = [tag for tag in tags[ROWS:] if tag.by_hand or tag.belongs]
    return [*tags[:ROWS], *rest]


def _more(rest: int, *, everything: bool) -> str:
    text = f"show {rest} rarer ones" if not everything else "show fewer"
    return f'<button type="button" class="pivotal-mini" data-tags-all="{int(not everything)}">{text}</button>'


def _state(word: WordTags) -> str:
    """Whether the word absorbs at all."""
    if word.style:
        text = "A style: it appears beside other embeddings, so the rule prunes none of its tags."
    elif not word.use.prune:
        text = "Nothing is pruned now (Prune tags is off); marked is what would be. A click on pruned turns it on."
    else:
        return ""
    return f'<div class="pivotal-note info">{text}</div>'


def _tag_row(tag: TagFate, *, prune: bool) -> str:
    now: Fate = tag.fate if prune else ("absorbed" if tag.belongs else "kept")
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


def _fate_button(fate: Fate, label: str, title: str, *, now: Fate) -> str:
    state = ' class="on" aria-pressed="true"' if fate == now else ""
    return f'<button type="button" data-fate="{fate}" title="{title}"{state}>{label}</button>'


def examples(survey: Survey, word: WordTags, writer: CaptionHtml, *, page: int) -> str:
    """Captions of the word's pictures, as they are and as they are trained, side by side."""
    if not word.keys:
        return ""
    last = (len(word.keys) - 1) // EXAMPLES
    page = min(max(page, 0), last)
    keys = word.keys[page * EXAMPLES : (page + 1) * EXAMPLES]
    rows = "".join(_example(survey, key, writer) for key in keys)
    first, end = page * EXAMPLES + 1, page * EXAMPLES + len(keys)
    tools = _turn("‹", page - 1, disabled=page == 0) + _turn("›", page + 1, disabled=page == last)
    return (
        f'<div class="pivotal-examples"><div class="head"><span></span><span>as written</span><span>as trained</span>'
        f'</div>{rows}<div class="pivotal-pager">{tools}<span>{first}-{end} of {len(word.keys)}</span></div></div>'
    )


def _turn(label: str, page: int, *, disabled: bool) -> str:
    state = " disabled" if disabled else ""
    title = "The next captions" if label == "›" else "The captions before"
    return f'<button type="button" class="pivotal-mini" data-tags-page="{page}" title="{title}"{state}>{label}</button>'


def _example(survey: Survey, key: str, writer: CaptionHtml) -> str:
    named, trained = survey.pair(key)
    before = writer.before(
        named, trained, survey.fates(survey.wording.words_of[key]), written=survey.dataset[key].caption
    )
    name = escape(key)
    image = (
        f'<img data-thumb="{name}" data-stamp="{stamp(named.path)}" data-caption="{name}" alt="{name}" '
        'title="Open it and its caption">'
    )
    return f"<div>{image}<p>{before}</p><p>{writer.after(trained)}</p></div>"
