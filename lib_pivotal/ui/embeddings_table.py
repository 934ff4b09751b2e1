"""The table of embeddings as HTML with inputs; `pivotal.js` gathers them into one JSON field, the form's
`embeddings`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from html import escape
from typing import TYPE_CHECKING, Any

from lib_pivotal.runs.presets import ADVISED_SAMPLES
from lib_pivotal.ui.form import embedding_help

if TYPE_CHECKING:
    from lib_pivotal.config import EmbeddingConfig
    from lib_pivotal.runs.proposal import EmbeddingRow

NO_EMBEDDINGS = (
    '<div class="pivotal-empty">No embeddings yet. Scan a folder: names that its captions use are proposed here. '
    "Or add one by hand.</div>"
)

COLUMNS = (
    ("name", "Name"),
    ("init_text", "Init text"),
    ("vectors", "Vectors"),
    ("lr_factor", "LR factor"),
    ("prune", "Prune tags"),
)
MORE = (
    ("init_file", "Init file"),
    ("weight_decay", "Weight decay"),
    ("freeze_at", "Freeze at (fraction)"),
    ("freeze_step", "Freeze at step"),
    ("freeze_norm", "Freeze at norm"),
    ("flip", "May be mirrored"),
    ("prune_tags", "Also prune"),
    ("keep_tags", "Keep in captions"),
    ("applies_to", "Applies to"),
    ("class_text", "Class"),
    ("form_of", "Form of"),
    ("sampling_weight", "Sampling weight"),
    ("continued_lr_factor", "LR factor after the first phase"),
)
"""Settings of an embedding that few need: behind the arrow of its line."""

NUMBERS = (
    "sampling_weight",
    "vectors",
    "lr_factor",
    "continued_lr_factor",
    "weight_decay",
    "freeze_at",
    "freeze_step",
    "freeze_norm",
)


def embeddings_table(rows: Sequence[EmbeddingRow], samples: Mapping[str, float]) -> str:
    """The editor of all embeddings; `samples` an embedding in the run as it is set now."""
    if not rows:
        return NO_EMBEDDINGS
    hints = embedding_help()
    heads = "".join(f'<th title="{escape(hints[key])}" class="c-{key}">{label}</th>' for key, label in COLUMNS)
    heads += '<th class="c-pictures" title="Pictures whose captions name the embedding.">Pictures</th>'
    hint = f"How many times its pictures are trained on in the run; {ADVISED_SAMPLES} or more are advised."
    heads += f'<th class="c-draws" title="{hint}">Samples</th><th></th>'
    body = "".join(_row(number, row, samples.get(row.embedding.name, 0.0)) for number, row in enumerate(rows))
    return f'<table class="pivotal-words"><thead><tr>{heads}</tr></thead>{body}</table>'


def _row(number: int, row: EmbeddingRow, samples: float) -> str:
    values = asdict(row.embedding)
    cells = "".join(
        f'<td class="c-{key}" data-label="{label}">{_input(key, values[key], label)}</td>' for key, label in COLUMNS
    )
    more = "".join(f"<label>{label}{_input(key, values[key], label)}</label>" for key, label in MORE)
    style = (
        '<span class="pivotal-tag" title="It appears beside other embeddings: probably a style.">style</span>'
        if row.style
        else ""
    )
    tools = (
        f'<button type="button" class="pivotal-mini" data-tags="{escape(row.embedding.name)}" data-scroll="1" '
        'title="Which of its tags are pruned">tags</button>'
        '<button type="button" class="pivotal-mini" data-more="1" title="More settings of this embedding">⋯</button>'
        '<button type="button" class="pivotal-mini" data-remove="1" title="Remove this embedding">✕</button>'
    )
    shown = {key for key, _ in (*COLUMNS, *MORE)}  # what has no input of its own must survive an edit of the others
    rest = escape(json.dumps({key: value for key, value in values.items() if key not in shown}))
    cells += f'<td class="c-pictures" data-label="Pictures">{row.pictures}{style}</td>'
    return (
        f'<tbody data-word="{number}" data-rest="{rest}"><tr>{cells}'
        f'<td class="c-draws" data-label="Samples">{samples_bar(samples)}</td><td class="c-tools">{tools}</td></tr>'
        f'<tr class="pivotal-more" hidden><td colspan="8"><div>{more}</div></td></tr></tbody>'
    )


def _input(key: str, value: Any, label: str) -> str:
    hint = escape(f"{label}: {embedding_help()[key]}")
    common = f'data-key="{key}" title="{hint}" aria-label="{label}"'
    if isinstance(value, bool):
        return f'<input type="checkbox" {common}{" checked" if value else ""}>'
    if isinstance(value, tuple | list):
        text = escape(", ".join(value))
        return f'<input type="text" {common} data-list="1" placeholder="separate with commas" value="{text}">'
    if key in NUMBERS:
        return f'<input type="number" step="any" {common} value="{value:g}">'
    place = ' placeholder="random"' if key == "init_text" else ""
    return f'<input type="text" {common}{place} value="{escape(str(value))}">'


def samples_bar(samples: float) -> str:
    """A bar that is full at the advised number, and the number."""
    share = min(1.0, samples / ADVISED_SAMPLES)
    kind = "low" if share < 0.5 else "ok"
    return (
        f'<span class="pivotal-draws {kind}"><i><b style="width:{share:.0%}"></b></i><span>{samples:.0f}</span></span>'
    )


def embeddings_json(embeddings: Sequence[EmbeddingConfig]) -> str:
    """Embeddings as the form's field holds them."""
    return json.dumps([asdict(embedding) for embedding in embeddings], ensure_ascii=False)
