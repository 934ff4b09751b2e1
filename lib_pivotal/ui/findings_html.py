"""What to look at, as HTML: one line a kind, its single findings and their pictures folded below it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING

from lib_pivotal.data.findings import FindingGroup, grouped
from lib_pivotal.ui.thumbs import stamp

if TYPE_CHECKING:
    from lib_pivotal.data.findings import Finding, Remedy
    from lib_pivotal.data.records import Dataset

SIGNS = {"error": "✕", "warning": "!", "info": "i"}
NAMES = {"error": "Error", "warning": "Warning: the run may disappoint", "info": "Good to know"}
FIRST = 6
"""So many lines are in sight; the others are folded."""
THUMBS = 8
"""So many pictures are shown of one finding, the rest by `show`."""
MOST_ITEMS = 60
"""So many single findings of a kind are listed; a folder of broken files would else be a page of megabytes."""


def findings_html(findings: Sequence[Finding], dataset: Dataset) -> str:
    """Each kind with what to do: a button that shows its pictures, and one for each remedy."""
    if not findings:
        return ""
    groups = grouped(findings)
    items = [_group(group, dataset) for group in groups]
    shown = _mend_all(groups) + f'<ul class="pivotal-problems">{"".join(items[:FIRST])}</ul>'
    rest = items[FIRST:]
    if rest:
        shown += (
            f'<details class="pivotal-rest" data-fold="rest"><summary>{len(rest)} more</summary>'
            f'<ul class="pivotal-problems">{"".join(rest)}</ul></details>'
        )
    return f'<div class="pivotal-findings" data-lines="{len(findings)}">{shown}</div>'


def _mend_all(groups: Sequence[FindingGroup]) -> str:
    """A button for applies the first fix of every warning and error, where there are several."""
    firsts = [finding.remedy for group in groups if group.severity != "info" for _, finding in group.findings]
    labels = dict.fromkeys(remedy.label for remedy in firsts if remedy is not None)
    if len(labels) < 2:
        return ""
    return (
        '<div class="pivotal-mend"><button type="button" class="pivotal-mini remedy" data-mend="1" '
        f'title="The first fix of each: {escape("; ".join(labels))}. Changes settings only; can be undone.">'
        f"Fix all {len(labels)}</button><small>applies the first fix of every warning</small></div>"
    )


def _group(group: FindingGroup, dataset: Dataset) -> str:
    tools = _tools(group.name, group.keys, group.remedies, dataset)
    single = len(group.findings) == 1
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


def _members(group: FindingGroup, dataset: Dataset) -> str:
    """The single findings of a kind, each with its pictures and what is its own to do."""
    shared = list(group.remedies)
    rows = ""
    for number, finding in group.findings[:MOST_ITEMS]:
        own = [remedy for remedy in finding.remedies if remedy not in shared]
        rows += (
            f'<li data-narrow="1">{_thumbs(finding.keys, dataset)}<span class="text">{escape(finding.text)}</span>'
            f'<span class="tools">{_tools(str(number), finding.keys, own, dataset)}</span></li>'
        )
    rest = len(group.findings) - MOST_ITEMS
    more = f'<li><span class="text">{rest} more; the command line names all of them.</span></li>' if rest > 0 else ""
    return f"<ul>{rows}{more}</ul>"


def _tools(name: str, keys: Sequence[str], remedies: Sequence[Remedy], dataset: Dataset) -> str:
    found = "".join(_remedy(remedy) for remedy in remedies)
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


def _remedy(remedy: Remedy) -> str:
    asked = escape(json.dumps(remedy.as_dict(), ensure_ascii=False))
    inside = remedy.arguments.get("remedies", ()) if remedy.id == "all" else ()
    what = "; ".join(dict.fromkeys(str(one.get("label", "")) for one in inside if isinstance(one, Mapping)))
    title = f"{what}. " if what else ""
    return (
        f'<button type="button" class="pivotal-mini remedy" data-remedy="{asked}" '
        f'title="{escape(title)}Changes the settings of the run; no file is touched. Can be undone.">'
        f"{escape(remedy.label)}</button>"
    )
