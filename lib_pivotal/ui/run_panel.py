"""The run on the page: buttons, progress, curves, rows that grow, a step to keep, and what came out."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
from pathlib import Path
from typing import Any

import gradio as gr

from lib_pivotal.errors import HostError, PivotalError
from lib_pivotal.plain_json import parse_json
from lib_pivotal.ui import run_html
from lib_pivotal.ui.logs_panel import build_logs_panel, build_notify, logs_html
from lib_pivotal.ui.page import Page, Shown, error_html, facts_of, message, payload, quiet
from lib_pivotal.ui.queue_panel import build_longer, is_serving, queue_listed, queue_pieces
from lib_pivotal.ui.steps_panel import build_steps_panel
from lib_pivotal.ui.train_panel import estimate

PIECES = ("head", "progress", "queue", "curves", "rows", "picked", "notices", "outcome", "logs")
"""Pieces of HTML that a pulse may change, each sent only when it did."""


def build_buttons(page: Page) -> None:
    """The right part of the page's first row: Train, or what steers a run."""
    parts = page.parts
    with gr.Column(scale=0, elem_id="pivotal_start_box", elem_classes=["pivotal-buttons"]) as start:
        parts["train"] = gr.Button("Train", variant="primary", elem_id="pivotal_train", size="lg")
        parts["preflight"] = gr.Button("Estimate time and VRAM", elem_id="pivotal_preflight", size="sm")
    with gr.Column(scale=0, elem_id="pivotal_run_box", elem_classes=["pivotal-buttons"], visible=False) as run:
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["stop"] = gr.Button("Stop and save", variant="stop", elem_id="pivotal_stop", min_width=100)
            parts["pause"] = gr.Button("Pause", elem_id="pivotal_pause", min_width=100)
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["save_now"] = gr.Button("Save now", elem_id="pivotal_save_now", size="sm", min_width=100)
            parts["sample_now"] = gr.Button("Sample now", elem_id="pivotal_sample_now", size="sm", min_width=100)
        parts["checkpoint"] = gr.Button(
            "Load this run's checkpoint", variant="primary", elem_id="pivotal_checkpoint", visible=False
        )
    parts["start_box"], parts["run_box"] = start, run
    parts["queue_add"] = gr.Button("Add to queue", elem_id="pivotal_queue_add", size="sm")  # while a run goes on, too
    live = page.manager.backend.live_name()
    parts["live"] = gr.Checkbox(
        False, label=f"use it live as <lora:{live}:1>", elem_id="pivotal_live", visible=bool(live)
    )
    build_notify(page)


def build_run_view(page: Page) -> None:
    """Outcome, rows, the picked step, curves, notices, and interrupted runs."""
    parts = page.parts
    page.html("outcome")
    if page.extras.send_to_txt2img_js:
        parts["send"] = gr.Button("Send the first prompt to txt2img", size="sm", visible=False, elem_id="pivotal_send")
        page.hidden_text("send_text")
    page.html("curves")
    page.html("rows", run_html.rows(None))
    with gr.Column(visible=False, elem_id="pivotal_picked_box", elem_classes=["pivotal-section"]) as box:
        page.html("picked")
        with gr.Row(elem_classes=["pivotal-tools"]):
            parts["keep"] = gr.Button(
                "Keep this step", variant="primary", size="sm", elem_id="pivotal_keep", scale=0, min_width=160
            )
            page.html("kept")
    parts["picked_box"] = box
    build_steps_panel(page)
    page.html("notices")
    with gr.Row(visible=False, elem_id="pivotal_resumable_box", elem_classes=["pivotal-row"]) as resumable:
        parts["resumable"] = gr.Dropdown(
            [],
            label="Continue an interrupted run",
            info="With its own settings, from its newest saved state.",
            elem_id="pivotal_resumable",
            scale=3,
        )
        parts["resume_run"] = gr.Button("Continue", scale=1, min_width=100, elem_id="pivotal_resume_run")
    parts["resumable_box"] = resumable
    build_longer(page)
    build_logs_panel(page)
    page.hidden_text("pick", "{}")
    page.html("beat", payload({"active": False}), classes=["pivotal-hidden"])
    page.hidden_button("refresh")


def bind_run_panel(page: Page) -> None:
    """Buttons steer the manager; the pulse shows what became of it."""
    parts, form = page.parts, page.form
    parts["sent"] = gr.State({})
    told = page.named("pick", "sent")
    outputs = refresh_outputs(page)

    def refresh(pick: str, known: dict[str, str] | None) -> Shown:
        return _refreshed(page, pick, known)

    quiet(parts["refresh"].click, refresh, told, outputs)

    def start(pick: str, known: dict[str, str] | None, overwrite: bool, *values: Any) -> Shown:
        run, faults = page.read(values)
        checked = page.controller.check(run, faults)
        try:
            page.controller.start(run, faults, overwrite=bool(overwrite))
            shown = page.say("", run, faults)
            shown |= page.shown(feedback=estimate(run, checked.samples), overwrite=False)  # the tick was for this run
        except PivotalError as error:
            shown = page.say(error_html(error), run, faults)
        return {**shown, **page.shown(facts=facts_of(checked)), **_refreshed(page, pick, known)}

    inputs = [*told, parts["overwrite"], *form.components]
    quiet(parts["train"].click, start, inputs, [*page.named("feedback", "said_now", "facts", "overwrite"), *outputs])

    def draw_class(pick: str, known: dict[str, str] | None, *values: Any) -> Shown:
        run, faults = page.read(values)
        try:
            from lib_pivotal.commands import runs  # here: only a click needs it

            runs.class_pictures(page.manager, runs.StartRequest(run))
            feedback = message("Class pictures are being made. Stop ends it; another click continues.", "info")
        except PivotalError as error:
            feedback = error_html(error)
        return {**page.say(feedback, run, faults), **_refreshed(page, pick, known)}

    drawn = [*page.named("feedback", "said_now"), *outputs]
    quiet(parts["class_pictures"].click, draw_class, [*told, *form.components], drawn)

    def command(verb: str) -> Any:
        def steer(pick: str, known: dict[str, str] | None) -> Shown:
            from lib_pivotal.commands import runs  # here: only a click needs it

            paused = (page.controller.snapshot() or {}).get("status") == "paused"
            with contextlib.suppress(HostError):  # nothing has run yet
                runs.steer(page.manager, "current", verb="resume" if verb == "pause" and paused else verb)
            return _refreshed(page, pick, known)

        return steer

    for name, verb in (("stop", "stop"), ("pause", "pause"), ("save_now", "save"), ("sample_now", "sample")):
        quiet(parts[name].click, command(verb), told, outputs)

    def live(on: bool) -> None:
        from lib_pivotal.commands import runs  # here: only a click needs it

        runs.use_live(page.manager, on=bool(on))

    page.bind_saying(parts["checkpoint"].click, lambda: _load_checkpoint(page))
    quiet(parts["live"].input, live, parts["live"])
    _bind_keep(page)
    _bind_resume(page)
    if page.extras.send_to_txt2img_js:
        parts["send"].click(fn=None, _js=page.extras.send_to_txt2img_js, inputs=[parts["send_text"]])


def refresh_outputs(page: Page) -> list[Any]:
    """Everything that a pulse may change."""
    names = (
        "sent",
        "start_box",
        "run_box",
        "pause",
        "checkpoint",
        "picked_box",
        "keep",
        "queue_tools",
        "queue_pause",
        "beat",
    )
    more = ("send", "send_text") if page.extras.send_to_txt2img_js else ()
    return page.named(*PIECES, *names, *more)


def _refreshed(page: Page, pick: str, known: dict[str, str] | None) -> Shown:
    """New values of what changed since the page was last told, and the new record of what it was told."""
    snapshot = page.controller.snapshot()
    chosen, listed = _chosen(pick), queue_listed(page)
    step = chosen.get("step")
    queue, queue_tools, queue_pause = queue_pieces(listed)
    pieces = {
        "head": run_html.head(snapshot, checkpoint=_checkpoint(page)),
        "progress": run_html.progress(snapshot),
        "queue": queue,
        "curves": run_html.curves(snapshot),
        "rows": run_html.rows(snapshot, column=chosen.get("column", ""), picked=step),
        "picked": run_html.picked_step(snapshot, step) if snapshot and step is not None else "",
        "notices": run_html.notices(snapshot),
        "outcome": run_html.outcome(snapshot),
        "logs": logs_html(snapshot),
    }
    active = run_html.is_active(snapshot)
    paused = snapshot is not None and snapshot["status"] == "paused"
    boxes: dict[str, Any] = {
        "start_box": {"visible": not active},
        "run_box": {"visible": active},
        "pause": {"value": "Resume" if paused else "Pause"},
        "checkpoint": {"visible": bool(snapshot and snapshot["needs_checkpoint"])},
        "picked_box": {"visible": bool(pieces["picked"])},
        "queue_tools": queue_tools,
        "queue_pause": queue_pause,
        "keep": {"value": f"Keep step {step}" if step is not None else "Keep this step"},
    }
    record: dict[str, str] = {}
    shown = page.shown(sent=record, beat=payload(_beat(snapshot, active=active or is_serving(listed))))
    for name, value in (pieces | boxes).items():
        record[name] = hashlib.sha1(json.dumps(value).encode()).hexdigest()
        if (known or {}).get(name) != record[name]:
            shown[page.parts[name]] = gr.update(**value) if isinstance(value, dict) else value
    if page.extras.send_to_txt2img_js:
        prompt = _first_prompt(snapshot)
        shown |= page.shown(send=gr.update(visible=bool(prompt)), send_text=prompt)
    return shown


_COUNT = itertools.count()


def _beat(snapshot: Any, *, active: bool) -> dict[str, Any]:
    """For `pivotal.js`: whether there is more to come, and of the run what a browser tab's title can say."""
    run = None
    if snapshot:
        said = {"title": run_html.tab_title(snapshot), "said": run_html.ended_line(snapshot)}
        run = {"id": snapshot["id"], "name": snapshot["name"], "active": run_html.is_active(snapshot), **said}
    return {"active": active, "count": next(_COUNT), "run": run}


def _chosen(pick: str) -> dict[str, Any]:
    try:
        found = parse_json(pick or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _checkpoint(page: Page) -> str:
    try:
        return page.manager.backend.checkpoint()
    except PivotalError:
        return ""


def _first_prompt(snapshot: Any) -> str:
    if not snapshot or not snapshot["ended"] or not snapshot["ended"]["bundle"]:
        return ""
    embeddings = snapshot["facts"].get("embeddings", [])
    return f"<lora:{Path(snapshot['ended']['bundle']).stem}:1> {embeddings[0] if embeddings else ''}".strip()


def _bind_keep(page: Page) -> None:
    def keep(pick: str) -> str:
        step = _chosen(pick).get("step")
        if step is None:
            return message("Choose a step first: click its number above the pictures.", "info")
        try:
            return message(page.controller.keep(int(step)), "ok")
        except (PivotalError, OSError) as error:
            return error_html(error)

    quiet(page.parts["keep"].click, keep, page.parts["pick"], page.parts["kept"])


def _load_checkpoint(page: Page) -> str:
    from lib_pivotal.commands import runs  # here: only a click needs it

    try:
        runs.load_checkpoint(page.manager, "current")
    except PivotalError as error:
        return error_html(error)
    return ""


def _bind_resume(page: Page) -> None:
    parts = page.parts

    def resume(name: str | None, overwrite: bool) -> str:
        if not name:
            return message("Choose a run first.", "info")
        try:
            from lib_pivotal.commands import runs  # here: only a click needs it

            runs.continue_run(page.manager, name, overwrite=bool(overwrite))
        except PivotalError as error:
            return error_html(error)
        return ""

    page.bind_saying(parts["resume_run"].click, resume, page.named("resumable", "overwrite")).then(
        fn=None, _js="() => { document.querySelector('#pivotal_refresh')?.click(); }", queue=False
    )
