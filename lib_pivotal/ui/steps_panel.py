"""Choose the step: a ranked strip of a run's kept steps, and a button at each that puts it into the LoRA folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.errors import PivotalError
from lib_pivotal.evaluation.step_choice import figure_kind
from lib_pivotal.ui import thumbs
from lib_pivotal.ui.page import Page, Shown, error_html, message, quiet

if TYPE_CHECKING:
    from lib_pivotal.commands.steps import Ranking

PICTURE_PX = 192
SHOWN = 24


def build_steps_panel(page: Page) -> None:
    """The run, what scores pictures, and the strip."""
    parts = page.parts
    with gr.Accordion("Choose the step", open=False, elem_id="pivotal_steps_box", elem_classes=["pivotal-group"]):
        with gr.Row(elem_classes=["pivotal-row"]):
            parts["steps_run"] = gr.Dropdown(
                [],
                label="Run",
                info="Those with kept steps. Empty: the present one, or the last.",
                elem_id="pivotal_steps_run",
                scale=3,
                min_width=180,
            )
            parts["steps_by"] = gr.CheckboxGroup(
                [],
                label="Picture scorers",
                info="Programs that look at the samples.",
                visible=False,
                elem_id="pivotal_steps_by",
                scale=2,
            )
        with gr.Row(elem_classes=["pivotal-tools"]):
            parts["steps_rank"] = gr.Button(
                "Rank the steps", size="sm", elem_id="pivotal_steps_rank", scale=0, min_width=160
            )
            parts["steps_measure"] = gr.Button(
                "Measure, then rank", size="sm", elem_id="pivotal_steps_measure", scale=0, min_width=160
            )
        page.html("steps_said")
        page.html("steps")
        page.hidden_text("steps_act")
        page.hidden_button("steps_do")


def bind_steps_panel(page: Page) -> None:
    """Rank, and use."""
    parts = page.parts

    def ranked(run_id: str | None, by: Sequence[str] | None) -> Shown:
        from lib_pivotal.commands import steps  # here: only a click needs it

        try:
            found = steps.rank_steps(steps.run_folder(page.manager, _chosen(page, run_id)), by=tuple(by or ()))
        except (PivotalError, OSError) as error:
            return page.shown(steps="", steps_said=error_html(error))
        return page.shown(steps=steps_html(found), steps_said=message(found.said, "info"))

    def measured(run_id: str | None, by: Sequence[str] | None) -> Shown:
        from lib_pivotal.commands import steps  # here: as above

        try:
            steps.measure_run(page.manager, _chosen(page, run_id))
        except (PivotalError, OSError) as error:
            return page.shown(steps="", steps_said=error_html(error))
        return ranked(run_id, by)

    def use(act: str) -> str:
        from lib_pivotal.commands import steps  # here: as above

        run_id, _, step = act.rpartition(":")
        try:
            return message(steps.use_step(page.manager, run_id, step=int(step)).said, "ok")
        except (PivotalError, OSError, ValueError) as error:
            return error_html(error)

    quiet(parts["steps_rank"].click, ranked, page.named("steps_run", "steps_by"), page.named("steps", "steps_said"))
    parts["steps_measure"].click(  # it takes a while: gradio's own progress, as for a scan and a comparison
        measured,
        page.named("steps_run", "steps_by"),
        page.named("steps", "steps_said"),
        show_progress="minimal",
        queue=False,
        api_name=False,
    )
    quiet(parts["steps_do"].click, use, parts["steps_act"], parts["steps_said"])


def steps_choices(page: Page) -> dict[str, Any]:
    """Runs and scorers, as they are now: new values of the panel's parts by name."""
    from lib_pivotal.commands import steps  # here: the page is built at start-up

    try:
        runs = steps.runs_with_steps(page.manager)
    except (PivotalError, OSError):
        runs = []
    scorers = steps.scorers()
    return {
        "steps_run": gr.update(choices=runs, value=runs[0] if runs else None),
        "steps_by": gr.update(choices=scorers, visible=bool(scorers)),
    }


def steps_html(ranking: Ranking) -> str:
    """The strip, best first."""
    cells = "".join(_cell(one.record, one.score, place, ranking) for place, one in enumerate(ranking.steps[:SHOWN]))
    return f'<div class="pivotal-steps">{cells}</div>'


def _cell(record: Any, score: float | None, place: int, ranking: Ranking) -> str:
    uri = thumbs.thumbnail(str(record.picture), PICTURE_PX) if record.picture is not None else ""
    alt = f"step {record.step}"
    picture = f'<img src="{uri}" alt="{alt}" data-zoom="1">' if uri else "<i></i>"
    title = f"Use step {record.step}: copy it into the LoRA folder"
    best = " best" if place == 0 else ""
    shown = "" if score is None else f'<small title="score, 0 to 1">{score:.2f}</small>'
    return (
        f'<figure class="{best.strip()}">{picture}<figcaption><b>step {record.step}</b>{shown}</figcaption>'
        f"<ul>{_figures(record.figures)}</ul>"
        f'<button type="button" class="pivotal-mini" data-use="{escape(ranking.folder.name)}:{record.step}" '
        f'title="{title}">Use this one</button></figure>'
    )


def _figures(figures: Mapping[str, float]) -> str:
    return "".join(
        f"<li><span>{escape(figure_kind(name).title)}</span> <b>{_rounded(value)}</b></li>"
        for name, value in figures.items()
    )


def _rounded(value: float) -> str:
    """Three digits, the zeros at the end among them: figures of neighbouring steps are compared by eye."""
    return f"{value:#.3g}".removesuffix(".")


def _chosen(page: Page, run_id: str | None) -> str:
    if run_id:
        return run_id
    from lib_pivotal.commands import steps  # here: as above

    if page.manager.current is not None:
        return "current"
    return next(iter(steps.runs_with_steps(page.manager)), "current")
