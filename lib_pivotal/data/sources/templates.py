"""Prompt templates of the web UI's textual inversion that lie beside the pictures: lines with `[name]`, `[filewords]`.

They become templates of the run, in which both stand for the word and the caption as there
(modules/textual_inversion/dataset.py of web UI 1.10.1, `create_text`).
"""

from __future__ import annotations

from pathlib import Path

from lib_pivotal.data.captions import read_text

MOST_LINES = 200
LARGEST_BYTES = 2**18
_MARKS = ("[name]", "[filewords]")


def read_templates(files: list[Path]) -> tuple[str, ...]:
    """The lines of those of the text files that are templates: every line of it has a mark."""
    found: dict[str, None] = {}
    for path in files:
        try:
            if path.stat().st_size > LARGEST_BYTES:
                continue
            lines = [line.strip() for line in read_text(path)[0].splitlines() if line.strip()]
        except OSError:
            continue
        if lines and all(any(mark in line for mark in _MARKS) for line in lines):
            found.update(dict.fromkeys(lines))
    return tuple(found)[:MOST_LINES]
