"""The settings of the Train page: presets, the few that matter, the rest folded, and what is found before the start."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

import gradio as gr

from lib_pivotal.commands.settings import FATES, SUFFIXES
from lib_pivotal.errors import Fault, PivotalError
from lib_pivotal.runs.balance import DEFAULT_STOP, STOPS, balance_of, described, stop, with_balance
from lib_pivotal.runs.presets import PRESETS, load_preset, save_preset
from lib_pivotal.ui.changes_panel import follow
from lib_pivotal.ui.data_panel import DATA_PARTS, data_shown
from lib_pivotal.ui.form import GROUPS
from lib_pivotal.ui.page import (
    CHECK_JS,
    Page,
    Shown,
    answer,
    error_html,
    facts_of,
    faults_list,
    message,
    note,
    quiet,
    still_said,
)
from lib_pivotal.ui.plan_panel import PLAN_PARTS, plan_shown
from lib_pivotal.ui.run_html import clock

if TYPE_CHECKING:
    from lib_pivotal.commands.settings import Imported, KeyFate, KeyReport
    from lib_pivotal.config import Run

FOLDED = [group for group in GROUPS if group not in ("data", "main")]
BALANCE_PARTS = ("balance", "balance_help")
HELP = '<div class="pivotal-help"></div>'


def build_top(page: Page) -> None:
    """Preset and name of the file: the left part of the page's first row."""
    page.parts["preset_labels"] = {preset.key: preset.label for preset in PRESETS}
    labels = list(page.parts["preset_labels"].values())
    with gr.Row(elem_classes=["pivotal-row"]):
        page.parts["preset"] = gr.Dropdown(
            labels, value=labels[0], label="Preset", elem_id="pivotal_preset", interactive=True, min_width=200
        )
        page.form.add("name", min_width=200, placeholder="my-first-bundle")
    with gr.Row(elem_classes=["pivotal-row", "pivotal-under"]):
        page.html("preset_help", note("info", PRESETS[0].said))
        with gr.Column(min_width=200):
            page.html("name_note", note("info", "In prompts: <lora:NAME:1>"))
            page.parts["overwrite"] = gr.Checkbox(
                False, label="Replace files of this name", elem_id="pivotal_overwrite", container=False
            )


def build_balance(page: Page) -> None:
    """The dial: how much the embedding carries, and what the chosen stop says and sets."""
    page.parts["balance"] = gr.Radio(
        [one.label for one in STOPS],
        value=stop(DEFAULT_STOP).label,
        label="Balance: what the embedding carries",
        elem_id="pivotal_balance",
        interactive=True,
    )
    page.html("balance_help", balance_note(DEFAULT_STOP))


def balance_note(key: str) -> str:
    """A stop's sentence and what it sets; of no stop, that there is none."""
    if not key:
        return note("info", "These settings are none of the stops; a click on one sets them.")
    return note("info", f"{stop(key).help} Sets: {described(key)}.")


def balance_shown(page: Page, run: Run) -> Shown:
    """The dial as a run's settings have it."""
    key = balance_of(run)
    return page.shown(balance=gr.update(value=stop(key).label if key else None), balance_help=balance_note(key))


def build_settings(page: Page) -> None:
    """All settings of the Train page."""
    with gr.Column(elem_classes=["pivotal-settings"], elem_id="pivotal_settings"):
        with gr.Column(elem_classes=["pivotal-group", "pivotal-main"]):
            page.form.add_group("main", columns=4)
            gr.HTML(HELP, elem_classes=["pivotal-html"])
        for group in FOLDED:
            with gr.Accordion(
                GROUPS[group], open=False, elem_id=f"pivotal_group_{group}", elem_classes=["pivotal-group"]
            ):
                page.form.add_group(group, columns=3)
                if group == "regularisation":
                    page.parts["class_pictures"] = gr.Button(
                        "Make the class pictures with this checkpoint", size="sm", elem_id="pivotal_class_pictures"
                    )
                gr.HTML(HELP, elem_classes=["pivotal-html"])
        with gr.Accordion("Load and save settings", open=False, elem_id="pivotal_load", elem_classes=["pivotal-group"]):
            _build_loading(page)


def _build_loading(page: Page) -> None:
    parts = page.parts
    with gr.Row(elem_classes=["pivotal-row"]):
        parts["load_bundle"] = gr.Dropdown(
            [],
            label="Settings of a file in the LoRA folder",
            info="All settings of the run that made it.",
            elem_id="pivotal_load_bundle",
            scale=3,
        )
        parts["load_bundle_now"] = gr.Button("Load", scale=1, min_width=80, elem_id="pivotal_load_bundle_now")
    with gr.Row(elem_classes=["pivotal-row"]):
        parts["preset_name"] = gr.Textbox(
            label="Save these settings as a preset",
            info="A name for it.",
            elem_id="pivotal_preset_name",
            max_lines=1,
            scale=3,
        )
        parts["preset_overwrite"] = gr.Checkbox(
            False, label="Replace an existing preset", elem_id="pivotal_preset_overwrite", container=False, scale=1
        )
        parts["preset_save"] = gr.Button("Save", scale=1, min_width=80, elem_id="pivotal_preset_save")
    with gr.Row(elem_classes=["pivotal-row"]):
        parts["upload"] = gr.UploadButton(
            "Load settings: run.json, HCP, kgrid, kohya, OneTrainer",
            file_types=list(SUFFIXES),
            elem_id="pivotal_upload",
            size="sm",
            scale=3,
        )
        parts["download_make"] = gr.Button(
            "Download run.json", size="sm", elem_id="pivotal_download_make", scale=1, min_width=130
        )
    parts["download"] = gr.File(label="run.json", visible=False, elem_id="pivotal_download")
    page.html("loaded")


def bind_train_panel(page: Page) -> None:
    """Check as one types; presets; settings in and out; the dry step."""
    parts, form = page.parts, page.form

    def check(said_now: Any, *values: Any) -> Shown:
        run, faults = page.read(values)
        follow(page, run)
        shown = {**check_shown(page, run, faults), **plan_shown(page, run), **balance_shown(page, run)}
        if said := still_said(said_now, run, faults):
            shown |= page.shown(feedback=said)
        return {**shown, **page.shown(check_answered=answer())}

    outputs = [*page.named("feedback", "facts", "name_note", *PLAN_PARTS, *BALANCE_PARTS), page.answered("check")]
    quiet(page.hidden_button("check").click, check, [parts["said_now"], *form.components], outputs)
    _bind_presets(page)
    _bind_loading(page)

    def preflight(*values: Any) -> Shown:
        from lib_pivotal.commands import runs  # here: only a click needs it

        run, faults = page.read(values)
        checked = page.controller.check(run, faults)
        try:
            said = faults_list(checked.faults) or preflight_html(runs.preflight(page.manager, runs.StartRequest(run)))
        except PivotalError as error:
            said = error_html(error)
        return {**page.say(said, run, faults), **page.shown(facts=facts_of(checked))}

    parts["preflight"].click(
        fn=preflight,
        inputs=form.components,
        outputs=page.named("feedback", "said_now", "facts"),
        show_progress="minimal",
        queue=False,
        api_name=False,
    )


def check_shown(page: Page, run: Run, faults: list[Fault]) -> Shown:
    """Feedback, facts for `pivotal.js`, and the remark under the name."""
    checked = page.controller.check(run, faults)
    level, text = checked.name_note
    unsaid = {"data.folder"} if run.embeddings else {"data.folder", "schedule.embeddings_only_share"}
    faulty = faults_list([f for f in checked.faults if f.field not in unsaid])  # a scan finds the embeddings
    feedback = faulty or estimate(checked.run, checked.samples)
    feedback += "".join(message(remark, "info") for remark in checked.remarks)
    return page.shown(feedback=feedback, facts=facts_of(checked), name_note=note(level, text))


def estimate(run: Run, samples: dict[str, float]) -> str:
    """What can be said without the model."""
    count = run.schedule.total_steps * run.schedule.batch_size * run.schedule.accumulation
    parts = [f"{run.schedule.total_steps} steps, {count} samples"]
    if run.schedule.epochs:
        parts = [f"{run.schedule.epochs} epochs: Scan converts them to steps"]
    if samples:
        least = min(samples, key=lambda name: samples[name])
        parts.append(
            f"at least {samples[least]:.0f} samples per embedding"
            if len(samples) > 1
            else f"{samples[least]:.0f} samples of {least}"
        )
    return f'<div class="pivotal-before"><b>Before it starts</b> {" · ".join(parts)}</div>'


def preflight_html(found: Any) -> str:
    """The dry step's result in one line, and its remarks."""
    if found.faults:
        return faults_list(found.faults)
    parts = [f"one step takes {found.step_s:.2f} s", f"the run takes {clock(found.total_s)}"] if found.step_s else []
    if found.memory_bytes is not None:
        parts.append(f"needs {in_gb(found.memory_bytes)} of memory{_fits(found)}")
    if found.samples:
        parts.append(f"at least {min(found.samples.values()):.0f} samples per embedding")
    remarks = "".join(message(remark, "info") for remark in found.remarks)
    return f'<div class="pivotal-before"><b>Before it starts</b> {" · ".join(parts)}</div>{memory_html(found)}{remarks}'


def memory_html(found: Any) -> str:
    """What the memory is for, a bar each, at the moment that needs most."""
    if not found.memory_parts:
        return ""
    most = max(found.memory_parts.values())
    rows = "".join(
        f"<tr><td>{escape(name)}</td><td>{in_gb(size)}</td>"
        f'<td class="pivotal-bar"><i style="width:{100 * size / most:.1f}%"></i></td></tr>'
        for name, size in found.memory_parts.items()
    )
    total = in_gb(sum(found.memory_parts.values()))
    caption = f"Counted at the peak, {escape(found.memory_moment)}: {total}"
    return f'<table class="pivotal-memory"><caption>{caption}</caption>{rows}</table>'


def in_gb(size: int) -> str:
    """Bytes as people read them."""
    return f"{size / 2**30:.1f} GB" if size >= 0.1 * 2**30 else f"{size / 2**20:.1f} MB"


def _fits(found: Any) -> str:
    if found.memory_free_bytes is None or found.memory_fits is None:
        return ""
    free = in_gb(found.memory_free_bytes)
    return f", fits: {free} available" if found.memory_fits else f", <b>does not fit</b>: {free} available"


def _bind_presets(page: Page) -> None:
    parts, form = page.parts, page.form
    keys = {preset.label: preset for preset in PRESETS}

    def choose(label: str, *values: Any) -> Shown:
        run = page.read(values)[0]
        try:
            if label in keys:
                run = page.controller.with_preset(keys[label].key, run, page.controller.rows(run))
                remark = note("info", keys[label].said)
            else:
                run = load_preset(page.controller.own_presets()[label], run)
                remark = note("info", "A preset of your own.")
        except (PivotalError, KeyError) as error:
            return page.shown(preset_help=note("error", str(error)))
        shown = page.shown(words_table=page.embeddings_table(run), preset_help=remark)
        return {**form.fill(run), **shown, **balance_shown(page, run)}

    outputs = [*form.components, *page.named("words_table", "preset_help", *BALANCE_PARTS)]
    quiet(parts["preset"].input, choose, [parts["preset"], *form.components], outputs).then(
        fn=None, _js=CHECK_JS, queue=False
    )
    _bind_balance(page)

    def keep(name: str, overwrite: bool, *values: Any) -> Shown:
        folder, run = page.controller.presets_folder(), page.read(values)[0]
        try:
            path = save_preset(folder, name or "", run, overwrite=bool(overwrite))
        except (PivotalError, OSError) as error:
            return page.shown(loaded=message(str(error)))
        choices = [*keys, *page.controller.own_presets()]
        said = message(f"Saved. It is listed as {path.stem} among the presets.", "ok")
        return page.shown(loaded=said, preset=gr.update(choices=choices), preset_overwrite=False)

    named = page.named("preset_name", "preset_overwrite")
    outputs = page.named("loaded", "preset", "preset_overwrite")
    quiet(parts["preset_save"].click, keep, [*named, *form.components], outputs)


def _bind_balance(page: Page) -> None:
    """A stop sets several fields at once, which are seen to change."""
    parts, form = page.parts, page.form
    keys = {one.label: one.key for one in STOPS}

    def turn(label: str, *values: Any) -> Shown:
        run = page.read(values)[0]
        styles = [row.embedding.name for row in page.controller.rows(run) if row.style]
        run = with_balance(run, keys[label], styles=styles)
        shown = page.shown(words_table=page.embeddings_table(run), balance_help=balance_note(keys[label]))
        return {**form.fill(run), **shown}

    outputs = [*form.components, *page.named("words_table", "balance_help")]
    quiet(parts["balance"].input, turn, [parts["balance"], *form.components], outputs).then(
        fn=None, _js=CHECK_JS, queue=False
    )


def _bind_loading(page: Page) -> None:
    parts, form = page.parts, page.form
    outputs = [*form.components, *page.named("loaded", *DATA_PARTS)]

    def load(path: Path, now: Run | None = None) -> Shown:
        report = ""
        try:
            found = page.controller.imported(path) if now is not None else None
            if found is not None and now is not None:
                run, report = found.over(now), report_html(found)
            else:
                run = page.controller.settings_of(path)
        except (PivotalError, OSError) as error:
            return page.shown(loaded=error_html(error))
        try:
            text, level = f"Loaded from {path.name}. Give the folder of pictures on the Data page.", "ok"
            if run.data.folder:
                page.controller.scan(run.data.folder, run.data)
                text = f"Loaded from {path.name}."
        except PivotalError as error:
            text, level = f"Loaded from {path.name}; but its pictures are not here: {error}", "warning"
        return {**form.fill(run), **data_shown(page, run), **page.shown(loaded=message(text, level) + report)}

    def upload(file: Any, *values: Any) -> Shown:
        return load(Path(file.name), page.read(values)[0])

    def load_bundle(name: str | None) -> Shown:
        if not name:
            return page.shown(loaded=message("Choose a file first.", "info"))
        try:
            return load(page.bundles.path(name))
        except PivotalError as error:
            return page.shown(loaded=error_html(error))

    quiet(parts["load_bundle_now"].click, load_bundle, parts["load_bundle"], outputs)
    quiet(parts["upload"].upload, upload, [parts["upload"], *form.components], outputs).then(
        fn=None, _js=CHECK_JS, queue=False
    )

    def make(*values: Any) -> Any:
        run = page.read(values)[0]
        return gr.update(value=str(page.controller.run_file(run)), visible=True)

    quiet(parts["download_make"].click, make, form.components, parts["download"])


OPEN: tuple[KeyFate, ...] = ("not supported", "translated")
ORDER: tuple[KeyFate, ...] = ("not supported", "translated", "taken", "ignored")
MANY = 12
"""From so many lines on there is a field that finds among them."""
FIND = (
    '<div class="pivotal-find"><input type="search" data-narrows="#pivotal_import_report" placeholder="Find a key" '
    'aria-label="Find a key" title="Only lines that hold this text"><small></small></div>'
)
TOLD: dict[KeyFate, str] = {
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


def _table(fate: KeyFate, lines: list[KeyReport]) -> str:
    rows = "".join(_row(line) for line in lines)
    state = " open" if fate in OPEN else ""
    head = f"<summary>{fate} ({len(lines)}) <span>{TOLD[fate]}</span></summary>"
    columns = "<tr><th>key</th><th>value</th><th>became</th></tr>"
    table = f'<div class="scroll"><table><thead>{columns}</thead><tbody>{rows}</tbody></table></div>'
    return f'<details class="{_class(fate)}"{state}>{head}{table}</details>'


def _row(line: KeyReport) -> str:
    became = f"<code>{escape(line.became)}</code> " if line.became else ""
    mark = ' data-narrow="1"' if line.known else ' data-narrow="1" class="unknown"'
    value = f"<i>{escape(line.shown_value())}</i>" if line.added else escape(line.shown_value())
    return f"<tr{mark}><td>{escape(line.key)}</td><td>{value}</td><td>{became}{escape(line.why)}</td></tr>"


def _class(fate: KeyFate) -> str:
    return fate.replace(" ", "-")
