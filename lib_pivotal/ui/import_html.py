"""What became of another trainer's settings, as the page shows it: one table for each fate."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from lib_pivotal.importing.report import FATES, Fate, Line

if TYPE_CHECKING:
    from lib_pivotal.importing.settings import Imported

OPEN: tuple[Fate, ...] = ("not supported", "translated")
ORDER: tuple[Fate, ...] = ("not supported", "translated", "taken", "ignored")
MANY = 12
"""From so many lines on there is a field that finds among them."""
FIND = (
    '<div class="pivotal-find"><input type="search" data-narrows="#pivotal_import_report" placeholder="Find a key" '
    'aria-label="Find a key" title="Only lines that hold this text"><small></small></div>'
)
TOLD: dict[Fate, str] = {
    "taken": "the same here",
    "translated": "means the same, written otherwise",
    "not supported": "left out, or something else instead",
    "ignored": "does not concern training",
}


def report_html(found: Imported) -> str:
    """Counts, remarks, what is still to be set, and a table for each fate; not supported and translated stand open."""
    report = found.report
    counts = " · ".join(
        f'<b class="{_class(fate)}">{report.count(fate)}</b> {fate}' for fate in FATES if report.count(fate)
    )
    remarks = "".join(f"<li>{escape(remark)}</li>" for remark in report.remarks)
    parts = [f'<div class="head">{escape(report.title)}: {counts}</div>']
    if remarks:
        parts.append(f"<ul>{remarks}</ul>")
    if len(report.lines) >= MANY:
        parts.append(FIND)
    parts += [_table(fate, lines) for fate in ORDER if (lines := report.of(fate))]
    return f'<div class="pivotal-import" id="pivotal_import_report">{"".join(parts)}</div>'


def _table(fate: Fate, lines: list[Line]) -> str:
    rows = "".join(_row(line) for line in lines)
    state = " open" if fate in OPEN else ""
    head = f"<summary>{fate} ({len(lines)}) <span>{TOLD[fate]}</span></summary>"
    columns = "<tr><th>key</th><th>value</th><th>became</th></tr>"
    table = f'<div class="scroll"><table><thead>{columns}</thead><tbody>{rows}</tbody></table></div>'
    return f'<details class="{_class(fate)}"{state}>{head}{table}</details>'


def _row(line: Line) -> str:
    became = f"<code>{escape(line.became)}</code> " if line.became else ""
    mark = ' data-narrow="1"' if line.known else ' data-narrow="1" class="unknown"'
    value = f"<i>{escape(line.shown_value())}</i>" if line.added else escape(line.shown_value())
    return f"<tr{mark}><td>{escape(line.key)}</td><td>{value}</td><td>{became}{escape(line.why)}</td></tr>"


def _class(fate: Fate) -> str:
    return fate.replace(" ", "-")
