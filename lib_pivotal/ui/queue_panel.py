"""The queue on the Train page: add a run or a sweep, put them in order, let it wait, go on; and longer runs."""

from __future__ import annotations

from typing import Any

import gradio as gr

from lib_pivotal.errors import ConfigError, PivotalError
from lib_pivotal.ui.page import Page, Shown, error_html, facts_of, message, quiet
from lib_pivotal.ui.queue_html import queue_html

REFRESH_JS = "() => { document.querySelector('#pivotal_refresh')?.click(); }"
EMPTY: dict[str, Any] = {"paused": False, "notice": "", "runs": [], "sweeps": []}


def build_queue_panel(page: Page) -> None:
    """The table, its buttons, and the field for a sweep."""
    parts = page.parts
    page.html("queue")
    with gr.Row(visible=False, elem_id="pivotal_queue_tools", elem_classes=["pivotal-tools"]) as tools:
        parts["queue_pause"] = gr.Button(
            "Pause the queue", size="sm", elem_id="pivotal_queue_pause", scale=0, min_width=160
        )
        parts["queue_clear"] = gr.Button(
            "Remove ended runs", size="sm", elem_id="pivotal_queue_clear", scale=0, min_width=160
        )
    parts["queue_tools"] = tools
    with gr.Accordion("Sweep", open=False, elem_id="pivotal_queue_sweep_box", elem_classes=["pivotal-group"]):
        parts["queue_sweep"] = gr.Textbox(
            "",
            label="Values of one or two settings",
            info="A setting a line, as in run.json. Add to queue then adds a run for each value, or pair of values.",
            placeholder="network.unet_lr = 1e-4, 3e-4",
            lines=2,
            elem_id="pivotal_queue_sweep",
        )
    page.hidden_text("queue_act")
    page.hidden_button("queue_do")


def build_longer(page: Page) -> None:
    """Runs that came to their end, and how long they shall be."""
    parts = page.parts
    with gr.Row(visible=False, elem_id="pivotal_finished_box", elem_classes=["pivotal-row"]) as box:
        parts["finished"] = gr.Dropdown(
            [],
            label="Continue a finished run",
            info="With its own settings, from its last saved state.",
            elem_id="pivotal_finished",
            scale=3,
        )
        parts["finished_steps"] = gr.Number(
            0, label="Steps in all", precision=0, elem_id="pivotal_finished_steps", scale=1, min_width=110
        )
        parts["go_further"] = gr.Button("Continue", scale=1, min_width=100, elem_id="pivotal_go_further")
    parts["finished_box"] = box


def bind_queue_panel(page: Page) -> None:
    """Every event ends with the pulse, which shows the queue as it is then."""
    parts = page.parts

    def add(overwrite: bool, sweep: str, *values: Any) -> Shown:
        run, faults = page.read(values)
        checked = page.controller.check(run, faults)
        try:
            if checked.faults:
                raise ConfigError(checked.faults)
            shown = page.say(message(_added(page, run, sweep, bool(overwrite)), "ok"), run, faults)
            shown |= page.shown(overwrite=False, queue_sweep="")
        except PivotalError as error:
            shown = page.say(error_html(error), run, faults)
        return {**shown, **page.shown(facts=facts_of(checked))}

    inputs = [*page.named("overwrite", "queue_sweep"), *page.form.components]
    outputs = page.named("feedback", "said_now", "facts", "overwrite", "queue_sweep")
    _then_refresh(quiet(parts["queue_add"].click, add, inputs, outputs))
    _then_refresh(page.bind_saying(parts["queue_do"].click, lambda act: _act(page, act), [parts["queue_act"]]))
    _then_refresh(page.bind_saying(parts["queue_pause"].click, lambda: _act(page, "pause")))
    _then_refresh(page.bind_saying(parts["queue_clear"].click, lambda: _act(page, "clear")))
    longer = page.named("finished", "finished_steps", "overwrite")
    _then_refresh(page.bind_saying(parts["go_further"].click, lambda *given: _longer(page, *given), longer))


def queue_listed(page: Page) -> dict[str, Any]:
    """The queue as it is now; a folder that cannot be read is told in its place."""
    from lib_pivotal.commands import queue as commands  # here: the page is built at start-up

    try:
        return commands.listing(commands.QueuePlace.of_manager(page.manager)).as_dict()
    except PivotalError as error:
        return {**EMPTY, "notice": str(error)}


def queue_pieces(listed: dict[str, Any]) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The table, whether its buttons are seen, and what the first one does."""
    label = "Resume the queue" if listed["paused"] else "Pause the queue"
    return queue_html(listed), {"visible": bool(listed["runs"])}, {"value": label}


def is_serving(listed: dict[str, Any]) -> bool:
    """Whether the queue will begin a run by itself."""
    return not listed["paused"] and any(entry["state"] in ("waiting", "running") for entry in listed["runs"])


def _added(page: Page, run: Any, sweep: str, overwrite: bool) -> str:
    from lib_pivotal.commands import queue as commands  # here: only a click needs it
    from lib_pivotal.runs.sweep import read_axis

    axes = tuple(read_axis(line) for line in sweep.splitlines() if line.strip())
    place = commands.QueuePlace.of_manager(page.manager)
    added = commands.add(place, commands.AddRequest(run, sweep=axes, overwrite=overwrite))
    waits = " The queue is paused." if place.look().paused else ""
    return (
        f"{added[0].name} is in the queue.{waits}" if len(added) == 1 else f"{len(added)} runs are in the queue.{waits}"
    )


def _act(page: Page, act: str) -> str:
    """`up:3`, `remove:3`, `pause`: what a button says."""
    from lib_pivotal.commands import queue as commands  # here: only a click needs it

    verb, _, number = act.partition(":")
    try:
        place = commands.QueuePlace.of_manager(page.manager)
        if verb == "pause":
            (commands.resume if place.look().paused else commands.pause)(place)
        elif verb == "clear":
            commands.clear(place)
        elif verb in commands.ONE_ENTRY and number.isdigit():
            commands.ONE_ENTRY[verb](place, int(number))
    except PivotalError as error:
        return error_html(error)
    return ""


def _longer(page: Page, run_id: str | None, steps: float | None, overwrite: bool) -> str:
    from lib_pivotal.commands import runs  # here: only a click needs it

    if not run_id or not steps:
        return message("Choose a run, and how many steps it shall have in all.", "info")
    try:
        runs.continue_run(page.manager, run_id, overwrite=bool(overwrite), max_steps=int(steps))
    except PivotalError as error:
        return error_html(error)
    return ""


def _then_refresh(event: Any) -> None:
    event.then(fn=None, _js=REFRESH_JS, queue=False)
