"""What became of each key of another trainer's settings: one line a key, and all lines as text or plain JSON."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

KeyFate = Literal["taken", "translated", "not supported", "ignored"]
FATES: tuple[KeyFate, ...] = get_args(KeyFate)
"""`ignored` is what does not concern training: paths of logs, hosts to upload to, how a program is started."""

LONGEST_VALUE = 60


@dataclass(frozen=True)
class KeyReport:
    """One key of the file and its fate. `became` is `setting = value` of our run; `why` is a sentence for the user.

    `known` is False for a key that the importer has never heard of; those are `not supported`. `added` is True for a
    line of no key: a default of the other trainer that differs from ours.
    """

    key: str
    value: Any
    fate: KeyFate
    became: str = ""
    why: str = ""
    known: bool = True
    added: bool = False

    def shown_value(self) -> str:
        """The value on one line, cut where it is long."""
        if self.added:
            return "(not in the file)"
        return shown(self.value)


@dataclass(frozen=True)
class Report:
    """All lines of a file, in its order; `remarks` concern the file or the run as a whole."""

    peer: str
    title: str
    lines: tuple[KeyReport, ...]
    remarks: tuple[str, ...] = field(default=())

    def count(self, fate: KeyFate) -> int:
        """How many keys had this fate."""
        return sum(line.fate == fate for line in self.lines)

    def of(self, *fates: KeyFate) -> list[KeyReport]:
        """The lines of these fates, in order."""
        return [line for line in self.lines if line.fate in fates]

    def unknown(self) -> list[KeyReport]:
        """Lines of keys that the importer has never heard of."""
        return [line for line in self.lines if not line.known]

    def summary(self) -> str:
        """One sentence with the counts."""
        counts = ", ".join(f"{self.count(fate)} {fate}" for fate in FATES)
        return f"{self.title}: {counts}."

    def to_plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "peer": self.peer,
            "title": self.title,
            "remarks": list(self.remarks),
            "counts": {fate: self.count(fate) for fate in FATES},
            "lines": [{name: getattr(line, name) for name in line.__dataclass_fields__} for line in self.lines],
        }


def shown(value: Any) -> str:
    """A value as one short line of JSON-like text."""
    try:
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
    except (TypeError, ValueError, RecursionError):
        text = type(value).__name__
    text = " ".join(text.split())
    return text if len(text) <= LONGEST_VALUE else text[: LONGEST_VALUE - 1] + "…"


def table(report: Report, *, width: int = 110) -> str:
    """The report as text for a terminal: fates in turn, keys in columns, sentences folded to `width`."""
    parts = [report.summary(), *(f"  - {remark}" for remark in report.remarks)]
    for fate in FATES:
        lines = report.of(fate)
        if lines:
            parts += ["", f"{fate.upper()} ({len(lines)})", *_rows(lines, width)]
    return "\n".join(parts)


def _rows(lines: Sequence[KeyReport], width: int) -> list[str]:
    key_width = min(44, max(len(line.key) for line in lines))
    value_width = min(30, max(len(line.shown_value()) for line in lines))
    rows = []
    for line in lines:
        value = line.shown_value()
        value = value if len(value) <= value_width else value[: value_width - 1] + "…"
        what = " ".join("; ".join(part for part in (line.became, line.why) if part).split())
        head = f"  {line.key:<{key_width}}  {value:<{value_width}}  "
        room = max(30, width - len(head))
        folded = textwrap.wrap(what, room, break_long_words=False, break_on_hyphens=False) or [""]
        rows += [(head + folded[0]).rstrip(), *(" " * len(head) + other for other in folded[1:])]
    return rows
