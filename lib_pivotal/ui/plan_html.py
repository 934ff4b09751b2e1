"""The plan of a run as HTML: draws of each word, training sizes as rectangles, lengths of captions."""

from __future__ import annotations

from collections import Counter
from html import escape
from typing import TYPE_CHECKING

from lib_pivotal.data.tokens import CHUNK
from lib_pivotal.runs.presets import ADVISED_DRAWS
from lib_pivotal.ui.caption_html import CaptionHtml

if TYPE_CHECKING:
    from lib_pivotal.runs.plan import BucketPlan, Plan, WordPlan

RECTANGLE_PX = 46
"""The longest side of a size as it is drawn."""
TALL = 6
"""From more words on, the other charts stand one above the other beside their bars."""
MOST_SIZES = 18
BIN_TOKENS = 15


def plan_html(plan: Plan, *, max_tokens: int) -> str:
    """The whole section."""
    parts = [_draws(plan), _sizes(plan), _tokens(plan, limit=max_tokens or CHUNK)]
    tall = " tall" if len(plan.words) > TALL else ""
    return f'{_line(plan)}<div class="pivotal-plan{tall}">{"".join(parts)}</div>'


def _line(plan: Plan) -> str:
    """What the run amounts to, in one line."""
    each = f"{plan.steps} steps × {plan.batch_size}"
    each += f" × {plan.accumulation}" if plan.accumulation != 1 else ""
    rounds = f"{plan.epochs:.1f} rounds" if plan.epochs < 20 else f"{plan.epochs:.0f} rounds"
    return (
        f'<div class="pivotal-summary">{each} = <b>{_number(plan.draws)} samples</b> of '
        f"{_number(len(plan.pictures))} pictures · {rounds}</div>"
    )


def _number(count: float) -> str:
    return f"{count:,.0f}".replace(",", " ")


def _draws(plan: Plan) -> str:
    writer = CaptionHtml([word.name for word in plan.words])
    top = max([ADVISED_DRAWS * 1.25, *(word.draws for word in plan.words)])
    rows = "".join(_draws_row(word, top, writer.colour(word.name)) for word in plan.words)
    rows = rows or "<p>No embeddings yet.</p>"
    advised = (
        f'<div class="axis"><i style="left:{ADVISED_DRAWS / top:.2%}"><span>{ADVISED_DRAWS} advised</span></i></div>'
        if plan.words
        else ""
    )
    title = "How many times each embedding's pictures are trained on in the run, on average"
    return f'<div class="draws"><h4 title="{title}">Samples per embedding</h4><div>{advised}{rows}</div></div>'


def _draws_row(word: WordPlan, top: float, colour: str) -> str:
    kind = "none" if not word.pictures else "low" if word.draws < ADVISED_DRAWS / 2 else "ok"
    name = escape(word.name)
    title = (
        f"{name}: {word.draws:.0f} samples, {word.share:.0%} of all; {word.pictures} pictures, "
        f"{word.vectors} vectors{'; a style' if word.style else ''}"
    )
    return (
        f'<div class="row {kind}" title="{title}"><button type="button" class="pivotal-link" data-filter="word:{name}">'
        f"{name}</button>"
        f'<i><b style="width:{word.draws / top:.2%};background:{colour}"></b>'
        f'<u style="left:{ADVISED_DRAWS / top:.2%}"></u></i><span>{_number(word.draws)}</span></div>'
    )


def _sizes(plan: Plan) -> str:
    shown = plan.buckets[:MOST_SIZES]
    longest = max((max(b.width_px, b.height_px) for b in plan.buckets), default=1)
    most = max((b.pictures for b in plan.buckets), default=1)
    cells = "".join(_size(bucket, longest, most) for bucket in shown)
    rest = plan.buckets[MOST_SIZES:]
    if rest:
        count = sum(bucket.pictures for bucket in rest)
        cells += f'<div class="size"><small>{len(rest)} more sizes, {count} pictures</small></div>'
    title = (
        "Each picture is trained in the bucket nearest to its aspect ratio; below: its pictures and how much "
        "is cropped"
    )
    return f'<div class="sizes"><h4 title="{title}">Training sizes</h4><div>{cells}</div></div>'


def _size(bucket: BucketPlan, longest: int, most: int) -> str:
    width, height = (RECTANGLE_PX * side / longest for side in (bucket.width_px, bucket.height_px))
    share = bucket.pictures / most
    cut = f"{bucket.mean_cropped:.0%} cut" if bucket.mean_cropped >= 0.005 else "uncut"
    title = (
        f"{bucket.width_px}×{bucket.height_px} px: {bucket.pictures} pictures, {bucket.draws:.0f} samples; "
        f"{bucket.mean_cropped:.1%} is cut off on average, {bucket.most_cropped:.1%} at most"
    )
    heavy = " heavy" if bucket.mean_cropped >= 0.1 else ""
    return (
        f'<div class="size" title="{title}"><i><b style="width:{width:.0f}px;height:{height:.0f}px;'
        f'--full:{15 + 75 * share:.0f}%"></b></i><span>{bucket.width_px}×{bucket.height_px}</span>'
        f'<span><b>{bucket.pictures}</b> <small class="{heavy}">{cut}</small></span></div>'
    )


def _tokens(plan: Plan, *, limit: int) -> str:
    lengths = [picture.tokens for picture in plan.pictures]
    bins = Counter(length // BIN_TOKENS for length in lengths)
    last = max([limit // BIN_TOKENS, *bins])
    most = max(bins.values(), default=1)
    bars = "".join(_bar(number, bins[number], most, limit) for number in range(last + 1))
    over = sum(length > limit for length in lengths)
    word = f"{over} over {limit}" if over else f"all within {limit}"
    how = "" if plan.tokens_counted else " (estimated)"
    title = "Tokens of the longest caption of each picture, with the vectors of its embeddings"
    return (
        f'<div class="tokens"><h4 title="{title}">Length of captions</h4><div class="bars">{bars}</div>'
        f"<p>longest {plan.tokens_most} tokens{how}, {word}</p></div>"
    )


def _bar(number: int, count: int, most: int, limit: int) -> str:
    low = number * BIN_TOKENS
    over = " over" if low >= limit else ""
    height = max(2.0, 100 * count / most) if count else 0
    label = low if number % 2 == 0 else ""
    title = f"{low} to {low + BIN_TOKENS - 1} tokens: {count} pictures"
    return f'<div class="bar{over}" title="{title}"><i style="height:{height:.0f}%"></i><small>{label}</small></div>'
