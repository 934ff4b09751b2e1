"""A run's snapshot as pieces of HTML: progress, curves, the rows that grow, what was said, what came out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from lib_pivotal.evaluation import parts_grid
from lib_pivotal.runs.balance import said_of_parts, said_of_shares
from lib_pivotal.ui import charts, thumbs

Snapshot = Mapping[str, Any]

ACTIVE = ("preparing", "training", "paused", "waiting")
CELL_PX = 160
SHOWN_STEPS = 24
NOTICES_SHOWN = 12
ROW_OF_PART = {"unet": "U-Net only", "te": "text encoder only", "words": "embeddings only"}
"""Rows of the parts grid by the losses that separation measures; embeddings are on in all of them."""
VISIBLE = 0.001
"""Shares that differ by less are one line."""
WORDS_OF_STATUS = {
    "idle": "No run yet",
    "preparing": "Getting ready",
    "training": "Training",
    "paused": "Paused",
    "waiting": "Stepped aside",
    "finished": "Finished",
    "stopped": "Stopped",
    "failed": "Failed",
}


def is_active(snapshot: Snapshot | None) -> bool:
    """Whether the run goes on."""
    return snapshot is not None and snapshot["status"] in ACTIVE


def head(snapshot: Snapshot | None, *, checkpoint: str) -> str:
    """The line at the top: which checkpoint is loaded, and in one phrase what goes on."""
    model = f"model: <b>{escape(checkpoint)}</b>" if checkpoint else "no checkpoint is loaded"
    status = snapshot["status"] if snapshot else "idle"
    doing = "idle" if not is_active(snapshot) else _phrase(snapshot)
    return (
        f'<div class="pivotal-head" data-status="{status}"><span>{model}</span>'
        f'<span class="pivotal-dot {status}"></span><span>{escape(doing)}</span></div>'
    )


def _phrase(snapshot: Snapshot | None) -> str:
    assert snapshot is not None
    if snapshot["status"] == "preparing":
        return "getting ready"
    text = f"step {snapshot['step']} of {snapshot['max_steps']}"
    eta = snapshot["eta_seconds"]
    return f"{text}, {clock(eta)} left" if eta is not None and snapshot["status"] == "training" else text


def tab_title(snapshot: Snapshot) -> str:
    """What goes on, in a browser tab's title: percent first, since the rest may be cut off."""
    status = snapshot["status"]
    if status == "preparing":
        return "getting ready"
    if status not in ACTIVE:
        return WORDS_OF_STATUS[status].lower()
    share = snapshot["step"] / max(snapshot["max_steps"], 1)
    held = "" if status == "training" else f" {WORDS_OF_STATUS[status].lower()}"
    return f"{min(share, 1.0):.0%}{held} · step {snapshot['step']} of {snapshot['max_steps']}"


def ended_line(snapshot: Snapshot) -> str:
    """A run as a sentence, for a notification."""
    ended, name = snapshot["ended"], snapshot["name"]
    if not ended:
        return f"{name} is in progress."
    if ended["reason"] == "failed":
        return f"{name} failed at step {ended['step']}: {ended['message']}"
    return f"{name} {ended['reason']} at step {ended['step']} after {clock(ended['seconds'])}."


def progress(snapshot: Snapshot | None) -> str:
    """The bar and the line under it; always of the same height."""
    if snapshot is None:
        return _bar(0.0, "idle", "No run yet", "Scan a folder, then press Train.")
    status = snapshot["status"]
    share = snapshot["step"] / max(snapshot["max_steps"], 1)
    title = f"{WORDS_OF_STATUS[status]}: {snapshot['name']}"
    trained = snapshot["facts"].get("said", "") if is_active(snapshot) else ""
    return _bar(share, status, title, " · ".join(_facts(snapshot))) + _said([trained] if trained else [])


def _facts(snapshot: Snapshot) -> list[str]:
    status = snapshot["status"]
    facts = []
    if status != "preparing" or snapshot["step"]:
        facts.append(f"step {snapshot['step']} of {snapshot['max_steps']}")
    if snapshot["activity"]:
        facts.append(snapshot["activity"])
    eta, step_s = snapshot["eta_seconds"], snapshot["step_seconds"]
    if status == "training" and eta is not None:
        facts.append(f"{clock(eta)} left")
    if step_s and status in ("training", "paused", "waiting"):
        facts.append(f"{1 / step_s:.1f} steps/s" if step_s < 1 else f"{step_s:.1f} s a step")
    if snapshot["phase"] and status == "training":
        facts.append(phase_name(snapshot["phase"]))
    if snapshot["ended"]:
        facts.append(f"took {clock(snapshot['ended']['seconds'])}")
    return facts


def phase_name(phase: str) -> str:
    """What trains in a phase, in words."""
    return {"joint": "embeddings and network", "words": "embeddings only", "network": "network only"}.get(
        phase, f"phase: {phase}"
    )


def _bar(share: float, status: str, title: str, text: str) -> str:
    return (
        f'<div class="pivotal-progress {status}"><div class="pivotal-progress-line"><b>{escape(title)}</b>'
        f"<span>{escape(text)}</span></div>"
        f'<div class="pivotal-bar"><i style="width:{min(share, 1.0):.2%}"></i></div></div>'
    )


def curves(snapshot: Snapshot | None) -> str:
    """Loss, norm of each embedding, and where separation is measured what sits where; what it means, until the end."""
    if snapshot is None:
        return ""
    last = snapshot["max_steps"]
    drawn = [charts.loss_chart(snapshot["loss"]["steps"], snapshot["loss"]["values"], last_step=last)]
    if snapshot["embedding_norms"] or not snapshot["step"]:  # room is kept for it from the start
        drawn.append(charts.lines_chart("Embedding norm", _short_names(snapshot["embedding_norms"]), last_step=last))
    drawn += _validation_charts(snapshot["validation"], last_step=last)
    if snapshot["shares"]:
        title = "Separation: share in the embeddings"
        drawn.append(charts.lines_chart(title, snapshot["shares"], last_step=last, percent=True))
    if snapshot["explained"]:
        parts = _parts_by_title(snapshot["explained"])
        drawn.append(charts.lines_chart("What each part explains", parts, last_step=last, percent=True))
    said = "" if snapshot["ended"] else _said(_said_of_run(snapshot))
    return f'<div class="pivotal-charts">{"".join(drawn)}</div>{said}'


def _validation_charts(validation: Mapping[str, Any], *, last_step: int) -> list[str]:
    """Losses of held-out and trained pictures with the lowest marked; and by embedding, where there are several."""
    means = validation["means"]
    if not means:
        return []
    mark = charts.Mark(validation["best_step"], "overfits from here" if validation["overfits"] else "lowest")
    drawn = [charts.validation_chart(means["held_out"], means.get("trained"), mark=mark, last_step=last_step)]
    if len(validation["held_out"]) > 1:
        title = "Validation loss by embedding (thin: trained)"
        drawn.append(
            charts.paired_chart(title, validation["held_out"], behind=validation["trained"], last_step=last_step)
        )
    return drawn


def _said_of_run(snapshot: Snapshot) -> list[str]:
    """What figures mean, in sentences."""
    validation = snapshot["validation"]["said"]
    return [*([validation] if validation else []), *said_of_shares(_last_shares(snapshot))]


def _parts_by_title(explained: Mapping[str, Any]) -> dict[str, Any]:
    """Curves under the names of the grid's rows; without the text encoder's where it adds nothing, as it is not
    trained."""
    te, embeddings = (explained[part]["values"] for part in ("te", "words"))
    trained = any(abs(one - other) > VISIBLE for one, other in zip(te, embeddings, strict=True))
    return {title: explained[part] for part, title in ROW_OF_PART.items() if trained or part != "te"}


def _last_shares(snapshot: Snapshot) -> dict[str, float]:
    """Separation of each embedding as last measured."""
    return {name: curve["values"][-1] for name, curve in snapshot["shares"].items() if curve["values"]}


def _said(texts: Sequence[str]) -> str:
    return "".join(f'<div class="pivotal-said">{escape(text)}</div>' for text in texts)


def _short_names(curves_: Mapping[str, Any]) -> dict[str, Any]:
    return {name.removeprefix("word "): curve for name, curve in curves_.items()}


def rows(snapshot: Snapshot | None, *, column: str = "", picked: int | None = None) -> str:
    """The four rows for one prompt, a column a step; chips choose the prompt, a column's button the step."""
    pictures = list(snapshot["pictures"]) if snapshot else []
    if not pictures:
        when = "The first samples come soon" if is_active(snapshot) else "Samples appear here while it trains"
        text = f"{when}: full, U-Net only, text encoder only and embeddings only, side by side."
        return f'<div class="pivotal-empty">{text}</div>'
    columns = pictures[-1]["columns"]
    index = columns.index(column) if column in columns else 0
    chips = (
        "".join(_chip(name, chosen=number == index) for number, name in enumerate(columns)) if len(columns) > 1 else ""
    )
    shown = thinned(pictures)
    header = "".join(_step_button(item["step"], chosen=item["step"] == picked) for item in shown)
    body = "".join(_row(row, shown, index) for row in parts_grid.ROWS)
    return (
        f'<div class="pivotal-chips">{chips}</div><div class="pivotal-rows-scroll"><table class="pivotal-rows">'
        f"<thead><tr><th>step</th>{header}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def thinned(pictures: Sequence[Any]) -> list[Any]:
    """At most `SHOWN_STEPS` of them, evenly, the first and the last among them."""
    if len(pictures) <= SHOWN_STEPS:
        return list(pictures)
    places = sorted({round(i * (len(pictures) - 1) / (SHOWN_STEPS - 1)) for i in range(SHOWN_STEPS)})
    return [pictures[place] for place in places]


def _chip(name: str, *, chosen: bool) -> str:
    kind = " chosen" if chosen else ""
    return f'<button type="button" class="pivotal-chip{kind}" data-column="{escape(name)}">{escape(name)}</button>'


def _step_button(step: int, *, chosen: bool) -> str:
    kind = " chosen" if chosen else ""
    attributes = f'class="pivotal-step{kind}" data-step="{step}" title="Show it large, and keep this step"'
    return f'<th><button type="button" {attributes}>{step}</button></th>'


def _row(row: parts_grid.Row, shown: Sequence[Any], index: int) -> str:
    cells = []
    for item in shown:
        files = item["rows"].get(row.label, ())
        uri = thumbs.thumbnail(files[index], CELL_PX) if index < len(files) else ""
        alt = escape(f"{row.title}, step {item['step']}")
        cells.append(f'<td><img src="{uri}" alt="{alt}" data-zoom="1"></td>' if uri else "<td><i></i></td>")
    return f"<tr><th>{escape(row.title)}</th>{''.join(cells)}</tr>"


def picked_step(snapshot: Snapshot, step: int) -> str:
    """One step, all prompts, large."""
    item = next((item for item in snapshot["pictures"] if item["step"] == step), None)
    if item is None:
        return ""
    heads = "".join(f"<th>{escape(column)}</th>" for column in item["columns"])
    lines = []
    for row in parts_grid.ROWS:
        files = item["rows"].get(row.label, ())
        cells = "".join(
            f'<td><img src="{thumbs.thumbnail(file, 256)}" alt="{escape(row.title)}" data-zoom="1"></td>'
            for file in files
        )
        lines.append(f"<tr><th>{escape(row.title)}</th>{cells}</tr>")
    head_ = f"<thead><tr><th>step {step}</th>{heads}</tr></thead>"
    table = f'<table class="pivotal-rows large">{head_}<tbody>{"".join(lines)}</tbody></table>'
    return f'<div class="pivotal-rows-scroll">{table}</div>'


def notices(snapshot: Snapshot | None) -> str:
    """What the run said, the newest first: the last few lines, and errors however old."""
    if not snapshot or not snapshot["notices"]:
        return ""
    said, last = snapshot["notices"], len(snapshot["notices"]) - NOTICES_SHOWN
    shown = [item for place, item in enumerate(said) if place >= last or item["level"] == "error"]
    items = "".join(
        f'<li class="{escape(item["level"])}"><span>step {item["step"]}</span>{escape(item["message"])}</li>'
        for item in reversed(shown)
    )
    return f'<ul class="pivotal-notices">{items}</ul>'


def outcome(snapshot: Snapshot | None) -> str:
    """After the end: the file and prompts to copy, or the failure in words; empty while the run goes on."""
    if not snapshot or not snapshot["ended"]:
        return ""
    ended = snapshot["ended"]
    parts = []
    if ended["reason"] == "failed":
        parts.append(
            f'<h3>The run failed at step {ended["step"]}</h3><p class="pivotal-why">{_lines(ended["message"])}</p>'
        )
    if ended["bundle"]:
        parts.append(_file_line(Path(ended["bundle"]), snapshot))
        if ended["reason"] == "finished" and ended["message"]:  # it ended early
            parts.append(f"<p>{_lines(ended['message'])}</p>")
        shares = _last_shares(snapshot)
        parts.append(_said(said_of_parts(shares)) + _said(_said_of_run(snapshot)))
        parts.append(_prompts(Path(ended["bundle"]).stem, snapshot["facts"].get("embeddings", [])))
    elif ended["reason"] != "failed":
        told = ended["message"] if ended["reason"] == "finished" else ""
        parts.append(f"<p>{_lines(told) or 'It stopped before the first step, so no file was written.'}</p>")
    else:
        parts.append(_saved_before(snapshot))
    kind = "bad" if ended["reason"] == "failed" else "good"
    return f'<div class="pivotal-outcome {kind}">{"".join(parts)}</div>'


def _saved_before(snapshot: Snapshot) -> str:
    """What a failed run left behind."""
    names = [escape(Path(file["path"]).name) for file in snapshot["files"] if file["kind"] == "bundle"]
    if names:
        return f"<p>Saved before that: <b>{', '.join(names[-6:])}</b></p>"
    kept = any(file["kind"] == "state" for file in snapshot["files"])
    return f"<p>No file was written.{' Its saved state can be continued.' if kept else ''}</p>"


def _file_line(path: Path, snapshot: Snapshot) -> str:
    embeddings = snapshot["facts"].get("embeddings", [])
    size = f"{path.stat().st_size / 1e6:.1f} MB" if path.is_file() else "moved since"
    count = f"{len(embeddings)} embedding{'s' if len(embeddings) != 1 else ''}"
    folder = "/".join(path.parent.parts[-2:])
    shown = f'<span title="{escape(str(path.parent))}">{size} · {count} · in {escape(folder)}</span>'
    card = (
        f'<button type="button" class="pivotal-mini" data-card="{escape(path.name)}" title="Opens it under Bundles">'
        "Result card</button>"
    )
    return f"<p><b>{escape(path.name)}</b> {shown} {card if path.is_file() else ''}</p>"


def _prompts(name: str, embeddings: Sequence[str]) -> str:
    """Ready to copy: each embedding with its file."""
    texts = [f"<lora:{name}:1> {embedding}" for embedding in embeddings[:6]] or [f"<lora:{name}:1>"]
    items = "".join(
        f'<button type="button" class="pivotal-copy" data-copy="{escape(text)}" title="Copy">{escape(text)}</button>'
        for text in texts
    )
    return f'<p class="pivotal-try"><span>Try, a click copies:</span>{items}</p>'


def _lines(text: str) -> str:
    return "<br>".join(escape(line) for line in text.splitlines())


def clock(seconds: float) -> str:
    """`1:02:03`, `2:40`, `0:07`."""
    whole = int(seconds + 0.5)
    hours, rest = divmod(whole, 3600)
    minutes, left = divmod(rest, 60)
    return f"{hours}:{minutes:02d}:{left:02d}" if hours else f"{minutes}:{left:02d}"
