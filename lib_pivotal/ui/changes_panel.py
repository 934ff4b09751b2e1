"""Changes that the Data page makes of a run by one click, and the way back: fixes, all of them at once, undo."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.errors import DataError, PivotalError
from lib_pivotal.plain_json import parse_json
from lib_pivotal.runs import undo

if TYPE_CHECKING:
    from lib_pivotal.config import Run
    from lib_pivotal.data.lint_warnings import LintWarning
    from lib_pivotal.ui.page import Page, Shown

Changes = list[dict[str, Any]]

CHANGES_PARTS = ("changes", "undo", "told")
"""What can be taken back, how the page shows it, and what the last click has done."""


def build_changes(page: Page) -> None:
    """The last changes with their way back."""
    page.parts["changes"] = gr.State([])
    page.html("undo")
    page.html("told")


def changes_shown(page: Page, changes: Sequence[Mapping[str, Any]], told: str = "") -> Shown:
    """What can be taken back now; `told` is HTML."""
    return page.shown(changes=list(changes), undo=changes_html([str(one["label"]) for one in changes]), told=told)


def with_change(changes: Changes, label: str, before: Run, after: Run) -> Changes:
    """The list with one more change, where there is a difference."""
    return undo.remembered(changes, undo.UndoStep.between(label, before, after))


def changes_html(labels: Sequence[str]) -> str:
    """A button for the last change, and folded one for each of those before; the newest first."""
    if not labels:
        return ""
    last = escape(labels[-1])
    shown = (
        f'<button type="button" class="pivotal-mini" data-undo="1" title="Puts back what this change has changed; '
        f'what you changed by hand stays">↶ Undo: {last}</button>'
    )
    if len(labels) > 1:
        rows = "".join(
            f'<li><span>{escape(label)}</span><button type="button" class="pivotal-mini" data-undo="{back}" '
            f'title="Takes back this one and those after it">back to before this</button></li>'
            for back, label in enumerate(reversed(labels), 1)
        )
        shown += f'<details data-fold="changes"><summary>last {len(labels)} changes</summary><ol>{rows}</ol></details>'
    return f'<div class="pivotal-changes">{shown}</div>'


def changed(page: Page, run: Run, asked: str, changes: Changes) -> tuple[Run, Changes, str]:
    """The run after what a button asks for, what can be taken back then, and a sentence.

    `asked` is JSON: a fix of a warning, `{"mend": true}` for the first fix of each warning and error, or
    `{"undo": n, "of": m}` for the last n changes of m.

    Raises:
        PivotalError: it is none of these, or it does not fit the run any more.
    """
    from lib_pivotal.data.lint_warnings import Fix  # here: the page is built at start-up
    from lib_pivotal.runs.fixes import apply_fix

    try:
        plain = parse_json(asked or "{}")
    except ValueError:
        plain = None
    if isinstance(plain, dict) and "undo" in plain:
        if plain.get("of", len(changes)) != len(changes):
            return run, changes, ""  # asked for twice, and done
        return _undone(page, run, changes, plain["undo"])
    if isinstance(plain, dict) and plain.get("mend") is True:
        after, done = apply_first_fixes(page, run)
        if not done:
            raise DataError("no warning is left that one click can fix. Read those that remain")
        names = list(dict.fromkeys(done))
        label = names[0] if len(names) == 1 else f"{names[0]} and {len(names) - 1} more"
        return after, with_change(changes, label, run, after), f"Done: {'; '.join(names)}."
    fix = Fix.from_dict(plain)
    after = apply_fix(run, fix)
    follow(page, after)
    return after, with_change(changes, fix.label, run, after), f"Done: {fix.label}."


def apply_first_fixes(page: Page, run: Run) -> tuple[Run, list[str]]:
    """The run after the first fix of each warning and error, and what was done."""
    from lib_pivotal.commands import datasets  # here: only a click needs it

    def warnings(one: Run) -> list[LintWarning]:
        return [found for found in page.controller.warnings(one) if found.severity != "info"]

    return datasets.fix_all(run, warnings, scan_again=lambda one: follow(page, one))


def follow(page: Page, run: Run) -> None:
    """Scan again where the settings ask for another scan; a folder that is gone by now is said elsewhere."""
    with contextlib.suppress(PivotalError):
        page.controller.follow(run)


def _undone(page: Page, run: Run, changes: Changes, count: Any) -> tuple[Run, Changes, str]:
    if not isinstance(count, int) or not 0 < count <= len(changes):
        raise DataError("there is no such change to take back any more")
    labels = [str(one["label"]) for one in changes[-count:]]
    for plain in reversed(changes[-count:]):
        run = undo.taken_back(run, undo.UndoStep.from_dict(plain))
    follow(page, run)
    return run, changes[:-count], f"Taken back: {'; '.join(reversed(labels))}."
