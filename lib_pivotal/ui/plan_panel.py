"""The plan on the Data page, and the warnings above it; redrawn with every check of the settings.

Warnings are one line a kind, its single warnings and their pictures folded below it. The plan shows the samples of each
embedding, training sizes as rectangles, and lengths of captions.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

import gradio as gr

from lib_pivotal.config import Run
from lib_pivotal.errors import PivotalError
from lib_pivotal.prompts import CHUNK_LENGTH
from lib_pivotal.runs.presets import ADVISED_SAMPLES
from lib_pivotal.ui.caption_html import CaptionHtml
from lib_pivotal.ui.page import Page, Shown, note
from lib_pivotal.ui.thumbs import stamp

if TYPE_CHECKING:
    from lib_pivotal.data.lint_warnings import Fix, LintWarning, WarningGroup
    from lib_pivotal.data.records import Dataset
    from lib_pivotal.runs.plan import BucketPlan, EmbeddingPlan, RunPlan

RECTANGLE_PX = 46
"""The longest side of a size as it is drawn."""
TALL = 6
"""From more words on, the other charts stand one above the other beside their bars."""
MOST_SIZES = 18
BIN_TOKENS = 15


def plan_html(plan: RunPlan, *, max_tokens: int) -> str:
    """The whole section."""
    parts = [_samples(plan), _sizes(plan), _tokens(plan, limit=max_tokens or CHUNK_LENGTH)]
    tall = " tall" if len(plan.embeddings) > TALL else ""
    return f'{_line(plan)}<div class="pivotal-plan{tall}">{"".join(parts)}</div>'


def _line(plan: RunPlan) -> str:
    """What the run amounts to, in one line."""
    each = f"{plan.steps} steps × {plan.batch_size}"
    each += f" × {plan.accumulation}" if plan.accumulation != 1 else ""
    rounds = f"{plan.epochs:.1f} rounds" if plan.epochs < 20 else f"{plan.epochs:.0f} rounds"
    return (
        f'<div class="pivotal-summary">{each} = <b>{_number(plan.samples)} samples</b> of '
        f"{_number(len(plan.pictures))} pictures · {rounds}</div>"
    )


def _number(count: float) -> str:
    return f"{count:,.0f}".replace(",", " ")


def _samples(plan: RunPlan) -> str:
    writer = CaptionHtml([embedding.name for embedding in plan.embeddings])
    top = max([ADVISED_SAMPLES * 1.25, *(embedding.samples for embedding in plan.embeddings)])
    rows = "".join(_samples_row(embedding, top, writer.colour(embedding.name)) for embedding in plan.embeddings)
    rows = rows or "<p>No embeddings yet.</p>"
    place = f"left:{ADVISED_SAMPLES / top:.2%}"
    axis = f'<div class="axis"><i style="{place}"><span>{ADVISED_SAMPLES} advised</span></i></div>'
    advised = axis if plan.embeddings else ""
    title = "How many times each embedding's pictures are trained on in the run, on average"
    return f'<div class="draws"><h4 title="{title}">Samples per embedding</h4><div>{advised}{rows}</div></div>'


def _samples_row(embedding: EmbeddingPlan, top: float, colour: str) -> str:
    kind = "none" if not embedding.pictures else "low" if embedding.samples < ADVISED_SAMPLES / 2 else "ok"
    name = escape(embedding.name)
    title = (
        f"{name}: {embedding.samples:.0f} samples, {embedding.share:.0%} of all; {embedding.pictures} pictures, "
        f"{embedding.vectors} vectors{'; a style' if embedding.style else ''}"
    )
    return (
        f'<div class="row {kind}" title="{title}"><button type="button" class="pivotal-link" data-filter="word:{name}">'
        f"{name}</button>"
        f'<i><b style="width:{embedding.samples / top:.2%};background:{colour}"></b>'
        f'<u style="left:{ADVISED_SAMPLES / top:.2%}"></u></i><span>{_number(embedding.samples)}</span></div>'
    )


def _sizes(plan: RunPlan) -> str:
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
        f"{bucket.width_px}×{bucket.height_px} px: {bucket.pictures} pictures, {bucket.samples:.0f} samples; "
        f"{bucket.mean_cropped:.1%} is cut off on average, {bucket.most_cropped:.1%} at most"
    )
    heavy = " heavy" if bucket.mean_cropped >= 0.1 else ""
    return (
        f'<div class="size" title="{title}"><i><b style="width:{width:.0f}px;height:{height:.0f}px;'
        f'--full:{15 + 75 * share:.0f}%"></b></i><span>{bucket.width_px}×{bucket.height_px}</span>'
        f'<span><b>{bucket.pictures}</b> <small class="{heavy}">{cut}</small></span></div>'
    )


def _tokens(plan: RunPlan, *, limit: int) -> str:
    lengths = [picture.tokens for picture in plan.pictures]
    bins = Counter(length // BIN_TOKENS for length in lengths)
    last = max([limit // BIN_TOKENS, *bins])
    most = max(bins.values(), default=1)
    bars = "".join(_bar(number, bins[number], most, limit) for number in range(last + 1))
    over = sum(length > limit for length in lengths)
    embedding = f"{over} over {limit}" if over else f"all within {limit}"
    how = "" if plan.tokens_counted else " (estimated)"
    title = "Tokens of the longest caption of each picture, with the vectors of its embeddings"
    return (
        f'<div class="tokens"><h4 title="{title}">Length of captions</h4><div class="bars">{bars}</div>'
        f"<p>longest {plan.tokens_most} tokens{how}, {embedding}</p></div>"
    )


def _bar(number: int, count: int, most: int, limit: int) -> str:
    low = number * BIN_TOKENS
    over = " over" if low >= limit else ""
    height = max(2.0, 100 * count / most) if count else 0
    label = low if number % 2 == 0 else ""
    title = f"{low} to {low + BIN_TOKENS - 1} tokens: {count} pictures"
    return f'<div class="bar{over}" title="{title}"><i style="height:{height:.0f}%"></i><small>{label}</small></div>'


SIGNS = {"error": "✕", "warning": "!", "info": "i"}
NAMES = {"error": "Error", "warning": "Warning: the run may disappoint", "info": "Good to know"}
FIRST = 6
"""So many lines are in sight; the others are folded."""
THUMBS = 8
"""So many pictures are shown of one warning, the rest by `show`."""
MOST_ITEMS = 60
"""So many single warnings of a kind are listed; a folder of broken files would else be a page of megabytes."""


def warnings_html(warnings: Sequence[LintWarning], dataset: Dataset) -> str:
    """Each kind with what to do: a button that shows its pictures, and one for each fix."""
    if not warnings:
        return ""
    from lib_pivotal.data.lint_warnings import grouped  # here: the page is built at start-up

    groups = grouped(warnings)
    items = [_group(group, dataset) for group in groups]
    shown = _fix_all(groups) + f'<ul class="pivotal-problems">{"".join(items[:FIRST])}</ul>'
    rest = items[FIRST:]
    if rest:
        shown += (
            f'<details class="pivotal-rest" data-fold="rest"><summary>{len(rest)} more</summary>'
            f'<ul class="pivotal-problems">{"".join(rest)}</ul></details>'
        )
    return f'<div class="pivotal-findings" data-lines="{len(warnings)}">{shown}</div>'


def _fix_all(groups: Sequence[WarningGroup]) -> str:
    """A button that applies the first fix of every warning and error, where there are several."""
    firsts = [warning.fix for group in groups if group.severity != "info" for _, warning in group.warnings]
    labels = dict.fromkeys(fix.label for fix in firsts if fix is not None)
    if len(labels) < 2:
        return ""
    return (
        '<div class="pivotal-mend"><button type="button" class="pivotal-mini remedy" data-mend="1" '
        f'title="The first fix of each: {escape("; ".join(labels))}. Changes settings only; can be undone.">'
        f"Fix all {len(labels)}</button><small>applies the first fix of every warning</small></div>"
    )


def _group(group: WarningGroup, dataset: Dataset) -> str:
    tools = _tools(group.name, group.keys, group.fixes, dataset)
    single = len(group.warnings) == 1
    thumbs = _thumbs(group.keys, dataset) if single else ""
    text = escape(group.text)
    if single and not thumbs:
        body = f'<span class="text">{text}</span>'
    else:
        inside = thumbs if single else _members(group, dataset)
        body = f'<details data-fold="{escape(group.name)}"><summary>{text}</summary>{inside}</details>'
    return (
        f'<li class="{group.severity}" data-narrow="1"><i title="{NAMES[group.severity]}">{SIGNS[group.severity]}</i>'
        f'{body}<span class="tools">{tools}</span></li>'
    )


def _members(group: WarningGroup, dataset: Dataset) -> str:
    """The single warnings of a kind, each with its pictures and what is its own to do."""
    shared = list(group.fixes)
    rows = ""
    for number, warning in group.warnings[:MOST_ITEMS]:
        own = [fix for fix in warning.fixes if fix not in shared]
        rows += (
            f'<li data-narrow="1">{_thumbs(warning.keys, dataset)}<span class="text">{escape(warning.text)}</span>'
            f'<span class="tools">{_tools(str(number), warning.keys, own, dataset)}</span></li>'
        )
    rest = len(group.warnings) - MOST_ITEMS
    more = f'<li><span class="text">{rest} more; the command line names all of them.</span></li>' if rest > 0 else ""
    return f"<ul>{rows}{more}</ul>"


def _tools(name: str, keys: Sequence[str], fixes: Sequence[Fix], dataset: Dataset) -> str:
    found = "".join(_fix_button(fix) for fix in fixes)
    here = sum(key in dataset for key in keys)
    if here:
        found += (
            f'<button type="button" class="pivotal-mini" data-show="{escape(name)}" '
            f'title="Show only these pictures below">show {here}</button>'
        )
    return found


def _thumbs(keys: Sequence[str], dataset: Dataset) -> str:
    here = [key for key in keys if key in dataset]
    if not here:
        return ""
    cells = "".join(
        f'<img data-thumb="{escape(key)}" data-stamp="{stamp(dataset[key].path)}" data-caption="{escape(key)}" '
        f'alt="{escape(key)}" tabindex="0" role="button" title="{escape(key)}: open it and its caption">'
        for key in here[:THUMBS]
    )
    rest = len(here) - THUMBS
    return f'<span class="pivotal-strip">{cells}{f"<small>+{rest}</small>" if rest > 0 else ""}</span>'


def _fix_button(fix: Fix) -> str:
    asked = escape(json.dumps(fix.as_dict(), ensure_ascii=False))
    inside = fix.arguments.get("fixes", ()) if fix.id == "all" else ()
    what = "; ".join(dict.fromkeys(str(one.get("label", "")) for one in inside if isinstance(one, Mapping)))
    title = f"{what}. " if what else ""
    return (
        f'<button type="button" class="pivotal-mini remedy" data-remedy="{asked}" '
        f'title="{escape(title)}Changes the settings of the run; no file is touched. Can be undone.">'
        f"{escape(fix.label)}</button>"
    )


PLAN_PARTS = ("summary", "findings", "plan_box", "plan")


def summary(dataset: Dataset, embeddings: int, warnings: int) -> str:
    """One line: how much there is."""
    things = "no warnings" if not warnings else f"{warnings} warning{'s' if warnings != 1 else ''}"
    pictures = f"{len(dataset):,} picture{'s' if len(dataset) != 1 else ''}".replace(",", " ")
    count = f"{embeddings} embedding{'s' if embeddings != 1 else ''}"
    parts = [(len(dataset.concepts), "concept"), (len({p.image_type for p in dataset.pictures} - {""}), "image type")]
    counts = ", ".join(f"{number} {name}{'s' if number != 1 else ''}" for number, name in parts if number > 1)
    layout = f" · read as {escape(dataset.title)}" if dataset.title else ""
    layout += f": {counts}" if layout and counts else ""
    told = f"<b>{pictures}</b> · <b>{count}</b> · {things}{layout}"
    # another scan has another mark: `pivotal_findings.js` draws anew what hangs on it
    return f'<div class="pivotal-summary" data-scan="{dataset.mark}">{told}</div>'


def build_plan_panel(page: Page) -> None:
    """Hidden until a folder is scanned."""
    with gr.Column(elem_classes=["pivotal-section"], visible=False, elem_id="pivotal_plan_box") as box:
        gr.HTML("<h3>Plan</h3>", elem_classes=["pivotal-html"])
        page.html("plan")
    page.parts["plan_box"] = box


def plan_shown(page: Page, run: Run) -> Shown:
    """The line, what to look at, and the plan; the line stays as it is where the folder is not scanned."""
    dataset = page.controller.dataset(run.data.folder)
    if dataset is None:
        return page.shown(findings="", plan_box=gr.update(visible=False), plan="")
    try:
        plan = page.controller.plan(run)
        drawn = "" if plan is None else plan_html(plan, max_tokens=run.data.max_tokens)
    except PivotalError as error:  # a setting of now is none: the Train page says which
        drawn = note("warning", f"No plan with these settings: {error}")
    found = page.controller.warnings(run)
    return page.shown(
        summary=summary(dataset, len(run.embeddings), len(found)),
        findings=warnings_html(found, dataset),
        plan_box=gr.update(visible=True),
        plan=drawn,
    )
