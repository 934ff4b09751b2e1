"""The page "Pivotal tuning": one call builds it, for the web UI and for the page that stands alone."""

from __future__ import annotations

import contextlib

import gradio as gr

from lib_pivotal.config import Run
from lib_pivotal.errors import PivotalError
from lib_pivotal.runs.manager import RunManager
from lib_pivotal.runs.presets import PRESETS
from lib_pivotal.ui import run_html
from lib_pivotal.ui.bundles_panel import bind_bundles_panel, build_bundles_panel
from lib_pivotal.ui.caption_editor import bind_caption_editor, build_caption_editor
from lib_pivotal.ui.captions_panel import bind_captions_panel, build_captions_panel
from lib_pivotal.ui.compare_panel import bind_compare_panel, build_compare_panel
from lib_pivotal.ui.data_panel import DATA_PARTS, bind_data_panel, build_data_panel, data_shown
from lib_pivotal.ui.gallery_panel import bind_gallery_panel, build_gallery_panel
from lib_pivotal.ui.logs_panel import bind_logs_panel
from lib_pivotal.ui.mask_panel import bind_mask_panel, build_mask_panel
from lib_pivotal.ui.page import Page, Shown, TabExtras, note, payload, quiet
from lib_pivotal.ui.plan_panel import build_plan_panel
from lib_pivotal.ui.queue_panel import bind_queue_panel, build_queue_panel
from lib_pivotal.ui.run_panel import bind_run_panel, build_buttons, build_run_view
from lib_pivotal.ui.steps_panel import bind_steps_panel, steps_choices
from lib_pivotal.ui.tags_panel import bind_tags_panel, build_tags_panel
from lib_pivotal.ui.tooltips import tooltips
from lib_pivotal.ui.train_panel import bind_train_panel, build_balance, build_settings, build_top

AFTER_HELLO = """() => {
    document.querySelector("#pivotal_tab").dataset.greeted = "1";
    for (const name of ["refresh", "bundle_show", "compare_lists"]) {
        document.querySelector("#pivotal_" + name)?.click();
    }
    window.pivotalPage?.redraw("check");
}"""

__all__ = ["TabExtras", "build_tab"]


def build_tab(manager: RunManager, *, extras: TabExtras | None = None) -> gr.Blocks:
    """The whole page as gradio Blocks; ids begin with `pivotal_`. Nothing of it is kept in the web UI's ui-config."""
    page = Page(manager, extras or TabExtras())
    with gr.Blocks(analytics_enabled=False) as blocks, gr.Column(elem_id="pivotal_tab"):
        page.html("head", run_html.head(None, checkpoint=""))
        page.html("hints", payload(tooltips()), classes=["pivotal-hidden"])
        page.html("facts", payload({"faults": [], "idle": [], "draws": {}}), classes=["pivotal-hidden"])
        with gr.Tabs(elem_id="pivotal_tabs"):
            with gr.Tab("Data", elem_id="pivotal_tab_data"):
                build_data_panel(page)
                build_plan_panel(page)
                build_tags_panel(page)
                build_gallery_panel(page)
                build_caption_editor(page)
                build_mask_panel(page)
                build_captions_panel(page)
            with gr.Tab("Train", elem_id="pivotal_tab_train"):
                _build_train(page)
            with gr.Tab("Bundles", elem_id="pivotal_tab_bundles"):
                build_bundles_panel(page)
            with gr.Tab("Compare", elem_id="pivotal_tab_compare"):
                build_compare_panel(page)
            if page.extras.more_tabs is not None:
                page.extras.more_tabs()
        page.hidden_button("hello")
        bind_data_panel(page)
        bind_tags_panel(page)
        bind_gallery_panel(page)
        bind_captions_panel(page)
        bind_caption_editor(page)
        bind_mask_panel(page)
        bind_train_panel(page)
        bind_run_panel(page)
        bind_queue_panel(page)
        bind_logs_panel(page)
        bind_steps_panel(page)
        bind_bundles_panel(page)
        bind_compare_panel(page)
        _bind_hello(page)
    for block in blocks.blocks.values():
        block.do_not_save_to_config = True
    return blocks


def _build_train(page: Page) -> None:
    with gr.Row(elem_id="pivotal_train_top", elem_classes=["pivotal-top"]):
        with gr.Column(scale=7, min_width=320, elem_classes=["pivotal-group"]):
            build_top(page)
            build_balance(page)
        with gr.Column(scale=4, min_width=280, elem_classes=["pivotal-buttons"]):
            build_buttons(page)
    page.html("feedback")
    page.parts["said_now"] = gr.State(None)  # by a button: see Page.say
    page.html("progress", run_html.progress(None))
    build_queue_panel(page)
    with gr.Row(elem_id="pivotal_train_body"):
        with gr.Column(scale=5, min_width=320):
            build_settings(page)
        with gr.Column(scale=6, min_width=320):
            build_run_view(page)


def _bind_hello(page: Page) -> None:
    """A fresh page: shows the settings of the run that goes on or went before, its lists, and asks for the state."""
    parts, form = page.parts, page.form

    def hello() -> Shown:
        run, shown = page.controller.remembered(), _lists(page)
        if run is None:
            return shown
        shown[parts["preset"]]["value"] = None
        remark = note("info", "Settings of the last run. A preset replaces them.")
        return {**shown, **form.fill(run), **_data_of(page, run), **page.shown(preset_help=remark)}

    def again() -> Shown:
        return _lists(page)

    lists = page.named(
        "preset", "load_bundle", "resumable", "resumable_box", "finished", "finished_box", "steps_run", "steps_by"
    )
    event = quiet(
        parts["hello"].click, hello, None, [*form.components, *page.named(*DATA_PARTS), *lists, parts["preset_help"]]
    )
    quiet(page.hidden_button("lists").click, again, None, lists)
    event.then(fn=None, _js=AFTER_HELLO, queue=False)


def _lists(page: Page) -> Shown:
    """Presets, bundles, and interrupted runs, as they are now."""
    controller = page.controller
    try:
        resumable, finished = controller.interrupted(), controller.finished()
        presets = [*(preset.label for preset in PRESETS), *controller.own_presets()]
    except PivotalError:
        resumable, finished, presets = [], [], [preset.label for preset in PRESETS]
    return page.shown(
        preset=gr.update(choices=presets),
        load_bundle=gr.update(choices=_bundles(page)),
        resumable=gr.update(choices=resumable, value=resumable[0] if resumable else None),
        resumable_box=gr.update(visible=bool(resumable) and not controller.running()),
        finished=gr.update(choices=finished, value=finished[0] if finished else None),
        finished_box=gr.update(visible=bool(finished) and not controller.running()),
        **steps_choices(page),
    )


def _data_of(page: Page, run: Run) -> Shown:
    if page.controller.dataset(run.data.folder) is None:
        with contextlib.suppress(PivotalError):  # the folder may be gone: its settings are shown all the same
            page.controller.scan(run.data.folder, run.data)
    return data_shown(page, run)


def _bundles(page: Page) -> list[str]:
    try:
        return page.controller.bundles()
    except (PivotalError, OSError):
        return []
