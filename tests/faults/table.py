"""Results as tables, and their place in docs/reliability.md."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.faults.hostile import Count

COLUMNS = {
    "ended": "ended by an event",
    "kept": "result or state kept",
    "same": "same tensors in the end",
    "weights": "checkpoint as before",
    "picture": "seed's picture as before",
    "inside": "no file outside",
    "answers": "web UI answers",
}
"""What is demanded, and how a column is called."""


def faults_table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Kind by count by what held; a number alone: it held each time, `-`: it was never asked."""
    by_kind: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in rows:
        by_kind.setdefault((row["backend"], row["kind"]), []).append(row)
    asked = {
        key for found in by_kind.values() for row in found for key, held in row["held"].items() if held is not None
    }
    columns = {key: title for key, title in COLUMNS.items() if key in asked or key != "answers"}
    several = len({backend for backend, _ in by_kind}) > 1
    lines = [["fault", "trials", *columns.values()]]
    for (backend, kind), found in by_kind.items():
        name = f"{kind} ({backend})" if several else kind
        lines.append([name, str(len(found)), *(_held([row["held"].get(key) for row in found]) for key in columns)])
    every = [row for found in by_kind.values() for row in found]
    lines.append(["**all**", str(len(every)), *(_held([row["held"].get(key) for row in every]) for key in columns)])
    return _markdown(lines)


def _held(values: Sequence[bool | None]) -> str:
    asked = [value for value in values if value is not None]
    if not asked:
        return "-"
    return str(len(asked)) if all(asked) else f"**{sum(asked)} of {len(asked)}**"


def hostile_table(counts: Mapping[str, Count], findings: Mapping[str, int]) -> str:
    """Sort by count by what was found and how long it took."""
    lines = [["files", "count", "read all the same", "crash, code, file outside, hang", "seconds", "slowest file (s)"]]
    for name, count in counts.items():
        numbers = f"{count.seconds:.0f}", f"{count.longest_s:.2f}"
        lines.append([name, f"{count.files:,}", f"{count.answered:,}", str(findings.get(name, 0)), *numbers])
    files, answered = (sum(getattr(count, key) for count in counts.values()) for key in ("files", "answered"))
    seconds, longest = sum(one.seconds for one in counts.values()), max(one.longest_s for one in counts.values())
    ends = str(sum(findings.values())), f"{seconds:.0f}", f"{longest:.2f}"
    lines.append(["**all**", f"{files:,}", f"{answered:,}", *ends])
    return _markdown(lines)


def _markdown(lines: Sequence[Sequence[str]]) -> str:
    head, *rest = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([head, "|" + " --- |" * len(lines[0]), *rest])


def put(document: Path, name: str, text: str) -> None:
    """Replace what is between `<!-- name:begin -->` and `<!-- name:end -->`.

    Raises:
        ValueError: the document has no such place.
    """
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    whole = document.read_text(encoding="utf-8")
    before, found, rest = whole.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{document}: has no place {begin} ... {end}")
    document.write_text(f"{before}{begin}\n{text}\n{end}{after}", encoding="utf-8")


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Results that a campaign has written, by number; of a trial that was tried again, the last."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row for _, row in sorted({(row["backend"], row["number"]): row for row in rows}.items())]
